"""Results that grow: kept in memory while they are small, in files when they are not.

One rule: whoever holds the result holds its files; they go when nobody does. A result that is not finished, because
the work was interrupted or failed, has none: its files go at once, though a traceback may hold it for long.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer, main_thread
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.ending import undoing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IN_MEMORY = 1_000_000
"""Rows above which a result goes to files: a replay's rows take some 700 bytes each."""


class Files(TemporaryDirectory[str]):
    """A folder that goes when nobody holds it. An interrupt that meets it there is told again, once it is gone.

    Python removes it in a weak reference's callback, where whatever is raised is printed and forgotten.
    """

    @classmethod
    def _cleanup(cls, *args: Any, **options: Any) -> None:
        while True:
            try:
                super()._cleanup(*args, **options)  # type: ignore[misc]  # the callback of the standard library
            except KeyboardInterrupt:
                _interrupt_soon()
            else:
                return


def _interrupt_soon() -> None:
    """Interrupt the main thread a moment from now, waking it if it waits."""
    ident = main_thread().ident
    assert ident is not None  # noqa: S101 - it has started
    Timer(0.05, signal.pthread_kill, (ident, signal.SIGINT)).start()


@contextmanager
def spilling(schema: Mapping[str, pl.DataType | type[pl.DataType]], expected: int) -> Iterator[Spill]:
    """Collect the pieces of a table that is thrown away unless it is made whole; see `Spill`."""
    spill = Spill(schema, expected)
    with undoing(spill.drop):
        yield spill


@dataclass(slots=True)
class Spill:
    """Collects the pieces of a table."""

    schema: Mapping[str, pl.DataType | type[pl.DataType]]
    expected: int
    """Rows that are to come; decides where they are kept."""
    files: Files | None = None
    """Keeps the files, if there are any: hold it as long as the table is used."""
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _written: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.expected > IN_MEMORY:
            self.files = Files(prefix="redecide-replay-", ignore_cleanup_errors=True)

    def add(self, part: pl.DataFrame) -> None:
        """Take a piece; on return it is in memory or in a file, where any reader finds it."""
        if self.files is None:
            self._parts.append(part)
            return
        path = Path(self.files.name) / f"{len(self._written):06}.parquet"
        part.write_parquet(path, compression="lz4", statistics=False)
        self._written.append(path)

    def drop(self) -> None:
        """Forget the pieces; their files go."""
        self._parts.clear()
        self._written.clear()
        if self.files is not None:
            self.files.cleanup()

    def frame(self) -> pl.LazyFrame:
        """Return the pieces as one table, in the order they came."""
        if self._written:
            return pl.scan_parquet(self._written, glob=False)
        parts = self._parts or [pl.DataFrame(schema=dict(self.schema))]
        return pl.concat(parts).lazy()
