"""Clause-level truth: what every clause of every policy was for recorded decisions, as Cedar evaluates them.

One rule: Cedar's order and laziness. A clause counts as true, false or in error only where Cedar gets to it; else it
is `not_reached`. Where the record did not ask for something a clause reads, the clause is `unknown`, and so is
whatever follows unless it is certain; nothing is taken as absent.

One fold serves both engines: over columns its Booleans are nodes of the columnar compiler, over single rows they
are constants. The columns compile each clause over the typed chunk the policies were compiled over; the row engine
asks `cedarpy` for a policy made of the clause alone.

Accepted: a clause that may read a missing name is unknown as a whole, even where every value gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import cedarpy
import polars as pl
from cedarpy import pst

from runtime.cedar import ask_batch
from workbench.atoms import atoms_in
from workbench.columnar.compiler import Compiler
from workbench.columnar.lowering import collected, lower
from workbench.columnar.nodes import FALSE, TRUE, and_, boolean, not_, or_
from workbench.columnar.policies import filled
from workbench.columnar.values import Unsupported, truth
from workbench.explaining.clauses import SCOPE
from workbench.rows import pack, policy_literals
from workbench.undecided import PARENTS, touches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Case
    from runtime.ruling import Answer
    from workbench.atoms import Atom
    from workbench.columnar.lowering import Plan
    from workbench.columnar.nodes import Node
    from workbench.explaining.clauses import Clause, Clauses, PolicyClauses
    from workbench.history.groups import PolicyGroup

Truth = Literal["true", "false", "error", "not_reached", "unknown"]
"""`unknown`: it, or whether Cedar gets to it, hangs on what the record did not ask for."""

TRUTHS: tuple[Truth, ...] = ("true", "false", "error", "not_reached", "unknown")
TRUTH = pl.Enum(TRUTHS)

_ANYTHING = pst.Template("", "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (), {})


class Own(NamedTuple):
    """What an expression gives where it is evaluated; exactly one holds."""

    true: Node
    false: Node
    error: Node
    unknown: Node


_NOTHING = Own(FALSE, FALSE, FALSE, FALSE)
_UNKNOWN = Own(FALSE, FALSE, FALSE, TRUE)


def own(true: Node, error: Node) -> Own:
    """What is known of an expression."""
    return Own(true, and_(not_(true), not_(error)), error, FALSE)


@dataclass(slots=True)
class Fold:
    """Cedar's evaluation of one policy, clause by clause."""

    leaf: Callable[[Clause], Own]
    """Evaluates a clause that is not taken apart; asked only of what some row may reach."""
    said: dict[str, Own] = field(default_factory=dict)
    """By key: what is told of a clause; none of the four holds where it is not reached. Lacking: in no row."""

    def policy(self, policy: PolicyClauses) -> tuple[Node, Node]:
        """Fold a policy. Returns where it is satisfied, and where that is unknown."""
        found = self._chain(policy.scope, "and", TRUE, FALSE)
        sure, maybe = _after(found.true, found.unknown, TRUE, FALSE)
        for body in policy.bodies:
            found = self._chain(body.clauses, "and", sure, maybe)
            goes = found.true if body.kind == "when" else found.false
            sure, maybe = _after(goes, found.unknown, sure, maybe)
        return sure, maybe

    def _chain(self, clauses: Sequence[Clause], op: str, sure: Node, maybe: Node) -> Own:
        """What a chain gives where it is evaluated; `sure` and `maybe` say where that is."""
        here, perhaps = TRUE, FALSE  # whether the next operand is reached, once the chain is
        ended, error, unknown = FALSE, FALSE, FALSE
        for clause in clauses:
            at = and_(sure, here)
            may = or_(and_(sure, perhaps), and_(maybe, or_(here, perhaps)))
            found = self._one(clause, at, may)
            goes, stops = (found.true, found.false) if op == "and" else (found.false, found.true)
            ended, error = or_(ended, and_(here, stops)), or_(error, and_(here, found.error))
            unknown = or_(unknown, and_(here, found.unknown))
            here, perhaps = _after(goes, found.unknown, here, perhaps)
        return Own(here, ended, error, unknown) if op == "and" else Own(ended, here, error, unknown)

    def _one(self, clause: Clause, sure: Node, maybe: Node) -> Own:
        if or_(sure, maybe) is FALSE:
            return _NOTHING
        found = self._chain(clause.children, clause.op, sure, maybe) if clause.children else self.leaf(clause)
        true, false, error = (and_(sure, each) for each in found[:3])
        self.said[clause.key] = Own(true, false, error, or_(maybe, and_(sure, found.unknown)))
        return found


def _after(goes: Node, unknown: Node, sure: Node, maybe: Node) -> tuple[Node, Node]:
    """Where what follows is reached for certain, and where perhaps."""
    return and_(sure, goes), or_(and_(sure, unknown), and_(maybe, or_(goes, unknown)))


