"""Which policies, contexts and limits to replay with: what people give, made into what a replay takes.

One rule: an axis that is not given is taken as recorded, row by row. A bundle given for one axis gives that axis
only: `policy=` its policies and schema, `context=` its `context.toml`, `limits=` its `limits.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from workbench.asked import AS_RECORDED, asked_of
from workbench.errors import AxisInvalid
from workbench.executors import is_local
from workbench.narrowing import require_whole
from workbench.replay import RECORDED
from workbench.replaying import run_replays
from workbench.splitting import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.spec import ContextSpec
    from workbench.closed_loop.state import Approvals
    from workbench.compare import Diff, StakesGiven
    from workbench.estimating.gates_file import Given as GatesGiven
    from workbench.executors import Executor
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine
    from workbench.sweep import Given

__all__ = ["AS_RECORDED", "AXES", "compare_lake", "replay_lake", "replays_lake"]

AXES = ("policy", "context", "limits", "sources", "versions", "at", "recompile")
"""What one of several replays may be asked for by name; see `replay_lake`."""


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
    (made,) = run_replays(lake, [asked], engine=engine, executor=executor, on_rows=on_rows)
    return made


def replays_lake(
    lake: Lake,
    askings: Sequence[Given | Mapping[str, Any] | None],
    *,
    sources: Mapping[str, Any] | None = None,
    recompile: bool | None = None,
    engine: EngineName | Engine = "auto",
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
) -> list[Replay]:
    """Decide every recorded decision again in several ways, over one scan of the lake.

    Each is the replay that `lake.replay` would make of it. Shared is what hangs on the record: reading it, typing it
    and replaying it by itself; and contexts that several compile again alike.

    Args:
        lake: the pinned lake.
        askings: each a bundle as `lake.replay` takes it for `policy`; None: as recorded; or several axes by name
            (`AXES`), as `{"policy": "policies/next", "limits": "policies/next"}`.
        sources: as `replay_lake` takes them, where an asking names none.
        recompile: as `replay_lake` takes it, where an asking does not say.
        engine: as `replay_lake` takes it, of all.
        executor: as `replay_lake` takes it, of all.
        on_rows: told how many rows of a replay were decided, now and then; None: a progress bar.

    Returns:
        One replay an asking, in order.

    Raises:
        AxisInvalid: an asking names what is no axis; state is simulated by `lake.replay` alone.
        BundleError, BundleNotFound, ReplayFailure, MissingExtra: as `replay_lake`.

    Cost: the self-replay once for each level of it that is asked for, and each asking's own deciding and rows. One
        after the other is made where Cedar decides every row (below `workbench.redeciding.COLUMNS_PAY` decisions,
        engines of your own), on Ray, and where the lake kept what all of them begin with, which then is not read.
    """
    common: dict[str, Any] = {"sources": sources, "recompile": recompile}
    asked = [asked_of(lake, **{**common, **_axes(each)}) for each in askings]
    return run_replays(lake, asked, engine=engine, executor=executor, on_rows=on_rows) if asked else []


def _axes(asking: Given | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not isinstance(asking, Mapping):
        return {"policy": asking}
    if strange := sorted(map(str, asking.keys() - set(AXES))):
        raise AxisInvalid(
            f"`{strange[0]}` is no axis of a replay that shares a scan; these are: {', '.join(AXES)}"
        )
    return asking


def compare_lake(
    lake: Lake,
    policy: Given | None = None,
    *,
    stakes: StakesGiven = None,
    gates: GatesGiven | None = None,
    cluster: Sequence[str] = SESSION,
    level: float = 0.95,
    sources: Mapping[str, Any] | None = None,
    recompile: bool | None = None,
    state: Literal["recorded", "simulated"] = "recorded",
    approvals: Approvals = "recorded",
    engine: EngineName | Engine = "auto",
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
    **axes: Any,
) -> Diff:
    """Compare what a candidate would have decided with the record.

    It is `wb.compare` of the self-replay and of the candidate's replay, both made over one scan.

    Args:
        lake: the pinned lake.
        policy: the candidate's; see `replay_lake`, as for `context`, `limits`, `versions` and `at`.
        stakes: as `workbench.compare.compare` takes it.
        gates: as `workbench.compare.compare` takes it.
        cluster: as `workbench.compare.compare` takes it.
        level: as `workbench.compare.compare` takes it.
        sources: locations of sources by name, of both replays.
        recompile: whether it is checked that recorded contexts can be compiled again; None: in the self-replay, and
            in a candidate's that compiles contexts; False: where contexts are as recorded, it costs most of the time.
        state: of the candidate; it is simulated in a replay of its own.
        approvals: of simulated state.
        engine: of both replays.
        executor: of both replays.
        on_rows: told how many rows of a replay were decided, now and then; None: a progress bar.
        axes: `context`, `limits`, `versions`, `at`.

    Raises:
        StakesInvalid, GatesInvalid, ColumnUnknown: as `workbench.compare.compare`.
        AxisInvalid, BundleError, BundleNotFound, ReplayFailure, MissingExtra: as `replay_lake`.

    Example:
        >>> import workbench as wb
        >>> diff = wb.open("lake/").compare("policies/support-next")  # doctest: +SKIP
    """
    from workbench.compare import compare  # noqa: PLC0415 - statistics take half a second to load

    judging: dict[str, Any] = {"stakes": stakes, "gates": gates, "cluster": cluster, "level": level}
    how: dict[str, Any] = {"engine": engine, "executor": executor, "on_rows": on_rows}
    both: dict[str, Any] = {"sources": sources, "recompile": recompile}
    if (state, approvals) != (RECORDED, RECORDED):
        cand = partial(replay_lake, lake, policy, state=state, approvals=approvals, **axes)
        return compare(replay_lake(lake, **both, **how), cand(**both, **how), **judging)
    base, found = replays_lake(lake, [None, {"policy": policy, **axes}], **both, **how)
    return compare(base, found, **judging)


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
