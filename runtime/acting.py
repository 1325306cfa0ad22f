"""One action under way: where it stands, the steps it asks for, and how each is made durable.

One rule: the state here follows the ledger's, never leads it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from runtime import actions, guards, metering
from runtime.broker import Blocking, Invoke, call_now
from runtime.canonical import NotCanonical, canonical
from runtime.errors import InDoubt, LedgerError
from runtime.foreign import message_of
from runtime.guards import Guard, Proposal, Verdict
from runtime.lifecycle import FIRST, TRANSITIONS, State, after, concluded
from runtime.record import execution_row
from runtime.settling import effect_id_of
from runtime.tools import store_result
from runtime.trace import BLOBS, OUTCOMES
from runtime.usage import Collector, Usage
from runtime.values import micros

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from runtime.canonical import Json
    from runtime.identity import Identity
    from runtime.loop import Runtime
    from runtime.record import Row
    from runtime.tools import StoredResult, Tool
    from runtime.trace import ExecutionStatus

_unrecorded: WeakKeyDictionary[Runtime, list[Callable[[], None]]] = WeakKeyDictionary()
"""Endings that a disk refused, by runtime: recorded as soon as it takes them, or others would wait for ever."""


def record_late(runtime: Runtime) -> None:
    """Try again what could not be recorded; what still cannot stays for the next time."""
    if not _unrecorded:
        return
    waiting = _unrecorded.pop(runtime, None) or []
    for record in waiting:
        try:
            record()
        except InDoubt:
            _unrecorded.setdefault(runtime, []).append(record)


HANDLE_BYTES = 32 * 1024
"""Handles above this are not kept for recovery; their tool is then told, or asked, by `effect_id` alone."""


class Acting:
    """One action that was let run."""

    def __init__(
        self, runtime: Runtime, tool: Tool, decision: Row, args: Mapping[str, Json], who: Identity
    ) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self.thread = threading.get_ident()
        """That drives it."""
        self.tool = tool
        self.effects = tool.effects
        self.decision = decision
        self.decision_id = str(decision["decision_id"])
        self.effect_id = effect_id_of(decision)
        self.args = args
        self.what = f"decision {self.decision_id} of tool {tool.name!r}"
        self.state: State | ExecutionStatus = FIRST[self.effects.effect]
        """As the ledger has it; an ending, once that is recorded."""
        self.began: datetime | None = None
        self.step: Invoke | None = None
        """The tool itself, once it was asked for."""
        self.handle: Any = None
        self.verdicts: list[Verdict] = []
        self.outcome: Row | None = None
        self.reported = Collector()
        """What its functions report of their usage while they run."""
        self._who = who

    def at_step(self, name: str) -> None:
        """Pass a named point of `runtime.protocol.STEPS`."""
        self._runtime.at_step(name)

    # -- somebody's functions ----------------------------------------------------------------------------------

    def start(self) -> Invoke:
        """Ask for the tool itself."""
        args = dict(self.args)
        if self.tool.takes_effect_id:
            args["effect_id"] = self.effect_id
        self.began = self._runtime.clock()
        self.step = Invoke(
            name=f"tool {self.tool.name!r}",
            fn=self.tool.fn,
            args=args,
            timeout=self.effects.timeout,
            isolate=self.effects.isolate,
            late=self._late,
        )
        return self.step

    def beside(self, name: str, value: Any) -> Invoke:
        """Ask for a function beside the tool; a cancellation waits for it."""
        callback = getattr(self.effects, name)
        return Invoke(
            name=f"`{name}` of tool {self.tool.name!r}",
            fn=callback.fn,
            args=callback.arguments(value, self.effect_id),
            timeout=self.effects.timeout,
            finish=True,
            isolate=self.effects.isolate,
            late=self._late if name == "commit" else None,
        )

    @property
    def can_be_told(self) -> bool:
        """Whether its `abort` has something to know the effect by: a handle, or the effect's id."""
        abort = self.effects.abort
        return abort is not None and (abort.takes_effect_id or self.handle is not None)

    def ask(self, guard: Guard, result: Any) -> Invoke:
        """Ask a guard; it gets copies of what is JSON, so that it judges and changes nothing."""
        proposal = Proposal(
            tool=self.tool.name,
            args=_copy(dict(self.args)),
            result=_copy(result),
            decision_id=self.decision_id,
            effect_id=self.effect_id,
            identity=self._who,
        )
        return Invoke(
            name=f"guard {guard.name!r}", fn=lambda: guard.fn(proposal), args={}, timeout=guard.timeout
        )

    # -- what is made durable ----------------------------------------------------------------------------------

    def move(self, *states: State, handle: Any = None) -> Blocking:
        """Ask to move on through `states`, in one transaction."""
        return Blocking(lambda: self._move(states, handle), finish=True)

    def _move(self, states: tuple[State, ...], handle: Any) -> None:
        at, moves, old = micros(self._runtime.clock()), [], self.state
        text, said = _handle_text(handle), guards.recorded(self.verdicts)
        for new in states:
            moves.append(
                actions.move(self.decision_id, old, new, at=at, handle=text, guards=said)  # type: ignore[arg-type]  # a state: it has not ended
            )
            old = new
        self._runtime.ledger.commit(moves=moves)
        self.state = old
        self.at_step(old)

    def end(
        self, status: ExecutionStatus, reason: str, *, result: Any = None, error: BaseException | None = None
    ) -> Blocking:
        """Ask to record how it ended.

        Raises (when it is done):
            InDoubt: it could not be made durable.
        """
        stored = (
            store_result(result, self.tool.store) if status == "succeeded" and reason != "asked" else None
        )
        outcome = self._outcome(status, reason, stored, error)
        reported = self.reported.take(last=status != "in_doubt")
        outcome |= reported.columns() if stored is None else self._usage(result, reported)
        return Blocking(lambda: self._end(outcome, stored), finish=True)

    def _outcome(
        self, status: ExecutionStatus, reason: str, stored: StoredResult | None, error: BaseException | None
    ) -> Row:
        row = execution_row(
            self.decision,
            status,
            started_at=self.began if self.step is not None and self.step.started else None,
            ended_at=self._runtime.clock(),
            result=None if stored is None else stored.columns,
            error=error,
        )
        return row | {"reason_code": reason, "guards": guards.recorded(self.verdicts)}

    def _usage(self, result: Any, reported: Usage) -> Row:
        """What the call cost: as it was reported, and as the tool tells from its result, unless it fails to."""
        if self.effects.usage is None:
            return reported.columns()
        try:
            return (reported + (self.effects.usage(result) or Usage())).columns()
        except Exception as exc:  # noqa: BLE001 - a guard point: the tool has run, and its outcome must be recorded
            said = canonical({"usage": f"{type(exc).__name__}: {message_of(exc)}"})
            return {**reported.columns(), "details": said}

    def _end(self, outcome: Row, stored: StoredResult | None = None) -> None:
        self.at_step("ending")
        blobs = [(BLOBS, stored.blob)] if stored is not None and stored.blob is not None else []
        with self._lock:
            if self.state not in TRANSITIONS or self.state == "aborting":
                return  # it ended meanwhile, in the thread that ran it on
            try:
                (row,) = self._runtime.ledger.commit(
                    contents=blobs,
                    evidence=[(OUTCOMES, outcome)],
                    moves=metering.settles(self._runtime.limits_of(self.decision), outcome),
                )
            except LedgerError as exc:
                raise InDoubt(
                    f"{self.what} ended as {outcome['status']}, and that could not be recorded: {exc}"
                ) from exc
            self.outcome = row
            self.state = after(self.state, outcome["status"])  # type: ignore[arg-type]  # a state, and a status
        self._runtime.running.pop(self.decision_id, None)
        self.at_step("aborting" if self.state == "aborting" else "ended")

    def told(self) -> Blocking:
        """Ask to end, its tool knowing that it was aborted."""
        return Blocking(self._told, finish=True)

    def _told(self) -> None:
        self._runtime.ledger.commit(moves=[actions.told(self.decision_id)])
        self.state = "aborted"
        self.at_step("told")

    # -- what comes after --------------------------------------------------------------------------------------

    def _late(self, result: Any, error: BaseException | None) -> None:
        """Record what came of a function that nobody waited for, if nothing but doubt is recorded of it.

        Not where guards would have judged it: they have not. Not if the ledger is closed: it stays in doubt.
        """
        staged = self.effects.effect == "staged"
        if staged and error is None and self.state in ("aborting", "aborted"):
            self._release(result)
            return
        if self.state not in ("started", "committing", "in_doubt") or (self.effects.guards and not staged):
            return
        with contextlib.suppress(InDoubt):
            if error is None:
                self.end("succeeded", "returned", result=result).work()
            elif isinstance(error, Exception) and not staged:
                self.end("failed", "raised", error=error).work()

    def _release(self, handle: Any) -> None:
        """Let go of what a given-up prepare has come to hold after all; told again by recovery where that fails."""
        self.handle = handle
        with contextlib.suppress(Exception):  # a guard point: nobody waits for it any more
            call_now(self.beside("abort", handle))
            if self.state == "aborting":
                self._told()

    def cut_short(self, error: BaseException | None) -> None:
        """Record what is known of an action whose flow ended without saying so, or must not be waited for.

        Raises:
            InDoubt: it could not be made durable.
        """
        self._runtime.running.pop(self.decision_id, None)
        if self.state not in TRANSITIONS:
            return
        found = concluded(self.state, self.effects.effect)  # type: ignore[arg-type]  # a state
        if found is None:
            return
        begun = self.step is not None and self.step.started
        ending = (found.status, "cancelled") if begun else ("aborted", "given_up")
        conclude = self.end(*ending, error=error).work
        try:
            conclude()
        except InDoubt:
            _unrecorded.setdefault(self._runtime, []).append(conclude)
            raise
        if not begun and self.state == "aborting":
            self._told()  # its tool has nothing to hear of


def _handle_text(handle: Any) -> str | None:
    """What is kept of a handle: its JSON, if it has one of a moderate size."""
    try:
        text = canonical(handle)
    except (
        NotCanonical,
        ValueError,
        RecursionError,
        TypeError,
    ):  # a result may be anything; losing it stops no undo
        return None
    return text if len(text) <= HANDLE_BYTES and handle is not None else None


def _copy(value: Any) -> Any:
    """A copy of JSON; anything else as it is."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
