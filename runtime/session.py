"""A session: who acts, for whom, in which tenant, with which scopes; and the life of one governed call.

One rule: `call` returns a result only if the verdict let the tool run and the decision was durable before.
"""

from __future__ import annotations

import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from runtime.approvals import still_waiting
from runtime.deciding import Settler
from runtime.errors import GovernanceError
from runtime.flow import Flow
from runtime.resuming import own_approval, pauses, resumption
from runtime.settling import Attempt, check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from runtime.approval import Approval
    from runtime.identity import Identity
    from runtime.ledger import SessionCounters
    from runtime.loop import Runtime
    from runtime.record import Row
    from runtime.tools import Tool

_entered: ContextVar[tuple[Session, ...]] = ContextVar("redecide_sessions", default=())
"""Sessions this context is in, innermost last. A value, so that threads and tasks that share one do not mix."""


def current_session() -> Session | None:
    """Return the session this code runs in; it follows `asyncio` tasks and `contextvars`."""
    return _entered.get()[-1] if _entered.get() else None


class Session:
    """Governed calls under one identity. Open it with `Runtime.session`; use it as a context manager."""

    def __init__(self, runtime: Runtime, identity: Identity) -> None:
        self._runtime = runtime
        self.identity = identity
        self.last_decision: Row | None = None
        """The trace row of the last decision made in this session, whatever the verdict."""
        self._settler = Settler(runtime, identity)

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its own entry, wherever it is: sessions need not be left in the order they were entered in.
        found = _entered.get()
        if found[-1:] == (self,):
            _entered.set(found[:-1])
            return
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
            GuardRejected: an output guard said no, or did not answer; `.outcome` says what became of the effect:
                nothing was committed, it was undone, or it took effect and its result is withheld.
            InProgress: the key's first call still runs, here or in another process. Safe to ask again.
            InDoubt: it may have taken effect: the tool was stopped or its commit raised, its outcome could not be
                made durable, or the key's first call has no outcome that could be returned. Never retry blindly.
            ToolTimeout, ToolMemory: a tool that only reads, or a prepare, took more than it may. No effect.
            LedgerError: the decision could not be made durable, or a staged effect not be committed. No effect.
            ShuttingDown: the process was told to end. Nothing ran.
            RegistrationError: no such tool, or the session is somebody else's. Nothing ran.
            Exception: whatever the tool raised, recorded as `failed` (`StopIteration` as a `RuntimeError`); of a
                staged tool's prepare, as `aborted`.

        Durability: decision and outcome are on disk (SQLite FULL) when this returns; the decision, before the
        tool starts; of a staged tool, its handle before the guards judge, and their verdicts before the commit.
        Cost: one transaction where nothing runs, two where the tool runs (three or four if it is staged, one more
        to undo).
        """
        found = self._runtime.find_tool(tool)
        check_key(idempotency_key)
        _refuse_in_loop(found, "acall")
        with self:
            return self._flow(found, args, kwargs, idempotency_key).drive()

    async def acall(
        self, tool: str | Callable[..., Any], /, *args: Any, idempotency_key: str | None = None, **kwargs: Any
    ) -> Any:
        """Govern one call from async code, without blocking the event loop. See `call`."""
        found = self._runtime.find_tool(tool)
        check_key(idempotency_key)
        with self:
            return await self._flow(found, args, kwargs, idempotency_key).drive_async()

    def _flow(self, tool: Tool, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None) -> Flow:
        attempt = Attempt(tool, tool.bind(args, kwargs), key, self._settler.key_hash(tool, key))
        return Flow(self._settler, attempt, self._decided)

    def resume(self, approval_id: str, *, wait: float = 0) -> Any:
        """Run a call that waited for approval, once it is granted. Any session of the same identity may, anywhere.

        The original request runs again through all stages, with the forbids lifted that people granted. What would
        be enforced has to be exactly what they approved. The grants are used up in the transaction that lets the
        tool run: of several that resume at once, one runs.

        Args:
            approval_id: `ApprovalRequired.approval_id`.
            wait: seconds to wait for an answer first.

        Returns:
            What `call` would have returned.

        Raises:
            ApprovalRequired: not everything is granted yet, or what would run now needs a further approval, whose id
                it names. Nothing ran.
            Blocked: denied, expired, used before, or granted for another action than this has become. Nothing ran.
            ApprovalUnknown: there is none that this session asked for. Nothing ran.
            Exception: as `call`.

        Durability: as `call`; the resumed decision is a row of its own, linked to the one that asked.
        """
        if wait:
            self.wait(approval_id, wait)
        settler, attempt = resumption(self._runtime, self.identity, approval_id)
        _refuse_in_loop(attempt.tool, "aresume")
        with self:
            return Flow(settler, attempt, self._decided).drive()

    async def aresume(self, approval_id: str, *, wait: float = 0) -> Any:
        """Resume from async code, without blocking the event loop. See `resume`."""
        import asyncio  # noqa: PLC0415 - loaded already where this runs

        if wait:
            await self.await_approval(approval_id, wait)
        settler, attempt = await asyncio.to_thread(resumption, self._runtime, self.identity, approval_id)
        with self:
            return await Flow(settler, attempt, self._decided).drive_async()

    def wait(self, approval_id: str, timeout: float | None = None) -> Approval:
        """Wait until people answered: in this process or another, across restarts.

        Args:
            approval_id: `ApprovalRequired.approval_id`.
            timeout: seconds; None: until it is answered or expires.

        Returns:
            The approval, no longer pending: granted, denied, expired or used.

        Raises:
            ApprovalRequired: it still waits.
            ApprovalUnknown: there is none that this session asked for.
        """
        found = own_approval(self._runtime, self.identity, approval_id)
        for pause in pauses(timeout):
            if found.state != "pending":
                return found
            time.sleep(pause)
            found = own_approval(self._runtime, self.identity, approval_id)
        raise still_waiting(found)

    async def await_approval(self, approval_id: str, timeout: float | None = None) -> Approval:  # noqa: ASYNC109 - as `wait`
        """Wait from async code, without blocking the event loop. See `wait`."""
        import asyncio  # noqa: PLC0415 - loaded already where this runs

        def look() -> Approval:
            return own_approval(self._runtime, self.identity, approval_id)

        found = await asyncio.to_thread(look)
        for pause in pauses(timeout):
            if found.state != "pending":
                return found
            await asyncio.sleep(pause)
            found = await asyncio.to_thread(look)
        raise still_waiting(found)

    def _decided(self, row: Row) -> None:
        self.last_decision = row

    def counters(self) -> SessionCounters:
        """Return where the session stands.

        Raises:
            RegistrationError: somebody else began it.
        """
        return self._settler.counters()


def _refuse_in_loop(tool: Tool, instead: str) -> None:
    if _loop_is_running() and tool.is_async:
        raise GovernanceError(
            f"tool {tool.name!r} is async and a loop is running; use `await session.{instead}(…)`"
        )


def _loop_is_running() -> bool:
    """Whether an event loop runs in this thread; asyncio is not imported to find out that it does not."""
    if "asyncio" not in sys.modules:
        return False
    return sys.modules["asyncio"]._get_running_loop() is not None  # noqa: SLF001 - documented in asyncio.events


__all__ = ["Session", "current_session"]
