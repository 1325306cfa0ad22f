"""The runtime as an agent developer meets it: real bundle, real ledger, tools that leave marks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runtime import (
    ApprovalRequired,
    Blocked,
    EntityUid,
    GovernanceError,
    IdempotencyConflict,
    InProgress,
    RecordedFailure,
    RegistrationError,
    Runtime,
    current_session,
)
from runtime.record import request_of
from runtime.ruling import REASONS
from runtime.schema import SESSION

SCHEMA = """
entity User;
entity Agent;
entity Order;
entity Tool;
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { on_behalf_of?: User, args: { order_id: String, amount_cents: Long, note?: String } }
};
action "lookup" appliesTo { principal: [Agent], resource: [Tool], context: { args: {} } };
"""
POLICIES = """
@id("permit") permit(principal is Agent, action, resource);
@id("too-much") forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > 10000 };
@id("ask") @verdict("approve") forbid(principal, action == Action::"refund", resource)
  when { context.args.amount_cents > 5000 };
@id("cut-note") @verdict("modify") @patch("{\\"note\\": null}") forbid(principal, action == Action::"refund", resource)
  when { context.args has note && context.args.note like "*secret*" };
@id("three-calls") forbid(principal, action, resource) when { context.session.calls >= 3 };
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "p.cedar").write_text(POLICIES)
    (folder / "schema.cedarschema").write_text(SCHEMA)
    return folder


class World:
    """A runtime with tools that note each run."""

    def __init__(self, bundle: Path, lake: Path) -> None:
        self.runtime = Runtime.open(bundle, lake=lake)
        self.ran: list[dict[str, Any]] = []
        self.seen_before_effect: list[bool] = []

        @self.runtime.tool(resource="Order::{order_id}", scopes=["refunds"])
        def refund(order_id: str, amount_cents: int, note: str | None = None) -> dict[str, Any]:
            self.ran.append({"order_id": order_id, "amount_cents": amount_cents, "note": note})
            session = current_session()
            assert session is not None
            self.seen_before_effect.append(bool(self.runtime.ledger.unfinished()))
            if amount_cents == 13:
                raise RuntimeError("out of luck")
            return {"refunded": amount_cents}

        @self.runtime.tool
        async def lookup() -> str:
            await asyncio.sleep(0)
            return "found"

        self.refund, self.lookup = refund, lookup

    def session(self, **changes: Any) -> Any:
        given = {
            "principal": "Agent::bot",
            "tenant": "acme",
            "scopes": ["refunds"],
            "session_id": "s",
            **changes,
        }
        return self.runtime.session(**given)


@pytest.fixture
def world(bundle: Path, tmp_path: Path) -> Any:
    made = World(bundle, tmp_path / "lake")
    yield made
    made.runtime.ledger.close()


def test_allow_runs_and_both_rows_are_durable(world: World) -> None:
    with world.session(on_behalf_of="User::ana") as session:
        assert session.call(world.refund, order_id="o-1", amount_cents=500) == {"refunded": 500}
        row = session.last_decision
    assert world.seen_before_effect == [True]  # the decision was in the ledger when the tool ran
    outcome = world.runtime.ledger.outcome_of(row["decision_id"])
    assert outcome is not None
    assert (outcome["status"], outcome["result"]) == ("succeeded", '{"refunded":500}')
    assert row["verdict"] == "allow"
    assert row["on_behalf_of_id"] == "ana"
    assert row["resource_id"] == "o-1"
    assert world.runtime.ledger.unfinished() == []


def test_the_request_reads_back_from_its_row(world: World) -> None:
    with world.session(on_behalf_of="User::ana") as session:
        session.call(world.refund, "o-1", 500, idempotency_key="k")
        row = world.runtime.ledger.decision(session.last_decision["decision_id"])
        assert row is not None
        request = request_of(row)
    assert request.principal == EntityUid("Agent", "bot")
    assert request.args == {"order_id": "o-1", "amount_cents": 500, "note": None}
    assert (request.idempotency_key, request.step) == ("k", 0)
    assert request.session_state == dict.fromkeys(SESSION, 0)
    assert request.at.microsecond % 1000 == 0


