"""Everything the runtime raises, grouped by what the caller does about it.

```
GovernanceError
├── Blocked              (PermissionError)  stop: policy, limits, context or the request itself said no
├── ApprovalRequired     ask a person, then resume
├── ApprovalError        an approval, or what an approver presents, is refused; nothing was granted
│   ├── ApprovalUnknown  (LookupError)      no such approval here: look at the list
│   ├── ApprovalClosed   it waits for nothing any more; ask again
│   ├── NotAnApprover    (PermissionError)  somebody else must say so
│   └── GrantRefused     (PermissionError)  the credential is not believed: get another
│       ├── GrantExpired
│       ├── GrantStale
│       └── GrantReplayed
├── GuardRejected        (PermissionError)  stop: an output guard said no; `.outcome` says what became of it
├── InDoubt              it may have taken effect: look, never retry blindly
├── InProgress           the same key's first call still runs: ask again later
├── NotCommitted         raised by a tool's commit: it did not take effect
├── ShuttingDown         the process is ending: nothing new is begun
├── IdempotencyConflict  (ValueError)       same key, other arguments: fix the caller
├── BundleError          (ValueError)       fix the input: names file, line and policy
│   ├── PolicyError
│   │   ├── PolicySyntaxError
│   │   └── PolicySchemaError
│   ├── ApproversError
│   ├── ContextSpecError
│   └── LimitsError
├── RegistrationError    (ValueError)       fix the tool's declaration, or the session's identity
├── AliasUnknown         (LookupError)      no such alias in this lake: promote a version first
├── AliasMoved           somebody else moved it: look again, then decide again
├── ClockError           (ValueError)       set the clock: it says no usable time
├── RecordRefused        (ValueError)       fix the input: it cannot be recorded as given
├── SourceError          a system of record could not answer; the decision fails closed
│   ├── SourceTimeout    it did not answer in time
│   ├── SourceVersionLost    the version asked for was vacuumed or cleaned up
│   ├── SourceNotYet     it had no version yet at the time asked for
│   └── SourceColumnUnknown  it has no such column, or not at that version
├── ToolError            the tool did not return: whether it had its effect is the outcome's to say
│   ├── ToolTimeout      (TimeoutError)         it took longer than it may
│   ├── ToolMemory       (MemoryError)          it needed more memory than it may
│   ├── ToolCrashed      its process ended without a result, could not begin, or was stopped
│   └── IsolatedToolError                       it raised, in its own process
└── LedgerError          (OSError)
    ├── CommitConflict   retry from the read
    │   └── ActionMoved  the action is not where it was believed to be
    ├── CommitUncertain  read back, never guess
    ├── LedgerTooNew     upgrade redecide
    └── LedgerCorrupt    stop, keep the bytes
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    @property
    def approval_id(self) -> str:
        """What `Runtime.approvals` and `Session.resume` take: the id of the decision that asked."""
        return self.decision.request.decision_id


class ApprovalError(GovernanceError):
    """An approval, or what an approver presents, is refused. Nothing was granted or denied, nothing ran."""

    kind: ClassVar[str] = "approval"


class ApprovalUnknown(ApprovalError, LookupError):  # noqa: N818 - named for what the approval is
    """There is no such approval in this ledger, or none that this session may use."""

    kind: ClassVar[str] = "approval_unknown"


class ApprovalClosed(ApprovalError):  # noqa: N818 - named for what the approval is
    """The approval waits for nothing any more: it is granted, denied, expired or used."""

    kind: ClassVar[str] = "approval_closed"


class NotAnApprover(ApprovalError, PermissionError):  # noqa: N818 - named for who it is
    """Somebody is known, and may not approve this: not admitted, of another tenant, or the principal itself."""

    kind: ClassVar[str] = "not_an_approver"


class GrantRefused(ApprovalError, PermissionError):  # noqa: N818 - named for what happened
    """Who presents the credential is not known: it is forged, malformed, for something else, or of no known kind."""

    kind: ClassVar[str] = "grant_refused"


class GrantExpired(GrantRefused):
    """The credential was good once."""

    kind: ClassVar[str] = "grant_expired"


class GrantStale(GrantRefused):
    """The credential is for another approval, or for another action than the one that waits."""

    kind: ClassVar[str] = "grant_stale"


class GrantReplayed(GrantRefused):
    """The credential was used before."""

    kind: ClassVar[str] = "grant_replayed"


class GuardRejected(GovernanceError, PermissionError):  # noqa: N818 - named for what it reports
    """An output guard rejected what the tool did, raised, or did not answer.

    `outcome` is the trace's row: `aborted` nothing was committed, `compensated` it was undone, `succeeded` it took
    effect and its result is withheld.
    """

    kind: ClassVar[str] = "guard_rejected"

    def __init__(self, message: str, outcome: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.outcome = outcome


class InDoubt(GovernanceError):  # noqa: N818 - the state's own name
    """A call may have taken effect, or its outcome is not recorded or not one that could be returned."""

    kind: ClassVar[str] = "in_doubt"


class InProgress(GovernanceError):  # noqa: N818 - the state's own name
    """The same idempotency key is in flight, in a process that lives. Nothing ran twice; safe to ask again."""

    kind: ClassVar[str] = "in_progress"


class NotCommitted(GovernanceError):  # noqa: N818 - what happened
    """Raise it from a staged tool's commit, or from a tool, to say that nothing took effect: recorded `aborted`."""

    kind: ClassVar[str] = "not_committed"


