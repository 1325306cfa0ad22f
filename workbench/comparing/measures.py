"""What a candidate's effects are: each quantity exact on the log, or between bounds, beside its interval.

One rule: no number is computed here; they are `diff.worth` (this log) and `diff.estimates` (future traffic), and each
says which of both it is, and how it is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.estimating.page import finite, sized
from workbench.statistics.clusters import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.compare import Diff
    from workbench.estimating.estimates import Estimates
    from workbench.weighing.quantities import Quantity
    from workbench.weighing.worth import Basis, Bound

BASES: dict[Basis, str] = {
    "exact": "exact on this log",
    "bounds": "between bounds: the log does not say more",
    "simulated": "simulated",
    "partial": "without money that is not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One quantity of one candidate, as a view shows it."""

    name: str
    text: str
    better: str
    """`more`, `less`, or empty."""
    share: bool
    """Whether it is a share, from 0 to 1; else a total, and its interval is per session."""
    seen: str
    """On this log, in words."""
    of: int | None
    """What a share is of."""
    basis: Basis
    low: float | None
    """On this log, at least; of shares, from 0 to 1."""
    high: float | None
    future: str = ""
    """The interval for future traffic, in words; empty: not estimated yet."""
    lower: float | None = None
    """The interval's ends; None: not estimated, or nothing bounds it."""
    upper: float | None = None
    method: str = ""
    clusters: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"known": BASES[self.basis]}


def measures(diff: Diff, *, estimated: bool) -> list[Measure]:
    """Return a candidate's effects, shares first, and of them those of which more or less is better.

    Args:
        diff: its comparison.
        estimated: with intervals, which a large comparison takes a while to estimate; else what the log says.

    Returns:
        One for each quantity that the labels and stakes allow.
    """
    found = diff.estimates if estimated else None
    numbers = diff.worth.numbers
    rows = [_measure(each, numbers[each.name], found) for each in diff.worth.quantities]
    return sorted(rows, key=lambda row: (not row.share, not row.better))


def _measure(quantity: Quantity, bound: Bound, found: Estimates | None) -> Measure:
    share = quantity.of is not None
    whole = bound.of or 0
    low, high = (bound.low / whole, bound.high / whole) if share and whole else (None, None)
    given: dict[str, Any] = {} if found is None else dict(_future(found, quantity.name))
    return Measure(
        name=quantity.name, text=quantity.text, better=quantity.better, share=share, of=bound.of,
        seen=bound.shares if share else f"{bound} {bound.unit}" if quantity.name.count("money") else str(bound),
        basis=bound.basis, low=low if share else float(bound.low), high=high if share else float(bound.high), **given,
    )  # fmt: skip


def _future(found: Estimates, name: str) -> Iterator[tuple[str, Any]]:
    """The interval of a quantity; nothing where it was not estimated."""
    each = found[name]
    lower, upper = each.interval(found.level)
    known = any(map(math.isfinite, (lower, upper)))
    yield "future", f"{sized(each, lower)} to {sized(each, upper)}" if known else "not bounded by this log"
    yield "lower", finite(lower)
    yield "upper", finite(upper)
    yield (
        "method",
        "; ".join(METHODS[method] for method in dict.fromkeys((each.low.method, each.high.method))),
    )
    yield "clusters", each.low.clusters.count
