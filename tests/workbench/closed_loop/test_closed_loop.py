"""State simulated again: small histories with what each call must come to, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime import meters
from workbench.closed_loop import simulate, tracks
from workbench.closed_loop.state import STATE_UNKNOWN

CALLS_PER_SESSION = '[[budget]]\nname = "few"\nmax = {}\n'
NEVER_13 = (
    '@id("never") forbid(principal, action == Action::"pay", resource) '
    "when { context.args has cents && context.args.cents == 13 };\n"
)
ASK_90 = NEVER_13.replace("never", "ask").replace("forbid", '@verdict("approve") forbid').replace("13", "90")
EVEN = '@id("second") forbid(principal, action, resource) when { context.session.calls == 1 };\n'


def verdicts(replay: Any) -> list[str | None]:
    return [*replay.rows["verdict"]]


def pay(loops: Any, cents: int, **more: Any) -> Any:
    return loops.Call(tool="pay", args=(("order", "o"), ("cents", cents)), **more)


def test_a_call_that_no_longer_runs_leaves_its_place_in_the_budget_to_a_later_one(
    loops: Any, tmp_path: Path
) -> None:
    calls = [pay(loops, cents) for cents in (13, 40, 40, 40)]
    lake = loops.record(tmp_path, loops.bundle(), calls)
    candidate = loops.bundle(NEVER_13, CALLS_PER_SESSION.format(2))
    as_recorded = lake.replay(candidate, limits=candidate)
    closed = simulate(lake, candidate, limits=candidate)
    assert verdicts(as_recorded) == ["block", "allow", "block", "block"]  # two had run by the third
    assert verdicts(closed) == ["block", "allow", "allow", "block"]
    assert closed.rows["effect"].to_list() == ["prevented", "same", "same", "prevented"]
    assert closed.rows["reason"][3] == "budget 'few' allows 2 calls per session, 2 ran"
    assert (closed.state.assumed, closed.state.unsure, closed.state.limited) == (0, 0, 1)


def test_policies_see_the_counters_that_their_own_verdicts_leave(loops: Any, tmp_path: Path) -> None:
    lake = loops.record(tmp_path, loops.bundle(), [loops.Call() for _ in range(4)])
    candidate = loops.bundle(EVEN)
    # One runs; from then on one has run, whatever the record says of two and three.
    assert verdicts(lake.replay(candidate)) == ["allow", "block", "allow", "allow"]
    closed = simulate(lake, candidate)
    assert verdicts(closed) == ["allow", "block", "block", "block"]
    assert closed.state.passes > 1


@pytest.mark.parametrize(
    ("approvals", "expected"),
    [
        ("recorded", ["approve", "allow", "allow", "block"]),
        ("granted", ["approve", "allow", "block", "block"]),
        ("denied", ["approve", "allow", "allow", "block"]),
    ],
)
def test_approvals_are_assumed_as_it_is_said(
    loops: Any, tmp_path: Path, approvals: Any, expected: list[str]
) -> None:
    lake = loops.record(tmp_path, loops.bundle(), [pay(loops, cents) for cents in (90, 40, 40, 40)])
    candidate = loops.bundle(ASK_90, CALLS_PER_SESSION.format(2))
    closed = simulate(lake, candidate, limits=candidate, approvals=approvals)
    assert verdicts(closed) == expected
    assert closed.pins["approvals"] == approvals


def test_a_call_that_was_resumed_runs_once_if_it_need_not_ask(loops: Any, tmp_path: Path) -> None:
    calls = [pay(loops, 90, answer="granted"), pay(loops, 40), pay(loops, 40)]
    lake = loops.record(tmp_path, loops.bundle(ASK_90), calls)
    candidate = loops.bundle("", CALLS_PER_SESSION.format(2))
    closed = simulate(lake, candidate, limits=candidate)
    # Rows: the one that asked, its resumption, and two more; the first runs at once, so two have run by the last.
    assert verdicts(closed) == ["allow", "allow", "allow", "block"]
    denied = simulate(lake, approvals="denied")
    assert verdicts(denied) == ["approve", "block", "allow", "allow"]
    assert denied.rows["reason_code"][1] == "grant_denied"


def test_what_a_released_call_would_have_cost_is_not_known(loops: Any, tmp_path: Path) -> None:
    calls = [pay(loops, 13), loops.Call(cost=1), loops.Call(cost=1, session=1)]
    lake = loops.record(tmp_path, loops.bundle(NEVER_13), calls)
    candidate = loops.bundle("", '[[budget]]\nname = "cost"\nmeasure = "cost_micros"\nmax = 100\n')
    closed = simulate(lake, candidate, limits=candidate)
    assert verdicts(closed) == ["allow", None, "allow"]
    assert closed.rows["cause"].to_list() == [None, STATE_UNKNOWN, None]
    assert closed.rows["missing"][1].to_list() == ["limits.cost_micros per session"]
    assert (closed.state.assumed, closed.state.unsure) == (1, 1)


def test_an_idempotent_repeat_runs_if_its_first_call_does_not(loops: Any, tmp_path: Path) -> None:
    twice = [loops.Call(key="k"), loops.Call(key="k")]
    lake = loops.record(tmp_path, loops.bundle(), [*twice, loops.Call()])
    candidate = loops.bundle(
        '@id("first") forbid(principal, action, resource) when { context.now < datetime("2026-11-23T00:00:02Z") };\n',
        CALLS_PER_SESSION.format(1),
    )
    closed = simulate(lake, candidate, limits=candidate)
    assert lake.decisions.collect()["kind"].to_list() == ["call", "duplicate", "call"]
    assert verdicts(closed) == ["block", "allow", "block"]
    assert closed.rows["effect"].to_list() == ["prevented", "released", "prevented"]


def test_self_replay_over_simulated_state_changes_nothing(loops: Any, tmp_path: Path) -> None:
    live = loops.bundle(
        EVEN + ASK_90, CALLS_PER_SESSION.format(3) + '[[breaker]]\nname = "b"\nmin_calls = 1\n'
    )
    calls = [pay(loops, 90, answer="granted"), *(pay(loops, 40, fails=n % 2 == 0) for n in range(5))]
    lake = loops.record(tmp_path, live, calls)
    itself, closed = lake.replay(recompile=False), simulate(lake)
    assert closed.digest() == itself.digest()
    assert set(closed.rows["effect"]) == {"same"}


def test_what_is_asked_for_must_be_known(loops: Any, tmp_path: Path) -> None:
    lake = loops.record(tmp_path, loops.bundle(), [loops.Call()])
    with pytest.raises(ValueError, match="recorded, granted, denied"):
        simulate(lake, approvals="maybe")  # type: ignore[arg-type]


def test_counters_stop_where_the_runtimes_stop() -> None:
    assert tracks.MOST == meters.MOST
