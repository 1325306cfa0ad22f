"""What a night keeps of its sessions: the sums of each, and how many have equal ones.

One rule: sums are added, never averaged, so nights and parts of a log add up to all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.splitting import SESSION, clusters
from workbench.weighing.quantities import BY_NAME, Quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.compare import Diff

TALLY = {"quantity": pl.String, "low": pl.Float64, "size": pl.Float64, "high": pl.Float64, "n": pl.Int64}
"""Columns of a tally: sessions (`n`) whose sums of a quantity are equal. `size`: of how many; of a total, 1."""

PARTS = ("low", "size", "high")

CLUSTER = "cluster"
"""Column of sums that names what a session belongs to, where that is wider than the session."""


def sums_of(diff: Diff, quantities: Sequence[Quantity], cluster: Sequence[str] = SESSION) -> pl.DataFrame:
    """Sum each quantity over each session of a comparison.

    Args:
        diff: the comparison.
        quantities: what is summed.
        cluster: what is independent of each other: columns of the comparison, or names of labels on sessions.

    Returns:
        One row a session: `tenant`, `session_id` (String), `decisions` (Int64), for each quantity `<name>.low`,
        `<name>.size`, `<name>.high` (Float64, never null), and `cluster` (String) where it is wider than a session.

    Raises:
        ColumnUnknown: the cluster is neither a column nor a label on sessions.

    Cost: one pass over the comparison.
    """
    wanted: dict[str, pl.Expr] = {"decisions": pl.len().cast(pl.Int64)}
    for each in quantities:
        size = pl.lit(1.0) if each.of is None else each.of.sum().cast(pl.Float64)
        parts = (each.low.sum().cast(pl.Float64), size, each.high.sum().cast(pl.Float64))
        wanted |= {f"{each.name}.{part}": made for part, made in zip(PARTS, parts, strict=True)}
    rows = diff.stakes.columns(diff)
    known = diff.frame.collect_schema().names()
    own = [name for name in cluster if name not in SESSION and name in known]
    keys = [pl.col(name).cast(pl.String) for name in SESSION]
    found = rows.group_by(keys).agg(**wanted, **{f"_{name}": pl.col(name).first() for name in own})
    sums = found.sort(SESSION).collect()
    if tuple(cluster) == SESSION:
        return sums
    sessions = sums.select(*SESSION, *(pl.col(f"_{name}").alias(name) for name in own))
    named = clusters(sessions, diff.labels, tuple(cluster), known=known)
    return sums.drop(f"_{name}" for name in own).with_columns(named.cast(pl.String).alias(CLUSTER))


def clustered(sums: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the sums of each cluster, from those of sessions; without wider clusters, as they are."""
    if CLUSTER not in sums.columns:
        return sums
    parts = [pl.col(f"{name}.{part}").sum() for name in names for part in PARTS]
    return sums.group_by(CLUSTER).agg(parts)


def tally_of(sums: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Count sessions with equal sums; columns as in `TALLY`, sorted.

    Args:
        sums: one row a session, or wider cluster, as `sums_of` gives them.
        names: of the quantities.
    """
    if not names:
        return pl.DataFrame(schema=TALLY)
    parts = [
        sums.lazy()
        .select(pl.lit(name).alias("quantity"), *(pl.col(f"{name}.{part}").alias(part) for part in PARTS))
        .filter(pl.col("size") > 0)
        .group_by(pl.all())
        .agg(n=pl.len().cast(pl.Int64))
        for name in names
    ]
    return pl.concat(parts).sort(*TALLY).select(list(TALLY)).collect()


def together(tallies_: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the tally of all nights."""
    rows = pl.concat([pl.DataFrame(schema=TALLY), *tallies_])
    return rows.group_by(*list(TALLY)[:-1]).agg(pl.col("n").sum()).sort(*list(TALLY)[:-1])


def measures(tally: pl.DataFrame) -> dict[str, float]:
    """Return each quantity of a tally, exact on this log, by name: `<quantity>.low` and `.high`.

    Shares as shares; totals as totals. What there is none of is left out.
    """
    found: dict[str, float] = {}
    for (name,), rows in tally.partition_by("quantity", as_dict=True, maintain_order=True).items():
        low, size, high = (float((rows[part] * rows["n"]).sum()) for part in PARTS)
        over = size if BY_NAME[str(name)].of is not None else 1.0
        found |= {f"{name}.low": low / over, f"{name}.high": high / over}
    return found