def test_block_and_approve_run_nothing(world: World) -> None:
    with world.session() as session:
        with pytest.raises(Blocked, match="forbidden by `too-much`") as blocked:
            session.call(world.refund, order_id="o-1", amount_cents=20000)
        with pytest.raises(ApprovalRequired, match="`ask`") as asked:
            session.call(world.refund, order_id="o-1", amount_cents=6000)
    assert world.ran == []
    assert blocked.value.decision.determining == ("too-much",)
    assert asked.value.decision.action_hash is not None
    assert isinstance(blocked.value, PermissionError)
    assert world.runtime.ledger.head()[0] == 2


def test_modify_runs_the_patched_arguments(world: World) -> None:
    with world.session() as session:
        session.call(world.refund, order_id="o-1", amount_cents=5, note="a secret")
        row = session.last_decision
    assert world.ran == [{"order_id": "o-1", "amount_cents": 5, "note": None}]
    assert json.loads(row["args"])["note"] == "a secret"
    assert "note" not in json.loads(row["enforced_args"])


def test_a_tool_that_raises_is_recorded_and_raises(world: World) -> None:
    with world.session() as session, pytest.raises(RuntimeError, match="out of luck"):
        session.call(world.refund, order_id="o-1", amount_cents=13)
    outcome = world.runtime.ledger.outcome_of(session.last_decision["decision_id"])
    assert outcome is not None
    assert (outcome["status"], outcome["error_type"]) == ("failed", "RuntimeError")


def test_session_counters_reach_policies_and_limits(world: World) -> None:
    with world.session() as session:
        for _ in range(3):
            session.call(world.refund, order_id="o-1", amount_cents=1)
        with pytest.raises(Blocked, match="three-calls"):
            session.call(world.refund, order_id="o-1", amount_cents=1)
        assert session.last_decision["step"] == 3
    with world.session(tenant="other") as session:
        session.call(world.refund, order_id="o-1", amount_cents=1)
        assert session.last_decision["step"] == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"order_id": "o-1"}, "args_invalid"),
        ({"order_id": "o-1", "amount_cents": 5, "huge": 1}, "args_invalid"),
        ({"order_id": "o-1", "amount_cents": float("nan")}, "args_invalid"),
        ({"order_id": "o-1", "amount_cents": 2**63}, "args_invalid"),
        ({"order_id": "\ud800", "amount_cents": 5}, "args_invalid"),
        ({"order_id": b"raw", "amount_cents": 5}, "args_invalid"),
        ({"order_id": "o-1", "amount_cents": "5"}, "projection_failed"),
        ({"order_id": "o-1", "amount_cents": 5.7}, "projection_failed"),
        (
            {"order_id": "o-1", "amount_cents": 5, "note": {"__extn": {"fn": "ip", "arg": "1"}}},
            "projection_failed",
        ),
        ({"order_id": ["o"], "amount_cents": 5}, "resource_unresolved"),
    ],
)
def test_arguments_that_do_not_fit_are_blocked_and_recorded(
    world: World, args: dict[str, Any], code: str
) -> None:
    with world.session() as session, pytest.raises(Blocked) as caught:
        session.call(world.refund, **args)
    assert caught.value.decision.reason_code == code
    assert world.ran == []
    row = world.runtime.ledger.decision(session.last_decision["decision_id"])
    assert row is not None
    assert (row["verdict"], row["decided_by"], row["reason_code"]) == ("block", "request", code)
    assert code in REASONS


def test_a_whole_float_is_the_integer_the_record_says(world: World) -> None:
    with world.session() as session:
        session.call(world.refund, order_id="o", amount_cents=5.0)
    assert world.ran[0]["amount_cents"] == 5
    assert type(world.ran[0]["amount_cents"]) is int
    assert json.loads(session.last_decision["args"])["amount_cents"] == 5


def test_a_missing_scope_is_a_block_by_request(world: World) -> None:
    with world.session(scopes=[]) as session, pytest.raises(Blocked, match="needs scope 'refunds'"):
        session.call(world.refund, order_id="o-1", amount_cents=1)
    assert session.last_decision["reason_code"] == "scope_missing"


