"""Meters of a simulation against the runtime's own window: whatever was used, the bounds hold it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.windows import Window
from workbench.closed_loop.tracks import Sliding

MS = 60_000
STEPS = (0, 0, 1, 900, 5_000, 30_000, 61_000, -1, -5_000, -40_000, -90_000, -300_000)


def moved(window: Window, now: int) -> Window:
    """What the runtime's ledger makes of a window before it uses it: see `runtime.meters.rewind`."""
    left = window.at(now, MS)
    return left if left.buckets and left.buckets[-1] not in window.buckets else window


@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=947)
@example(seed=2133)
def test_what_was_used_is_between_the_bounds(seed: int) -> None:
    """Some uses are sure; of the others each was, or was not, in every one of these worlds."""
    pick = Random(seed)
    track, worlds, now = Sliding(MS, known_from=None), [Window()] * 6, 10_000_000
    for _ in range(pick.randint(1, 25)):
        now += pick.choice(STEPS)
        track.rewind(now)
        worlds = [moved(world, now) for world in worlds]
        amount, sure = pick.randint(1, 9), pick.random() < 0.5
        track.add(amount if sure else 0, amount, now)
        used = [sure or world == 1 or (world > 1 and pick.random() < 0.5) for world in range(6)]
        worlds = [
            world.add(amount, now, MS)[0] if was else world for world, was in zip(worlds, used, strict=True)
        ]
        later = now + pick.choice(STEPS)
        bounds = track.used(later)
        for world in worlds:
            was = world.at(later, MS).used
            assert bounds.low <= was
            assert bounds.high is None or was <= bounds.high


def test_what_a_call_that_may_not_have_run_pushed_out_counts_until_the_clock_is_there_again() -> None:
    track = Sliding(MS, known_from=None)
    track.add(5, 5, 0)
    track.add(0, 1, 70_000)
    assert track.used(70_000) == (0, 1)
    assert track.used(50_000) == (0, 6)


@pytest.mark.parametrize("sure", [False, True])
def test_where_the_clock_only_goes_on_nothing_is_doubted_twice(sure: bool) -> None:
    track = Sliding(MS, known_from=None)
    for now in range(0, 200_000, 500):
        track.add(1 if sure else 0, 1, now)
        assert track.used(now).high == track.high.used
