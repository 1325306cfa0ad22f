"""Deciding rows once more over state that was not recorded: no self-replay, which they have behind them.

One rule: what decides is what decides any replay; only `session_state`, `stage_inputs` and the state of an approval
are other texts than were recorded, and a row the columns do not take goes to Cedar as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from workbench.asked import effective_bundle
from workbench.closed_loop.rules import steady
from workbench.history.caching import contexts_of
from workbench.history.chunk import type_chunk
from workbench.history.deciding import decided_chunk
from workbench.history.limiting import INPUTS
from workbench.history.records import NEEDED, SPAN, Records, with_contexts
from workbench.history.run import ColumnarRun, joined
from workbench.redeciding import (
    CHUNK,
    COLUMNS_PAY,
    Plan,
    RowUnderWay,
    in_columns,
    out_row,
    own_of,
    recorded_job,
    row_of,
)
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.policy import Prepared
    from workbench.redeciding import EngineName
    from workbench.rows import Engine, Job


@dataclass(frozen=True)
class LoopPlan(Plan):
    """How to answer for each row; something is always to be decided otherwise than recorded."""

    @property
    def again(self) -> bool:
        """See `workbench.redeciding.Plan`."""
        return True


@dataclass(frozen=True)
class SteadyPlan(LoopPlan):
    """The same, without the limits that verdicts move."""

    def bundle_for(self, own: Bundle) -> Bundle:
        """See `workbench.redeciding.Plan`."""
        found = super().bundle_for(own)
        return effective_bundle(found, found.spec, steady(found.limits))


def rows_again(
    plan: LoopPlan,
    chosen: EngineName | Engine,
    wanted: pl.DataFrame,
    places: pl.DataFrame,
    rewrite: Callable[[pl.DataFrame], pl.DataFrame],
) -> Iterator[pl.DataFrame]:
    """Decide some rows of a lake over other state.

    Args:
        plan: what to decide with.
        chosen: the engine.
        wanted: `row` (UInt32) of the log, sorted; `unknown` (List[String]): what it may hang on and nobody knows,
            such as `context.session.calls` or `limits.calls per tenant`; and whatever `rewrite` needs.
        places: `row`, `writer` and `position` of each row of the log.
        rewrite: takes records with the columns of `wanted`, gives them with other state.

    Returns:
        Frames of `row` and the columns of `FRAME`, in no order.
    """
    few = chosen == "auto" and wanted.height < COLUMNS_PAY
    decide = _ByRows(plan) if few or not in_columns(chosen) else _in_columns(plan, chosen)
    for chunk, here in _Some(plan.lake).around(wanted.join(places, on="row", maintain_order="left")):
        records = rewrite(chunk.hstack(here.select(wanted.columns)))
        lacking = here.select("row", pl.col("unknown").fill_null([]).list.join(_MARK)).with_row_index("place")
        for (names,), mine in lacking.partition_by("unknown", as_dict=True).items():
            found = decide(
                records[mine["place"]].drop(wanted.columns), tuple(filter(None, str(names).split(_MARK)))
            )
            yield found.select(mine["row"], pl.all())


class _Some(Records):
    """Records of which only some are read."""

    def around(self, wanted: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield records, and what is wanted of them; only what lies between the first and the last of a span is read.

        Args:
            wanted: with `writer` and `position`, in this order.
        """
        spans = wanted.with_columns(span=(pl.col("position") - 1) // SPAN)
        for (writer, _), mine in spans.partition_by("writer", "span", as_dict=True).items():
            here, first, last = mine.drop("span"), mine["position"][0], mine["position"][-1]
            within = (pl.col("writer") == writer) & pl.col("position").is_between(first, last)
            if (last - first) > SPARSE * here.height:
                within &= pl.col("position").is_in(here["position"].implode())
            rows = self._decisions().filter(within).select(*NEEDED, INPUTS).collect().sort("position")
            places = rows["position"].search_sorted(here["position"])
            yield self._ended(rows[places], str(writer), first, last + NEAR), here


SPARSE = 20
"""Positions for each that is wanted, from where on they are looked up one by one."""
NEAR = 50_000
"""Positions after a span in which its outcomes are looked for first."""
_MARK = "\x1f"


class _ByRows:
    """Decides with Cedar itself."""

    def __init__(self, plan: LoopPlan) -> None:
        self.plan = plan

    def __call__(self, records: pl.DataFrame, lacking: Sequence[str] = ()) -> pl.DataFrame:
        """Decide records, none of which knows the names that are lacking; columns as in `FRAME`."""
        plan, frames = self.plan, []
        whole = with_contexts(Records(plan.lake).whole(records), plan.lake)
        for chunk in whole.iter_slices(CHUNK):
            rows = [row_of(record, plan) for record in chunk.iter_rows(named=True)]
            _decide(rows, plan, lacking)
            frames.append(pl.DataFrame([out_row(row, plan) for row in rows], schema=dict(FRAME)))
        return pl.concat(frames)


def _decide(rows: Sequence[RowUnderWay], plan: LoopPlan, lacking: Sequence[str]) -> None:
    """As `workbench.redeciding` decides again, with what is not known missing."""
    jobs = []
    for row in rows:
        bundle = plan.bundle_for(own_of(row))
        again = plan.recompiler
        job = recorded_job(row, bundle) if again is None else again.job(row.recorded, bundle)
        jobs.append(_lacking(job, lacking) if lacking else job)
    for row, result in zip(rows, plan.engine.run(jobs), strict=True):
        row.result, row.cause = result, None
        trouble = None if plan.recompiler is None else plan.recompiler.trouble(row.recorded)
        if trouble is not None:
            row.cause, row.about = trouble


def _lacking(job: Job, names: Sequence[str]) -> Job:
    """The same job, over a record that lacks these names. They have a value there, one of those they may have."""

    def prepared(args: Mapping[str, Json]) -> Prepared:
        found = job.prepare(args)
        return replace(found, missing=tuple(dict.fromkeys((*found.missing, *names))))

    return replace(job, prepare=prepared)


def _in_columns(plan: LoopPlan, chosen: EngineName | Engine) -> _InColumns:
    find, by_rows = plan.lake.find_bundle, _ByRows(plan)
    return _InColumns(
        ColumnarRun(find, plan, contexts_of(plan.lake), by_rows, plan.lake, strict=chosen == "columnar")
    )


class _InColumns:
    """Decides as `ColumnarRun.chunk`, of rows that reproduced themselves."""

    def __init__(self, run: ColumnarRun) -> None:
        self.run = run

    def __call__(self, records: pl.DataFrame, lacking: tuple[str, ...] = ()) -> pl.DataFrame:
        """Decide records, none of which knows the names that are lacking; columns as in `FRAME`."""
        run = self.run
        if lacking and run.axes.recompiler is not None:
            return run.by_rows(records, lacking)  # type: ignore[call-arg]  # ours takes names
        rows = joined(records, run.contexts)
        parts, over = [], []
        for (version,), mine in rows.partition_by("bundle_version", as_dict=True).items():
            own = run.find_bundle(str(version))
            assert own is not None  # noqa: S101 - others are quarantined
            for done, left in self._decided(mine, own, lacking):
                parts.append(done)
                over.append(left)
        left = pl.concat(over).unique("row").sort("row")
        if left.height:
            found = _ByRows(run.axes)(records[left["row"]], lacking)  # type: ignore[arg-type]  # the plan it was made of
            parts.append(found.with_columns(handed_over=left["why"]).select(left["row"], pl.all()))
        return pl.concat(parts).sort("row").drop("row")

    def _decided(
        self, rows: pl.DataFrame, own: Bundle, lacking: tuple[str, ...]
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Rows of one recorded bundle: those decided, and those to hand over."""
        run = self.run
        if run.axes.recompiler is not None:
            yield from run._over_new_contexts(rows, own, run.axes.recompiler)  # noqa: SLF001 - its other half
            return
        bundle = run.axes.bundle_for(own)
        same = bundle.policy_hash == own.policy_hash
        typed = type_chunk(rows, run.contexts, bundle.schema, own=same)
        yield run.framed(rows, decided_chunk(typed, run.contexts, bundle, own=same, lacking=lacking))
