"""Contexts kept beside a lake: the same answer with and without, and never an old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from deltalake import write_deltalake

from workbench.bench.lake import build_lake
from workbench.history.caching import FOLDER, VARIABLE, cache_folder, contexts_of, digest_of
from workbench.history.contexts import Contexts, take_apart
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.delenv(VARIABLE, raising=False)
    build_lake(tmp_path / "lake", 500)
    return open_lake(tmp_path / "lake")


def alike(one: Contexts, two: Contexts) -> bool:
    same = {name: found.frame.equals(two.facts[name].frame) for name, found in one.facts.items()}
    return one.frame.equals(two.frame) and all(same.values()) and one.shapes == two.shapes


def taken_apart(lake: Lake) -> Contexts:
    return take_apart(lake.contexts.select("context_hash", "context").collect().iter_rows())


def test_the_cache_gives_what_would_be_made(lake: Lake, tmp_path: Path) -> None:
    made = taken_apart(lake)
    assert made.frame.height > 10
    assert alike(contexts_of(lake), made)
    files = sorted((tmp_path / "lake" / FOLDER).iterdir())
    assert len(files) == 2 + len(made.facts)
    assert alike(contexts_of(lake), made)
    assert sorted((tmp_path / "lake" / FOLDER).iterdir()) == files


def test_a_context_that_was_changed_afterwards_is_found_out(lake: Lake) -> None:
    assert contexts_of(lake).frame["fault"].null_count() == taken_apart(lake).frame.height
    rows = lake.contexts.collect()
    changed = rows.with_columns(
        context=pl.when(pl.int_range(pl.len()) == 0)
        .then(pl.col("context").str.replace("found", "none"))
        .otherwise("context")
    )
    assert not changed.equals(rows)
    write_deltalake(f"{lake.uri}/contexts", changed, mode="overwrite")
    assert contexts_of(open_lake(lake.uri)).frame["fault"].drop_nulls().to_list() == ["context_corrupt"]


def test_where_frames_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cache_folder(str(tmp_path)) == tmp_path / "_cache"
    assert cache_folder("s3://bucket/lake") is None
    monkeypatch.setenv(VARIABLE, "off")
    assert cache_folder(str(tmp_path)) is None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert cache_folder("s3://bucket/lake") == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("other", "same"),
    [(["a", None, "bc"], True), (["a", "", "bc"], False), (["ab", None, "c"], False), (["a", None], False)],
)
def test_a_digest_is_of_the_bytes(other: list[str | None], same: bool) -> None:
    one = digest_of(pl.Series(["a", None, "bc"]))
    assert (digest_of(pl.Series(other, dtype=pl.String)) == one) is same


def test_a_digest_does_not_know_how_a_column_is_stored() -> None:
    column = pl.Series([f"a text of some length {number}" for number in range(1000)])
    pieces = pl.concat([column[:300], column[300:]], rechunk=False)
    assert digest_of(pieces) == digest_of(column)
