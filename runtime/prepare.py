"""Stages before policy, over one set of arguments: request → context → limits.

One rule: pure but for `compile_facts`, which is handed in. The runtime hands in systems of record, replay hands in
the recorded context; everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.assembly import assemble
from runtime.canonical import Json, NotCanonical
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
    if args is not request.args:
        request = replace(request, args=args)
    text = resource = None
    try:
        action, text = _check_request(request, bundle, check_signature)
        resource = request.resource.resolve(args)
        projection = project(dict(args), action.context.attrs["args"].type, "context.args")
    except RequestInvalid as exc:
        refusal = Refusal("request", exc.code, str(exc))
        return Prepared(args=args, args_text=text, resource=resource, refusal=refusal)
    except ProjectionError as exc:
        refusal = Refusal("request", "projection_failed", str(exc))
        return Prepared(args=args, args_text=text, resource=resource, refusal=refusal)
    prepared = Prepared(args=args, args_text=text, resource=resource, projection=projection)
    return _with_facts(prepared, request, bundle, compile_facts(request, resource), approval)


def _check_request(
    request: Request, bundle: Bundle, check_signature: CheckSignature | None
) -> tuple[ActionType, str]:
    """Return the action's type and the canonical text of the arguments."""
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
        return action, request.args_text
    except NotCanonical as exc:
        raise RequestInvalid("args_invalid", str(exc)) from exc


def _with_facts(
    prepared: Prepared, request: Request, bundle: Bundle, compiled: CompiledContext, approval: Json
) -> Prepared:
    refusal, seen = judge_context(compiled, bundle.spec, request.at, skew_us=request.max_skew_us)
    judged = bundle.limits.judge(request, prepared.projection)
    case = None
    if refusal is None:
        try:
            case = _case(prepared, request, bundle, compiled, approval)
            refusal = judged.refusal
        except ProjectionError as exc:
            refusal = Refusal("context", "projection_failed", str(exc))
    return Prepared(
        args=prepared.args,
        args_text=prepared.args_text,
        resource=prepared.resource,
        projection=prepared.projection,
        compiled=compiled,
        case=case,
        refusal=refusal,
        inputs={"context": seen, "limits": request.limit_inputs},
        missing=judged.missing,
    )


def _case(
    prepared: Prepared, request: Request, bundle: Bundle, compiled: CompiledContext, approval: Json
) -> Case:
    resource = prepared.resource
    assert resource is not None  # noqa: S101 - derived by the caller
    context, found = assemble(
        request, resource, prepared.projection, compiled, bundle.schema, approval=approval
    )
    return Case(request.principal, request.action, resource, context, found)
