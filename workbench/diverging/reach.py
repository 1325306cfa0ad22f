"""Which decisions an earlier change reaches, and which change that is: joins over hashed keys.

One rule: a change reaches only what comes later in log order, and of several the earliest is named.

Cost: a hash join of all decisions for each counter and lookup in force, with the keys of the changed ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from workbench.diverging.gathering import counter_column, lookup_column, scope_column
from workbench.diverging.keys import UIDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.diverging.gathering import Gathered

THROUGH = ("limit", "entity", "unknown")
"""By what a change reaches another session: `limit` a shared counter, `entity` what the action writes, `unknown`
limits or facts of a version that nobody can show."""
_NEVER = np.iinfo(np.uint32).max


class _Way(NamedTuple):
    """One way by which changes reach decisions."""

    sources: pl.DataFrame
    """`order`, `key`, and `at` where changes are forgotten."""
    targets: pl.DataFrame
    """`order`, `key`, and `at`; null keys read nothing."""
    through: str = ""
    window_ms: int | None = None
    """How long a change is remembered; None: for ever."""


def reached(found: Gathered) -> pl.DataFrame:
    """Say what reaches each decision.

    Returns:
        A row a decision, in the order of the replays: `in_session`, `across` (UInt32: `order` of the earliest change
        that reaches it so; null: none does), `through` (Enum of `THROUGH`: by what that of `across` does), `order`.
    """
    rows = found.rows
    sessions = _hits(_Way(_keyed(rows.filter("marks"), "session"), _keyed(rows, "session")))
    across = np.full(rows.height, _NEVER, np.uint32)
    through = np.full(rows.height, -1, np.int8)
    for way in _ways(found) if rows["acts"].any() else ():
        hits = _hits(way)
        place, first = hits["order"].to_numpy(), hits["first"].to_numpy()
        nearer = first < across[place]
        across[place[nearer]] = first[nearer]
        through[place[nearer]] = THROUGH.index(way.through)
    table = pl.Series([*THROUGH], dtype=pl.Enum(THROUGH))
    told = rows.select(
        "order",
        "place",
        across=pl.Series(across).replace(_NEVER, None),
        through=table.gather(pl.Series(through, dtype=pl.Int32).replace(-1, None)),
    )
    in_session = sessions.rename({"first": "in_session"})
    return told.join(in_session, on="order", how="left", maintain_order="left").sort("place")


def _hits(way: _Way) -> pl.DataFrame:
    """`order` of the decisions that are reached, once each, and `first`, of the earliest change that does."""
    table = way.sources.group_by("key").agg(first=pl.col("order").min())
    hits = way.targets.join(table, on="key", how="inner").filter(pl.col("first") < pl.col("order"))
    if way.window_ms is not None:
        hits = _remembered(hits, way.sources, way.window_ms)
    return hits.group_by("order").agg(pl.col("first").min())


def _remembered(hits: pl.DataFrame, sources: pl.DataFrame, window_ms: int) -> pl.DataFrame:
    """Hits whose key was changed so shortly before that the window still holds it; `first` as of the whole log."""
    # The latest time of a change before it decides: were that one forgotten, so would all of them be.
    latest = sources.sort("order").with_columns(latest=pl.col("at").cum_max().over("key"))
    found = hits.sort("order").join_asof(
        latest.select("order", "key", "latest"),
        on="order",
        by="key",
        allow_exact_matches=False,
        check_sortedness=False,  # both were just sorted; Polars cannot see it within groups
    )
    return found.filter(pl.col("at") - pl.col("latest") < window_ms)


def _ways(found: Gathered) -> Iterator[_Way]:
    rows, acting = found.rows, found.rows.filter("acts")
    for number, counter in enumerate(found.counters):
        targets = _keyed(rows, counter_column(number), "at")
        sources = _keyed(acting, scope_column(number), "at")
        yield _Way(sources, targets, "limit", counter.window_ms)
    uids, own, shared = _written(found)
    for name in UIDS:
        yield _Way(uids, _keyed(rows, name), "entity")
    patched = pl.concat([_keyed(found.patched, name) for name in UIDS])
    yield _Way(uids, patched, "entity")
    for number, lookup in enumerate(found.lookups):
        written = shared if lookup.shared else own
        both = [_keyed(frame, lookup_column(number)) for frame in (rows, found.patched)]
        yield _Way(written, pl.concat(both), "entity")
    yield _Way(_keyed(acting, "tenant"), _keyed(rows.filter("wide"), "tenant"), "unknown")


def _keyed(frame: pl.DataFrame, column: str, *more: str) -> pl.DataFrame:
    return frame.select("order", pl.col(column).alias("key"), *more).drop_nulls("key")


def _written(found: Gathered) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """What changed actions write, as (`order`, `key`): by uid, by id in the tenant, and by id for all tenants.

    What they declare; where they declare nothing, or may run with other arguments than were recorded, their resource,
    too, as it was and as patches make it. A tool that only reads writes nothing.
    """
    writing = found.rows.filter(pl.col("acts") & ~pl.col("reads"))
    ids = pl.col("writes id")
    listed = writing.select("order", "tenant", ids, kind="writes type").drop_nulls("writes id")
    each = listed.explode("writes id", "kind").drop_nulls()
    declared = each.select(
        "order", uid=pl.col("tenant") ^ pl.col("kind") ^ ids, own=pl.col("tenant") ^ ids, shared=ids
    )
    undeclared = writing.filter(ids.is_null() | pl.col("elsewhere"))
    patched = found.patched.join(undeclared.select("order"), on="order", how="semi")
    resource = {"uid": "resource", "own": "resource own", "shared": "resource any"}
    every = pl.concat([declared, undeclared.select("order", **resource), patched.select("order", **resource)])
    uid, own, shared = (_keyed(every, name).unique() for name in resource)
    return uid, own, shared
