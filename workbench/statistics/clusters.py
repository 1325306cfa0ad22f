"""Rates and means over clusters: what sessions say of decisions that hang together inside them.

One rule: every formula is over clusters, O(their distinct pairs); how many decisions there are changes nothing but
the number of clusters' sizes. So a million sessions cost what a thousand distinct (sum, size) pairs cost.

The estimate is a ratio of sums, `sum(y) / sum(m)`: of a share, y counts and m is how many it could be; of a mean per
session, m counts the cluster's sessions. Clusters are independent of each other, inside they may hang together in any
way. Sizes are as the log has them: an estimate for traffic of the same mix.

Accepted: bounds of shares of unequal clusters are exact only where nothing flipped (`zero_bound`); under 20 clusters
otherwise they rest on Kish's number of clusters, which is exact for equal clusters that flip as a whole, the least
favourable case, and conservative in our simulations else. No upper bound is
below the one that nothing at all would give (`least_upper`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from workbench.errors import NotEstimable
from workbench.statistics.proportions import Interval, lower_bound, tail, upper_bound

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

FEW = 20
"""Clusters under which no variance is estimated from them (DESIGN section 7)."""

Kind = Literal["share", "positive", "signed"]
"""`share` 0 <= y <= m in every cluster; `positive` y >= 0; `signed` any y."""

Method = Literal["exact", "sessions", "korn-graubard", "gamma", "t", "bootstrap", "none"]
METHODS: dict[Method, str] = {
    "exact": "exact over clusters: none flipped, or all did (Buehler)",
    "sessions": "Clopper-Pearson over Kish's number of clusters: fewer than 20 clusters",
    "korn-graubard": "Clopper-Pearson over the effective n (Korn-Graubard), CR2 variance",
    "gamma": "gamma (Fay-Feuer), CR2 variance",
    "t": "t, CR2 variance, Satterthwaite degrees of freedom",
    "bootstrap": "cluster bootstrap, BCa",
    "none": "no cluster has any of what it is a share of: nothing to estimate",
}
"""How an interval was made."""
_ESTIMATED: dict[Kind, Method] = {"share": "korn-graubard", "positive": "gamma", "signed": "t"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """Sums of clusters, equal ones once. Made by `gather`."""

    y: Floats
    """Sum of what is counted, of one cluster."""
    m: Floats
    """Size of the cluster: what `y` is divided by. Always above 0."""
    n: Floats
    """How many clusters have these sums."""
    cap: Floats
    """The most `y` could be in the cluster; infinite where nothing says."""

    @property
    def count(self) -> int:
        """How many clusters."""
        return int(self.n.sum())

    @property
    def size(self) -> float:
        """The denominator: all sizes together."""
        return float((self.n * self.m).sum())

    @property
    def total(self) -> float:
        """The numerator: all sums together."""
        return float((self.n * self.y).sum())

    @property
    def kish(self) -> float:
        """How many clusters of equal size say as much, if each flips as a whole.

        Source:
            Kish 1965, Survey Sampling: (sum m)^2 / sum m^2.
        """
        return self.size**2 / float((self.n * self.m**2).sum())


def gather(y: ArrayLike, m: ArrayLike, *, n: ArrayLike = 1.0, cap: ArrayLike | None = None) -> Clusters:
    """Take clusters' sums; those of size 0 say nothing and are left out.

    Args:
        y: sum of each cluster.
        m: size of each cluster.
        n: how many clusters each pair stands for.
        cap: the most each `y` could be; None: nothing says.

    Raises:
        NotEstimable: a size is negative, or a number is not finite.
    """
    ys, ms, ns, caps = np.broadcast_arrays(
        *(np.asarray(each, dtype=np.float64) for each in (y, m, n, np.inf if cap is None else cap))
    )
    if not (np.isfinite(ys).all() and np.isfinite(ms).all() and (ms >= 0).all()):
        raise NotEstimable("sums and sizes of clusters are finite numbers, and sizes are not negative")
    kept = (ms > 0) & (ns > 0)
    return Clusters(y=ys[kept], m=ms[kept], n=ns[kept], cap=caps[kept])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """An estimate and what its intervals are made of. Made by `fit`."""

    clusters: Clusters
    kind: Kind
    value: float
    """The ratio; NaN where there is no cluster."""
    variance: float
    """Of the ratio, CR2; 0 where all clusters agree, NaN with a single cluster."""
    df: float
    """Degrees of freedom of the variance."""
    resampled: int = 0
    """Drawings of the cluster bootstrap to use where a variance would be; 0: none."""

    @property
    def method(self) -> Method:
        """How its bounds are made."""
        if not self.clusters.n.size:
            return "none"
        if self.kind == "share":
            if self.value in (0.0, 1.0):
                return "exact"
            if self.clusters.count < FEW:
                return "sessions"
        elif self.kind == "positive" and self.value == 0:
            return "exact"
        if self.resampled and self.clusters.count > 1:
            return "bootstrap"
        return _ESTIMATED[self.kind]

    @property
    def error(self) -> float:
        """Standard error of the ratio."""
        return math.sqrt(self.variance)

    @property
    def effective_n(self) -> float:
        """How many independent decisions say as much; of a mean, how many equal clusters.

        Where nothing varies (0 of n), or under 20 clusters, as many as there are equal clusters: decisions of one
        cluster could all flip together, and too little was seen to say they would not.

        Source:
            Kish 1965: n over the design effect, p (1 - p) / V; never more than n (Korn & Graubard 1998).
        """
        if not self.clusters.n.size:
            return 0.0
        if (
            self.kind != "share"
            or self.clusters.count < FEW
            or not self.variance > 0
            or not 0 < self.value < 1
        ):
            return self.clusters.kish
        return min(self.clusters.size, self.value * (1 - self.value) / self.variance)

    @property
    def design_effect(self) -> float:
        """By how much clustering inflates the variance of a share; 1: not at all (Kish 1965)."""
        return self.clusters.size / self.effective_n if self.effective_n else math.nan

    def lower(self, alpha: float) -> float:
        """Return the one-sided lower bound; the truth is below it with probability at most about `alpha`."""
        return _lower(self, alpha)

    def upper(self, alpha: float) -> float:
        """Return the one-sided upper bound; infinite where the data bound nothing."""
        return _upper(self, alpha)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the two-sided interval, equal tails."""
        alpha = tail(level)
        return Interval(self.lower(alpha), self.upper(alpha))


