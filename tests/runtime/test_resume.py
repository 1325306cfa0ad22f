"""A call that waited for people runs again: once, as it was approved, here or in another process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime import (
    ApprovalClosed,
    ApprovalRequired,
    ApprovalUnknown,
    Blocked,
    CommitConflict,
    GovernanceError,
    RegistrationError,
    Runtime,
)
from runtime.bundle import bundle_from_files
from runtime.record import grants_of, request_of
from runtime.resuming import pauses


def granted(desk: Any, ident: str) -> Any:
    return desk.approvals.grant(ident, desk.token(ident, "User::fin", "Role::finance", "Role::board"))


def last(desk: Any, session: Any) -> dict[str, Any]:
    row = desk.runtime.ledger.decision(session.last_decision["decision_id"])
    assert row is not None
    found: dict[str, Any] = row
    return found


def test_what_was_approved_runs_once(desk: Any) -> None:
    ident = desk.ask(5000)
    approval = granted(desk, ident)
    desk.clock.pass_by(minutes=5)
    session = desk.session()
    assert session.resume(ident) == 5000
    row = last(desk, session)
    assert (row["kind"], row["linked_to"], row["verdict"]) == ("resumed", ident, "allow")
    assert row["grants"] == sorted(need.grant.id for need in approval.needs)
    assert row["action_hash"] == approval.action_hash
    told = json.loads(row["approval"])
    assert told["lifted"] == ["huge", "large"]
    assert told["approval"] == {"approvers": ['User::"fin"'], "granted_at": "2026-11-23T00:00:00.000Z"}
    outcome = desk.runtime.ledger.outcome_of(row["decision_id"])
    assert outcome is not None
    assert outcome["status"] == "succeeded"
    assert desk.approvals.get(ident).state == "consumed"
    with pytest.raises(Blocked) as again:
        session.resume(ident)
    assert (again.value.decision.decided_by, again.value.decision.reason_code) == (
        "approval",
        "grant_consumed",
    )
    assert (last(desk, session)["kind"], last(desk, session)["grants"]) == ("resumed", None)
    assert desk.paid == [5000]


def test_the_original_request_runs_in_its_own_session(desk: Any) -> None:
    with desk.session(session_id="first") as first, pytest.raises(ApprovalRequired) as asked:
        first.call("pay", order_id="o", cents=500, idempotency_key="k")
    granted(desk, asked.value.approval_id)
    second = desk.session()
    second.resume(asked.value.approval_id)
    row = last(desk, second)
    before, now = first.last_decision, row
    assert (now["session_id"], now["step"], now["idempotency_key"]) == ("first", before["step"] + 1, "k")
    assert now["args"] == before["args"]
    assert first.counters().calls == 1
    assert second.counters().calls == 0
    assert first.call("pay", order_id="o", cents=1) == 1  # and goes on there


def test_policies_see_who_approved(desk: Any, tmp_path: Path, make_desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    seen: list[Any] = []
    decide = desk.runtime.decide

    def spy(*args: Any) -> Any:
        seen.append(decide(*args))
        return seen[-1]

    desk.runtime.decide = spy
    desk.session().resume(ident)
    (decision,) = seen
    assert decision.first.case.context["approval"] == {
        "approvers": ['User::"fin"'],
        "granted_at": {"__extn": {"fn": "datetime", "arg": "2026-11-23T00:00:00.000Z"}},
    }


def test_before_it_is_granted_nothing_is_decided_again(desk: Any) -> None:
    ident = desk.ask(5000)
    desk.approvals.grant(ident, desk.token(ident))
    session, head = desk.session(), desk.runtime.ledger.head()
    with pytest.raises(ApprovalRequired, match="`huge` asks Role") as asked:
        session.resume(ident)
    assert asked.value.approval_id == ident
    assert asked.value.decision.determining == ("huge", "large")
    assert asked.value.decision.enforced_args == {"order_id": "o", "cents": 5000, "note": None}
    assert desk.runtime.ledger.head() == head
    assert desk.paid == []


def test_a_denied_or_expired_approval_blocks(desk: Any) -> None:
    denied, expired = desk.ask(), desk.ask()
    desk.approvals.deny(denied, desk.token(denied, decision="denied"))
    granted(desk, expired)
    desk.clock.pass_by(hours=24)
    session = desk.session()
    for ident, code in ((denied, "grant_denied"), (expired, "grant_expired")):
        with pytest.raises(Blocked) as blocked:
            session.resume(ident)
        assert (blocked.value.decision.decided_by, blocked.value.decision.reason_code) == ("approval", code)
        row = last(desk, session)
        assert (row["kind"], row["linked_to"], row["verdict"], row["grants"]) == (
            "resumed",
            ident,
            "block",
            None,
        )
    assert desk.paid == []


def reopened(desk: Any, policies: str | None = None, **more: Any) -> Any:
    """The same ledger under another bundle, in a second runtime."""
    files = dict(desk.runtime.bundle.files)
    if policies is not None:
        files["p.cedar"] = policies
    runtime = Runtime.open(bundle_from_files(files, "b"), lake=desk.lake, **({"clock": desk.clock} | more))

    @runtime.tool(resource="Order::{order_id}")
    def pay(order_id: str, cents: int, note: str | None = None) -> int:
        desk.paid.append(cents)
        return cents

    return runtime


def as_bot(runtime: Runtime, **changes: Any) -> Any:
    return runtime.session(
        **({"principal": "Agent::bot", "tenant": "acme", "on_behalf_of": "User::ana"} | changes)
    )


def test_other_policies_make_a_grant_stale(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    runtime = reopened(desk, desk.runtime.bundle.files["p.cedar"] + "// changed\n")
    with pytest.raises(Blocked) as blocked:
        as_bot(runtime).resume(ident)
    assert blocked.value.decision.reason_code == "grant_stale"
    assert desk.approvals.get(ident).state == "granted"  # nothing used it
    assert desk.session().resume(ident) == 500  # under the policies it was granted under
    runtime.ledger.close()


def test_a_patch_that_comes_out_otherwise_makes_a_grant_stale(tmp_path: Path, make_desk: Any) -> None:
    """The facts have moved since: what would run is not what was approved."""
    schema = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  order?: { cap: Long }, args: { order_id: String, cents: Long } } };
"""
    policies = """
@id("permit") permit(principal, action, resource);
@id("cap") @verdict("modify") @patch("{\\"cents\\": {\\"$ref\\": \\"context.order.cap\\"}}")
forbid(principal, action, resource) when { context has order && context.args.cents > context.order.cap };
@id("large") @verdict("approve") forbid(principal, action, resource) when { context.args.cents > 100 };
"""
    spec = """
[sources.orders]
kind = "callable"
[[facts]]
name = "order"
actions = ["pay"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["cap"]
shared = true
"""
    cap = [300]
    bundle = bundle_from_files({"p.cedar": policies, "schema.cedarschema": schema, "context.toml": spec}, "b")
    desk = make_desk(tmp_path / "one")
    runtime = Runtime.open(
        bundle, lake=tmp_path / "two", clock=desk.clock, authenticators=desk.approvals._authenticators,
        sources={"orders": lambda _: {"cap": cap[0]}},
    )  # fmt: skip
    paid = []

    @runtime.tool(resource="Order::{order_id}")
    def pay(order_id: str, cents: int) -> None:
        paid.append(cents)

    desk.approvals = runtime.approvals
    session = runtime.session(principal="Agent::bot", tenant="acme")
    with pytest.raises(ApprovalRequired) as asked:
        session.call(pay, order_id="o", cents=900)
    ident = asked.value.approval_id
    assert json.loads(runtime.approvals.get(ident).args)["cents"] == 300
    granted(desk, ident)
    cap[0] = 200
    with pytest.raises(Blocked) as blocked:
        session.resume(ident)
    assert blocked.value.decision.reason_code == "grant_stale"
    assert paid == []
    cap[0] = 300
    session.resume(ident)
    assert paid == [300]
    assert session.last_decision is not None
    assert session.last_decision["verdict"] == "modify"
    desk.runtime.ledger.close()
    runtime.ledger.close()


