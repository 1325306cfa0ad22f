"""What a comparison says of future traffic: each quantity with its interval, its effective n, and what could be seen.

One rule: a number is *exact on this log* (`low`, `high`) or an *estimate for future traffic* (`lower`, `upper`), and
says which. The unit of inference is the cluster: the session, or what the caller declares wider.

Where the log does not identify a quantity, it is known to lie between `low` and `high`. The interval then runs from
the lower bound of the one to the upper bound of the other: so it covers all that is possible with the stated level
(Horowitz & Manski 2000, JASA 95:77). Covering only the one true value would take a little less (Imbens & Manski 2004,
Econometrica 72:1845), at the price of not saying what else the data allow. More sessions do not close the gap.

Plain totals are given per session (of the cluster), shares as shares. Future traffic is of the same mix: clusters
drawn as these were. An attacker who adapts is no such draw.

Accepted: a slice's p-value asks whether it differs from the rest; of a quantity that is not identified the larger of
those of both bounds counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import faces
from workbench.errors import NotEstimable
from workbench.estimating.cluster_sums import ALL, clustered, tallies
from workbench.estimating.slice_tests import p_values
from workbench.progress import progress
from workbench.splitting import SESSION
from workbench.statistics.clusters import METHODS, Clusters, Fit, Kind, fit, gather
from workbench.statistics.multiplicity import adjusted
from workbench.statistics.power import minimum_detectable
from workbench.statistics.proportions import Interval, tail
from workbench.texts import visible
from workbench.weighing.stakes import Stakes, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.estimating.cluster_sums import ClusterBy, Clustered, Tally
    from workbench.weighing.at_stake import Simulations
    from workbench.weighing.quantities import Quantity

COUNTED = ("calls", "approvals", "decisions")
"""Units of which a decision counts one at most."""

FRAME: dict[str, Any] = {
    "quantity": pl.String, "text": pl.String, "unit": pl.String, "slice": pl.String, "low": pl.Float64,
    "high": pl.Float64, "total_low": pl.Float64, "total_high": pl.Float64, "of": pl.Float64,
    "exact_on_log": pl.Boolean, "lower": pl.Float64, "upper": pl.Float64, "level": pl.Float64, "method": pl.String,
    "clusters": pl.Int64,
    "effective_n": pl.Float64, "design_effect": pl.Float64, "mde": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64,
    "p_bh": pl.Float64,
}  # fmt: skip
"""Columns of `Estimates.frame`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One quantity, of all clusters or of a slice."""

    quantity: Quantity
    slice: str | None
    """The slice's values; None: all."""
    low: Fit
    """Of what it is at least."""
    high: Fit
    """Of what it is at most."""
    p: float = math.nan
    """That the slice is as the rest; NaN: not a slice, or too little to tell."""
    p_holm: float = math.nan
    """Adjusted over the slices: the chance of any false finding."""
    p_bh: float = math.nan
    """Adjusted over the slices: the expected share of false findings."""

    @property
    def unit(self) -> str:
        """What the numbers are in."""
        return "share" if self.quantity.of is not None else f"{self.quantity.unit} per session"

    @property
    def identified(self) -> bool:
        """Whether the log says what it is, not only between what it lies."""
        return self.low.clusters.total == self.high.clusters.total

    @property
    def method(self) -> str:
        """How its bounds were made: `METHODS`; two where the lower and the upper bound differ in it."""
        return "; ".join(dict.fromkeys((self.low.method, self.high.method)))

    @property
    def effective_n(self) -> float:
        """As many independent decisions (or sessions, of a total) say as much; the fewer of both bounds."""
        return min(self.low.effective_n, self.high.effective_n)

    @property
    def design_effect(self) -> float:
        """By how much clustering inflates a share's variance; NaN of a total."""
        share = self.quantity.of is not None and self.effective_n
        return self.low.clusters.size / self.effective_n if share else math.nan

    def detectable(self, level: float = 0.95) -> float:
        """Return the smallest difference that would be seen with 80 % power."""
        return max(minimum_detectable(side, level) for side in (self.low, self.high))

    def lower(self, alpha: float) -> float:
        """Return the one-sided lower bound for future traffic."""
        return self.low.lower(alpha)

    def upper(self, alpha: float) -> float:
        """Return the one-sided upper bound for future traffic; infinite where nothing bounds it."""
        return self.high.upper(alpha)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the interval for future traffic, over all that the log leaves possible."""
        alpha = tail(level)
        return Interval(self.lower(alpha), self.upper(alpha))

    def row(self, level: float) -> dict[str, object]:
        """Return it as a row of `Estimates.frame`."""
        each, (lower, upper) = self.quantity, self.interval(level)
        numbers = {
            "low": self.low.value, "high": self.high.value, "lower": lower, "upper": upper,
            "effective_n": self.effective_n, "design_effect": self.design_effect, "mde": self.detectable(level),
            "p": self.p, "p_holm": self.p_holm, "p_bh": self.p_bh,
        }  # fmt: skip
        return {
            "quantity": each.name, "text": each.text, "unit": self.unit, "slice": self.slice, "level": level,
            "total_low": self.low.clusters.total, "total_high": self.high.clusters.total,
            "of": self.low.clusters.size, "exact_on_log": self.identified, "method": self.method,
            "clusters": self.low.clusters.count,
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimates(faces.Faces):
    """Quantities of a comparison, exact on its log and estimated for future traffic. Made by `estimates`."""

    estimates: tuple[Estimate, ...]
    """By quantity: of all clusters, then of its slices."""
    level: float
    cluster: str
    """What is one unit of inference, in words."""
    by: tuple[str, ...]
    pins: Mapping[str, str]
    again: Callable[[Sequence[Quantity], Sequence[str]], Estimates] | None = None
    """Makes them of the same comparison in the same way: of some quantities, by other columns. None: they were not
    made of one."""

    def sliced(self, by: Sequence[str], names: Sequence[str]) -> Estimates:
        """Estimate some of these quantities by slices of other columns.

        Args:
            by: columns of the comparison; each combination is a slice.
            names: of quantities that are here.

        Raises:
            NotEstimable: a quantity is not here, or the estimates were not made of a comparison.
            ColumnUnknown: a column is not in the comparison.

        Cost: one pass over the decisions for each dozen quantities.
        """
        quantities = [self[name].quantity for name in names]
        if self.again is None:
            raise NotEstimable(
                "these estimates were not made of a comparison, and cannot be sliced by columns of it"
            )
        return self.again(quantities, by)

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a quantity, and a slice of it.

        Columns: `quantity`, `text`, `unit` (`share`, or per session), `slice` (null: all); *exact on this log*:
        `low`, `high`, `total_low`, `total_high` (the plain sums), `of` (denominator), `exact_on_log` (both bounds
        agree); *estimate for future traffic*: `lower`, `upper` at `level` (null: the data bound nothing), `method`
        (`METHODS`), `clusters`, `effective_n`, `design_effect` (of shares), `mde` (the smallest difference seen with
        80 % power); of slices: `p`, `p_holm`, `p_bh` (differs from the rest; null: too little to tell).
        """
        return pl.LazyFrame([each.row(self.level) for each in self.estimates], schema=FRAME)

    def __getitem__(self, name: str) -> Estimate:
        """Return a quantity's estimate over all clusters.

        Raises:
            NotEstimable: there is none of that name; names the closest.
        """
        return self.slices(name)[None]

    def slices(self, name: str) -> dict[str | None, Estimate]:
        """Return a quantity's estimates by slice; under None that over all.

        Raises:
            NotEstimable: there is none of that name; names the closest.
        """
        found = {each.slice: each for each in self.estimates if each.quantity.name == name}
        if not found:
            known = dict.fromkeys(each.quantity.name for each in self.estimates)
            raise NotEstimable(f"no quantity `{visible(name)}` was estimated; {closest(name, known)}")
        return found

    def page(self) -> faces.Page:
        """Say it: what is exact on the log beside what is estimated, and how."""
        from workbench.estimating.page import page  # noqa: PLC0415 - it imports us

        return page(self)

    def as_dict(self) -> dict[str, Json]:
        """Return all rows, as JSON."""
        rows: list[Json] = [dict(row) for row in self.frame.collect().iter_rows(named=True)]
        return {
            "level": self.level, "cluster": self.cluster, "by": list(self.by), "pins": dict(self.pins),
            "methods": {str(name): text for name, text in METHODS.items()}, "estimates": rows,
        }  # fmt: skip


