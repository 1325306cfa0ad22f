"""From decisions to clusters: each quantity summed once, then tallied.

One rule: decisions are read once; what comes out is per quantity a tally of clusters with equal sums, from which all
intervals follow. A null in a quantity is an error, never a zero.

Accepted: sums are Float64, exact to 2^53.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from workbench.errors import ColumnUnknown, NotEstimable
from workbench.splitting import SESSION
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.weighing.quantities import Quantity

    ClusterBy = Sequence[str | pl.Expr] | pl.LazyFrame | pl.DataFrame

ALL = "_all"
"""Ends the name of a sum over all of a cluster, beside that over one slice of it."""

_AT_ONCE = 12
"""Quantities summed in one pass: bounds the memory to some 30 numbers a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustered:
    """Decisions that know their session, cluster and slice, each by its number."""

    rows: pl.DataFrame
    """Columns that quantities read, `_session` and `_slice`."""
    cluster: pl.Series
    """The cluster of each session."""
    slices: pl.DataFrame | None
    """The values of each slice; None: no slices."""

    def numbers(self, rows: pl.DataFrame) -> pl.Series:
        """Return the cluster of each row, of its `_session`."""
        return self.cluster.gather(rows["_session"])


def clustered(
    frame: pl.LazyFrame, quantities: Sequence[Quantity], cluster: ClusterBy, by: Sequence[str]
) -> Clustered:
    """Read what quantities need, with the cluster and slice of each decision.

    Args:
        frame: one row a decision.
        quantities: what will be summed.
        cluster: columns of `frame`, expressions over it, or a table that gives a session (or any of its columns that
            `frame` has) its cluster in a column `cluster`.
        by: columns of `frame` to slice by.

    Raises:
        ColumnUnknown: a column is not in the frame.
        NotEstimable: a decision has no cluster, or a session several.
    """
    known = frame.collect_schema().names()
    for name in (*SESSION, *by):
        if name not in known:
            raise ColumnUnknown(name, known, "the comparison")
    joined, keys = _with_cluster(frame, cluster, known)
    slices = {f"_slice_{place}": pl.col(name) for place, name in enumerate(by)}
    read = {root for each in quantities for root in _roots(each)} | set(SESSION)
    rows = joined.select(sorted(read), **keys, **slices).collect()
    for key, given in keys.items():
        if missing := rows[key].null_count():
            raise NotEstimable(
                f"{missing:,} decisions have no cluster (`{visible(str(given.meta.output_name()))}` is null); "
                "give each one, as `pl.coalesce(column, 'session_id')`"
            )
    rows, sessions = _numbered(rows, (*SESSION, *keys), "_session")
    _require_whole(sessions)
    sessions, _ = _numbered(sessions, tuple(keys), "_cluster")
    if not slices:
        return Clustered(rows=rows, cluster=sessions["_cluster"], slices=None)
    rows, values = _numbered(rows, tuple(slices), "_slice")
    return Clustered(rows=rows, cluster=sessions["_cluster"], slices=values)


def _require_whole(sessions: pl.DataFrame) -> None:
    """Refuse clusters that divide a session: what hangs together would count as independent."""
    several = sessions.group_by(SESSION).len().filter(pl.col("len") > 1).sort(SESSION)
    if several.height:
        raise NotEstimable(
            f"{several.height:,} sessions are in several clusters, the first `{visible(several['session_id'][0])}`; "
            "a cluster is a session or wider, as `cluster=('tenant', 'session_id')`"
        )


