"""Bounds of compiled contexts: facts from the future, failures of every kind, circles; the same bytes everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from runtime.canonical import canonical
from runtime.context import CompiledContext, compile_context, judge_context
from runtime.entities import EntityUid
from runtime.errors import SourceError
from runtime.lookup import Found as _Found
from runtime.record import request_of
from runtime.request import MAX_SKEW_US, Request, ResourceTemplate
from runtime.spec import parse_spec
from runtime.testing import request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SKEW = timedelta(microseconds=MAX_SKEW_US)
SOURCE = '[sources.people]\nkind = "callable"\n'
PEOPLE = """
[[facts]]
name = "people"
actions = ["act"]
source = "people"
key = { id = "args.id" }
fields = ["name"]
tenant_column = "tenant"
"""
AGED = PEOPLE + 'max_age = "1h"\nage_column = "seen"\n'
SCHEMA = """
entity Agent in [Thing, Agent]; entity Thing in [Agent, Thing];
action "act" appliesTo { principal: [Agent], resource: [Thing], context: {
  people?: { name: String }, args: { id: String } } };
"""
THING = EntityUid("Thing", "1")


def Found(rows: Any, version: str | None = None, as_of: int | None = None) -> _Found:  # noqa: N802 - stands for it
    """Return an answer whose rows may hold anything, as a source's may."""
    return _Found(rows, version, as_of)


def a_request(**args: Any) -> Request:
    return request(tool="act", resource=ResourceTemplate.parse("Thing::{id}"), args={"id": "1"} | args)


class Answering:
    """A source that answers as a function does, with no guard of its own."""

    kind = "callable"
    uri = None

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def lookup(self, where: Mapping[str, Any], columns: Any, *, version: str | None = None) -> Any:
        return self.answer()

    def version_at(self, at_us: int) -> None:
        return None


def compiled(text: str, answer: Callable[[], Any]) -> CompiledContext:
    source: Any = Answering(answer)
    return compile_context(parse_spec(SOURCE + text), {"people": source}, a_request(), THING)


def seen_at(moment: datetime) -> Callable[[], Any]:
    row = {"name": "Ada", "tenant": "acme", "seen": moment.isoformat()}
    return lambda: Found([dict(row)], None, None)


# Facts from the future


@pytest.mark.parametrize(
    ("ahead", "fresh"),
    [
        (timedelta(0), True),
        (SKEW, True),
        (SKEW + timedelta(microseconds=1), False),
        (timedelta(hours=1), False),
        (timedelta(days=36500), False),
        (-timedelta(hours=1), True),
        (-timedelta(hours=1, microseconds=1), False),
    ],
)
def test_a_fact_is_fresh_between_max_age_and_the_skew(ahead: timedelta, fresh: bool) -> None:
    spec, got = parse_spec(SOURCE + AGED), compiled(AGED, seen_at(NOW + ahead))
    refusal, inputs = judge_context(got, spec, NOW)
    assert (refusal is None) == fresh
    assert inputs["max_skew_us"] == MAX_SKEW_US
    assert inputs["facts"]["people"]["stale"] is not fresh  # type: ignore[index, call-overload]
    if ahead > SKEW:
        assert refusal is not None
        assert (refusal.stage, refusal.code) == ("context", "stale")
        assert "ahead of the decision" in refusal.message
    # As decisions of schema version 1 were judged, which must replay as they were recorded.
    assert (judge_context(got, spec, NOW, skew_us=None)[0] is None) == (fresh or ahead > SKEW)


def test_a_fact_without_max_age_may_be_dated_any_time() -> None:
    text = PEOPLE + 'age_column = "seen"\n'
    got = compiled(text, seen_at(NOW + timedelta(days=1)))
    assert judge_context(got, parse_spec(SOURCE + text), NOW)[0] is None


def test_the_skew_a_decision_was_judged_by_is_recorded_and_read_back(tmp_path: Path) -> None:
    bundle = bundle_from_files({**FILES, "context.toml": SOURCE + AGED}, "b")
    moment = [NOW]
    runtime = Runtime.open(bundle, lake=tmp_path, sources={"people": person}, clock=lambda: moment[0])

    @runtime.tool(resource="Thing::{id}")
    def act(id: str) -> None: ...  # noqa: A002 - as the schema says

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        act("1")
        row = dict(session.last_decision or {})
        assert request_of(row).max_skew_us == MAX_SKEW_US
        assert request_of(row | {"stage_inputs": '{"context":{"facts":{}}}'}).max_skew_us is None
        assert request_of(row | {"stage_inputs": "{}"}).max_skew_us == MAX_SKEW_US
        moment[0] = NOW - timedelta(hours=1)
        with pytest.raises(Blocked, match="dated 3600 s ahead"):
            act("1")
    runtime.ledger.close()


def person(where: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "Ada", "tenant": where["tenant"], "seen": NOW}


FILES = {"p.cedar": '@id("p") permit(principal, action, resource);', "schema.cedarschema": SCHEMA}


# Sources that fail in their own way


