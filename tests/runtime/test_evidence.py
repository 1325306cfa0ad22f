"""Hashes, chains, and what `broken_links` finds."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import NotCanonical
from runtime.evidence import (
    CHAIN_COLUMNS,
    MAX_PARTITION_BYTES,
    broken_links,
    chain,
    check_address,
    check_partition,
    check_row,
    row_hash,
)
from runtime.testing import blob, context, decision, entity, entity_slice, execution, sample
from runtime.trace import DECISIONS, GENESIS, OUTCOMES, POLICIES, SCHEMA_VERSION, SCORES, TABLES

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def values(dtype: Any) -> Any:
    """Every value a column may hold."""
    match dtype:
        case "string":
            return text
        case "int32":
            return st.integers(-(2**31), 2**31 - 1)
        case "int64" | "timestamp":
            return st.integers(1 - 2**53, 2**53 - 1)  # beyond: no number of RFC 8785, see canonical.py
        case "bool":
            return st.booleans()
        case "float64":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "list<string>":
            return st.lists(text, max_size=3)
    return st.lists(st.fixed_dictionaries({"policy": text, "message": text}), max_size=2)


def rows_of(table: Any) -> Any:
    columns = [column for column in table.columns if column.name not in CHAIN_COLUMNS]
    required = {c.name: values(c.dtype) for c in columns if c.required}
    optional = {c.name: st.none() | values(c.dtype) for c in columns if not c.required}
    return st.fixed_dictionaries(required, optional=optional)


def independent_hash(table: Any, row: Any) -> Any:
    """The hash as the docs define it, by another library."""
    body = {name: value for name, value in row.items() if value is not None and name != "hash"}
    return hashlib.sha256(rfc8785.dumps({"table": table, **body})).hexdigest()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(data=st.data())
def test_a_row_hash_is_the_sha256_of_its_rfc_8785_text(table: Any, data: Any) -> None:
    row = data.draw(rows_of(table))
    assert row_hash(table.name, row) == independent_hash(table.name, row)


@given(rows_of(OUTCOMES))
def test_a_link_names_its_place_and_hashes_over_it(row: Any) -> None:
    link = chain(OUTCOMES, row, "w", 7, "f" * 64)
    assert link == row | {
        "schema_version": SCHEMA_VERSION,
        "writer": "w",
        "position": 7,
        "prev_hash": "f" * 64,
        "hash": independent_hash("outcomes", link),
    }


def test_null_and_missing_are_the_same_and_the_hash_column_is_not_hashed() -> None:
    row = decision()
    assert row_hash("decisions", row) == row_hash("decisions", row | {"linked_to": None, "hash": "x"})
    assert row_hash("decisions", row) == row_hash("decisions", MappingProxyType(row))


def test_every_column_and_the_table_are_under_the_hash() -> None:
    link: dict[str, Any] = chain(DECISIONS, decision(linked_to="x"), "w", 1, GENESIS)
    hashes = {row_hash("decisions", link), row_hash("outcomes", link)}
    for column in set(link) - {"hash"}:
        changed = link[column] + 1 if isinstance(link[column], int) else [*link[column], "x"]
        hashes.add(row_hash("decisions", link | {column: changed}))
    assert len(hashes) == len(link) + 1


def test_a_row_that_does_not_fit_its_table_has_a_hash_all_the_same() -> None:
    row = decision() | {"step": "one", "surplus": [1]}
    assert row_hash("decisions", row) == independent_hash("decisions", row)


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"tool": 5}, "tool"),
        ({"tool": None}, "tool"),
        ({"step": 2**31}, "step"),
        ({"step": True}, "step"),
        ({"latency_us": 2**63}, "latency_us"),
        ({"decided_at": "2026-11-22"}, "decided_at"),
        ({"scopes": ["a", None]}, "scopes"),
        ({"scopes": "a"}, "scopes"),
        ({"errors": [{"policy": "p"}]}, "message"),
        ({"errors": [{"policy": "p", "message": "m", "more": 1}]}, "more"),
        ({"surplus": 1}, "surplus"),
        ({"tenant": "x" * 300}, "tenant"),
    ],
)
def test_a_row_the_lake_could_not_hold_is_refused_by_column(change: Any, needle: Any) -> None:
    check_row(DECISIONS, decision())
    with pytest.raises(ValueError, match=needle):
        check_row(DECISIONS, decision() | change)


def test_a_missing_column_is_refused() -> None:
    row = decision()
    del row["args"]
    with pytest.raises(ValueError, match="args"):
        check_row(DECISIONS, row)


def test_a_lone_surrogate_has_no_hash() -> None:
    with pytest.raises(NotCanonical):
        chain(DECISIONS, decision(tool="\ud800"), "w", 1, GENESIS)


def test_a_table_with_floats_is_hashed_too() -> None:
    assert row_hash("scores", sample(SCORES, score=1.0)) != row_hash("scores", sample(SCORES, score=2.0))


# -- chains ----------------------------------------------------------------------------------------------------


def links(count: Any, writer: Any = "w") -> Any:
    """A chain of decisions and outcomes in turn."""
    made: list[tuple[str, Any]] = []
    previous = GENESIS
    for position in range(1, count + 1):
        table = DECISIONS if position % 2 else OUTCOMES
        row = decision() if position % 2 else execution(made[-1][1])
        made.append((table.name, chain(table, row, writer, position, previous)))
        previous = made[-1][1]["hash"]
    return made


def test_intact_chains_of_several_writers_have_no_broken_links_in_any_order() -> None:
    rows = links(9) + links(4, "v")
    assert broken_links(rows) == []
    assert broken_links(reversed(rows)) == []
    assert broken_links([]) == []


def test_each_way_to_break_a_chain_is_found_and_named() -> None:
    rows = links(6)
    table, row = rows[2]
    found = {
        "changed": broken_links([*rows[:2], (table, row | {"tool": "other"}), *rows[3:]]),
        "missing": broken_links(rows[:2] + rows[3:]),
        "doubled": broken_links([*rows, rows[2]]),
    }
    for word, broken in found.items():
        assert [(link.position, link.what.split(":")[0]) for link in broken] == [(3, word)], word


def test_a_changed_row_with_a_new_hash_breaks_the_link_after_it() -> None:
    rows = links(6)
    table, row = rows[2]
    forged = row | {"tool": "other"}
    forged["hash"] = row_hash(table, forged)
    rows[2] = (table, forged)
    assert [(link.position, link.what.split(":")[0]) for link in broken_links(rows)] == [(4, "reordered")]


def test_a_row_without_a_readable_place_is_malformed() -> None:
    table, row = links(1)[0]
    assert [link.what.split(":")[0] for link in broken_links([(table, row | {"position": "1"})])] == [
        "malformed"
    ]
    assert [link.what.split(":")[0] for link in broken_links([(table, row | {"writer": None})])] == [
        "malformed"
    ]


@given(st.data())
def test_no_single_change_goes_unnoticed(data: Any) -> None:
    rows = links(5)
    victim = data.draw(st.integers(0, 3))  # the last may be cut off unseen: nothing comes after it
    match data.draw(st.sampled_from(["change", "remove", "double", "swap"])):
        case "change":
            table, row = rows[victim]
            column = data.draw(st.sampled_from(sorted(row)))
            other = (
                [*row[column], "x"] if isinstance(row[column], list) else data.draw(st.integers(10**6, 10**7))
            )
            rows[victim] = (table, row | {column: other})
        case "remove":
            del rows[victim]
        case "double":
            rows.append(rows[victim])
        case "swap":
            (table, one), (_, two) = rows[victim], rows[victim + 1]
            rows[victim] = (table, one | {"position": two["position"]})
            rows[victim + 1] = (rows[victim + 1][0], two | {"position": one["position"]})
    assert broken_links(rows)


# -- partitions and addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["", "a/b", "%", "../..", "é" * 40, "a" * MAX_PARTITION_BYTES, "💥", "a\x00b"]
)
def test_odd_tenants_are_allowed(value: Any) -> None:
    check_partition("tenant", value)


@pytest.mark.parametrize(
    "value", ["a" * (MAX_PARTITION_BYTES + 1), "/" * 81, "é" * 41, "__HIVE_DEFAULT_PARTITION__"]
)
def test_a_tenant_that_could_not_be_drained_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="tenant must"):
        check_partition("tenant", value)


@pytest.mark.parametrize(
    "content", [context("{}"), entity("é"), entity_slice(["b" * 64, "a" * 64]), blob("[1]")]
)
def test_a_content_stands_at_its_address(content: Any) -> None:
    table, row = content
    check_address(table, row)
    with pytest.raises(ValueError, match="content is at"):
        check_address(table, row | {table.key: "0" * 64})


def test_policies_are_named_otherwise() -> None:
    check_address(POLICIES, sample(POLICIES))
