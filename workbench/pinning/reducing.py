"""A pin made small: what no policy that applies reads is left out, or blanked where the schema asks for some value.

One rule: after every step the pin is decided again by the runtime's own evaluation, and verdict, stage, determining
policies, errors, the change, and what *every* condition of every policy that applies says must be what they were
(conditions that Cedar did not get to as well). A step that changes any of it is not taken, by halves (`shrinking`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.policy import Decision, action_hash
from runtime.request import ResourceTemplate
from workbench.atoms import Path, atoms_of, leaves_of
from workbench.pinning.checking import change_of
from workbench.pinning.deciding import answered
from workbench.pinning.evaluating import conditions_of
from workbench.pinning.places import GONE, dotted, rewritten, walk
from workbench.pinning.reading import applicable, hit, measured, patched_by, readings, spelt
from workbench.pinning.shrinking import most

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.policy import Prepared
    from workbench.pinning.pinned import PinFile
    from workbench.pinning.reading import Reading


class Sameness(NamedTuple):
    """What must not change while a pin is reduced."""

    decided: tuple[Any, ...]
    change: Json
    conditions: tuple[Any, ...]
    """Ids of the conditions that hold and of those in error, of both evaluations."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Oracle:
    """Says whether a pin is still the same decision."""

    own: Bundle
    """That decided it."""
    same: Sameness
    read: Sequence[Reading]
    needed: frozenset[Path]
    """What patches refer to and write, and budgets count."""
    written: frozenset[Path]
    """Arguments that patches write."""
    keep: frozenset[Path]
    """What stays in clear, with all below it."""

    @classmethod
    def of(cls, pin: PinFile, own: Bundle, keep: frozenset[Path]) -> Oracle:
        """Begin with a whole pin.

        Raises:
            LookupError: it is not decided again as it was recorded.
        """
        tool = pin.request.tool
        refs, written = patched_by(own, tool)
        budgets = frozenset(path for _, path in measured(own, tool))
        same = sameness(pin, own)
        if same is None:
            raise LookupError(pin.decision_id)
        read = readings(own, tool) if tool in own.schema.actions else ()
        return cls(own=own, same=same, read=read, needed=refs | written | budgets, written=written, keep=keep)

    def holds(self, pin: PinFile, placeholders: Mapping[str, str] | None = None) -> bool:
        """Whether a pin is the decision that was pinned, with some texts replaced."""
        found = sameness(pin, self.own)
        if found is None:
            return False
        return found == self.same._replace(change=mapped(self.same.change, placeholders or {}))

    def is_read(self, name: Path) -> bool:
        """Whether a policy that applies, a patch of one or a budget may read what stands at a name."""
        names = list(spelt(self.own, name))
        return any(each.touches(one) for each in self.read for one in names) or any(
            hit(self.needed, one) for one in names
        )

    def is_kept(self, name: Path) -> bool:
        """Whether it was asked for by name."""
        return any(name[: len(each)] == each for each in self.keep)

    def holds_kept(self, name: Path) -> bool:
        """Whether it is, or holds, what was asked for by name."""
        return self.is_kept(name) or any(each[: len(name)] == name for each in self.keep)


def sameness(pin: PinFile, own: Bundle) -> Sameness | None:
    """Return what must not change of a pin; None: it is not decided."""
    try:
        decision = answered(refitted(pin, own), own).result
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # values that fit no schema, at any of the stages
        return None
    if not isinstance(decision, Decision):
        return None
    errors = frozenset(fault.policy for fault in decision.errors)
    decided = (
        decision.verdict, decision.decided_by, decision.reason_code, decision.determining,
        decision.enforced_determining, errors,
    )  # fmt: skip
    conditions = tuple(_conditions(each, own, pin.request.tool) for each in _evaluated(decision))
    return Sameness(decided, change_of(decision), conditions)


def _evaluated(decision: Decision) -> Iterator[Prepared]:
    """What policies were asked about."""
    for each in (decision.first, decision.enforced):
        if decision.answer is not None and each is not None and each.case is not None:
            yield each


