"""Many tests at once: p-values that may be read side by side.

One rule: however many slices or gates are looked at, the number is disclosed, and the p-values say what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from workbench.statistics.clusters import Floats

Adjustment = Literal["holm", "bh"]


def adjusted(p_values: ArrayLike, method: Adjustment = "holm") -> Floats:
    """Return the adjusted p-values, in the order given; NaN (no test was possible) stays NaN and counts for nothing.

    Args:
        p_values: of the tests of one family.
        method: `holm`: the chance of any false finding is at most alpha, whatever hangs together. `bh`: of the
            findings, on average at most a share alpha is false (independent or positively dependent tests).

    Source:
        Holm 1979, Scand. J. Statistics 6:65; Benjamini & Hochberg 1995, JRSS B 57:289. The numbers of
        `statsmodels.stats.multitest.multipletests`, which runs a garbage collection on every call (0.3 s in a large
        process), so that a few hundred families would take minutes.

    Example:
        >>> adjusted([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    found, tested = given.copy(), np.flatnonzero(np.isfinite(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    rank = np.arange(1, order.size + 1)
    if method == "holm":
        stepped = np.maximum.accumulate(given[order] * (order.size + 1 - rank))
    else:
        stepped = np.minimum.accumulate((given[order] * order.size / rank)[::-1])[::-1]
    found[order] = np.minimum(stepped, 1.0)
    return found
