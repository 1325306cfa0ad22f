"""Contexts kept beside a lake: the same answer with and without, and never an old one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from runtime.trace import CONTEXTS, DECISIONS
from workbench.bench.lake import build_lake
from workbench.history import caching
from workbench.history.caching import FOLDER, VARIABLE, cache_folder, contexts_of, digest_of
from workbench.history.contexts import Contexts, take_apart
from workbench.lake import Lake, open_lake
from workbench.opening import table_of
from workbench.scan import content_of


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
    assert len(files) == 3 + len(made.facts)
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


def test_texts_that_were_read_before_are_not_read_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made = contexts_of(lake)

    def read(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(caching, "digest_of", read)
    assert alike(contexts_of(open_lake(lake.uri)), made)


def test_a_file_that_was_changed_in_its_place_is_read(lake: Lake) -> None:
    made = contexts_of(lake)
    (file,) = Path(lake.uri, "contexts").glob("*.parquet")
    rows, size = pl.read_parquet(file), file.stat().st_size
    broken = pl.col("context").str.replace("found", "none")
    first = pl.int_range(pl.len()) == 0
    rows.with_columns(context=pl.when(first).then(broken).otherwise("context")).write_parquet(file)
    for log in Path(lake.uri, "contexts/_delta_log").glob(
        "*.json"
    ):  # readers go by the size that the log says
        log.write_text(log.read_text().replace(f'"size":{size}', f'"size":{file.stat().st_size}'))
    found = contexts_of(lake)
    assert not alike(found, made)
    assert found.frame["fault"].drop_nulls().to_list() == ["context_corrupt"]


def test_the_same_texts_in_other_files_are_found(lake: Lake, tmp_path: Path) -> None:
    made = contexts_of(lake)
    files = set((tmp_path / "lake" / FOLDER).iterdir())
    rows = lake.contexts.collect()
    write_deltalake(f"{lake.uri}/contexts", rows[: rows.height // 2], mode="overwrite")
    write_deltalake(f"{lake.uri}/contexts", rows[rows.height // 2 :], mode="append")
    assert alike(contexts_of(open_lake(lake.uri)), made)
    assert len(set((tmp_path / "lake" / FOLDER).iterdir()) - files) == 1


def test_files_that_change_while_they_are_read_are_not_remembered(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter(["before", "after", "before", "before"])
    monkeypatch.setattr(caching, "content_of", lambda _: next(seen))
    made = contexts_of(lake)
    read: list[int] = []

    def counted(*columns: pl.Series) -> str:
        read.append(len(columns))
        return digest_of(*columns)

    monkeypatch.setattr(caching, "digest_of", counted)
    assert alike(contexts_of(lake), made)
    assert read == [2]


def test_what_files_hold(lake: Lake) -> None:
    handle = table_of(lake.store, CONTEXTS)
    assert content_of(handle) == content_of(handle) is not None
    assert content_of(None) is None
    assert content_of(table_of(lake.store, DECISIONS)) is None  # by tenant: the log holds values, too
    (file,) = Path(lake.uri, "contexts").glob("*.parquet")
    file.unlink()
    assert content_of(handle) is None


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
