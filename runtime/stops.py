"""Emergency stops: what may not run until somebody lifts the stop.

One rule: a stop holds from the moment it is on disk. Every decision, of every process that shares the ledger, looks
for one inside the transaction that would let its call run.

A stop names a tenant, a tool, an agent (the principal), or several of them together, which all must match; one of
everything names nothing. Calls that run already are not interrupted. Stops are kept after they were lifted: who
stopped what, when and why, and who lifted it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.canonical import new_id
from runtime.entities import EntityUid
from runtime.errors import GovernanceError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from runtime.canonical import Json
    from runtime.ledger import Ledger

TABLES: Final = """
CREATE TABLE IF NOT EXISTS stops (
  stop_id TEXT PRIMARY KEY, tenant TEXT, tool TEXT, agent TEXT, reason TEXT NOT NULL, set_by TEXT NOT NULL,
  set_at INTEGER NOT NULL, lifted_by TEXT, lifted_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stops_in_force ON stops (stop_id) WHERE lifted_at IS NULL;
"""
FIND: Final = (
    "SELECT stop_id FROM stops WHERE lifted_at IS NULL AND (tenant IS NULL OR tenant = ?1)"
    " AND (tool IS NULL OR tool = ?2) AND (agent IS NULL OR agent = ?3) ORDER BY set_at, stop_id LIMIT 1"
)
"""The oldest stop in force for (tenant, tool, agent)."""
_SELECT: Final = (
    "SELECT stop_id, tenant, tool, agent, reason, set_by, set_at, lifted_by, lifted_at FROM stops"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One emergency stop."""

    stop_id: str
    tenant: str | None
    """Whose calls; None: every tenant's."""
    tool: str | None
    """Of which tool; None: all."""
    agent: str | None
    """Of which principal, `Agent::"refund-bot"`; None: all."""
    reason: str
    set_by: str
    set_at: int
    """Microseconds, UTC."""
    lifted_by: str | None = None
    lifted_at: int | None = None
    """None: in force."""

    def __str__(self) -> str:
        """What it stops: `tenant 'acme', tool 'pay'`."""
        parts = {"tenant": self.tenant, "tool": self.tool, "agent": self.agent}
        return (
            ", ".join(f"{what} {name!r}" for what, name in parts.items() if name is not None) or "everything"
        )

    @property
    def inputs(self) -> dict[str, Json]:
        """What decisions record, and are judged by."""
        return {"id": self.stop_id, "reason": self.reason, "by": self.set_by, "what": str(self)}


class Stops:
    """The emergency stops of a ledger, which every process that shares it obeys; iterates over those in force."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __iter__(self) -> Iterator[Stop]:
        return iter(self.history(lifted=False))

    def history(self, *, lifted: bool = True) -> list[Stop]:
        """Return the stops, oldest first: with those that were lifted, or only those in force."""
        where = "" if lifted else " WHERE lifted_at IS NULL"
        return [_stop(row) for row in self._ledger.query(f"{_SELECT}{where} ORDER BY set_at, stop_id")]

    def named(
        self, *, tenant: str | None = None, tool: str | None = None, agent: str | EntityUid | None = None
    ) -> list[Stop]:
        """Return the stops in force that name exactly this; nothing: those of everything."""
        wanted = (tenant, tool, _agent(agent))
        return [each for each in self if (each.tenant, each.tool, each.agent) == wanted]

    def set(
        self,
        *,
        reason: str,
        tenant: str | None = None,
        tool: str | None = None,
        agent: str | EntityUid | None = None,
        everything: bool = False,
        by: str | None = None,
    ) -> Stop:
        """Stop every call that matches all that is named.

        Args:
            reason: why, for everybody whose call is blocked.
            tenant: whose calls.
            tool: of which tool.
            agent: of which principal, `Agent::refund-bot`.
            everything: stop all; then nothing else may be named.
            by: who says so; None: the user of this process.

        Raises:
            GovernanceError: nothing is named, or a name is no text.
            LedgerError: it could not be made durable. Nothing is stopped.

        Durability: on disk when it returns; a decision that commits from then on obeys.
        """
        uid = _agent(agent)
        if everything == any(each is not None for each in (tenant, tool, agent)):
            raise GovernanceError(
                "say what to stop: `tenant=`, `tool=`, `agent=`, or `everything=True` alone"
            )
        stop = Stop(
            stop_id=new_id(), tenant=tenant, tool=tool, agent=uid, reason=reason, set_by=by or user(),
            set_at=time.time_ns() // 1000,
        )  # fmt: skip
        values = (stop.stop_id, tenant, tool, uid, reason, stop.set_by, stop.set_at)
        for name, text in zip(("tenant", "tool", "agent", "reason", "by"), values[1:6], strict=True):
            _check(name, text, required=name in ("reason", "by"))
        sql = "INSERT INTO stops (stop_id, tenant, tool, agent, reason, set_by, set_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._ledger.commit(moves=[lambda db: db.execute(sql, values)])
        return stop

    def lift(self, *stops: Stop | str, by: str | None = None) -> list[Stop]:
        """Lift stops, or all that are in force; return those that were until now.

        Args:
            stops: which, themselves or by id; none: all.
            by: who says so; None: the user of this process.

        Raises:
            GovernanceError: there is no such stop. None was lifted.
        """
        given = [each.stop_id if isinstance(each, Stop) else each for each in stops]
        who, now, lifted = by or user(), time.time_ns() // 1000, list[Stop]()
        _check("by", who, required=True)

        def move(db: sqlite3.Connection) -> None:
            lifted.clear()
            ids = given or [
                row[0] for row in db.execute("SELECT stop_id FROM stops ORDER BY set_at, stop_id").fetchall()
            ]
            for stop_id in ids:
                lifted.extend(_lift(db, stop_id, who, now))

        self._ledger.commit(moves=[move])
        return lifted


def _lift(db: sqlite3.Connection, stop_id: str, by: str, now: int) -> Iterator[Stop]:
    sql = "UPDATE stops SET lifted_by = ?, lifted_at = ? WHERE stop_id = ? AND lifted_at IS NULL"
    done = db.execute(sql, (by, now, stop_id))
    row = db.execute(f"{_SELECT} WHERE stop_id = ?", (stop_id,)).fetchone()
    if row is None:
        raise GovernanceError(f"there is no emergency stop {stop_id!r}; `redecide stop LEDGER` lists them")
    if done.rowcount:
        yield _stop(row)


def read_stop(ledger: Ledger, stop_id: str) -> Stop:
    """Return a stop that `FIND` has found."""
    return _stop(ledger.query(f"{_SELECT} WHERE stop_id = ?", (stop_id,))[0])


def user() -> str:
    """Return the name of this process's user, or its number where it has none."""
    import getpass  # noqa: PLC0415 - only who stops something pays for it

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _agent(agent: str | EntityUid | None) -> str | None:
    if not isinstance(agent, str):
        return None if agent is None else str(agent)
    try:
        return str(EntityUid.parse(agent))
    except ValueError as exc:
        raise GovernanceError(f"`agent` of an emergency stop must be `Type::name`, got {agent!r}") from exc


def _check(name: str, text: object, *, required: bool) -> None:
    if text is None and not required:
        return
    try:
        whole = isinstance(text, str) and bool(text.strip()) and bool(text.encode())
    except UnicodeEncodeError:
        whole = False
    if not whole:
        raise GovernanceError(f"`{name}` of an emergency stop must be a text, got {text!r}")


def _stop(row: Sequence[object]) -> Stop:
    names = ("stop_id", "tenant", "tool", "agent", "reason", "set_by", "set_at", "lifted_by", "lifted_at")
    return Stop(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]  # as the table has them
