"""Redecide's governed runtime: nothing runs that policy did not allow, and every decision is evidence.

```python
from runtime import Runtime

rt = Runtime.open("policies/support", lake="lake/")

@rt.tool(resource="Order::{order_id}")
def issue_refund(order_id: str, amount_cents: int) -> dict: ...

with rt.session(principal="Agent::refund-bot", on_behalf_of="User::ana", tenant="acme") as session:
    session.call(issue_refund, order_id="o-17", amount_cents=4200)
```

A tool says what it does to the world, and a guard may stop it before that counts:

```python
@rt.tool(effect="staged", commit=capture, abort=release, status=payment_status, guards=[no_new_payee], timeout=20)
def pay(order_id: str, amount_cents: int, effect_id: str) -> dict: ...  # prepares; returns a handle
```

What a crash left is concluded when a runtime opens (`Runtime.recovered`); what nobody knows is in `Runtime.in_doubt`
until its tool, or a person with `Runtime.resolve`, says what became of it. Nothing is ever retried.

The file list is the loop: `request`, `context`, `policy`, `broker`, `trace`/`ledger`/`drain`; `loop` composes them.
Importing this package loads no MLflow, DeepEval, Jupyter, Polars, pyarrow or SQLAlchemy.
"""

from __future__ import annotations

from runtime.approval import Approval
from runtime.approvers import load_approvers
from runtime.authenticators import (
    Approver,
    Authenticator,
    Matter,
    OsIdentity,
    OsUser,
    OsUsers,
    SignedTokens,
    TokenKey,
)
from runtime.broker import RecordedFailure
from runtime.bundle import Bundle, load_bundle
from runtime.entities import EntityUid
from runtime.errors import (
    ActionMoved,
    ApprovalClosed,
    ApprovalError,
    ApprovalRequired,
    ApprovalUnknown,
    ApproversError,
    Blocked,
    BundleError,
    ClockError,
    CommitConflict,
    CommitUncertain,
    ContextSpecError,
    GovernanceError,
    GrantExpired,
    GrantRefused,
    GrantReplayed,
    GrantStale,
    GuardRejected,
    IdempotencyConflict,
    InDoubt,
    InProgress,
    IsolatedToolError,
    LedgerCorrupt,
    LedgerError,
    LedgerTooNew,
    LimitsError,
    NotAnApprover,
    NotCommitted,
    PolicyError,
    PolicySchemaError,
    PolicySyntaxError,
    RecordRefused,
    RegistrationError,
    ShuttingDown,
    SourceError,
    SourceTimeout,
    ToolCrashed,
    ToolError,
    ToolMemory,
    ToolTimeout,
)
from runtime.guards import Guard, Proposal
from runtime.isolation import Isolation
from runtime.loop import Runtime
from runtime.policy import Decision
from runtime.session import Session, current_session
from runtime.sources import CallableSource, DeltaSource, SqlSource
from runtime.stops import Stop
from runtime.tokens import SignedToken, SigningKey, sign_approval
from runtime.usage import Usage, report_usage

__all__ = [
    "ActionMoved",
    "Approval",
    "ApprovalClosed",
    "ApprovalError",
    "ApprovalRequired",
    "ApprovalUnknown",
    "Approver",
    "ApproversError",
    "Authenticator",
    "Blocked",
    "Bundle",
    "BundleError",
    "CallableSource",
    "ClockError",
    "CommitConflict",
    "CommitUncertain",
    "ContextSpecError",
    "Decision",
    "DeltaSource",
    "EntityUid",
    "GovernanceError",
    "GrantExpired",
    "GrantRefused",
    "GrantReplayed",
    "GrantStale",
    "Guard",
    "GuardRejected",
    "IdempotencyConflict",
    "InDoubt",
    "InProgress",
    "IsolatedToolError",
    "Isolation",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerTooNew",
    "LimitsError",
    "Matter",
    "NotAnApprover",
    "NotCommitted",
    "OsIdentity",
    "OsUser",
    "OsUsers",
    "PolicyError",
    "PolicySchemaError",
    "PolicySyntaxError",
    "Proposal",
    "RecordRefused",
    "RecordedFailure",
    "RegistrationError",
    "Runtime",
    "Session",
    "ShuttingDown",
    "SignedToken",
    "SignedTokens",
    "SigningKey",
    "SourceError",
    "SourceTimeout",
    "SqlSource",
    "Stop",
    "TokenKey",
    "ToolCrashed",
    "ToolError",
    "ToolMemory",
    "ToolTimeout",
    "Usage",
    "current_session",
    "load_approvers",
    "load_bundle",
    "report_usage",
    "sign_approval",
]
