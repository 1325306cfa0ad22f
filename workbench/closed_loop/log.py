"""What the log says of calls and of how they ended, in the order of the ledger, as narrow columns.

One rule: a row here is a row of `Replay.frame`, at the same place; state is kept apart by ledger, as ledgers keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from runtime.lifecycle import BROKEN
from runtime.trace import DECISIONS, OUTCOMES
from workbench.narrowing import require_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.limits import Per
    from workbench.lake import Lake

AFTER = ("cost_micros", "input_tokens", "output_tokens", "wall_ms", "failures")
"""Counters of a session that outcomes move."""

COUNTERS = ("calls", *AFTER)
"""Counters of a session that verdicts move; `repeats` counts attempts, whatever becomes of them."""

_BY: Mapping[Per, tuple[str, ...]] = {
    "session": ("session_id",),
    "principal": ("principal_type", "principal_id"),
    "on_behalf_of": ("on_behalf_of_type", "on_behalf_of_id"),
    "tenant": (),
    "tool": ("tool",),
}
_KEY = ("principal_type", "principal_id", "on_behalf_of_type", "on_behalf_of_id", "tool", "idempotency_key")
_READ = (
    "decision_id", "writer", "position", "kind", "linked_to", "tool", "tenant", "session_id", "principal_type",
    "principal_id", "on_behalf_of_type", "on_behalf_of_id", "idempotency_key", "bundle_version", "verdict",
    "evaluated_at", "enforced_args", "session_state",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Log:
    """The history of a lake at its pin."""

    rows: pl.DataFrame
    """One row a decision, in (writer, position) order: `writer`, `position`, `kind`, `tool`, `bundle_version`,
    `enforced_args`; `at` (ms); `ran` (Bool: then, a call was begun by it); `per session` and so on, a code a scope
    (UInt32), apart by ledger and tenant, null for nobody;
    `key` (code of its idempotency key; null: none); `linked` (row of the decision it refers to; null: none here);
    `then calls` and so on (Int64): counters of its session as recorded, null where they are not."""
    ends: pl.DataFrame
    """One row an execution outcome, in (writer, position) order: `writer`, `position`, `row` (of its decision),
    `status`, `started` (Bool), `at` (ms), and what it used, by counter of `AFTER` (Int64)."""
    whole: dict[str, bool]
    """By ledger: whether the log holds it from its first row."""


def read_log(lake: Lake) -> Log:
    """Read the narrow columns of a lake at its pin. O(decisions + outcomes), about 200 bytes each."""
    require_whole(lake.narrowing)
    found = lake.table(DECISIONS).filter(lake.pins.holds).select(_READ)
    rows = found.filter(pl.col("kind") != "shadow").collect().sort("writer", "position").with_row_index("row")
    ends = _ends(lake, rows)
    every = pl.concat([lake.table(table).select("writer", "position") for table in (DECISIONS, OUTCOMES)])
    first = every.group_by("writer").agg(pl.col("position").min()).collect()
    whole = {writer: position == 1 for writer, position in first.iter_rows()}
    return Log(_coded(rows), ends, whole)


def _ends(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    micros = [
        pl.col(name).dt.timestamp("us").alias(name) for name in ("started_at", "ended_at", "recorded_at")
    ]
    found = (
        lake.table(OUTCOMES)
        .filter(lake.pins.holds, pl.col("kind") == "execution")
        .with_columns(micros)
        .select(
            "decision_id", "writer", "position", "status",
            pl.col("cost_micros", "input_tokens", "output_tokens").fill_null(0),
            started=pl.col("started_at").is_not_null(),
            at=pl.col("recorded_at") // 1000,
            wall_ms=_ceil_ms(pl.col("ended_at") - pl.col("started_at")),
            failures=_failed().cast(pl.Int64),
            broken=pl.col("reason_code").is_in(list(BROKEN)).fill_null(value=False),
        )
        .collect()
    )  # fmt: skip
    places = rows.select("decision_id", "row")
    return found.join(places, on="decision_id").drop("decision_id").sort("writer", "position")


def _ceil_ms(micros: pl.Expr) -> pl.Expr:
    """Whole milliseconds, a begun one counted; nothing where it was not told or the clock went back."""
    return (-((-micros) // 1000)).clip(0).fill_null(0)


def _failed() -> pl.Expr:
    return (pl.col("status") == "failed") | pl.col("reason_code").is_in(list(BROKEN)).fill_null(value=False)


def _coded(rows: pl.DataFrame) -> pl.DataFrame:
    linked = rows.select(linked="row", linked_to="decision_id")
    coded = rows.join(linked, on="linked_to", how="left", maintain_order="left").with_columns(
        *(_counter(name).alias(f"then {name}") for name in COUNTERS),
        *(_codes(rows, by).alias(f"per {per}") for per, by in _BY.items()),
        _codes(rows, _KEY).alias("key"),
        at=pl.col("evaluated_at").dt.timestamp("ms"),
        ran=pl.col("verdict").is_in(("allow", "modify")) & (pl.col("kind") != "duplicate"),
    )
    return coded.select(
        "row", "writer", "position", "kind", "tool", "bundle_version", "enforced_args", "linked", "key", "at", "ran",
        "^per .*$", "^then .*$",
    )  # fmt: skip


def _codes(rows: pl.DataFrame, by: Sequence[str]) -> pl.Series:
    """A number for each combination of ledger, tenant and these columns; null where the last of them is."""
    keys = ["writer", "tenant", *by]
    numbers = rows.select(keys).unique().with_row_index("code")
    joined = rows.select(keys).join(numbers, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return joined.select(pl.when(pl.col(keys[-1]).is_not_null()).then("code"))["code"]


def _counter(name: str) -> pl.Expr:
    return pl.col("session_state").str.extract(rf'[{{,]"{name}":(\d{{1,18}})[,}}]').cast(pl.Int64)
