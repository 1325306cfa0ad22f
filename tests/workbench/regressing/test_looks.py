"""Gates over all nights: what is summed is what a comparison counts, and what is sure holds at every look."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.bench.reviewed import reviewed_lake
from workbench.certainty import SHARES
from workbench.compare import Diff, compare
from workbench.errors import ColumnUnknown, GatesInvalid
from workbench.estimating.gates_file import Gate
from workbench.lake import open_lake
from workbench.regressing import looks, tallying
from workbench.regressing.looks import Reach, judge, require, verdict_of
from workbench.regressing.tallying import clustered, measures, tally_of, together
from workbench.shipped import shipped
from workbench.weighing.stakes import Stakes

if TYPE_CHECKING:
    from collections.abc import Iterable

CHANCES = [0.0, 0.02, 0.3]


@pytest.fixture(scope="module")
def diff(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    lake = open_lake(reviewed_lake(tmp_path_factory.mktemp("desk"), 1_500))
    candidate = lake.replay(policy=shipped("support-desk/candidate"))
    return compare(lake.replay(recompile=False), candidate)


def gate(quantity: str = "calls_prevented_share", **more: Any) -> Gate:
    return Gate(quantity=quantity, **({"at_most": 0.1} | more))


def tally(pairs: Iterable[tuple[float, float]], *, name: str = "calls_prevented_share") -> pl.DataFrame:
    """A tally of sessions, each with what it counts and of how many; exact."""
    rows = list(pairs)
    sums = pl.DataFrame({f"{name}.low": [y for y, _ in rows], f"{name}.size": [m for _, m in rows]})
    return tally_of(sums.cast(pl.Float64).with_columns(pl.col(f"{name}.low").alias(f"{name}.high")), [name])


def test_sums_are_what_the_comparison_estimates(diff: Diff) -> None:
    """Every share, summed over sessions, is the one that `diff.estimates` has: one definition, two ways to add."""
    quantities = looks.quantities_of([gate("approvals_now"), gate("good_held")], diff.stakes)
    names = [each.name for each in quantities]
    assert {*SHARES, "approvals_now", "good_held"} == set(names)
    found = measures(tally_of(tallying.sums_of(diff, quantities), names))
    for each in diff.estimates.estimates:
        if each.quantity.name not in names or not each.low.clusters.size:
            continue
        low, high = found[f"{each.quantity.name}.low"], found[f"{each.quantity.name}.high"]
        over = each.low.clusters.size if each.quantity.of is not None else 1
        assert (low, high) == pytest.approx((each.low.clusters.total / over, each.high.clusters.total / over))
    assert sum("share" in name for name in found) > 10


def test_parts_of_the_log_add_up_to_all_of_it(diff: Diff) -> None:
    quantities = looks.quantities_of([], diff.stakes)
    names = [each.name for each in quantities]
    sums = tallying.sums_of(diff, quantities)
    parts = [tally_of(sums.gather_every(3, at), names) for at in range(3)]
    assert together(parts).equals(tally_of(sums, names))


def test_wider_clusters_are_sums_of_their_sessions(diff: Diff) -> None:
    quantities = looks.quantities_of([], diff.stakes)
    names = [each.name for each in quantities]
    wide = tallying.sums_of(diff, quantities, ("principal",))
    rows = clustered(wide, names)
    assert rows.height == diff.frame.select(pl.col("principal").n_unique()).collect().item() < wide.height
    assert measures(tally_of(rows, names)) == pytest.approx(measures(tally_of(wide, names)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "at least one"),
        ([gate("harm_trough_share")], "did you mean `harm_through_share`"),
        ([gate("harm_money_through", at_most=5)], "money.refund"),
        ([gate(each=True)], "[filter]"),
        ([gate(at_most=0)], 'on = "log"'),
        ([gate(at_most=None, at_least=1)], 'on = "log"'),
    ],
)
def test_gates_that_no_night_could_judge_are_refused(wrong: list[Gate], said: str) -> None:
    with pytest.raises(GatesInvalid) as caught:
        require(wrong, Stakes.of(None))
    assert said in str(caught.value)


def test_a_threshold_of_the_log_may_be_zero() -> None:
    require([gate(at_most=0, on="log")], Stakes.of(None))
    (none,) = judge([gate(at_most=0, on="log")], tally([(0, 5)] * 10))
    (one,) = judge([gate(at_most=0, on="log")], tally([(0, 5)] * 10 + [(1, 5)]))
    assert (none.state, one.state) == ("met", "failed")
    assert none.lower is one.upper is None
    assert "exact" in none.method


def test_a_gate_is_met_failed_or_open_by_its_bounds() -> None:
    """Nothing seen in many sessions is sure to be little; half of everything is sure to be much; a few tell nothing."""
    states = [
        judge([gate()], tally(rows), Reach(largest=5))[0].state
        for rows in ([(0, 5)] * 2_000, [(3, 5)] * 2_000, [(0, 5)] * 3)
    ]
    assert states == ["met", "failed", "open"]


def test_at_least_is_the_other_way_round() -> None:
    rows = tally([(4, 5)] * 2_000)
    asked = [gate(at_most=None, at_least=0.5), gate(at_most=None, at_least=0.9)]
    met, failed = judge(asked, rows, Reach(largest=5))
    assert (met.state, failed.state) == ("met", "failed")
    assert met.lower is not None
    assert met.lower > 0.5


def test_an_open_gate_says_how_many_more_sessions_would_tell() -> None:
    """And as many do: seen again so often, it is settled; a tenth fewer leave it open."""
    few = [(0, 5)] * 40
    (open_,) = judge([gate()], tally(few), Reach(largest=5))
    assert open_.state == "open"
    more = int(open_.why.split("about ")[1].split(" session")[0].replace(",", ""))
    (settled,) = judge([gate()], tally(few + [(0, 5)] * more), Reach(largest=5))
    (still,) = judge([gate()], tally(few + [(0, 5)] * int(0.9 * more)), Reach(largest=5))
    assert (settled.state, still.state) == ("met", "open")


def test_what_the_log_leaves_open_keeps_a_gate_open() -> None:
    """Between 0 and all: no number of sessions would tell, labels would."""
    name = "calls_prevented_share"
    sums = pl.DataFrame(
        {f"{name}.low": [0.0] * 5_000, f"{name}.size": [5.0] * 5_000, f"{name}.high": [5.0] * 5_000}
    )
    (found,) = judge([gate()], tally_of(sums, [name]), Reach(largest=5))
    assert found.state == "open"
    assert "label, or simulate" in found.why


def test_a_log_with_none_of_it_says_so() -> None:
    (found,) = judge([gate("harm_through_share")], tally([]))
    assert (found.state, found.low, found.upper, found.sessions) == ("open", None, None, 0)
    assert "label" in found.why
    assert verdict_of([found]) == "inconclusive"


def test_nothing_in_twenty_sessions_is_no_proof_of_a_total() -> None:
    """Without spread there is no variance, and without variance no bound: 0 in 20 is not 0, nor in 2,000."""
    asked = [gate("harm_new", at_most=0.001)]
    for sessions in (20, 2_000):
        (found,) = judge(asked, tally([(0, 1)] * sessions, name="harm_new"))
        assert (found.state, found.upper) == ("open", None)
        assert "differ" in found.why
    (some,) = judge(asked, tally([(0, 1)] * 2_000 + [(1, 1)] * 20, name="harm_new"))
    assert some.upper is not None


@pytest.mark.simulation
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.3])
def test_totals_on_their_threshold_are_hardly_ever_met(rate: float) -> None:
    """Fifty nightly looks at what is exactly at the threshold: asymptotic, so a little above one in twenty is allowed."""
    chance, met, jobs = np.random.default_rng(11), 0, 200
    for _ in range(jobs):
        seen = pl.DataFrame(schema=tallying.TALLY)
        for _night in range(50):
            drawn = tally(zip(chance.poisson(rate, size=20), [1] * 20, strict=True), name="harm_new")
            seen = together([seen, drawn])
            if judge([gate("harm_new", at_most=rate)], seen)[0].state == "met":
                met += 1
                break
    assert met / jobs <= 0.07


def test_a_cluster_that_is_nothing_is_named_before_anything_is_summed(diff: Diff) -> None:
    with pytest.raises(ColumnUnknown) as caught:
        tallying.sums_of(diff, looks.quantities_of([], diff.stakes), ("principle",))
    assert "did you mean `principal`" in str(caught.value)


def test_a_session_larger_than_declared_is_told() -> None:
    (found,) = judge([gate()], tally([(0, 5)] * 100 + [(0, 500)]), Reach(largest=200))
    assert found.state == "open"
    assert "largest_session" in found.why
    assert "500" in found.why


def test_totals_are_per_session_and_need_twenty() -> None:
    asked = [gate("approvals_now", at_most=3)]
    few = judge(asked, tally([(1, 1)] * 19, name="approvals_now"))[0]
    many = judge(asked, tally([(1, 1), (2, 1)] * 500, name="approvals_now"))[0]
    much = judge(asked, tally([(4, 1), (5, 1)] * 500, name="approvals_now"))[0]
    assert [each.state for each in (few, many, much)] == ["open", "met", "failed"]
    assert (many.low, few.upper) == (1.5, None)
    assert "asymptotic" in many.method


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CHANCES))
def test_bounds_only_depend_on_what_was_seen(seed: int, chance: float) -> None:
    """Not on the order of sessions, nor on how many nights they came in."""
    random_ = random.Random(seed)
    rows = [
        (sum(random_.random() < chance for _ in range(size)), size) for size in (1, 3, 5) for _ in range(30)
    ]
    whole = judge([gate()], tally(rows), Reach(largest=5))
    random_.shuffle(rows)
    nights = together([tally(rows[:20]), tally(rows[20:60]), tally(rows[60:])])
    assert judge([gate()], nights, Reach(largest=5)) == whole


def test_more_gates_make_it_harder_to_fail_not_to_pass() -> None:
    """Failing is shared out between gates, passing is not: a gate beside it leaves the bound that lets it pass."""
    rows = tally([(1, 5)] * 200 + [(0, 5)] * 200)
    alone = judge([gate()], rows, Reach(largest=5))[0]
    beside = judge([gate(), gate("good_lost_share"), gate("good_held_share")], rows, Reach(largest=5))[0]
    assert alone.upper == beside.upper
    assert alone.lower is not None
    assert beside.lower is not None
    assert alone.lower > beside.lower


@pytest.mark.simulation
@pytest.mark.parametrize("gates", [1, 4])
def test_a_hundred_nights_on_the_threshold_accuse_nobody_too_often(gates: int) -> None:
    """Of jobs whose candidates are exactly as bad as allowed, over 100 nightly looks, at most one in twenty is accused."""
    names = ["calls_prevented_share", "good_lost_share", "good_held_share", "calls_held_share"][:gates]
    asked = [gate(name, at_most=0.1) for name in names]
    chance, accused, jobs = np.random.default_rng(7), 0, 300
    for _ in range(jobs):
        seen: list[pl.DataFrame] = []
        for _night in range(100):
            sizes = chance.integers(1, 6, size=20)
            drawn = [tally(zip(chance.binomial(sizes, 0.1), sizes, strict=True), name=name) for name in names]
            seen = [together([*seen, *drawn])]
            if verdict_of(judge(asked, seen[0], Reach(largest=5))) == "don't ship":
                accused += 1
                break
    assert accused / jobs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / jobs)
