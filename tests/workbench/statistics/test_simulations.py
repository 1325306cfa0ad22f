"""Do intervals cover, and do looks alarm, as often as they say? Minutes; prints its figures with `-s`.

Each case draws sessions whose truth is known, from a fixed seed, and counts how often it is missed.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from workbench.estimating.estimates import Estimate, Estimates
from workbench.estimating.gates import Gate, decide
from workbench.statistics.bootstrap import bca
from workbench.statistics.clusters import fit, gather
from workbench.statistics.paired import Pairs, mcnemar
from workbench.statistics.proportions import clopper_pearson
from workbench.statistics.sequences import Watch
from workbench.weighing.quantities import STOPPED, Quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    Floats = np.ndarray

pytestmark = pytest.mark.simulation

TIMES = 2000
SLACK = 3 * math.sqrt(0.05 * 0.95 / TIMES)
"""Three standard errors of a simulated 5 %."""


class Drawn(NamedTuple):
    """Sums and sizes of sessions."""

    y: Floats
    m: Floats


def told(line: str) -> None:
    """Show a figure; with `-s`."""
    sys.stdout.write(f"{line}\n")


def sizes(rng: np.random.Generator, clusters: int) -> Floats:
    """Decisions a session: uneven, 1 to some 60, as agents' are."""
    return np.ceil(rng.lognormal(1.3, 0.9, clusters))


def sessions(rng: np.random.Generator, clusters: int, rate: float, together: float) -> Drawn:
    """Beta-binomial sessions; `together` is the correlation of two decisions of one session."""
    m = sizes(rng, clusters)
    if together == 0:
        chance = np.full(clusters, rate)
    elif together == 1:
        chance = (rng.random(clusters) < rate).astype(float)
    else:
        scale = 1 / together - 1
        chance = rng.beta(rate * scale, (1 - rate) * scale, clusters)
    return Drawn(rng.binomial(m.astype(int), chance).astype(float), m)


def missed(
    draw: Callable[[np.random.Generator], Drawn], truth: float, times: int = TIMES
) -> tuple[float, float, float, float]:
    """How often the truth is below and above the interval; how often the naive one misses; how wide it is."""
    rng, below, above, naive, width = np.random.default_rng(7), 0, 0, 0, 0.0
    for _ in range(times):
        y, m = draw(rng)
        low, high = fit(gather(y, m, cap=m), "share").interval()
        below, above, width = below + (truth < low), above + (truth > high), width + high - low
        flat = clopper_pearson(y.sum(), m.sum())
        naive += not flat.lower <= truth <= flat.upper
    return below / times, above / times, naive / times, width / times


RATES = [(g, rate, t) for g in (5, 12, 19, 20, 40, 200, 1000) for rate in (0.3, 0.05) for t in (0, 0.2, 1)]
RARE = [
    (g, rate, t) for g, rate in ((12, 0.005), (40, 0.005), (200, 0.002), (1000, 0.001)) for t in (0, 0.2, 1)
]


@pytest.mark.parametrize(("clusters", "rate", "together"), RATES + RARE)
def test_intervals_of_rates_cover(clusters: int, rate: float, together: float) -> None:
    below, above, naive, width = missed(lambda rng: sessions(rng, clusters, rate, together), rate)
    told(
        f"\nrate | {clusters} | {rate:g} | {together:g} | {100 * (1 - below - above):.1f} % | {100 * below:.1f} % | "
        f"{100 * above:.1f} % | {width:.3g} | {100 * (1 - naive):.1f} %"
    )
    # Uneven sessions that flip as a whole, a dozen flips in all: the hardest case for any variance from clusters.
    assert below + above <= 0.05 + SLACK + (0.02 if together == 1 else 0.01)


