"""Usage: what a tool reports while it runs becomes columns of its own outcome, whatever thread or task it is in."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from runtime.errors import GovernanceError
from runtime.usage import Collector, Usage, collecting, report_usage

COLUMNS = ("cost_micros", "input_tokens", "output_tokens")


def used(world: Any, session: Any) -> tuple[Any, ...]:
    return tuple(world.outcome(session)[name] for name in COLUMNS)


def test_reports_add_up_and_nothing_reported_is_null(metered: Any) -> None:
    world = metered()
    session = world.session()
    session.call("pay", order="o")
    assert used(world, session) == (None, None, None)

    def body() -> None:
        report_usage(cost_micros=3)
        report_usage(Usage(cost_micros=4, input_tokens=1), cost_micros=5)

    world.body = body
    session.call("pay", order="o")
    assert used(world, session) == (12, 1, None)


def test_what_a_failed_call_has_cost_is_recorded(metered: Any) -> None:
    world = metered()
    session = world.session()

    def body() -> None:
        report_usage(cost_micros=3)
        raise RuntimeError

    world.body = body
    with pytest.raises(RuntimeError):
        session.call("pay", order="o")
    assert used(world, session)[0] == 3


def test_a_tool_in_a_tool_is_charged_once(metered: Any) -> None:
    world = metered()
    outer, inner = world.session(session_id="outer"), world.session(session_id="inner")

    def body() -> None:
        world.body = lambda: report_usage(cost_micros=5)
        inner.call("look")
        report_usage(cost_micros=2)

    world.body = body
    outer.call("pay", order="o")
    assert (used(world, outer)[0], used(world, inner)[0]) == (2, 5)


def test_threads_in_a_copy_of_the_context_report_and_others_are_told(metered: Any) -> None:
    world, caught = metered(), list[Exception]()
    session = world.session()

    def lost() -> None:
        try:
            report_usage(cost_micros=1)
        except GovernanceError as exc:
            caught.append(exc)

    def body() -> None:
        context = copy_context()
        threads = [
            threading.Thread(target=context.copy().run, args=(report_usage, Usage(cost_micros=1)))
            for _ in range(8)
        ]
        threads.append(threading.Thread(target=lost))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    world.body = body
    session.call("pay", order="o")
    assert used(world, session)[0] == 8
    assert "copy_context" in str(caught[0])


def test_tasks_do_not_mix(metered: Any) -> None:
    world = metered()
    gate = threading.Barrier(4)

    def body() -> None:
        number = threading.get_ident() % 997
        report_usage(cost_micros=1)
        gate.wait(10)
        report_usage(cost_micros=1, output_tokens=number)

    world.body = body
    sessions = [world.session(session_id=f"s{n}") for n in range(4)]

    async def run() -> None:
        await asyncio.gather(*(session.acall("pay", order="o") for session in sessions))

    asyncio.run(run())
    assert [used(world, session)[0] for session in sessions] == [2] * 4


def test_outside_of_a_call_and_after_its_end_a_report_is_an_error() -> None:
    with pytest.raises(GovernanceError, match="outside of a governed call"):
        report_usage(cost_micros=1)
    collector = Collector()
    with collecting(collector):
        report_usage(cost_micros=1)
        assert collector.take(last=False) == Usage(cost_micros=1)
        report_usage(cost_micros=2)
        assert collector.take() == Usage(cost_micros=2)
        with pytest.raises(GovernanceError, match="after its call has ended"):
            report_usage(cost_micros=1)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, 2**63, "3"])
def test_what_is_no_amount_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="must be an integer"):
        Usage(cost_micros=wrong)


def test_a_sum_stays_within_64_bits() -> None:
    most = Usage(input_tokens=2**63 - 1)
    assert most + most == most
    assert Usage() + Usage() == Usage()
