"""Which decisions a night is about: those that are new, and earlier sessions of which more became known.

One rule: what a night looks at follows from the lake at a pin and from what earlier nights looked at, and from
nothing else; so a night that was planned and stopped is planned the same again, and no window is skipped or looked at
twice.

A session belongs to the window that first held a decision of it. It is touched by what was drained later: decisions
of its own, labels of it or of its earlier decisions, and outcomes of these. Touched sessions are looked at again as a
whole, and their window with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime import trace
from workbench.errors import PinUnreachable
from workbench.pins import Pins
from workbench.regressing.result import Range
from workbench.splitting import SESSION
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from workbench.lake import Lake
    from workbench.regressing.job import Window

TOUCHED = {
    "tenant": pl.String, "session_id": pl.String, "night": pl.Int64, "labels": pl.UInt32, "outcomes": pl.UInt32,
    "decisions": pl.UInt32,
}  # fmt: skip
"""Columns of `Plan.touched`."""


class Stretch(NamedTuple):
    """A stretch of time: the first moment, and the one after the last; None: open."""

    since: datetime | None
    until: datetime | None

    @property
    def holds(self) -> pl.Expr | None:
        """Whether a decision is of it; None: any is."""
        at = pl.col("decided_at")
        ends = [at >= self.since] if self.since else []
        ends += [at < self.until] if self.until else []
        return pl.all_horizontal(ends) if ends else None


ALWAYS = Stretch(None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one night of a series looked at."""

    night: int
    """From 1."""
    range: Range
    stretch: Stretch = ALWAYS

    @property
    def holds(self) -> pl.Expr:
        """Whether a decision is of it; never null."""
        inside = Pins(self.range.to).holds & ~Pins(self.range.after).holds
        return inside if self.stretch.holds is None else (inside & self.stretch.holds).fill_null(value=False)

    def of(self, lake: Lake, chosen: pl.Expr | None) -> Lake:
        """Return the window: `lake` at its end, narrowed to what is in it, and to what the job is about."""
        conditions = [each for each in (chosen, self.stretch.holds) if each is not None]
        return lake.at(self.range.to).since(self.range.after).where(*conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a night looks at. Made by `plan`."""

    window: Range
    stretch: Stretch
    touched: pl.DataFrame
    """One row a session of an earlier window of which more became known, in order of `tenant`, `session_id`: `night`
    whose window it belongs to, and how many late `labels`, `outcomes` and `decisions` it has."""
    seen: tuple[Look, ...]
    chosen: pl.Expr | None
    """Which decisions the job is about; None: all."""

    @property
    def night(self) -> int:
        """Which one it is of its series, from 1."""
        return len(self.seen) + 1

    def new(self, lake: Lake) -> Lake:
        """Return the window: `lake` at its end, narrowed to what is in it."""
        look = Look(night=self.night, range=self.window, stretch=self.stretch)
        return look.of(lake, self.chosen)

    def again(self, lake: Lake) -> Lake | None:
        """Return the decisions of touched sessions that this or an earlier night looked at; None: there is none."""
        if self.touched.is_empty():
            return None
        touched = pl.struct(SESSION).is_in(self.touched.select(pl.struct(SESSION)).to_series().implode())
        looked = _in_any([each.stretch for each in self.seen] + [self.stretch])
        conditions = [each for each in (self.chosen, looked, touched) if each is not None]
        return lake.at(self.window.to).since(self.seen[0].range.after).where(*conditions)

    @property
    def begins(self) -> bool:
        """Whether it says where a series begins, after all that is there: empty, and to be kept all the same."""
        return not self.seen and self.window.decisions == 0 and self.window.after == self.window.to

    @property
    def reopened(self) -> Mapping[int, Mapping[str, int]]:
        """By night: how many of its `sessions` were touched, by how many `labels`, `outcomes` and `decisions`."""
        numbers = [pl.col(name).sum().cast(pl.Int64) for name in ("labels", "outcomes", "decisions")]
        found = (
            self.touched.group_by("night")
            .agg(pl.len().cast(pl.Int64).alias("sessions"), *numbers)
            .sort("night")
        )
        return {row.pop("night"): row for row in found.iter_rows(named=True)}


def plan(
    lake: Lake,
    seen: Sequence[Look],
    *,
    window: Window,
    now: datetime,
    chosen: pl.Expr | None = None,
) -> Plan:
    """Plan a night.

    Args:
        lake: pinned at what it holds now; not narrowed.
        seen: what earlier nights of the series looked at, in order.
        window: as declared.
        now: when the night began, UTC; what a window of the last days ends at.
        chosen: which decisions the job is about, a condition over the columns of `decisions`; None: all.

    Raises:
        PinUnreachable: the lake holds less than an earlier night saw: it is another lake, or an older copy.
        ColumnUnknown: `chosen` names no column of decisions.

    Cost: some columns of `decisions` and `outcomes`; of what earlier nights saw, only sessions that more came of.
    """
    to = dict(lake.pins.ledgers)
    after: dict[str, int] = {}
    if window.mode == "new":
        after = dict(seen[-1].range.to) if seen else (to if window.first == "new" else {})
    return _planned(lake, seen, after, Stretch(*window.stretch(now)), chosen)


def planned_again(lake: Lake, seen: Sequence[Look], look: Look, *, chosen: pl.Expr | None = None) -> Plan:
    """Plan the very night that was planned before, however much was drained since.

    Args:
        lake: at any later pin.
        seen: what nights before it looked at.
        look: what the night was to look at.
        chosen: as `plan` takes it.

    Raises:
        PinUnreachable: the lake does not hold what it held then.
    """
    return _planned(lake.at(look.range.to), seen, dict(look.range.after), look.stretch, chosen)


def _planned(
    lake: Lake, seen: Sequence[Look], after: dict[str, int], stretch: Stretch, chosen: pl.Expr | None
) -> Plan:
    lake = lake if chosen is None else lake.where(chosen)  # refuses what is no condition over decisions
    to = dict(lake.pins.ledgers)
    _require_later(lake, [look.range.to for look in seen])
    inside = [each for each in (~Pins(after).holds, stretch.holds) if each is not None]
    new = lake.history.filter(*inside)
    stats = new.select(
        n=pl.len(), sessions=pl.struct(SESSION).n_unique(), first=pl.col("decided_at").min(),
        last=pl.col("decided_at").max(),
    ).collect()  # fmt: skip
    n, sessions, first, last = stats.row(0)
    found = Range(
        after=after, to=to, decisions=n, sessions=sessions if n else 0,
        first=first.isoformat() if n else None, last=last.isoformat() if n else None,
    )  # fmt: skip
    touched = _touched(lake, seen, stretch) if seen else pl.DataFrame(schema=TOUCHED)
    return Plan(window=found, stretch=stretch, touched=touched, seen=tuple(seen), chosen=chosen)


def _require_later(lake: Lake, ends: Sequence[Mapping[str, int]]) -> None:
    """Refuse a lake that holds less than was seen."""
    for end in ends:
        for writer, position in end.items():
            if (here := lake.pins.ledgers.get(writer, 0)) < position:
                raise PinUnreachable(
                    f"the lake at {shown(lake.uri)} holds ledger {writer!r} up to position {here:,}, an earlier "
                    f"night saw it up to {position:,}: is it another lake, or an older copy? give the job its "
                    "own `state` folder to begin anew"
                )


def _touched(lake: Lake, seen: Sequence[Look], stretch: Stretch) -> pl.DataFrame:
    """Sessions that earlier nights looked at, and what came later of them."""
    last = Pins(seen[-1].range.to).holds
    looked = _in_any([each.stretch for each in seen] + [stretch])
    rows = lake.history if looked is None else lake.history.filter(looked)
    rows = rows.select(*SESSION, "decision_id", "writer", "position", "decided_at")
    later = rows.filter(~last).group_by(SESSION).agg(decisions=pl.len()).collect()
    known = lake.table(trace.OUTCOMES).filter(lake.pins.holds, ~last)
    said = known.select(*SESSION, "decision_id", label=pl.col("kind") == "label").collect()
    maybe = pl.concat([later.select(SESSION), said.select(SESSION)]).unique()
    before = rows.filter(last).join(maybe.lazy(), on=SESSION, how="semi").collect()
    before = before.select(*SESSION, "decision_id", night=_nights(before, seen)).drop_nulls("night")
    sessions = before.group_by(SESSION).agg(pl.col("night").min())
    of_call = said.drop_nulls("decision_id").join(before, on=[*SESSION, "decision_id"], how="semi")
    of_all = said.filter(pl.col("decision_id").is_null(), "label")
    counted = pl.concat([of_call, of_all]).group_by(SESSION).agg(
        labels=pl.col("label").sum(), outcomes=(~pl.col("label")).sum()
    )  # fmt: skip
    found = sessions.join(counted, on=SESSION, how="left").join(later, on=SESSION, how="left")
    numbers = [pl.col(name).fill_null(0) for name in ("labels", "outcomes", "decisions")]
    found = found.with_columns(numbers).filter(pl.sum_horizontal("labels", "outcomes", "decisions") > 0)
    return found.select(pl.col(name).cast(kind) for name, kind in TOUCHED.items()).sort(SESSION)


def _nights(rows: pl.DataFrame, seen: Sequence[Look]) -> pl.Series:
    """The first night that looked at each decision; null: none did."""
    ends = pl.DataFrame(
        [(writer, end, look.night) for look in seen for writer, end in look.range.to.items()],
        schema={"writer": pl.String, "position": pl.Int64, "night": pl.Int64}, orient="row",
    ).sort("position", "night").unique(["writer", "position"], keep="first", maintain_order=True)  # fmt: skip
    order = rows.select("writer", "position", "decided_at").with_row_index("row").sort("position")
    found = order.join_asof(ends, on="position", by="writer", strategy="forward", check_sortedness=False)
    found = found.sort("row")
    if any(look.stretch != ALWAYS for look in seen):
        found = found.with_columns(night=_by_time(seen))
    began = rows.select(Pins(seen[0].range.after).holds).to_series() if seen[0].range.after else None
    night = found["night"]
    return night if began is None else night.set(began, None)


def _by_time(seen: Sequence[Look]) -> pl.Expr:
    """The first night, of those at whose pin a decision was there, of whose stretch it is."""
    there = pl.col("night")
    each = [
        pl.when((there <= look.night) if (inside := look.stretch.holds) is None else (there <= look.night) & inside)
        .then(look.night)
        for look in seen
    ]  # fmt: skip
    return pl.coalesce(each)


def _in_any(stretches: Sequence[Stretch]) -> pl.Expr | None:
    """Whether a decision is of any of some stretches of time; None: it always is."""
    merged: list[Stretch] = []
    for each in sorted(
        set(stretches), key=lambda one: (one.since is not None, one.since, one.until is None, one.until)
    ):
        if merged and _meet(merged[-1], each):
            ends = (merged[-1].until, each.until)
            later = None if None in ends else max(end for end in ends if end is not None)
            merged[-1] = Stretch(merged[-1].since, later)
        else:
            merged.append(each)
    conditions = [each.holds for each in merged]
    found = [each for each in conditions if each is not None]
    return pl.any_horizontal(found) if len(found) == len(conditions) else None


def _meet(one: Stretch, other: Stretch) -> bool:
    """Whether the later of two begins before the earlier ends."""
    return one.until is None or other.since is None or other.since <= one.until
