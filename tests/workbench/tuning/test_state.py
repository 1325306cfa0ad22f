"""A tuning session over a real history, without a picture."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from runtime.errors import PolicyError
from runtime.tuning import tuned
from workbench.errors import ReplayFailure, TuningRefused
from workbench.live import never
from workbench.tuning import state
from workbench.tuning.state import Tuning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.bundle import Bundle
    from workbench.lake import Lake
    from workbench.live import Answer, Live

WAIT = 30


@pytest.fixture
def tuning(live: Live, bundle: Bundle) -> Iterator[Tuning]:
    made = Tuning(live, bundle)
    yield made
    made.close()


def held_up(tuning: Tuning) -> int:
    return tuning.wait(WAIT).answer.objectives["good_held_up"][0]


@dataclass
class Gate:
    """A real history that answers when it is told to."""

    live: Live
    asked: list[Bundle] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    error: Exception | None = None

    @property
    def baseline(self) -> Answer:
        return self.live.baseline

    def decide(self, bundle: Bundle, *, cancelled: Callable[[], bool] = never) -> Answer | None:
        self.asked.append(bundle)
        self.begun.release()
        assert self.go.acquire(timeout=WAIT)
        if self.error is not None:
            raise self.error
        return None if cancelled() else self.live.decide(bundle)

    def complete(self, answer: Answer, *, cancelled: Callable[[], bool] = never) -> Answer | None:
        return self.live.complete(answer, cancelled=cancelled)


@pytest.fixture
def gate(live: Live) -> Gate:
    return Gate(live)


@pytest.fixture
def gated(gate: Gate, bundle: Bundle) -> Iterator[Tuning]:
    made = Tuning(gate, bundle)
    yield made
    for _ in range(10):
        gate.go.release()
    made.close()


def test_it_begins_with_the_baseline_and_decides_nothing(gated: Tuning, gate: Gate) -> None:
    now = gated.now
    assert now.answer is gate.baseline
    assert (now.is_stale, now.is_deciding, now.problem) == (False, False, "")
    assert gate.asked == []
    assert [each.number for each in gated.tried.all] == [0]


def test_an_edit_is_answered_as_a_replay_answers(tuning: Tuning, lake: Lake, bundle: Bundle) -> None:
    text = bundle.files["orders.cedar"].replace('resource.status == "shipped"', 'resource.status != "new"')
    draft = tuning.edit("orders.cedar", text)
    now = tuning.wait(WAIT)
    assert not now.is_stale
    assert now.bundle is draft.bundle
    replayed = lake.replay(draft.bundle, on_rows=lambda _: None).rows["verdict"].value_counts()
    told = {verdict: n for verdict, n in now.answer.verdicts.items() if n}
    assert told == dict(replayed.iter_rows())
    assert now.change.changed > 0


def test_a_slider_moves_the_text_and_the_text_the_slider(tuning: Tuning) -> None:
    tuning.move("refund-large.refund_limit", "20000")
    text = tuning.now.draft.files["orders.cedar"]
    assert "amount_cents >= 20000" in text
    assert '\\"value\\": 20000' in text
    tuning.edit("orders.cedar", text.replace("20000", "7000"))
    assert tuning.now.bundle.tunables["refund-large.refund_limit"].value == 7000


def test_a_value_that_is_not_allowed_changes_nothing(tuning: Tuning) -> None:
    before = tuning.now
    for name, value in (("refund_limit", -1), ("refund_limit", "5"), ("refund_limt", 5)):
        with pytest.raises(PolicyError):
            tuning.set({name: value})
    with pytest.raises(PolicyError, match="at most 6"):
        tuning.move("close-urgent.urgent", "7")
    assert tuning.now.draft is before.draft


def test_a_text_in_error_keeps_the_last_answer_and_says_that_it_is_old(
    tuning: Tuning, bundle: Bundle
) -> None:
    tuning.set({"refund_limit": 20_000})
    good = tuning.wait(WAIT)
    tuning.edit("orders.cedar", bundle.files["orders.cedar"].replace("forbid (", "forbd (", 1))
    now = tuning.wait(WAIT)
    assert (now.is_stale, now.is_deciding) == (True, False)
    assert now.answer is good.answer
    assert now.bundle.version == good.bundle.version
    assert now.draft.problems[0].line == 15
    with pytest.raises(TuningRefused, match=r"orders\.cedar:15"):
        tuning.set({"urgent": 2})
    tuning.back(1)
    assert not tuning.wait(WAIT).is_stale


def test_going_back_gives_the_same_numbers_and_tries_nothing_new(tuning: Tuning) -> None:
    first = held_up(tuning)
    tuning.set({"urgent": 1})
    tightened = held_up(tuning)
    assert tightened > first
    tuning.back(0)
    assert held_up(tuning) == first
    tuning.set({"urgent": 1})
    assert held_up(tuning) == tightened
    assert [(each.number, each.changed) for each in tuning.tried.all] == [(0, ""), (1, "urgent 3 → 1")]
    with pytest.raises(TuningRefused, match="version 2 was not tried"):
        tuning.back(2)


def test_the_newest_edit_wins_and_what_lies_between_is_never_decided(gated: Tuning, gate: Gate) -> None:
    gated.set({"urgent": 2})
    assert gate.begun.acquire(timeout=WAIT)
    for value in (4, 5, 6):
        gated.set({"urgent": value})
    assert gated.now.is_stale
    gate.go.release()
    gate.go.release()
    now = gated.wait(WAIT)
    assert now.answer.bundle is gate.asked[-1] is now.bundle
    assert [each.tunables["close-urgent.urgent"].value for each in gate.asked] == [2, 6]


def test_a_quick_answer_is_shown_though_a_newer_edit_waits(gated: Tuning, gate: Gate) -> None:
    seen = []
    gated.on_change = lambda: seen.append((gated.now.answer.bundle, gated.now.is_stale))
    gated.set({"urgent": 2})
    assert gate.begun.acquire(timeout=WAIT)
    gated.set({"urgent": 6})
    gate.go.release()
    assert gate.begun.acquire(timeout=WAIT)
    assert seen[-1] == (gate.asked[0], True)
    gate.go.release()
    gated.wait(WAIT)
    assert seen[-1] == (gate.asked[1], False)


def test_a_slow_answer_is_given_up_for_a_newer_edit(
    gated: Tuning, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "PATIENCE", -1)
    gated.set({"urgent": 2})
    assert gate.begun.acquire(timeout=WAIT)
    gated.set({"urgent": 6})
    gate.go.release()
    gate.go.release()
    now = gated.wait(WAIT)
    assert now.answer.bundle is gate.asked[1]
    assert [each.bundle for each in gated.tried.all] == [gate.baseline.bundle, gate.asked[1]]


def test_what_cannot_be_decided_is_said_and_the_next_edit_goes_on(gated: Tuning, gate: Gate) -> None:
    gate.error = ReplayFailure("no such source")
    gated.set({"urgent": 2})
    gate.go.release()
    now = gated.wait(WAIT)
    assert now.problem == "no such source"
    assert now.answer is gate.baseline
    gate.error = None
    gated.set({"urgent": 6})
    gate.go.release()
    now = gated.wait(WAIT)
    assert (now.problem, now.is_stale) == ("", False)


def test_an_error_nobody_foresaw_is_said_too(gated: Tuning, gate: Gate) -> None:
    gate.error = ZeroDivisionError("oops")
    gated.set({"urgent": 2})
    gate.go.release()
    assert gated.wait(WAIT).problem == "oops"
    gate.error = None
    gated.set({"urgent": 6})
    gate.go.release()
    assert not gated.wait(WAIT).is_stale


def test_closing_ends_the_thread_and_lets_the_history_go(live: Live, bundle: Bundle) -> None:
    gate = Gate(live)
    tuning = Tuning(gate, bundle)
    tuning.set({"urgent": 2})
    assert gate.begun.acquire(timeout=WAIT)
    tuning.close()
    gate.go.release()
    assert tuning._worker.wait(WAIT)
    with pytest.raises(TuningRefused, match="closed"):
        tuning.set({"urgent": 5})
    kept = weakref.ref(gate)
    del gate, tuning
    gc.collect()
    assert kept() is None


def test_two_sessions_share_one_history(live: Live, bundle: Bundle, tuning: Tuning) -> None:
    other = Tuning(live, tuned(bundle, {"urgent": 1}))
    other.wait(WAIT)
    tuning.set({"urgent": 6})
    assert other.wait(WAIT).answer.bundle is other.bundle
    assert tuning.wait(WAIT).answer.bundle is tuning.bundle
    assert [each.bundle.tunables["close-urgent.urgent"].value for each in (other, tuning)] == [1, 6]
    other.close()


@dataclass
class Leaving:
    """A real history of which columns are said to leave three decisions, until Cedar is asked."""

    live: Live
    completed: list[Answer] = field(default_factory=list)

    @property
    def baseline(self) -> Answer:
        return self.live.baseline

    def decide(self, bundle: Bundle, *, cancelled: Callable[[], bool] = never) -> Answer | None:
        found = self.live.decide(bundle, cancelled=cancelled)
        assert found is not None
        return replace(found, left=3)

    def complete(self, answer: Answer, *, cancelled: Callable[[], bool] = never) -> Answer | None:
        self.completed.append(answer)
        assert answer.bundle is not None
        return self.live.decide(answer.bundle, cancelled=cancelled)


def test_cedar_is_asked_about_what_columns_leave_only_when_told(live: Live, bundle: Bundle) -> None:
    leaving = Leaving(live)
    tuning = Tuning(leaving, bundle)
    tuning.set({"urgent": 1})
    assert tuning.wait(WAIT).answer.left == 3
    assert leaving.completed == []
    tuning.complete()
    assert tuning.wait(WAIT).answer.exact
    tuning.complete()
    tuning.set({"urgent": 2})
    assert tuning.wait(WAIT).answer.left == 3, "the next edit is not completed by itself"
    assert len(leaving.completed) == 1
    tuning.close()
