"""The record as an answer: what a trace says to the questions the fold asks.

One rule: nothing is looked up that the record does not hold. A name the candidate may read and the record did not
ask for is reported as missing, never taken as absent.

Two ways to answer for facts: `RecordedFacts` takes the compiled context as it was recorded; `RecompiledFacts` (in
`workbench.recompile`) compiles it again from versioned sources.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runtime.canonical import NotCanonical, canonical, sha256
from runtime.context import Refusal, fact_key
from runtime.errors import SourceError
from runtime.facts import CompiledContext, Fact
from runtime.policy import Grants, Prepared
from runtime.prepare import prepare
from runtime.record import grants_of, request_of
from runtime.request import RequestInvalid
from runtime.schema import Record, SetOf
from runtime.session_reads import session_reads
from runtime.spec import RESERVED
from workbench.atoms import reads_ancestors
from workbench.erasure import QUOTED, holes_in_args, holes_in_context, together
from workbench.memo import remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.entities import EntityUid
    from runtime.request import Request
    from runtime.schema import CedarType
    from runtime.spec import ContextSpec, FactSpec
    from workbench.erasure import Holes

_SESSION_CODES = frozenset({"idempotency_conflict", "duplicate_differs"})
"""Refusals that the session made before the fold; replay takes them as recorded."""


@dataclass(frozen=True)
class Recorded:
    """One row of `decisions` with the contexts it refers to."""

    row: Mapping[str, Any]
    context_text: str | None
    """Text of `contexts` at `context_hash`; None: the row has none, or the table lost it."""
    enforced_context_text: str | None

    @cached_property
    def request(self) -> Request:
        """The request as recorded."""
        return request_of(self.row)

    @cached_property
    def grants(self) -> Grants | None:
        """What the approval stage judged by; None: the call was not resumed."""
        return grants_of(self.row)

    @cached_property
    def compiled(self) -> CompiledContext | None:
        """Facts as recorded; None: a stage before context refused."""
        return None if self.context_text is None else CompiledContext.from_content(self.context_text)

    @cached_property
    def enforced_compiled(self) -> CompiledContext | None:
        """Facts of the patched request."""
        text = self.enforced_context_text
        return None if text is None else CompiledContext.from_content(text)

    def damage(self, *, addresses: bool = True) -> str | None:
        """Return the cause if what the row refers to is lost, altered or has holes, else None.

        Args:
            addresses: compare `args_hash`, too. Without it, altered arguments are found by their projection.
        """
        row = self.row
        pairs = (
            (row["context_hash"], self.context_text),
            (row["enforced_context_hash"], self.enforced_context_text),
        )
        for address, text in pairs:
            if address is not None and text is None:
                return "context_lost"
            if text is not None and holes_in_context(text) is None and sha256(text) != address:
                return "context_corrupt"
        if addresses and holes_in_args(row["args"]) is None and sha256(row["args"]) != row["args_hash"]:
            return "row_corrupt"
        return None if self.holes is None else self.holes.cause

    @cached_property
    def holes(self) -> Holes | None:
        """What was masked or erased of the row and its contexts; None: nothing was."""
        row = self.row
        texts = (
            (self.context_text, row["context_hash"], holes_in_context),
            (self.enforced_context_text, row["enforced_context_hash"], holes_in_context),
            (row["args"], row["args_hash"], holes_in_args),
        )
        return together(
            find(text)
            for text, address, find in texts
            if text is not None and QUOTED in text and sha256(text) != address
        )


def prepare_recorded(
    recorded: Recorded,
    args: Mapping[str, Json],
    bundle: Bundle,
    facts_of: Callable[[Recorded, Request, EntityUid], tuple[CompiledContext, tuple[str, ...]]],
) -> Prepared:
    """Take recorded arguments through the stages before policy.

    Args:
        recorded: the row.
        args: the recorded arguments, or a patch of them.
        bundle: the candidate, with the spec and limits that hold for this replay.
        facts_of: answers with the facts, and the names the record cannot answer for.
    """
    row = recorded.row
    if row["reason_code"] in _SESSION_CODES:
        return Prepared(args=args, refusal=Refusal(row["decided_by"], row["reason_code"], row["reason"]))
    missing: list[str] = []

    def facts(request: Request, resource: EntityUid) -> CompiledContext:
        compiled, names = facts_of(recorded, request, resource)
        missing.extend(names)
        return compiled

    def check(given: Mapping[str, Json]) -> None:
        # What a tool can take is not in the trace; that it could not take these arguments, or this patch of them, is.
        if row["reason_code"] == "args_invalid":
            raise RequestInvalid("args_invalid", row["reason"])
        same_policy = row["policy_hash"] == bundle.policy_hash
        if row["reason_code"] == "patch_invalid" and same_policy and canonical(dict(given)) != row["args"]:
            raise RequestInvalid("args_invalid", row["reason"])

    approval = None if recorded.grants is None else recorded.grants.approval
    prepared = prepare(recorded.request, args, bundle, facts, check, approval)
    return replace(prepared, missing=(*prepared.missing, *missing)) if missing else prepared


def recorded_facts(
    bundle: Bundle,
) -> Callable[[Recorded, Request, EntityUid], tuple[CompiledContext, tuple[str, ...]]]:
    """Return the answer for `context="recorded"`: the facts as they were, and what the candidate may miss."""

    def answer(
        recorded: Recorded, request: Request, resource: EntityUid
    ) -> tuple[CompiledContext, tuple[str, ...]]:
        compiled = _facts_for(recorded, request, resource, bundle.spec)
        as_then = compiled is recorded.compiled or compiled is recorded.enforced_compiled
        if recorded.row["policy_hash"] == bundle.policy_hash and as_then:
            return compiled, ()  # what this policy could read was asked then, by definition
        usable = _declared(compiled, request, resource, bundle)
        return usable, tuple(_missing(usable, request, resource, bundle))

    return answer


def missing_names(
    compiled: CompiledContext, request: Request, resource: EntityUid, bundle: Bundle
) -> tuple[str, ...]:
    """Return what a candidate may read and the record did not ask for.

    It hangs on which facts were asked for and what they cover, on the tool, and on the types of principal and
    resource; on no value.
    """
    return tuple(_missing(_declared(compiled, request, resource, bundle), request, resource, bundle))


def _facts_for(
    recorded: Recorded, request: Request, resource: EntityUid, spec: ContextSpec
) -> CompiledContext:
    """The recorded facts that hold for these arguments; one whose key the patch changed was not asked for."""
    args = canonical(dict(request.args))
    if args == recorded.row["args"] and recorded.compiled is not None:
        return recorded.compiled
    if args == recorded.row["enforced_args"] and recorded.enforced_compiled is not None:
        return recorded.enforced_compiled
    base = recorded.compiled or CompiledContext.of((), spec.hash)
    valid = list(_still_valid(base, request, resource, spec))
    return base if len(valid) == len(base.facts) else CompiledContext.of(valid, base.spec_hash)


def _still_valid(
    compiled: CompiledContext, request: Request, resource: EntityUid, spec: ContextSpec
) -> Iterator[Fact]:
    declared = {fact.name: fact for fact in spec.facts}
    for fact in compiled.facts.values():
        known = declared.get(fact.name)
        if known is None:
            continue
        if fact.status == "not_asked" or _key_or_none(known, request, resource) == fact.key:
            yield fact


def _key_or_none(fact: FactSpec, request: Request, resource: EntityUid) -> dict[str, Json] | None:
    try:
        return fact_key(fact, request, resource)
    except (SourceError, NotCanonical):
        return None  # what cannot be asked for was not asked


def _declared(
    compiled: CompiledContext, request: Request, resource: EntityUid, bundle: Bundle
) -> CompiledContext:
    """Leave out facts the candidate's schema has no place for: its policies cannot read them."""
    kept = [fact for fact in compiled.facts.values() if _has_place(fact, request, resource, bundle)]
    return compiled if len(kept) == len(compiled.facts) else CompiledContext.of(kept, compiled.spec_hash)


