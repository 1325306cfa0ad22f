"""The loop: composes the six steps, and holds no logic of its own.

request (`session`, `request`) → compile context (`context`) → evaluate policy (`policy`, `cedar`) → execute under
control (`broker`) → decision trace (`record`, `ledger`, `drain`) → improve (`workbench`, which never runs here).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runtime.approvals import TTL, Approvals
from runtime.bundle import Bundle, load_bundle
from runtime.cedar import engine_name
from runtime.clocks import checked_clock
from runtime.enforced import enforceable
from runtime.errors import RegistrationError
from runtime.following import LOOK_SECONDS
from runtime.identity import checked_label, identity_of, scope_names
from runtime.isolation import elsewhere
from runtime.lake import LakeStore
from runtime.opening import open_runtime
from runtime.record import label_row
from runtime.recovery import Doubt, Recovered, in_doubt, resolve, settle_owed
from runtime.registration import check_against_schema, find_tool, governed
from runtime.session import Session
from runtime.shutdown import finish_calls, shutdown_on
from runtime.stops import Stops
from runtime.tools import ResultStorage, Tool, make_tool
from runtime.trace import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from runtime.acting import Acting
    from runtime.aliases import Alias
    from runtime.authenticators import Authenticator
    from runtime.canonical import Json
    from runtime.drain import DrainReport
    from runtime.enforced import Enforced
    from runtime.entities import EntityUid
    from runtime.following import Follower
    from runtime.guards import Guard, Proposal
    from runtime.isolation import Isolation
    from runtime.ledger import Ledger
    from runtime.lifecycle import Effect
    from runtime.limits import Limits
    from runtime.policy import Decision, Grants
    from runtime.record import Row
    from runtime.request import Request
    from runtime.sources import Source
    from runtime.trace import ExecutionStatus
    from runtime.usage import Usage

F = TypeVar("F", bound="Callable[..., Any]")


class Runtime:
    """Governs tool calls under one policy bundle and records them in one ledger. Open it with `Runtime.open`."""

    def __init__(
        self,
        *,
        enforced: Enforced,
        ledger: Ledger,
        lake: str,
        sources: Mapping[str, Any],
        storage_options: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        self.enforced = enforced
        """What decides; replaced as a whole by `switch`."""
        self.ledger = ledger
        self.lake = lake
        self.clock = checked_clock(clock)
        self.approvals = approvals or Approvals(ledger, clock=self.clock)
        """What waits for people, and how they answer."""
        self.stops = Stops(ledger)
        """Emergency stops, obeyed by every process that shares the ledger."""
        self.engine = engine_name()
        self.follower: Follower | None = None
        """Looks whether the alias that this runtime follows has moved; None: it was given a version."""
        self._given = sources
        self._base = None if "://" in lake else Path(lake)
        self._before: list[Enforced] = []
        self._storage_options = storage_options
        self._closed = False
        self.tools: dict[str, Tool] = {}
        """Registered tools by name."""
        self.running: dict[str, Acting | None] = {}
        """Actions this runtime has under way, by decision; None: it is being decided."""
        self.recovered = Recovered()
        """What opening it concluded about the work of processes that are gone."""
        self.stopping = False
        """Whether it was told to end: calls under way are finished, new ones are refused."""
        self.at_step: Callable[[str], None] = lambda _: None
        """Called at each of `runtime.protocol.STEPS`; for tests, which stop a process there."""
        self._governed: dict[str, Callable[..., Any]] = {}

    @property
    def bundle(self) -> Bundle:
        """The version in force."""
        return self.enforced.bundle

    @property
    def sources(self) -> Mapping[str, Source]:
        """Its sources by name."""
        return self.enforced.sources

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        lake: str | Path,
        ledger: str | Path | None = None,
        sources: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] | None = None,
        authenticators: str | Path | Iterable[Authenticator] = (),
        approval_ttl: timedelta | float = TTL,
        look_every: float = LOOK_SECONDS,
    ) -> Runtime:
        """Open a runtime.

        Args:
            bundle: folder of a policy bundle, or a loaded one, which pins it; or an alias of the lake, `champion`,
                which is followed: when it moves, the version it stands for is enforced.
            lake: folder or URL of the Delta tables; created by the first drain.
            ledger: SQLite file; default `<lake>/_ledger.sqlite` for a local lake, required for a URL.
            sources: locations of the facts that `context.toml` names: a path or URL, a SQLAlchemy engine, a
                callable, or a `Source`.
            storage_options: for an object store, as delta-rs takes them.
            clock: returns the current UTC time; for tests.
            authenticators: who tell who approves: path of an `approvers.toml`, or objects. None: nobody can, here.
            approval_ttl: how long an approval can be granted and used; a number is seconds.
            look_every: seconds from one look at a followed alias to the next.

        Raises:
            BundleError: the bundle cannot be used; the message names file, line and policy. Or no such alias.
            LedgerError: the ledger cannot be opened, or the lake's folder cannot hold Delta tables.
            ClockError: `clock` is no function; at its first use, that it says no usable time.
            GovernanceError: a lake at a URL, and no `ledger`.
        """
        if (instead := elsewhere()) is not None:
            return instead  # type: ignore[no-any-return]  # it stands in for one
        return open_runtime(
            cls, bundle, lake=str(lake), ledger=ledger, sources=sources or {}, storage_options=storage_options,
            clock=clock, authenticators=authenticators, approval_ttl=approval_ttl, look_every=look_every,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Runtime {self.bundle.name} {self.bundle.version[:12]}: {len(self.bundle.policies)} policies, "
            f"{len(self.tools)} tools, lake {self.lake!r}>"
        )

    def tool(
        self,
        fn: F | None = None,
        *,
        name: str | None = None,
        resource: str | None = None,
        scopes: Iterable[str] = (),
        store: ResultStorage = "full",
        effect: Effect | None = None,
        writes: Iterable[str] | None = None,
        guards: Iterable[Callable[[Proposal], Any] | Guard] = (),
        commit: Callable[..., Any] | None = None,
        abort: Callable[..., Any] | None = None,
        undo: Callable[..., Any] | None = None,
        status: Callable[..., Any] | None = None,
        timeout: float | None = None,
        key_ttl: float | None = None,
        usage: Callable[[Any], Usage | None] | None = None,
        isolate: Isolation | None = None,
    ) -> Any:
        """Register a function as a governed tool; use as a decorator.

        The decorated function, called inside `with runtime.session(…)`, is governed; outside it refuses to run.

        Args:
            fn: the function, sync or async.
            name: tool name and Cedar action id; default the function's name.
            resource: `Type::{argument}`; default `Tool::<name>`.
            scopes: scopes a session must hold.
            store: what to keep of results: `full`, `hash` or `none`.
            effect: `read` none; `idempotent` once per idempotency key, by its own promise; `staged` none before its
                commit: `fn` prepares, and returns a handle; `compensable` at once, and `undo` takes it back.
            writes: templates of what it writes, as `resource`; default undeclared, which means its resource.
            guards: judge a `runtime.guards.Proposal` before the commit, or after the effect; see `runtime.guards`.
            commit: of a staged tool, takes the handle; what it returns is the result. One that raises is in doubt,
                unless it raises `NotCommitted` or `status` knows better.
            abort: of a staged tool, takes the handle. It may come twice, and after a crash.
            undo: of a compensable tool, takes the result.
            status: takes the effect's id (and the handle); says `succeeded`, `aborted` or `unknown`.
            timeout: seconds for the tool, and for each function beside it. A tool that only reads is `cancelled`;
                any other is in doubt, because it may be running still.
            key_ttl: seconds after which an idempotency key may be used anew; default never.
            usage: says what a result cost; see `runtime.usage`.
            isolate: run in a child process; see `runtime.isolation`.

        Each of these functions may take a parameter `effect_id`: a stable id, the same for every attempt under one
        idempotency key.

        Raises:
            RegistrationError: the declaration does not fit the function or the bundle's schema.
        """
        declared: dict[str, Any] = {
            "effect": effect, "writes": writes, "guards": guards, "commit": commit, "abort": abort, "undo": undo,
            "status": status, "timeout": timeout, "key_ttl": key_ttl, "usage": usage, "isolate": isolate,
        }  # fmt: skip
        given = {"name": name, "resource": resource, "scopes": scope_names(scopes), "store": store}
        if fn is None:
            return functools.partial(self.tool, **given, **declared)  # type: ignore[arg-type]  # as given
        made = make_tool(fn, **given, declared=declared)  # type: ignore[arg-type]  # as given
        if made.name in self.tools:
            raise RegistrationError(f"tool {made.name!r} is registered already")
        check_against_schema(made, self.bundle)
        self.tools[made.name] = made
        self._governed[made.name] = governed(made, self)
        settle_owed(self, made)
        return self._governed[made.name]

    def find_tool(self, tool: str | Callable[..., Any]) -> Tool:
        """Return a registered tool by its name, by what `Runtime.tool` returned, or by the function it was given.

        Raises:
            RegistrationError: not registered here, though another tool's function may share its name.
        """
        return find_tool(tool, self.tools, self._governed)

    def session(
        self,
        *,
        principal: str | EntityUid,
        tenant: str,
        on_behalf_of: str | EntityUid | None = None,
        scopes: Iterable[str] = (),
        session_id: str | None = None,
    ) -> Session:
        """Open a session under one identity.

        Args:
            principal: the agent, `Agent::refund-bot`.
            tenant: isolation boundary; facts of other tenants are out of reach.
            on_behalf_of: the user the agent acts for.
            scopes: what the session may use; tools declare what they need.
            session_id: default a fresh UUID v7. Naming an earlier session continues it, if it is of the same
                principal and user.

        Raises:
            RegistrationError: a name is not text that can be stored, or the session is somebody else's.
        """
        identity = identity_of(
            principal=principal,
            tenant=tenant,
            on_behalf_of=on_behalf_of,
            scopes=scopes,
            session_id=session_id,
        )
        session = Session(self, identity)
        if session_id is not None:
            session.counters()  # refuses now, not at the first call
        return session

    def decide(
        self,
        request: Request,
        tool: Tool,
        bind_refusal: str | None = None,
        grants: Grants | None = None,
        enforced: Enforced | None = None,
    ) -> Decision:
        """Decide under a version, by default the one in force. Records and executes nothing."""
        return (enforced or self.enforced).decide(request, tool, bind_refusal, grants)

    def switch(self, bundle: str | Path | Bundle, *, alias: Alias | None = None) -> None:
        """Enforce another version from now on; calls under way finish under the one they began with.

        Args:
            bundle: folder of a policy bundle, or a loaded one.
            alias: the row of the log that named it; None: it is pinned, and no alias is followed any more.

        Raises:
            BundleError: it cannot be used. The version before stays in force, as with the next.
            RegistrationError: its schema does not fit a registered tool.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        known = [tool for tool in self.tools.values() if tool.name in self.bundle.schema.actions]
        made = enforceable(loaded, self._given, self._base, tools=known, alias=alias)
        if alias is None and self.follower is not None:
            self.follower.stop()
            self.follower = None
        self._before.append(self.enforced)
        self.enforced = made

    def limits_of(self, decision: Row) -> Limits:
        """The limits that a decision was charged by; those in force, if it was made before this was opened."""
        every = [each.bundle for each in (self.enforced, *reversed(self._before))] if self._before else []
        return next((b for b in every if b.limits_hash == decision.get("limits_hash")), self.bundle).limits

    def followed(self, alias: Alias) -> dict[str, Json] | None:
        """What a decision records of the alias that its version was named by."""
        return None if (follower := self.follower) is None else follower.inputs(alias)

    def label(
        self,
        label: str,
        value: str,
        *,
        session: Session,
        decision_id: str | None = None,
        source: str,
    ) -> None:
        """Record a label on a decision, or on the whole session: what a chargeback, a checker or a person says.

        Raises:
            RecordRefused: something is no text that can be stored, or the decision is of another tenant.

        Durability: on disk when this returns.
        """
        row = label_row(
            session_id=session.identity.session_id,
            tenant=session.identity.tenant,
            decision_id=decision_id,
            label=label,
            value=value,
            source=source,
            recorded_at=self.clock(),
        )
        self.ledger.commit(evidence=[(OUTCOMES, checked_label(row, self.ledger.decision))])

    def in_doubt(self) -> list[Doubt]:
        """Return what may have taken effect and nobody knows, oldest first. Nothing of it is ever retried."""
        return in_doubt(self.ledger, self.running)

    def resolve(self, decision_id: str, status: ExecutionStatus, *, source: str) -> Row:
        """Record what became of an action in doubt, one of `lifecycle.RESOLUTIONS`, as `source` found out.

        Raises:
            ActionMoved: it is not in doubt (any more), or still runs.
            ValueError: no such status, or no source.

        Durability: on disk when this returns.
        """
        return resolve(self, decision_id, status, source)

    def shutdown_on(self, *signals: int) -> None:
        """Make each of these signals end the process cleanly, by `SystemExit(128 + signal)` in the main thread.

        A call there is interrupted and recorded; calls of tasks are cancelled; those of other threads are waited
        for. Then the ledger is drained and closed. New calls raise `ShuttingDown`. A second signal is not caught.

        Raises:
            GovernanceError: this is not the main thread.
        """
        shutdown_on(self, *signals)

    def drain(self) -> DrainReport:
        """Move what the ledger holds into the lake's Delta tables, exactly once. Safe to call at any time."""
        from runtime.drain import drain  # noqa: PLC0415 - loads pyarrow, 0.3 s that a call never needs

        self.approvals.expire()  # so that it is told, whether or not anybody looks
        return drain(self.ledger, LakeStore(self.lake, self._storage_options, write=True))

    def close(self, *, drain: bool = True, grace: float = 10.0) -> None:
        """Drain, then close the ledger; safe to call twice. What was not drained stays there for the next drain.

        Args:
            drain: whether to drain.
            grace: seconds to wait for calls of other threads; then what is known of them is recorded.
        """
        if self._closed:
            return
        self._closed = self.stopping = True
        if self.follower is not None:
            self.follower.stop()
        try:
            finish_calls(self, grace)
            if drain:
                self.drain()
        finally:
            self.ledger.close()
            every = [source for each in (*self._before, self.enforced) for source in each.sources.values()]
            for source in {id(source): source for source in every}.values():
                if callable(release := getattr(source, "close", None)):
                    release()