def test_a_forbid_that_fires_only_now_asks_anew(desk: Any, tmp_path: Path) -> None:
    """The approval it then waits for rests on the first; both are used up together."""
    desk.runtime.ledger.close()
    more = (
        '@id("late") @verdict("approve") @approvers("Role::\\"board\\"") '
        'forbid(principal, action, resource) when { context.now > datetime("2026-11-23T01:00:00Z") };\n'
    )
    runtime = reopened(
        desk,
        desk.runtime.bundle.files["p.cedar"] + more,
        authenticators=desk.approvals._authenticators,
    )
    desk.runtime, desk.approvals = runtime, runtime.approvals
    first = desk.ask()
    granted(desk, first)
    desk.clock.pass_by(hours=2)
    session = desk.session()
    with pytest.raises(ApprovalRequired) as asked:
        session.resume(first)
    second = asked.value.approval_id
    assert second != first
    assert [need.policy for need in desk.approvals.get(second).needs] == ["late"]
    assert (last(desk, session)["kind"], last(desk, session)["linked_to"]) == ("resumed", first)
    assert last(desk, session)["grants"] is None
    with pytest.raises(ApprovalRequired):
        session.resume(second)
    granted(desk, second)
    assert session.resume(second) == 500
    row = last(desk, session)
    assert (row["linked_to"], len(row["grants"])) == (second, 2)
    assert json.loads(row["approval"])["lifted"] == ["large", "late"]
    assert [desk.approvals.get(ident).state for ident in (first, second)] == ["consumed", "consumed"]
    with pytest.raises(Blocked):
        session.resume(first)
    assert desk.paid == [500]
    runtime.ledger.close()


