"""Many tests at once; what can be seen, and what it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from workbench.statistics.clusters import fit, gather
from workbench.statistics.multiplicity import adjusted
from workbench.statistics.power import clusters_needed, minimum_detectable
from workbench.statistics.proportions import upper_bound

# Benjamini & Hochberg 1995, section 4.1: fifteen comparisons of a trial on myocardial infarction.
TRIAL = (
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
)  # fmt: skip


def test_benjamini_and_hochberg_s_own_example() -> None:
    assert (adjusted(TRIAL, "bh") <= 0.05).sum() == 4  # as they report
    assert (adjusted(TRIAL, "holm") <= 0.05).sum() == 3  # as they report for Bonferroni's kind


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_steps_down(p_values: list[float]) -> None:
    """Holm 1979, literally: the k-th smallest times what is left, never less than the one before."""
    expected, before = [0.0] * len(p_values), 0.0
    for k, place in enumerate(np.argsort(p_values, kind="stable")):
        before = expected[place] = max(before, min(1.0, p_values[place] * (len(p_values) - k)))
    assert adjusted(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_equals_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).random(20).round(2)  # with ties
    assert adjusted(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert adjusted(p_values, "bh") == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


def test_what_was_not_tested_counts_for_nothing() -> None:
    found = adjusted([0.01, math.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(found[1])
    assert adjusted([math.nan]).tolist() == pytest.approx([math.nan], nan_ok=True)


def test_minimum_detectable_has_the_power_it_says() -> None:
    """statsmodels' power of a one-sample t-test at that difference is about 80 %."""
    values = np.random.default_rng(4).normal(3, 2, 30)
    smallest = minimum_detectable(fit(gather(values, 1.0), "signed"))
    found = TTestPower().power(smallest / values.std(ddof=1), 30, 0.05)
    assert found == pytest.approx(0.8, abs=0.005)


def test_minimum_detectable_where_nothing_was_seen() -> None:
    smallest = minimum_detectable(fit(gather(np.zeros(100), 1.0), "share"))
    assert 1 - (1 - smallest) ** 100 == pytest.approx(0.8)
    assert minimum_detectable(fit(gather([3.0], 1.0), "signed")) == math.inf


def test_sessions_needed_where_nothing_flipped() -> None:
    """The textbook's 299: so many clean sessions bound the rate by 1 % at 95 %."""
    seen = fit(gather(np.zeros(100), 1.0, cap=1.0), "share")
    needed = clusters_needed(seen, 0.01, 0.05, below=True)
    assert needed == 299
    assert upper_bound(0, needed) <= 0.01


def test_sessions_needed_have_the_power_they_say() -> None:
    """Simulated: with so many sessions, the bound clears the threshold in about 80 % of cases."""
    seen = fit(gather([1.0, 0.0], 1.0, n=[20, 980]), "share")
    needed = clusters_needed(seen, 0.03, 0.05, below=True)
    assert needed is not None
    flips = np.random.default_rng(0).binomial(needed, 0.02, 4000)
    cleared = np.mean([upper_bound(x, needed, 0.05) <= 0.03 for x in flips])
    assert cleared == pytest.approx(0.8, abs=0.03)


def test_no_number_of_sessions_moves_what_is_on_the_wrong_side() -> None:
    seen = fit(gather([1.0, 0.0], 1.0, n=[20, 980]), "share")
    assert clusters_needed(seen, 0.02, 0.05, below=True) is None
    assert clusters_needed(seen, 0.01, 0.05, below=True) is None
    above = clusters_needed(seen, 0.01, 0.05, below=False)
    assert above is not None
    assert above < 2000
    assert clusters_needed(fit(gather([], []), "share"), 0.1, 0.05, below=True) is None


def test_sessions_needed_of_a_mean_follow_the_square_of_the_distance() -> None:
    seen = fit(gather(np.tile([0.0, 2.0], 50), 1.0), "signed")
    near, far = (clusters_needed(seen, at, 0.05, below=True) for at in (1.1, 1.2))
    assert near is not None
    assert far is not None
    assert near / far == pytest.approx(4, rel=0.02)
