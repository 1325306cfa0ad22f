"""Versions of a policy by two objectives: what was tried, and what nothing that was tried beats.

One rule: less is better on both axes, and both are shares, so that what was searched on and what it was confirmed on
can be seen side by side. What is exact on the log is a point; an estimate for future traffic is a line with ends.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.errors import WorkbenchError, need
from workbench.plotting.plot import WIDTH, Plot, inline, nothing, scale
from workbench.texts import count, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.searching.objectives import Objective
    from workbench.searching.search import Search
    from workbench.sweep import Sweep

BEATEN, ON_FRONT = "tried, and beaten", "nothing that was tried beats it"
CONFIRMED = "confirmed on other sessions"
_COLOURS = {BEATEN: "#a9b2bc", ON_FRONT: "#4480c9", CONFIRMED: "#d9822b"}
MOST_POINTS = 2_000
"""Points that are drawn besides the front."""
APART = 0.08
"""Of the picture, between points of the front that are named."""
MAX_LINE = 62
"""Characters of a line of an axis's title."""
LABELLED, UNLABELLED = ("good_held_up", "harm_let_through"), ("calls_held_up", "approvals_asked")
"""Objectives of a sweep, where labels tell harm from good work, and where none do."""
_X, _Y = "x", "y"


def pareto(given: Sweep | Search, objectives: Sequence[str | Objective] | None = None) -> Plot:
    """Draw versions by two objectives.

    Args:
        given: a sweep; or a search: its part that was searched on, and what was confirmed.
        objectives: which two, the one across first; None: of a search its first two, of a sweep what is lost against
            what is let through, or, where no label tells these apart, calls held up against approvals asked.

    Raises:
        WorkbenchError: not two objectives, or not of this search.
    """
    search: Any = given if hasattr(given, "objectives") else None
    wanted = _of_sweep(given, objectives) if search is None else _of_search(search, objectives)  # type: ignore[arg-type]  # a sweep
    if len(wanted) != len((_X, _Y)):
        raise WorkbenchError(f"a front is drawn by two objectives, got {[each.name for each in wanted]}")
    rows = _swept(given, wanted) if search is None else _searched(search, wanted)  # type: ignore[arg-type]  # a sweep
    empty = [each for each, axis in zip(wanted, (_X, _Y), strict=True) if not rows[f"{axis}_of"].sum()]
    if empty:
        return nothing(f"{empty[0].name}: no call of this history can be one ({empty[0].text}).")
    points = _points(rows)
    shown = pl.concat([points.filter(kind=ON_FRONT), _some(points.filter(kind=BEATEN))])
    left = points.height - shown.height
    chart = _chart(shown, wanted, None if search is None else _confirmed(search, wanted))
    tried = count(rows.height, "version")
    title = f"{tried}; points with a number are versions" + (
        f"; {left:,} beaten points left out" if left else ""
    )
    text = f"Front: {tried} by {wanted[0].name} and {wanted[1].name}; {points.filter(kind=ON_FRONT).height:,} on it."
    return Plot(chart.properties(width=WIDTH, height=340, title=title), shown, text)


def _of_sweep(sweep: Sweep, given: Sequence[str | Objective] | None) -> Sequence[Objective]:
    from workbench.searching.objectives import objectives_of  # noqa: PLC0415 - a report draws no front

    if given is not None:
        return objectives_of(given)
    labelled = any(told.side == "attack" for tally in sweep.tallies for told in tally.n)
    return objectives_of(LABELLED if labelled else UNLABELLED)


def _of_search(search: Search, given: Sequence[str | Objective] | None) -> Sequence[Objective]:
    """The objectives across and up."""
    known = {each.name: each for each in search.objectives}
    if given is None:
        return tuple(reversed(search.objectives[:2]))
    names = [each if isinstance(each, str) else each.name for each in given]
    if unknown := [name for name in names if name not in known]:
        raise WorkbenchError(f"the search has no objective {unknown}; it has {', '.join(known)}")
    return tuple(known[name] for name in names)


def _swept(sweep: Sweep, wanted: Sequence[Objective]) -> pl.DataFrame:
    """Counts of every version over all of the history."""
    from workbench.searching.pareto import front  # noqa: PLC0415 - as above
    from workbench.sweep import weighed  # noqa: PLC0415 - as above

    found = sweep.rows.select("version")
    for axis, each in zip((_X, _Y), wanted, strict=True):
        of: Literal["n", "money"] = "money" if each.unit == "money" else "n"
        counts = {axis: each.holds.sum(), f"{axis}_of": each.of.sum()}
        numbers = weighed(sweep.tallies, of=of, counts=counts)
        found = found.hstack(pl.DataFrame(numbers, schema=dict.fromkeys(counts, pl.Int64)))
    return found.with_columns(on_front=pl.Series(front(found.select(_X, _Y).to_numpy())))


