"""The ruling over one evaluation: what follows from what Cedar says, and nothing else.

One rule: a verdict is a function of six flags. The runtime reads them off one answer, the columnar engine computes
them as columns; both look the verdict up here.

Source of the verdicts: DESIGN section 3. Cedar's authorizer skips a policy whose condition raises an error; a
governed runtime must not fail open, so a forbid that errs blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import PolicyInfo
    from runtime.trace import CedarDecision, Verdict

REASONS: Mapping[str, str] = {
    "permitted": "a permit is satisfied and no forbid",
    "modified": "permitted once the patches of `determining` are applied",
    "approval_required": "permitted, once people admitted by each policy of `determining` grant it",
    "not_permitted": "no permit is satisfied",
    "forbidden": "a plain forbid is satisfied",
    "policy_error": "a forbid raised an evaluation error",
    "patch_conflict": "two modify policies write different values to one path",
    "patch_unresolved": "a patch refers to something this request does not have",
    "patch_invalid": "the patched arguments do not fit the tool, or nothing changed",
    "patch_insufficient": "the patched request is still not permitted as it stands",
    "scope_missing": "the session lacks a scope the tool declares",
    "action_undeclared": "the bundle's schema does not declare the tool",
    "args_invalid": "the arguments do not fit the tool's signature, or are not JSON",
    "projection_failed": "the schema's projection cannot hold an argument or a fact exactly",
    "undecidable": "deciding raised an error that no stage expects; `reason` names it",
    "resource_unresolved": "the resource cannot be derived from the arguments",
    "cedar_no_decision": "Cedar refused the request before any policy",
    "tenant_crossing": "a source returned a fact of another tenant",
    "source_failed": "a source of facts could not answer",
    "not_unique": "a fact has more than one row",
    "stale": "a fact is older than it may be, or dated ahead of the decision",
    "budget_spent": "a budget of limits.toml is spent",
    "rate_exceeded": "a budget of limits.toml over a sliding window is spent",
    "amount_invalid": "a budget counts an argument that is no integer of 0 or more",
    "loop_detected": "the same call, or cycle of calls, came again more often than limits.toml allows",
    "breaker_open": "too many of the last calls failed: a breaker of limits.toml refuses more for a while",
    "stopped": "somebody set an emergency stop",
    "grant_stale": "what would be enforced is not what was approved: arguments, facts or policies have moved",
    "grant_expired": "it was not used in time",
    "grant_denied": "an approver denied it",
    "grant_consumed": "it was used; a grant is used once",
    "idempotency_conflict": "the idempotency key was used with other arguments",
    "duplicate_differs": "the duplicate is permitted, but what would run now differs from what ran",
}
"""Closed vocabulary of `reason_code`, with its meaning."""


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """A policy that raised an evaluation error."""

    policy: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What Cedar says of one case."""

    decision: CedarDecision
    reasons: tuple[str, ...] = ()
    """Determining policies as Cedar lists them: satisfied permits on Allow, satisfied forbids on Deny; sorted."""
    errors: tuple[PolicyFault, ...] = ()
    permitted: bool = False
    """Whether any permit is satisfied, asked apart when forbids are."""
    cause: str = ""
    """Why there is no decision."""


class Flags(NamedTuple):
    """What the ruling depends on, and nothing else."""

    decided: bool
    forbid_error: bool
    plain_forbid: bool
    permitted: bool
    modify: bool
    approve: bool


class Ruling(NamedTuple):
    """Verdict of the policy stage over one evaluation."""

    verdict: Verdict
    code: str


class Ruled(NamedTuple):
    """A ruling, and what is said of it."""

    ruling: Ruling
    determining: tuple[str, ...]
    reason: str


def rule(flags: Flags) -> Ruling:
    """Return the verdict that follows from the flags. Total over all 64 combinations.

    Example:
        >>> rule(Flags(True, False, False, True, False, True))
        Ruling(verdict='approve', code='approval_required')
    """
    code = None
    if not flags.decided:
        code = "cedar_no_decision"
    elif flags.forbid_error:
        code = "policy_error"
    elif flags.plain_forbid:
        code = "forbidden"
    elif not flags.permitted:
        code = "not_permitted"
    if code is not None:
        return Ruling("block", code)
    if flags.modify:
        return Ruling("modify", "modified")
    return Ruling("approve", "approval_required") if flags.approve else Ruling("allow", "permitted")


def flags_of(answer: Answer, policies: Mapping[str, PolicyInfo]) -> Flags:
    """Read the flags off one answer."""
    forbids = [policies[p].verdict for p in answer.reasons if policies[p].effect == "forbid"]
    return Flags(
        decided=answer.decision != "NoDecision",
        forbid_error=any([policies[fault.policy].effect == "forbid" for fault in answer.errors]),
        plain_forbid="plain" in forbids,
        permitted=answer.permitted,
        modify="modify" in forbids,
        approve="approve" in forbids,
    )


def determining(ruling: Ruling, answer: Answer, policies: Mapping[str, PolicyInfo]) -> tuple[str, ...]:
    """Return the ids that determined the ruling, sorted: the permits, or the forbids of the deciding kind."""
    match ruling.code:
        case "policy_error":
            found = [f.policy for f in answer.errors if policies[f.policy].effect == "forbid"]
        case "forbidden":
            found = [p for p in answer.reasons if policies[p].verdict == "plain"]
        case "modified":
            found = [p for p in answer.reasons if policies[p].verdict == "modify"]
        case "approval_required":
            found = [p for p in answer.reasons if policies[p].verdict == "approve"]
        case "permitted":
            found = list(answer.reasons)
        case _:
            found = []
    return tuple(sorted(found))


def ruled(answer: Answer, policies: Mapping[str, PolicyInfo]) -> Ruled:
    """Return what follows from one answer."""
    ruling = rule(flags_of(answer, policies))
    found = determining(ruling, answer, policies)
    return Ruled(ruling, found, reason_of(ruling, answer, found))


def reason_of(ruling: Ruling, answer: Answer, found: tuple[str, ...]) -> str:
    """Return the reason of a ruling, in words. A fault without a message (columns have none) is named alone."""
    match ruling.code:
        case "cedar_no_decision":
            return f"cedar refused the request: {answer.cause}"
        case "policy_error":
            faults = {fault.policy: fault.message for fault in answer.errors}
            said = {policy: f": {faults[policy]}" if faults[policy] else "" for policy in found}
            return "; ".join(f"forbid `{policy}` could not be evaluated{said[policy]}" for policy in found)
        case "not_permitted":
            return "no permit policy is satisfied"
        case "permitted":
            return f"permitted by {names_of(found)}"
        case "forbidden":
            return f"forbidden by {names_of(found)}"
        case "modified":
            return f"needs the change of {names_of(found)}"
        case _:
            return f"needs the approval that {names_of(found)} asks for"


def names_of(policies: tuple[str, ...]) -> str:
    """Return policy ids as reasons quote them."""
    return ", ".join(f"`{policy}`" for policy in policies)
