"""Clauses of two versions side by side, for one decision.

One rule: a clause is the same if its policy, its place and its text are; of what is left of a policy, clauses that
stand between the same neighbours are taken as edited.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from runtime.canonical import canonical
from workbench.explaining.truths import TRUTH
from workbench.explaining.values_read import values_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.explaining.clauses import Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side
    from workbench.explaining.truths import Truth

_VALUES = pl.List(pl.Struct({"path": pl.String, "state": pl.String, "value": pl.String, "source": pl.String}))
FRAME: Mapping[str, Any] = {
    "request": pl.String, "version": pl.String, "policy": pl.String, "effect": pl.String, "key": pl.String,
    "place": pl.String, "clause": pl.String, "base_clause": pl.String, "file": pl.String, "line": pl.Int64,
    "then": TRUTH, "now": TRUTH, "changed": pl.Boolean, "let_then": pl.Boolean, "let_now": pl.Boolean,
    "base_values": _VALUES, "values": _VALUES,
}  # fmt: skip
"""Columns of `Why.frame`."""


class Pair(NamedTuple):
    """A clause under both versions; one of them may have none."""

    base: Clause | None
    cand: Clause | None

    @property
    def version(self) -> str:
        """`both`, `edited`, `base` or `candidate`."""
        if self.base is None or self.cand is None:
            return "candidate" if self.base is None else "base"
        return "both" if self.base.text == self.cand.text else "edited"


def pairs_of(base: PolicyClauses | None, cand: PolicyClauses | None) -> list[Pair]:
    """Pair a policy's clauses, in the candidate's order."""
    ones, others = ([] if each is None else list(each.walk()) for each in (base, cand))
    if base is cand:
        return [Pair(each, each) for each in ones]
    names, known = ([(each.place, each.text) for each in side] for side in (others, ones))
    found: list[Pair] = []
    for _, i, j, k, m in SequenceMatcher(None, known, names, autojunk=False).get_opcodes():
        found += _paired(ones[i:j], others[k:m])
    return found


def _paired(ones: Sequence[Clause], others: Sequence[Clause]) -> Iterator[Pair]:
    """Pair what stands between the same neighbours, place by place."""
    left = list(ones)
    for other in others:
        at = next((n for n, one in enumerate(left) if (one.place, one.op) == (other.place, other.op)), None)
        yield Pair(None if at is None else left.pop(at), other)
    yield from (Pair(one, None) for one in left)


def lets(policy: PolicyClauses, clause: Clause, truths: Mapping[tuple[str, str], Truth]) -> bool | None:
    """Tell whether a clause let its policy be satisfied; None: it is a part of one, was not reached, or is unknown.

    Of an `unless`, all clauses that were reached let it where their body does not hold.
    """
    truth = truths[policy.id, clause.key]
    if truth in ("not_reached", "unknown") or clause not in policy.top:
        return None
    if clause.place != "unless":
        return truth == "true"
    body = next(body for body in policy.bodies if clause in body.clauses)
    told = [truths[policy.id, each.key] for each in body.clauses]
    if "unknown" in told:
        return None
    return "false" in told


def rows_of(base: Side, cand: Side) -> Iterator[tuple[Any, ...]]:
    """Yield rows of `FRAME`."""
    for request, one, other in (
        ("original", base.first, cand.first),
        ("patched", base.patched, cand.patched),
    ):
        if one is not None or other is not None:
            yield from _rows(request, base, cand, one, other)


def _rows(
    request: str, base: Side, cand: Side, one: Evaluation | None, other: Evaluation | None
) -> Iterator[tuple[Any, ...]]:
    sides = [{} if each.clauses is None else each.clauses.policies for each in (base, cand)]
    for ident in dict.fromkeys((*sides[1], *sides[0])):
        was, now = sides[0].get(ident), sides[1].get(ident)
        for pair in pairs_of(was, now):
            clause, policy = (pair.cand, now) if pair.cand is not None else (pair.base, was)
            assert clause is not None  # noqa: S101 - a pair has one of them
            assert policy is not None  # noqa: S101 - of which it is a clause
            then_told, now_told = _told(was, pair.base, one), _told(now, pair.cand, other)
            yield (
                request, pair.version, ident, effect_of(policy), clause.key, clause.place, clause.text,
                pair.base.text if pair.base is not None and pair.version == "edited" else None,
                clause.file, clause.line, then_told[0], now_told[0], then_told[0] != now_told[0],
                then_told[1], now_told[1], then_told[2], now_told[2],
            )  # fmt: skip


def effect_of(policy: PolicyClauses) -> str:
    """Say what a policy does: `permit`, `forbid`, or what lifts the forbid."""
    return policy.info.effect if policy.info.verdict == "plain" else policy.info.verdict


def _told(
    policy: PolicyClauses | None, clause: Clause | None, evaluation: Evaluation | None
) -> tuple[Truth | None, bool | None, list[dict[str, str | None]] | None]:
    if policy is None or clause is None or evaluation is None:
        return None, None, None
    truths = evaluation.told.truths
    values: list[dict[str, str | None]] = [
        {
            "path": each.path,
            "state": each.state,
            "value": canonical(each.json) if each.state == "value" else None,
            "source": each.source,
        }
        for each in values_of(clause, evaluation.prepared)
    ]
    return truths[policy.id, clause.key], lets(policy, clause, truths), values
