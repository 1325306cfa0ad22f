"""Where the values of a pin stand, as policies name them: `context.args.amount_cents`, `resource.owner`.

One rule: one walk. What is listed, left out and replaced all go by it, so no value is in a pin without a name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runtime.entities import EntityUid
from workbench.undecided import PARENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.atoms import Path
    from workbench.pinning.pinned import PinFile, PinnedFact, PinnedRequest


class _Gone:
    """Says that a member is taken out."""

    def __repr__(self) -> str:
        return "GONE"


GONE: Final = _Gone()

TENANT: Path = ("context", "tenant")
BEHALF: Path = ("context", "on_behalf_of")
PRINCIPAL: Path = ("principal", "id")


def dotted(path: Path) -> str:
    """Write a name."""
    return ".".join(path)


def rewritten(pin: PinFile, change: Callable[[Path, Any], Any]) -> PinFile:
    """Return the pin with values changed; what it says of them (`clear`, `hidden`) is left as it is.

    Args:
        pin: whatever it holds.
        change: takes a name and what stands there; returns the same object to go on below it, `GONE`, or what to put
            there.
    """
    patched = pin.patched
    if patched is not None:
        args = _inside(("context", "args"), patched.args, change)
        patched = replace(patched, args=args, facts=_facts(patched.facts, change))
    grants = pin.grants
    if grants is not None:
        approval = _changed(("context", "approval"), grants.approval, change)
        grants = replace(grants, approval=None if approval is GONE else approval)
    return replace(
        pin,
        request=_request(pin.request, change),
        facts=_facts(pin.facts, change),
        patched=patched,
        grants=grants,
    )


def _request(asked: PinnedRequest, change: Callable[[Path, Any], Any]) -> PinnedRequest:
    behalf = asked.on_behalf_of
    return replace(
        asked,
        principal=_uid(PRINCIPAL, asked.principal, change),
        on_behalf_of=None if behalf is None else _uid(BEHALF, behalf, change),
        tenant=change(TENANT, asked.tenant),
        args=_inside(("context", "args"), asked.args, change),
        session=_inside(("context", "session"), asked.session, change),
        limits=_inside(("limits",), asked.limits, change),
    )


def _uid(path: Path, text: str, change: Callable[[Path, Any], Any]) -> str:
    uid = EntityUid.parse(text)
    return str(EntityUid(uid.type, change(path, uid.id)))


def _facts(facts: dict[str, PinnedFact], change: Callable[[Path, Any], Any]) -> dict[str, PinnedFact]:
    found = ((name, _fact(name, fact, change)) for name, fact in facts.items())
    return {name: fact for name, fact in found if fact is not None}


def _fact(name: str, fact: PinnedFact, change: Callable[[Path, Any], Any]) -> PinnedFact | None:
    """A fact with its members changed; None: nothing is left of it."""
    root = root_of(name, fact)
    value = _changed(root, fact.value, change) if fact.into == "context" else fact.value
    if value is GONE:
        return None
    if fact.into != "context" and isinstance(value, dict):
        value = _inside(root, value, change)
    parents = fact.parents
    if parents:
        parents = change((root[0], PARENTS), parents)
        parents = [] if parents is GONE else parents
    empty = fact.status == "found" and not value and not parents
    return None if empty and (fact.value or fact.parents) else replace(fact, value=value, parents=parents)


def root_of(name: str, fact: PinnedFact) -> Path:
    """Return where policies have a fact."""
    return ("context", name) if fact.into == "context" else (fact.into,)


def _inside(path: Path, members: dict[str, Any], change: Callable[[Path, Any], Any]) -> dict[str, Any]:
    found = ((name, _changed((*path, name), each, change)) for name, each in members.items())
    return {name: each for name, each in found if each is not GONE}


def _changed(path: Path, value: Any, change: Callable[[Path, Any], Any]) -> Any:
    found = change(path, value)
    if found is not value:
        return found
    if isinstance(value, dict):
        return _inside(path, value, change)
    if isinstance(value, list):  # the members of a list have its name
        items = [_changed(path, each, change) for each in value]
        return [each for each in items if each is not GONE]
    return value


def walk(pin: PinFile) -> Iterator[tuple[Path, Any]]:
    """Yield every name with what stands there: containers, then what is in them; of both derivations."""
    seen: list[tuple[Path, Any]] = []

    def look(path: Path, value: Any) -> Any:
        seen.append((path, value))
        return value

    rewritten(pin, look)
    yield from seen
