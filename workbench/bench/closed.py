"""A closed loop over a lake: state simulated under other limits, beside a plain replay of the same rows.

One rule: what is timed is checked: no row is left out, some limits bind, and the recorded limits change nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from workbench.bench.measure import Sampler, cpu_seconds, peak_mib
from workbench.errors import OracleMismatch
from workbench.shipped import shipped

if TYPE_CHECKING:
    from runtime.bundle import Bundle

GOAL: Final = (20.0, 1_000_000)
"""Seconds for so many decisions, beside the plain replay."""

LIMITS: Final = """
version = 2
[[budget]]
name = "calls-per-session"
max = 15
[[budget]]
name = "calls-per-agent"
per = "principal"
max = 2000
[[budget]]
name = "money-per-tenant"
per = "tenant"
measure = "args.amount_cents"
max = 900000000
actions = ["issue_refund"]
[[breaker]]
name = "tools"
last = 20
min_calls = 5
max_error_rate = 0.5
open_for = "60s"
"""
"""A limit of each kind; the first binds in most sessions of the desk."""


def limited() -> Bundle:
    """The desk's baseline under `LIMITS`."""
    from runtime.bundle import bundle_from_files, load_bundle  # noqa: PLC0415 - a task imports what it measures

    base = load_bundle(shipped("support-desk/baseline"))
    return bundle_from_files({**base.files, "limits.toml": LIMITS}, "limited")


def closed(*, uri: str) -> dict[str, Any]:
    """Time a replay over recorded state, and one over simulated state under other limits.

    Args:
        uri: a lake of the support desk, written by `workbench.bench.lake`.

    Raises:
        OracleMismatch: a row is missing, or no limit binds.
    """
    import workbench  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.closed_loop import simulate  # noqa: PLC0415 - as above

    lake, bundle = workbench.open(uri), limited()
    started, used = time.perf_counter(), cpu_seconds()
    plain = lake.replay(shipped("support-desk/baseline"), recompile=False)
    rows = plain.counts()["decisions"]
    replay_seconds, replay_cpu = time.perf_counter() - started, cpu_seconds() - used
    del plain
    lake = workbench.open(uri)  # anew: what the plain replay prepared is not to help
    with Sampler() as sampler:
        started, used = time.perf_counter(), cpu_seconds()
        # The desk's own counter of money paid back is not the runtime's: it is taken as recorded.
        found = simulate(lake, limits=bundle, others="recorded")
        counts = found.counts()
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - used
    if counts["decisions"] != rows or not found.state.limited:
        raise OracleMismatch(f"{counts['decisions']:,} of {rows:,} rows came out, {found.state}", case=uri)
    return {
        "uri": uri, "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "replay_seconds": replay_seconds,
        "replay_cpu_seconds": replay_cpu, "limited": found.state.limited, "passes": found.state.passes,
        "redecided": found.state.redecided, "undecided": counts["decisions_undecided"], "peak_mib": peak_mib(),
        "where": sampler.shares(),
    }  # fmt: skip
