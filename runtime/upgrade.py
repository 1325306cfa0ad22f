"""Upgrading: bringing a ledger and the tables of a lake to this release's versions.

One rule: what is told is what is done, and what is up to date is left alone; so an upgrade may be run again, and one
that died is completed by the next.

Nobody has to run it. Older ledgers and lakes are read as they are; opening a runtime upgrades its ledger, and a drain
the tables. It is for whoever wants to choose the moment: from then on earlier releases refuse both by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.errors import CommitConflict
from runtime.inspection import inspect_ledger
from runtime.ledger import Ledger
from runtime.ledgerfile import LEDGER_VERSION
from runtime.trace import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.lake import LakeStore
    from runtime.trace import Table

_ATTEMPTS: Final = 20
"""How often others may commit to a table in between before it is left to them."""


class Step(NamedTuple):
    """One thing that is older than this release."""

    subject: str
    """`ledger`, or the table's name."""
    version: int
    to: int
    columns: tuple[str, ...] = ()
    """Columns that a table gets."""


def plan(lake: LakeStore | None, ledger: Path | None) -> list[Step]:
    """Return what an upgrade would do, in order. It only looks.

    Args:
        lake: None: only the ledger.
        ledger: its file; None: only the lake.

    Raises:
        LedgerTooNew: a newer release wrote one of them.
        LedgerError: one of them cannot be read.
    """
    found = [] if ledger is None else _ledger_step(ledger)
    behind = {} if lake is None else {table: lake.behind(table) for table in TABLES}
    return found + [
        Step(table.name, old.version, SCHEMA_VERSION, old.columns)
        for table, old in behind.items()
        if old is not None
    ]


def _ledger_step(path: Path) -> list[Step]:
    version = inspect_ledger(path).version
    return [] if version == LEDGER_VERSION else [Step("ledger", version, LEDGER_VERSION)]


def upgrade(lake: LakeStore | None, ledger: Path | None) -> list[Step]:
    """Do what `plan` tells; return it.

    Raises:
        CommitConflict: others commit faster; safe to run again.
        LedgerError: the lake was not opened for writing, or one of them refuses. What was done stays.

    Durability: the ledger's upgrade is one transaction, on disk when this returns; a table's are two commits.
    """
    steps = plan(lake, ledger)
    names = {step.subject for step in steps}
    if ledger is not None and "ledger" in names:
        Ledger.open(ledger, create=False).close()
    for table in TABLES:
        if lake is not None and table.name in names:
            _bring_up(lake, table)
    return steps


def _bring_up(lake: LakeStore, table: Table) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            lake.create(table)
        except CommitConflict:
            if attempt == _ATTEMPTS:
                raise
        else:
            return
