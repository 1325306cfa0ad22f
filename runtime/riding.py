"""A whole call beside an event loop in one visit to a thread, where nothing of it needs the loop.

One rule: what becomes of a flow is what `broker.drive_async` would make of it, cancelled wherever it may be.

Each way from the loop to a thread and back takes longer than a commit's own work. `drive_async` goes it for each
step that may block: to decide, to run a sync tool, to record. Here the thread takes the flow along from step to step,
and the loop takes it back: at its end, where a function returned something to be awaited, and when the task is
cancelled. A flow is advanced by one of them at a time: while the thread works at a step, the flow stands still, and
who takes it then has it; the thread drops what its step comes to. Steps marked `finish` are not cut off so.
"""

from __future__ import annotations

import inspect
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.broker import Blocking, Closed, Invoke, Step, drive, drive_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Generator

    from runtime.tools import Tool


def fits(tool: Tool) -> bool:
    """Whether the calls of a tool never need the loop: one sync function, which takes as long as it takes."""
    effects = tool.effects
    plain = effects.effect not in ("staged", "compensable") and not effects.guards
    return plain and effects.timeout is None and effects.isolate is None and not tool.is_async


class _Stop(NamedTuple):
    """Where the thread has left a flow."""

    value: Any = None
    error: BaseException | None = None
    ended: bool = False
    """It has come to `value`, or raised `error`; else it stands at a step."""
    awaits: Any = None
    """What its step's function returned, to be awaited."""


class _Ride:
    """A flow that a thread takes along from its first step on."""

    def __init__(self, flow: Generator[Step, Any, Any], step: Step) -> None:
        self._flow = flow
        self._at: Step | None = step
        """Where it stands still while the thread works; null: it is being advanced."""
        self._lock = threading.Lock()
        self._taken = False
        self._wanted = False
        self._riding = threading.Lock()
        self.stop = _Stop()

    def go(self) -> None:
        """Take it along, in the thread, until it stops."""
        with self._riding:
            found = self._stops()
            if found is not None:
                self.stop = found

    def _stops(self) -> _Stop | None:
        """Where it has stopped; null: the loop has taken it."""
        step, flow = self._at, self._flow
        while step is not None:
            reply, error = _done(step)
            with self._lock:
                if self._taken:
                    return None
                self._at = None
            if type(step) is Invoke and error is None and inspect.isawaitable(reply):
                return _Stop(awaits=reply)
            try:
                step = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                return _Stop(value=stop.value, ended=True)
            except BaseException as exc:  # noqa: BLE001 - raised again in the task
                return _Stop(error=exc, ended=True)
            with self._lock:
                if self._wanted and not step.finish:
                    return _Stop()
                self._at = step
        return None

    def take(self) -> bool:
        """Take it back where it stands; false: wait for it, it stops at the next step that may be cut off."""
        with self._lock:
            step = self._at
            if step is None or step.finish:
                self._wanted = True
                return False
            self._taken = True
        if type(step) is Invoke:
            step.abandon()
        return True

    def wait(self) -> None:
        """Wait in this very thread until it has stopped."""
        with self._riding:
            return


def _done(step: Step) -> tuple[Any, BaseException | None]:
    """What a step comes to."""
    try:
        return (step.work() if type(step) is Blocking else step.run()), None  # type: ignore[union-attr]  # one or the other
    except GeneratorExit:
        return None, Closed("closed while it ran")
    except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
        return None, exc


async def ride(flow: Generator[Step, Any, Any]) -> Any:
    """Run a flow of a tool that `fits` to its end without blocking the event loop; see `broker.drive_async`."""
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    try:
        found = _Ride(flow, flow.send(None))
    except StopIteration as ended:
        return ended.value
    context, owed = copy_context(), None
    try:
        work = asyncio.get_running_loop().run_in_executor(None, context.run, found.go)
    except RuntimeError as exc:  # the loop is ending, and has no threads any more
        return await drive_async(flow, error=exc)
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as exc:
            if found.take():
                return await drive_async(flow, error=exc)
            owed = exc
        except GeneratorExit as exc:  # closed, not cancelled: nothing can be awaited any more
            return _closed(flow, found, exc)
    if owed is not None:
        return await _interrupted(flow, found.stop, owed)
    if found.stop.error is not None:
        raise found.stop.error
    if found.stop.ended:
        return found.stop.value
    return await _awaited(flow, asyncio.create_task(_of(found.stop.awaits), context=context))


async def _interrupted(flow: Generator[Step, Any, Any], stop: _Stop, owed: BaseException) -> Any:
    """Deliver the cancellation that waited: where the flow stands, or at its end."""
    if stop.ended:
        raise owed from stop.error
    if inspect.iscoroutine(stop.awaits):
        stop.awaits.close()  # nobody waits for it any more
    return await drive_async(flow, error=owed)


def _closed(flow: Generator[Step, Any, Any], found: _Ride, exc: GeneratorExit) -> Any:
    """Have the flow record that nobody waits for it any more."""
    if not found.take():
        found.wait()
        if found.stop.ended:
            raise exc
    try:
        return drive(flow, Closed("closed while it ran"))
    except Closed:
        raise exc from None


async def _awaited(flow: Generator[Step, Any, Any], result: Awaitable[Any]) -> Any:
    """Go on beside the loop with what a sync function returned to be awaited."""
    try:
        reply = await result
    except GeneratorExit as exc:
        try:
            return drive(flow, Closed("closed while it ran"))
        except Closed:
            raise exc from None
    except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
        return await drive_async(flow, error=exc)
    return await drive_async(flow, reply=reply)


async def _of(result: Awaitable[Any] | Coroutine[Any, Any, Any]) -> Any:
    return await result


__all__ = ["fits", "ride"]
