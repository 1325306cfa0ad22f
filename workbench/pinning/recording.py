"""A recorded decision as a pin that holds all of it: what is reduced and redacted afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from runtime.canonical import parse
from runtime.policy import action_hash
from runtime.record import moment_of
from workbench.explaining.clause_words import core_of, stop_of
from workbench.explaining.words import applicable as permits_for
from workbench.explaining.words import deciding, holding
from workbench.pinning.checking import change_of, is_told
from workbench.pinning.pinned import (
    DecidingClause,
    Expected,
    Hidden,
    PinFile,
    PinnedFact,
    PinnedGrants,
    PinnedPatch,
    PinnedRequest,
    Recording,
)
from workbench.pinning.reading import applicable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle import Bundle
    from runtime.facts import CompiledContext
    from runtime.policy import Decision
    from workbench.explaining.one import Side
    from workbench.pinning.pinned import Truth, Verdict
    from workbench.recorded import Recorded


def whole(recorded: Recorded, side: Side, bundle: Bundle, decision: Decision) -> PinFile:
    """Return a pin that holds everything of a decision.

    Args:
        recorded: its row, with its contexts.
        side: the same, decided again as it was recorded.
        bundle: by which.
        decision: what came out.
    """
    row, request = recorded.row, recorded.request
    compiled, enforced = recorded.compiled, recorded.enforced_compiled
    other = enforced is not None and compiled is not None and enforced.content != compiled.content
    patched = None
    if other and enforced is not None and row["enforced_args"] is not None:
        args = cast("dict[str, Any]", parse(row["enforced_args"]))
        patched = PinnedPatch(args=args, facts=_facts(enforced))
    return PinFile(
        decision_id=row["decision_id"],
        expected=expected_of(side),
        request=PinnedRequest(
            tool=request.tool,
            principal=str(request.principal),
            on_behalf_of=None if request.on_behalf_of is None else str(request.on_behalf_of),
            tenant=request.tenant,
            resource=request.resource.text,
            args=dict(request.args),
            scopes=list(request.scopes),
            required_scopes=list(request.required_scopes),
            at=request.at,
            session=dict(request.session_state),
            limits=dict(request.limits),
            max_skew_us=request.max_skew_us,
        ),
        facts={} if compiled is None else _facts(compiled),
        patched=patched,
        grants=_grants(recorded, decision, bundle),
        hidden=Hidden(not_asked=_not_asked(compiled)),
        recorded=Recording(
            verdict=decision.verdict,
            stage=decision.decided_by,
            reason_code=decision.reason_code,
            bundle=bundle.name,
            version=bundle.version,
            policy_hash=bundle.policy_hash,
            spec_hash=bundle.spec.hash,
        ),
        clauses=clauses_told(side, bundle, request.tool),
    )


def _facts(compiled: CompiledContext) -> dict[str, PinnedFact]:
    return {
        name: PinnedFact(
            status=fact.status,
            into=fact.into,
            value=fact.value,
            parents=[list(pair) for pair in fact.parents],
            key=dict(fact.key),
            source=fact.source,
            kind=fact.kind,
            as_of=None if fact.as_of is None else moment_of(fact.as_of),
            code=fact.code,
        )
        for name, fact in compiled.facts.items()
        if fact.status != "not_asked"
    }


def _not_asked(compiled: CompiledContext | None) -> list[str]:
    facts = () if compiled is None else compiled.facts.values()
    return sorted(fact.name for fact in facts if fact.status == "not_asked")


def _grants(recorded: Recorded, decision: Decision, bundle: Bundle) -> PinnedGrants | None:
    held = recorded.grants
    if held is None:
        return None
    enforced = decision.enforced or decision.first
    fits = held.action_hash is not None and held.action_hash == action_hash(
        recorded.request, enforced, held.policy_hash or bundle.policy_hash
    )
    return PinnedGrants(
        lifted=sorted(held.lifted),
        approval=json.loads(json.dumps(held.approval)),
        action_hash=held.action_hash if fits else None,
        refusal=held.refusal,
    )


def expected_of(side: Side) -> Expected:
    """Return what a decision came to, as a check compares it."""
    row = side.row
    return Expected(
        verdict=cast("Verdict", side.verdict),
        stage=row["decided_by"],
        determining=list(row["determining"]),
        change=change_of(side.decision),
        clauses=list(dict.fromkeys(_deciding(side))),
    )


def _deciding(side: Side) -> Iterator[DecidingClause]:
    """The clauses that a verdict rests on; of a call that nothing permits, where each permit stops."""
    names, evaluation = deciding(side)
    if evaluation is None or side.clauses is None:
        return
    for ident in names:
        policy = side.clauses.policies[ident]
        stop = stop_of(policy, evaluation)
        scope = tuple(each for each in policy.scope if is_told(each))
        clauses = holding(policy, evaluation) or scope if stop is None else stop.clauses
        for clause in (core for each in clauses for core in core_of(each, policy, evaluation)):
            truth = evaluation.told.truths[ident, clause.key]
            yield DecidingClause(policy=ident, clause=clause.text, was=truth)
    if side.row["reason_code"] == "not_permitted":
        for policy in permits_for(side):
            stop = stop_of(policy, evaluation)
            for clause in () if stop is None else stop.clauses:
                truth = evaluation.told.truths[policy.id, clause.key]
                yield DecidingClause(policy=policy.id, clause=clause.text, was=truth)


def clauses_told(side: Side, bundle: Bundle, tool: str) -> dict[str, dict[str, Truth]]:
    """Return what each clause of the policies that apply was, by policy and text."""
    evaluation = deciding(side)[1] or side.first
    if evaluation is None:
        return {}
    truths = evaluation.told.truths
    return {
        policy.id: {clause.text: truths[policy.id, clause.key] for clause in policy.walk() if is_told(clause)}
        for policy in applicable(bundle, tool)
    }
