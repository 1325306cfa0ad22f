"""Step 3, evaluate policy: the fold over stages that turns a request into a verdict.

One rule: this is the only place where a verdict is made. The runtime drives it for one call, replay drives
thousands of it in step with batched evaluation, and the columnar engine takes its table of rulings from `rule`.

A decision folds the stages request → tenant → context → limits → policy → approval; the first that refuses gives
*block*. It is written as a generator that *asks* (`Derive`, `Evaluate`) and never acts: who answers decides
whether facts come from systems of record or from a recorded trace.

What follows from one evaluation is in `runtime.ruling`; this module composes evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.canonical import Json, canonical, canonical_texts, sha256
from runtime.patches import PatchError, merge
from runtime.request import action_of
from runtime.ruling import REASONS, Answer, PolicyFault, Ruled, names_of, reason_of, ruled

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from runtime.bundle import Bundle, PolicyInfo
    from runtime.context import Refusal
    from runtime.entities import EntityUid, Slice
    from runtime.facts import CompiledContext
    from runtime.request import Request
    from runtime.trace import Stage, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """What Cedar is asked: one authorization request and its entities."""

    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: Mapping[str, Json]
    """Cedar JSON."""
    slice: Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One derivation of a request: what stages before policy made of one set of arguments."""

    args: Mapping[str, Json]
    args_text: str | None = field(default=None, compare=False, repr=False)
    """Canonical text of `args`, where it is known already."""
    resource: EntityUid | None = None
    projection: Json = None
    projection_text: str | None = field(default=None, compare=False, repr=False)
    """Canonical text of `projection`, where it is known already."""
    compiled: CompiledContext | None = None
    case: Case | None = None
    refusal: Refusal | None = None
    inputs: Mapping[str, Json] = field(default_factory=dict)
    """What each stage saw, by stage."""
    missing: tuple[str, ...] = ()
    """Replay only: names that the record did not ask for. The runtime always asks, so it is empty there."""

    @property
    def text(self) -> str:
        """Canonical text of `args`."""
        return canonical(dict(self.args)) if self.args_text is None else self.args_text

    @property
    def projected(self) -> str | None:
        """Canonical text of `projection`; None: there is none."""
        if self.projection_text is not None or self.projection is None:
            return self.projection_text
        return canonical(self.projection)


@dataclass(frozen=True, slots=True)
class Grants:
    """What the approval stage judges by when a call is resumed."""

    lifted: frozenset[str] = frozenset()
    """Ids of the approve policies that people granted."""
    approval: Json = None
    """`context.approval`, Cedar JSON before projection."""
    action_hash: str | None = None
    """Hash of the action that people approved; null: none was, and nothing runs by these grants."""
    approval_id: str | None = None
    """The decision that asked."""
    ids: tuple[str, ...] = ()
    """Of the grants, sorted."""
    refusal: str | None = None
    """Why the approval cannot be used, a code of `runtime.ruling.REASONS`; null: it can, for that action."""
    policy_hash: str | None = None
    """Under which policies an action is compared with the approved one; null: those that decide. Replay gives the
    recorded ones, so that a candidate is asked for the same action, not for the same text."""


@dataclass(frozen=True, slots=True)
class Derive:
    """Asks for `Prepared` of these arguments."""

    args: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Asks for Cedar's `Answer`, with the policies `lifted` taken out of the set."""

    prepared: Prepared
    lifted: frozenset[str] = frozenset()


