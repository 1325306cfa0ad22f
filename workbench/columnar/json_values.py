"""From the texts of leaves to typed values, a column at a time: what is simple and exact, and which rows are not.

One rule: `sure` is true only where the text is canonical JSON of one value of the declared type, and `value` is that
value. Everything else (exponents, more digits, a wrong type) is left to `json_rows`, which reads a row as the runtime
does.

Dates, addresses and sets whose texts are not of the plain form are read once per distinct text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import polars as pl

from runtime.canonical import canonical
from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.json_batches import UNESCAPED, by_distinct, unescaped
from workbench.columnar.json_plain import UNITS, Reading, between, plain_text
from workbench.columnar.json_plan import dtype_of
from workbench.columnar.json_rows import Refused, leaf_cell

if TYPE_CHECKING:
    from runtime.schema import CedarType
    from workbench.columnar.json_plan import Coder, Column, Form, Plan

_SAFE = 2**53 - 1
_MOST = 2**63 - 1
_NUMBER = (
    r"^(?:0|-?[1-9][0-9]{0,10}(?:\.[0-9]{0,3}[1-9])?|-?0\.[0-9]{0,3}[1-9]"
    r'|"-?[0-9]{1,11}(?:\.[0-9]{1,4})?")$'
)
"""A canonical number, or a text of one, of at most 15 digits, four of them after the point: a double times 10,000
tells it apart from its neighbours."""


def part_of(column: Column) -> str:
    """Name of the column that a reading's first step goes to."""
    return f"part {column.name}"


def reading(text: pl.Expr, column: Column, plan: Plan, coder: Coder | None, *, wide: bool) -> Reading:
    """Read the texts of a leaf.

    Args:
        text: canonical JSON, null where absent.
        column: what is made of them.
        plan: of the record.
        coder: codes of entities inside sets of records.
        wide: for rows that the plain forms did not fit: escapes, entities written out, texts read one by one.
    """
    part, type_ = pl.col(part_of(column)), column.type
    if column.scaled is not None:
        return _scaled(text, part, column.scaled.factor)
    match type_:
        case Primitive("Long"):
            return _long(text, part, narrow=plan.narrow)
        case Primitive("Bool"):
            return Reading(text == "true", part, part | (text == "false"))
        case Primitive():
            return _string(text, part)
        case EntityRef():
            return _entity(text, part, type_, plan.form, wide=wide)
        case Extension("decimal") if plan.form == "arguments":
            return Reading(_units(text), part, text.str.contains(_NUMBER))
        case Extension() | SetOf():
            plain = None if wide else plain_text(text, part, type_, plan.form)
            return plain or _distinct(text, part, type_, plan.form, coder)
        case Record() | None:
            raise AssertionError(column)  # not read from leaves
        case _:
            assert_never(type_)


def absent(column: Column) -> Reading:
    """Read a leaf that no row has."""
    empty = pl.lit(value=False) if column.type is None else pl.lit(None, column.dtype)
    return Reading(empty, pl.col(part_of(column)), pl.lit(value=False))


def _string(text: pl.Expr, part: pl.Expr) -> Reading:
    """A JSON string; the few with escapes are read apart."""
    found = text.map_batches(unescaped, return_dtype=UNESCAPED, is_elementwise=True)
    around = text.str.starts_with('"') & text.str.ends_with('"') & (text.str.len_bytes() >= len('""'))
    return Reading(found, part.struct.field("value"), around & part.struct.field("sure"))


def _long(text: pl.Expr, part: pl.Expr, *, narrow: bool) -> Reading:
    padded = text.str.starts_with("0") & (text.str.len_bytes() > 1)
    sure = part.is_not_null() & ~padded & ~text.str.starts_with("+") & ~text.str.starts_with("-0")
    return Reading(
        text.cast(pl.Int64, strict=False), part, sure & part.is_between(-_SAFE, _SAFE) if narrow else sure
    )


def _entity(text: pl.Expr, part: pl.Expr, ref: EntityRef, form: Form, *, wide: bool) -> Reading:
    """An id, or an entity written out with its type."""
    tail = f'","type":{canonical(ref.type)}}}'
    if form == "cedar":
        found = between(text, part, '{"__entity":{"id":"', tail + "}")
    elif not wide:
        found = _string(text, part)
    else:
        found = between(text, part, '{"id":"', tail)
    return found if ref.enum is None else found._replace(sure=found.sure & found.value.is_in(list(ref.enum)))


def _units(text: pl.Expr) -> pl.Expr:
    """A number, or the text of one, in ten-thousandths."""
    number = text.str.strip_chars('"').cast(pl.Float64, strict=False)
    return (number * UNITS).round().cast(pl.Int64, strict=False)


def _scaled(text: pl.Expr, units: pl.Expr, factor: int) -> Reading:
    product = units * factor
    exact = units.is_between(-(_MOST // factor), _MOST // factor) & (product % UNITS == 0)
    return Reading(_units(text), product // UNITS, text.str.contains(_NUMBER) & exact)


def _distinct(text: pl.Expr, part: pl.Expr, type_: CedarType, form: Form, coder: Coder | None) -> Reading:
    """Read each distinct text in Python."""
    dtype = pl.Struct({"value": dtype_of(type_), "sure": pl.Boolean()})

    def made(text: str | None) -> dict[str, object] | None:
        try:
            return None if text is None else {"value": leaf_cell(text, type_, form, coder), "sure": True}
        except Refused:
            return {"value": None, "sure": False}

    def read(texts: pl.Series) -> pl.Series:
        return by_distinct(texts, lambda known: pl.Series([made(each) for each in known], dtype=dtype))

    found = text.map_batches(read, return_dtype=dtype, is_elementwise=True)
    return Reading(found, part.struct.field("value"), part.struct.field("sure"))
