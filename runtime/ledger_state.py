"""What one transaction of the ledger does: its values, and the statements that move its tables.

One rule: a function here runs inside a transaction that its caller opened, and raises before it leaves anything
half done; the caller rolls back. `runtime.ledger` owns connections, locks and transactions.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from runtime.errors import CommitConflict
from runtime.evidence import check_address, check_row, preimage, seal
from runtime.trace import DECISIONS, DRAINED, GENESIS, OUTCOMES, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import msgspec

    from runtime.canonical import Json

    Row = Mapping[str, Json]

EVIDENCE: Final = frozenset({DECISIONS.name, OUTCOMES.name})
"""Tables of the chain."""

CONTENTS: Final = frozenset(table.name for table in DRAINED) - EVIDENCE
"""Tables that are stored once by address."""

_LET_RUN: Final = frozenset({"allow", "modify"})
_EXECUTED_KINDS: Final = frozenset({"call", "resumed"})


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key in use."""

    key_hash: str
    """Hash of tenant, principal, on-behalf-of, tool and key."""
    args_hash: str
    """Content address of the arguments it was first used with."""
    decision_id: str
    """The decision that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStep:
    """One step of a session: what it was believed to be, and how it moves."""

    tenant: str
    session_id: str
    expected_step: int
    """The step the caller decided under, from 0; somebody else having taken it is `SessionMoved`."""
    ran: bool
    """Whether the call was let run: adds one to `calls`."""
    owner: str
    """Whose session it is, as `Identity.owner` says it; kept from its first step on."""


class SessionCounters(NamedTuple):
    """Where a session stands."""

    next_step: int
    calls: int
    """Calls that were let run."""
    owner: str | None = None
    """Whose it is; null: it has not begun, or its owner was not kept (version 1)."""


class Stored(NamedTuple):
    """A row as it is stored, undecoded."""

    sequence: int
    """`position` of evidence; of contents, a sequence of its own."""
    text: str
    """Canonical JSON of the non-null columns and one member more, `table`; of evidence, the preimage of `hash`."""
    hash: str | None
    """Hash of an evidence row; null for contents."""


class ClaimTaken(CommitConflict):
    """The idempotency key is in use already. Nothing was written; `claim` says by which decision."""

    kind: ClassVar[str] = "claim_taken"

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"idempotency key is held by decision {claim.decision_id!r}; read its outcome")
        self.claim = claim


class SessionMoved(CommitConflict):
    """The session stands elsewhere than the caller believed. Nothing was written; decide again."""

    kind: ClassVar[str] = "session_moved"


HEAD: Final = (
    "SELECT position, hash FROM ("
    " SELECT * FROM (SELECT position, hash FROM decisions ORDER BY position DESC LIMIT 1) UNION ALL"
    " SELECT * FROM (SELECT position, hash FROM outcomes ORDER BY position DESC LIMIT 1)"
    ") ORDER BY position DESC LIMIT 1"
)
EXTENT: Final = (
    "SELECT max(coalesce((SELECT max(position) FROM decisions), 0),"
    " coalesce((SELECT max(position) FROM outcomes), 0)),"
    " coalesce((SELECT seq FROM sqlite_sequence WHERE name='contents'), 0)"
)
CLAIM: Final = "SELECT key_hash, args_hash, decision_id FROM claims WHERE key_hash=?"
COUNTERS: Final = "SELECT next_step, calls, owner FROM sessions WHERE tenant=? AND session_id=?"
DECISION: Final = "SELECT position, row, hash FROM decisions WHERE decision_id=?"
EXECUTION: Final = (
    "SELECT position, row, hash FROM outcomes WHERE decision_id=? AND kind='execution'"
    " ORDER BY position DESC LIMIT 1"
)
UNFINISHED: Final = (
    "SELECT d.position, d.row, d.hash FROM actions a JOIN decisions d ON d.position = a.position"
    " ORDER BY d.position"
)
_AFTER: Final = "SELECT {0} FROM {1} WHERE {2}{3} > ? AND {3} <= ? ORDER BY {3} LIMIT ?"
CONTENT: Final = "SELECT sequence, row, NULL FROM contents WHERE tbl=? AND key=?"


def select_after(table: Table) -> tuple[str, tuple[str, ...]]:
    """Return the statement for rows in `(after, upto]`, at most `limit`, and its leading parameters."""
    if table.name in EVIDENCE:
        return _AFTER.format("position, row, hash", table.name, "", "position"), ()
    _require(table, CONTENTS)
    return _AFTER.format("sequence, row, NULL", "contents", "tbl = ? AND ", "sequence"), (table.name,)


class Link(NamedTuple):
    """A row that fits the chain, checked before the transaction that adds it."""

    table: Table
    row: Row
    checked: msgspec.Struct


def check_evidence(table: Table, row: Row) -> Link:
    """Refuse what cannot be a link of the chain.

    Raises:
        ValueError: not a table of the chain, or the row does not fit it.
    """
    _require(table, EVIDENCE)
    return Link(table, row, check_row(table, row))


def content_text(table: Table, row: Row) -> str:
    """Return what is stored of a content-addressed row.

    Raises:
        ValueError: not such a table, the row does not fit it, or does not stand at its address.
    """
    _require(table, CONTENTS)
    check_row(table, row)
    check_address(table, row)
    return preimage(table.name, row)


def _require(table: Table, allowed: frozenset[str]) -> None:
    if table.name not in allowed:
        raise ValueError(f"`{table.name}` is not kept here; allowed are {', '.join(sorted(allowed))}")


def add_contents(db: sqlite3.Connection, texts: Iterable[tuple[str, str, str]]) -> None:
    """Store contents (table, key, text) whose key is new in their table."""
    for content in texts:
        db.execute("INSERT OR IGNORE INTO contents (tbl, key, row) VALUES (?, ?, ?)", content)


class Head:
    """The end of the chain, remembered between transactions of one connection.

    SQLite's `data_version` changes when any other connection has committed; then the head is read again. So it is
    after a transaction of our own whose end nobody reported: it may have failed, or been interrupted.
    """

    def __init__(self) -> None:
        self._end = (0, GENESIS)
        self._version: int | None = None
        self._pending: int | None = None

    def read(self, db: sqlite3.Connection) -> tuple[int, str]:
        """Return the last position and its hash; inside a write transaction, so that nobody moves it."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._end = db.execute(HEAD).fetchone() or (0, GENESIS)
        self._version, self._pending = None, version
        return self._end

    def moved(self, link: Row) -> None:
        """Remember the new end, once the transaction that read the old one has committed."""
        match link:
            case {"position": int(position), "hash": str(digest)}:
                self._end, self._version = (position, digest), self._pending