def _has_place(fact: Fact, request: Request, resource: EntityUid, bundle: Bundle) -> bool:
    if fact.into == "context":
        return fact.name in bundle.schema.actions[request.tool].context.attrs
    declared = _entity_attrs(fact.into, request, resource, bundle)
    value = fact.value if isinstance(fact.value, dict) else {}  # asked, and nothing was there: that is known
    return set(value) <= set(declared)


def _missing(
    compiled: CompiledContext, request: Request, resource: EntityUid, bundle: Bundle
) -> Iterator[str]:
    """Names the candidate's schema declares and the record did not ask for."""
    yield from (
        f"context.session.{each}" for each in sorted(counters_read(bundle) - request.session_state.keys())
    )
    asked = {name: fact for name, fact in compiled.facts.items() if fact.status in ("found", "none")}
    for name, attr in bundle.schema.actions[request.tool].context.attrs.items():
        if name in RESERVED:
            continue
        fact = asked.get(name)
        if fact is None or fact.into != "context":
            yield f"context.{name}"
        elif fact.status == "found":
            yield from _missing_fields(f"context.{name}", fact.value, attr.type)
    for root in ("principal", "resource"):
        covered = {key for fact in asked.values() if fact.into == root for key in _columns(fact, bundle.spec)}
        for name in sorted(set(_entity_attrs(root, request, resource, bundle)) - covered):
            yield f"{root}.{name}"
        kind = (request.principal if root == "principal" else resource).type
        placed = any(fact.into == root and known.parents for fact, known in _specified(asked, bundle.spec))
        if root in reads_ancestors(bundle) and bundle.schema.entity_types[kind].parents and not placed:
            yield f"{root}.parents"


_counters: dict[str, frozenset[str]] = {}


def counters_read(bundle: Bundle) -> frozenset[str]:
    """Return the standard counters of the session that policies may read; a record may be older than some of them."""
    return remembered(_counters, bundle.policy_hash, lambda: session_reads(bundle.document))


def _specified(asked: Mapping[str, Fact], spec: ContextSpec) -> Iterator[tuple[Fact, FactSpec]]:
    return ((asked[known.name], known) for known in spec.facts if known.name in asked)


def _columns(fact: Fact, spec: ContextSpec) -> Iterator[str]:
    """What a fact covers of its entity: its value's members, or its declared fields when nothing was found."""
    if isinstance(fact.value, dict):
        yield from fact.value
    declared: FactSpec | None = next((known for known in spec.facts if known.name == fact.name), None)
    if declared is not None:
        yield from declared.fields


def _missing_fields(path: str, value: Json, type_: CedarType) -> Iterator[str]:
    match value, type_:
        case dict(), Record(attrs):
            yield from (f"{path}.{name}" for name in attrs if name not in value)
        case [dict() as first, *_], SetOf(Record(attrs)):
            if not set(attrs) <= set(first):
                yield path
        case _:
            return


def _entity_attrs(root: str, request: Request, resource: EntityUid, bundle: Bundle) -> Mapping[str, object]:
    uid = request.principal if root == "principal" else resource
    found = bundle.schema.entity_types.get(uid.type)
    return {} if found is None else found.attrs.attrs


def parsed(text: str | None) -> Any:
    """Return a JSON column's value; None stays None."""
    return None if text is None else json.loads(text)