def test_what_rests_on_a_revoked_grant_does_not_run(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    decide = desk.runtime.decide

    def revoking(*args: Any) -> Any:
        """Denied by another process, after the grants were read and before the decision is durable."""
        desk.runtime.decide = decide
        decision = decide(*args)
        desk.approvals.deny(ident, desk.token(ident, decision="denied"))
        return decision

    desk.runtime.decide = revoking
    with pytest.raises(Blocked) as blocked:
        desk.session().resume(ident)
    assert blocked.value.decision.reason_code == "grant_denied"
    assert desk.paid == []


def test_time_that_runs_out_while_it_is_decided(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    decide = desk.runtime.decide

    def slow(*args: Any) -> Any:
        desk.runtime.decide = decide
        decision = decide(*args)
        desk.clock.pass_by(hours=24)
        return decision

    desk.runtime.decide = slow
    with pytest.raises(Blocked) as blocked:
        desk.session().resume(ident)
    assert blocked.value.decision.reason_code == "grant_expired"
    assert desk.paid == []


OTHERS = {
    "another tenant": {"tenant": "evil"},
    "another principal": {"principal": "Agent::mallory"},
    "for another user": {"on_behalf_of": "User::eve"},
    "for nobody": {"on_behalf_of": None},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_nobody_else_resumes(desk: Any, changes: dict[str, Any]) -> None:
    ident = desk.ask()
    granted(desk, ident)
    session, head = desk.session(**changes), desk.runtime.ledger.head()
    for act in (session.resume, session.wait):
        with pytest.raises(ApprovalUnknown):
            act(ident)
    assert desk.runtime.ledger.head() == head
    assert desk.session().resume(ident) == 500


def test_scopes_only_narrow(tmp_path: Path, make_desk: Any) -> None:
    desk = make_desk(tmp_path / "lake")

    @desk.runtime.tool(name="pay2", resource="Order::{order_id}", scopes=[])
    def pay2(order_id: str) -> None:
        return None

    with pytest.raises(ApprovalRequired) as asked:
        desk.session(scopes=["a", "b"]).call("pay", order_id="o", cents=500)
    ident = asked.value.approval_id
    granted(desk, ident)
    session = desk.session(scopes=["b", "c"])
    session.resume(ident)
    assert last(desk, session)["scopes"] == ["b"]
    desk.runtime.ledger.close()


def test_the_tool_must_be_registered(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    del desk.runtime.tools["pay"]
    with pytest.raises(RegistrationError, match="no tool 'pay'"):
        desk.session().resume(ident)
    assert desk.approvals.get(ident).state == "granted"


def test_an_idempotency_key_is_claimed_with_the_effect(desk: Any) -> None:
    """Two calls under one key ask twice; both are granted; one runs, the other returns what that one did."""
    asked = []
    session = desk.session()
    for _ in range(2):
        with pytest.raises(ApprovalRequired) as waits:
            session.call("pay", order_id="o", cents=500, idempotency_key="k")
        asked.append(waits.value.approval_id)
        granted(desk, asked[-1])
    assert [session.resume(ident) for ident in asked] == [500, 500]
    assert desk.paid == [500]
    row = last(desk, session)
    assert (row["kind"], row["verdict"]) == ("duplicate", "allow")
    assert [desk.approvals.get(ident).state for ident in asked] == ["consumed", "consumed"]


def test_a_repeat_may_need_approval_too(desk: Any) -> None:
    """The key's first call ran; to hear its result now needs approval."""
    session = desk.session()
    assert session.call("pay", order_id="o", cents=500 - 450, idempotency_key="k") == 50
    runtime = reopened(
        desk,
        desk.runtime.bundle.files["p.cedar"].replace("cents > 100", "cents > 10"),
        authenticators=desk.approvals._authenticators,
    )
    desk.approvals = runtime.approvals
    again = as_bot(runtime)
    with pytest.raises(ApprovalRequired) as asked:
        again.call("pay", order_id="o", cents=50, idempotency_key="k")
    granted(desk, asked.value.approval_id)
    assert again.resume(asked.value.approval_id) == 50
    assert desk.paid == [50]
    runtime.ledger.close()


def test_a_tool_that_fails_has_used_the_grants(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    desk.paid = None  # the tool raises
    session = desk.session()
    with pytest.raises(AttributeError):
        session.resume(ident)
    assert desk.approvals.get(ident).state == "consumed"
    outcome = desk.runtime.ledger.outcome_of(session.last_decision["decision_id"])
    assert outcome is not None
    assert outcome["status"] == "failed"


def test_nothing_is_used_up_where_the_decision_cannot_be_made_durable(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    commit = desk.runtime.ledger.commit

    def failing(**given: Any) -> Any:
        def fail(_: Any) -> None:
            raise CommitConflict("lost")

        return commit(**(given | {"moves": [*given.get("moves", ()), fail]}))

    desk.runtime.ledger.commit = failing
    with pytest.raises(CommitConflict):
        desk.session().resume(ident)
    desk.runtime.ledger.commit = commit
    assert desk.approvals.get(ident).state == "granted"
    assert desk.paid == []
    assert desk.session().resume(ident) == 500


def test_a_row_reads_back_as_what_was_judged(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    session = desk.session()
    session.resume(ident)
    row = last(desk, session)
    held = grants_of(row)
    assert held is not None
    assert (held.approval_id, held.lifted, held.refusal) == (ident, frozenset({"large"}), None)
    assert held.ids == tuple(row["grants"])
    request = request_of(row)
    assert desk.runtime.decide(request, desk.runtime.tools["pay"], None, held).verdict == "allow"
    assert desk.runtime.decide(request, desk.runtime.tools["pay"]).verdict == "approve"
    assert grants_of(desk.runtime.ledger.decision(ident)) is None


# -- waiting ---------------------------------------------------------------------------------------------------------


def answering(desk: Any, ident: str) -> Any:
    """A stand-in for time that passes: somebody answers during the first pause."""

    def answer(_: float) -> None:
        if desk.approvals.get(ident).state == "pending":
            granted(desk, ident)

    return answer


def test_waiting_ends_with_the_answer(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = desk.ask()
    with pytest.raises(ApprovalRequired):
        desk.session().wait(ident, 0)
    monkeypatch.setattr("runtime.session.time.sleep", answering(desk, ident))
    assert desk.session().wait(ident).state == "granted"
    assert desk.session().resume(ident, wait=5) == 500
    assert desk.session().wait(ident).state == "consumed"


def test_waiting_ends_when_it_expires(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = desk.ask()
    monkeypatch.setattr("runtime.session.time.sleep", lambda _: desk.clock.pass_by(hours=13))
    assert desk.session().wait(ident).state == "expired"


def test_waiting_does_not_block_the_loop(desk: Any) -> None:
    ident = desk.ask()

    async def agent() -> Any:
        return await desk.session().aresume(ident, wait=30)

    async def person() -> None:
        await asyncio.to_thread(granted, desk, ident)

    async def both() -> Any:
        waiting = asyncio.create_task(agent())
        await asyncio.sleep(0)
        await person()
        return await waiting

    assert asyncio.run(both()) == 500
    assert desk.paid == [500]


def test_async_waiting_is_bounded(desk: Any) -> None:
    ident = desk.ask()
    with pytest.raises(ApprovalRequired):
        asyncio.run(desk.session().await_approval(ident, 0.01))


def test_an_async_tool_is_not_resumed_inside_a_loop(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    tool = desk.runtime.tools["pay"]

    async def pay(order_id: str, cents: int, note: str | None = None) -> int:
        return cents

    desk.runtime.tools["pay"] = replace(tool, fn=pay)

    async def inside() -> None:
        with pytest.raises(GovernanceError, match="aresume"):
            desk.session().resume(ident)
        assert await desk.session().aresume(ident) == 500

    asyncio.run(inside())


def test_pauses_grow_and_end() -> None:
    found = list(pauses(0))
    assert found == [0]
    forever = pauses(None)
    first = [next(forever) for _ in range(20)]
    assert first == sorted(first)
    assert first[0] == pytest.approx(0.02)
    assert first[-1] == pytest.approx(1.0)
    assert all(pause >= 0 for pause in pauses(0.01))


# -- several at once -------------------------------------------------------------------------------------------------


def test_threads_that_resume_at_once_run_it_once(desk: Any) -> None:
    ident = desk.ask()
    granted(desk, ident)
    barrier, ended = threading.Barrier(8), list[str]()

    def resume() -> None:
        session = desk.session()
        barrier.wait()
        try:
            ended.append(str(session.resume(ident)))
        except Blocked as exc:
            ended.append(exc.decision.reason_code)

    threads = [threading.Thread(target=resume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["500", *["grant_consumed"] * 7]
    assert desk.paid == [500]


CHILD = """
import sys
from pathlib import Path
from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
import json
lake, marks, ident = sys.argv[1:]
runtime = Runtime.open(bundle_from_files(json.loads(sys.stdin.readline()), "b"), lake=lake)

@runtime.tool(resource="Order::{order_id}")
def pay(order_id: str, cents: int, note: str | None = None) -> int:
    with open(marks, "a") as file:
        file.write("paid\\n")
    return cents

session = runtime.session(principal="Agent::bot", tenant="acme", on_behalf_of="User::ana")
print("ready", flush=True)
sys.stdin.readline()
try:
    print(session.resume(ident, wait=30), flush=True)
except Blocked as exc:
    print(exc.decision.reason_code, flush=True)
runtime.ledger.close()
"""


def child(desk: Any, marks: Path, ident: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(desk.lake), str(marks), ident],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdin is not None
    started.stdin.write(json.dumps(dict(desk.runtime.bundle.files)) + "\n")
    started.stdin.flush()
    return started


def go(children: list[subprocess.Popen[str]]) -> list[str]:
    for each in children:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    return [each.communicate(timeout=60)[0].strip() for each in children]


def test_processes_that_resume_at_once_run_it_once(tmp_path: Path, make_desk: Any) -> None:
    """The one that asked is gone; three others come at the same time."""
    desk = make_desk(tmp_path / "lake", clock=None)
    desk.clock.now = desk.runtime.clock()
    ident = desk.ask()
    granted(desk, ident)
    desk.runtime.ledger.close()
    marks = tmp_path / "marks"
    said = go([child(desk, marks, ident) for _ in range(3)])
    assert sorted(said) == ["500", "grant_consumed", "grant_consumed"]
    assert marks.read_text() == "paid\n"
    after = make_desk(tmp_path / "lake", clock=None)
    after.clock.now = after.runtime.clock()
    rows = after.runtime.ledger.query("SELECT row FROM decisions ORDER BY position")
    kinds = [(row["kind"], row["verdict"]) for row in map(json.loads, (row for (row,) in rows))]
    assert sorted(kinds) == [
        ("call", "approve"), ("resumed", "allow"), ("resumed", "block"), ("resumed", "block"),
    ]  # fmt: skip
    with pytest.raises(ApprovalClosed):
        granted(after, ident)
    after.runtime.ledger.close()


def test_a_process_waits_for_an_answer_from_another(tmp_path: Path, make_desk: Any) -> None:
    desk = make_desk(tmp_path / "lake", clock=None)
    desk.clock.now = desk.runtime.clock()
    ident = desk.ask()
    waiting = child(desk, tmp_path / "marks", ident)
    assert waiting.stdout is not None
    assert waiting.stdin is not None
    assert waiting.stdout.readline() == "ready\n"
    waiting.stdin.write("go\n")
    waiting.stdin.flush()
    desk.clock.now = desk.runtime.clock() + timedelta(seconds=1)
    granted(desk, ident)
    assert waiting.communicate(timeout=60)[0].strip() == "500"
    desk.runtime.ledger.close()
