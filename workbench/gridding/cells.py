"""Several replays of one lake that share what they rest on: one scan, one self-replay, contexts compiled once.

One rule: each comes out as `lake.replay` of it alone would, asked with the same `recompile`. Shared is only what
hangs on the record (the self-replay, on both levels) or on the spec and the sources (a row's contexts compiled
again), never what a policy or a limit decides.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import canonical
from workbench.ending import ending
from workbench.executors import ahead
from workbench.history.caching import contexts_of
from workbench.history.records import Records, with_contexts
from workbench.history.results import ENGINE as COLUMNAR
from workbench.history.run import ColumnarRun
from workbench.progress import progress
from workbench.recompile import Recompiler
from workbench.redeciding import (
    CHUNK,
    Plan,
    chosen_engine,
    columns_of,
    decide_again,
    in_columns,
    row_of,
    self_replay,
)
from workbench.redeciding import out_row as out
from workbench.redeciding import replayed_by_rows as by_rows
from workbench.replay import FRAME, Replay
from workbench.rows import RowEngine
from workbench.spill import Spill, spilling

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from runtime.bundle import Bundle
    from runtime.context import CompiledContext
    from runtime.entities import EntityUid
    from runtime.request import Request
    from runtime.spec import ContextSpec
    from workbench.asked import Asked
    from workbench.history.contexts import Contexts
    from workbench.history.run import Itself
    from workbench.lake import Lake
    from workbench.recorded import Recorded
    from workbench.redeciding import EngineName
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
    name = f"{COLUMNAR} with {rows.name}" if in_columns(chosen) else rows.name
    decided = _in_columns(plans, chosen) if in_columns(chosen) else _in_rows(plans)
    with (
        ExitStack() as spills,
        ending(decided.close),
        progress(total * len(cells), f"replaying a grid of {len(cells)}", on_rows) as advance,
    ):
        found = [_Found(spills.enter_context(spilling(FRAME, total))) for _ in cells]
        for number, part in decided:
            found[number].add(part)
            advance(part.height)
    asked_engine = engine if isinstance(engine, str) else None
    return [
        Replay(lake, *asked.labels, each.spill.frame(), name, dict(each.over), each.spill.files,
               asked=asked, engine_asked=asked_engine)
        for asked, each in zip(cells, found, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of one replay, as they come."""

    spill: Spill
    over: Counter[str] = field(default_factory=Counter)

    def add(self, part: pl.DataFrame) -> None:
        self.spill.add(part)
        self.over.update(part["handed_over"].drop_nulls().to_list())


def _plans(lake: Lake, cells: Sequence[Asked], rows: Engine) -> list[Plan]:
    """How each is decided; they share what compiles contexts, and what it remembers."""
    last = cells[-1]
    verify = last.verifier(lake)
    recompiler = last.recompiler(lake)
    once = None if recompiler is None else _Once.of(recompiler)
    return [
        Plan(lake, rows, cell.policy, cell.limits, once if cell.again else None, verify) for cell in cells
    ]


def _in_columns(
    plans: Sequence[Plan], chosen: EngineName | Engine
) -> Generator[tuple[int, pl.DataFrame], None, None]:
    lake, memo = plans[-1].lake, _Memo()
    contexts = contexts_of(lake)
    runs = [
        _SharedRun(
            lake.find_bundle,
            plan,
            contexts,
            partial(by_rows, plan),
            lake,
            strict=chosen == "columnar",
            memo=memo,
        )
        for plan in plans
    ]
    for records in ahead(Records(lake).chunks(columns_of(plans[-1], chosen))):
        memo.forget()
        for number, run in enumerate(runs):
            yield number, run.chunk(records)


@dataclass(slots=True)
class _Memo:
    """What was found of the chunk at hand, by recorded bundle."""

    itself: dict[str, Itself] = field(default_factory=dict)
    compiled: dict[str, tuple[pl.DataFrame, Contexts]] = field(default_factory=dict)

    def forget(self) -> None:
        """Make ready for the next chunk."""
        self.itself.clear()
        self.compiled.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedRun(ColumnarRun):
    """A replay in columns that takes from `memo` what another found of the same chunk."""

    memo: _Memo

    def itself(self, rows: pl.DataFrame, own: Bundle) -> Itself:
        if own.version not in self.memo.itself:
            self.memo.itself[own.version] = ColumnarRun.itself(self, rows, own)
        return self.memo.itself[own.version]

    def compiled(
        self, rows: pl.DataFrame, own: Bundle, recompiler: Recompiler
    ) -> tuple[pl.DataFrame, Contexts]:
        if own.version not in self.memo.compiled:
            self.memo.compiled[own.version] = ColumnarRun.compiled(self, rows, own, recompiler)
        return self.memo.compiled[own.version]


def _in_rows(plans: Sequence[Plan]) -> Generator[tuple[int, pl.DataFrame], None, None]:
    last, lake = plans[-1], plans[-1].lake
    for chunk in ahead(Records(lake).chunks(columns_of(last, "rows"))):
        for records in chunk.iter_slices(CHUNK):
            whole = with_contexts(Records(lake).whole(records), lake)
            rows = [row_of(record, last) for record in whole.iter_rows(named=True)]
            self_replay(rows, last)
            if isinstance(last.recompiler, _Once):
                last.recompiler.forget()
            for number, plan in enumerate(plans):
                mine = [_as_asked(row, plan) for row in rows]
                if plan.again:
                    decide_again(mine, plan)
                yield number, pl.DataFrame([out(row, plan) for row in mine], schema=dict(FRAME))


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
