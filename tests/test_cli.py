"""The command `redecide`, as a person runs it: real processes, real lakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest

from runtime import Blocked, Runtime
from workbench.shipped import shipped

SCHEMA = """
entity Agent;
entity Order;
action issue_refund appliesTo {
  principal: Agent, resource: Order, context: { args: { order_id: String, amount_cents: Long } }
};
"""
POLICIES = """
@id("refunds")
permit (principal, action == Action::"issue_refund", resource);

@id("limit")
forbid (principal, action == Action::"issue_refund", resource)
when { context.args.amount_cents > LIMIT };
"""
AMOUNTS = (1000, 4000, 9000, 20000)


def bundle(folder: Path, limit: str) -> Path:
    """Write a bundle that stops refunds above a limit."""
    folder.mkdir()
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "refunds.cedar").write_text(POLICIES.replace("LIMIT", limit))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record four refunds, of which one is stopped; return the folder with the lake and a stricter bundle."""
    folder = tmp_path_factory.mktemp("made")
    bundle(folder / "next", "5000")
    runtime = Runtime.open(bundle(folder / "now", "10000"), lake=folder / "lake")

    @runtime.tool(resource="Order::{order_id}")
    def issue_refund(order_id: str, amount_cents: int) -> dict[str, Any]:
        return {"refunded": amount_cents}

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        for number, amount in enumerate(AMOUNTS):
            try:
                session.call(issue_refund, order_id=f"o-{number}", amount_cents=amount)
            except Blocked:
                assert amount == 20000
    runtime.close()
    return folder


