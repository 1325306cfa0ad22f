"""Facts in Delta tables on disk: what is found, which version is read, and what a commit does to it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime.errors import SourceColumnUnknown, SourceError, SourceNotYet, SourceVersionLost
from runtime.sources import DeltaSource

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.canonical import Json
    from runtime.sources import Source

NOON = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)

HOSTILE = [
    "' OR 1=1 --",
    "x'; DROP TABLE payees; --",
    '"',
    "a\\'b",
    "%",
    "_",
    "*",
    "\x00",
    "§ü🙂",
    "",
    " A",
    "A ",
]


def payees(*rows: tuple[str, str, str | None]) -> pa.Table:
    """Return a table of (tenant, iban, name)."""
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.table(dict(zip(("tenant", "iban", "name"), arrays, strict=True)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a Delta table of three versions: Ada; Ada and Bob; Ada is now Eve."""
    path = tmp_path / "facts" / "payees"
    write_deltalake(path, payees(("acme", "A", "Ada"), ("evil", "A", "Mallory")))
    time.sleep(0.005)  # commit times have milliseconds; the test tells versions apart by them
    write_deltalake(path, payees(("acme", "B", "Bob")), mode="append")
    time.sleep(0.005)
    write_deltalake(path, payees(("acme", "A", "Eve"), ("acme", "B", "Bob")), mode="overwrite")
    return path


def names(source: Source, where: dict[str, Any], version: str | None = None) -> list[Any]:
    return sorted(row["name"] for row in source.lookup(where, ["name"], version=version).rows)


def test_delta_finds_exactly_the_rows_asked_for(table: Path) -> None:
    source = DeltaSource(table)
    found = source.lookup({"tenant": "acme", "iban": "A"}, ["name", "iban"])
    assert found.rows == [{"name": "Eve", "iban": "A"}]
    assert (found.version, source.kind, source.uri) == ("2", "delta", str(table))
    assert names(source, {"tenant": "acme"}) == ["Bob", "Eve"]
    assert names(source, {"tenant": "nobody", "iban": "A"}) == []
    assert names(source, {}) == ["Bob", "Eve"]


def test_delta_travels_in_time(table: Path) -> None:
    source = DeltaSource(table)
    assert [names(source, {"tenant": "acme"}, version=str(v)) for v in range(3)] == [
        ["Ada"],
        ["Ada", "Bob"],
        ["Bob", "Eve"],
    ]
    assert source.lookup({}, ["name"], version="1").version == "1"


def test_delta_says_when_a_version_was_committed_even_in_a_copy(table: Path, tmp_path: Path) -> None:
    source = DeltaSource(table)
    stamped = {str(h["version"]): h["timestamp"] * 1000 for h in DeltaTable(table).history()}
    as_of = {v: source.lookup({}, ["name"], version=v).as_of for v in ("0", "1", "2")}
    assert as_of == stamped
    assert len(set(as_of.values())) == 3
    copy = shutil.copytree(table, tmp_path / "copy")
    for file in (copy / "_delta_log").iterdir():
        file.touch()
    assert DeltaSource(copy).lookup({}, ["name"], version="0").as_of == stamped["0"]


def test_delta_knows_which_version_was_current(table: Path) -> None:
    source = DeltaSource(table)
    at = [source.lookup({}, ["name"], version=str(v)).as_of or 0 for v in range(3)]
    assert [source.version_at(moment) for moment in at] == ["0", "1", "2"]
    assert [source.version_at(moment - 1) for moment in at[1:]] == ["0", "1"]
    assert source.version_at(at[2] + 10**15) == "2"
    with pytest.raises(SourceNotYet, match="has no version that old"):
        source.version_at(at[0] - 1)


@pytest.mark.parametrize("probe", [True, False])
def test_delta_sees_each_commit_at_the_next_lookup(table: Path, *, probe: bool) -> None:
    source = DeltaSource(table, probe=probe)
    for number in range(20):  # no pause: several commits fall into one tick of the folder's clock
        write_deltalake(table, payees(("acme", "A", f"n{number}")), mode="overwrite")
        assert names(source, {"iban": "A"}) == [f"n{number}"]
        assert source.lookup({}, ["name"]).version == str(number + 3)


def test_delta_sees_a_commit_that_does_not_move_the_folders_time(table: Path) -> None:
    """A commit in the same tick of the file system's clock as the read before it."""
    source, log = DeltaSource(table), table / "_delta_log"
    assert names(source, {"iban": "A"}) == ["Eve"]
    before = log.stat()
    write_deltalake(table, payees(("acme", "A", "new")), mode="overwrite")
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert log.stat().st_mtime_ns == before.st_mtime_ns
    assert names(source, {"iban": "A"}) == ["new"]


