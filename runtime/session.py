"""A session: who acts, for whom, in which tenant, with which scopes; and the life of one governed call.

One rule: `call` returns a result only if the verdict let the tool run and the decision was durable before.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from runtime.broker import Blocking, Invoke, Step, drive, drive_async, recorded_result
from runtime.canonical import content_hash, new_id
from runtime.errors import (
    CommitConflict,
    GovernanceError,
    IdempotencyConflict,
    InDoubt,
    LedgerError,
    RegistrationError,
)
from runtime.ledger import Claim, ClaimTaken, SessionCounters, SessionMoved, SessionStep
from runtime.record import content_rows, decision_row, execution_row
from runtime.request import Request
from runtime.settling import Attempt, Handover, Settled, args_hash, check_key, raiser, refuse, same_action
from runtime.tools import StoredResult, store_result
from runtime.trace import BLOBS, DECISIONS, OUTCOMES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from datetime import datetime
    from types import TracebackType

    from runtime.identity import Identity
    from runtime.loop import Runtime
    from runtime.policy import Decision
    from runtime.record import Row
    from runtime.tools import Tool
    from runtime.trace import ExecutionStatus

_ATTEMPTS = 16
"""How often a call is decided again when another call of the same session got in between."""

_entered: ContextVar[tuple[Session, ...]] = ContextVar("redecide_sessions", default=())
"""Sessions this context is in, innermost last. A value, so that threads and tasks that share one do not mix."""


def current_session() -> Session | None:
    """Return the session this code runs in; it follows `asyncio` tasks and `contextvars`."""
    return _entered.get()[-1] if _entered.get() else None


_deciding: ContextVar[Session | None] = ContextVar("redecide_deciding", default=None)
"""The session that is deciding in this context: its own tools are out of reach of the sources it asks."""


class Session:
    """Governed calls under one identity. Open it with `Runtime.session`; use it as a context manager."""

    def __init__(self, runtime: Runtime, identity: Identity) -> None:
        self._runtime = runtime
        self.identity = identity
        self.last_decision: Row | None = None
        """The trace row of the last decision made in this session, whatever the verdict."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its own entry, wherever it is: sessions need not be left in the order they were entered in.
        found = _entered.get()
        last = max((i for i, session in enumerate(found) if session is self), default=len(found))
        _entered.set(found[:last] + found[last + 1 :])

    def is_of(self, runtime: Runtime) -> bool:
        """Whether `runtime` opened this session."""
        return self._runtime is runtime

    def __repr__(self) -> str:
        who = self.identity
        behalf = f" for {who.on_behalf_of}" if who.on_behalf_of else ""
        return f"<Session {who.session_id}: {who.principal}{behalf} in tenant {who.tenant!r}>"

    def call(
        self, tool: str | Callable[..., Any], /, *args: Any, idempotency_key: str | None = None, **kwargs: Any
    ) -> Any:
        """Govern one call and run it if the verdict allows.

        Args:
            tool: the registered function, or its name.
            args: positional arguments of the tool.
            idempotency_key: at most one effect per (tenant, principal, on-behalf-of, tool, key); None: no
                deduplication.
            kwargs: arguments of the tool.

        Returns:
            What the tool returned; for an idempotent repeat, the recorded result as JSON.

        Raises:
            Blocked: the verdict is *block*; `.decision` says why. Nothing ran.
            ApprovalRequired: the verdict is *approve*. Nothing ran.
            IdempotencyConflict: the key was used with other arguments. Nothing ran.
            InDoubt: the key's first call has no outcome that could be returned, and nothing ran again; or the
                tool ran, and its outcome could not be made durable.
            LedgerError: the decision could not be made durable. Nothing ran.
            RegistrationError: no such tool, or the session is somebody else's. Nothing ran.
            Exception: whatever the tool raised, recorded as `failed` (`StopIteration` as a `RuntimeError`).

        Durability: decision and outcome are on disk (SQLite FULL) when this returns; the decision, before the
        tool starts.
        """
        found = self._runtime.find_tool(tool)
        check_key(idempotency_key)
        if found.is_async and _loop_is_running():
            raise GovernanceError(
                f"tool {found.name!r} is async and a loop is running; use `await session.acall(…)`"
            )
        with self:
            return drive(self._flow(found, args, kwargs, idempotency_key))

    async def acall(
        self, tool: str | Callable[..., Any], /, *args: Any, idempotency_key: str | None = None, **kwargs: Any
    ) -> Any:
        """Govern one call from async code, without blocking the event loop. See `call`."""
        found = self._runtime.find_tool(tool)
        check_key(idempotency_key)
        with self:
            return await drive_async(self._flow(found, args, kwargs, idempotency_key))

    def _flow(
        self, tool: Tool, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None
    ) -> Generator[Step, Any, Any]:
        attempt = Attempt(tool, tool.bind(args, kwargs), key, self._key_hash(tool, key))
        handover = Handover()
        try:
            settled: Settled = yield Blocking(lambda: self._hand_over(attempt, handover))
        except BaseException as exc:
            if handover.came_second():
                late, why = handover.settled, exc
                with contextlib.suppress(InDoubt):  # then it stays in doubt, and the interruption goes on
                    yield Blocking(lambda: self._abort(late, why), finish=True)
            raise
        self.last_decision = settled.row
        if settled.instead is not None:
            return settled.instead()
        started = self._runtime.clock()
        try:
            result = yield Invoke(tool, settled.enforced or {})
        except BaseException as exc:
            failure = self._failure(settled.row, started, exc)
            try:
                yield Blocking(lambda: self._record(failure), finish=True)
            except InDoubt as doubt:
                if isinstance(exc, Exception):
                    raise
                exc.add_note(str(doubt))  # an interruption goes on, whatever the disk says
            raise
        stored = store_result(result, tool.store)
        success = execution_row(
            settled.row,
            "succeeded",
            started_at=started,
            ended_at=self._runtime.clock(),
            result=stored.columns,
        )
        yield Blocking(lambda: self._record(success, stored), finish=True)
        return result

    def _failure(self, row: Row, started: datetime, error: BaseException) -> Row:
        status: ExecutionStatus = "failed" if isinstance(error, Exception) else "cancelled"
        return execution_row(row, status, started_at=started, ended_at=self._runtime.clock(), error=error)

    def _hand_over(self, attempt: Attempt, handover: Handover) -> Settled:
        """Settle, and give an outcome to what nobody waits for any more."""
        handover.settled = self._settle(attempt)
        if handover.came_second():
            self._abort(handover.settled, None)
        return handover.settled

    def _abort(self, settled: Settled | None, error: BaseException | None) -> None:
        """Record that a call was let run and given up before its tool started."""
        if settled is None or settled.instead is not None:
            return
        now = self._runtime.clock()
        self._record(execution_row(settled.row, "aborted", started_at=None, ended_at=now, error=error))

    def _key_hash(self, tool: Tool, key: str | None) -> str | None:
        if key is None:
            return None
        who = self.identity
        behalf = None if who.on_behalf_of is None else str(who.on_behalf_of)
        return content_hash([who.tenant, str(who.principal), behalf, tool.name, key])

    def _settle(self, attempt: Attempt) -> Settled:
        """Decide and make the decision durable."""
        if _deciding.get() is self:
            raise GovernanceError(
                f"tool {attempt.tool.name!r} is called by a source of facts while its session decides; "
                "sources only read: call the system of record itself"
            )
        with self._lock:
            token = _deciding.set(self)
            try:
                for _ in range(_ATTEMPTS):
                    try:
                        return self._settle_once(attempt)
                    except (SessionMoved, ClaimTaken):
                        continue  # another process moved the session or took the key: decide on what holds now
            finally:
                _deciding.reset(token)
        raise CommitConflict(
            f"session {self.identity.session_id!r} is moved by others faster than it can decide; safe to retry"
        )

    def _settle_once(self, attempt: Attempt) -> Settled:
        ledger = self._runtime.ledger
        claim = ledger.claim(attempt.key_hash) if attempt.key_hash else None
        began = time.perf_counter_ns()
        request = self._request(attempt)
        if claim is not None:
            return self._settle_repeat(attempt, request, claim, began)
        decision = self._runtime.decide(request, attempt.tool, attempt.bound.refusal)
        new_claim = None
        if decision.runs and attempt.key_hash:
            new_claim = Claim(attempt.key_hash, args_hash(attempt), request.decision_id)
        row = self._commit(decision, began, claim=new_claim, ran=decision.runs)
        return Settled(row, decision.enforced_args, None if decision.runs else raiser(decision))

    def _settle_repeat(self, attempt: Attempt, request: Request, claim: Claim, began: int) -> Settled:
        """An idempotency hit: passes policy first, is recorded as `duplicate`, and never runs the tool."""
        ledger, original = self._runtime.ledger, self._runtime.ledger.decision(claim.decision_id)
        if claim.args_hash != args_hash(attempt):
            decision = refuse(
                request,
                "idempotency_conflict",
                f"idempotency key {attempt.key!r} was used by decision {claim.decision_id} with other arguments",
            )
            row = self._commit(decision, began, repeat_of=claim.decision_id)
            return Settled(row, None, raiser(decision, IdempotencyConflict(decision.reason)))
        decision = self._runtime.decide(request, attempt.tool, attempt.bound.refusal)
        if decision.runs and not same_action(decision, original):
            decision = refuse(
                request, "duplicate_differs", f"what would run now differs from what {claim.decision_id} ran"
            )
        row = self._commit(decision, began, repeat_of=claim.decision_id)
        if not decision.runs:
            return Settled(row, None, raiser(decision))
        return Settled(row, None, lambda: recorded_result(ledger.outcome_of(claim.decision_id), ledger.blob))

    def counters(self) -> SessionCounters:
        """Return where the session stands.

        Raises:
            RegistrationError: somebody else began it.
        """
        who = self.identity
        found = self._runtime.ledger.session(who.tenant, who.session_id)
        if found.owner not in (None, who.owner):
            raise RegistrationError(
                f"session {who.session_id!r} of tenant {who.tenant!r} is of {found.owner}, not of {who.owner}; "
                "leave `session_id` out for a fresh one"
            )
        return found

    def _request(self, attempt: Attempt) -> Request:
        who, counters = self.identity, self.counters()
        return Request(
            decision_id=new_id(),
            session_id=who.session_id,
            step=counters.next_step,
            tenant=who.tenant,
            principal=who.principal,
            on_behalf_of=who.on_behalf_of,
            scopes=who.scopes,
            tool=attempt.tool.name,
            resource=attempt.tool.resource,
            required_scopes=attempt.tool.scopes,
            args=attempt.bound.args,
            idempotency_key=attempt.key,
            at=_whole_milliseconds(self._runtime.clock()),
            session_state={"calls": counters.calls},
        )

    def _commit(
        self,
        decision: Decision,
        began: int,
        *,
        claim: Claim | None = None,
        ran: bool = False,
        repeat_of: str | None = None,
    ) -> Row:
        runtime, request = self._runtime, decision.request
        row = decision_row(
            decision,
            runtime.bundle,
            decided_at=runtime.clock(),
            latency_us=(time.perf_counter_ns() - began) // 1000,
            engine=runtime.engine,
            kind="call" if repeat_of is None else "duplicate",
            linked_to=repeat_of,
        )
        step = SessionStep(
            tenant=request.tenant,
            session_id=request.session_id,
            expected_step=request.step,
            ran=ran,
            owner=self.identity.owner,
        )
        contents: Iterable[tuple[Table, Row]] = (*runtime.policy_rows, *content_rows(decision))
        links = runtime.ledger.commit(
            contents=list(contents), evidence=[(DECISIONS, row)], claim=claim, session=step
        )
        return row | links[0]

    def _record(self, outcome: Row, stored: StoredResult | None = None) -> None:
        blobs = [(BLOBS, stored.blob)] if stored is not None and stored.blob is not None else []
        try:
            self._runtime.ledger.commit(contents=blobs, evidence=[(OUTCOMES, outcome)])
        except LedgerError as exc:
            raise InDoubt(
                f"decision {outcome['decision_id']} ended as {outcome['status']}, and that could not be recorded: "
                f"{exc}"
            ) from exc


def _whole_milliseconds(moment: datetime) -> datetime:
    """Cut a moment to the milliseconds that Cedar's `datetime` has."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _loop_is_running() -> bool:
    """Whether an event loop runs in this thread; asyncio is not imported to find out that it does not."""
    if "asyncio" not in sys.modules:
        return False
    return sys.modules["asyncio"]._get_running_loop() is not None  # noqa: SLF001 - documented in asyncio.events


__all__ = ["Session", "current_session"]
