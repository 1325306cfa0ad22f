"""The loop: composes the six steps, and holds no logic of its own.

request (`session`, `request`) → compile context (`context`) → evaluate policy (`policy`, `cedar`) → execute under
control (`broker`) → decision trace (`record`, `ledger`, `drain`) → improve (`workbench`, which never runs here).
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runtime.bundle import Bundle, load_bundle
from runtime.cedar import engine_name, evaluate
from runtime.context import compile_context
from runtime.errors import GovernanceError, RegistrationError
from runtime.identity import identity_of, scope_names
from runtime.lake import lake_uri
from runtime.ledger import Ledger
from runtime.policy import Decision, Derive, Evaluate, Prepared, decide
from runtime.prepare import prepare
from runtime.record import label_row
from runtime.request import RequestInvalid
from runtime.schema import Record
from runtime.session import Session, current_session
from runtime.sources import bind_sources
from runtime.tools import ResultStorage, Tool, make_tool
from runtime.trace import OUTCOMES, POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from runtime.canonical import Json
    from runtime.drain import DrainReport
    from runtime.entities import EntityUid
    from runtime.record import Row
    from runtime.request import Request
    from runtime.ruling import Answer
    from runtime.schema import ActionType
    from runtime.sources import Source
    from runtime.trace import Table

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
    ) -> None:
        self.bundle = bundle
        self.ledger = ledger
        self.lake = lake
        self.sources = sources
        self.clock = clock or _utc_now
        self.engine = engine_name()
        self.policy_rows: list[tuple[Table, Row]] = [(POLICIES, row) for row in bundle.row_dicts()]
        self._storage_options = storage_options
        self._closed = False
        self.tools: dict[str, Tool] = {}
        """Registered tools by name."""
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

        Raises:
            BundleError: the bundle cannot be used; the message names file, line and policy.
            LedgerError: the ledger cannot be opened, or the lake's folder cannot hold Delta tables.
            GovernanceError: a lake at a URL, and no `ledger`.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        uri = str(lake)
        if ledger is None and "://" in uri:
            raise GovernanceError(f"a lake at {uri!r} needs `ledger=`, a local file for the durable ledger")
        path = Path(ledger) if ledger is not None else Path(uri) / "_ledger.sqlite"
        lake_uri(uri)  # a folder that no Delta table can be in is refused before anything is recorded
        base = None if "://" in uri else Path(uri)
        bound = bind_sources(loaded.spec, sources or {}, base)
        return cls(
            bundle=loaded,
            ledger=Ledger.open(path),
            lake=uri,
            sources=bound,
            storage_options=storage_options,
            clock=clock,
        )

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
    ) -> Any:
        """Register a function as a governed tool; use as a decorator.

        The decorated function, called inside `with runtime.session(…)`, is governed; outside it refuses to run.

        Args:
            fn: the function, sync or async.
            name: tool name and Cedar action id; default the function's name.
            resource: `Type::{argument}`; default `Tool::<name>`.
            scopes: scopes a session must hold.
            store: what to keep of results: `full`, `hash` or `none`.

        Raises:
            RegistrationError: the declaration does not fit the function or the bundle's schema.
        """
        if fn is None:
            return functools.partial(
                self.tool, name=name, resource=resource, scopes=scope_names(scopes), store=store
            )
        made = make_tool(fn, name=name, resource=resource, scopes=scope_names(scopes), store=store)
        if made.name in self.tools:
            raise RegistrationError(f"tool {made.name!r} is registered already")
        _check_against_schema(made, self.bundle)
        self.tools[made.name] = made
        self._governed[made.name] = _governed(made, self)
        return self._governed[made.name]

    def find_tool(self, tool: str | Callable[..., Any]) -> Tool:
        """Return a registered tool by its name, by what `Runtime.tool` returned, or by the function it was given.

        Raises:
            RegistrationError: not registered here; names what is. A function that only shares a tool's name, or
                is a tool of another runtime, is not registered here.
        """
        if isinstance(tool, str):
            found = self.tools.get(tool)
        else:
            given = getattr(tool, "redecide_tool", tool)
            pairs = ((each, self._governed.get(each.name)) for each in self.tools.values())
            found = next((each for each, governed in pairs if governed is given or each.fn == given), None)
        if found is None:
            known = ", ".join(sorted(self.tools)) or "none"
            what = f"no tool {tool!r}" if isinstance(tool, str) else f"{tool!r:.120} is no tool that"
            raise RegistrationError(f"{what} is registered here; registered are {known}")
        return found

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

    def decide(self, request: Request, tool: Tool, bind_refusal: str | None = None) -> Decision:
        """Drive `runtime.policy.decide` with systems of record and Cedar. Records and executes nothing."""
        fold = decide(request, self.bundle)
        reply: Prepared | Answer | None = None
        while True:
            try:
                ask = fold.send(reply)  # type: ignore[arg-type]  # the first send is None, as generators want
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the fold's return type
            match ask:
                case Derive(args):
                    reply = self._prepare(request, args, tool, bind_refusal)
                case Evaluate(prepared, lifted):
                    assert prepared.case is not None  # noqa: S101 - not refused
                    reply = evaluate(prepared.case, self.bundle, lifted)

    def _prepare(
        self, request: Request, args: Mapping[str, Json], tool: Tool, bind_refusal: str | None
    ) -> Prepared:
        def check(found: Mapping[str, Json]) -> None:
            if bind_refusal is not None:
                raise RequestInvalid("args_invalid", bind_refusal)
            tool.check(found)

        def facts(about: Request, resource: EntityUid) -> Any:
            return compile_context(self.bundle.spec, self.sources, about, resource)

        return prepare(request, args, self.bundle, facts, check)

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
        self.ledger.commit(evidence=[(OUTCOMES, row)])

    def drain(self) -> DrainReport:
        """Move what the ledger holds into the lake's Delta tables, exactly once. Safe to call at any time."""
        from runtime.drain import drain  # noqa: PLC0415 - loads pyarrow, 0.3 s that a call never needs
        from runtime.lake import LakeStore  # noqa: PLC0415 - as above

        return drain(self.ledger, LakeStore(self.lake, self._storage_options, write=True))

    def close(self, *, drain: bool = True) -> None:
        """Drain, then close the ledger; safe to call twice. What was not drained stays there for the next drain."""
        if self._closed:
            return
        self._closed = True
        try:
            if drain:
                self.drain()
        finally:
            self.ledger.close()
            for source in self.sources.values():
                if callable(release := getattr(source, "close", None)):
                    release()


