"""Stages before policy, over one set of arguments: request → context → limits.

One rule: pure but for `compile_facts`, which is handed in. The runtime hands in systems of record, replay hands in
the recorded context; everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.canonical import Json, NotCanonical
from runtime.context import Refusal, judge_context
from runtime.policy import Case, Prepared
from runtime.projection import ProjectionError
from runtime.request import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle
    from runtime.entities import EntityUid
    from runtime.facts import CompiledContext
    from runtime.request import Request

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
    plan = bundle.plans.of(request.tool)
    text = resource = None
    try:
        if check_signature is not None:
            # First, so that a call the tool cannot take is recorded as such whatever else is wrong with it.
            check_signature(args)
        if plan is None or request.required_scopes:
            _check_request(request, bundle)
        assert plan is not None  # noqa: S101 - an action that is not declared was refused
        text = _args_text(request)
        resource = request.resource.resolve(args)
        projection, same = plan.project(args if type(args) is dict else dict(args))
    except RequestInvalid as exc:
        refusal = Refusal("request", exc.code, str(exc))
        return Prepared(args=args, args_text=text, resource=resource, refusal=refusal)
    except ProjectionError as exc:
        refusal = Refusal("request", "projection_failed", str(exc))
        return Prepared(args=args, args_text=text, resource=resource, refusal=refusal)
    compiled = compile_facts(request, resource)
    refused, seen = judge_context(compiled, bundle.spec, request.at, skew_us=request.max_skew_us)
    judged = bundle.limits.judge(request, projection)
    case = None
    if refused is None:
        try:
            context, found = plan.assembler.assemble(request, resource, projection, compiled, approval)
            case = Case(request.principal, request.action, resource, context, found)
            refused = judged.refusal
        except ProjectionError as exc:
            refused = Refusal("context", "projection_failed", str(exc))
    return Prepared(
        args=args,
        args_text=text,
        resource=resource,
        projection=projection,
        projection_text=text if same else None,
        compiled=compiled,
        case=case,
        refusal=refused,
        inputs={"context": seen, "limits": request.limit_inputs},
        missing=judged.missing,
    )


def _check_request(request: Request, bundle: Bundle) -> None:
    """Refuse an action that is not declared, and scopes that are not held."""
    if bundle.plans.of(request.tool) is None:
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


def _args_text(request: Request) -> str:
    try:
        return request.args_text
    except NotCanonical as exc:
        raise RequestInvalid("args_invalid", str(exc)) from exc
