"""The loop: composes the six steps, and holds no logic of its own.

request (`session`, `request`) → compile context (`context`) → evaluate policy (`policy`, `cedar`) → execute under
control (`broker`) → decision trace (`record`, `ledger`, `drain`) → improve (`workbench`, which never runs here).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runtime.approvals import TTL, Approvals
from runtime.approvers import as_authenticators
from runtime.bundle import Bundle, load_bundle
from runtime.cedar import engine_name, evaluate
from runtime.clocks import checked_clock
from runtime.context import compile_context
from runtime.errors import GovernanceError, RegistrationError
from runtime.identity import checked_label, identity_of, scope_names
from runtime.isolation import elsewhere
from runtime.lake import LEDGER_FILE, lake_uri
from runtime.ledger import Ledger
from runtime.policy import Decision, Derive, Evaluate, Grants, Prepared, decide
from runtime.prepare import prepare
from runtime.record import label_row
from runtime.recovery import Doubt, Recovered, in_doubt, recover, resolve, settle_owed
from runtime.registration import check_against_schema, find_tool, governed
from runtime.request import RequestInvalid
from runtime.session import Session
from runtime.shutdown import finish_calls, shutdown_on
from runtime.sources import bind_sources
from runtime.stops import Stops
from runtime.tools import ResultStorage, Tool, make_tool
from runtime.trace import OUTCOMES, POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from runtime.acting import Acting
    from runtime.authenticators import Authenticator
    from runtime.canonical import Json
    from runtime.drain import DrainReport
    from runtime.entities import EntityUid
    from runtime.guards import Guard, Proposal
    from runtime.isolation import Isolation
    from runtime.lifecycle import Effect
    from runtime.record import Row
    from runtime.request import Request
    from runtime.ruling import Answer
    from runtime.sources import Source
    from runtime.trace import ExecutionStatus, Table
    from runtime.usage import Usage

F = TypeVar("F", bound="Callable[..., Any]")


class Runtime:
    """Governs tool calls under one policy bundle and records them in one ledger. Open it with `Runtime.open`."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        ledger: Ledger,
        lake: str,
        sources: Mapping[str, Source],
        storage_options: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        self.bundle = bundle
        self.ledger = ledger
        self.lake = lake
        self.sources = sources
        self.clock = checked_clock(clock)
        self.approvals = approvals or Approvals(ledger, clock=self.clock)
        """What waits for people, and how they answer."""
        self.stops = Stops(ledger)
        """Emergency stops, obeyed by every process that shares the ledger."""
        self.engine = engine_name()
        self.policy_rows: list[tuple[Table, Row]] = [(POLICIES, row) for row in bundle.row_dicts()]
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
    ) -> Runtime:
        """Open a runtime.

        Args:
            bundle: folder of a policy bundle, or a loaded one.
            lake: folder or URL of the Delta tables; created by the first drain.
            ledger: SQLite file; default `<lake>/_ledger.sqlite` for a local lake, required for a URL.
            sources: locations of the facts that `context.toml` names: a path or URL, a SQLAlchemy engine, a
                callable, or a `Source`.
            storage_options: for an object store, as delta-rs takes them.
            clock: returns the current UTC time; for tests.
            authenticators: who tell who approves: path of an `approvers.toml`, or objects. None: nobody can, here.
            approval_ttl: how long an approval can be granted and used; a number is seconds.

        Raises:
            BundleError: the bundle cannot be used; the message names file, line and policy.
            LedgerError: the ledger cannot be opened, or the lake's folder cannot hold Delta tables.
            ClockError: `clock` is no function; at its first use, that it says no usable time.
            GovernanceError: a lake at a URL, and no `ledger`.
        """
        if (instead := elsewhere()) is not None:
            return instead  # type: ignore[no-any-return]  # it stands in for one
        told = checked_clock(clock)
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        uri = str(lake)
        if ledger is None and "://" in uri:
            raise GovernanceError(f"a lake at {uri!r} needs `ledger=`, a local file for the durable ledger")
        path = Path(ledger) if ledger is not None else Path(uri) / LEDGER_FILE
        lake_uri(uri)  # a folder that no Delta table can be in is refused before anything is recorded
        base = None if "://" in uri else Path(uri)
        bound = bind_sources(loaded.spec, sources or {}, base)
        known = as_authenticators(authenticators)
        opened = Ledger.open(path)
        made = cls(
            bundle=loaded,
            ledger=opened,
            approvals=Approvals(opened, known, ttl=approval_ttl, clock=told),
            lake=uri,
            sources=bound,
            storage_options=storage_options,
            clock=told,
        )
        try:
            made.recovered = recover(made)
        except BaseException:
            opened.close()
            raise
        return made

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
        self, request: Request, tool: Tool, bind_refusal: str | None = None, grants: Grants | None = None
    ) -> Decision:
        """Drive `runtime.policy.decide` with systems of record and Cedar. Records and executes nothing."""
        fold = decide(request, self.bundle, grants)
        approval = None if grants is None else grants.approval
        reply: Prepared | Answer | None = None
        while True:
            try:
                ask = fold.send(reply)  # type: ignore[arg-type]  # the first send is None, as generators want
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the fold's return type
            match ask:
                case Derive(args):
                    reply = self._prepare(request, args, tool, bind_refusal, approval)
                case Evaluate(prepared, lifted):
                    assert prepared.case is not None  # noqa: S101 - not refused
                    reply = evaluate(prepared.case, self.bundle, lifted)

    def _prepare(
        self,
        request: Request,
        args: Mapping[str, Json],
        tool: Tool,
        bind_refusal: str | None,
        approval: Json,
    ) -> Prepared:
        def check(found: Mapping[str, Json]) -> None:
            if bind_refusal is not None:
                raise RequestInvalid("args_invalid", bind_refusal)
            if found is not request.args or not request.is_bound:
                tool.check(found)

        def facts(about: Request, resource: EntityUid) -> Any:
            return compile_context(self.bundle.spec, self.sources, about, resource)

        return prepare(request, args, self.bundle, facts, check, approval)

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
        from runtime.lake import LakeStore  # noqa: PLC0415 - as above

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
        try:
            finish_calls(self, grace)
            if drain:
                self.drain()
        finally:
            self.ledger.close()
            for source in self.sources.values():
                if callable(release := getattr(source, "close", None)):
                    release()
