"""What was decided of the rows of a chunk, each thing that is said once: rows carry numbers until somebody looks.

One rule: numbers and outcomes say of every row exactly what `frame` says of it; whoever changes what is said changes
outcomes, of which there are few, and no row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from workbench.history.fold import FOLDED
from workbench.history.lists import gathered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTCOMES: Mapping[str, pl.DataType] = {**FOLDED, "missing": pl.List(pl.String)}
"""Columns of `Decided.outcomes`. `missing` names what undecided rows lack."""

RESULT: Mapping[str, pl.DataType] = {
    "row": pl.UInt32(),
    **FOLDED,
    "enforced_args": pl.String(),
    "missing": pl.List(pl.String),
}
"""Columns of `Decided.frame`; see `workbench.history.fold.fold`."""

HANDED_OVER = "handed_over"


@dataclass(frozen=True, slots=True)
class Decided:
    """Rows, and what was decided of them."""

    rows: pl.Series
    """UInt32, ascending where it is of a chunk: which rows of the chunk."""
    numbers: pl.Series
    """UInt32, one a row: its row of `outcomes`."""
    outcomes: pl.DataFrame
    """The columns of `OUTCOMES`; some may be of no row."""
    enforced_args: pl.Series
    """String, one a row: canonical JSON; null: nothing may run."""

    @property
    def height(self) -> int:
        """How many rows there are."""
        return self.rows.len()

    def frame(self) -> pl.DataFrame:
        """Return one row each, columns as in `RESULT`. Cost: most of it is the lists."""
        said = gathered(self.outcomes, self.numbers)
        whole = [self.rows.alias("row"), self.enforced_args.alias("enforced_args")]
        return said.with_columns(whole).select(list(RESULT))

    def filter(self, where: pl.Series) -> Decided:
        """Return the rows for which `where` (Boolean) holds."""
        if where.all():
            return self
        kept = [each.filter(where) for each in (self.rows, self.numbers, self.enforced_args)]
        return Decided(kept[0], kept[1], self.outcomes, kept[2])

    def of(self, rows: pl.Series) -> Decided:
        """Return those of these rows (ascending), which must be among the decided ones."""
        if rows.len() == self.height:
            return self
        return self.filter(self.rows.is_in(rows.implode()))

    def without_errors(self, why: str) -> Decided:
        """Hand rows with an evaluation error over."""
        wrong = pl.col("errors").list.len() > 0
        outcomes = self.outcomes.with_columns(
            status=pl.when(wrong).then(pl.lit(HANDED_OVER)).otherwise("status"),
            why=pl.when(wrong).then(pl.lit(why)).otherwise("why"),
        )
        return replace(self, outcomes=outcomes)

    @property
    def here(self) -> pl.Series:
        """Whether each row was decided, or found undecided (Boolean); else it is handed over."""
        return (self.outcomes["status"] != HANDED_OVER).gather(self.numbers)

    def handed_over(self) -> pl.DataFrame:
        """Return `row` and `why` of the rows that are handed over."""
        if not (self.outcomes["status"] == HANDED_OVER).any():
            return pl.DataFrame(schema={"row": pl.UInt32, "why": pl.String})
        left = self.filter(~self.here)
        return pl.DataFrame({"row": left.rows, "why": left.outcomes["why"].gather(left.numbers)})


def told(rows: pl.Series, said: pl.DataFrame) -> Decided:
    """Say something of rows of which nothing may run, or nothing is known to.

    Args:
        rows: UInt32.
        said: columns of `OUTCOMES`, a row a row; those it lacks are null.
    """
    lacking = [
        pl.lit(None, dtype).alias(name) for name, dtype in OUTCOMES.items() if name not in said.columns
    ]
    distinct = said.unique(maintain_order=True)
    keys = [pl.col(name) for name in said.columns]
    numbered = distinct.with_row_index("number")
    numbers = said.join(numbered, on=keys, how="left", nulls_equal=True, maintain_order="left")["number"]
    outcomes = distinct.with_columns(lacking).select(
        pl.col(name).cast(kind) for name, kind in OUTCOMES.items()
    )
    nothing = pl.Series("enforced_args", [None], dtype=pl.String).new_from_index(0, rows.len())
    return Decided(rows, numbers.cast(pl.UInt32), outcomes, nothing)


def together(pieces: Sequence[Decided]) -> Decided:
    """Put pieces of a chunk together, ordered by row."""
    nothing = told(pl.Series([], dtype=pl.UInt32), pl.DataFrame(schema={"status": pl.String}))
    pieces = [each for each in pieces if each.height] or [nothing]
    numbers, before = [], 0
    for each in pieces:
        numbers.append((each.numbers + before).cast(pl.UInt32))
        before += each.outcomes.height
    rows = pl.concat([each.rows for each in pieces]).alias("row")
    outcomes = pl.concat([each.outcomes for each in pieces])
    whole = pl.concat(numbers), pl.concat([each.enforced_args for each in pieces])
    if len(pieces) == 1 and rows.is_sorted():
        return Decided(rows, whole[0], outcomes, whole[1])
    order = rows.arg_sort()
    return Decided(rows.gather(order), whole[0].gather(order), outcomes, whole[1].gather(order))
