"""What all nights together say: sums of each session, tallied, and gates judged so that one may look every night.

One rule: a look depends on what is known now, not on how often one looked: it is computed from the tallies of all
nights, so a night whose labels came later is counted with them, and a night that is judged twice changes nothing.

A gate on a share is judged by `workbench.statistics.sequences.Watch`, whose bounds hold at all looks at once; one on
a total per session by an asymptotic confidence sequence, which holds so in the limit of many sessions, once twenty of
them differ from the rest. *Met* if the bound at the gate's level clears the threshold: to ship takes all gates, so
none is adjusted (intersection-union: Berger 1982). *Failed* if the other bound is beyond it at `1 - level` over the
number of gates (Bonferroni over the gates, Ville over the nights): so over all nights together a candidate that keeps
every threshold is accused with probability at most `1 - level`.

A session is of the night in which it was first seen. What is found out of it later (labels, outcomes, more calls) is
counted there. What the log does not know lies between `low` and `high`, so a label that arrives only narrows what was
said; `size`, of how many, is known from the beginning but for shares of labelled calls.

Accepted: a session that goes on over nights is, at each look, as large as it has become; the bounds hold at each
look, and over looks as far as sessions are settled. A wider cluster (`cluster = "user"`) goes on for longer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl

from workbench.certainty import SHARES
from workbench.errors import GatesInvalid
from workbench.regressing.result import GateLook
from workbench.regressing.tallying import PARTS
from workbench.statistics.clusters import FEW
from workbench.statistics.sequences import Watch, asymptotic
from workbench.texts import count, visible
from workbench.weighing.quantities import BY_NAME, Quantity
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.estimating.gates_file import Gate
    from workbench.regressing.result import Verdict
    from workbench.weighing.stakes import Stakes

MOST_NEEDED = 1_000
"""Times as many sessions, above which nobody waits for them."""

State = Literal["met", "failed", "open"]


class Reach(NamedTuple):
    """How far a look reaches."""

    largest: float = 200.0
    """The most calls of one session that a share is watched over, declared before the first night."""
    planned: float = 10_000.0
    """Sessions at which the bounds of totals shall be narrowest."""


def require(gates: Sequence[Gate], stakes: Stakes) -> None:
    """Refuse gates that no night could judge.

    Raises:
        GatesInvalid: none is declared; one is on a quantity that there is not, or that needs money nobody declared;
            asks for each slice; or for what no log can show. Names the gate and the fix.
    """
    if not gates:
        raise GatesInvalid("no gate is declared: nothing would be judged; give at least one `[[gates]]`")
    for gate in gates:
        name = f"gate `{visible(gate.quantity)}`"
        if gate.quantity not in BY_NAME:
            raise GatesInvalid(f"{name}: there is no such quantity; {closest(gate.quantity, BY_NAME)}")
        if "money" in BY_NAME[gate.quantity].needs and not stakes.moneys:
            raise GatesInvalid(
                f"{name} is about money, and none is declared; say which argument it is, as "
                '`money.refund = "amount_cents"` in `[stakes]`'
            )
        if gate.each:
            raise GatesInvalid(
                f"{name}: `each` is judged by one comparison, not night by night; give a slice a job of its own, "
                "with `[filter]`"
            )
        whole = 0 if gate.upper else 1
        if gate.on == "future" and gate.at == whole and (BY_NAME[gate.quantity].of is not None or gate.upper):
            raise GatesInvalid(
                f"{name}: no log can show {gate.text} of future traffic, as 0 of n is not 0; give a threshold above "
                '0 (below 1), or judge the log alone with `on = "log"`'
            )


def quantities_of(gates: Iterable[Gate], stakes: Stakes) -> tuple[Quantity, ...]:
    """Return what is summed of each session: what gates are about, and the shares that every report shows."""
    names = dict.fromkeys([*(gate.quantity for gate in gates), *SHARES])
    return tuple(BY_NAME[name].in_unit(stakes.unit) for name in names)


def judge(gates: Sequence[Gate], tally: pl.DataFrame, reach: Reach = Reach()) -> tuple[GateLook, ...]:  # noqa: B008 - frozen
    """Judge gates by all nights together.

    Args:
        gates: that `require` has let pass.
        tally: of all nights.
        reach: declared before the first night.
    """
    tested = max(1, sum(gate.on == "future" for gate in gates))
    return tuple(_judged(gate, _seen(tally, gate.quantity), reach, tested) for gate in gates)


def verdict_of(looks: Sequence[GateLook]) -> Verdict:
    """Return what gates come to: *don't ship* if any failed, *ship* if all are met, else *inconclusive*."""
    states = {look.state for look in looks}
    if "failed" in states:
        return "don't ship"
    return "inconclusive" if "open" in states or not looks else "ship"


