"""The commit protocol: what happens to an action that was let run, by the effect its tool declares.

One rule: what is known of an effect is durable before anything follows from it, so that a crash between any two
lines below leaves a state from which `lifecycle.concluded` says what holds.

Written once, as generators that yield steps to a driver (`runtime.broker`). `STEPS` are the points between them, in
the order they are passed; a test can stop a process at each.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime import guards
from runtime.errors import (
    GuardRejected,
    InDoubt,
    LedgerError,
    NotCommitted,
    ToolCrashed,
    ToolMemory,
    ToolTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from runtime.acting import Acting
    from runtime.broker import Invoke, Step
    from runtime.lifecycle import Effect
    from runtime.trace import ExecutionStatus

    Steps = Generator[Step, Any, Any]

STEPS: Final = (
    *("deciding", "decided", "ran", "staged", "judging", "judged", "committing", "committed"),
    *("undoing", "undone", "aborting", "told", "ending", "ended"),
)
"""Named points. `decided`, `staged`, `committing`, `undoing`, `aborting`, `told` and `ended` come after their
transaction; `ran`, `committed` and `undone` after somebody's function returned and before anything is recorded of
it."""


class Ending(NamedTuple):
    """How an action ended, or that it cannot be known."""

    status: ExecutionStatus
    reason: str


def run(act: Acting) -> Steps:
    """Run what was decided, to its recorded end.

    Returns:
        What the caller gets: what the tool, or a staged one's commit, returned.

    Raises:
        GuardRejected: an output guard rejected it; the outcome says what became of it.
        InDoubt: it may have taken effect, and nobody knows; or its outcome could not be made durable.
        BaseException: what the tool raised, or what interrupted it, once that is recorded.
    """
    return (yield from _LIVES[act.effects.effect](act))


def _at_once(act: Acting) -> Steps:
    """Read, idempotent, undeclared: the effect is what it is; guards judge what the agent gets to see."""
    result = yield from _do(act)
    if not act.effects.guards:
        yield act.end("succeeded", "returned", result=result)
        return result
    try:
        yield from _judge(act, result)
    except BaseException as exc:
        yield from _end(act, Ending("succeeded", "cancelled"), exc, result)
        raise
    rejected = guards.rejection(act.verdicts)
    yield act.end("succeeded", guards.code_of(rejected), result=result)
    _require_accepted(act, "it took effect, and its result is withheld")
    return result


def _compensable(act: Acting) -> Steps:
    """Done at once; undone if a guard says no."""
    result = yield from _do(act)
    interruption: BaseException | None = None
    try:
        yield from _judge(act, result)
    except BaseException as exc:  # noqa: BLE001 - undone first, then raised again
        interruption = exc
    rejected = guards.rejection(act.verdicts)
    if rejected is None and interruption is None:
        yield act.end("succeeded", "returned", result=result)
        return result
    yield from _undo(act, result, "cancelled" if interruption else guards.code_of(rejected), interruption)
    if interruption is not None:
        raise interruption
    return _require_accepted(act, "it was undone")


def _undo(act: Acting, result: Any, reason: str, interruption: BaseException | None) -> Steps:
    try:
        yield act.move("undoing", handle=result)
    except LedgerError as exc:
        raise InDoubt(
            f"{act.what} took effect and should be undone, and that could not be recorded: {exc}"
        ) from exc
    step = act.beside("undo", result)
    try:
        yield step
        act.at_step("undone")
    except BaseException as exc:
        yield from _end(act, Ending("in_doubt", ending_of(exc, step, act.effects.effect).reason), exc)
        if not isinstance(exc, Exception):
            raise
        raise InDoubt(f"{act.what} was to be undone, and that failed: {exc}") from exc
    yield act.end("compensated", reason, error=interruption)


def _staged(act: Acting) -> Steps:
    """Prepared; committed only once that is durable, the guards have agreed, and that is durable, too."""
    try:
        handle = yield from _prepare(act)
    except BaseException as exc:
        yield from _abort(act, _why_aborted(act, exc), exc)
        raise
    if guards.rejection(act.verdicts) is not None:
        yield from _abort(act, guards.code_of(guards.rejection(act.verdicts)), None)
        return _require_accepted(act, "nothing was committed")
    return (yield from _commit(act, handle))


def _prepare(act: Acting) -> Steps:
    """Up to the word to commit; whatever is raised here, nothing was committed."""
    handle = act.handle = yield act.start()
    act.at_step("ran")
    if not act.effects.guards:
        yield act.move("staged", "committing", handle=handle)  # nothing comes between
        return handle
    yield act.move("staged", handle=handle)
    yield from _judge(act, handle)
    if guards.rejection(act.verdicts) is None:
        yield act.move("committing")
    return handle


def _commit(act: Acting, handle: Any) -> Steps:
    step = act.beside("commit", handle)
    try:
        result = yield step
    except NotCommitted as exc:
        yield from _abort(act, "raised", exc)
        raise
    except BaseException as exc:
        if isinstance(exc, ToolCrashed) and not exc.began:
            yield from _abort(act, "crashed", exc)
            raise
        yield from _lost_acknowledgement(act, step, exc)
        raise
    act.at_step("committed")
    yield act.end("succeeded", "returned", result=result)
    return result


def _lost_acknowledgement(act: Acting, step: Invoke, error: BaseException) -> Steps:
    """A commit that raised may have been carried out: the tool is asked, else it is in doubt."""
    ending = Ending("in_doubt", ending_of(error, step, act.effects.effect).reason)
    if act.effects.status is not None and isinstance(error, Exception) and not step.abandoned:
        answer = None
        try:
            answer = yield act.beside("status", act.handle)
        except Exception as exc:  # noqa: BLE001 - a guard point: no answer is no answer
            error.add_note(f"asked for its status, the tool raised {type(exc).__name__}")
        if answer == "aborted":
            yield from _abort(act, "asked", error)
            return
        if answer == "succeeded":
            ending = Ending("succeeded", "asked")
    yield from _end(act, ending, error)
    if isinstance(error, Exception):
        raise InDoubt(_commit_failed(act, ending, error)) from error


def _commit_failed(act: Acting, ending: Ending, error: Exception) -> str:
    doubt = ending.status == "in_doubt"
    known = "it is not known whether it took effect" if doubt else "it took effect, as its tool says"
    return f"the commit of {act.what} raised {type(error).__name__}: {error}; {known}; look before retrying"


def _why_aborted(act: Acting, error: BaseException) -> str:
    if act.step is None:
        return "raised" if isinstance(error, Exception) else "given_up"
    return ending_of(error, act.step, act.effects.effect).reason


def _abort(act: Acting, reason: str, error: BaseException | None) -> Steps:
    """Record that nothing takes effect, then tell the tool; until it has been told, it is owed that."""
    unrecorded: InDoubt | None = None
    try:
        yield act.end("aborted", reason, error=error)
    except InDoubt as exc:  # the ledger refuses; the tool can be told all the same
        unrecorded = exc
    if (yield from _tell(act, error)) and unrecorded is None:
        with contextlib.suppress(LedgerError):  # then it will be told again
            yield act.told()
    if unrecorded is not None and error is None:
        raise unrecorded


def _tell(act: Acting, error: BaseException | None) -> Steps:
    """Call the tool's abort, if it was started; whether it has returned, or there was nothing to tell."""
    if act.step is None or not act.step.started:
        return True
    if not act.can_be_told:
        return not act.step.abandoned  # it runs on, and is told of what it comes to hold
    try:
        yield act.beside("abort", act.handle)
    except Exception as exc:  # noqa: BLE001 - a guard point: it is told again when the ledger is next opened
        if error is not None:
            error.add_note(f"its `abort` raised {type(exc).__name__}: {exc}; it will be told again")
        return False
    return True


