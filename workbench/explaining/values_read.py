"""The values that a clause reads of one request, and where each comes from.

One rule: a value is shown as Cedar had it. What is not there is `absent`; what the record did not ask for is
`not asked`, which is not the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runtime.canonical import canonical
from runtime.entities import EntityUid
from runtime.spec import RESERVED
from workbench.atoms import atoms_in
from workbench.texts import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from runtime.facts import Fact
    from runtime.policy import Case, Prepared
    from workbench.explaining.clauses import Clause

State = Literal["value", "absent", "not asked"]

MOST = 48
"""Characters of a value in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value that a clause reads."""

    path: str
    """`context.args.amount_cents`, `resource.owner`, `principal`, `principal.parents`."""
    state: State
    json: Json = None
    """Cedar JSON; null unless `state` is `value`."""
    source: str
    """`argument`, `session`, `request`, or the fact with source, version, key and age."""

    @property
    def shown(self) -> str:
        """The value as a sentence has it."""
        return shorten(cedar(self.json), MOST) if self.state == "value" else self.state

    def __str__(self) -> str:
        return f"{self.path} = {self.shown}" if self.state == "value" else f"{self.path} is {self.state}"


def cedar(value: Json) -> str:
    """Write a value as Cedar would, whole numbers with their thousands apart.

    Example:
        >>> cedar(42000), cedar({"__entity": {"type": "User", "id": "ana"}}), cedar(["b", True])
        ('42,000', 'User::"ana"', '["b", true]')
    """
    match value:
        case bool() | None:
            return canonical(value)
        case int():
            return f"{value:,}"
        case {"__entity": {"type": str(kind), "id": str(ident)}}:
            return str(EntityUid(kind, ident))
        case {"__extn": {"fn": str(name), "arg": str(text)}}:
            return f"{name}({canonical(text)})"
        case dict():
            return "{" + ", ".join(f"{name}: {cedar(each)}" for name, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(cedar, value)) + "]"
        case _:
            return canonical(value)


def values_of(clause: Clause, prepared: Prepared) -> tuple[Value, ...]:
    """Return what a clause reads of a request, in the order of the paths; children's values among them.

    Args:
        clause: of the policies.
        prepared: with a case.
    """
    case = prepared.case
    assert case is not None  # noqa: S101 - asked of what policies were asked about
    if clause.expr is None:
        return tuple(_of_scope(clause, case, prepared.missing))
    paths = {path for atom in atoms_in(clause.expr) for path in (*atom.reads, *atom.asks) if path[0]}
    kept = [
        path for path in paths if not any(other != path and other[: len(path)] == path for other in paths)
    ]
    found = [_value(path, prepared, case) for path in sorted(kept)]
    roots = {root for atom in atoms_in(clause.expr) for root in atom.hierarchy}
    above = [_parents(root, case, prepared.missing) for root in sorted(roots) if _climbs(clause, root)]
    return (*found, *above)


def _climbs(clause: Clause, root: str) -> bool:
    return f"{root} in " in clause.text


def _of_scope(clause: Clause, case: Case, missing: Sequence[str]) -> Iterator[Value]:
    uid = getattr(case, clause.place)
    yield Value(path=clause.place, state="value", json={"__entity": dict(uid.json())}, source="request")
    if clause.place != "action" and " in " in clause.text:
        yield _parents(clause.place, case, missing)


def _parents(root: str, case: Case, missing: Sequence[str]) -> Value:
    path = f"{root}.parents"
    if path in missing:
        return Value(path=path, state="not asked", source="request")
    uid = getattr(case, root)
    found = [parent.json() for each in case.slice.entities if each.uid == uid for parent in each.parents]
    return Value(path=path, state="value", json=[{"__entity": dict(each)} for each in found], source="facts")


def _value(path: tuple[str, ...], prepared: Prepared, case: Case) -> Value:
    name = ".".join(path)
    source = _source(path, prepared)
    if any(name == each or name.startswith(f"{each}.") for each in prepared.missing):
        return Value(path=name, state="not asked", source=source)
    if any(each.startswith(f"{name}.") for each in prepared.missing):
        source = f"{source}; not all of it was asked for" if source else "not all of it was asked for"
    found: Json = _root(path[0], case)
    for step in path[1:]:
        members = _members(found, case)
        if step not in members:
            return Value(path=name, state="absent", source=source)
        found = members[step]
    return Value(path=name, state="value", json=found, source=source)


def _root(name: str, case: Case) -> Json:
    return dict(case.context) if name == "context" else {"__entity": dict(getattr(case, name).json())}


def _members(value: Json, case: Case) -> Mapping[str, Json]:
    match value:
        case {"__entity": {"type": str(kind), "id": str(ident)}}:
            uid = EntityUid(kind, ident)
            return next((each.attrs for each in case.slice.entities if each.uid == uid), {})
        case dict():
            return value
        case _:
            return {}


def _source(path: tuple[str, ...], prepared: Prepared) -> str:
    facts = () if prepared.compiled is None else prepared.compiled.facts.values()
    match path:
        case ("context", "args", *_):
            return "argument"
        case ("context", "session", *_):
            return "session"
        case ("context", name, *_) if name not in RESERVED:
            return next((origin(fact) for fact in facts if fact.into == "context" and fact.name == name), "")
        case ("principal" | "resource" as root, name, *_):
            placed = (fact for fact in facts if fact.into == root and name in (fact.value or {}))  # type: ignore[operator]  # records
            return next((origin(fact) for fact in placed), "")
        case _:
            return "request"


def origin(fact: Fact) -> str:
    """Say where a fact came from."""
    version = "" if fact.version is None else f" version {fact.version}"
    key = ", ".join(f"{name} = {canonical(value)}" for name, value in fact.key.items())
    return f"fact `{fact.name}` ({fact.status.replace('_', ' ')}) of {fact.source}{version}" + (
        f", {key}" if key else ""
    )
