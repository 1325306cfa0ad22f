"""What a changed decision is due to: its outcomes in the cells of a grid, made into one word.

One rule: an attribution is given only if it would be the same whatever the cells that could not be decided said.

The axes are those of a replay: `policy`, `context`, `limits`. A cell is a set of axes that are taken from the
candidate, the others as recorded; `base` is the empty set, `all` every axis given. With b the outcome in `base`, f
that in `all`, and o(a) that of axis a alone:

=================  ===================================================================================
`unchanged`        f = b, and no cell that was decided says otherwise
`cancelled`        f = b, though some cell says otherwise: axes that change it make up for each other
`policy` …         f ≠ b, and of all axes alone this one gives f
`overdetermined`   f ≠ b, and each of several axes alone gives f
`interaction`      f ≠ b, and no axis alone gives f
`inseparable`      f ≠ b, and an axis alone could not be decided that would make a difference
`undecided`        b or f is not decided
`quarantined`      b or f is quarantined
=================  ===================================================================================

Exactly one of them holds for every row. An outcome is the verdict, the effect and the arguments that would be run;
which policy decided is no part of it. `inseparable` is what new policies over new facts often are: over the recorded
facts alone they cannot be decided, because the record lacks what they read, so nobody can say that it was not the
policy alone. With one axis every change is due to it.

Not claimed: that an axis is the only one that matters. `policy` says that the new policies alone bring the row to
where all changes together bring it; another axis may still lead somewhere else on its own.
"""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from operator import add, or_
from typing import TYPE_CHECKING, Literal, get_args

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Axis = Literal["policy", "context", "limits"]
"""What a replay may take from a candidate."""
Attribution = Literal[
    "unchanged", "policy", "context", "limits", "overdetermined", "interaction", "inseparable", "cancelled",
    "undecided", "quarantined",
]  # fmt: skip
AXES: tuple[Axis, ...] = get_args(Axis)
ATTRIBUTIONS: tuple[Attribution, ...] = get_args(Attribution)
CHANGED: tuple[Attribution, ...] = (
    "policy", "context", "limits", "overdetermined", "interaction", "inseparable",
)  # fmt: skip
"""Attributions of decisions that come out otherwise when all axes are changed."""
Cell = tuple[Axis, ...]
"""Axes that are taken from the candidate, in the order of `AXES`."""
BASE, ALL = "base", "all"


def cells_of(axes: Sequence[Axis]) -> tuple[Cell, ...]:
    """Return every combination of axes, from none to all.

    Example:
        >>> cells_of(("policy", "limits"))
        ((), ('policy',), ('limits',), ('policy', 'limits'))
    """
    return tuple(cell for size in range(len(axes) + 1) for cell in combinations(axes, size))


def name_of(cell: Cell) -> str:
    """Name a cell: its axes, or `base`."""
    return "+".join(cell) or BASE


def outcome() -> pl.Expr:
    """Say what a row of `workbench.replay.FRAME` comes to, as a number; null: it was not decided."""
    args = pl.when(pl.col("enforced_args").is_not_null()).then(pl.col("enforced_args").hash(2))
    said = pl.col("verdict").hash(0) ^ pl.col("effect").hash(1) ^ args.fill_null(0)
    return pl.when(pl.col("status") == "decided").then(said)


def attributed(axes: Sequence[Axis]) -> pl.Expr:
    """Attribute rows.

    Args:
        axes: that were given.

    Returns:
        Enum of `ATTRIBUTIONS`, over columns named as the cells, of outcomes (any type; null: not decided), and the
        Bool column `quarantined`: in `base` or in `all`.
    """
    base, full = pl.col(BASE), pl.col(name_of(tuple(axes)))
    alone = {axis: pl.col(axis) == full for axis in axes}
    enough = reduce(add, (each.fill_null(value=False).cast(pl.Int8) for each in alone.values()))
    open_ = reduce(or_, (each.is_null() for each in alone.values()))
    found = (
        pl.when("quarantined").then(pl.lit("quarantined"))
        .when(base.is_null() | full.is_null()).then(pl.lit("undecided"))
        .when((base == full) & _some_cell_differs(axes)).then(pl.lit("cancelled"))
        .when(base == full).then(pl.lit("unchanged"))
        .when(enough > 1).then(pl.lit("overdetermined"))
        .when(open_).then(pl.lit("inseparable"))
    )  # fmt: skip
    for axis, gives in alone.items():
        found = found.when(gives).then(pl.lit(axis))
    return found.otherwise(pl.lit("interaction")).cast(pl.Enum(ATTRIBUTIONS))


def _some_cell_differs(axes: Sequence[Axis]) -> pl.Expr:
    between = [pl.col(name_of(cell)) for cell in cells_of(axes)[1:-1]]
    differs = ((each != pl.col(BASE)).fill_null(value=False) for each in between)
    return reduce(or_, differs, pl.lit(value=False))


def due_to(axes: Sequence[Axis]) -> pl.Expr:
    """Say which smallest sets of axes bring a changed row to where all of them do.

    Returns:
        List of cell names, over the columns of `attributed`; null: it is not changed, or a smaller set that could not
        be decided may do.
    """
    full = pl.col(name_of(tuple(axes)))
    found = pl.lit(None, pl.List(pl.String))
    for cells in reversed(list(_by_size(axes))):
        gives = {name_of(cell): pl.col(name_of(cell)) == full for cell in cells}
        names = [pl.when(each).then(pl.lit(name)) for name, each in gives.items()]
        some = reduce(or_, (each.fill_null(value=False) for each in gives.values()))
        open_ = reduce(or_, (each.is_null() for each in gives.values()))
        listed = pl.concat_list(names).list.drop_nulls()
        found = pl.when(open_).then(None).when(some).then(listed).otherwise(found)
    return pl.when(pl.col(BASE) != full).then(found)


def _by_size(axes: Sequence[Axis]) -> Iterator[list[Cell]]:
    for size in range(1, len(axes) + 1):
        yield list(combinations(axes, size))
