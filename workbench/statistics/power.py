"""What could be seen with the sessions there are, and how many it takes to see what is asked.

One rule: planning assumes that future sessions are like those seen, and says so; it decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy import special

from workbench.statistics.clusters import effective, fit, least_upper
from workbench.statistics.proportions import lower_bound, tail, upper_bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.statistics.clusters import Fit

POWER = 0.8
"""The chance of seeing what is there, that plans aim at (Cohen 1988)."""
MOST = 2.0**40
"""Times as many sessions beyond which a plan is no plan."""


def minimum_detectable(fitted: Fit, level: float = 0.95, power: float = POWER) -> float:
    """Return the smallest difference that these clusters would show with that power.

    `(t_{alpha/2, df} + t_{power, df}) V^(1/2)`. Where nothing flipped there is no variance to plan with: then the
    share from which at least one cluster would have flipped with that power, `1 - (1 - power)^(1/n)`.

    Returns:
        In the estimate's unit; infinite where a single cluster, or none, says nothing.

    Source:
        Bloom 1995, Evaluation Review 19:547, with the t of cluster-robust inference.
    """
    if fitted.variance > 0:
        factor = special.stdtrit(fitted.df, 1 - tail(level)) + special.stdtrit(fitted.df, power)
        return float(factor) * fitted.error
    if fitted.kind == "share" and fitted.effective_n:
        return float(-math.expm1(math.log1p(-power) / fitted.effective_n))
    return math.inf


def clusters_needed(fitted: Fit, at: float, alpha: float, *, below: bool, power: float = POWER) -> int | None:
    """Return how many clusters in all it takes until the bound clears a threshold, if the rate stays as seen.

    Args:
        fitted: what was seen.
        at: the threshold.
        alpha: one-sided error of the bound.
        below: whether the upper bound has to come below it; else the lower above it.
        power: the chance with which it then does.

    Returns:
        Clusters in all, those seen included; None: no number of sessions like these gets there.
    """
    if not fitted.clusters.n.size or not (fitted.value < at if below else fitted.value > at):
        return None
    times = _least(lambda k: _clears(_grown(fitted, k), at, alpha, below=below, power=power))
    return None if times is None else math.ceil(times * fitted.clusters.count)


def _grown(fitted: Fit, times: float) -> Fit:
    """The fit to so many times the clusters, all as seen."""
    clusters = fitted.clusters
    return fit(replace(clusters, n=clusters.n * times), fitted.kind)


def _clears(fitted: Fit, at: float, alpha: float, *, below: bool, power: float) -> bool:
    """Whether the bound clears the threshold, at the outcome that the power leaves."""
    sign, spread = (1 if below else -1), float(special.ndtri(power))
    if fitted.method == "exact":
        bound = fitted.upper(alpha) if below else fitted.lower(alpha)
    elif fitted.kind == "share":
        n = effective(fitted, alpha)
        flips = n * fitted.value + sign * spread * math.sqrt(n * fitted.value * (1 - fitted.value))
        flips = min(max(flips, 0.0), n)
        floor = least_upper(fitted, alpha)
        bound = (
            max(upper_bound(flips, n, alpha), floor)
            if below
            else min(lower_bound(flips, n, alpha), 1 - floor)
        )
    else:
        bound = (fitted.upper(alpha) if below else fitted.lower(alpha)) + sign * spread * fitted.error
    return bound <= at if below else bound >= at


def _least(enough: Callable[[float], bool]) -> float | None:
    """The least factor for which it is enough, to 0.1 %; None above `MOST`."""
    high = 1.0
    while not enough(high):
        high *= 2
        if high > MOST:
            return None
    low = high / 2 if high > 1 else 0.0
    while high - low > high / 1000:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
