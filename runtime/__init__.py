"""Redecide's governed runtime: nothing runs that policy did not allow, and every decision is evidence.

```python
from runtime import Runtime

rt = Runtime.open("policies/support", lake="lake/")

@rt.tool(resource="Order::{order_id}")
def issue_refund(order_id: str, amount_cents: int) -> dict: ...

with rt.session(principal="Agent::refund-bot", on_behalf_of="User::ana", tenant="acme") as session:
    session.call(issue_refund, order_id="o-17", amount_cents=4200)
```

The file list is the loop: `request`, `context`, `policy`, `broker`, `trace`/`ledger`/`drain`; `loop` composes them.
Importing this package loads no MLflow, DeepEval, Jupyter, Polars, pyarrow or SQLAlchemy.
"""

from __future__ import annotations

from runtime.broker import RecordedFailure
from runtime.bundle import Bundle, load_bundle
from runtime.entities import EntityUid
from runtime.errors import (
    ApprovalRequired,
    Blocked,
    BundleError,
    CommitConflict,
    CommitUncertain,
    ContextSpecError,
    GovernanceError,
    IdempotencyConflict,
    InDoubt,
    LedgerCorrupt,
    LedgerError,
    LedgerTooNew,
    LimitsError,
    PolicyError,
    PolicySchemaError,
    PolicySyntaxError,
    RegistrationError,
    SourceError,
)
from runtime.loop import Runtime
from runtime.policy import Decision
from runtime.session import Session, current_session
from runtime.sources import CallableSource, DeltaSource, SqlSource

__all__ = [
    "ApprovalRequired",
    "Blocked",
    "Bundle",
    "BundleError",
    "CallableSource",
    "CommitConflict",
    "CommitUncertain",
    "ContextSpecError",
    "Decision",
    "DeltaSource",
    "EntityUid",
    "GovernanceError",
    "IdempotencyConflict",
    "InDoubt",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerTooNew",
    "LimitsError",
    "PolicyError",
    "PolicySchemaError",
    "PolicySyntaxError",
    "RecordedFailure",
    "RegistrationError",
    "Runtime",
    "Session",
    "SourceError",
    "SqlSource",
    "current_session",
    "load_bundle",
]
