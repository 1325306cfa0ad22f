"""All of AgentDyn and tau, where they lie beside the repository: every row accounted for, every decision replays."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest

import workbench as wb
from workbench.doctor_lake import lake_findings
from workbench.importing import import_calls

if TYPE_CHECKING:
    from pathlib import Path

AGENTDYN = """
version = 1
[call]
session = "{run_id}"
tool = "{tool_name}"
tenant = "{suite}"
principal = "Agent::{model}"
args = "args_json"
order = "step"
[time]
session_start = "run_timestamp"
[outcome]
executed = "executed"
error = "error"
result = "result_text"
[verdict]
column = "decision"
reason = "decision_reason"
refused = ["deny"]
by = "{defense}"
[missing]
defense = "none"
[runs]
session = "{run_id}"
[[runs.labels]]
name = "utility"
column = "utility"
"""
TAU = """
version = 1
[call]
session = "{run_id}"
tool = "{tool_name}"
tenant = "{domain}"
principal = "Actor::{requestor}"
args = "args_json"
order = "step"
[time]
at = "call_timestamp"
[outcome]
error = "is_error"
result = "result_text"
otherwise = "ran"
[missing]
domain = "unknown"
[runs]
session = "{run_id}"
[[runs.labels]]
name = "utility"
column = "reward"
values = { 1 = "true", 0 = "false" }
"""


class File(NamedTuple):
    calls: str
    runs: str
    mapping: str
    ran: str
    """SQL: which rows ran."""


FILES = {
    "agentdyn": File(
        "agentdyn/public_gpt4omini_tool_calls", "agentdyn/public_gpt4omini_runs", AGENTDYN, "executed"
    ),
    "tau2": File("tau/tau2_tool_calls", "tau/tau2_runs", TAU, "true"),
    "tau1": File("tau/tau_bench_v1_tool_calls", "tau/tau_bench_v1_runs", TAU, "true"),
    "agentrx": File("tau/agentrx_tau_retail_tool_calls", "tau/agentrx_tau_retail_runs", TAU, "true"),
}


@pytest.mark.parametrize("name", ["agentrx", "tau1", pytest.param("tau2", marks=pytest.mark.slow), pytest.param("agentdyn", marks=pytest.mark.slow)])  # fmt: skip
def test_all_of_it(shared_data: Path, tmp_path: Path, name: str) -> None:
    file = FILES[name]
    calls, runs = shared_data / f"{file.calls}.parquet", shared_data / f"{file.runs}.parquet"
    mapping: dict[str, Any] = tomllib.loads(file.mapping)
    found = import_calls(calls, mapping, tmp_path / "lake", runs=runs)
    table = pl.read_parquet(calls)
    assert found.mapped + found.kept_aside == found.rows == table.height
    assert found.kept_aside <= 0.01 * found.rows
    replay = wb.open(str(found.lake)).replay()
    assert replay.counts()["decidable"] == replay.counts()["recompilable"] == found.mapped
    frame = replay.frame.select("then", "effect").collect()
    assert set(frame["effect"]) == {"same"}
    kept = set() if found.rejected_file is None else set(pl.read_parquet(found.rejected_file)["row"])
    ran = (
        table.with_row_index("row", offset=1)
        .filter(~pl.col("row").is_in(list(kept)))
        .sql(f"SELECT COUNT(*) AS n FROM self WHERE {file.ran}")
    )
    assert frame.filter(pl.col("then") == "ran").height == ran["n"][0]
    assert [each for each in lake_findings(str(found.lake)) if each.status == "bad"] == []
