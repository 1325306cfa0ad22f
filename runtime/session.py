"""A session: who acts, for whom, in which tenant, with which scopes; and the life of one governed call.

One rule: `call` returns a result only if the verdict let the tool run and the decision was durable before.
"""

from __future__ import annotations

import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from runtime.broker import Blocking, Invoke, Step, drive, drive_async, recorded_result
from runtime.canonical import canonical, content_hash, new_id, sha256
from runtime.errors import (
    ApprovalRequired,
    Blocked,
    CommitConflict,
    GovernanceError,
    IdempotencyConflict,
)
from runtime.ledger import Claim, ClaimTaken, SessionStep
from runtime.policy import Decision, Prepared
from runtime.record import content_rows, decision_row, execution_row
from runtime.request import Request
from runtime.tools import StoredResult, store_result
from runtime.trace import BLOBS, DECISIONS, OUTCOMES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from datetime import datetime
    from types import TracebackType

    from runtime.entities import EntityUid
    from runtime.loop import Runtime
    from runtime.record import Row
    from runtime.tools import Bound, Tool
    from runtime.trace import ExecutionStatus

_ATTEMPTS = 16
"""How often a call is decided again when another call of the same session got in between."""

_entered: ContextVar[tuple[Session, ...]] = ContextVar("redecide_sessions", default=())
"""Sessions this context is in, innermost last. A value, so that threads and tasks that share one do not mix."""


def current_session() -> Session | None:
    """Return the session this code runs in; it follows `asyncio` tasks and `contextvars`."""
    return _entered.get()[-1] if _entered.get() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who acts: the same for every call of a session."""

    session_id: str
    tenant: str
    principal: EntityUid
    on_behalf_of: EntityUid | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request being governed."""

    tool: Tool
    bound: Bound
    key: str | None
    key_hash: str | None


class Session:
    """Governed calls under one identity. Open it with `Runtime.session`; use it as a context manager."""

    def __init__(self, runtime: Runtime, identity: Identity) -> None:
        self._runtime = runtime
        self.identity = identity
        self.last_decision: Row | None = None
        """The trace row of the last decision made in this session, whatever the verdict."""
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered.set(_entered.get()[:-1])

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
            InDoubt: the key's first call has no outcome that could be returned. Nothing ran again.
            LedgerError: the trace could not be made durable; before the tool started, nothing ran.
            Exception: whatever the tool raised, recorded as `failed`.

        Durability: decision and outcome are on disk (SQLite FULL) when this returns; the decision, before the
        tool starts.
        """
        found = self._runtime.find_tool(tool)
        _check_key(idempotency_key)
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
        _check_key(idempotency_key)
        with self:
            return await drive_async(self._flow(found, args, kwargs, idempotency_key))

    def _flow(
        self, tool: Tool, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None
    ) -> Generator[Step, Any, Any]:
        attempt = _Attempt(tool, tool.bind(args, kwargs), key, self._key_hash(tool, key))
        row, enforced, conclude = yield Blocking(lambda: self._settle(attempt))
        self.last_decision = row
        if conclude is not None:
            return conclude()
        started = self._runtime.clock()
        try:
            result = yield Invoke(tool, enforced)
        except BaseException as exc:
            status: ExecutionStatus = "failed" if isinstance(exc, Exception) else "cancelled"
            failure = execution_row(
                row, status, started_at=started, ended_at=self._runtime.clock(), error=exc
            )
            yield Blocking(lambda: self._record(failure))
            raise
        ended, stored = self._runtime.clock(), store_result(result, tool.store)
        success = execution_row(row, "succeeded", started_at=started, ended_at=ended, result=stored.columns)
        yield Blocking(lambda: self._record(success, stored))
        return result

    def _key_hash(self, tool: Tool, key: str | None) -> str | None:
        if key is None:
            return None
        who = self.identity
        behalf = None if who.on_behalf_of is None else str(who.on_behalf_of)
        return content_hash([who.tenant, str(who.principal), behalf, tool.name, key])

    def _settle(self, attempt: _Attempt) -> tuple[Row, Mapping[str, Any] | None, Callable[[], Any] | None]:
        """Decide and make the decision durable.

        Returns:
            The row; the arguments to run; and, if the tool is not to run, what to do instead (return or raise).
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return self._settle_once(attempt)
                except (CommitConflict, ClaimTaken):
                    continue  # another process moved the session or took the key: decide on what holds now
        raise CommitConflict(
            f"session {self.identity.session_id!r} is moved by others faster than it can decide"
        )

    def _settle_once(
        self, attempt: _Attempt
    ) -> tuple[Row, Mapping[str, Any] | None, Callable[[], Any] | None]:
        ledger = self._runtime.ledger
        claim = ledger.claim(attempt.key_hash) if attempt.key_hash else None
        began = time.perf_counter_ns()
        request = self._request(attempt)
        if claim is not None:
            return self._settle_repeat(attempt, request, claim, began)
        decision = self._runtime.decide(request, attempt.tool, attempt.bound.refusal)
        new_claim = None
        if decision.runs and attempt.key_hash:
            new_claim = Claim(attempt.key_hash, _args_hash(attempt), request.decision_id)
        row = self._commit(decision, began, claim=new_claim, ran=decision.runs)
        return row, decision.enforced_args, None if decision.runs else _raiser(decision)

    def _settle_repeat(
        self, attempt: _Attempt, request: Request, claim: Claim, began: int
    ) -> tuple[Row, None, Callable[[], Any]]:
        """An idempotency hit: passes policy first, is recorded as `duplicate`, and never runs the tool."""
        ledger, original = self._runtime.ledger, self._runtime.ledger.decision(claim.decision_id)
        if claim.args_hash != _args_hash(attempt):
            decision = _refuse(
                request,
                "idempotency_conflict",
                f"idempotency key {attempt.key!r} was used by decision {claim.decision_id} with other arguments",
            )
            row = self._commit(decision, began, repeat_of=claim.decision_id)
            return row, None, _raiser(decision, IdempotencyConflict(decision.reason))
        decision = self._runtime.decide(request, attempt.tool, attempt.bound.refusal)
        if decision.runs and not _same_action(decision, original):
            decision = _refuse(
                request, "duplicate_differs", f"what would run now differs from what {claim.decision_id} ran"
            )
        row = self._commit(decision, began, repeat_of=claim.decision_id)
        if not decision.runs:
            return row, None, _raiser(decision)
        return row, None, lambda: recorded_result(ledger.outcome_of(claim.decision_id), ledger.blob)

    def _request(self, attempt: _Attempt) -> Request:
        who = self.identity
        counters = self._runtime.ledger.session(who.tenant, who.session_id)
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
            tenant=request.tenant, session_id=request.session_id, expected_step=request.step, ran=ran
        )
        contents: Iterable[tuple[Table, Row]] = (*runtime.policy_rows, *content_rows(decision))
        links = runtime.ledger.commit(
            contents=list(contents), evidence=[(DECISIONS, row)], claim=claim, session=step
        )
        return row | links[0]

    def _record(self, outcome: Row, stored: StoredResult | None = None) -> None:
        blobs = [(BLOBS, stored.blob)] if stored is not None and stored.blob is not None else []
        self._runtime.ledger.commit(contents=blobs, evidence=[(OUTCOMES, outcome)])


