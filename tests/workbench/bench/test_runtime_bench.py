"""`redecide bench runtime`, small: that it times what it says, counts commits in the file, and says what is missing."""

from __future__ import annotations

import io
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from workbench.bench.cli import app
from workbench.bench.runtime import _toolkit, measure
from workbench.bench.runtime_agt import NotInstalled, Toolkit, default_venv, interpreter
from workbench.bench.runtime_cases import CASES, CallCase, Governed
from workbench.bench.runtime_disk import AppendedFile, BareLedger, commits_of
from workbench.bench.runtime_told import runtime_tables
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMITS = {"block": 1, "approve": 1, "duplicate": 1, "staged": 3}
"""Transactions of a call by case, where it is not two: the decision's and the outcome's."""


@pytest.fixture
def toolkit(tmp_path: Path) -> Iterator[Toolkit]:
    """Agent-governance-toolkit, where its environment is there: tests install nothing."""
    folder = Path(os.environ.get("REDECIDE_AGT_VENV") or default_venv())
    try:
        python = interpreter(folder, install=False)
    except NotInstalled as exc:
        pytest.skip(f"{exc}; `redecide bench runtime` installs it, REDECIDE_AGT_VENV names another place")
    with Toolkit(python, tmp_path) as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_ends_as_it_says_with_its_commits_and_no_two_calls_alike(
    case: CallCase, tmp_path: Path
) -> None:
    made = Governed.open(case, tmp_path)
    try:
        assert commits_of(made.ledger, made.call) == COMMITS.get(case.name, 2)
        asked = made.runtime.ledger.query("SELECT row FROM decisions")
        rows = [json.loads(text) for (text,) in asked]
        assert len(rows) == (5 if case.ending == "duplicate" else 4)
        verdicts = {row["verdict"] for row in rows}
        assert verdicts == {"allow" if case.ending == "duplicate" else case.ending}
        alike = case.ending == "duplicate"
        assert len({row["args"] for row in rows}) == (1 if alike else 4)
        assert (made.runtime.bundle.policies.keys() > {"base", "rule-99"}) == (case.rules != "one")
    finally:
        made.close()


def test_a_call_that_ends_otherwise_is_no_figure(tmp_path: Path) -> None:
    made = Governed.open(CallCase(name="allow"), tmp_path)
    try:
        made.case = replace(made.case, ending="approve")
        with pytest.raises(RuntimeError, match="ended as allow, not as approve"):
            made.call()
    finally:
        made.close()


def test_bare_writes_are_one_commit_and_one_line_each(tmp_path: Path) -> None:
    bare, appended = BareLedger(tmp_path / "bare.sqlite"), AppendedFile(tmp_path / "lines")
    try:
        assert commits_of(tmp_path / "bare.sqlite", bare.commit) == 1
        appended.append()
        appended.append()
        assert (tmp_path / "lines").read_bytes().count(b"\n") == 2
    finally:
        bare.close()
        appended.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run of ours, without the toolkit."""
    folder = tmp_path_factory.mktemp("bench")
    return measure(folder=str(folder), calls=6, rounds=2, seconds=0.1, agt=False)


def test_a_run_measures_every_case_in_turns(run: dict[str, Any]) -> None:
    assert [call["case"] for call in run["calls"]] == [case.name for case in CASES]
    for call in run["calls"]:
        assert call["calls"] == 6
        assert 0 < call["p50_us"] <= call["p99_us"]
        above = call["p50_us"] - call["commits"] * run["disk"]["bare"]["p50_us"]
        assert call["above_disk_us"] == pytest.approx(above)
    assert run["not_measured"] == {}
    assert run["agt"] == {"calls": [], "missing": "not asked for", "throughput": []}


def test_a_run_counts_durable_actions_and_drains_them_all(run: dict[str, Any]) -> None:
    units = [
        (unit, rate[unit])
        for rate in run["throughput"]
        for unit in ("threads", "tasks", "processes")
        if unit in rate
    ]
    assert units == [
        ("threads", 1),
        ("threads", 2),
        ("threads", 4),
        ("threads", 8),
        ("tasks", 8),
        ("tasks", 64),
        ("processes", 2),
    ]
    called = sum(rate["calls"] for rate in run["throughput"])
    beyond = 2  # the first call of each of the two processes is not counted
    assert run["drain"]["rows"]["decisions"] == run["drain"]["rows"]["outcomes"] == called + beyond
    assert run["verify"]["rows"]["chain"] == 2 * (called + beyond)
    assert run["import"]["best_s"] <= run["import"]["median_s"]


def test_tables_say_which_goals_are_met_and_what_is_missing(run: dict[str, Any]) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    for shown in runtime_tables(run):
        console.print(shown)
    said = console.export_text()
    for name in (
        "time above the disk",
        "p50",
        "p99",
        "durable actions/s in one process",
        "drain, rows/s",
        "verify, rows/s",
        "import runtime",
    ):
        assert any(line.startswith(f"{name}:") and "(goal m" in line for line in said.splitlines()), name
    assert "agent-governance-toolkit not measured: not asked for" in said


def test_without_the_toolkit_it_is_said_why(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match=r"no environment with agent_governance_toolkit==4\.1\.0"):
        interpreter(tmp_path / "none", install=False)
    with ExitStack() as stack:
        found = _toolkit(stack, tmp_path, str(tmp_path / "none"), agt=True, install=False)
    assert found[0] is None
    assert "no environment" in str(found[1])


@pytest.mark.slow
def test_the_command_prints_json_with_the_machine(tmp_path: Path) -> None:
    args = ["runtime", "--no-agt", "--calls", "3", "--seconds", "0.1", "--folder", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, visible(done.output)
    found = json.loads(done.stdout)
    assert found["machine"]["versions"]["cedarpy"]
    assert found["runs"][0]["file_system"]


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["one", "hundred", "hundred_tools"])
def test_the_toolkit_is_durable_where_it_is_said_to_be(toolkit: Toolkit, rules: str, tmp_path: Path) -> None:
    """While its process lives: two entries a call are in the file, and as it ships none need be."""
    for audit, lines in (("durable", 10), ("ships", 0)):
        found = toolkit.ask(rules=rules, audit=audit, calls=5)
        assert len(found["ns"]) == 5
        written = (tmp_path / f"agt-{rules}-{audit}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(written) == lines
    entries = [
        json.loads(line)
        for line in (tmp_path / f"agt-{rules}-durable.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [entry["event_type"] for entry in entries[:2]] == ["governance_decision", "tool_result"]
    assert entries[0]["metadata"]["rule"] == "base"
    assert toolkit.ask(rules=rules, audit="durable", threads=2, seconds=0.05)["calls"] > 0
