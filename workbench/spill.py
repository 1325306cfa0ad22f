"""Results that grow: kept in memory while they are small, in files when they are not.

One rule: whoever holds the result holds its files; they go when nobody does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_MEMORY = 1_000_000
"""Rows above which a result goes to files: a replay's rows take some 700 bytes each."""


@dataclass(slots=True)
class Spill:
    """Collects the pieces of a table."""

    schema: Mapping[str, pl.DataType | type[pl.DataType]]
    expected: int
    """Rows that are to come; decides where they are kept."""
    files: TemporaryDirectory[str] | None = None
    """Keeps the files, if there are any: hold it as long as the table is used."""
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _written: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.expected > IN_MEMORY:
            self.files = TemporaryDirectory(prefix="redecide-replay-", ignore_cleanup_errors=True)

    def add(self, part: pl.DataFrame) -> None:
        """Take a piece; on return it is in memory or in a file, where any reader finds it."""
        if self.files is None:
            self._parts.append(part)
            return
        path = Path(self.files.name) / f"{len(self._written):06}.parquet"
        part.write_parquet(path, compression="lz4", statistics=False)
        self._written.append(path)

    def frame(self) -> pl.LazyFrame:
        """Return the pieces as one table, in the order they came."""
        if self._written:
            return pl.scan_parquet(self._written, glob=False)
        parts = self._parts or [pl.DataFrame(schema=dict(self.schema))]
        return pl.concat(parts).lazy()
