"""Intervals of a comparison: what is exact on the log, what the log leaves open, and what future traffic may bring.

One rule: the three do not look alike. A point is a number that the log says; a thick bar lies between the least and
the most that the log allows; a thin line with ends is an estimate for future traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import NotEstimable, need
from workbench.plotting.folding import MAX_BARS, labels
from workbench.plotting.plot import WIDTH, Plot, inline, nothing
from workbench.texts import count, visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.compare import Diff
    from workbench.estimating.estimates import Estimates

EXACT = "exact on this log"
ALLOWED = "least to most that this log allows"
_COLOURS = {EXACT: "#3f7fd0", ALLOWED: "#8fb4f5", "future": "#d9822b"}
_FINITE = ("low", "high", "lower", "upper")


def intervals(given: Diff | Estimates, quantities: Sequence[str] | None = None) -> Plot:
    """Draw quantities with their intervals, a panel for each unit.

    Args:
        given: a comparison, or its estimates.
        quantities: by name; None: all, at most so many a panel as fit.

    Returns:
        The plot; where the data bound an interval on no side, it ends in an arrow at the edge of what is known.

    Raises:
        NotEstimable: a quantity was not estimated; names the closest.
    """
    found: Any = given.estimates if hasattr(given, "base") else given
    rows = found.frame.filter(pl.col("slice").is_null()).collect()
    if quantities is not None:
        _require(quantities, rows["quantity"].to_list())
        rows = rows.filter(pl.col("quantity").is_in(list(quantities)))
    rows = rows.filter(pl.col("of") > 0)
    if rows.is_empty():
        return nothing(
            "There is nothing to estimate: no label and no stake says what is good and what is harm."
        )
    future = f"estimate for future traffic, {100 * found.level:g} %"
    colours = {EXACT: _COLOURS[EXACT], ALLOWED: _COLOURS[ALLOWED], future: _COLOURS["future"]}
    panels, drawn = [], []
    rows = rows.sort(pl.col("unit") != "share", maintain_order=True)
    for (unit,), part in rows.partition_by("unit", as_dict=True, maintain_order=True).items():
        data = _data(part.head(MAX_BARS))
        panels.append(_panel(data, str(unit), future, colours, left=part.height - data.height))
        drawn.append(data)
    alt = need("altair")
    chart = alt.vconcat(*panels, spacing=14).resolve_scale(x="independent", y="independent", color="shared")
    text = f"Intervals of {count(rows.height, 'quantity', 'quantities')}: exact on this log, and {future}."
    return Plot(chart, pl.concat(drawn), text)


def _require(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise NotEstimable(f"no quantity `{visible(name)}` was estimated; {closest(name, known)}")


def _data(rows: pl.DataFrame) -> pl.DataFrame:
    words = [name.removesuffix("_share").replace("_", " ") for name in rows["quantity"]]
    found = rows.select("quantity", "unit", *_FINITE, "exact_on_log")
    ends = {f"open_{side}": pl.col(side).is_null() for side in ("lower", "upper")}
    closed = {"lower": pl.min_horizontal(*_FINITE), "upper": pl.max_horizontal(*_FINITE)}
    return found.with_columns(pl.Series("name", labels(words)), **ends).with_columns(**closed)


def _panel(data: pl.DataFrame, unit: str, future: str, colours: dict[str, str], *, left: int) -> Any:
    alt = need("altair")
    share = unit == "share"
    title = "share" if share else unit
    title += f" ({left:,} more in `.frame`)" if left else ""
    axis = alt.Axis(format="~%" if share else ",~g", tickCount=6)
    y = alt.Y("name:N", sort=data["name"].to_list(), title=None)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())))

    def of(kind: str, where: pl.Expr) -> Any:
        rows = data.filter(where).with_columns(kind=pl.lit(kind))
        return alt.Chart(inline(rows)).encode(y=y, color=colour)

    def x(name: str) -> Any:
        return alt.X(f"{name}:Q", title=title, axis=axis, scale=alt.Scale(zero=True))

    every, exact = pl.lit(value=True), pl.col("exact_on_log")
    layers = [of(future, every).mark_rule(strokeWidth=1.5).encode(x=x("lower"), x2="upper:Q")]
    for side, arrow, beyond in (("lower", "triangle-left", -12), ("upper", "triangle-right", 12)):
        is_open = pl.col(f"open_{side}")
        layers.append(of(future, ~is_open).mark_tick(thickness=1.5, size=9).encode(x=x(side)))
        layers.append(
            of(future, is_open)
            .mark_point(shape=arrow, xOffset=beyond, size=60, filled=True)
            .encode(x=x(side))
        )
    layers.append(of(ALLOWED, ~exact).mark_bar(height=7, opacity=0.85).encode(x=x("low"), x2="high:Q"))
    layers.append(of(EXACT, exact).mark_point(filled=True, size=70, opacity=1).encode(x=x("low")))
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(24))
