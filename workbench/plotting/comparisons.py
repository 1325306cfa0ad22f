"""Pictures of a comparison: the matrix, what becomes of the calls that ran, and which policies stop them.

One rule: they show numbers that `Diff` gives, and compute none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import need
from workbench.metrics import SIDES, STATES
from workbench.plotting.folding import folded, labels
from workbench.plotting.plot import WIDTH, Plot, inline, nothing, scale
from workbench.texts import count

if TYPE_CHECKING:
    from workbench.compare import Diff

EFFECT_COLOURS = {
    "prevented": "#1f7a5c",
    "held": "#35a79c",
    "altered": "#5b8def",
    "released": "#e07a3f",
    "escalated": "#d9a441",
    "unknown": "#8f6bb3",
    "undecided": "#b08bd0",
    "quarantined": "#6b5b7b",
    "same": "#a9b2bc",
}
"""In the order they are stacked: what changes first."""
_SIDE_COLOURS = dict(zip(SIDES, ("#1f7a5c", "#d9822b", "#9aa5b1"), strict=True))


def effects(diff: Diff) -> Plot:
    """Draw what becomes of the calls that ran: a bar for each tenant and side, split by effect."""
    rows = diff.frame.filter(pl.col("then") == "ran").group_by("tenant", "side", "effect").agg(n=pl.len())
    found = rows.collect().with_columns(pl.col("side", "effect").cast(pl.String))
    if found.is_empty():
        return nothing("No call of this history ran.")
    data, order = folded(found, "tenant", ["n"], ["side", "effect"])
    place = {effect: number for number, effect in enumerate(EFFECT_COLOURS)}
    data = data.with_columns(
        order=pl.col("effect").replace_strict(place, return_dtype=pl.Int64), side=pl.col("side") + " calls"
    )
    alt = need("altair")
    bars = (
        alt.Chart(inline(data))
        .mark_bar(height=14)
        .encode(
            x=alt.X(
                "n:Q",
                stack="normalize",
                title="share of the calls that ran",
                axis=alt.Axis(format="%", tickCount=5),
            ),
            y=alt.Y("tenant:N", sort=order, title=None),
            color=alt.Color("effect:N", scale=scale(EFFECT_COLOURS, data["effect"])),
            order=alt.Order("order:Q"),
        )
        .properties(width=WIDTH, height=alt.Step(24))
    )
    sides = [f"{side} calls" for side in SIDES]
    header = alt.Header(
        labelAngle=0, labelAlign="left", labelFontWeight="bold", labelOrient="top", labelAnchor="start"
    )
    row = alt.Row("side:N", sort=sides, title=None, header=header)
    chart = bars.facet(row=row, spacing=10).resolve_scale(y="independent")
    ran = count(int(found["n"].sum()), "call")
    return Plot(chart, data, f"Effects: what becomes of {ran} that ran, by tenant and by whose call it was.")


def policies(diff: Diff) -> Plot:
    """Draw which policies stop calls that ran: attack calls, honest calls, unlabelled calls."""
    counts = {f"{side}_calls_{verb}": f"{side} calls {verb}" for side, verb in SIDES.items()}
    found = diff.policies.rename(counts).group_by("policy").agg(pl.col(*counts.values()).sum()).collect()
    if found.is_empty():
        return nothing("No call that ran would be stopped.")
    names = [*counts.values()]
    rows = found.unpivot(names, index="policy", variable_name="calls", value_name="n").filter(pl.col("n") > 0)
    sums, order = folded(rows, "policy", ["n"], ["calls"])
    colours = dict(zip(counts.values(), _SIDE_COLOURS.values(), strict=True))
    alt = need("altair")
    chart = (
        alt.Chart(inline(sums))
        .mark_bar(height=14)
        .encode(
            x=alt.X(
                "n:Q",
                title="calls that ran and would be stopped",
                axis=alt.Axis(tickMinStep=1, tickCount=6, format=",d"),
            ),
            y=alt.Y("policy:N", sort=order, title=None),
            order=alt.Order("calls:N"),
            color=alt.Color("calls:N", scale=scale(colours, sums["calls"])),
        )
    )
    text = f"Policies: which of {count(found.height, 'policy', 'policies')} stop calls that ran, and whose."
    return Plot(chart.properties(width=WIDTH, height=alt.Step(24)), sums, text)


def transitions(diff: Diff) -> Plot:
    """Draw the transition matrix; a cell's colour is its square root, so that rare changes show."""
    data = diff.transitions.with_columns(pl.col("from", "to").cast(pl.String)).collect()
    if data.is_empty():
        return nothing("There is no decision to compare.")
    alt = need("altair")
    base, cand = (labels([side.policy[0]])[0] for side in (diff.base, diff.cand))
    if base == cand:
        base, cand = f"{base} (base)", f"{cand} (candidate)"
    cells = alt.Chart(inline(data)).encode(
        x=alt.X("to:N", sort=list(STATES), title=cand, axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("from:N", sort=list(STATES), title=base),
    )
    colour = alt.Color("n:Q", scale=alt.Scale(type="sqrt", range=["#dbe4f0", "#3b6fb5"]), legend=None)
    most = max(data["n"].to_list(), default=0)
    ink: Any = alt.condition(f"datum.n > {most / 3}", alt.value("#fff"), alt.value("#222"))
    text = cells.mark_text().encode(text=alt.Text("n:Q", format=","), color=ink)
    chart = (cells.mark_rect(cornerRadius=3).encode(color=colour) + text).properties(
        width=alt.Step(92), height=alt.Step(48)
    )
    total = count(int(data["n"].sum()), "decision")
    return Plot(chart, data, f"Transitions: what {base} says of {total}, by what {cand} says.")
