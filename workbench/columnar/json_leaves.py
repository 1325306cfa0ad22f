"""JSON texts of a declared record as columns of their leaves' texts, and back.

One rule: a row's leaves say its text exactly, or the row is `odd`; where they say nothing at all, it is `refused`.
Rows are cut by columns (`json_cut`); the few that do not fit are parsed (`json_rows`).

The texts of a leaf are kept as canonical JSON has them, with quotes and escapes, because patches are made of them. It
writes `5.0` as `5`: leaves of an odd row may read otherwise than its text; read that one with `read_typed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.json_plan import Branch, Form, Leaf, Path, key_text, plan_of
from workbench.columnar.json_rows import Refused, row_cells, row_leaves
from workbench.columnar.json_scan import REFUSED, scan, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.schema import Record
    from workbench.columnar.json_plan import Plan

__all__ = ["Form", "Leaves", "Path", "take_leaves", "written"]

_ODD = "odd"


@dataclass(frozen=True, slots=True)
class Leaves:
    """Texts of leaves, one row a text."""

    frame: pl.DataFrame
    """One String column a leaf: its canonical JSON, null: absent. One Boolean column an optional record: it is
    there."""
    columns: Mapping[Path, str]
    """Column of each leaf, by its JSON members."""
    odd: pl.Series
    """Boolean, never null: the text is not what the leaves say, byte for byte (not canonical, or refused)."""
    records: Mapping[Path, str] = field(default_factory=dict)
    """Column of each optional record, by its JSON members."""
    refused: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REFUSED))
    """`row` (UInt32), `reason` (String) of rows without leaves: no JSON, undeclared members."""

    def take(self, rows: pl.Series) -> Leaves:
        """Leaves of these rows, in this order; each may be named once."""
        places = pl.DataFrame({"row": rows.cast(pl.UInt32)}).with_row_index("new")
        refused = places.join(self.refused, on="row", maintain_order="left").select(
            row="new", reason="reason"
        )
        return Leaves(self.frame[rows], self.columns, self.odd.gather(rows), self.records, refused)


def take_leaves(texts: pl.Series, record: Record, *, form: Form) -> Leaves:
    """Take the leaves of JSON texts of a declared record.

    Args:
        texts: String; a null is refused.
        record: declared type.
        form: of the JSON.

    Cost: rows whose text is canonical JSON without escapes and exponents by columns, others in Python.
    """
    plan = plan_of(record, form)
    names = {leaf.path: leaf.text for leaf in plan.leaves}
    return leaves_of(scan(texts, plan, [*names.values(), *plan.places.values()]), texts, plan)


def leaves_of(found: pl.DataFrame, texts: pl.Series, plan: Plan) -> Leaves:
    """Make leaves of a scan; see `take_leaves`."""
    names = {leaf.path: leaf.text for leaf in plan.leaves}
    refused: dict[int, str] = {}

    def read(row: int, text: str | None) -> dict[str, str | bool | None]:
        try:
            leaves, exact = row_leaves(text, plan)
        except Refused as exc:
            refused[row] = _reason(text, plan, exc)
            return {_ODD: True}
        return {**leaves, _ODD: not exact}

    made = settle(found.with_columns(pl.lit(value=False).alias(_ODD)), texts, read)
    rows = pl.DataFrame({"row": list(refused), "reason": list(refused.values())}, schema=REFUSED)
    return Leaves(made.drop(_ODD), names, made[_ODD], plan.places, rows)


def _reason(text: str | None, plan: Plan, found: Refused) -> str:
    """Why the runtime refuses a text, rather than why it has no leaves."""
    try:
        row_cells(text, plan, None)
    except Refused as exc:
        return str(exc)
    return str(found)


def written(leaves: Leaves, record: Record, *, form: Form) -> pl.Series:
    """Write each row's canonical JSON text (RFC 8785) again.

    Returns:
        String, in order, named `text`; null where the row was refused.
    """
    text = _object(plan_of(record, form).root)
    # A record without leaves has a frame without columns, which knows no height.
    frame = leaves.frame.with_columns(leaves.odd.alias(_ODD)).select(
        pl.when(pl.col(_ODD).is_not_null()).then(text).alias("text")
    )
    lost = leaves.refused["row"]
    return frame["text"].scatter(lost, None) if lost.len() else frame["text"]


def _object(branch: Branch) -> pl.Expr:
    members = [_member(each) for each in branch.members]
    if not members:
        return pl.lit("{}")
    body = pl.concat_str(members, separator=",", ignore_nulls=True)
    return pl.concat_str([pl.lit("{"), body, pl.lit("}")])


def _member(member: Leaf | Branch) -> pl.Expr:
    """Name and value; null: absent."""
    key = pl.lit(key_text(member.path[-1]))
    if isinstance(member, Leaf):
        return pl.concat_str([key, pl.col(member.text)])
    text = pl.concat_str([key, _object(member)])
    return text if member.required else pl.when(pl.col(member.place)).then(text)
