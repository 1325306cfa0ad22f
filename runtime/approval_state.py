"""The tables of approvals in the ledger, and how one transaction moves them.

One rule: every move states what it rests on; if that no longer holds it raises `GrantMoved`, and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from runtime.canonical import canonical
from runtime.errors import CommitConflict, GrantReplayed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from runtime.authenticators import Answer
    from runtime.canonical import Json
    from runtime.ledger_state import Move
    from runtime.record import Row

TABLES: Final = """
CREATE TABLE IF NOT EXISTS approvals (
  approval_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, state TEXT NOT NULL, asked_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, needs TEXT NOT NULL, used_by TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS approvals_open ON approvals (expires_at) WHERE state IN ('pending', 'granted');
CREATE TABLE IF NOT EXISTS grants (
  grant_id TEXT PRIMARY KEY, approval_id TEXT NOT NULL, policy TEXT NOT NULL, approver TEXT NOT NULL,
  granted_at INTEGER NOT NULL, UNIQUE (approval_id, policy)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS credentials_used (
  credential_id TEXT PRIMARY KEY, used_at INTEGER NOT NULL) WITHOUT ROWID;
"""
"""`needs`: approvers by policy, canonical JSON. `used_by`: the decision that consumed it. Times are microseconds.
A credential that counts once is kept for ever, so that a clock that is put back brings none back to life."""

_STANDS: Final = (
    "CASE WHEN state IN ('pending', 'granted') AND expires_at <= ?1 THEN 'expired' ELSE state END"
)
"""The state of an approval for who looks at a moment, `?1`: what is due is expired, closed or not."""
APPROVAL: Final = f"SELECT {_STANDS}, asked_at, expires_at, needs FROM approvals WHERE approval_id = ?2"  # noqa: S608
GRANTS: Final = (
    "SELECT grant_id, policy, approver, granted_at FROM grants WHERE approval_id = ? ORDER BY policy"
)
USED: Final = "SELECT 1 FROM credentials_used WHERE credential_id = ?"
DUE: Final = "SELECT approval_id FROM approvals WHERE state IN ('pending', 'granted') AND expires_at <= ?"
LISTED: Final = (
    "SELECT approval_id FROM approvals WHERE (?2 IS NULL OR tenant = ?2)"  # noqa: S608 - ours
    f" AND (?3 IS NULL OR {_STANDS} = ?3)"
    " ORDER BY asked_at, approval_id"
)


class GrantMoved(CommitConflict):
    """Grants are not as they were read: used, denied or expired meanwhile. Nothing was written; look again."""

    kind: ClassVar[str] = "grant_moved"


def asks(approval_id: str, tenant: str, needs: Mapping[str, Json], now: int, expires: int) -> Move:
    """Add a pending approval."""
    values = (approval_id, tenant, now, expires, canonical(dict(needs)))
    sql = (
        "INSERT INTO approvals (approval_id, tenant, state, asked_at, expires_at, needs)"
        " VALUES (?, ?, 'pending', ?, ?, ?)"
    )
    return lambda db: db.execute(sql, values)


def answered(approval_id: str, rows: Sequence[Row], now: int, answer: Answer) -> list[Move]:
    """Add grants, one a row; or close the approval as denied."""
    if answer == "denied":
        return [_denies(approval_id, now)]
    return [*(_adds(approval_id, row, now) for row in rows), _completes(approval_id, now)]


def _adds(approval_id: str, row: Row, now: int) -> Move:
    values = (row["outcome_id"], approval_id, row["label"], row["source"], now)

    def move(db: sqlite3.Connection) -> None:
        if not db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?, ?, ?)", values).rowcount:
            raise GrantMoved(f"policy {row['label']!r} of approval {approval_id!r} has its grant already")

    return move


def _completes(approval_id: str, now: int) -> Move:
    """`granted` as soon as no policy is without a grant."""
    sql = (
        "UPDATE approvals SET state = CASE WHEN"
        " (SELECT count(*) FROM json_each(needs)) = (SELECT count(*) FROM grants g WHERE g.approval_id = ?1)"
        " THEN 'granted' ELSE 'pending' END"
        " WHERE approval_id = ?1 AND state = 'pending' AND expires_at > ?2"
    )
    return _one(sql, (approval_id, now))


def _denies(approval_id: str, now: int) -> Move:
    sql = (
        "UPDATE approvals SET state = 'denied'"
        " WHERE approval_id = ?1 AND state IN ('pending', 'granted') AND expires_at > ?2"
    )
    return _one(sql, (approval_id, now))


def expired(approval_id: str, now: int) -> Move:
    """Close an approval whose time is over."""
    sql = (
        "UPDATE approvals SET state = 'expired'"
        " WHERE approval_id = ?1 AND state IN ('pending', 'granted') AND expires_at <= ?2"
    )
    return _one(sql, (approval_id, now))


def _one(sql: str, values: tuple[str, int]) -> Move:
    def move(db: sqlite3.Connection) -> None:
        if not db.execute(sql, values).rowcount:
            raise GrantMoved(f"approval {values[0]!r} was answered, used or expired meanwhile")

    return move


def use_credential(credential_id: str, now: int) -> Move:
    """Take a credential that counts once."""

    def move(db: sqlite3.Connection) -> None:
        if not db.execute(
            "INSERT OR IGNORE INTO credentials_used VALUES (?, ?)", (credential_id, now)
        ).rowcount:
            raise replayed(credential_id)

    return move


def replayed(credential_id: str) -> GrantReplayed:
    """Return the error about a credential that was used before."""
    return GrantReplayed(f"credential {credential_id:.120} was used before; sign another")


def consumes(grant_ids: Sequence[str], decision_id: str, now: int) -> Move:
    """Use up the approvals that grants belong to: every one of them granted, in time and unused, or nothing."""
    marks = ", ".join("?" for _ in grant_ids)
    these = f"FROM grants WHERE grant_id IN ({marks})"
    of = f"SELECT count(DISTINCT approval_id), count(*) {these}"
    sql = (
        "UPDATE approvals SET state = 'consumed', used_by = ? WHERE state = 'granted' AND expires_at > ?"  # noqa: S608
        f" AND approval_id IN (SELECT approval_id {these})"
    )

    def move(db: sqlite3.Connection) -> None:
        approvals, grants = db.execute(of, tuple(grant_ids)).fetchone()
        done = db.execute(sql, (decision_id, now, *grant_ids)).rowcount
        if not approvals or grants != len(grant_ids) or done != approvals:
            raise GrantMoved("the grants were used, denied or expired meanwhile")

    return move


__all__ = [
    "APPROVAL",
    "DUE",
    "GRANTS",
    "LISTED",
    "TABLES",
    "USED",
    "GrantMoved",
    "answered",
    "asks",
    "consumes",
    "expired",
    "replayed",
    "use_credential",
]
