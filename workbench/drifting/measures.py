"""How far two samples are apart, and whether chance alone would put them there. Pure numbers.

One rule: how far (an effect size, 0 to 1, exact on this log) and how sure (a p-value, over independent values) are
told apart. With enough sessions anything is significant; what matters is how far.

| | numbers | categories |
|---|---|---|
| how far, comparable | Jensen-Shannon distance over deciles of *before* | Jensen-Shannon distance |
| effect | Kolmogorov-Smirnov statistic | Cramer's V |
| p-value | two-sample Kolmogorov-Smirnov | chi-square, Fisher's for two by two with few; see `DEEP` |

Source: Lin 1991, IEEE Trans. Inf. Theory 37:145 (divergence; its square root, base 2, is a distance); Smirnov
1948; Cramer 1946 section 21.9; all as SciPy computes them. `standardised` is the difference of means over
the pooled standard deviation (Cohen 1988).
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 10
"""Into which numbers are put for the distance: deciles of *before*."""
LEAST_EXPECTED = 5
"""Below it in a cell of two by two, Fisher's exact test; rarer categories are one, else (Cochran 1954)."""
LEAST_SESSIONS = 5
"""Values in each sample below which nothing is tested."""
DEEP = 0.01
"""P-value below which the chi-square is not believed alone: far out its tail is too thin for unequal samples."""


class Measured(NamedTuple):
    """How far two samples are apart."""

    distance: float
    """Jensen-Shannon, 0 (alike) to 1 (nothing in common)."""
    effect: float
    """Kolmogorov-Smirnov's D, or Cramer's V."""
    standardised: float | None
    """Difference of means, *after* minus *before*, in standard deviations; None: categories, or no spread."""


def numbers(before: Floats, after: Floats) -> Measured:
    """Measure two samples of numbers, neither empty."""
    from scipy.stats import ks_2samp  # noqa: PLC0415 - half a second

    edges = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)))
    counts = [_binned(sample, edges) for sample in (before, after)]
    effect = float(ks_2samp(before, after, method="asymp").statistic)
    spread = math.sqrt((before.var() + after.var()) / 2)
    shift = (after.mean() - before.mean()) / spread if spread > 0 else None
    return Measured(_distance(*counts), effect, None if shift is None else float(shift))


def _binned(sample: Floats, edges: Floats) -> NDArray[np.int64]:
    """Count a sample in the cells between edges; what is below the first or above the last has a cell of its own."""
    cells = 1 + np.searchsorted(edges[1:-1], sample, side="right")
    cells[sample < edges[0]] = 0
    cells[sample > edges[-1]] = edges.size + 1
    return np.bincount(cells, minlength=edges.size + 2)


def categories(before: Sequence[int], after: Sequence[int]) -> Measured:
    """Measure two samples of categories, given how often each occurs; neither empty."""
    counts = np.array([before, after], dtype=np.float64)
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:  # noqa: PLR2004 - one category is always alike
        return Measured(0.0, 0.0, None)
    from scipy.stats.contingency import association  # noqa: PLC0415 - half a second

    effect = float(association(counts.astype(np.int64), method="cramer"))
    return Measured(_distance(*counts), effect, None)


def numbers_p(before: Floats, after: Floats) -> float:
    """P-value of two samples of independent numbers; NaN: too few to test."""
    from scipy.stats import ks_2samp  # noqa: PLC0415 - half a second

    if min(before.size, after.size) < LEAST_SESSIONS:
        return math.nan
    with warnings.catch_warnings():  # exact where that is possible; SciPy says when it falls back
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ks_2samp(before, after).pvalue)


def categories_p(before: Sequence[int], after: Sequence[int]) -> float:
    """P-value of two samples of independent categories, given how often each occurs; NaN: too few to test."""
    from scipy.stats import chi2_contingency, fisher_exact  # noqa: PLC0415 - half a second

    counts = _pooled(np.array([before, after], dtype=np.int64))
    if counts.sum(axis=1).min() < LEAST_SESSIONS:
        return math.nan
    if counts.shape[1] < 2:  # noqa: PLR2004 - one category is always alike
        return 1.0
    found = chi2_contingency(counts, correction=False)
    if counts.shape == (2, 2) and found.expected_freq.min() < LEAST_EXPECTED:
        return float(fisher_exact(counts).pvalue)
    return float(found.pvalue) if found.pvalue > DEEP else max(float(found.pvalue), _one_by_one(counts))


def _one_by_one(counts: NDArray[np.int64]) -> float:
    """P-value of each category against the rest (hypergeometric, two-sided), Bonferroni: exact at any depth."""
    from scipy.stats import hypergeom  # noqa: PLC0415 - half a second

    first, every = counts[0], counts.sum(axis=0)
    given = int(every.sum()), every, int(first.sum())
    tails = np.minimum(hypergeom.cdf(first, *given), hypergeom.sf(first - 1, *given))
    return float(min(1.0, 2 * counts.shape[1] * tails.min()))


def _pooled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put categories that are too rare for the chi-square into one; of two, none."""
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] <= 2 or not counts.sum():  # noqa: PLR2004 - see above
        return counts
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    rare = expected.min(axis=0) < LEAST_EXPECTED
    if rare.sum() < 2:  # noqa: PLR2004 - one alone has nothing to be put to
        return counts
    return np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])


def _distance(one: NDArray[Any], two: NDArray[Any]) -> float:
    from scipy.spatial.distance import jensenshannon  # noqa: PLC0415 - half a second

    found = float(jensenshannon(one, two, base=2))
    return 0.0 if math.isnan(found) else min(found, 1.0)  # rounding puts equal ones a hair below zero
