"""The notebooks tell true stories: each runs from top to bottom, and none is stored with outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import papermill
import pytest
from nbclient import NotebookClient

from workbench.bench.reviewed import reviewed_lake
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORT = ROOT / "notebooks" / "07_regression_report.ipynb"
SECONDS = 600
PARAMETERS = {"parameters", "injected-parameters"}
"""Tags of cells that papermill reads, and of those that it adds."""


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def silent(notebook: Any) -> list[str]:
    """Return the cells that show nothing; parameters are there to be read."""
    quiet = [cell for cell in code_of(notebook) if not cell.outputs]
    return [cell.source for cell in quiet if not PARAMETERS & set(cell.metadata.get("tags", []))]


def complaints(notebook: Any) -> list[str]:
    """Return what was printed as an error: warnings, and log lines of libraries."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    """Outputs would be stale, large, and might hold what should not be stored."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = code_of(notebook)
    assert code
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []


def test_they_are_numbered_and_lead_to_each_other() -> None:
    """A notebook names only notebooks that there are."""
    names = {path.name for path in NOTEBOOKS}
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, len(names) + 1)]
    for path in NOTEBOOKS:
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        named = {word.strip("`.,:;()") for word in text.split() if ".ipynb" in word and "/" not in word}
        assert named - names - {"report.ipynb", "night.ipynb"} == set(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Run a copy where nothing is, but for the demo's lake, which takes half a minute to build: that is there."""
    if "demo_lake" in path.read_text():
        shutil.copytree(request.getfixturevalue("demo_folder"), tmp_path / "redecide-demo")
    copy = Path(shutil.copy(path, tmp_path))
    notebook = nbformat.read(copy, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert silent(notebook) == [], "a cell that shows nothing tells nothing"
    assert complaints(notebook) == []


def report(folder: Path, gates: Sequence[dict[str, Any]], **parameters: Any) -> dict[str, Any]:
    """Run the regression report as a job would; return its summary."""
    given = {"gates": list(gates), "output": str(folder / "out"), **parameters}
    done = papermill.execute_notebook(
        REPORT, folder / "report.ipynb", given, cwd=folder, progress_bar=False, execution_timeout=SECONDS
    )
    assert silent(done) == []
    found: dict[str, Any] = json.loads((folder / "out" / "summary.json").read_text())
    assert "<title>" in (folder / "out" / "report.html").read_text()
    return found


@pytest.mark.slow
def test_the_report_takes_parameters(tmp_path: Path) -> None:
    """Another lake, window, baseline, candidate and gates; what it says is about those."""
    found = report(
        tmp_path,
        [{"quantity": "calls_prevented", "at_most": 0, "on": "log"}],
        lake=str(reviewed_lake(tmp_path, 400)),
        baseline=str(shipped("support-desk/baseline")),
        candidate=str(shipped("support-desk/candidate")),
        since="2026-09-01T00:20:00",
        experiment="nightly",
    )
    assert [found["baseline"][0], found["candidate"][0]] == ["baseline", "candidate"]
    assert (found["outcome"]["verdict"], found["exit_code"]) == ("don't ship", 1)
    assert 0 < found["numbers"]["decisions"] < 400
    assert list(tmp_path.rglob("mlflow.db")) == [tmp_path / "out" / "mlflow.db"]
