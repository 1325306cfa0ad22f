"""The whole demo, as `make demo` runs it: what the README shows is what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.demo import run_demo
from workbench.lake import open_lake

ROOT = Path(__file__).resolve().parents[2]


def printed_table() -> list[str]:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"^```\n( +banking.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line.rstrip() for line in block[1].splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.demo
def test_the_demo_prints_what_the_readme_shows_and_replay_is_confirmed_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run_demo(tmp_path / "demo") == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    for line in printed_table():
        assert line in shown, f"the README shows {line!r}; the demo prints:\n" + "\n".join(shown)
    assert "every live verdict is the one replay predicted" in shown
    report = (tmp_path / "demo" / "report.html").read_text()
    assert "755" in report
    own = open_lake(tmp_path / "demo" / "lake").replay().counts()
    assert own["decisions"] == own["decidable"] == own["recompilable"] == 4275
    # A second run reuses both lakes and says the same.
    assert run_demo(tmp_path / "demo") == 0
    again = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any("reusing" in line for line in again)
    assert [line for line in again if line in printed_table()] == [
        line for line in shown if line in printed_table()
    ]
