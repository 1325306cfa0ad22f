"""The lake: what is read back is what was written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.arrow import arrow_of_stored, arrow_schema, to_arrow
from runtime.canonical import canonical
from runtime.errors import CommitConflict, LedgerError, LedgerTooNew
from runtime.evidence import CHAIN_COLUMNS, chain
from runtime.lake import VERSION_KEY, LakeStore, lake_uri
from runtime.testing import MOMENT, context, decision, sample
from runtime.trace import CONTEXTS, DECISIONS, GENESIS, OUTCOMES, SCHEMA_VERSION, SCORES, TABLES, Table

TENANTS = [
    "", "a/b", "../../x", "%", "%2F", "a=b", "é", "日本", "\u202e", "a b", '"', "'", "null", "a\nb", "a\x00b", "\x1f",
    "A", "a", " ", ".", "..", "💥", "\ud7ff", "\x7f", "a\\b", "#?&:*", "\t", "\r\n", "a" * 240, "/" * 80,
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def links(*rows: dict[str, Any], table: Table = DECISIONS) -> list[dict[str, Any]]:
    """Chain rows, so that they have every column."""
    made: list[dict[str, Any]] = []
    for row in rows:
        made.append(chain(table, row, "w", len(made) + 1, made[-1]["hash"] if made else GENESIS))
    return made


def micros(rows: pa.Table) -> list[dict[str, Any]]:
    """Arrow rows as row dicts: microseconds, no nulls."""
    plain = [
        field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in rows.schema
    ]
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in rows.cast(pa.schema(plain)).to_pylist()
    ]


# -- rows and Arrow --------------------------------------------------------------------------------------------


def values(dtype: str) -> Any:
    match dtype:
        case "string":
            return texts
        case "int32":
            return st.integers(-(2**31), 2**31 - 1)
        case "int64" | "timestamp":
            return st.integers(-(2**63), 2**63 - 1)
        case "bool":
            return st.booleans()
        case "float64":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "list<string>":
            return st.lists(texts, max_size=3)
    return st.lists(st.fixed_dictionaries({"policy": texts, "message": texts}), max_size=2)


def full_rows(table: Table) -> Any:
    required = {c.name: values(c.dtype) for c in table.columns if c.required}
    optional = {c.name: values(c.dtype) for c in table.columns if not c.required}
    return st.fixed_dictionaries(required, optional=optional)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(data=st.data())
def test_any_row_round_trips_arrow(table: Table, data: Any) -> None:
    rows = data.draw(st.lists(full_rows(table), max_size=3))
    made = to_arrow(table, rows)
    assert made.schema == arrow_schema(table)
    assert micros(made) == rows


@given(st.lists(full_rows(OUTCOMES), min_size=1, max_size=3))
def test_stored_texts_give_the_same_arrow(rows: list[dict[str, Any]]) -> None:
    stored = [canonical_with_table(row) for row in rows]
    hashes = [row["hash"] for row in rows]
    assert arrow_of_stored(OUTCOMES, stored, hashes).equals(to_arrow(OUTCOMES, rows))


def canonical_with_table(row: dict[str, Any]) -> str:
    body = {name: value for name, value in row.items() if name != "hash"} | {"table": "outcomes"}
    return json.dumps(body, sort_keys=True, ensure_ascii=False)


@pytest.mark.parametrize(
    "change",
    [
        {"tool": 5},
        {"tool": None},
        {"step": 2**31},
        {"step": 1.5},
        {"step": "1"},
        {"step": True},
        {"scopes": ["a", None]},
        {"errors": [{"policy": "p"}]},
        {"decided_at": "2026-11-22T10:00:00Z"},
        {"surplus": 1},
        {"tool": "\ud800"},
        {"tool": object()},
    ],
)
def test_a_row_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    (row,) = links(decision())
    to_arrow(DECISIONS, [row])
    with pytest.raises(ValueError, match="do not fit table `decisions`"):
        to_arrow(DECISIONS, [row, row | change])


def test_rows_longer_than_a_block_of_the_parser_fit(store: LakeStore) -> None:
    rows = [context(letter * 9_000_000)[1] for letter in "abc"]
    store.append(CONTEXTS, rows)
    assert sorted(len(row["context"]) for row in micros(store.read(CONTEXTS))) == [9_000_000] * 3


def test_floats_keep_their_bits(store: LakeStore) -> None:
    scores = [0.1, 1e-320, -0.0, 1.7976931348623157e308, 5e-324, 1 / 3]
    store.append(SCORES, [sample(SCORES, score=score) for score in scores])
    assert sorted(map(repr, store.read(SCORES, ["score"])["score"].to_pylist())) == sorted(map(repr, scores))


# -- tables ----------------------------------------------------------------------------------------------------


def test_hostile_strings_round_trip_the_table(store: LakeStore) -> None:
    rows = links(*(decision(tenant=text, args=canonical(text), tool=text, scopes=[text]) for text in TENANTS))
    store.append(DECISIONS, rows)
    found = sorted(micros(store.read(DECISIONS)), key=lambda row: int(row["position"]))
    assert found == [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_hostile_tenants_survive_compaction_and_polars_reads_them(store: LakeStore) -> None:
    for tenant in TENANTS:
        store.append(DECISIONS, links(decision(tenant=tenant)))
        store.append(DECISIONS, links(decision(tenant=tenant)))
    handle = store.table(DECISIONS)
    assert handle is not None
    handle.optimize.compact()
    assert sorted(store.read(DECISIONS, ["tenant"])["tenant"].to_pylist()) == sorted(TENANTS * 2)
    frame = pl.scan_delta(store.location(DECISIONS)).select(pl.col("tenant").fill_null("")).collect()
    assert sorted(frame["tenant"]) == sorted(TENANTS * 2)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_fuzzed_strings_round_trip_the_table(tmp_path_factory: Any, pairs: list[tuple[str, str]]) -> None:
    store = LakeStore(tmp_path_factory.mktemp("lake"), write=True)
    store.append(DECISIONS, links(*(decision(tenant=tenant[:20], args=text) for tenant, text in pairs)))
    found = store.read(DECISIONS, ["args", "tenant", "position"]).sort_by("position").to_pylist()
    assert [(row["tenant"], row["args"]) for row in found] == [(tenant[:20], text) for tenant, text in pairs]


def test_a_table_that_is_not_there_is_null_and_reads_as_empty(store: LakeStore, tmp_path: Path) -> None:
    assert store.table(DECISIONS) is None
    assert store.read(DECISIONS).equals(arrow_schema(DECISIONS).empty_table())
    assert store.read(OUTCOMES, ["tenant"]).column_names == ["tenant"]
    assert not (tmp_path / "lake").exists()


def test_a_store_that_reads_does_not_write(tmp_path: Path) -> None:
    reader = LakeStore(tmp_path / "lake")
    for write in (reader.create, lambda table: reader.append(table, [context("x")[1]])):
        with pytest.raises(LedgerError, match="write=True"):
            write(CONTEXTS)
    assert not (tmp_path / "lake").exists()


def test_a_new_table_says_what_it_is(store: LakeStore) -> None:
    store.append(DECISIONS, links(decision(args='"secret"', tool="t")))
    handle = store.table(DECISIONS)
    assert handle is not None
    metadata = handle.metadata()
    assert metadata.configuration[VERSION_KEY] == str(SCHEMA_VERSION)
    assert (metadata.name, metadata.partition_columns) == ("decisions", ["tenant"])
    log = (Path(store.location(DECISIONS)) / "_delta_log" / "00000000000000000001.json").read_text()
    assert '\\"tool\\":\\"t\\"' in log
    assert "secret" not in log


def test_no_rows_make_no_commit(store: LakeStore) -> None:
    assert store.append(CONTEXTS, []) == 0
    assert store.append(CONTEXTS, [context("x")[1]]) == 1


def test_a_newer_schema_is_refused_by_name(store: LakeStore) -> None:
    store.append(CONTEXTS, [context("x")[1]])
    handle = deltalake.DeltaTable(store.location(CONTEXTS))
    newer = str(SCHEMA_VERSION + 1)
    handle.alter.set_table_properties({VERSION_KEY: newer}, raise_if_not_exists=False)
    for use in (store.table, store.read, store.create, lambda table: store.append(table, [context("y")[1]])):
        with pytest.raises(LedgerTooNew, match=f"schema version {newer}.*upgrade"):
            use(CONTEXTS)


def test_a_handle_that_missed_a_commit_of_its_app_is_refused_and_others_are_not(store: LakeStore) -> None:
    store.create(CONTEXTS)
    stale = store.table(CONTEXTS)
    store.append(CONTEXTS, [context("other")[1]], app=("other", 1))
    store.append(CONTEXTS, [context("a")[1]], app=("mine", 1))
    with pytest.raises(CommitConflict, match="safe to retry"):
        store.append(CONTEXTS, [context("b")[1]], app=("mine", 2), handle=stale)
    stale = store.table(CONTEXTS)
    store.append(CONTEXTS, [context("c")[1]], app=("other", 2))
    store.append(CONTEXTS, [context("d")[1]], app=("mine", 2), handle=stale)
    assert sorted(store.read(CONTEXTS)["context"].to_pylist()) == ["a", "c", "d", "other"]


def test_a_damaged_log_is_an_error_in_one_line(store: LakeStore, tmp_path: Path) -> None:
    store.create(CONTEXTS)
    log = tmp_path / "lake" / "contexts" / "_delta_log" / "00000000000000000000.json"
    log.write_text("{bad")
    with pytest.raises(LedgerError, match="contexts") as caught:
        store.table(CONTEXTS)
    assert "\n" not in str(caught.value)


def test_an_object_store_that_does_not_answer_is_an_error() -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "x", "AWS_ALLOW_HTTP": "true", "max_retries": "0",
    }  # fmt: skip
    with pytest.raises(LedgerError, match="s3://nowhere/lake/contexts"):
        LakeStore("s3://nowhere/lake", options).table(CONTEXTS)


@pytest.mark.parametrize("character", "%[]\\^|")
def test_folders_that_delta_cannot_use_are_refused(character: str) -> None:
    with pytest.raises(LedgerError, match="choose another folder"):
        LakeStore(f"here/a{character}41")


@pytest.mark.parametrize("name", ["a b", "é", "q#?&", "~", "a=b"])
def test_other_odd_folders_work(tmp_path: Path, name: str) -> None:
    store = LakeStore(tmp_path / name, write=True)
    store.append(CONTEXTS, [context("x")[1]])
    assert store.read(CONTEXTS)["context"].to_pylist() == ["x"]
    assert (tmp_path / name / "contexts" / "_delta_log").is_dir()


def test_a_place_has_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lake_uri("lake/") == lake_uri(tmp_path / "lake") == str(tmp_path / "lake")
    assert lake_uri("s3://bucket/lake/") == "s3://bucket/lake"


def test_deltalake_has_grown_no_exception_that_we_do_not_translate() -> None:
    known = {
        "CommitFailedError",
        "DeltaError",
        "DeltaProtocolError",
        "SchemaMismatchError",
        "TableNotFoundError",
    }
    kinds = vars(deltalake.exceptions).items()
    found = {name for name, kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)}
    assert found == known
    assert all(
        issubclass(getattr(deltalake.exceptions, name), deltalake.exceptions.DeltaError) for name in known
    )


def test_timestamps_are_utc_microseconds(store: LakeStore) -> None:
    store.append(DECISIONS, links(decision(decided_at=MOMENT + 1)))
    (moment,) = store.read(DECISIONS, ["decided_at"])["decided_at"].to_pylist()
    assert moment.isoformat() == "2026-11-18T11:06:40.000001+00:00"


def test_chain_columns_are_those_of_the_schema() -> None:
    assert [column.name for column in DECISIONS.columns][-5:] == list(CHAIN_COLUMNS)
