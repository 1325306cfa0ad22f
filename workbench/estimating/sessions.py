"""Sessions as the unit: their values for a nightly watch, and their outcome before and after.

One rule: one value a session (or declared wider cluster), at least and at most; what the log does not know of a
session stays open, and a p-value is the largest that is possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import faces
from workbench.errors import NotEstimable
from workbench.estimating.cluster_sums import clustered, tallies
from workbench.estimating.page import percent
from workbench.splitting import SESSION
from workbench.statistics.paired import Pairs, difference, mcnemar
from workbench.texts import count, visible
from workbench.weighing.quantities import BY_NAME, Quantity
from workbench.weighing.stakes import Stakes, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.estimating.cluster_sums import ClusterBy
    from workbench.statistics.proportions import Interval
    from workbench.statistics.sequences import Watch


def watch(
    seen: Watch,
    diff: Diff,
    quantity: Quantity | str,
    *,
    stakes: Stakes | Mapping[str, Any] | str | None = None,
    cluster: ClusterBy = SESSION,
) -> Watch:
    """Add a night's sessions to a watch.

    A share is watched as the ratio it is (`Watch(bound=…)`: the most of its denominator in one session); a total as
    the share of sessions that have any of it.

    Args:
        seen: the watch so far.
        diff: the comparison of the night's sessions. A session is looked at in one night only.
        quantity: what is watched, or its name.
        stakes: as `estimates` takes them.
        cluster: as `estimates` takes it.

    Returns:
        The watch with the night in it.

    Raises:
        NotEstimable: no such quantity, or a session larger than the watch's bound.
    """
    wanted = _quantity(quantity)
    frame = Stakes.of(stakes).columns(diff)
    tally = next(tallies(clustered(frame, (wanted,), cluster, ()), (wanted,))).equal
    if wanted.of is None:
        tally = tally.with_columns(
            low=(pl.col("low") > 0).cast(float), high=(pl.col("high") > 0).cast(float), size=1.0
        )
    each = tally.select(pl.col("low", "size", "high").repeat_by("n").explode()).filter(pl.col("size") > 0)
    return seen.see(each["low"].to_numpy(), each["size"].to_numpy(), each["high"].to_numpy())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Paired(faces.Faces):
    """Whether sessions have something, before and after the change. Made by `paired`."""

    before: str
    after: str
    fewest: Pairs
    """As the least sessions lose it and the most gain it, of what the log leaves possible."""
    most: Pairs
    """As the most sessions lose it and the least gain it."""
    p: float
    """Exact McNemar, that losing it is as likely as gaining it: the largest that is possible."""
    interval: Interval
    """Of the share of sessions that have it after, minus before; estimate for future traffic."""
    level: float
    pins: Mapping[str, str]

    def page(self) -> faces.Page:
        """Say it: the pairs, and what they say of a change."""
        names = ("both", "lost", "gained", "neither")
        rows = [(name, getattr(self.fewest, name), getattr(self.most, name)) for name in names]
        left = "" if self.fewest == self.most else "; the log leaves some open, and p is the largest possible"
        low, high = (100 * bound for bound in self.interval)
        moved = f"Share of sessions after minus before: {low:.3g} to {high:.3g} percentage points"
        heads = ("had it", "at one end", "at the other")
        return faces.Page(
            kind="paired",
            title=f"{count(self.fewest.n, 'session')}: {visible(self.before)}, then {visible(self.after)}",
            lines=(
                f"Exact McNemar, one outcome a session: p = {self.p:.4g}{left}.",
                f"{moved}, an estimate for future traffic ({percent(self.level)}).",
            ),
            parts=(faces.Table(title="Sessions, exact on this log", heads=heads, rows=rows),),
            pins=self.pins,
        )

    def as_dict(self) -> dict[str, Json]:
        """Return all of it, as JSON."""
        return {
            "before": self.before, "after": self.after, "p": self.p, "level": self.level,
            "interval": list(self.interval), "sessions": self.fewest.n,
            "fewest_lost": _counts(self.fewest), "most_lost": _counts(self.most),
        }  # fmt: skip


def _counts(pairs: Pairs) -> dict[str, Json]:
    return {"both": pairs.both, "lost": pairs.lost, "gained": pairs.gained, "neither": pairs.neither}


def paired(
    diff: Diff,
    before: Quantity | str = "harm_ran",
    after: Quantity | str = "harm_through",
    *,
    stakes: Stakes | Mapping[str, Any] | str | None = None,
    cluster: ClusterBy = SESSION,
    level: float = 0.95,
) -> Paired:
    """Test whether sessions have something more or less often after the change than before.

    Args:
        diff: the comparison.
        before: a session has it if this is above 0 in it.
        after: the same, under the candidate.
        stakes: as `estimates` takes them.
        cluster: one outcome for each; as `estimates` takes it.
        level: of the interval.

    Raises:
        NotEstimable: no such quantity, or there is no session.
    """
    pair = tuple(map(_quantity, (before, after)))
    given = clustered(Stakes.of(stakes).columns(diff), pair, cluster, ())
    cells = _cells(given.rows.with_columns(_cluster=given.numbers(given.rows)), *pair)
    fewest, most = _pairs(cells, fewest=True), _pairs(cells, fewest=False)
    low, high = difference(most, level).lower, difference(fewest, level).upper
    return Paired(
        before=pair[0].name, after=pair[1].name, fewest=fewest, most=most, p=_largest(fewest, most),
        interval=type(difference(most, level))(low, high), level=level,
        pins={"base": diff.base.id, "candidate": diff.cand.id},
    )  # fmt: skip


def _cells(rows: pl.DataFrame, before: Quantity, after: Quantity) -> pl.DataFrame:
    """Clusters by whether they surely, and possibly, have it before and after."""
    sides = {"a": before.low, "a_may": before.high, "b": after.low, "b_may": after.high}
    each = rows.lazy().group_by("_cluster").agg(**{name: (side > 0).any() for name, side in sides.items()})
    return each.group_by(*sides).agg(n=pl.len()).collect()


def _pairs(cells: pl.DataFrame, *, fewest: bool) -> Pairs:
    """Decide what is open so that the fewest lose and the most gain it, or the other way round."""
    before, after = ("a", "b_may") if fewest else ("a_may", "b")

    def of(had: bool, has: bool) -> int:  # noqa: FBT001 - a cell of a table
        return int(cells.filter((pl.col(before) == had) & (pl.col(after) == has))["n"].sum())

    return Pairs(both=of(True, True), lost=of(True, False), gained=of(False, True), neither=of(False, False))


def _largest(fewest: Pairs, most: Pairs) -> float:
    """The largest p over all that is possible: as near to as many lost as gained as can be."""
    if fewest.lost <= fewest.gained and most.lost >= most.gained:
        return 1.0
    return max(mcnemar(fewest), mcnemar(most))


def _quantity(given: Quantity | str) -> Quantity:
    if isinstance(given, Quantity):
        return given
    if given not in BY_NAME:
        raise NotEstimable(f"there is no quantity `{visible(given)}`; {closest(given, BY_NAME)}")
    return BY_NAME[given]
