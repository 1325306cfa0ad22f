"""A lake narrowed to some of its decisions: a condition, a window of the log, and what they mean for what is said.

One rule: whatever is made of chosen decisions says so, in its pins, since it is not what the lake would give.

A window (`after`) is positions of ledgers, said as a pin is: exact, for good, and the same for everybody. A condition
is a Polars expression, which has a text for people and no form that later releases read; so it goes with a lake in
memory, and is not saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import polars as pl

from runtime.canonical import sha256
from workbench.errors import AxisInvalid, ColumnUnknown, NotComparable
from workbench.pins import Pins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Which decisions a lake is narrowed to."""

    where: pl.Expr | None = None
    """A condition over the columns of `decisions`; None: none."""
    after: Mapping[str, int] = field(default_factory=dict)
    """Ledger to the last position that is left out; empty: from the beginning."""

    @property
    def condition(self) -> pl.Expr | None:
        """Both as one; None: every decision."""
        if not self.after:
            return self.where
        later = ~Pins(self.after).holds  # a ledger that the pin does not name is after it as a whole
        return later if self.where is None else later & self.where

    @property
    def text(self) -> str:
        """For people, after `decisions where`."""
        parts = [
            f"position > {position:,} of ledger {ledger}" for ledger, position in sorted(self.after.items())
        ]
        return " and ".join([*parts, *([] if self.where is None else [str(self.where)])])

    def pins(self) -> dict[str, object]:
        """Return the pins of what is made of these decisions: `after` and `where`, where there are any."""
        window: dict[str, object] = {"after": dict(sorted(self.after.items()))} if self.after else {}
        return window | narrowed_to(self.where)


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


def require_same(one: Mapping[str, object], other: Mapping[str, object]) -> None:
    """Refuse to compare what is made of different decisions: a base and a candidate, by their pins.

    Raises:
        NotComparable: they differ in `where` or `after`.
    """
    for name, made in (("where", "lake.where(…)"), ("after", "lake.since(…)")):
        base, cand = one.get(name), other.get(name)
        if base != cand:
            raise NotComparable(
                f"the replays cover different decisions: the base those {name} {base or 'nothing is asked'}, the "
                f"candidate those {name} {cand or 'nothing is asked'}; make both from one `{made}`"
            )


def require_whole(narrowing: Narrowing) -> None:
    """Refuse what needs every decision of the log.

    Raises:
        AxisInvalid: the lake was narrowed.
    """
    if narrowing.condition is not None:
        raise AxisInvalid(
            "state is moved by every call of the log, and this lake was narrowed to decisions where "
            f"{narrowing.text}; simulate state over the whole lake, and filter the rows of the replay"
        )
