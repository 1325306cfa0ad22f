"""Where ids of one column stand in another: joins over texts, made of numbers.

One rule: the answer is that of a join over the texts themselves. Hashes of 64 bits only propose a row; the texts are
compared before it is taken, and where two texts share a hash, they are joined as texts.
"""

from __future__ import annotations

import polars as pl


def places(ids: pl.Series, among: pl.Series) -> pl.Series:
    """Return in which row of `among` each id stands (UInt32); null for null, and where there is none.

    Args:
        ids: String, in any order, with doubles and nulls.
        among: String, each id once; nulls are nobody's.

    Raises:
        ValueError: `among` holds an id twice.

    Cost: about half a hash join of the texts.

    Example:
        >>> places(pl.Series(["b", None, "x", "a"]), pl.Series(["a", "b"])).to_list()
        [1, None, None, 0]
    """
    known = pl.DataFrame({"key": among.hash()}).with_row_index("place")
    if known["key"].n_unique() < among.len():
        return _by_text(ids, among)
    wanted = pl.DataFrame({"key": ids.hash()})
    found = wanted.join(known, on="key", how="left", maintain_order="left")["place"]
    sure = (among.gather(found) == ids).fill_null(value=False)  # an id that is not there may share a hash
    return found.set(~sure, None)


def _by_text(ids: pl.Series, among: pl.Series) -> pl.Series:
    known = pl.DataFrame({"id": among}).with_row_index("place")
    if known["id"].n_unique() < among.len():
        raise ValueError("an id stands twice in the column that others are looked up in")
    wanted = pl.DataFrame({"id": ids})
    return wanted.join(known, on="id", how="left", maintain_order="left")["place"]


def are_distinct(ids: pl.Series) -> bool:
    """Whether all texts are known to differ: none shares its hash with another. False tells nothing.

    Example:
        >>> are_distinct(pl.Series(["a", "b"])), are_distinct(pl.Series(["a", "a"]))
        (True, False)
    """
    return ids.hash().n_unique() == ids.len()
