"""Money in arguments: what a call asks a budget for, and what it takes once a patch has cut it down.

One rule: an amount is what `runtime.limits.Meter.asks` reads of the arguments as policies see them. Columns read it
where a type holds it as one column; the rest is read by that function itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from runtime.canonical import parse
from runtime.limits import ARGS, Meter
from runtime.projection import ProjectionError, project
from workbench.columnar.json_columns import read_typed
from workbench.history.chunk import record_of
from workbench.history.limiting import amount

if TYPE_CHECKING:
    from runtime.schema import CedarSchema

INVALID = -1
"""Stands for an argument that is no amount."""


def amounts(texts: pl.Series, tool: str, schema: CedarSchema, measure: str) -> pl.Series:
    """Return what calls ask for.

    Args:
        texts: arguments, canonical JSON; null: none.
        tool: whose they are.
        schema: of the policies that decide.
        measure: `args.<path>`.

    Returns:
        Int64, one a text; `INVALID` where it is no amount, 0 for a null.
    """
    action = schema.actions.get(tool)
    if action is None or "args" not in action.context.attrs or texts.is_empty():
        return pl.zeros(texts.len(), dtype=pl.Int64, eager=True)
    record = record_of(action, "args")
    distinct = texts.fill_null("{}").unique(maintain_order=True)
    typed = read_typed(distinct, record, form="arguments")
    found = amount(typed, record, measure.removeprefix(ARGS), distinct.len())
    bad = pl.Series("row", typed.bad["row"].cast(pl.UInt32))
    by_hand = pl.concat([bad, found.is_null().arg_true().cast(pl.UInt32).alias("row")]).unique().sort()
    meter = Meter(measure=measure)
    values = {}
    for row in by_hand:
        try:
            asked = meter.asks(project(parse(distinct[row]), record, "context.args"))
        except ProjectionError:
            asked = 0  # refused before the limits
        values[row] = INVALID if asked is None else asked
    if values:
        found = found.scatter(list(values), list(values.values()))
    found = found.clip(INVALID)
    table = pl.DataFrame({"text": distinct, "amount": found})
    return pl.DataFrame({"text": texts.fill_null("{}")}).join(
        table, on="text", how="left", maintain_order="left"
    )["amount"]