def fit(clusters: Clusters, kind: Kind) -> Fit:
    r"""Estimate the ratio of sums, with a variance that allows for any dependence inside clusters.

    The ratio is the least-squares fit of a constant to all decisions, so the general formulas close: with
    e = y - theta m and w = m / sum(m), the bias-reduced variance is V = sum e^2 / (1 - w) / sum(m)^2 (CR2), and
    Satterthwaite's degrees of freedom follow from the traces of G'G; both working models are taken (decisions of a
    cluster independent, and identical), and the fewer degrees count.

    Raises:
        NotEstimable: the sums are not of that kind.

    Source:
        Bell & McCaffrey 2002, Survey Methodology 28:169; Pustejovsky & Tipton 2018, JBES 36:672 (CR2);
        Imbens & Kolesár 2016, REStat 98:701. Closed form derived here; checked against the matrix form.

    Cost:
        O(distinct pairs).
    """
    _check(clusters, kind)
    if not clusters.n.size:
        return Fit(clusters=clusters, kind=kind, value=math.nan, variance=math.nan, df=math.nan)
    value = _ratio(clusters, kind)
    if clusters.count == 1:
        return Fit(clusters=clusters, kind=kind, value=value, variance=math.nan, df=math.nan)
    w, e = clusters.m / clusters.size, clusters.y - value * clusters.m
    variance = float((clusters.n * e**2 / (1 - w)).sum()) / clusters.size**2
    df = min(_df_independent(w, clusters.n), _df_identical(w, clusters.n))
    return Fit(clusters=clusters, kind=kind, value=value, variance=variance, df=df)


