"""Files of calls as records: a row is a mapping of column to Python value, found by its number.

One rule: a row that cannot be read is a row all the same, with its number and why.

Accepted: the file is in memory as a whole, columnar (Parquet) or as lines (JSONL); records are made when they are
asked for, some thousands at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import polars as pl

from runtime.canonical import without_doubles
from workbench.errors import MappingInvalid
from workbench.importing.causes import Unmappable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class Records(Protocol):
    """Records by number, from 0."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns; of JSON lines, all members of the first lines."""

    def __len__(self) -> int:
        """How many rows there are, unreadable ones included."""

    def take(self, numbers: Sequence[int]) -> list[Record | Unmappable]:
        """Return these rows, in this order."""

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Return these rows as texts: a line as it stands, a row of a frame as JSON."""


class FrameRecords:
    """Rows of a frame. A null inside a struct is a member that is not there: other rows have it."""

    def __init__(self, frame: pl.DataFrame, missing: Mapping[str, Any]) -> None:
        self._frame, self._missing = frame, missing
        self._nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._frame.columns

    def __len__(self) -> int:
        return self._frame.height

    def take(self, numbers: Sequence[int]) -> list[Record | Unmappable]:
        """Return these rows."""
        rows = self._frame[numbers].to_dicts()
        for name in self._nested:
            for row in rows:
                row[name] = _without_nulls(row[name])
        return [_filled(row, self._missing) for row in rows]

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Return these rows as JSON; what JSON does not have as its text."""
        return [json.dumps(row, ensure_ascii=False, default=str) for row in self._frame[numbers].to_dicts()]


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(item) for name, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


class LineRecords:
    """Lines of JSON objects. A line that is blank is no row."""

    def __init__(self, lines: Sequence[str], missing: Mapping[str, Any]) -> None:
        self._lines, self._missing = lines, missing
        self.columns = self._members()

    def _members(self) -> list[str]:
        """All members, in the order in which they are met."""
        found: dict[str, None] = {}
        for line in self._lines:
            try:
                row = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            found |= dict.fromkeys(row) if isinstance(row, dict) else {}
        return list(found)

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, numbers: Sequence[int]) -> list[Record | Unmappable]:
        """Return these rows."""
        return [self._read(self._lines[number]) for number in numbers]

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Return these lines."""
        return [self._lines[number] for number in numbers]

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


def read_records(calls: Calls, missing: Mapping[str, Any]) -> Records:
    """Read a file or take a frame.

    Args:
        calls: what to import.
        missing: column → what stands for its nulls.

    Raises:
        MappingInvalid: there is no such file, it cannot be read, or nobody knows its format.
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
    try:
        if form == "parquet":
            return FrameRecords(pl.read_parquet(path), missing)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise MappingInvalid(f"no file at {str(path)!r}") from exc
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as exc:
        raise MappingInvalid(f"{str(path)!r} cannot be read: {exc}") from exc
    # Not `splitlines`: JSON texts may hold line separators of Unicode.
    return LineRecords([line for line in text.split("\n") if line.strip()], missing)


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
