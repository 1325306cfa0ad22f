"""Verdicts over time: stacked bars on an axis of time, so that an hour without a decision is seen as a gap."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import polars as pl

from workbench.errors import ColumnUnknown, need
from workbench.metrics import STATES
from workbench.plotting.plot import WIDTH, Plot, inline, nothing, scale
from workbench.texts import count

if TYPE_CHECKING:
    from datetime import datetime

    from workbench.lake import Lake
    from workbench.replay import Replay

STATE_COLOURS = {
    "allow": "#8fb1a3",
    "modify": "#5b8def",
    "approve": "#d9a441",
    "block": "#c2513f",
    "undecided": "#b08bd0",
    "quarantined": "#6b5b7b",
}
"""In the order they are stacked."""
BINS = 96
"""Bars at most, where nobody says how long one is."""
MOST_BINS = 1_000
"""Bars at most."""
_STEPS = {
    "1s": 1, "5s": 5, "15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "3h": 10_800, "6h": 21_600,
    "12h": 43_200, "1d": 86_400, "1w": 604_800, "1mo": 2_678_400, "3mo": 8_035_200, "1y": 31_622_400,
}  # fmt: skip
"""Lengths of a bar, in seconds, the longest they can be."""


def verdicts(given: Lake | Replay, *, every: str | None = None) -> Plot:
    """Draw how many decisions had which verdict, over time.

    Args:
        given: a lake, for what was recorded; or a replay, for what it says, undecided and quarantined rows included.
        every: how long a bar is, as Polars writes it: `15m`, `1h`, `1d`, `1mo`; None: chosen by the time there is.

    Raises:
        ValueError: `every` is no length of time, or so short that there would be over 1,000 bars.

    Cost: two columns of all decisions.
    """
    rows = _rows(given).collect()
    if rows.is_empty():
        return nothing("Nothing was decided.")
    first, last = cast("tuple[datetime, datetime]", (rows["at"].min(), rows["at"].max()))  # there are rows
    seconds = (last - first).total_seconds()
    chosen = every or _every(seconds)
    try:
        starts = rows["at"].dt.truncate(chosen)
        step = starts.head(1).dt.offset_by(chosen)[0] - starts[0]
    except (pl.exceptions.PolarsError, ValueError) as exc:
        raise ValueError(f"`every` is a length of time such as '15m', '1h' or '1d', got {every!r}") from exc
    if step <= timedelta(0) or seconds / step.total_seconds() > MOST_BINS:
        raise ValueError(
            f"`every={chosen!r}` gives more than {MOST_BINS:,} bars; every={_every(seconds)!r} gives some {BINS}"
        )
    data = _stacked(rows.with_columns(at=starts), chosen)
    alt = need("altair")
    chart = (
        alt.Chart(inline(data.with_columns(pl.col("from", "to").dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))))
        .mark_bar()
        .encode(
            x=alt.X(
                "from:T",
                scale=alt.Scale(type="utc"),
                title=f"time (UTC) from {first:%Y-%m-%d}, a bar is {chosen}",
                axis=alt.Axis(format=_format(step), grid=False, labelOverlap=True, tickCount=8),
            ),
            x2="to:T",
            y=alt.Y("low:Q", title="decisions", axis=alt.Axis(tickMinStep=1, tickCount=5, format="~s")),
            y2="high:Q",
            color=alt.Color("verdict:N", scale=scale(STATE_COLOURS, data["verdict"])),
        )
    )
    text = f"Verdicts: {count(rows.height, 'decision')} over time, a bar for each {chosen} in which there are any."
    return Plot(chart.properties(width=WIDTH + 160, height=220), data.drop("low", "high"), text)


def _rows(given: Lake | Replay) -> pl.LazyFrame:
    """`at` and `verdict` of each decision."""
    if hasattr(given, "decisions"):
        frame = given.decisions.filter(pl.col("kind") != "shadow")
        return frame.select(at="decided_at", verdict="verdict")
    if not hasattr(given, "frame"):
        raise ColumnUnknown("decided_at", [], f"a {type(given).__name__}, which is no lake and no replay")
    state = pl.when(pl.col("status") == "decided").then("verdict").otherwise("status")
    return given.frame.select(at="decided_at", verdict=state)


def _every(seconds: float) -> str:
    """The shortest step with which the bars are not too many."""
    return next((name for name, step in _STEPS.items() if seconds / step <= BINS), "1y")


def _format(step: timedelta) -> str:
    """How moments are written, by how long a bar is."""
    if step < timedelta(minutes=1):
        return "%H:%M:%S"
    if step < timedelta(days=1):
        return "%d %b %H:%M"
    return "%d %b %Y"


def _stacked(rows: pl.DataFrame, every: str) -> pl.DataFrame:
    """One row a bar's part: `from`, `to`, `verdict`, `n`, and between which heights it is drawn."""
    place = pl.col("verdict").cast(pl.String).cast(pl.Enum(STATES))
    counts = rows.group_by("at", place).agg(n=pl.len().cast(pl.Int64)).sort("at", "verdict")
    high = pl.col("n").cum_sum().over("at")
    found = counts.with_columns(high=high, to=pl.col("at").dt.offset_by(every)).with_columns(
        low=high - pl.col("n")
    )
    return found.select("to", "n", "low", "high", pl.col("verdict").cast(pl.String), **{"from": "at"})
