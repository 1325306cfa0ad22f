"""Confidence sequences: intervals that hold however often, and whenever, one looks.

One rule: what a `Watch` says after any number of nights is the same whether it looked every night or once: its state
is the tally of what was seen, and the order inside it does not matter. With probability `level`, *all* its intervals
cover.

Why not a library: `confseq` needs a C++ compiler to install; `savvi` watches multinomial counts (through a convex
solver) and Gaussian regressions, neither of which is a ratio of bounded, clustered sums. The bounds here are a few
lines; on 0/1 outcomes they are held against `savvi`'s in the tests.

How: to bet that the ratio is above theta, stake a fraction c on each session: the wealth is multiplied by
`1 + c (y - theta m) / (theta bound)`, never negative as y >= 0 and m <= bound, and does not grow on average while
the ratio is at most theta. The average over fractions c from 1 down to 1e-6, the same weight for each, is a wealth,
too; it reaches 1/alpha, ever, with probability at most alpha (Ville 1939). Theta below which it did are excluded.
The upper bound bets on `m - y`.

Source: Waudby-Smith & Ramdas 2024, JRSS B 86:1 (bets; Ville); averaging over fixed bets: Cover 1991, Orabona & Jun
2024, IEEE Trans. Inf. Theory 70:436. The nights' law may change as long as each session's expectation of y, given
what was before, stays at or below (above) theta times that of m: so a one-sided alarm holds under drift.

Accepted: wider than an interval for one look (about 1.8 times at ten thousand sessions), and the wider the larger the
declared bound is beside usual sizes: one session could bring so much. The bound is declared beforehand; chosen after
looking it would not be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from workbench.errors import NotEstimable
from workbench.statistics.proportions import tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import ArrayLike

    from workbench.statistics.clusters import Floats

Tally = dict[tuple[float, float], int]
"""How many sessions had these (sum, size)."""

_FRACTIONS = np.exp(-np.arange(30) * math.log(1.6))
"""Staked: each 1.6 times the next; from 1 to 1e-6. So one of them is within 27 % of the best."""
_STEPS = 1024
"""Sums that are no whole numbers are rounded outwards to this part of the bound: a tally stays small."""


class Look(NamedTuple):
    """What one night leaves."""

    night: int
    """Counted from 1."""
    sessions: int
    """Seen so far."""
    low: float
    """The ratio so far, at least; exact on this log."""
    high: float
    """The ratio so far, at most; exact on this log."""
    lower: float
    """Running: the largest lower bound so far."""
    upper: float
    """Running: the smallest upper bound so far. Below `lower`: what is watched has moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A ratio of sums over sessions, watched night by night. A value: `see` returns the next one.

    Holds a tally of distinct (sum, size), not the sessions. Where the log does not identify a session's sum, it is
    given by `low` and `high`, and the interval covers all that lies between.
    """

    level: float = 0.95
    bound: float = 1.0
    """The largest size of a session, declared before the first night."""
    least: Tally = field(default_factory=dict)
    """Of `low`."""
    most: Tally = field(default_factory=dict)
    """Of `high`, as `size - high`."""
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """All so far of `low`, `high` and size, not rounded."""
    nights: int = 0
    lower: float = 0.0
    upper: float = 1.0

    def see(self, low: ArrayLike, size: ArrayLike = 1.0, high: ArrayLike | None = None) -> Self:
        """Add a night.

        Args:
            low: what each session counts, at least; one number a session.
            size: of how much, of each session; a share of sessions has size 1.
            high: what each session counts, at most; None: `low` is exact.

        Returns:
            The watch with the night in it. O(distinct pairs so far).

        Raises:
            NotEstimable: a value is not within 0 <= low <= high <= size <= bound.
        """
        lows, highs, sizes = np.broadcast_arrays(
            *(np.asarray(each, dtype=np.float64) for each in (low, low if high is None else high, size))
        )
        self._check(lows, highs, sizes)
        least, most = dict(self.least), dict(self.most)
        _count(least, lows, sizes, self.bound)
        _count(most, sizes - highs, sizes, self.bound)
        alpha = tail(self.level)
        return replace(
            self,
            least=least,
            most=most,
            sums=_added(self.sums, lows, highs, sizes),
            nights=self.nights + 1,
            lower=max(self.lower, _bound(least, self.bound, alpha)),
            upper=min(self.upper, 1 - _bound(most, self.bound, alpha)),
        )

    def _check(self, low: Floats, high: Floats, size: Floats) -> None:
        tail(self.level)
        if not ((low >= 0) & (low <= high) & (high <= size)).all():
            raise NotEstimable("a session counts between 0 and its size: 0 <= low <= high <= size")
        if size.size and size.max() > self.bound:
            raise NotEstimable(
                f"a session of size {size.max():g} exceeds the declared bound of {self.bound:g}; watch again from "
                "the first night with a larger bound, or watch the share of sessions (size 1)"
            )

    @property
    def look(self) -> Look:
        """What the nights so far say."""
        low, high, size = self.sums
        share = (low / size, high / size) if size else (0.0, 1.0)
        return Look(self.nights, sum(self.least.values()), *share, self.lower, self.upper)

    @property
    def moved(self) -> bool:
        """Whether the bounds crossed: no one ratio fits all nights (at the error of the level)."""
        return self.lower > self.upper

    def state(self) -> dict[str, object]:
        """Return all of it as JSON: what a nightly job keeps."""
        return {
            "level": self.level, "bound": self.bound, "nights": self.nights, "sums": list(self.sums),
            "lower": self.lower, "upper": self.upper, "least": _listed(self.least), "most": _listed(self.most),
        }  # fmt: skip

    @classmethod
    def resume(cls, state: Mapping[str, object]) -> Self:
        """Return the watch that `state` was taken of.

        Raises:
            NotEstimable: it is no such state.
        """
        try:
            return cls(
                level=float(state["level"]), bound=float(state["bound"]), nights=int(state["nights"]),  # type: ignore[arg-type, call-overload]
                lower=float(state["lower"]), upper=float(state["upper"]),  # type: ignore[arg-type]
                sums=_three(state["sums"]), least=_read(state["least"]), most=_read(state["most"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as exc:
            raise NotEstimable(f"this is no state of a watch ({exc}); start again with `Watch(...)`") from exc


def sequence(
    nights: Iterable[tuple[ArrayLike, ArrayLike] | ArrayLike], *, level: float = 0.95, bound: float = 1.0
) -> Iterator[Look]:
    """Yield what each night leaves.

    Args:
        nights: of each, one value a session within 0 and 1; or a tuple of values and sizes, one of each a session.
        level: with which all intervals cover.
        bound: the largest size of a session.

    Example:
        >>> [round(look.upper, 3) for look in sequence([[0] * 50, [0] * 50])]
        [0.13, 0.067]
    """
    watch = Watch(level=level, bound=bound)
    for night in nights:
        watch = watch.see(*night) if isinstance(night, tuple) else watch.see(night)
        yield watch.look


def asymptotic(
    mean: float, variance: float, n: float, *, level: float = 0.95, planned: float
) -> tuple[float, float]:
    """Return the bounds at `n` sessions of an asymptotic confidence sequence: for sums without a bound, as money.

    Holds in the limit of many sessions only, like any interval by a normal; `Watch` holds at every number.

    Args:
        mean: so far.
        variance: of one session, estimated so far.
        n: sessions so far.
        level: with which all intervals cover.
        planned: sessions at which it shall be narrowest; set before the first night.

    Source:
        Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Annals of Statistics 52:2613, theorem 2.2: mean +-
        sd sqrt(2 (n r^2 + 1) / (n^2 r^2) log(sqrt(n r^2 + 1) / alpha)), r^2 = (-2 log alpha + log(1 - 2 log alpha)) /
        planned (their equation 34; `confseq` uses the same tuning).
    """
    alpha = 2 * tail(level)
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    spread = 2 * (n * rho + 1) / (n**2 * rho) * math.log(math.sqrt(n * rho + 1) / alpha)
    half = math.sqrt(variance * spread)
    return mean - half, mean + half


def _count(tally: Tally, values: Floats, sizes: Floats, bound: float) -> None:
    """Add sessions; values are rounded down, which only widens the interval."""
    step = bound / _STEPS
    whole = np.where(values == np.floor(values), values, np.floor(values / step) * step)
    pairs, times = np.unique(np.stack([whole.ravel(), sizes.ravel()]), axis=1, return_counts=True)
    for value, size, many in zip(*pairs.tolist(), times.tolist(), strict=True):
        tally[value, size] = tally.get((value, size), 0) + many


def _added(sums: tuple[float, float, float], *night: Floats) -> tuple[float, float, float]:
    low, high, size = (before + float(each.sum()) for before, each in zip(sums, night, strict=True))
    return low, high, size


def _bound(tally: Tally, bound: float, alpha: float) -> float:
    """The largest theta that the wealth has excluded, by bisection: the wealth falls with theta."""
    pairs = np.array(list(tally), dtype=np.float64).reshape(-1, 2)
    y, m, many = pairs[:, 0], pairs[:, 1] / bound, np.array(list(tally.values()), dtype=np.float64)
    if not (y > 0).any():
        return 0.0
    y, base = y / bound, 1 - np.outer(_FRACTIONS, m)
    won = np.outer(_FRACTIONS, y)

    def excluded(theta: float) -> bool:
        with np.errstate(divide="ignore"):
            logs = np.log(base + won / theta) @ many
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).mean())) >= -math.log(alpha)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def _listed(tally: Tally) -> list[list[float]]:
    return [[value, size, many] for (value, size), many in sorted(tally.items())]


def _three(listed: object) -> tuple[float, float, float]:
    if not isinstance(listed, list | tuple):
        raise TypeError("`sums` is a list of three numbers")
    low, high, size = map(float, listed)
    return low, high, size


def _read(listed: object) -> Tally:
    if not isinstance(listed, list):
        raise TypeError("`least` and `most` are lists of [value, size, sessions]")
    return {(float(value), float(size)): int(many) for value, size, many in listed}
