"""A call that one thread takes along from step to step ends as one that goes to a thread for each step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Blocked, InDoubt, current_session
from runtime.errors import CommitConflict
from runtime.riding import fits
from runtime.usage import report_usage

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10


@pytest.fixture(params=["rides", "steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a call goes; each test asks the same of both."""
    if request.param == "steps":
        monkeypatch.setattr("runtime.flow.fits", lambda _: False)
    return str(request.param)


class Gate:
    """Where a thread stands still until a test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *_: Any, **__: Any) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)


def at(world: Any, name: str, gate: Callable[[], None]) -> None:
    """Stand still at a named point of a call, the first time it is passed."""
    once = [gate]
    world.runtime.at_step = lambda step: once.pop()() if step == name and once else None


async def settled(world: Any, rows: int) -> None:
    for _ in range(500):
        if world.runtime.ledger.head()[0] == rows:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{world.runtime.ledger.head()[0]} rows, not {rows}")


# -- what it comes to ------------------------------------------------------------------------------------------


async def test_a_call_returns_what_its_tool_returns_in_its_session(world: Any, way: str) -> None:
    def body(**given: Any) -> dict[str, Any]:
        report_usage(cost_micros=3)
        return {"session": current_session() is session, **given}

    world.body = body
    session = world.session()
    found = await session.acall(world.act, "1", note="n")
    assert found == {"session": True, "id": "1", "note": "n", "tags": None}
    assert current_session() is None
    outcome = world.outcome(session)
    assert (outcome["status"], outcome["reason_code"], outcome["cost_micros"]) == ("succeeded", "returned", 3)
    assert world.runtime.running == {}


async def test_what_is_to_be_awaited_is_awaited_beside_the_loop_and_may_report(world: Any, way: str) -> None:
    loop = asyncio.get_running_loop()

    async def work() -> str:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        report_usage(cost_micros=4)
        return "done"

    world.body = lambda **_: work()
    session = world.session()
    assert await session.acall(world.act, "1") == "done"
    assert (world.outcome(session)["status"], world.outcome(session)["result"]) == ("succeeded", '"done"')
    if way == "rides":  # in the context the tool was called in
        assert world.outcome(session)["cost_micros"] == 4


async def test_what_is_to_be_awaited_may_raise(world: Any, way: str) -> None:
    async def work() -> None:
        raise ValueError("late")

    world.body = lambda **_: work()
    session = world.session()
    with pytest.raises(ValueError, match="late"):
        await session.acall(world.act, "1")
    assert world.outcome(session)["status"] == "failed"


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("x"), KeyError("k")])
async def test_what_a_tool_raises_is_recorded_and_raised(world: Any, way: str, error: Exception) -> None:
    def body(**_: Any) -> None:
        raise error

    world.body = body
    session = world.session()
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(expected):
        await session.acall(world.act, "1")
    assert (world.outcome(session)["status"], world.runtime.running) == ("failed", {})


async def test_a_block_and_a_refusing_ledger_are_raised(
    world: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = world.session()
    with pytest.raises(Blocked):
        await session.acall(world.act, 5)

    def locked(**_: Any) -> Any:
        raise CommitConflict("held")

    monkeypatch.setattr(world.runtime.ledger, "commit", locked)
    with pytest.raises(CommitConflict, match="held"):
        await session.acall(world.act, "1")
    assert world.runtime.running == {}


async def test_a_repeat_gets_the_recorded_result(world: Any, way: str) -> None:
    ran: list[int] = []

    def body(**_: Any) -> str:
        ran.append(1)
        return "paid"

    world.body = body
    session = world.session()
    found = [await session.acall(world.act, "1", idempotency_key="k") for _ in range(3)]
    assert (found, ran) == (["paid"] * 3, [1])


async def test_many_tasks_of_one_session_each_run_once(world: Any, way: str) -> None:
    ran: list[str] = []
    world.body = lambda **given: ran.append(given["id"])
    session = world.session()
    await asyncio.gather(*(session.acall(world.act, str(n)) for n in range(20)))
    assert sorted(ran, key=int) == [str(n) for n in range(20)]
    assert (world.runtime.ledger.unfinished(), session.counters().next_step) == ([], 20)


# -- how it gets there -----------------------------------------------------------------------------------------


async def test_a_sync_tool_takes_one_visit_to_a_thread(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, visits, threads = asyncio.get_running_loop(), list[Any](), set[int]()
    real = loop.run_in_executor

    def counted(executor: Any, *work: Any) -> Any:
        visits.append(work)
        return real(executor, *work)

    monkeypatch.setattr(loop, "run_in_executor", counted)
    world.runtime.at_step = lambda step: threads.add(threading.get_ident()) if step != "deciding" else None
    await world.session().acall(world.act, "1")
    assert (len(visits), len(threads)) == (1, 1)
    assert threads.isdisjoint({threading.get_ident()})


async def _later() -> None: ...


async def _after(handle: Any) -> None: ...


@pytest.mark.parametrize(
    ("fn", "declared", "rides"),
    [
        (lambda: None, {}, True),
        (lambda: None, {"effect": "read"}, True),
        (lambda: None, {"effect": "idempotent", "status": lambda effect_id: None}, True),
        (_later, {}, False),
        (lambda: None, {"timeout": 5.0}, False),
        (lambda: None, {"guards": [_later]}, False),
        (lambda: None, {"effect": "staged", "commit": _after, "abort": lambda handle: None}, False),
        (lambda: None, {"effect": "compensable", "undo": _after}, False),
    ],
)
def test_only_what_never_needs_the_loop_rides(
    world: Any, fn: Any, declared: dict[str, Any], *, rides: bool
) -> None:
    world.runtime.tool(fn, name="look", **declared)
    assert fits(world.runtime.find_tool("look")) is rides


# -- cut off ---------------------------------------------------------------------------------------------------


async def test_cancelled_while_the_tool_runs_it_is_in_doubt_at_once(world: Any, way: str) -> None:
    gate = Gate()
    world.body = gate
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.outcome(session)["status"], world.outcome(session)["reason_code"]) == (
        "in_doubt",
        "cancelled",
    )
    gate.opened.set()
    await settled(world, 3)  # and what it came to, when it has come to it
    assert (world.outcome(session)["status"], world.runtime.running) == ("succeeded", {})


async def test_a_flow_that_was_taken_back_is_not_advanced_by_its_thread(world: Any, way: str) -> None:
    """The tool returns while the loop records that it was given up; what it returned is its outcome."""
    tool, ending, returned = Gate(), Gate(), threading.Event()

    def body(**_: Any) -> str:
        tool()
        threading.Timer(0.1, returned.set).start()
        return "late"

    world.body = body
    at(world, "ending", ending)
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await tool.wait()
    task.cancel()
    await ending.wait()
    tool.opened.set()
    assert await asyncio.to_thread(returned.wait, PATIENCE)
    assert not task.done()
    ending.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.outcome(session)["status"], world.runtime.running) == ("succeeded", {})


async def test_cancelled_while_its_outcome_is_recorded_that_comes_first(world: Any, way: str) -> None:
    gate = Gate()
    at(world, "ending", gate)
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await gate.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    assert not task.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.outcome(session)["status"], world.runtime.running) == ("succeeded", {})


async def test_cancelled_between_two_steps_the_next_one_is_not_begun(world: Any) -> None:
    """The thread is about to call the tool; it comes to that step, and hands the flow back there."""
    gate, ran = Gate(), list[int]()
    at(world, "decided", gate)
    world.body = lambda **_: ran.append(1)
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await gate.wait()
    task.cancel()
    await asyncio.sleep(0.02)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.outcome(session)["status"], ran, world.runtime.running) == ("aborted", [], {})


async def test_cancelled_before_a_thread_was_free_nothing_runs(world: Any, way: str) -> None:
    gate, ran = Gate(), list[int]()
    world.body = lambda **_: ran.append(1)
    pool = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(gate)
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(lambda: None)  # behind it in the queue
    assert (ran, world.runtime.ledger.unfinished(), world.runtime.running) == ([], [], {})


async def test_cancelled_while_it_is_awaited_it_is_in_doubt(world: Any, way: str) -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.sleep(60)

    world.body = lambda **_: work()
    session = world.session()
    task = asyncio.create_task(session.acall(world.act, "1"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.outcome(session)["status"] == "in_doubt"


@pytest.mark.parametrize(("where", "expected"), [("tool", "in_doubt"), ("ending", "succeeded")])
async def test_closed_wherever_it_is_its_outcome_is_recorded(
    world: Any, way: str, where: str, expected: str
) -> None:
    gate = Gate()
    if where == "tool":
        world.body = gate
    else:
        at(world, "ending", gate)
    session = world.session()
    coroutine = session.acall(world.act, "1")
    task = asyncio.ensure_future(coroutine)
    await gate.wait()
    if where == "ending":
        threading.Timer(0.05, gate.opened.set).start()
    coroutine.close()
    status = world.outcome(session)["status"]
    assert status == expected or (way, status) == ("steps", "in_doubt")  # which does not wait for its thread
    gate.opened.set()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await task
    gc.collect()
    assert world.runtime.running == {}


def test_a_loop_that_ends_cancels_and_records(world: Any, way: str) -> None:
    gate = Gate()
    world.body = gate
    session = world.session()

    async def leave() -> None:
        task = asyncio.create_task(session.acall(world.act, "1", idempotency_key="k"))
        await gate.wait()
        threading.Timer(0.2, gate.opened.set).start()  # the loop's end waits for its threads
        del task

    asyncio.run(leave())
    found = [row["status"] for row in [world.outcome(session)]]
    assert found[0] in ("in_doubt", "succeeded")
    if found == ["in_doubt"]:
        with pytest.raises(InDoubt):
            session.call(world.act, "1", idempotency_key="k")
