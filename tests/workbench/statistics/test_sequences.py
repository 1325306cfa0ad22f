"""Intervals that hold however often one looks."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from savvi.multinomial import Multinomial
from scipy import special

from workbench.errors import NotEstimable
from workbench.statistics.proportions import clopper_pearson
from workbench.statistics.sequences import _FRACTIONS, Look, Watch, asymptotic, sequence

NIGHTS = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8), min_size=1, max_size=6
)


def split(night: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(night, dtype=float).reshape(-1, 2)
    return pairs.min(axis=1), pairs.max(axis=1)


def wealth(theta: float, y: np.ndarray, m: np.ndarray, bound: float) -> float:
    """As published: of each fraction the product over sessions, one after the other; and their mean."""
    grown = []
    for c in _FRACTIONS:
        product = 1.0
        for value, size in zip(y, m, strict=True):
            product *= 1 + c * (value - theta * size) / (theta * bound)
        grown.append(product)
    return float(np.mean(grown))


@given(NIGHTS)
@settings(max_examples=60)
def test_bounds_are_where_the_wealth_reaches_one_over_alpha(nights: list[list[tuple[int, int]]]) -> None:
    y, m = split([pair for night in nights for pair in night])
    found = Watch(bound=5).see(y, m)
    if found.lower > 1e-6:
        assert wealth(found.lower, y, m, 5) == pytest.approx(40, rel=1e-6)
    elif y.sum():
        assert wealth(1e-6, y, m, 5) <= 40 * 1.001
    if found.upper < 1:
        assert wealth(1 - found.upper, m - y, m, 5) == pytest.approx(40, rel=1e-6)


@given(NIGHTS)
@settings(max_examples=25)
def test_how_often_one_looked_changes_only_what_was_kept(nights: list[list[tuple[int, int]]]) -> None:
    watch, every = Watch(bound=5), []
    for night in nights:
        watch = watch.see(*split(night))
        every.append(watch.look)
    once = Watch(bound=5).see(*split([pair for night in nights for pair in reversed(night)]))
    assert watch.least == once.least
    assert watch.look[:4] == (len(nights), *once.look[1:4])
    assert watch.lower >= once.lower - 1e-12
    assert all(b.lower >= a.lower and b.upper <= a.upper for a, b in pairwise(every))
    assert every == list(sequence((split(night) for night in nights), bound=5))


def test_state_survives_a_night_in_a_file() -> None:
    watch = Watch(level=0.9, bound=4).see([1, 0, 2.5], [2, 1, 3]).see([1], [4], [3])
    again = Watch.resume(json.loads(json.dumps(watch.state())))
    assert again == watch
    assert again.see([1], [2]).look == watch.see([1], [2]).look
    with pytest.raises(NotEstimable, match="no state of a watch"):
        Watch.resume({"level": 0.9})


def test_unknown_outcomes_widen_and_never_narrow() -> None:
    known = Watch(bound=2).see(np.tile([0.0, 1.0], 500), 2.0)
    bounded = Watch(bound=2).see(np.tile([0.0, 1.0], 500), 2.0, np.tile([1.0, 1.0], 500))
    assert bounded.look[2:4] == (0.25, 0.5)
    assert bounded.lower == known.lower
    assert bounded.upper > 0.5 > known.upper


def test_fractions_are_rounded_outwards_and_reported_as_they_are() -> None:
    values = np.full(300, 1 / 3)
    watch = Watch().see(values)
    assert watch.look.low == pytest.approx(1 / 3, abs=1e-12)
    low, high = next(iter(watch.least))[0], 1 - next(iter(watch.most))[0]
    assert 1 / 3 - 1 / 1024 <= low <= 1 / 3 <= high <= 1 / 3 + 1 / 1024


@pytest.mark.parametrize("share", [0.5, 0.05, 0.0])
def test_as_tight_as_the_library_s_on_outcomes_of_zero_and_one(share: float) -> None:
    """`savvi`'s multinomial mixture, k = 1 (Jeffreys' prior at 1/2), in its closed form for two cells."""
    n = 10_000
    x = round(share * n)
    savvi = Multinomial(0.05, np.array([0.5, 0.5]), k=1)
    with np.errstate(over="ignore"):  # its odds; the prior and posterior are what is compared
        savvi.update(np.array([x, n - x]))
    prior, posterior = savvi.alpha_0, savvi.alpha_n
    log = special.betaln(*posterior) - special.betaln(*prior)
    grid = np.linspace(1e-7, 1 - 1e-7, 200_001)
    kept = grid[log - special.xlogy(x, grid) - special.xlog1py(n - x, -grid) < math.log(20)]
    ours = sequence([np.repeat([1.0, 0.0], [x, n - x])])
    look = next(ours)
    assert look.upper - look.lower < 1.25 * (kept.max() - kept.min())
    exact = clopper_pearson(x, n)
    assert look.lower <= exact.lower
    assert exact.upper <= look.upper


def test_a_change_of_the_rate_is_noticed() -> None:
    rng = np.random.default_rng(1)
    watch = Watch()
    for rate in (0.1, 0.1, 0.3, 0.3, 0.3):
        watch = watch.see((rng.random(2000) < rate).astype(float))
    assert watch.moved
    assert watch.look.lower > watch.look.upper


def test_refuses_what_the_declared_bound_does_not_hold() -> None:
    with pytest.raises(NotEstimable, match="size 6 exceeds the declared bound of 5"):
        Watch(bound=5).see([1.0], [6.0])
    with pytest.raises(NotEstimable, match="between 0 and its size"):
        Watch().see([0.5, 1.2])
    with pytest.raises(NotEstimable, match="level"):
        Watch(level=95).see([0.5])


def test_a_night_without_sessions_says_nothing() -> None:
    assert Watch().see([]).look == Look(1, 0, 0.0, 1.0, 0.0, 1.0)


def test_asymptotic_sequence_is_the_paper_s_formula() -> None:
    """By hand at n = planned = 1000, level 0.95, variance 4: r^2 = 0.0079373, half = 0.2021."""
    low, high = asymptotic(10, 4, 1000, planned=1000)
    rho = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 1000
    half = 2 * math.sqrt(2 * (1000 * rho + 1) / (1000**2 * rho) * math.log(math.sqrt(1000 * rho + 1) / 0.05))
    assert (low, high) == pytest.approx((10 - half, 10 + half))
    assert half == pytest.approx(0.2021, abs=0.02)
    others = [asymptotic(0, 1, 1000, planned=planned)[1] for planned in (100, 10_000)]
    assert asymptotic(0, 1, 1000, planned=1000)[1] < min(others)
