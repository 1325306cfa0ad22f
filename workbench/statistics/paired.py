"""One outcome a session, before and after: did the change move it?

One rule: one pair a session, never one a decision. Decisions of one session flip together; McNemar's test on them
rejects far too often (DESIGN section 7: 51 % at 5 % under the null).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from workbench.errors import NotEstimable
from workbench.statistics.proportions import Interval, clopper_pearson, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Sessions by their outcome before and after."""

    both: int
    """Had it before, and after."""
    lost: int
    """Had it before, not after."""
    gained: int
    """Had it after, not before."""
    neither: int

    @property
    def n(self) -> int:
        """How many sessions."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def difference(self) -> float:
        """Share after minus share before; NaN of no session."""
        return (self.gained - self.lost) / self.n if self.n else math.nan


def mcnemar(pairs: Pairs) -> float:
    """Return the exact two-sided p-value that losing it is as likely as gaining it.

    Twice the smaller tail of Binomial(lost + gained, 1/2), at most 1; 1 where no session changed.

    Raises:
        NotEstimable: a count is negative.

    Source:
        McNemar 1947, Psychometrika 12:153, in its exact form (Liddell 1983, JECH 37:82). The same number as
        `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
    """
    if min(pairs.both, pairs.lost, pairs.gained, pairs.neither) < 0:
        raise NotEstimable(f"counts of sessions are not negative: {pairs}")
    changed, fewer = pairs.lost + pairs.gained, min(pairs.lost, pairs.gained)
    return min(1.0, 2 * float(special.bdtr(fewer, changed, 0.5))) if changed else 1.0


def odds(pairs: Pairs, level: float = 0.95) -> Interval:
    """Return the exact interval of `lost` over `gained`, given how many changed.

    Source:
        Liddell 1983: Clopper-Pearson's interval of lost / (lost + gained), as odds.
    """
    low, high = clopper_pearson(pairs.lost, pairs.lost + pairs.gained, level)
    return Interval(low / (1 - low), high / (1 - high) if high < 1 else math.inf)


def difference(pairs: Pairs, level: float = 0.95) -> Interval:
    """Return the interval of the share after minus the share before.

    Raises:
        NotEstimable: there is no session.

    Source:
        Newcombe 1998, Statistics in Medicine 17:2635, method 10: Wilson's intervals of the two shares, added in
        squares, with their correlation phi (its numerator reduced by n/2 where positive).
    """
    if not pairs.n:
        raise NotEstimable("no session: nothing to compare")
    n, before, after = pairs.n, pairs.both + pairs.lost, pairs.both + pairs.gained
    (l1, u1), (l2, u2) = wilson(after, n, level), wilson(before, n, level)
    p1, p2, phi = after / n, before / n, _correlation(pairs, before, after)
    down = _added(p1 - l1, u2 - p2, phi)
    up = _added(u1 - p1, p2 - l2, phi)
    return Interval(max(-1.0, p1 - p2 - down), min(1.0, p1 - p2 + up))


def _added(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _correlation(pairs: Pairs, before: int, after: int) -> float:
    n = pairs.n
    spread = before * (n - before) * after * (n - after)
    if not spread:
        return 0.0
    together = pairs.both * pairs.neither - pairs.lost * pairs.gained
    return (max(together - n / 2, 0) if together > 0 else together) / math.sqrt(spread)
