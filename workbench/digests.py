"""Digests of tables that do not depend on the order of rows.

One rule: equal rows, in any order and in any number of pieces, give equal digests; so a replay that ran in chunks, or
on several machines, can be held against one that ran in one piece.

How: each row's JSON is hashed with SHA-256, the hashes are added (as four 64-bit numbers, without overflow), and the
sums are hashed with the number of rows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import duckdb

from runtime.canonical import content_hash
from workbench.ending import interrupts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

INTERRUPTED = "Query interrupted"
"""What DuckDB says in a `RuntimeError` when it was interrupted."""
_LANES = ", ".join(
    f"coalesce(sum(('0x' || substr(hash, {1 + 16 * lane}, 16))::ubigint), 0)::varchar" for lane in range(4)
)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@contextmanager
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection to an empty database in memory, one for each use; making the database takes a while.

    Raises:
        KeyboardInterrupt: in place of what DuckDB makes of one.
    """
    with _database().cursor() as cursor:
        try:
            with interrupts_of(duckdb.Error):  # it calls Python to look at a frame
                yield cursor
        except RuntimeError as exc:
            if str(exc) != INTERRUPTED:
                raise
            raise KeyboardInterrupt from exc


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum over some rows; add those of the pieces."""

    rows: int = 0
    lanes: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __add__(self, other: Sum) -> Sum:
        one, two, three, four = (a + b for a, b in zip(self.lanes, other.lanes, strict=True))
        return Sum(self.rows + other.rows, (one, two, three, four))

    @property
    def digest(self) -> str:
        """64 hex digits."""
        return content_hash([self.rows, *map(str, self.lanes)])


def sum_of(frame: pl.DataFrame) -> Sum:
    """Add up the hashes of a table's rows. Columns count by name and place."""
    frame = frame.rechunk()  # DuckDB takes a table piece by piece
    if frame.is_empty():
        return Sum()
    with connection() as cursor:
        relation = cursor.sql(
            f"select {_LANES} from (select sha256(to_json(frame)::varchar) as hash from frame)"  # noqa: S608 - constants
        )
        one, two, three, four = map(int, relation.fetchall()[0])
    return Sum(frame.height, (one, two, three, four))
