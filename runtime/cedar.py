"""The row engine: Cedar itself, through `cedarpy`, one case or a batch.

One rule: foreign answers are translated here and nowhere else; policy ids in error texts are parsed here.

What was measured of cedarpy 4.12: when a forbid is satisfied the response lists forbids only, so whether a
permit is satisfied is asked apart, of the permits alone (a second evaluation, only then).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import cedarpy
import msgspec

from runtime.ruling import Answer, PolicyFault
from runtime.schema_parser import unescape
from runtime.trace import CedarDecision  # noqa: TC001 - msgspec reads annotations at run time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Case

_PREFIX = "error while evaluating policy `"
_encode = msgspec.json.Encoder().encode
_engine = cedarpy._internal.is_authorized_batch  # noqa: SLF001 - see `_asked`; tests hold it to the public one


@cache
def engine_name() -> str:
    """Return the engine's name and version, as recorded with every decision."""
    return f"cedarpy {version('cedarpy')}"


def evaluate(case: Case, bundle: Bundle, lifted: frozenset[str] = frozenset()) -> Answer:
    """Return Cedar's answer for one case, as `evaluate_batch` gives it.

    Cost: 20 µs and 1 µs a policy of the action; two to four times that where a policy errs or there is no decision.
    """
    narrowing = bundle.narrowing
    narrow = narrowing.of(case.action.id)
    principal, action, resource = case.principal, case.action, case.resource
    request = {
        "principal": {"type": principal.type, "id": principal.id},
        "action": {"type": action.type, "id": action.id},
        "resource": {"type": resource.type, "id": resource.id},
        "context": _encode(narrow.context(case.context)).decode(),
    }
    text, idle = case.slice.telling, narrow.idle
    # Entities that are no more than their names are left out.
    entities = (
        narrowing.no_entities if text is None else cedarpy.Entities.from_json_str(text, bundle.cedar_schema)
    )
    found = _asked(request, bundle.without(lifted | idle if lifted else idle), entities, bundle)
    told = found.diagnostics
    if told.errors or found.decision == "NoDecision":
        # Cedar's words for what went wrong name what a record has: they are those of the whole request.
        whole = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
        return evaluate_batch([case], whole, bundle, lifted)[0]
    permitted = found.decision == "Allow"
    if told.reason and not permitted:
        permits = bundle.without(narrow.no_permits)
        permitted = _asked(request, permits, entities, bundle).decision == "Allow"
    return Answer(found.decision, tuple(sorted(told.reason)), permitted=permitted)


class _Told(msgspec.Struct):
    reason: list[str] = []
    errors: list[str] = []


class _Found(msgspec.Struct):
    """Cedar's response, as its engine writes it."""

    decision: CedarDecision
    diagnostics: _Told


def _asked(
    request: dict[str, Any], policies: cedarpy.PolicySet, entities: cedarpy.Entities, bundle: Bundle
) -> _Found:
    """Ask the engine itself: cedarpy's wrapper takes as long again, to make objects of what two members say."""
    (text,) = _engine([request], policies, entities._inner, bundle.narrowing.schema, False)  # noqa: SLF001 - as above
    return _read(text)


def ask_batch(
    cases: Sequence[Case],
    entities: cedarpy.Entities,
    policies: cedarpy.PolicySet,
    schema: cedarpy.Schema | None,
) -> list[Answer]:
    """Return Cedar's answers over a policy set that is no bundle's; `permitted` says only what `decision` says."""
    requests = [_request(case) for case in cases]
    return [_answer(r, None) for r in cedarpy.is_authorized_batch(requests, policies, entities, schema)]


def evaluate_batch(
    cases: Sequence[Case],
    entities: cedarpy.Entities,
    bundle: Bundle,
    lifted: frozenset[str] = frozenset(),
) -> list[Answer]:
    """Return Cedar's answers for cases that share one entity store, in order."""
    requests = [_request(case) for case in cases]
    policies = bundle.without(lifted) if lifted else bundle.policy_set
    results = cedarpy.is_authorized_batch(requests, policies, entities, bundle.cedar_schema)
    answers = [_answer(result, bundle.policies) for result in results]
    asked = [i for i, answer in enumerate(answers) if answer.decision == "Deny" and answer.reasons]
    if asked:
        permits = cedarpy.is_authorized_batch(
            [requests[i] for i in asked], bundle.permit_set, entities, bundle.cedar_schema
        )
        for i, result in zip(asked, permits, strict=True):
            answers[i] = _with_permit(answers[i], permitted=result.allowed)
    return answers


_read = msgspec.json.Decoder(_Found).decode


def _request(case: Case) -> dict[str, Any]:
    return {
        "principal": case.principal.json(),
        "action": case.action.json(),
        "resource": case.resource.json(),
        "context": _encode(case.context).decode(),
    }


def _answer(result: cedarpy.AuthzResult, known: Iterable[str] | None) -> Answer:
    decision: CedarDecision = result.decision.value
    if decision == "NoDecision":
        return Answer("NoDecision", cause="; ".join(result.diagnostics.errors))
    return Answer(
        decision,
        tuple(sorted(result.diagnostics.reasons)),
        faults(result.diagnostics.errors, known),
        permitted=decision == "Allow",
    )


def _with_permit(answer: Answer, *, permitted: bool) -> Answer:
    return Answer(answer.decision, answer.reasons, answer.errors, permitted=permitted)


def faults(errors: Iterable[str], known: Iterable[str] | None) -> tuple[PolicyFault, ...]:
    """Parse Cedar's error texts into (policy, message), sorted by policy.

    Args:
        errors: the texts, in which Cedar escapes quotes, control and invisible characters of an id.
        known: ids of the policy set; None: ids without a backtick, as generated ones are.

    Raises:
        ValueError: if a text names no known policy; an error nobody can attribute must not pass as none.
    """
    texts = list(errors)
    if not texts:
        return ()
    ids = None if known is None else frozenset(known)
    found = [_fault(text, ids) for text in texts]
    return tuple(sorted(found, key=lambda fault: (fault.policy, fault.message)))


def _fault(text: str, known: frozenset[str] | None) -> PolicyFault:
    if text.startswith(_PREFIX):
        rest = text.removeprefix(_PREFIX)
        # From the right: an id may hold the mark that ends it, so the longest known one is meant.
        ends = [match.start() for match in re.finditer("`: ", rest)]
        for end in ends[:1] if known is None else reversed(ends):
            policy = _unescaped(rest[:end])
            if known is None or policy in known:
                return PolicyFault(policy, rest[end + len("`: ") :])
    raise ValueError(f"cedar reported an error that names no policy of the bundle: {text!r}")


def _unescaped(ident: str) -> str:
    try:
        return unescape(f'"{ident}"')
    except ValueError:
        return ident
