"""Prediction-powered inference: against its authors' library, by hand, and whether its intervals cover."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import NotEstimable
from workbench.statistics.clusters import FEW, fit, gather
from workbench.statistics.prediction_powered import RARE, powered

NAN = math.nan


class Drawn(NamedTuple):
    """Judged decisions: their cluster, the judge's word, what people would say, and what they said."""

    cluster: np.ndarray
    judge: np.ndarray
    truth: np.ndarray
    said: np.ndarray


def draw(
    rng: np.random.Generator,
    clusters: int,
    labelled: int,
    rate: float,
    wrong: tuple[float, float],
    together: float,
) -> Drawn:
    """Sessions of uneven size, rates and errors that hang together in them, labels on some whole sessions."""
    sizes = np.ceil(rng.lognormal(1.0, 0.8, clusters)).astype(int)
    spread = (1 - together) / together if together else 0.0
    chance = rng.beta(rate * spread, (1 - rate) * spread, clusters) if together else np.full(clusters, rate)
    cluster = np.repeat(np.arange(clusters), sizes)
    truth = (rng.random(cluster.size) < chance[cluster]).astype(float)
    mood = np.where(rng.random(cluster.size) < 0.5, rng.random(clusters)[cluster], rng.random(cluster.size))
    judge = np.where(truth == 1, mood >= wrong[0], mood < wrong[1]).astype(float)
    chosen = np.isin(cluster, rng.choice(clusters, labelled, replace=False))
    return Drawn(cluster, judge, truth, np.where(chosen, truth, NAN))


PPI = """
    import json, sys, warnings
    import numpy as np
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
    found = []
    for case in json.load(sys.stdin):
        y, f, rest = (np.array(case[name], float) for name in ("y", "f", "rest"))
        low, high = ppi_mean_ci(y, f, rest, alpha=0.05)
        found.append([float(np.squeeze(x)) for x in (ppi_mean_pointestimate(y, f, rest), low, high)])
    json.dump(found, sys.stdout)
"""


def test_as_its_authors_compute_it() -> None:
    """Independent decisions, the labelled apart from the rest: `ppi-python`'s estimate and interval.

    In a child: the library silences all warnings of the process that imports it.
    """
    if importlib.util.find_spec("ppi_py") is None:
        pytest.skip("ppi-python is not installed")
    rng, cases, ours = np.random.default_rng(0), [], []
    for wrong in ((0.1, 0.1), (0.3, 0.05), (0.45, 0.4)):
        n, rest = 600, 6000
        truth = (rng.random(n + rest) < 0.6).astype(float)
        judge = np.where(rng.random(n + rest) < np.where(truth == 1, wrong[0], wrong[1]), 1 - truth, truth)
        cases.append({"y": truth[:n].tolist(), "f": judge[:n].tolist(), "rest": judge[n:].tolist()})
        labels = np.where(np.arange(n + rest) < n, truth, NAN)
        ours.append(powered(np.arange(n + rest), judge, labels))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PPI)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    for found, (value, low, high) in zip(ours, json.loads(done.stdout), strict=True):
        half = (high - low) / 2
        assert found.method == "ppi++"
        assert found.value == pytest.approx(value, abs=half / 100)
        # Ours is t on the scale of log-odds, theirs normal on that of shares: two per cent of the width apart.
        assert found.interval.lower == pytest.approx(low, abs=half / 25)
        assert found.interval.upper == pytest.approx(high, abs=half / 25)


def test_the_best_lambda_is_the_least_variance() -> None:
    """Found as the minimum over a grid, of the variance by the textbook's two parts."""
    rng = np.random.default_rng(1)
    n, rest = 400, 4000
    truth = (rng.random(n + rest) < 0.5).astype(float)
    judge = np.where(rng.random(n + rest) < 0.25, 1 - truth, truth)
    found = powered(np.arange(n + rest), judge, np.where(np.arange(n + rest) < n, truth, NAN))
    grid = np.linspace(0, 1, 2001)
    y, f = truth[:n], judge[:n]
    share = rest / (n + rest)  # lambda of all that was judged, as one of the rest alone
    parts = [np.var(y - lam * share * f) / n + (lam * share) ** 2 * np.var(judge[n:]) / rest for lam in grid]
    assert found.weight == pytest.approx(grid[int(np.argmin(parts))], abs=0.02)
    assert found.gain == pytest.approx((np.var(y) / n) / min(parts), rel=0.03)


