"""The lake: the tables of `runtime.trace` as Delta tables, one folder a table.

One rule: what is read back is what was written, whatever the strings hold, and a table of a newer schema is
refused by name before a row of it is read or written.

A table of an older schema is read as it is: columns that it does not have are null. It is brought to this version
before the first row of this version goes in, by two commits: first its property says so, from which moment an older
reader refuses it by name and an older writer's commit is refused by Delta; then it gets the columns. Whoever finds it
half-way reads it like an older one, and a writer adds what is missing.

Accepted trade-offs. On a local disk delta-rs syncs nothing: after power loss the last commits may be gone or
torn, which is why the ledger, not the lake, is the durability point. Delta has no empty partition value: an empty
tenant becomes null at the latest when the table is compacted, so `tenant` is nullable in the lake although it is
never null, and readers put the empty string back, as `LakeStore.read` does. Column statistics are kept for a few
short columns only: those of `args` would copy arguments into the log. Tables are read with `DeltaTable.scan`;
`to_pyarrow_table` of deltalake 1.6 aborts the interpreter at exit, about once in ten runs.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from runtime.arrow import arrow_schema, to_arrow
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.trace import SCHEMA_VERSION, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from deltalake import DeltaTable, WriterProperties

    from runtime.canonical import Json

    Row: TypeAlias = Mapping[str, Json]

LEDGER_FILE: Final = "_ledger.sqlite"
"""Where a local lake keeps the ledger of its runtime, unless that was opened with another."""

VERSION_KEY: Final = "redecide.schema_version"
"""Delta table property that holds `trace.SCHEMA_VERSION`; set by the commit that creates or upgrades the table."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_UNUSABLE: Final = frozenset("%[]\\^|")
"""What delta-rs 1.6 cannot have in a local path: it reads %XX as an escape, and panics over the rest."""

_STATISTICS: Final = frozenset({
    "decision_id", "outcome_id", "linked_to", "session_id", "step", "decided_at", "recorded_at", "tool", "kind",
    "verdict", "writer", "position", "label", "bundle_version", "replay_id", "metric", "alias", "at",
})  # fmt: skip

_DISTINCT: Final = frozenset({
    "decision_id", "outcome_id", "args", "args_hash", "projection", "session_state", "enforced_args", "action_hash",
    "prev_hash", "hash", "entity_hash", "entity", "uid_id", "slice_hash", "blob_hash", "data",
})  # fmt: skip
"""Columns whose values hardly come twice in a file. A dictionary of them is given up when it is full, and costs a
third of the time of writing until then; files are as large without."""


class Behind(NamedTuple):
    """How a table of an older schema differs from this release's."""

    version: int
    """Its schema version."""
    columns: tuple[str, ...]
    """Columns that it does not have."""


