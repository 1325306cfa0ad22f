"""Search: many versions of a policy, the few that nothing beats, and what those do on sessions not searched on.

One rule: what was chosen by a number is not reported by that number. Versions are compared on the *search* part of
the history; those on the Pareto front are confirmed on the other part, whose sessions played no role in choosing. How
many versions were tried is said, and intervals hold for all that are confirmed at once.

Accepted: of a long front some versions are confirmed, spread along it; the others are shown with their search numbers
alone. Without labels there is no harm to count; objectives then are what is held up, and approvals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.compare import compare
from workbench.errors import WorkbenchError
from workbench.faces import Faces, Page, Table
from workbench.progress import progress
from workbench.searching.objectives import objectives_of
from workbench.searching.pareto import front, spread
from workbench.splitting import SESSION, Split, clusters
from workbench.statistics.clusters import fit, gather
from workbench.sweep import weighed
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.rows import Engine
    from workbench.searching.objectives import Objective
    from workbench.splitting import Part
    from workbench.sweep import Given, Money, Over, Sweep

CONFIRMED = 8
"""Versions of a front that are confirmed, unless more are asked for."""
MAX_ROWS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """One objective of one version, on the part that the search has not seen."""

    count: int
    """Exact on that part of the log."""
    of: int
    lower: float
    upper: float
    """Of the share in future traffic of the same mix: an estimate; holds for all confirmed at once."""
    method: str


@dataclass(frozen=True, eq=False, repr=False)
class Search(Faces):
    """Versions of a policy, compared and confirmed. Made by `search`."""

    sweep: Sweep
    objectives: tuple[Objective, ...]
    split: Split
    level: float
    """Of the intervals of all that is confirmed, together."""
    rows: pl.DataFrame
    confirmed: Mapping[int, Mapping[str, Confirmed]]
    """By version, by objective."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a version, in order.

        Columns: those of `Sweep.frame` that say which version it is; for each objective `<name>` (Int64, on the
        search part) and `<name>_of`; `on_front` (Bool): nothing that was tried beats it; and for each objective
        `<name>_confirmed`, `<name>_confirmed_of` (Int64), `<name>_lower`, `<name>_upper` (Float64, shares), null
        where the version was not confirmed.
        """
        return self.rows.lazy()

    @property
    def front(self) -> pl.LazyFrame:
        """The versions that nothing beats on the search part; columns as in `frame`, by the first objective."""
        return self.frame.filter("on_front").sort([each.name for each in self.objectives])

    @property
    def tried(self) -> int:
        """How many different versions were compared."""
        return int(self.rows["policy_version"].n_unique())

    def best(self, objective: str | None = None, *, at_most: Mapping[str, float] | None = None) -> int:
        """Return the version with least of one objective, among confirmed ones within bounds of others.

        Args:
            objective: by name; None: the first.
            at_most: by objective: the upper bound of its share in future traffic may not be above.

        Raises:
            WorkbenchError: no confirmed version keeps the bounds; says how close they come.
        """
        wanted = objective or self.objectives[0].name
        bounds = dict(at_most or {})
        unknown = {wanted, *bounds} - {each.name for each in self.objectives}
        if unknown:
            raise WorkbenchError(f"the search has no objective {sorted(unknown)}; it has {self._names}")
        fits = {
            version: found[wanted].count
            for version, found in self.confirmed.items()
            if all(found[name].upper <= bound for name, bound in bounds.items())
        }
        if not fits:
            nearest = {
                name: min((found[name].upper for found in self.confirmed.values()), default=None)
                for name in bounds
            }
            raise WorkbenchError(f"no confirmed version keeps {bounds}; the least upper bounds are {nearest}")
        return min(fits, key=lambda version: (fits[version], version))

    @property
    def _names(self) -> list[str]:
        return [each.name for each in self.objectives]

    @cached_property
    def _lines(self) -> list[str]:
        on_front, tried = int(self.rows["on_front"].sum()), self.tried
        parts = {name: int(self.sweep.part(name)["decisions"][0]) for name in ("search", "confirm")}
        total = sum(parts.values())
        them = "it" if on_front == 1 else "them"
        names = " and ".join(self._names)
        chosen = f"Chosen on {count(parts['search'], 'decision')} ({share(parts['search'], total)})"
        lines = [
            f"{count(on_front, 'version')} of {tried:,} tried: nothing that was tried beats {them} on {names}.",
            f"{chosen}, confirmed on {parts['confirm']:,} others, of other sessions.",
        ]
        if self.confirmed:
            many = len(self.confirmed) * len(self.objectives)
            lines.append(
                f"{count(len(self.confirmed), 'version')} confirmed: counts are exact on this log; shares in future "
                f"traffic are estimates. All {many} intervals hold together at {100 * self.level:g} % (Bonferroni)."
            )
        return lines

    def page(self) -> Page:
        """What the search found."""
        found = self.front.collect()
        tuned = [name for name in found.columns if name in self.sweep.tuned]
        heads = ["version", *tuned, *(["name"] if not tuned else [])]
        first = [heads[0], *heads[1:]]
        rows = [
            [
                *(row[name] for name in first),
                *(cell for each in self.objectives for cell in _cells(row, each.name)),
            ]
            for row in found.head(MAX_ROWS).iter_rows(named=True)
        ]
        more = [text for each in self.objectives for text in (each.name, "confirmed", "future, from", "to")]
        note = "; ".join(f"{each.name}: {each.text}" for each in self.objectives)
        table = Table(title="The front", note=note, heads=[*heads, *more], rows=rows)
        what = ", ".join(sorted(set(self.rows["name"])))
        return Page(
            kind="search",
            title=f"Search: {count(self.tried, 'version')} of {what}",
            lines=self._lines,
            parts=[table],
            next=["search.front", "search.best()", "search.sweep.bundle(0).files"],
            pins={name: str(value) for name, value in self.sweep.lake.pins.ledgers.items()},
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "tried": self.tried,
            "split": {
                "share": self.split.share,
                "seed": self.split.seed,
                "cluster": list(self.split.cluster),
            },
            "level": self.level,
            "objectives": [
                {"name": each.name, "text": each.text, "unit": each.unit} for each in self.objectives
            ],
            "versions": list(self.rows.iter_rows(named=True)),
        }


def _cells(row: Mapping[str, Any], name: str) -> tuple[str | None, str | None, float | None, float | None]:
    """An objective of a version: on the search part, confirmed, and its interval."""
    seen = f"{row[name]:,} of {row[f'{name}_of']:,}"
    if row[f"{name}_confirmed"] is None:
        return seen, None, None, None
    again = f"{row[f'{name}_confirmed']:,} of {row[f'{name}_confirmed_of']:,}"
    return seen, again, row[f"{name}_lower"], row[f"{name}_upper"]


def search(
    lake: Lake,
    policy: Given | Sequence[Given],
    over: Over | None = None,
    *,
    objectives: Sequence[str | Objective] = ("harm_let_through", "good_held_up"),
    split: Split | None = None,
    confirm: int | None = CONFIRMED,
    level: float = 0.95,
    context: Given = "recorded",
    limits: Given | None = None,
    sources: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    engine: EngineName | Engine = "auto",
    money: Money | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Search:
    """Find the versions of a policy that nothing tried beats, and confirm them on sessions not searched on.

    Args:
        lake: the pinned lake.
        policy: a bundle, its folder, or a version the lake holds; or a list of them.
        over: values by name of a tunable; every combination is a version.
        objectives: what there should be less of: names of `workbench.searching.objectives.OBJECTIVES`, or your own.
        split: how the history is divided; None: half of the sessions each.
        confirm: versions of the front that are confirmed, each by a replay; None: all versions, on the front or not.
        level: of all intervals together.
        context: as `lake.replay` takes it, like the next four.
        limits: whose limits to decide with; None: as recorded.
        sources: locations of sources by name.
        at: compile facts as they were at this time.
        engine: see `workbench.redeciding.EngineName`.
        money: as `lake.sweep` has it; objectives about money need it.
        on_rows: as `lake.sweep` has it.

    Raises:
        WorkbenchError: no such objective; nothing to search or to confirm on.
        BundleError, BundleNotFound, ReplayFailure: as `lake.sweep`.

    Cost: a sweep, and a replay for each confirmed version.
    Source: DESIGN section 7; Bonferroni over what is confirmed, so any of it may be read off.
    """
    wanted, parts = objectives_of(objectives), split or Split()
    with progress(None, "searching", on_rows):
        return _search(
            lake, policy, over, wanted, parts, confirm=confirm, level=level,
            context=context, limits=limits, sources=sources, at=at, engine=engine, money=money, on_rows=on_rows,
        )  # fmt: skip


def _search(
    lake: Lake,
    policy: Given | Sequence[Given],
    over: Over | None,
    wanted: tuple[Objective, ...],
    parts: Split,
    *,
    confirm: int | None,
    level: float,
    **options: Any,
) -> Search:
    swept = lake.sweep(policy, over, split=parts, **options)
    rows = _numbers(swept, wanted)
    chosen = front(rows.select(each.name for each in wanted).to_numpy())
    names = [each.name for each in wanted]
    picked = rows["version"].to_list() if confirm is None else spread(rows.filter(chosen), names, confirm)
    tail = 1 - (1 - level) / max(1, len(picked) * len(wanted))
    confirmed = {}
    with progress(len(picked), "confirming", unit="version") as advance:
        for version in picked:
            confirmed[version] = _confirmed(swept, version, wanted, parts, tail)
            advance(1)
    told = rows.with_columns(on_front=pl.Series(chosen)).join(
        _table(confirmed, wanted), on="version", how="left", maintain_order="left"
    )
    return Search(swept, wanted, parts, level, told, confirmed)


def _numbers(sweep: Sweep, objectives: Sequence[Objective]) -> pl.DataFrame:
    """The objectives of every version on the search part."""
    found = sweep.rows.select(*sweep.identity)
    if not sweep.part("search")["decisions"][0] or not sweep.part("confirm")["decisions"][0]:
        raise WorkbenchError(
            "one part of the history is empty: there are too few sessions to divide; give `split=Split(share=…)`, "
            "another seed, or a cluster less wide"
        )
    for each in objectives:
        of: Literal["n", "money"] = "money" if each.unit == "money" else "n"
        counts = {each.name: each.holds.sum(), f"{each.name}_of": each.of.sum()}
        numbers = weighed(sweep.tallies, part="search", of=of, counts=counts)
        found = found.hstack(pl.DataFrame(numbers, schema=dict.fromkeys(counts, pl.Int64)))
    return found


def _confirmed(
    sweep: Sweep, version: int, objectives: Sequence[Objective], split: Split, level: float
) -> dict[str, Confirmed]:
    """Count the objectives of a version on the other part, and bound their shares in future traffic."""
    replay = sweep.replay(version)
    diff = compare(replay, replay)
    args = replay.frame.select("args") if any(each.unit == "money" for each in objectives) else pl.LazyFrame()
    rows = pl.concat([diff.frame.rename({"to": "verdict"}), args], how="horizontal").collect()
    part: Part = "confirm"
    keys = clusters(rows, sweep.lake.labels, split.cluster)
    if rows.select(*SESSION, keys).n_unique() > rows.select(SESSION).n_unique():
        raise WorkbenchError(
            f"the split's cluster ({', '.join(split.cluster)}) divides sessions; what is confirmed on has to be "
            "other sessions: give a session, or wider, as `Split(cluster=('tenant', 'session_id'))`"
        )
    chosen = split.part(rows, sweep.lake.labels) == part
    mine, keys = rows.filter(chosen), keys.filter(chosen)
    of_money = sweep.money(mine)
    return {each.name: _bounded(mine, keys, each, of_money, level) for each in objectives}


def _bounded(
    rows: pl.DataFrame, keys: pl.Series, objective: Objective, money: pl.Series, level: float
) -> Confirmed:
    weight = money if objective.unit == "money" else pl.lit(1)
    sums = (
        rows.select(y=objective.holds.cast(pl.Int64) * weight, m=objective.of.cast(pl.Int64) * weight)
        .with_columns(keys)
        .group_by("cluster")
        .agg(pl.col("y", "m").sum())
    )
    fitted = fit(gather(*(sums[name].to_numpy() for name in "ym"), cap=sums["m"].to_numpy()), "share")
    found = fitted.interval(level)
    return Confirmed(
        count=int(sums["y"].sum()), of=int(sums["m"].sum()), lower=found.lower, upper=found.upper,
        method=fitted.method,
    )  # fmt: skip


def _table(confirmed: Mapping[int, Mapping[str, Confirmed]], objectives: Sequence[Objective]) -> pl.DataFrame:
    schema: dict[str, Any] = {"version": pl.UInt32}
    for each in objectives:
        schema |= {f"{each.name}_confirmed": pl.Int64, f"{each.name}_confirmed_of": pl.Int64}
        schema |= {f"{each.name}_lower": pl.Float64, f"{each.name}_upper": pl.Float64}
    rows = [
        [version, *(cell for each in objectives for cell in _of(found[each.name]))]
        for version, found in confirmed.items()
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _of(found: Confirmed) -> tuple[int, int, float, float]:
    return found.count, found.of, found.lower, found.upper
