"""Rates over clusters, against the matrix formulas, an optimiser, and other people's code."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import NotEstimable
from workbench.statistics import clusters as module
from workbench.statistics.bootstrap import bca, percentile, replicates
from workbench.statistics.clusters import FEW, METHODS, fit, gather, zero_bound
from workbench.statistics.proportions import clopper_pearson

SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=14)


def drawn(clusters: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sizes of sessions whose decisions hang together."""
    rng = np.random.default_rng(seed)
    m = rng.integers(1, 12, clusters).astype(float)
    return rng.binomial(m.astype(int), rng.beta(1, 3, clusters)).astype(float), m


def matrix_cr2(y: np.ndarray, m: np.ndarray) -> tuple[float, float, float]:
    """CR2 variance and Satterthwaite degrees (independent, identical) as published: matrices over decisions."""
    n, group = int(m.sum()), np.repeat(np.arange(m.size), m.astype(int))
    each = np.concatenate([np.repeat([1.0, 0.0], [int(a), int(b - a)]) for a, b in zip(y, m, strict=True)])
    hat, residual = np.full((n, n), 1 / n), each - each.mean()
    variance, columns = 0.0, []
    for k in range(m.size):
        own = group == k
        values, vectors = np.linalg.eigh(np.eye(own.sum()) - hat[np.ix_(own, own)])
        adjust = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
        variance += (adjust @ residual[own]).sum() ** 2 / n**2
        columns.append((np.eye(n) - hat)[:, own] @ adjust.sum(axis=1) / n)
    p = np.array(columns).T
    degrees = []
    for working in (np.eye(n), (group[:, None] == group[None]).astype(float)):
        g = p.T @ working @ p
        degrees.append(np.trace(g) ** 2 / np.trace(g @ g))
    return variance, degrees[0], degrees[1]


@given(SIZES, st.randoms(use_true_random=False))
def test_closed_form_is_the_matrix_form(sizes: list[int], random: Random) -> None:
    m = np.array(sizes, dtype=float)
    y = np.array([float(random.randint(0, size)) for size in sizes])
    found = fit(gather(y, m), "share")
    variance, independent, identical = matrix_cr2(y, m)
    assert found.variance == pytest.approx(variance, abs=1e-12)
    assert found.df == pytest.approx(min(independent, identical))