def test_an_idempotent_repeat_returns_the_recorded_result(world: World) -> None:
    with world.session() as session:
        first = session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
        original = session.last_decision["decision_id"]
        again = session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
        repeat = session.last_decision
    assert first == again == {"refunded": 7}
    assert len(world.ran) == 1
    assert (repeat["kind"], repeat["linked_to"], repeat["verdict"]) == ("duplicate", original, "allow")


def test_a_key_is_scoped_to_tenant_principal_behalf_and_tool(world: World) -> None:
    for changes in ({}, {"tenant": "b"}, {"principal": "Agent::b"}, {"on_behalf_of": "User::b"}):
        with world.session(**changes, session_id=str(changes)) as session:
            session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
    assert len(world.ran) == 4


def test_the_same_key_with_other_arguments_is_an_error(world: World) -> None:
    with world.session() as session:
        session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
        with pytest.raises(IdempotencyConflict, match="with other arguments"):
            session.call(world.refund, order_id="o-1", amount_cents=8, idempotency_key="k")
    assert len(world.ran) == 1
    assert session.last_decision["reason_code"] == "idempotency_conflict"
    assert session.last_decision["kind"] == "duplicate"


def test_a_repeat_passes_policy_first(world: World) -> None:
    with world.session() as session:
        session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
        for _ in range(2):
            session.call(world.refund, order_id="o-1", amount_cents=1)
        with pytest.raises(Blocked, match="three-calls"):
            session.call(world.refund, order_id="o-1", amount_cents=7, idempotency_key="k")
    assert (session.last_decision["kind"], session.last_decision["verdict"]) == ("duplicate", "block")


def test_a_blocked_call_does_not_use_up_its_key(world: World) -> None:
    with world.session() as session:
        with pytest.raises(ApprovalRequired):
            session.call(world.refund, order_id="o-1", amount_cents=6000, idempotency_key="k")
        assert session.call(world.refund, order_id="o-1", amount_cents=60, idempotency_key="k") == {
            "refunded": 60
        }


def test_a_repeat_of_a_failure_does_not_run_again(world: World) -> None:
    with world.session() as session:
        with pytest.raises(RuntimeError):
            session.call(world.refund, order_id="o-1", amount_cents=13, idempotency_key="k")
        with pytest.raises(RecordedFailure, match="out of luck"):
            session.call(world.refund, order_id="o-1", amount_cents=13, idempotency_key="k")
    assert len(world.ran) == 1


def test_a_repeat_while_the_first_is_under_way_may_ask_again_later(world: World) -> None:
    runtime = world.runtime
    with world.session() as session:
        inner: list[BaseException] = []

        def tool(order_id: str, amount_cents: int, note: str | None = None) -> str:
            try:
                session.call("refund", order_id=order_id, amount_cents=amount_cents, idempotency_key="k")
            except InProgress as exc:
                inner.append(exc)
            return "done"

        object.__setattr__(runtime.tools["refund"], "fn", tool)
        assert session.call("refund", order_id="o", amount_cents=1, idempotency_key="k") == "done"
    assert len(inner) == 1


def test_a_large_result_comes_back_whole(world: World) -> None:
    big = "x" * 100_000
    object.__setattr__(world.runtime.tools["refund"], "fn", lambda **_: big)
    with world.session() as session:
        for _ in range(2):
            assert session.call("refund", order_id="o", amount_cents=1, idempotency_key="k") == big
    outcome = world.runtime.ledger.unfinished()
    assert outcome == []


