"""Approvals: what waits for a person, who granted or denied it, and the one use of a grant.

One rule: a grant binds to exactly the action that would be enforced, expires, and is used once.

A decision that needs approval adds its approval in its own transaction; the id of the approval is that of the
decision. What an approver says is evidence (`outcomes` of kind `approval`) and, in the same transaction, state. Using
an approval, claiming the idempotency key and starting the effect are one transaction, too: of two processes that
resume at once, one runs.

The approver's identity comes from an authenticator (`runtime.authenticators`). The principal never approves; the user
acted for only where `@approvers` names them, or a role they hold.

Everything here works over a ledger alone: approvers need neither the agent's process nor its bundle.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from runtime import approval_state as tables
from runtime.approval import Approval, Denial, Grant, Need, State, answerable, need_text
from runtime.approval_state import GrantMoved
from runtime.approvals_read import RecordedApprovals
from runtime.authenticators import Approver, Matter
from runtime.errors import (
    ApprovalError,
    ApprovalRequired,
    GrantRefused,
)
from runtime.foreign import repr_of, well_formed
from runtime.policy import Decision, Grants
from runtime.record import approval_row, asked_again, execution_row, grants_of
from runtime.trace import OUTCOMES
from runtime.values import micros, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runtime.authenticators import Answer, Authenticator
    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.ledger import Ledger, Move
    from runtime.record import Row

TTL: Final = timedelta(hours=24)
"""How long an approval can be granted and used, unless `Runtime.open` says otherwise."""

REASON_CHARS: Final = 1_000
_ATTEMPTS: Final = 16
_UNUSABLE: Final[dict[str, str]] = {
    "denied": "grant_denied", "expired": "grant_expired", "consumed": "grant_consumed",
}  # fmt: skip


class Approvals(RecordedApprovals):
    """The approvals of one ledger. `Runtime.approvals` is one; use from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        authenticators: Iterable[Authenticator] = (),
        *,
        ttl: timedelta | float = TTL,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """Work on a ledger.

        Args:
            ledger: that holds them.
            authenticators: who tell who approves; none: nothing can be granted or denied here.
            ttl: how long an approval asked for here can be granted and used; a number is seconds.
            clock: returns the current UTC time.

        Raises:
            ApprovalError: the time is not above zero.
        """
        super().__init__(ledger, clock=clock)
        self._ledger: Ledger = ledger
        self._authenticators = tuple(authenticators)
        self.ttl = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        if self.ttl <= timedelta(0):
            raise ApprovalError(f"an approval needs time to be granted, got `approval_ttl` {self.ttl}")

    def list(self, tenant: str | None = None, state: State | None = "pending") -> tuple[Approval, ...]:
        """Close what nobody used in time, and return approvals as `RecordedApprovals.list` does."""
        self.expire()
        return super().list(tenant, state)

    def _due(self) -> int:
        return 0  # what is due was closed before, with its outcome; until then it is as it was

    def grant(self, approval_id: str, credential: object, policy: str | None = None) -> Approval:
        """Grant what one policy asks, or all that this approver may.

        Args:
            approval_id: what is granted.
            credential: of the approver: a `SignedToken`, `OsUser()`, or what another authenticator takes.
            policy: only this policy; None: all the approver is admitted by.

        Returns:
            The approval as it then stands: `granted` once every policy has its grant.

        Raises:
            ApprovalUnknown: there is none of this id.
            ApprovalClosed: it waits for nothing any more.
            GrantRefused: the credential is not believed; `GrantExpired`, `GrantStale`, `GrantReplayed` say why.
            NotAnApprover: the approver may not grant this. In all these cases nothing is granted.

        Durability: the grants and their evidence are on disk when it returns; one transaction.
        """
        return self._answer(approval_id, credential, "granted", policy, None)

    def deny(self, approval_id: str, credential: object, reason: str | None = None) -> Approval:
        """Deny an approval as a whole, also one that is granted and not used yet. Takes and raises as `grant`."""
        return self._answer(approval_id, credential, "denied", None, reason)

    def _answer(
        self, approval_id: str, credential: object, answer: Answer, policy: str | None, reason: str | None
    ) -> Approval:
        for _ in range(_ATTEMPTS):
            self.expire()
            approval = self.get(approval_id)
            now = self._clock()
            approver = self._authenticate(approval, credential, answer, now)
            if approver.single_use:
                self._refuse_used(approver)
            needs = answerable(approval, approver, answer, policy)
            try:
                self._record(approval, approver, needs, answer, reason, now)
            except GrantMoved:
                continue  # somebody else answered meanwhile: look again
            return self.get(approval_id)
        raise GrantMoved(f"approval {approval_id!r} is moved by others faster than it can be answered; retry")

    def _authenticate(
        self, approval: Approval, credential: object, answer: Answer, now: datetime
    ) -> Approver:
        if not self._authenticators:
            raise GrantRefused(
                "no authenticator is configured, so nobody can be known; pass `authenticators=` "
                "(the path of an approvers.toml, or objects)"
            )
        matter = Matter(
            approval_id=approval.id,
            tenant=approval.tenant,
            action_hash=approval.action_hash,
            answer=answer,
            now=now,
        )
        for each in self._authenticators:
            if isinstance(credential, each.takes):
                found = each.authenticate(credential, matter)
                if not isinstance(found, Approver):
                    raise GrantRefused(f"{type(each).__name__} returned {repr_of(found):.80}, no approver")
                return found
        known = ", ".join(each.takes.__name__ for each in self._authenticators)
        raise GrantRefused(
            f"a {type(credential).__name__} proves nobody's identity; the authenticators here take {known}"
        )

    def _refuse_used(self, approver: Approver) -> None:
        if self._ledger.query(tables.USED, (approver.credential_id,)):
            raise tables.replayed(approver.credential_id)

    def _record(
        self,
        approval: Approval,
        approver: Approver,
        needs: Sequence[Need],
        answer: Answer,
        reason: str | None,
        now: datetime,
    ) -> None:
        details = _details(approval, approver, reason)
        rows = [
            approval_row(
                approval.row,
                policy=need.policy,
                value=answer,
                source=str(approver.uid),
                details=details,
                recorded_at=now,
            )
            for need in needs
        ]
        moves = tables.answered(approval.id, rows, micros(now), answer)
        if approver.single_use:
            moves.append(tables.use_credential(approver.credential_id, micros(now)))
        if answer == "denied":
            rows.append(self._ending(approval, "denied", now) | {"source": str(approver.uid)})
        self._ledger.commit(evidence=[(OUTCOMES, row) for row in rows], moves=moves)

    @staticmethod
    def _ending(approval: Approval, status: Literal["denied", "expired"], now: datetime) -> Row:
        """The outcome of the decision that asked: it did not run."""
        return execution_row(approval.row, status, started_at=None, ended_at=now) | {"reason_code": status}

    def expire(self) -> int:
        """Close what nobody used in time, each with its outcome `expired`; return how many.

        Called by everything that reads approvals to act on them; call it where nobody does.
        """
        now = self._clock()
        due = [ident for (ident,) in self._ledger.query(tables.DUE, (micros(now),))]
        return sum(self._expire_one(self.get(ident), now) for ident in due)

    def _expire_one(self, approval: Approval, now: datetime) -> bool:
        ending = self._ending(approval, "expired", now)
        try:
            self._ledger.commit(
                evidence=[(OUTCOMES, ending)], moves=[tables.expired(approval.id, micros(now))]
            )
        except GrantMoved:
            return False  # somebody else did, or it was used or denied meanwhile
        return True

    # -- for the call that asked -------------------------------------------------------------------------------

    def asked(self, decision: Decision, bundle: Bundle) -> Sequence[Move]:
        """Return what a decision that needs approval adds to the ledger, in its own transaction."""
        if decision.verdict != "approve":
            return []
        needs: dict[str, Json] = {
            policy: [*bundle.policies[policy].approvers] for policy in decision.determining
        }
        request, now = decision.request, self._clock()
        return [tables.asks(request.decision_id, request.tenant, needs, micros(now), micros(now + self.ttl))]

    def held(self, approval_id: str) -> Grants:
        """Return what the approval stage of a resumed call judges by.

        Where the call that asked was itself resumed, what was granted to it then still has to hold, and is used up
        together.

        Raises:
            ApprovalRequired: not everything is granted yet.
        """
        self.expire()
        chain = [self.get(approval_id)]
        while (before := grants_of(chain[-1].row)) is not None and before.approval_id is not None:
            chain.append(self.get(before.approval_id))
        first, action = chain[0], chain[0].action_hash
        unusable = next((_UNUSABLE[each.state] for each in chain if each.state in _UNUSABLE), None)
        if unusable is not None:
            return Grants(approval_id=approval_id, action_hash=action, refusal=unusable)
        if first.state != "granted":
            raise still_waiting(first)
        grants = [need.grant for each in chain for need in each.needs if need.grant is not None]
        return Grants(
            lifted=frozenset(grant.policy for grant in grants),
            approval={
                "approvers": [*sorted({grant.approver for grant in grants})],
                "granted_at": timestamp(max(grant.granted_at for grant in grants)),
            },
            action_hash=action,
            approval_id=approval_id,
            ids=tuple(sorted(grant.id for grant in grants)),
        )

    def used(self, decision: Decision) -> Sequence[Move]:
        """Return what a resumed decision that runs does to its grants, in its own transaction.

        Each move raises `GrantMoved` if they were used, denied or expired meanwhile.
        """
        held = decision.grants
        if held is None or not decision.runs:
            return []
        now = micros(self._clock())
        return [tables.consumes(held.ids, decision.request.decision_id, now)]


def _details(approval: Approval, approver: Approver, reason: str | None) -> dict[str, Json]:
    """How the approver was known, and what they were shown."""
    said: dict[str, Json] = {} if reason is None else {"reason": well_formed(reason)[:REASON_CHARS]}
    return said | {
        "authenticator": approver.method,
        "credential_id": approver.credential_id,
        "roles": [*sorted(map(str, approver.roles))],
        "action_hash": approval.action_hash,
        "context_hash": approval.context_hash,
        "expires_at": timestamp(approval.expires_at),
    }


def still_waiting(approval: Approval) -> ApprovalRequired:
    """Return what a call that waits for people raises, again."""
    missing = "; ".join(map(need_text, approval.missing))
    return ApprovalRequired(
        f"{approval.tool}: approval {approval.id} waits until {timestamp(approval.expires_at)}: {missing}",
        asked_again(approval.row),
    )


__all__ = ["TTL", "Approval", "Approvals", "Denial", "Grant", "Need", "State"]
