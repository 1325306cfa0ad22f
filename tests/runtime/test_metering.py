"""Limits held live: real bundle, real ledger, real tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime import ApprovalRequired, Blocked, EntityUid
from runtime.authenticators import ANY, Approver
from runtime.record import request_of
from runtime.usage import report_usage

V2 = "version = 2\n"


def budget(**keys: Any) -> str:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in ({"name": "b"} | keys).items())
    return f"{V2}[[budget]]\n{lines}"


def others(metered: Any) -> Any:
    """Sessions that share none, some, or all of whom a call is counted for."""
    return {
        "another session": metered.session(session_id="s2"),
        "another agent": metered.session(session_id="s3", principal="Agent::other"),
        "another user": metered.session(session_id="s4", on_behalf_of="User::eve"),
        "another tenant": metered.session(session_id="s", tenant="zeta"),
    }


@pytest.mark.parametrize(
    ("per", "shared"),
    [
        ("session", set()),
        ("principal", {"another session", "another user"}),
        ("on_behalf_of", {"another session", "another agent"}),
        ("tenant", {"another session", "another agent", "another user"}),
        ("tool", {"another session", "another agent", "another user"}),
    ],
)
def test_whose_calls_are_counted_together_and_never_two_tenants(
    metered: Any, per: str, shared: set[str]
) -> None:
    world = metered(budget(per=per, max=2))
    mine = world.session(session_id="s1", on_behalf_of="User::ana")
    assert [world.ask("pay", mine) for _ in range(3)] == ["permitted", "permitted", "budget_spent"]
    named = others(world)
    for name in ("another session", "another agent"):
        was = named[name].identity
        named[name] = world.session(
            session_id=was.session_id, principal=was.principal, on_behalf_of="User::ana", tenant=was.tenant
        )
    assert {name for name, session in named.items() if world.ask("pay", session) != "permitted"} == shared
    assert world.ask("look", mine) == ("permitted" if per == "tool" else "budget_spent")


def test_a_budget_counts_and_refuses_the_calls_of_its_actions(metered: Any) -> None:
    world = metered(budget(max=1, actions=["pay"]))
    asked = [world.ask(tool) for tool in ("look", "look", "pay", "pay", "look")]
    assert asked == ["permitted", "permitted", "permitted", "budget_spent", "permitted"]


def test_money_in_arguments_is_that_of_the_enforced_ones(metered: Any) -> None:
    world = metered(budget(max=1000, measure="args.cents", per="tenant"))
    session = world.session()
    assert world.ask("pay", session, cents=900) == "modified"  # cut down to 500
    assert world.ask("pay", session, cents=13) == "forbidden"  # takes nothing
    assert world.ask("pay", session) == "permitted"  # no amount counts 0
    assert world.ask("pay", session, cents=501) == "budget_spent"
    assert "500 used, and this call asks for 501" in session.last_decision["reason"]
    assert world.ask("pay", session, cents=500) == "permitted"
    assert world.ask("pay", session, cents=1) == "budget_spent"
    assert world.ask("pay", session, cents=-1) == "amount_invalid"
    assert world.ask("look", session) == "permitted"


def test_money_in_a_declared_scaled_integer(metered: Any) -> None:
    world = metered(budget(max=1000, measure="args.price_cents", per="tool", actions=["pay"]))
    assert world.ask("pay", price="9.99") == "permitted"
    assert world.ask("pay", price=0.02) == "budget_spent"
    assert world.ask("pay", price="0.01") == "permitted"


def test_a_rate_slides(metered: Any) -> None:
    world = metered(budget(max=2, window="60s", per="tenant"))
    assert world.ask() == "permitted"
    world.clock.pass_by(seconds=30)
    assert [world.ask(), world.ask()] == ["permitted", "rate_exceeded"]
    world.clock.pass_by(seconds=31.5)
    assert [world.ask(), world.ask()] == ["permitted", "rate_exceeded"]


def test_a_clock_that_was_ahead_costs_a_rate_one_window(metered: Any) -> None:
    world = metered(budget(max=2, window="60s", per="tenant"))
    world.clock.pass_by(days=1)
    assert [world.ask(), world.ask()] == ["permitted"] * 2
    world.clock.pass_by(days=-1)
    assert world.ask() == "rate_exceeded"
    world.clock.pass_by(seconds=62)
    assert world.ask() == "permitted"


@pytest.mark.parametrize(
    ("measure", "usage"),
    [("cost_micros", {"cost_micros": 60}), ("tokens", {"input_tokens": 20, "output_tokens": 40})],
)
@pytest.mark.parametrize("per", ["session", "tenant"])
@pytest.mark.parametrize("window", [{}, {"window": "1h"}])
def test_what_calls_cost_is_charged_when_they_end(
    metered: Any, measure: str, usage: Any, per: str, window: Any
) -> None:
    world = metered(budget(max=100, measure=measure, per=per, **window))
    world.body = lambda: report_usage(**usage)
    codes = [world.ask() for _ in range(3)]
    assert codes == ["permitted", "permitted", "rate_exceeded" if window else "budget_spent"]
    assert world.ran == 2


def test_wall_time_is_charged(metered: Any) -> None:
    world = metered(budget(max=1500, measure="wall_ms", per="principal"))
    world.body = lambda: world.clock.pass_by(seconds=1)
    assert [world.ask() for _ in range(3)] == ["permitted", "permitted", "budget_spent"]


def test_policies_see_what_the_session_has_used(metered: Any) -> None:
    policies = """
