"""Looking ids up by their hashes gives what a join over the texts gives, also where hashes collide."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.history.matching import are_distinct, places

NAMES = st.sampled_from(["a", "b", "c", "", "aa", "ä", "a\x00"])


def joined(ids: pl.Series, among: pl.Series) -> list[int | None]:
    known = {text: place for place, text in enumerate(among) if text is not None}
    return [known.get(each) for each in ids]


@given(ids=st.lists(st.none() | NAMES), among=st.lists(NAMES, unique=True))
def test_places_are_those_of_a_join(ids: list[str | None], among: list[str]) -> None:
    one, other = pl.Series(ids, dtype=pl.String), pl.Series(among, dtype=pl.String)
    assert places(one, other).to_list() == joined(one, other)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_texts_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Hashes of few values: of those looked up in, and then only of those looked for."""
    real = pl.Series.hash
    monkeypatch.setattr(pl.Series, "hash", lambda self: real(self) % size)
    among = pl.Series(["a", "b", "c"])
    ids = pl.Series(["c", "x", None, "a", "y", "b"])
    assert places(ids, among).to_list() == [2, None, None, 0, None, 1]
    assert places(ids, among[:1]).to_list() == [None, None, None, 0, None, None]


def test_who_stands_twice_has_no_place() -> None:
    assert not are_distinct(pl.Series(["a", "b", "a"]))
    with pytest.raises(ValueError, match="twice"):
        places(pl.Series(["a"]), pl.Series(["a", "a"]))
