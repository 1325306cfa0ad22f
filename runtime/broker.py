"""Step 4, execute under control: what happens between a verdict and a recorded outcome.

One rule: the decision is durable before the tool starts, and whatever then happens becomes an outcome. A call that
was let run and has no outcome is *in doubt*: shown, never retried silently.

The life of a call is written once, as a generator; a sync and an async driver run it. It yields `Blocking` for
work that may wait on a disk or a system of record, and `Invoke` where the tool runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.errors import GovernanceError, InDoubt

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from runtime.canonical import Json
    from runtime.tools import Tool


class RecordedFailure(GovernanceError):  # noqa: N818 - named for what it reports
    """An idempotent repeat of a call that failed: the tool is not run again; what it raised then is in the text."""

    kind = "recorded_failure"


@dataclass(frozen=True, slots=True)
class Blocking:
    """Asks the driver to run `work`, off the event loop if there is one, and to send back what it returns."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Invoke:
    """Asks the driver to run the tool with exactly these arguments, and to send back what it returns."""

    tool: Tool
    args: Mapping[str, Json]


Step = Blocking | Invoke


def drive(flow: Generator[Step, Any, Any]) -> Any:
    """Run a flow to its end in this thread. An exception of a step is raised inside the flow first."""
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = flow.send(reply) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value
        reply, error = None, None
        try:
            reply = step.work() if isinstance(step, Blocking) else _invoke(step)
        except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
            error = exc


def _invoke(step: Invoke) -> Any:
    if not step.tool.is_async:
        return step.tool.fn(**step.args)
    import asyncio  # noqa: PLC0415 - 60 ms that only async code pays

    return asyncio.run(step.tool.fn(**step.args))


async def drive_async(flow: Generator[Step, Any, Any]) -> Any:
    """Run a flow to its end without blocking the event loop: disk and sync tools go to a thread.

    When the task is cancelled while the tool runs, the outcome `cancelled` is still made durable first.
    """
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = flow.send(reply) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value
        reply, error = None, None
        try:
            reply = await _step_async(step)
        except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
            error = exc


async def _step_async(step: Step) -> Any:
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    if isinstance(step, Blocking):
        # Shielded: a commit under way is finished even if the task is cancelled meanwhile.
        return await asyncio.shield(asyncio.to_thread(step.work))
    if step.tool.is_async:
        return await step.tool.fn(**step.args)
    return await asyncio.to_thread(step.tool.fn, **step.args)


def recorded_result(outcome: Mapping[str, Any] | None, blob: Callable[[str], str | None]) -> Any:
    """Return the result of an earlier run, for an idempotent repeat.

    Args:
        outcome: the `outcomes` row of the original's execution, if there is one.
        blob: looks up a large result by its address.

    Raises:
        InDoubt: the original has no outcome, was cancelled, or its result was not kept.
        RecordedFailure: the original failed.
    """
    if outcome is None:
        raise InDoubt(
            "a call with this idempotency key has started and has no outcome yet; look before retrying"
        )
    if outcome["status"] == "failed":
        raise RecordedFailure(
            f"the original call failed with {outcome['error_type']}: {outcome['error_message']}"
        )
    if outcome["status"] != "succeeded":
        raise InDoubt(f"the original call ended as {outcome['status']}; its effect is not known")
    if outcome["result_storage"] != "full":
        raise InDoubt(
            f"the original succeeded; its result was stored as {outcome['result_storage']!r}, not in full"
        )
    text = outcome["result"]
    if outcome["result_bytes"] != len(text.encode()):
        text = blob(outcome["result_hash"])
    if text is None:
        raise InDoubt(
            f"the original succeeded; its result {outcome['result_hash']} is no longer in the ledger"
        )
    return json.loads(text)