def _check_key(key: object) -> None:
    if key is None:
        return
    if not isinstance(key, str) or not key:
        raise IdempotencyConflict(f"an idempotency key is a non-empty string, got {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise IdempotencyConflict(f"an idempotency key must be valid Unicode: {exc}") from exc


def _args_hash(attempt: _Attempt) -> str:
    return sha256(canonical(dict(attempt.bound.args)))


def _same_action(decision: Decision, original: Mapping[str, Any] | None) -> bool:
    now = decision.enforced_args
    return original is not None and now is not None and canonical(dict(now)) == original["enforced_args"]


def _refuse(request: Request, code: str, reason: str) -> Decision:
    """Refuse a repeat; the arguments are recorded, nothing is compiled."""
    return Decision(
        request=request,
        verdict="block",
        decided_by="request",
        reason_code=code,
        reason=reason,
        first=Prepared(args=request.args),
    )


def _raiser(decision: Decision, error: GovernanceError | None = None) -> Callable[[], Any]:
    """Return a function that raises what the caller of a call that does not run must see."""
    if error is None:
        text = (
            f"{decision.request.tool}: {decision.reason} ({decision.reason_code}, by {decision.decided_by})"
        )
        error = ApprovalRequired(text, decision) if decision.verdict == "approve" else Blocked(text, decision)

    def conclude() -> Any:
        raise error

    return conclude


def _whole_milliseconds(moment: datetime) -> datetime:
    """Cut a moment to the milliseconds that Cedar's `datetime` has."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _loop_is_running() -> bool:
    """Whether an event loop runs in this thread; asyncio is not imported to find out that it does not."""
    if "asyncio" not in sys.modules:
        return False
    return sys.modules["asyncio"]._get_running_loop() is not None  # noqa: SLF001 - documented in asyncio.events


__all__ = ["Identity", "Session", "current_session"]