@pytest.mark.parametrize("clusters", [12, 40, 200, 1000])
def test_intervals_cover_where_long_sessions_flip_more(clusters: int) -> None:
    def chance(m: Floats) -> Floats:
        return np.where(m > 8, 0.3, 0.03)

    def draw(rng: np.random.Generator) -> Drawn:
        m = sizes(rng, clusters)
        return Drawn(rng.binomial(m.astype(int), chance(m)).astype(float), m)

    many = sizes(np.random.default_rng(0), 4_000_000)
    truth = float((many * chance(many)).sum() / many.sum())
    below, above, naive, _ = missed(draw, truth)
    told(
        f"\nlonger flip more | {clusters} | {truth:.3f} | {100 * (1 - below - above):.1f} % | {100 * (1 - naive):.1f} %"
    )
    assert below + above <= 0.05 + SLACK + 0.03


@pytest.mark.parametrize("clusters", [10, 50, 300])
@pytest.mark.parametrize("together", [0, 0.2, 1])
def test_zero_bound_is_exceeded_at_most_alpha(clusters: int, together: float) -> None:
    """At the rate at which nothing is seen most favourably: the bound of 0 of n is above the truth, or something shows."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(TIMES):
        rate = 3 / clusters
        y, m = sessions(rng, clusters, rate, together)
        found = fit(gather(y, m, cap=m), "share")
        wrong += found.value == 0 and found.upper(0.05) < rate
    told(f"\nzero | {clusters} | {together:g} | {100 * wrong / TIMES:.1f} %")
    assert wrong / TIMES <= 0.05 + SLACK


@pytest.mark.parametrize("clusters", [15, 60, 400])
@pytest.mark.parametrize("kind", ["counts", "money"])
def test_intervals_of_totals_cover(clusters: int, kind: str) -> None:
    """A session in ten has some; of money, lognormal amounts."""
    rng, miss, boot, times = np.random.default_rng(11), 0, 0, 1000
    truth = 0.1 * 2 if kind == "counts" else 0.1 * math.exp(3 + 0.5)
    for _ in range(times):
        some = rng.random(clusters) < 0.1
        y = some * (rng.poisson(1, clusters) + 1.0 if kind == "counts" else rng.lognormal(3, 1, clusters))
        found = fit(gather(y, 1.0, cap=100.0 if kind == "counts" else None), "positive")
        low, high = found.interval()
        miss += not low <= truth <= high
        if found.value:
            low, high = bca(found.clusters, times=400)
        boot += not low <= truth <= high
    told(
        f"\ntotal | {kind} | {clusters} | {100 - 100 * miss / times:.1f} % | {100 - 100 * boot / times:.1f} %"
    )
    assert miss / times <= 0.05 + 0.02 + (0.05 if kind == "money" else 0.01)


@pytest.mark.parametrize("at", ["low", "middle", "high"])
def test_intervals_cover_wherever_the_truth_lies_between_the_bounds(at: str) -> None:
    """A tenth of the decisions is open; their truth is none, half or all of them."""
    rng, miss, low_rate, open_rate = np.random.default_rng(13), 0, 0.1, 0.1
    truth = low_rate + open_rate * {"low": 0, "middle": 0.5, "high": 1}[at]
    for _ in range(TIMES):
        y, m = sessions(rng, 100, low_rate, 0.2)
        more = rng.binomial((m - y).astype(int), open_rate / (1 - low_rate))
        low, high = fit(gather(y, m, cap=m), "share"), fit(gather(y + more, m, cap=m), "share")
        miss += not low.lower(0.025) <= truth <= high.upper(0.025)
    told(f"\npartially identified | {at} | {100 - 100 * miss / TIMES:.1f} %")
    assert miss / TIMES <= 0.05 + SLACK


@pytest.mark.parametrize(("rate", "most"), [(0.2, 1), (0.01, 1), (0.1, 20)])
def test_a_hundred_nights_of_no_change_raise_no_more_alarms_than_they_may(rate: float, most: int) -> None:
    """Every night 30 new sessions; an alarm is an interval that excludes the truth, on any night."""
    rng, times, nights = np.random.default_rng(17), 300, 100
    ours = looks = above = 0
    for _ in range(times):
        watch, totals, naive = Watch(bound=most), np.zeros(2), False
        for _ in range(nights):
            m = np.minimum(sizes(rng, 30), most) if most > 1 else np.ones(30)
            chance = rng.beta(rate * 4, (1 - rate) * 4, 30) if most > 1 else rate
            y = rng.binomial(m.astype(int), chance).astype(float)
            watch = watch.see(y, m)
            totals += y.sum(), m.sum()
            flat = clopper_pearson(*totals)
            naive |= not flat.lower <= rate <= flat.upper
        ours += not watch.lower <= rate <= watch.upper
        above += watch.lower > rate
        looks += naive
    told(
        f"\nnights | {rate:g} | {most} | {100 * ours / times:.1f} % | {100 * above / times:.1f} % | {100 * looks / times:.1f} %"
    )
    assert ours / times <= 0.05
    assert looks / times > 0.1  # what one would do otherwise


def test_an_alarm_comes_when_there_is_something() -> None:
    """2 % of sessions before, 4 % after night 30; 100 sessions a night; alarm: the lower bound exceeds 3 %."""
    rng, nights = np.random.default_rng(19), []
    for _ in range(100):
        watch, night = Watch(), 0
        while watch.lower <= 0.03 and night < 400:
            night += 1
            watch = watch.see((rng.random(100) < 0.05).astype(float))
        nights.append(night)
    told(
        f"\nalarm at 5 % against 3 % | median night {np.median(nights):.0f} | 90 % by night {np.quantile(nights, 0.9):.0f}"
    )
    assert np.quantile(nights, 0.9) < 60


def test_mcnemar_is_for_sessions() -> None:
    """No difference: each session's decisions flip together, one way or the other, with equal chances."""
    rng, sessions_, decisions, times = np.random.default_rng(23), 0, 0, TIMES
    for _ in range(times):
        m = sizes(rng, 60)
        kind = rng.choice(3, 60, p=[0.6, 0.2, 0.2])
        lost, gained = (int((kind == k).sum()) for k in (1, 2))
        sessions_ += mcnemar(Pairs(both=60 - lost - gained, lost=lost, gained=gained, neither=0)) <= 0.05
        lost, gained = (int(m[kind == k].sum()) for k in (1, 2))
        decisions += mcnemar(Pairs(both=0, lost=lost, gained=gained, neither=0)) <= 0.05
    told(f"\nMcNemar | sessions {100 * sessions_ / times:.1f} % | decisions {100 * decisions / times:.1f} %")
    assert sessions_ / times <= 0.05 + SLACK
    assert decisions / times > 0.3


@pytest.mark.parametrize("clusters", [50, 400])
@pytest.mark.parametrize("together", [0, 0.2, 1])
def test_gates_ship_what_is_at_the_threshold_at_most_one_time_in_twenty(
    clusters: int, together: float
) -> None:
    rng, ships, fails, rate = np.random.default_rng(29), 0, 0, 0.1
    of = Quantity(name="q", text="", unit="calls", low=STOPPED, high=STOPPED, of=STOPPED)
    for _ in range(TIMES):
        y, m = sessions(rng, clusters, rate, together)
        found = fit(gather(y, m, cap=m), "share")
        each = Estimate(quantity=of, slice=None, low=found, high=found)
        seen = Estimates(estimates=(each,), level=0.95, cluster="sessions", by=(), pins={})
        verdict = decide(seen, Gate(quantity="q", at_most=rate)).verdict
        ships, fails = ships + (verdict == "ship"), fails + (verdict == "don't ship")
    told(
        f"\ngate | {clusters} | {together:g} | ship {100 * ships / TIMES:.1f} % | don't ship {100 * fails / TIMES:.1f} %"
    )
    assert ships / TIMES <= 0.05 + SLACK + 0.015
    assert fails / TIMES <= 0.05 + SLACK + 0.005
