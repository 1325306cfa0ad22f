"""Pins: which rows of a lake a reader means, said so that it stays true.

One rule: a pin is logical. It names, for each ledger, the last position included, and below it nothing is missing;
so compaction, vacuum and new rows leave it valid, and the same pin gives the same rows. Delta versions are in it as
a hint for people; no reader needs them.

A drain writes decisions before outcomes, so a reader may find a ledger's decisions up to 100 and its outcomes up to
80 only. Positions have no gaps, which is how such a tail is seen: the pin is put before the first gap, and what lies
beyond waits for the next reader. A row that is lost for good holds the pin back, visibly, rather than being skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from runtime.trace import SCHEMA_VERSION
from workbench.errors import PinUnreachable

FEW_LEDGERS = 64
"""Ledgers up to which a pin is written out as comparisons, from whose like readers see which files they need not
open; a third faster than a look-up, too."""


@dataclass(frozen=True)
class Pins:
    """What a lake is read at."""

    ledgers: Mapping[str, int]
    """Ledger id to the last position included."""
    delta: Mapping[str, int] = field(default_factory=dict)
    """Table name to the Delta version current when the lake was opened: a hint."""
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Return the pins as JSON: `ledgers`, `delta`, `schema_version`."""
        return {
            "ledgers": dict(sorted(self.ledgers.items())),
            "delta": dict(sorted(self.delta.items())),
            "schema_version": self.schema_version,
        }

    @property
    def holds(self) -> pl.Expr:
        """Whether a row of `decisions` or `outcomes` is included; never null."""
        if not self.ledgers:
            return pl.lit(value=False)
        writer, position = pl.col("writer"), pl.col("position")
        if len(self.ledgers) <= FEW_LEDGERS:
            return pl.any_horizontal(
                (writer == ledger) & (position <= last) for ledger, last in sorted(self.ledgers.items())
            )
        lasts = list(self.ledgers.values())
        return position <= writer.replace_strict(list(self.ledgers), lasts, default=0, return_dtype=pl.Int64)

    def __repr__(self) -> str:
        last = ", ".join(f"{writer} up to {position:,}" for writer, position in sorted(self.ledgers.items()))
        return f"Pins({last})"


def pinned(at: Pins | Mapping[str, Any]) -> dict[str, int]:
    """Return ledgers and positions of a pin, however it is given: `lake.pins`, `replay.pins`, or its `ledgers`.

    Raises:
        ValueError: it is none of these.
    """
    found: object = at.ledgers if isinstance(at, Pins) else at
    if isinstance(found, Mapping):
        found = found.get("ledgers", found)
    if isinstance(found, Mapping) and all(type(position) is int for position in found.values()):
        return {str(writer): position for writer, position in found.items()}
    raise ValueError(f"a pin maps ledger ids to positions, as `lake.pins.ledgers` does; got {found!r:.200}")


def heads(rows: pl.LazyFrame) -> dict[str, tuple[int, int]]:
    """Return for each ledger the last position below which nothing is missing, and the last one there is.

    Args:
        rows: `writer` and `position` of decisions and outcomes.

    Cost: one pass over two columns; ledgers with a gap are sorted.
    """
    position = pl.col("position")
    stats = rows.group_by("writer").agg(
        first=position.min(), last=position.max(), n=pl.len().cast(pl.Int64), total=position.sum()
    )
    whole = (pl.col("n") == pl.col("last") - pl.col("first") + 1) & (
        2 * pl.col("total") == (pl.col("first") + pl.col("last")) * pl.col("n")
    )
    found = stats.with_columns(whole=whole).collect()
    ends = {
        writer: (last, last) for writer, last in found.filter("whole").select("writer", "last").iter_rows()
    }
    torn = found.filter(~pl.col("whole"))
    before_gap = (
        _before_gap(rows.filter(pl.col("writer").is_in(torn["writer"].implode()))) if torn.height else {}
    )
    return ends | {w: (before_gap[w], last) for w, last in torn.select("writer", "last").iter_rows()}


def _before_gap(rows: pl.LazyFrame) -> dict[str, int]:
    """The last position before each ledger's first gap."""
    step = pl.col("position").diff().over("writer").fill_null(1)
    ordered = rows.unique().sort("writer", "position").with_columns(gaps=(step > 1).cum_sum().over("writer"))
    ends = ordered.filter(pl.col("gaps") == 0).group_by("writer").agg(pl.col("position").max())
    return dict(ends.collect().iter_rows())


def require_reachable(wanted: Mapping[str, int], found: Mapping[str, tuple[int, int]], lake: str) -> None:
    """Refuse a pin that this lake cannot honour.

    Raises:
        PinUnreachable: the lake does not hold a ledger, or not all of its rows up to the position.
    """
    for writer, position in wanted.items():
        if writer not in found:
            known = ", ".join(sorted(found)) or "none"
            raise PinUnreachable(f"the lake at {lake} holds no ledger {writer!r}; it has {known}")
        if position > found[writer][0]:
            raise PinUnreachable(
                f"the lake at {lake} holds ledger {writer!r} up to position {found[writer][0]:,}, "
                f"the pin asks for {position:,}; drain that ledger, or open a copy that has it"
            )
