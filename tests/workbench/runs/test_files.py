"""Artifacts: a diff that applies, a coverage that says what it counted, parts that fail are named."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workbench.runs.comparisons import DECISIONS, desk
from workbench.covering.result import coverage
from workbench.errors import ReplayFailure
from workbench.runs import files as files_module
from workbench.runs import policy_diff as policy_diff_module
from workbench.runs.entry_files import read_entry
from workbench.runs.files import counted_coverage, names_of
from workbench.runs.policy_diff import Line, policy_diff
from workbench.runs.preparing import FILES, prepare
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.runs.entry import Entry

# The bundles' texts.


def test_the_diff_makes_the_candidate_of_the_baseline(tmp_path: Path) -> None:
    """Git applies it, and what comes out is the candidate, byte for byte."""
    found = policy_diff(desk())
    assert found.base.files is not None
    assert found.cand.files is not None
    for name, text in found.base.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "x.diff").write_text(found.unified)
    subprocess.run(["git", "apply", "-p1", "x.diff"], cwd=tmp_path, check=True, timeout=60)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "x.diff"}
    assert texts == found.cand.files
    states = {file.name: file.state for file in found.files}
    same = {name for name, text in found.cand.files.items() if found.base.files.get(name) == text}
    assert {name for name, state in states.items() if state == "same"} == same
    assert found.base.note.startswith(f"{DECISIONS:,} of {DECISIONS:,} decisions")


def test_side_by_side_is_a_page_without_scripts_in_which_nothing_is_markup() -> None:
    found = policy_diff(desk())
    hostile = replace(
        found.files[0],
        name="<script>alert(1)</script>",
        state="new",
        lines=(Line("new", None, "", 1, "<img src=x>\u202e"),),
    )
    page = replace(found, files=(hostile, *found.files)).html()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x&gt;\\u202e" in page
    assert "default-src 'none'" in page
    assert "address-of-shipped" in page


def test_a_bundle_that_the_lake_lost_is_not_shown_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    diff = desk()
    lake: Any = diff.base.lake
    monkeypatch.setattr(type(lake), "find_bundle", lambda *_: None)
    found = policy_diff(diff)
    assert found.headline == "The files of the baseline are not known; nothing can be compared."
    assert found.files == ()
    assert "the lake does not hold the files" in found.base.note


_LINES = st.lists(st.sampled_from(["a", "b", "c", "", "  d"]), max_size=40)


@given(_LINES, _LINES)
def test_every_line_is_in_its_place(old: list[str], new: list[str]) -> None:
    rows = list(policy_diff_module._lines(old, new))
    for side, texts in (("left", old), ("right", new)):
        shown = [
            (getattr(row, side), row.old if side == "left" else row.new)
            for row in rows
            if row.kind != "skipped"
        ]
        numbered = [(number, text) for number, text in shown if number is not None]
        assert all(texts[number - 1] == text for number, text in numbered)
        assert [number for number, _ in numbered] == sorted({number for number, _ in numbered})
        skipped = sum(int(row.old.split()[0].replace(",", "")) for row in rows if row.kind == "skipped")
        assert len(numbered) + skipped == len(texts)
    assert (old == new) == all(row.kind in ("same", "skipped") for row in rows)


# Coverage.


@pytest.mark.slow
def test_all_decisions_are_counted_where_there_are_few() -> None:
    found = counted_coverage(desk())
    every = coverage(desk().cand.lake, shipped("support-desk/candidate"))  # type: ignore[arg-type]  # a lake
    assert found.as_dict() == every.as_dict()


def test_a_part_is_counted_where_there_are_many_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "STRETCH", 100)
    found = counted_coverage(desk(), most=DECISIONS // 3)
    total: Any = found.as_dict()["decisions"]
    assert DECISIONS / 6 < total["total"] < DECISIONS / 2
    assert found.lake.endswith(", one in 3 stretches of 100 positions")


# All of it.


def prepared(folder: Path, diff: Diff, **more: Any) -> Entry:
    folder.mkdir()
    return prepare(diff, folder, id="n-1", experiment="e", traces=2, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Entry]:
    folder = tmp_path_factory.mktemp("entry") / "one"
    return folder, prepared(folder, desk(), step=77)


def test_the_folder_is_the_entry(whole: tuple[Path, Entry]) -> None:
    folder, entry = whole
    assert read_entry(folder) == entry
    assert entry.runs[0].files == FILES
    names = set(names_of(folder / FILES))
    assert {
        "changed.parquet", "coverage.html", "coverage.json", "outcome.html", "outcome.json", "plots/effects.png",
        "plots/effects.svg", "plots/intervals.svg", "policies/candidate.diff", "policies/side-by-side.html",
        "report.html", "slices.parquet", "summary.json",
    } <= names  # fmt: skip
    assert pl.read_parquet(folder / FILES / "changed.parquet").equals(desk().changed.collect())
    summary = json.loads((folder / FILES / "summary.json").read_text())
    assert summary["outcome"]["verdict"] == desk().verdict
    assert summary["metrics"] == {each.name: each.value for each in entry.runs[0].measures}
    assert sum(summary["regressed"].values()) == summary["metrics"]["regressed"] > 0
    assert (folder / FILES / "plots" / "effects.png").read_bytes().startswith(b"\x89PNG")


def test_a_series_has_the_runs_numbers_at_its_step(whole: tuple[Path, Entry], tmp_path: Path) -> None:
    from workbench.runs.entry import Measure

    _, entry = whole
    assert entry.series is not None
    assert entry.series.measures == entry.runs[0].measures
    assert {each.step for each in entry.series.measures} == {77}
    earlier = (Measure(name="decisions", value=3, step=12), Measure(name="decisions", value=4, step=77))
    again = prepared(tmp_path / "x", desk(), step=77, earlier=earlier, series="nightly next", coverage=False)
    assert again.series is not None
    assert again.series.name == "nightly next"
    assert again.series.measures == (earlier[0], *entry.series.measures)  # this night's own number holds
    assert "coverage.html" not in names_of(tmp_path / "x" / FILES)


def test_the_candidate_is_registered_with_the_aliases_of_the_lake(whole: tuple[Path, Entry]) -> None:
    (found,) = whole[1].runs[0].registered
    assert found.bundle_version == desk().cand.policy[1]
    assert found.model.startswith("redecide.")
    assert dict(found.aliases) == {}


def test_a_part_that_fails_is_named_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ReplayFailure("source `orders` is not where it was")

    monkeypatch.setattr(files_module, "coverage", away)
    entry = prepared(tmp_path / "x", desk())
    assert entry.runs[0].tags["redecide.not_written.coverage"] == "source `orders` is not where it was"
    assert entry.series is None
    names = names_of(tmp_path / "x" / FILES)
    assert "policies/candidate.diff" in names
    assert "coverage.html" not in names


def test_a_comparison_of_no_lake_says_what_it_has_not(diff: Diff, tmp_path: Path) -> None:
    from tests.workbench.test_log import placed

    entry = prepared(tmp_path / "x", placed(diff, tmp_path / "lake"))
    assert entry.traces == ()
    assert entry.runs[0].registered == ()
    said = {name for name in entry.runs[0].tags if name.startswith("redecide.not_written.")}
    assert said == {f"redecide.not_written.{part}" for part in ("plots", "policies", "coverage")}
