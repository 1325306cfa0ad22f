"""Sliding windows and cycles: bounded, conservative, and right whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import Json, canonical
from runtime.cycles import Attempts, signature
from runtime.limits_file import MAX_PERIOD
from runtime.windows import BUCKETS, Window, width_of

WINDOWS = st.integers(1, 200_000)
STEPS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 5)), max_size=40)


@given(WINDOWS, STEPS)
def test_no_use_in_the_window_is_left_out_and_none_counts_much_longer(
    window_ms: int, steps: list[tuple[int, int]]
) -> None:
    window, now, uses = Window(), 1_000_000, list[tuple[int, int]]()
    for pause, used in steps:
        now += pause
        found = window.at(now, window_ms).used
        assert found >= sum(n for at, n in uses if at > now - window_ms)
        assert found <= sum(n for at, n in uses if at > now - window_ms - 2 * width_of(window_ms))
        window, _ = window.add(used, now, window_ms)
        uses.append((now, used))
        assert len(window.buckets) <= BUCKETS + 2
    assert window.at(now + window_ms + width_of(window_ms), window_ms).used == 0
    assert not steps or window.expires_ms(window_ms) >= now + window_ms


def test_a_bucket_counts_until_all_of_it_is_out() -> None:
    window, _ = Window().add(1, 1_999, 60_000)  # a bucket is a second wide
    assert [window.at(now, 60_000).used for now in (61_500, 61_999, 62_000)] == [1, 1, 0]


@given(WINDOWS, STEPS, st.integers(1, 10**9))
def test_a_clock_that_goes_back_gives_nothing_back_and_costs_one_window(
    window_ms: int, steps: list[tuple[int, int]], back: int
) -> None:
    window, now = Window(), 2 * 10**9
    for pause, used in steps:
        now += pause
        window, _ = window.add(used, now, window_ms)
    before, now = window.at(now, window_ms).used, now - back
    seen = window.at(now, window_ms)
    assert seen.used >= before  # nothing is forgotten
    window, _ = seen.add(1, now, window_ms)
    assert window.at(now + 2 * window_ms + 2 * width_of(window_ms), window_ms).used == 0


def test_a_clock_that_was_ahead_for_a_day_does_not_block_for_a_day() -> None:
    hour, day = 3_600_000, 86_400_000
    ahead, _ = Window().add(5, 10 * day, hour)
    anchored = ahead.at(9 * day, hour)
    assert anchored.used == 5
    assert anchored.at(9 * day + hour + width_of(hour), hour).used == 0
    assert ahead.at(10 * day + hour + width_of(hour), hour).used == 0  # what a jump ahead by a window forgets


def test_hosts_whose_clocks_differ_by_less_than_the_window_count_together() -> None:
    window = Window()
    for now in (100_000, 95_000, 101_000, 96_000):
        window, _ = window.add(1, now, 60_000)
    assert window.at(95_000, 60_000).used == window.at(101_000, 60_000).used == 4


def test_what_is_given_back_is_taken_from_where_it_was() -> None:
    window, first = Window().add(3, 0, 60_000)
    window, second = window.add(4, 30_000, 60_000)
    assert window.give_back(3, first).used == 4
    assert window.give_back(4, second).give_back(4, second).used == 3
    assert window.give_back(3, first - 1).used == 7


@given(st.lists(st.sampled_from("ABC"), max_size=60))
def test_cycles_are_those_a_look_at_the_whole_history_finds(calls: list[str]) -> None:
    state = Attempts()
    for call in calls:
        state = state.then(call)
    for period in range(1, MAX_PERIOD + 1):
        matched = 0
        while matched + period < len(calls) and calls[-1 - matched] == calls[-1 - matched - period]:
            matched += 1
        assert (state.matches[period - 1] if period <= len(state.matches) else 0) == matched
    assert len(state.recent) <= MAX_PERIOD
    assert state.repeats == (state.matches[0] if state.matches else 0)
    recorded = state.recorded
    assert not recorded or recorded[-1] != 0
    assert [*recorded, *[0] * len(state.matches)][: len(state.matches)] == list(state.matches)


def test_two_calls_are_the_same_if_tool_and_arguments_are() -> None:
    calls: list[tuple[str, dict[str, Json]]] = [
        ("a", {}),
        ("b", {}),
        ("a", {"x": 1}),
        ("a", {"x": "1"}),
        ("a", {"x": 1}),
    ]
    assert len({signature(tool, canonical(args)) for tool, args in calls}) == 4
