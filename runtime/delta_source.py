"""Facts in Delta tables: versioned, so that the same facts can be read again.

One rule: a version is read once and then answers from memory.

Accepted: a whole version is held, at most `max_rows` rows; the eight versions used last are kept.

Import from `runtime.sources`.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from runtime.errors import SourceError, SourceNotYet, SourceVersionLost
from runtime.lookup import MAX_ROWS, Found, answering, check_columns, json_row, typed
from runtime.values import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from runtime.canonical import Json

_KEPT_VERSIONS = 8


class DeltaSource:
    """Facts in a Delta table.

    Freshness: every lookup without a version reads the latest one. On a local file system, two stats tell (3 µs): the
    log folder is the same and unchanged since the version was read, and the next version's file does not exist
    (a commit within the clock's granularity does not move the folder's time). A commit that was acknowledged before
    the lookup started is seen, as is a table that was deleted and created again. On object stores, and with
    `probe=False` (network file systems that cache attributes), each lookup lists the log after the known version:
    commits are seen alike, but a table created again under the same URL only once it has more versions.

    Cost: a hit on a version in memory 5–10 µs; a new version 5 ms and more, O(rows), once.
    """

    kind = "delta"

    def __init__(
        self,
        uri: str | Path,
        storage_options: Mapping[str, str] | None = None,
        *,
        known_as: str | None = None,
        max_rows: int = MAX_ROWS,
        probe: bool = True,
    ) -> None:
        """Name a table; nothing is read yet.

        Args:
            uri: local folder, or URL of an object store.
            storage_options: for an object store, as delta-rs takes them.
            known_as: what facts record as their `uri`; default the location. Give the old one when a table moved,
                and its facts compile to the same bytes.
            max_rows: refuse versions with more rows.
            probe: whether the log's folder may be looked at directly, when it is local.
        """
        self._location = str(uri) if "://" in str(uri) else str(Path(uri).absolute())
        self._options = None if storage_options is None else dict(storage_options)
        self.uri: str | None = known_as or self._location
        self._max_rows = max_rows
        self._log = _local_log(self._location) if probe else None
        self._lock = Lock()
        # In one: a reader between two assignments would hold an old version for unchanged.
        self._latest: tuple[_Snapshot, tuple[int, int] | None] | None = None
        self._table: Any = None
        self._kept: dict[str, _Snapshot] = {}
        self._times: dict[int, int | None] = {}

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Return rows of the latest version, or of `version`; see `Source.lookup`."""
        snapshot = self._unchanged() if version is None else self._kept.get(version)
        if snapshot is None:
            with _answering(self.uri), self._lock:
                snapshot = self._refresh() if version is None else self._load_version(version)
        return Found(snapshot.find(where, tuple(columns)), snapshot.version, snapshot.as_of)

    def version_at(self, at_us: int) -> str | None:
        """Return the newest version committed at or before `at_us`. O(versions after it).

        Raises:
            SourceNotYet: there was none yet.
            SourceVersionLost: the log of that time was cleaned up.
            SourceError: the table cannot be read.
        """
        with _answering(self.uri), self._lock:
            latest = self._unchanged() or self._refresh()
            version = int(latest.version)
            while version >= 0 and (at := self._time_of(version)) is not None:
                if at <= at_us:
                    return str(version)
                version -= 1
        asked = f"(asked for {at_us} µs)"
        if version >= 0:
            raise SourceVersionLost(f"delta table {self.uri!r}: the log was cleaned up {asked}")
        raise SourceNotYet(f"delta table {self.uri!r}: the log has no version that old {asked}")

    def column_types(self, version: str) -> dict[str, str]:
        """Return the Delta type of each column at a version, by name; its data files need not be there any more.

        Raises:
            SourceError: its log is gone.
        """
        with _answering(self.uri):
            fields = self._open(int(version)).schema().fields
        types = {field.name: msgspec.json.decode(field.type.to_json()) for field in fields}
        return {name: type_ if isinstance(type_, str) else repr(type_) for name, type_ in types.items()}

    def _time_of(self, version: int) -> int | None:
        """Return a version's commit time, read once: a commit never changes."""
        if version not in self._times:
            self._times[version] = self._commit_time(version)
        return self._times[version]

    def _unchanged(self) -> _Snapshot | None:
        """Return the version in memory, if it is certain to be the latest still."""
        if self._latest is None or self._log is None:
            return None
        latest, mark = self._latest
        if _mark(self._log) != mark:
            return None
        # After the folder: a commit between the two looks shows in this one.
        return None if os.access(latest.next_log, os.F_OK) else latest

    def _refresh(self) -> _Snapshot:
        """Read the latest version, if it is not the one in memory. Under the lock."""
        mark = None if self._log is None else _mark(self._log)
        if self._log is None and self._table is not None:
            self._table.update_incremental()
        else:
            fresh = self._open(None)
            if self._table is not None and self._table.metadata().id != fresh.metadata().id:
                self._kept.clear()
                self._times.clear()
            self._table = fresh
        snapshot = self._keep(self._table)
        self._latest = snapshot, mark
        return snapshot

    def _load_version(self, version: str) -> _Snapshot:
        if not version.isdecimal():
            raise SourceError(f"delta table {self.uri!r}: a version is a whole number, got {version!r}")
        from deltalake.exceptions import DeltaError  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays
        from pyarrow import ArrowException  # noqa: PLC0415 - as above

        try:
            return self._keep(self._open(int(version)))
        except (DeltaError, ArrowException, OSError) as exc:
            if not self._is_lost(int(version)):
                raise
            raise SourceVersionLost(
                f"delta table {self.uri!r}: version {version} was vacuumed, or its log cleaned up"
            ) from exc

    def _is_lost(self, version: int) -> bool:
        """Whether there was such a version, and its log or a file of it is gone; false: the table itself is away."""
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays
        from deltalake.exceptions import DeltaError  # noqa: PLC0415 - as above
        from pyarrow.fs import FileType  # noqa: PLC0415 - as above

        if version > int(self._open(None).version()):
            return False
        try:
            table = self._open(version)
        except DeltaError:
            return True
        files = self._files()
        listed = pa.table(table.get_add_actions())["path"].to_pylist()
        # The log escapes paths once more than the store does.
        spellings = zip(
            files.get_file_info(listed), files.get_file_info(list(map(unquote, listed))), strict=True
        )
        return any(FileType.NotFound is one.type is two.type for one, two in spellings)

    def _open(self, version: int | None) -> Any:
        from deltalake import DeltaTable  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays

        return DeltaTable(self._location, version=version, storage_options=self._options)

    def _keep(self, table: Any) -> _Snapshot:
        version = str(table.version())
        snapshot = self._kept.pop(version, None) or self._load(table)
        self._kept[version] = snapshot
        while len(self._kept) > _KEPT_VERSIONS:
            self._kept.pop(next(iter(self._kept)))
        return snapshot

    def _load(self, table: Any) -> _Snapshot:
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays

        count = table.count()
        if count > self._max_rows:
            raise SourceError(
                f"delta table {self.uri!r} has {count} rows, more than max_rows={self._max_rows}; "
                "bind `DeltaSource(…, max_rows=…)`, or serve it through a SQL source"
            )
        # `scan` reads deletion vectors and column mapping, which `to_pyarrow_table` refuses.
        rows = pa.RecordBatchReader.from_stream(table.scan()).read_all()
        version = table.version()
        log = "" if self._log is None else str(self._log / f"{version + 1:020d}.json")
        return _Snapshot(
            str(version),
            self._commit_time(version),
            rows.column_names,
            rows.to_pylist(maps_as_pydicts="strict"),
            log,
        )

    def _commit_time(self, version: int) -> int | None:
        """Return the commit's own time; null if its log entry is gone.

        Read from the log entry: file times do not survive a copy, and `DeltaTable.history` (deltalake 1.6) counts
        down from the handle's version over the table's newest commits, so a pinned handle mislabels them.
        """
        try:
            text = self._files().open_input_file(f"_delta_log/{version:020d}.json").read()
        except FileNotFoundError:
            return None
        actions = (msgspec.json.decode(line) for line in text.splitlines() if line)
        info: dict[str, Any] = next(
            (action["commitInfo"] for action in actions if "commitInfo" in action), {}
        )
        millis = info.get("inCommitTimestamp", info.get("timestamp"))
        return None if millis is None else int(millis) * 1_000

    def _files(self) -> Any:
        from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays
        from pyarrow.fs import PyFileSystem  # noqa: PLC0415 - as above

        return PyFileSystem(DeltaStorageHandler(self._location, self._options))