class ShuttingDown(GovernanceError):  # noqa: N818 - the state's own name
    """The process was told to end; calls under way are finished or recorded, new ones are refused."""

    kind: ClassVar[str] = "shutting_down"


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


class ApproversError(BundleError):
    """`approvers.toml` is wrong, or a key it names cannot be used."""

    kind: ClassVar[str] = "approvers"


class LimitsError(BundleError):
    """`limits.toml` is wrong."""

    kind: ClassVar[str] = "limits"


class RegistrationError(GovernanceError, ValueError):
    """A tool cannot be registered as declared, or a session cannot be opened under the identity given."""

    kind: ClassVar[str] = "registration"


class ClockError(GovernanceError, ValueError):
    """The clock says no usable time: none, without a zone, or outside 1970 to 9999. Nothing was decided by it."""

    kind: ClassVar[str] = "clock"


class RecordRefused(GovernanceError, ValueError):  # noqa: N818 - named for what happened
    """A label cannot be recorded: it is no text, too long, or about a decision of another tenant."""

    kind: ClassVar[str] = "record_refused"


class SourceError(GovernanceError):
    """A source of facts could not answer. The decision that asked is blocked by `context`."""

    kind: ClassVar[str] = "source"


class SourceTimeout(SourceError):  # noqa: N818 - named for what happened
    """A source of facts did not answer within its `timeout`, or is still busy with lookups that did not."""

    kind: ClassVar[str] = "source_timeout"


class SourceVersionLost(SourceError):  # noqa: N818 - named for what happened
    """A source had the version asked for, and has it no more: its files were vacuumed, or its log cleaned up."""

    kind: ClassVar[str] = "source_version_lost"


class SourceNotYet(SourceError):  # noqa: N818 - named for what is the matter
    """A source had no version yet at the time asked for."""

    kind: ClassVar[str] = "source_not_yet"


class SourceColumnUnknown(SourceError):  # noqa: N818 - named for what is the matter
    """A source has no column of that name, or not at the version asked for."""

    kind: ClassVar[str] = "source_column_unknown"


class ToolError(GovernanceError):
    """A tool did not return."""

    kind: ClassVar[str] = "tool"


class ToolTimeout(ToolError, TimeoutError):  # noqa: N818 - as the limit is called
    """The tool took longer than it may, by the clock or in processor time."""

    kind: ClassVar[str] = "timeout"


class ToolMemory(ToolError, MemoryError):  # noqa: N818 - as the limit is called
    """The tool needed more memory than it may."""

    kind: ClassVar[str] = "memory"


class ToolCrashed(ToolError):  # noqa: N818 - what happened
    """The tool's process ended without a result, could not begin, or was stopped; the message says how it ended.

    `began` tells whether the tool may have been called: if not, it had no effect.
    """

    kind: ClassVar[str] = "tool_crashed"

    def __init__(self, message: str, *, began: bool = True) -> None:
        super().__init__(message)
        self.began = began


class IsolatedToolError(ToolError):
    """What a tool raised in its own process: its class is known here by name only."""

    kind: ClassVar[str] = "tool_raised"

    def __init__(self, message: str, *, type_name: str) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        """Name of the exception's class in the tool's process."""


class LedgerError(GovernanceError, OSError):
    """The ledger or the lake cannot be written or read as it must."""

    kind: ClassVar[str] = "ledger"


class CommitConflict(LedgerError):  # noqa: N818 - Delta's own name
    """Somebody else committed first. Safe to retry from the read."""

    kind: ClassVar[str] = "commit_conflict"


class ActionMoved(CommitConflict):
    """An action is not in the state it was believed to be in, or has ended. Nothing was written; look again."""

    kind: ClassVar[str] = "action_moved"


class AliasUnknown(GovernanceError, LookupError):  # noqa: N818 - named for what the alias is
    """An alias was never given to a version in this lake. Names those that were."""

    kind: ClassVar[str] = "alias_unknown"


class AliasMoved(GovernanceError):  # noqa: N818 - named for what became of it
    """An alias stands for another version than it was believed to. Nothing was written: look at it again."""

    kind: ClassVar[str] = "alias_moved"


class CommitUncertain(LedgerError):  # noqa: N818 - the state's own name
    """The acknowledgement was lost. Read back before anything else."""

    kind: ClassVar[str] = "commit_uncertain"


class LedgerTooNew(LedgerError):  # noqa: N818 - the state's own name
    """Written by a newer redecide; upgrade to read it."""

    kind: ClassVar[str] = "ledger_too_new"


class LedgerCorrupt(LedgerError):  # noqa: N818 - the state's own name
    """The file is damaged. Keep the bytes; do not write."""

    kind: ClassVar[str] = "ledger_corrupt"
