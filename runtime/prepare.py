"""Stages before policy, over one set of arguments: request → context → limits.

One rule: pure but for `compile_facts`, which is handed in. The runtime hands in systems of record, replay hands in
the recorded context; everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.assembly import assemble
from runtime.canonical import Json, NotCanonical, canonical
from runtime.context import Refusal, judge_context
from runtime.policy import Case, Prepared
from runtime.projection import ProjectionError, project
from runtime.request import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle
    from runtime.entities import EntityUid
    from runtime.facts import CompiledContext
    from runtime.request import Request
    from runtime.schema import ActionType

CompileFacts = Callable[["Request", "EntityUid"], "CompiledContext"]
"""Answers with the facts for this request and resource."""

CheckSignature = Callable[["Mapping[str, Json]"], None]
"""Raises `RequestInvalid("args_invalid", …)` if the tool cannot take these arguments."""


def prepare(
    request: Request,
    args: Mapping[str, Json],
    bundle: Bundle,
    compile_facts: CompileFacts,
    check_signature: CheckSignature | None = None,
    approval: Json = None,
) -> Prepared:
    """Take `args` through the stages before policy.

    Returns:
        What the policy stage needs, or the refusal of the first stage that said no; `inputs` say what each saw.
    """
    request = replace(request, args=args)
    prepared = Prepared(args=args)
    try:
        action = _check_request(request, bundle, check_signature)
        resource = request.resource.resolve(args)
        prepared = replace(prepared, resource=resource)
        projection = project(dict(args), action.context.attrs["args"].type, "context.args")
    except RequestInvalid as exc:
        return replace(prepared, refusal=Refusal("request", exc.code, str(exc)))
    except ProjectionError as exc:
        return replace(prepared, refusal=Refusal("request", "projection_failed", str(exc)))
    prepared = replace(prepared, projection=projection)
    return _with_facts(prepared, request, bundle, compile_facts(request, resource), approval)


def _check_request(request: Request, bundle: Bundle, check_signature: CheckSignature | None) -> ActionType:
    if check_signature is not None:
        # First, so that a call the tool cannot take is recorded as such whatever else is wrong with it.
        check_signature(request.args)
    action = bundle.schema.actions.get(request.tool)
    if action is None or "args" not in action.context.attrs:
        declared = ", ".join(sorted(bundle.schema.actions)) or "none"
        raise RequestInvalid(
            "action_undeclared", f"the schema declares no action {request.tool!r}; declared are {declared}"
        )
    if missing := request.missing_scopes:
        raise RequestInvalid(
            "scope_missing",
            f"tool {request.tool!r} needs scope {', '.join(map(repr, missing))}, "
            f"the session holds {', '.join(map(repr, request.scopes)) or 'none'}",
        )
    try:
        canonical(dict(request.args))
    except NotCanonical as exc:
        raise RequestInvalid("args_invalid", str(exc)) from exc
    return action


def _with_facts(
    prepared: Prepared, request: Request, bundle: Bundle, compiled: CompiledContext, approval: Json
) -> Prepared:
    resource = prepared.resource
    assert resource is not None  # noqa: S101 - derived by the caller
    refusal, seen = judge_context(compiled, bundle.spec, request.at)
    spent = bundle.limits.spent(request.tool, request.session_state)
    inputs: dict[str, Json] = {"context": seen, "limits": dict(request.session_state)}
    prepared = replace(prepared, compiled=compiled, inputs=inputs)
    if refusal is not None:
        return replace(prepared, refusal=refusal)
    try:
        context, found = assemble(
            request, resource, prepared.projection, compiled, bundle.schema, approval=approval
        )
    except ProjectionError as exc:
        return replace(prepared, refusal=Refusal("context", "projection_failed", str(exc)))
    case = Case(request.principal, request.action, resource, context, found)
    if spent is None:
        return replace(prepared, case=case)
    message = (
        f"budget {spent.name!r} allows {spent.max} calls per session, {request.session_state['calls']} ran"
    )
    return replace(prepared, case=case, refusal=Refusal("limits", "budget_spent", message))
