"""Gates over nights: how what is known of each grew, and where its threshold lies.

One rule: as in `wb.plots.intervals`, the three do not look alike: a point or thick bar is what the log says (exact,
or between two), the band is what is sure for future traffic, the line is the threshold.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import need
from workbench.plotting.plot import WIDTH, Plot, inline, nothing
from workbench.texts import count, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.regressing.result import Candidate, Night

MAX_GATES = 12
"""Panels of a picture."""
MAX_NIGHTS = 400
"""The last so many."""
_STATES = {"met": "#1f7a5c", "open": "#d9a441", "failed": "#c2513f"}
_THRESHOLD = re.compile(r"[<>]= (-?[\d.]+(?:e[-+]?\d+)?)")

_VALUES = ("low", "high", "lower", "upper", "threshold")
_SCHEMA = {
    "gate": pl.String, "night": pl.Int64, "state": pl.String, "low": pl.Float64, "high": pl.Float64,
    "lower": pl.Float64, "upper": pl.Float64, "threshold": pl.Float64, "sessions": pl.Int64,
}  # fmt: skip


def gate_rows(nights: Sequence[Night], candidate: str) -> pl.DataFrame:
    """Return each gate as each night judged it: one row a gate and night, the last look of a night.

    Args:
        nights: the oldest first; the last one says which series it is: nights of another version of the candidate,
            or beside another version of the baseline, are another series and left out.
        candidate: its name.
    """
    looks = {
        (each.night, gate.text): _row(each, gate)
        for each in _series(nights, candidate)
        for gate in each.gates
    }
    return pl.DataFrame(list(looks.values()), schema=_SCHEMA, orient="row").sort("gate", "night")


def gates_over_nights(nights: Sequence[Night], candidate: str) -> Plot:
    """Draw each gate of a candidate over the nights of its series, a panel each."""
    rows = gate_rows(nights, candidate)
    if rows.is_empty():
        return nothing("No gate was judged yet.")
    names = rows["gate"].unique(maintain_order=True).head(MAX_GATES).to_list()
    last = int(rows["night"].max() or 0)  # type: ignore[arg-type]  # a whole number
    rows = rows.filter(pl.col("gate").is_in(names) & (pl.col("night") > last - MAX_NIGHTS))
    alt = need("altair")
    panels = [_panel(rows.filter(gate=name), name, named=name == names[-1]) for name in names]
    chart = alt.vconcat(*panels, spacing=12).resolve_scale(x="independent", y="independent", color="shared")
    text = f"{count(len(names), 'gate')} of {visible(candidate)} over {count(last, 'night')}."
    return Plot(chart, rows, text)


def _series(nights: Sequence[Night], candidate: str) -> Iterator[Candidate]:
    found = [each for night in nights for each in night.candidates if each.name == candidate and each.night]
    if found:
        last = found[-1]
        pins = (last.version, last.baseline, last.baseline_version)
        yield from (each for each in found if (each.version, each.baseline, each.baseline_version) == pins)


def _row(each: Candidate, gate: Any) -> tuple[Any, ...]:
    at = _THRESHOLD.search(gate.text)
    return (
        gate.text, each.night, gate.state, gate.low, gate.high, gate.lower, gate.upper,
        None if at is None else float(at[1]), gate.sessions,
    )  # fmt: skip


def _panel(rows: pl.DataFrame, name: str, *, named: bool) -> Any:
    """One gate: a band, the points, and the threshold; `named`: with its axis named."""
    alt = need("altair")
    share, only = "_share" in name, rows.height == 1
    # A band that nothing bounds on one side ends where the picture does.
    bounded = rows["lower"].is_not_null().any() or rows["upper"].is_not_null().any()
    edge = rows.select(pl.max_horizontal(*_VALUES).max()).item() or 1.0
    data = (
        rows
        if not bounded
        else rows.with_columns(pl.col("lower").fill_null(0.0), pl.col("upper").fill_null(edge * 1.1))
    )
    ticks = sorted(set(rows["night"]))
    axis = alt.Axis(values=ticks[:: 1 + len(ticks) // 15], format="d", grid=False)
    scale = alt.Scale(
        nice=False, domain=[ticks[0] - 1, ticks[0] + 1] if only else [ticks[0], ticks[-1]], padding=12
    )
    x = alt.X("night:Q", title="night" if named else None, axis=axis, scale=scale)
    axis = alt.Axis(format="~%" if share else ",~g", tickCount=4)

    def y(column: str) -> Any:
        return alt.Y(f"{column}:Q", title=None, axis=axis, scale=alt.Scale(zero=True))

    base = alt.Chart(inline(data))
    colour = alt.Color("state:N", scale=alt.Scale(domain=list(_STATES), range=list(_STATES.values())))
    bounds = base.mark_rule(strokeWidth=1.5) if only else base.mark_area(opacity=0.18)
    layers = [
        bounds.encode(x=x, y=y("lower"), y2="upper:Q"),
        base.mark_rule(strokeDash=[5, 3]).encode(y=y("threshold")),
        base.mark_bar(width=5, opacity=0.8).encode(x=x, y=y("low"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y("high"), color=colour),
    ]
    title = visible(shorten(name, 80))
    return alt.layer(*layers).properties(width=WIDTH, height=90, title=title)
