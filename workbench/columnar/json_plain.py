"""Plain forms of texts that columns read at once: what stands between quotes, dates, decimals, sets of scalars.

One rule: `sure` only where the text is canonical JSON of exactly the value given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.schema import EntityRef, Extension, Primitive, SetOf
from workbench.columnar.json_batches import by_distinct, moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.schema import CedarType
    from workbench.columnar.json_plan import Form

UNITS = 10_000
"""Of a decimal."""
_INTEGER = "(?:0|-?[1-9][0-9]{0,17})"
_INTEGERS = rf"^\[(?:{_INTEGER}(?:,{_INTEGER})*)?\]$"
_DECIMAL = r"^-?[0-9]{1,11}\.[0-9]{1,4}$"
"""Few enough digits that a double times 10,000 tells it apart from its neighbours."""
_STRINGS = pl.List(pl.String())


class Reading(NamedTuple):
    """A leaf as a typed column, in two steps, so that nothing is computed twice."""

    part: pl.Expr
    """Computed first, into the column `part_of`."""
    value: pl.Expr
    sure: pl.Expr
    """Of no meaning where the leaf is absent."""


def between(text: pl.Expr, part: pl.Expr, head: str, tail: str) -> Reading:
    """What stands between two fixed texts: a JSON string without escapes, its quotes being among them."""
    inner = text.str.slice(len(head)).str.head(-len(tail))
    around = (
        text.str.starts_with(head) & text.str.ends_with(tail) & (text.str.len_bytes() >= len(head + tail))
    )
    return Reading(inner, part, around & ~part.str.contains_any(['"', "\\"]))


def plain_text(text: pl.Expr, part: pl.Expr, type_: CedarType, form: Form) -> Reading | None:
    """Read the plain form of an extension value or a set; null: it has none."""
    match type_:
        case Extension("datetime" | "decimal" as name):
            head, tail = '"', '"'
            if form == "cedar":
                head, tail = '{"__extn":{"arg":"', f'","fn":"{name}"}}}}'
            return (_moment if name == "datetime" else _decimal)(between(text, part, head, tail))
        case SetOf(Primitive("Long")):
            return _set_of(text, part, _integers, pl.List(pl.Int64()))
        case SetOf(Primitive("String")):
            return _set_of(text, part, lambda each: _texts(each, None), _STRINGS)
        case SetOf(EntityRef() as ref) if form == "arguments":
            return _set_of(text, part, lambda each: _texts(each, ref), _STRINGS)
        case _:
            return None


def _decimal(inner: Reading) -> Reading:
    number = inner.value.cast(pl.Float64, strict=False)
    units = (number * UNITS).round().cast(pl.Int64, strict=False)
    return Reading(inner.part, units, inner.sure & inner.value.str.contains(_DECIMAL))


def _moment(inner: Reading) -> Reading:
    """UTC to the second or millisecond."""
    found = inner.part.map_batches(moments, return_dtype=pl.Int64(), is_elementwise=True)
    return Reading(found, inner.value, inner.value.is_not_null())


def _set_of(text: pl.Expr, part: pl.Expr, made: Callable[[pl.Expr], Reading], dtype: pl.DataType) -> Reading:
    """A set; the same one in many rows is read once."""
    struct = pl.Struct({"value": dtype, "sure": pl.Boolean()})

    def read(known: pl.Series) -> pl.Series:
        split, value, sure = made(pl.col("text"))
        frame = known.to_frame("text").lazy().with_columns(part=split)
        return frame.select(pl.struct(value=value.cast(dtype), sure=sure)).collect().to_series()

    found = text.map_batches(lambda texts: by_distinct(texts, read), return_dtype=struct, is_elementwise=True)
    return Reading(found, part.struct.field("value"), part.struct.field("sure"))


def _integers(text: pl.Expr) -> Reading:
    value = pl.col("part").cast(pl.List(pl.Int64), strict=False).list.unique().list.sort()
    return Reading(_split(text, 1, ","), value, text.str.contains(_INTEGERS))


def _split(text: pl.Expr, around: int, comma: str) -> pl.Expr:
    listed = text.str.slice(around).str.head(-around).str.split(comma)
    return pl.when(text == "[]").then(pl.lit([], pl.List(pl.String))).otherwise(listed)


def _texts(text: pl.Expr, ref: EntityRef | None) -> Reading:
    """Strings without escapes; two quotes each, or one of them holds what is no part of it."""
    part = pl.col("part")
    around = text.str.starts_with('["') & text.str.ends_with('"]') & (text.str.len_bytes() >= len('[""]'))
    simple = ~text.str.contains("\\", literal=True)
    quotes = text.str.count_matches('"', literal=True) == part.list.len() * 2
    sure = (text == "[]") | (around & simple & quotes)
    if ref is not None and ref.enum is not None:
        sure &= part.list.set_difference(pl.lit(list(ref.enum), pl.List(pl.String))).list.len() == 0
    return Reading(_split(text, 2, '","'), part.list.unique().list.sort(), sure)