@id("permit") permit(principal, action, resource);
@id("dear") forbid(principal, action, resource) when { context.session has cost_micros && context.session.cost_micros >= 7 };
@id("frail") forbid(principal, action, resource) when { context.session has failures && context.session.failures >= 1 };
@id("again") forbid(principal, action, resource) when { context.session has repeats && context.session.repeats >= 2 };
"""
    world = metered(policies=policies)
    session = world.session()

    def fail() -> None:
        report_usage(cost_micros=7, input_tokens=3, output_tokens=4)
        world.clock.pass_by(milliseconds=5.2)
        raise RuntimeError

    assert [world.ask("look", session, n=n) for n in (1, 1, 1, 2)] == [
        "permitted",
        "permitted",
        "forbidden",
        "permitted",
    ]
    assert session.last_decision["session_state"] == (
        '{"calls":2,"cost_micros":0,"failures":0,"input_tokens":0,"output_tokens":0,"repeats":0,"wall_ms":0}'
    )
    world.body = fail
    assert [world.ask("pay", session), world.ask("look", session)] == ["permitted", "forbidden"]
    assert session.last_decision["determining"] == ["dear", "frail"]
    assert json.loads(session.last_decision["session_state"]) == {
        "calls": 4, "cost_micros": 7, "failures": 1, "input_tokens": 3, "output_tokens": 4, "repeats": 0, "wall_ms": 6,
    }  # fmt: skip


def test_the_same_call_again_and_again_is_stopped_whatever_its_verdict(metered: Any) -> None:
    world = metered(V2 + '[[loop]]\nname = "l"\nmax_repeats = 2')
    session = world.session()
    assert [world.ask("look", session) for _ in range(5)] == ["permitted"] * 3 + ["loop_detected"] * 2
    assert world.ask("look", session, n=1) == "permitted"
    blocked = [world.ask("pay", session, cents=13) for _ in range(4)]
    assert blocked == ["forbidden"] * 3 + ["loop_detected"]
    assert world.ask("look", world.session(session_id="other")) == "permitted"


def test_a_cycle_of_calls_is_stopped(metered: Any) -> None:
    world = metered(V2 + '[[loop]]\nname = "l"\nmax_repeats = 1\nmax_period = 2')
    session = world.session()
    asked = [world.ask("look", session, n=n) for n in (1, 2, 1, 2, 1, 2)]
    assert asked == ["permitted"] * 5 + ["loop_detected"]
    assert "a cycle of 2 calls" in session.last_decision["reason"]


def test_a_loop_looks_at_attempts_of_its_actions_alone(metered: Any) -> None:
    world = metered(V2 + '[[loop]]\nname = "l"\nmax_repeats = 1\nactions = ["pay"]')
    session = world.session()
    asked = [world.ask(tool, session) for tool in ("pay", "look", "pay", "look", "pay", "look")]
    assert asked == ["permitted"] * 4 + ["loop_detected", "permitted"]


def test_a_breaker_opens_probes_and_closes(metered: Any) -> None:
    world = metered(V2 + '[[breaker]]\nname = "k"\nlast = 4\nmin_calls = 2\nopen_for = "60s"')
    session = world.session()

    def fail() -> None:
        raise RuntimeError

    world.body = fail
    assert [world.ask("pay", session) for _ in range(3)] == ["permitted", "permitted", "breaker_open"]
    assert (
        "is open until 2026-11-23T00:01:00.000Z: 2 of the last 2 calls failed"
        in session.last_decision["reason"]
    )
    assert world.ask("look", session) == "permitted"  # another tool
    assert world.ask("pay", world.session(tenant="zeta")) == "permitted"  # another tenant
    world.clock.pass_by(seconds=60)
    assert [world.ask("pay", session) for _ in range(2)] == ["permitted", "breaker_open"]  # the probe failed
    world.clock.pass_by(seconds=60)
    world.body = lambda: world.ask("pay", world.session(session_id="in"))
    assert world.ask("pay", session) == "permitted"
    assert world.inputs(session)["breakers"]["breaker per tool: more than 500000 ppm of 4, at least 2; "
                                             "open 1m; 1 probes of 1m"]["state"] == "half_open"  # fmt: skip
    world.body = lambda: None
    assert [world.ask("pay", session) for _ in range(2)] == ["permitted"] * 2


def test_while_a_probe_is_under_way_others_wait(metered: Any) -> None:
    world = metered(
        V2 + '[[breaker]]\nname = "k"\nlast = 4\nmin_calls = 1\nmax_error_rate = 0\nopen_for = "60s"'
    )
    world.body = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        world.session().call("pay", order="o")
    world.clock.pass_by(seconds=60)
    inner: list[str] = []
    world.body = lambda: inner.append(world.ask("pay", world.session(session_id="in")))
    assert world.ask("pay") == "permitted"
    assert inner == ["breaker_open"]


def test_a_breaker_sees_that_a_staged_tool_does_not_work(metered: Any) -> None:
    """Its prepare raises: nothing takes effect, and nothing works."""
    staged = {"effect": "staged", "commit": lambda handle: handle, "abort": lambda handle: None}
    world = metered(
        V2 + '[[breaker]]\nname = "k"\nlast = 4\nmin_calls = 2\nmax_error_rate = 0\nopen_for = "60s"',
        **staged,
    )
    world.body = lambda: 1 // 0
    session = world.session()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            session.call("pay", order="o")
    assert world.ask("pay", session) == "breaker_open"
    assert json.loads(session.last_decision["session_state"])["failures"] == 2


def test_where_nothing_took_effect_it_is_given_back(metered: Any) -> None:
    money = '[[budget]]\nname = "m"\nper = "tenant"\nmeasure = "args.cents"\nmax = 9\nwindow = "1h"'
    staged = {"effect": "staged", "commit": lambda handle: handle, "abort": lambda handle: None}
    world = metered(budget(max=4, per="tenant") + money, **staged)  # a call that was begun was made
    session = world.session()

    def nothing() -> None:
        raise RuntimeError("before anything was committed")

    world.body = nothing
    for _ in range(3):
        with pytest.raises(RuntimeError):
            session.call("pay", order="o", cents=9)
        assert world.outcome(session)["status"] == "aborted"
    assert world.runtime.ledger.query("SELECT count(*) FROM metered") == [(0,)]
    world.body = lambda: None
    assert [world.ask("pay", session, cents=9) for _ in range(2)] == ["permitted", "budget_spent"]


def test_counters_are_there_after_the_ledger_is_opened_again(metered: Any) -> None:
    text = budget(max=3, per="tenant") + '[[loop]]\nname = "l"\nmax_repeats = 9'
    world = metered(text)
    world.ask("pay")
    world.ask("pay")
    world.runtime.ledger.close()
    again = metered(text, clock=world.clock)
    session = again.session()
    assert [again.ask("pay", session) for _ in range(2)] == ["permitted", "budget_spent"]
    assert again.inputs(session)["repeats"] == 3


def test_the_request_with_its_inputs_reads_back_from_its_row(metered: Any) -> None:
    text = budget(max=3, per="tenant") + '[[loop]]\nname = "l"\nmax_repeats = 9\n[[breaker]]\nname = "k"\n'
    world = metered(text)
    session = world.session()
    for _ in range(4):
        world.ask("pay", session)
    limits = world.runtime.bundle.limits
    request = request_of(session.last_decision)
    assert request.limits["meters"] == {"calls per tenant": 3}
    assert request.limits["cycles"] == {"*": [3, 2, 1]}
    found = limits.judge(request, {"order": "o"})
    assert found.missing == ()
    assert found.refusal is not None
    assert (found.refusal.code, found.refusal.message) == ("budget_spent", session.last_decision["reason"])


def test_an_idempotent_repeat_takes_nothing_and_is_an_attempt(metered: Any) -> None:
    world = metered(budget(max=2, per="tenant"))
    session = world.session()
    for _ in range(4):
        session.call("pay", order="o", idempotency_key="k")
    assert world.inputs(session)["meters"] == {"calls per tenant": 1}
    assert world.inputs(session)["repeats"] == 3
    assert world.ask("pay", session) == "permitted"


def test_rows_that_say_nothing_any_more_are_deleted(metered: Any) -> None:
    world = metered(budget(max=9, per="session", window="60s") + '[[breaker]]\nname = "k"\nper = "session"')
    for number in range(30):
        world.ask("pay", world.session(session_id=f"s{number}"))
    count = "SELECT (SELECT count(*) FROM meters), (SELECT count(*) FROM circuits)"
    assert world.runtime.ledger.query(count) == [(30, 30)]
    world.clock.pass_by(days=8)
    for number in range(10):
        world.ask("pay", world.session(session_id=f"later{number}"))
    assert world.runtime.ledger.query(count) == [(10, 10)]


def test_without_limits_nothing_is_counted_but_the_session(metered: Any) -> None:
    world = metered()
    session = world.session()
    world.ask("pay", session)
    assert world.inputs(session) == {
        "cycles": {"*": []},
        **json.loads(session.last_decision["session_state"]),
    }
    tables = ("meters", "circuits", "metered")
    assert [world.runtime.ledger.query(f"SELECT count(*) FROM {table}")[0][0] for table in tables] == [
        0,
        0,
        0,
    ]


def test_a_call_that_is_blocked_is_blocked_before_it_runs(metered: Any) -> None:
    world = metered(budget(max=0))
    with pytest.raises(Blocked, match="allows 0 calls"):
        world.session().call("pay", order="o")
    assert world.ran == 0


class Anybody:
    """Believes everybody to be Kim of finance."""

    takes: type = str

    def authenticate(self, credential: Any, for_: Any) -> Approver:
        return Approver(
            uid=EntityUid("User", "kim"),
            roles=frozenset({EntityUid("Role", "finance")}),
            tenants=frozenset({ANY}),
            method="anybody",
            credential_id=for_.approval_id,
        )


def test_what_waits_for_a_person_is_charged_when_it_runs_and_attempted_once(metered: Any) -> None:
    asks = """
@id("permit") permit(principal, action, resource);
@id("ask") @verdict("approve") @approvers("Role::\\"finance\\"") forbid(principal, action == Action::"pay", resource);
"""
    limits = budget(max=100, per="tenant", measure="args.cents") + '[[loop]]\nname = "l"\nmax_repeats = 0'
    world = metered(limits, policies=asks, authenticators=[Anybody()])
    session = world.session()
    with pytest.raises(ApprovalRequired) as asked:
        session.call("pay", order="o", cents=60)
    taken = "SELECT coalesce(sum(used), 0) FROM meters"
    assert world.runtime.ledger.query(taken) == [(0,)]
    ident = asked.value.approval_id
    world.runtime.approvals.grant(ident, "kim")
    session.resume(ident)
    assert (world.ran, world.runtime.ledger.query(taken)) == (1, [(60,)])
    assert world.inputs(session)["cycles"] == {"*": []}
    with pytest.raises(Blocked, match="allows 0 repeats"):
        session.call("pay", order="o", cents=60)
    with pytest.raises(Blocked, match="60 used, and this call asks for 41"):
        session.call("pay", order="o", cents=41)
