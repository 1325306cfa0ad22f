"""The decisions of a lake, replayed by themselves: read once, and kept for the next replay, candidate or sweep.

One rule: a replay comes out the same whether it reads the lake or begins with what was kept, alone or with others
that share its scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import polars as pl

from workbench.ending import ending
from workbench.executors import ahead, in_order
from workbench.history.keeping import files_of, found, keeping, refreshed
from workbench.history.records import Records
from workbench.history.together import Together
from workbench.redeciding import columnar_run, columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from workbench.history.keeping import Files, Keeper, Kept
    from workbench.history.records import Span
    from workbench.history.run import ColumnarRun, Prepared
    from workbench.redeciding import Plan

MOST_THREADS = 4
"""Chunks that are decided at a time, where there are as many cores: each takes some half a gibibyte."""
MOST_FRAMES = 8
"""Chunks' rows, of all replays together, that may be made at a time: each takes some 100 MiB."""


class PreparedHere(NamedTuple):
    """A replay in columns, and what it is to decide."""

    run: ColumnarRun
    chunks: Generator[Prepared, None, None]
    """The lake's decisions, in order; close it."""
    kept: bool
    """Nothing is read: they were kept."""


def decided_in_columns(plan: Plan, *, strict: bool) -> Generator[pl.DataFrame, None, None]:
    """Yield what a plan makes of the lake's decisions, rows of `FRAME`, a chunk at a time, in order.

    Args:
        plan: what to decide with.
        strict: columns are demanded.
    """
    decided = decided_together([plan], strict=strict)
    with ending(decided.close):
        for (rows,) in decided:
            yield rows


def decided_together(plans: Sequence[Plan], *, strict: bool) -> Generator[list[pl.DataFrame], None, None]:
    """Yield what several plans make of a lake's decisions, over one scan: a chunk at a time, in order.

    Args:
        plans: what to decide with, over one lake; see `workbench.history.together.Together`.
        strict: columns are demanded.

    Returns:
        Lists of frames with the columns of `FRAME`, one a plan, of the same decisions.

    Cost: the self-replay once for each level of it that is asked for, unless the lake kept it; memory: some chunks of
        `workbench.history.records.SPAN` positions, one a thread and one more.
    """
    lake = plans[0].lake
    wanted = (columns_of(plan, "columnar" if strict else "auto") for plan in plans)
    columns = tuple(dict.fromkeys(name for each in wanted for name in each))
    kept = _kept(plans, columns, strict=strict)
    files = files_of(lake) if kept is None else {}  # before anything is read
    first = columnar_run(plans[0], strict=strict, contexts=None if kept is None else kept.contexts)
    others = (columnar_run(plan, strict=strict, contexts=first.contexts) for plan in plans[1:])
    runs = (first, *others)
    if kept is not None:
        decided = in_order(partial(_again, runs), kept.chunks, _threads(runs))
    else:
        decided = _read_together(runs, columns, files)
    with ending(decided.close):
        yield from decided


def _kept(plans: Sequence[Plan], columns: Sequence[str], *, strict: bool) -> Kept | None:
    """What all of the plans may begin with; None: one of them does not, and what it prepares is good for all."""
    every = []
    for plan in plans:
        every.append(found(plan.lake, plan, columns, strict=strict))
        if every[-1] is not every[0] or every[0] is None:
            return None
    return every[0]


def _threads(runs: Sequence[ColumnarRun]) -> int:
    """How many chunks are decided at a time: fewer where each is decided by many, whose rows wait to be taken."""
    return max(1, min(MOST_THREADS, pl.thread_pool_size(), MOST_FRAMES // len(runs)))


def _again(runs: Sequence[ColumnarRun], prepared: Prepared, going: Callable[[], None]) -> list[pl.DataFrame]:
    """Decide a chunk that was kept."""
    decided = []
    for run in runs:
        going()
        decided.append(run.decided(refreshed(prepared)))
    return decided


def _read_together(
    runs: Sequence[ColumnarRun], columns: Sequence[str], files: Files
) -> Generator[list[pl.DataFrame], None, None]:
    """Read a lake's decisions, and decide them."""
    records = Records(runs[0].lake)
    itself = min(runs, key=_beyond)
    with keeping(itself, columns, files, records.count()) as keeper:
        work = _Work(runs, records, columns, itself, keeper)
        made = work.in_threads() if _beyond(max(runs, key=_beyond)) == 0 else work.here()
        with ending(made.close):
            for slimmed, decided in made:
                yield decided
                keeper.take(slimmed)
        keeper.finish()


def _beyond(run: ColumnarRun) -> int:
    """How much a replay asks beyond what can be kept: a self-replay on the second level, other contexts."""
    return 2 * (run.axes.recompiler is not None) + (run.axes.verify is not None)


Made: TypeAlias = "tuple[Prepared | None, list[pl.DataFrame]]"
"""A chunk as it is kept (None: it is not), and what each replay says of it."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Several replays that read a lake."""

    runs: Sequence[ColumnarRun]
    records: Records
    columns: Sequence[str]
    itself: ColumnarRun
    """Whose self-replay is kept."""
    keeper: Keeper

    def here(self) -> Generator[Made, None, None]:
        """Decide in the caller's thread: sources may be objects that only it may touch."""
        chunks = ahead(self.records.chunks(self.columns))
        with ending(chunks.close):
            for chunk in chunks:
                yield self._decided(chunk, lambda: None)

    def in_threads(self) -> Generator[Made, None, None]:
        """Decide several chunks at a time, each in one thread from reading it on."""
        made = in_order(self._read, self.records.spans(), _threads(self.runs))
        with ending(made.close):
            for each in made:
                if each is not None:
                    yield each

    def _read(self, span: Span, going: Callable[[], None]) -> Made | None:
        chunk = self.records.of(span, self.columns)
        return self._decided(chunk, going) if chunk.height else None

    def _decided(self, chunk: pl.DataFrame, going: Callable[[], None]) -> Made:
        together = Together(self.runs, chunk)
        decided = list(together.decided(going))
        return self.keeper.slimmed(together.prepared(self.itself.axes)), decided


def prepared_here(plan: Plan, *, strict: bool, more: Sequence[str] = ()) -> PreparedHere:
    """Prepare a lake's decisions, or take what an earlier replay of the lake prepared.

    Args:
        plan: what to decide with.
        strict: columns are demanded.
        more: columns of records to read besides.
    """
    wanted = columns_of(plan, "columnar" if strict else "auto")
    columns = tuple(dict.fromkeys((*wanted, *more)))
    kept = found(plan.lake, plan, columns, strict=strict)
    if kept is None:
        files = files_of(plan.lake)  # before anything is read
        run = columnar_run(plan, strict=strict)
        return PreparedHere(run, _read(run, columns, files), kept=False)
    run = columnar_run(plan, strict=strict, contexts=kept.contexts)
    return PreparedHere(run, _each(kept), kept=True)


def _each(chunks: Iterable[Prepared]) -> Generator[Prepared, None, None]:
    yield from chunks


def _read(run: ColumnarRun, columns: Sequence[str], files: Files) -> Generator[Prepared, None, None]:
    records = Records(run.lake)
    chunks = ahead(records.chunks(columns))
    with ending(chunks.close), keeping(run, columns, files, records.count()) as keeper:
        for chunk in chunks:
            prepared = run.prepared(chunk)
            yield prepared
            keeper.add(prepared)
        keeper.finish()