def _check(clusters: Clusters, kind: Kind) -> None:
    if kind != "signed" and (clusters.y < 0).any():
        raise NotEstimable(f"a sum of {clusters.y.min():g} is below 0: take it as `signed`, not `{kind}`")
    if kind == "share" and (clusters.y > clusters.m).any():
        raise NotEstimable(
            "a cluster counts more than its size: what is a share counts at most its denominator"
        )


def _ratio(clusters: Clusters, kind: Kind) -> float:
    if kind == "share" and (clusters.y == clusters.m).all():
        return 1.0  # not a sum's rounding beside it
    return clusters.total / clusters.size


def _df_independent(w: Floats, n: Floats) -> float:
    """Satterthwaite's degrees of freedom of CR2, decisions of a cluster taken as independent."""
    b = w**2 / (1 - w)
    return 1 / float((n * w**2).sum() + (n * b).sum() ** 2 - (n * b**2).sum())


def _df_identical(w: Floats, n: Floats) -> float:
    """The same, decisions of a cluster taken as identical."""
    d2, s = w**2 / (1 - w), float((n * w**2).sum())
    d2n = n * d2
    sums = [float((d2n * w**power).sum()) for power in range(3)]
    cross = s**2 * sums[0] ** 2 + 2 * sums[2] * sums[0] - 4 * s * sums[1] * sums[0] + 2 * sums[1] ** 2
    same = float((n * d2**2 * (1 + 2 * (s - 2 * w))).sum())
    trace = float((d2n * (1 + s - 2 * w)).sum())
    return trace**2 / (cross + same)


def zero_bound(clusters: Clusters, alpha: float) -> float:
    """Return the exact upper bound of the ratio where no cluster has any: 0 of n is not 0.

    The largest ratio that any chances of the clusters allow under which nothing at all is seen with probability
    `alpha`: maximise sum(cap q) / sum(m) with prod(1 - q) >= alpha, solved by 1 - q = min(1, mu / cap). Clusters of
    equal size give `1 - alpha**(1 / clusters)`. Given the sizes, whatever the dependence inside clusters.

    Returns:
        The bound; infinite where nothing says how much a cluster could have.

    Source:
        Buehler 1957, JASA 52:482 (the optimal limit given an outcome); the maximisation is ours.
    """
    if not np.isfinite(clusters.cap).all():
        return math.inf
    order = np.argsort(-clusters.cap)
    cap, n = clusters.cap[order], clusters.n[order]
    cap, n = cap[cap > 0], n[cap > 0]
    if not cap.size:
        return 0.0
    many, logs = np.cumsum(n), np.cumsum(n * np.log(cap))
    level = np.exp((logs + math.log(alpha)) / many)
    # The first k largest take part where the level lies between the caps of the k-th and of the next.
    k = int(np.argmax(level >= np.append(cap[1:], 0.0)))
    return float((n[: k + 1] * (cap[: k + 1] - level[k])).sum()) / clusters.size


def least_upper(fitted: Fit, alpha: float) -> float:
    """Return what an upper bound is at least: the one that nothing at all would give.

    What was seen of rare events says little of their variance: one session in a thousand that flips as a whole is
    mostly not among those seen. Without this, seeing some harm would give a lower bound than seeing none.
    """
    clusters = fitted.clusters
    cap = np.minimum(clusters.cap, clusters.m) if fitted.kind == "share" else clusters.cap
    found = zero_bound(replace(clusters, cap=cap), alpha)
    return found if math.isfinite(found) else 0.0


