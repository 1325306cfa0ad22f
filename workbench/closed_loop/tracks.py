"""What is counted while a history is simulated: meters and breakers of one scope, with what is not known of them.

One rule: the runtime's own windows and circuits are moved here, as its ledger moves them; beside what was used for
sure stands the most that may have been. What has no upper bound is never taken for less than a limit.

A call that runs now and did not then has no outcome: what it would have cost is unbounded from there on, and whether
it would have failed is not known. Breakers are followed as if all such calls failed: what stays closed so is closed
whatever they did (more failures never close one); from where it would not, the breaker is in doubt for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from runtime.breakers import WORKED, Circuit
from runtime.windows import Window, width_of

if TYPE_CHECKING:
    from runtime.canonical import Json
    from runtime.limits import Breaker


class Used(NamedTuple):
    """What was used, between bounds."""

    low: int
    high: int | None
    """None: there is no bound."""


MOST: Final = 2**62
"""Where counters stop; `runtime.meters.MOST`, which touches a database."""

Place = tuple[int, int]
"""Buckets that hold a use, of the lower bound and of the upper."""
NOWHERE: Final = (0, 0)


class Track(Protocol):
    """A meter of one scope."""

    def used(self, now: int) -> Used:
        """What was used, at a moment in milliseconds."""

    def add(self, low: int, high: int, now: int) -> Place:
        """Add a use; return where it is, for `give_back`."""

    def give_back(self, low: int, high: int, place: Place) -> None:
        """Take a use back."""

    def rewind(self, now: int) -> None:
        """Bring back what a clock that was ahead left in the future."""

    def open(self) -> None:
        """Have no upper bound from here on."""


class Ever:
    """A meter that counts for ever."""

    __slots__ = ("high", "is_open", "low")

    def __init__(self, *, whole: bool) -> None:
        self.low = self.high = 0
        self.is_open = not whole

    def used(self, now: int) -> Used:
        """See `Track`."""
        del now
        return Used(self.low, None if self.is_open else self.high)

    def add(self, low: int, high: int, now: int) -> Place:
        """See `Track`."""
        del now
        self.low, self.high = min(self.low + low, MOST), min(self.high + high, MOST)
        return NOWHERE

    def give_back(self, low: int, high: int, place: Place) -> None:
        """See `Track`."""
        del place
        self.low, self.high = max(0, self.low - low), max(0, self.high - high)

    def rewind(self, now: int) -> None:
        """See `Track`."""

    def open(self) -> None:
        """See `Track`."""
        self.is_open = True


class Sliding:
    """A meter over a sliding window.

    What may have been used moves the window or does not. Where clocks only go on, that is all the same: what it would
    have pushed out is out. Where one goes back, what was pushed out counts again if that was not used, and does not
    if it was: until the clock has caught up, it is between the bounds.
    """

    __slots__ = (
        "caught_up", "high", "is_open", "known_from", "lost_until", "low", "ms", "out", "sums", "width",
    )  # fmt: skip

    def __init__(self, ms: int, *, known_from: int | None) -> None:
        """Begin empty; `known_from`: what was used before that moment is not known, None: it is."""
        self.low = self.high = Window()
        self.ms, self.width, self.known_from, self.is_open = ms, width_of(ms), known_from, False
        self.sums = [(self.low, 0), (self.low, 0)]
        self.out = self.caught_up = 0
        """What uses that are not sure pushed out, and from when on it is out in any case."""
        self.lost_until = 0
        """Nothing is known before."""

    def used(self, now: int) -> Used:
        """See `Track`."""
        unknown = self.known_from is not None and now < self.known_from + self.ms + width_of(self.ms)
        if now < self.lost_until:
            return Used(0, None)
        low = self._sum(0, self.low, now)
        if self.is_open or unknown:
            return Used(low, None)
        if self.high is self.low:
            return Used(low, low)
        return Used(low, self._sum(1, self.high, now) + (self.out if now < self.caught_up else 0))

    def _sum(self, side: int, window: Window, now: int) -> int:
        if not window.buckets:
            return 0
        first, last, width = window.buckets[0][0], window.buckets[-1][0], self.width
        if last * width >= now + self.ms or (first + 1) * width <= max(now, last * width) - self.ms:
            return window.at(now, self.ms).used
        known, used = self.sums[side]  # all of it counts still
        if known is not window:
            used = window.used
            self.sums[side] = window, used
        return used

    def add(self, low: int, high: int, now: int) -> Place:
        """See `Track`."""
        same = self.high is self.low and low == high
        if self.high is not self.low:
            self._bring_back(now)
        before = self.high
        self.high, bucket = before.add(high, now, self.ms)
        if same:
            self.low = self.high
            return bucket, bucket
        if not low:  # what may not have been used moves no window
            self._push_out(before, now)
            return bucket, bucket
        self.low, below = self.low.add(low, now, self.ms)
        if now >= self.caught_up:
            self.out = 0
        return below, bucket

    def _push_out(self, before: Window, now: int) -> None:
        """Note what a use now that is not sure pushes out of the window before it."""
        self.low = self.low.at(now, self.ms)
        pushed = before.used - before.at(now, self.ms).used
        if pushed:
            self.out += pushed
            self.caught_up = max(self.caught_up, now)

    def give_back(self, low: int, high: int, place: Place) -> None:
        """See `Track`."""
        same = self.high is self.low and low == high and place[0] == place[1]
        self.high = self.high.give_back(high, place[1])
        self.low = self.high if same else self.low.give_back(low, place[0])

    def rewind(self, now: int) -> None:
        """See `Track`."""
        if self.high is self.low:
            self.low = self.high = self._rewound(self.high, now)
        else:
            self._bring_back(now)
            self.low = self._rewound(self.low, now)

    def _rewound(self, window: Window, now: int) -> Window:
        left = window.at(now, self.ms)
        return left if left.buckets and left.buckets[-1] not in window.buckets else window

    def _bring_back(self, now: int) -> None:
        """Bring back bounds that differ: whether the clock was far ahead hangs on what was used.

        Where it was, everything counts as used now; where not, at its time: nothing is known until that is out, too.
        """
        left = self._rewound(self.high, now)
        if left is not self.high:
            self.lost_until = max(self.lost_until, self.high.expires_ms(self.ms))
            self.high, self.out = left, 0

    def open(self) -> None:
        """See `Track`."""
        self.is_open = True


Nexts = dict[tuple[int, str, bool], Circuit]
"""By `since` and `recent` of a closed circuit, and whether a call worked: what becomes of it, if it stays closed."""
_MOST_NEXTS: Final = 2**16
"""Of a breaker; some 300 bytes each."""
_NEW: Final = Circuit()


class Guard:
    """A breaker for one scope."""

    __slots__ = ("breaker", "circuit", "is_lost", "nexts", "unsure")

    def __init__(self, breaker: Breaker, *, whole: bool, nexts: Nexts | None = None) -> None:
        """Begin closed; `nexts`: what outcomes made of closed circuits of this breaker, for all its guards."""
        self.breaker, self.circuit, self.nexts = breaker, _NEW, {} if nexts is None else nexts
        self.unsure = False
        """Some outcome before is not known."""
        self.is_lost = not whole
        """Where it stands is not known any more."""

    def at(self, now: int) -> Circuit | None:
        """Where it stands at a moment; None: not known."""
        if self.is_lost:
            return None
        found = self.circuit if self.circuit.state == "closed" else self.circuit.at(now, self.breaker)
        if self.unsure and found.state != "closed":
            self.is_lost = True
            return None
        return found

    def seen(self, now: int) -> dict[str, Json] | None:
        """What decisions record of it; None: not known."""
        found = self.at(now)
        return None if found is None else found.seen(self.breaker)

    def passes(self, call: str, now: int) -> None:
        """Let a call through, as a probe where it is half open."""
        found = self.at(now)
        if found is not None and found.state == "half_open":
            self.circuit = found.probing(call, now)

    def ended(self, call: str, status: str, now: int) -> None:
        """Take the outcome of a call it let through."""
        self.circuit = self.circuit.ended(call, status, now, self.breaker)

    def counts(self, status: str, now: int) -> bool:
        """Take an outcome as `ended` does, if it is closed; False: it is not, and nothing was done.

        What an outcome makes of a closed circuit hangs on the outcomes before it, and on time only if it opens.
        """
        circuit, worked = self.circuit, WORKED.get(status)
        if circuit.state != "closed" or circuit.probes or circuit.since > now:
            return False
        if worked is None:
            return True
        key = (circuit.since, circuit.recent, worked)
        found = self.nexts.get(key)
        if found is None:
            found = circuit.ended("", status, now, self.breaker)
            if found.state == "closed" and len(self.nexts) < _MOST_NEXTS:
                self.nexts[key] = found
        self.circuit = found
        return True

    def may_fail(self, call: str, now: int) -> None:
        """Take a call whose outcome is not known, or that may not have run."""
        self.unsure = True
        self.ended(call, "failed", now)
        self.at(now)

    def rewind(self, now: int) -> None:
        """Bring back what a clock that was ahead left in the future."""
        if self.circuit.since > now or any(began > now for began in self.circuit.probes.values()):
            self.circuit = self.circuit.at(now, self.breaker)
