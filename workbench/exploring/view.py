"""What the explorer draws itself: the filter with its facets, and a session on a time axis.

One rule: the browser names values by the codes it was given. A tenant's or a policy's name travels only to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from workbench.texts import count, shorten, visible
from workbench.viewing import assets
from workbench.viewing.messages import Index, Message, Name, Text
from workbench.viewing.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import polars as pl

    from workbench.exploring.filters import Filter
    from workbench.exploring.index import Bins, Facet, Found

MAX_VALUE = 120
"""Characters of a facet's value."""
MAX_MARKS = 400
"""Decisions of a session on its axis; of a longer one, those around the chosen."""


class Pick(Message, frozen=True):
    """A value of a facet was ticked or unticked."""

    facet: Name
    code: Index
    on: bool


class Look(Message, frozen=True):
    """The reader searches among the values of a facet."""

    facet: Name
    text: Text


class Find(Message, frozen=True):
    """The reader searches for a text."""

    text: Text


class Between(Message, frozen=True):
    """The reader gives a time, ISO 8601, UTC where it has no zone; empty: no end."""

    since: Text
    until: Text


class Span(Message, frozen=True):
    """The reader drew over bars, both included."""

    first: Index
    last: Index


class Clear(Message, frozen=True):
    """A facet is not to filter any more; empty: nothing is."""

    facet: Name


class FilterView(View):
    """The filter: text, time, facets with counts. What the reader asks is handed to `told`."""

    _esm = assets.esm("explore")
    accepts: ClassVar[Any] = Pick | Look | Find | Between | Span | Clear

    busy = traitlets.Unicode("").tag(sync=True)
    """What is being done; empty: nothing."""
    _facets: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _text = traitlets.Unicode("").tag(sync=True)
    _times: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _code = traitlets.Unicode("").tag(sync=True)
    _said = traitlets.Unicode("").tag(sync=True)
    _bins = traitlets.Dict().tag(sync=True)
    _is_empty = traitlets.Bool(True).tag(sync=True)

    def __init__(self, told: Callable[[Message], object]) -> None:
        self._told = told
        super().__init__(label="filter")

    def handle(self, message: Message) -> None:
        """Hand it on."""
        self._told(message)

    def show(self, chosen: Filter, found: Found, total: int) -> None:
        """Show a filter and what it leaves."""
        with self.lock, self.hold_sync():
            self._facets = [_facet(each) for each in found.facets if each.name != "kind" or each.distinct > 1]
            self._text = chosen.text
            self._times = [written(chosen.since), written(chosen.until)]
            self._code = "" if chosen.is_empty else shorten(f"lake.decisions.filter({chosen.code()})", 4000)
            self._said = f"{found.order.len():,} of {count(total, 'decision')}"
            self._bins = {} if found.bins is None else _bins(found.bins)
            self._is_empty = chosen.is_empty
            self.busy = ""


def _facet(facet: Facet) -> dict[str, Any]:
    values = [
        {
            "code": each.code,
            "text": visible(shorten(each.value, MAX_VALUE)),
            "n": each.n,
            "on": each.is_chosen,
        }
        for each in facet.values
    ]
    return {
        "name": facet.name, "title": facet.name.capitalize(), "values": values, "left_out": facet.left_out,
        "distinct": facet.distinct, "chosen": sum(each.is_chosen for each in facet.values),
    }  # fmt: skip


def written(at: datetime | None) -> str:
    """Return a moment as the view has it, to the second, UTC."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _bins(bins: Bins) -> dict[str, Any]:
    return {
        "counts": list(bins.counts),
        "start": f"{bins.start:%Y-%m-%d %H:%M}",
        "end": f"{bins.end:%Y-%m-%d %H:%M}",
        "edges": [f"{edge:%Y-%m-%d %H:%M:%S}" for edge in bins.edges()],
    }


class Choose(Message, frozen=True):
    """A decision of the session was chosen, by its place among those drawn."""

    mark: Index


class TimelineView(View):
    """The decisions of a session on a time axis; which one was chosen is handed to `told`, as its id."""

    _esm = assets.esm("timeline")
    accepts: ClassVar[Any] = Choose

    _marks: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _chosen = traitlets.Int(-1).tag(sync=True)
    _said = traitlets.Unicode("").tag(sync=True)

    def __init__(self, told: Callable[[str], object]) -> None:
        self._told = told
        self._ids: list[str] = []
        super().__init__(label="session")

    def handle(self, message: Message) -> None:
        """Hand the decision's id on."""
        if isinstance(message, Choose) and message.mark < len(self._ids):
            self._told(self._ids[message.mark])

    def show(self, session: pl.DataFrame, chosen: str) -> None:
        """Show a session: rows of `Index.session`, and the decision of it that is chosen."""
        place = int((session["decision_id"] == chosen).arg_max() or 0)
        start = max(0, min(place - MAX_MARKS // 2, session.height - MAX_MARKS))
        shown = session.slice(start, MAX_MARKS)
        row = session.row(place, named=True)
        left = session.height - shown.height
        said = f"session {row['session_id']} of {row['tenant']}: {count(session.height, 'decision')}"
        with self.lock, self.hold_sync():
            self._ids = shown["decision_id"].to_list()
            self._marks = [_mark(each) for each in shown.iter_rows(named=True)]
            self._chosen = place - start
            self._said = visible(shorten(said + (f", {left:,} of them not drawn" if left else ""), 300))


def _mark(row: Mapping[str, Any]) -> dict[str, Any]:
    at: datetime = row["decided_at"]
    kind = "" if row["kind"] == "call" else f", {row['kind']}"
    return {
        "t": at.timestamp() * 1000,
        "verdict": row["verdict"],
        "text": visible(shorten(f"step {row['step']}: {row['tool']}, {row['verdict']}{kind}", 200)),
        "at": f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}",
    }
