"""A night as an executed notebook: offline, without a replay, and gates drawn over nights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import polars as pl
import pytest

from tests.workbench.regressing.nights import HOSTILE, candidate, gate, night
from workbench.errors import JobStateError
from workbench.regressing.reporting.chart import MAX_GATES, gate_rows, gates_over_nights
from workbench.regressing.reporting.moved import CHANGED, moved
from workbench.regressing.reporting.notebook import execute, keep, nights, page, run

if TYPE_CHECKING:
    from workbench.regressing.result import Candidate, Night

ROWS = [
    {"tenant": "t", "session_id": session, "decision_id": f"d-{at}", "tool": tool, "from": "allow", "to": "block",
     "effect": "prevented", "side": "honest", "determining": by}
    for at, (session, tool, by) in enumerate(
        [("s-1", "issue_refund", ["limit"]), ("s-1", "issue_refund", ["limit"]), ("s-2", HOSTILE[0], ["a", "b"])]
    )
]  # fmt: skip


def with_files(folder: Path) -> Candidate:
    """Return a candidate with its changed decisions in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(ROWS).write_parquet(folder / CHANGED)
    return candidate("failed", files=str(folder))


def series(many: int) -> list[Night]:
    """Return nights in which a gate closes."""
    return [
        night(
            candidate(
                "open" if at < many else "met", night=at, gates=(gate("open", upper=0.2 / at, lower=None),)
            )
        )
        for at in range(1, many + 1)
    ]


def test_what_moved_is_counted_by_tool_and_clause(tmp_path: Path) -> None:
    found = moved(with_files(tmp_path))
    assert found.rows.select("tool", "because", "decisions", "sessions", "example").rows() == [
        ("issue_refund", "limit", 2, 1, "d-0"), (HOSTILE[0], "a, b", 1, 1, "d-2")
    ]  # fmt: skip
    assert "3 decisions would change, in 2 ways." in repr(found)
    assert "<script" not in found._repr_html_()


def test_what_moved_says_where_there_is_nothing(tmp_path: Path) -> None:
    assert "no list of changed decisions" in repr(moved(candidate("met", files=str(tmp_path / "gone"))))
    pl.DataFrame(ROWS).clear().write_parquet(tmp_path / CHANGED)
    assert "No decision of this window would change." in repr(moved(candidate("met", files=str(tmp_path))))
    (tmp_path / CHANGED).write_bytes(b"PAR1")
    with pytest.raises(JobStateError, match=CHANGED):
        moved(candidate("met", files=str(tmp_path)))


def test_gates_are_drawn_over_the_nights_of_their_series() -> None:
    """Nights of another version of the candidate, or of the baseline, had other gates to meet."""
    found = series(5)
    other = night(candidate("met", night=9, version="ff" * 32))
    beside = night(candidate("met", night=8, baseline_version="ee" * 32))
    again = replace(found[2])  # told twice
    rows = gate_rows([other, beside, *found, again, found[-1]], "policies/next")
    assert rows["night"].to_list() == [1, 2, 3, 4, 5]
    assert rows["threshold"].to_list() == [0.05] * 5
    assert rows["upper"].to_list() == pytest.approx([0.2, 0.1, 0.2 / 3, 0.05, 0.04])
    plot = gates_over_nights(found, "policies/next")
    assert plot.text == "1 gate of policies/next over 5 nights."
    assert plot.svg("light").startswith("<svg")


def test_the_chart_of_nothing_one_night_and_many_gates() -> None:
    assert "No gate was judged yet." in gates_over_nights([night(candidate(None, night=0))], "x").text
    many = tuple(
        gate("met", text=f"{HOSTILE[at % 20]} <= {at}", lower=None, upper=None, low=None) for at in range(20)
    )
    plot = gates_over_nights([night(candidate("met", night=1, gates=many))], "policies/next")
    assert plot.data["gate"].n_unique() == MAX_GATES
    assert "<script" not in plot.svg()


def test_nights_are_kept_and_read_back(tmp_path: Path) -> None:
    found = series(3)
    keep(found[-1], tmp_path / "new", earlier=found[:-1])
    assert nights(tmp_path / "new") == found
    (tmp_path / "new" / "nights.json").write_text("{")
    with pytest.raises(JobStateError, match=r"nights\.json"):
        nights(tmp_path / "new")


def test_the_page_runs_no_script_and_loads_nothing(tmp_path: Path) -> None:
    """Whatever a cell shows: the browser is told, and no address is in it that it could load by itself."""
    made = nbformat.v4.new_notebook()
    shown = {"text/html": '<b>bold</b><script>alert(1)</script><img src="https://evil.example/x.png">'}
    outputs = [
        nbformat.v4.new_output("display_data", data={"text/plain": ""}),
        nbformat.v4.new_output("display_data", data=shown),
        nbformat.v4.new_output("stream", text="\x1b[31mred\x1b[0m <i>"),
    ]
    made.cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n$x^2$ `code`"),
        nbformat.v4.new_code_cell("print('<&>')", outputs=outputs),
    ]
    text = page(made, title="<night>")
    head, _, body = text.partition("<main")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', head)
    assert policy is not None
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "<script" not in head
    assert not re.search(r'(?:src|href)="(?:https?:)?//', head + body.replace("https://evil.example", ""))
    assert "<title>&lt;night&gt;" in head
    assert "<summary>code</summary>" in body
    assert "&lt;i&gt;" in body
    assert len(made.cells[1].outputs) == 3, "the notebook itself stays as it is"


@pytest.mark.slow
def test_a_night_is_executed_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "night"
    one = with_files(tmp_path / "files")
    found = series(3)
    last = replace(found[-1], candidates=(replace(one, night=4, gates=(gate("failed"),)),))
    path = execute(last, folder, earlier=found)
    text = path.read_text()
    for said in (
        "nightly support",
        "don't ship",
        "3 decisions would change",
        "over 4 nights",
        "issue_refund",
    ):
        assert said in text
    assert "<script>alert" not in text
    assert sorted(each.name for each in folder.iterdir()) == [
        "night.json", "nights.json", "notebook.html", "notebook.ipynb"
    ]  # fmt: skip
    done = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert [
        output for cell in done.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ] == []


@pytest.mark.slow
def test_a_night_without_a_candidate_is_executed_too(tmp_path: Path) -> None:
    assert "no lake" in execute(night(problems=("no lake",)), tmp_path / "night").read_text()


@pytest.mark.slow
def test_a_cell_that_fails_is_told_and_leaves_no_page(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    made.cells = [nbformat.v4.new_code_cell("raise ValueError('no <b>')")]
    path = tmp_path / "bad.ipynb"
    nbformat.write(made, path)
    folder = tmp_path / "night"
    folder.mkdir()
    with pytest.raises(JobStateError, match=r"bad\.ipynb did not run: ValueError: no <b>"):
        run(path, folder, {})
    assert list(folder.iterdir()) == []
