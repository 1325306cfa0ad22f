"""A lake that grows: real rows of a reviewed support desk, drained in as many parts as a test wants.

One rule: at its end it holds the very rows that the whole lake holds, in the same Delta tables.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import polars as pl

from runtime import trace
from runtime.lake import LakeStore
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GROWING = (trace.DECISIONS, trace.OUTCOMES)
DESK, REVIEW = "desk-0", "review"
"""Ledgers: of the calls, and of what a review found out later."""


class Growing:
    """A lake below a folder, with the rows of another up to some positions."""

    def __init__(self, folder: Path, whole: Path) -> None:
        self.path = folder / "lake"
        self._whole = open_lake(whole)
        self.ends: dict[str, int] = dict.fromkeys(self._whole.pins.ledgers, 0)
        skipped = shutil.ignore_patterns("_cache", *(table.name for table in GROWING))
        shutil.copytree(whole, self.path, ignore=skipped)

    @property
    def last(self) -> Mapping[str, int]:
        """Where the whole lake ends, by ledger."""
        return self._whole.pins.ledgers

    def grow(self, **to: int) -> Lake:
        """Drain rows up to these positions, by ledger (`desk`, `review`); others stay where they are."""
        wanted = {**self.ends, **{{"desk": DESK, "review": REVIEW}[name]: end for name, end in to.items()}}
        store = LakeStore(self.path, write=True)
        for table in GROWING:
            late = pl.any_horizontal(
                (pl.col("writer") == ledger) & pl.col("position").is_between(self.ends[ledger] + 1, end)
                for ledger, end in wanted.items()
            )
            rows = self._whole.table(table).filter(late).sort("writer", "position").collect()
            if rows.height:
                store.append(table, rows.to_arrow().cast(_schema(table)))
        self.ends = wanted
        return open_lake(self.path)


def _schema(table: trace.Table) -> object:
    from runtime.arrow import arrow_schema

    return arrow_schema(table)
