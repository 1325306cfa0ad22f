"""`compare_view`: a comparison in a notebook, looked at, filtered by clicks, and drilled into.

One rule: the browser names a candidate, a cell, a list or a place; what that means is looked up here, on a `Board`.

Three parts under each other: the board (headline, matrix, tools and policies, effects), the list of what is filtered,
and one decision under every version. Effects, intervals and gates are worked out in the background; counts are there
at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets
import traitlets

from workbench.comparing.board import Board
from workbench.comparing.candidates import candidates_of
from workbench.comparing.details import detail_html
from workbench.comparing.filters import Cell
from workbench.comparing.heads import head, worked_out
from workbench.progress import listening, progress
from workbench.progress_shown import told_text
from workbench.texts import count, visible
from workbench.viewing import assets
from workbench.viewing.messages import Index, Message, Name, Text
from workbench.viewing.table import TableView
from workbench.viewing.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from workbench.compare import Diff
    from workbench.comparing.candidates import Candidates
    from workbench.progress import Told
    from workbench.viewing.background import Cancelled
    from workbench.viewing.rows import FrameRows

HEIGHT = 330
"""Pixels of the list."""


class ShowCell(Message, frozen=True):
    """Asks for a cell of a candidate's matrix."""

    candidate: Index
    before: Name
    after: Name


class ShowList(Message, frozen=True):
    """Asks for one of the lists."""

    candidate: Index
    name: Name


class Narrow(Message, frozen=True):
    """Asks for one tool, policy or tenant more, or less."""

    candidate: Index
    side: Name
    place: Index


class Search(Message, frozen=True):
    """Asks for tools, policies or tenants by a part of their name."""

    side: Name
    text: Text


class About(Message, frozen=True):
    """Asks for another candidate."""

    candidate: Index


class Clear(Message, frozen=True):
    """Asks for the changed decisions."""


class BoardView(View):
    """The upper part: headline, matrices, tools and policies, effects; its buttons filter."""

    _esm = assets.esm("compare")
    accepts: ClassVar[Any] = ShowCell | ShowList | Narrow | Search | About | Clear

    _head = traitlets.Dict().tag(sync=True)
    _counts = traitlets.Dict().tag(sync=True)
    _progress = traitlets.Unicode("").tag(sync=True)

    def __init__(self, board: Board, changed: Callable[[], None]) -> None:
        self.board = board
        self._changed = changed
        super().__init__(label="comparison", _head=head(board.candidates), _counts=board.counts())
        self.worker.submit(self._work_out, slot="effects")

    def handle(self, message: Message) -> None:
        """Do what the browser asks."""
        board = self.board
        match message:
            case ShowCell(candidate=candidate, before=before, after=after):
                board.choose(candidate, Cell(before=before, after=after))
            case ShowList(candidate=candidate, name=name):
                board.choose(candidate, name)
            case Narrow(candidate=candidate, side=side, place=place):
                board.narrow(candidate, side, place)
            case Search(side=side, text=text):
                board.search(side, text)
            case About(candidate=candidate):
                board.about(candidate)
            case Clear():
                board.clear()
        self.show()

    def show(self) -> None:
        """Show the filter that the board has now, and say that it changed."""
        with self.lock:
            self.problem = ""
            self._counts = self.board.counts()
        self._changed()

    def _work_out(self, is_unwanted: Cancelled) -> None:
        with listening(self), progress(None, "effects and intervals"):
            for place, found in worked_out(self.board.candidates, is_unwanted):
                with self.lock:
                    parts = list(self._head["candidates"])
                    parts[place] = parts[place] | found
                    self._head = self._head | {"candidates": parts}

    def draw(self, told: Told) -> None:
        """Show progress of what is worked out."""
        with self.lock:
            self._progress = f"{told.text}: {told_text(told)}"

    def clear(self) -> None:
        """Show no progress any more."""
        with self.lock:
            self._progress = ""


class DetailView(View):
    """The lower part: one decision under every version."""

    _esm = assets.esm("compare-detail")
    accepts: ClassVar[Any] = About

    _html = traitlets.Unicode("").tag(sync=True)
    _decision = traitlets.Unicode("").tag(sync=True)
    _names: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _about = traitlets.Int(0).tag(sync=True)
    _is_busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        super().__init__(label="decision", _names=list(candidates.names))

    def handle(self, message: Message) -> None:
        """Do what the browser asks."""
        if isinstance(message, About) and message.candidate < len(self._names):
            self.show(self._decision or None, message.candidate)

    def show(self, decision_id: str | None, place: int) -> None:
        """Show a decision as this candidate has it, when it is worked out; None: none."""
        with self.lock:
            self._about, self._decision, self.problem = place, decision_id or "", ""
            self._is_busy = decision_id is not None
            if decision_id is None:
                self._html = ""
                self.worker.cancel()
                return
        self.worker.submit(
            lambda _: _quietly(self._candidates, place, decision_id), self._write, failed=self._fail
        )

    def _write(self, html: str) -> None:
        with self.lock, self.hold_sync():
            self._html, self._is_busy = html, False

    def _fail(self, text: str) -> None:
        with self.lock, self.hold_sync():
            self._html, self._is_busy, self.problem = "", False, text


