"""Which counters of the session policies read, row by row.

One rule: what the runtime keeps is simulated; a counter that only the record knows cannot be, and is not known once
its session has moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from runtime.schema import SESSION
from runtime.session_reads import names_read
from workbench.closed_loop.log import COUNTERS
from workbench.memo import remembered

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from workbench.closed_loop.again import LoopPlan
    from workbench.closed_loop.log import Log

_cache: dict[str, frozenset[str]] = {}


def reads_of(bundle: Bundle) -> frozenset[str]:
    """Return the members of `context.session` that policies may read, whether the runtime keeps them or not."""
    return remembered(_cache, bundle.policy_hash, lambda: frozenset(names_read(bundle.document)))


def kept(names: frozenset[str]) -> tuple[str, ...]:
    """Those that verdicts move."""
    return tuple(name for name in COUNTERS if name in names)


def not_kept(names: frozenset[str]) -> tuple[str, ...]:
    """Those that only the record knows."""
    return tuple(sorted(names - SESSION.keys()))


def counters_of(plan: LoopPlan, log: Log, *, others: bool) -> pl.DataFrame:
    """Return what policies read: one row a recorded bundle, `bundle_version`, `reads`, `others` (List[String]).

    `others`: tell of those that the runtime does not keep.
    """
    versions = log.rows["bundle_version"].unique(maintain_order=True)
    owns = [plan.lake.find_bundle(version) for version in versions]
    reads = [frozenset[str]() if own is None else reads_of(plan.bundle_for(own)) for own in owns]
    lists = pl.List(pl.String)
    return pl.DataFrame(
        {
            "bundle_version": versions,
            "reads": pl.Series([kept(names) for names in reads], dtype=lists),
            "others": pl.Series([not_kept(names) if others else () for names in reads], dtype=lists),
        }
    )


_SIDES = ("low", "high")
_MOVES = tuple(f"{side} {name}" for name in COUNTERS for side in _SIDES)
NOTHING_MOVED = pl.DataFrame(schema={"row": pl.UInt32, **dict.fromkeys(_MOVES, pl.Int64)})
"""What `workbench.closed_loop.session.moved` gives where nothing has."""

_EARLY = ("request", "tenant", "context")


def seen_by_policies(
    moves: pl.DataFrame, reads: pl.DataFrame, log: Log, narrow: pl.DataFrame
) -> pl.DataFrame:
    """Return what policies see of the counters that have moved.

    Args:
        moves: as `workbench.closed_loop.session.moved` gives them.
        reads: as `counters_of` gives them.
        log: the history.
        narrow: `status` and `decided_by` of each row, as it is decided now: stages before policy see no counter.

    Returns:
        One row a row that sees something: `row`, the columns of `moves` (null where policies do not read them), and
        `unknown` (List[String]): `context.session.<name>` of counters that are between bounds or not kept.
    """
    early = (narrow["status"] == "quarantined") | narrow["decided_by"].is_in(_EARLY).fill_null(value=False)
    rows = moves.filter(~early.gather(moves["row"])).join(log.rows.select("row", "bundle_version"), on="row")
    rows = rows.join(reads, on="bundle_version", how="left").sort("row")
    read = {name: pl.col("reads").list.contains(name) for name in COUNTERS}
    between = {
        name: read[name] & pl.col(f"high {name}").ne_missing(pl.col(f"low {name}")) for name in COUNTERS
    }
    unknown = [pl.when(between[name]).then(pl.lit(f"context.session.{name}")) for name in COUNTERS]
    others = pl.concat_str(pl.lit("context.session."), pl.element())
    differs = [pl.when(read[name]).then(pl.col(f"low {name}") != 0) for name in COUNTERS]
    return (
        rows.select(
            "row",
            *(
                pl.when(read[name]).then(f"{side} {name}").alias(f"{side} {name}")
                for name in COUNTERS
                for side in _SIDES
            ),
            unknown=pl.concat_list(
                pl.concat_list(unknown).list.drop_nulls(), pl.col("others").list.eval(others)
            ),
            differs=pl.any_horizontal(*differs, *between.values()) | (pl.col("others").list.len() > 0),
        )
        .filter("differs")
        .drop("differs")
    )


def differing(seen: pl.DataFrame, last: pl.DataFrame) -> pl.DataFrame:
    """Return rows that see other counters than they were decided over last: `row`, `unknown`; sorted."""
    new = seen.join(last, on=["row", *_MOVES], how="anti", nulls_equal=True).select("row", "unknown")
    back = last.join(seen, on="row", how="anti").select("row")
    return pl.concat([new, back], how="diagonal").sort("row")
