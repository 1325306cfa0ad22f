"""`redecide bench live`, small: that it measures what it says, and holds it against a sweep and a replay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from workbench.bench.cli import app
from workbench.bench.live import live, live_lines
from workbench.errors import OracleMismatch
from workbench.live import Answer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_edits_are_timed_and_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["live", "--rows", "1500", "--lakes", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)["runs"]
    assert run["rows"] == 1_500
    assert {each["edits"] for each in run["edits"].values()} == {8}
    median = sorted(each["seconds"] for each in run["edits"].values())[2]
    assert run["sweep_ratio"] == pytest.approx(run["sweep"]["seconds"] / median)
    said = "\n".join(live_lines([run]))
    assert "1,500 decisions prepared" in said
    assert "goal" not in said  # which is for a million
    assert "goal met" in "\n".join(live_lines([run | {"rows": 1_000_000}]))
    rows = Answer.rows
    monkeypatch.setattr(Answer, "rows", lambda answer: rows(answer).reverse())
    with pytest.raises(OracleMismatch, match="of a decision"):
        live(uri=run["uri"], edits=1)
