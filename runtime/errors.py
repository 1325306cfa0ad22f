"""Everything the runtime raises, grouped by what the caller does about it.

```
GovernanceError
├── Blocked              (PermissionError)  stop: policy, limits, context or the request itself said no
├── ApprovalRequired     ask a person, then resume
├── InDoubt              the same key is in flight, or may have committed: look, never retry blindly
├── IdempotencyConflict  (ValueError)       same key, other arguments: fix the caller
├── BundleError          (ValueError)       fix the input: names file, line and policy
│   ├── PolicyError
│   │   ├── PolicySyntaxError
│   │   └── PolicySchemaError
│   ├── ContextSpecError
│   └── LimitsError
├── RegistrationError    (ValueError)       fix the tool's declaration, or the session's identity
├── SourceError          a system of record could not answer; the decision fails closed
└── LedgerError          (OSError)
    ├── CommitConflict   retry from the read
    ├── CommitUncertain  read back, never guess
    ├── LedgerTooNew     upgrade redecide
    └── LedgerCorrupt    stop, keep the bytes
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from runtime.policy import Decision


class GovernanceError(Exception):
    """Root of what `runtime` raises on purpose. `kind` is stable; the message is for people."""

    kind: ClassVar[str] = "governance"


class Blocked(GovernanceError, PermissionError):  # noqa: N818 - the verdict's own name
    """The call did not run. `decision` says which stage refused, and why."""

    kind: ClassVar[str] = "blocked"

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class ApprovalRequired(GovernanceError):  # noqa: N818 - the verdict's own name
    """The call waits for a person. `decision.determining` names the policies that ask for approval."""

    kind: ClassVar[str] = "approval_required"

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class InDoubt(GovernanceError):  # noqa: N818 - the state's own name
    """A call has started and its outcome is not recorded, or is not one that could be returned."""

    kind: ClassVar[str] = "in_doubt"


class IdempotencyConflict(GovernanceError, ValueError):  # noqa: N818 - as HTTP calls it
    """The idempotency key was used before, with other arguments."""

    kind: ClassVar[str] = "idempotency_conflict"


class BundleError(GovernanceError, ValueError):
    """A bundle cannot be used. The message reads `file:line: policy: what, and how to fix it`."""

    kind: ClassVar[str] = "bundle"

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, policy: str | None = None
    ) -> None:
        where = ":".join(str(part) for part in (file, line) if part is not None)
        subject = f"policy `{policy}`" if policy else ""
        super().__init__(": ".join(part for part in (where, subject, message) if part))
        self.file, self.line, self.policy = file, line, policy


class PolicyError(BundleError):
    """A policy is refused at load."""

    kind: ClassVar[str] = "policy"


class PolicySyntaxError(PolicyError):
    """A policy file does not parse."""

    kind: ClassVar[str] = "policy_syntax"


class PolicySchemaError(PolicyError):
    """A policy does not validate against the bundle's schema, or the schema itself does not parse or is unusable."""

    kind: ClassVar[str] = "policy_schema"


class ContextSpecError(BundleError):
    """`context.toml` is wrong: unknown key, source, action or placement."""

    kind: ClassVar[str] = "context_spec"


class LimitsError(BundleError):
    """`limits.toml` is wrong."""

    kind: ClassVar[str] = "limits"


class RegistrationError(GovernanceError, ValueError):
    """A tool cannot be registered as declared, or a session cannot be opened under the identity given."""

    kind: ClassVar[str] = "registration"


class SourceError(GovernanceError):
    """A source of facts could not answer. The decision that asked is blocked by `context`."""

    kind: ClassVar[str] = "source"


class LedgerError(GovernanceError, OSError):
    """The ledger or the lake cannot be written or read as it must."""

    kind: ClassVar[str] = "ledger"


class CommitConflict(LedgerError):  # noqa: N818 - Delta's own name
    """Somebody else committed first. Safe to retry from the read."""

    kind: ClassVar[str] = "commit_conflict"


class CommitUncertain(LedgerError):  # noqa: N818 - the state's own name
    """The acknowledgement was lost. Read back before anything else."""

    kind: ClassVar[str] = "commit_uncertain"


class LedgerTooNew(LedgerError):  # noqa: N818 - the state's own name
    """Written by a newer redecide; upgrade to read it."""

    kind: ClassVar[str] = "ledger_too_new"


class LedgerCorrupt(LedgerError):  # noqa: N818 - the state's own name
    """The file is damaged. Keep the bytes; do not write."""

    kind: ClassVar[str] = "ledger_corrupt"
