"""The benchmark of decoding: right texts, right sizes, and every reader does the work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from workbench.bench.decode import GOALS, READERS, check, decode, decode_lines, texts
from workbench.errors import OracleMismatch

if TYPE_CHECKING:
    from workbench.bench.decode import Size


@pytest.mark.parametrize(("size", "wanted"), [("short", 180), ("long", 570)])
def test_texts_are_seeded_and_of_the_size_the_goal_names(size: Size, wanted: int) -> None:
    given = texts(size, 5000)
    assert given.bytes_a_row == pytest.approx(wanted, rel=0.05)
    assert given.column.equals(texts(size, 5000).column)
    assert not given.column.equals(texts(size, 5000, seed=21).column)
    assert given.column.str.contains("\\", literal=True).mean() == pytest.approx(0.01, abs=0.006)
    check(given)


def test_the_check_finds_another_value() -> None:
    given = texts("short", 100)
    changed = given.column.to_list()
    changed[17] = changed[17].replace("o-", "x-")
    with pytest.raises(OracleMismatch):
        check(replace(given, column=pl.Series("text", changed)))


@pytest.mark.parametrize("size", list(GOALS))
@pytest.mark.parametrize("name", list(READERS))
def test_readers_read_every_row(name: str, size: Size) -> None:
    given = texts(size, 1000)
    found: Any = READERS[name](given)
    match name:
        case "redecide":
            assert found.columns.height == 1000
        case "redecide, with leaves":
            assert found[0].frame.height == 1000
        case "pyarrow.json":
            assert found.num_rows == 1000
            assert found["order_id"].null_count == 0
        case _:
            frame = found if found.width > 1 else found.unnest("text")
            assert frame.height == 1000
            assert frame["order_id"].to_list() == given.values["order_id"].to_list()


def test_the_figures_are_told() -> None:
    found = decode(rows=500, repeats=1)
    assert {(run["size"], run["reader"]) for run in found["runs"]} == {
        (size, name) for size in GOALS for name in READERS
    }
    lines = list(decode_lines(found))
    assert sum("goal" in line for line in lines) == len(GOALS)
    assert found["loading"]["why_not"] == ""
    assert sum("compiled pass was there" in line for line in lines) == 1
    without = {**found, "loading": {**found["loading"], "why_not": "no numba"}}
    assert "not compiled: no numba" in list(decode_lines(without))
