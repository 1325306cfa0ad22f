"""What compiled contexts refuse: other tenants' rows, sources that fail, facts too old; with real sources."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from runtime.context import CompiledContext, Fact, compile_context, judge_context
from runtime.entities import EntityUid
from runtime.request import Request
from runtime.sources import CallableSource, DeltaSource, bind_sources
from runtime.spec import ContextSpec, parse_spec
from runtime.testing import request

if TYPE_CHECKING:
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


def refusal(text: str, request: Request, /, at: datetime = NOW, **sources: Any) -> Any:
    return judge_context(compiled(text, request, **sources), parse_spec(HEAD + text), at)[0]


# Tenants


def test_facts_of_another_tenant_are_out_of_reach(directory: Path, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'erp.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (tenant TEXT, iban TEXT, name TEXT, trusted BOOLEAN)")
        connection.exec_driver_sql(
            "INSERT INTO orders VALUES ('evil', 'E', 'Eve', 1), ('acme', 'A', 'Ada', 1)"
        )
    sql = PAYEE.replace('"directory"', '"erp"')
    sources = bind_sources(
        parse_spec(HEAD), {"directory": directory, "erp": engine, "people": lambda where: None}
    )
    for text in (PAYEE, sql):
        # Whatever the key says, and whatever the arguments say.
        crossing = text.replace("iban =", 'tenant = "args.tenant", iban =')
        for each in (text, crossing):
            assert one(each, a_request(recipient="A", tenant="evil"), **sources).value == {
                "name": "Ada",
                "trusted": True,
            }
            assert one(each, a_request(recipient="E", tenant="evil"), **sources).status == "none"
    engine.dispose()


@pytest.mark.parametrize("answer", [{"tenant": "evil", "name": "x"}, {"name": "x"}, {"tenant": None, "name": "x"},
                                    [{"tenant": "acme", "name": "x"}, {"tenant": "evil", "name": "x"}]])  # fmt: skip
def test_a_source_that_answers_with_another_tenants_row_is_refused(answer: Any) -> None:
    def people(where: dict[str, Any]) -> Any:
        return answer

    fact = one(PEOPLE, a_request(recipient="x"), people=people)
    assert (fact.status, fact.value, fact.code) == ("failed", None, "tenant_crossing")
    got = refusal(PEOPLE, a_request(recipient="x"), people=people)
    assert (got.stage, got.code) == ("tenant", "tenant_crossing")
    assert "fact `people`: source `people` returned a row of tenant" in got.message
    assert one(PEOPLE.replace('tenant_column = "tenant"', "shared = true"), a_request(recipient="x"),
               people=lambda where: {"name": "x"}).status == "found"  # fmt: skip


@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "A'; DROP TABLE orders; --", "%", "*", "\x00", "A ", "a", ""]
)
def test_hostile_keys_are_only_data(directory: Path, tmp_path: Path, value: str) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'erp.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (tenant TEXT, iban TEXT, name TEXT, trusted BOOLEAN)")
        connection.exec_driver_sql("INSERT INTO orders VALUES ('acme', 'A', 'Ada', 1)")
    sources = bind_sources(
        parse_spec(HEAD), {"directory": directory, "erp": engine, "people": lambda where: None}
    )
    text = PAYEE + PAYEE.replace('"payee"', '"order"').replace('"directory"', '"erp"')
    got = compiled(text, a_request(recipient=value), **sources)
    assert [fact.status for fact in got.facts.values()] == ["none", "none"]
    assert [fact.key["iban"] for fact in got.facts.values()] == [value, value]
    assert CompiledContext.from_content(got.content) == got
    assert (
        one(text.partition('[[facts]]\nname = "order"')[0], a_request(recipient="A"), **sources).status
        == "found"
    )
    engine.dispose()


@pytest.mark.parametrize("value", [["A"], {"iban": "A"}, 1.5, 2**64, 1e300, "\ud800"])
def test_keys_that_no_row_can_have_fail_closed(directory: Path, value: Any) -> None:
    fact = one(PEOPLE, a_request(recipient=value), people=lambda where: None) if value != "\ud800" else None
    if fact is not None:
        assert (fact.status, fact.code, fact.key) == ("failed", "source_failed", {})
        assert "`args.recipient`" in str(fact.message)
    else:  # no JSON at all: the request is refused before facts are asked for
        with pytest.raises(ValueError, match="no canonical JSON form"):
            one(PEOPLE, a_request(recipient=value), people=lambda where: None)


# Failures


def test_a_failing_source_fails_closed(tmp_path: Path) -> None:
    def down(where: dict[str, Any]) -> Any:
        raise ConnectionError("directory is down")

    fact = one(PEOPLE, a_request(recipient="x"), people=down)
    assert (fact.status, fact.value, fact.code) == ("failed", None, "source_failed")
    assert "ConnectionError: directory is down" in str(fact.message)
    got = refusal(PEOPLE, a_request(recipient="x"), people=down)
    assert (got.stage, got.code, got.inputs) == ("context", "source_failed", {"fact": "people"})
    assert (
        refusal(PAYEE, a_request(recipient="x"), directory=DeltaSource(tmp_path / "gone")).code
        == "source_failed"
    )
    assert "source `people` is not bound" in refusal(PEOPLE, a_request(recipient="x")).message
    assert refusal(PEOPLE, a_request("other", recipient="x"), people=down) is None
    again = CompiledContext.from_content(compiled(PEOPLE, a_request(recipient="x"), people=down).content)
    assert judge_context(again, parse_spec(HEAD + PEOPLE), NOW)[0] == got


def test_a_value_that_is_no_json_fails_closed() -> None:
    assert (
        refusal(PEOPLE, a_request(recipient="x"), people=lambda _: {"tenant": "acme", "name": b"x"}).code
        == "source_failed"
    )
    assert (
        refusal(PEOPLE, a_request(recipient="x"), people=lambda _: {"tenant": "acme", "name": "\ud800"}).code
        == "source_failed"
    )
    pinned = parse_spec(HEAD + PEOPLE)
    source = CallableSource(lambda where: None)
    got = compile_context(
        pinned, {"people": source}, a_request(recipient="x"), ACCOUNT, versions={"people": "3"}
    )
    assert got.facts["people"].code == "source_failed"


def test_a_record_of_two_rows_is_refused(directory: Path) -> None:
    got = refusal(PAYEE, a_request(recipient="D"), directory=DeltaSource(directory))
    assert (got.stage, got.code) == ("context", "not_unique")
    assert 'has 2 rows for {"iban":"D","tenant":"acme"}; a record takes one' in got.message


def test_a_crossing_of_tenants_is_told_before_anything_else() -> None:
    def people(where: dict[str, Any]) -> Any:
        if where["who"] == "down":
            raise ConnectionError
        return {"tenant": "evil", "name": "x"}

    text = PEOPLE + PEOPLE.replace('"people"\na', '"second"\na', 1).replace("args.recipient", "args.other")
    assert refusal(text, a_request(recipient="down", other="x"), people=people).stage == "tenant"


# Ages


AGED = PAYEE + 'max_age = "2h"\nage_column = "seen"\n'


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def test_ages_are_judged_at_evaluation_time(directory: Path) -> None:
    context = compiled(AGED, a_request(recipient="A"), directory=DeltaSource(directory))
    spec = parse_spec(HEAD + AGED)
    assert context.facts["payee"].as_of == micros(NOW - HOUR)
    got, inputs = judge_context(context, spec, NOW)
    assert got is None
    assert inputs["facts"] == {"payee": {"as_of": micros(NOW - HOUR), "age_s": 3600, "stale": False}}
    assert judge_context(context, spec, NOW + HOUR)[0] is None
    late, inputs = judge_context(context, spec, NOW + HOUR + timedelta(milliseconds=1))
    assert late is not None
    assert (late.stage, late.code, late.inputs) == ("context", "stale", inputs["facts"])
    assert late.message == "fact `payee` is 7200 s old; `max_age` allows 7200 s"
    assert inputs["facts"] == {"payee": {"as_of": micros(NOW - HOUR), "age_s": 7200, "stale": True}}


def test_stale_facts_may_be_flagged(directory: Path) -> None:
    text = AGED + 'on_stale = "flag"\n'
    context = compiled(text, a_request(recipient="B"), directory=DeltaSource(directory))
    got, inputs = judge_context(context, parse_spec(HEAD + text), NOW)
    assert got is None
    assert inputs["facts"] == {"payee": {"as_of": micros(NOW - 3 * HOUR), "age_s": 10800, "stale": True}}


def test_a_fact_that_does_not_say_its_age_is_stale(directory: Path) -> None:
    write_deltalake(directory, rows({"tenant": "acme", "iban": "A", "name": "Ada"}), mode="overwrite")
    source = DeltaSource(directory)
    got = refusal(AGED, a_request(recipient="A"), directory=source)
    assert got.message == "fact `payee` does not say how old it is; `max_age` allows 7200 s"
    assert refusal(AGED, a_request(recipient="Z"), directory=source) is None


def test_a_set_is_as_old_as_its_oldest_row(directory: Path) -> None:
    text = AGED.replace('key = { iban = "args.recipient" }', 'shape = "set"')
    write_deltalake(
        directory,
        rows(*({"tenant": "acme", "name": f"n{h}", "seen": NOW - h * HOUR} for h in (1, 5, 2))),
        mode="overwrite",
    )
    fact = one(text, a_request(), directory=DeltaSource(directory))
    assert fact.as_of == micros(NOW - 5 * HOUR)
    assert refusal(text, a_request(), directory=DeltaSource(directory)).code == "stale"


def test_without_an_age_column_a_delta_fact_is_as_old_as_its_version(directory: Path) -> None:
    text = PAYEE + 'max_age = "2h"\n'
    source = DeltaSource(directory)
    committed = datetime.fromtimestamp((source.lookup({}, ["name"]).as_of or 0) / 1e6, UTC)
    for recipient in ("A", "nobody"):  # an old table says as little about who is not in it
        assert refusal(text, a_request(recipient=recipient), at=committed + HOUR, directory=source) is None
        assert (
            refusal(text, a_request(recipient=recipient), at=committed + 3 * HOUR, directory=source).code
            == "stale"
        )


@pytest.mark.parametrize("value", ["yesterday", "2026-11-22T10:00:00", 5, True])
def test_an_age_that_is_no_time_fails_closed(value: Any) -> None:
    text = PEOPLE + 'max_age = "1h"\nage_column = "seen"\n'
    got = refusal(
        text, a_request(recipient="x"), people=lambda _: {"tenant": "acme", "name": "x", "seen": value}
    )
    assert got.code == "source_failed"
    assert "age column `seen` must hold a timestamp with its zone" in got.message


@pytest.mark.parametrize("value", ["2026-11-22T11:00:00Z", "2026-11-22T12:00:00+01:00", NOW - HOUR])
def test_ages_as_callables_give_them(value: Any) -> None:
    text = PEOPLE + 'max_age = "1h"\nage_column = "seen"\n'
    fact = one(
        text, a_request(recipient="x"), people=lambda _: {"tenant": "acme", "name": "x", "seen": value}
    )
    assert fact.as_of == micros(NOW - HOUR)


def test_a_candidate_spec_judges_a_recorded_context(directory: Path) -> None:
    recorded = compiled(PAYEE, a_request(recipient="B"), directory=DeltaSource(directory))
    stricter = parse_spec(HEAD + AGED + PEOPLE)
    assert judge_context(recorded, stricter, NOW + timedelta(days=40000))[0] is not None
    assert judge_context(recorded, ContextSpec(), NOW, skew_us=None) == (None, {"facts": {}})
