"""The decisions of a history, and what is known of each whatever decides.

One rule: every decision has one row here, in the log's order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from workbench.live.parts import Span
from workbench.live.said import Book, Key, Said
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from workbench.live.axes import Axes
    from workbench.live.parts import Rows

    Column = Callable[[pl.DataFrame], pl.Series]
    """Tells something of rows of `workbench.replay.FRAME`."""

_Number = TypeVar("_Number", bound=np.generic)
SHOWN = ("decision_id", "tenant", "session_id", "step", "decided_at", "tool", "principal")
"""Columns that lists of decisions show."""
_PLACE = ("writer", "position")
_TEXTS = ("tenant", "tool", "principal", "writer")
"""Columns whose texts repeat."""
_SAID = ("status", "verdict", "decided_by", "reason_code", "determining", "same")
_EMPTY = pl.DataFrame(schema={name: FRAME[name] for name in (*SHOWN, *_PLACE)}).with_columns(
    pl.col(_TEXTS).cast(pl.Categorical)
)
_KEY = ("then", "kind", "recorded_verdict", "side", "tool")


@dataclass(slots=True, kw_only=True)
class History:
    """Recorded decisions. Made by `workbench.live.reading.read_history`."""

    axes: Axes
    rows: pl.DataFrame
    """`SHOWN`, `writer`, `position`, `session` (UInt32: which one), a row a decision; some 90 bytes each."""
    keys: tuple[Key, ...]
    key: NDArray[np.int32]
    """Of each row."""
    money: NDArray[np.int64] | None
    """What each is about, in the smallest unit; None: not declared."""
    book: Book
    itself: NDArray[np.int32]
    """What the self-replay says of each row, by number in the book; quarantined where candidates cannot be asked."""
    open: NDArray[np.bool_]
    """Rows that policies may be asked about in columns."""
    left: dict[str, Rows]
    """Rows that the self-replay left to Cedar, by reason; every candidate leaves them, too."""
    own: frozenset[str]
    """Policy hashes of recorded bundles."""
    schemas: frozenset[str]
    """Texts of their schemas."""

    @property
    def height(self) -> int:
        """How many decisions there are."""
        return len(self.key)


@dataclass(slots=True)
class Recording:
    """A history, as chunk after chunk is read."""

    axes: Axes
    side: Column
    money: Column | None
    book: Book = field(default_factory=Book)
    keys: dict[Key, int] = field(default_factory=dict)
    left: dict[str, list[Rows]] = field(default_factory=dict)
    height: int = 0
    _rows: list[pl.DataFrame] = field(default_factory=list)
    _key: list[NDArray[np.int32]] = field(default_factory=list)
    _itself: list[NDArray[np.int32]] = field(default_factory=list)
    _amounts: list[NDArray[np.int64]] = field(default_factory=list)
    _open: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, records: pl.DataFrame, told: pl.DataFrame) -> Span:
        """Take in a chunk.

        Args:
            records: as read.
            told: what the self-replay says of them, a row a row.
        """
        told = self._with_said(records, told).with_columns(self.side(told).alias("side"))
        self._itself.append(_numbers(told.select(_SAID), self._number_said))
        self._key.append(_numbers(told.select(_KEY), self._number_key))
        if self.money is not None:
            self._amounts.append(self.money(told).fill_null(0).to_numpy().astype(np.int64))
        good = told["status"] == "decided"
        # Rows with an evaluation error went to Cedar for its message; columns may decide them.
        clean = told["errors"].list.len().fill_null(0) == 0
        over = good & told["handed_over"].is_not_null() & clean
        rows = told.with_row_index("at").filter(over)
        for (why,), mine in rows.partition_by("handed_over", as_dict=True).items():
            self.left.setdefault(str(why), []).append(mine["at"].to_numpy().astype(np.intp) + self.height)
        self._open.append((good & ~over).to_numpy())
        texts = pl.col(_TEXTS).cast(pl.Categorical)
        self._rows.append(told.select(*SHOWN, *_PLACE).with_columns(texts))
        span = Span(self._open[-1], self._key[-1], self.height)
        self.height += told.height
        return span

    def _with_said(self, records: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
        """With `same`; and quarantined where contexts are to be compiled again, and the record's cannot be."""
        runs = pl.col("verdict").is_in(("allow", "modify")) & pl.col("enforced_args").is_not_null()
        same = runs & pl.col("enforced_args").eq_missing(records["enforced_args"])
        told = told.with_columns(pl.col("determining").fill_null([]), same=same.fill_null(value=False))
        if self.axes.recompiler is None:
            return told
        bad = (pl.col("status") == "decided") & ~pl.col("recompilable").fill_null(value=True)
        gone = [pl.when(~bad).then(name).alias(name) for name in ("verdict", "decided_by", "reason_code")]
        return told.with_columns(
            pl.when(bad).then(pl.lit("quarantined")).otherwise("status").alias("status"),
            *gone,
            determining=pl.when(bad).then([]).otherwise("determining"),
            same=pl.col("same") & ~bad,
        )

    def _number_said(self, *values: object) -> int:
        status, verdict, by, code, determining, same = values
        return self.book.number(Said(status, verdict, by, code, tuple(determining), same))  # type: ignore[arg-type]  # a row

    def _number_key(self, *values: object) -> int:
        return self.keys.setdefault(Key(*values), len(self.keys))  # type: ignore[arg-type]  # a row

    def finish(self, own: frozenset[str], schemas: frozenset[str]) -> History:
        """All of it."""
        rows = pl.concat([_EMPTY, *self._rows], rechunk=True)
        session = pl.struct("tenant", "session_id").rank("dense").cast(pl.UInt32) - 1
        return History(
            axes=self.axes,
            rows=rows.with_columns(session=session),
            keys=tuple(self.keys),
            key=_whole(self._key, np.int32),
            money=None if self.money is None else _whole(self._amounts, np.int64),
            book=self.book,
            itself=_whole(self._itself, np.int32),
            open=_whole(self._open, np.bool_),
            left={why: np.concatenate(each) for why, each in self.left.items()},
            own=own,
            schemas=schemas,
        )


def _whole(parts: Sequence[NDArray[_Number]], dtype: type[_Number]) -> NDArray[_Number]:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _numbers(frame: pl.DataFrame, number: Callable[..., int]) -> NDArray[np.int32]:
    """Number rows, asking once for each combination of values."""
    distinct = frame.unique()
    numbers = pl.Series("number", [number(*values) for values in distinct.iter_rows()], dtype=pl.Int32)
    keys = [pl.col(name) for name in frame.columns]
    table = distinct.with_columns(numbers)
    joined = frame.join(table, on=keys, how="left", nulls_equal=True, maintain_order="left")
    found: NDArray[np.int32] = joined["number"].to_numpy()
    return found
