"""A history, read once: replayed by itself, typed, and settled as far as no policy is asked.

One rule: every open row ends in one part, is settled, or is left to Cedar; a row without a place is an error, because
it would leave every denominator.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from runtime.schema import SCHEMA_FILE
from workbench.errors import ReplayFailure
from workbench.executors import ahead
from workbench.history.caching import contexts_of
from workbench.history.chunk import type_chunk
from workbench.history.limiting import INPUTS, needs_inputs
from workbench.history.recompiling import Again
from workbench.history.records import ADDRESSES, Records
from workbench.history.run import ColumnarRun, joined
from workbench.live.folding import counted
from workbench.live.history import History, Recording
from workbench.live.parts import Span, live_part
from workbench.live.said import LEFT, Said
from workbench.redeciding import replayed_by_rows as by_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.history.chunk import Chunk
    from workbench.history.contexts import Contexts
    from workbench.history.run import Itself
    from workbench.live.axes import Axes
    from workbench.live.evaluating import Evaluated
    from workbench.live.history import Column
    from workbench.live.keeping import Kept
    from workbench.live.parts import LivePart, Rows

_NUMBERS = count()
"""Of parts; each is used once, because what was evaluated is kept by them."""


@dataclass(slots=True)
class Typed:
    """The open rows of a history, typed by a schema."""

    parts: list[LivePart]
    base: NDArray[np.int32]
    """What is said of the rows that are in no part; `LEFT` of those left to Cedar."""
    left: dict[str, Rows]
    """Rows that columns do not hold, by reason; rows of the history."""
    counted: dict[tuple[int, int], int]
    """Rows that are in no part, by key and what is said."""
    missing: dict[object, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """What candidates may miss, by part and by what of them that hangs on."""


@dataclass(frozen=True, slots=True)
class _Keeping(ColumnarRun):
    """A self-replay that keeps its typed columns."""

    typed: list[tuple[Bundle, Chunk]] = field(default_factory=list)

    def itself(self, rows: pl.DataFrame, own: Bundle) -> Itself:
        """Replay rows of a bundle by themselves."""
        found = ColumnarRun.itself(self, rows, own)
        self.typed.append((own, found.chunk))
        return found


@dataclass(slots=True)
class _Typing:
    """The parts of a history, as chunk after chunk is typed."""

    axes: Axes
    schema: Bundle | None
    """Whose schema; None: each row's own."""
    contexts: Contexts
    kept: Kept[Evaluated]
    parts: list[LivePart] = field(default_factory=list)
    said: list[tuple[Said, Rows]] = field(default_factory=list)
    left: dict[str, list[Rows]] = field(default_factory=dict)

    def as_typed(self, own: Bundle) -> bool:
        """Whether the columns of a self-replay are those that candidates are decided over."""
        return self._alike(own) and self.axes.recompiler is None

    def _alike(self, own: Bundle) -> bool:
        return self.schema is None or self.schema.files[SCHEMA_FILE] == own.files[SCHEMA_FILE]

    def again(self, records: pl.DataFrame, own: Bundle, span: Span) -> None:
        """Take in the open rows of a recorded bundle, typed by the schema and over the contexts that are wanted."""
        mine = pl.Series(span.open) & (records["bundle_version"] == own.version)
        rows, contexts = joined(records, self.contexts).filter(mine), self.contexts
        if self.axes.recompiler is not None and rows.height:
            fresh, contexts = Again(self.axes.recompiler, self.axes.lake).compiled(rows, own.spec)
            lost = fresh.filter(pl.col("cause").is_not_null())["row"].to_numpy().astype(np.intp)
            self.said.append((Said("quarantined"), lost + span.start))
            rows = fresh.filter(pl.col("cause").is_null())
        known = self._alike(own) or self.axes.recompiler is not None
        schema = own.schema if self.schema is None else self.schema.schema
        self.add(type_chunk(rows, contexts, schema, own=known), own, span, contexts)

    def add(self, chunk: Chunk, own: Bundle, span: Span, contexts: Contexts) -> None:
        """Take in a typed chunk of rows of a recorded bundle; rows that are not open are passed over."""
        bundle = self.axes.bundle_for(self.schema or own, own)
        for (why,), mine in chunk.held.partition_by("why", as_dict=True).items():
            rows = mine["row"].to_numpy().astype(np.intp)
            self.left.setdefault(str(why), []).append(rows[span.open[rows]] + span.start)
        for part in chunk.parts:
            made, settled = live_part(part, chunk, contexts, bundle, own, span, next(_NUMBERS), self.kept)
            if made is not None:
                made.known = self.axes.recompiler is not None
                self.parts.append(made)
            self.said += settled.said
            for why, found in settled.left.items():
                self.left.setdefault(why, []).extend(found)

    def finish(self, history: History) -> Typed:
        """All of it.

        Raises:
            ReplayFailure: a row has no place.
        """
        base = history.itself.copy()
        left = {why: np.concatenate(rows) for why, rows in self.left.items()}
        left = {why: rows for why, rows in left.items() if len(rows)}
        base[history.open] = -1
        for said, rows in self.said:
            base[rows] = history.book.number(said)
        for rows in (*left.values(), *history.left.values()):
            base[rows] = history.book.number(LEFT)
        outside = np.ones(history.height, np.bool_)
        for part in self.parts:
            base[part.rows], outside[part.rows] = history.book.number(LEFT), False
        if lost := int((base < 0).sum()):
            raise ReplayFailure(f"{lost:,} decisions have no place in the typed history; please report this")
        for why, rows in history.left.items():
            left[why] = np.concatenate([left[why], rows]) if why in left else rows
        return Typed(self.parts, base, left, counted(history.key[outside], base[outside]))


