"""Which policies, contexts and limits to replay with: what people give, made into what a replay takes.

One rule: an axis that is not given is taken as recorded, row by row. A bundle given for one axis gives that axis
only: `policy=` its policies and schema, `context=` its `context.toml`, `limits=` its `limits.toml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from workbench.asked import AS_RECORDED, asked_of
from workbench.errors import AxisInvalid
from workbench.executors import is_local
from workbench.narrowing import require_whole
from workbench.redeciding import run_replay
from workbench.replay import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.spec import ContextSpec
    from workbench.closed_loop.state import Approvals
    from workbench.executors import Executor
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine

__all__ = ["AS_RECORDED", "replay_lake"]


def replay_lake(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    recompile: bool | None = None,
    state: Literal["recorded", "simulated"] = "recorded",
    approvals: Approvals = "recorded",
    engine: EngineName | Engine = "auto",
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
) -> Replay:
    """Decide every recorded decision again. Nothing is executed.

    Args:
        lake: the pinned lake.
        policy: a bundle folder, a bundle, or a bundle version the lake holds; None: each decision's own policies.
        context: `recorded`, or whose spec to compile the facts again by: a bundle (folder), or a `context.toml`.
        limits: a bundle (folder) whose limits to decide with; None: as recorded.
        sources: locations of sources by name, as `Runtime.open` takes them; they go before the recorded ones.
        versions: versions of sources by name, to compile facts at instead of the recorded ones: `{"orders": 12}`.
        at: compile facts as they were at this time, instead of when each decision was made; a source that `versions`
            names is read at that version.
        recompile: check that the recorded spec over the recorded versions gives the recorded contexts, too; None: in
            a self-replay, and where contexts are compiled again, which rests on it.
        state: budgets, counters and breakers as `recorded`, or `simulated` again under the verdicts of this replay
            (`workbench.closed_loop`).
        approvals: of simulated state: what becomes of calls that ask, `recorded`, `granted` or `denied`.
        engine: `auto` decides in columns where that pays, `columnar` demands it, `rows` asks Cedar for every row.
        executor: `local` decides in this process, `ray` on Ray, or a Ray cluster; see `workbench.executors.Executor`.
        on_rows: told how many rows were decided, now and then; None: a progress bar in a terminal and in a notebook,
            if it takes more than a second.

    Raises:
        BundleError: a bundle or spec cannot be used; names file and line.
        BundleNotFound: no such version in the lake.
        ReplayFailure: a source of facts is not where it is said to be, or nobody says where it is; a version is asked
            of a source that does not exist, or has none; or Ray fails.
        MissingExtra: Ray is asked for, and not installed.
        AxisInvalid: `state` or `approvals` is none of these, or they are combined with what does not go with them; or
            `at` is no time, or names no zone.

    Cost: what is read and replayed by itself is kept with the lake object, up to a bound: another replay of it costs
        a fifth; see `workbench.history.keeping`.
    """
    if state != "recorded" or approvals != "recorded":
        _require_simulable(lake, state, approvals, executor)
    asked = asked_of(
        lake,
        policy,
        context=context,
        limits=limits,
        sources=sources,
        versions=versions,
        at=at,
        recompile=recompile,
    )
    if state == "simulated":
        from workbench.closed_loop import simulated  # noqa: PLC0415 - it replays, too

        return simulated(lake, asked, approvals=approvals, engine=engine, on_rows=on_rows)
    return run_replay(
        lake,
        candidate=asked.policy,
        limits_of=asked.limits,
        recompiler=asked.recompiler(lake),
        verify=asked.verifier(lake),
        labels=asked.labels,
        asked=asked,
        engine=engine,
        executor=executor,
        on_rows=on_rows,
    )


def _require_simulable(lake: Lake, state: str, approvals: str, executor: Executor) -> None:
    if state not in ("recorded", "simulated"):
        raise AxisInvalid(f"`state` must be 'recorded' or 'simulated', got {state!r}")
    if state == "recorded":
        raise AxisInvalid(
            f"approvals={approvals!r} is an assumption about simulated state; add state='simulated'"
        )
    require_whole(lake.narrowing)
    if not is_local(executor):
        raise AxisInvalid("state is simulated in this process; leave `executor` out")