def effective(fitted: Fit, alpha: float) -> float:
    """Return the n that Clopper-Pearson is given: the effective n, corrected for its variance being estimated.

    Source:
        Korn & Graubard 1998, Survey Methodology 24:193: n* = n / deff * (t_{n-1} / t_df)^2, at most n.
    """
    if fitted.clusters.count < FEW:
        return fitted.effective_n
    rows = max(fitted.clusters.size, 2.0)
    quantile = _t(fitted.df, alpha)
    shrink = (_t(rows - 1, alpha) / quantile) ** 2 if quantile else 1.0
    return min(fitted.effective_n * shrink, fitted.clusters.size)


def _t(df: float, alpha: float) -> float:
    """The quantile that a t of `df` degrees exceeds with probability `alpha`."""
    return -float(special.stdtrit(df, alpha))


def _lower(fitted: Fit, alpha: float) -> float:
    match fitted.method:
        case "exact" if fitted.kind == "share" and fitted.value == 1:
            return 1 - zero_bound(fitted.clusters, alpha)
        case "exact":
            return 0.0
        case "sessions" | "korn-graubard":
            n = effective(fitted, alpha)
            return min(lower_bound(fitted.value * n, n, alpha), 1 - least_upper(fitted, alpha))
        case "gamma" if fitted.clusters.count > 1:
            return _gamma(fitted, alpha, 0.0)
        case "bootstrap":
            return _resampled(fitted, alpha).lower
        case "t" if fitted.clusters.count > 1:
            return fitted.value - _t(fitted.df, alpha) * fitted.error
        case _:
            return -math.inf if fitted.kind == "signed" else 0.0


def _upper(fitted: Fit, alpha: float) -> float:
    match fitted.method:
        case "exact" if fitted.value == 1:
            return 1.0
        case "exact":
            return zero_bound(fitted.clusters, alpha)
        case "sessions" | "korn-graubard":
            n = effective(fitted, alpha)
            return max(upper_bound(fitted.value * n, n, alpha), least_upper(fitted, alpha))
        case "gamma" if fitted.clusters.count > 1:
            found = _gamma(fitted, alpha, float(fitted.clusters.y.max()) / fitted.clusters.size)
            return max(found, least_upper(fitted, alpha))
        case "bootstrap":
            return _resampled(fitted, alpha).upper
        case "t" if fitted.clusters.count > 1:
            return fitted.value + _t(fitted.df, alpha) * fitted.error
        case _:
            return 1.0 if fitted.kind == "share" else math.inf


def _resampled(fitted: Fit, alpha: float) -> Interval:
    from workbench.statistics.bootstrap import bca  # noqa: PLC0415 - it takes our clusters

    return bca(fitted.clusters, 1 - 2 * alpha, times=fitted.resampled)


def _gamma(fitted: Fit, alpha: float, weight: float) -> float:
    """A bound of a mean of rare, uneven, non-negative sums; `weight` 0 for the lower, the largest for the upper.

    As the variance is estimated, its distance from the estimate is stretched by the t quantile over the normal one.

    Source:
        Fay & Feuer 1997, Statistics in Medicine 16:791: a gamma with the estimate's mean and variance; for the
        upper bound one more event of the largest weight.
    """
    mean, variance = fitted.value + weight, fitted.variance + weight**2
    if not variance:
        # All clusters agree: E y >= v P(y >= v m), and all of n do is bounded exactly.
        whole = fitted.clusters
        return fitted.value * (1 - zero_bound(gather(0.0, whole.m, n=whole.n, cap=whole.m), alpha))
    shape, normal = mean**2 / variance, float(special.ndtri(alpha))
    quantile = special.gammainccinv(shape, alpha) if weight else special.gammaincinv(shape, alpha)
    distance = variance / mean * float(quantile) - fitted.value
    return max(0.0, fitted.value + distance * (-_t(fitted.df, alpha) / normal if normal else 1.0))
