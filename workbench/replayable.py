"""What a lake can be asked again: replays, comparisons, sweeps, and what was saved of them.

One rule: nothing is decided here; each method names the function that does, and takes what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from workbench.closed_loop.state import Approvals
    from workbench.compare import Diff, StakesGiven
    from workbench.estimating.gates_file import Given as GatesGiven
    from workbench.executors import Executor
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine
    from workbench.splitting import Split
    from workbench.sweep import Given, Money, Over, Sweep


class Replayable:
    """Recorded decisions that can be decided again; what `workbench.lake.Lake` is besides its tables."""

    @property
    def _itself(self) -> Lake:
        return self  # type: ignore[return-value]  # only a lake is one

    def replay(
        self,
        policy: str | PathLike[str] | Bundle | None = None,
        *,
        context: str | PathLike[str] | Bundle = "recorded",
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
        """Decide every recorded decision again; see `workbench.versions.replay_lake`."""
        from workbench.versions import replay_lake  # noqa: PLC0415 - the replay imports us

        return replay_lake(
            self._itself,
            policy,
            context=context,
            limits=limits,
            sources=sources,
            versions=versions,
            at=at,
            recompile=recompile,
            state=state,
            approvals=approvals,
            engine=engine,
            executor=executor,
            on_rows=on_rows,
        )

    def replay_all(
        self,
        askings: Sequence[Given | Mapping[str, Any] | None],
        *,
        sources: Mapping[str, Any] | None = None,
        recompile: bool | None = None,
        engine: EngineName | Engine = "auto",
        executor: Executor = "local",
        on_rows: Callable[[int], object] | None = None,
    ) -> list[Replay]:
        """Make several replays over one scan; see `workbench.versions.replays_lake`."""
        from workbench.versions import replays_lake  # noqa: PLC0415 - the replay imports us

        return replays_lake(
            self._itself,
            askings,
            sources=sources,
            recompile=recompile,
            engine=engine,
            executor=executor,
            on_rows=on_rows,
        )

    def compare(
        self,
        policy: Given | None = None,
        *,
        context: Given = "recorded",
        limits: Given | None = None,
        sources: Mapping[str, Any] | None = None,
        versions: Mapping[str, int | str] | None = None,
        at: datetime | None = None,
        recompile: bool | None = None,
        state: Literal["recorded", "simulated"] = "recorded",
        approvals: Approvals = "recorded",
        engine: EngineName | Engine = "auto",
        executor: Executor = "local",
        stakes: StakesGiven = None,
        gates: GatesGiven | None = None,
        cluster: Sequence[str] = ("tenant", "session_id"),
        level: float = 0.95,
        on_rows: Callable[[int], object] | None = None,
    ) -> Diff:
        """Compare a candidate with the record, both decided over one scan; see `workbench.versions.compare_lake`."""
        from workbench.versions import compare_lake  # noqa: PLC0415 - the replay imports us

        return compare_lake(
            self._itself,
            policy,
            context=context,
            limits=limits,
            sources=sources,
            versions=versions,
            at=at,
            recompile=recompile,
            state=state,
            approvals=approvals,
            engine=engine,
            executor=executor,
            stakes=stakes,
            gates=gates,
            cluster=cluster,
            level=level,
            on_rows=on_rows,
        )

    def sweep(
        self,
        policy: Given | Sequence[Given],
        over: Over | None = None,
        *,
        context: Given = "recorded",
        limits: Given | None = None,
        sources: Mapping[str, Any] | None = None,
        versions: Mapping[str, int | str] | None = None,
        at: datetime | None = None,
        engine: EngineName | Engine = "auto",
        split: Split | None = None,
        money: Money | None = None,
        on_rows: Callable[[int], object] | None = None,
    ) -> Sweep:
        """Count what many versions of a policy would decide; see `workbench.sweep.sweep_lake`."""
        from workbench.sweep import sweep_lake  # noqa: PLC0415 - the sweep imports us

        return sweep_lake(
            self._itself,
            policy,
            over,
            context=context,
            limits=limits,
            sources=sources,
            versions=versions,
            at=at,
            engine=engine,
            split=split,
            money=money,
            on_rows=on_rows,
        )

    def reopen(self, replay: str, **options: Any) -> Replay:
        """Make a saved replay again, with the digest it was saved with; see `workbench.keeping.reopening.reopen`."""
        from workbench.keeping.reopening import reopen  # noqa: PLC0415 - it imports us

        return reopen(self._itself, replay, **options)