def _governed(tool: Tool, runtime: Runtime) -> Callable[..., Any]:
    """Return a function that calls `tool` through the session it runs in, and refuses outside of one."""

    def session() -> Session:
        found = current_session()
        if found is None:
            raise GovernanceError(f"tool {tool.name!r} is governed; call it inside `with runtime.session(…)`")
        if not found.is_of(runtime):
            raise GovernanceError(
                f"tool {tool.name!r} is registered with another runtime than the session it is called in; "
                "open a session of its own runtime"
            )
        return found

    if tool.is_async:

        @functools.wraps(tool.fn)
        async def governed(*args: Any, **kwargs: Any) -> Any:
            return await session().acall(tool.name, *args, **kwargs)
    else:

        @functools.wraps(tool.fn)
        def governed(*args: Any, **kwargs: Any) -> Any:
            return session().call(tool.name, *args, **kwargs)

    # How `find_tool` knows it again, also when a framework has wrapped it once more.
    governed.redecide_tool = governed  # type: ignore[attr-defined]  # functions take attributes
    governed.__signature__ = tool.signature  # type: ignore[attr-defined]  # frameworks read it
    del governed.__wrapped__  # no way around the governor through introspection
    return governed


def _check_against_schema(tool: Tool, bundle: Bundle) -> None:
    """A declared action takes exactly its tool's parameters and resource; else every call would be refused later."""
    action = bundle.schema.actions.get(tool.name)
    if action is None:
        return
    if action.principals and tool.resource.type not in action.resources:
        raise RegistrationError(
            f"tool {tool.name!r} has resource {tool.resource.text!r}, its action applies to "
            f"{', '.join(action.resources)}; pass `resource=`, such as {f'{action.resources[0]}::{{argument}}'!r}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in tool.signature.parameters.values()):
        return
    declared = _declared_arguments(action)
    given = set(tool.signature.parameters)
    if declared != given:
        raise RegistrationError(
            f"tool {tool.name}{tool.signature} does not fit its schema: only in the tool: "
            f"{', '.join(sorted(given - declared)) or 'none'}; only in the schema: "
            f"{', '.join(sorted(declared - given)) or 'none'}"
        )


def _declared_arguments(action: ActionType) -> set[str]:
    """Names of the JSON arguments an action's schema takes: a scaled attribute takes the member it scales."""
    args = action.context.attrs["args"].type if "args" in action.context.attrs else Record()
    assert isinstance(args, Record)  # noqa: S101 - checked when the bundle was loaded
    return {attr.scaled.member if attr.scaled else name for name, attr in args.attrs.items()}


def _utc_now() -> datetime:
    return datetime.now(UTC)
