"""Approvals as a ledger holds them: what waits, what was granted, who denied and why.

One rule: what is read here was recorded, and each row of evidence has its hash; nothing is closed, granted or
written.

`runtime.approvals` reads its runtime's ledger with it, and closes what has expired first. `look_at_approvals` reads
the file of a ledger, in use or not, without leave to write: what has expired by now is shown so, and left as it is.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_args

from runtime import approval_state as tables
from runtime.approval import Approval, Denial, Grant, Need, State
from runtime.canonical import sha256
from runtime.errors import ApprovalError, ApprovalUnknown, LedgerCorrupt, LedgerError
from runtime.inspection import settled, version_of
from runtime.ledger_state import CONTENT, DECISION, EXECUTION
from runtime.ledgerfile import translated
from runtime.record import moment_of
from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES, Table
from runtime.values import micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from runtime.canonical import Json

_T = TypeVar("_T")

_AT: str = "SELECT position, row, hash FROM outcomes WHERE position = ?"


class Recorded(Protocol):
    """What approvals are read from: `runtime.ledger.Ledger`, or `LedgerView`."""

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return the rows of a SELECT."""

    def decision(self, decision_id: str) -> dict[str, Json] | None:
        """Return a decision's row; `LedgerCorrupt`: it does not have its hash."""

    def outcome_of(self, decision_id: str) -> dict[str, Json] | None:
        """Return the last execution outcome of a decision; `LedgerCorrupt` as above."""


class RecordedApprovals:
    """The approvals of one ledger, to look at."""

    def __init__(self, ledger: Recorded, *, clock: Callable[[], datetime] | None = None) -> None:
        self._ledger = ledger
        self._clock = clock or _utc_now

    def list(self, tenant: str | None = None, state: State | None = "pending") -> tuple[Approval, ...]:
        """Return approvals, oldest first.

        Args:
            tenant: only of this tenant.
            state: only in this state; None: in any.

        Raises:
            ApprovalError: there is no such state.
            LedgerCorrupt: a decision that asked does not have its hash.
        """
        if state is not None and state not in get_args(State):
            raise ApprovalError(f"`state` must be one of {', '.join(get_args(State))}, got {state!r}")
        found = self._ledger.query(tables.LISTED, (self._due(), tenant, state))
        return tuple(self.get(ident) for (ident,) in found)

    def get(self, approval_id: str) -> Approval:
        """Return an approval as it stands.

        Raises:
            ApprovalUnknown: there is none of this id.
            LedgerCorrupt: the decision that asked does not have its hash, or the denial.
        """
        found = self._ledger.query(tables.APPROVAL, (self._due(), approval_id))
        row = self._ledger.decision(approval_id) if found else None
        if row is None:
            raise ApprovalUnknown(
                f"no approval {approval_id!r:.80} in this ledger; see `redecide approvals list`"
            )
        said = {
            policy: Grant(id=ident, policy=policy, approver=approver, granted_at=moment_of(at))
            for ident, policy, approver, at in self._ledger.query(tables.GRANTS, (approval_id,))
        }
        ((held, asked_at, expires_at, needs),) = found
        return Approval(
            id=approval_id,
            state=held,
            asked_at=moment_of(asked_at),
            expires_at=moment_of(expires_at),
            needs=tuple(
                Need(policy=policy, approvers=tuple(admits), grant=said.get(policy))
                for policy, admits in sorted(json.loads(needs).items())
            ),
            row=row,
            denial=self._denial(approval_id) if held == "denied" else None,
        )

    def facts(self, approval: Approval) -> Json:
        """Return the compiled facts that the decision rests on: what an approver is shown.

        Raises:
            LedgerCorrupt: they are lost, or do not have their hash.
        """
        if approval.context_hash is None:
            return None
        found = self._ledger.query(CONTENT, (CONTEXTS.name, approval.context_hash))
        text = json.loads(found[0][1])["context"] if found else ""
        if sha256(text) != approval.context_hash:
            raise LedgerCorrupt(
                f"the facts that approval {approval.id} rests on are lost, or do not have their hash"
            )
        return json.loads(text)["facts"]  # type: ignore[no-any-return]  # JSON

    def _due(self) -> int:
        """Until when an approval that was not used counts as expired, whoever has closed it or not; microseconds."""
        return micros(self._clock())

    def _denial(self, approval_id: str) -> Denial | None:
        """Who denied: the evidence stands right before the outcome of the call, in one transaction with it."""
        ending = self._ledger.outcome_of(approval_id)
        if ending is None or ending["status"] != "denied":
            return None
        found = self._ledger.query(_AT, (int(str(ending["position"])) - 1,))
        row = _row(OUTCOMES, found[0]) if found else None
        if row is None or (row["decision_id"], row["value"]) != (approval_id, "denied"):
            raise LedgerCorrupt(
                f"the denial of approval {approval_id} is lost; `redecide verify` says what is wrong"
            )
        details = json.loads(str(row["details"]))
        return Denial(
            id=str(row["outcome_id"]),
            approver=str(row["source"]),
            reason=details.get("reason"),
            denied_at=moment_of(int(str(row["recorded_at"]))),
        )


