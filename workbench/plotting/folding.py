"""Many names in one picture: the largest are shown, the rest are one; and each has a label that is its own.

One rule: what is folded is counted, so a picture of ten thousand names has the sums of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_BARS = 15
"""Names in one picture; the rest are one bar, `n others`."""
MAX_LABEL = 80
"""Characters of a name; what does not fit the margin is cut by the picture."""
OTHERS = "others"


def folded(
    data: pl.DataFrame, name: str, sizes: Sequence[str], keys: Sequence[str] = ()
) -> tuple[pl.DataFrame, list[str]]:
    """Keep the largest names, and fold the rest into one.

    Args:
        data: rows.
        name: the column of names (String; null: none).
        sizes: columns that are added up; the first says which names are large.
        keys: columns that are kept apart.

    Returns:
        Rows by label and keys, with a label for each name in the column `name`; and the labels, the largest first,
        what is folded last.
    """
    totals = (
        data.group_by(name).agg(pl.col(sizes[0]).sum().alias("_")).sort("_", name, descending=[True, False])
    )
    many = (
        totals.height if totals.height == MAX_BARS + 1 else MAX_BARS
    )  # one more takes no more room than `1 other`
    kept, rest = totals[name][:many].to_list(), max(0, totals.height - many)
    texts = labels(kept)
    other = _free(f"{rest:,} {OTHERS}", set(texts))
    place = {each: number for number, each in enumerate(kept)}
    at = pl.col(name).replace_strict(
        list(place), list(place.values()), default=len(kept), return_dtype=pl.UInt32
    )
    shown = [*texts, *([other] if rest else [])]
    found = data.with_columns(_at=at).group_by("_at", *keys).agg(pl.col(*sizes).sum()).sort("_at", *keys)
    words = pl.Series(name, [*texts, other], dtype=pl.String)
    return found.select(words.gather(found["_at"]), *keys, *sizes), shown


def labels(names: Iterable[str | None]) -> list[str]:
    r"""Return a label for each name: visible, not too long, and no two the same.

    Example:
        >>> labels(["a", "a\u200b", None, "x" * 200, "x" * 300])[:3]
        ['a', 'a\\u200b', '(none)']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        text = "(none)" if name is None else shorten(visible(name), MAX_LABEL) or '""'
        found.append(_free(text, taken))
        taken.add(found[-1])
    return found


def _free(text: str, taken: set[str]) -> str:
    """The text, or with a number where another has it already."""
    number, found = 1, text
    while found in taken:
        number += 1
        found = f"{text} ({number})"
    return found
