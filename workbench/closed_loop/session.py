"""The session's own counters before each call, as verdicts move them now: what was recorded, and what differs.

One rule: a counter is the recorded one, plus what calls before it in the log would have added and did not, less what
they added and would not have. Where nothing differs it is what was recorded, to the digit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.closed_loop.entries import NO, UNSURE, YES
from workbench.closed_loop.log import AFTER, COUNTERS

if TYPE_CHECKING:
    from workbench.closed_loop.log import Log

_ORDER = ("writer", "position")


def moved(log: Log, calls: pl.DataFrame, rows: pl.Series | None = None) -> pl.DataFrame | None:
    """Return by how much the counters of each decision's session differ from what was recorded.

    Args:
        log: the history.
        calls: one row a row of the log: `runs` (UInt8), `known` (Bool: it ends as it ended), `heir` (Int64: the row
            whose outcomes are its own, if it ran where it was asked for; -1: none).
        rows: tell of sessions of these rows alone; None: of all.

    Returns:
        One row a decision whose session has moved before it: `row`, and by counter `low <name>` and `high <name>`
        (Int64; a null `high`: no bound). None: nothing has moved.

    Cost: a sort of the sessions that have moved, and a cumulative sum a counter.
    """
    events = pl.concat([_begun(log, calls), _ended(log, calls)], how="diagonal")
    if rows is not None:
        events = events.filter(
            pl.col("session").is_in(log.rows["per session"].gather(rows).unique().implode())
        )
    touched = events.filter(pl.any_horizontal(_moves())).select("session").unique()
    if touched.is_empty():
        return None
    names = [*(f"{side} {name}" for name in COUNTERS for side in ("low", "high")), "open"]
    mine = events.join(touched, on="session", how="semi").sort(*_ORDER)
    before = [
        (pl.col(n).fill_null(0).cum_sum() - pl.col(n).fill_null(0)).over("session").alias(n) for n in names
    ]
    found = mine.with_columns(before).filter(pl.col("is_call"))
    unbounded = [pl.when(pl.col("open") == 0).then(f"high {name}").alias(f"high {name}") for name in AFTER]
    differs = pl.any_horizontal(_moves())
    return found.filter(differs).with_columns(unbounded).select("row", *names[:-1])


def _moves() -> list[pl.Expr]:
    return [pl.col(f"{side} {name}") != 0 for name in COUNTERS for side in ("low", "high")] + [
        pl.col("open") != 0
    ]


def _begun(log: Log, calls: pl.DataFrame) -> pl.DataFrame:
    """Calls that are begun now or were then."""
    runs, ran = calls["runs"], log.rows["ran"].cast(pl.Int64)
    as_then = calls["known"] | (calls["heir"] >= 0)
    return log.rows.select("row", *_ORDER, session="per session", is_call=pl.lit(value=True)).with_columns(
        ((runs == YES).cast(pl.Int64) - ran).alias("low calls"),
        ((runs != NO).cast(pl.Int64) - ran).alias("high calls"),
        ((runs != NO) & ~as_then).cast(pl.Int64).alias("open"),
    )


def _ended(log: Log, calls: pl.DataFrame) -> pl.DataFrame:
    """Outcomes that are not there now, or may not be."""
    runs = calls.with_row_index("asker").filter(pl.col("heir") >= 0)
    at_once = runs.select(row=pl.col("heir").cast(pl.UInt32), at_once="runs")
    own = pl.when("known").then("runs").otherwise(pl.lit(NO, pl.UInt8))
    stands = log.ends.join(
        calls.with_row_index("row").select("row", own=own), on="row", how="left", maintain_order="left"
    ).join(at_once, on="row", how="left", maintain_order="left")
    sessions = log.rows.select("row", session="per session")
    may = pl.col("holds") == UNSURE
    holds = pl.max_horizontal("own", pl.col("at_once").fill_null(NO))
    return (
        stands.with_columns(holds=holds)
        .filter(pl.col("holds") != YES)
        .join(sessions, on="row", how="left", maintain_order="left")
        .select(
            "row", *_ORDER, "session",
            *((-pl.col(name)).alias(f"low {name}") for name in AFTER),
            *(pl.when(may).then(0).otherwise(-pl.col(name)).alias(f"high {name}") for name in AFTER),
            is_call=pl.lit(value=False),
        )
    )  # fmt: skip


def rewritten(states: pl.Series, moves: pl.DataFrame) -> pl.Series:
    """Return texts of `session_state` with the counters as they would be, or at least are.

    Args:
        states: as recorded.
        moves: `low <name>` a row a text (Int64); null: as recorded.
    """
    frame = pl.DataFrame({"text": states}).hstack(moves.select(f"low {name}" for name in COUNTERS))
    for name in COUNTERS:
        if (frame[f"low {name}"].fill_null(0) != 0).any():
            frame = frame.with_columns(text=_one(name))
    return frame["text"]


def _one(name: str) -> pl.Expr:
    text, by = pl.col("text"), pl.col(f"low {name}").fill_null(0)
    parts = text.str.extract_groups(rf'^(.*[{{,]"{name}":)(\d{{1,18}})([,}}].*)$')
    head, value, rest = (parts.struct.field(str(place)) for place in (1, 2, 3))
    now = pl.concat_str([head, (value.cast(pl.Int64) + by).cast(pl.String), rest])
    return pl.when(head.is_null() | (by == 0)).then(text).otherwise(now)
