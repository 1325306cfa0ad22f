"""What an edit costs, what is left and completed, what is cancelled, and what a change lists."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workbench.compare import compare
from workbench.errors import NotComparable
from workbench.history import groups
from workbench.history.sweeping import Told
from workbench.lake import open_lake
from workbench.live import prepare
from workbench.live.classes import classes_of
from workbench.live.keeping import Kept
from workbench.searching.objectives import OBJECTIVES
from workbench.weighing.money import amount
from workbench.weighing.stakes import Stakes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.lake import Lake
    from workbench.live import Live
    from workbench.replay import Replay

MONEY = {"money": {"refund": "amount"}}


def test_an_edit_evaluates_what_it_changes(lake: Lake, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kit.bundle(kit.PERMIT + kit.CUT + kit.ask(60) + kit.big(600))
    live = prepare(lake, made)
    compiled, seen = groups.compiled_part, []

    def counting(part: Any, chunk: Any, bundle: Any, policies: Any) -> Any:
        seen.append((part.key.tool, len(policies.every)))
        return compiled(part, chunk, bundle, policies)

    monkeypatch.setattr("workbench.live.evaluating.compiled", counting)
    live.decide(made)
    assert seen == []
    live.decide(kit.bundle(kit.PERMIT + kit.CUT + kit.ask(61) + kit.big(600)))
    assert seen
    assert set(seen) == {("refund", 1)}
    seen.clear()
    live.decide(made)  # undo
    live.decide(kit.bundle(kit.PERMIT + kit.CUT + kit.ask(61)))  # less, and nothing new
    assert seen == []


def test_what_is_left_counts_as_undecided_until_it_is_completed(lake: Lake, kit: Any) -> None:
    live = prepare(lake, kit.bundle(kit.RECORDED), by_cedar=0)
    made = kit.bundle(kit.PERMIT + kit.modify("move", {"order_id": "o-2"}, "context.args.amount > 400"))
    first = live.decide(made)
    assert first is not None
    assert not first.exact
    replay = kit.replayed(lake, made)
    undecided = replay.rows.filter(pl.col("status") == "undecided").height
    assert first.verdicts["undecided"] == undecided + first.left
    assert first.left == sum(first.handed_over.values()) > 0
    whole = kit.holds(live.complete(first), replay)
    for name, (n, _) in first.objectives.items():
        if name != "approvals_asked":  # which counts those that are known to wait
            assert n >= whole.objectives[name][0], "what is not known may not look better"
    kit.holds(live.decide(made), replay)  # it is known from now on
    assert live.complete(whole) is whole


def _after(times: int) -> Callable[[], bool]:
    """Not cancelled so many times, then cancelled."""
    asked = iter([False] * times)
    return lambda: next(asked, True)


def test_a_decision_that_is_cancelled_is_none_and_harms_nothing(lake: Lake, kit: Any) -> None:
    live = prepare(lake, kit.bundle(kit.RECORDED))
    made = kit.bundle(kit.PERMIT + kit.CUT + kit.ask(77))
    for after in range(4):
        assert live.decide(made, cancelled=_after(after)) is None
    kit.holds(live.decide(made), kit.replayed(lake, made))
    tight = prepare(lake, kit.bundle(kit.RECORDED), by_cedar=0)
    first = tight.decide(made)
    assert first is not None
    assert tight.complete(first, cancelled=_after(6)) is None
    kit.holds(tight.complete(first), kit.replayed(lake, made))


def test_threads_wait_for_each_other(lake: Lake, live: Live, kit: Any) -> None:
    made = [kit.bundle(kit.PERMIT + kit.CUT + kit.ask(limit)) for limit in (10, 110, 210, 310)]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: live.complete(live.decide(made[n]))}))  # type: ignore[arg-type]  # not cancelled
        for n in range(len(made))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, each in enumerate(made):
        kit.holds(found[number], kit.replayed(lake, each))


def test_nothing_keeps_a_history_that_nobody_holds(lake: Lake, kit: Any) -> None:
    live = prepare(lake, kit.bundle(kit.RECORDED))
    live.decide(kit.bundle(kit.PERMIT + kit.CUT))
    gone = weakref.ref(live.history.rows), weakref.ref(next(iter(live._typed.values())).parts[0].frame)
    del live
    gc.collect()
    assert [each() for each in gone] == [None, None]


def _objective(lake: Lake, kit: Any, made: Any, name: str) -> pl.Series:
    """Whether an objective counts a decision, by the row engine's replay."""
    replay: Replay = kit.replayed(lake, made)
    side = compare(replay, replay).frame.select(pl.col("side").cast(pl.String)).collect().to_series()
    return replay.rows.with_columns(side).select(OBJECTIVES[name].holds.fill_null(value=False)).to_series()


