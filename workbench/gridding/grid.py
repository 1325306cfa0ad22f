"""The grid: old or new policy × old or new context × old or new limits, and what each changed decision is due to.

One rule: every cell is a replay of the same decisions, and each decision has one attribution
(`workbench.gridding.attribution` defines them); the counts sum to all.

Only axes that are given are varied: one axis is two replays, two are four, three eight. `base` is the self-replay.
What contexts are compiled again by (`context`, `versions`, `at`) is one axis; `sources` says where facts are, in all
cells. Where contexts are an axis, all cells rest on both levels of self-replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.asked import AS_RECORDED, asked_of
from workbench.compare import compare
from workbench.effects import ALL_EFFECTS
from workbench.errors import CellUnknown, ColumnUnknown, NotComparable
from workbench.faces import Faces, Page, Table
from workbench.gridding.attribution import (
    ALL,
    ATTRIBUTIONS,
    AXES,
    BASE,
    CHANGED,
    attributed,
    cells_of,
    due_to,
    name_of,
    outcome,
)
from workbench.gridding.cells import replays_of
from workbench.metrics import STATES
from workbench.replay import RECORDED
from workbench.texts import count, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.spec import ContextSpec
    from workbench.asked import Asked
    from workbench.compare import Diff
    from workbench.gridding.attribution import Axis, Cell
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine

_TOLD = ("decision_id", "tenant", "session_id", "step", "principal", "tool", "kind", "decided_at", "then")
MOST_ROWS = 20
"""Rows of a table that is shown."""
EXAMPLES = 5
"""Interactions that are shown."""


def grid(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    engine: EngineName | Engine = "auto",
    on_rows: Callable[[int], object] | None = None,
) -> Grid:
    """Replay every combination of the given axes, and attribute what changes.

    Args:
        lake: the pinned lake.
        policy: as `lake.replay` takes it, and so are the others. None, or `recorded`: no axis.
        context: whose spec to compile facts by.
        limits: whose limits to decide with.
        sources: where facts are; no axis.
        versions: versions of sources to read facts at: part of the context axis.
        at: time to read facts at: part of the context axis.
        engine: as `lake.replay` takes it.
        on_rows: told how many rows of a cell were decided, now and then; None: a progress bar.

    Raises:
        NotComparable: no axis is given.
        BundleError, BundleNotFound, ReplayFailure: as `lake.replay`.

    Cost: one self-replay, and each other cell's own deciding; memory as of so many replays.
    """
    asked = asked_of(lake, policy, context=context, limits=limits, sources=sources, versions=versions, at=at)
    given = {"policy": asked.policy is not None, "context": asked.again, "limits": asked.limits is not None}
    axes = tuple(axis for axis in AXES if given[axis])
    if not axes:
        raise NotComparable(
            "a grid needs an axis to vary: give `policy=`, `context=` (or `versions=`, `at=`) or `limits=`"
        )
    cells = {cell: _only(asked, cell) for cell in cells_of(axes)}
    found = replays_of(lake, tuple(cells.values()), engine=engine, on_rows=on_rows)
    return Grid(lake, axes, dict(zip(map(name_of, cells), found, strict=True)))


def _only(asked: Asked, cell: Cell) -> Asked:
    """What a cell is asked for: the axes in it, all others as recorded."""
    found = replace(asked, recompile=asked.again)
    if "policy" not in cell:
        found = replace(found, policy=None)
    if "context" not in cell:
        found = replace(found, spec=None, spec_name=RECORDED, versions={}, at=None)
    return found if "limits" in cell else replace(found, limits=None)


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Faces):
    """Replays of the same decisions under every combination of axes. Made by `grid`."""

    lake: Lake
    axes: tuple[Axis, ...]
    """That were given, in the order of `AXES`."""
    replays: Mapping[str, Replay]
    """By cell: `base`, `policy`, `policy+context` …, smallest first; the last is that of all axes."""

    def replay(self, cell: str = ALL) -> Replay:
        """Return a cell's replay.

        Args:
            cell: `base`, axes joined by `+` in any order, or `all`.

        Raises:
            CellUnknown: it names an axis that was not given.
        """
        return self.replays[self._name(cell)]

    def diff(self, cell: str = ALL, base: str = BASE) -> Diff:
        """Compare a cell with another, by default with the self-replay.

        Raises:
            CellUnknown: as `replay`.
        """
        return compare(self.replay(base), self.replay(cell))

    def _name(self, cell: str) -> str:
        asked = set(self.axes if cell == ALL else () if cell == BASE else cell.replace(" ", "").split("+"))
        name = name_of(tuple(axis for axis in self.axes if axis in asked))
        if not asked <= set(self.axes):
            raise CellUnknown(f"the grid has no cell {cell!r}; it has {', '.join(self.replays)}, and `{ALL}`")
        return name

    @property
    def frame(self) -> pl.LazyFrame:
        """All decisions, one row each, in the log's order.

        Columns: `decision_id`, `tenant`, `session_id`, `step`, `principal`, `tool`, `kind`, `decided_at`, `then`;
        `attribution` (Enum of `ATTRIBUTIONS`); `due_to` (List[String]: the smallest cells that give what all axes
        give; null: unchanged, or a cell that could not be decided may do, too); and for each cell what it says
        (Enum of `STATES`), in a column of its name, and its effect, in `<cell> effect`.
        """
        return self._rows.lazy()

    def by(self, *columns: str) -> pl.LazyFrame:
        """Count attributions by columns of `frame` up to `then` (none: all).

        Returns:
            The columns, a count for each of `ATTRIBUTIONS`, and `decisions`; sorted.

        Raises:
            ColumnUnknown: naming the closest.
        """
        for name in columns:
            if name not in _TOLD:
                raise ColumnUnknown(name, _TOLD, "the grid, to count by,")
        rows = self.frame.select(*columns, pl.col("attribution").alias("_due"))
        return rows.group_by(columns).agg(**_COUNTS).sort(columns) if columns else rows.select(**_COUNTS)

    @property
    def cells(self) -> pl.LazyFrame:
        """One row a cell: `cell`, its `policy` and `context`, a count for each of `STATES`, and of these decisions
        `changed`, which come out otherwise than in `base`."""  # noqa: D205, D209 - one sentence
        found = []
        for name, replay in self.replays.items():
            states = {state: (pl.col(name) == state).sum().cast(pl.Int64) for state in STATES}
            other = (pl.col(f"{name} outcome") != pl.col(f"{BASE} outcome")).sum().cast(pl.Int64)
            told = {
                "cell": pl.lit(name),
                "policy": pl.lit(_policy(replay)),
                "context": pl.lit(replay.context),
            }
            found.append(self._outcomes.lazy().select(**told, **states, changed=other))
        return pl.concat(found)

    @property
    def policies(self) -> pl.LazyFrame:
        """Changed decisions by the policies that begin or cease to determine them.

        Returns:
            One row for each (`policy_id`, `becomes`: Enum `deciding | silent`): a count for each of `CHANGED`, and
            `decisions`; a decision counts for each of its policies. Where the same policies determine a decision
            before and after (their patch, or the limits, gave something else) it counts for `(none)`.
        """
        before, after = (self.replay(name).frame.select(d="determining") for name in (BASE, ALL))
        lists = pl.concat([before.rename({"d": "was"}), after.rename({"d": "is"})], how="horizontal")
        rows = pl.concat([self.frame.select(_due="attribution"), lists], how="horizontal")
        named = rows.filter(pl.col("_due").is_in(CHANGED)).with_columns(
            deciding=pl.col("is").fill_null([]).list.set_difference(pl.col("was").fill_null([])),
            silent=pl.col("was").fill_null([]).list.set_difference(pl.col("is").fill_null([])),
        )
        none = (pl.col("deciding").list.len() == 0) & (pl.col("silent").list.len() == 0)
        parts = [
            named.explode(kind).drop_nulls(kind).select("_due", policy_id=kind, becomes=pl.lit(kind))
            for kind in ("deciding", "silent")
        ]
        parts.append(
            named.filter(none).select("_due", policy_id=pl.lit("(none)"), becomes=pl.lit(None, pl.String))
        )
        counts = {name: _COUNTS[name] for name in (*CHANGED, "decisions")}
        found = pl.concat(parts).with_columns(pl.col("becomes").cast(pl.Enum(("deciding", "silent"))))
        return (
            found.group_by("policy_id", "becomes")
            .agg(**counts)
            .sort("decisions", "policy_id", "becomes", descending=[True, False, False])
        )

    def counts(self) -> dict[str, int]:
        """Return how many decisions have each attribution, how many `changed` in all, and `decisions`."""
        return dict(self._counts)

    @cached_property
    def _counts(self) -> dict[str, int]:
        found: dict[str, int] = self.by().collect().row(0, named=True)
        return {**found, "changed": sum(found[name] for name in CHANGED)}

    @cached_property
    def _outcomes(self) -> pl.DataFrame:
        """What every cell says, with outcomes as numbers."""
        columns = [
            replay.frame.select(
                _STATE.alias(name),
                pl.col("effect").cast(pl.Enum(ALL_EFFECTS)).alias(f"{name} effect"),
                outcome().alias(f"{name} outcome"),
            )
            for name, replay in self.replays.items()
        ]
        return pl.concat(pl.collect_all(columns), how="horizontal")

    @cached_property
    def _rows(self) -> pl.DataFrame:
        told = self.replays[BASE].frame.select(_TOLD).collect()
        last = name_of(self.axes)
        either = pl.any_horizontal(pl.col(name) == "quarantined" for name in (BASE, last))
        flags = self._outcomes.select(quarantined=either)
        coded = self._outcomes.select(pl.col(f"{name} outcome").alias(name) for name in self.replays)
        due = pl.concat([coded, flags], how="horizontal").select(
            attribution=attributed(self.axes), due_to=due_to(self.axes)
        )
        shown = self._outcomes.select(~pl.selectors.ends_with(" outcome"))
        return pl.concat([told, due, shown], how="horizontal")

    @property
    def headline(self) -> str:
        """What changes, and what it is due to, in words."""
        counts = self._counts
        said = ", ".join(f"{counts[name]:,} {_WORDS[name]}" for name in CHANGED if counts[name])
        rest = "; ".join(f"{counts[name]:,} {_WORDS[name]}" for name in _APART if counts[name])
        changed = f"{counts['changed']:,} of {count(counts['decisions'], 'decision')} come out otherwise"
        return "; ".join(filter(None, (f"{changed}: {said}" if said else changed, rest)))

    def page(self) -> Page:
        """Say what changes, in which cells, and what it is due to."""
        return Page(
            kind="grid",
            title=f"Old and new {' × '.join(self.axes)}",
            lines=[f"{self.headline}.", "All counts are exact on this log."],
            parts=[*self._tables()],
            next=(
                f"grid.diff({name_of(self.axes)!r})",
                "grid.frame.filter(pl.col('attribution') == 'interaction')",
            ),
            pins={name: f"{_policy(replay)}, {replay.context}" for name, replay in self.replays.items()},
        )

    def _tables(self) -> Iterator[Table]:
        rows = self.cells.collect()
        states = [state for state in STATES if rows[state].sum()]
        yield Table(
            title="Cells",
            note="What each combination says, and how many decisions come out otherwise than in `base`.",
            heads=("cell", *states, "changed"),
            rows=rows.select("cell", *states, "changed").rows(),
        )
        yield _counted("Due to, by tool", "tool", self.by("tool").collect())
        yield _counted(
            "By policies that begin or cease to decide", "policy_id", _named(self.policies.collect())
        )
        names = list(self.replays)
        mixed = self.frame.filter(pl.col("attribution").is_in(_MIXED))
        examples = mixed.select("decision_id", "tool", "attribution", *names).head(EXAMPLES).collect()
        if examples.height:
            yield Table(
                title="Where axes meet",
                note=f"The first {examples.height} decisions that are not due to one axis; what each cell says.",
                heads=examples.columns,
                rows=examples.cast(pl.String).rows(),
                code=frozenset({0}),
            )

    def as_dict(self) -> dict[str, Json]:
        """Return axes, cells and counts, by tool and by policy, too."""
        tables = {"cells": self.cells, "by_tool": self.by("tool"), "by_policy": self.policies}
        lists: dict[str, Json] = {
            name: [dict(row) for row in table.collect().iter_rows(named=True)]
            for name, table in tables.items()
        }
        return {"axes": [*self.axes], "counts": dict(self._counts), **lists}


_STATE = pl.when(pl.col("status") == "decided").then("verdict").otherwise("status").cast(pl.Enum(STATES))
_COUNTS = {name: (pl.col("_due") == name).sum().cast(pl.Int64) for name in ATTRIBUTIONS} | {
    "decisions": pl.len().cast(pl.Int64)
}
_WORDS = {
    "policy": "due to the policy", "context": "due to the context", "limits": "due to the limits",
    "overdetermined": "due to any of several axes", "interaction": "due to axes together",
    "inseparable": "that the log cannot tell apart",
    "cancelled": "changed by some axes and back by others", "undecided": "undecided", "quarantined": "quarantined",
}  # fmt: skip
_MIXED = ("interaction", "inseparable", "cancelled", "overdetermined")
_APART = ("cancelled", "undecided", "quarantined")


def _policy(replay: Replay) -> str:
    name, version = replay.policy
    return name if (name, version) == AS_RECORDED else f"{name} {version[:8]}"


def _named(rows: pl.DataFrame) -> pl.DataFrame:
    """Policies with what becomes of them, as one column."""
    told = pl.concat_str("policy_id", pl.format(" (now {})", "becomes").fill_null(""))
    return rows.with_columns(policy_id=told).drop("becomes")


def _counted(title: str, name: str, rows: pl.DataFrame) -> Table:
    """Counts by attribution, most decisions first; attributions that do not occur are left out."""
    kinds = [kind for kind in ATTRIBUTIONS if kind in rows.columns and rows[kind].sum()]
    shown = rows.sort("decisions", name, descending=[True, False]).head(MOST_ROWS)
    left = rows.height - shown.height
    return Table(
        title=title,
        note=f"{count(left, 'row')} with fewer decisions left out" if left else "",
        heads=(name, *kinds, "decisions"),
        rows=[
            (shorten(str(row[0]), 60), *row[1:])
            for row in shown.select(name, *kinds, "decisions").iter_rows()
        ],
    )