def test_equal_clusters_are_statsmodels_cluster_robust_with_g_minus_1() -> None:
    m, y = np.full(25, 4.0), drawn(25)[0].clip(max=4)
    each = np.concatenate([np.repeat([1.0, 0.0], [int(a), int(4 - a)]) for a in y])
    robust = sm.OLS(each, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": np.repeat(range(25), 4)})
    found = fit(gather(y, m), "share")
    # statsmodels is CR1: G / (G - 1) * (N - 1) / (N - k); with equal clusters CR2 is G / (G - 1) alone.
    assert found.variance == pytest.approx(robust.bse[0] ** 2 * 99 / 99, rel=1e-9)
    assert found.df == pytest.approx(24)


def test_single_decisions_give_the_classic_t_interval() -> None:
    values = np.array([3.0, 9.0, 4.0, 8.0, 1.0, 7.0])
    found = fit(gather(values, 1.0), "signed").interval(0.9)
    low, high = stats.t.interval(0.9, 5, values.mean(), stats.sem(values))
    assert found == pytest.approx((low, high))


def test_tallied_clusters_are_the_clusters_one_by_one() -> None:
    y, m = drawn(400)
    pairs, times = np.unique(np.stack([y, m]), axis=1, return_counts=True)
    for kind in ("share", "positive", "signed"):
        one, tallied = fit(gather(y, m), kind), fit(gather(*pairs, n=times), kind)
        assert tallied.interval() == pytest.approx(one.interval())
        assert tallied.effective_n == pytest.approx(one.effective_n)
        assert tallied.clusters.count == 400


def test_korn_graubard_of_unclustered_decisions_is_clopper_pearson() -> None:
    values = np.repeat([1.0, 0.0], [12, 388])
    found = fit(gather(values, 1.0), "share")
    assert found.method == "korn-graubard"
    # CR2's variance has n - 1 where the binomial's has n; that is all the difference.
    assert found.interval() == pytest.approx(clopper_pearson(12, 400), rel=0.005)
    assert found.design_effect == pytest.approx(1, rel=0.005)


def test_decisions_that_flip_together_count_once() -> None:
    """40 sessions, each of 25 equal decisions: as much as 40 decisions, not 1,000."""
    y = np.repeat([25.0, 0.0], [4, 36])
    found = fit(gather(y, 25.0), "share")
    assert found.effective_n == pytest.approx(39, rel=0.01)
    assert found.design_effect == pytest.approx(25.6, rel=0.01)
    naive = clopper_pearson(100, 1000)
    assert found.upper(0.025) - found.lower(0.025) > 3.9 * (naive.upper - naive.lower)


@pytest.mark.parametrize("clusters", [2, 7, FEW - 1])
def test_few_clusters_are_exact_where_they_flip_as_a_whole(clusters: int) -> None:
    y = np.zeros(clusters)
    y[0] = 6
    found = fit(gather(y, 6.0), "share")
    assert found.method == "sessions"
    assert found.interval() == pytest.approx(proportion_confint(1, clusters, method="beta"))


@pytest.mark.parametrize("clusters", [1, 2, 59, 10_000])
def test_zero_of_equal_clusters_is_the_exact_bound(clusters: int) -> None:
    found = fit(gather(np.zeros(clusters), 7.0, cap=7.0), "share")
    assert (found.method, found.lower(0.05)) == ("exact", 0.0)
    assert found.upper(0.05) == pytest.approx(1 - 0.05 ** (1 / clusters))
    every = fit(gather(np.full(clusters, 7.0), 7.0, cap=7.0), "share")
    assert tuple(every.interval(0.9)) == pytest.approx((0.05 ** (1 / clusters), 1.0))


@given(SIZES, st.sampled_from([0.01, 0.05, 0.3]))
def test_zero_bound_is_the_optimiser_s(sizes: list[int], alpha: float) -> None:
    """No chances under which nothing is seen with probability alpha give a larger rate."""
    m = np.array(sizes, dtype=float)
    bound = zero_bound(gather(0.0, m, cap=m), alpha)
    # In s = -log(1 - q) the constraint is linear and the goal concave: SLSQP finds the one maximum.
    found = optimize.minimize(
        lambda s: -(m * -np.expm1(-s)).sum() / m.sum(),
        np.full(m.size, -math.log(alpha) / m.size),
        jac=lambda s: -m * np.exp(-s) / m.sum(),
        constraints={
            "type": "ineq",
            "fun": lambda s: -math.log(alpha) - s.sum(),
            "jac": lambda s: -np.ones_like(s),
        },
        bounds=[(0, None)] * m.size,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-13},
    )
    assert bound == pytest.approx(-found.fun, rel=1e-4)


def test_nothing_bounds_a_mean_of_which_nothing_was_seen() -> None:
    assert fit(gather(np.zeros(50), 1.0), "positive").upper(0.05) == math.inf
    counted = fit(gather(np.zeros(50), 1.0, cap=3.0), "positive")  # three calls a session
    assert counted.upper(0.05) == pytest.approx(3 * (1 - 0.05 ** (1 / 50)))


def test_gamma_is_the_exact_poisson_interval_of_rare_events() -> None:
    """Fay & Feuer 1997: with equal weights the interval is Garwood's, chi-square quantiles over twice the size."""
    n = 1_000_000
    found = fit(gather([1.0, 0.0], 1.0, n=[5, n - 5]), "positive")
    garwood = stats.chi2.ppf(0.025, 10) / 2 / n, stats.chi2.ppf(0.975, 12) / 2 / n
    assert found.method == "gamma"
    assert found.interval() == pytest.approx(garwood, rel=1e-4)


def test_gamma_of_much_data_is_the_t_interval() -> None:
    y = np.random.default_rng(3).lognormal(2, 0.5, 20_000)
    assert fit(gather(y, 1.0), "positive").interval() == pytest.approx(
        fit(gather(y, 1.0), "signed").interval(), rel=1e-3
    )