Ask = Derive | Evaluate

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on one request, with everything it rests on."""

    request: Request
    verdict: Verdict
    decided_by: Stage
    reason_code: str
    reason: str
    first: Prepared
    """The request as it stands."""
    answer: Answer | None = None
    """What plain Cedar says of the request as it stands; None: an earlier stage refused."""
    determining: tuple[str, ...] = ()
    enforced: Prepared | None = None
    """The patched request, where patches were applied."""
    enforced_determining: tuple[str, ...] = ()
    """Policies that determined the second evaluation."""
    errors: tuple[PolicyFault, ...] = ()
    """Policies that erred in either evaluation."""
    action_hash: str | None = None
    """Hash of exactly what would be enforced; grants bind to it. None: nothing would."""
    grants: Grants | None = None
    """Of a resumed call: what its approval stage judged by."""

    @property
    def runs(self) -> bool:
        """Whether the tool may run now."""
        return self.verdict in ("allow", "modify")

    @property
    def enforced_args(self) -> Mapping[str, Json] | None:
        """Arguments to run, or to run once granted; None: nothing may run."""
        if self.verdict == "block":
            return None
        return (self.enforced or self.first).args


def decide(
    request: Request, bundle: Bundle, grants: Grants | None = None
) -> Generator[Ask, Prepared | Answer, Decision]:
    """Decide one request, asking for what it needs.

    A permit must be satisfied before and after a patch. Nothing is executed or recorded here.

    Args:
        request: what is asked.
        bundle: by which it is decided.
        grants: of a resumed call; None: nobody was asked. A grant lifts its policy only while that asks for approval.

    Returns:
        The decision. Drive it with `runtime.loop` (one call), or in step with thousands (`workbench.rows`).
    """
    decision = yield from _up_to_policy(request, bundle, liftable(grants, bundle))
    return decision if grants is None else _held_to(decision, grants, bundle)


def liftable(grants: Grants | None, bundle: Bundle) -> frozenset[str]:
    """Return which policies the grants take out of the set: those of this bundle that ask for approval."""
    if grants is None:
        return _NONE
    asked = (ident for ident in grants.lifted if ident in bundle.policies)
    return frozenset(ident for ident in asked if bundle.policies[ident].verdict == "approve")


def _held_to(decision: Decision, grants: Grants, bundle: Bundle) -> Decision:
    """The approval stage: what would run or be asked for is what people approved, and the approval is in force."""
    decision = replace(decision, grants=grants)
    if decision.verdict == "block":
        return decision
    enforced = decision.enforced or decision.first
    now = action_hash(decision.request, enforced, grants.policy_hash or bundle.policy_hash)
    code = grants.refusal or (None if now == grants.action_hash else "grant_stale")
    if code is None:
        return decision
    return replace(
        decision,
        verdict="block",
        decided_by="approval",
        reason_code=code,
        reason=f"approval {grants.approval_id} cannot be used: {REASONS[code]}",
        determining=(),
        enforced_determining=(),
        action_hash=None,
    )


def _up_to_policy(
    request: Request, bundle: Bundle, lifted: frozenset[str]
) -> Generator[Ask, Prepared | Answer, Decision]:
    # Asked here, without a generator in between: of every call's fold this is all there is.
    first = yield Derive(request.args)
    assert isinstance(first, Prepared)  # noqa: S101 - the driver's contract
    if first.refusal:
        return _refused(request, first, first.refusal)
    answer = yield Evaluate(first, lifted)
    assert isinstance(answer, Answer)  # noqa: S101 - the driver's contract
    told = bundle.plans.ruled(answer)
    ruling, found = told.ruling, told.determining
    if ruling.verdict != "modify":
        return _decided(request, bundle, first, answer, told)
    try:
        args = _patched(first, found, bundle.policies)
    except PatchError as exc:
        return _blocked(request, first, answer, found, exc.code, str(exc))
    second = yield Derive(args)
    assert isinstance(second, Prepared)  # noqa: S101 - the driver's contract
    if second.refusal:
        return _patch_refused(request, first, answer, found, second)
    again = yield Evaluate(second, lifted)
    assert isinstance(again, Answer)  # noqa: S101 - the driver's contract
    return _second(request, bundle, (first, answer, found), (second, again))


def _patched(
    prepared: Prepared, found: tuple[str, ...], policies: Mapping[str, PolicyInfo]
) -> dict[str, Json]:
    case = prepared.case
    assert case is not None  # noqa: S101 - a case was evaluated
    attrs = {entity.uid: dict(entity.attrs) for entity in case.slice.entities}
    roots: dict[str, Json] = {
        "context": dict(case.context),
        "resource": attrs.get(case.resource, {}),
        "principal": attrs.get(case.principal, {}),
    }
    return merge(prepared.args, [(policy, policies[policy].patch) for policy in found], roots)


def _refused(request: Request, first: Prepared, refusal: Refusal) -> Decision:
    return Decision(
        request=request,
        verdict="block",
        decided_by=refusal.stage,
        reason_code=refusal.code,
        reason=refusal.message,
        first=first,
    )


def _decided(request: Request, bundle: Bundle, first: Prepared, answer: Answer, told: Ruled) -> Decision:
    ruling, found, reason = told
    return Decision(
        request=request,
        verdict=ruling.verdict,
        decided_by="request" if ruling.code == "cedar_no_decision" else "policy",
        reason_code=ruling.code,
        reason=reason,
        first=first,
        answer=answer,
        determining=found,
        errors=answer.errors,
        action_hash=None if ruling.verdict == "block" else action_hash(request, first, bundle.policy_hash),
    )


def _blocked(
    request: Request, first: Prepared, answer: Answer, found: tuple[str, ...], code: str, message: str
) -> Decision:
    return Decision(
        request=request,
        verdict="block",
        decided_by="policy",
        reason_code=code,
        reason=message,
        first=first,
        answer=answer,
        determining=found,
        errors=answer.errors,
    )


def _patch_refused(
    request: Request, first: Prepared, answer: Answer, found: tuple[str, ...], second: Prepared
) -> Decision:
    """Block a patch whose result an earlier stage refuses: `patch_invalid`, or that stage's own refusal."""
    refusal = second.refusal
    assert refusal is not None  # noqa: S101 - asked by the caller
    of_request = refusal.stage == "request"
    return Decision(
        request=request,
        verdict="block",
        decided_by="policy" if of_request else refusal.stage,
        reason_code="patch_invalid" if of_request else refusal.code,
        reason=f"after the patch of {names_of(found)}: {refusal.message}",
        first=first,
        answer=answer,
        determining=found,
        enforced=second,
        errors=answer.errors,
    )