def redecide(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    command = [str(Path(sys.executable).with_name("redecide")), *map(str, args)]
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def refused(*args: str | Path, cwd: Path) -> str:
    """Run a command that must fail; return its one line."""
    done = redecide(*args, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"redecide: error: .+\n", done.stderr), done.stderr
    return done.stderr


def test_version_and_help(tmp_path: Path) -> None:
    assert re.fullmatch(r"redecide \d+\.\d+\.\d+\n", redecide("--version", cwd=tmp_path).stdout)
    shown = redecide("--help", cwd=tmp_path).stdout
    commands = set(re.findall(r"│ (\w+) +\w", shown))
    assert {"demo", "datasets", "replay", "compare", "doctor", "lab"} <= commands


def test_help_is_light(tmp_path: Path) -> None:
    """Some libraries of the extras take seconds to import; a question about options does not wait for them."""
    code = (
        "import sys; from workbench.cli import app; app(['--help'], standalone_mode=False); "
        "print(sorted({'mlflow', 'deepeval', 'deltalake', 'pyarrow', 'pandas', 'agentdojo'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_replay(made: Path, tmp_path: Path) -> None:
    shown = redecide("replay", made / "lake", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "100 % of 4 decisions" in shown.stdout
    counts = json.loads(redecide("replay", made / "lake", "--json", cwd=tmp_path).stdout)
    assert counts["decisions"] == counts["decisions_decided"] == 4


def test_replay_writes_the_rows(made: Path, tmp_path: Path) -> None:
    done = redecide("replay", made / "lake", "--policy", made / "next", "--out", "rows.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert rows.sort("position")["verdict"].to_list() == ["allow", "allow", "block", "block"]


def test_compare(made: Path, tmp_path: Path) -> None:
    asked = ("compare", made / "lake", "--policy", made / "next")
    shown = redecide(*asked, "--html", "report.html", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "limit" in (tmp_path / "report.html").read_text()
    assert "report.html" in shown.stdout
    numbers = json.loads(redecide(*asked, "--json", cwd=tmp_path).stdout)
    assert (numbers["decisions"], numbers["decisions_changed"], numbers["effect_prevented"]) == (4, 1, 1)


@pytest.mark.parametrize(("most", "code"), [("0.4", 0), ("0.3", 1)])
def test_compare_judges_declared_gates_for_each_tool(
    made: Path, tmp_path: Path, most: str, code: int
) -> None:
    """One of three calls that ran is prevented; the file alone says what slices are of."""
    (tmp_path / "gates.toml").write_text(
        f'[[gates]]\nquantity = "calls_prevented_share"\nat_most = {most}\non = "log"\neach = "tool"\n'
    )
    asked = ("compare", made / "lake", "--policy", made / "next", "--gates", "gates.toml", "--json")
    done = redecide(*asked, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    (gate,) = json.loads(done.stdout)["outcome"]["gates"]
    assert (gate["slice"], gate["each"], gate["state"]) == ("issue_refund", "tool", ["met", "failed"][code])


@pytest.mark.slow
def test_compare_logs_to_mlflow(made: Path, tmp_path: Path) -> None:
    lake = Path(shutil.copytree(made / "lake", tmp_path / "lake"))
    done = redecide("compare", lake, "--policy", made / "next", "--experiment", "refunds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MLflow: " in done.stdout
    assert list(tmp_path.rglob("mlflow.db"))


def test_a_misspelt_option_of_a_job_that_judges_is_not_taken_for_inconclusive(
    made: Path, tmp_path: Path
) -> None:
    asked = ("compare", made / "lake", "--policy", made / "next", "--stake", "x")
    assert redecide(*asked, cwd=tmp_path).returncode == 2
    assert redecide(*asked, "--gates", "gates.toml", cwd=tmp_path).returncode == 3


def test_compare_needs_a_candidate(made: Path, tmp_path: Path) -> None:
    assert "--policy" in refused("compare", made / "lake", cwd=tmp_path)


def test_out_that_cannot_be_written(made: Path, tmp_path: Path) -> None:
    assert "nowhere" in refused("replay", made / "lake", "--out", "nowhere/rows.parquet", cwd=tmp_path)


def test_build_keeps_a_lake_that_is_there(made: Path) -> None:
    """A second build would put each session in twice."""
    before = sorted((made / "lake").rglob("*"))
    message = refused("datasets", "build", "agentdojo", "--workdir", made, cwd=made)
    assert "--workdir" in message
    assert sorted((made / "lake").rglob("*")) == before


def test_no_lake(tmp_path: Path) -> None:
    assert "nowhere" in refused("replay", "nowhere", cwd=tmp_path)
    assert "nowhere" in refused("doctor", "nowhere", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == [], "asking for a lake must not make one"


def test_policy_that_does_not_parse(made: Path, tmp_path: Path) -> None:
    broken = bundle(tmp_path / "broken", "5000")
    (broken / "refunds.cedar").write_text(
        '@id("a")\npermit (principal, action, resource);\n@id("b")\npermit (;\n'
    )
    message = refused("replay", made / "lake", "--policy", broken, cwd=tmp_path)
    assert "refunds.cedar:4" in message


def test_no_bundle(made: Path, tmp_path: Path) -> None:
    assert "missing-bundle" in refused("replay", made / "lake", "--policy", "missing-bundle", cwd=tmp_path)


def test_unknown_suite(tmp_path: Path) -> None:
    message = refused(
        "datasets", "build", "agentdojo", "--workdir", "new", "--suite", "bankign", cwd=tmp_path
    )
    assert "bankign" in message
    assert "banking" in message
    assert not (tmp_path / "new").exists(), "nothing half-written"


@pytest.mark.slow
def test_build_then_replay_with_facts(tmp_path: Path) -> None:
    """The candidate needs facts that the baseline did not ask for; they are compiled again from the versioned tables."""
    done = redecide("datasets", "build", "agentdojo", "--workdir", "new", "--suite", "slack", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"126 sessions, \d+ decisions", done.stdout)
    candidate = shipped("agentdojo/candidate")
    asked = ("replay", "new/lake", "--policy", candidate, "--json")
    as_recorded = json.loads(redecide(*asked, cwd=tmp_path).stdout)
    assert as_recorded["cause_missing_fact"] > 0
    again = redecide(*asked, "--context", candidate, "--source", "new/facts", cwd=tmp_path)
    assert json.loads(again.stdout)["decisions_decided"] == as_recorded["decisions"], again.stderr


def test_source_that_is_neither(made: Path, tmp_path: Path) -> None:
    for given in ("nowhere", "name=", "=path"):
        said = refused("replay", made / "lake", "--source", given, cwd=tmp_path)
        assert "NAME=PATH" in said
        assert repr(given) in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("frobnicate",), "No such command 'frobnicate'; see `redecide --help`"),
        (("replay",), "Missing argument 'LAKE'; see `redecide replay --help`"),
        (("replay", "lake", "--polcy", "next"), "--polcy"),
    ],
)
def test_what_is_not_understood_is_one_line(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    assert says in refused(*args, cwd=tmp_path)


def test_no_command_prints_the_help_once(tmp_path: Path) -> None:
    done = redecide(cwd=tmp_path)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("Usage: redecide") == 1
    assert "error" not in done.stderr


def test_unknown_data_set(tmp_path: Path) -> None:
    done = redecide("datasets", "build", "agentdjo", cwd=tmp_path)
    assert done.returncode == 2
    assert "agentdojo" in done.stderr


def test_doctor(made: Path, tmp_path: Path) -> None:
    done = redecide("doctor", made / "lake", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        r"ok +redecide +\d",
        r"ok +python +3\.1",
        r"ok +polars +\d",
        r"ok +decisions +4 rows",
        r"ok +chain ",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), f"{line!r} is not in:\n{done.stdout}"


def test_doctor_finds_a_changed_row(made: Path, tmp_path: Path) -> None:
    lake = Path(shutil.copytree(made / "lake", tmp_path / "lake"))
    table = deltalake.DeltaTable(lake / "decisions")
    table.update(predicate="step = 1", updates={"verdict": "'block'"})
    done = redecide("doctor", lake, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"BAD +chain .*position \d+.*changed", done.stdout)


def test_doctor_finds_a_removed_row(made: Path, tmp_path: Path) -> None:
    lake = Path(shutil.copytree(made / "lake", tmp_path / "lake"))
    deltalake.DeltaTable(lake / "decisions").delete("step = 1")
    done = redecide("doctor", lake, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"BAD +chain .*missing", done.stdout)


@pytest.mark.slow
def test_lab_opens_the_notebooks(tmp_path: Path) -> None:
    """JupyterLab starts in an empty folder, on the notebooks that come with Redecide."""
    port = 18765
    address = f"http://127.0.0.1:{port}/api/contents?token=secret"
    options = [
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=secret",
    ]
    command = [str(Path(sys.executable).with_name("redecide")), "lab", *options]
    log = (tmp_path / "log").open("w")
    with subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log) as server:
        try:
            listed = json.loads(answer(address, server, seconds=60))
        finally:
            server.terminate()
            server.wait(timeout=30)
            log.close()
    names = sorted(path.name for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
    assert len(names) >= 7
    assert sorted(each["name"] for each in listed["content"]) == names
    assert (tmp_path / "notebooks" / "01_replay_in_five_minutes.ipynb").is_file()


def answer(address: str, server: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return what a server on this machine answers, once it listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                return bytes(reply.read())
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"nothing answered within {seconds} s; exit code {server.poll()}")
