"""The decisions of a lake, replayed by themselves: read once, and kept for the next replay, candidate or sweep.

One rule: a replay comes out the same whether it reads the lake or begins with what was kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workbench.ending import ending
from workbench.executors import ahead
from workbench.history.keeping import files_of, found, keeping
from workbench.history.records import Records
from workbench.redeciding import columnar_run, columns_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import polars as pl

    from workbench.history.keeping import Files
    from workbench.history.run import ColumnarRun, Prepared
    from workbench.redeciding import Plan


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
    run, chunks, kept = prepared_here(plan, strict=strict)
    with ending(chunks.close):
        if not kept:
            yield from map(run.decided, chunks)
            return
        decided = ahead(
            map(run.decided, chunks)
        )  # little memory is under way: the next while this one is written
        with ending(decided.close):
            yield from decided


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
