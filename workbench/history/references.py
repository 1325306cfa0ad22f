"""What the references of patches stand for, row by row, as JSON texts.

One rule: the text is exactly what `runtime.patches.plain` and canonical JSON make of the value, or the row is said to
be doubtful.

Accepted: dates, durations and addresses have lost the text they were written in once they are columns, so a patch
that refers to one is not taken; `context.now` is written by the runtime in one form, and is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.canonical import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Lookup = Callable[[str, tuple[str, ...]], tuple[pl.Series, str] | None]
    """As `Group.value`."""

_UNITS = 10_000
_EXACT = 10**15
"""Ten-thousandths below this have 15 digits at most, which every double keeps."""
_SPECIAL = r'["\\\x00-\x1f]'


class NotSimple(ValueError):  # noqa: N818 - says what the patch is
    """A patch that is not applied in columns; the message says why."""


class References(NamedTuple):
    """References of some patches, for some rows."""

    texts: dict[str, pl.Series]
    """By reference: canonical JSON text; null: absent here."""
    doubtful: pl.Series
    """Boolean: some text is not known exactly."""


def references(value: Lookup, rows: pl.Series, refs: Iterable[str]) -> References:
    """Look references up.

    Args:
        value: `Group.value`, of all rows of the group.
        rows: UInt32, the rows wanted.
        refs: dotted paths.

    Raises:
        NotSimple: one stands for no scalar, or for one whose text is not known.
    """
    texts: dict[str, pl.Series] = {}
    doubtful = pl.repeat(False, len(rows), dtype=pl.Boolean, eager=True)
    for ref in dict.fromkeys(refs):
        root, *path = ref.split(".")
        found = value(root, tuple(path)) if path else None
        if found is None:
            raise NotSimple(f"a patch refers to `{ref}`, which is no scalar")
        values, kind = found[0].gather(rows), found[1]
        texts[ref] = _text(values, kind, ref)
        if kind == "decimal":
            doubtful |= (values.abs() >= _EXACT).fill_null(value=False)
    return References(texts, doubtful)


def _text(values: pl.Series, kind: str, ref: str) -> pl.Series:
    """JSON text of a column of scalars."""
    match kind:
        case "long":
            return values.cast(pl.String)
        case "bool":
            return values.replace_strict({True: "true", False: "false"}, return_dtype=pl.String)
        case "string":
            return quoted(values)
        case "decimal":
            return _decimal(values)
        case "datetime" if ref == "context.now":
            moments = values.cast(pl.Datetime("ms"))
            return quoted(moments.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
        case _ if kind.startswith("entity ") and values.dtype == pl.String:
            return quoted(values)
        case _:
            raise NotSimple(f"a patch refers to `{ref}`, a {kind}, whose text as it was written is not known")


def _decimal(values: pl.Series) -> pl.Series:
    """Ten-thousandths as the shortest number: `12.5`, `3`, `-0.0001`."""
    ten_thousandths = pl.col("").abs()
    fraction = (ten_thousandths % _UNITS).cast(pl.String).str.zfill(4).str.strip_chars_end("0")
    return (
        values.alias("")
        .to_frame()
        .select(
            pl.when(pl.col("").is_not_null()).then(
                pl.concat_str(
                    pl.when(pl.col("") < 0).then(pl.lit("-")).otherwise(pl.lit("")),
                    (ten_thousandths // _UNITS).cast(pl.String),
                    pl.when(fraction == "").then(pl.lit("")).otherwise("." + fraction),
                )
            )
        )
        .to_series()
    )


def quoted(texts: pl.Series) -> pl.Series:
    """Return canonical JSON strings. Python only for distinct texts that need an escape.

    Example:
        >>> quoted(pl.Series(["plain", None])).to_list()
        ['"plain"', None]
    """
    plain = '"' + texts + '"'
    special = texts.str.contains(_SPECIAL)
    if not special.any():
        return plain
    distinct = texts.filter(special).unique()
    escaped = {text: canonical(text) for text in distinct}
    escapes = texts.replace_strict(escaped, default=None, return_dtype=pl.String)
    return escapes.zip_with(special.fill_null(value=False), plain)