@pytest.mark.parametrize(
    ("name", "more", "fewer"),
    [("good_held_up", "blocked_good", "freed_good"), ("harm_let_through", "released_harm", "stopped_harm")],
)
def test_what_a_change_lists(lake: Lake, live: Live, kit: Any, name: str, more: str, fewer: str) -> None:
    texts = (kit.PERMIT + kit.ask(60), kit.PERMIT + kit.CUT + kit.big(100), kit.big(5), kit.PERMIT)
    made = [kit.bundle(text) for text in texts]
    answers = [live.complete(found) for each in made if (found := live.decide(each)) is not None]
    seen = 0
    for one, before in zip(made, answers, strict=True):
        for other, after in zip(made, answers, strict=True):
            assert before is not None
            assert after is not None
            change = after.against(before)
            was, now = (_objective(lake, kit, each, name) for each in (one, other))
            rows = kit.replayed(lake, other).rows
            for side, where in ((more, ~was & now), (fewer, was & ~now)):
                listed, expected = getattr(change, side), rows.filter(where)
                assert listed.rows["decision_id"].to_list() == expected["decision_id"].to_list()
                assert listed.decisions == expected.height
                assert listed.sessions == expected["session_id"].n_unique()
                seen += listed.decisions
            assert (
                change.objectives[name] == getattr(change, more).decisions - getattr(change, fewer).decisions
            )
            assert change.objectives[name] == int(now.sum()) - int(was.sum())
            assert sum(change.verdicts.values()) == sum(change.effects.values()) == 0
    assert seen
    assert answers[0] is not None
    assert answers[2] is not None
    short = answers[2].against(answers[0], most=1)
    assert short.newly_blocked_good.height == 1 < short.blocked_good.decisions
    assert len(short.blocked_good.every) == short.blocked_good.decisions
    assert short.newly_released_harm.schema == short.newly_blocked_good.schema


def test_the_rows_of_a_change_say_what_both_say(lake: Lake, live: Live, kit: Any) -> None:
    one, other = (kit.bundle(kit.PERMIT + text) for text in (kit.CUT, kit.big(100)))
    before, after = kit.agrees(live, lake, one), kit.agrees(live, lake, other)
    change = after.against(before)
    state = pl.when(pl.col("status") == "decided").then("verdict").otherwise("status")
    keys = ("decision_id", "tenant", "session_id", "step", "decided_at", "tool", "principal")
    left, right = kit.replayed(lake, one).rows, kit.replayed(lake, other).rows
    whole = right.select(*keys, to=state, effect="effect", determining="determining").with_columns(
        left.select(state.alias("from"))["from"]
    )
    for listed in (change.blocked_good, change.released_harm, change.stopped_harm):
        expected = whole.filter(pl.col("decision_id").is_in(listed.rows["decision_id"].implode()))
        expected = expected.with_columns(pl.col("determining").fill_null([])).select(listed.rows.columns)
        assert listed.rows.equals(expected)
    flips = whole.filter(pl.col("from") != pl.col("to"))
    assert change.changed == flips.height == change.flips["n"].sum()
    by_hand = flips.group_by("tool", "from", "to").len().sort("tool", "from", "to")
    assert change.flips.sort("tool", "from", "to").rows() == by_hand.rows()


