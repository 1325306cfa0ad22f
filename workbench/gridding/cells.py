"""Several replays of one lake that share what they rest on: one scan, one self-replay, contexts compiled once.

One rule: each comes out as `lake.replay` of it alone would, asked with the same `recompile`. Shared is only what
hangs on the record (the self-replay, on both levels) or on the spec and the sources (a row's contexts compiled
again), never what a policy or a limit decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import canonical
from workbench.ending import ending
from workbench.executors import ahead
from workbench.history.records import Records, with_contexts
from workbench.preparing import decided_together
from workbench.recompile import Recompiler
from workbench.redeciding import (
    CHUNK,
    Plan,
    RowUnderWay,
    chosen_engine,
    columns_of,
    decide_again,
    in_columns,
    row_of,
    self_replay,
)
from workbench.redeciding import out_row as out
from workbench.replay import FRAME
from workbench.replaying import Pass, replays_made
from workbench.rows import RowEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from runtime.context import CompiledContext
    from runtime.entities import EntityUid
    from runtime.request import Request
    from runtime.spec import ContextSpec
    from workbench.asked import Asked
    from workbench.lake import Lake
    from workbench.recorded import Recorded
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine


def replays_of(
    lake: Lake,
    cells: Sequence[Asked],
    *,
    engine: EngineName | Engine = "auto",
    on_rows: Callable[[int], object] | None = None,
) -> list[Replay]:
    """Replay a lake once for each of several askings, in order.

    Args:
        lake: the pinned lake.
        cells: what is asked. Where contexts are compiled again, by one spec and at one version in all of them; the
            last is asked for every axis that any of them is; and either all verify, or none.
        engine: as `lake.replay` takes it.
        on_rows: told how many rows were decided, now and then; None: a progress bar, if it takes over a second.

    Raises:
        UnsupportedPolicy: `columnar` is demanded, and some row cannot be decided so.

    Cost: the self-replay once, and each asking's own deciding; memory as of so many replays.
    """
    total = Records(lake).count()
    chosen = chosen_engine(engine, total)
    rows = RowEngine() if isinstance(chosen, str) else chosen
    plans = _plans(lake, cells, rows)
    columns = in_columns(chosen)
    decided = decided_together(plans, strict=chosen == "columnar") if columns else _in_rows(plans)
    one = Pass(decided, len(cells), f"replaying a grid of {len(cells)}")
    return replays_made(lake, cells, [one], chosen=chosen, engine=engine, total=total, on_rows=on_rows)


def _plans(lake: Lake, cells: Sequence[Asked], rows: Engine) -> list[Plan]:
    """How each is decided; they share what compiles contexts, and what it remembers."""
    last = cells[-1]
    verify = last.verifier(lake)
    recompiler = last.recompiler(lake)
    once = None if recompiler is None else _Once.of(recompiler)
    return [
        Plan(lake, rows, cell.policy, cell.limits, once if cell.again else None, verify) for cell in cells
    ]


def _in_rows(plans: Sequence[Plan]) -> Generator[list[pl.DataFrame], None, None]:
    last, lake = plans[-1], plans[-1].lake
    chunks = ahead(Records(lake).chunks(columns_of(last, "rows")))
    with ending(chunks.close):
        for chunk in chunks:
            for records in chunk.iter_slices(CHUNK):
                whole = with_contexts(Records(lake).whole(records), lake)
                rows = [row_of(record, last) for record in whole.iter_rows(named=True)]
                self_replay(rows, last)
                if isinstance(last.recompiler, _Once):
                    last.recompiler.forget()
                yield [_decided(rows, plan) for plan in plans]


def _decided(rows: Sequence[RowUnderWay], plan: Plan) -> pl.DataFrame:
    """Rows after their self-replay, as one asking decides them."""
    mine = [_as_asked(row, plan) for row in rows]
    if plan.again:
        decide_again(mine, plan)
    return pl.DataFrame([out(row, plan) for row in mine], schema=dict(FRAME))


def _as_asked(row: Any, plan: Plan) -> Any:
    """A row after its self-replay, for one asking: where contexts are as recorded, they need not compile again."""
    if plan.recompiler is None and row.recompilable is False:
        return replace(row, cause=None, about=())
    return replace(row)


class _Once(Recompiler):
    """Compiles the contexts of a row once for each way it is asked, until told to forget."""

    contexts_known: dict[tuple[str, str, EntityUid], CompiledContext]

    @classmethod
    def of(cls, other: Recompiler) -> _Once:
        """Return what compiles as another does."""
        found = cls.__new__(cls)
        found.__dict__.update(vars(other))
        found.contexts_known = {}
        return found

    def forget(self) -> None:
        """Make ready for other rows."""
        self.contexts_known.clear()

    def _compile(
        self, recorded: Recorded, request: Request, resource: EntityUid, spec: ContextSpec
    ) -> CompiledContext:
        key = (recorded.row["decision_id"], canonical(dict(request.args)), resource)
        if key not in self.contexts_known:
            self.contexts_known[key] = super()._compile(recorded, request, resource, spec)
        return self.contexts_known[key]
