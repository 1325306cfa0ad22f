"""What a comparison is worth, how sure that is, how far the log says it, and whether to ship: said in one place.

One rule: a terminal, a notebook, the report and MLflow take these numbers from here; none is computed by a face.

Accepted: a comparison of more than `AT_A_GLANCE` decisions shows estimates and divergence only where they are asked
for (`diff.estimates`, `diff.divergence`), in its report and in MLflow: a repr is not to take half a minute.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from workbench.faces import Table
from workbench.texts import share
from workbench.weighing.quantities import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.compare import Diff
    from workbench.estimating.estimates import Estimate

AT_A_GLANCE = 1_000_000
"""Decisions up to which a repr estimates."""
SHARES = (
    "harm_avoided_share", "harm_through_share", "good_lost_share", "good_held_share", "good_altered_share",
    "calls_prevented_share", "calls_held_share", "calls_altered_share", "approvals_now_share",
)  # fmt: skip
"""What a report estimates: shares, of which an interval can be read without knowing how much a session does."""


def at_a_glance(diff: Diff) -> bool:
    """Whether a repr may estimate."""
    return diff.summary()["decisions"] <= AT_A_GLANCE


def outcome_lines(diff: Diff) -> list[str]:
    """Say whether to ship, if gates are declared."""
    found = diff.outcome
    if found is None:
        return []
    page = found.page()
    return [f"{page.title}. {page.lines[0]}", *page.lines[1:]]


def lines(diff: Diff) -> Iterator[str]:
    """Say what a comparison is worth, and how much of it is exact."""
    yield from diff.worth.lines
    if has_history(diff):
        yield f"{diff.divergence.headline}."


def has_history(diff: Diff) -> bool:
    """Whether the comparison is of a lake that can be read, so that divergence can be told."""
    return hasattr(diff.cand.lake, "find_bundle")


def table(diff: Diff) -> Table | None:
    """Return the shares with their intervals; None: there is nothing they could be of."""
    found = [each for each in _shares(diff) if each.low.clusters.size]
    if not found:
        return None
    level = f"{100 * diff.level:g} %"
    return Table(
        title="On this log, and in future traffic",
        note=(
            "On this log: exact, or between two bounds. From, to: an estimate for future traffic of the same mix, "
            f"{level} for each by itself; the unit is the {_unit(diff)}."
        ),
        heads=("", "on this log", "of", "from", "to", "clusters"),
        rows=[_row(each, diff.level) for each in found],
    )


def _unit(diff: Diff) -> str:
    names = [name for name in diff.cluster if name != "tenant"]
    return " and ".join(names).replace("session_id", "session").replace("_", " ")


def _shares(diff: Diff) -> list[Estimate]:
    return [each for each in diff.estimates.estimates if each.quantity.name in SHARES and each.slice is None]


def _row(each: Estimate, level: float) -> tuple[str, str, int, str, str, int]:
    low, high, whole = each.low.clusters.total, each.high.clusters.total, each.low.clusters.size
    seen = share(low, whole) if low == high else f"{share(low, whole)} to {share(high, whole)}"
    lower, upper = each.interval(level)
    text = each.quantity.name.removesuffix("_share").replace("_", " ")
    return text, seen, int(whole), f"{100 * lower:.1f} %", f"{100 * upper:.1f} %", each.low.clusters.count


def metrics(diff: Diff) -> dict[str, float]:
    """Return the numbers by name, as MLflow takes them.

    `worth.<quantity>.low` and `.high`, exact on this log; `estimate.<share>.lower` and `.upper`, for future traffic;
    `divergence.<kind>`; `outcome`: 1 ship, 0 inconclusive, -1 don't ship, where gates are declared.
    """
    found: dict[str, float] = {}
    for name, bound in diff.worth.numbers.items():
        if BY_NAME[name].of is None:
            found |= {f"worth.{name}.low": bound.low, f"worth.{name}.high": bound.high}
    for each in _shares(diff):
        lower, upper = each.interval(diff.level)
        bounds = {
            f"estimate.{each.quantity.name}.lower": lower,
            f"estimate.{each.quantity.name}.upper": upper,
        }
        found |= {name: value for name, value in bounds.items() if math.isfinite(value)}
    if has_history(diff):
        found |= {
            f"divergence.{kind}": n for kind, n in diff.divergence.counts().items() if kind != "decisions"
        }
    if diff.outcome is not None:
        found["outcome"] = {"ship": 1, "inconclusive": 0}.get(diff.outcome.verdict, -1)
    return found


def as_dict(diff: Diff) -> dict[str, Any]:
    """Return all of it, as JSON."""
    return {
        "summary": diff.summary(),
        "worth": diff.worth.as_dict(),
        "estimates": diff.estimates.as_dict(),
        "divergence": diff.divergence.as_dict() if has_history(diff) else None,
        "outcome": None if diff.outcome is None else diff.outcome.as_dict(),
    }
