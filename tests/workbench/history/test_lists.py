"""Lists that are taken by number come out as Polars' own gather has them."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from workbench.history.lists import gathered

_FAULT = pl.Struct({"policy": pl.String, "message": pl.String})
_TEXTS = st.text(max_size=20)
_FAULTS = st.fixed_dictionaries({"policy": _TEXTS, "message": st.none() | _TEXTS})


@given(st.data())
def test_taking_lists_by_number_equals_gather(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return data.draw(st.lists(values, min_size=n, max_size=n))

    table = pl.DataFrame(
        {
            "texts": pl.Series(column(st.none() | st.lists(_TEXTS, max_size=3)), dtype=pl.List(pl.String)),
            "flat": pl.Series(column(st.none() | _TEXTS), dtype=pl.String),
            "faults": pl.Series(column(st.none() | st.lists(_FAULTS, max_size=2)), dtype=pl.List(_FAULT)),
            "none": pl.Series([[]] * n, dtype=pl.List(pl.String)),
        }
    )
    numbers = pl.Series(data.draw(st.lists(st.integers(0, n - 1), max_size=12)), dtype=pl.UInt32)
    found = gathered(table, numbers)
    assert_frame_equal(found, table.select(pl.all().gather(numbers)))
    assert found.schema == table.schema


@pytest.mark.parametrize("rows", [0, 2])
def test_no_number_gives_no_row(rows: int) -> None:
    table = pl.DataFrame(
        {"a": [["x"]] * rows, "b": ["y"] * rows}, schema={"a": pl.List(pl.String), "b": pl.String}
    )
    found = gathered(table, pl.Series([], dtype=pl.UInt32))
    assert (found.height, found.schema) == (0, table.schema)


def test_what_was_taken_can_be_cut_and_put_together() -> None:
    """The members lie in one piece: slices, filters and concatenation have to see each row's own."""
    table = pl.DataFrame({"a": [["x"], [], ["y", "z"], None]})
    found = gathered(table, pl.Series([3, 2, 1, 0, 2], dtype=pl.UInt32))
    assert found[1:4]["a"].to_list() == [["y", "z"], [], ["x"]]
    assert found.filter(pl.col("a").list.len() > 1)["a"].to_list() == [["y", "z"], ["y", "z"]]
    assert pl.concat([found[3:], found[:1]])["a"].to_list() == [["x"], ["y", "z"], None]
