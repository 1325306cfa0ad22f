"""What the policies that apply to a tool read, clause by clause, and which clauses look at more than equality.

One rule: it errs to the side of reading. Texts that are replaced one for one (equal ones by equal placeholders) leave
a clause as it was only if the clause holds no literal and does nothing with texts but compare them: everything else
`looks`, and depends on the text itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runtime.schema import Record, SetOf
from workbench.atoms import Atom, Path, atoms_in, atoms_of, leaves_of
from workbench.explaining.clauses import clauses_of
from workbench.memo import remembered
from workbench.undecided import PARENTS, overlap, refs_of, touches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runtime.bundle import Bundle
    from workbench.explaining.clauses import Clause, PolicyClauses

_RELATES = frozenset({
    ".", "has", "==", "!=", "in", "is", "&&", "||", "!", "neg", "+", "-", "*", "<", "<=", ">", ">=", "contains",
    "containsAll", "containsAny", "isEmpty", "if-then-else", "Set", "Record", "Var", "getTag", "hasTag",
})  # fmt: skip
"""Operators of Cedar's JSON form that see texts and ids only as equal or not."""
_ROOTS = ("principal", "resource")
_IDS = frozenset((root,) for root in _ROOTS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """One clause that is not taken apart, of a policy that applies."""

    policy: PolicyClauses
    clause: Clause
    atoms: tuple[Atom, ...]
    """As `workbench.atoms.atoms_of` has them; of a part of the scope, the scope's. Ids of principal and resource are
    not among what they read."""
    identities: frozenset[str]
    """Of `principal` and `resource`, whose id it compares or climbs from."""
    looks: bool
    """Whether it compares with a literal text or id, or does more with texts than compare them."""
    types: frozenset[str]
    """Entity types of the literal ids in it."""

    @property
    def text(self) -> str:
        """As written, on one line."""
        return self.clause.text

    def touches(self, name: Path) -> bool:
        """Whether it may read what stands at a name, or whether something stands there."""
        if self.clause.is_scope:
            return name == (self.clause.place, PARENTS) and " in " in self.text
        return any(touches(atom, name) for atom in self.atoms)

    def looks_at(self, name: Path, types: frozenset[str] = frozenset()) -> bool:
        """Whether it may look at the text itself that stands at a name.

        Args:
            name: `principal.id` and `resource.id` are the ids themselves.
            types: entity types of what stands there, where it is ids and parents; a literal of another type is
                equal to none of them.
        """
        if not self.looks:
            return False
        if name[-1] == PARENTS:
            return self.touches(name) and not types.isdisjoint(self.types)
        if name[1:] == ("id",) and name[0] in _ROOTS and not types.isdisjoint(self.types):
            return True if self.clause.place == name[0] or name[0] in self.identities else self.touches(name)
        return self.touches(name)


_kept: dict[tuple[str, str], tuple[Reading, ...]] = {}


def readings(bundle: Bundle, tool: str) -> tuple[Reading, ...]:
    """Return the clauses of policies whose action scope a tool is in; kept by policy hash and tool."""
    return remembered(_kept, (bundle.policy_hash, tool), lambda: tuple(_readings(bundle, tool)))


def _readings(bundle: Bundle, tool: str) -> Iterator[Reading]:
    for policy in applicable(bundle, tool):
        slots = frozenset(str(uid.type) for uid in policy.slots.values())
        for clause, atoms in _with_atoms(policy, tuple(leaves_of(atoms_of(bundle).trees[policy.id]))):
            types = frozenset(_types(clause.body)) | (slots if clause.is_scope else frozenset())
            yield Reading(
                policy=policy,
                clause=clause,
                atoms=tuple(replace(atom, reads=atom.reads - _IDS) for atom in atoms),
                identities=frozenset(path[0] for atom in atoms for path in atom.reads & _IDS),
                looks=bool(types) if clause.is_scope else _looks(clause.body),
                types=types,
            )


def _with_atoms(policy: PolicyClauses, leaves: tuple[Atom, ...]) -> Iterator[tuple[Clause, tuple[Atom, ...]]]:
    """Each clause that is not taken apart with its atoms, which stand in the same order; the action is left out.

    Where they do not count alike (the clauses are not the ones of the tree), each is taken for all of the policy's.
    """
    clauses = [clause for clause in policy.walk() if not clause.children]
    sizes = {clause.key: len(atoms_in(clause.expr)) for clause in clauses if clause.expr is not None}
    place, whole = 1, sum(sizes.values()) + 1 == len(leaves)
    for clause in clauses:
        size = sizes.get(clause.key, 0)
        if clause.place != "action":
            yield (
                clause,
                (leaves[:1] if clause.is_scope else leaves[place : place + size]) if whole else leaves,
            )
        place += size


def applicable(bundle: Bundle, tool: str) -> Iterator[PolicyClauses]:
    """Yield the policies whose action scope a tool is in."""
    within = _with_groups(bundle, tool)
    for policy in clauses_of(bundle).policies.values():
        scope = next((clause.body for clause in policy.scope if clause.place == "action"), None)
        if scope is None or _applies(scope, within):
            yield policy


def _applies(scope: Mapping[str, Any], within: frozenset[str]) -> bool:
    """Whether an action scope can hold; what is not understood can."""
    match scope:
        case {"op": "==" | "in", "entity": {"id": str(ident)}}:
            return ident in within
        case {"op": "in", "entities": list(entities)}:
            return any(each["id"] in within for each in entities)
        case _:
            return True


def _with_groups(bundle: Bundle, tool: str) -> frozenset[str]:
    """Ids of an action and of every group it is in; a namespace too many only reads more."""
    found: set[str] = set()
    queue = [tool]
    while queue:
        action = bundle.schema.actions.get(queue.pop())
        if action is not None and action.name not in found:
            found.add(action.name)
            queue.extend(action.parents)
    return frozenset(found)


def _looks(body: Any) -> bool:
    """Whether an expression holds a literal text or id, or an operator that sees more of a text than equality."""
    match body:
        case {"Value": value}:
            return not isinstance(value, bool | int)
        case {"Var": _} | {"Slot": _}:
            return False
        case {"has": {"left": left}} | {".": {"left": left}} | {"is": {"left": left}}:
            return _looks(left)
        case {"Record": dict(members)}:
            return any(_looks(each) for each in members.values())
        case {"Set": list(items)}:
            return any(_looks(each) for each in items)
        case dict() if len(body) == 1 and next(iter(body)) in _RELATES:
            (inner,) = body.values()
            parts: Iterable[Any] = inner.values() if isinstance(inner, dict) else inner
            return any(_looks(each) for each in parts)
        case _:
            return True  # `like`, functions of extensions, and what is not known


def _types(body: Any) -> Iterator[str]:
    """Entity types of literal ids."""
    match body:
        case {"__entity": {"type": str(kind)}} | {"type": str(kind), "id": str()}:
            yield kind
        case dict():
            for each in body.values():
                yield from _types(each)
        case list():
            for each in body:
                yield from _types(each)


def patched_by(bundle: Bundle, tool: str) -> tuple[frozenset[Path], frozenset[Path]]:
    """Return what patches of the policies that apply refer to, and the arguments they write."""
    patches = [policy.info.patch for policy in applicable(bundle, tool)]
    refs = frozenset(ref for patch in patches for ref in refs_of(patch))
    written = frozenset(("context", "args", *path) for patch in patches for path in _written(patch))
    return refs, written


def _written(patch: Any) -> Iterator[Path]:
    if isinstance(patch, dict) and "$ref" not in patch:
        for name, each in patch.items():
            inner = list(_written(each))
            yield from ((name, *path) for path in inner) if inner else [(name,)]


def measured(bundle: Bundle, tool: str) -> Iterator[tuple[str, Path]]:
    """Yield the budgets that count an argument, with the argument's name."""
    for budget in bundle.limits.budgets:
        if budget.applies(tool):
            yield (
                budget.meter.name,
                ("context", "args", *budget.meter.measure.removeprefix("args.").split(".")),
            )


def hit(paths: Iterable[Path], name: Path) -> bool:
    """Whether one of the paths reads a name, something below it, or something it is part of."""
    return any(overlap(path, name) for path in paths)


_scaled: dict[str, Mapping[str, frozenset[str]]] = {}


def spelt(bundle: Bundle, name: Path) -> Iterator[Path]:
    """Yield a name, then those under which policies see a scaled integer of it (`amount`: `amount_cents`)."""
    yield name
    known = remembered(_scaled, bundle.policy_hash, lambda: dict(_scalings(bundle)))
    for place, part in enumerate(name):
        for attr in known.get(part, ()):
            yield (*name[:place], attr, *name[place + 1 :])


def _scalings(bundle: Bundle) -> Iterator[tuple[str, frozenset[str]]]:
    """Members that the schema computes attributes from, anywhere in it, with those attributes."""
    schema = bundle.schema
    records = [each.context for each in schema.actions.values()]
    records += [each.attrs for each in schema.entity_types.values()]
    found: dict[str, set[str]] = {}
    while records:
        for name, attribute in records.pop().attrs.items():
            if (scaled := attribute.scaled) is not None:
                found.setdefault(scaled.member, set()).add(name)
            inner = attribute.type.element if isinstance(attribute.type, SetOf) else attribute.type
            if isinstance(inner, Record):
                records.append(inner)
    return ((member, frozenset(names)) for member, names in found.items())
