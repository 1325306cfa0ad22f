"""Asking a bundle's policies about rows: which are satisfied, what every clause is, on which side of every literal.

One rule: columns and Cedar itself answer the same questions; which of them was asked makes no difference to a count.

A policy counts for the decisions of the tools it is about, which its scope says; of others it was never asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import cedarpy
import polars as pl

from runtime.cedar import ask_batch
from workbench.columnar.lowering import collected, lower
from workbench.columnar.nodes import FALSE, and_, not_, or_
from workbench.columnar.policies import document_tree, read_policies
from workbench.columnar.values import Unsupported
from workbench.covering.boundaries import boundaries_of, condition_of
from workbench.covering.counts import EXAMPLES
from workbench.explaining.clauses import clauses_of
from workbench.explaining.truths import Columns, Fold, columns_of, is_touched, leaf_of, truths_of_cases
from workbench.history.groups import compiled_part as compiled
from workbench.history.groups import with_literals
from workbench.history.rulings import WORD
from workbench.rows import pack, policy_literals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Case
    from workbench.columnar.policies import Policies
    from workbench.covering.boundaries import Boundary
    from workbench.explaining.clauses import Clauses, PolicyClauses
    from workbench.history.chunk import Chunk
    from workbench.history.groups import PolicyGroup

UNREAD = "unread"
"""Side of a comparison that could not be asked."""
_TRUTH_OF = {"t": "true", "f": "false", "e": "error", "u": "unknown"}
"""By the letter that columns of `workbench.explaining.truths.Columns` begin with."""
_OUTCOMES = {"true": "satisfied", "error": "errored", "unknown": "unknown"}
Row = dict[str, Any]
"""One row of a table, without what is the same for all."""


class Told(NamedTuple):
    """Rows of the tables `policies`, `clauses` and `boundaries`."""

    policies: list[Row]
    clauses: list[Row]
    boundaries: list[Row]


def tools_of(policy: PolicyClauses, bundle: Bundle) -> frozenset[str]:
    """Return the tools a policy is about: those its scope's action lets it apply to."""
    callable_ = {name for name, action in bundle.schema.actions.items() if action.principals}
    scope = next((clause.body for clause in policy.scope if clause.place == "action"), None)
    if scope is None:
        return frozenset(callable_)
    named = {each["id"] for each in scope.get("entities", [scope.get("entity")]) if each is not None}
    if scope["op"] == "==":
        return frozenset(name for name in callable_ if bundle.schema.actions[name].name in named)
    return frozenset(name for name in callable_ if _above(name, bundle) & named)


def _above(name: str, bundle: Bundle) -> set[str]:
    """An action and the groups it is in, by id."""
    found, queue = set(), [name]
    while queue:
        action = bundle.schema.actions[queue.pop()]
        if action.name not in found:
            found.add(action.name)
            queue.extend(parent for parent in action.parents if parent in bundle.schema.actions)
    return found