class Hostile(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise ZeroDivisionError("get")

    __getitem__ = get


class Unspeakable(Exception):  # noqa: N818 - never raised in earnest
    def __str__(self) -> str:
        raise ValueError("no str")


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
FAILURES: dict[str, Callable[[], Any]] = {
    "its own error": raising(ZeroDivisionError("down")),
    "an error without a text": raising(Unspeakable()),
    "a surrogate in its text": raising(SourceError("\ud800")),
    "recursion": raising(RecursionError("too deep")),
    "memory": raising(MemoryError()),
    "stop": raising(StopIteration()),
    "nothing": lambda: None,
    "another thing": lambda: [{"name": "x", "tenant": "acme"}],
    "no columns": lambda: Found([{"tenant": "acme"}], None, None),
    "no tenant": lambda: Found([{"name": "x"}], None, None),
    "hostile rows": lambda: Found([Hostile()], None, None),
    "a value that is no JSON": lambda: Found([{"name": object(), "tenant": "acme"}], None, None),
    "a cycle": lambda: Found([{"name": CYCLE, "tenant": "acme"}], None, None),
    "a surrogate": lambda: Found([{"name": "\ud800", "tenant": "acme"}], None, None),
    "a number that is none": lambda: Found([{"name": float("nan"), "tenant": "acme"}], None, None),
}


@pytest.mark.parametrize("name", FAILURES)
def test_whatever_a_source_does_is_a_failed_fact(name: str) -> None:
    got = compiled(PEOPLE, FAILURES[name])
    fact = got.facts["people"]
    assert (fact.status, fact.code, fact.value) == ("failed", "source_failed", None)
    assert CompiledContext.from_content(got.content) == got
    assert len(got.content) < 3000
    refusal, _ = judge_context(got, parse_spec(SOURCE + PEOPLE), NOW)
    assert refusal is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_an_interruption_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        compiled(PEOPLE, raising(error))


# Circles

PARENTS = """
[[facts]]
name = "of_{into}"
actions = ["act"]
source = "people"
key = {{ of = "{into}.type" }}
into = "{into}"
parents = {{ things = "Thing", agents = "Agent" }}
tenant_column = "tenant"
"""
BOTH = PARENTS.format(into="principal") + PARENTS.format(into="resource")


@pytest.mark.parametrize(
    ("of_agent", "of_thing", "runs"),
    [
        ({"things": ["1"]}, {"agents": ["bot"]}, False),
        ({"agents": ["bot"]}, {}, False),
        ({}, {"things": ["2", "1"]}, False),
        ({"things": ["1"]}, {}, True),
        ({"things": ["1"]}, {"agents": ["other"]}, True),
        ({"things": ["2"]}, {"things": ["2"], "agents": ["bot"]}, True),
    ],
)
def test_an_entity_that_is_its_own_ancestor_is_refused_and_recorded(
    tmp_path: Path,
    of_agent: dict[str, Any],
    of_thing: dict[str, Any],
    runs: bool,
) -> None:
    bundle = bundle_from_files({**FILES, "context.toml": SOURCE + BOTH}, "b")

    def ask(where: Mapping[str, Any]) -> Any:
        found = of_agent if where["of"] == "Agent" else of_thing
        return {"things": [], "agents": [], "tenant": "acme"} | found

    runtime = Runtime.open(bundle, lake=tmp_path, sources={"people": ask})

    @runtime.tool(resource="Thing::{id}")
    def act(id: str) -> str:  # noqa: A002 - as the schema says
        return id

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        if runs:
            assert act("1") == "1"
        else:
            with pytest.raises(Blocked, match="must not be its own ancestor"):
                act("1")
        row = session.last_decision
        assert row is not None
        assert row["decided_by"] == ("policy" if runs else "context")
    runtime.ledger.close()


# The same bytes in every process

SCRIPT = """
import sys
from datetime import UTC, datetime
sys.path.insert(0, sys.argv[1])
from {module} import *
print(canonical([compiled(text, answer).content for text, answer in CASES]))
"""

CASES = [
    (PEOPLE, lambda: Found([{"name": {"b", "a", "ä", "c"}, "tenant": "acme"}], None, None)),
    (AGED, seen_at(NOW)),
    (
        PEOPLE.replace("[[facts]]", '[[facts]]\nshape = "set"'),
        lambda: Found([{"name": name, "tenant": "acme"} for name in set("xyzßZ")], None, None),
    ),
]


def test_the_hash_seed_of_a_process_plays_no_part(tmp_path: Path) -> None:
    """Sets of a source come in an order that differs from process to process; the bytes do not."""
    module = Path(__file__)
    code = SCRIPT.format(module=module.stem)
    printed = set()
    for seed in ("1", "42"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(module.parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        printed.add(done.stdout.strip())
    assert printed == {canonical([compiled(text, answer).content for text, answer in CASES])}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4) | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(rows=st.lists(json_values, min_size=1, max_size=5), random=st.randoms(use_true_random=False))
def test_the_order_of_rows_members_and_arguments_plays_no_part(rows: list[Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(name, shuffled(item)) for name, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return value

    text = PEOPLE.replace("[[facts]]", '[[facts]]\nshape = "set"')
    records = [{"name": value, "tenant": "acme"} for value in rows]
    others = [shuffled(record) for record in records]
    random.shuffle(others)
    one = compiled(text, lambda: Found(records, None, None))
    two = compiled(text, lambda: Found(others, None, None))
    assert one.content == two.content
    assert CompiledContext.from_content(one.content) == one
