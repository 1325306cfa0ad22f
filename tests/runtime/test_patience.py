"""Sources that hang or fail: the decision is refused with its cause, in time, and threads stay bounded."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from runtime.context import compile_context, judge_context
from runtime.entities import EntityUid
from runtime.errors import ContextSpecError, SourceError, SourceTimeout
from runtime.patience import MAX_ABANDONED, PatientSource
from runtime.request import Request
from runtime.sources import CallableSource, bind_sources
from runtime.spec import parse_spec
from runtime.testing import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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


class Gate:
    """A source that hangs as long as it is shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = 0
        self.threads: set[int] = set()

    def __call__(self, where: dict[str, Any]) -> Any:
        self.asked += 1
        self.threads.add(threading.get_ident())
        assert self.open.wait(60)
        return {"name": where.get("who"), "tenant": "acme"}


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def patient(fn: Callable[..., Any], seconds: float) -> PatientSource:
    return PatientSource(CallableSource(fn), "people", seconds)


def workers() -> int:
    return sum(thread.name == "source people" for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get there; fails after a while."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def at_last(ask: Callable[[], Any]) -> Any:
    """Ask until there is an answer: a busy machine may take longer than a source is given here."""
    end = time.monotonic() + 30
    while True:
        try:
            return ask()
        except (SourceTimeout, Blocked):
            assert time.monotonic() < end


def test_an_answer_in_time_is_an_answer_and_workers_are_used_again() -> None:
    before = workers()
    source = patient(lambda where: {"name": where["who"]}, 30)
    for number in range(50):
        assert source.lookup({"who": str(number)}, ["name"]).rows == [{"name": str(number)}]
    assert workers() == before + 1
    assert (source.kind, source.uri, source.version_at(0)) == ("callable", None, None)
    source.close()
    until(lambda: workers() == before)


def test_a_hung_source_is_given_up_and_another_worker_takes_its_place(gate: Gate) -> None:
    source = patient(gate, 0.02)
    with pytest.raises(SourceTimeout, match=r"source `people` did not answer within 0\.02 s"):
        source.lookup({}, ["name"])
    gate.open.set()
    until(lambda: source._crew._abandoned == 0)
    assert at_last(lambda: source.lookup({"who": "x"}, ["name"]).rows) == [{"name": "x"}]


def test_hung_workers_are_bounded_and_then_it_is_refused_at_once(gate: Gate) -> None:
    before = workers()
    source = patient(gate, 0.01)
    for _ in range(MAX_ABANDONED):
        with pytest.raises(SourceTimeout, match="did not answer"):
            source.lookup({}, ["name"])
    for _ in range(100):
        with pytest.raises(SourceTimeout, match=f"is not asked: {MAX_ABANDONED} lookups .* still hang"):
            source.lookup({}, ["name"])
    assert (gate.asked, workers()) == (MAX_ABANDONED, before + MAX_ABANDONED)
    gate.open.set()
    until(lambda: source._crew._abandoned == 0)
    assert at_last(lambda: source.lookup({"who": "x"}, ["name"]).rows) == [{"name": "x"}]
    source.close()
    until(lambda: workers() == before)


def test_a_late_answer_is_never_anothers(gate: Gate) -> None:
    """The worker that was given up answers at last; its rows must not reach the next who asks."""
    answers = iter(["late"])

    def fn(where: dict[str, Any]) -> Any:
        if where["who"] == "slow":
            gate(where)
            return {"name": next(answers)}
        return {"name": "mine"}

    source = patient(fn, 0.02)
    with pytest.raises(SourceTimeout):
        source.lookup({"who": "slow"}, ["name"])
    gate.open.set()
    for _ in range(20):
        assert at_last(lambda: source.lookup({"who": "fast"}, ["name"]).rows) == [{"name": "mine"}]


def test_errors_come_through_and_interruptions_pass() -> None:
    def fail(_: Any) -> Any:
        raise ConnectionError("down")

    with pytest.raises(SourceError, match="ConnectionError: down"):
        patient(fail, 30).lookup({}, ["name"])
    for kind in (KeyboardInterrupt, SystemExit):

        def interrupt(_: Any, kind: type[BaseException] = kind) -> Any:
            raise kind

        with pytest.raises(kind):
            patient(interrupt, 30).lookup({}, ["name"])


def test_context_variables_reach_the_worker() -> None:
    var: ContextVar[str] = ContextVar("var")
    var.set("here")
    assert patient(lambda _: {"name": var.get()}, 30).lookup({}, ["name"]).rows == [{"name": "here"}]


def test_many_threads_each_get_their_own_answer() -> None:
    source = patient(lambda where: {"name": where["who"]}, 30)
    wrong: list[Any] = []

    def ask(name: str) -> None:
        for number in range(50):
            (row,) = source.lookup({"who": f"{name}-{number}"}, ["name"]).rows
            if row["name"] != f"{name}-{number}":
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    source.close()


# In a spec, and in a decision

SPEC = """
[sources.people]
kind = "callable"
timeout = "20ms"
"""


def test_one_request_waits_for_a_hung_source_once(gate: Gate) -> None:
    text = SPEC + PEOPLE + PEOPLE.replace('"people"\na', '"others"\na', 1)
    spec = parse_spec(text)
    sources = bind_sources(spec, {"people": gate})
    got = compile_context(spec, sources, a_request(recipient="A"), ACCOUNT)
    assert [(fact.status, fact.code) for fact in got.facts.values()] == [("failed", "source_failed")] * 2
    assert gate.asked == 1
    refusal, _ = judge_context(got, spec, a_request().at)
    assert refusal is not None
    assert refusal.message == "fact `people`: source `people` did not answer within 0.02 s"


@pytest.mark.parametrize("text", ["2", "", "0s", "-1s", "2 s", "forever"])
def test_a_timeout_is_a_duration(text: str) -> None:
    with pytest.raises(ContextSpecError, match=r"context.toml:4: source `people`: `timeout` must be"):
        parse_spec(SPEC.replace("20ms", text))


def test_a_decision_is_refused_with_source_and_seconds(tmp_path: Path, gate: Gate) -> None:
    schema = """entity Agent; entity Thing; action "act" appliesTo { principal: [Agent], resource: [Thing],
      context: { people?: { name: String }, args: { id: String } } };"""
    spec = SPEC + PEOPLE.replace("send_money", "act").replace("args.recipient", "args.id")
    texts = {"p.cedar": '@id("p") permit(principal, action, resource);', "schema.cedarschema": schema}
    bundle = bundle_from_files({**texts, "context.toml": spec}, "b")
    with Runtime.open(bundle, lake=tmp_path / "lake", sources={"people": gate}) as runtime:
        ran: list[str] = []

        @runtime.tool(resource="Thing::{id}")
        def act(id: str) -> None:  # noqa: A002 - as the schema says
            ran.append(id)

        with runtime.session(principal="Agent::bot", tenant="acme") as session:
            with pytest.raises(Blocked, match=r"source `people` did not answer within 0\.02 s"):
                act("1")
            row = session.last_decision
            assert row is not None
            assert (row["decided_by"], row["reason_code"]) == ("context", "source_failed")
            assert ran == []
            gate.open.set()
            until(lambda: runtime.sources["people"]._crew._abandoned == 0)  # type: ignore[attr-defined]
            at_last(lambda: act("2"))
            assert ran == ["2"]
