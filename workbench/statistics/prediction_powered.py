r"""A rate that a judge measured on many and people on some: prediction-powered inference, over clusters.

One rule: the judge's word is never taken for the truth. What people said corrects it; the interval is that of the
corrected rate; and where people said too little, the interval is that of what they said alone, or there is none that
covers the truth, and `method` says so.

With weights w of what was judged (f the judge's word) and v of what people labelled (y their word):

    theta(lambda) = sum(v y) / sum(v) + lambda * (sum(w f) / sum(w) - sum(v f) / sum(v))

lambda = 0 is the labels alone, lambda = 1 prediction-powered inference; here it is the one of least estimated
variance, kept between 0 and 1. Clusters (sessions) are what is drawn independently; the labelled are part of the
judged, so each cluster gives one influence for both parts, and with n labelled clusters of equal size (Kish's number)

    psi_c = sum_c v (y - Y) / V_c + lambda * (sum_c w (f - F) / W - sum_c v (f - G) / V_c)
    var = n / (n - 2) * sum psi_c^2

where V_c is sum(v) without the cluster, as in the jackknife. That is the variance of Angelopoulos et al. where every
cluster is one decision and the labelled are apart from the rest.

Accepted: the interval is t on the scale of log-odds (n - 1 degrees of freedom). Where fewer than `RARE` clusters show
the judge wrong, no variance of its errors can be seen; there, how often it is wrong is bounded exactly instead, each
way, and added to bounds of its rate (Bonferroni): valid, and wider.

Source:
    Angelopoulos, Bates, Fannjiang, Jordan & Zrnic 2023, Science 382:669 (prediction-powered inference);
    Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453 (PPI++: lambda by least variance);
    Kish 1965, Survey Sampling (the number of equal clusters that say as much);
    Binder 1983, International Statistical Review 51:279 (variance of weighted ratios by influence, over clusters);
    Korn & Graubard 1998, Survey Methodology 24:193 (intervals of survey proportions by their log-odds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from workbench.errors import NotEstimable
from workbench.statistics.clusters import FEW, fit, gather
from workbench.statistics.proportions import Interval, tail

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

RARE = 5
"""Clusters in which the judge was seen to be wrong, under which its errors' variance is not estimated."""