def _searched(search: Search, wanted: Sequence[Objective]) -> pl.DataFrame:
    columns = {axis: each.name for axis, each in zip((_X, _Y), wanted, strict=True)}
    return search.rows.select(
        "version",
        "on_front",
        **columns,
        **{f"{axis}_of": f"{name}_of" for axis, name in columns.items()},
    )


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a distinct point: its shares, how many versions are there, and the first of them."""
    kind = pl.when("on_front").then(pl.lit(ON_FRONT)).otherwise(pl.lit(BEATEN))
    shares = {axis: pl.col(axis) / pl.col(f"{axis}_of") for axis in (_X, _Y)}
    return (
        rows.with_columns(**shares, kind=kind)
        .group_by(_X, _Y, "kind")
        .agg(pl.col("version").min(), versions=pl.len().cast(pl.Int64))
        .sort(_X, _Y, "version")
    )


def _some(points: pl.DataFrame) -> pl.DataFrame:
    return points if points.height <= MOST_POINTS else points.gather_every(-(-points.height // MOST_POINTS))


def _confirmed(search: Search, wanted: Sequence[Objective]) -> pl.DataFrame:
    """What was confirmed: shares on the other sessions, and their intervals."""
    rows = []
    for version, found in search.confirmed.items():
        row: dict[str, Any] = {"version": version, "kind": CONFIRMED}
        for axis, each in zip((_X, _Y), wanted, strict=True):
            seen = found[each.name]
            share = seen.count / seen.of if seen.of else None
            row |= {axis: share, f"{axis}_low": seen.lower, f"{axis}_high": seen.upper}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _named(best: pl.DataFrame) -> pl.DataFrame:
    """Points of the front far enough from each other that their numbers can be read."""
    ranges = [(best[axis].max() - best[axis].min()) or 1.0 for axis in (_X, _Y)]  # type: ignore[operator]  # shares
    kept: list[tuple[float, float]] = []
    chosen = []
    for point in best.select(_X, _Y).iter_rows():
        steps = (
            [abs(a - b) / whole for a, b, whole in zip(point, kept[-1], ranges, strict=True)] if kept else []
        )
        chosen.append(not kept or sum(steps) > APART)
        if chosen[-1]:
            kept.append(point)
    return best.filter(pl.Series(chosen, dtype=pl.Boolean))


def _chart(shown: pl.DataFrame, wanted: Sequence[Objective], confirmed: pl.DataFrame | None) -> Any:
    alt = need("altair")
    more = [] if confirmed is None or confirmed.is_empty() else [CONFIRMED]
    colour = alt.Color("kind:N", scale=scale(_COLOURS, [*shown["kind"], *more]))

    def axis(channel: Any, name: str, each: Objective) -> Any:
        said = [shorten(line, MAX_LINE) for line in wrap(visible(each.text), MAX_LINE)]
        title = [shorten(visible(each.name.replace("_", " ")), MAX_LINE), *said[:2]]
        axis = alt.Axis(format="~%", tickCount=6)
        return channel(f"{name}:Q", title=title, axis=axis, scale=alt.Scale(zero=False, nice=True))

    x, y = axis(alt.X, _X, wanted[0]), axis(alt.Y, _Y, wanted[1])
    best = shown.filter(kind=ON_FRONT)
    named = _named(best)
    line = alt.Chart(inline(best)).mark_line(
        interpolate="step-after", strokeWidth=1, color=_COLOURS[ON_FRONT]
    )
    dots = alt.Chart(inline(shown)).mark_point(filled=True, opacity=0.9, size=46)
    text = alt.Chart(inline(named)).mark_text(align="left", dx=7, dy=-7, fontSize=11)
    layers = [line.encode(x=x, y=y), dots.encode(x=x, y=y, color=colour)]
    if more and confirmed is not None:
        base = alt.Chart(inline(confirmed)).encode(color=colour)
        layers += [
            base.mark_rule(opacity=0.7).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y),
            base.mark_rule(opacity=0.7).encode(y=alt.Y("y_low:Q"), y2="y_high:Q", x=x),
            base.mark_point(shape="diamond", filled=True, size=60).encode(x=x, y=y),
        ]
    layers.append(text.encode(x=x, y=y, text="version:N"))
    return alt.layer(*layers)
