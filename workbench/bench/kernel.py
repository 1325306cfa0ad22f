"""How fast the kernel decides: raw columns in, masks of satisfied and erroring policies out, for every call.

One rule: what is timed starts at the raw columns and ends at masks of every row: ids become rows of entity tables,
policies are compiled, and attributes are reached, all inside. Dividing the calls by tool is timed, too, unless they
come divided, as arguments do once they are read: every tool has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.bench.desk import TOOLS
from workbench.bench.kernel_world import RESOURCE_TYPES, variables_of
from workbench.columnar.compiler import literal_column
from workbench.columnar.frames import kernel_of
from workbench.columnar.lowering import collected
from workbench.columnar.masks import lazy_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.bench.kernel_world import DeskInput
    from workbench.columnar.frames import Kernel


def decide(given: DeskInput, divided: Mapping[str, pl.DataFrame] | None = None) -> dict[str, pl.DataFrame]:
    """Decide every call.

    Args:
        given: calls, tables and policies.
        divided: the calls by tool, as `divide` gives them; None: they are divided here.

    Returns:
        By tool, one row a call of the tool, in order: `row` (UInt32, of the input), `satisfied_<w>`, `errored_<w>`
        and `refused` as `workbench.columnar.masks.lazy_masks` gives them.
    """
    count = len(given.policies.every)
    found = {}
    for tool, rows in _by_tool(given).items() if divided is None else _lazy(divided).items():
        masks = lazy_masks(kernel(given, tool), _with_rows(given, tool, rows), count, keep=["row"])
        found[tool] = collected(masks, given.rows.height)
    return found


def divide(given: DeskInput) -> dict[str, pl.DataFrame]:
    """The calls of each tool: the raw columns, and `row` (UInt32), their row in the input."""
    return {tool: rows.collect(engine="streaming") for tool, rows in _by_tool(given).items()}


def _lazy(divided: Mapping[str, pl.DataFrame]) -> dict[str, pl.LazyFrame]:
    return {tool: rows.lazy() for tool, rows in divided.items()}


def _by_tool(given: DeskInput) -> dict[str, pl.LazyFrame]:
    rows = given.rows.with_row_index("row").lazy()
    return {tool: rows.filter(pl.col("tool") == tool) for tool in TOOLS}


def kernel(given: DeskInput, tool: str) -> Kernel:
    """Compile the policies for the calls of a tool."""
    return kernel_of(variables_of(given, tool), given.policies.every, given.world)


def _with_rows(given: DeskInput, tool: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The calls of one tool, with rows of entity tables for ids."""
    literals = {literal_column(ref): given.world.code(ref) for ref in given.policies.literals}
    return rows.with_columns(
        _row(given, "agent", "Agent").alias("principal"),
        _row(given, "resource", RESOURCE_TYPES[tool]).alias("resource"),
        _row(given, "customer", "Customer").alias("customer row"),
        pl.col("country").is_not_null().alias("customer known"),
        *(pl.lit(code, pl.UInt32).alias(name) for name, code in literals.items()),
    )


def _row(given: DeskInput, name: str, kind: str) -> pl.Expr:
    """An id as a row of its type's table."""
    if given.keys == "strings":
        return pl.col(name).cast(given.ids[kind]).to_physical().cast(pl.UInt32)
    codes = pl.col(name).to_physical().cast(pl.UInt32)
    return codes - len(given.ids["Order"].categories) if kind == "Ticket" else codes