@progress(None, "estimating")
def estimates(
    diff: Diff,
    quantities: Sequence[Quantity] | None = None,
    *,
    stakes: Stakes | Mapping[str, Any] | str | None = None,
    simulated: Simulations | None = None,
    cluster: ClusterBy = SESSION,
    by: Sequence[str] = (),
    level: float = 0.95,
    resampled: int = 0,
) -> Estimates:
    """Estimate what a comparison's quantities will be on future traffic.

    Args:
        diff: the comparison.
        quantities: what to estimate; None: all that the log's labels and the stakes allow.
        stakes: what is harm, good work and money, as `Stakes.of` takes it.
        simulated: outcomes by simulators, for what the log does not know.
        cluster: what is independent of each other: columns of `diff.frame`, expressions over it, or a table with a
            column `cluster` by session. Each wider than, or as wide as, a session.
        by: columns to slice by; each combination is a slice, tested against the rest.
        level: of each interval.
        resampled: drawings of the cluster bootstrap to use where a variance would be; 0: none.

    Returns:
        The estimates. Reads the decisions once for each dozen quantities.

    Raises:
        NotEstimable: a decision has no cluster, a session several, or a quantity is null.
        ColumnUnknown: a column is not in the comparison.
    """
    tail(level)
    given = Stakes.of(stakes)
    frame = given.columns(diff, simulated)
    wanted = tuple(quantities) if quantities is not None else given.quantities(labelled=_labelled(frame))
    cluster = (cluster,) if isinstance(cluster, str) else cluster
    by = (by,) if isinstance(by, str) else tuple(by)
    with progress(len(wanted), "quantities", unit="number") as advance:
        found = []
        for each in _estimated(clustered(frame, wanted, cluster, by), wanted, resampled):
            found.append(each)
            advance(each.slice is None)
    pins = {"base": diff.base.id, "candidate": diff.cand.id, "policy": diff.cand.policy[1]}

    def again(quantities: Sequence[Quantity], by: Sequence[str]) -> Estimates:
        """The same of other slices."""
        return estimates(
            diff,
            quantities,
            stakes=stakes,
            simulated=simulated,
            cluster=cluster,
            by=by,
            level=level,
            resampled=resampled,
        )

    return Estimates(
        estimates=tuple(found), level=level, cluster=_named(cluster), by=by, pins=pins, again=again
    )


