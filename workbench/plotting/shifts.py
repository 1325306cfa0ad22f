"""Drift: how far apart variables are in two windows, and which of them chance alone does not explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.errors import need
from workbench.plotting.folding import labels
from workbench.plotting.plot import WIDTH, Plot, inline, nothing, scale
from workbench.texts import count

if TYPE_CHECKING:
    from workbench.drifting.drift import Drift

DRIFTED, STABLE, UNTESTED = "drifted", "not shown to have drifted", "too few sessions to test"
_COLOURS = {DRIFTED: "#c2513f", STABLE: "#8fb1a3", UNTESTED: "#b08bd0"}
MOST = 24
"""Variables that are drawn."""


def drift(given: Drift) -> Plot:
    """Draw the variables that are furthest apart, those that drifted first, with the distance that matters."""
    from workbench.drifting.drift import name_of  # noqa: PLC0415 - it takes SciPy, a report none

    rows = given.frame.collect()
    if rows.is_empty():
        return nothing("No variable has values in both windows.")
    top = rows.head(MOST)
    kind = pl.when("drifted").then(pl.lit(DRIFTED)).when(pl.col("p").is_null()).then(pl.lit(UNTESTED))
    data = top.select(
        pl.Series("name", labels(map(name_of, top.to_dicts()))),
        "distance",
        "p_holm",
        "decisions",
        kind=kind.otherwise(pl.lit(STABLE)),
    )
    alt = need("altair")
    order = data["name"].to_list()
    x = alt.X(
        "distance:Q",
        title="distance between the windows (Jensen-Shannon, exact on this log)",
        scale=alt.Scale(domainMin=0),
        axis=alt.Axis(tickCount=6),
    )
    colour = alt.Color("kind:N", scale=scale(_COLOURS, data["kind"]))
    y = alt.Y("name:N", sort=order, title=None)
    base = alt.Chart(inline(data)).encode(y=y, x=x, color=colour)
    lines = base.mark_rule(strokeWidth=2).encode(x2=alt.datum(0))
    dots = base.mark_point(filled=True, size=80, opacity=1)
    least = pl.DataFrame({"distance": [given.least]})
    rule = alt.Chart(inline(least)).mark_rule(strokeDash=[4, 3]).encode(x=x)
    left = rows.height - top.height
    title = f"{given.before} against {given.after}"
    note = "dashed: the least distance that matters"
    note += f"; {count(left, 'variable')} less far apart left out" if left else ""
    chart = alt.layer(rule, lines, dots).properties(
        width=WIDTH, height=alt.Step(22), title=alt.Title(title, subtitle=note)
    )
    text = f"Drift: {int(rows['drifted'].sum()):,} of {count(rows.height, 'variable')} drifted."
    return Plot(chart, data, text)