def test_delta_reads_an_unchanged_version_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DeltaSource(table)
    source.lookup({}, ["name"])
    opened: list[int | None] = []
    real = source._open

    def counting(version: int | None) -> Any:
        opened.append(version)
        return real(version)

    monkeypatch.setattr(source, "_open", counting)
    for _ in range(5):
        source.lookup({"iban": "A"}, ["name"])
        source.lookup({"iban": "A"}, ["name"], version="2")
        source.lookup({"iban": "A"}, ["name"], version="0")
    assert opened == [0]


def test_delta_sees_a_table_that_was_made_again(table: Path) -> None:
    source = DeltaSource(table)
    assert names(source, {"iban": "A"}, version="2") == ["Eve"]
    assert names(source, {"iban": "A"}) == ["Eve"]
    shutil.rmtree(table)
    for name in ("x", "y", "Zoe"):
        write_deltalake(table, payees(("acme", "A", name)), mode="overwrite")
    assert names(source, {"iban": "A"}) == ["Zoe"]
    assert names(source, {"iban": "A"}, version="2") == ["Zoe"]


def test_delta_keeps_only_some_versions(table: Path) -> None:
    for number in range(20):
        write_deltalake(table, payees(("acme", "A", f"n{number}")), mode="overwrite")
    source = DeltaSource(table)
    for version in range(23):
        source.lookup({}, ["name"], version=str(version))
    assert len(source._kept) == 8
    assert names(source, {"iban": "A"}, version="0") == ["Ada", "Mallory"]


@pytest.mark.parametrize(
    ("column", "value", "hits"),
    [
        ("i", 1, 1),
        ("i", True, 0),
        ("i", "1", 0),
        ("i", 5.0, 1),
        ("b", True, 1),
        ("b", 1, 0),
        ("s", "1", 1),
        ("s", 1, 0),
        ("s", True, 0),
        ("d", "2026-01-01", 2),
        ("f", 5, 1),
        ("f", 1.5, 1),
    ],
)
def test_delta_compares_values_with_their_type(tmp_path: Path, column: str, value: Json, hits: int) -> None:
    rows = {"i": [1, 5], "b": [True, False], "s": ["1", "true"], "d": [date(2026, 1, 1)] * 2, "f": [5.0, 1.5]}
    write_deltalake(tmp_path / "t", pa.table(rows))
    assert len(DeltaSource(tmp_path / "t").lookup({column: value}, ["i"]).rows) == hits


@pytest.mark.parametrize("value", HOSTILE)
def test_delta_takes_hostile_keys_for_data(table: Path, value: str) -> None:
    assert names(DeltaSource(table), {"tenant": "acme", "iban": value}) == []


def test_delta_reads_every_type(tmp_path: Path) -> None:
    row = pa.table({
        "t": pa.array([NOON], pa.timestamp("us", "UTC")),
        "dec": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        "l": [["x", None]],
        "s": [{"a": 1, "b": None}],
        "n": pa.array([None], pa.string()),
    })  # fmt: skip
    write_deltalake(tmp_path / "t", row)
    assert DeltaSource(tmp_path / "t").lookup({}, ["t", "dec", "l", "s", "n"]).rows == [
        {
            "t": "2026-11-22T12:00:00.123Z",
            "dec": "1.50",
            "l": ["x", None],
            "s": {"a": 1, "b": None},
            "n": None,
        }
    ]
    write_deltalake(
        tmp_path / "raw", pa.table({"x": [b"\x00"], "when": pa.array([NOON], pa.timestamp("us"))})
    )
    with pytest.raises(SourceError, match="column `x` holds bytes"):
        DeltaSource(tmp_path / "raw").lookup({}, ["x"])
    with pytest.raises(SourceError, match="column `when`: datetime has no zone"):
        DeltaSource(tmp_path / "raw").lookup({}, ["when"])


def test_delta_reads_partitions_and_maps(tmp_path: Path) -> None:
    maps = pa.array([[("k", 1)], [("j", 2)]], pa.map_(pa.string(), pa.int64()))
    data = pa.table({"tenant": ["acme", "evil"], "year": [2025, 2026], "m": maps})
    write_deltalake(tmp_path / "t", data, partition_by=["tenant", "year"])
    source = DeltaSource(tmp_path / "t")
    found = source.lookup({"tenant": "acme", "year": 2025}, ["m", "year"])
    assert found.rows == [{"m": {"k": 1}, "year": 2025}]
    DeltaTable(tmp_path / "t").delete("tenant = 'acme'")
    assert [len(source.lookup({}, ["m"], version=version).rows) for version in (None, "0", "1")] == [1, 2, 1]