def _second(
    request: Request,
    bundle: Bundle,
    before: tuple[Prepared, Answer, tuple[str, ...]],
    after: tuple[Prepared, Answer],
) -> Decision:
    """Conclude from the evaluation of the patched request: allow gives modify, approve gives approve, else block."""
    (first, answer, found), (second, again) = before, after
    ending = conclude(found, again, bundle.policies)
    return Decision(
        request=request,
        verdict=ending.verdict,
        decided_by="policy",
        reason_code=ending.code,
        reason=ending.reason,
        first=first,
        answer=answer,
        determining=ending.determining,
        enforced=second,
        enforced_determining=ending.enforced_determining,
        errors=_union(answer.errors, again.errors),
        action_hash=None if ending.verdict == "block" else action_hash(request, second, bundle.policy_hash),
    )


class Ending(NamedTuple):
    """How a patched request ends."""

    verdict: Verdict
    code: str
    reason: str
    determining: tuple[str, ...]
    enforced_determining: tuple[str, ...]


def conclude(found: tuple[str, ...], again: Answer, policies: Mapping[str, PolicyInfo]) -> Ending:
    """Return what follows from the second evaluation: allow gives modify, approve gives approve, else block.

    Args:
        found: policies whose patches were applied.
        again: the answer to the patched request.
        policies: of the bundle.
    """
    ruling, later, why = ruled(again, policies)
    verdict: Verdict = {"allow": "modify", "approve": "approve"}.get(ruling.verdict, "block")  # type: ignore[assignment]  # a Literal out of a dict
    code = {"modify": "modified", "approve": "approval_required"}.get(verdict, "patch_insufficient")
    reason = f"patched by {names_of(found)}; the patched request: {why}"
    return Ending(verdict, code, reason, later if verdict == "approve" else found, later)


def action_hash(request: Request, prepared: Prepared, policy_hash: str) -> str:
    """Return the hash of exactly what would be enforced: who, for whom, where, what, on what, under which text."""
    resource = prepared.resource
    # Member by member in the order of names: the canonical text of the whole, whose arguments are written already.
    first, middle, last = _whose(
        request.tool, request.principal, request.on_behalf_of, request.tenant, policy_hash
    )
    on = "null" if resource is None else canonical_texts(str(resource))
    return sha256(f"{first}{prepared.text}{middle}{on}{last}")


@lru_cache(maxsize=1024)
def _whose(
    tool: str, principal: EntityUid, behalf: EntityUid | None, tenant: str, policy_hash: str
) -> tuple[str, str, str]:
    """What stands around arguments and resource in the action's text: the same for many calls of a session."""
    others = {
        "on_behalf_of": None if behalf is None else str(behalf),
        "policy": policy_hash,
        "principal": str(principal),
    }
    before = f'{{"action":{canonical_texts(str(action_of(tool)))},"args":'
    middle = f',{canonical_texts(others)[1:-1]},"resource":'
    return before, middle, f",{canonical_texts({'tenant': tenant})[1:]}"


def _union(one: tuple[PolicyFault, ...], two: tuple[PolicyFault, ...]) -> tuple[PolicyFault, ...]:
    return tuple(sorted(set(one) | set(two), key=lambda fault: (fault.policy, fault.message)))


__all__ = [
    "Ask", "Case", "Decision", "Derive", "Evaluate", "Grants", "Prepared",
    "action_hash", "conclude", "decide", "liftable", "names_of", "reason_of",
]  # fmt: skip
