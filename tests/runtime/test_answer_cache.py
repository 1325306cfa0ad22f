"""Answers kept by a source's version: the same as without, for whatever order of questions and changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from runtime.answer_cache import MAX_ANSWER_BYTES, MAX_ANSWERS, MAX_BYTES, AnswerCache
from runtime.context import compile_context
from runtime.entities import EntityUid
from runtime.errors import ContextSpecError, SourceError
from runtime.request import Request
from runtime.sources import CallableSource, SqlSource, bind_sources
from runtime.spec import parse_spec
from runtime.testing import request

if TYPE_CHECKING:
    from collections.abc import Iterator


PEOPLE = """
[[facts]]
name = "people"
actions = ["send_money"]
source = "people"
key = { who = "args.recipient" }
fields = ["name"]
tenant_column = "tenant"
"""
ACCOUNT = EntityUid("Account", "A")


def a_request(**args: Any) -> Request:
    return request(args=args)


class Register:
    """A system of record with a version, that counts how often it is read."""

    def __init__(self) -> None:
        self.revision = 0
        self.names: dict[tuple[Any, Any], str] = {}
        self.read = 0

    def put(self, tenant: Any, who: Any, name: str) -> None:
        self.revision += 1
        self.names[tenant, who] = name

    def version(self) -> str:
        return f"r{self.revision}"

    def __call__(self, where: dict[str, Any]) -> Any:
        self.read += 1
        name = self.names.get((where.get("tenant"), where.get("who")))
        return None if name is None else {"name": name, "tenant": where.get("tenant")}


def test_an_answer_is_read_once_a_version() -> None:
    register = Register()
    source = CallableSource(register, register.version)
    register.put("acme", "A", "Ada")
    for _ in range(3):
        found = source.lookup({"who": "A", "tenant": "acme"}, ["name"])
        assert (found.rows, found.version) == ([{"name": "Ada"}], "r1")
    assert register.read == 1
    register.put("acme", "A", "Eve")
    assert source.lookup({"who": "A", "tenant": "acme"}, ["name"]).rows == [{"name": "Eve"}]
    assert register.read == 2


def test_without_a_version_that_is_asked_nothing_is_kept() -> None:
    for version in (None, "fixed"):
        register = Register()
        register.put("acme", "A", "Ada")
        source = CallableSource(register, version)
        for _ in range(3):
            source.lookup({"who": "A", "tenant": "acme"}, ["name"])
        assert register.read == 3


tenants = st.sampled_from(["acme", "evil", "ACME", "acme ", "", "é", "e\u0301"])
keys = st.sampled_from(["A", "a", 1, "1", True, "true", 1.5, 0, False, "acme"])
steps = st.lists(
    st.tuples(st.sampled_from(["put", "ask", "ask all"]), tenants, keys, st.text(max_size=2)), max_size=40
)


@given(steps)
def test_kept_answers_are_those_of_the_source(steps: list[tuple[str, str, Any, str]]) -> None:
    """Whoever asks, for whatever tenant, after whatever change: as if nothing had been kept."""
    register = Register()
    kept, fresh = CallableSource(register, register.version), CallableSource(register)
    for what, tenant, key, name in steps:
        if what == "put":
            register.put(tenant, key, f"{tenant}:{name}")
            continue
        columns = ["name"] if what == "ask" else ["name", "tenant"]
        where = {"who": key, "tenant": tenant}
        rows = kept.lookup(where, columns).rows
        assert rows == fresh.lookup(where, columns).rows
        assert all(str(row["name"]).startswith(f"{tenant}:") for row in rows)


def test_a_change_while_it_is_read_is_never_kept_under_the_old_version() -> None:
    """The rows are read, then the source changes, then the version is asked: by injection, not by luck."""
    register = Register()
    register.put("acme", "A", "Ada")

    def racing(where: dict[str, Any]) -> Any:
        answer = register(where)
        if register.revision == 1:
            register.put("acme", "A", "Eve")
        return answer

    source = CallableSource(racing, register.version)
    found = source.lookup({"who": "A", "tenant": "acme"}, ["name"])
    assert (found.rows, found.version) == ([{"name": "Eve"}], "r2")


def test_a_source_that_always_changes_gives_no_answer() -> None:
    register = Register()

    def racing(where: dict[str, Any]) -> Any:
        register.put("acme", "B", "x")
        return register(where)

    with pytest.raises(SourceError, match="changed its version 3 times while it was read"):
        CallableSource(racing, register.version).lookup({"who": "A"}, ["name"])


def test_an_answer_of_an_older_reader_is_thrown_away() -> None:
    """One thread reads version 1, another meanwhile sees version 2: what the first brings is not kept."""
    cache = AnswerCache("x")
    version = ["1"]
    reading, seen = threading.Event(), threading.Event()

    def slow() -> list[dict[str, Any]]:
        reading.set()
        assert seen.wait(30)
        return [{"n": "old"}]

    first = threading.Thread(target=lambda: cache.read(lambda: "1", {"k": 1}, ["n"], slow))
    first.start()
    assert reading.wait(30)
    version[0] = "2"
    cache.read(lambda: version[0], {"k": 2}, ["n"], lambda: [{"n": "new"}])
    seen.set()
    first.join()
    assert cache.read(lambda: "2", {"k": 1}, ["n"], lambda: [{"n": "fresh"}]).rows == [{"n": "fresh"}]
    assert cache.read(lambda: "1", {"k": 1}, ["n"], lambda: [{"n": "again"}]).rows == [{"n": "again"}]


def test_what_is_kept_is_bounded() -> None:
    cache = AnswerCache("x", max_answers=10, max_bytes=10_000)
    for number in range(100):
        cache.read(lambda: "1", {"k": number}, ["n"], lambda: [{"n": "x"}])
    assert len(cache._kept) == 10
    for number in range(100):
        cache.read(lambda: "1", {"k": number}, ["n"], lambda: [{"n": "x" * 3000}])
        assert cache._bytes <= 10_000
    assert cache._bytes == sum(kept.size for kept in cache._kept.values())
    full = AnswerCache("x")
    full.read(lambda: "1", {}, ["n"], lambda: [{"n": "x" * MAX_ANSWER_BYTES}])
    full.read(lambda: "1", {"k": 1}, ["n"], list)
    assert not full._kept
    assert (MAX_ANSWERS, MAX_BYTES) == (1024, 16 << 20)


@pytest.mark.parametrize("version", [None, "", 1.5, True, [], b"1", "\ud800"])
def test_a_version_is_a_text_or_a_number(version: Any) -> None:
    spec = parse_spec('[sources.people]\nkind = "callable"\n' + PEOPLE)
    source = CallableSource(lambda _: {"tenant": "acme", "name": "x"}, lambda: version)
    fact = compile_context(spec, {"people": source}, a_request(recipient="A"), ACCOUNT).facts["people"]
    assert (fact.status, fact.code) == ("failed", "source_failed")


# SQL


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE people (tenant TEXT, who TEXT, name TEXT)")
        connection.exec_driver_sql("CREATE TABLE revision (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO people VALUES ('acme', 'A', 'Ada'), ('evil', 'A', 'Mallory')")
        connection.exec_driver_sql("INSERT INTO revision VALUES (7)")
    yield engine
    engine.dispose()


def test_sql_answers_are_kept_until_the_version_changes(engine: sa.Engine) -> None:
    selects: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: selects.append(args[2]))
    source = SqlSource(engine, "people", version_query="SELECT n FROM revision")
    for tenant, name in (("acme", "Ada"), ("evil", "Mallory"), ("acme", "Ada"), ("evil", "Mallory")):
        found = source.lookup({"tenant": tenant, "who": "A"}, ["name"])
        assert (found.rows, found.version) == ([{"name": name}], "7")
    assert sum("FROM people" in text for text in selects) == 2
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE people SET name = 'Eve' WHERE tenant = 'acme'")
        connection.exec_driver_sql("UPDATE revision SET n = 8")
    found = source.lookup({"tenant": "acme", "who": "A"}, ["name"])
    assert (found.rows, found.version) == ([{"name": "Eve"}], "8")
    assert source.lookup({"tenant": "acme", "who": "A"}, ["name"], version="8").version == "8"
    with pytest.raises(SourceError, match="is at version '8'; it cannot be read as of '7'"):
        source.lookup({"tenant": "acme", "who": "A"}, ["name"], version="7")


def test_sql_without_a_version_query_is_read_each_time(engine: sa.Engine) -> None:
    source = SqlSource(engine, "people")
    assert source.lookup({"tenant": "acme", "who": "A"}, ["name"]).rows == [{"name": "Ada"}]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE people SET name = 'Eve'")
    assert source.lookup({"tenant": "acme", "who": "A"}, ["name"]).rows == [{"name": "Eve"}]


def test_a_version_query_that_gives_nothing_fails_closed(engine: sa.Engine) -> None:
    for query, why in (
        ("SELECT max(n) FROM revision WHERE n > 99", "gave no value"),
        ("SELECT", "could not answer"),
    ):
        with pytest.raises(SourceError, match=why):
            SqlSource(engine, "people", version_query=query).lookup({"who": "A"}, ["name"])


def test_the_spec_declares_the_version_query(engine: sa.Engine) -> None:
    text = (
        '[sources.people]\nkind = "sql"\ntable = "people"\nversion_query = "SELECT n FROM revision"\n'
        + PEOPLE
    )
    spec = parse_spec(text)
    got = compile_context(spec, bind_sources(spec, {"people": engine}), a_request(recipient="A"), ACCOUNT)
    assert (got.facts["people"].version, got.facts["people"].value) == ("7", {"name": "Ada"})
    with pytest.raises(ContextSpecError, match="`version_query` is for `sql` sources"):
        parse_spec('[sources.people]\nkind = "callable"\nversion_query = "SELECT 1"')
