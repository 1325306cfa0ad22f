"""Missing is not false: which verdicts are possible when the record did not ask for something.

One rule: a verdict is given only if it is the same for every value of what is missing, absent included. Cedar alone
would answer silently: `context has order && …` on a fact nobody asked for skips a forbid, and allows.

How: a policy is a tree of `&&`, `||`, `!`, `if` over *atoms*. Atoms that touch nothing missing are answered by Cedar
itself, all atoms in one call; the others may be true, false or in error. The tree is folded over sets of possible
outcomes with Cedar's lazy semantics, once for each choice of which missing names are present, and the rulings that
follow are enumerated with `runtime.ruling.rule`, the rule the runtime itself uses.

Sound, and not complete: two atoms over one missing value are taken as independent, so a row may be called undecided
that a solver could decide. Not used: `cedarpy.is_authorized_partial`, which is experimental, and gives up on a
context that holds an extension value (`now` does) beside an unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from runtime.ruling import Flags, Ruling, rule
from workbench.atoms import Atom, Node, Path, atoms_of, leaves_of
from workbench.memo import remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle, PolicyInfo
    from runtime.canonical import Json
    from runtime.ruling import Answer

MAX_MISSING = 8
"""Names that policies in scope read, tried in every combination of present and absent; above that the row is
undecided without a try."""

PARENTS = "parents"
"""Last part of a missing name that stands for the ancestors of the principal or the resource."""

LIMITS = "limits."
"""How the name of a missing counter begins: some value of it may refuse the call, whatever policies say."""

ANY: frozenset[Ruling] = frozenset(rule(Flags(*bits)) for bits in product((False, True), repeat=6))

Outcome = str
T, F, E = "true", "false", "error"
_Set = frozenset[str]
_ONE: Mapping[Outcome, _Set] = {each: frozenset({each}) for each in (T, F, E)}
_UNKNOWN: _Set = frozenset({T, F, E})


@dataclass(frozen=True, slots=True)
class Possible:
    """What some value of the missing names leads to."""

    rulings: frozenset[Ruling]
    patches: bool
    """Whether which patches apply, or what they write, may hang on what is missing."""

    @property
    def settled(self) -> bool:
        """Whether every value gives one verdict (and, for `modify`, one change)."""
        verdicts = {ruling.verdict for ruling in self.rulings}
        return len(verdicts) == 1 and not (self.patches and verdicts == {"modify"})


def possible(told: Answer, bundle: Bundle, missing: Sequence[str], lifted: frozenset[str]) -> Possible:
    """Return everything that some value of the missing names leads to.

    Args:
        told: Cedar's answer over `atoms_of(bundle).engine`, with all missing names absent.
        bundle: the candidate.
        missing: dotted paths, `context.<name>[.<field>]`, `resource.<attr>`, `principal.<attr>`,
            `principal.parents` or `resource.parents`; or `limits.…`, a counter, some value of which may block.
        lifted: policies taken out by grants.

    Cost: a fold of the trees of the policies in scope for each combination of the names that those read.
    """
    counted = [name for name in missing if name.startswith(LIMITS)]
    missing = [name for name in missing if not name.startswith(LIMITS)]
    atoms = atoms_of(bundle)
    if told.decision == "NoDecision":
        return Possible(frozenset({Ruling("block", "cedar_no_decision")}), patches=False)
    sure = {**dict.fromkeys(told.reasons, T), **dict.fromkeys((fault.policy for fault in told.errors), E)}
    names = [tuple(name.split(".")) for name in missing]
    touched = _touched(bundle, tuple(names))
    # A policy whose scope is false for sure is out in every world; of fifty, a handful is left.
    reached = {ident: tree for ident, tree in atoms.trees.items() if _in_scope(tree, sure, touched)}
    names = _concerning(names, reached, touched, bundle)
    if len(names) > MAX_MISSING:
        return Possible(ANY, patches=True)
    touched = _touched(bundle, tuple(names))
    found: set[Ruling] = {Ruling("block", "budget_spent")} if counted else set()
    modifies: set[tuple[_Set, ...]] = set()
    for here in product((False, True), repeat=len(names)):
        world = _World(sure, dict(zip(names, here, strict=True)), touched)
        outcomes = {ident: _outcomes(tree, world) for ident, tree in reached.items() if ident not in lifted}
        found.update(_rulings(outcomes, bundle.policies))
        modifies.add(tuple(outcomes[i] for i in outcomes if bundle.policies[i].verdict == "modify"))
    steady = len(modifies) == 1 and all(len(each) == 1 for each in next(iter(modifies)))
    return Possible(frozenset(found), patches=not steady or _patches_read(reached, bundle, names))


def _concerning(
    names: Sequence[Path],
    trees: Mapping[str, Node | Atom],
    touched: Mapping[str, tuple[Path, ...]],
    bundle: Bundle,
) -> list[Path]:
    """The missing names that policies in scope may read, or their patches refer to; the others change nothing."""
    read = {name for tree in trees.values() for atom in leaves_of(tree) for name in touched.get(atom.id, ())}
    refs = [ref for ident in trees for ref in refs_of(bundle.policies[ident].patch)]
    return [name for name in names if name in read or any(overlap(ref, name) for ref in refs)]


def _patches_read(policies: Iterable[str], bundle: Bundle, names: Sequence[Path]) -> bool:
    """Whether a patch of these policies refers to a missing name, or to a record that holds one."""
    refs = [ref for ident in policies for ref in refs_of(bundle.policies[ident].patch)]
    return any(overlap(ref, name) for ref in refs for name in names)


def refs_of(patch: Json) -> Iterator[Path]:
    match patch:
        case {"$ref": str(path)}:
            yield tuple(path.split("."))
        case dict():
            for value in patch.values():
                yield from refs_of(value)
        case list():
            for value in patch:
                yield from refs_of(value)


def _in_scope(
    tree: Node | Atom, sure: Mapping[str, Outcome], touched: Mapping[str, tuple[Path, ...]]
) -> bool:
    while isinstance(tree, Node):
        tree = tree.parts[0]
    return tree.id in touched or sure.get(tree.id, F) != F


@dataclass(frozen=True, slots=True)
class _World:
    """One choice of which missing names are present."""

    sure: Mapping[str, Outcome]
    """Cedar's answer by atom, with all missing names absent; an atom that is not there is false."""
    present: Mapping[Path, bool]
    touched: Mapping[str, tuple[Path, ...]]
    """Missing names that an atom may read, for atoms that may read one."""


