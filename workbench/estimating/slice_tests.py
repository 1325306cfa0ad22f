"""Does a slice differ from the rest? Clusters may have decisions in both.

A score test. With the common ratio theta, a cluster's influence on the difference is `e / M - e' / M'`, of the
residuals `e = y - theta m` of its part in the slice and of its part outside, over the sizes M and M' of the two. The
squared influences are the variance, whatever hangs together in a cluster, also of one that has decisions in both; and
a slice in which nothing flipped has one, too. t with one degree less than the slice has clusters.

Source: Rotnitzky & Jewell 1990, Biometrika 77:485 (generalised score test); Liang & Zeger 1986, Biometrika 73:13.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Mapping


def p_values(cells: pl.LazyFrame) -> Mapping[int, float]:
    """Return for each slice the two-sided p-value that its ratio is that of the rest.

    Args:
        cells: one row a cluster and slice: `_slice`, `y`, `m`; `y_all`, `m_all` (over the whole cluster), and
            `slices` (of how many it has decisions).

    Returns:
        By number of the slice. NaN where there is nothing to compare: no rest, a single cluster, or nothing flipped
        anywhere.

    Cost:
        O(cells), two passes.
    """
    y, m = cells.select(pl.col("y", "m").sum()).collect().row(0)
    if not m:
        return {}
    theta = y / m
    inside, whole = pl.col("y") - theta * pl.col("m"), pl.col("y_all") - theta * pl.col("m_all")
    residuals = cells.select("_slice", "m", "slices", inside=inside, outside=whole - inside, whole=whole)
    sums = residuals.group_by("_slice").agg(
        pl.col("m").sum(),
        clusters=(pl.col("m") > 0).sum(),
        total=pl.col("inside").sum(),
        inside=(pl.col("inside") ** 2).sum(),
        both=(pl.col("inside") * pl.col("outside")).sum(),
        outside=(pl.col("outside") ** 2).sum(),
        whole=(pl.col("whole") ** 2).sum(),
        shared=(pl.col("whole") ** 2 / pl.col("slices")).sum(),
    )
    found = sums.collect()
    squares = float(found["shared"].sum())  # each cluster once
    return {row["_slice"]: _p_value(row, m, squares) for row in found.iter_rows(named=True)}


def _p_value(of: Mapping[str, float], size: float, squares: float) -> float:
    part, rest = of["m"], size - of["m"]
    if part <= 0 or rest <= 0 or of["clusters"] < 2:  # noqa: PLR2004 - one cluster varies with nothing
        return math.nan
    touching = of["inside"] / part**2 - 2 * of["both"] / (part * rest) + of["outside"] / rest**2
    variance = touching + max(squares - of["whole"], 0.0) / rest**2
    if not variance > 0:
        return math.nan
    # Residuals sum to 0 over all, so those of the rest are minus the slice's.
    difference = of["total"] * (1 / part + 1 / rest)
    return float(2 * special.stdtr(of["clusters"] - 1, -abs(difference) / math.sqrt(variance)))
