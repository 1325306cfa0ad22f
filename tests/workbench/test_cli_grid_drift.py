"""`redecide grid` and `redecide drift`, as somebody types them: they say what `wb.grid` and `wb.drift` say."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pytest
from typer.testing import CliRunner

import workbench as wb
from runtime import Runtime
from workbench.cli import app
from workbench.cli_drift import window_of
from workbench.drifting.drift import drift as drift_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from workbench.lake import Lake

SCHEMA = """
entity Agent; entity Order;
action refund appliesTo {
  principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
POLICY = '@id("may") permit (principal, action, resource);\n@id("large") forbid (principal, action, resource) when { '
BUDGET = 'version = 2\n[[budget]]\nname = "calls"\nmax = 1\n'


class Made(NamedTuple):
    """What was recorded: six sessions of two small refunds, then six of large ones."""

    lake: Lake
    stricter: Path
    middle: datetime
    """The first decision of the second half."""


def bundle(folder: Path, most: int, limits: str = "") -> Path:
    folder.mkdir()
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "p.cedar").write_text(POLICY + f"context.args.cents > {most} }};\n")
    (folder / "limits.toml").write_text(limits)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("windows")
    with Runtime.open(bundle(root / "now", 9_000), lake=root / "lake") as runtime:
        runtime.tool(lambda order_id, cents: cents, name="refund", resource="Order::{order_id}")
        for number in range(12):
            cents = (1_000 + number) * (1 if number < 6 else 4)
            with runtime.session(principal="Agent::bot", tenant="acme", session_id=f"s-{number}") as session:
                session.call("refund", order_id="o", cents=cents)
                session.call("refund", order_id="o", cents=cents + 50)
    lake = wb.open(root / "lake")
    middle = lake.decisions.sort("position").select("decided_at").collect()["decided_at"][12]
    return Made(lake, bundle(root / "next", 2_000, BUDGET), middle)


def run(*args: object) -> str:
    """What a command prints; what it refuses is raised, as `main` meets it."""
    done = CliRunner().invoke(app, [*map(str, args)])
    if isinstance(done.exception, WorkbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_grid_says_what_the_library_says(made: Made, tmp_path: Path) -> None:
    asked = ("grid", made.lake.uri, "--policy", made.stricter, "--limits", made.stricter)
    grid = wb.grid(made.lake, made.stricter, limits=made.stricter)
    counts = grid.counts()
    due = {"policy": 6, "limits": 6, "overdetermined": 6, "unchanged": 6, "changed": 18, "decisions": 24}
    assert {name: counts[name] for name in due} == due, "the large ones, and the second of each session"
    told = json.loads(run(*asked, "--json", "--out", tmp_path / "rows.parquet"))
    assert told == json.loads(json.dumps(grid.as_dict()))
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert rows.select("decision_id", "attribution").equals(
        grid.frame.select("decision_id", "attribution").collect()
    )
    shown = run(*asked, "--html", tmp_path / "grid.html")
    assert f"{grid.headline}." in shown
    assert "Due to, by tool" in shown
    assert "grid.frame" not in shown, "what Python would do next is for a notebook"
    assert "Due to, by tool" in (tmp_path / "grid.html").read_text()
    assert run(*asked, "--markdown").startswith("## Old and new policy × limits\n")


def test_grid_needs_an_axis(made: Made) -> None:
    with pytest.raises(WorkbenchError, match=r"--policy BUNDLE, --context SPEC .*--limits BUNDLE"):
        run("grid", made.lake.uri)
    with pytest.raises(WorkbenchError, match="give --json or --markdown, not both"):
        run("grid", made.lake.uri, "--policy", made.stricter, "--json", "--markdown")


def test_drift_says_what_the_library_says(made: Made, tmp_path: Path) -> None:
    at = made.middle.isoformat()
    found = wb.drift(made.lake, (None, made.middle))
    assert "context.args.cents" in found.drifted.collect()["path"].to_list()
    asked = ("drift", made.lake.uri, "--before", f"..{at}")
    told = json.loads(run(*asked, "--json", "--out", tmp_path / "rows.parquet"))
    assert told == json.loads(json.dumps(found.as_dict()))
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(found.frame.collect())
    shown = run(*asked, "--after", f"{at}..", "--html", tmp_path / "drift.html")
    assert shown.startswith("Drift\n1 of ")
    assert "context.args.cents of refund" in shown
    assert "drift.drifted" not in shown
    assert "context.args.cents of refund" in (tmp_path / "drift.html").read_text()
    assert run(*asked, "--markdown").startswith("## Drift\n")
    assert json.loads(run(*asked, "--level", "0.999999", "--json"))["variables"][0]["drifted"] is False


def test_windows(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, at = made.lake, made.middle.isoformat()
    assert window_of(lake, f"..{at}") == (None, at)
    assert window_of(lake, f"{at} .. ") == (at, None)
    assert window_of(lake, "2026-01-01..2026-02-01") == ("2026-01-01", "2026-02-01")
    wb.save(lake.replay(), name="monday")
    again = wb.open(lake.uri)
    pinned = window_of(again, "monday")
    assert isinstance(pinned, dict)
    assert pinned["ledgers"] == lake.pins.ledgers
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    (tmp_path / "beside").symlink_to(lake.uri, target_is_directory=True)
    beside = window_of(lake, "../beside")
    assert getattr(beside, "pins", None) == again.pins, "a folder above is no pair of times"


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ("yesterday", "'yesterday' is no window: give times as .*, the folder of a lake, or a saved replay"),
        ("../nowhere", r"is no window"),
        ("monday..", "'monday' is no time; write 2026-11-01"),
        ("2999-01-01..", "there is no decision in the window"),
    ],
)
def test_what_is_no_window(made: Made, window: str, says: str) -> None:
    with pytest.raises(WorkbenchError, match=says):
        run("drift", made.lake.uri, "--before", window)


def test_the_options_are_those_of_the_library() -> None:
    """The help says them without loading Polars."""
    from workbench.cli_drift import drift

    mine, theirs = (inspect.signature(each).parameters for each in (drift, drift_of))
    assert {name: mine[name].default for name in ("level", "least")} == {
        name: theirs[name].default for name in ("level", "least")
    }