def _do(act: Acting) -> Steps:
    """Run the tool; what it raises, or what interrupts it, is recorded and raised again."""
    step = act.start()
    try:
        result = yield step
    except BaseException as exc:
        ending = ending_of(exc, step, act.effects.effect)
        yield from _end(act, ending, exc)
        if ending.status == "in_doubt" and isinstance(exc, Exception):
            raise InDoubt(f"{exc}; whether it took effect is not known: look before retrying") from exc
        raise
    act.at_step("ran")
    return result


def _end(act: Acting, ending: Ending, error: BaseException, result: Any = None) -> Steps:
    """Record an ending that was raised; an interruption goes on, whatever the disk says."""
    try:
        yield act.end(ending.status, ending.reason, result=result, error=error)
    except InDoubt as doubt:
        if isinstance(error, Exception):
            raise
        error.add_note(str(doubt))


def ending_of(error: BaseException, step: Invoke, effect: Effect | None) -> Ending:
    """Return how a tool ended that did not return.

    One that was stopped or interrupted is in doubt unless it only reads: a request may have been sent. One that
    raised has ended: `failed` leaves open whether it had its effect before.
    """
    doubt: ExecutionStatus = "cancelled" if effect == "read" else "in_doubt"
    match error:
        case ToolTimeout():
            return Ending(doubt, "timeout")
        case ToolMemory():
            return Ending(doubt, "memory")
        case ToolCrashed(began=False):
            return Ending("aborted", "crashed")
        case ToolCrashed():
            return Ending(doubt, "crashed")
        case Exception():
            return Ending("failed", "raised")
    if not step.started:
        return Ending("aborted", "given_up")
    return Ending(doubt, "cancelled")


def _judge(act: Acting, result: Any) -> Steps:
    """Ask the guards in order, until one says no. Raises only what interrupts."""
    for guard in act.effects.guards:
        act.at_step("judging")
        try:
            said = guards.verdict_of(guard, (yield act.ask(guard, result)))
        except Exception as exc:  # noqa: BLE001 - a guard point: what raises has not agreed
            said = guards.failure_of(guard, exc)
        except BaseException as exc:
            act.verdicts.append(guards.failure_of(guard, exc))
            raise
        act.verdicts.append(said)
        if not said.passed:
            break
    if act.effects.guards:
        act.at_step("judged")


def _require_accepted(act: Acting, consequence: str) -> None:
    rejected = guards.rejection(act.verdicts)
    if rejected is not None:
        why = f": {rejected.reason}" if rejected.reason else ""
        assert act.outcome is not None  # noqa: S101 - recorded before
        raise GuardRejected(f"guard {rejected.guard!r} rejected {act.what}{why}; {consequence}", act.outcome)


_LIVES: Final[Mapping[Effect | None, Callable[[Acting], Steps]]] = {
    None: _at_once,
    "read": _at_once,
    "idempotent": _at_once,
    "staged": _staged,
    "compensable": _compensable,
}
