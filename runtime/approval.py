"""One approval, as a value: what would run, which policies ask for whose grant, and what was granted.

One rule: what an approver is shown is what the trace holds; nothing here is looked up anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from runtime.entities import EntityUid
from runtime.errors import ApprovalClosed, ApprovalUnknown, GrantExpired, NotAnApprover
from runtime.values import timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from runtime.authenticators import Answer, Approver
    from runtime.record import Row

State = Literal["pending", "granted", "denied", "expired", "consumed"]
"""`pending` some policy still waits for its grant; `granted` all have theirs, and nobody has used them; `denied` one
approver said no; `expired` it was not used in time; `consumed` it was used."""

_REPR_CHARS: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One approver's yes to what one policy asks."""

    id: str
    """The `outcomes` row that records it."""
    policy: str
    approver: str
    """Uid, canonical text."""
    granted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One approver's no to the whole."""

    id: str
    """The `outcomes` row that records it."""
    approver: str
    """Uid, canonical text."""
    reason: str | None
    """As the approver gave it; null: none was given."""
    denied_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one policy asks for."""

    policy: str
    approvers: tuple[str, ...]
    """Uids of whom it admits, or of roles they hold; empty: anybody but the principal and the user acted for."""
    grant: Grant | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Approval:
    """What waits, or waited, for people. A value: it does not change when they answer."""

    id: str
    state: State
    asked_at: datetime
    expires_at: datetime
    needs: tuple[Need, ...]
    """One for each policy that asks, by id."""
    row: Row
    """The decision that asked, as it is in the trace."""
    denial: Denial | None = None
    """Who denied it, and why; null unless `denied`."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return str(self.row["tenant"])

    @property
    def tool(self) -> str:
        """What would run."""
        return str(self.row["tool"])

    @property
    def args(self) -> str:
        """With what it would run: canonical JSON, after any patch."""
        return str(self.row["enforced_args"])

    @property
    def action_hash(self) -> str:
        """What a grant binds to: who, for whom, where, what, with what, under which policies."""
        return str(self.row["action_hash"])

    @property
    def context_hash(self) -> str | None:
        """Address of the facts that the decision rests on."""
        found = self.row["enforced_context_hash"] or self.row["context_hash"]
        return None if found is None else str(found)

    @property
    def principal(self) -> str:
        """Who asks."""
        return str(EntityUid(str(self.row["principal_type"]), str(self.row["principal_id"])))

    @property
    def on_behalf_of(self) -> str | None:
        """For whom."""
        if self.row["on_behalf_of_type"] is None:
            return None
        return str(EntityUid(str(self.row["on_behalf_of_type"]), str(self.row["on_behalf_of_id"])))

    @property
    def owner(self) -> str:
        """Whose session asked, as `Identity.owner` says it."""
        return self.principal + (f" for {self.on_behalf_of}" if self.on_behalf_of else "")

    @property
    def missing(self) -> tuple[Need, ...]:
        """What nobody has granted yet."""
        return tuple(need for need in self.needs if need.grant is None)

    def __repr__(self) -> str:
        args = shown(self.args)
        args = args if len(args) <= _REPR_CHARS else f"{args[:_REPR_CHARS]}…"
        asks = "; ".join(need_text(need) for need in self.needs)
        asks += f"; denied {denial_text(self.denial)}" if self.denial is not None else ""
        return (
            f"<Approval {self.id} {self.state}: {shown(self.owner)} in tenant {shown(self.tenant)!r} would run "
            f"{shown(self.tool)} {args}; {shown(asks)}; until {timestamp(self.expires_at)}>"
        )


def need_text(need: Need) -> str:
    """Say what a policy asks, or who granted it."""
    if need.grant is not None:
        return f"`{need.policy}` granted by {need.grant.approver}"
    return f"`{need.policy}` asks {' or '.join(need.approvers) or 'anybody else'}"


def denial_text(denial: Denial) -> str:
    """Say who denied, when and why."""
    why = "no reason given" if denial.reason is None else denial.reason
    return f"by {denial.approver} at {timestamp(denial.denied_at)}: {why}"


def shown(text: str) -> str:
    """Escape what a terminal would obey or a reader would not see: controls, and marks that turn text around."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def answerable(
    approval: Approval, approver: Approver, answer: Answer, policy: str | None
) -> tuple[Need, ...]:
    """What of an approval this approver answers now.

    Raises:
        ApprovalError: it is closed, or they may not.
    """
    denying = answer == "denied"
    if approval.state != "pending" and not (denying and approval.state == "granted"):
        error = GrantExpired if approval.state == "expired" else ApprovalClosed
        raise error(f"approval {approval.id} is {approval.state}; call again to ask again")
    if not approver.works_in(approval.tenant):
        raise NotAnApprover(f"{approver.uid} does not approve in tenant {approval.tenant!r}")
    if str(approver.uid) == approval.principal:
        raise NotAnApprover(f"{approver.uid} is the principal, who never approves its own actions")
    only = {name for name in (policy, approver.policy) if name is not None}
    asking = [need for need in approval.needs if only <= {need.policy}]
    if not asking:
        raise ApprovalUnknown(
            f"approval {approval.id} is not asked for by policy {', '.join(sorted(only))!r:.80}; "
            f"it is by {', '.join(need.policy for need in approval.needs)}"
        )
    admitted = [need for need in asking if admits(need, approver, approval)]
    if not admitted:
        raise NotAnApprover(f"{approver.uid} is not admitted: " + "; ".join(map(need_text, asking)))
    waiting = admitted if denying else [need for need in admitted if need.grant is None]
    if not waiting:
        raise ApprovalClosed(
            f"all that {approver.uid} may grant of {approval.id} is granted; others have to: "
            + "; ".join(map(need_text, approval.missing))
        )
    return tuple(waiting)


def admits(need: Need, approver: Approver, approval: Approval) -> bool:
    """Whether a policy admits an approver: by uid or role where it names some, else anybody else than who asks."""
    uid = str(approver.uid)
    if uid == approval.principal:
        return False
    if uid == approval.on_behalf_of:
        return (
            uid in need.approvers
        )  # by name: a role they hold does not let people approve their own errands
    if not need.approvers:
        return True
    return not {uid, *map(str, approver.roles)}.isdisjoint(need.approvers)


__all__ = [
    "Approval",
    "Denial",
    "Grant",
    "Need",
    "State",
    "admits",
    "answerable",
    "denial_text",
    "need_text",
    "shown",
]
