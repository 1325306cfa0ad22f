"""The decisions of a comparison, counted by everything a view may ask of them.

One rule: a count that a view shows is a sum over the cube under the very conditions that filter the rows, so it is
the number of rows that a click on it lists.

Counting once takes 0.1 s a million decisions; the cube then has some hundred rows, and every count after it is quick.
Accepted: at worst (another policy, tool and tenant on each row) it has as many rows as the comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.comparing.conditions import BLAMED, expr_of
from workbench.comparing.filters import Key
from workbench.metrics import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.comparing.conditions import Condition
    from workbench.comparing.filters import Cell, Listed, Side

COLUMNS = (
    "from", "to", "status", "then", "effect", "side", "changed", "tool", "tenant", "determining", "base_determining",
)  # fmt: skip
"""What conditions ask of, beside the answers of other candidates."""


def counted(frame: pl.LazyFrame, more: Sequence[str] = ()) -> pl.DataFrame:
    """Count decisions by all that conditions ask of.

    Args:
        frame: with `COLUMNS`.
        more: further columns, as the other candidates' answers.

    Returns:
        One row for each combination that occurs: the columns, and `n` decisions (Int64). In no order.
    """
    found = frame.group_by(*COLUMNS, *more).agg(n=pl.len().cast(pl.Int64))
    return found.collect()


def total(cube: pl.DataFrame, conditions: tuple[Condition, ...]) -> int:
    """Return how many decisions hold all conditions."""
    return int(cube.lazy().filter(expr_of(conditions)).select(pl.col("n").sum()).collect().item())


def totals(
    cube: pl.DataFrame, asked: Sequence[Cell | Listed], conditions: tuple[Condition, ...]
) -> list[int]:
    """Return how many decisions are in each cell or list, of those that hold all conditions."""
    within = cube.lazy().filter(expr_of(conditions))
    sums = [
        pl.col("n").filter(expr_of(each.conditions)).sum().alias(str(place))
        for place, each in enumerate(asked)
    ]
    return [int(each) for each in within.select(sums).collect().row(0)] if asked else []


def matrix(cube: pl.DataFrame, conditions: tuple[Condition, ...]) -> Mapping[tuple[str, str], int]:
    """Return the transition matrix of the decisions that hold all conditions; cells that are not zero."""
    within = cube.lazy().filter(expr_of(conditions)).group_by("from", "to").agg(pl.col("n").sum())
    order = {state: place for place, state in enumerate(STATES)}
    rows = sorted(within.collect().iter_rows(), key=lambda row: (order[row[0]], order[row[1]]))
    return {(before, after): int(n) for before, after, n in rows}


def by(cube: pl.DataFrame, side: Side, conditions: tuple[Condition, ...]) -> dict[Key, int]:
    """Count the decisions that hold all conditions by tool, tenant, or the policies they came out by.

    A decision of two policies counts for each.
    """
    within = cube.lazy().filter(expr_of(conditions))
    if side != "policy":
        found = within.group_by(side).agg(pl.col("n").sum()).collect()
        return {Key(side, value): int(n) for value, n in found.iter_rows()}
    blamed = within.select("n", "status", looser=pl.col("to") < pl.col("from"), policy=BLAMED)
    named = blamed.filter(pl.col("policy").list.len() > 0).select("n", pl.col("policy").list.unique())
    unnamed = blamed.filter(pl.col("policy").list.len() == 0, pl.col("status") == "decided")
    nobody = unnamed.group_by("looser").agg(pl.col("n").sum())
    by_name = named.explode("policy").group_by("policy").agg(pl.col("n").sum())
    policies, none = pl.collect_all([by_name, nobody])
    found_keys = {Key("policy", value): int(n) for value, n in policies.iter_rows()}
    return found_keys | {Key("policy", None, looser): int(n) for looser, n in none.iter_rows()}