_touched_cache: dict[tuple[str, tuple[Path, ...]], Mapping[str, tuple[Path, ...]]] = {}


def _touched(bundle: Bundle, names: tuple[Path, ...]) -> Mapping[str, tuple[Path, ...]]:
    def touching() -> Mapping[str, tuple[Path, ...]]:
        found = {atom.id: tuple(n for n in names if touches(atom, n)) for atom in atoms_of(bundle).every}
        return {ident: of for ident, of in found.items() if of}

    return remembered(_touched_cache, (bundle.policy_hash, names), touching)


def _rulings(outcomes: Mapping[str, _Set], policies: Mapping[str, PolicyInfo]) -> Iterator[Ruling]:
    """Every ruling that some choice of one outcome a policy leads to."""
    forbids = [found for ident, found in outcomes.items() if policies[ident].effect == "forbid"]
    axes = (
        _axis(E, forbids),
        *(
            _axis(T, [found for ident, found in outcomes.items() if _kind(policies[ident]) == kind])
            for kind in ("plain", "permit", "modify", "approve")
        ),
    )
    for error, plain, permit, modify, approve in product(*axes):
        yield rule(Flags(True, error, plain, permit, modify, approve))


def _kind(policy: PolicyInfo) -> str:
    return "permit" if policy.effect == "permit" else policy.verdict


def _axis(outcome: Outcome, found: Iterable[_Set]) -> tuple[bool, ...]:
    """Whether some policy has this outcome: for sure, never, or either."""
    sets = list(found)
    if any(each == {outcome} for each in sets):
        return (True,)
    return (False, True) if any(outcome in each for each in sets) else (False,)


def _outcomes(tree: Node | Atom, world: _World) -> _Set:
    """Fold a tree over sets of possible outcomes; a part counts only where what is before it lets Cedar get there."""
    if isinstance(tree, Atom):
        return _atom_outcomes(tree, world)
    first = _outcomes(tree.parts[0], world)
    match tree.op:
        case "not":
            return frozenset({T: F, F: T, E: E}[each] for each in first)
        case "and":
            return _then(first, {T: tree.parts[1]}, world)
        case "or":
            return _then(first, {F: tree.parts[1]}, world)
        case _:
            return _then(first, {T: tree.parts[1], F: tree.parts[2]}, world)


def _then(first: _Set, after: Mapping[Outcome, Node | Atom], world: _World) -> _Set:
    sets = (_outcomes(after[each], world) if each in after else _ONE[each] for each in first)
    return frozenset().union(*sets)


def _atom_outcomes(atom: Atom, world: _World) -> _Set:
    touched = world.touched.get(atom.id)
    if touched is None:
        return _ONE[world.sure.get(atom.id, F)]
    for asked in atom.has:
        for name in touched:
            if asked[: len(name)] == name:
                return _presence(asked, name, present=world.present[name])
    if not any(world.present[name] or name[-1] == PARENTS for name in touched):
        return _ONE[world.sure.get(atom.id, F)]  # all absent, which is how Cedar was asked
    return _UNKNOWN


def _presence(asked: Path, name: Path, *, present: bool) -> _Set:
    """What `has` says of a missing name: itself is known by choice, what lies below it only if it is absent."""
    if not present:
        return frozenset({F})
    return frozenset({T}) if asked == name else frozenset({T, F})


def touches(atom: Atom, name: Path) -> bool:
    """Whether an atom's value may hang on a missing name."""
    if name[-1] == PARENTS and name[0] in atom.hierarchy:
        return True
    if any(path[: len(name)] == name for path in atom.asks):
        return True
    return any(overlap(p, name) for p in atom.reads) or any(_elsewhere(p, name) for p in atom.asks)


def overlap(path: Path, name: Path) -> bool:
    """Whether reading `path` may read `name`: one is the other's prefix, or it is reached another way round."""
    shorter = min(len(path), len(name))
    return path[:shorter] == name[:shorter] or _elsewhere(path, name)


def _elsewhere(path: Path, name: Path) -> bool:
    """Whether an entity's attribute may be reached through a reference: `context.owner.level` for the principal's."""
    return name[0] != "context" and name[-1] in path[1:]


__all__ = ["ANY", "Possible", "possible", "touches"]
