"""Coverage as a map: a row a policy, a cell a clause, the worst covered first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import need
from workbench.plotting.folding import labels
from workbench.plotting.plot import WIDTH, Plot, inline, nothing, scale
from workbench.texts import count

if TYPE_CHECKING:
    from workbench.covering.result import Coverage

_STATES = {
    "both": ("was all it can be", "#35a07c", ""),
    "one": ("was one way only", "#d9a441", "~"),
    "unknown": ("not known", "#b08bd0", "?"),
    "never": ("never reached", "#c2513f", "!"),
}
"""How a clause was exercised: in words, its colour, and a mark for who does not see colours apart."""
MOST_POLICIES = 30
MOST_CLAUSES = 24


def coverage_map(coverage: Coverage) -> Plot:
    """Draw which clauses of which policies the decisions exercised.

    Returns:
        The plot: policies with most that is not covered first; of each its clauses in the order of the text. `data`
        has the cells that are drawn.
    """
    found = coverage.clauses.select("policy_hash", "policy", "state").collect()
    if found.is_empty():
        return nothing("The policies have no clause.")
    keys = ["policy_hash", "policy"]
    worst = {state: (pl.col("state") == state).sum().alias(state) for state in ("never", "one", "unknown")}
    order = found.group_by(keys, maintain_order=True).agg(*worst.values(), n=pl.len())
    order = order.sort(*worst, "policy", descending=[True, True, True, False], maintain_order=True)
    top = order.head(MOST_POLICIES)
    top = top.with_columns(pl.Series("name", labels(top["policy"])))
    cells = (
        found.with_columns(place=pl.int_range(pl.len()).over(keys) + 1)
        .join(top.select(*keys, "name", "n"), on=keys, how="inner", maintain_order="left")
        .with_columns(
            said=pl.col("state").replace_strict({key: each[0] for key, each in _STATES.items()}),
            mark=pl.col("state").replace_strict({key: each[2] for key, each in _STATES.items()}),
        )
    )
    cut = top.filter(pl.col("n") > MOST_CLAUSES).select(
        "name", place=pl.lit(MOST_CLAUSES + 1), more=pl.format("+{}", pl.col("n") - MOST_CLAUSES)
    )
    data = cells.filter(pl.col("place") <= MOST_CLAUSES).select("name", "place", "state", "said", "mark")
    chart = _chart(data, cut, top["name"].to_list())
    left = order.height - top.height
    title = f"{count(left, 'policy', 'policies')} covered better left out" if left else ""
    covered = int((found["state"] == "both").sum())
    text = f"Coverage map: {covered:,} of {count(found.height, 'clause')} were all they can be."
    return Plot(chart.properties(title=title), data, text)


def _chart(data: pl.DataFrame, cut: pl.DataFrame, order: list[str]) -> Any:
    alt = need("altair")
    most = int(data["place"].max()) + (1 if cut.height else 0)  # type: ignore[arg-type]  # there is a cell
    places = list(range(1, most + 1))
    x = alt.X(
        "place:O",
        title="clause, in the order of the text",
        axis=alt.Axis(labelAngle=0, labelOverlap=True),
        scale=alt.Scale(domain=places, paddingInner=0.12),
    )
    y = alt.Y("name:N", sort=order, title=None, scale=alt.Scale(paddingInner=0.12))
    colours = {said: colour for said, colour, _ in _STATES.values()}
    colour = alt.Color("said:N", scale=scale(colours, data["said"]))
    base = alt.Chart(inline(data)).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=2).encode(color=colour)
    marks = base.mark_text(color="#fff", fontWeight="bold").encode(text="mark:N")
    more = alt.Chart(inline(cut)).mark_text(fontSize=10).encode(x=x, y=y, text="more:N")
    layers = (cells, marks, more) if cut.height else (cells, marks)
    return alt.layer(*layers).properties(width=min(WIDTH, 24 * most), height=alt.Step(22))