class LedgerView:
    """A ledger's file, opened for reading: what `Recorded` asks for."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return the rows of a SELECT."""
        return self._database.execute(sql, parameters).fetchall()

    def decision(self, decision_id: str) -> dict[str, Json] | None:
        """Return a decision's row, every column present."""
        found = self.query(DECISION, (decision_id,))
        return _row(DECISIONS, found[0]) if found else None

    def outcome_of(self, decision_id: str) -> dict[str, Json] | None:
        """Return the last execution outcome of a decision, every column present."""
        found = self.query(EXECUTION, (decision_id,))
        return _row(OUTCOMES, found[0]) if found else None


def look_at_approvals(
    path: str | Path, look: Callable[[RecordedApprovals], _T], *, clock: Callable[[], datetime] | None = None
) -> _T:
    """Look at the approvals of a ledger's file, all at one moment; it is neither upgraded nor otherwise changed.

    Args:
        path: its file; it may be in use.
        look: what to look at; called once more where the file changed meanwhile.
        clock: returns the current UTC time.

    Raises:
        ApprovalUnknown: `look` asks for one that is not there; before version 2 of its file there is none.
        LedgerCorrupt: the file is no ledger, or damaged.
        LedgerTooNew: a newer release wrote it.
        CommitConflict: it changes faster than it can be looked at; safe to retry.
        LedgerError: there is none, or it cannot be read.
    """
    path = Path(path)

    def looked(database: sqlite3.Connection, place: Path) -> _T:
        version_of(database, place)
        known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'approvals'"
        kept = bool(database.execute(known).fetchall())
        return look((RecordedApprovals if kept else _None)(LedgerView(database), clock=clock))

    with translated(path, "look at"):
        if not path.is_file():
            raise LedgerError(f"no ledger at {str(path)!r}; check the path")
        return settled(path, looked)


class _None(RecordedApprovals):
    """Those of a ledger from before there were approvals."""

    def list(self, tenant: str | None = None, state: State | None = "pending") -> tuple[Approval, ...]:  # noqa: ARG002 - of none
        return ()

    def get(self, approval_id: str) -> Approval:
        raise ApprovalUnknown(f"no approval {approval_id!r:.80}: an earlier release wrote this ledger")


def _row(table: Table, found: tuple[int, str, str]) -> dict[str, Json]:
    position, text, digest = found
    if sha256(text) != digest:
        raise LedgerCorrupt(f"row of `{table.name}` at position {position} does not have its hash")
    row = json.loads(text)
    return {column.name: row.get(column.name) for column in table.columns} | {"hash": digest}


def _utc_now() -> datetime:
    return datetime.now(UTC)
