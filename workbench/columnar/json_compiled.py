"""Texts through the compiled pass (`json_kernel`): blocks of rows on several threads, and columns of what they wrote.

One rule: a row it is sure of holds what `json_scan`'s own pass would give, and what is written of other rows is null.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from workbench.columnar.json_program import GIVEN, THERE, program_of
from workbench.columnar.json_values import absent, part_of, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.columnar.json_native import Kernel
    from workbench.columnar.json_plan import Coder, Plan
    from workbench.columnar.json_program import At, Bytes, Program

BLOCK: Final = 32_768
"""Rows a thread takes at a time: enough that its memory for unescaped strings is few buffers, a multiple of eight."""
_MOST_SPARE = 2**31 - 2**16
"""Bytes of unescaped strings of one block: what an Arrow view's place can say."""
_VIEW = 16


class _Written(NamedTuple):
    """What the pass wrote, by column and row."""

    views: np.ndarray[Any, np.dtype[np.uint64]]
    ints: np.ndarray[Any, np.dtype[np.int64]]
    bools: Bytes
    seen: Bytes
    sure: Bytes


def compiled_pass(
    texts: pl.Series,
    plan: Plan,
    wanted: Sequence[str],
    coder: Coder | None,
    kernel: Kernel,
    sure: str,
) -> pl.DataFrame:
    """Read texts.

    Args:
        texts: String.
        plan: of the record.
        wanted: columns, as `json_scan.scan` has them.
        coder: codes of entities inside sets.
        kernel: the compiled pass, see `json_native`.
        sure: name of the column that says which rows were read for certain.

    Returns:
        One row a text, in order: the columns `wanted`, then `sure`. Strings are places in the memory of `texts`.
    """
    program = program_of(plan, wanted)
    written, buffers = _run(texts, program, kernel)
    rows, valid = texts.len(), _validity(written.seen)
    made = {
        name: _strings(written.views[at.column], valid(at), buffers) for name, at in program.views.items()
    }
    for name, at in program.ints.items():
        made[name] = _series(pa.int64(), rows, [valid(at), pa.py_buffer(written.ints[at.column])])
    for name, at in program.bools.items():
        made[name] = _series(pa.bool_(), rows, [valid(at), _bits(written.bools[at.column])])
    made[sure] = _series(pa.bool_(), rows, [None, _bits(written.sure)])
    frame = pl.DataFrame([column.alias(name) for name, column in made.items()])
    return _completed(frame, plan, program, coder, sure).select(*wanted, sure)


def _completed(
    frame: pl.DataFrame, plan: Plan, program: Program, coder: Coder | None, sure: str
) -> pl.DataFrame:
    """Read what the pass left: values of leaves that it only cut out, and ids of enumerations."""
    read = [
        (
            leaf,
            column,
            absent(column) if leaf.never else reading(pl.col(leaf.text), column, plan, coder, wide=False),
        )
        for leaf in program.deferred
        for column in leaf.columns
    ]
    checks = [pl.col(leaf.text).is_null() | found.sure for leaf, _, found in read]
    checks += [
        pl.col(name).is_null() | pl.col(name).is_in(list(known)) for name, known in program.enums.items()
    ]
    if not checks:
        return frame
    parts = [found.part.alias(part_of(column)) for _, column, found in read]
    values = [found.value.alias(column.name) for _, column, found in read]
    certain = (pl.col(sure) & pl.all_horizontal(checks)).fill_null(value=False)
    lazy = frame.lazy().with_columns(*parts).with_columns(*values, certain.alias(sure))
    return lazy.collect(engine="streaming")


def _run(texts: pl.Series, program: Program, kernel: Kernel) -> tuple[_Written, list[Any]]:
    """Run the pass; gives the buffers that views point into as well."""
    rows = texts.len()
    array: Any = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    _, held, *buffers = array.buffers()
    places = np.array([(each.address, each.address + each.size) for each in buffers], np.int64)
    missing = np.array(texts.is_null(), np.uint8) if texts.null_count() else None
    lengths = texts.str.len_bytes().fill_null(0).to_numpy()
    written = _empty(program, rows)
    shared = {
        "texts": held.address + _VIEW * array.offset,
        "buffers": places.ctypes.data,
        "missing": 0 if missing is None else missing.ctypes.data,
        "rows": rows,
        "steps": program.steps.ctypes.data,
        "count": len(program.steps),
        "literals": program.literals.ctypes.data,
        "factors": program.factors.ctypes.data,
        **{name: each.ctypes.data for name, each in written._asdict().items()},
        "view_columns": len(written.views),
        "bool_columns": len(written.bools),
        "seen_columns": len(written.seen),
    }

    def block(number: int) -> Bytes:
        begin, stop = number * BLOCK, min((number + 1) * BLOCK, rows)
        room = min(int(lengths[begin:stop].sum()), _MOST_SPARE)
        spare = np.empty(room, np.uint8)  # no memory until it is written to
        own = {"begin": begin, "stop": stop, "spare": spare.ctypes.data, "room": room}
        given = {**shared, **own, "spare_buffer": len(buffers) + number}
        used = kernel(np.array([given[name] for name in GIVEN], np.int64))
        return spare[:used].copy()

    blocks = range(-(-rows // BLOCK))
    if len(blocks) < 2:  # noqa: PLR2004 - one thread is enough
        spares = [block(each) for each in blocks]
    else:
        with ThreadPoolExecutor(min(pl.thread_pool_size(), len(blocks))) as threads:
            spares = list(threads.map(block, blocks))
    return written, [*buffers, *(pa.py_buffer(each) for each in spares)]


def _empty(program: Program, rows: int) -> _Written:
    return _Written(
        views=np.zeros((len(program.views), rows, 2), np.uint64),
        ints=np.empty((len(program.ints), rows), np.int64),
        bools=np.zeros((program.places, rows), np.uint8),
        seen=np.zeros((program.leaves, rows), np.uint8),
        sure=np.zeros(rows, np.uint8),
    )


def _validity(seen: Bytes) -> Callable[[At], Any]:
    """Arrow's bitmap of a column; null: nothing is."""

    @cache
    def valid(column: int, *, text: bool) -> Any:
        there = seen[column] != 0 if text else seen[column] == THERE
        return None if there.all() else _bits(there)

    return lambda at: None if at.seen < 0 else valid(at.seen, text=at.text)


def _bits(flags: Bytes | np.ndarray[Any, np.dtype[np.bool_]]) -> Any:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _strings(views: np.ndarray[Any, np.dtype[np.uint64]], valid: Any, buffers: list[Any]) -> pl.Series:
    return _series(pa.string_view(), len(views), [valid, pa.py_buffer(views), *buffers])


def _series(dtype: Any, rows: int, buffers: list[Any]) -> pl.Series:
    found = pl.from_arrow(pa.Array.from_buffers(dtype, rows, buffers))
    assert isinstance(found, pl.Series)  # noqa: S101 - of an array
    return found