def _conditions(prepared: Prepared, own: Bundle, tool: str) -> tuple[frozenset[str], frozenset[str]]:
    """Every condition of the policies that apply, each asked alone: those that hold, and those in error."""
    assert prepared.case is not None  # noqa: S101 - asked by the caller
    trees = atoms_of(own).trees
    ids = {leaf.id for policy in applicable(own, tool) for leaf in leaves_of(trees[policy.id])}
    answer = conditions_of(prepared.case, own)
    return frozenset(answer.reasons) & ids, frozenset(fault.policy for fault in answer.errors) & ids


def refitted(pin: PinFile, own: Bundle) -> PinFile:
    """Return the pin with its grants for the action in its own values, where people approved that action."""
    held = pin.grants
    if held is None or held.action_hash is None:
        return pin
    decision = answered(pin, own).result
    if not isinstance(decision, Decision) or decision.first.resource is None:
        return pin
    now = action_hash(decision.request, decision.enforced or decision.first, pin.recorded.policy_hash)
    return replace(pin, grants=replace(held, action_hash=now))


def mapped(value: Any, placeholders: Mapping[str, str]) -> Any:
    """Return a value with its texts replaced."""
    if isinstance(value, str):
        return placeholders.get(value, value)
    if isinstance(value, dict):
        return {name: mapped(each, placeholders) for name, each in value.items()}
    return [mapped(each, placeholders) for each in value] if isinstance(value, list) else value


def without_unread(pin: PinFile, oracle: Oracle) -> PinFile:
    """Leave out every member that no policy reads, as far as the decision stays the same."""
    unread: list[Path] = []
    for name, _ in walk(pin):
        if len(name) == 1 or name in _ALWAYS or any(name[: len(each)] == each for each in unread):
            continue
        if not (oracle.is_read(name) or oracle.holds_kept(name) or _asked_by(pin, oracle.own, name)):
            unread.append(name)

    def gone(names: Sequence[Path]) -> PinFile:
        taken = set(names)
        found = rewritten(pin, lambda name, value: GONE if name in taken else value)
        return replace(found, hidden=replace(found.hidden, left_out=sorted(map(dotted, names))))

    return gone(most(unread, lambda names: oracle.holds(gone(names))))


_ALWAYS = frozenset({("context", "tenant"), ("context", "on_behalf_of"), ("principal", "id")})
"""What a request always has."""


def _asked_by(pin: PinFile, own: Bundle, name: Path) -> bool:
    """Whether the resource's id, or the key of a fact, is made of an argument."""
    if name[:2] != ("context", "args"):
        return False
    paths: list[Path] = [("args", each) for each in ResourceTemplate.parse(pin.request.resource).slots]
    paths += [path for fact in own.spec.facts for _, path in fact.paths if path[0] == "args"]
    return hit([("context", *path) for path in paths], name)


def without_numbers(pin: PinFile, oracle: Oracle) -> PinFile:
    """Blank numbers and truths that no policy reads and the schema asks for: 0 and false stand there.

    Counters of the session and of limits stay: they are ours, and say nothing of anybody.
    """
    found: dict[Path, None] = {}
    for name, value in walk(pin):
        ours = name[0] == "limits" or name[:2] == ("context", "session")
        if isinstance(value, bool | int | float) and not (
            ours or oracle.is_read(name) or oracle.is_kept(name)
        ):
            found[name] = None

    return blanked(pin, most(list(found), lambda names: oracle.holds(blanked(pin, names))))


def blanked(pin: PinFile, names: Sequence[Path]) -> PinFile:
    """Return the pin with 0 and false at these names, and the names among what is blanked."""
    taken = set(names)

    def blank(name: Path, value: Any) -> Any:
        return type(value)(0) if name in taken and isinstance(value, bool | int | float) else value

    changed = rewritten(pin, blank)
    told = sorted({*changed.hidden.blanked, *map(dotted, names)})
    return replace(changed, hidden=replace(changed.hidden, blanked=told))
