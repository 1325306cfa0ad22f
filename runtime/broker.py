"""Step 4, execute under control: what happens between a verdict and a recorded outcome.

One rule: the decision is durable before the tool starts, and whatever then happens becomes an outcome. A call that
was let run and has no outcome is *in doubt*: shown, never retried silently.

The life of a call is written once, as a generator; a sync and an async driver run it. It yields `Blocking` for
work that may wait on a disk or a system of record, and `Invoke` where the tool runs.
"""

from __future__ import annotations

import contextlib
import inspect
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
    finish: bool = False
    """Whether a cancellation waits for it: an outcome is made durable first."""


@dataclass(frozen=True, slots=True)
class Invoke:
    """Asks the driver to run the tool with exactly these arguments, and to send back what it returns."""

    tool: Tool
    args: Mapping[str, Json]


Step = Blocking | Invoke


def drive(flow: Generator[Step, Any, Any], error: BaseException | None = None) -> Any:
    """Run a flow to its end in this thread. An exception of a step is raised inside the flow first.

    Args:
        flow: the flow.
        error: raised inside the flow to begin with, where it stands already.
    """
    reply: Any = None
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
    result = _call(step)
    if not inspect.isawaitable(result):
        return result
    import asyncio  # noqa: PLC0415 - 60 ms that only async code pays

    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented in asyncio.events
        _close(result)
        raise GovernanceError(
            f"tool {step.tool.name!r} returned a {type(result).__name__} and a loop is running; "
            "declare it `async def`, or use `await session.acall(…)`"
        )
    return asyncio.run(_awaited(result))


async def _awaited(result: Any) -> Any:
    return await result


def _call(step: Invoke) -> Any:
    """Call the function; refuse a result whose effects are still to come."""
    try:
        result = step.tool.fn(**step.args)
    except StopIteration as exc:
        # It would end the flow, or never reach an awaiting task; Python does the same in its generators.
        raise RuntimeError(f"tool {step.tool.name!r} raised StopIteration") from exc
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        _close(result)
        raise GovernanceError(
            f"tool {step.tool.name!r} returned a generator, whose effects would come after its outcome was "
            "recorded; return a list"
        )
    return result


def _close(unfinished: Any) -> None:
    """Close a coroutine or generator that will not be run."""
    if callable(close := getattr(unfinished, "close", None)):
        close()


async def drive_async(flow: Generator[Step, Any, Any]) -> Any:
    """Run a flow to its end without blocking the event loop: disk and sync tools go to a thread.

    When the task is cancelled while the tool runs, however often, the outcome `cancelled` is made durable first. A
    sync tool cannot be stopped: its thread goes on, so `cancelled` says that its effect is not known.
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
        except GeneratorExit as exc:  # closed, not cancelled: nothing can be awaited any more
            return drive(flow, exc)
        except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
            error = exc


async def _step_async(step: Step) -> Any:
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    if isinstance(step, Invoke):
        result = _call(step) if step.tool.is_async else await asyncio.to_thread(_call, step)
        return await result if inspect.isawaitable(result) else result
    # Shielded: a commit under way is finished even if the task is cancelled meanwhile.
    work = asyncio.ensure_future(asyncio.to_thread(step.work))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while step.finish and not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise


def recorded_result(outcome: Mapping[str, Any] | None, blob: Callable[[str], str | None]) -> Any:
    """Return the result of an earlier run, for an idempotent repeat.

    Args:
        outcome: the `outcomes` row of the original's execution, if there is one.
        blob: looks up a large result by its address.

    Raises:
        InDoubt: the original has no outcome, was cancelled or aborted, or its result was not kept.
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
    if outcome["status"] == "aborted":
        raise InDoubt("the original call was given up before its tool started; to run it, use another key")
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
