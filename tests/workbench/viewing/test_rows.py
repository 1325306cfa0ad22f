"""Rows of a table: windows, orders, keys; and cells that stay short whatever the log holds."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ColumnUnknown
from workbench.viewing.rows import MAX_CELL, Column, FrameRows, columns_of, written

FRAME = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "n": [3, 1, None, 1, 2],
        "cat": pl.Series(["z", "y", "x", "y", None], dtype=pl.Categorical),
        "ids": [["q"], [], ["a", "b"], None, ["a"]],
    }
)


def shown(rows: FrameRows) -> list[str]:
    return [rows.key(i) for i in range(rows.height)]


@pytest.mark.parametrize(
    ("column", "up", "down"),
    [
        ("n", "bdeac", "aebdc"),
        ("cat", "cbdae", "abdce"),
        ("id", "abcde", "edcba"),
        ("ids", "becad", "aceb d".replace(" ", "")),
    ],
)
def test_an_order_puts_nulls_last_and_leaves_ties(column: str, up: str, down: str) -> None:
    rows = FrameRows(FRAME, "id")
    assert "".join(shown(rows.sorted(column, descending=False))) == up
    assert "".join(shown(rows.sorted(column, descending=True))) == down


def test_an_order_of_some_rows_stays_within_them() -> None:
    rows = FrameRows(FRAME, "id", order=pl.Series([4, 1, 0], dtype=pl.UInt32))
    assert shown(rows) == ["e", "b", "a"]
    by_n = rows.sorted("n", descending=False)
    assert shown(by_n) == ["b", "e", "a"]
    assert by_n.window(1, 5)["id"].to_list() == ["e", "a"]
    assert (by_n.find("a"), by_n.find("c"), by_n.find("nobody")) == (2, None, None)


@given(
    st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=30),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_find_is_the_inverse_of_key_in_every_order(
    values: list[int | None], descending: bool, start: int, n: int
) -> None:
    frame = pl.DataFrame(
        {"decision_id": [f"d{i}" for i in range(len(values))], "n": pl.Series(values, dtype=pl.Int64)}
    )
    rows = FrameRows(frame).sorted("n", descending=descending)
    keys = [rows.key(i) for i in range(rows.height)]
    assert sorted(keys) == sorted(frame["decision_id"])
    assert [rows.find(key) for key in keys] == list(range(len(keys)))
    assert rows.window(start, n)["decision_id"].to_list() == keys[start : start + n]
    there = [value for value in rows.window(0, 99)["n"] if value is not None]
    assert there == sorted(there, reverse=descending)


def test_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(ColumnUnknown, match="has no column `idd`; did you mean `id`"):
        FrameRows(FRAME, "idd")
    with pytest.raises(ColumnUnknown, match="`nn`"):
        FrameRows(FRAME, "id", columns=[Column(name="nn", title="n")])


def test_columns_look_by_their_type() -> None:
    schema = pl.DataFrame(
        schema={"a_b": pl.String, "n": pl.Float64, "at": pl.Datetime("us", "UTC"), "is": pl.Boolean}
    ).schema
    assert [(column.title, column.kind) for column in columns_of(schema)] == [
        ("a b", "text"), ("n", "number"), ("at", "time"), ("is", "text"),
    ]  # fmt: skip


def test_cells_are_written_as_other_faces_write_them() -> None:
    at = datetime(2026, 9, 1, 12, 30, 1, 250_999, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "n": [1234, None], "f": [0.12344, None], "is": [True, None], "at": [at, None], "s": ["a\x1b[2J\u202eb", None],
            "ids": [["x", "y"], None], "who": [{"a": 1}, None],
        }
    )  # fmt: skip
    assert written(frame).rows() == [
        ("1,234", "0.1234", "yes", "2026-09-01 12:30:01.250", "a\\u001b[2J\\u202eb", "x, y", '{"a":1}'),
        (None, None, None, None, None, None, written(frame)["who"][1]),
    ]
    assert set(written(frame).dtypes) == {pl.String}


def test_a_cell_of_megabytes_is_cut_before_it_travels() -> None:
    huge = "x" * 2_000_000
    frame = pl.DataFrame({"s": [huge], "ids": [[huge] * 30], "many": [[str(i) for i in range(10_000)]]})
    cells = written(frame).row(0)
    assert [len(cell) for cell in cells][:2] == [MAX_CELL, MAX_CELL]
    assert cells[0].endswith("…")
    assert cells[2].endswith("19, …")


def test_no_rows_are_no_rows() -> None:
    rows = FrameRows(FRAME.clear(), "id")
    assert (rows.height, rows.find("a"), rows.window(0, 9).height) == (0, None, 0)
    assert rows.sorted("ids", descending=True).height == 0
    assert written(rows.window(0, 9)).columns == FRAME.columns
