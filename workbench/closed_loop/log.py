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
    (UInt32: its first row), apart by ledger and tenant, null for nobody;
    `key` (code of its idempotency key; null: none); `linked` (row of the decision it refers to; null: none here);
    `then calls` and so on (Int64): counters of its session that were asked for, null where not recorded."""
    ends: pl.DataFrame
    """One row an execution outcome, in (writer, position) order: `writer`, `position`, `row` (of its decision),
    `status`, `started` (Bool), `at` (ms), and what it used, by counter of `AFTER` (Int64)."""
    whole: dict[str, bool]
    """By ledger: whether the log holds it from its first row."""


def read_log(lake: Lake, counters: Sequence[str] = COUNTERS) -> Log:
    """Read the narrow columns of a lake at its pin. O(decisions + outcomes), about 200 bytes each.

    `counters`: of sessions, which are to be read as recorded.
    """
    require_whole(lake.narrowing)
    found = lake.table(DECISIONS).filter(lake.pins.holds).select(_READ)
    rows = _in_order(found.filter(pl.col("kind") != "shadow").collect()).with_row_index("row")
    ends = _ends(lake, rows)
    every = pl.concat([lake.table(table).select("writer", "position") for table in (DECISIONS, OUTCOMES)])
    first = every.group_by("writer").agg(pl.col("position").min()).collect()
    whole = {writer: position == 1 for writer, position in first.iter_rows()}
    return Log(_coded(rows, counters), ends, whole)


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by writer and position; most tables are written in order, and sorting wide rows is dear."""
    writer, position = pl.col("writer"), pl.col("position")
    before = (writer == writer.shift()) & (position > position.shift()) | (writer > writer.shift())
    sorted_ = rows.select(before.slice(1).all()).item()
    return rows if sorted_ else rows.sort("writer", "position")


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


def _coded(rows: pl.DataFrame, counters: Sequence[str]) -> pl.DataFrame:
    refer = rows.select("row", decision_id="linked_to").drop_nulls("decision_id")
    found = refer.join(rows.select("decision_id", linked="row"), on="decision_id").select("row", "linked")
    keyed = rows.filter(pl.col("idempotency_key").is_not_null()).select("row", _codes(_KEY).alias("key"))
    coded = rows.with_columns(
        *(_counter(name).alias(f"then {name}") for name in counters),
        *(_codes(by).alias(f"per {per}") for per, by in _BY.items()),
        _placed(keyed, rows.height, "key"),
        _placed(found, rows.height, "linked"),
        at=pl.col("evaluated_at").dt.timestamp("ms"),
        ran=pl.col("verdict").is_in(("allow", "modify")) & (pl.col("kind") != "duplicate"),
    )
    return coded.select(
        "row", "writer", "position", "kind", "tool", "bundle_version", "enforced_args", "linked", "key", "at", "ran",
        "^per .*$", "^then .*$",
    )  # fmt: skip


def _codes(by: Sequence[str]) -> pl.Expr:
    """The first row of each combination of ledger, tenant and these columns; null where the last of them is."""
    keys = ["writer", "tenant", *by]
    return pl.when(pl.col(keys[-1]).is_not_null()).then(pl.col("row").first().over(keys))


def _placed(some: pl.DataFrame, height: int, name: str) -> pl.Series:
    """A column of so many rows, null but for some."""
    nothing = pl.Series(name, [None], dtype=pl.UInt32).new_from_index(0, height)
    return nothing.scatter(some["row"], some[name]) if some.height else nothing


def _counter(name: str) -> pl.Expr:
    return pl.col("session_state").str.extract(rf'[{{,]"{name}":(\d{{1,18}})[,}}]').cast(pl.Int64)