def _quietly(candidates: Candidates, place: int, decision_id: str) -> str:
    """A decision's details; the view says itself that it waits for them."""
    with progress(None, "one decision", lambda _: None):
        return detail_html(candidates, place, decision_id)


class CompareView(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Versions side by side. Made by `compare_view`."""

    selected = traitlets.Unicode(None, allow_none=True)
    """The decision that is shown in full: its id; None: none. May be set."""

    def __init__(self, candidates: Candidates) -> None:
        self.board = Board(candidates)
        """What is filtered and counted."""
        rows = self.board.rows()  # what takes long first: an interrupt leaves no half-made view
        self._board_view = BoardView(self.board, self._list)
        self._table = TableView(rows, label=self._label, height=HEIGHT)
        self._table.sort("decided_at")  # several writers' logs are one after the other in the comparison
        self._detail = DetailView(candidates)
        self._told: tuple[str | None, int] = (None, 0)
        super().__init__([self._board_view, self._table, self._detail])
        traitlets.link((self._table, "selected"), (self, "selected"))
        self.observe(self._show_detail, "selected")

    @property
    def diffs(self) -> tuple[Diff, ...]:
        """What is compared: one for each candidate."""
        return self.board.candidates.diffs

    @property
    def diff(self) -> Diff:
        """The comparison that the filter is about."""
        return self.board.diff

    @property
    def frame(self) -> pl.LazyFrame:
        """All decisions, one row each: `diff.frame`; of several candidates also `to_1`, `to_2`, …: what each says."""
        return self.board.frame

    @property
    def where(self) -> pl.Expr:
        """What is filtered, over the columns of `frame`; `code` has it in Python."""
        return self.board.where

    @property
    def code(self) -> str:
        """What is filtered, as a Polars expression that can be pasted."""
        return self.board.code

    @property
    def selection(self) -> pl.LazyFrame:
        """The decisions that are listed, one row each, in the log's order.

        Columns of `frame`, and as in `diff.changed`: `resource`, `args`, `enforced_args`, `reason`, `errors`.
        """
        return self.board.selection

    def show(
        self,
        what: str | tuple[str, str] = "changed",
        *,
        tool: str | None = None,
        policy: str | None = None,
        tenant: str | None = None,
        candidate: int = 0,
    ) -> None:
        """List other decisions, as clicks do.

        Args:
            what: name of a list (`changed`, `unresolved`, `all`, `honest_disturbed`, …), or a cell of the matrix:
                what base and candidate say, `("allow", "block")`.
            tool: only of this tool; None: of all.
            policy: only those that came out by this policy; None: by any.
            tenant: only of this tenant; None: of all.
            candidate: which one it is about, from 0.

        Raises:
            FilterUnknown: there is no such list, state, tool, policy, tenant or candidate; names the closest.
        """
        board = self.board
        with self._board_view.lock:
            named = (("tool", tool), ("policy", policy), ("tenant", tenant))
            keys = tuple(board.key(side, name) for side, name in named if name is not None)
            board.show(
                candidate, Cell(before=what[0], after=what[1]) if isinstance(what, tuple) else what, keys
            )
        self._board_view.show()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all is worked out and shown; None: as long as it takes. Returns whether it is."""
        return all(each.worker.wait(seconds) for each in (self._board_view, self._table, self._detail))

    def close(self) -> None:
        """Take the view out of the notebook and stop its work."""
        parts = (self._board_view, self._table, self._detail)
        for each in parts:
            each.close()
        super().close()
        for each in (*parts, self):
            each.layout.close()  # a model of its own, which ipywidgets leaves behind

    @property
    def _label(self) -> str:
        board = self.board
        name = f" · {board.candidates.names[board.filter.candidate]}" if board.candidates.several else ""
        return visible(f"{board.filter.title}{name}")

    def _list(self) -> None:
        """List what is filtered now, in the background; and the decision as the candidate has it."""
        board, given = self.board, self.board.filter

        def show(rows: FrameRows) -> None:
            with self._table.lock:
                self._table.label = self._label
                self._table.rows = rows
                self._table.is_stale = False

        self._table.is_stale = True
        self._table.worker.submit(lambda _: board.rows(given), show, slot="rows")
        self._show_detail(None)

    def _show_detail(self, _change: object) -> None:
        told = (self.selected, self.board.filter.candidate)
        if told != self._told:
            self._told = told
            self._detail.show(*told)

    def __repr__(self) -> str:
        board = self.board
        names = ", ".join(board.candidates.names)
        shown = count(self._table.rows.height, "decision")
        return f"<CompareView {board.candidates.base} → {names}: {shown} listed ({self._label})>"


def compare_view(diff: Diff, *others: Diff) -> CompareView:
    """Look at a comparison, or at several of one base side by side.

    Args:
        diff: made by `wb.compare`.
        *others: of other candidates with the same base; each is a column.

    Returns:
        The widget. What it lists is `view.selection`, a LazyFrame; the decision it shows is `view.selected`.

    Raises:
        NotComparable: they have other decisions, or another base.
        ViewNotBuilt: the browser modules are missing.

    Cost: collects the comparisons, O(decisions), and counts them once; effects come in the background.
    """
    return CompareView(candidates_of((diff, *others)))