def part_of(policy: PolicyClauses, name: str) -> pst.Template:
    """Return a policy of one part of the scope alone, slots filled in."""
    whole = filled(policy.template, policy.slots)
    return replace(_ANYTHING, **{name: getattr(whole, name)})


def is_touched(
    policy: PolicyClauses, clause: Clause, missing: Sequence[str], types: Mapping[str, str]
) -> bool:
    """Tell whether a clause that is not taken apart may hang on what is missing.

    Args:
        policy: whose it is.
        clause: without children.
        missing: dotted paths, as `workbench.recorded.missing_names` gives them.
        types: entity types of `principal` and `resource`.
    """
    names = [tuple(name.split(".")) for name in missing]
    if clause.expr is not None:
        return any(touches(atom, name) for atom in _atoms(clause) for name in names)
    match getattr(policy.template, clause.place):
        case pst.ScopeIn():
            return (clause.place, PARENTS) in names
        case pst.ScopeIsIn(kind, _):
            return str(kind) == types.get(clause.place) and (clause.place, PARENTS) in names
        case _:
            return False


@lru_cache(maxsize=4096)
def _atoms(clause: Clause) -> tuple[Atom, ...]:
    assert clause.expr is not None  # noqa: S101 - asked by the caller
    return atoms_in(clause.expr)


# Columns


@dataclass(frozen=True, slots=True)
class Columns:
    """The clauses of a group's policies, compiled."""

    group: PolicyGroup
    places: tuple[tuple[str, Clause], ...]
    plan: Plan
    """Columns `t<n>`, `f<n>`, `e<n>`, `u<n>` by place; lacking: nowhere."""

    def flags(self) -> pl.LazyFrame:
        """The group's frame with the plan's columns added."""
        return self.plan.added(self.group.frame.lazy())


_KINDS = ("t", "f", "e", "u")


def columns_of(group: PolicyGroup, clauses: Clauses) -> Columns:
    """Compile the clauses of a group's policies.

    Raises:
        Unsupported: a clause that some row may reach is not taken; the group's rows are for the row engine.
    """
    compiled = group.compiled
    types = {"principal": compiled.part.key.principal_type, "resource": str(compiled.part.key.resource_type)}
    outputs: dict[str, Node] = {}
    number = 0
    refused = {compiled.policies.every[n].id for n in compiled.kernel.refused}
    for ident, policy in clauses.policies.items():
        fold = Fold(leaf_of(group, policy, types))
        # A policy that was not compiled applies to no row of the group: the others were held back.
        fold.policy(replace(policy, bodies=()) if ident in refused else policy)
        for clause in policy.walk():
            told = fold.said.get(clause.key, _NOTHING)
            outputs |= {f"{kind}{number}": node for kind, node in zip(_KINDS, told, strict=True)}
            number += 1
    kept = {name: node for name, node in outputs.items() if node is not FALSE}
    return Columns(group, clauses.places, lower(kept, compiled.world.column))


def leaf_of(group: PolicyGroup, policy: PolicyClauses, types: Mapping[str, str]) -> Callable[[Clause], Own]:
    compiler = Compiler(group.compiled.world, group.compiled.variables, policy.slots)

    def leaf(clause: Clause) -> Own:
        if group.missing and is_touched(policy, clause, group.missing, types):
            return _UNKNOWN
        if clause.expr is None:
            return own(compiler.scope(part_of(policy, clause.place)), FALSE)
        return own(*truth(compiler.expr(clause.expr)))

    return leaf


def truths(group: PolicyGroup, clauses: Clauses) -> pl.DataFrame:
    """Evaluate every clause for every row of a group, in columns.

    Args:
        group: rows that policies decide; see `workbench.history.deciding.grouped`.
        clauses: `clauses_of(group.bundle)`.

    Returns:
        One row a row of the group, in order; one column (`TRUTH`) for each of `clauses.places`, named by `names_of`.

    Raises:
        Unsupported: see `columns_of`.
    """
    found = columns_of(group, clauses)
    known = set(found.plan.names)
    told = [_told(number, known).alias(name) for number, name in enumerate(names_of(clauses))]
    return collected(found.flags().with_columns(told).select(names_of(clauses)), group.height)


def _told(number: int, known: set[str]) -> pl.Expr:
    told: pl.Expr = pl.lit("not_reached", TRUTH)
    for kind, said in zip(_KINDS, ("true", "false", "error", "unknown"), strict=True):
        if f"{kind}{number}" in known:
            told = pl.when(f"{kind}{number}").then(pl.lit(said, TRUTH)).otherwise(told)
    return told


def names_of(clauses: Clauses) -> list[str]:
    """Return the names of columns of truths: `<policy id>:<key>`, linked policies under their own ids."""
    return [f"{ident}:{clause.key}" for ident, clause in clauses.places]