def append(
    db: sqlite3.Connection, writer: str, head: tuple[int, str], links: Iterable[Link]
) -> list[dict[str, Json]]:
    """Chain checked rows onto the head, and keep `actions` in step with them."""
    position, previous = head
    chained = []
    for table, row, checked in links:
        position += 1
        link, text = seal(table, row, checked, writer, position, previous)
        previous = str(link["hash"])
        insert = _insert_decision if table.name == DECISIONS.name else _insert_outcome
        insert(db, position, link, text)
        chained.append(link)
    return chained


def _insert_decision(db: sqlite3.Connection, position: int, link: Row, text: str) -> None:
    values = (position, link["decision_id"], link["hash"], text)
    try:
        db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?)", values)
    except sqlite3.IntegrityError as exc:
        raise ValueError(
            f"decision {link['decision_id']!r} is in the ledger already; give it a new id"
        ) from exc
    if link["verdict"] in _LET_RUN and link["kind"] in _EXECUTED_KINDS:
        db.execute("INSERT INTO actions VALUES (?, ?)", values[1::-1])


def _insert_outcome(db: sqlite3.Connection, position: int, link: Row, text: str) -> None:
    decision_id, kind = link.get("decision_id"), link["kind"]
    db.execute(
        "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", (position, decision_id, kind, link["hash"], text)
    )
    if kind == "execution":
        db.execute("DELETE FROM actions WHERE decision_id = ?", (decision_id,))


def take_claim(db: sqlite3.Connection, claim: Claim) -> None:
    """Take an idempotency key.

    Raises:
        ClaimTaken: with whoever holds it.
    """
    values = (claim.key_hash, claim.args_hash, claim.decision_id)
    if not db.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", values).rowcount:
        raise ClaimTaken(Claim(*db.execute(CLAIM, (claim.key_hash,)).fetchone()))


def take_step(db: sqlite3.Connection, step: SessionStep) -> None:
    """Take a step of a session.

    Raises:
        SessionMoved: the session stands elsewhere, or is somebody else's.
    """
    session = (step.tenant, step.session_id)
    if step.expected_step == 0:
        done = db.execute(
            "INSERT OR IGNORE INTO sessions (tenant, session_id, next_step, calls, owner) VALUES (?, ?, 1, ?, ?)",
            (*session, int(step.ran), step.owner),
        )
    else:
        done = db.execute(
            "UPDATE sessions SET next_step = next_step + 1, calls = calls + ?, owner = ?"
            " WHERE tenant = ? AND session_id = ? AND next_step = ? AND coalesce(owner, ?) = ?",
            (int(step.ran), step.owner, *session, step.expected_step, step.owner, step.owner),
        )
    if not done.rowcount:
        found = SessionCounters(*(db.execute(COUNTERS, session).fetchone() or (0, 0)))
        raise SessionMoved(
            f"session {step.session_id!r} of tenant {step.tenant!r} is at step {found.next_step} of "
            f"{found.owner}, not at {step.expected_step} of {step.owner}: another call went first; decide again"
        )


def take_lease(db: sqlite3.Connection, name: str, holder: str, now: int, expires: int) -> str:
    """Take or renew a lease unless somebody else's has not expired; return who holds it."""
    db.execute(
        "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET holder = excluded.holder, expires = excluded.expires WHERE expires <= ? OR holder = ?",
        (name, holder, expires, now, holder),
    )
    return str(db.execute("SELECT holder FROM leases WHERE name = ?", (name,)).fetchone()[0])
