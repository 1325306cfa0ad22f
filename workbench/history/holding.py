"""Why rows are held back from the columns: the first reason each has."""

from __future__ import annotations

import polars as pl


class Holding:
    """Reasons by row of a part; a row without one is decided in columns."""

    def __init__(self, height: int) -> None:
        self.why = pl.Series("why", [None], dtype=pl.String).new_from_index(0, height)
        """String, a row a row; null: not held."""

    def add(self, where: pl.Series, why: str) -> None:
        """Hold the rows in which `where` (Boolean) is true."""
        if where.any():
            frame = pl.DataFrame({"why": self.why, "where": where})
            said = pl.coalesce("why", pl.when("where").then(pl.lit(why)))
            self.why = frame.select(why=said)["why"]

    def add_rows(self, found: pl.DataFrame, what: str) -> None:
        """Hold `row`s (UInt32), each for its own `reason` (String)."""
        if found.height:
            said = (pl.lit(f"{what}: ") + pl.col("reason")).alias("said")
            more = found.unique("row").select("row", said)
            frame = pl.DataFrame({"why": self.why}).with_row_index("row")
            joined = frame.join(more, on="row", how="left", maintain_order="left")
            self.why = joined.select(why=pl.coalesce("why", "said"))["why"]

    def add_all(self, why: str) -> None:
        """Hold every row."""
        self.why = self.why.fill_null(why)

    @property
    def free(self) -> pl.Series:
        """Rows (UInt32) that are not held."""
        return self.why.is_null().arg_true()
