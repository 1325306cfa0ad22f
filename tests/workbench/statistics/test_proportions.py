"""Intervals of one proportion, against published tables and other people's code."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import NotEstimable
from workbench.statistics.proportions import clopper_pearson, lower_bound, upper_bound, wilson

NEWCOMBE = {
    # Newcombe 1998, Statistics in Medicine 17:857, Table I: (r, n) to Wilson (method 3) and exact (method 5).
    (81, 263): ((0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148): ((0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20): ((0.0, 0.1611), (0.0, 0.1684)),
    (1, 29): ((0.0061, 0.1718), (0.0009, 0.1776)),
}


@pytest.mark.parametrize(("trials", "published"), NEWCOMBE.items())
def test_equals_newcombe_s_table(
    trials: tuple[int, int], published: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    found = wilson(*trials), clopper_pearson(*trials)
    for interval, expected in zip(found, published, strict=True):
        assert interval == pytest.approx(expected, abs=5.1e-5)


@given(n=st.integers(1, 5000), part=st.floats(0, 1), level=st.floats(0.5, 0.9999))
def test_equals_scipy_and_statsmodels(n: int, part: float, level: float) -> None:
    x = round(part * n)
    exact = stats.binomtest(x, n).proportion_ci(level, method="exact")
    assert clopper_pearson(x, n, level) == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = proportion_confint(x, n, alpha=1 - level, method="wilson")
    assert wilson(x, n, level) == pytest.approx(score, abs=1e-9)


def test_nothing_of_n_is_bounded_by_the_rule_of_three() -> None:
    assert upper_bound(0, 299, 0.05) == pytest.approx(0.01, abs=5e-5)  # the textbook's 299
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=5e-3)
    assert upper_bound(0, 0) == 1.0
    assert lower_bound(7, 7, 0.05) == pytest.approx(0.05 ** (1 / 7))
    assert wilson(0, 0) == (0, 1)


@given(x=st.just(0.0) | st.floats(0.01, 100), more=st.floats(1, 100), alpha=st.floats(1e-12, 0.4))
def test_bounds_invert_the_tails(x: float, more: float, alpha: float) -> None:
    high = upper_bound(x, x + more, alpha)
    assert stats.beta.sf(high, x + 1, more) == pytest.approx(alpha, rel=1e-6)
    assert lower_bound(x, x + more, alpha) <= x / (x + more) <= high


@pytest.mark.parametrize(
    ("x", "n", "alpha"), [(-1, 3, 0.1), (4, 3, 0.1), (math.nan, 3, 0.1), (1, 3, 0.0), (1, 3, 1.0)]
)
def test_refuses_what_is_no_proportion(x: float, n: float, alpha: float) -> None:
    with pytest.raises(NotEstimable, match="between 0 and"):
        upper_bound(x, n, alpha)


def test_refuses_percent_as_a_level() -> None:
    with pytest.raises(NotEstimable, match=r"not 95; write 0\.95"):
        wilson(1, 3, 95)
