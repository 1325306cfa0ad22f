"""Resuming a call that waited for people: the original request again, by whoever may make it, once they answered.

One rule: what is resumed is what was asked. Arguments, idempotency key and session are those of the recorded call;
of scopes only those that both the asking and the resuming session hold. Everything else is decided again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runtime.canonical import parse
from runtime.deciding import Settler
from runtime.errors import ApprovalUnknown
from runtime.settling import Attempt
from runtime.tools import Bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.approval import Approval
    from runtime.identity import Identity
    from runtime.loop import Runtime

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


def own_approval(runtime: Runtime, identity: Identity, approval_id: str) -> Approval:
    """Return an approval that this identity asked for, closed if its time is over.

    Raises:
        ApprovalUnknown: there is none, or it is of another tenant, principal or user.
    """
    runtime.approvals.expire()
    found = runtime.approvals.get(approval_id)
    if (found.tenant, found.owner) != (identity.tenant, identity.owner):
        raise ApprovalUnknown(
            f"{identity.owner} has asked for no approval {approval_id!r:.80} in this tenant"
        )
    return found


def resumption(runtime: Runtime, identity: Identity, approval_id: str) -> tuple[Settler, Attempt]:
    """Return who decides a resumed call, and what is tried.

    Raises:
        ApprovalUnknown: as `own_approval`.
        RegistrationError: its tool is not registered here.
    """
    row = own_approval(runtime, identity, approval_id).row
    tool, key = runtime.find_tool(str(row["tool"])), row["idempotency_key"]
    asked_with = frozenset(row["scopes"])  # type: ignore[arg-type]  # a list of names, as it was written
    scopes = tuple(scope for scope in identity.scopes if scope in asked_with)
    # Its own session, whichever object resumes: a fresh one would have a fresh budget.
    settler = Settler(runtime, replace(identity, session_id=str(row["session_id"]), scopes=scopes))
    args = parse(str(row["args"]))
    assert isinstance(args, dict)  # noqa: S101 - as it was written
    assert key is None or isinstance(key, str)  # noqa: S101 - as it was written
    return settler, Attempt(
        tool, Bound(args, None), key, settler.key_hash(tool, key), approval_id=approval_id
    )


def pauses(timeout: float | None) -> Iterator[float]:
    """Yield seconds to sleep after each look until the time is up; None: for ever. At least once."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        left = pause if deadline is None else deadline - time.monotonic()
        yield max(0.0, min(pause, left))
        if left <= 0:
            return
        pause = min(pause * 1.5, _LONGEST_PAUSE)


__all__ = ["own_approval", "pauses", "resumption"]
