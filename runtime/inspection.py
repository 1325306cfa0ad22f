"""A look at a ledger from outside: what is under way, in doubt, waiting and stopped; what the lake does not have yet.

One rule: it only looks. No row is written, nothing is created, upgraded or recovered, and a ledger that is in use
stays as it is. (SQLite may rebuild its own index of the log, the `-shm` file, where a log lies there.)

A ledger nobody has open has no log beside it; it is read as a file that does not change, and once more if it did. Any
version up to this release's is read; what an older one does not have is not reported.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runtime.drain import app_id
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.holders import is_alive
from runtime.ledgerfile import BUSY_SECONDS, LEDGER_VERSION, translated
from runtime.lifecycle import concluded
from runtime.trace import DECISIONS, DRAINED, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.lake import LakeStore
    from runtime.lifecycle import State

_T = TypeVar("_T")

_SMALLEST: Final = 512
"""Bytes of the smallest database. Nobody but SQLite opens its file: see `ledgerfile._inspect`."""
_ATTEMPTS: Final = 5
"""How often a ledger may change between two looks before it is called busy."""
_FAULTS: Final = 10
"""Faults of the file that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """An action that was let run and has not ended."""

    decision_id: str
    tenant: str
    tool: str
    resource: str | None
    """`Type::"id"`, as enforced."""
    state: State
    since: int
    """When it came into this state; before version 3, when it was decided. Microseconds, UTC."""
    lives: bool | None
    """Whether the process that runs it is alive; null: it cannot be told."""
    becomes: str | None
    """What the next `Runtime.open` concludes, an execution status; null: nothing."""

    @property
    def in_doubt(self) -> bool:
        """Whether it may have taken effect, and nobody who would know is there any more."""
        return self.state == "in_doubt" or self.becomes == "in_doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An approval that was neither used, denied nor closed as expired."""

    approval_id: str
    tenant: str
    tool: str
    resource: str | None
    state: str
    """`pending`, or `granted` and not used yet."""
    asked_at: int
    expires_at: int
    lacking: tuple[str, ...]
    """Policies whose grant is still missing, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """An emergency stop that nobody has lifted."""

    stop_id: str
    names: Mapping[str, str]
    """What it stops: `tenant`, `tool`, `agent`; empty: everything."""
    reason: str
    set_by: str
    set_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a ledger holds, at one moment."""

    path: Path
    id: str
    version: int
    file_bytes: int
    log_bytes: int
    faults: tuple[str, ...]
    """What SQLite finds wrong with the file's structure."""
    ends: Mapping[str, int]
    """Last sequence of each drained table; 0: it has no row."""
    undrained: Mapping[str, int] | None
    """Rows that the lake does not have, by table; tables with none are left out. Null: no lake was looked at."""
    ahead: Mapping[str, int]
    """Tables of which the lake has more of this ledger than the ledger itself, and up to where: an old copy of it."""
    actions: tuple[UnderWay, ...]
    """Oldest first."""
    approvals: tuple[Asked, ...]
    stops: tuple[InForce, ...]


def inspect_ledger(path: str | Path, lake: LakeStore | None = None) -> Inspection:
    """Look at a ledger.

    Args:
        path: its file.
        lake: where it is drained to; None: it is not told what the lake lacks.

    Raises:
        LedgerCorrupt: the file is no ledger, or too damaged to look into.
        LedgerTooNew: a newer release wrote it, or a table of the lake.
        CommitConflict: it changes faster than it can be looked at; safe to retry.
        LedgerError: there is none, or it or the lake cannot be read.

    Cost: reads the whole file once, for its structure (about 0.3 s for 100 MB).
    """
    path = Path(path)
    with translated(path, "look at"):
        if not path.is_file():
            raise LedgerError(f"no ledger at {str(path)!r}; check the path")
        if path.stat().st_size < _SMALLEST:
            _not_a_ledger(path)
        # The lake first: what is drained meanwhile must not look as if the ledger had lost it.
        drained = None if lake is None else _drained(lake, settled(path, identity))
        return settled(path, lambda database, place: _looked(database, place, drained))


def _not_a_ledger(path: Path) -> str:
    raise LedgerCorrupt(f"{str(path)!r} is not a ledger of redecide, or is damaged")


def settled(path: Path, look: Callable[[sqlite3.Connection, Path], _T]) -> _T:
    """Look in one transaction, so that what is found fits together; again where the file changed meanwhile.

    Raises:
        LedgerCorrupt: the file is no ledger.
        CommitConflict: it changes faster than it can be looked at; safe to retry.
        sqlite3.Error: untranslated.
    """
    for _ in range(_ATTEMPTS):
        live, before = _log(path).exists(), _signs(path)
        with contextlib.closing(_connected(path, live=live)) as database:
            database.execute("BEGIN")
            if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]:
                _not_a_ledger(path)
            found = look(database, path)
        if live or _signs(path) == before:
            return found
    raise CommitConflict(f"ledger {str(path)!r} changes while it is looked at; look again")


def identity(database: sqlite3.Connection, path: Path) -> str:
    """Return a ledger's id, which names its chain.

    Raises:
        LedgerCorrupt: it has none.
    """
    found = database.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
    return str(found[0]) if found else _not_a_ledger(path)


