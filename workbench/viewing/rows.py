"""Rows for a table that shows only what is looked at.

One rule: a window's cells are written here, as short text. So a table shows numbers and hidden characters as every
other face does, and a cell of two megabytes never travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import polars as pl

from workbench.errors import ColumnUnknown
from workbench.texts import number, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["text", "code", "number", "time", "state"]
"""How a column's cells look: `text` and `code` from the left, `code` in the font of code; `number` from the right;
`time` UTC to the millisecond; `state` a verdict, an effect or a status, with its colour."""

WIDTHS: dict[Kind, int] = {"text": 150, "code": 150, "number": 90, "time": 198, "state": 110}
MAX_CELL = 160
"""Characters of a cell."""
MAX_ITEMS = 20
"""Items of a list that are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    """Of the column in `Rows.window`."""
    title: str
    kind: Kind = "text"
    width: int = 0
    """Pixels at least; 0: as `WIDTHS` has for the kind. The last column takes what is left."""
    help: str = ""
    """What the column means, shown over its title."""
    sortable: bool = True


class Rows(Protocol):
    """A long table, of which some rows are asked for at a time. Immutable: an order is another one."""

    @property
    def height(self) -> int:
        """How many rows there are."""

    @property
    def columns(self) -> Sequence[Column]:
        """What to show of each."""

    def window(self, start: int, n: int) -> pl.DataFrame:
        """Return at most `n` rows from `start` on, with the columns' names; called on the view's thread."""

    def sorted(self, column: str, *, descending: bool) -> Rows:
        """Return the same rows in the order of a column, nulls last; ties as they were."""

    def key(self, i: int) -> str:
        """Return what names the row at `i`."""

    def find(self, key: str) -> int | None:
        """Return where the row of that key is; None: not here."""


class FrameRows:
    """The rows of a frame in memory; an order costs four bytes a row, no copy.

    Args:
        frame: the rows.
        key: the column that names a row: strings, unique.
        columns: which to show; None: all, with their names as titles.
        order: places of the frame's rows that are shown, in that order; None: all as they are.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        key: str = "decision_id",
        *,
        columns: Sequence[Column] | None = None,
        order: pl.Series | None = None,
    ) -> None:
        for name in (key, *(column.name for column in columns or ())):
            if name not in frame.columns:
                raise ColumnUnknown(name, frame.columns, "the table's frame")
        self.frame = frame
        self.order = order
        self._key = key
        self._columns = tuple(columns) if columns is not None else columns_of(frame.schema)

    @property
    def height(self) -> int:
        """How many rows are shown."""
        return self.frame.height if self.order is None else self.order.len()

    @property
    def columns(self) -> Sequence[Column]:
        """What is shown of each."""
        return self._columns

    def window(self, start: int, n: int) -> pl.DataFrame:
        """Return rows of the frame. O(n)."""
        rows = self._at(start, n)
        return rows.select(column.name for column in self._columns)

    def _at(self, start: int, n: int) -> pl.DataFrame:
        return self.frame.slice(start, n) if self.order is None else self.frame[self.order.slice(start, n)]

    def sorted(self, column: str, *, descending: bool) -> FrameRows:
        """Return them in another order. O(n log n) of one column; the frame is shared."""
        by = self.frame[column] if self.order is None else self.frame[column].gather(self.order)
        if isinstance(by.dtype, pl.List):
            by = by.cast(pl.List(pl.String)).list.join(", ")
        elif by.dtype in (pl.Categorical, pl.Enum):
            by = by.cast(pl.String)  # by its text, not in the order of appearance
        place = by.to_frame("by").select(
            pl.arg_sort_by("by", descending=descending, nulls_last=True, maintain_order=True)
        )
        found = place.to_series().cast(pl.UInt32)
        order = found if self.order is None else self.order.gather(found)
        return FrameRows(self.frame, self._key, columns=self._columns, order=order)

    def key(self, i: int) -> str:
        """Return what names the row at `i`. O(1)."""
        return str(self.frame[self._key][i if self.order is None else int(self.order[i])])

    def find(self, key: str) -> int | None:
        """Return where a row is. O(n), milliseconds a million."""
        hits = (self.frame[self._key] == key).arg_true()
        if not hits.len():
            return None
        if self.order is None:
            return int(hits[0])
        places = (self.order == hits[0]).arg_true()
        return int(places[0]) if places.len() else None


def columns_of(schema: pl.Schema) -> tuple[Column, ...]:
    """Return a column for each of a schema, its look by its type."""
    return tuple(
        Column(name=name, title=name.replace("_", " "), kind=_kind(dtype)) for name, dtype in schema.items()
    )


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_numeric():
        return "number"
    return "time" if isinstance(dtype, pl.Datetime) else "text"


def written(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a window with every cell as text of at most `MAX_CELL` characters; null stays null."""
    return frame.select(_written(frame[name]) for name in frame.columns)


def _written(cells: pl.Series) -> pl.Series:
    name, dtype = cells.name, cells.dtype
    if dtype.is_numeric() or dtype == pl.Boolean:
        texts = [None if cell is None else number(cell) for cell in cells]
        return pl.Series(name, texts, pl.String)
    if isinstance(dtype, pl.Datetime):
        return (
            cells.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%d %H:%M:%S%.3f")
            if dtype.time_zone
            else (cells.dt.strftime("%Y-%m-%d %H:%M:%S%.3f"))
        )
    if isinstance(dtype, pl.List):
        head = cells.list.head(MAX_ITEMS).cast(pl.List(pl.String))
        texts_of = head.list.eval(pl.element().str.slice(0, MAX_CELL)).list.join(", ")
        cut = pl.select(pl.when(cells.list.len() > MAX_ITEMS).then(texts_of + ", …").otherwise(texts_of))
        return _visible(cut.to_series().alias(name))
    if isinstance(dtype, pl.Struct):
        return _visible(cells.struct.json_encode().alias(name))
    return _visible(cells.cast(pl.String))


def _visible(cells: pl.Series) -> pl.Series:
    short = cells.str.slice(0, MAX_CELL + 1)  # before it becomes a Python string: a cell may have megabytes
    texts = [None if cell is None else visible(shorten(cell, MAX_CELL)) for cell in short]
    return pl.Series(cells.name, texts, pl.String)
