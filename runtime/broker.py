"""Step 4, execute under control: runs the steps of a governed call, in this thread or beside an event loop.

One rule: what a step comes to is told to the flow that asked for it, and nothing else is done about it here. The
life of a call is written once, as a generator (`runtime.flow`, `runtime.protocol`); the two drivers below run it.

It yields `Blocking` for work that may wait on a disk or a system of record, and `Invoke` where somebody's function
runs: the tool, its commit, abort or undo, a guard. Steps marked `finish` are not cut off by a cancelled task: it is
delivered at the next step that may be, or at the end.
"""

from __future__ import annotations

import inspect
import json
import threading
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import GovernanceError, GuardRejected, InDoubt, ToolTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from concurrent.futures import Future

    from runtime.isolation import Isolation


class RecordedFailure(GovernanceError):  # noqa: N818 - named for what it reports
    """An idempotent repeat of a call that failed: the tool is not run again; what it raised then is in the text."""

    kind = "recorded_failure"


@dataclass(frozen=True, slots=True)
class Blocking:
    """Asks the driver to run `work`, off the event loop if there is one, and to send back what it returns."""

    work: Callable[[], Any]
    finish: bool = False
    """Whether a cancellation waits for it: what is recorded is durable first."""


@dataclass(slots=True, kw_only=True)
class Invoke:
    """Asks the driver to run a function with exactly these arguments, and to send back what it returns.

    What became of a function that was not waited for is here: another thread may run it on.
    """

    name: str
    """What is run, for messages: `tool 'refund'`."""
    fn: Callable[..., Any]
    args: Mapping[str, Any]
    timeout: float | None = None
    """Seconds it may take; None: however long it takes."""
    finish: bool = False
    """Whether a cancellation waits for it: a commit under way is never given up."""
    isolate: Isolation | None = None
    """Run in a process of its own."""
    late: Callable[[Any, BaseException | None], None] | None = None
    """Told what came of it, if it ends after it was given up; in the thread that runs it."""
    started: bool = False
    """Whether it was called."""
    abandoned: bool = False
    """Whether nobody waits for it any more: if it was started, it may be running still."""
    _done: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_async(self) -> bool:
        """Whether calling the function only makes a coroutine."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(type(self.fn).__call__)

    def abandon(self) -> None:
        """Wait for it no more; one that was not started never will be."""
        with self._lock:
            self.abandoned = not self._done

    def overtime(self) -> ToolTimeout:
        """Return the error of having taken too long."""
        return ToolTimeout(f"{self.name} did not return within {self.timeout:g} s")

    def run(self) -> Any:
        """Call it, unless nobody waits for it any more; tell `late` if nobody waits at its end."""
        with self._lock:
            if self.abandoned:
                return None
            self.started = True
        result, error = None, None
        try:
            result = _call(self)
        except BaseException as exc:  # noqa: BLE001 - handed to whoever waits, or recorded
            error = exc
        with self._lock:
            self._done = True
        if self.abandoned and self.late is not None and not inspect.isawaitable(result):
            self.late(result, error)
        elif error is not None:
            raise error
        return result


Step = Blocking | Invoke
_VALUES: Final = frozenset({type(None), bool, int, float, str, list, dict, tuple})
"""Types whose values have no effects to come; what most tools return."""


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
            error = _survivable(exc)


class Closed(BaseException):
    """Somebody's function, or the coroutine that waits for it, was closed.

    Stands for `GeneratorExit`, which no generator may outlive, not even to record it.
    """


def _survivable(error: BaseException) -> BaseException:
    """Return what to raise inside a flow."""
    return Closed("closed while it ran") if isinstance(error, GeneratorExit) else error


def _invoke(step: Invoke) -> Any:
    if step.isolate is not None:
        return _isolated(step)
    result = step.run() if step.timeout is None or step.is_async else _within_time(step)
    if type(result) in _VALUES or not inspect.isawaitable(result):
        return result
    import asyncio  # noqa: PLC0415 - 60 ms that only async code pays

    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented in asyncio.events
        _close(result)
        raise GovernanceError(
            f"{step.name} returned a {type(result).__name__} and a loop is running; "
            "declare it `async def`, or use `await session.acall(…)`"
        )
    return asyncio.run(_awaited(step, result))


def _isolated(step: Invoke) -> Any:
    from runtime.isolation import run  # noqa: PLC0415 - only who isolates pays for it

    step.started = True
    return run(step.fn, step.args, _bounds(step))


def _bounds(step: Invoke) -> Isolation:
    """The isolation's own limit of time, or the tool's if that is shorter."""
    assert step.isolate is not None  # noqa: S101 - asked by the callers
    seconds = min(step.isolate.seconds, step.timeout or step.isolate.seconds)
    return replace(step.isolate, seconds=seconds)


def _within_time(step: Invoke) -> Any:
    """Run it in a thread, and wait for it as long as it may take."""
    work = _in_thread(step)
    try:
        return work.result(step.timeout)
    except TimeoutError:
        if work.done():  # its own error, or it was done a moment later
            return work.result()
        step.abandon()
        raise step.overtime() from None
    except BaseException:
        step.abandon()
        raise


def _in_thread(step: Invoke) -> Future[Any]:
    """Run it in a thread that does not keep the process alive, in a copy of this context."""
    from concurrent.futures import Future  # noqa: PLC0415 - 5 ms that only timeouts pay

    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled, only given up
    context = copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(step.run))
        except BaseException as exc:  # noqa: BLE001 - for who waits
            future.set_exception(exc)

    threading.Thread(target=work, name=step.name, daemon=True).start()
    return future


def call_now(step: Invoke) -> Any:
    """Run one step by itself and return what it comes to; also where a loop runs, which then waits."""

    def alone() -> Generator[Step, Any, Any]:
        return (yield step)

    import sys  # noqa: PLC0415 - only recovery calls this

    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented in asyncio.events
        return drive(alone())
    return _in_thread(Invoke(name=step.name, fn=lambda: drive(alone()), args={})).result()


async def _awaited(step: Invoke, result: Any) -> Any:
    """Wait for a coroutine as long as it may take."""
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    limit = asyncio.timeout(step.timeout)
    try:
        async with limit:
            return await result
    except TimeoutError as exc:
        if limit.expired():
            raise step.overtime() from exc
        raise


def _call(step: Invoke) -> Any:
    """Call the function; refuse a result whose effects are still to come."""
    try:
        result = step.fn(**step.args)
    except StopIteration as exc:
        # It would end the flow, or never reach an awaiting task; Python does the same in its generators.
        raise RuntimeError(f"{step.name} raised StopIteration") from exc
    if type(result) not in _VALUES and (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        _close(result)
        raise GovernanceError(
            f"{step.name} returned a generator, whose effects would come after its outcome was recorded; "
            "return a list"
        )
    return result


def _close(unfinished: Any) -> None:
    """Close a coroutine or generator that will not be run."""
    if callable(close := getattr(unfinished, "close", None)):
        close()


async def drive_async(
    flow: Generator[Step, Any, Any], *, error: BaseException | None = None, reply: Any = None
) -> Any:
    """Run a flow to its end without blocking the event loop: disk and sync functions go to a thread.

    When the task is cancelled while the tool runs, however often, its outcome is made durable first. A sync tool
    cannot be stopped: its thread goes on, and the outcome says so. `error`, `reply`: of the step it stands at.
    """
    owed: BaseException | None = None
    while True:
        try:
            step = flow.send(reply) if error is None else flow.throw(error)
        except StopIteration as stop:
            if owed is not None:
                raise owed from None
            return stop.value
        except BaseException as exc:
            if owed is not None:
                raise owed from exc
            raise
        reply, error = None, None
        if owed is not None and not step.finish:
            error, owed = owed, None
            continue
        try:
            reply, interruption = await _step_async(step)
            owed = interruption or owed
            reply = reply.result() if step.finish else reply
        except GeneratorExit as exc:  # closed, not cancelled: nothing can be awaited any more
            try:
                return drive(flow, _survivable(exc))
            except Closed:
                raise exc from None
        except BaseException as exc:  # noqa: BLE001 - the flow records it and raises it again
            error = exc


async def _step_async(step: Step) -> tuple[Any, BaseException | None]:
    """Return what a step comes to, and the cancellation that came meanwhile and waited.

    A step that is finished comes as its future, done: what it raised may not hide the cancellation.
    """
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    if isinstance(step, Invoke) and not step.finish:
        return await _invoke_async(step), None
    work = asyncio.ensure_future(
        _invoke_async(step) if isinstance(step, Invoke) else asyncio.to_thread(step.work)
    )
    if not step.finish:
        return await asyncio.shield(work), None  # a commit under way is finished even so, by its thread
    interruption: BaseException | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as exc:
            interruption = exc
    return work, interruption


async def _invoke_async(step: Invoke) -> Any:
    if step.isolate is not None:
        from runtime.isolation import run_async  # noqa: PLC0415 - only who isolates pays for it

        step.started = True
        return await run_async(step.fn, step.args, _bounds(step))
    if step.is_async:
        return await _awaited(step, step.run())
    return await _awaited(step, _threaded(step))


async def _threaded(step: Invoke) -> Any:
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    # A thread of its own where it may be given up: the pool's are few, and the loop's end waits for them.
    work = asyncio.to_thread(step.run) if step.timeout is None else asyncio.wrap_future(_in_thread(step))
    try:
        result = await work
    except asyncio.CancelledError:
        step.abandon()
        raise
    return await result if inspect.isawaitable(result) else result


def recorded_result(outcome: Mapping[str, Any] | None, blob: Callable[[str], str | None]) -> Any:
    """Return the result of an earlier run, for an idempotent repeat.

    Args:
        outcome: the `outcomes` row of the original's execution, if there is one.
        blob: looks up a large result by its address.

    Raises:
        InDoubt: the original has no outcome, is in doubt, was cancelled or aborted, or its result was not kept.
        GuardRejected: an output guard rejected the original; its result stays withheld.
        RecordedFailure: the original failed.
    """
    if outcome is None:
        raise InDoubt(
            "a call with this idempotency key has started and has no outcome yet; look before retrying"
        )
    if any(not said["passed"] for said in json.loads(outcome["guards"] or "[]")):
        raise GuardRejected(
            f"the original call was rejected by an output guard and ended as {outcome['status']}", outcome
        )
    if outcome["status"] == "failed":
        how = said_by(outcome) or f" with {outcome['error_type']}: {outcome['error_message']}"
        raise RecordedFailure(f"the original call, decision {outcome['decision_id']}, failed{how}")
    if outcome["status"] == "aborted":
        given_up = outcome["reason_code"] in (None, "given_up")
        how = "was given up before its tool started" if given_up else f"was aborted{said_by(outcome)}"
        raise InDoubt(
            f"the original call, decision {outcome['decision_id']}, {how}; to run it, use another key"
        )
    if outcome["status"] == "in_doubt":
        raise InDoubt(
            f"the original call, decision {outcome['decision_id']}, is in doubt: it may have taken effect; look, and "
            "record what you find with `Runtime.resolve` or `redecide resolve`"
        )
    if outcome["status"] != "succeeded":
        ended = f"ended as {outcome['status']}{said_by(outcome)}"
        raise InDoubt(
            f"the original call, decision {outcome['decision_id']}, {ended}; to run it, use another key"
        )
    return _kept_result(outcome, blob)


def said_by(outcome: Mapping[str, Any]) -> str:
    """Who found out how a call in doubt ended, to be read after it; empty: it was recorded as it ended."""
    return f", as found by {outcome['source']}" if outcome["reason_code"] == "resolved" else ""


def _kept_result(outcome: Mapping[str, Any], blob: Callable[[str], str | None]) -> Any:
    if outcome["result_storage"] != "full":
        stored = outcome["result_storage"]
        kept = f"was stored as {stored!r}, not in full" if stored else "is not known"
        raise InDoubt(
            f"the original call, decision {outcome['decision_id']}, succeeded{said_by(outcome)}; its result {kept}"
        )
    text = outcome["result"]
    if outcome["result_bytes"] != len(text.encode()):
        text = blob(outcome["result_hash"])
    if text is None:
        raise InDoubt(
            f"the original succeeded; its result {outcome['result_hash']} is no longer in the ledger"
        )
    return json.loads(text)
