"""`redecide import calls`, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli_import import app
from workbench.errors import WorkbenchError

DATA = Path(__file__).parent / "data"
FILES = [str(DATA / "calls.jsonl"), "--mapping", str(DATA / "map.toml"), "--runs", str(DATA / "runs.jsonl")]


def run(*args: str) -> str:
    result = CliRunner().invoke(app, ["calls", *args])
    if isinstance(result.exception, WorkbenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_import_and_what_it_says(tmp_path: Path) -> None:
    said = run(
        *FILES,
        "--out",
        str(tmp_path / "lake"),
        "--bundle",
        str(tmp_path / "mine"),
        "--html",
        str(tmp_path / "p.html"),
    )
    assert "7 of 9 rows (77.8 %), in 3 sessions of 1 tenant, with 3 tools; 2 kept aside." in said
    assert "mixed_types" in said
    assert (tmp_path / "lake-rejected.parquet").is_file()
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"schema.cedarschema", "ungoverned.cedar"}
    assert "kept aside" in (tmp_path / "p.html").read_text()
    with pytest.raises(WorkbenchError, match="is there already"):
        run(*FILES, "--out", str(tmp_path / "lake"))


def test_json_is_all_of_it_and_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(run(*FILES, "--dry-run", "--json"))
    assert (told["rows"], told["mapped"], told["rejected"]) == (
        9,
        7,
        {"args_unreadable": 1, "mixed_types": 1},
    )
    assert told["lake"] is None
    assert list(tmp_path.iterdir()) == []
    assert run(*FILES, "--dry-run", "--markdown").startswith("## Would import 7 calls")


def test_the_way_out_is_in_the_message() -> None:
    with pytest.raises(WorkbenchError, match=r"--mapping MAP.toml; --suggest prints one"):
        run(FILES[0])
    with pytest.raises(WorkbenchError, match=r"--out LAKE .* or --dry-run"):
        run(*FILES)
    assert run(FILES[0], "--suggest").startswith("# A guess")
