"""The explorer: a lake's decisions to look through; what is filtered and chosen comes back as Python values.

One rule: what the view shows and what `selection` gives are the same rows. Both follow from one `Filter`.

```python
explorer = wb.explore(lake)        # shows itself
explorer.set(verdict="block", text="refund")
explorer.selection                 # a LazyFrame: lake.decisions, filtered as the view is
explorer.code                      # the filter as Python, to paste
explorer.decision                  # the chosen decision in full
```

Trade-off accepted: the narrow columns are read once, when the explorer is made; a lake that grows is opened again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import ipywidgets

from workbench.errors import ValueUnknown
from workbench.exploring.filters import FACETS, FacetName, Filter
from workbench.exploring.hits import Hits
from workbench.exploring.index import Found, Index, read
from workbench.exploring.rows import IndexRows
from workbench.exploring.view import Between, Clear, FilterView, Find, Look, Pick, Span, TimelineView, written
from workbench.progress import progress
from workbench.texts import count, visible
from workbench.tracking import shown
from workbench.viewing.fragment import FragmentView
from workbench.viewing.table import TableView

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from workbench.lake import Lake
    from workbench.viewing.background import Cancelled
    from workbench.viewing.decision import Decision
    from workbench.viewing.messages import Message

MAX_NAMED = 8
"""Values named where another was asked for."""
STEP = 0.05
"""Of a search, the part after which its progress is told again."""


def explore(lake: Lake, where: pl.Expr | None = None) -> Explorer:
    """Look through a lake's decisions.

    Args:
        lake: an opened lake.
        where: which decisions, a condition over `lake.decisions`; None: all.

    Raises:
        ViewNotBuilt: a browser module is missing.

    Cost: reads fourteen narrow columns and keeps them, about 110 bytes a decision; two seconds a million.
    """
    with progress(1, "reading the decisions", unit="pass") as advance:
        index = read(lake, where)
        advance(1)
    return Explorer(lake, index, where)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """A lake's decisions in a notebook; made by `explore`.

    What is asked in the notebook is done in the background; `wait()` waits until the view shows it.
    """

    def __init__(self, lake: Lake, index: Index, where: pl.Expr | None = None) -> None:
        self.lake = lake
        self.index = index
        self._within = where
        self._lock = threading.RLock()
        self._filter = Filter()
        self._looked: dict[FacetName, str] = {}
        self._hits = Hits(lake, index)
        self._found: Found = index.find(self._filter, None, {})
        self.board = FilterView(self._on_message)
        self.table = TableView(
            IndexRows(lake, index), label="decisions", height=336, order=("decided_at", False)
        )
        self.timeline = TimelineView(self._choose)
        self.detail = FragmentView(
            label="decision", placeholder="Choose a decision: Enter or a click shows it in full."
        )
        self.board.show(self._filter, self._found, index.frame.height)
        self.table.observe(self._on_selected, "selected")
        # The first decision is decided again by modules that take a second to load: while the reader looks.
        self.detail.worker.submit(lambda _: import_module("workbench.viewing.decision"), slot="load")
        super().__init__([self.board, self.table, self.timeline, self.detail])
        self.layout.grid_gap = "6px"

    @property
    def filter(self) -> Filter:
        """What is filtered now."""
        return self._filter

    @property
    def where(self) -> pl.Expr:
        """The filter as a condition over `lake.decisions`, with the one that the explorer was made with."""
        own = self._filter.expr()
        return own if self._within is None else self._within & own

    @property
    def code(self) -> str:
        """The filter as Python to paste; `pl` is Polars, `datetime` and `UTC` come from `datetime`."""
        return self._filter.code()

    @property
    def selection(self) -> pl.LazyFrame:
        """The decisions that are filtered: rows of `lake.decisions`, all columns, lazy."""
        return self.lake.decisions.filter(self.where)

    @property
    def selected(self) -> str | None:
        """The id of the chosen decision; None: none is. May be set."""
        key: str | None = self.table.selected
        return key

    @selected.setter
    def selected(self, decision_id: str | None) -> None:
        self.table.selected = decision_id

    @property
    def decision(self) -> Decision | None:
        """The chosen decision in full; None: none is chosen."""
        from workbench.viewing.decision import decision  # noqa: PLC0415 - it decides, which a filter need not load

        return None if self.selected is None else decision(self.lake, self.selected)

    def set(self, **parts: Any) -> None:
        """Change parts of the filter; the others stay.

        Args:
            **parts: of `Filter`, by name. Of a facet one value or several; `since` and `until` a datetime (without a
                zone: UTC) or a text in ISO 8601; None or empty: not filtered by it.

        Raises:
            ValueUnknown: there is no such part, no decision has that value, or it is no time; names the closest.
        """
        known: dict[str, Any] = {name: self._known(name, value) for name, value in parts.items()}
        self._change(replace(self._filter, **known))

    def _known(self, name: str, value: object) -> object:
        match name:
            case "text":
                return str(value or "")
            case "since" | "until":
                return _moment(value, is_end=name == "until")
            case _ if name in FACETS:
                return self._values(name, value)
        close = get_close_matches(name, [*FACETS, "since", "until", "text"], n=1)
        hint = (
            f"did you mean `{close[0]}`?" if close else f"parts are {', '.join(FACETS)}, since, until, text"
        )
        raise ValueUnknown(f"a filter has no part `{name}`; {hint}")

    def _values(self, name: FacetName, given: object) -> tuple[str, ...]:
        values = () if not given else (given,) if isinstance(given, str) else tuple(_iterable(given))
        there = set(self.index.names[name]["value"])
        for value in values:
            if value not in there:
                close = get_close_matches(str(value), there, n=1)
                hint = f"did you mean {close[0]!r}?" if close else _some(sorted(map(str, there)))
                raise ValueUnknown(f"no decision here has {name} {value!r:.80}; {hint}")
        return tuple(map(str, values))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the view shows what was asked; None: as long as it takes. Returns whether it does."""
        return self.board.worker.wait(seconds) and self.table.worker.wait(seconds)

    def close(self) -> None:
        """Stop the work, take the view out of the notebook and let go of the columns."""
        for view in (self.board, self.table, self.timeline, self.detail):
            view.close()
        self.layout.close()
        super().close()

    def __repr__(self) -> str:
        total = count(self.index.frame.height, "decision")
        return f"Explorer of {visible(shown(self.lake.uri))}: {self._found.order.len():,} of {total}"

    def _on_message(self, message: Message) -> None:
        now = self._filter
        match message:
            case Pick(facet=facet, code=code, on=on) if facet in FACETS:
                self._pick(facet, code, on=on)
            case Look(facet=facet, text=text) if facet in FACETS:
                self._looked[facet] = text
                self._change(now)
            case Find(text=text):
                self._change(replace(now, text=text))
            case Between(since=since, until=until):
                self._change(
                    replace(now, since=_read(since, now.since), until=_read(until, now.until, is_end=True))
                )
            case Span(first=first, last=last) if self._found.bins is not None:
                edges = self._found.bins.edges()
                first, last = min(first, len(edges) - 2), min(last, len(edges) - 2)
                end = edges[last + 1] - timedelta(microseconds=1)
                self._change(replace(now, since=edges[first], until=end))
            case Clear(facet=""):
                self._looked.clear()
                self._change(Filter())
            case Clear(facet=facet) if facet in FACETS:
                self._looked.pop(facet, None)
                self._change(now.having(facet, ()))

    def _pick(self, facet: FacetName, code: int, *, on: bool) -> None:
        value = self.index.value(facet, code)
        if value is not None:
            others = tuple(each for each in self._filter.chosen(facet) if each != value)
            self._change(self._filter.having(facet, (*others, value) if on else others))

    def _change(self, chosen: Filter) -> None:
        """Filter in the background; what is shown stays, paler, until then."""
        with self._lock:
            self._filter = chosen
            looked = dict(self._looked)
            self.table.is_stale = True
        self.board.show_problem("")  # of what was asked before; one that comes later outlives this answer

        def find(cancelled: Cancelled) -> Found | None:
            hits = self._hits.search(chosen.text, cancelled, self._progress()) if chosen.text else None
            return None if cancelled() else self.index.find(chosen, hits, looked)

        self.board.worker.submit(
            find, lambda found: self._show(chosen, found), slot="filter", failed=self._failed
        )

    def _progress(self) -> Any:
        told = 0.0

        def tell(part: float) -> None:
            nonlocal told
            if part - told >= STEP:
                told = part
                self.board.busy = f"searching the arguments: {part:.0%}"

        return tell

    def _show(self, chosen: Filter, found: Found | None) -> None:
        with self._lock:
            if found is None or chosen is not self._filter:
                return
            self._found = found
            self.board.show(chosen, found, self.index.frame.height)
            self.table.rows = IndexRows(self.lake, self.index, found.order)

    def _failed(self, text: str) -> None:
        self.board.busy = ""
        self.board.show_problem(text)
        self.table.is_stale = False

    def _choose(self, decision_id: str) -> None:
        self.table.selected = decision_id

    def _on_selected(self, change: Any) -> None:
        key = change.new
        if key is None:
            self.detail.show("")
            return
        self.detail.is_stale = True
        work = self.detail.worker.submit
        work(lambda _: self.index.session(key), lambda session: self._follow(key, session), slot="session")
        work(
            lambda _: self._html(key),
            lambda html: self._read(key, html),
            slot="decision",
            failed=self._unread,
        )

    def _unread(self, text: str) -> None:
        self.detail.show("")
        self.detail.show_problem(text)

    def _follow(self, key: str, session: pl.DataFrame) -> None:
        if session.height:
            self.timeline.show(session, key)

    def _html(self, key: str) -> str:
        from workbench.viewing.decision import decision_html  # noqa: PLC0415 - it decides; a filter need not load it

        return decision_html(self.lake, key)

    def _read(self, key: str, html: str) -> None:
        with self._lock:
            if key == self.selected:
                self.detail.problem = ""
                self.detail.show(html)


def _read(given: str, now: datetime | None, *, is_end: bool = False) -> datetime | None:
    """Read a time that came back from the view; the one it was given comes back cut to the second."""
    return now if given == written(now) else _moment(given, is_end=is_end)


def _moment(given: object, *, is_end: bool = False) -> datetime | None:
    """Read a time; a date alone is its first moment, or its last one."""
    if given is None or given == "":
        return None
    try:
        at = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise ValueUnknown(
            f"no time can be read from {str(given)!r:.80}; write `2026-09-01` or `2026-09-01 14:30`"
        ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    is_date = not isinstance(given, datetime) and len(str(given)) == len("2026-09-01")
    return at + timedelta(days=1, microseconds=-1) if is_date and is_end else at


def _iterable(given: object) -> Iterable[object]:
    return given if isinstance(given, Iterable) else (given,)


def _some(values: Sequence[str]) -> str:
    """Say which values there are, the first of many."""
    said = ", ".join(repr(value) for value in values[:MAX_NAMED])
    more = len(values) - MAX_NAMED
    return f"there are {said} and {more:,} more" if more > 0 else f"there is {said or 'none'}"
