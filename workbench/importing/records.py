"""Files of calls as records: a row is a mapping of column to Python value, found by its number.

One rule: a row that cannot be read is a row all the same, with its number and why.

Files are gone through some thousand rows at a time, and are never in memory as a whole; frames are, as given. A file
that changes meanwhile is refused, because rows are known by their numbers.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import polars as pl

from runtime.canonical import without_doubles
from workbench.errors import MappingInvalid
from workbench.importing.causes import Unmappable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Record = dict[str, Any]
Calls = str | Path | pl.DataFrame | pl.LazyFrame
"""What an import takes: a file of Parquet or JSON lines, or a frame."""

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
}


BLOCK: Final = 5_000
"""Rows that are taken out of a file at once."""


class Records(Protocol):
    """Records in their order; a row's number is its place in it, from 0."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns; of JSON lines, all members of all lines."""

    def __len__(self) -> int:
        """How many rows there are, unreadable ones included."""

    def blocks(self) -> Iterator[list[Record | Unmappable]]:
        """Yield all rows, some at a time."""

    def texts(self, numbers: Sequence[int]) -> Iterator[str]:
        """Yield these rows, ascending, as texts: a line as it stands, a row of a table as JSON."""


class FrameRecords:
    """Rows of a frame. A null inside a struct is a member that is not there: other rows have it."""

    def __init__(self, frame: pl.DataFrame, missing: Mapping[str, Any]) -> None:
        self._frame, self._missing = frame, missing

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._frame.columns

    def __len__(self) -> int:
        return self._frame.height

    def _frames(self) -> Iterator[pl.DataFrame]:
        yield from self._frame.iter_slices(BLOCK)

    def blocks(self) -> Iterator[list[Record | Unmappable]]:
        """Yield the rows."""
        for frame in self._frames():
            rows = frame.to_dicts()
            for name in (name for name, dtype in frame.schema.items() if dtype.is_nested()):
                for row in rows:
                    row[name] = _without_nulls(row[name])
            yield [_filled(row, self._missing) for row in rows]

    def texts(self, numbers: Sequence[int]) -> Iterator[str]:
        """Yield these rows as JSON; what JSON does not have as its text."""
        wanted, before = pl.Series(numbers, dtype=pl.Int64), 0
        for frame in self._frames():
            mine = wanted.filter(wanted.is_between(before, before + frame.height - 1)) - before
            for row in frame[mine.to_list()].to_dicts() if len(mine) else ():
                yield json.dumps(row, ensure_ascii=False, default=str)
            before += frame.height


class ParquetRecords(FrameRecords):
    """Rows of a Parquet file: a row group of it is in memory at a time."""

    def __init__(self, path: Path, missing: Mapping[str, Any]) -> None:
        self._file, self._stamp = path, _stamp(path)
        self._scan = pl.scan_parquet(path, glob=False)
        super().__init__(self._scan.head(0).collect(), missing)
        self._rows: int = self._scan.select(pl.len()).collect().item()

    def __len__(self) -> int:
        return self._rows

    def _frames(self) -> Iterator[pl.DataFrame]:
        _require_same(self._file, self._stamp)
        with _readable(self._file):
            for frame in self._scan.collect_batches(chunk_size=BLOCK, lazy=True):
                yield from frame.iter_slices(BLOCK)


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(item) for name, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


class LineRecords:
    """Lines of JSON objects, of which some are in memory at a time. A line that is blank is no row."""

    def __init__(self, path: Path, missing: Mapping[str, Any]) -> None:
        self._file, self._stamp, self._missing = path, _stamp(path), missing
        self._rows = 0
        self.columns = self._members()

    def _members(self) -> list[str]:
        """All members, in the order in which they are met; counts the rows."""
        found: dict[str, None] = {}
        for line in self._lines():
            self._rows += 1
            try:
                row = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            found |= dict.fromkeys(row) if isinstance(row, dict) else {}
        return list(found)

    def _lines(self) -> Iterator[str]:
        _require_same(self._file, self._stamp)
        with _readable(self._file), self._file.open(encoding="utf-8") as lines:
            for line in lines:  # ends at `\n` alone: JSON texts may hold line separators of Unicode
                if line.strip():
                    yield line.removesuffix("\n")

    def __len__(self) -> int:
        return self._rows

    def blocks(self) -> Iterator[list[Record | Unmappable]]:
        """Yield the rows."""
        lines = self._lines()
        while block := [self._read(line) for line in islice(lines, BLOCK)]:
            yield block

    def texts(self, numbers: Sequence[int]) -> Iterator[str]:
        """Yield these lines."""
        wanted = set(numbers)
        return (line for number, line in enumerate(self._lines()) if number in wanted)

    def _read(self, line: str) -> Record | Unmappable:
        try:
            row = json.loads(line, object_pairs_hook=without_doubles)
        except (ValueError, RecursionError) as exc:
            return Unmappable("row_unreadable", f"{exc}")
        if not isinstance(row, dict):
            return Unmappable("row_unreadable", f"the line is a JSON {type(row).__name__}, not an object")
        return _filled(row, self._missing)


def _filled(row: Record, missing: Mapping[str, Any]) -> Record:
    for name, value in missing.items():
        if row.get(name) is None:
            row[name] = value
    return row


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _require_same(path: Path, stamp: tuple[int, int]) -> None:
    """A file is gone through more than once; its rows are known by their numbers."""
    with _readable(path):
        if _stamp(path) != stamp:
            raise MappingInvalid(f"{str(path)!r} was changed while it was read; import it once it is whole")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of what cannot be read that it cannot."""
    try:
        yield
    except FileNotFoundError as exc:
        raise MappingInvalid(f"no file at {str(path)!r}") from exc
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as exc:
        raise MappingInvalid(f"{str(path)!r} cannot be read: {exc}") from exc


def read_records(calls: Calls, missing: Mapping[str, Any]) -> Records:
    """Read a file or take a frame.

    Args:
        calls: what to import.
        missing: column → what stands for its nulls.

    Raises:
        MappingInvalid: there is no such file, it cannot be read, or nobody knows its format. Going through the
            records raises it, too, where a file cannot be read to its end, or was changed meanwhile.

    Cost: JSON lines are gone through once, to know all members; of Parquet only the footer is read.
    """
    if isinstance(calls, pl.LazyFrame | pl.DataFrame):
        return FrameRecords(calls.lazy().collect(), missing)
    path = Path(calls).expanduser()
    form = _SUFFIXES.get(path.suffix.lower())
    if form is None:
        known = ", ".join(_SUFFIXES)
        raise MappingInvalid(
            f"{str(path)!r} is neither Parquet nor JSON lines, by its name; known are {known}"
        )
    with _readable(path):
        return (ParquetRecords if form == "parquet" else LineRecords)(path, missing)


def said(value: Any) -> str | None:
    """Return a value as the text of a label; None: there is none.

    Example:
        >>> said(True), said(1.0), said("x"), said(None)
        ('true', '1', 'x', None)
    """
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case str():
            return value
        case _:
            return (
                json.dumps(value, ensure_ascii=False, default=str)
                if isinstance(value, dict | list)
                else str(value)
            )