class LakeStore:
    """The Delta tables under one folder or URL. Holds no open resource; opens a table anew each time.

    It reads unless told to write; tables are created when the first row is written to them.
    """

    def __init__(
        self, uri: str | Path, storage_options: Mapping[str, str] | None = None, *, write: bool = False
    ) -> None:
        """Name a lake; nothing is touched yet.

        Raises:
            LedgerError: the path has characters that delta-rs cannot handle.
        """
        self.uri = lake_uri(uri)
        self.writable = write
        self._options = dict(storage_options or {}) or None

    def __repr__(self) -> str:
        return f"<LakeStore {self.uri!r}{', writable' if self.writable else ''}>"

    def writing(self) -> LakeStore:
        """Return the same lake, opened for writing."""
        return LakeStore(self.uri, self._options, write=True)

    def location(self, table: Table) -> str:
        """Return where a table is: a local path or a URL."""
        return f"{self.uri}/{table.name}"

    def table(self, table: Table) -> DeltaTable | None:
        """Open a table at its latest version; null if it is not there yet.

        Raises:
            LedgerTooNew: a newer release wrote it.
            LedgerError: it cannot be read.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - costs 0.2 s to import
        from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415

        try:
            with translated(self.location(table), "open"):
                handle = DeltaTable(self.location(table), storage_options=self._options)
        except LedgerError as exc:
            if isinstance(exc.__cause__, TableNotFoundError):
                return None
            raise
        self._version(table, handle)
        return handle

    def create(self, table: Table) -> DeltaTable:
        """Open a table for writing: created if it is missing, upgraded if it is older. Safe to race.

        Raises:
            CommitConflict: somebody created or upgraded it at the same moment; safe to retry.
            LedgerError: the store is read-only, or the table cannot be written.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - costs 0.2 s to import

        self._require_writable()
        if found := self.table(table):
            return self._upgraded(table, found)
        statistics = ",".join(column.name for column in table.columns if column.name in _STATISTICS)
        with translated(self.location(table), "create"):
            return DeltaTable.create(
                self.location(table),
                schema=arrow_schema(table),
                mode="ignore",
                partition_by=list(table.partition_by),
                name=table.name,
                description=table.doc,
                configuration={
                    VERSION_KEY: str(SCHEMA_VERSION),
                    "delta.dataSkippingStatsColumns": statistics or table.key,
                },
                storage_options=self._options,
                raise_if_key_not_exists=False,
            )

    def append(
        self,
        table: Table,
        rows: Sequence[Row] | pa.Table,
        *,
        app: tuple[str, int] | None = None,
        handle: DeltaTable | None = None,
    ) -> int:
        """Append rows in one commit; return the table's version with them.

        Args:
            table: where to.
            rows: row dicts, or an Arrow table of `arrow_schema(table)`; none: no commit is made.
            app: application id and version to record with the commit. With a `handle` opened before the version
                was read, Delta refuses the commit if another one recorded the same id since.
            handle: the table as opened earlier; it is not refreshed before the commit. None: opened now.

        Raises:
            CommitConflict: another commit came between; nothing was appended; start again from the read.
            LedgerError: the store is read-only or refuses. Whether the commit happened is known after a read.
            ValueError: rows do not fit the table.

        Durability: on an object store, when it returns; on a local disk, when the system writes it back.
        """
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import
        from deltalake import CommitProperties, Transaction, write_deltalake  # noqa: PLC0415

        self._require_writable()
        data = rows if isinstance(rows, pa.Table) else to_arrow(table, rows)
        handle = handle or self.create(table)
        if not data.num_rows:
            return int(handle.version())
        with translated(self.location(table), "append to"):
            write_deltalake(
                handle,
                data,
                mode="append",
                commit_properties=CommitProperties(app_transactions=[Transaction(*app)] if app else None),
                writer_properties=_writer_properties(table),
            )
        return int(handle.version())

    def read(self, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table at its latest version into memory; empty if it is not there yet.

        Returns:
            An Arrow table with the columns asked for (all by default), rows in no particular order. Columns that an
            older table does not have are null.

        Raises:
            LedgerCorrupt: it lacks a column that was in every version.
        """
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

        schema = arrow_schema(table)
        names = list(schema.names if columns is None else columns)
        wanted = pa.schema([schema.field(name) for name in names])
        handle = self.table(table)
        if handle is None:
            return wanted.empty_table()
        lacking = self._lacking(table, handle)
        stored = [name for name in names if name not in lacking]
        with translated(self.location(table), "read"):
            scanned = handle.scan(columns=stored or [table.key])
            found = pa.RecordBatchReader.from_stream(scanned).read_all()
        for name in set(names) & set(lacking):
            found = found.append_column(wanted.field(name), pa.nulls(found.num_rows, wanted.field(name).type))
        found = found.select(names)
        for name in set(names) & set(table.partition_by):
            found = found.set_column(names.index(name), name, found[name].cast(pa.string()).fill_null(""))
        return found.cast(wanted)

    def behind(self, table: Table) -> Behind | None:
        """Return what an upgrade of a table would change; null: it is of this version, or not there yet."""
        handle = self.table(table)
        return None if handle is None else self._behind(table, handle)

    def _behind(self, table: Table, handle: DeltaTable) -> Behind | None:
        found = Behind(self._version(table, handle), self._lacking(table, handle))
        return None if found == (SCHEMA_VERSION, ()) else found

    def _lacking(self, table: Table, handle: DeltaTable) -> tuple[str, ...]:
        known = {field.name for field in handle.schema().fields}
        lacking = tuple(column.name for column in table.columns if column.name not in known)
        if lost := [column.name for column in table.columns if column.required and column.name in lacking]:
            raise LedgerCorrupt(f"table {self.location(table)!r} lacks {', '.join(map(repr, lost))}")
        return lacking

    def _upgraded(self, table: Table, handle: DeltaTable) -> DeltaTable:
        """Bring a table to this version, if it is older; see the module's docstring for the order."""
        behind = self._behind(table, handle)
        if behind is None:
            return handle
        from deltalake import Schema  # noqa: PLC0415 - costs 0.2 s to import

        fields = [
            field for field in Schema.from_arrow(arrow_schema(table)).fields if field.name in behind.columns
        ]
        with translated(self.location(table), "upgrade"):
            if behind.version < SCHEMA_VERSION:
                handle.alter.set_table_properties(
                    {VERSION_KEY: str(SCHEMA_VERSION)}, raise_if_not_exists=False
                )
            if fields:
                handle.alter.add_columns(fields)
        return self.create(table)  # opened anew: others may have written meanwhile

    def _version(self, table: Table, handle: DeltaTable) -> int:
        """Return a table's schema version; refuse one that this release does not know."""
        text = handle.metadata().configuration.get(VERSION_KEY, "1")  # tools that copy a table may drop it
        if not text.isdecimal():
            raise LedgerCorrupt(f"table {self.location(table)!r} has no readable schema version: {text!r}")
        if int(text) > SCHEMA_VERSION:
            raise LedgerTooNew(
                f"table {self.location(table)!r} has schema version {text}, this redecide reads up to "
                f"{SCHEMA_VERSION}; upgrade redecide"
            )
        return int(text)

    def _require_writable(self) -> None:
        if not self.writable:
            raise LedgerError(f"lake {self.uri!r} was opened for reading; open it with write=True")


@cache
def _writer_properties(table: Table) -> WriterProperties:
    """How a table's files are written."""
    from deltalake import ColumnProperties, WriterProperties  # noqa: PLC0415 - costs 0.2 s to import

    plain = ColumnProperties(dictionary_enabled=False)
    return WriterProperties(
        compression="SNAPPY",  # ZSTD: half the size, a third the speed
        column_properties={column.name: plain for column in table.columns if column.name in _DISTINCT},
    )


def lake_uri(uri: str | Path) -> str:
    """Return a lake's place in one form: a URL as given, a local folder as an absolute path.

    Raises:
        LedgerError: naming the characters that delta-rs cannot handle.
    """
    text = str(uri)
    if _URL.match(text):
        return text.rstrip("/")
    path = str(Path(text).absolute())
    if bad := sorted(set(path) & _UNUSABLE):
        raise LedgerError(
            f"lake folder {path!r} has characters that Delta tables cannot have in a path: {' '.join(bad)}; "
            "choose another folder"
        )
    return path


@contextlib.contextmanager
def translated(location: str, doing: str) -> Iterator[None]:
    """Raise `LedgerError` and its kinds for what deltalake and the operating system raise in the block."""
    from deltalake import exceptions as foreign  # noqa: PLC0415 - costs 0.2 s to import

    try:
        yield
    except LedgerError:
        raise
    except foreign.CommitFailedError as exc:
        raise CommitConflict(f"cannot {doing} {location!r}: {_short(exc)}; safe to retry") from exc
    except foreign.DeltaProtocolError as exc:
        raise LedgerTooNew(f"cannot {doing} {location!r}: {_short(exc)}") from exc
    except (foreign.DeltaError, OSError, ValueError) as exc:
        raise LedgerError(f"cannot {doing} {location!r}: {_short(exc)}") from exc


def _short(exc: Exception) -> str:
    """Return delta-rs's message without its colours, line breaks and Rust stack."""
    lines = _COLOUR.sub("", str(exc)).partition("\n   0:")[0].split()
    return " ".join(lines)[:500]


_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
