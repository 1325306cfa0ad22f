"""A comparison as it is looked at: what is filtered, what is counted beside it, and what comes back to Python.

One rule: the board knows nothing of browsers and threads. It takes choices by name and gives plain values, so that
everything a view shows can be tested without one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.comparing import cube
from workbench.comparing.conditions import BLAMED, code_of, expr_of
from workbench.comparing.filters import ALWAYS, FACETS, LISTS, Cell, Filter, differing, side_of
from workbench.errors import FilterUnknown
from workbench.masking import leaving
from workbench.metrics import STATES
from workbench.texts import shorten, visible
from workbench.viewing.rows import Column, FrameRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.compare import Diff
    from workbench.comparing.candidates import Candidates
    from workbench.comparing.filters import Key, Listed, Side

MOST_KEYS = 12
"""Tools, policies or tenants shown at a time; a search finds the others."""
MAX_TITLE = 120
"""Characters of one of their names."""
MAX_CODE = 2_000
"""Characters of a filter, written in Python."""


class Board:
    """What is shown of candidates, and how many decisions each choice would show.

    Args:
        candidates: what is compared; counted once, here, O(decisions).
    """

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.filter = Filter()
        self.searches: dict[Side, str] = dict.fromkeys(FACETS, "")
        """What names have to contain to be shown, by side."""
        self._cubes = candidates.cubes
        differ = (differing(candidates.answers),) if candidates.several else ()
        self.lists: tuple[Listed, ...] = tuple(
            each for each in (LISTS[0], *differ, *LISTS[1:]) if each.name in ALWAYS or self._occurs(each)
        )
        self.keys: dict[Side, tuple[Key, ...]] = {side: self._all_keys(side) for side in FACETS}
        """Every tool, policy and tenant; a place in it is what a browser says."""
        self._grids = [cube.matrix(each, ()) for each in self._cubes]

    def _occurs(self, listed: Listed) -> bool:
        return listed.name == "differ" or any(cube.total(each, listed.conditions) for each in self._cubes)

    def _all_keys(self, side: Side) -> tuple[Key, ...]:
        found = {key for each in self._cubes for key in cube.by(each, side, ())}
        return tuple(sorted(found, key=lambda key: (key.value is None, key.value or "", key.looser)))

    @property
    def diff(self) -> Diff:
        """The comparison with the candidate that the filter is about."""
        return self.candidates.diffs[self.filter.candidate]

    @property
    def where(self) -> pl.Expr:
        """The filter, over the columns of `frame`."""
        return expr_of(self.filter.conditions())

    @property
    def code(self) -> str:
        """The filter in Python."""
        return code_of(self.filter.conditions())

    @property
    def frame(self) -> pl.LazyFrame:
        """All decisions, as compared with the candidate that the filter is about."""
        return self.candidates.frame(self.filter.candidate)

    @property
    def selection(self) -> pl.LazyFrame:
        """The decisions that are listed, with arguments and reasons."""
        return self.candidates.rows(self.filter.candidate, self.where)

    def rows(self, given: Filter | None = None) -> FrameRows:
        """Return the decisions that a filter lists (None: the one in force), for a table: narrow, in memory."""
        given = given or self.filter
        shown = self.columns
        by = BLAMED.alias("by")
        asked = (
            self.candidates.frame(given.candidate)
            .filter(expr_of(given.conditions()))
            .select(
                "decision_id", *(by if column.name == "by" else pl.col(column.name) for column in shown[:-1])
            )
        )
        return FrameRows(leaving(asked.collect()), columns=shown)

    def show(self, candidate: int, what: Cell | str, keys: tuple[Key, ...]) -> None:
        """Show a cell or a list of a candidate, narrowed to these keys alone.

        Raises:
            FilterUnknown: there is no such candidate, cell or list.
        """
        self._require_candidate(candidate)
        self.filter = Filter(candidate=candidate, what=self._found(what), keys=keys)

    def key(self, side: str, name: str) -> Key:
        """Return a tool, policy or tenant by its name.

        Raises:
            FilterUnknown: no decision has it; names the closest.
        """
        keys = self.keys[side_of(side)]
        for each in keys:
            if name == each.value:
                return each
        known = [each.value for each in keys if each.value is not None]
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean `{visible(close[0])}`?" if close else f"there are {len(known):,}"
        raise FilterUnknown(f"no decision of this comparison has the {side} {visible(name)!r:.80}; {hint}")

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the list shows of a decision."""
        several = self.candidates.several
        says = zip(self.candidates.answers, self.candidates.names if several else ("now",), strict=True)
        base = self.candidates.base if several else "then"
        return (
            Column(name="decided_at", title="time", kind="time", width=192),
            Column(name="tool", title="tool", kind="code", width=170),
            Column(name="from", title=base, kind="state", help="What the base says"),
            *(
                Column(
                    name=name, title=shorten(visible(title), 40), kind="state", help="What the candidate says"
                )
                for name, title in says
            ),
            Column(
                name="effect", title="effect", kind="state", help="What ran then, against what would run now"
            ),
            Column(name="by", title="by", kind="code", width=200, help=_BY),
            Column(name="side", title="whose", width=90, help="By the label `origin`"),
            Column(name="tenant", title="tenant", width=110),
            Column(name="principal", title="principal", width=160),
            Column(name="session_id", title="session", kind="code", width=160),
            Column(name="cause", title="cause", width=120, help="Why it could not be replayed"),
            Column(name="decision_id", title="decision", kind="code", width=250),
        )

    def choose(self, candidate: int, what: Cell | str) -> None:
        """Show a cell of a candidate's matrix, or one of the lists; again: the changed decisions.

        Raises:
            FilterUnknown: there is no such candidate, cell or list.
        """
        self._require_candidate(candidate)
        chosen = self._found(what)
        was = self.filter.candidate == candidate and self.filter.what == chosen
        self.filter = replace(self.filter, candidate=candidate, what=self.lists[0] if was else chosen)

    def narrow(self, candidate: int, side: str, place: int) -> None:
        """Narrow to a tool, policy or tenant, by its place in `keys`; again: no more.

        Raises:
            FilterUnknown: there is no such candidate or key.
        """
        self._require_candidate(candidate)
        keys = self.keys[side_of(side)]
        if not 0 <= place < len(keys):
            raise FilterUnknown(f"there is no {side} number {place}; they are 0 to {len(keys) - 1}")
        key = keys[place]
        if self.filter.candidate != candidate and key in self.filter.keys:  # the same of another candidate
            self.filter = replace(self.filter, candidate=candidate)
        else:
            self.filter = replace(self.filter.toggled(key), candidate=candidate)

    def about(self, candidate: int) -> None:
        """Make the filter about a candidate.

        Raises:
            FilterUnknown: there is no such candidate.
        """
        self._require_candidate(candidate)
        self.filter = replace(self.filter, candidate=candidate)

    def clear(self) -> None:
        """Show the changed decisions, of all tools, policies and tenants."""
        self.filter = Filter(candidate=self.filter.candidate)
        self.searches = dict.fromkeys(FACETS, "")

    def search(self, side: str, text: str) -> None:
        """Show the tools, policies or tenants whose names contain a text, in whatever case."""
        self.searches[side_of(side)] = text

    def _require_candidate(self, candidate: int) -> None:
        if not 0 <= candidate < len(self.candidates.diffs):
            known = len(self.candidates.diffs)
            raise FilterUnknown(f"there is no candidate number {candidate}; they are 0 to {known - 1}")

    def _found(self, what: Cell | str) -> Cell | Listed:
        return _known(what) if isinstance(what, Cell) else self._list(what)

    def _list(self, name: str) -> Listed:
        for each in self.lists:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.lists)
        raise FilterUnknown(f"there is no list {visible(name)!r:.80}; the lists are {known}")

    def counts(self) -> dict[str, Any]:
        """Return all that depends on the filter, as JSON: lists, matrices, tools and so on, what is shown."""
        given = self.filter
        narrowed = given.conditions(what=False)
        shown = cube.total(self._cubes[given.candidate], given.conditions())
        return {
            "focus": given.candidate,
            "lists": self._list_counts(narrowed),
            "matrices": [self._matrix(place) for place in range(len(self._cubes))],
            "facets": [self._facet(side) for side in FACETS],
            "shown": {
                "n": shown,
                "of": int(self._cubes[given.candidate]["n"].sum()),
                "title": visible(given.what.title),
                "help": getattr(given.what, "help", "Decisions of this cell of the matrix."),
                "keys": [
                    {"side": key.side, "place": self.keys[key.side].index(key), "title": _title(key)}
                    for key in given.keys
                ],
                "code": visible(shorten(self.code, MAX_CODE)),
            },
        }

    def _list_counts(self, narrowed: Any) -> list[dict[str, Any]]:
        counted = [cube.totals(each, self.lists, narrowed) for each in self._cubes]
        return [
            {"name": each.name, "title": each.title, "help": each.help, "hue": each.hue,
             "counts": [counts[place] for counts in counted], "chosen": self.filter.what == each}
            for place, each in enumerate(self.lists)
        ]  # fmt: skip

    def _matrix(self, place: int) -> dict[str, Any]:
        """A candidate's matrix: of the decisions that are narrowed to, with the rows of all."""
        cells = cube.matrix(self._cubes[place], self.filter.conditions(what=False))
        most = max(cells.values(), default=0)
        before = [state for state in STATES if any((state, after) in self._grids[place] for after in STATES)]
        is_about = place == self.filter.candidate
        rows = [
            {
                "state": state,
                "cells": [
                    _cell(Cell(before=state, after=after), cells, most) for after in self.candidates.states
                ],
                "total": sum(n for (start, _), n in cells.items() if start == state),
            }
            for state in before
        ]
        what = self.filter.what
        chosen = [what.before, what.after] if is_about and isinstance(what, Cell) else None
        return {"rows": rows, "total": sum(cells.values()), "chosen": chosen}

    def _facet(self, side: Side) -> dict[str, Any]:
        """A side's keys with most decisions, and how many more there are."""
        conditions = self.filter.conditions(without=side)
        counted = [cube.by(each, side, conditions) for each in self._cubes]
        keys, about, chosen = self.keys[side], self.filter.candidate, self.filter.keys
        asked = self.searches[side].casefold()
        if asked:
            places = [place for place, key in enumerate(keys) if asked in key.title.casefold()]
        else:
            occur = {*chosen}.union(*counted)
            places = [place for place, key in enumerate(keys) if key in occur]

        def order(place: int) -> tuple[bool, int, int]:
            key = keys[place]
            return (
                key not in self.filter.keys,
                -counted[about].get(key, 0),
                -sum(each.get(key, 0) for each in counted),
            )

        shown = sorted(places, key=order)[:MOST_KEYS]
        return {
            "side": side,
            "search": self.searches[side],
            "known": len(keys),
            "left": len(places) - len(shown),
            "rows": [
                {"place": place, "title": _title(keys[place]), "chosen": keys[place] in chosen,
                 "counts": [each.get(keys[place], 0) for each in counted]}
                for place in shown
            ],
        }  # fmt: skip


_BY = "Policies it came out by: the candidate's; of what is looser than before, those that had held it up"


def _known(cell: Cell) -> Cell:
    for state in (cell.before, cell.after):
        if state not in STATES:
            raise FilterUnknown(f"no replay says {visible(state)!r:.80}; the matrix has {', '.join(STATES)}")
    return cell


def _title(key: Key) -> str:
    return visible(shorten(key.title, MAX_TITLE))


def _cell(cell: Cell, cells: Mapping[tuple[str, str], int], most: int) -> dict[str, Any]:
    """A cell: how many, its hue, and how strong; the scale is a square root, so that rare changes show."""
    n = cells.get((cell.before, cell.after), 0)
    way = STATES.index(cell.after) - STATES.index(cell.before)
    hue = "tight" if way > 0 else "loose" if way < 0 else "same"
    doubt = {cell.before, cell.after} & {"undecided", "quarantined"}
    strength = round(12 + 46 * math.sqrt(n / most)) if most else 0
    return {"after": cell.after, "n": n, "hue": "doubt" if doubt else hue, "strength": strength}
