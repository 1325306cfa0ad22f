"""One pass over JSON texts: cut, read, and say which rows were read for certain; then the rest, row by row.

There are three readers, each for the rows that the one before it is not sure of, all to the same columns: the
compiled pass over bytes, where it is loaded (`json_loading`); Polars' own columns; Python.

One rule: a row is `sure` only if its text is, byte for byte, canonical JSON of the declared record and every leaf was
read exactly. The others are read in Python and put in their places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.columnar.json_compiled import compiled_pass
from workbench.columnar.json_cut import TEXT, cut
from workbench.columnar.json_loading import LOADER
from workbench.columnar.json_values import absent, part_of, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from workbench.columnar.json_plan import Coder, Leaf, Plan

SURE = "sure"
"""Boolean column of a scan: the row was read for certain."""
_CONTROL = r"[\x00-\x1f]"
REFUSED = {"row": pl.UInt32(), "reason": pl.String()}
"""Columns of rows that are refused."""


def scan(texts: pl.Series, plan: Plan, wanted: Sequence[str], coder: Coder | None = None) -> pl.DataFrame:
    """Read texts: by the compiled pass where there is one, and the rows it is not sure of by Polars' columns.

    Returns:
        One row a text, in order: the columns `wanted` (of leaves, places of records, typed values), then `sure`.
    """
    texts = texts.cast(pl.String)
    kernel = LOADER.kernel_for(texts)
    if kernel is None:
        return by_columns(texts, plan, wanted, coder)
    found = compiled_pass(texts, plan, wanted, coder, kernel, SURE)
    rows = found[SURE].not_().arg_true()
    return (
        found
        if not rows.len()
        else replaced(found, rows, by_columns(texts.gather(rows), plan, wanted, coder))
    )


def by_columns(
    texts: pl.Series, plan: Plan, wanted: Sequence[str], coder: Coder | None = None
) -> pl.DataFrame:
    """Read texts by columns: in their plain forms, then the rows that did not fit once more, in wider ones."""
    found = _pass(texts, plan, wanted, coder, wide=False)
    rows = found[SURE].not_().arg_true()
    if not rows.len():
        return found
    return replaced(found, rows, _pass(texts.gather(rows), plan, wanted, coder, wide=True))


def _pass(
    texts: pl.Series, plan: Plan, wanted: Sequence[str], coder: Coder | None, *, wide: bool
) -> pl.DataFrame:
    frame, checks = cut(pl.LazyFrame({TEXT: texts}), plan)
    checks.append(pl.lit(value=True) if no_control(texts) else ~pl.col(TEXT).str.contains(_CONTROL))
    read = [
        (text, column, absent(column) if leaf.never else reading(text, column, plan, coder, wide=wide))
        for leaf in plan.leaves
        for text in [_given(leaf, plan) if wide else pl.col(leaf.text)]
        for column in leaf.columns
    ]
    frame = frame.with_columns(found.part.alias(part_of(column)) for _, column, found in read)
    checks.extend(text.is_null() | found.sure for text, _, found in read)
    certain = pl.col(TEXT).is_not_null() & pl.all_horizontal(checks)
    values = [found.value.alias(column.name) for _, column, found in read]
    frame = frame.with_columns(*values, *_places(plan), certain.fill_null(value=False).alias(SURE))
    return frame.select(*wanted, SURE).collect(engine="streaming")


def _given(leaf: Leaf, plan: Plan) -> pl.Expr:
    """The leaf's text; a null of an optional argument means that it is absent."""
    text = pl.col(leaf.text)
    return pl.when(text != "null").then(text) if plan.form == "arguments" and not leaf.required else text


def _places(plan: Plan) -> Iterator[pl.Expr]:
    """Where records are."""
    for branch in plan.records:
        here = pl.col(branch.text).is_not_null()
        yield here.alias(branch.place)
        if branch.where is not None:
            yield here.alias(branch.where.name)


def no_control(texts: pl.Series) -> bool:
    """Whether no text holds a control character, which no canonical JSON does; at the speed of memory."""
    array = texts.cast(pl.Binary).to_arrow()
    if not len(array):
        return True
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)
    begin, end = offsets[array.offset], offsets[array.offset + len(array)]
    held = np.frombuffer(array.buffers()[2] or b"", dtype=np.uint8)[begin:end]
    return not held.size or int(held.min()) >= ord(" ")


def settle(
    found: pl.DataFrame, texts: pl.Series, read: Callable[[int, str | None], Mapping[str, Any]]
) -> pl.DataFrame:
    """Put what `read` gives of the rows that are not sure in their places.

    Args:
        found: of `scan`.
        texts: the texts.
        read: cells by column of one row, by its number and text; a column it leaves out is null.

    Returns:
        `found` without `sure`.
    """
    columns = found.drop(SURE)
    rows = found[SURE].not_().arg_true()
    made = [read(row, text) for row, text in zip(rows, texts.gather(rows), strict=True)]
    if not made or not columns.width:
        return columns
    patch = pl.DataFrame(
        {
            name: pl.Series([cells.get(name) for cells in made], dtype=dtype)
            for name, dtype in columns.schema.items()
        }
    )
    return replaced(columns, rows, patch)


def replaced(frame: pl.DataFrame, rows: pl.Series, patch: pl.DataFrame) -> pl.DataFrame:
    """The frame with other rows in the places `rows`."""
    places = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    new = pl.int_range(frame.height, frame.height + patch.height, dtype=pl.UInt32, eager=True)
    return pl.concat([frame, patch])[places.scatter(rows, new)]
