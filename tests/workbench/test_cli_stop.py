"""`redecide stop`, as somebody types it in a hurry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from runtime.errors import GovernanceError
from workbench.cli import app
from workbench.errors import WorkbenchError

SCHEMA = 'entity Agent; entity Tool; action "look" appliesTo { principal: [Agent], resource: [Tool], context: {} };'


@pytest.fixture
def runtime(tmp_path: Path) -> Any:
    files = {"p.cedar": '@id("p") permit(principal, action, resource);', "schema.cedarschema": SCHEMA}
    made = Runtime.open(bundle_from_files(files, "b"), lake=tmp_path / "lake")
    made.tool(lambda: 1, name="look")
    yield made
    made.ledger.close()


def run(*args: str) -> str:
    result = CliRunner().invoke(app, ["stop", *args])
    if isinstance(result.exception, WorkbenchError | GovernanceError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def asks(runtime: Runtime) -> str:
    session = runtime.session(principal="Agent::bot", tenant="acme")
    try:
        return str(session.call("look"))
    except Blocked as exc:
        return str(exc)


def test_stop_look_and_lift(runtime: Runtime, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    assert run(lake) == "no emergency stop is in force\n"
    assert run(lake, "--agent", "Agent::bot", "--reason", "loops", "--by", "kim").startswith("stopped   ")
    assert "emergency stop of agent 'Agent::\"bot\"' by kim: loops" in asks(runtime)
    assert "agent 'Agent::\"bot\"': loops (kim, 20" in run(lake)
    assert run(lake, "--lift", "--agent", 'Agent::"bot"', "--by", "ana").startswith("lifted    ")
    assert asks(runtime) == "1"
    assert run(lake) == "no emergency stop is in force\n"
    assert "; lifted by ana, 20" in run(lake, "--history")


def test_all_and_by_id(runtime: Runtime, tmp_path: Path) -> None:
    ledger = str(tmp_path / "lake" / "_ledger.sqlite")
    (made,) = json.loads(run(ledger, "--all", "--reason", "fire", "--json"))
    assert "emergency stop of everything" in asks(runtime)
    run(ledger, "--tenant", "acme", "--tool", "look", "--reason", "again")
    assert len(json.loads(run(ledger, "--json"))) == 2
    run(ledger, "--lift", "--id", made["stop_id"])
    assert "tenant 'acme', tool 'look'" in asks(runtime)
    run(ledger, "--lift", "--all")
    assert run(ledger, "--lift", "--all") == "no emergency stop was lifted\n"
    assert asks(runtime) == "1"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--tool", "look"), "say why: --reason"),
        (("--reason", "x"), "say what to stop"),
        (("--all", "--tool", "look", "--reason", "x"), "say what to stop"),
        (("--lift",), "say which stops to lift"),
        (("--lift", "--tool", "look"), "no stop in force names exactly that"),
        (("--lift", "--id", "nope"), "there is no emergency stop 'nope'"),
        (("--agent", "bot", "--reason", "x"), "must be `Type::name`"),
    ],
)
def test_what_is_not_clear_stops_nothing_and_says_so(
    runtime: Runtime, tmp_path: Path, args: tuple[str, ...], says: str
) -> None:
    with pytest.raises((WorkbenchError, GovernanceError), match=says):
        run(str(tmp_path / "lake"), *args)
    assert asks(runtime) == "1"


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="no ledger at"):
        run(str(tmp_path), "--all", "--reason", "x")
    assert list(tmp_path.iterdir()) == []
