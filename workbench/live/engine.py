"""A history that answers while its policies are edited.

One rule: an answer is what `lake.replay` of the edited bundle would say, decision by decision; what is not known yet
is said to be left. An edit costs what it changes: policies are evaluated one by one and kept.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from runtime.schema import SCHEMA_FILE
from workbench.asked import asked_of
from workbench.diff_rows import JOINED, labels_of
from workbench.errors import AxisInvalid
from workbench.history.records import Records
from workbench.live.answer import answer_of
from workbench.live.axes import Axes
from workbench.live.edit import Asked, Edit, Memory
from workbench.live.folding import counted
from workbench.live.left import ByCedar
from workbench.live.reading import read_history, retyped
from workbench.progress import progress
from workbench.weighing.labels import labelled
from workbench.weighing.money import amount
from workbench.weighing.stakes import Stakes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from workbench.lake import Lake
    from workbench.live.answer import Answer
    from workbench.live.folding import Piece
    from workbench.live.history import Column, History
    from workbench.live.parts import LivePart
    from workbench.live.reading import Typed

    Given = str | PathLike[str] | Bundle
    Cancelled = Callable[[], bool]

KEEP = 512 << 20
"""Bytes of what was evaluated that are kept for the next edit, unless more are given."""
BY_CEDAR = 2_000
"""Decisions that Cedar is asked about within an edit: a tenth of a second."""
_TYPED = 2
"""Schemas that a history is kept typed by."""


def never() -> bool:
    """Not cancelled."""
    return False


@dataclass(eq=False, repr=False, slots=True)
class Live:
    """A history, prepared. Made by `prepare`; it decides one bundle at a time, whatever thread asks."""

    history: History
    """The decisions, and what is known of each."""
    by_cedar: int
    """Decisions that Cedar is asked about within an edit; where there are more, all are left until `complete`."""
    _typed: dict[str, Typed]
    """By the schema's text, the last one used last."""
    _memory: Memory
    _cedar: ByCedar
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _baseline: Answer | None = None

    @property
    def baseline(self) -> Answer:
        """What edits are compared with: the bundle that was given, or the recorded policies."""
        if self._baseline is None:
            self._baseline = _recorded(self.history)
        return self._baseline

    def decide(self, bundle: Bundle, *, cancelled: Cancelled = never) -> Answer | None:
        """Decide the history by a bundle; None: cancelled.

        Args:
            bundle: policies and schema; contexts and limits stay what they are.
            cancelled: asked between parts; true gives the work up, and keeps what was evaluated so far.

        Raises:
            ContextSpecError: contexts are compiled by a spec that does not fit the bundle's schema.

        Cost: what the bundle's policies change beside those decided before. A schema of another text costs a scan.
        """
        return self._decide(bundle, cancelled, self.by_cedar)

    def complete(self, answer: Answer, *, cancelled: Cancelled = never) -> Answer | None:
        """Ask Cedar about every decision that an answer left; None: cancelled.

        Cost: some 20,000 decisions a second.
        """
        if answer.exact or answer.bundle is None:
            return answer
        return self._decide(answer.bundle, cancelled, self.history.height)

    @property
    def used(self) -> int:
        """Bytes of what is kept for the next edit."""
        return self._memory.used

    def _decide(self, bundle: Bundle, cancelled: Cancelled, most: int) -> Answer | None:
        with self._lock:
            started = time.perf_counter()
            self._memory.next()
            self.history.axes.asked.of(bundle)
            again = bundle.files[SCHEMA_FILE] not in self._typed
            typed = self._typed_by(bundle)
            edit = Edit(self.history, typed, self._memory, self._cedar, bundle, cancelled)
            pieces = edit.pieces()
            asked = None if pieces is None else edit.by_cedar(pieces, most)
            if pieces is None or asked is None:
                return None
            return _answer(self.history, typed, pieces, asked, started, bundle=bundle, retyped=again)

    def _typed_by(self, bundle: Bundle) -> Typed:
        """The history, typed by a bundle's schema."""
        key = bundle.files[SCHEMA_FILE]
        found = self._typed.pop(key, None)
        if found is None:
            while len(self._typed) >= _TYPED:
                self._typed.pop(next(iter(self._typed)))
            with progress(self.history.height, "reading the history for another schema") as advance:
                found = retyped(self.history, bundle, self._memory.evaluated, advance)
        self._typed[key] = found
        return found

    def __repr__(self) -> str:
        parts = sum(len(each.parts) for each in self._typed.values())
        return f"<Live {self.history.height:,} decisions in {parts} parts, {self.used >> 20} MiB kept>"