def _numbered(rows: pl.DataFrame, columns: Sequence[str], name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Number the combinations of some columns: rows with their number, and the combinations in its order."""
    same = {late for at, late in enumerate(columns) for early in columns[:at] if _equal(rows, early, late)}
    told = [
        column for column in columns if column not in same
    ]  # one of two equal columns is enough to look up
    table = rows.lazy().select(columns).unique(told, keep="any").collect().with_row_index(name)
    found = rows.lazy().join(
        table.lazy().select(*told, name), on=told, how="left", nulls_equal=True, maintain_order="left"
    )
    return found.collect(), table.drop(name)


def _equal(rows: pl.DataFrame, one: str, other: str) -> bool:
    return rows[one].dtype == rows[other].dtype and rows[one].equals(rows[other])


def _with_cluster(
    frame: pl.LazyFrame, cluster: ClusterBy, known: Sequence[str]
) -> tuple[pl.LazyFrame, Mapping[str, pl.Expr]]:
    if isinstance(cluster, pl.LazyFrame | pl.DataFrame):
        table = cluster.lazy()
        columns = table.collect_schema().names()
        on = [name for name in columns if name != "cluster" and name in known]
        if "cluster" not in columns or not on:
            raise NotEstimable(
                f"a table of clusters has a column `cluster` and columns of the comparison, as `session_id`; it has "
                f"{', '.join(map(visible, columns))}"
            )
        once = table.select(*on, _cluster="cluster").unique()
        return frame.join(once, on=on, how="left", maintain_order="left"), {"_key_0": pl.col("_cluster")}
    if not cluster:
        raise NotEstimable("name the columns that make a cluster, as `cluster=('tenant', 'session_id')`")
    found = [pl.col(each) if isinstance(each, str) else each for each in cluster]
    for expression in found:
        for name in expression.meta.root_names():
            if name not in known:
                raise ColumnUnknown(name, known, "the comparison")
    return frame, {f"_key_{place}": each for place, each in enumerate(found)}


def _roots(quantity: Quantity) -> set[str]:
    whole = quantity.of.meta.root_names() if quantity.of is not None else []
    return {*quantity.low.meta.root_names(), *quantity.high.meta.root_names(), *whole}


class Tally(NamedTuple):
    """One quantity, summed over each cluster."""

    quantity: Quantity
    equal: pl.DataFrame
    """Clusters with equal sums, a row each combination: `low`, `high`, `size` (its denominator; of a plain total,
    sessions), `rows` (decisions), all Float64; `n` (clusters). Sliced: of the decisions of one `_slice`."""
    cells: pl.LazyFrame
    """One row a cluster. Sliced: a cluster and slice, with what `slice_tests.p_values` needs."""


def tallies(given: Clustered, quantities: Sequence[Quantity], *, sliced: bool = False) -> Iterator[Tally]:
    """Sum each quantity over each cluster, and count clusters with equal sums.

    Args:
        given: the decisions.
        quantities: what is summed.
        sliced: whether each slice is summed by itself.

    Yields:
        Each quantity, in order.

    Raises:
        NotEstimable: a quantity is null in some row, or its `low` above its `high`.

    Cost:
        O(decisions) for each dozen quantities, then O(clusters).
    """
    for begin in range(0, len(quantities), _AT_ONCE):
        some = quantities[begin : begin + _AT_ONCE]
        sums, places = _sums(given, some, sliced=sliced)
        for each, (low, high, size) in zip(some, places, strict=True):
            columns = {"low": low, "high": high, "size": size, "rows": "_rows"}
            yield _tally(each, sums, columns, sliced=sliced)


def _sums(
    given: Clustered, quantities: Sequence[Quantity], *, sliced: bool
) -> tuple[pl.DataFrame, list[tuple[str, str, str]]]:
    """One row a cluster (and slice); equal expressions are summed once."""
    seen: dict[bytes, str] = {}
    wanted: dict[str, pl.Expr] = {}

    def place(expression: pl.Expr) -> str:
        key = expression.meta.serialize()
        if key not in seen:
            seen[key] = f"_sum_{len(seen)}"
            # A null becomes NaN, which no sum forgets. A constant is one row to Polars, not one for each decision.
            number = expression.cast(pl.Float64).fill_null(math.nan)
            wanted[seen[key]] = number.sum() if expression.meta.root_names() else number.first() * pl.len()
        return seen[key]

    places = [
        (place(each.low), place(each.high), "_sessions" if each.of is None else place(each.of))
        for each in quantities
    ]
    by = ["_slice"] if sliced else []
    rows = given.rows.lazy().group_by("_session", *by).agg(**wanted, _rows=pl.len().cast(pl.Float64))
    found = rows.with_columns(_sessions=pl.lit(1.0)).collect()
    found = found.with_columns(_cluster=given.numbers(found))
    sums = pl.col(*wanted, "_rows", "_sessions").sum()
    if given.cluster.n_unique() < given.cluster.len():
        found = found.group_by("_cluster", *by).agg(sums)
    if sliced:
        whole = found.group_by("_cluster").agg(sums.name.suffix(ALL), slices=pl.len())
        found = found.join(whole, on="_cluster", how="left")
    return found, places


def _tally(quantity: Quantity, sums: pl.DataFrame, columns: Mapping[str, str], *, sliced: bool) -> Tally:
    named = {name: pl.col(at) for name, at in columns.items()}
    kept, whole = ("_slice",) if sliced else (), {}
    if sliced:
        whole = {f"{name}{ALL}": pl.col(columns[name] + ALL) for name in ("low", "high", "size")}
    equal = sums.lazy().select(*kept, **named).group_by(pl.all()).agg(n=pl.len()).sort(pl.all()).collect()
    name = visible(quantity.name)
    if any(equal[side].is_nan().any() for side in ("low", "high", "size")):
        raise NotEstimable(
            f"`{name}` is null in some decisions; give what it is at least and at most, never null"
        )
    if (equal["low"] > equal["high"]).any():
        raise NotEstimable(
            f"`{name}` is at least more than at most in some cluster; `low` and `high` are swapped"
        )
    cells = sums.lazy().select(*kept, *(["slices"] if sliced else []), **named, **whole)
    return Tally(quantity, equal, cells)