Method = Literal["ppi++", "exact errors", "labels alone", "judge alone", "none"]
METHODS: dict[Method, str] = {
    "ppi++": "prediction-powered (PPI++), variance over clusters, t",
    "exact errors": "the judge's rate, with exact bounds of how often it is wrong: too few were seen",
    "labels alone": "what people said, alone",
    "judge alone": "the judge's own rate, not corrected: nobody said how often it is wrong",
    "none": "nothing was judged",
}
"""How the rate and its interval were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Powered:
    """A rate, with what it was made of."""

    value: float
    """The rate; NaN where nothing was judged."""
    interval: Interval
    """Two-sided, for future traffic of the same kind; with `judge alone` it is the judge's rate's."""
    method: Method
    weight: float
    """lambda: how much of the judge's word was used; 0: none."""
    judged: Powered | None
    """The judge's own rate, with its interval; None: this is it."""
    labelled: Powered | None
    """The rate of the labels alone; None: there are none, or this is it."""
    n: int
    """Labels; of the judge's own rate, what it judged."""
    clusters: int
    """Clusters with labels; of the judge's own rate, clusters."""
    gain: float
    """Variance of the labels alone over that of this: how many labels one label is worth here. 1 where there is no
    difference, or it cannot be said."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sums:
    """Weighted sums of clusters; labelled ones are 0 where a cluster has none."""

    w: Floats
    wf: Floats
    v: Floats
    vy: Floats
    vf: Floats
    missed: Floats
    """Of v, where people said more than the judge: v max(y - f, 0)."""
    passed: Floats
    """Of v, where the judge said more."""
    n: int


def powered(
    cluster: ArrayLike,
    judged: ArrayLike,
    labels: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    label_weight: ArrayLike | None = None,
    level: float = 0.95,
) -> Powered:
    """Estimate the rate that people would find, had they labelled all.

    Args:
        cluster: of each judged decision, what is independent of the others: any values.
        judged: the judge's word, between 0 and 1.
        labels: people's word, between 0 and 1; NaN where nobody said.
        weight: how many decisions each stands for; None: one.
        label_weight: the same of a labelled one, among the labelled; None: as `weight`.
        level: of the interval.

    Returns:
        The rate. Labels are taken as drawn at random from what was judged, as `label_weight` has it.

    Raises:
        NotEstimable: a number is out of range.

    Cost:
        O(decisions).

    Example:
        >>> found = powered(range(2000), [1, 0] * 1000, [1.0, 0.0] * 50 + [float("nan")] * 1900)
        >>> found.method, round(found.value, 2), round(found.gain, 1)
        ('exact errors', 0.5, 2.2)
    """
    f, y = np.asarray(judged, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones_like(f) if weight is None else np.asarray(weight, dtype=np.float64)
    v = np.where(np.isnan(y), 0.0, w if label_weight is None else np.asarray(label_weight, dtype=np.float64))
    _check(f, y, w, v)
    sums = _summed(cluster, f, np.where(v > 0, np.nan_to_num(y), 0.0), w, v)
    if not sums.w.sum() > 0:
        none = Interval(math.nan, math.nan)
        return _simple(math.nan, none, "none", 0, 0)
    return _of(sums, level, f.size)


def _of(sums: _Sums, level: float, judged: int) -> Powered:
    own = _share(sums.wf, sums.w, level)
    alone = _simple(own[0], own[1], "judge alone", judged, int((sums.w > 0).sum()))
    many = int((sums.v > 0).sum())
    if not many:
        return alone
    said = _share(sums.vy, sums.v, level)
    people = _simple(said[0], said[1], "labels alone", sums.n, many)
    all_said = not (sums.v != sums.w).any()
    if many < FEW or _equal(sums.v) < FEW / 2 or all_said:  # too few to correct with, or nothing to add
        return _with(people, judged=alone)
    if int(((sums.missed > 0) | (sums.passed > 0)).sum()) < RARE:
        found = _exact(sums, level, people)
    else:
        found = _tuned(sums, level, people, many)
    return _with(found, judged=alone, labelled=people)


def _tuned(sums: _Sums, level: float, people: Powered, many: int) -> Powered:
    """PPI++: the lambda of least variance; t on the scale of log-odds, which keeps the interval between 0 and 1."""
    label, rest = _influences(sums)
    square = float((rest**2).sum())
    lam = min(max(-float((label * rest).sum()) / square, 0.0), 1.0) if square else 0.0
    equal = _equal(sums.v)
    factor = equal / (equal - 2)  # the rate and lambda are estimated from them
    variance = factor * float(((label + lam * rest) ** 2).sum())
    value = people.value + lam * (_mean(sums.wf, sums.w) - _mean(sums.vf, sums.v))
    if not 0 < value < 1:
        return _exact(sums, level, people)
    half = -float(special.stdtrit(equal - 1, tail(level))) * math.sqrt(variance) / (value * (1 - value))
    centre = float(special.logit(value))
    interval = Interval(float(special.expit(centre - half)), float(special.expit(centre + half)))
    gain = factor * float((label**2).sum()) / variance if variance else 1.0
    return _simple(min(max(value, 0.0), 1.0), interval, "ppi++", people.n, many, weight=lam, gain=gain)


def _exact(sums: _Sums, level: float, people: Powered) -> Powered:
    """The judge's rate plus how often it missed less how often it passed too much, each bounded on its own.

    Above: the rate's upper bound and that of the missed, each at half the error of its side; what was passed too
    often is at least 0. Below likewise. Where that is wider than what people said alone, it is theirs.
    """
    each = tail(level) / 2
    rate, missed, passed = (
        fit(gather(np.minimum(part, of), of, cap=of), "share")
        for part, of in ((sums.wf, sums.w), (sums.missed, sums.v), (sums.passed, sums.v))
    )
    value = rate.value + missed.value - passed.value
    interval = Interval(
        max(rate.lower(each) - passed.upper(each), 0.0), min(rate.upper(each) + missed.upper(each), 1.0)
    )
    wide, narrow = people.interval.upper - people.interval.lower, interval.upper - interval.lower
    if narrow >= wide:  # people alone say as much: a judge's word that adds nothing is not used
        return people
    value = min(max(value, 0.0), 1.0)
    return _simple(
        value, interval, "exact errors", people.n, people.clusters, weight=1.0, gain=(wide / narrow) ** 2
    )


def _influences(sums: _Sums) -> tuple[Floats, Floats]:
    """Of each cluster, on the labels' rate, and on what the judge adds."""
    own = sums.v.sum() - sums.v  # not the sum of all: a cluster pulls the mean to itself, as in the jackknife
    label = (sums.vy - _mean(sums.vy, sums.v) * sums.v) / own
    there = (sums.vf - _mean(sums.vf, sums.v) * sums.v) / own
    everywhere = (sums.wf - _mean(sums.wf, sums.w) * sums.w) / sums.w.sum()
    return label, everywhere - there


