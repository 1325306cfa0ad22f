"""A table of any length: only the rows that are seen travel, as Arrow.

One rule: the browser holds a window of one version of the rows. Rows, columns or order change the version; a window
that was asked for under another one is answered by nobody, and the browser asks again.

```python
table = TableView(FrameRows(frame), label="newly blocked")
table.observe(lambda change: show(change.new), "selected")
table.rows = FrameRows(other)        # another selection; the order chosen by the reader stays, where it can
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import traitlets

from workbench.texts import count, visible
from workbench.viewing import assets
from workbench.viewing.messages import Index, Message, Name
from workbench.viewing.rows import WIDTHS, Column, Rows, written
from workbench.viewing.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.viewing.background import Cancelled

MAX_WINDOW = 500
"""Rows of one answer."""


class Window(Message, frozen=True):
    """Asks for rows."""

    id: Name
    version: Index
    start: Index
    n: Index


class Sort(Message, frozen=True):
    """Asks for another order; an empty column for the first one."""

    column: Name
    descending: bool


class Select(Message, frozen=True):
    """Says that a row was chosen."""

    version: Index
    row: Index


class TableView(View):
    """A table in a notebook over `Rows`.

    Args:
        rows: what to show.
        label: what the rows are, for who cannot see it, and said above the table.
        height: pixels of the whole; fixed, so nothing jumps.
        columns: which of the rows' columns to show, in this order; None: all.
        order: column and direction (True: descending) that rows are given in, to be marked in its head; None: none.

    Raises:
        ViewNotBuilt: the browser module is missing.
    """

    _esm = assets.esm("table")
    accepts: ClassVar[Any] = Window | Sort | Select

    selected = traitlets.Unicode(None, allow_none=True)
    """Key of the chosen row; None: none. May be set: the table scrolls there. Observed on the thread that chose."""
    is_stale = traitlets.Bool(False).tag(sync=True)
    """Shown paler: newer rows are on their way. Setting `rows` ends it."""

    _height = traitlets.Int().tag(sync=True)
    _columns: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _sort = traitlets.Dict().tag(sync=True)
    _total = traitlets.Int(0).tag(sync=True)
    _version = traitlets.Int(0).tag(sync=True)
    _row = traitlets.Int(-1).tag(sync=True)

    def __init__(
        self,
        rows: Rows,
        *,
        label: str,
        height: int = 360,
        columns: Sequence[Column] | None = None,
        order: tuple[str, bool] | None = None,
    ) -> None:
        self._by: tuple[str, bool] | None = None
        self._as_given = order
        self._given = rows
        self._shown = rows
        self._picked = None if columns is None else tuple(columns)
        super().__init__(label=label, _height=height)
        self._show(rows)
        self.observe(self._on_selected, "selected")

    @property
    def rows(self) -> Rows:
        """The rows as they were given; setting them keeps the reader's order and choice, where they still apply."""
        return self._given

    @rows.setter
    def rows(self, rows: Rows) -> None:
        with self.lock:
            self._given = rows
            if self._by is None or not _sortable(rows, self._by[0]):
                self._show(rows)
            else:
                self._sort_in_background(*self._by)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is shown."""
        return tuple(self._picked if self._picked is not None else self._given.columns)

    @property
    def order(self) -> tuple[str, bool] | None:
        """Column and direction (True: descending) that the reader sorts by; None: as the rows came."""
        return self._by

    def sort(self, column: str | None, *, descending: bool = False) -> None:
        """Order the rows by a column, in the background; None: as they came."""
        with self.lock:
            if column is None:
                self._by = None
                self.worker.cancel("sort")
                self._show(self._given)
            elif not _sortable(self._given, column):
                known = ", ".join(each.name for each in self._given.columns if each.sortable)
                self.problem = f"the rows cannot be ordered by {visible(column)!r:.80}; they can by {known}"
            else:
                self._sort_in_background(column, descending)

    def _sort_in_background(self, column: str, descending: bool) -> None:  # noqa: FBT001 - of `order`
        rows = self._given

        def show(found: Rows) -> None:
            with self.lock:
                if rows is self._given:
                    self._by = (column, descending)
                    self._show(found)

        self.is_stale = True
        self.worker.submit(lambda _: rows.sorted(column, descending=descending), show, slot="sort")

    def _show(self, rows: Rows) -> None:
        """Make these the rows of a new version."""
        self._shown = rows
        row = None if self.selected is None else rows.find(self.selected)
        with self.hold_sync():
            self._columns = [_described(column) for column in self.columns]
            order = self._by or self._as_given
            self._sort = {} if order is None else dict(zip(("column", "descending"), order, strict=True))
            self._total = rows.height
            self._row = -1 if row is None else row
            self._version += 1
            self.is_stale = False

    def handle(self, message: Message) -> None:
        """Do what the browser asks."""
        match message:
            case Window():
                self._send_window(message)
            case Sort(column=column, descending=descending):
                self.sort(column or None, descending=descending)
            case Select(version=version, row=row) if version == self._version and row < self._shown.height:
                self.problem = ""
                self.selected = self._shown.key(row)

    def _send_window(self, asked: Window) -> None:
        """Answer for the newest window that was asked for, if it is of what is shown."""
        if asked.version != self._version:
            return
        rows, names = self._shown, [column.name for column in self.columns]

        def read(_: Cancelled) -> bytes:
            found = rows.window(asked.start, min(asked.n, MAX_WINDOW))
            return arrow(written(found.select(names)))

        def send(found: bytes) -> None:
            if asked.version == self._version:
                self.send(_answer("rows", asked), buffers=[found])

        def fail(text: str) -> None:
            self.send(_answer("failed", asked))
            self.show_problem(text)

        # Each view of this widget in the notebook has a window of its own: "view:number".
        self.worker.submit(read, send, slot=f"window {asked.id.partition(':')[0]}", failed=fail)

    def _on_selected(self, change: Any) -> None:
        with self.lock:
            row = None if change.new is None else self._shown.find(change.new)
            self._row = -1 if row is None else row

    def __repr__(self) -> str:
        return f"{self.label}: {count(self._given.height, 'row')}"


def arrow(frame: pl.DataFrame) -> bytes:
    """Return a frame as an Arrow IPC stream that any reader takes."""
    stream = frame.write_ipc_stream(None, compat_level=pl.CompatLevel.oldest())
    return stream.getvalue()


def _answer(kind: str, asked: Window) -> dict[str, object]:
    return {"type": kind, "id": asked.id, "version": asked.version, "start": asked.start}


def _sortable(rows: Rows, name: str) -> bool:
    return any(column.name == name and column.sortable for column in rows.columns)


def _described(column: Column) -> dict[str, object]:
    return {
        "name": column.name, "title": visible(column.title), "kind": column.kind, "help": visible(column.help),
        "width": column.width or WIDTHS[column.kind], "sortable": column.sortable,
    }  # fmt: skip