class _Seen(NamedTuple):
    """One quantity of a tally."""

    low: np.ndarray
    size: np.ndarray
    high: np.ndarray
    n: np.ndarray
    share: bool

    @property
    def sessions(self) -> int:
        return int(self.n.sum())

    @property
    def totals(self) -> tuple[float, float, float]:
        low, size, high = (float(each @ self.n) for each in (self.low, self.size, self.high))
        return low, size, high

    def times(self, factor: float) -> _Seen:
        """As if so many times as many sessions had been seen."""
        return self._replace(n=np.ceil(self.n * factor))


def _seen(tally: pl.DataFrame, name: str) -> _Seen:
    rows = tally.filter(pl.col("quantity") == name)
    low, size, high, n = (rows[part].to_numpy() for part in (*PARTS, "n"))
    return _Seen(low, size, high, n, BY_NAME[name].of is not None)


class _Bounds(NamedTuple):
    """Of future traffic; infinite: nothing bounds it."""

    lower: float
    upper: float


def _bounds(seen: _Seen, alpha: float, reach: Reach) -> _Bounds:
    """The bounds at error `alpha` on each side, at all looks at once."""
    if not seen.share:
        return _of_totals(seen, alpha, reach)
    watch = Watch(
        level=1 - 2 * alpha, bound=reach.largest,
        least=_pairs(seen.low, seen.size, seen.n), most=_pairs(seen.size - seen.high, seen.size, seen.n),
    ).see([])  # fmt: skip
    return _Bounds(watch.lower, watch.upper)


def _pairs(values: np.ndarray, sizes: np.ndarray, n: np.ndarray) -> dict[tuple[float, float], int]:
    found: dict[tuple[float, float], int] = {}
    for value, size, many in zip(values.tolist(), sizes.tolist(), n.tolist(), strict=True):
        found[value, size] = found.get((value, size), 0) + int(many)
    return found


def _of_totals(seen: _Seen, alpha: float, reach: Reach) -> _Bounds:
    """Of a mean per session, over clusters of `size` sessions: a ratio of sums, by its linearised residuals."""
    n, sessions = float(seen.n.sum()), float(seen.size @ seen.n)
    if n < FEW:
        return _Bounds(-math.inf, math.inf)
    ends = []
    for values, side in ((seen.low, 0), (seen.high, 1)):
        if _alike(values / seen.size, seen.n) > n - FEW:
            ends.append((-math.inf, math.inf)[side])
            continue
        mean = float(values @ seen.n) / sessions
        residuals = (values - mean * seen.size) * n / sessions
        variance = float((residuals**2) @ seen.n) / (n - 1)
        ends.append(asymptotic(mean, variance, n, level=1 - 2 * alpha, planned=reach.planned)[side])
    return _Bounds(*ends)


def _alike(values: np.ndarray, n: np.ndarray) -> float:
    """How many have the commonest value. Of a few that differ no variance can be told: 0 in 20 is not 0."""
    _, place = np.unique(values, return_inverse=True)
    return float(np.bincount(place.ravel(), weights=n).max())


def _judged(gate: Gate, seen: _Seen, reach: Reach, tested: int) -> GateLook:
    low, size, high = seen.totals
    over = 1.0 if gate.on == "log" and not seen.share else size
    here = (low / over, high / over) if over and seen.sessions else None
    alpha = 1 - gate.level
    method = "exact on this log"
    bounds: _Bounds | None = None
    if here is None:
        state, why = _nothing(seen)
    elif gate.on == "log":
        state, why = _on_log(gate, *here)
    elif seen.share and seen.size.max() > reach.largest:
        state, why = "open", _too_large(float(seen.size.max()), reach)
    else:
        method = "betting confidence sequence" if seen.share else "asymptotic confidence sequence"
        bounds = _both(gate, seen, reach, alpha, tested)
        state = _state(gate, bounds)
        why = _why(gate, seen, here, bounds, state, reach, tested)
    return GateLook(
        text=gate.text, quantity=gate.quantity, state=state, low=here and here[0], high=here and here[1],
        lower=_finite(bounds and bounds.lower), upper=_finite(bounds and bounds.upper), level=gate.level,
        method=method, sessions=seen.sessions, why=why,
    )  # fmt: skip


