"""The explorer's table: narrow columns from memory, the arguments of the rows that are seen from the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.viewing.rows import MAX_CELL, Column, FrameRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.exploring.index import Index
    from workbench.lake import Lake

COLUMNS = (
    Column(name="decided_at", title="decided (UTC)", kind="time", help="when the decision was made, UTC"),
    Column(name="verdict", title="verdict", kind="state", width=86, help="as recorded"),
    Column(name="tool", title="tool", width=142),
    Column(name="args", title="arguments", kind="code", width=250, help="as given, JSON, shortened", sortable=False),
    Column(name="resource", title="resource", kind="code", width=150),
    Column(name="principal", title="principal", kind="code", width=170),
    Column(name="tenant", title="tenant", width=110),
    Column(name="session_id", title="session", width=120),
    Column(name="step", title="step", kind="number", width=54, help="order within the session, from 0"),
    Column(name="reason_code", title="reason", width=120),
    Column(name="policies", title="determined by", kind="code", width=170, help="ids of the determining policies"),
)  # fmt: skip


class IndexRows(FrameRows):
    """Decisions of an index, in an order of their own."""

    def __init__(self, lake: Lake, index: Index, order: pl.Series | None = None) -> None:
        super().__init__(index.frame, "decision_id", columns=(), order=order)
        self._lake, self._index = lake, index

    @property
    def columns(self) -> Sequence[Column]:
        """What is shown of each."""
        return COLUMNS

    def window(self, start: int, n: int) -> pl.DataFrame:
        """Return rows with the start of their arguments, read from the lake: O(n) where its files are sorted."""
        rows = self._at(start, n)
        if not rows.height:
            return pl.DataFrame(schema=dict.fromkeys((column.name for column in COLUMNS), pl.String))
        found = rows.join(self._args(rows), on="decision_id", how="left", maintain_order="left")
        shown = found.join(self._index.sets, on="policies", how="left", maintain_order="left")
        return shown.with_columns(policies="ids").select(column.name for column in COLUMNS)

    def _args(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the first characters of the rows' arguments: files that hold none of them are skipped."""
        ends = (rows["position"].min(), rows["position"].max())
        wanted = (
            pl.col("tenant").is_in(rows["tenant"].unique().cast(pl.String).to_list())
            & pl.col("position").is_between(*ends)
            & pl.col("decision_id").is_in(rows["decision_id"].to_list())
        )
        cut = pl.col("args").str.slice(0, MAX_CELL + 1)
        return self._lake.decisions.filter(wanted).select("decision_id", cut).collect()

    def sorted(self, column: str, *, descending: bool) -> IndexRows:
        """Return them in another order."""
        if column == "policies":
            return self._by_policies(descending)
        found = super().sorted(column, descending=descending)
        return IndexRows(self._lake, self._index, found.order)

    def _by_policies(self, descending: bool) -> IndexRows:  # noqa: FBT001 - as `sorted` has it
        text = self._index.sets.select("policies", by=pl.col("ids").list.join(", "))
        codes = self.frame.select("policies").join(text, on="policies", how="left", maintain_order="left")
        named = FrameRows(codes.with_columns(decision_id=self.frame["decision_id"]), order=self.order)
        return IndexRows(self._lake, self._index, named.sorted("by", descending=descending).order)
