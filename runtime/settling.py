"""A call while it is being settled: what was asked, what came of it, and who takes it from there.

One rule: a decision that let a call run is handed to one flow, or gets the outcome `aborted`; never neither.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.arguments import shown
from runtime.canonical import canonical, content_hash, sha256
from runtime.entities import EntityUid
from runtime.errors import ApprovalRequired, Blocked, GovernanceError, IdempotencyConflict
from runtime.policy import Decision, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.record import Row
    from runtime.request import Request
    from runtime.tools import Bound, Tool

MAX_KEY_CHARS: Final = 4096
"""Longest idempotency key."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request being governed."""

    tool: Tool
    bound: Bound
    key: str | None
    key_hash: str | None
    approval_id: str | None = None
    """Of a resumed call: the approval it is resumed by."""
    tried: list[str] = field(default_factory=list)
    """Ids under which a decision of it may have become durable, the last one; noted before it does."""


class Settled(NamedTuple):
    """A decision that is durable."""

    row: Row
    enforced: Mapping[str, Any] | None
    """Arguments to run."""
    instead: Callable[[], Any] | None
    """If the tool is not to run: returns or raises what the caller gets."""


class Handover:
    """Passes a settled decision to the flow that runs it, unless the flow has given up meanwhile.

    Whoever comes second knows it: the thread that decided, or the flow. So a decision that let a call run and whose
    caller is gone gets an outcome, `aborted`, exactly once.
    """

    def __init__(self) -> None:
        self._first = threading.Lock()
        self.settled: Settled | None = None

    def came_second(self) -> bool:
        """Say so, once for each side."""
        return not self._first.acquire(blocking=False)


def key_hash(
    *, tenant: str, principal: EntityUid, on_behalf_of: EntityUid | None, tool: str, key: str
) -> str:
    """Return the address of an idempotency key: its tenant, principal, on-behalf-of and tool are part of it."""
    behalf = None if on_behalf_of is None else str(on_behalf_of)
    return content_hash([tenant, str(principal), behalf, tool, key])


def effect_id_of(decision: Mapping[str, Any]) -> str:
    """Return the stable id of a decision's action: one for all attempts under one idempotency key."""
    if decision.get("idempotency_key") is None:
        return str(decision["decision_id"])
    behalf = decision.get("on_behalf_of_type")
    return key_hash(
        tenant=decision["tenant"],
        principal=EntityUid(decision["principal_type"], decision["principal_id"]),
        on_behalf_of=None if behalf is None else EntityUid(behalf, decision["on_behalf_of_id"]),
        tool=decision["tool"],
        key=decision["idempotency_key"],
    )


def check_key(key: object) -> None:
    """Refuse what is no idempotency key.

    Raises:
        IdempotencyConflict: it is no text, empty, too long, or not valid Unicode.
    """
    if key is None:
        return
    if type(key) is not str or not key:
        raise IdempotencyConflict(f"an idempotency key is a non-empty plain string, got {shown(key):.80}")
    if len(key) > MAX_KEY_CHARS:
        raise IdempotencyConflict(
            f"an idempotency key has at most {MAX_KEY_CHARS} characters, got {len(key)}; use a hash of it"
        )
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise IdempotencyConflict(f"an idempotency key must be valid Unicode: {exc}") from exc


def args_hash(attempt: Attempt) -> str:
    """Return the address of the arguments as given."""
    return sha256(attempt.bound.text or canonical(dict(attempt.bound.args)))


def same_action(decision: Decision, original: Mapping[str, Any] | None) -> bool:
    """Whether what would run now is what the original ran."""
    now = decision.enforced_args
    return original is not None and now is not None and canonical(dict(now)) == original["enforced_args"]


def refuse(request: Request, code: str, reason: str) -> Decision:
    """Refuse a repeat; the arguments are recorded, nothing is compiled."""
    return Decision(
        request=request,
        verdict="block",
        decided_by="request",
        reason_code=code,
        reason=reason,
        first=Prepared(args=request.args),
    )


def raiser(decision: Decision, error: GovernanceError | None = None) -> Callable[[], Any]:
    """Return a function that raises what the caller of a call that does not run must see."""
    if error is None:
        text = (
            f"{decision.request.tool}: {decision.reason} ({decision.reason_code}, by {decision.decided_by})"
        )
        asked = f"; approval {decision.request.decision_id}" if decision.verdict == "approve" else ""
        kind = ApprovalRequired if decision.verdict == "approve" else Blocked
        error = kind(text + asked, decision)

    def conclude() -> Any:
        raise error

    return conclude
