"""The whole demo, as `make demo` runs it: what the README shows is what it prints."""

from __future__ import annotations

import re
import shutil
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
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reuses the lake that is there, and builds the one that is not: the live confirmation."""
    monkeypatch.setenv("COLUMNS", "100")
    folder = Path(shutil.copytree(demo_folder, tmp_path / "demo"))
    capsys.readouterr()
    assert run_demo(folder) == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    for line in printed_table():
        assert line in shown, f"the README shows {line!r}; the demo prints:\n" + "\n".join(shown)
    assert [line.split(" (")[0] for line in shown if "reusing" in line] == [f"reusing {folder / 'lake'}"]
    assert "every live verdict is the one replay predicted" in shown
    assert "755" in (folder / "report.html").read_text()
    assert (folder / "confirm.json").read_text() != (folder / "lake.json").read_text()
    own = open_lake(folder / "lake").replay().counts()
    assert own["decisions"] == own["decidable"] == own["recompilable"] == 4275
