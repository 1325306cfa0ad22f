"""Intervals of one proportion of independent trials.

One rule: nothing seen is not nothing there. 0 of n has an upper bound above 0, n of n a lower one below 1, and 0 of 0
says nothing: (0, 1).

`n` and `successes` need not be whole: clustered data enter with their effective number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

from workbench.errors import NotEstimable


class Interval(NamedTuple):
    """Two bounds, both included. Infinite where the data bound nothing."""

    lower: float
    upper: float


def tail(level: float) -> float:
    """Return what a two-sided interval of this level leaves on each side.

    Raises:
        NotEstimable: the level is not between 0 and 1.

    Example:
        >>> round(tail(0.95), 6)
        0.025
    """
    if not 0 < level < 1:
        raise NotEstimable(f"a level lies between 0 and 1, not {level!r}; write 0.95 for 95 %")
    return (1 - level) / 2


def lower_bound(successes: float, n: float, alpha: float = 0.05) -> float:
    """Return the exact one-sided lower bound: the truth is below it with probability at most `alpha`.

    Args:
        successes: how many; 0 gives 0.
        n: of how many independent trials.
        alpha: error allowed on this side.

    Raises:
        NotEstimable: `successes` is not within 0 and `n`, or `alpha` not within 0 and 1.

    Source:
        Clopper & Pearson 1934, Biometrika 26:404: the p with P(X >= x | n, p) = alpha, which is the
        alpha quantile of Beta(x, n - x + 1) (Brown, Cai & DasGupta 2001, Statistical Science 16:101).
    """
    _check(successes, n, alpha)
    return 0.0 if successes <= 0 else float(special.betaincinv(successes, n - successes + 1, alpha))


def upper_bound(successes: float, n: float, alpha: float = 0.05) -> float:
    """Return the exact one-sided upper bound: the truth is above it with probability at most `alpha`.

    The safety bound: 0 of n gives `1 - alpha**(1/n)`, about `3/n` at 95 % (the rule of three).

    Args:
        successes: how many; `n` gives 1.
        n: of how many independent trials; 0 gives 1.
        alpha: error allowed on this side.

    Raises:
        NotEstimable: as `lower_bound`.

    Source:
        Clopper & Pearson 1934; for 0 of n, Hanley & Lippman-Hand 1983, JAMA 249:1743.

    Example:
        >>> round(upper_bound(0, 100), 4)
        0.0295
    """
    _check(successes, n, alpha)
    return 1.0 if successes >= n else float(special.betainccinv(successes + 1, n - successes, alpha))


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Return the exact interval: it covers with probability at least `level`, whatever the truth.

    Source:
        Clopper & Pearson 1934; equal tails.

    Example:
        >>> [round(bound, 4) for bound in clopper_pearson(2, 20)]
        [0.0123, 0.317]
    """
    alpha = tail(level)
    return Interval(lower_bound(successes, n, alpha), upper_bound(successes, n, alpha))


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Return the score interval: narrower than the exact one, covers `level` on average over the truth.

    Source:
        Wilson 1927, JASA 22:209: the p with |p̂ - p| = z sqrt(p (1 - p) / n).

    Example:
        >>> [round(bound, 4) for bound in wilson(2, 20)]
        [0.0279, 0.301]
    """
    _check(successes, n, tail(level))
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = float(special.ndtri(1 - tail(level))) ** 2
    centre, half = (
        successes + z2 / 2,
        math.sqrt(z2 * successes * (n - successes) / n + z2 * z2 / 4),
    )
    low, high = (centre - half) / (n + z2), (centre + half) / (n + z2)
    return Interval(0.0 if successes == 0 else max(low, 0.0), 1.0 if successes == n else min(high, 1.0))


def _check(successes: float, n: float, alpha: float) -> None:
    if not 0 <= successes <= n:
        raise NotEstimable(f"{successes} of {n}: successes lie between 0 and the number of trials")
    if not 0 < alpha < 1:
        raise NotEstimable(f"an error probability lies between 0 and 1, not {alpha!r}; write 0.05 for 5 %")
