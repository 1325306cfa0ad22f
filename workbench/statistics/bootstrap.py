"""The cluster bootstrap: whole clusters are drawn again, never decisions.

One rule: same clusters and same seed, same interval. Clusters with equal sums are drawn together, by one multinomial:
the same distribution as drawing them one by one, at the cost of distinct pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from workbench.errors import NotEstimable
from workbench.statistics.proportions import Interval, tail

if TYPE_CHECKING:
    from workbench.statistics.clusters import Clusters, Floats

_DRAWN = 4_000_000
"""Numbers drawn at once, at most: 32 MB."""


def replicates(clusters: Clusters, times: int = 2000, *, seed: int = 0) -> Floats:
    """Draw the clusters again, each with the same chance, and return the ratio of each drawing.

    Args:
        clusters: two or more.
        times: drawings.
        seed: of NumPy's default generator.

    Returns:
        `times` ratios, in the order drawn.

    Raises:
        NotEstimable: fewer than two clusters.

    Cost:
        O(times x distinct pairs).
    """
    if clusters.count < 2:  # noqa: PLR2004 - one cluster says nothing of others
        raise NotEstimable("the cluster bootstrap needs two clusters or more: declare a finer cluster")
    rng = np.random.default_rng(seed)
    chances, found = clusters.n / clusters.n.sum(), []
    step = max(1, _DRAWN // clusters.n.size)
    for begin in range(0, times, step):
        drawn = rng.multinomial(clusters.count, chances, size=min(step, times - begin)).astype(np.float64)
        found.append((drawn @ clusters.y) / (drawn @ clusters.m))
    return np.concatenate(found)


def percentile(clusters: Clusters, level: float = 0.95, *, times: int = 2000, seed: int = 0) -> Interval:
    """Return the interval between quantiles of the drawings.

    Source:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    alpha = tail(level)
    low, high = np.quantile(replicates(clusters, times, seed=seed), (alpha, 1 - alpha))
    return Interval(float(low), float(high))


def bca(clusters: Clusters, level: float = 0.95, *, times: int = 2000, seed: int = 0) -> Interval:
    """Return the bias-corrected and accelerated interval: for skewed sums, such as money.

    Where all clusters agree it is the one value: the bootstrap sees nothing that is not there, so that 0 of n is
    left to the exact bound.

    Source:
        Efron 1987, JASA 82:171; bias from the share of drawings below the estimate (half of those equal),
        acceleration from the jackknife over clusters. As `scipy.stats.bootstrap(method="BCa")`.
    """
    drawn = np.sort(replicates(clusters, times, seed=seed))
    value = clusters.total / clusters.size
    below = (np.searchsorted(drawn, value, "left") + np.searchsorted(drawn, value, "right")) / (2 * times)
    if not 0 < below < 1:
        return Interval(value, value)
    bias, bent = float(special.ndtri(below)), _acceleration(clusters)
    normal = special.ndtri(np.array([tail(level), 1 - tail(level)]))
    shifted = bias + (bias + normal) / (1 - bent * (bias + normal))
    low, high = np.quantile(drawn, special.ndtr(shifted))
    return Interval(float(low), float(high))


def _acceleration(clusters: Clusters) -> float:
    without = (clusters.total - clusters.y) / (clusters.size - clusters.m)
    off = (clusters.n * without).sum() / clusters.count - without
    squares = float((clusters.n * off**2).sum())
    return float((clusters.n * off**3).sum()) / (6 * squares**1.5) if squares else 0.0