def _drained(lake: LakeStore, ledger_id: str) -> dict[str, int]:
    """Return up to where each table is in the lake."""
    handles = {table: lake.table(table) for table in DRAINED}
    return {
        table.name: 0 if handle is None else handle.transaction_version(app_id(ledger_id, table)) or 0
        for table, handle in handles.items()
    }


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _signs(path: Path) -> tuple[int, int]:
    """What changes when somebody writes to a file that has no log."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def read_only(path: Path, *, live: bool | None = None) -> str:
    """Return the address by which SQLite only reads a ledger: immutable without a log, since it would make one.

    Args:
        path: its file.
        live: whether a log lies beside it; None: looked for.
    """
    live = _log(path).exists() if live is None else live
    return f"{path.absolute().as_uri()}?mode=ro{'' if live else '&immutable=1'}"


def _connected(path: Path, *, live: bool) -> sqlite3.Connection:
    uri = read_only(path, live=live)
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)


def _looked(database: sqlite3.Connection, path: Path, drained: Mapping[str, int] | None) -> Inspection:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    version = version_of(database, path)
    faults = [text for (text,) in database.execute(f"PRAGMA integrity_check({_FAULTS})") if text != "ok"]
    ends = {table.name: _count(database, table.name, "max", 0) for table in DRAINED}
    in_lake = drained or {}
    missing = {name: _count(database, name, "count", end) for name, end in in_lake.items()}
    return Inspection(
        path=path,
        id=identity(database, path),
        version=version,
        file_bytes=path.stat().st_size,
        log_bytes=_log(path).stat().st_size if _log(path).exists() else 0,
        faults=tuple(faults),
        ends=ends,
        undrained=None if drained is None else {name: rows for name, rows in missing.items() if rows},
        ahead={name: end for name, end in in_lake.items() if end > ends[name]},
        actions=tuple(_actions(database, path, version)),
        approvals=tuple(_approvals(database)) if "approvals" in tables else (),
        stops=tuple(_stops(database)) if "stops" in tables else (),
    )


def version_of(database: sqlite3.Connection, path: Path) -> int:
    """Return a ledger's version.

    Raises:
        LedgerCorrupt: it names none.
        LedgerTooNew: a newer release wrote it.
    """
    found = database.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    text = found[0] if found else None
    if not isinstance(text, str) or not text.isdecimal():
        raise LedgerCorrupt(f"ledger {str(path)!r} has no readable schema version: {text!r}")
    if int(text) > LEDGER_VERSION:
        raise LedgerTooNew(
            f"ledger {str(path)!r} has schema version {text}, this redecide reads up to {LEDGER_VERSION}; "
            "upgrade redecide"
        )
    return int(text)


def _count(database: sqlite3.Connection, table: str, what: str, after: int) -> int:
    """The number of rows of a drained table after a sequence, or the last sequence: `count` or `max`."""
    chained = table in (DECISIONS.name, OUTCOMES.name)
    column, source = (
        ("position", f"{table} WHERE 1") if chained else ("sequence", "contents WHERE tbl = :table")
    )
    sql = f"SELECT coalesce({what}({column}), 0) FROM {source} AND {column} > :after"  # noqa: S608 - names of ours
    (found,) = database.execute(sql, {"table": table, "after": after}).fetchone()
    return int(found)


def _actions(database: sqlite3.Connection, path: Path, version: int) -> Iterator[UnderWay]:
    columns = "a.state, a.holder, a.moved" if version >= 3 else "'started', NULL, NULL"  # noqa: PLR2004 - see `ledgerfile`
    rows = database.execute(
        f"SELECT a.decision_id, {columns}, d.row FROM actions a JOIN decisions d USING (position)"  # noqa: S608 - ours
        " ORDER BY a.position"
    )
    for decision_id, state, holder, moved, text in rows:
        row = json.loads(text)
        lives = _lives(path, holder)
        becomes = None if lives is not False else concluded(state, row.get("effect"))
        yield UnderWay(
            decision_id=decision_id,
            **_about(row),
            state=state,
            since=row["decided_at"] if moved is None else moved,
            lives=lives,
            becomes=None if becomes is None else becomes.status,
        )


def _lives(path: Path, holder: str | None) -> bool | None:
    if holder is None:
        return False  # a version before 3 ran it; who has the file open since is another
    try:
        return is_alive(path, holder)
    except LedgerError:
        return None


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a decision was about; its resource as enforced."""
    prefix = "" if row.get("enforced_resource_type") is None else "enforced_"
    kind, ident = row.get(f"{prefix}resource_type"), row.get(f"{prefix}resource_id")
    resource = None if kind is None else f"{kind}::{json.dumps(ident, ensure_ascii=False)}"
    return {"tenant": row["tenant"], "tool": row["tool"], "resource": resource}


def _approvals(database: sqlite3.Connection) -> Iterator[Asked]:
    rows = database.execute(
        "SELECT a.approval_id, a.state, a.asked_at, a.expires_at, a.needs, d.row FROM approvals a"
        " JOIN decisions d ON d.decision_id = a.approval_id WHERE a.state IN ('pending', 'granted')"
        " ORDER BY a.asked_at"
    )
    for approval_id, state, asked_at, expires_at, needs, text in rows.fetchall():
        given = {policy for (policy,) in database.execute(_GIVEN, (approval_id,))}
        yield Asked(
            approval_id=approval_id,
            **_about(json.loads(text)),
            state=state,
            asked_at=asked_at,
            expires_at=expires_at,
            lacking=tuple(sorted(set(json.loads(needs)) - given)),
        )


_GIVEN: Final = "SELECT policy FROM grants WHERE approval_id = ?"


def _stops(database: sqlite3.Connection) -> Iterator[InForce]:
    rows = database.execute(
        "SELECT stop_id, tenant, tool, agent, reason, set_by, set_at FROM stops WHERE lifted_at IS NULL"
        " ORDER BY set_at"
    )
    for stop_id, tenant, tool, agent, reason, set_by, set_at in rows:
        named = {"tenant": tenant, "tool": tool, "agent": agent}
        names = {name: value for name, value in named.items() if value is not None}
        yield InForce(stop_id=stop_id, names=names, reason=reason, set_by=set_by, set_at=set_at)
