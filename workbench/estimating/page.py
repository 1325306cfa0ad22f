"""How estimates are shown: what is exact on the log beside what is estimated, and by which method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workbench.faces import Page, Table
from workbench.statistics.clusters import METHODS
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.estimating.estimates import Estimate, Estimates
    from workbench.faces import Cell

_HEADS = ("quantity", "on this log", "at least", "at most", "clusters")
MOST_SLICES = 30
"""Slices that a page shows; the frame has all."""


def page(found: Estimates) -> Page:
    """Return what estimates say."""
    whole = [each for each in found.estimates if each.slice is None]
    parts = [_table(whole, found.level), *([_slices(found)] if found.by else [])]
    used = dict.fromkeys(method for each in whole for method in (each.low.method, each.high.method))
    texts = Table(
        title="Quantities", heads=("quantity", "is"), rows=[(e.quantity.name, e.quantity.text) for e in whole]
    )
    methods = Table(title="Methods", heads=("method", "is"), rows=[(name, METHODS[name]) for name in used])
    return Page(
        kind="estimates",
        title=f"{count(len(whole), 'quantity', 'quantities')} with {percent(found.level)} intervals",
        lines=tuple(_lines(found, whole)),
        parts=(*parts, texts, methods),
        lead=1,
        pins=found.pins,
    )


def _lines(found: Estimates, whole: Sequence[Estimate]) -> Iterator[str]:
    clusters = max((each.low.clusters.count for each in whole), default=0)
    yield (
        "`on this log` is exact. `at least` and `at most` are estimates for future traffic of the same mix, "
        f"{percent(found.level)} for each quantity by itself, over {count(clusters, 'cluster')} ({found.cluster})."
    )
    if open_ := sum(not each.identified for each in whole):
        yield (
            f"{count(open_, 'quantity is', 'quantities are')} not identified by this log, but between two bounds; "
            "the interval covers both. More sessions do not close that gap; labels, outcomes or a simulator do."
        )


def _table(rows: Sequence[Estimate], level: float) -> Table:
    return Table(
        heads=(*_HEADS, "effective n", "would be seen", "method"),
        note="`would be seen`: the smallest difference that these clusters show with 80 % power",
        rows=[
            (each.quantity.name, *_cells(each, level), finite(each.effective_n), sized(each, each.detectable(level)),
             each.method)
            for each in rows
        ],
        code=frozenset({0}),
    )  # fmt: skip


def _slices(found: Estimates) -> Table:
    every = [each for each in found.estimates if each.slice is not None]
    # How much a tenant does differs from the next; what a change does to it is in the shares.
    shares = [each for each in every if each.quantity.of is not None]
    sliced = sorted(shares or every, key=_telling)
    shown = sliced[:MOST_SLICES]
    rows = [
        (
            each.quantity.name,
            each.slice,
            *_cells(each, found.level),
            *map(finite, (each.p, each.p_holm, each.p_bh)),
        )
        for each in shown
    ]
    left = f"; {len(every) - len(shown):,} more in `.frame`" if len(every) > len(shown) else ""
    return Table(
        title=f"By {', '.join(found.by)}",
        note=f"{count(len(every), 'slice')} looked at; p: that it is as the rest, by itself and adjusted for all "
        f"slices of the quantity (Holm, Benjamini-Hochberg); smallest first{left}",
        heads=(_HEADS[0], "slice", *_HEADS[1:], "p", "p Holm", "p BH"),
        rows=rows,
        code=frozenset({0, 1}),
    )


def _telling(each: Estimate) -> tuple[bool, float]:
    return math.isnan(each.p), each.p


def _cells(each: Estimate, level: float) -> tuple[Cell, ...]:
    lower, upper = each.interval(level)
    return seen(each), sized(each, lower), sized(each, upper), each.low.clusters.count


def seen(each: Estimate) -> str:
    """Write what is exact on the log: a number, or from where to where."""
    low, high = (sized(each, side.value) for side in (each.low, each.high))
    return low if low == high else f"{low} to {high}"


def sized(each: Estimate, value: float) -> str:
    """Write a number of an estimate in its unit; what is not finite as not known."""
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.3g} %" if each.quantity.of is not None else f"{value:,.4g} a session"


def finite(value: float) -> float | None:
    """Return a number as a cell; what is not finite as not known."""
    return value if math.isfinite(value) else None


def percent(level: float) -> str:
    """Write a level.

    Example:
        >>> percent(0.95), percent(0.999)
        ('95 %', '99.9 %')
    """
    return f"{100 * level:.6g} %"