async def test_async_tools_run_without_blocking_the_loop(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        with world.session() as session:
            calls = [group.create_task(session.acall(world.lookup)) for _ in range(2)]
            other = group.create_task(session.acall(world.refund, order_id="o", amount_cents=2))
    assert [await call for call in calls] == ["found", "found"]
    assert other.result() == {"refunded": 2}
    assert world.runtime.ledger.unfinished() == []


async def test_cancellation_is_recorded(world: World) -> None:
    started = asyncio.Event()

    async def forever() -> None:
        started.set()
        await asyncio.sleep(60)

    object.__setattr__(world.runtime.tools["lookup"], "fn", forever)
    with world.session() as session:
        task = asyncio.create_task(session.acall("lookup"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    outcome = world.runtime.ledger.outcome_of(session.last_decision["decision_id"])
    assert outcome is not None
    assert (outcome["status"], outcome["reason_code"]) == (
        "in_doubt",
        "cancelled",
    )  # it may have had its effect


async def test_a_sync_call_of_an_async_tool_in_a_loop_says_what_to_do(world: World) -> None:
    with world.session() as session, pytest.raises(GovernanceError, match=r"await session\.acall"):
        session.call(world.lookup)
    assert world.runtime.ledger.head()[0] == 0


def test_the_decorated_function_is_governed(world: World) -> None:
    with world.session():
        assert world.refund("o-1", 5) == {"refunded": 5}
        with pytest.raises(Blocked):
            world.refund("o-1", 50_000)
    with pytest.raises(GovernanceError, match=r"inside `with runtime\.session"):
        world.refund("o-1", 5)
    assert len(world.ran) == 1
    assert not hasattr(world.refund, "__wrapped__")


def test_declarations_that_cannot_work_are_refused(world: World) -> None:
    rt = world.runtime
    with pytest.raises(
        RegistrationError, match="only in the tool: extra; only in the schema: amount_cents, note"
    ):
        del rt.tools["refund"]
        rt.tool(lambda order_id, extra: None, name="refund", resource="Order::{order_id}")
    with pytest.raises(RegistrationError, match="uses `missing`; its parameters are order_id"):
        rt.tool(lambda order_id: None, name="t", resource="Order::{missing}")
    with pytest.raises(RegistrationError, match="must be `Type::id`"):
        rt.tool(lambda: None, name="t", resource="Order")
    with pytest.raises(RegistrationError, match="reserved"):
        rt.tool(lambda idempotency_key: None, name="t")
    with pytest.raises(RegistrationError, match="no tool 'nope' is registered here; registered are"):
        rt.find_tool("nope")


def test_an_undeclared_tool_is_blocked(world: World) -> None:
    world.runtime.tool(lambda: "ran", name="shell")
    with world.session() as session, pytest.raises(Blocked, match="declares no action 'shell'"):
        session.call("shell")


def test_two_runtimes_share_one_ledger(world: World, bundle: Path, tmp_path: Path) -> None:
    other = World(bundle, tmp_path / "lake")
    with world.session() as one, other.session() as two:
        one.call(world.refund, order_id="o", amount_cents=1, idempotency_key="k")
        two.call(other.refund, order_id="o", amount_cents=1, idempotency_key="k")
        assert two.last_decision["kind"] == "duplicate"
        assert two.last_decision["step"] == 1
    assert other.ran == []
    other.runtime.ledger.close()


def test_a_label_is_durable(world: World) -> None:
    with world.session() as session:
        session.call(world.refund, order_id="o", amount_cents=1)
        ident = session.last_decision["decision_id"]
        world.runtime.label("chargeback", "true", session=session, decision_id=ident, source="bank")
    assert world.runtime.ledger.head()[0] == 3


def test_an_outcome_is_recorded_whatever_the_tool_says(world: World) -> None:
    def tool(**_: Any) -> None:
        raise RuntimeError("broken \ud800 text")

    object.__setattr__(world.runtime.tools["refund"], "fn", tool)
    with world.session() as session, pytest.raises(RuntimeError):
        session.call("refund", order_id="o", amount_cents=1)
    outcome = world.runtime.ledger.outcome_of(session.last_decision["decision_id"])
    assert outcome is not None
    assert outcome["error_message"] == "broken \\ud800 text"


@pytest.mark.parametrize(
    "identity",
    [{"tenant": "\ud800"}, {"tenant": "x" * 300}, {"session_id": "\ud800"}, {"scopes": ["\ud800"]}],
)
def test_an_identity_that_cannot_be_recorded_is_refused_when_the_session_opens(
    world: World, identity: Any
) -> None:
    with pytest.raises(RegistrationError, match="cannot be opened under this identity"):
        world.session(**identity)


@pytest.mark.parametrize("key", ["", 5, "\ud800"])
def test_a_key_that_is_no_key_is_refused(world: World, key: Any) -> None:
    with world.session() as session, pytest.raises(IdempotencyConflict, match="idempotency key"):
        session.call(world.refund, order_id="o", amount_cents=1, idempotency_key=key)
    assert world.ran == []
