"""The lake: the tables of `runtime.trace` as Delta tables, one folder a table.

One rule: what is read back is what was written, whatever the strings hold, and a table of a newer schema is
refused by name before a row of it is read or written.

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
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.trace import SCHEMA_VERSION, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from deltalake import DeltaTable

    from runtime.canonical import Json

    Row: TypeAlias = Mapping[str, Json]

VERSION_KEY: Final = "redecide.schema_version"
"""Delta table property that holds `trace.SCHEMA_VERSION`; set by the commit that creates the table."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_UNUSABLE: Final = frozenset("%[]\\^|")
"""What delta-rs 1.6 cannot have in a local path: it reads %XX as an escape, and panics over the rest."""

_STATISTICS: Final = frozenset({
    "decision_id", "outcome_id", "linked_to", "session_id", "step", "decided_at", "recorded_at", "tool", "kind",
    "verdict", "writer", "position", "label", "bundle_version", "replay_id", "metric", "alias", "at",
})  # fmt: skip
_BLOCK_BYTES: Final = 4 << 20


# -- rows and Arrow --------------------------------------------------------------------------------------------


@cache
def _schemas(table: Table) -> tuple[pa.Schema, pa.Schema]:
    """Return a table's Arrow schema, and the one its JSON is parsed with (timestamps as integers)."""
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

    schema = pa.schema([_field(table, column) for column in table.columns])
    plain = [field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in schema]
    return schema, pa.schema([field.with_nullable(True) for field in plain])


def _field(table: Table, column: Column) -> pa.Field:
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

    def list_of(element: pa.DataType) -> pa.DataType:
        return pa.list_(pa.field("element", element, nullable=False))

    texts = [pa.field(name, pa.string(), nullable=False) for name in ("policy", "message")]
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "int32": pa.int32(),
        "bool": pa.bool_(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list<string>": list_of(pa.string()),
        "list<policy_error>": list_of(pa.struct(texts)),
    }
    nullable = not column.required or column.name in table.partition_by
    return pa.field(column.name, types[column.dtype], nullable=nullable)


def arrow_schema(table: Table) -> pa.Schema:
    """Return the table's Arrow schema, as it is written to Delta."""
    return _schemas(table)[0]


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table of `arrow_schema(table)`, in their order; NaN and infinities become null.

    Raises:
        ValueError: a row does not fit the table.

    Cost: 9 to 14 µs for a decision (2 KiB, 45 columns). The way leads through JSON text, which beats column-wise
    lists because both ends of it are C.
    """
    try:
        lines: list[bytes] = [_encoder.encode(row) for row in rows]
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError) as exc:
        raise ValueError(f"rows do not fit table `{table.name}`: {exc}") from exc
    return _parse(table, lines, extra="error")


_encoder: Final = msgspec.json.Encoder()


def arrow_of_stored(table: Table, texts: Sequence[str], hashes: Sequence[str | None]) -> pa.Table:
    """Return rows as the ledger stores them as an Arrow table: no Python object a value.

    Args:
        table: whose rows they are.
        texts: canonical JSON objects; their member `table`, which is no column, is left out.
        hashes: the rows' `hash`, which their texts do not contain; null for tables without the column.

    Raises:
        ValueError: a member does not have its column's type, or a required one is missing.
    """
    return _parse(table, [text.encode() for text in texts], extra="ignore", hashes=hashes)


def _parse(
    table: Table, lines: Sequence[bytes], *, extra: str, hashes: Sequence[str | None] = ()
) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import
    from pyarrow import json as pj  # noqa: PLC0415

    schema, plain = _schemas(table)
    if not lines:
        return schema.empty_table()
    block = max(_BLOCK_BYTES, max(map(len, lines)) + 1)  # a row may span two blocks, not three
    try:
        parsed = pj.read_json(
            pa.py_buffer(b"\n".join(lines)),
            read_options=pj.ReadOptions(block_size=block),
            parse_options=pj.ParseOptions(explicit_schema=plain, unexpected_field_behavior=extra),
        )
        index = schema.get_field_index("hash")
        if hashes and index >= 0:
            parsed = parsed.set_column(index, plain.field(index), pa.array(hashes, pa.string()))
        return parsed.cast(schema)
    except (pa.ArrowException, ValueError) as exc:
        raise ValueError(f"rows do not fit table `{table.name}`: {exc}") from exc


# -- tables ----------------------------------------------------------------------------------------------------


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
        self._check_version(table, handle)
        return handle

    def create(self, table: Table) -> DeltaTable:
        """Open a table, creating it if it is missing. Safe to race.

        Raises:
            CommitConflict: somebody created it at the same moment; safe to retry.
            LedgerError: the store is read-only, or the table cannot be written.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - costs 0.2 s to import

        self._require_writable()
        if found := self.table(table):
            return found
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
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake  # noqa: PLC0415

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
                writer_properties=WriterProperties(
                    compression="SNAPPY"
                ),  # ZSTD: half the size, a third the speed
            )
        return int(handle.version())

    def read(self, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table at its latest version into memory; empty if it is not there yet.

        Returns:
            An Arrow table with the columns asked for (all by default), rows in no particular order.
        """
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

        schema = arrow_schema(table)
        names = list(schema.names if columns is None else columns)
        wanted = pa.schema([schema.field(name) for name in names])
        handle = self.table(table)
        if handle is None:
            return wanted.empty_table()
        with translated(self.location(table), "read"):
            found = pa.RecordBatchReader.from_stream(handle.scan(columns=names)).read_all().select(names)
        for name in set(names) & set(table.partition_by):
            found = found.set_column(names.index(name), name, found[name].cast(pa.string()).fill_null(""))
        return found.cast(wanted)

    def _check_version(self, table: Table, handle: DeltaTable) -> None:
        text = handle.metadata().configuration.get(VERSION_KEY, "1")  # tools that copy a table may drop it
        if not text.isdecimal():
            raise LedgerCorrupt(f"table {self.location(table)!r} has no readable schema version: {text!r}")
        if int(text) > SCHEMA_VERSION:
            raise LedgerTooNew(
                f"table {self.location(table)!r} has schema version {text}, this redecide reads up to "
                f"{SCHEMA_VERSION}; upgrade redecide"
            )

    def _require_writable(self) -> None:
        if not self.writable:
            raise LedgerError(f"lake {self.uri!r} was opened for reading; open it with write=True")


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
