"""From masks over policies to rulings: what the runtime would say, for every row of a frame.

One rule: each distinct combination of satisfied and erring policies is worked out once, by the runtime's own code
(`runtime.ruling`, `runtime.policy`); a row only looks its combination up. The rule exists once.

Accepted: columns have no messages for evaluation errors, so `policy_error` reasons name the forbid alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from runtime.policy import reason_of
from runtime.ruling import Answer, PolicyFault, determining, flags_of, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import PolicyInfo
    from runtime.trace import Verdict

WORD = 64
"""Policies in one mask."""

_KINDS = ("satisfied_", "errored_")
_IDS = pl.List(pl.String)

RULED: Mapping[str, pl.DataType] = {
    "verdict": pl.String(),
    "decided_by": pl.String(),
    "reason_code": pl.String(),
    "reason": pl.String(),
    "cedar_decision": pl.String(),
    "cedar_reasons": _IDS,
    "determining": _IDS,
    "errors": _IDS,
}
"""Columns of `ruled`."""


@dataclass(frozen=True, slots=True)
class Combinations:
    """The distinct answers of a frame, and which one each row has."""

    codes: pl.Series
    """UInt32, one a row: position in `answers`."""
    answers: tuple[Answer, ...]
    """As Cedar would give them; `PolicyFault.message` is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that is said of a row, but for its arguments. Null verdict: nothing was decided."""

    status: str = "decided"
    why: str | None = None
    verdict: Verdict | None = None
    reason_code: str | None = None
    reason: str | None = None
    answer: Answer | None = None
    """What plain Cedar says of the request as it stands."""
    determining: tuple[str, ...] = ()
    enforced_determining: tuple[str, ...] = ()
    errors: frozenset[str] = frozenset()


@dataclass(slots=True)
class Outcomes:
    """Distinct outcomes, by number."""

    numbers: dict[Outcome, int] = field(default_factory=dict)

    def number(self, outcome: Outcome) -> int:
        """Return the outcome's number; equal outcomes have one."""
        return self.numbers.setdefault(outcome, len(self.numbers))

    def frame(self, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Return one row an outcome, by number, with the columns of `schema`."""
        return _frame(self.numbers, schema)


def _frame(outcomes: Iterable[Outcome], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    rows = [_row(outcome) for outcome in outcomes]
    return pl.DataFrame({name: [row[name] for row in rows] for name in schema}, schema=dict(schema))


def _row(outcome: Outcome) -> dict[str, object]:
    if outcome.answer is None:
        return dict.fromkeys((*RULED, "enforced_determining")) | {
            "status": outcome.status,
            "why": outcome.why,
        }
    return {
        "verdict": outcome.verdict,
        "decided_by": "policy",
        "reason_code": outcome.reason_code,
        "reason": outcome.reason,
        "cedar_decision": outcome.answer.decision,
        "cedar_reasons": list(outcome.answer.reasons),
        "determining": list(outcome.determining),
        "enforced_determining": list(outcome.enforced_determining),
        "errors": sorted(outcome.errors),
        "status": outcome.status,
        "why": outcome.why,
    }


def combinations(masks: pl.DataFrame, policies: Sequence[str], permits: frozenset[str]) -> Combinations:
    """Return the distinct answers that masks stand for.

    Args:
        masks: `satisfied_<w>` and `errored_<w>` (UInt64; bit n of word w is policy 64 w + n); others are ignored.
        policies: ids by bit number.
        permits: which of them are permits.

    Cost: a hash join over the words that vary; Python once a distinct combination.
    """
    words = [name for name in masks.columns if name.startswith(_KINDS)]
    distinct = masks.select(words).unique().sort(words)
    answers = tuple(_answers(distinct, policies, permits))
    keys = [name for name in words if distinct[name].n_unique() > 1]
    if not keys:
        return Combinations(pl.zeros(masks.height, dtype=pl.UInt32, eager=True), answers)
    numbered = distinct.select(keys).with_row_index("code")
    codes = masks.select(keys).join(numbered, on=keys, how="left", maintain_order="left")["code"]
    return Combinations(codes, answers)


def _answers(distinct: pl.DataFrame, policies: Sequence[str], permits: frozenset[str]) -> Iterator[Answer]:
    for row in distinct.iter_rows(named=True):
        satisfied = _ids(row, "satisfied_", policies)
        errors = tuple(PolicyFault(policy, "") for policy in _ids(row, "errored_", policies))
        allowing = tuple(policy for policy in satisfied if policy in permits)
        forbids = tuple(policy for policy in satisfied if policy not in permits)
        allowed = bool(allowing) and not forbids
        yield Answer("Allow" if allowed else "Deny", forbids or allowing, errors, permitted=bool(allowing))


def _ids(row: Mapping[str, int], kind: str, policies: Sequence[str]) -> list[str]:
    """The policies whose bits are set, sorted by id."""
    words = {int(name.removeprefix(kind)): bits for name, bits in row.items() if name.startswith(kind)}
    return sorted(
        policy for number, policy in enumerate(policies) if words[number // WORD] >> (number % WORD) & 1
    )


def permits_of(infos: Mapping[str, PolicyInfo]) -> frozenset[str]:
    """Return the ids of the permits."""
    return frozenset(ident for ident, policy in infos.items() if policy.effect == "permit")


def outcome_of(answer: Answer, infos: Mapping[str, PolicyInfo]) -> Outcome:
    """Return what follows from one evaluation, by the runtime's rule. A `modify` is not applied here."""
    ruling = rule(flags_of(answer, infos))
    found = determining(ruling, answer, infos)
    return Outcome(
        verdict=ruling.verdict,
        reason_code=ruling.code,
        reason=reason_of(ruling, answer, found),
        answer=answer,
        determining=found,
        errors=frozenset(fault.policy for fault in answer.errors),
    )


def ruled(masks: pl.DataFrame, policies: Sequence[str], infos: Mapping[str, PolicyInfo]) -> pl.DataFrame:
    """Return the ruling over one evaluation of each row.

    Args:
        masks: `satisfied_<w>` and `errored_<w>` (UInt64; bit n of word w is policy 64 w + n).
        policies: ids by bit number.
        infos: the bundle's policies, by id.

    Returns:
        One row a row of `masks`, in order, never null: `verdict` (`modify` where patches still have to be applied),
        `decided_by` (`policy`), `reason_code`, `reason`, `cedar_decision` (String); `cedar_reasons`, `determining`,
        `errors` (List[String], policy ids, sorted).
    """
    found = combinations(masks, policies, permits_of(infos))
    table = _frame([outcome_of(answer, infos) for answer in found.answers], RULED)
    return table.select(pl.all().gather(found.codes))
