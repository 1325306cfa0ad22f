"""Sliding windows: what was used in the last so many milliseconds, in bounded space.

One rule: never fewer are counted than were used in the window. Uses are kept in buckets of a sixtieth of the window,
and a bucket counts until all of it is out; so a use counts for its window and up to a sixtieth more.

Clocks: where the clock goes back by less than a window (two hosts that differ, say), the window stands still until it
has caught up. Where it goes back further, everything in the window counts as used just now, so that a clock that was
ahead costs one window and not the days it was ahead by. A clock that jumps ahead by a window forgets what was used
before; there is nothing here to know it by.

Pure: time comes in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

BUCKETS: Final = 60
"""Parts of a window."""


class Window(NamedTuple):
    """What was used, by bucket: (number since the epoch, used), oldest first."""

    buckets: tuple[tuple[int, int], ...] = ()

    @property
    def used(self) -> int:
        """What was used in all of it."""
        return sum(used for _, used in self.buckets)

    def at(self, now_ms: int, window_ms: int) -> Window:
        """Return what is left of it at a moment."""
        width = width_of(window_ms)
        if self.buckets and self._is_far_ahead(now_ms, window_ms):
            return Window(((now_ms // width, self.used),))
        start = max(now_ms, self.buckets[-1][0] * width if self.buckets else now_ms) - window_ms
        return Window(tuple(bucket for bucket in self.buckets if (bucket[0] + 1) * width > start))

    def _is_far_ahead(self, now_ms: int, window_ms: int) -> bool:
        return self.buckets[-1][0] * width_of(window_ms) >= now_ms + window_ms

    def add(self, used: int, now_ms: int, window_ms: int) -> tuple[Window, int]:
        """Add a use now; return the window, and the number of the bucket that holds it."""
        left = self.at(now_ms, window_ms)
        here = now_ms // width_of(window_ms)
        if left.buckets and left.buckets[-1][0] >= here:
            here, before = left.buckets[-1]
            return Window((*left.buckets[:-1], (here, before + used))), here
        return Window((*left.buckets, (here, used))), here

    def give_back(self, used: int, bucket: int) -> Window:
        """Take a use out of its bucket; one that is out of the window, or was moved by the clock, stays counted."""
        found = ((here, max(0, was - used) if here == bucket else was) for here, was in self.buckets)
        return Window(tuple((here, left) for here, left in found if left))

    def expires_ms(self, window_ms: int) -> int:
        """Return when nothing of it counts any more."""
        return (self.buckets[-1][0] + 1) * width_of(window_ms) + window_ms if self.buckets else 0


def width_of(window_ms: int) -> int:
    """Return the width of a bucket in milliseconds."""
    return -(-window_ms // BUCKETS)
