"""A lake narrowed to some of its decisions: the condition, and what it means for what is said of them.

One rule: whatever is made of chosen decisions says so, in its pins, since it is not what the lake would give.

Accepted: a condition is a Polars expression, which has a text for people and no form that later releases read; so it
goes with a lake in memory, and is not saved.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import polars as pl

from runtime.canonical import sha256
from workbench.errors import AxisInvalid, ColumnUnknown, NotComparable

if TYPE_CHECKING:
    from collections.abc import Sequence


def all_of(conditions: Sequence[pl.Expr], rows: pl.DataFrame, *, earlier: pl.Expr | None) -> pl.Expr | None:
    """Return the condition that all hold; None: there is none.

    Args:
        conditions: to be met.
        rows: without rows, with the columns they may name.
        earlier: what holds already; None: nothing was asked.

    Raises:
        ColumnUnknown: a condition names another column.
        ValueError: a condition is not true or false.
    """
    for given in conditions:
        if not isinstance(given, pl.Expr):
            raise ValueError(  # noqa: TRY004 - any value that is no condition
                f"`where` takes Polars expressions, as pl.col('tenant') == 'acme'; got {given!r:.80}"
            )
        for name in given.meta.root_names():
            if name not in rows.columns:
                raise ColumnUnknown(name, rows.columns, "`decisions`")
        kind = rows.select(given).dtypes
        if kind != [pl.Boolean]:
            raise ValueError(
                f"`where` takes what is true or false; {given} gives {kind[0] if kind else 'nothing'}"
            )
    asked = [*conditions] if earlier is None else [earlier, *conditions]
    return reduce(lambda one, other: one & other, asked) if asked else None


def narrowed_to(chosen: pl.Expr | None) -> dict[str, str]:
    """Return the pin `where` of what is made of chosen decisions; of all of them: nothing.

    Two conditions may have one text (a series in it is only named), so a digest stands behind it; it is this Polars'
    own, and tells conditions of one session apart.

    Example:
        >>> narrowed_to(pl.col("tenant") == "acme")["where"].partition(" #")[0], narrowed_to(None)
        ('[(col("tenant")) == ("acme")]', {})
    """
    return (
        {} if chosen is None else {"where": f"{chosen} #{sha256(chosen.meta.serialize(format='json'))[:8]}"}
    )


def require_same(one: object, other: object) -> None:
    """Refuse to compare what is made of different decisions: a base and a candidate, by their pins `where`.

    Raises:
        NotComparable: they differ.
    """
    if one != other:
        raise NotComparable(
            f"the replays cover different decisions: the base those where {one or 'nothing is asked'}, the candidate "
            f"those where {other or 'nothing is asked'}; make both from one `lake.where(…)`"
        )


def require_whole(chosen: pl.Expr | None) -> None:
    """Refuse what needs every decision of the log.

    Raises:
        AxisInvalid: the lake was narrowed.
    """
    if chosen is not None:
        raise AxisInvalid(
            f"state is moved by every call of the log, and this lake was narrowed to decisions where {chosen}; "
            "simulate state over the whole lake, and filter the rows of the replay"
        )
