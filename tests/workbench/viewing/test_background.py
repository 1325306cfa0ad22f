"""Work in the background: the newest wins, what fails is said, nothing is left running. Order by events, never by time."""

from __future__ import annotations

import threading

from workbench.viewing.background import Cancelled, Worker

SECONDS = 20


class Gate:
    """A task that says when it began, and ends when it is let."""

    def __init__(self, result: object = None) -> None:
        self.began, self.may_end, self.result = threading.Event(), threading.Event(), result

    def __call__(self, cancelled: Cancelled) -> object:
        self.began.set()
        assert self.may_end.wait(SECONDS)
        return (self.result, cancelled())


def test_the_newest_of_a_slot_wins_and_what_runs_is_told() -> None:
    found: list[object] = []
    worker = Worker(found.append)
    first = Gate("first")
    flag = worker.submit(first, found.append)
    assert first.began.wait(SECONDS)
    waiting = worker.submit(lambda _: "second", found.append)
    worker.submit(lambda _: "third", found.append)
    assert (flag(), waiting()) == (True, True)
    first.may_end.set()
    assert worker.wait(SECONDS)
    assert found == ["third"]


def test_slots_do_not_replace_each_other() -> None:
    found: list[object] = []
    worker = Worker(found.append)
    first = Gate("first")
    worker.submit(first, found.append, slot="a")
    assert first.began.wait(SECONDS)
    worker.submit(lambda _: "b", found.append, slot="b")
    worker.submit(lambda _: "c", found.append, slot="c")
    worker.submit(lambda _: "b, newer", found.append, slot="b")
    first.may_end.set()
    assert worker.wait(SECONDS)
    assert found == [("first", False), "c", "b, newer"]


def test_what_a_task_or_its_callback_raises_is_said_once() -> None:
    said: list[str] = []
    worker = Worker(said.append)

    def wrong(_: object) -> object:
        raise ValueError("not this\x1b")

    worker.submit(wrong)
    assert worker.wait(SECONDS)
    worker.submit(lambda _: 1, wrong)
    assert worker.wait(SECONDS)
    own: list[str] = []
    worker.submit(wrong, failed=own.append)
    assert worker.wait(SECONDS)
    assert said == ["not this\\u001b"] * 2
    assert own == ["not this\\u001b"]


def test_after_a_failure_the_next_task_is_done() -> None:
    found: list[object] = []
    worker = Worker(lambda _: None)
    worker.submit(lambda _: 1 / 0)
    assert worker.wait(SECONDS)
    worker.submit(lambda _: "next", found.append)
    assert worker.wait(SECONDS)
    assert found == ["next"]


def test_closing_drops_all_and_no_thread_stays() -> None:
    before = threading.active_count()
    found: list[object] = []
    worker = Worker(found.append)
    first = Gate("first")
    flag = worker.submit(first, found.append, slot="a")
    assert first.began.wait(SECONDS)
    worker.submit(lambda _: "b", found.append, slot="b")
    assert worker.is_busy
    worker.close()
    assert flag()
    first.may_end.set()
    assert worker.wait(SECONDS)
    worker.submit(lambda _: "late", found.append)
    assert found == []
    assert not worker.is_busy
    for thread in threading.enumerate():
        if thread.name == "redecide-view":
            thread.join(SECONDS)
    assert threading.active_count() == before


def test_a_task_may_be_submitted_by_a_callback() -> None:
    found: list[object] = []
    worker = Worker(found.append)
    worker.submit(lambda _: 1, lambda n: worker.submit(lambda _: n + 1, found.append, slot="again"))
    assert worker.wait(SECONDS)
    assert found == [2]


def test_an_interrupt_in_the_thread_is_said_and_the_next_task_runs() -> None:
    """Polars raises `KeyboardInterrupt` in whatever thread its query runs."""
    problems: list[str] = []
    results: list[int] = []
    worker = Worker(problems.append)

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    worker.submit(interrupted)
    assert worker.wait(30)
    worker.submit(lambda _: 7, results.append)
    assert worker.wait(30)
    assert (problems, results) == (["KeyboardInterrupt"], [7])
