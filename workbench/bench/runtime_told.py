"""What `redecide bench runtime` found, as tables for people.

One rule: a goal is printed beside the figure it is for, met or not; what was not measured is named, with why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

ABOVE_GOAL: Final = 100.0
"""Microseconds above the disk, one rule; DESIGN section 10."""
P50_GOAL: Final = 150.0
P99_GOAL: Final = 1_000.0
RATE_GOAL: Final = 5_000.0
"""Durable actions a second in one process."""
DRAIN_GOAL: Final = 100_000.0
VERIFY_GOAL: Final = 500_000.0
IMPORT_GOAL: Final = 0.3
_THEIR_CALLS: Final = {"ships": "as it ships, buffered", "durable": "equal durability, fsync"}
_RULES: Final = {"one": "1 rule", "hundred": "100 rules", "hundred_tools": "100 rules of 100 tools"}
_OURS: Final = {
    "one": "allow",
    "hundred": "allow, 100 rules",
    "hundred_tools": "allow, 100 rules of 100 tools",
}


def runtime_tables(run: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Calls, the toolkit beside them, throughput; then lines that say which goals are met."""
    disk = run["disk"]
    yield (
        f"governed calls of an empty tool, decision and outcome durable; ledgers in {run['folder']} "
        f"({run['file_system']})"
    )
    yield (
        f"the disk alone: SQLite commit p50 {_us(disk['bare']['p50_us'])}, p99 {_us(disk['bare']['p99_us'])}; "
        f"append and fsync p50 {_us(disk['appended']['p50_us'])}"
    )
    yield _calls_table(run["calls"])
    yield _toolkit_table(run)
    yield _throughput_table(run)
    for name, why in run["not_measured"].items():
        yield f"not measured: {name}: {why}"
    if run["agt"]["missing"]:
        yield f"agent-governance-toolkit not measured: {run['agt']['missing']}"
    yield from _goals(run)


def _us(value: float) -> str:
    return f"{value:,.0f} µs"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _calls_table(calls: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "single-threaded, microseconds", "call", "commits", "p50", "p99", "above the disk", "cpu", "calls"
    )
    for call in calls:
        table.add_row(call["case"], f"{call['commits']:g}", *_figures(call), f"{call['calls']:,}")
    return table


def _figures(found: Mapping[str, Any]) -> list[str]:
    return [f"{found[name]:,.0f}" for name in ("p50_us", "p99_us", "above_disk_us", "cpu_us")]


def _toolkit_table(run: Mapping[str, Any]) -> Table:
    """Both sides by rules: what the same decision takes."""
    table = _table(
        "beside agent-governance-toolkit 4.1.0, microseconds",
        "rules", "who", "syncs", "p50", "p99", "above the disk", "cpu",
    )  # fmt: skip
    ours = {call["case"]: call for call in run["calls"]}
    for rules, shown in _RULES.items():
        if (mine := ours.get(_OURS[rules])) is not None:
            table.add_row(shown, "redecide", f"{mine['commits']:g}", *_figures(mine))
        for call in run["agt"]["calls"]:
            if call["rules"] == rules:
                who = f"toolkit, {_THEIR_CALLS[call['audit']]}"
                table.add_row(shown, who, str(call["syncs"]), *_figures(call))
    return table


def _throughput_table(run: Mapping[str, Any]) -> Table:
    table = _table("durable actions a second over one ledger", "who", "by", "actions/s", "cpu µs each")
    for who, rates in (
        ("redecide", run["throughput"]),
        ("toolkit, fsync", run["agt"]["throughput"]),
    ):
        for rate in rates:
            by = next(f"{rate[unit]} {unit}" for unit in ("threads", "tasks", "processes") if unit in rate)
            used = f"{rate['cpu_us']:,.0f}" if "cpu_us" in rate else ""
            table.add_row(who, by, f"{rate['calls_per_second']:,.0f}", used)
    return table


def _goals(run: Mapping[str, Any]) -> Iterator[str]:
    plain = next(call for call in run["calls"] if call["case"] == "allow")
    yield _goal("time above the disk", plain["above_disk_us"], "µs", ABOVE_GOAL)
    yield _goal("p50", plain["p50_us"], "µs", P50_GOAL)
    yield _goal("p99", plain["p99_us"], "µs", P99_GOAL)
    best = max(rate["calls_per_second"] for rate in run["throughput"] if "processes" not in rate)
    yield _goal("durable actions/s in one process", best, "", RATE_GOAL, most=False)
    yield _goal("drain, rows/s", run["drain"]["rows_per_second"], "", DRAIN_GOAL, most=False)
    yield _goal("verify, rows/s", run["verify"]["rows_per_second"], "", VERIFY_GOAL, most=False)
    yield _goal("import runtime", run["import"]["median_s"], "s", IMPORT_GOAL)
    yield from _ahead(run)


def _goal(what: str, value: float, unit: str, goal: float, *, most: bool = True) -> str:
    reached = value < goal if most else value >= goal
    shown = f"{value:,.2f}" if value < 1 else f"{value:,.0f}"
    return f"{what}: {shown} {unit} (goal {'met' if reached else 'missed'}: {goal:g})".replace("  ", " ")


def _ahead(run: Mapping[str, Any]) -> Iterator[str]:
    """Who is faster at equal durability."""
    ours = {call["case"]: call for call in run["calls"]}
    for call in run["agt"]["calls"]:
        if call["audit"] == "durable" and (mine := ours.get(_OURS[call["rules"]])) is not None:
            times = call["p50_us"] / mine["p50_us"]
            said = "met" if times > 1 else "missed"
            yield f"{_RULES[call['rules']]}: the toolkit's p50 is {times:.2f} times ours (goal {said}: above 1)"


__all__ = ["runtime_tables"]
