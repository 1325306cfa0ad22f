"""What is installed here, and whether a lake is sound: the answers of `redecide doctor`.

One rule: it only looks. Nothing is written, created or repaired.
"""

from __future__ import annotations

import platform
import re
import sqlite3
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runtime.evidence import broken_links
from runtime.trace import DECISIONS, OUTCOMES, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.lake import LakeStore
    from runtime.trace import Table

Status = Literal["ok", "note", "bad"]
"""`note` is worth knowing and no fault: an extra that is not installed, a table not written yet."""

CHECKED_ROWS = 1_000_000
"""Up to here the hash chains are checked, at about 10 µs and 3 KiB a row."""
SHOWN_LINKS = 20

_CHAINED = (DECISIONS, OUTCOMES)
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?P<rest>[^;]*)(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?"
)
_USERS_EXTRAS = (None, "workbench", "agentdojo")
"""Without `all`, which repeats them, and `dev`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of the installed distribution."""

    name: str
    """As the index spells it: `json-merge-patch`."""
    specifier: str
    extra: str | None
    """The extra that brings it; None for what the runtime itself needs."""

    @property
    def module(self) -> str:
        """The module it is imported by."""
        return self.name.lower().replace("-", "_")


def requirements() -> Iterator[Requirement]:
    """Yield what the installed `redecide` and its extras ask for, by its own metadata."""
    for text in metadata.requires("redecide") or []:
        if (found := _REQUIREMENT.match(text)) and found["extra"] in _USERS_EXTRAS:
            yield Requirement(found["name"], found["rest"].split("[")[0].strip(), found["extra"])


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module.

    Example:
        >>> extra_of("polars"), extra_of("agentdojo"), extra_of("json")
        ('workbench', 'agentdojo', None)
    """
    top = module.partition(".")[0]
    return next((each.extra for each in requirements() if each.module == top), None)


def installation() -> Iterator[Finding]:
    """Report the interpreter, the system and every library that Redecide uses, with the version found."""
    yield Finding("redecide", "ok", metadata.version("redecide"))
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)
    yield from map(_installed, requirements())


def _installed(requirement: Requirement) -> Finding:
    try:
        return Finding(requirement.name, "ok", metadata.version(requirement.name))
    except metadata.PackageNotFoundError:
        extra = f"[{requirement.extra}]" if requirement.extra else ""
        status: Status = "note" if requirement.extra else "bad"
        return Finding(requirement.name, status, f"not installed; run pip install 'redecide{extra}'")


def lake_findings(uri: str) -> Iterator[Finding]:
    """Report each table of a lake, and whether its hash chains hold.

    Raises:
        LakeError: there is no lake, or it cannot be read.

    Cost: O(rows): reads and hashes `decisions` and `outcomes`, in memory; above `CHECKED_ROWS` it only counts.
    """
    from workbench.lake import open_lake  # noqa: PLC0415 - it loads Polars and Delta

    lake = open_lake(uri)
    yield Finding("lake", "ok", str(lake.uri))
    rows = 0
    for table in TABLES:
        found = _table(table, lake.store)
        yield found.finding
        rows += found.rows if table in _CHAINED else 0
    if rows > CHECKED_ROWS:
        yield Finding("chain", "note", f"not checked: {rows:,} rows, more than {CHECKED_ROWS:,}")
    else:
        yield from _chains(lake.store, rows)


class _Counted(NamedTuple):
    finding: Finding
    rows: int


def _table(table: Table, store: LakeStore) -> _Counted:
    handle = store.table(table)
    if handle is None:
        return _Counted(Finding(table.name, "note", "not written yet"), 0)
    rows = handle.count()
    return _Counted(Finding(table.name, "ok", f"{rows:,} rows, Delta version {handle.version()}"), rows)


def _chains(store: LakeStore, rows: int) -> Iterator[Finding]:
    broken = broken_links((table.name, row) for table in _CHAINED for row in _rows(store, table))
    for link in broken[:SHOWN_LINKS]:
        yield Finding("chain", "bad", f"ledger {link.writer}, position {link.position}: {link.what}")
    if len(broken) > SHOWN_LINKS:
        yield Finding("chain", "bad", f"and {len(broken) - SHOWN_LINKS:,} more")
    if not broken:
        yield Finding("chain", "ok", f"{rows:,} rows, none changed, missing, doubled or reordered")


def _rows(store: LakeStore, table: Table) -> list[dict[str, Any]]:
    """Return a table's rows as the ledger hashed them: timestamps as microseconds."""
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

    data = store.read(table)
    for index, column in enumerate(data.schema):
        if pa.types.is_timestamp(column.type):
            data = data.set_column(index, column.name, data[column.name].cast(pa.int64()))
    return list(data.to_pylist())
