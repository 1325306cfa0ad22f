"""What a runtime decides with: a bundle and the sources bound to its spec, as one value.

One rule: a call is decided, charged and recorded under one of these, taken once at its start. So a runtime that
switches to another version while calls are under way never decides by one and records the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.cedar import evaluate
from runtime.context import compile_context
from runtime.errors import RegistrationError
from runtime.policy import Decision, Derive, Evaluate, Grants, Prepared, decide
from runtime.prepare import prepare
from runtime.registration import check_against_schema
from runtime.request import RequestInvalid
from runtime.sources import bind_sources
from runtime.trace import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runtime.aliases import Alias
    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.entities import EntityUid
    from runtime.facts import CompiledContext
    from runtime.record import Row
    from runtime.request import Request
    from runtime.ruling import Answer
    from runtime.sources import Source
    from runtime.tools import Tool
    from runtime.trace import Table


@dataclass(eq=False, kw_only=True)
class Enforced:
    """One version, ready to decide."""

    bundle: Bundle
    sources: Mapping[str, Source]
    """By name, as the bundle's context spec declares them."""
    alias: Alias | None = None
    """The alias that named it, as it was followed; None: the version was given."""
    unrecorded: list[tuple[Table, Row]] = field(init=False)
    """Texts that the ledger does not hold yet; emptied by the decision that is committed with them."""

    def __post_init__(self) -> None:
        self.unrecorded = [(POLICIES, row) for row in self.bundle.row_dicts()]

    def decide(
        self, request: Request, tool: Tool, bind_refusal: str | None = None, grants: Grants | None = None
    ) -> Decision:
        """Drive `runtime.policy.decide` with systems of record and Cedar. Records and executes nothing."""
        bundle, approval = self.bundle, None if grants is None else grants.approval
        fold = decide(request, bundle, grants)
        check = _Check(request, tool, bind_refusal)
        reply: Prepared | Answer | None = None
        while True:
            try:
                ask = fold.send(reply)  # type: ignore[arg-type]  # the first send is None, as generators want
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the fold's return type
            if type(ask) is Derive:
                fits = bind_refusal is None and ask.args is request.args and request.is_bound
                reply = prepare(request, ask.args, bundle, self._compile, None if fits else check, approval)
            else:
                assert isinstance(ask, Evaluate) and ask.prepared.case is not None  # noqa: S101, PT018 - not refused
                reply = evaluate(ask.prepared.case, bundle, ask.lifted)

    def _compile(self, request: Request, resource: EntityUid) -> CompiledContext:
        return compile_context(self.bundle.spec, self.sources, request, resource)


@dataclass(slots=True)
class _Check:
    """Refuses arguments the tool cannot take: of a request that could not be bound to it, or of a patch."""

    request: Request
    tool: Tool
    bind_refusal: str | None

    def __call__(self, found: Mapping[str, Json]) -> None:
        if self.bind_refusal is not None:
            raise RequestInvalid("args_invalid", self.bind_refusal)
        if found is not self.request.args or not self.request.is_bound:
            self.tool.check(found)


def enforceable(
    bundle: Bundle,
    given: Mapping[str, Any],
    base: Path | None,
    *,
    tools: Iterable[Tool] = (),
    alias: Alias | None = None,
) -> Enforced:
    """Make a bundle ready to decide.

    Args:
        bundle: to be enforced.
        given: locations of its sources by name, as `Runtime.open` takes them.
        base: folder that relative locations start from.
        tools: registered ones that are decided now, which its schema has to have and to fit.
        alias: that named it.

    Raises:
        ContextSpecError: a source is not bound, or is bound to something of another kind.
        RegistrationError: the schema declares no action for a tool, or other parameters or another resource.
    """
    for tool in tools:
        if tool.name not in bundle.schema.actions:
            raise RegistrationError(
                f"the schema of {bundle.name} {bundle.version[:12]} declares no action for the registered tool "
                f"{tool.name!r}, so every call of it would be refused; declare it"
            )
        check_against_schema(tool, bundle)
    return Enforced(bundle=bundle, sources=bind_sources(bundle.spec, given, base), alias=alias)
