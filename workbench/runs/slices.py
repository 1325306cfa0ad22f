"""A comparison's numbers by tool, tenant, principal …: one nested run a value, so that MLflow can sort and draw them.

One rule: nothing leaves the denominator. The largest values have a run of their own; the others together are one row
(`REST`) of the table, and are counted in a tag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.certainty import SHARES
from workbench.errors import ColumnUnknown
from workbench.estimating.estimates import estimates
from workbench.masking import leaving
from workbench.metrics import METRICS
from workbench.runs.contents import cut, key, keyed, maker, masked
from workbench.runs.entry import Measure, Run
from workbench.splitting import SESSION, clusters
from workbench.texts import count, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.compare import Diff

MAX_SLICES = 12
"""Values of a column that have a run of their own."""
REST = "(rest)"
"""All other values together."""
NONE = "(none)"
"""A null."""
MAX_NAME = 80
_SLICE = "slice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """A comparison's numbers by some columns."""

    runs: tuple[Run, ...]
    """One a column and value, the largest first; nested in the run whose key is empty."""
    table: pl.DataFrame | None
    """One row a column and value, `REST` among them: `column`, `value`, then numbers by name. None: no columns."""
    tags: Mapping[str, str]
    """What was left out, by column."""


def slices_of(diff: Diff, columns: Sequence[str], *, step: int = 0, most: int = MAX_SLICES) -> Slices:
    """Break a comparison down.

    Args:
        diff: the comparison.
        columns: of `diff.frame`: `tool`, `tenant`, `principal` …; each by itself.
        step: where the numbers stand on MLflow's axis.
        most: values of a column that have a run.

    Returns:
        Counts and shares as in `diff.summary()`; for each share at stake `estimate.<share>.low` and `.high` (exact on
        this log), `.lower` and `.upper` (for future traffic), and `.p_holm` (that the slice is as the rest, adjusted
        over the column's slices). What is 0 in the whole comparison is left out.

    Raises:
        ColumnUnknown: naming the closest.

    Cost: O(decisions) a column; some 3 s on a million.
    """
    known = diff.frame.collect_schema().names()
    for name in columns:
        if name not in known:
            raise ColumnUnknown(name, known, "the comparison")
    tables, runs, tags = [], [], {}
    for name in columns:
        table, left, rows = _sliced(diff, name, most)
        tables.append(table)
        runs += [_run(diff, row, step) for row in table.iter_rows(named=True) if row["value"] != REST]
        if left:
            more = f"{count(left, 'more value')} with {count(rows, 'decision')}, not a run of their own"
            tags[f"redecide.slices_left_out.{key(name)}"] = more
    whole = leaving(pl.concat(tables, how="diagonal")) if tables else None
    return Slices(runs=tuple(runs), table=whole, tags=masked(tags))


def _sliced(diff: Diff, column: str, most: int) -> tuple[pl.DataFrame, int, int]:
    """One column's slices, and how many values and decisions are in the rest."""
    value = pl.col(column).cast(pl.String).fill_null(NONE)
    sizes = (
        diff.frame.group_by(value.alias(_SLICE)).agg(n=pl.len()).sort("n", _SLICE, descending=[True, False])
    ).collect()
    kept = sizes[_SLICE].filter(sizes[_SLICE] != REST).head(most)  # a value of that name is in the rest
    named = pl.when(value.is_in(kept.implode())).then(value).otherwise(pl.lit(REST))
    sliced = replace(diff)
    sliced.__dict__["_rows"] = diff.frame.with_columns(named.alias(_SLICE)).collect()
    order = pl.DataFrame({_SLICE: [*kept, REST], "_order": range(kept.len() + 1)})
    found = sliced.by(_SLICE).collect().join(_estimated(diff, sliced), on=_SLICE, how="left")
    table = found.join(order, on=_SLICE, how="left").sort("_order").drop("_order")
    table = table.with_columns(*_shares()).select(
        pl.lit(column).alias("column"), pl.col(_SLICE).alias("value"), pl.exclude(_SLICE)
    )
    whole = diff.summary()
    table = table.drop(name for name in table.columns if whole.get(name, 1) == 0)
    rest = sizes.filter(~pl.col(_SLICE).is_in(kept.implode()))
    return table, rest.height, int(rest["n"].sum())


def _shares() -> list[pl.Expr]:
    parts = [(each.name, *each.of) for each in METRICS if each.of]
    return [
        pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole)).alias(name)
        for name, part, whole in parts
    ]


def _estimated(diff: Diff, sliced: Diff) -> pl.DataFrame:
    """One row a slice: the shares at stake with their bounds, of those that the comparison estimates."""
    wanted = [
        each.quantity
        for each in diff.estimates.estimates
        if each.quantity.name in SHARES and each.low.clusters.size
    ]
    if not wanted:
        return pl.DataFrame(schema={_SLICE: pl.String})
    found = estimates(
        sliced, wanted, stakes=diff.stakes, simulated=diff.simulated, cluster=_cluster(diff), by=(_SLICE,),
        level=diff.level,
    )  # fmt: skip
    numbers = ("low", "high", "lower", "upper", "p_holm")
    rows = found.frame.filter(pl.col("slice").is_not_null() & (pl.col("of") > 0)).collect()
    wide = rows.select(
        pl.col("slice").alias(_SLICE), "quantity", *(pl.col(name).fill_nan(None) for name in numbers)
    )
    made = [
        wide.filter(pl.col("quantity") == each.name).select(
            _SLICE, *(pl.col(name).alias(f"estimate.{each.name}.{name}") for name in numbers)
        )
        for each in wanted
    ]
    table = pl.DataFrame({_SLICE: rows["slice"].unique()})
    for part in made:
        table = table.join(part, on=_SLICE, how="left")
    return table


def _cluster(diff: Diff) -> Any:
    """What is independent of each other, as `estimates` takes it: columns, or a table where labels say it."""
    known = diff.frame.collect_schema().names()
    if all(name in known for name in diff.cluster):
        return diff.cluster
    columns = [name for name in diff.cluster if name in known]
    sessions = diff.frame.select(*dict.fromkeys((*SESSION, *columns))).unique(maintain_order=True).collect()
    return sessions.select(*SESSION, clusters(sessions, diff.labels, diff.cluster))


def _run(diff: Diff, row: Mapping[str, Any], step: int) -> Run:
    column, value = str(row["column"]), str(row["value"])
    numbers = keyed({
        name: float(number)
        for name, number in row.items()
        if name not in ("column", "value") and number is not None and math.isfinite(number)
    })  # fmt: skip
    said = {
        "redecide.kind": "slice",
        "redecide.slice": column,
        "redecide.slice_value": cut(value),
        "redecide.candidate": " ".join(diff.cand.policy),
        **maker(),
    }
    return Run(
        key=key(f"{column}:{value}"),
        name=shorten(visible(f"{column}: {value}"), MAX_NAME),
        parent="",
        params=masked({"slice": column, "slice.value": cut(value)}),
        measures=tuple(Measure(name=name, value=number, step=step) for name, number in numbers.items()),
        tags=masked(said),
    )
