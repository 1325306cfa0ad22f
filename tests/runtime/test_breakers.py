"""Breakers: closed, open, half open, closed; by outcomes and by time, whatever the clock does."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.breakers import TRANSITIONS, Circuit, State
from runtime.limits import Breaker

BREAKER = Breaker(name="k", last=4, min_calls=2, max_error_ppm=500_000, open_ms=100, probe_ms=50)


def after(statuses: str, breaker: Breaker = BREAKER) -> Circuit:
    """A circuit after outcomes at 0 ms: `s`ucceeded, `f`ailed, `a`borted, in `d`oubt, `c`ancelled."""
    names = {"s": "succeeded", "f": "failed", "a": "aborted", "d": "in_doubt", "c": "cancelled"}
    found = Circuit()
    for each in statuses:
        found = found.ended("x", names[each], 0, breaker)
    return found


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ("f", "closed"), ("ff", "open"), ("sf", "closed"), ("sff", "open"), ("fs", "closed"), ("ssff", "closed"),
        ("ssfff", "open"), ("aaff", "open"), ("sd", "closed"), ("dd", "open"), ("cccc", "closed"), ("ssssss", "closed"),
    ],
)  # fmt: skip
def test_it_opens_when_more_of_the_last_outcomes_failed_than_it_bears(statuses: str, state: str) -> None:
    assert after(statuses).state == state


def test_rates_are_compared_exactly() -> None:
    breaker = Breaker(name="k", last=100, min_calls=100, max_error_ppm=290_000)
    assert after("f" * 29 + "s" * 71, breaker).state == "closed"
    assert after("f" * 30 + "s" * 70, breaker).state == "open"


def test_open_then_half_open_then_closed() -> None:
    found = after("ff")
    assert not found.at(99, BREAKER).lets_through(BREAKER)
    half = found.at(100, BREAKER)
    assert half.state == "half_open"
    probing = half.probing("p", 100)
    assert not probing.lets_through(BREAKER)  # one probe at a time
    assert probing.ended("other", "succeeded", 110, BREAKER) == probing  # it was let through before it opened
    closed = probing.ended("p", "succeeded", 110, BREAKER)
    assert (closed.state, closed.recent) == ("closed", "")


@pytest.mark.parametrize("status", ["failed", "in_doubt", "cancelled"])
def test_a_probe_that_fails_opens_it_again(status: str) -> None:
    probing = after("ff").at(100, BREAKER).probing("p", 100)
    opened = probing.ended("p", status, 110, BREAKER)
    assert opened.state == "open"
    assert not opened.at(209, BREAKER).lets_through(BREAKER)
    assert opened.at(210, BREAKER).lets_through(BREAKER)


def test_a_probe_that_a_guard_stopped_says_nothing() -> None:
    probing = after("ff").at(100, BREAKER).probing("p", 100)
    assert probing.ended("p", "aborted", 110, BREAKER).lets_through(BREAKER)


def test_a_probe_whose_process_crashed_counts_as_failed() -> None:
    probing = after("ff").at(100, BREAKER).probing("p", 100)
    assert not probing.at(149, BREAKER).lets_through(BREAKER)
    assert probing.at(150, BREAKER).state == "open"
    assert not probing.at(249, BREAKER).lets_through(BREAKER)
    assert probing.at(250, BREAKER).lets_through(BREAKER)
    late = probing.ended("p", "succeeded", 260, BREAKER)  # lost is lost
    assert (late.state, late.passed) == ("half_open", 0)


def test_several_probes_have_to_succeed() -> None:
    breaker = Breaker(name="k", last=4, min_calls=2, open_ms=100, probe_ms=50, probes=2)
    half = after("ff", breaker).at(100, breaker).probing("p", 100).probing("q", 100)
    assert not half.lets_through(breaker)
    one = half.ended("p", "succeeded", 110, breaker)
    assert one.state == "half_open"
    assert one.ended("q", "succeeded", 110, breaker).state == "closed"
    assert one.ended("q", "failed", 110, breaker).state == "open"


def test_a_clock_that_goes_back_keeps_it_open_for_its_time_and_no_longer() -> None:
    opened = after("s").ended("x", "failed", 10**9, BREAKER).ended("x", "failed", 10**9, BREAKER)
    assert opened.state == "open"
    back = opened.at(500, BREAKER)
    assert not back.lets_through(BREAKER)
    assert back.at(600, BREAKER).lets_through(BREAKER)


def test_what_decisions_record() -> None:
    assert Circuit().seen(BREAKER) == {"state": "closed", "calls": 0, "errors": 0}
    opened = after("sff")
    assert opened.seen(BREAKER) == {"state": "open", "calls": 3, "errors": 2, "until": 100}
    half = opened.at(100, BREAKER).probing("p", 100)
    assert half.seen(BREAKER) == {"state": "half_open", "calls": 3, "errors": 2, "probing": 1}


EVENTS: Any = st.lists(
    st.tuples(st.integers(-300, 300), st.sampled_from("pqrx"), st.sampled_from(["succeeded", "failed", "aborted", "in_doubt", "begin"])),
    max_size=40,
)  # fmt: skip


@given(EVENTS)
def test_it_moves_only_as_the_table_says_and_never_stays_shut(events: list[tuple[int, str, str]]) -> None:
    moves = {(before, after) for (before, _), after in TRANSITIONS.items()}
    found, now = Circuit(), 10_000
    for step, ident, what in events:
        now += step
        stands = found.at(now, BREAKER)
        if what == "begin":
            later = (
                stands.probing(ident, now)
                if stands.state == "half_open" and stands.lets_through(BREAKER)
                else stands
            )
        else:
            later = stands.ended(ident, what, now, BREAKER)
        assert later.state == stands.state or (stands.state, later.state) in moves
        assert len(later.probes) <= BREAKER.probes
        assert len(later.recent) <= BREAKER.last
        found = later
    ahead = found.at(now, BREAKER)
    assert ahead.at(now + BREAKER.open_ms + BREAKER.probe_ms, BREAKER).lets_through(BREAKER)


def test_every_state_is_in_the_table() -> None:
    assert {state for state, _ in TRANSITIONS} == set(get_args(State))
    assert set(TRANSITIONS.values()) == set(get_args(State))