def _labelled(frame: pl.LazyFrame) -> bool:
    return bool(
        frame.select((pl.col("harm").is_not_null() | pl.col("good").is_not_null()).any()).collect().item()
    )


def _named(cluster: ClusterBy) -> str:
    if isinstance(cluster, pl.LazyFrame | pl.DataFrame):
        return "as the table of clusters says"
    if tuple(map(str, cluster)) == SESSION:
        return "sessions"
    return "by " + ", ".join(
        each if isinstance(each, str) else str(each.meta.output_name()) for each in cluster
    )


def _estimated(given: Clustered, wanted: Sequence[Quantity], resampled: int) -> Iterator[Estimate]:
    whole = tallies(given, wanted)
    if given.slices is None:
        yield from (_of(each.quantity, None, each.equal, resampled) for each in whole)
        return
    for each, parts in zip(whole, tallies(given, wanted, sliced=True), strict=True):
        yield _of(each.quantity, None, each.equal, resampled)
        yield from _of_slices(parts, given.slices, resampled)


def _of(quantity: Quantity, name: str | None, tally: pl.DataFrame, resampled: int) -> Estimate:
    low, high = (replace(_fit(quantity, tally, side), resampled=resampled) for side in ("low", "high"))
    return Estimate(quantity=quantity, slice=name, low=low, high=high)


def _fit(quantity: Quantity, tally: pl.DataFrame, side: str) -> Fit:
    kind = _kind(quantity, tally)
    found = _clusters(
        quantity, tally.group_by(side, "size", "rows").agg(pl.col("n").sum()).sort(pl.all()), side
    )
    return fit(found, kind)


def _clusters(quantity: Quantity, tally: pl.DataFrame, side: str) -> Clusters:
    cap = tally["size"] if quantity.of is not None else tally["rows"] if quantity.unit in COUNTED else None
    return gather(
        tally[side].to_numpy(),
        tally["size"].to_numpy(),
        n=tally["n"].to_numpy(),
        cap=None if cap is None else cap.to_numpy(),
    )


def _kind(quantity: Quantity, tally: pl.DataFrame) -> Kind:
    if quantity.of is not None:
        return "share"
    return "signed" if (tally["low"] < 0).any() else "positive"


def _of_slices(parts: Tally, slices: pl.DataFrame, resampled: int) -> Iterator[Estimate]:
    """A quantity's slices, each with its p-values over all of them."""
    p_low, p_high = (
        p_values(
            parts.cells.rename({side: "y", "size": "m", f"{side}{ALL}": f"y{ALL}", f"size{ALL}": f"m{ALL}"})
        )
        for side in ("low", "high")
    )
    found = []
    for (number,), tally in parts.equal.partition_by("_slice", as_dict=True).items():
        name = " / ".join("(none)" if value is None else str(value) for value in slices.row(number))
        both = [side.get(number, math.nan) for side in (p_low, p_high)]
        p = math.nan if any(map(math.isnan, both)) else max(both)
        found.append(replace(_of(parts.quantity, name, tally, resampled), p=p))
    found.sort(key=lambda each: each.slice or "")
    holm, bh = (adjusted([each.p for each in found], method) for method in ("holm", "bh"))
    for each, first, second in zip(found, holm, bh, strict=True):
        yield replace(each, p_holm=float(first), p_bh=float(second))
