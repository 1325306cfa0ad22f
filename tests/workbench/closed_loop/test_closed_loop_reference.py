"""The closed loop against the runtime itself, driven one call after the other, over generated histories."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import redeciding
from workbench.closed_loop import again, simulate
from workbench.closed_loop.state import APPROVALS
from workbench.history.results import ENGINE as COLUMNAR

QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)

LIMITS = (
    '[[budget]]\nname = "s"\nmax = {}\n',
    '[[budget]]\nname = "t"\nper = "tenant"\nwindow = "20s"\nmax = {}\n',
    '[[budget]]\nname = "p"\nper = "principal"\nmeasure = "cost_micros"\nmax = {}\n',
    '[[budget]]\nname = "m"\nper = "tenant"\nmeasure = "args.cents"\nwindow = "1m"\nmax = {}00\nactions = ["pay"]\n',
    '[[budget]]\nname = "sc"\nmeasure = "cost_micros"\nmax = {}\n',
    '[[budget]]\nname = "o"\nper = "on_behalf_of"\nmax = {}\n',
    '[[budget]]\nname = "tok"\nper = "tool"\nmeasure = "tokens"\nwindow = "30s"\nmax = {}\n',
    '[[budget]]\nname = "w"\nmeasure = "wall_ms"\nmax = {}00\n',
    '[[breaker]]\nname = "b"\nlast = {}\nmin_calls = 1\nopen_for = "7s"\nmax_error_rate = 0.4\n',
    '[[breaker]]\nname = "bs"\nper = "session"\nactions = ["pay"]\nlast = {}\nmin_calls = 1\nopen_for = "20s"\n',
    '[[loop]]\nname = "l"\nmax_repeats = {}\n',
)
_PAY = 'forbid(principal, action == Action::"pay", resource) when { context.args has cents && '
_ANY = "forbid(principal, action, resource) when { context.session"
POLICIES = (
    '@id("c") forbid(principal, action, resource) when { context.session.calls > 2 && context.session.calls < 5 };\n',
    f'@id("f") {_ANY} has failures && context.session.failures >= 2 }};\n',
    f'@id("cost") {_ANY} has cost_micros && context.session.cost_micros > 9 }};\n',
    f'@id("never") {_PAY} context.args.cents == 13 }};\n',
    f'@id("cap") @verdict("modify") @patch("{{\\"cents\\": 50}}") {_PAY} context.args.cents > 100 }};\n',
    f'@id("ask") @verdict("approve") {_PAY} context.args.cents == 90 }};\n',
)


def some_bundle(loops: Any, pick: Random) -> Any:
    limits = "".join(each.format(pick.randint(1, 6)) for each in pick.sample(LIMITS, pick.randint(0, 4)))
    return loops.bundle("".join(pick.sample(POLICIES, pick.randint(0, 3))), limits)


def some_call(loops: Any, pick: Random) -> Any:
    tool, cents = pick.choice(["pay", "look"]), pick.choice([None, 13, 40, 90, 300])
    paid = (("order", "o"),) + ((("cents", cents),) if cents else ())
    return loops.Call(
        tool=tool,
        args=paid if tool == "pay" else pick.choice([(), (("n", 1),)]),
        who=pick.choice("xy"),
        session=pick.randint(0, 1),
        tenant=pick.choice("ab"),
        key=pick.choice([None, None, "k1", "k2"]),
        wait_ms=pick.choice([0, 1, 500, 3000, 9000]),
        fails=pick.random() < 0.3,
        cost=pick.randint(0, 6),
        tokens=pick.randint(0, 3),
        wall_ms=pick.choice([0, 0, 30, 400]),
        answer=pick.choice([None, "granted", "granted", "denied"]),
    )


def agrees(loops: Any, seed: int) -> None:
    """One history, one candidate: every row as the runtime has it, whatever becomes of calls the log does not know."""
    pick = Random(seed)
    live, candidate = some_bundle(loops, pick), some_bundle(loops, pick)
    calls = [some_call(loops, pick) for _ in range(pick.randint(3, 30))]
    approvals = pick.choice(APPROVALS)
    with tempfile.TemporaryDirectory() as folder:
        lake = loops.record(Path(folder) / "log", live, calls)
        itself, same = lake.replay(recompile=False), simulate(lake)
        assert same.digest() == itself.digest()
        closed = simulate(lake, candidate, limits=candidate, approvals=approvals)
        unknown = closed.state.assumed or closed.state.unsure
        fates = [loops.Fate(), loops.Fate(True, 50), loops.Fate(False, 3)] if unknown else [loops.Fate()]
        for number, fate in enumerate(fates):
            root = Path(folder) / str(number)
            reference = loops.drive(root, candidate, lake, fate=fate, approvals=approvals)
            assert loops.differing(closed, reference) == []
        with pytest.MonkeyPatch.context() as patch:  # small histories are left to Cedar otherwise
            patch.setattr(redeciding, "COLUMNS_PAY", 0)
            patch.setattr(again, "COLUMNS_PAY", 0)
            columns = simulate(lake, candidate, limits=candidate, approvals=approvals)
        assert columns.engine.startswith(COLUMNAR)
        assert columns.digest() == closed.digest()


RESUMED_THEN_DENIED_NOW = 307
"""The log has a grant that was used; the candidate asks again, and every approval is taken to be denied."""
DENIED_UNDER_NEW_LIMITS = 54
"""As before, under limits that were not there then and let the resumed call through."""

WAITS_BEHIND_A_KEY_IN_DOUBT = 831
"""A call that asks for approval, under a key that another call may or may not hold by then."""
MONEY_OF_A_CALL_IN_DOUBT = 1482
"""A conflict then, that may run now: what it asks for may have been taken."""
NAMED = (
    RESUMED_THEN_DENIED_NOW, DENIED_UNDER_NEW_LIMITS, WAITS_BEHIND_A_KEY_IN_DOUBT, MONEY_OF_A_CALL_IN_DOUBT,
)  # fmt: skip


@pytest.mark.parametrize("seed", [*range(6), *NAMED])
def test_simulated_state_is_the_runtimes(loops: Any, seed: int) -> None:
    agrees(loops, seed)


@pytest.mark.fuzz
@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(seed=st.integers(0, 2**32))
def test_simulated_state_is_the_runtimes_in_any_history(loops: Any, seed: int) -> None:
    agrees(loops, seed)


@pytest.mark.parametrize("seed", range(3))
def test_without_limits_and_counters_a_closed_loop_is_an_open_one(
    loops: Any, tmp_path: Path, seed: int
) -> None:
    pick = Random(seed)
    live = some_bundle(loops, pick)
    lake = loops.record(
        tmp_path, live, [replace(some_call(loops, pick), key=None, answer=None) for _ in range(20)]
    )
    candidate = loops.bundle("".join(POLICIES[3:5]))
    assert (
        simulate(lake, candidate, limits=candidate).digest()
        == lake.replay(candidate, limits=candidate).digest()
    )
