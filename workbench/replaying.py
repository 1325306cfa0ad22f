"""Replays of a lake, asked for by resolved axes: one, or several that share what they rest on.

One rule: each comes out as it would alone. Where columns decide, in this process, several share one scan, and the
self-replay that every replay begins with; where Cedar decides every row, or Ray, one is made after the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from workbench.ending import ending, undoing
from workbench.executors import is_local
from workbench.history.records import Records
from workbench.history.results import ENGINE as COLUMNAR
from workbench.progress import progress
from workbench.redeciding import Plan, chosen_engine, decided_here, in_columns
from workbench.replay import FRAME, Replay, how
from workbench.rows import RowEngine
from workbench.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import polars as pl

    from workbench.asked import Asked
    from workbench.executors import Executor
    from workbench.lake import Lake
    from workbench.recompile import Recipe, Recompiler
    from workbench.redeciding import EngineName
    from workbench.rows import Engine

    Decided = Generator[list[pl.DataFrame], None, None]
    """Rows of several replays, of the same decisions: one frame a replay, a chunk at a time."""


def run_replays(
    lake: Lake,
    askings: Sequence[Asked],
    *,
    engine: EngineName | Engine = "auto",
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
) -> list[Replay]:
    """Decide every recorded decision again, once for each asking.

    Args:
        lake: the pinned lake.
        askings: the axes of each replay, at least one.
        engine: see `EngineName`; an `Engine` decides row by row.
        executor: see `workbench.executors.Executor`.
        on_rows: told how many rows of a replay were decided; None: a progress bar, where somebody may look.

    Returns:
        One replay an asking, in order.

    Raises:
        UnsupportedPolicy: `columnar` is demanded, and some row cannot be decided so; names the reason.
        MissingExtra: Ray is asked for, and not installed.
        ReplayFailure: Ray is asked for, and fails.

    Cost: the self-replay, unless the lake kept it, and each asking's own deciding; memory O(chunk) beside what stays.
    """
    total = Records(lake).count()
    chosen = chosen_engine(engine, total)
    rows = RowEngine() if isinstance(chosen, str) else chosen
    plans = _plans(lake, askings, rows)
    texts = [f"replaying {how(*asked.labels)}" for asked in askings]
    if in_columns(chosen) and is_local(executor) and len(plans) > 1:
        passes = [Pass(_together(plans, chosen), len(plans), "; ".join(texts))]
    else:
        passes = [
            Pass(_alone(each, chosen, executor), 1, text) for each, text in zip(plans, texts, strict=True)
        ]
    return replays_made(lake, askings, passes, chosen=chosen, engine=engine, total=total, on_rows=on_rows)


class Pass(NamedTuple):
    """Some replays that are made at a time."""

    decided: Decided
    number: int
    """How many."""
    text: str
    """What is being done."""


def replays_made(
    lake: Lake,
    askings: Sequence[Asked],
    passes: Sequence[Pass],
    *,
    chosen: EngineName | Engine,
    engine: EngineName | Engine,
    total: int,
    on_rows: Callable[[int], object] | None,
) -> list[Replay]:
    """Make the passes, one after the other, and replays of what they decided.

    Args:
        lake: the pinned lake.
        askings: of the replays, in order.
        passes: that decide them, in order.
        chosen: the engine that decides.
        engine: as it was asked for.
        total: decisions there are.
        on_rows: as `run_replays` takes it.
    """
    made = [_Made(Spill(FRAME, total)) for _ in askings]
    left = iter(made)
    with undoing(partial(_drop, made)):
        for decided, number, text in passes:
            mine = [next(left) for _ in range(number)]
            with ending(decided.close), progress(total * number, text, on_rows) as advance:
                for parts in decided:
                    _taken(mine, parts, advance)
    own = chosen if not isinstance(chosen, str) else RowEngine()
    name = f"{COLUMNAR} with {own.name}" if in_columns(chosen) else own.name
    return [
        Replay(lake, *asked.labels, each.spill.frame(), name, dict(each.over), each.spill.files,
               asked=asked, engine_asked=engine if isinstance(engine, str) else None)
        for asked, each in zip(askings, made, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Made:
    """Rows of one replay, as they come."""

    spill: Spill
    over: Counter[str] = field(default_factory=Counter)


def _drop(made: Sequence[_Made]) -> None:
    for each in made:
        each.spill.drop()


def _taken(made: Sequence[_Made], parts: list[pl.DataFrame], advance: Callable[[int], object]) -> None:
    """Take one chunk's rows, letting go of each."""
    for each in made:
        part = parts.pop(0)
        each.spill.add(part)
        each.over.update(part["handed_over"].drop_nulls().to_list())
        advance(part.height)


def _together(plans: Sequence[Plan], chosen: EngineName | Engine) -> Decided:
    from workbench.preparing import decided_together  # noqa: PLC0415 - it imports what decides

    return decided_together(plans, strict=chosen == "columnar")


def _alone(plan: Plan, chosen: EngineName | Engine, executor: Executor) -> Decided:
    """What one replay decides: here, or where it was asked for."""
    if is_local(executor):
        decided = decided_here(plan, chosen)
    else:
        from workbench.portable import decided_on  # noqa: PLC0415 - it imports us

        decided = decided_on(executor, plan, chosen)
    with ending(decided.close):
        for part in decided:
            yield [part]


def _plans(lake: Lake, askings: Sequence[Asked], rows: Engine) -> list[Plan]:
    """How each is decided; those that compile contexts alike share what compiles them."""
    compiling: list[Recompiler] = []
    verifying: list[Recompiler] = []
    return [
        Plan(
            lake,
            rows,
            asked.policy,
            asked.limits,
            _once(compiling, asked.recompiler(lake)),
            _once(verifying, asked.verifier(lake)),
        )
        for asked in askings
    ]


def _once(known: list[Recompiler], made: Recompiler | None) -> Recompiler | None:
    """What compiles as this one does: the first that came."""
    if made is None:
        return None
    same = next((each for each in known if _alike(each.recipe, made.recipe)), made)
    if same is made:
        known.append(made)
    return same


def _alike(one: Recipe, two: Recipe) -> bool:
    """Whether contexts come out alike: by one spec, as of one time, from the very same sources."""
    specs = [None if each.spec is None else each.spec.hash for each in (one, two)]
    when = [(each.at, dict(each.versions), each.base) for each in (one, two)]
    given = one.given.keys() == two.given.keys() and all(
        mine is two.given[name] or (isinstance(mine, str | Path) and mine == two.given[name])
        for name, mine in one.given.items()
    )
    return specs[0] == specs[1] and when[0] == when[1] and given
