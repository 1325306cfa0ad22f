"""What the benchmarks found, in lines for people.

One rule: a goal is printed beside the figure it is for, met or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from workbench.bench.closed import GOAL as CLOSED_GOAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KERNEL_GOAL: Final = 20e6
"""Decisions a second; DESIGN section 10."""
RATIO_GOAL: Final = 500
"""Times `cedarpy.is_authorized_batch`."""
MORE_GOAL: Final = 12
"""Times the time of ten policies, for a hundred."""
LAKE_GOAL: Final = (30.0, 6.0, 10_000_000)
"""Seconds and GiB for so many decisions."""
SWEEP_GOAL: Final = (15.0, 100, 1_000_000)
"""Seconds for so many versions of so many decisions."""
STATISTICS_GOAL: Final = (60.0, 10_000_000)
"""Seconds for so many decisions."""


def machine_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """On what it was measured."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    load = ", ".join(map(str, found["load"]))
    yield f"{found['cpus']} processors, load {load} (others may use the machine); {found['system']}"
    yield f"python {found['python']}, {versions}"


def kernel_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Raw columns to masks: a line a run, then how time grows."""
    yield "columnar kernel: raw columns in, masks of satisfied and erring policies out"
    yield (
        f"{'rows':>12} {'policies':>8} {'ids':>10} {'seconds':>9} {'cpu s':>8} {'M dec/s':>8} "
        f"{'cedar k/s':>9} {'ratio':>7} {'MiB':>7}"
    )
    for run in runs:
        yield (
            f"{run['rows']:>12,} {run['policies']:>8} {run['keys']:>10} {run['seconds']:>9.3f} "
            f"{run['cpu_seconds']:>8.3f} {run['decisions_per_second'] / 1e6:>8.1f} "
            f"{run['cedar_decisions_per_second'] / 1e3:>9.1f} "
            f"{run['ratio']:>7.0f} {run['peak_mib']:>7.0f}"
        )
    best = max(run["decisions_per_second"] for run in runs)
    ratio = max(run["ratio"] for run in runs)
    yield f"best {best / 1e6:.1f} M decisions/s ({_met(best >= KERNEL_GOAL)} {KERNEL_GOAL / 1e6:.0f} M)"
    yield f"best {ratio:.0f} times cedarpy ({_met(ratio >= RATIO_GOAL)} {RATIO_GOAL})"
    yield from _growth(runs)
    for more, few in _pairs(runs):
        times = more["seconds"] / few["seconds"]
        yield (
            f"{more['policies']} policies take {times:.1f} times as long as {few['policies']} over "
            f"{few['rows']:,} rows ({_met(times <= MORE_GOAL)} {MORE_GOAL})"
        )


def _met(reached: bool) -> str:  # noqa: FBT001 - a fact, not an option
    return "goal met:" if reached else "goal missed:"


def _growth(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Time by row, smallest run against largest, where everything else is the same."""
    alike = [
        run
        for run in runs
        if (run.get("policies"), run.get("keys")) == (runs[0].get("policies"), runs[0].get("keys"))
    ]
    small, large = min(alike, key=lambda run: run["rows"]), max(alike, key=lambda run: run["rows"])
    if small["rows"] < large["rows"]:
        factor = (large["seconds"] / large["rows"]) / (small["seconds"] / small["rows"])
        yield f"a row of {large['rows']:,} takes {factor:.2f} times what a row of {small['rows']:,} takes (1: linear)"


