"""Decisions and outcomes as rows of the trace, and requests read back from rows.

One rule: `request_of(decision_row(d)) == d.request`; what replay decides again is what was recorded.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from runtime.canonical import Json, canonical, canonical_own, new_id, parse, sha256
from runtime.entities import EntityUid
from runtime.errors import IsolatedToolError
from runtime.foreign import message_of, well_formed
from runtime.policy import Decision, Grants, Prepared
from runtime.projection import PROJECTION_VERSION
from runtime.request import MAX_SKEW_US, Request, ResourceTemplate
from runtime.trace import CONTEXTS, ENTITIES, SLICES, Table
from runtime.values import micros

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle
    from runtime.trace import ExecutionStatus, Kind

Row = dict[str, Json]
"""A table row: JSON values by column name, timestamps in microseconds UTC."""


def moment_of(value: int | datetime) -> datetime:
    """Return the UTC moment of a recorded timestamp."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def decision_row(
    decision: Decision,
    bundle: Bundle,
    *,
    decided_at: datetime,
    latency_us: int,
    engine: str,
    kind: Kind = "call",
    linked_to: str | None = None,
    followed: Mapping[str, Json] | None = None,
) -> Row:
    """Return the row of `decisions`, without the chain's columns (the ledger fills those).

    `followed` is what is recorded of the alias that named the bundle; see `runtime.following`.
    """
    # Few literals: most of what a row costs would be the calls it is put together by.
    request, first = decision.request, decision.first
    # What was asked is what was derived first; a refused repeat has derived nothing, and not from other arguments.
    args = first.text if first.args is request.args else request.args_text
    enforced_args = decision.enforced_args
    behalf, resource = request.on_behalf_of, first.resource
    limit_inputs = request.limit_inputs
    row = _verdict_columns(decision) | {
        "decision_id": request.decision_id,
        "session_id": request.session_id,
        "step": request.step,
        "evaluated_at": micros(request.at),
        "tenant": request.tenant,
        "principal_type": request.principal.type,
        "principal_id": request.principal.id,
        "on_behalf_of_type": None if behalf is None else behalf.type,
        "on_behalf_of_id": None if behalf is None else behalf.id,
        "scopes": list(request.scopes),
        "required_scopes": list(request.required_scopes),
        "tool": request.tool,
        "resource_template": request.resource.text,
        "args": args,
        "args_hash": sha256(args),
        "session_state": canonical(dict(request.session_state)),
        "idempotency_key": request.idempotency_key,
        "resource_type": None if resource is None else resource.type,
        "resource_id": None if resource is None else resource.id,
        "projection": first.projected,
        "context_hash": None if first.compiled is None else first.compiled.hash,
        "slice_hash": None if first.case is None else first.case.slice.hash,
        "kind": kind,
        "linked_to": linked_to,
        "decided_at": micros(decided_at),
        "latency_us": latency_us,
        "engine": engine,
        "projection_version": PROJECTION_VERSION,
        "bundle_version": bundle.version,
        "policy_hash": bundle.policy_hash,
        "context_spec_hash": bundle.context_spec_hash,
        "limits_hash": bundle.limits_hash,
        "stage_inputs": canonical_own({**first.inputs, "limits": limit_inputs, **(followed or {})}),
        "enforced_args": None if enforced_args is None else (decision.enforced or first).text,
        "action_hash": decision.action_hash,
    }
    if decision.enforced is not None:
        row.update(_enforced_columns(decision.enforced))
    if decision.grants is not None:
        row.update(_grant_columns(decision))
    return row


def _grant_columns(decision: Decision) -> Row:
    """What the approval stage judged by; grants that let nothing run were not consumed."""
    held = decision.grants
    assert held is not None  # noqa: S101 - asked by the caller
    told: dict[str, Json] = {
        "approval": held.approval,
        "lifted": [*sorted(held.lifted)],
        "approval_id": held.approval_id,
        "action_hash": held.action_hash,
        "refusal": held.refusal,
    }
    used: list[Json] | None = [*held.ids] if decision.runs else None
    return {"grants": used, "approval": canonical(told)}


