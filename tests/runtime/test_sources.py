"""Systems of record, for real: Delta tables on disk, SQLite through SQLAlchemy, Python functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from runtime.errors import ContextSpecError, SourceError
from runtime.sources import CallableSource, DeltaSource, Source, SqlSource, bind_sources
from runtime.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a Delta table with one payee."""
    path = tmp_path / "facts" / "payees"
    write_deltalake(path, pa.table({"iban": ["A"], "name": ["Eve"]}))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """Return a SQLite database with a table of payees, their flags among it, and a view."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'crm.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE payees (tenant TEXT, iban TEXT, name TEXT, trusted BOOLEAN, limit_eur NUMERIC(10,2),"
            " n BIGINT, nick TEXT COLLATE NOCASE)"
        )
        connection.exec_driver_sql("CREATE VIEW trusted AS SELECT tenant, iban FROM payees WHERE trusted")
        insert = "INSERT INTO payees VALUES (?, ?, ?, ?, ?, ?, ?)"
        connection.exec_driver_sql(insert, ("acme", "A", "Ada", True, 12.5, 2**62, "ada"))
        connection.exec_driver_sql(insert, ("acme", "B", None, False, None, 7, "bob"))
    yield engine
    engine.dispose()


def names(source: Source, where: dict[str, Any], version: str | None = None) -> list[Any]:
    return sorted(row["name"] for row in source.lookup(where, ["name"], version=version).rows)


# SQL


def test_sql_finds_exactly_the_rows_asked_for(engine: sa.Engine) -> None:
    source = SqlSource(engine, "payees")
    found = source.lookup({"tenant": "acme", "iban": "A"}, ["name", "trusted", "limit_eur", "n"])
    assert found.rows == [{"name": "Ada", "trusted": True, "limit_eur": 12.5, "n": 2**62}]
    assert (found.version, found.as_of, source.kind, source.version_at(0)) == (None, None, "sql", None)
    assert source.lookup({"iban": "B"}, ["name", "trusted"]).rows == [{"name": None, "trusted": False}]
    assert len(source.lookup({}, ["iban"]).rows) == 2
    assert source.lookup({"n": 2**62, "trusted": True}, ["iban"]).rows == [{"iban": "A"}]
    assert SqlSource(engine, "trusted").lookup({}, ["iban"]).rows == [{"iban": "A"}]
    assert SqlSource(engine, "main.payees").lookup({"iban": "A"}, ["name"]).rows == [{"name": "Ada"}]


@pytest.mark.parametrize("value", HOSTILE)
def test_sql_binds_what_is_asked(engine: sa.Engine, value: str) -> None:
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    source = SqlSource(engine, "payees")
    assert source.lookup({"tenant": "acme", "iban": value}, ["name"]).rows == []
    selects = [text for text in statements if text.startswith("SELECT tenant")]
    assert selects == ["SELECT tenant, iban, name \nFROM payees \nWHERE tenant = ? AND iban = ?"]
    assert len(source.lookup({}, ["name"]).rows) == 2


def test_sql_names_are_quoted(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE TABLE "odd; name" ("select" TEXT, "a""b" TEXT)')
        connection.exec_driver_sql("INSERT INTO \"odd; name\" VALUES ('x', 'y')")
    found = SqlSource(engine, "odd; name").lookup({"select": "x"}, ['a"b'])
    assert found.rows == [{'a"b': "y"}]
    engine.dispose()


def test_sql_equal_means_equal(engine: sa.Engine) -> None:
    source = SqlSource(engine, "payees")
    assert source.lookup({"nick": "ada"}, ["name"]).rows == [{"name": "Ada"}]
    with pytest.raises(
        SourceError, match="column `nick` holds 'ada' where 'ADA' was asked, and the database takes"
    ):
        source.lookup({"nick": "ADA"}, ["name"])
    with pytest.raises(SourceError, match="column `n` holds 7 where '7' was asked"):
        source.lookup({"n": "7"}, ["name"])


def test_sql_failures_name_source_and_way_out(engine: sa.Engine, tmp_path: Path) -> None:
    source = SqlSource(engine, "payees")
    with pytest.raises(SourceError, match="table 'payees' has no column `nmae`, did you mean `name`"):
        source.lookup({}, ["nmae"])
    with pytest.raises(SourceError, match=r"sql source 'sqlite:.*' could not answer: NoSuchTableError"):
        SqlSource(engine, "gone").lookup({}, ["name"])
    with pytest.raises(SourceError, match="could not answer: OverflowError"):
        source.lookup({"n": 2**64}, ["name"])
    with pytest.raises(SourceError, match="has no versions; it cannot be read as of '3'"):
        source.lookup({}, ["name"], version="3")
    with pytest.raises(SourceError, match="more than max_rows=1 rows"):
        SqlSource(engine, "payees", max_rows=1).lookup({}, ["name"])
    (tmp_path / "bad.db").write_bytes(b"no database " * 100)
    broken = SqlSource(f"sqlite:///{tmp_path / 'bad.db'}", "payees")
    with pytest.raises(SourceError, match="could not answer: DatabaseError: file is not a database"):
        broken.lookup({}, ["name"])
    broken.close()


def test_sql_sees_columns_that_come_later(engine: sa.Engine) -> None:
    source = SqlSource(engine, "payees")
    source.lookup({}, ["name"])
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE payees ADD COLUMN city TEXT DEFAULT 'Zug'")
    assert source.lookup({"iban": "A"}, ["city"]).rows == [{"city": "Zug"}]


def test_sql_keeps_passwords_to_itself(tmp_path: Path) -> None:
    engine = sa.create_engine("sqlite://", creator=None)
    engine.url = sa.make_url("sqlite://user:hunter2@/x.db")
    assert SqlSource(engine, "t").uri == "sqlite://user:***@/x.db"
    engine.dispose()


# Callables


def test_callables() -> None:
    asked: list[dict[str, Any]] = []

    def answer(where: dict[str, Any]) -> Any:
        asked.append(dict(where))
        where["iban"] = "changed"
        return {"A": {"name": "Ada", "more": b"unused"}, "many": [{"name": "x"}, {"name": "y"}]}.get(
            asked[-1]["iban"]
        )

    source = CallableSource(answer)
    where = {"iban": "A"}
    found = source.lookup(where, ["name", "city"])
    assert (found.rows, found.version, found.as_of) == ([{"name": "Ada", "city": None}], None, None)
    assert asked == [where] == [{"iban": "A"}]
    assert names(source, {"iban": "many"}) == ["x", "y"]
    assert names(source, {"iban": "none"}) == []
    assert (source.kind, source.uri, source.version_at(0)) == ("callable", None, None)


def test_callables_with_a_version() -> None:
    version = ["7"]
    source = CallableSource(lambda where: {"name": "Ada"}, lambda: version[0])
    assert source.lookup({}, ["name"]).version == "7"
    assert source.lookup({}, ["name"], version="7").rows == [{"name": "Ada"}]
    version[0] = "8"
    with pytest.raises(SourceError, match="at version '8'; it cannot be read as of '7'"):
        source.lookup({}, ["name"], version="7")
    assert CallableSource(lambda where: None, "fixed").lookup({}, ["x"]).version == "fixed"
    with pytest.raises(SourceError, match="at version None; it cannot be read as of '7'"):
        CallableSource(lambda where: None).lookup({}, ["x"], version="7")


@pytest.mark.parametrize("answer", ["text", 5, [1], [{"a": 1}, None], object()])
def test_callables_that_answer_something_else(answer: Any) -> None:
    with pytest.raises(SourceError, match="return a dict, a list of dicts, or None"):
        CallableSource(lambda where: answer).lookup({}, ["a"])


def test_callables_that_fail() -> None:
    def fail(where: dict[str, Any]) -> Any:
        raise KeyError("the directory is down\nand more")

    with pytest.raises(
        SourceError, match="callable source failed: KeyError: 'the directory is down"
    ) as caught:
        CallableSource(fail).lookup({}, ["a"])
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(SourceError, match="column `a` holds bytes"):
        CallableSource(lambda where: {"a": b""}).lookup({}, ["a"])


# Binding

SPEC = """
[sources.directory]
kind = "delta"
{directory}
[sources.crm]
kind = "sql"
table = "payees"
{crm}
[sources.calendar]
kind = "callable"
"""


def spec(directory: str = "", crm: str = "") -> Any:
    return parse_spec(
        SPEC.format(directory=directory and f'uri = "{directory}"', crm=crm and f'uri = "{crm}"')
    )


def calendar(where: dict[str, Any]) -> None:
    return None


def test_binding_what_is_given(table: Path, engine: sa.Engine) -> None:
    given: dict[str, Any] = {"directory": table, "crm": engine, "calendar": calendar, "unused": 5}
    bound = bind_sources(spec(), given)
    assert {name: source.kind for name, source in bound.items()} == {
        "directory": "delta", "crm": "sql", "calendar": "callable",
    }  # fmt: skip
    assert names(bound["directory"], {"iban": "A"}) == ["Eve"]
    assert names(bound["crm"], {"iban": "A"}) == ["Ada"]
    made = DeltaSource(table)
    assert bind_sources(spec(), {**given, "directory": made})["directory"] is made
    assert bind_sources(spec(), {**given, "directory": str(table)})["directory"].uri == str(table)
    url = str(engine.url)
    assert names(bind_sources(spec(), {**given, "crm": url})["crm"], {"iban": "A"}) == ["Ada"]
    assert names(
        bind_sources(spec(), {**given, "crm": Path(engine.url.database or "")})["crm"], {"iban": "A"}
    ) == ["Ada"]


def test_binding_what_is_declared(table: Path, engine: sa.Engine, tmp_path: Path) -> None:
    declared = spec("facts/payees", "sqlite:///crm.db")
    bound = bind_sources(declared, {"calendar": calendar}, tmp_path)
    assert names(bound["directory"], {"iban": "A"}) == ["Eve"]
    assert names(bound["crm"], {"iban": "A"}) == ["Ada"]
    # Recorded as declared: the same bytes wherever the folder is.
    assert [bound[name].uri for name in ("directory", "crm")] == ["facts/payees", "sqlite:///crm.db"]
    absolute = bind_sources(spec(str(table), f"sqlite:///{tmp_path}/crm.db"), {"calendar": calendar})
    assert absolute["directory"].uri == str(table)
    assert names(absolute["crm"], {"iban": "A"}) == ["Ada"]
    for url in ("s3://bucket/facts", "postgresql://"):
        assert bind_sources(spec(url, "sqlite://"), {"calendar": calendar})["directory"].uri == url
    given = bind_sources(declared, {"calendar": calendar, "directory": str(tmp_path / "other")}, tmp_path)
    assert given["directory"].uri == str(tmp_path / "other")


HOW = "bind it where the runtime is opened, `sources={'directory': \"path/to/table\"}`, or declare its `uri`"
UNBINDABLE: list[tuple[dict[str, Any], str]] = [
    ({}, f"context.toml:2: source `directory`: is not bound; {HOW} in the spec"),
    ({"directry": "x"}, "source `directory`: is not bound, did you mean `directry`?"),
    ({"directory": 5}, f"context.toml:2: source `directory`: cannot be bound to int; {HOW}"),
    ({"directory": calendar}, "source `directory`: cannot be bound to function"),
    (
        {"directory": CallableSource(calendar)},
        "context.toml:3: source `directory` is of kind 'delta', and is bound to a 'callable' source",
    ),
    ({"directory": "x", "crm": "nonsense://"}, "source `crm`: not a database URL"),
    (
        {"directory": "x", "crm": "x.db", "calendar": "x"},
        "source `calendar`: cannot be bound to a location; bind it where the runtime is opened, `sources={'cal",
    ),
    (
        {"directory": "x", "crm": "x.db"},
        "source `calendar`: is not bound; bind it where the runtime is opened",
    ),
]


@pytest.mark.parametrize(("given", "message"), UNBINDABLE)
def test_what_cannot_be_bound(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ContextSpecError) as caught:
        bind_sources(spec(), given)
    assert message in str(caught.value)


def test_a_relative_uri_needs_a_folder() -> None:
    with pytest.raises(
        ContextSpecError, match=r"`uri` 'facts/x' is relative and there is no folder to start from"
    ):
        bind_sources(spec("facts/x"), {"crm": "x.db", "calendar": calendar})
    with pytest.raises(ContextSpecError, match=r"'sqlite:///crm\.db' is relative"):
        bind_sources(spec("/facts/x", "sqlite:///crm.db"), {"calendar": calendar})