def read_history(
    axes: Axes,
    schema: Bundle | None,
    kept: Kept[Evaluated],
    *,
    side: Column,
    money: Column | None,
    advance: Callable[[int], object],
) -> tuple[History, Typed]:
    """Read a history, replay it by itself, and type it.

    Args:
        axes: what every version is decided with.
        schema: whose schema to type by; None: each row's own.
        kept: what is evaluated is kept there.
        side: whose call a row is, of rows of a replay.
        money: what it is about, of the same; None: not declared.
        advance: told how many decisions a chunk had.

    Cost: one scan, one self-replay; peak memory a chunk's beside what stays.
    """
    lake, plan = axes.lake, axes.itself
    contexts = contexts_of(lake)
    run = _Keeping(lake.find_bundle, plan, contexts, partial(by_rows, plan), lake)
    recording, typing = Recording(axes, side, money), _Typing(axes, schema, contexts, kept)
    own: dict[str, str] = {}
    with closing(_chunks(axes)) as chunks:
        for records in chunks:
            span = recording.add(records, run.chunk(records))
            for bundle, chunk in run.typed:
                own[bundle.policy_hash] = bundle.files[SCHEMA_FILE]
                if typing.as_typed(bundle):
                    typing.add(chunk, bundle, span, contexts)
                else:
                    typing.again(records, bundle, span)
            run.typed.clear()
            advance(records.height)
    history = recording.finish(frozenset(own), frozenset(own.values()))
    return history, typing.finish(history)


def retyped(
    history: History, schema: Bundle, kept: Kept[Evaluated], advance: Callable[[int], object]
) -> Typed:
    """Read a history again, and type it by another schema; see `read_history`.

    Cost: one scan.
    """
    axes, start = history.axes, 0
    typing = _Typing(axes, schema, contexts_of(axes.lake), kept)
    with closing(_chunks(axes)) as chunks:
        for records in chunks:
            end = start + records.height
            span = Span(history.open[start:end], history.key[start:end], start)
            for version in records["bundle_version"].unique(maintain_order=True):
                own = axes.lake.find_bundle(str(version))
                if own is not None:  # else its rows are quarantined
                    typing.again(records, own, span)
            start = end
            advance(records.height)
    return typing.finish(history)


def _chunks(axes: Axes) -> Generator[pl.DataFrame, None, None]:
    inputs = (INPUTS,) if needs_inputs(axes.lake, [axes.asked.limits]) else ()
    return ahead(Records(axes.lake).chunks(inputs if axes.verify is None else (*ADDRESSES, *inputs)))
