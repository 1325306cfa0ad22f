"""Extension values of texts that stand in columns: `ip(context.address)`, once per distinct text.

One rule: a text is read by the same functions that read constants and data (`extension_text`), so there is one
reading of each type, held against Cedar by tests. Nothing is looked at when a policy is compiled; when it runs, a
column's distinct texts are read, and each row is given what its text means.

Accepted: Python reads each distinct text of a batch (1-4 µs each); a column in which every row has another text costs
that a row. Texts of entities are read once an entity, since the operation moves into the entity table.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.extension_text import READERS, NotAValue

if TYPE_CHECKING:
    from workbench.columnar.extension_text import ExtensionKind

UNREADABLE = ""
"""What stands for a text that the constructor refuses; no payload is empty."""


def payload_text(kind: ExtensionKind, text: str) -> str:
    """The payload that a text means, as text; `UNREADABLE` if the constructor raises an error on it."""
    try:
        return str(READERS[kind](text))
    except NotAValue:
        return UNREADABLE


def payload_texts(kind: ExtensionKind, texts: pl.Expr) -> pl.Expr:
    """The same of a column; null stays null."""
    return texts.map_batches(partial(_read, kind), return_dtype=pl.String, is_elementwise=True)


def _read(kind: ExtensionKind, texts: pl.Series) -> pl.Series:
    texts = texts.cast(pl.String)
    distinct = texts.unique().drop_nulls()
    meant = pl.Series([payload_text(kind, text) for text in distinct], dtype=pl.String)
    return texts.replace_strict(distinct, meant, default=None, return_dtype=pl.String)


def number(text: str) -> int:
    """A payload as the number it is; what is unreadable gives 0, in rows that are in error."""
    return int(text or 0)


def numbers(texts: pl.Expr) -> pl.Expr:
    """The same of a column; null stays null."""
    zero = pl.when(texts == pl.lit(UNREADABLE)).then(pl.lit("0")).otherwise(texts)
    return zero.cast(pl.Int64)
