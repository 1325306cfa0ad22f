"""One outcome a session, before and after, against published examples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats import contingency_tables

from workbench.errors import NotEstimable
from workbench.statistics.paired import Pairs, difference, mcnemar, odds

COUNTS = st.integers(0, 60)


def test_armitage_and_berry_s_cultures() -> None:
    """Armitage & Berry 1994, p. 127; figures as StatsDirect prints them (exact test; Liddell's interval)."""
    pairs = Pairs(both=20, lost=12, gained=2, neither=16)
    assert mcnemar(pairs) == pytest.approx(0.0129, abs=5e-5)
    assert odds(pairs) == pytest.approx((1.335744, 55.197091), abs=1e-6)
    assert difference(pairs) == pytest.approx((-0.329207, -0.056156), abs=1e-6)


@pytest.mark.parametrize(
    ("pairs", "published"),
    [
        (Pairs(both=36, lost=2, gained=12, neither=0), (0.0569, 0.3404)),  # Newcombe 1998 17:2635, method 10
        (Pairs(both=1, lost=7, gained=1, neither=12)    , (-0.507, -0.026)),  # Bentur 2009, in Fagerland et al. 2014
    ],
)  # fmt: skip
def test_newcombe_s_method_10(pairs: Pairs, published: tuple[float, float]) -> None:
    assert difference(pairs) == pytest.approx(published, abs=5e-4)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_equals_statsmodels_and_is_symmetric(both: int, lost: int, gained: int, neither: int) -> None:
    pairs = Pairs(both=both, lost=lost, gained=gained, neither=neither)
    if lost + gained:
        theirs = contingency_tables.mcnemar([[both, lost], [gained, neither]], exact=True).pvalue
        assert mcnemar(pairs) == pytest.approx(min(theirs, 1.0))
    if pairs.n:
        turned = Pairs(both=both, lost=gained, gained=lost, neither=neither)
        low, high = difference(pairs)
        assert difference(turned) == pytest.approx((-high, -low))
        assert -1 <= low <= pairs.difference <= high <= 1


def test_no_change_is_no_evidence() -> None:
    assert mcnemar(Pairs(both=5, lost=0, gained=0, neither=90)) == 1
    assert odds(Pairs(both=5, lost=4, gained=0, neither=90)).upper == math.inf
    assert math.isnan(Pairs(both=0, lost=0, gained=0, neither=0).difference)
    with pytest.raises(NotEstimable, match="no session"):
        difference(Pairs(both=0, lost=0, gained=0, neither=0))
    with pytest.raises(NotEstimable, match="not negative"):
        mcnemar(Pairs(both=0, lost=-1, gained=0, neither=0))