def _nothing(seen: _Seen) -> tuple[State, str]:
    what = "what it is a share of; label what was harm and good work, or wait for such traffic"
    return "open", f"the log has none of {what}" if seen.share else "no session was seen yet"


def _too_large(largest: float, reach: Reach) -> str:
    return (
        f"a session has {largest:,.0f} of what it is a share of, more than `looks.largest_session` = "
        f"{reach.largest:,.0f}; declare a larger one (the looks start over)"
    )


def _both(gate: Gate, seen: _Seen, reach: Reach, alpha: float, tested: int) -> _Bounds:
    """The bound that lets it pass at `alpha`, and the one that fails it, at its part of `alpha`."""
    passing, failing = _bounds(seen, alpha, reach), _bounds(seen, alpha / tested, reach)
    return _Bounds(failing.lower, passing.upper) if gate.upper else _Bounds(passing.lower, failing.upper)


def _state(gate: Gate, bounds: _Bounds) -> State:
    safe, other = (bounds.upper, bounds.lower) if gate.upper else (bounds.lower, bounds.upper)
    if _beyond(gate, other):
        return "failed"
    return "open" if _beyond(gate, safe) else "met"


def _beyond(gate: Gate, value: float) -> bool:
    """Whether a value is on the wrong side of the threshold."""
    return value > gate.at if gate.upper else value < gate.at


def _on_log(gate: Gate, low: float, high: float) -> tuple[State, str]:
    worst, best = (high, low) if gate.upper else (low, high)
    if not _beyond(gate, worst):
        return "met", f"{worst:,.6g} on this log, exactly counted"
    if _beyond(gate, best):
        return "failed", f"{best:,.6g} on this log, exactly counted"
    return "open", f"between {low:,.6g} and {high:,.6g}: the log does not say; label, or simulate"


def _why(
    gate: Gate,
    seen: _Seen,
    here: tuple[float, float],
    bounds: _Bounds,
    state: State,
    reach: Reach,
    tested: int,
) -> str:
    low, high = (_said(each, seen) for each in here)
    told = f"{low if low == high else f'{low} to {high}'} on this log"
    safe = bounds.upper if gate.upper else bounds.lower
    sure = f"{'at most' if gate.upper else 'at least'} {_said(safe, seen)}, {100 * gate.level:g} % sure at every look"
    if state == "failed":
        other = bounds.lower if gate.upper else bounds.upper
        side = "at least" if gate.upper else "at most"
        return f"{told}; {side} {_said(other, seen)} of future traffic, sure at every look"
    if not math.isfinite(safe):
        sure = f"nothing bounds it before {FEW} sessions differ from the others in it"
    return (
        f"{told}; {sure}" if state == "met" else f"{told}; {sure}; {_needed(gate, seen, here, reach, tested)}"
    )


def _needed(gate: Gate, seen: _Seen, here: tuple[float, float], reach: Reach, tested: int) -> str:
    """How many more sessions would settle it, if all stays as seen: by looking at as many times as many."""
    if _beyond(gate, here[1 if gate.upper else 0]) and not _beyond(gate, here[0 if gate.upper else 1]):
        return "the threshold lies between what the log leaves possible: label, or simulate"

    def settled(factor: float) -> bool:
        return _state(gate, _both(gate, seen.times(factor), reach, 1 - gate.level, tested)) != "open"

    if not settled(MOST_NEEDED):
        return "what was seen lies all but on the threshold: no number of sessions to wait for tells"
    few, enough = 1.0, float(MOST_NEEDED)
    while enough - few > 0.02 * few:
        middle = math.sqrt(few * enough)
        few, enough = (few, middle) if settled(middle) else (middle, enough)
    more = max(1, math.ceil(seen.sessions * (enough - 1)))
    return f"about {count(more, 'session')} more would tell, if the rate stays as seen"


def _said(value: float, seen: _Seen) -> str:
    if not math.isfinite(value):
        return "anything"
    return f"{100 * value:.3g} %" if seen.share else f"{value:,.4g} a session"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
