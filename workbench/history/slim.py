"""Typed decisions without what only typing and verifying need: what candidates are decided over, and no more.

One rule: `workbench.history.deciding` makes of a slim part what it makes of the part it was, whatever the bundle of
that schema. What it reads of a whole record (to see what a context does not answer for) hangs on the context's shape
and on which counters of the session are there; so one record of each such kind stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.columnar.layouts import ScalarShape
from workbench.history.chunk import Part
from workbench.history.contexts import age_column, fact_column
from workbench.history.holding import Holding
from workbench.history.limiting import INPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.columnar.json_columns import Typed
    from workbench.columnar.layouts import Layout
    from workbench.history.chunk import Chunk

_EXAMPLE = "example"
_KEPT = ("row", "args", "enforced_args", "reason_code", "decided_by", "evaluated_at", "shape")
_NAMED = (fact_column(""), age_column(""))


@dataclass(slots=True)
class SlimPart(Part):
    """A part whose `rows` have few columns; `_EXAMPLE` says which of `examples` stands for a row."""

    examples: pl.DataFrame
    """Whole records."""


def record_of_row(part: Part, row: int) -> dict[str, Any]:
    """Return a record that is like a row of a part in all that says what it does not answer for."""
    if isinstance(part, SlimPart):
        return part.examples.row(int(part.rows[_EXAMPLE][row]), named=True)
    return part.rows.row(row, named=True)


def slim(chunk: Chunk) -> Chunk:
    """Return a chunk that candidates of its schema are decided over. No column is copied."""
    return replace(chunk, parts=[_slim(part) for part in chunk.parts], origins={})


def fresh(chunk: Chunk) -> Chunk:
    """Return the same chunk for one more bundle: deciding notes things in tables, and threads may share the chunk."""
    tables = {
        name: replace(table, codes=dict(table.codes), _computed={}) for name, table in chunk.tables.items()
    }
    return replace(chunk, tables=tables)


def only(chunk: Chunk, rows: pl.Series) -> Chunk:
    """Return a chunk of some of its rows (UInt32, numbers as in `row`)."""
    return replace(
        chunk,
        parts=[some for part in chunk.parts if (some := _only(part, rows)) is not None],
        held=chunk.held.filter(chunk.held["row"].is_in(rows.implode())),
    )


def size_of(chunk: Chunk) -> int:
    """Return about how many bytes a slim chunk takes."""
    tables = (series for table in chunk.tables.values() for series in table.columns.series.values())
    parts = (frame for part in chunk.parts for frame in _frames(part))
    return int(sum(each.estimated_size() for each in (*tables, *parts, chunk.held)))


def _frames(part: Part) -> Iterator[pl.DataFrame | pl.Series]:
    """All but arguments and session: those columns are the frame's own."""
    yield from (part.rows, part.frame, part.leaves.frame, part.leaves.odd, part.holding.why)
    if isinstance(part, SlimPart):
        yield part.examples


def _slim(part: Part) -> Part:
    if isinstance(part, SlimPart):
        return part
    named = [name for name in part.rows.columns if name.startswith(_NAMED) or name == INPUTS]
    codes, examples = _examples(part)
    return SlimPart(
        key=part.key, rows=part.rows.select(*_KEPT, *named).with_columns(codes), holding=part.holding,
        action=part.action, leaves=part.leaves, args=_without_refs(part.args), session=part.session,
        frame=part.frame, examples=examples,
    )  # fmt: skip


def _examples(part: Part) -> tuple[pl.Series, pl.DataFrame]:
    """Which example stands for each row, and the examples: of rows that are not held, as no other is asked for."""
    bits = [_present(layout).alias(name) for name, layout in part.session.layouts.items()]
    there = part.session.columns.select(bits) if bits else pl.DataFrame()
    whole = [
        each if each.len() == part.rows.height else each.new_from_index(0, part.rows.height) for each in there
    ]
    kinds = pl.DataFrame([part.rows["shape"], part.holding.why.is_null().alias("free"), *whole])
    first = kinds.unique(maintain_order=True).with_row_index(_EXAMPLE)
    keys = [pl.col(name) for name in kinds.columns]
    codes = kinds.join(first, on=keys, how="left", nulls_equal=True, maintain_order="left")[_EXAMPLE]
    at = (
        pl.DataFrame({_EXAMPLE: codes})
        .with_row_index("at")
        .unique(_EXAMPLE, keep="first")
        .sort(_EXAMPLE)["at"]
    )
    return codes, part.rows[at]


def _present(layout: Layout) -> pl.Expr:
    """Whether a counter is there; as `workbench.history.deciding.present_facts`, which asks of some of them."""
    columns = [
        pl.col(shape.column).is_not_null() for _, shape in layout.shapes if isinstance(shape, ScalarShape)
    ]
    return pl.any_horizontal(columns) if columns else pl.lit(value=False)


def _without_refs(args: Typed) -> Typed:
    """Ids of entities are codes in the frame; nothing else reads them."""
    return replace(args, columns=args.columns.drop(*args.refs))


def _only(part: Part, rows: pl.Series) -> Part | None:
    """Some rows of a part; None: it has none of them."""
    mine = part.rows["row"].is_in(rows.implode())
    if mine.all():
        return part
    at = mine.arg_true()
    if at.is_empty():
        return None
    holding = Holding(at.len())
    holding.why = part.holding.why.gather(at)
    return replace(
        part,
        rows=part.rows[at],
        holding=holding,
        leaves=part.leaves.take(at),
        args=replace(part.args, columns=part.args.columns[at]),
        session=replace(part.session, columns=part.session.columns[at]),
        frame=part.frame[at],
    )