@dataclass(slots=True)
class Asking:
    """The policies of one bundle, to be asked."""

    bundle: Bundle
    clauses: Clauses = field(init=False)
    boundaries: tuple[Boundary, ...] = field(init=False)
    tools: Mapping[str, frozenset[str]] = field(init=False)
    """Of each policy."""
    _asked: Policies = field(init=False)
    _engine: cedarpy.PolicySet = field(init=False)
    _names: tuple[tuple[int, str], ...] = field(init=False)
    """(boundary, side) of each policy of `_asked`."""

    def __post_init__(self) -> None:
        self.clauses = clauses_of(self.bundle)
        self.boundaries = boundaries_of(self.clauses)
        self.tools = {ident: tools_of(each, self.bundle) for ident, each in self.clauses.policies.items()}
        asked = {(each.number, side): body for each in self.boundaries for side, body in each.asked.items()}
        document = {
            "staticPolicies": {f"b{n}": condition_of(body) for n, body in enumerate(asked.values())},
            "templates": {},
            "templateLinks": [],
        }
        tree = document_tree(document)
        self._names = tuple(asked)
        self._asked = read_policies(tree)
        self._engine = cedarpy.PolicySet.from_pst(tree)

    def about(self, tool: str) -> frozenset[str]:
        """The policies that are about a tool."""
        return frozenset(ident for ident, tools in self.tools.items() if tool in tools)

    # Columns

    def of_group(self, group: PolicyGroup, chunk: Chunk, ids: pl.Series) -> Told | None:
        """Ask for every row of a group, in columns; None: columns do not take it.

        Args:
            group: rows that policies decide.
            chunk: they are of.
            ids: of the decisions.
        """
        about = self.about(group.tool)
        try:
            found = columns_of(group, self.clauses)
        except Unsupported:
            return None
        clauses = list(self._clauses(found, about, ids))
        unsure = {self.clauses.places[row["clause"]][0] for row in clauses if row["truth"] == "unknown"}
        return Told(
            list(self._policies(group, about, unsure, ids)),
            clauses,
            list(self._sides(group, chunk, about, ids)),
        )

    def _clauses(self, found: Columns, about: frozenset[str], ids: pl.Series) -> Iterator[Row]:
        """Truths of clauses; what is none of the four is not reached."""
        names = [name for name in found.plan.names if self.clauses.places[int(name[1:])][0] in about]
        sums = [pl.col(name).sum().alias(name) for name in names]
        first = [pl.col(name).arg_true().head(EXAMPLES).implode().alias(f"{name} at") for name in names]
        flags = found.flags().select(*sums, *first).collect() if names else pl.DataFrame()
        for number, (policy, _) in enumerate(self.clauses.places):
            rest = ids.len()
            for kind, truth in _TRUTH_OF.items() if policy in about else ():
                n = int(flags[f"{kind}{number}"][0]) if f"{kind}{number}" in names else 0
                rest -= n
                if n:
                    examples = ids.gather(flags[f"{kind}{number} at"][0]).to_list()
                    yield _row(n, examples, clause=number, truth=truth)
            if rest and policy in about:
                yield _row(rest, [], clause=number, truth="not_reached")

    def _policies(
        self, group: PolicyGroup, about: frozenset[str], unsure: set[str], ids: pl.Series
    ) -> Iterator[Row]:
        masks = group.masks()
        for number, ident in enumerate(group.policy_ids):
            if ident not in about:
                continue
            word, bit = number // WORD, 1 << number % WORD
            held, wrong = ((masks[f"{kind}_{word}"] & bit) != 0 for kind in ("satisfied", "errored"))
            if ident in unsure:  # masks take what is missing as absent
                held, maybe, wrong = self._folded(group, ident)
                yield from _held(maybe, ids, policy=ident, outcome="unknown")
            yield from _held(held, ids, policy=ident, outcome="satisfied")
            yield from _held(wrong, ids, policy=ident, outcome="errored")

    def _folded(self, group: PolicyGroup, policy: str) -> list[pl.Series]:
        """Where a policy is satisfied, where that hangs on what is missing, and where it is in error for certain."""
        key = group.compiled.part.key
        types = {"principal": key.principal_type, "resource": str(key.resource_type)}
        clauses = self.clauses.policies[policy]
        fold = Fold(leaf_of(group, clauses, types))
        sure, maybe = fold.policy(clauses)
        wrong = or_(FALSE, *(told.error for told in fold.said.values()))
        known = not_(maybe)
        nodes = {"sure": and_(sure, known), "maybe": maybe, "wrong": and_(wrong, known)}
        found = lower(nodes, group.compiled.world.column).collect(group.frame)
        return [found[name] for name in nodes]

    def _sides(
        self, group: PolicyGroup, chunk: Chunk, about: frozenset[str], ids: pl.Series
    ) -> Iterator[Row]:
        """Sides of literals. Rows whose comparison is an error are on none."""
        mine = compiled(group.compiled.part, chunk, self.bundle, self._asked)
        refused = {self._names[n][0] for n in mine.kernel.refused}
        key, read = group.compiled.part.key, []
        types = {"principal": key.principal_type, "resource": str(key.resource_type)}
        refused |= self._hanging(group.missing, types)
        for each in self.boundaries:
            if each.policy in about and each.number in refused:
                yield _row(group.height, ids.head(1).to_list(), boundary=each.number, side=UNREAD)
            elif each.policy in about:
                read.append(each.number)
        numbers = [n for n, (boundary, _) in enumerate(self._names) if boundary in set(read)]
        known = [n for n in numbers if f"s{n}" in mine.kernel.plan.names]
        if not known:
            return
        frame = with_literals(group.frame, mine.literals)
        found = mine.kernel.plan.added(frame.lazy()).select(f"s{n}" for n in known)
        flags = collected(found, group.height)
        for n in known:
            boundary, side = self._names[n]
            yield from _held(flags[f"s{n}"], ids, boundary=boundary, side=side)

    def _hanging(self, missing: Sequence[str], types: Mapping[str, str]) -> set[int]:
        """Boundaries that may hang on what the record did not ask for."""
        of = self.clauses.policies
        every = self.boundaries if missing else ()
        return {each.number for each in every if is_touched(of[each.policy], each.clause, missing, types)}

    # Cedar

    def of_cases(self, cases: Sequence[tuple[Case, Sequence[str], str, str]]) -> Told:
        """Ask Cedar itself.

        Args:
            cases: each with the names the record did not ask for, its tool and its decision.
        """
        told = Told([], [], [])
        if not cases:
            return told
        found = truths_of_cases([(case, missing) for case, missing, _, _ in cases], self.bundle, self.clauses)
        sides = self._sides_of([case for case, _, _, _ in cases])
        for (case, missing, tool, ident), said, sides_here in zip(cases, found, sides, strict=True):
            about = self.about(tool)
            for number, (policy, clause) in enumerate(self.clauses.places):
                if policy in about:
                    truth = said.truths[policy, clause.key]
                    examples = [] if truth == "not_reached" else [ident]
                    told.clauses.append(_row(1, examples, clause=number, truth=truth))
            for policy in sorted(about):
                if outcome := _OUTCOMES.get(said.satisfied[policy]):
                    told.policies.append(_row(1, [ident], policy=policy, outcome=outcome))
            hanging = self._hanging(
                missing, {"principal": case.principal.type, "resource": case.resource.type}
            )
            for each in self.boundaries:
                if each.policy in about:
                    unsure = each.number in hanging
                    sides_now = [UNREAD] if unsure else [side for n, side in sides_here if n == each.number]
                    rows = (_row(1, [ident], boundary=each.number, side=side) for side in sides_now)
                    told.boundaries.extend(rows)
        return told

    def _sides_of(self, cases: Sequence[Case]) -> list[list[tuple[int, str]]]:
        found: list[list[tuple[int, str]]] = [[] for _ in cases]
        if self._names:
            for batch in pack(cases, policy_literals(self.bundle)):
                store = cedarpy.Entities.from_json_str(batch.document(), self.bundle.cedar_schema)
                members = [cases[i] for i in batch.members]
                answers = ask_batch(members, store, self._engine, self.bundle.cedar_schema)
                for member, answer in zip(batch.members, answers, strict=True):
                    found[member] = [self._names[int(reason[1:])] for reason in answer.reasons]
        return found


def _held(held: pl.Series, ids: pl.Series, **key: Any) -> Iterator[Row]:
    """A row, if something holds anywhere."""
    if count := int(held.sum()):
        yield _row(count, ids.gather(held.arg_true().head(EXAMPLES)).to_list(), **key)


def _row(n: int, examples: list[str], **key: Any) -> Row:
    return {**key, "n": n, "examples": examples}