def test_a_judge_that_is_off_is_put_right() -> None:
    """It passes a tenth too much; what people said of some takes that away."""
    drawn = draw(np.random.default_rng(2), 4000, 400, 0.6, (0.0, 0.25), 0.1)
    found = powered(drawn.cluster, drawn.judge, drawn.said)
    assert found.judged is not None
    assert found.judged.interval.lower > 0.65
    assert found.interval.lower < 0.6 < found.interval.upper
    assert found.gain > 1.5


def test_weights_are_repetitions() -> None:
    """Each decision three times, in its cluster, is each with weight three."""
    drawn = draw(np.random.default_rng(3), 300, 80, 0.6, (0.2, 0.2), 0.2)
    weighed = powered(drawn.cluster, drawn.judge, drawn.said, weight=np.full(drawn.judge.size, 3.0))
    again = powered(*(np.repeat(each, 3) for each in (drawn.cluster, drawn.judge, drawn.said)))
    assert (weighed.value, *weighed.interval) == pytest.approx((again.value, *again.interval))


def test_a_sample_with_weights_says_what_all_would() -> None:
    """A stratum of which one in twenty is judged counts twenty times: without weights the rate would be of the sample."""
    rng = np.random.default_rng(4)
    drawn = draw(rng, 6000, 6000, 0.5, (0.1, 0.1), 0.0)
    common = rng.random(drawn.judge.size) < 0.8
    truth = np.where(common, 1.0, drawn.truth)
    kept = ~common | (rng.random(drawn.judge.size) < 0.05)
    weight = np.where(common, 20.0, 1.0)[kept]
    said = np.where(rng.random(kept.sum()) < 0.3, truth[kept], NAN)
    judge = np.where(rng.random(kept.sum()) < 0.1, 1 - truth[kept], truth[kept])
    found = powered(drawn.cluster[kept], judge, said, weight=weight)
    assert found.interval.lower < truth.mean() < found.interval.upper
    assert powered(drawn.cluster[kept], judge, said).interval.upper < truth.mean()


def test_no_labels_is_the_judge_alone() -> None:
    found = powered(range(100), [1.0, 0.0] * 50, [NAN] * 100)
    own = fit(gather([1.0, 0.0] * 50, np.ones(100), cap=np.ones(100)), "share")
    assert (found.method, found.value, found.interval) == ("judge alone", 0.5, own.interval())
    assert (found.judged, found.labelled, found.n, found.gain) == (None, None, 100, 1.0)


def test_few_clusters_is_the_labels_alone() -> None:
    """Under twenty, however many decisions: an exact bound of what people said."""
    cluster = np.repeat(np.arange(100), 30)
    said = np.where(cluster < FEW - 1, 1.0, NAN)
    found = powered(cluster, np.ones(3000), said)
    assert (found.method, found.value, found.clusters, found.n) == (
        "labels alone",
        1.0,
        FEW - 1,
        30 * (FEW - 1),
    )
    assert found.interval.lower == pytest.approx(0.025 ** (1 / (FEW - 1)))
    assert found.judged is not None


def test_all_labelled_needs_no_judge() -> None:
    drawn = draw(np.random.default_rng(5), 100, 100, 0.6, (0.2, 0.2), 0.1)
    found = powered(drawn.cluster, drawn.judge, drawn.said)
    assert (found.method, found.gain) == ("labels alone", 1.0)
    assert found.value == pytest.approx(drawn.truth.mean())


def test_a_judge_that_was_never_seen_wrong() -> None:
    """Not taken as never wrong: how often it may be is bounded, and the bound goes on top of its rate's."""
    judge = [1.0, 0.0] * 5000
    said = judge[:200] + [NAN] * 9800
    found = powered(range(10_000), judge, said)
    error = 1 - 0.0125 ** (1 / 200)
    rate = fit(gather(judge, np.ones(10_000), cap=np.ones(10_000)), "share")
    assert (found.method, found.value, found.weight) == ("exact errors", 0.5, 1.0)
    assert found.interval.upper == pytest.approx(rate.upper(0.0125) + error)
    assert found.interval.lower == pytest.approx(rate.lower(0.0125) - error)
    assert found.labelled is not None
    assert found.gain > 3


