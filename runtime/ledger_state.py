"""What one transaction of the ledger does: its values, and the statements that move its tables.

One rule: a function here runs inside a transaction that its caller opened, and raises before it leaves anything
half done; the caller rolls back. `runtime.ledger` owns connections, locks and transactions.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeAlias

from runtime import actions
from runtime.canonical import sha256
from runtime.errors import CommitConflict
from runtime.evidence import check_address, check_row, content_preimage, seal
from runtime.lifecycle import FIRST
from runtime.trace import DECISIONS, DRAINED, GENESIS, OUTCOMES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import msgspec

    from runtime.canonical import Json

    Row = Mapping[str, Json]

EVIDENCE: Final = frozenset({DECISIONS.name, OUTCOMES.name})
"""Tables of the chain."""

CONTENTS: Final = frozenset(table.name for table in DRAINED) - EVIDENCE
"""Tables that are stored once by address."""

Move: TypeAlias = "Callable[[sqlite3.Connection], object]"
"""A change of state inside a transaction of the ledger; it raises `CommitConflict` where what it rests on moved."""

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
    expires: int | None = None
    """When it may be taken anew, microseconds; None: never. Not while the action it was taken for is open."""
    at: int = 0
    """When it is taken: what expired by then may be taken over."""


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
    check: str | None = None
    """SHA-256 of the text of contents; null: written before version 3."""


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
CLAIM: Final = "SELECT key_hash, args_hash, decision_id, expires FROM claims WHERE key_hash=?"
COUNTERS: Final = "SELECT next_step, calls, owner FROM sessions WHERE tenant=? AND session_id=?"
DECISION: Final = "SELECT position, row, hash FROM decisions WHERE decision_id=?"
EXECUTION: Final = (
    "SELECT position, row, hash FROM outcomes WHERE decision_id=? AND kind='execution'"
    " ORDER BY position DESC LIMIT 1"
)
UNFINISHED: Final = (
    "SELECT d.position, d.row, d.hash FROM actions a JOIN decisions d ON d.position = a.position"
    " WHERE coalesce((SELECT json_extract(o.row, '$.status') FROM outcomes o WHERE o.decision_id = a.decision_id"
    " AND o.kind = 'execution' ORDER BY o.position DESC LIMIT 1), 'in_doubt') = 'in_doubt'"
    " ORDER BY d.position"
)
_AFTER: Final = "SELECT {0} FROM {1} WHERE {2}{3} > ? AND {3} <= ? ORDER BY {3} LIMIT ?"
CONTENT: Final = "SELECT sequence, row, NULL, hash FROM contents WHERE tbl=? AND key=?"


def select_after(table: Table) -> tuple[str, tuple[str, ...]]:
    """Return the statement for rows in `(after, upto]`, at most `limit`, and its leading parameters."""
    if table.name in EVIDENCE:
        return _AFTER.format("position, row, hash", table.name, "", "position"), ()
    _require(table, CONTENTS)
    return _AFTER.format("sequence, row, NULL, hash", "contents", "tbl = ? AND ", "sequence"), (table.name,)


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
    checked = check_row(table, row)
    check_address(table, row)
    return content_preimage(table, checked)


def _require(table: Table, allowed: frozenset[str]) -> None:
    if table.name not in allowed:
        raise ValueError(f"`{table.name}` is not kept here; allowed are {', '.join(sorted(allowed))}")


_ROWS: Final = 16
"""Contents that one statement stores; so many texts of it stay prepared."""
_STORE: Final = tuple(
    "INSERT OR IGNORE INTO contents (tbl, key, row, hash) VALUES " + ", ".join(["(?, ?, ?, ?)"] * rows)  # noqa: S608 - constants
    for rows in range(_ROWS + 1)
)


def add_contents(db: sqlite3.Connection, texts: Sequence[tuple[str, str, str]]) -> None:
    """Store contents (table, key, text) whose key is new in their table."""
    for start in range(0, len(texts), _ROWS):
        part = texts[start : start + _ROWS]
        db.execute(_STORE[len(part)], [each for content in part for each in (*content, sha256(content[2]))])


class Head:
    """The end of the chain, remembered between transactions of one connection.

    SQLite's `data_version` changes when any other connection has committed; then the head is read again. So it is
    after a transaction of our own whose end nobody reported: it may have failed, or been interrupted.
    """

    __slots__ = ("_kept", "_seen", "_version", "end")

    def __init__(self) -> None:
        self.end: tuple[int, str] | None = None
        """Last position and its hash in the transaction under way; null: it began, and nobody asked yet."""
        self._kept = (0, GENESIS)
        self._version: int | None = None
        """Of the database when `_kept` was its head; null: unknown."""
        self._seen: int | None = None

    def read(self, db: sqlite3.Connection) -> tuple[int, str]:
        """Return the last position and its hash; inside a write transaction, so that nobody moves it."""
        if self.end is None:
            (self._seen,) = db.execute("PRAGMA data_version").fetchone()
            known, self._version = self._seen == self._version, None
            self.end = self._kept if known else db.execute(HEAD).fetchone() or (0, GENESIS)
        return self.end

    def committed(self) -> None:
        """Remember the end, once the transaction has committed."""
        if self.end is not None:
            self._kept, self._version = self.end, self._seen


def append(
    db: sqlite3.Connection, writer: str, head: Head, links: Iterable[Link], holder: str | None
) -> list[dict[str, Json]]:
    """Chain checked rows onto the head, and keep `actions` in step; `holder` runs those that begin."""
    position, previous = head.read(db)
    chained = []
    for table, row, checked in links:
        position += 1
        link, text = seal(table, row, checked, writer, position, previous)
        previous = str(link["hash"])
        if table is DECISIONS:
            _insert_decision(db, position, link, text, holder)
        else:
            _insert_outcome(db, position, link, text)
        chained.append(link)
    head.end = (position, previous)
    return chained


def _insert_decision(db: sqlite3.Connection, position: int, link: Row, text: str, holder: str | None) -> None:
    values = (position, link["decision_id"], link["hash"], text)
    try:
        db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?)", values)
    except sqlite3.IntegrityError as exc:
        raise ValueError(
            f"decision {link['decision_id']!r} is in the ledger already; give it a new id"
        ) from exc
    if link["verdict"] in _LET_RUN and link["kind"] in _EXECUTED_KINDS:
        first = FIRST[link.get("effect")]  # type: ignore[index]  # checked: the column's closed vocabulary
        db.execute(
            "INSERT INTO actions (decision_id, position, state, holder, moved) VALUES (?, ?, ?, ?, ?)",
            (link["decision_id"], position, first, holder, link["decided_at"]),
        )


def _insert_outcome(db: sqlite3.Connection, position: int, link: Row, text: str) -> None:
    decision_id, kind = link.get("decision_id"), link["kind"]
    if kind == "execution":
        actions.conclude(db, link)
    db.execute(
        "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", (position, decision_id, kind, link["hash"], text)
    )


def take_claim(db: sqlite3.Connection, claim: Claim) -> None:
    """Take an idempotency key.

    Raises:
        ClaimTaken: with whoever holds it.
    """
    values = (claim.key_hash, claim.args_hash, claim.decision_id, claim.expires)
    done = db.execute(
        "INSERT INTO claims (key_hash, args_hash, decision_id, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key_hash) DO UPDATE SET args_hash = excluded.args_hash,"
        " decision_id = excluded.decision_id, expires = excluded.expires"
        " WHERE expires <= ? AND NOT EXISTS (SELECT 1 FROM actions WHERE decision_id = claims.decision_id)",
        (*values, claim.at),
    )
    if not done.rowcount:
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
