"""Which resource a tool's template names, from columns of arguments.

One rule: as `runtime.request.ResourceTemplate.resolve` does it, or not at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl

from runtime.request import ResourceTemplate
from runtime.schema import EntityRef, Primitive
from workbench.columnar.layouts import EntityShape, ScalarShape

if TYPE_CHECKING:
    from runtime.schema import Record
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.json_leaves import Leaves

_SLOT = re.compile(r"\{(\w+)\}")


def derived(template: str, leaves: Leaves, args: Typed, record: Record) -> pl.Series | None:
    """Return the id (String) of each row's resource; null where it cannot be derived.

    Returns:
        None: a slot is of a type whose text is not taken from columns.
    """
    text = ResourceTemplate.parse(template).id
    parts: list[pl.Series | str] = []
    for position, piece in enumerate(_SLOT.split(text)):
        part = _slot(piece, leaves, args, record) if position % 2 else piece
        if part is None:
            return None
        parts.append(part)
    columns = [part.alias(f"{i}") for i, part in enumerate(parts) if isinstance(part, pl.Series)]
    exprs = [pl.lit(p) if isinstance(p, str) else pl.col(f"{i}") for i, p in enumerate(parts)]
    height = leaves.frame.height
    return pl.DataFrame([pl.int_range(height, eager=True).alias("#"), *columns]).select(
        "#", id=pl.concat_str(exprs)
    )["id"]


def _slot(name: str, leaves: Leaves, args: Typed, record: Record) -> pl.Series | None:
    """An argument as the text it has in an id."""
    attribute = record.attrs.get(name)
    column = leaves.columns.get((name,))
    if attribute is None or attribute.scaled is not None or column is None:
        return None
    match attribute.type:
        case Primitive("String") | EntityRef():
            return _text(leaves.frame[column], args, name)
        case Primitive():
            return leaves.frame[column]
        case _:
            return None


def _text(raw: pl.Series, args: Typed, name: str) -> pl.Series:
    """A string's value; an entity written as an object has none."""
    (_, shape), *_ = args.layouts[name].shapes
    assert isinstance(shape, ScalarShape | EntityShape)  # noqa: S101 - of these types
    found = pl.DataFrame({"raw": raw, "value": args.columns[shape.column]})
    return found.select(pl.when(pl.col("raw").str.starts_with('"')).then("value").alias("value"))["value"]