def test_delta_failures_name_the_table_and_the_way_out(table: Path, tmp_path: Path) -> None:
    source = DeltaSource(table)
    with pytest.raises(SourceColumnUnknown, match="has no column `nmae`, did you mean `name`"):
        source.lookup({}, ["nmae"])
    with pytest.raises(SourceError, match="has no column `zz`; it has iban, name, tenant"):
        source.lookup({"zz": 1}, ["name"])
    with pytest.raises(SourceError, match=r"delta table .*payees.* could not answer"):
        source.lookup({}, ["name"], version="77")
    with pytest.raises(SourceError, match="a version is a whole number, got 'latest'"):
        source.lookup({}, ["name"], version="latest")
    with pytest.raises(SourceError, match=r"delta table .*none.* could not answer: TableNotFoundError"):
        DeltaSource(tmp_path / "none").lookup({}, ["name"])
    with pytest.raises(SourceError, match="has 2 rows, more than max_rows=1"):
        DeltaSource(table, max_rows=1).lookup({}, ["name"])


def test_delta_recovers_once_the_table_is_there(table: Path) -> None:
    source = DeltaSource(table)
    assert names(source, {"iban": "A"}) == ["Eve"]
    hidden = table.rename(table.with_name("hidden"))
    with pytest.raises(SourceError, match="could not answer"):
        source.lookup({"iban": "A"}, ["name"])
    hidden.rename(table)
    assert names(source, {"iban": "A"}) == ["Eve"]


def test_delta_says_when_an_old_version_is_gone(table: Path) -> None:
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    source = DeltaSource(table)
    assert names(source, {"iban": "A"}) == ["Eve"]
    with pytest.raises(SourceVersionLost, match="version 0 was vacuumed, or its log cleaned up"):
        source.lookup({}, ["name"], version="0")
    assert source.column_types("0") == {"tenant": "string", "iban": "string", "name": "string"}
    assert [row["name"] for row in source.lookup({"iban": "A"}, ["name"], version="2").rows] == ["Eve"]


def test_delta_that_is_gone_altogether_is_not_called_vacuumed(table: Path) -> None:
    source = DeltaSource(table)
    shutil.rmtree(table)
    with pytest.raises(SourceError, match="could not answer: TableNotFoundError") as caught:
        source.lookup({}, ["name"], version="0")
    assert not isinstance(caught.value, SourceVersionLost)


def test_partitions_with_escaped_names_are_not_taken_for_vacuumed(tmp_path: Path) -> None:
    """A failure for another reason, here too many rows, says its own."""
    path = tmp_path / "t é%"
    write_deltalake(path, pa.table({"k": ["a b", "c%é"], "v": [1, 2]}), partition_by=["k"])
    source = DeltaSource(path)
    assert source._is_lost(0) is False
    next(path.glob("k=*/*.parquet")).unlink()
    assert source._is_lost(0) is True


def test_delta_whose_old_log_was_cleaned_up(table: Path) -> None:
    DeltaTable(table).create_checkpoint()
    at = DeltaSource(table).lookup({}, ["name"]).as_of or 0
    for version in (0, 1):
        (table / "_delta_log" / f"{version:020d}.json").unlink()
    source = DeltaSource(table)
    assert names(source, {"iban": "A"}) == ["Eve"]
    assert source.version_at(at) == "2"
    with pytest.raises(SourceVersionLost, match="was cleaned up"):
        source.version_at(at - 1)
    with pytest.raises(SourceVersionLost, match="or its log cleaned up"):
        source.lookup({}, ["name"], version="1")
    (table / "_delta_log" / f"{2:020d}.json").unlink()
    assert DeltaSource(table).lookup({}, ["name"]).as_of is None


def test_delta_by_url(table: Path) -> None:
    source = DeltaSource(table.as_uri())
    assert names(source, {"iban": "A"}) == ["Eve"]
    write_deltalake(table, payees(("acme", "A", "new")), mode="overwrite")
    assert names(source, {"iban": "A"}) == ["new"]
    assert source._log == table / "_delta_log"
    assert DeltaSource("s3://bucket/table")._log is None


def test_delta_under_threads(table: Path) -> None:
    """Readers beside a writer see whole versions, and versions never go back."""
    source, stop, wrong = DeltaSource(table), threading.Event(), []

    def read() -> None:
        last = 0
        while not stop.is_set():
            found = source.lookup({"iban": "A"}, ["name"])
            version = int(found.version or 0)
            expected = [f"n{version}"] if version > 2 else ["Eve"]
            if version < last or [row["name"] for row in found.rows] != expected:
                wrong.append((last, found))
            last = version

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(3, 23):
        write_deltalake(table, payees(("acme", "A", f"n{version}")), mode="overwrite")
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert names(source, {"iban": "A"}) == ["n22"]