class _Snapshot:
    """One version of a table in memory, indexed by the key columns that are asked for."""

    def __init__(
        self, version: str, as_of: int | None, columns: list[str], rows: list[dict[str, Any]], next_log: str
    ) -> None:
        self.version, self.as_of, self.next_log = version, as_of, next_log
        self._columns, self._rows = columns, rows
        self._index: dict[tuple[str, ...], dict[tuple[object, ...], list[int]]] = {}
        self._answers: dict[tuple[object, ...], list[dict[str, Json]]] = {}

    def find(self, where: Mapping[str, Json], columns: tuple[str, ...]) -> list[dict[str, Json]]:
        names = tuple(where)
        key = tuple(map(typed, where.values()))
        answer = self._answers.get((names, key, columns))
        if answer is None:
            check_columns((*names, *columns), self._columns, f"version {self.version} of the table")
            found = self._indexed(names).get(key, ())
            answer = [json_row(self._rows[i], columns) for i in found]
            if answer:  # misses are not kept: what is asked for may be anything
                self._answers[names, key, columns] = answer
        return answer

    def _indexed(self, names: tuple[str, ...]) -> dict[tuple[object, ...], list[int]]:
        index = self._index.get(names)
        if index is None:
            index = {}
            for i, row in enumerate(self._rows):
                index.setdefault(
                    tuple(typed(to_json(row[n], f"key column `{n}`")) for n in names), []
                ).append(i)
            self._index[names] = index
        return index


def _local_log(location: str) -> Path | None:
    scheme = urlsplit(location)
    if "://" in location and scheme.scheme != "file":
        return None
    return Path(unquote(scheme.path) if "://" in location else location) / "_delta_log"


def _mark(log: Path) -> tuple[int, int] | None:
    """Return what changes whenever an entry of the folder does; null: there is no such folder."""
    try:
        seen = os.stat(log)  # noqa: PTH116 - half the cost of Path.stat, on every lookup
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns


def _answering(uri: str | None) -> AbstractContextManager[None]:
    from deltalake.exceptions import DeltaError  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays
    from pyarrow import ArrowException  # noqa: PLC0415 - costs 0.3 s to import; only who reads Delta pays

    return answering(f"delta table {uri!r}", (DeltaError, ArrowException, OSError, ValueError))
