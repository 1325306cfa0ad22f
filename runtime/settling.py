"""A call while it is being settled: what was asked, what came of it, and who takes it from there.

One rule: a decision that let a call run is handed to one flow, or gets the outcome `aborted`; never neither.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.canonical import canonical, sha256
from runtime.errors import ApprovalRequired, Blocked, GovernanceError, IdempotencyConflict
from runtime.policy import Decision, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.record import Row
    from runtime.request import Request
    from runtime.tools import Bound, Tool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request being governed."""

    tool: Tool
    bound: Bound
    key: str | None
    key_hash: str | None


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


def check_key(key: object) -> None:
    """Refuse what is no idempotency key.

    Raises:
        IdempotencyConflict: it is no text, empty, or not valid Unicode.
    """
    if key is None:
        return
    if not isinstance(key, str) or not key:
        raise IdempotencyConflict(f"an idempotency key is a non-empty string, got {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise IdempotencyConflict(f"an idempotency key must be valid Unicode: {exc}") from exc


def args_hash(attempt: Attempt) -> str:
    """Return the address of the arguments as given."""
    return sha256(canonical(dict(attempt.bound.args)))


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
        error = ApprovalRequired(text, decision) if decision.verdict == "approve" else Blocked(text, decision)

    def conclude() -> Any:
        raise error

    return conclude