def test_nothing_was_judged() -> None:
    found = powered([], [], [])
    assert found.method == "none"
    assert math.isnan(found.value)


@pytest.mark.parametrize(
    ("judge", "said", "weight"),
    [
        ([2.0], [NAN], [1.0]),
        ([0.5], [-1.0], [1.0]),
        ([0.5], [1.0], [-1.0]),
        ([NAN], [1.0], [1.0]),
        ([1.0], [1.0], [NAN]),
    ],
)
def test_numbers_that_cannot_be(judge: list[float], said: list[float], weight: list[float]) -> None:
    with pytest.raises(NotEstimable):
        powered([1], judge, said, weight=weight)


WORD = st.sampled_from([0.0, 0.25, 1.0])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), WORD, st.one_of(st.just(NAN), WORD), st.sampled_from([1.0, 7.5])),
        max_size=80,
    )
)
def test_always_an_interval_around_the_rate(rows: list[tuple[int, float, float, float]]) -> None:
    """Whatever is judged and said: between 0 and 1, around the rate, the same in another order."""
    cluster, judge, said, weight = (
        (list(each) for each in zip(*rows, strict=True)) if rows else ([], [], [], [])
    )
    found = powered(cluster, judge, said, weight=weight)
    if not rows:
        return
    assert 0 <= found.interval.lower <= found.value + 1e-9
    assert found.value - 1e-9 <= found.interval.upper <= 1
    back = powered(*(list(reversed(each)) for each in (cluster, judge, said)), weight=weight[::-1])
    assert back.method == found.method
    assert back.interval == pytest.approx(found.interval, abs=1e-9)


COVER = {
    "some errors": (400, 60, 0.7, (0.1, 0.1), 0.2),
    "near one": (400, 60, 0.95, (0.05, 0.2), 0.1),
    "a good judge": (400, 40, 0.6, (0.03, 0.03), 0.2),
    "never wrong": (400, 40, 0.9, (0.0, 0.0), 0.1),
    "few labels": (400, 25, 0.5, (0.1, 0.1), 0.1),
    "very near one": (2000, 100, 0.98, (0.01, 0.1), 0.1),
    "a bad judge": (400, 60, 0.3, (0.4, 0.3), 0.2),
    "rare and few": (2000, 40, 0.02, (0.1, 0.005), 0.0),
    "too few": (200, 12, 0.8, (0.1, 0.1), 0.1),
    "wrong one way": (1000, 80, 0.8, (0.0, 0.3), 0.1),
}


@pytest.mark.simulation
@pytest.mark.parametrize("case", COVER.values(), ids=COVER.keys())
def test_covers(case: tuple[int, int, float, tuple[float, float], float]) -> None:
    """The truth is missed in at most 5 % of draws, and a little: t over log-odds is no exact method."""
    rng, times, missed, gains = np.random.default_rng(0), 2000, 0, []
    methods: dict[str, int] = {}
    for _ in range(times):
        drawn = draw(rng, *case)
        found = powered(drawn.cluster, drawn.judge, drawn.said)
        missed += not found.interval.lower <= case[2] <= found.interval.upper
        methods[found.method] = methods.get(found.method, 0) + 1
        gains.append(found.gain)
    sys.stdout.write(f"{case}: missed {missed / times:.1%}, gain {np.median(gains):.2f}, {methods}\n")
    assert missed / times <= 0.065 + 3 * math.sqrt(0.05 * 0.95 / times)


def test_rare_is_what_it_says() -> None:
    """With `RARE` clusters that show the judge wrong its errors' variance is taken, with one less it is not."""
    judge = np.array([1.0, 0.0] * 500)
    for wrong in (RARE - 1, RARE):
        said = np.where(np.arange(1000) < 200, judge, NAN)
        said[:wrong] = 1 - said[:wrong]
        assert (powered(np.arange(1000), judge, said).method == "ppi++") == (wrong == RARE)