# Rows


@dataclass(frozen=True, slots=True)
class Alone:
    """The clauses of a bundle that are not taken apart, each a policy of its own."""

    engine: cedarpy.PolicySet
    ids: Mapping[tuple[str, str], str]
    """By policy id and clause key."""


@lru_cache(maxsize=32)
def _alone(clauses: _ByIdentity) -> Alone:
    made: dict[str, pst.Template] = {}
    ids = {}
    for ident, clause in clauses.of.places:
        if not clause.children:
            name = ids[ident, clause.key] = f"c{len(made)}"
            if clause.expr is None:
                policy = part_of(clauses.of.policies[ident], clause.place)
            else:
                policy = replace(_ANYTHING, clauses=(pst.When(clause.expr),))
            made[name] = replace(policy, id=name)
    tree = pst.PolicySet(templates={}, static_policies=made, template_links=())
    return Alone(cedarpy.PolicySet.from_pst(tree), ids)


@dataclass(frozen=True, slots=True)
class _ByIdentity:
    """Clauses, known by whose they are."""

    key: str
    of: Clauses = field(compare=False)


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of one case, by policy id and clause key."""

    truths: Mapping[tuple[str, str], Truth]
    messages: Mapping[tuple[str, str], str]
    """Of clauses in error: what Cedar says."""
    satisfied: Mapping[str, Truth]
    """Whether each policy is satisfied: true, false, error or unknown."""


def truths_of_cases(
    cases: Sequence[tuple[Case, Sequence[str]]], bundle: Bundle, clauses: Clauses
) -> list[Told]:
    """Evaluate every clause for cases, by Cedar itself.

    Args:
        cases: each with the names that the record did not ask for.
        bundle: whose clauses they are.
        clauses: `clauses_of(bundle)`.

    Returns:
        One a case, in order. Where Cedar refuses the request, all is unknown.

    Cost: an evaluation of as many policies as there are clauses, some 50–300 µs a case.
    """
    alone = _alone(_ByIdentity(bundle.policy_hash, clauses))
    answers: dict[int, Answer] = {}
    only = [case for case, _ in cases]
    for batch in pack(only, policy_literals(bundle)):
        store = cedarpy.Entities.from_json_str(batch.document(), bundle.cedar_schema)
        found = ask_batch([only[i] for i in batch.members], store, alone.engine, bundle.cedar_schema)
        answers.update(zip(batch.members, found, strict=True))
    return [
        _folded(case, missing, answers[number], clauses, alone)
        for number, (case, missing) in enumerate(cases)
    ]


def _folded(case: Case, missing: Sequence[str], answer: Answer, clauses: Clauses, alone: Alone) -> Told:
    types = {"principal": case.principal.type, "resource": case.resource.type}
    held, faults = set(answer.reasons), {fault.policy: fault.message for fault in answer.errors}
    truths: dict[tuple[str, str], Truth] = {}
    messages: dict[tuple[str, str], str] = {}
    satisfied: dict[str, Truth] = {}
    for ident, policy in clauses.policies.items():

        def leaf(clause: Clause, ident: str = ident, policy: PolicyClauses = policy) -> Own:
            if answer.decision == "NoDecision" or (missing and is_touched(policy, clause, missing, types)):
                return _UNKNOWN
            name = alone.ids[ident, clause.key]
            return own(boolean(name in held), boolean(name in faults))

        fold = Fold(leaf)
        sure, maybe = fold.policy(policy)
        said = dict(_said(fold, policy))
        truths |= {(ident, key): each for key, each in said.items()}
        wrong = [key for key, each in said.items() if each == "error" and (ident, key) in alone.ids]
        messages |= {(ident, key): faults[alone.ids[ident, key]] for key in wrong}
        satisfied[ident] = _whole(sure, maybe, wrong)
    return Told(truths, messages, satisfied)


def _whole(sure: Node, maybe: Node, wrong: Sequence[str]) -> Truth:
    if maybe is TRUE:
        return "unknown"
    return "true" if sure is TRUE else "error" if wrong else "false"


def _said(fold: Fold, policy: PolicyClauses) -> Iterator[tuple[str, Truth]]:
    names: tuple[Truth, ...] = ("true", "false", "error", "unknown")
    for clause in policy.walk():
        told = fold.said.get(clause.key, _NOTHING)
        holds = (name for name, node in zip(names, told, strict=True) if node is TRUE)
        yield clause.key, next(holds, "not_reached")


__all__ = [
    "SCOPE", "TRUTH", "TRUTHS", "Columns", "Fold", "Own", "Told", "Truth", "Unsupported", "columns_of",
    "is_touched", "names_of", "own", "part_of", "truths", "truths_of_cases",
]  # fmt: skip
