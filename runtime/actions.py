"""Actions under way: the ledger's table of what was let run and has not ended.

One rule: a row is there from the decision on until nothing is owed any more, and it moves as `lifecycle.TRANSITIONS`
allows or not at all; so the table is as small as what is under way, whatever the history.

Everything here runs inside a transaction of the ledger and may be run twice by it; nothing acts outside of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from runtime.errors import ActionMoved
from runtime.lifecycle import TRANSITIONS, State, after
from runtime.trace import ExecutionStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from runtime.ledger import Ledger, Move

TABLES: Final = """
CREATE TABLE IF NOT EXISTS actions (
  decision_id TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'started',
  holder TEXT, handle TEXT, moved INTEGER, guards TEXT) WITHOUT ROWID;
"""
"""`state` of `lifecycle.State`; `holder` the open ledger (`runtime.holders`) that runs it, null: a version before 3;
`handle` what a staged tool's prepare, or a tool that is being undone, returned, canonical JSON; `moved` when it came
into this state, microseconds; `guards` what output guards said, JSON as in `outcomes`."""

_ALL: Final = "SELECT decision_id, state, holder, handle, moved, guards FROM actions ORDER BY position"
_ONE: Final = "SELECT decision_id, state, holder, handle, moved, guards FROM actions WHERE decision_id = ?"
_EXECUTED: Final = "SELECT 1 FROM outcomes WHERE decision_id = ? AND kind = 'execution'"


class Action(NamedTuple):
    """One row: an action that has not ended."""

    decision_id: str
    state: State
    holder: str | None
    handle: str | None
    moved: int | None
    guards: str | None


def under_way(ledger: Ledger) -> list[Action]:
    """Return every action that has not ended, oldest first."""
    return [Action(*row) for row in ledger.query(_ALL)]


def find(ledger: Ledger, decision_id: str) -> Action | None:
    """Return one action, unless it has ended or never began."""
    found = ledger.query(_ONE, (decision_id,))
    return Action(*found[0]) if found else None


def move(
    decision_id: str, old: State, new: State, *, at: int, handle: str | None = None, guards: str | None = None
) -> Move:
    """Return the move of an action from one state to another; `handle` and `guards` are kept where None.

    Raises:
        ActionMoved: when it runs, if the action is not in `old`; at once, if there is no such transition.
    """
    if new not in TRANSITIONS[old]:
        raise ActionMoved(f"an action that is {old!r} cannot become {new!r}: it is no transition")

    def work(db: sqlite3.Connection) -> None:
        done = db.execute(
            "UPDATE actions SET state = ?, moved = ?, handle = coalesce(?, handle), guards = coalesce(?, guards)"
            " WHERE decision_id = ? AND state = ?",
            (new, at, handle, guards, decision_id, old),
        )
        if not done.rowcount:
            raise ActionMoved(_stands(db, decision_id, f"be moved from {old!r} to {new!r}"))

    return work


def told(decision_id: str) -> Move:
    """Return the end of an action whose tool knows now that it is aborted.

    Raises:
        ActionMoved: when it runs, if the action is not `aborting`.
    """

    def work(db: sqlite3.Connection) -> None:
        done = db.execute("DELETE FROM actions WHERE decision_id = ? AND state = 'aborting'", (decision_id,))
        if not done.rowcount:
            raise ActionMoved(_stands(db, decision_id, "end as told"))

    return work


def conclude(db: sqlite3.Connection, outcome: Mapping[str, Any]) -> None:
    """Take an action where its execution outcome says, before that outcome is added.

    Raises:
        ActionMoved: the action has ended already, or its state has no such ending.
    """
    decision_id, status = outcome["decision_id"], outcome["status"]
    ends = _ENDS.get(status)
    if ends is not None and db.execute(ends, (decision_id,)).rowcount:
        return  # nearly always: one statement looks and moves
    found = db.execute("SELECT state FROM actions WHERE decision_id = ?", (decision_id,)).fetchone()
    if found is None:
        # A decision that let nothing run has no row, and may be given one ending: denied, expired.
        if db.execute(_EXECUTED, (decision_id,)).fetchone():
            raise ActionMoved(_stands(db, decision_id, f"end as {status!r}"))
        return
    try:
        new = after(found[0], status)
    except KeyError:
        raise ActionMoved(_stands(db, decision_id, f"end as {status!r}")) from None
    values = (new, outcome["recorded_at"], decision_id)
    db.execute("UPDATE actions SET state = ?, moved = ? WHERE decision_id = ?", values)


def _ends(status: ExecutionStatus) -> str | None:
    """The statement that ends an action whose outcome leaves nothing owed, in whichever state it may end so."""
    if status in TRANSITIONS:
        return None
    states = [
        state for state, following in TRANSITIONS.items() if status in following and _is_end(state, status)
    ]
    # Not `IN`: of more than two values SQLite makes a table first, which takes five times as long as all the rest.
    may = " ".join(f"WHEN '{state}' THEN 1" for state in states)
    return f"DELETE FROM actions WHERE decision_id = ? AND CASE state {may} END" if states else None  # noqa: S608


def _is_end(state: State, status: ExecutionStatus) -> bool:
    return state != "aborting" and after(state, status) == status


_ENDS: Final = {status: _ends(status) for status in get_args(ExecutionStatus)}
"""By outcome; null: it ends nothing, or nothing may end so."""


def _stands(db: sqlite3.Connection, decision_id: str, wanted: str) -> str:
    found = db.execute("SELECT state FROM actions WHERE decision_id = ?", (decision_id,)).fetchone()
    if found is not None:
        stands = f"is {found[0]!r}"
    elif db.execute(_EXECUTED, (decision_id,)).fetchone():
        stands = "has ended; its last outcome holds"
    else:
        stands = "was never let run"
    return f"decision {decision_id} cannot {wanted}: it {stands}"
