"""The benchmark of a comparison with statistics: from replayed rows to intervals.

One rule: the comparison is the real one (`Diff.frame`, stakes, quantities, gates); only the replays' rows are made
up, from a seed, so that neither a lake of ten million decisions nor the time to replay it is needed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.bench.measure import cpu_seconds, peak_mib
from workbench.compare import Diff, compare
from workbench.errors import OracleMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOOLS = ("search", "read", "refund", "send", "update", "close", "escalate", "note")
_EFFECTS = ("same", "prevented", "held", "undecided")
_SIZE = 10
"""Decisions a session, on average."""
_UNDECIDED, _HELD, _ATTACK = 0.1, 0.4, 0.01
"""Of changed decisions, those undecided, and those that are or are held; of sessions, those that attack."""


@dataclass(frozen=True, slots=True)
class MadeLake:
    """What a comparison reads of a lake: its labels."""

    labels: pl.LazyFrame
    uri: str = "made up"


@dataclass(frozen=True, slots=True)
class MadeReplay:
    """A replay whose rows are made up."""

    frame: pl.LazyFrame
    lake: MadeLake
    id: str
    policy: tuple[str, str] = ("made up", "0" * 64)
    context: str = "recorded"
    pins: Mapping[str, object] = field(default_factory=lambda: {"ledgers": {"made up": 1}})


def made(rows: int, *, seed: int = 0) -> Diff:
    """Make a comparison of so many decisions, ten a session, interleaved as a log has them.

    Sessions differ in how often they are stopped; one in a hundred is an attack. Of every thousand decisions that
    change, some are undecided: the quantities have bounds.
    """
    rng = np.random.default_rng(seed)
    many = max(1, rows // _SIZE)
    session = rng.integers(0, many, rows, dtype=np.int32)
    chance = rng.beta(0.2, 3.8, many)[session]  # on average 5 %, and uneven
    drawn, other = rng.random(rows), rng.random(rows)
    kind = np.where(drawn >= chance, 0, np.where(other < _UNDECIDED, 3, np.where(other < _HELD, 2, 1)))
    effect = pl.Series(_EFFECTS).gather(kind.astype(np.uint32)).cast(pl.Enum(_EFFECTS))
    ids = pl.Series(session).cast(pl.String)
    frame = pl.DataFrame({
        "decision_id": pl.Series(np.arange(rows)).cast(pl.String),
        "session_id": "s-" + ids, "tenant": pl.Series(session % 40).cast(pl.String), "_session": session,
        "effect": effect,
        "tool": pl.Series(_TOOLS).gather(rng.integers(0, len(_TOOLS), rows, dtype=np.uint32)),
    })  # fmt: skip
    lake = MadeLake(_labels(frame, rng.random(many) < _ATTACK))
    base, cand = _replay(frame, lake, recorded=True), _replay(frame, lake, recorded=False)
    return compare(base, cand)


def _labels(frame: pl.DataFrame, attack: np.ndarray[Any, np.dtype[np.bool_]]) -> pl.LazyFrame:
    """Label each decision with its `origin`."""
    origins = pl.Series(["user", "attack"]).gather(attack[frame["_session"].to_numpy()].astype(np.uint32))
    text = pl.lit(None, dtype=pl.String)
    return frame.lazy().select(
        "tenant", "session_id", "decision_id", label=pl.lit("origin"), value=pl.lit(origins), source=text
    )


def _replay(frame: pl.DataFrame, lake: MadeLake, *, recorded: bool) -> MadeReplay:
    effect = pl.lit("same") if recorded else pl.col("effect").cast(pl.String)
    undecided = effect == "undecided"
    names = pl.lit(["may"], dtype=pl.List(pl.String))
    verdicts = {"same": "allow", "held": "approve", "prevented": "block", "undecided": None}
    nothing = pl.lit(None, dtype=pl.String)
    rows = frame.lazy().select(
        "decision_id", "tenant", "session_id", "tool", step=pl.lit(0, pl.Int32), principal=pl.lit('Agent::"bot"'),
        kind=pl.lit("call"), decided_at=pl.lit(0).cast(pl.Datetime("us", "UTC")), recorded_verdict=pl.lit("allow"),
        decided_by=pl.lit("policy"), reason_code=pl.lit("permitted"), determining=names, then=pl.lit("ran"),
        effect=effect, status=pl.when(undecided).then(pl.lit("undecided")).otherwise(pl.lit("decided")),
        cause=pl.when(undecided).then(pl.lit("missing_fact")), missing=pl.lit([], dtype=pl.List(pl.String)),
        verdict=effect.replace_strict(verdicts, return_dtype=pl.String), resource=nothing, args=pl.lit("{}"),
        enforced_args=pl.lit("{}"), reason=nothing,
        errors=pl.lit([], dtype=pl.List(pl.Struct({"policy": pl.String, "message": pl.String}))),
    )  # fmt: skip
    return MadeReplay(rows, lake, "base" if recorded else "candidate")


def statistics(*, rows: int, slices: bool = True) -> dict[str, Any]:
    """Time a comparison with statistics, from replayed rows on.

    Args:
        rows: decisions; a tenth as many sessions.
        slices: whether a breakdown by tool, tested and adjusted, is part of it.

    Raises:
        OracleMismatch: an estimate's counts are not those of the comparison.
    """
    from workbench.estimating.estimates import estimates  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.estimating.gates import decide  # noqa: PLC0415 - as above

    diff, input_mib = made(rows), peak_mib()
    phases: dict[str, float] = {}
    used: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, before = time.perf_counter(), cpu_seconds()
        found = work()
        phases[name], used[name] = time.perf_counter() - started, cpu_seconds() - before
        return found

    summary = timed("compare", diff.summary)
    found = timed("estimates", lambda: estimates(diff))
    sliced = timed("slices", lambda: estimates(diff, by="tool")) if slices else found
    gates = [
        {"quantity": "harm_through_share", "at_most": 0.99},
        {"quantity": "good_lost_share", "at_most": 0.2},
    ]
    outcome = timed("gates", lambda: decide(found, gates))
    whole = found["decisions"].low.clusters
    if whole.total != summary["decisions"] or whole.count != summary["sessions"]:
        raise OracleMismatch(
            f"the estimates count {whole.total:,.0f} decisions in {whole.count:,} sessions", case=summary
        )
    return {
        "rows": rows, "sessions": whole.count, "quantities": len(found.estimates),
        "slices": len(sliced.estimates) - len(found.estimates), "verdict": outcome.verdict,
        "seconds": sum(phases.values()), "cpu_seconds": sum(used.values()), "phases": phases, "phases_cpu": used,
        "input_mib": input_mib, "peak_mib": peak_mib(),
    }  # fmt: skip