def grants_of(row: Mapping[str, Any]) -> Grants | None:
    """Read back what the approval stage of a `decisions` row judged by; None: the call was not resumed.

    Raises:
        ValueError, KeyError, TypeError: `approval` is not what `decision_row` wrote.
    """
    if row.get("approval") is None:
        return None
    told = json.loads(row["approval"])
    return Grants(
        lifted=frozenset(told["lifted"]),
        approval=told["approval"],
        action_hash=told["action_hash"],
        approval_id=told["approval_id"],
        ids=tuple(row.get("grants") or ()),
        refusal=told["refusal"],
        policy_hash=row["policy_hash"],
    )


def _verdict_columns(decision: Decision) -> Row:
    answer, errors = decision.answer, decision.errors
    return {
        "verdict": decision.verdict,
        "decided_by": decision.decided_by,
        "reason_code": decision.reason_code,
        "reason": well_formed(decision.reason),
        "cedar_decision": None if answer is None else answer.decision,
        "cedar_reasons": [] if answer is None else list(answer.reasons),
        "determining": list(decision.determining),
        "enforced_determining": list(decision.enforced_determining),
        "errors": [{"policy": fault.policy, "message": fault.message} for fault in errors] if errors else [],
    }


def _enforced_columns(prepared: Prepared) -> Row:
    resource, compiled, case = prepared.resource, prepared.compiled, prepared.case
    return {
        "enforced_resource_type": None if resource is None else resource.type,
        "enforced_resource_id": None if resource is None else resource.id,
        "enforced_projection": prepared.projected,
        "enforced_context_hash": None if compiled is None else compiled.hash,
        "enforced_slice_hash": None if case is None else case.slice.hash,
    }


def content_rows(decision: Decision) -> list[tuple[Table, Row]]:
    """Return the content-addressed rows a decision refers to: contexts, entities, slices."""
    rows: list[tuple[Table, Row]] = []
    for prepared in (decision.first, decision.enforced):
        if prepared is None:
            continue
        if (compiled := prepared.compiled) is not None:
            rows.append((CONTEXTS, {"context_hash": compiled.hash, "context": compiled.content}))
        if (case := prepared.case) is not None:
            for entity in case.slice.entities:
                uid = entity.uid
                told: Row = {"uid_type": uid.type, "uid_id": uid.id, "entity": entity.content}
                rows.append((ENTITIES, {"entity_hash": entity.hash, **told}))
            found = case.slice
            rows.append((SLICES, {"slice_hash": found.hash, "entity_hashes": list(found.entity_hashes)}))
    return rows


def execution_row(
    decision: Mapping[str, Any],
    status: ExecutionStatus,
    *,
    started_at: datetime | None,
    ended_at: datetime,
    result: Mapping[str, Json] | None = None,
    error: BaseException | None = None,
) -> Row:
    """Return the `outcomes` row of one execution.

    Args:
        decision: the row of the decision that let it run.
        status: how it ended.
        started_at: when the tool was called; None: it was not.
        ended_at: when it returned, raised, or was given up.
        result: the result columns, if there is a result.
        error: what was raised, if something was.
    """
    ended = micros(ended_at)
    return {
        "outcome_id": new_id(),
        "kind": "execution",
        "decision_id": decision["decision_id"],
        "session_id": decision["session_id"],
        "tenant": decision["tenant"],
        "recorded_at": ended,
        "status": status,
        "started_at": None if started_at is None else micros(started_at),
        "ended_at": ended,
        "source": "runtime",
        "error_type": None if error is None else _class_of(error),
        "error_message": None if error is None else message_of(error),
        **(result or {}),
    }


def _class_of(error: BaseException) -> str:
    """The class of what a tool raised; of one that ran in a process of its own, as it was there."""
    return error.type_name if isinstance(error, IsolatedToolError) else type(error).__name__