def _equal(sizes: Floats) -> float:
    """How many clusters of one size say as much (Kish)."""
    return float(sizes.sum()) ** 2 / float((sizes**2).sum())


def _mean(part: Floats, of: Floats) -> float:
    return float(part.sum() / of.sum())


def _share(part: Floats, of: Floats, level: float) -> tuple[float, Interval]:
    found = fit(gather(np.minimum(part, of), of, cap=of), "share")
    return found.value, found.interval(level)


def _simple(
    value: float,
    interval: Interval,
    method: Method,
    n: int,
    clusters: int,
    *,
    weight: float = 0.0,
    gain: float = 1.0,
) -> Powered:
    return Powered(
        value=value, interval=interval, method=method, weight=weight, judged=None, labelled=None, n=n,
        clusters=clusters, gain=gain,
    )  # fmt: skip


def _with(found: Powered, *, judged: Powered, labelled: Powered | None = None) -> Powered:
    labelled = None if found.method == "labels alone" else labelled
    return Powered(
        value=found.value, interval=found.interval, method=found.method, weight=found.weight, judged=judged,
        labelled=labelled, n=found.n, clusters=found.clusters, gain=found.gain,
    )  # fmt: skip


def _summed(cluster: ArrayLike, f: Floats, y: Floats, w: Floats, v: Floats) -> _Sums:
    _, at = np.unique(np.asarray(cluster), return_inverse=True)

    def per_cluster(values: Floats) -> Floats:
        return np.bincount(at.reshape(-1), weights=values).astype(np.float64)

    gap = y - f
    return _Sums(
        w=per_cluster(w), wf=per_cluster(w * f), v=per_cluster(v), vy=per_cluster(v * y), vf=per_cluster(v * f),
        missed=per_cluster(v * np.maximum(gap, 0)), passed=per_cluster(v * np.maximum(-gap, 0)), n=int((v > 0).sum()),
    )  # fmt: skip


def _check(f: Floats, y: Floats, w: Floats, v: Floats) -> None:
    known = y[~np.isnan(y)]
    for name, values in (("a judge's word", f), ("a label", known)):
        if not ((values >= 0) & (values <= 1)).all():
            raise NotEstimable(f"{name} lies between 0 and 1")
    if not (np.isfinite(w).all() and np.isfinite(v).all() and (w >= 0).all() and (v >= 0).all()):
        raise NotEstimable("weights are finite and not negative")
