"""Slices: nothing leaves the denominator, and the numbers are those of the comparison."""

from __future__ import annotations

import re

import polars as pl
import pytest

from tests.workbench.runs.comparisons import DECISIONS, desk
from workbench.compare import Diff
from workbench.errors import ColumnUnknown
from workbench.estimating.estimates import estimates
from workbench.runs.slices import NONE, REST, slices_of


@pytest.mark.parametrize(("column", "most"), [("tool", 3), ("principal", 5), ("tool", 50)])
def test_the_largest_are_runs_and_the_rest_is_counted(column: str, most: int) -> None:
    found = slices_of(desk(), (column,), step=7, most=most)
    assert found.table is not None
    sizes = (
        desk().frame.group_by(column).agg(n=pl.len()).sort("n", column, descending=[True, False]).collect()
    )
    assert found.table["decisions"].sum() == DECISIONS
    largest = sizes.head(most).rows()
    assert found.table.filter(pl.col("value") != REST).select("value", "decisions").rows() == largest
    assert [dict(run.params)["slice.value"] for run in found.runs] == [value for value, _ in largest]
    left, rows = sizes.height - most, sizes["n"].slice(most).sum()
    said = f"{left:,} more values with {rows:,} decisions, not a run of their own"
    assert dict(found.tags) == ({f"redecide.slices_left_out.{column}": said} if left > 0 else {})
    assert {each.step for run in found.runs for each in run.measures} == {7}
    assert {run.parent for run in found.runs} == {""}


def test_numbers_are_those_of_the_comparison() -> None:
    """Counts as `Diff.by` has them, bounds as `estimates(by=…)` has them: another way to the same numbers."""
    diff = desk()
    counts = {row["tool"]: row for row in diff.by("tool").collect().to_dicts()}
    bounds = estimates(diff, by=("tool",)).slices("good_held_share")
    runs = {
        run.params["slice.value"]: {each.name: each.value for each in run.measures}
        for run in slices_of(diff, ("tool",)).runs
    }
    assert runs.keys() == counts.keys()
    for tool, numbers in runs.items():
        assert numbers["decisions_changed"] == counts[tool]["decisions_changed"]
        share = counts[tool]["honest_calls_disturbed"] / counts[tool]["honest_calls_ran"]
        assert numbers["honest_calls_disturbed_share"] == pytest.approx(share)
        lower, upper = bounds[tool].interval(diff.level)
        assert numbers["estimate.good_held_share.lower"] == pytest.approx(lower)
        assert numbers["estimate.good_held_share.upper"] == pytest.approx(upper)
        assert numbers["estimate.good_held_share.low"] == pytest.approx(bounds[tool].low.value)
    assert any("estimate.good_held_share.p_holm" in numbers for numbers in runs.values())


def test_what_is_zero_everywhere_is_left_out() -> None:
    names = {each.name for run in slices_of(desk(), ("tool",)).runs for each in run.measures}
    assert "decisions_undecided" not in names
    assert "unlabelled_calls" not in names
    assert "decisions_changed" in names


def test_hostile_values_become_names_that_mlflow_takes(diff: Diff) -> None:
    found = slices_of(diff, ("tenant", "tool"))
    keys = [run.key for run in found.runs]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_. :-]{1,250}", key) for key in keys)
    assert "<b>slack</b> & co" in {run.params["slice.value"] for run in found.runs}


def test_a_value_that_is_called_as_the_rest_is_and_nulls(diff: Diff) -> None:
    """A tool that somebody named `(rest)` is in the rest, not counted twice."""
    renamed = pl.when(pl.col("tool") == "invite").then(pl.lit(REST)).when(pl.col("tool") == "post").then(None)
    odd = Diff(diff.base, diff.cand)
    odd.__dict__["_rows"] = diff.frame.with_columns(renamed.otherwise("tool").alias("tool")).collect()
    table = slices_of(odd, ("tool",)).table
    assert table is not None
    sizes = dict(table.select("value", "decisions").iter_rows())
    before = dict(diff.frame.group_by("tool").len().collect().iter_rows())
    assert (sizes[REST], sizes[NONE]) == (before["invite"], before["post"])
    assert sum(sizes.values()) == sum(before.values())


def test_an_unknown_column_names_the_closest() -> None:
    with pytest.raises(ColumnUnknown, match="did you mean `tenant`"):
        slices_of(desk(), ("tennant",))
    assert slices_of(desk(), ()).table is None