def _answer(
    history: History,
    typed: Typed,
    pieces: Sequence[tuple[LivePart, Piece]],
    asked: Asked,
    started: float,
    **given: Any,
) -> Answer:
    total = Counter(typed.counted)
    for _, piece in pieces:
        total.update(piece.counted)
    keys = history.key[asked.rows]
    total.subtract(counted(keys, np.zeros(len(keys), np.int32)))
    total.update(counted(keys, asked.codes))
    return answer_of(
        history,
        total,
        started,
        handed_over=asked.reasons,
        left=asked.left,
        base=typed.base,
        pieces=[(part.rows, piece.codes) for part, piece in pieces],
        by_cedar=(asked.rows, asked.codes),
        **given,
    )


def prepare(
    lake: Lake,
    policy: Given | None = None,
    *,
    context: Given = "recorded",
    limits: Given | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    stakes: Stakes | Mapping[str, Any] | str | PathLike[str] | None = None,
    on_rows: Callable[[int], object] | None = None,
    by_cedar: int = BY_CEDAR,
    keep: int = KEEP,
) -> Live:
    """Prepare a history for live decisions. Nothing is executed.

    Args:
        lake: the pinned lake.
        policy: the point of comparison: a bundle, its folder, or a version the lake holds; None: the recorded
            policies, each decision's own.
        context: as `lake.replay` takes it, like the next four; they hold for every bundle that is decided.
        limits: whose limits to decide with; None: as recorded.
        sources: locations of sources by name.
        versions: versions of sources by name.
        at: compile facts as they were at this time.
        stakes: what is harm, good work and money, as `wb.compare` takes it; None: label `origin` says it.
        on_rows: told how many decisions were read, now and then; None: a progress bar, where somebody may look.
        by_cedar: decisions that columns do not decide are decided by Cedar within an edit, if they are no more.
        keep: bytes of what was evaluated that are kept for the next edit.

    Raises:
        BundleError, BundleNotFound, ReplayFailure: as `lake.replay`.
        AxisInvalid: contexts or limits are given, and no policy.
        StakesInvalid: they cannot be used.

    Cost: one scan and one self-replay, once: some 17 s of processor time a million decisions, and about a KiB each
        while it is held.
    """
    asked = asked_of(lake, policy, context=context, limits=limits, sources=sources, versions=versions, at=at)
    if asked.policy is None and (asked.again or asked.limits is not None):
        raise AxisInvalid("other contexts or limits need a policy to compare with; give `policy=`")
    axes, memory = Axes.of(lake, asked), Memory.of(keep)
    declared = None if stakes is None else Stakes.of(stakes)
    with progress(Records(lake).count(), "preparing the history", on_rows) as advance:
        history, typed = read_history(
            axes, asked.policy, memory.evaluated, side=_sides(lake, declared), money=_money(declared),
            advance=advance,
        )  # fmt: skip
    schemas = history.schemas if asked.policy is None else {asked.policy.files[SCHEMA_FILE]}
    known = dict.fromkeys(schemas, typed) if len(schemas) == 1 else {}
    cedar = ByCedar(axes, history.rows.select("writer", "position"), history.book)
    live = Live(history, by_cedar, known, memory, cedar)
    if asked.policy is not None:
        live._baseline = live._decide(asked.policy, never, history.height)  # noqa: SLF001 - it is being made
    return live


def _sides(lake: Lake, stakes: Stakes | None) -> Column:
    """Tells whose call each row of a replay is."""
    labels = lake.labels.collect().lazy()

    def side(rows: pl.DataFrame) -> pl.Series:
        said = labels_of(rows.lazy(), labels).collect()
        if stakes is None:
            return said.select(side=JOINED["side"].cast(pl.String))["side"]
        whole = rows.select("tenant", "session_id", "decision_id").hstack(said.select("origin"))
        found = (
            labelled(whole.lazy(), labels, stakes).select(pl.col("stake").cast(pl.String)).collect()["stake"]
        )
        whose = {"harm": "attack", "good": "honest"}
        return found.replace_strict(whose, default="unlabelled", return_dtype=pl.String)

    return side


def _money(stakes: Stakes | None) -> Column | None:
    """Tells what each row of a replay is about."""
    if stakes is None or not stakes.moneys:
        return None
    moneys = stakes.moneys
    return lambda rows: rows.select(money=amount(pl.col("args"), moneys))["money"]


def _recorded(history: History) -> Answer:
    """What the self-replay says."""
    nothing = np.zeros(0, np.intp)
    return answer_of(
        history,
        counted(history.key, history.itself),
        time.perf_counter(),
        bundle=None,
        handed_over={why: len(rows) for why, rows in history.left.items()},
        left=0,
        base=history.itself,
        pieces=[],
        by_cedar=(nothing, nothing.astype(np.int32)),
    )