@pytest.mark.parametrize("kind", ["share", "positive", "signed"])
def test_one_cluster_says_next_to_nothing(kind: module.Kind) -> None:
    found = fit(gather([3.0], [9.0], cap=[9.0]), kind)
    low, high = found.interval()
    if kind == "share":
        assert (low, high) == pytest.approx(clopper_pearson(1 / 3, 1))
    else:
        assert (low, high) == (-math.inf if kind == "signed" else 0.0, math.inf)


@pytest.mark.parametrize("kind", ["share", "positive", "signed"])
def test_no_cluster_says_nothing(kind: module.Kind) -> None:
    found = fit(gather([0.0, 0.0], [0.0, 0.0]), kind)  # sessions without any of what it is a share of
    assert (found.method, found.clusters.count, found.effective_n) == ("none", 0, 0.0)
    assert math.isnan(found.value)
    assert found.interval() == (
        (-math.inf if kind == "signed" else 0.0),
        (1.0 if kind == "share" else math.inf),
    )


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
    st.sampled_from([0.2, 0.05, 0.001]),
)
def test_intervals_hold_the_estimate_and_widen_with_the_level(
    pairs: list[tuple[int, int]], alpha: float
) -> None:
    y, m = np.array([min(p) for p in pairs], float), np.array([max(p) for p in pairs], float)
    for kind in ("share", "positive", "signed"):
        found = fit(gather(y, m, cap=m), kind)
        assert found.method in METHODS
        if found.clusters.n.size:
            inner, outer = found.interval(1 - alpha), found.interval(1 - alpha / 10)
            slack = 1e-12
            assert outer.lower - slack <= inner.lower <= found.value + slack
            assert found.value - slack <= inner.upper <= outer.upper + slack


def test_refuses_sums_of_another_kind() -> None:
    with pytest.raises(NotEstimable, match="take it as `signed`"):
        fit(gather([-1.0], [1.0]), "positive")
    with pytest.raises(NotEstimable, match="more than its size"):
        fit(gather([2.0], [1.0]), "share")
    with pytest.raises(NotEstimable, match="finite"):
        gather([math.nan], [1.0])


def test_bootstrap_is_scipy_s() -> None:
    y, m = drawn(60, 5)
    ours = bca(gather(y, m), times=20_000, seed=2)
    theirs = stats.bootstrap(
        (y, m), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), paired=True, n_resamples=20_000, method="BCa",
        rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.004)
    plain = percentile(gather(y, m), times=20_000, seed=2)
    assert plain == pytest.approx(fit(gather(y, m), "signed").interval(), abs=0.02)


def test_bootstrap_is_the_same_for_the_same_seed_and_refuses_one_cluster() -> None:
    y, m = drawn(30)
    assert (replicates(gather(y, m), 50, seed=4) == replicates(gather(y, m), 50, seed=4)).all()
    assert bca(gather(np.zeros(30), m)) == (0, 0)
    with pytest.raises(NotEstimable, match="two clusters"):
        replicates(gather([1.0], [2.0]))


def test_bootstrap_draws_clusters_not_decisions() -> None:
    """Sessions of 25 equal decisions: the spread of drawings is that of 40 sessions."""
    y = np.repeat([25.0, 0.0], [10, 30])
    spread = replicates(gather(y, 25.0), 4000).std()
    assert spread == pytest.approx(math.sqrt(0.25 * 0.75 / 40), rel=0.05)


@given(st.data())
def test_seeing_some_never_bounds_lower_than_seeing_none(data: st.DataObject) -> None:
    """One flip in a thousand decisions says less than nothing against whole sessions that flip."""
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=2, max_size=60))
    flips = [data.draw(st.integers(0, size)) for size in sizes]
    for alpha in (0.05, 0.025):
        none = fit(gather([0] * len(sizes), sizes, cap=sizes), "share").upper(alpha)
        assert fit(gather(flips, sizes, cap=sizes), "share").upper(alpha) >= min(none, 1.0) - 1e-12
        all_ = fit(gather(sizes, sizes, cap=sizes), "share").lower(alpha)
        assert fit(gather(flips, sizes, cap=sizes), "share").lower(alpha) <= max(all_, 0.0) + 1e-12
