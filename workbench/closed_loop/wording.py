"""What refuses a call, as numbers, and in the runtime's words.

One rule: reasons are worded by the limits themselves, each asked once for what is alike.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.effects import EFFECTS, now_of
from workbench.history.results import ENGINE, once_each
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.breakers import Circuit
    from runtime.limits import Breaker, Budget
    from workbench.closed_loop.entries import Numbers, Refusal
    from workbench.closed_loop.rules import Ruleset

RESULT = (
    "status", "cause", "missing", "verdict", "decided_by", "reason_code", "reason", "determining", "errors",
    "enforced_args", "engine", "effect", "verdict_changed", "handed_over",
)  # fmt: skip
"""Columns that deciding again gives; the others are of the record, or of its self-replay."""

_SCHEMA = {"row": pl.UInt32, "reason_code": pl.String, "reason": pl.String}


def numbers_of(circuit: Circuit, breaker: Breaker) -> Numbers:
    """Return what the reason of a breaker that refuses tells: until when, errors, calls; or None, and the probes."""
    if circuit.state == "half_open":
        return None, len(circuit.probes), 0
    return circuit.since + breaker.open_ms, circuit.recent.count("1"), len(circuit.recent)


def worded(refused: Mapping[Refusal, Sequence[int]], rulesets: Sequence[Ruleset]) -> pl.DataFrame:
    """Return refusals in words: `row` (UInt32), `reason_code`, `reason` (String), by row."""
    said = []
    for (place, limit, first, second, third), rows in refused.items():
        rules, numbers = rulesets[place], (first, second, third)
        here = limit - len(rules.breakers)
        code, reason = (
            _breaker(rules.breakers[limit], *numbers) if here < 0 else _budget(rules.budgets[here], *numbers)
        )
        said.append((rows, code, reason))
    frame = pl.DataFrame(said, schema={**_SCHEMA, "row": pl.List(pl.UInt32)}, orient="row")
    return frame.explode("row").sort("row")


def refusals(frame: pl.LazyFrame, said: pl.DataFrame) -> pl.DataFrame:
    """Return rows as limits refuse them: `row` and `RESULT`.

    Args:
        frame: the first replay.
        said: as `worded` returns it, of rows that were decided.
    """
    if said.is_empty():
        return pl.DataFrame(schema={"row": pl.UInt32, **{name: FRAME[name] for name in RESULT}})
    kinds = frame.select("then", "kind", "recorded_verdict").collect()[said["row"]]
    effect = once_each(kinds, ("then", "kind"), _not_run)
    nothing = pl.lit([], dtype=pl.List(pl.String))
    found = said.with_columns(
        effect.alias("effect"),
        nothing.alias("missing"),
        nothing.alias("determining"),
        pl.lit([]).cast(FRAME["errors"]).alias("errors"),
        (kinds["recorded_verdict"] != "block").alias("verdict_changed"),
        status=pl.lit("decided"),
        verdict=pl.lit("block"),
        decided_by=pl.lit("limits"),
        engine=pl.lit(ENGINE),
    )
    lacking = [pl.lit(None, FRAME[name]).alias(name) for name in RESULT if name not in found.columns]
    return found.with_columns(lacking).select("row", *(pl.col(name).cast(FRAME[name]) for name in RESULT))


def _not_run(then: Any, kind: str) -> str:
    return EFFECTS[then, now_of("block", kind=kind, same_action=False)]


def _breaker(breaker: Breaker, until: int | None, some: int, calls: int) -> tuple[str, str]:
    if until is None:
        return "breaker_open", breaker.is_half_open(some)
    moment = datetime.fromtimestamp(until / 1000, UTC).isoformat(timespec="milliseconds")
    return "breaker_open", breaker.is_open(moment.replace("+00:00", "Z"), some, calls)


def _budget(budget: Budget, used: int | None, asked: int, _: int) -> tuple[str, str]:
    if asked < 0 or used is None:
        return "amount_invalid", budget.no_amount
    code = "budget_spent" if budget.meter.window_ms is None else "rate_exceeded"
    return code, budget.message(used, asked)
