"""Functions of batches of texts, each against the reader of one text."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.columnar.extension_text import NotAValue, datetime_ms
from workbench.columnar.json_batches import by_distinct, moments, patched, unescaped

near = st.tuples(
    *(st.integers(0, most) for most in (9999, 13, 32, 25, 61, 61)),
).map(lambda t: f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}")
texts = st.one_of(
    st.builds(
        lambda head, tail: head + tail,
        near,
        st.sampled_from(["Z", ".000Z", ".250Z", ".999Z", "", "+0100", ".5Z"]),
    ),
    st.text("0123456789-T:.Z é", min_size=18, max_size=25),
)


def expected_moment(text: str) -> int | None:
    if len(text.encode()) not in (20, 24) or not text.endswith("Z"):
        return None
    try:
        return datetime_ms(text)
    except NotAValue:
        return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | texts, max_size=30))
def test_moments_are_what_cedar_reads(many: list[str | None]) -> None:
    wanted = [None if text is None else expected_moment(text) for text in many]
    assert moments(pl.Series(many, dtype=pl.String)).to_list() == wanted
    assert moments(pl.Series([*many, "x"], dtype=pl.String).slice(1)).to_list() == [*wanted, None][1:]


@pytest.mark.parametrize("year", [0, 1, 4, 100, 400, 1900, 1970, 2000, 2023, 2024, 2100, 9999])
def test_every_day_of_a_year(year: int) -> None:
    many = [f"{year:04d}-{month:02d}-{day:02d}T01:02:03.004Z" for month in range(14) for day in range(33)]
    assert moments(pl.Series(many)).to_list() == [expected_moment(text) for text in many]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | st.text(st.sampled_from('a"\\nu0/é\x7f😀'), max_size=6), max_size=20))
def test_strings_are_unescaped_as_json_reads_them(many: list[str | None]) -> None:
    quoted = [None if text is None else f'"{text}"' for text in many]
    found = unescaped(pl.Series(quoted, dtype=pl.String)).to_list()
    for text, each in zip(quoted, found, strict=True):
        if text is not None and each["sure"]:
            assert each["value"] == json.loads(text)
            assert text == json.dumps(each["value"], ensure_ascii=False)
        elif text is not None:
            assert "\\" in text or text.count('"') != 2


@given(st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=30))
def test_each_distinct_text_is_read_once(many: list[str | None]) -> None:
    seen: list[str | None] = []

    def read(known: pl.Series) -> pl.Series:
        seen.extend(known)
        return known + "!"

    found = by_distinct(pl.Series("t", many, dtype=pl.String), read)
    assert found.to_list() == [None if text is None else f"{text}!" for text in many]
    distinct = {text for text in many if text is not None}
    assert len(seen) == len(distinct) if len(distinct) * 2 <= len(many) else seen == many


def test_rows_are_put_in_their_places() -> None:
    column = pl.Series("c", [["a"], None, ["b"], []])
    found = patched(column, pl.Series([1, 3], dtype=pl.UInt32), pl.Series([["x"], None]))
    assert found.to_list() == [["a"], ["x"], ["b"], None]
