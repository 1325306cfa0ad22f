"""What was counted, read: clauses, policies, lines, tools, shapes, ranges and boundaries as tables.

One rule: every table sums to what it is about. A clause's five truths are the decisions of the tools its policy is
about; a boundary's sides, with those where the value was absent or could not be asked, likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from workbench.covering.asking import UNREAD, Asking
from workbench.covering.counts import ASKED
from workbench.explaining.truths import TRUTHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from workbench.covering.boundaries import Boundary
    from workbench.covering.counts import Counts
    from workbench.explaining.clauses import Clause
    from workbench.explaining.truths import Truth

State = Literal["both", "one", "unknown", "never"]
"""Of a clause: exercised every way it can go; one of two ways; not once that is known, and perhaps; not once."""


Way = Literal["true", "false"]
"""A clause can go."""


class Sides(NamedTuple):
    """Which ways a clause can go."""

    true: bool
    false: bool

    @property
    def names(self) -> tuple[Way, ...]:
        """Those it can."""
        return (*(("true",) if self.true else ()), *(("false",) if self.false else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClauseCount:
    """A clause with how often it was what."""

    bundle: str
    """Policy hash."""
    policy: str
    """Id of what decides: of a linked policy, the link's."""
    clause: Clause
    sides: Sides
    truths: Mapping[Truth, int]
    """By `workbench.explaining.truths.Truth`; they sum to `decisions`."""
    decisions: int
    """Of the tools the policy is about."""

    @property
    def reached(self) -> int:
        """Decisions in which it is known to be evaluated."""
        return self.truths["true"] + self.truths["false"] + self.truths["error"]

    @property
    def state(self) -> State:
        """How well it was exercised."""
        return state_of(self.truths, self.sides.names)

    @property
    def lacking(self) -> str:
        """What it never was, in words; empty: nothing."""
        return lacking_of(self.truths, self.sides.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCount:
    """A policy with how often it was what."""

    bundle: str
    policy: str
    effect: str
    file: str
    line: int
    decisions: int
    """Of the tools it is about."""
    evaluated: int
    satisfied: int
    decisive: int
    """Decisions it determined, alone or with others."""
    errored: int
    unknown: int
    """Evaluated decisions in which something missing may hang on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCount:
    """A literal with the sides decisions were on."""

    bundle: str
    boundary: Boundary
    sides: Mapping[str, int]
    """By side."""
    absent: int
    """Evaluated, and there was nothing to compare."""
    unread: int
    """Refused before policies, or hanging on what is not known."""

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Sides nobody was on. Nobody is expected to meet a time to the millisecond."""
        return tuple(side for side, n in self.sides.items() if not n and side in self.boundary.expected)

    @property
    def decisions(self) -> int:
        """Of the tools its policy is about."""
        return sum(self.sides.values()) + self.absent + self.unread


@dataclass(frozen=True)
class Views:
    """Everything that can be read off the counts."""

    counts: Counts
    bundles: Mapping[str, Bundle]
    """By policy hash."""

    @cached_property
    def asking(self) -> dict[str, Asking]:
        """The bundles' clauses and boundaries."""
        return {key: Asking(bundle) for key, bundle in self.bundles.items()}

    @cached_property
    def clauses(self) -> tuple[ClauseCount, ...]:
        """Every clause of every policy, in the order of the bundles and their texts."""
        return tuple(self._clauses())

    def _clauses(self) -> Iterator[ClauseCount]:
        told = _by_key(self.counts["clauses"], "bundle", "clause", "truth")
        for key, asking in self.asking.items():
            for number, (policy, clause) in enumerate(asking.clauses.places):
                asked = self._asked(key, asking.tools[policy])
                truths = {truth: told.get((key, number, truth), 0) for truth in TRUTHS}
                truths["not_reached"] += asked["before"]
                truths["unknown"] += asked["undecided"] + asked["quarantined"] + asked["handed over"]
                yield ClauseCount(
                    bundle=key,
                    policy=policy,
                    clause=clause,
                    sides=sides_of(clause, asking.tools[policy], asking.bundle),
                    truths=truths,
                    decisions=sum(asked.values()),
                )

    def _asked(self, bundle: str, tools: frozenset[str]) -> dict[str, int]:
        """Decisions of some tools by what was asked of them."""
        found = dict.fromkeys(ASKED, 0)
        for tool in tools:
            for asked, n in self._by_tool.get((bundle, tool), {}).items():
                found[asked] += n
        return found

    @cached_property
    def _by_tool(self) -> dict[tuple[str, str], dict[str, int]]:
        found: dict[tuple[str, str], dict[str, int]] = {}
        for bundle, tool, asked, n in self.counts["asked"].select("bundle", "tool", "asked", "n").iter_rows():
            found.setdefault((bundle, tool), {})[asked] = n
        return found

    @cached_property
    def policies(self) -> tuple[PolicyCount, ...]:
        """Every policy, in the order of the bundles."""
        return tuple(self._policies())

    def _policies(self) -> Iterator[PolicyCount]:
        told = _by_key(self.counts["policies"], "bundle", "policy", "outcome")
        for key, asking in self.asking.items():
            for ident, info in asking.bundle.policies.items():
                asked = self._asked(key, asking.tools[ident])
                names = ("satisfied", "decisive", "errored", "unknown")
                counts = {name: told.get((key, ident, name), 0) for name in names}
                yield PolicyCount(
                    bundle=key,
                    policy=ident,
                    effect=info.effect,
                    file=info.file,
                    line=info.line,
                    decisions=sum(asked.values()),
                    evaluated=asked["evaluated"] + asked["partly"],
                    **counts,
                )

    @cached_property
    def boundaries(self) -> tuple[BoundaryCount, ...]:
        """Every literal that something is compared with."""
        return tuple(self._boundaries())

    def _boundaries(self) -> Iterator[BoundaryCount]:
        told = _by_key(self.counts["boundaries"], "bundle", "boundary", "side")
        for key, asking in self.asking.items():
            for each in asking.boundaries:
                asked = self._asked(key, asking.tools[each.policy])
                sides = {side: told.get((key, each.number, side), 0) for side in each.sides}
                unread = told.get((key, each.number, UNREAD), 0)
                evaluated = asked["evaluated"] + asked["partly"]
                absent = evaluated - sum(sides.values()) - unread
                rest = sum(asked.values()) - evaluated
                yield BoundaryCount(
                    bundle=key, boundary=each, sides=sides, absent=absent, unread=unread + rest
                )

    @property
    def decisions(self) -> int:
        """All that were looked at."""
        return int(self.counts["decisions"]["n"].sum())

    @cached_property
    def tools(self) -> dict[str, int]:
        """Decisions by tool; tools of the schemas that were never called have none. Most called first."""
        declared = {
            name: 0
            for bundle in self.bundles.values()
            for name, action in sorted(bundle.schema.actions.items())
            if action.principals
        }
        rows = self.counts["decisions"].group_by("tool").agg(pl.col("n").sum()).sort("tool")
        found = declared | dict(rows.iter_rows())
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def _by_key(frame: pl.DataFrame, *keys: str) -> dict[tuple[object, ...], int]:
    return {key: n for *key_, n in frame.select(*keys, "n").iter_rows() if (key := tuple(key_))}


def state_of(truths: Mapping[Truth, int], sides: Sequence[Way]) -> State:
    """Say how well a clause was exercised that can go these ways."""
    if not _reached(truths):
        return "unknown" if truths["unknown"] else "never"
    return "both" if all(truths[side] for side in sides) else "one"


def lacking_of(truths: Mapping[Truth, int], sides: Sequence[Way]) -> str:
    """Say what a clause never was; an empty text: nothing."""
    if not _reached(truths):
        return "not known" if truths["unknown"] else "never reached"
    if not any(truths[side] for side in sides):
        return "only in error"
    return next((f"never {side}" for side in sides if not truths[side]), "")


def _reached(truths: Mapping[Truth, int]) -> int:
    return truths["true"] + truths["false"] + truths["error"]


def sides_of(clause: Clause, tools: frozenset[str], bundle: Bundle) -> Sides:
    """Return which ways a clause can go, for the tools its policy is about.

    The action's part of a scope holds for all of them. `principal is T` holds wherever the schema allows no other
    type, and nowhere if it does not allow that one.
    """
    if not clause.is_scope:
        return Sides(true=True, false=True)
    if clause.place == "action":
        return Sides(true=True, false=False)
    actions = [bundle.schema.actions[tool] for tool in tools]
    types = {
        kind
        for each in actions
        for kind in (each.principals if clause.place == "principal" else each.resources)
    }
    match clause.body:
        case {"op": "is", "entity_type": kind, **rest} if "in" not in rest:
            return Sides(true=kind in types, false=bool(types - {kind}))
        case _:
            return Sides(true=True, false=True)
