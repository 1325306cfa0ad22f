"""Which decisions hold a text in their arguments: read from the lake, batch by batch, and remembered.

One rule: what is not searched yet is not said to be without a hit; a search that was cancelled leaves nothing behind.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import polars as pl

from runtime import trace
from workbench.exploring.filters import SEARCHED, contains

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.exploring.index import Index
    from workbench.lake import Lake

BATCH = 50_000
"""Rows searched between two looks at whether the answer is still wanted."""
MAX_KEPT = 16
"""Texts whose hits are remembered, 125 kB a million rows each."""


class Hits:
    """Searches the decisions of an index. One thread at a time."""

    def __init__(self, lake: Lake, index: Index) -> None:
        self._lake, self._index = lake, index
        self._kept: OrderedDict[str, pl.Series] = OrderedDict()

    def known(self, text: str) -> pl.Series | None:
        """Return what an earlier search found; None: it was not searched, or is forgotten."""
        if text in self._kept:
            self._kept.move_to_end(text)
        return self._kept.get(text)

    def search(
        self, text: str, cancelled: Callable[[], bool], on_part: Callable[[float], object]
    ) -> pl.Series | None:
        """Return whether each row of the index has the text; None: cancelled.

        Args:
            text: what is looked for.
            cancelled: asked after each batch.
            on_part: told the part that is searched, 0 to 1.

        Cost: one pass over `SEARCHED` columns of the lake: a third of a second a million rows of short arguments.
        """
        if (found := self.known(text)) is not None:
            return found
        rows = self._lake.table(trace.DECISIONS).select("writer", "position", hit=contains(text, SEARCHED))
        total, seen, parts = max(1, self._index.frame.height), 0, []
        for batch in rows.collect_batches(chunk_size=BATCH, maintain_order=False):
            if cancelled():
                return None
            parts.append(batch.filter(pl.col("hit")).select("writer", "position"))
            seen += batch.height
            on_part(min(1.0, seen / total))
        mask = (
            self._mask(pl.concat(parts)) if parts else pl.repeat(False, self._index.frame.height, eager=True)
        )
        self._kept[text] = mask
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return mask

    def _mask(self, hits: pl.DataFrame) -> pl.Series:
        own = self._index.frame.select(pl.col("writer").cast(pl.String), "position")
        both = own.join(
            hits.with_columns(hit=True), on=["writer", "position"], how="left", maintain_order="left"
        )
        return both["hit"].fill_null(False)
