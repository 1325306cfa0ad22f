"""Compiled contexts: what came back, with provenance, the same bytes again; with real sources."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import canonical, content_hash, sha256
from runtime.context import CompiledContext, Fact, compile_context
from runtime.entities import EntityUid
from runtime.request import Request
from runtime.sources import CallableSource, DeltaSource, bind_sources
from runtime.spec import parse_spec
from runtime.testing import request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runtime.canonical import Json
    from runtime.sources import Source

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

HEAD = """
[sources.directory]
kind = "delta"
[sources.erp]
kind = "sql"
table = "orders"
[sources.people]
kind = "callable"
"""
PAYEE = """
[[facts]]
name = "payee"
actions = ["send_money"]
source = "directory"
key = { iban = "args.recipient" }
fields = ["name", "trusted"]
tenant_column = "tenant"
"""
PEOPLE = """
[[facts]]
name = "people"
actions = ["send_money"]
source = "people"
key = { who = "args.recipient" }
fields = ["name"]
tenant_column = "tenant"
"""


def a_request(tool: str = "send_money", **args: Json) -> Request:
    return request(tool=tool, args=args)


ACCOUNT = EntityUid("Account", "A")


def rows(*records: dict[str, Any]) -> pa.Table:
    schema = pa.schema(
        [
            ("tenant", pa.string()),
            ("iban", pa.string()),
            ("name", pa.string()),
            ("trusted", pa.bool_()),
            ("seen", pa.timestamp("us", "UTC")),
        ]
    )
    return pa.Table.from_pylist(list(records), schema=schema)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "directory"
    write_deltalake(
        path,
        rows(
            {"tenant": "acme", "iban": "A", "name": "Ada", "trusted": True, "seen": NOW - HOUR},
            {"tenant": "acme", "iban": "B", "name": "Bob", "seen": NOW - 3 * HOUR},
            {"tenant": "evil", "iban": "A", "name": "Mallory", "trusted": True},
            {"tenant": "evil", "iban": "E", "name": "Eve", "trusted": True},
            {"tenant": "acme", "iban": "D", "name": "Dan"},
            {"tenant": "acme", "iban": "D", "name": "Don"},
        ),
    )
    return path


def compiled(text: str, request: Request, /, **sources: Any) -> CompiledContext:
    spec = parse_spec(HEAD + text)
    bound: dict[str, Source] = {
        name: CallableSource(source) if callable(source) else source for name, source in sources.items()
    }
    return compile_context(spec, bound, request, ACCOUNT)


def one(text: str, request: Request, /, **sources: Any) -> Fact:
    (fact,) = compiled(text, request, **sources).facts.values()
    return fact


# What came back


def test_found_with_provenance(directory: Path) -> None:
    source = DeltaSource(directory)
    fact = one(PAYEE, a_request(recipient="A"), directory=source)
    assert fact == Fact(
        name="payee",
        status="found",
        value={"name": "Ada", "trusted": True},
        into="context",
        parents=[],
        source="directory",
        kind="delta",
        uri=str(directory),
        version="0",
        key={"iban": "A", "tenant": "acme"},
        as_of=source.lookup({}, ["name"]).as_of,
        hash=content_hash({"name": "Ada", "trusted": True}),
    )
    assert one(PAYEE, a_request(recipient="B"), directory=source).value == {"name": "Bob", "trusted": None}


def test_the_content_is_canonical_addressed_and_reads_back(directory: Path) -> None:
    got = compiled(PAYEE + PEOPLE, a_request(recipient="A"), directory=DeltaSource(directory))
    assert got.content == canonical(json.loads(got.content))
    assert got.hash == sha256(got.content)
    assert got.spec_hash == parse_spec(HEAD + PAYEE + PEOPLE).hash
    assert json.loads(got.content)["spec"] == got.spec_hash
    assert CompiledContext.from_content(got.content) == got
    with pytest.raises(ValueError, match="not a compiled context"):
        CompiledContext.from_content("[]")
    with pytest.raises(ValueError, match="not a compiled context"):
        CompiledContext.from_content('{"facts":{"a":{"color":"red"}},"spec":""}')
    with pytest.raises(ValueError, match="not a compiled context"):
        CompiledContext.from_content("{")


def test_none_is_not_not_asked(directory: Path) -> None:
    source = DeltaSource(directory)
    none = one(PAYEE, a_request(recipient="Z"), directory=source)
    assert (none.status, none.value, none.version, none.key["iban"]) == ("none", None, "0", "Z")
    no_key = one(PAYEE, a_request(amount=5), directory=source)
    assert (no_key.status, no_key.value, no_key.version, no_key.uri) == ("none", None, None, None)
    assert no_key.key == {"iban": None, "tenant": "acme"}
    assert one(PAYEE, a_request(recipient=None), directory=source) == no_key
    not_asked = one(PAYEE, a_request("other", recipient="A"), directory=source)
    assert (not_asked.status, not_asked.value, not_asked.key) == ("not_asked", None, {})
    contents = {compiled(PAYEE, r, directory=source).content for r in
                (a_request(recipient="Z"), a_request(amount=5), a_request("other", recipient="A"))}  # fmt: skip
    assert len(contents) == 3


def test_a_source_is_not_asked_without_a_key_or_an_action() -> None:
    def never(where: dict[str, Any]) -> Any:
        raise AssertionError(where)

    assert one(PEOPLE, a_request(amount=1), people=never).status == "none"
    assert one(PEOPLE, a_request("other", recipient="x"), people=never).status == "not_asked"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tenant", "acme"),
        ("session", "s-1"),
        ("tool", "send_money"),
        ("principal.id", "bot"),
        ("principal.type", "Agent"),
        ("resource.id", "A"),
        ("resource.type", "Account"),
        ("on_behalf_of.id", None),
        ("args.recipient", "A"),
        ("args.to.iban", "X"),
        ("args.to.gone", None),
        ("args.recipient.iban", None),
        ("args.n", 7),
        ("args.whole", 5),
        ("args.flag", False),
    ],
)
def test_every_key_path(path: str, expected: Json) -> None:
    asked: list[dict[str, Any]] = []
    text = PEOPLE.replace("args.recipient", path)
    request = a_request(recipient="A", to={"iban": "X"}, n=7, whole=5.0, flag=False)
    fact = one(text, request, people=asked.append)
    assert fact.key == {"who": expected, "tenant": "acme"}
    assert type(fact.key["who"]) is type(expected)
    assert asked == ([] if expected is None else [{"who": expected, "tenant": "acme"}])
    user = replace(request, on_behalf_of=EntityUid("User", "ann"))
    assert (
        one(PEOPLE.replace("args.recipient", "on_behalf_of.id"), user, people=asked.append).key["who"]
        == "ann"
    )


# Sets


SET = PAYEE.replace('key = { iban = "args.recipient" }', 'shape = "set"').replace(
    '["name", "trusted"]', '["name"]'
)


def test_sets_are_sorted_without_doubles_and_nulls(tmp_path: Path) -> None:
    names = ["b", "a", None, "b", "ä", "10", "9"]
    write_deltalake(
        tmp_path / "t", rows(*({"tenant": "acme", "name": name, "trusted": True} for name in names))
    )
    source = DeltaSource(tmp_path / "t")
    assert one(SET, a_request(), directory=source).value == ["10", "9", "a", "b", "ä"]
    records = one(SET.replace('["name"]', '["name", "trusted"]'), a_request(), directory=source).value
    assert isinstance(records, list)
    assert [record["name"] for record in records if isinstance(record, dict)] == [
        "10",
        "9",
        "a",
        "b",
        "ä",
        None,
    ]


def test_an_empty_set_is_a_value(directory: Path) -> None:
    source = DeltaSource(directory)
    empty = one(SET, replace(a_request(), tenant="nobody"), directory=source)
    assert (empty.status, empty.value) == ("none", [])
    keyed = SET.replace('shape = "set"', 'shape = "set"\nkey = { iban = "args.recipient" }')
    assert one(keyed, a_request(), directory=source).value is None


# Determinism

record = st.fixed_dictionaries(
    {"tenant": st.just("acme")},
    optional={
        "name": st.text(max_size=5) | st.none(),
        "trusted": st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6) | st.none(),
    },
)


@given(st.lists(record, max_size=6), st.randoms(use_true_random=False))
def test_row_order_never_matters(records: list[dict[str, Any]], random: Any) -> None:
    shuffled = [dict(random.sample(list(each.items()), len(each))) for each in records]
    random.shuffle(shuffled)
    text = PEOPLE.replace('["name"]', '["name", "trusted"]').replace("[[facts]]", '[[facts]]\nshape = "set"')
    first = compiled(text, a_request(recipient="x"), people=lambda _: records)
    second = compiled(text, a_request(recipient="x"), people=lambda _: shuffled)
    assert first.content == second.content
    assert first.content == canonical(json.loads(first.content))
    assert CompiledContext.from_content(first.content) == first
    assert first.facts["people"].status == ("found" if records else "none")


@given(order=st.permutations(range(6)))
def test_row_order_never_matters_in_tables(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    records = [{"tenant": "acme", "iban": "A", "name": f"n{i % 4}", "trusted": i % 2 == 0} for i in range(6)]
    paths = [tmp_path_factory.mktemp("t") / "directory" for _ in range(2)]
    write_deltalake(paths[0], rows(*records))
    write_deltalake(paths[1], rows(*(records[i] for i in order)))
    contents = []
    for path in paths:
        spec = parse_spec(HEAD.replace('"delta"', '"delta"\nuri = "directory"', 1) + SET)
        sources = bind_sources(spec, {"erp": "sqlite://", "people": lambda where: None}, path.parent)
        context = compile_context(spec, sources, a_request(), ACCOUNT)
        # The commit's time differs between two tables, and nothing else may.
        contents.append(context.content.replace(str(context.facts["payee"].as_of), "T"))
    assert contents[0] == contents[1]


def test_the_same_versions_give_the_same_bytes_later(directory: Path) -> None:
    text = PAYEE + SET.replace("payee", "all_payees")
    spec, request = parse_spec(HEAD + text), a_request(recipient="A")
    then = compile_context(spec, {"directory": DeltaSource(directory)}, request, ACCOUNT)
    write_deltalake(directory, rows({"tenant": "acme", "iban": "A", "name": "New"}), mode="overwrite")
    source = DeltaSource(directory)
    now = compile_context(spec, {"directory": source}, request, ACCOUNT)
    assert (now.facts["payee"].version, now.facts["payee"].value) == ("1", {"name": "New", "trusted": None})
    again = compile_context(spec, {"directory": source}, request, ACCOUNT, versions={"directory": "0"})
    assert again.content == then.content
    at = then.facts["payee"].as_of
    assert at is not None
    version = source.version_at(at)
    assert version is not None
    assert (
        compile_context(spec, {"directory": source}, request, ACCOUNT, versions={"directory": version})
        == then
    )


def test_a_moved_table_gives_the_same_bytes_under_its_old_name(directory: Path) -> None:
    then = compiled(PAYEE, a_request(recipient="A"), directory=DeltaSource(directory))
    moved = directory.rename(directory.with_name("moved"))
    again = compiled(PAYEE, a_request(recipient="A"), directory=DeltaSource(moved, known_as=str(directory)))
    assert again == then


def test_two_facts_of_one_source_come_from_one_version(directory: Path) -> None:
    """A commit lands between two lookups of one request."""

    class Racing(DeltaSource):
        def lookup(self, *args: Any, **kwargs: Any) -> Any:
            found = super().lookup(*args, **kwargs)
            write_deltalake(
                directory, rows({"tenant": "acme", "iban": "A", "name": "late"}), mode="overwrite"
            )
            return found

    text = PAYEE + PAYEE.replace('"payee"', '"again"')
    facts = compiled(text, a_request(recipient="A"), directory=Racing(directory)).facts
    assert [fact.version for fact in facts.values()] == ["0", "0"]
    assert facts["again"].value == facts["payee"].value


def test_floats_beside_large_integers_fail_closed() -> None:
    def people(where: dict[str, Any]) -> Any:
        return {"tenant": "acme", "name": 2**60 if where["who"] == "A" else 0.5}

    text = PEOPLE + PEOPLE.replace('"people"\na', '"score"\na', 1).replace("args.recipient", "args.other")
    got = compiled(text, a_request(recipient="A", other="B"), people=people)
    assert [(fact.status, fact.code) for fact in got.facts.values()] == [
        ("found", None),
        ("failed", "source_failed"),
    ]
    assert got.content == canonical(json.loads(got.content))
    alone = compiled(text, a_request(recipient="B", other="B"), people=people)
    assert [fact.value for fact in alone.facts.values()] == [{"name": 0.5}] * 2
    assert CompiledContext.from_content(alone.content) == alone


def test_members_are_sorted_as_rfc_8785_says() -> None:
    """By UTF-16 units: the face, a surrogate pair, comes before the ligature, a later unit but a lower code point."""
    spec = PEOPLE.replace('["name"]', '["\ufb00", "\U0001f600"]')
    got = compiled(
        spec, a_request(recipient="x"), people=lambda _: {"tenant": "acme", "\ufb00": 1, "\U0001f600": 2}
    )
    assert '{"\U0001f600":2,"\ufb00":1}' in got.content
    assert got.content == canonical(json.loads(got.content))


# Cost


def test_facts_are_cheap_when_the_table_is_unchanged(directory: Path) -> None:
    """Not a benchmark (contract: 100 µs for two facts and their assembly); finds a lost index or a lost cache."""
    import time

    spec = parse_spec(HEAD + PAYEE + PAYEE.replace('"payee"', '"again"'))
    sources: Mapping[str, Source] = {"directory": DeltaSource(directory)}
    request = a_request(recipient="A")
    compile_context(spec, sources, request, ACCOUNT)
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(20):
            compile_context(spec, sources, request, ACCOUNT)
        best = min(best, (time.perf_counter() - start) / 20)
    assert best < 0.0005
