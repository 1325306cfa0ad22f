"""Which limits hold for a row, and what they count.

One rule: what a row is judged and charged by hangs on its limits, its tool and whether it is on behalf of somebody;
rows that agree in these share one `Ruleset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.limits import ARGS, Limits

if TYPE_CHECKING:
    from runtime.limits import Breaker, Budget, Meter


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The limits that a row is held to; without loops, which look at attempts, whatever became of them."""

    budgets: tuple[Budget, ...]
    """In the order of the file."""
    breakers: tuple[Breaker, ...]
    meters: tuple[Meter, ...]
    """What its call is charged to, each once; the session's own counters left out, which every call moves."""
    read: tuple[Meter, ...]
    """What its budgets look at, each once."""
    judged: tuple[tuple[Budget, int], ...]
    """Budgets, with the place of what they look at in `read`."""

    @property
    def paths(self) -> frozenset[str]:
        """Measures of money in arguments."""
        return frozenset(b.meter.measure for b in self.budgets if b.meter.measure.startswith(ARGS))


def ruleset(limits: Limits, tool: str, *, on_behalf: bool) -> Ruleset | None:
    """Return what a call of a tool is held to; None: nothing that verdicts before it move."""
    budgets = tuple(
        b for b in limits.budgets if b.applies(tool) and (on_behalf or not _for_somebody(b.meter))
    )
    breakers = tuple(b for b in limits.breakers if b.applies(tool) and (on_behalf or not _for_somebody(b)))
    if not budgets and not breakers:
        return None
    read = tuple({budget.meter.name: budget.meter for budget in budgets}.values())
    meters = tuple(meter for meter in read if not meter.of_session)
    return Ruleset(budgets, breakers, meters, read, tuple((b, read.index(b.meter)) for b in budgets))


def _for_somebody(each: Meter | Breaker) -> bool:
    return each.per == "on_behalf_of"


def steady(limits: Limits) -> Limits:
    """Return the limits without those that verdicts move: what is left judges a row whatever was decided before."""
    text = f"{limits.text}\n# without budgets and breakers"
    return Limits(text=text, loops=limits.loops, watched=limits.watched)
