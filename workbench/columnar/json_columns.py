"""JSON texts of a declared record as typed columns.

One rule: a row holds exactly what `decode(project(parse(text)))` gives; or nothing, and then it is `bad`, with the
reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.json_leaves import Leaves, leaves_of, written
from workbench.columnar.json_plan import plan_of
from workbench.columnar.json_rows import Cell, Refused, row_cells
from workbench.columnar.json_scan import REFUSED, SURE, scan, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.schema import Record
    from workbench.columnar.json_plan import Coder, Form, Plan
    from workbench.columnar.layouts import Layout

__all__ = ["Typed", "read_json", "read_typed", "typed"]


@dataclass(frozen=True, slots=True)
class Typed:
    """A record as typed columns, one row a text."""

    columns: pl.DataFrame
    """As the layouts name them; null: absent. Entities are ids (String, or List[String] in sets), see `refs`."""
    layouts: Mapping[str, Layout]
    """By attribute of the record; fixed by the type alone."""
    refs: Mapping[str, str]
    """Entity type by the column of its ids; the caller puts codes in their places."""
    bad: pl.DataFrame
    """`row` (UInt32), `reason` (String), by row: what the projection or Cedar refuses. All columns are null there."""


def typed(
    leaves: Leaves, record: Record, *, form: Form, prefix: str = "", coder: Coder | None = None
) -> Typed:
    """Read leaves, patched ones too, into typed columns. See `read_typed`."""
    found = read_typed(written(leaves, record, form=form), record, form=form, prefix=prefix, coder=coder)
    if leaves.refused.is_empty():
        return found
    bad = found.bad.join(leaves.refused, on="row", how="left", maintain_order="left")
    return replace(found, bad=bad.select("row", pl.coalesce("reason_right", "reason").alias("reason")))


def read_typed(
    texts: pl.Series, record: Record, *, form: Form, prefix: str = "", coder: Coder | None = None
) -> Typed:
    """Read JSON texts into typed columns.

    Args:
        texts: String; a null is bad.
        record: declared type.
        form: of the JSON.
        prefix: put before the name of every column.
        coder: codes of entities inside sets of records or sets; None: rows with such are bad.

    Cost: rows whose text is canonical JSON without escapes and exponents by columns, others in Python.
    """
    plan = plan_of(record, form, prefix)
    found = scan(texts, plan, [column.name for column in plan.columns], coder)
    return _typed(found, texts, plan, coder)


def read_json(
    texts: pl.Series, record: Record, *, form: Form, prefix: str = "", coder: Coder | None = None
) -> tuple[Leaves, Typed]:
    """Read JSON texts into leaves and typed columns in one pass. See `take_leaves` and `read_typed`."""
    plan = plan_of(record, form, prefix)
    names = [*(leaf.text for leaf in plan.leaves), *plan.places.values()]
    values = [column.name for column in plan.columns]
    found = scan(texts, plan, [*names, *values], coder)
    leaves = found.select(*names, SURE)
    return leaves_of(leaves, texts, plan), _typed(found.select(*values, SURE), texts, plan, coder)


def _typed(found: pl.DataFrame, texts: pl.Series, plan: Plan, coder: Coder | None) -> Typed:
    bad: dict[int, str] = {}

    def read(row: int, text: str | None) -> Mapping[str, Cell]:
        try:
            return row_cells(text, plan, coder)
        except Refused as exc:
            bad[row] = str(exc)
            return {}

    columns = settle(found, texts, read)
    reasons = pl.DataFrame({"row": list(bad), "reason": list(bad.values())}, schema=REFUSED)
    return Typed(columns, plan.layouts, plan.refs, reasons)
