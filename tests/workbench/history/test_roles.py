"""Rows that are told apart by one number are told apart as rows are."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.history import roles
from workbench.history.facts import FactColumns
from workbench.history.roles import NOBODY, distinct

NUMBERS = st.sampled_from([0, 1, 2, 70_000, NOBODY - 1, NOBODY])
FRAMES = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(st.tuples(*[NUMBERS] * width)), min_size=1, max_size=3).map(
        lambda found: [frame_of(rows, width) for rows in found]
    )
)


def frame_of(rows: list[tuple[int | None, ...]], width: int) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(map(str, range(width)), pl.UInt32), orient="row")


@given(FRAMES)
def test_every_row_is_found_among_the_distinct_ones(frames: list[pl.DataFrame]) -> None:
    keys, parts = distinct(frames)
    assert keys.height == keys.n_unique() == pl.concat(frames).n_unique()
    for frame, index in zip(frames, parts, strict=True):
        assert index.len() == frame.height
        assert keys[index].equals(frame)


@pytest.mark.parametrize("widest", [0, 2**63])
def test_both_ways_say_the_same(widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_WIDEST", widest)
    frames = [frame_of([(1, NOBODY), (1, 0), (0, NOBODY)], 2), frame_of([(1, 0), (1, 1)], 2)]
    keys, (one, other) = distinct(frames)
    assert sorted(keys.rows()) == [(0, NOBODY), (1, 0), (1, 1), (1, NOBODY)]
    assert (keys[one].rows(), keys[other].rows()) == (frames[0].rows(), frames[1].rows())


def test_a_null_is_nobody_and_stands_nowhere() -> None:
    _, (index,) = distinct([frame_of([(1, None), (1, 0)], 2)])
    assert index.null_count() == 1
    assert index[0] is None


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.none() | st.integers(0, 12)))
def test_a_code_stands_where_its_record_does(used: list[int], codes: list[int | None]) -> None:
    here = pl.Series(sorted(used), dtype=pl.UInt32)
    empty = pl.DataFrame()
    facts = FactColumns(here, empty, {}, {}, pl.Series(dtype=pl.Boolean), {})
    place = {code: row for row, code in enumerate(here)}
    found = facts.rows(pl.Series(codes, dtype=pl.UInt32))
    assert found.dtype == pl.UInt32
    assert found.to_list() == [None if code is None else place.get(code) for code in codes]