def label_row(
    *,
    session_id: str,
    tenant: str,
    decision_id: str | None,
    label: str,
    value: str,
    source: str,
    recorded_at: datetime,
) -> Row:
    """Return the `outcomes` row of a label on one decision, or on a session when `decision_id` is None."""
    return {
        "outcome_id": new_id(),
        "kind": "label",
        "decision_id": decision_id,
        "session_id": session_id,
        "tenant": tenant,
        "recorded_at": micros(recorded_at),
        "label": label,
        "value": value,
        "source": source,
    }


def approval_row(
    decision: Mapping[str, Any],
    *,
    policy: str,
    value: Literal["granted", "denied"],
    source: str,
    details: Mapping[str, Json],
    recorded_at: datetime,
) -> Row:
    """Return the `outcomes` row of what one approver said to what one policy asks.

    Args:
        decision: the row of the decision that asked.
        policy: id of the policy whose forbid the grant lifts.
        value: what was said.
        source: uid of the approver.
        details: how they were authenticated, and what they were shown.
        recorded_at: when.
    """
    return {
        "outcome_id": new_id(),
        "kind": "approval",
        "decision_id": decision["decision_id"],
        "session_id": decision["session_id"],
        "tenant": decision["tenant"],
        "recorded_at": micros(recorded_at),
        "label": policy,
        "value": value,
        "source": source,
        "details": canonical(dict(details)),
    }


def _beyond_session(row: Mapping[str, Any]) -> dict[str, Json]:
    """What the limits stage saw beside the session's state."""
    seen, session = json.loads(row["stage_inputs"]).get("limits", {}), json.loads(row["session_state"])
    return {name: value for name, value in seen.items() if name not in session}


def _max_skew(row: Mapping[str, Any]) -> int | None:
    """By which skew the facts were judged; a record of schema version 1 names none, as there was no bound."""
    judged = json.loads(row["stage_inputs"]).get("context")
    return MAX_SKEW_US if judged is None else judged.get("max_skew_us")


def request_of(row: Mapping[str, Any]) -> Request:
    """Read the request back from a `decisions` row."""
    behalf = row["on_behalf_of_type"]
    return Request(
        decision_id=row["decision_id"],
        session_id=row["session_id"],
        step=row["step"],
        tenant=row["tenant"],
        principal=EntityUid(row["principal_type"], row["principal_id"]),
        on_behalf_of=None if behalf is None else EntityUid(behalf, row["on_behalf_of_id"]),
        scopes=tuple(row["scopes"]),
        tool=row["tool"],
        resource=ResourceTemplate.parse(row["resource_template"]),
        required_scopes=tuple(row["required_scopes"]),
        args=parse(row["args"]),  # type: ignore[arg-type]  # an object, as it was written
        idempotency_key=row["idempotency_key"],
        at=moment_of(row["evaluated_at"]),
        session_state=json.loads(row["session_state"]),
        limits=_beyond_session(row),
        max_skew_us=_max_skew(row),
    )


def asked_again(row: Mapping[str, Any]) -> Decision:
    """Return the decision of a row that waits for approval, as far as the row tells: nothing is compiled again."""
    request = request_of(row)
    kind, ident = row["enforced_resource_type"], row["enforced_resource_id"]
    patched = row["enforced_args"] != row["args"]
    resource = EntityUid(kind, ident) if kind is not None else _resource(row)
    enforced = Prepared(args=parse(row["enforced_args"]), resource=resource)  # type: ignore[arg-type]  # an object
    return Decision(
        request=request,
        verdict=row["verdict"],
        decided_by=row["decided_by"],
        reason_code=row["reason_code"],
        reason=row["reason"],
        first=Prepared(args=request.args, resource=_resource(row)),
        determining=tuple(row["determining"]),
        enforced=enforced if patched else None,
        enforced_determining=tuple(row["enforced_determining"]),
        action_hash=row["action_hash"],
    )


def _resource(row: Mapping[str, Any]) -> EntityUid | None:
    kind = row["resource_type"]
    return None if kind is None else EntityUid(kind, row["resource_id"])


__all__ = [
    "Row",
    "approval_row",
    "asked_again",
    "content_rows",
    "decision_row",
    "execution_row",
    "grants_of",
    "label_row",
    "moment_of",
    "request_of",
]
