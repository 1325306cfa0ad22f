"""Closed loop: a history decided again over the state that its own verdicts leave.

One rule: rows are decided over state, and state follows from how rows are decided, until neither changes. A row hangs
on rows before it only, so what stands still is the one answer; and what limits say is said by the engine that decides
every replay, over the state found here, not by the pass that found it.

First every row is decided as recorded but for the limits that verdicts move (this is also its self-replay). Then a
pass over the log says which calls run (`sequence`), the session's counters follow (`session`), and rows whose
policies read a counter that has moved are decided again; and so on. Rows that budgets or breakers refuse, or may, are
decided last, with all limits.

Accepted: later requests stay as they were recorded; what an agent would have done otherwise is not simulated
(`workbench.diverging` says which rows that concerns). Idempotency keys hold for ever, unless the record shows one
that was free again. A ledger's calls are one after the other in the order it committed them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from workbench.asked import asked_of
from workbench.closed_loop.again import LoopPlan, SteadyPlan
from workbench.closed_loop.calls import counters_of_limits
from workbench.closed_loop.iterating import Loop
from workbench.closed_loop.log import read_log
from workbench.closed_loop.state import APPROVALS, Simulated, label
from workbench.ending import ending
from workbench.errors import AxisInvalid
from workbench.history.records import Records
from workbench.history.results import ENGINE as COLUMNAR
from workbench.progress import progress
from workbench.redeciding import chosen_engine, decided_here, in_columns
from workbench.replay import FRAME, RECORDED
from workbench.rows import RowEngine
from workbench.spill import spilling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.spec import ContextSpec
    from workbench.asked import Asked
    from workbench.closed_loop.state import Approvals
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.rows import Engine
    from workbench.spill import Spill


def simulate(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    recompile: bool | None = None,
    approvals: Approvals = "recorded",
    others: Literal["unknown", "recorded"] = "unknown",
    engine: EngineName | Engine = "auto",
    on_rows: Callable[[int], object] | None = None,
) -> Simulated:
    """Decide every recorded decision again, over the state that these verdicts leave. Nothing is executed.

    Args:
        lake: the pinned lake.
        policy: as `Lake.replay` takes it; likewise `context`, `limits`, `sources`, `versions`, `at`, `recompile` and
            `engine`.
        context: see there.
        limits: see there; budgets and breakers that the record did not count are counted from the log.
        sources: see there.
        versions: see there.
        at: see there.
        recompile: see there.
        approvals: what becomes of calls that ask: `recorded`, `granted` or `denied`; see `state.Approvals`.
        others: counters of the session that the runtime does not keep, as an imported history may have: `unknown`
            once calls before have changed, so that what hangs on them is undecided; or taken as `recorded`.
        engine: see there.
        on_rows: told how many rows were decided; None: a progress bar, where somebody may look.

    Returns:
        A replay; `state` says what was done and assumed.

    Raises:
        AxisInvalid: `approvals` is none of these.
        ReplayFailure, BundleError, BundleNotFound, UnsupportedPolicy: as `Lake.replay`.

    Cost: a replay, a pass over the log (some microseconds a row), and what is decided again; memory some 300 bytes a
    decision beside the result.
    """
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
    return simulated(lake, asked, approvals=approvals, others=others, engine=engine, on_rows=on_rows)


def simulated(
    lake: Lake,
    asked: Asked,
    *,
    approvals: Approvals = "recorded",
    others: Literal["unknown", "recorded"] = "unknown",
    engine: EngineName | Engine = "auto",
    on_rows: Callable[[int], object] | None = None,
) -> Simulated:
    """Simulate state for a replay by axes that are resolved; the others as `simulate` takes them."""
    if approvals not in APPROVALS:
        raise AxisInvalid(f"`approvals` must be one of {', '.join(APPROVALS)}, got {approvals!r}")
    told = {"state": "simulated", "approvals": approvals} | (
        {} if others == "unknown" else {"others": others}
    )
    asked = replace(asked, more={**asked.more, **told})
    total = Records(lake).count()
    chosen = chosen_engine(engine, total)
    with progress(None, "simulating state", on_rows), spilling(FRAME, total) as first:
        plan, free = _plan(lake, asked, chosen, LoopPlan), _plan(lake, asked, chosen, SteadyPlan)
        over = _decided(free, chosen, first, on_rows)
        with progress(None, "reading the log"):
            log = read_log(lake, counters_of_limits(plan))
        loop = Loop(plan, free, chosen, first.frame(), log, approvals, others != RECORDED)
        found = loop.run()
        frame, files = first.frame(), first.files
        if found.patch.height:
            with progress(total, "taking over what changed") as advance, spilling(FRAME, total) as patched:
                for part in loop.overlaid(found.patch):
                    patched.add(part)
                    advance(part.height)
                frame, files = patched.frame(), patched.files
    name = f"{COLUMNAR} with {plan.engine.name}" if in_columns(chosen) else plan.engine.name
    return Simulated(
        lake, asked.labels[0], label(asked.labels[1], approvals), frame, name, over, files,
        asked=asked, engine_asked=engine if isinstance(engine, str) else None, state=found.state,
    )  # fmt: skip


def _decided(
    plan: LoopPlan, chosen: EngineName | Engine, first: Spill, on_rows: Callable[[int], object] | None
) -> dict[str, int]:
    """Decide every row by `plan`, into `first`; returns how many rows were handed over, by reason."""
    over = dict[str, int]()
    decided = decided_here(plan, chosen)
    with progress(first.expected, "replaying", on_rows) as advance, ending(decided.close):
        for part in decided:
            first.add(part)
            for why, n in part["handed_over"].drop_nulls().value_counts().iter_rows():
                over[why] = over.get(why, 0) + n
            advance(part.height)
    return over


def _plan(lake: Lake, asked: Asked, chosen: EngineName | Engine, kind: type[LoopPlan]) -> LoopPlan:
    rows = RowEngine() if isinstance(chosen, str) else chosen
    verify = asked.verifier(lake) if asked.again or asked.recompile else None
    return kind(lake, rows, asked.policy, asked.limits, asked.recompiler(lake), verify)


__all__ = ["simulate"]