def test_tables_of_an_answer_are_those_of_a_comparison(lake: Lake, live: Live, kit: Any) -> None:
    made = kit.bundle(kit.PERMIT + kit.CUT + kit.ask(100) + kit.big(600))
    answer = kit.agrees(live, lake, made)
    diff = compare(lake.replay(recompile=False, engine="rows"), kit.replayed(lake, made))
    numbers = [name for name in answer.flips_by_policy.columns if name not in ("policy", "verdict")]
    policies = diff.policies.with_columns(pl.col("verdict").cast(pl.String), pl.col(numbers).cast(pl.Int64))
    assert answer.flips_by_policy.rows() == policies.collect().select(answer.flips_by_policy.columns).rows()
    assert answer.flips_by_policy.height
    rows = kit.replayed(lake, made).rows.filter(pl.col("verdict") != pl.col("recorded_verdict"))
    by_hand = rows.group_by("tool", "recorded_verdict", "verdict").len().rows()
    assert sorted(answer.flips_by_tool.rows()) == sorted(by_hand)
    assert "3 parts" not in repr(answer)
    assert f"{answer.decisions:,} decisions" in repr(answer)


def test_stakes_say_whose_calls_they_are_and_money_is_added_up(lake: Lake, kit: Any) -> None:
    made = kit.bundle(kit.PERMIT + kit.CUT + kit.ask(100))
    live = prepare(lake, made, stakes=MONEY)
    moneys = Stakes.of(MONEY).moneys
    swept = lake.sweep(
        [made],
        engine="rows",
        money=lambda rows: rows.select(m=amount(pl.col("args"), moneys).fill_null(0))["m"],
    )
    (tally,) = swept.tallies
    told = pl.DataFrame([*tally.money], schema=list(Told._fields), orient="row", infer_schema_length=None)
    weights = pl.Series(list(tally.money.values()), dtype=pl.Int64)
    for name in ("money_let_through", "money_held_up"):
        counted = [
            told.select(e.fill_null(value=False)).to_series()
            for e in (OBJECTIVES[name].holds, OBJECTIVES[name].of)
        ]
        assert live.baseline.objectives[name] == tuple(int(weights.filter(each).sum()) for each in counted)
    assert live.baseline.objectives["money_held_up"][1] > 0
    turned = prepare(lake, made, stakes={"harm": {"origin": ["user"]}, "good": {"origin": ["attack"]}})
    plain = prepare(lake, made).baseline
    assert turned.baseline.counts["attack_calls"] == plain.counts["honest_calls"]
    assert "money_held_up" not in plain.objectives


def test_answers_of_two_histories_are_not_compared(lake: Lake, live: Live, kit: Any) -> None:
    other = prepare(lake, kit.bundle(kit.RECORDED))
    with pytest.raises(NotComparable, match="different histories"):
        other.baseline.against(live.baseline)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(0, 12), st.integers(0, 40)), elements=st.integers(0, 3)))
def test_rows_have_one_class_exactly_if_all_columns_agree(table: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    found = classes_of(list(table), table.shape[1])
    assert np.array_equal(found.table[found.codes].T, table) or not table.shape[1]
    assert len(np.unique(found.table, axis=0)) == len(found.table) if len(table) else len(found.table) <= 1


@given(st.lists(st.integers(0, 90), max_size=40))
def test_what_is_kept_is_bounded_and_the_newest(puts: list[int]) -> None:
    kept: Kept[int] = Kept(100)
    for key in puts:
        size = key
        kept.put(key, size, size)
        assert kept.used <= kept.most
        assert kept.get(key) == size
    newest: list[int] = []
    for key in reversed(puts):
        if key not in newest and sum(newest) + key > kept.most:
            break
        newest += [key] if key not in newest else []
    assert kept.used == sum(newest)
    assert [kept.get(key) for key in newest] == newest
    assert Kept[int](5).put("x", 1, 6) == 1


def test_a_history_without_decisions(lake: Lake, tmp_path: Path, kit: Any) -> None:
    shutil.copytree(lake.uri, tmp_path / "lake")
    DeltaTable(tmp_path / "lake" / "decisions").update(updates={"kind": "'shadow'"})
    live = prepare(open_lake(tmp_path / "lake"))
    answer = live.decide(kit.bundle(kit.PERMIT))
    assert answer is not None
    assert answer.decisions == sum(answer.verdicts.values()) == answer.rows().collect().height == 0
    assert answer.against(live.baseline).changed == 0