def _pairs(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Runs of the same rows and ids with many policies, and with few."""
    fewest = min(run["policies"] for run in runs)
    for more in runs:
        for few in runs:
            same = (more["rows"], more["keys"]) == (few["rows"], few["keys"])
            if same and few["policies"] == fewest < more["policies"]:
                yield more, few


def lake_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Delta tables to a comparison: a line a run, phases, and where the time goes."""
    yield "lake: from Delta tables to a comparison (open, self-replay with candidate, numbers), in a fresh process"
    yield f"{'rows':>12} {'seconds':>9} {'cpu s':>9} {'k dec/s':>9} {'MiB':>7}  engine"
    for run in runs:
        yield (
            f"{run['rows']:>12,} {run['seconds']:>9.1f} {run['cpu_seconds']:>9.1f} "
            f"{run['decisions_per_second'] / 1e3:>9.1f} {run['peak_mib']:>7.0f}  {run['engine']}"
        )
    last = runs[-1]
    for name, seconds in last["phases"].items():
        yield f"    {name:<12} {seconds:>8.2f} s, {last['phases_cpu'][name]:>8.2f} s of processor time"
    yield f"    {'memory':<12} {last['replayed_mib']:>8.0f} MiB until the numbers, {last['peak_mib']:.0f} in all"
    yield f"where the time goes ({last['rows']:,} rows, in a run of its own):"
    yield from _where(last)
    for run in runs:
        counts = run["counts"]["candidate"]
        over = ", ".join(f"{number:,} by {name}" for name, number in run["by_engine"].items())
        yield (
            f"of {run['rows']:,}: {counts['decisions_decided']:,} decided, "
            f"{counts['decisions_undecided']:,} undecided, {counts['decisions_quarantined']:,} quarantined; {over}"
        )
    yield from _growth(runs)
    seconds, gib, rows = LAKE_GOAL
    at_goal = [run for run in runs if run["rows"] >= rows]
    for run in at_goal:
        fits = run["seconds"] < seconds and run["peak_mib"] < gib * 1024
        yield f"{_met(fits)} {rows:,} decisions in {seconds:.0f} s and {gib:.0f} GiB"


def _where(run: Mapping[str, Any]) -> Iterator[str]:
    for name, part in run["where"].items():
        yield f"    {part:>6.1%}  {name}"


def sweep_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Many versions over one history."""
    yield "sweep: versions of the baseline, another limit and budget in each, over one lake"
    for run in runs:
        yield (
            f"{run['versions']} versions over {run['rows']:,} decisions: {run['seconds']:.1f} s, "
            f"{run['decisions_per_second'] / 1e6:.2f} M decisions/s, peak {run['peak_mib']:.0f} MiB"
        )
        seconds, versions, rows = SWEEP_GOAL
        if run["versions"] >= versions and run["rows"] >= rows:
            yield f"{_met(run['seconds'] < seconds)} {seconds:.0f} s"
        yield "where the time goes:"
        yield from _where(run)


def closed_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """State simulated again, beside the plain replay."""
    yield "closed loop: the desk's baseline under limits of every kind, state simulated again"
    for run in runs:
        beside = run["seconds"] - run["replay_seconds"]
        yield (
            f"{run['rows']:,} decisions: {run['seconds']:.1f} s (CPU {run['cpu_seconds']:.1f} s), of it the replay "
            f"it begins with {run['replay_seconds']:.1f} s; {run['limited']:,} limited, {run['passes']} passes, peak "
            f"{run['peak_mib']:.0f} MiB"
        )
        if run["rows"] >= CLOSED_GOAL[1]:
            yield f"{_met(beside < CLOSED_GOAL[0])} {CLOSED_GOAL[0]:.0f} s beside the plain replay: {beside:.1f} s"
        yield "where the time goes:"
        yield from _where(run)


def statistics_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A comparison, its estimates and gates."""
    yield "statistics: comparison, every quantity with its interval, gates"
    for run in runs:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run["phases"].items())
        yield (
            f"{run['rows']:,} decisions in {run['sessions']:,} sessions: {run['seconds']:.1f} s (CPU "
            f"{run['cpu_seconds']:.1f} s): {phases}; peak {run['peak_mib']:.0f} MiB, input {run['input_mib']:.0f}"
        )
        if run["rows"] >= STATISTICS_GOAL[1]:
            yield f"{_met(run['seconds'] < STATISTICS_GOAL[0])} {STATISTICS_GOAL[0]:.0f} s"
