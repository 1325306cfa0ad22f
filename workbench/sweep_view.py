"""A sweep in words and bars, for a terminal and a notebook cell.

One rule: no number is computed here; all are columns of `Sweep.frame`. Strings pass `visible`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.faces import Bar, Bars, Page, Table, cell
from workbench.metrics import SIDES, STATES, UNRESOLVED
from workbench.replay import left_out
from workbench.sweep import COUNTS
from workbench.texts import count, shorten, visible
from workbench.words import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from workbench.sweep import Sweep

MAX_ROWS = 40
"""Versions in one table; `sweep.frame` has all."""
MAX_BARS = 8
"""Versions whose verdicts are drawn."""
_MAX_TEXT = 32


class View(NamedTuple):
    """What both faces show."""

    title: str
    lines: list[str]
    heads: list[str]
    rows: list[list[str | int]]
    left_out: int


def text(sweep: Sweep) -> str:
    """Return the sweep as plain text."""
    view = view_of(sweep)
    more = [f"{view.left_out:,} more in `sweep.frame`"] if view.left_out else []
    return "\n".join([view.title, *view.lines, "", *aligned([view.heads, *view.rows]), *more])


def html(sweep: Sweep) -> str:
    """Return the sweep as an HTML fragment for a notebook cell."""
    return cell(page(sweep))


def page(sweep: Sweep) -> Page:
    """Return the sweep as a page: the verdicts of its first versions as bars, then the numbers of more."""
    view = view_of(sweep)
    first = sweep.rows.head(MAX_BARS)
    labels = [" ".join(map(str, row)) for row in first.select(_tuned(first)).iter_rows()]
    bars = [
        Bar(f"version {label}", list(row.items()))
        for label, row in zip(labels, first.select(STATES).iter_rows(named=True), strict=True)
    ]
    more = f" The first {MAX_BARS} of {sweep.rows.height:,} versions." if sweep.rows.height > MAX_BARS else ""
    note = f"{view.left_out:,} more in `sweep.frame`." if view.left_out else ""
    return Page(
        kind="sweep",
        title=view.title,
        lines=[*view.lines, f"Exact on this log. Engine {visible(sweep.engine)}."],
        parts=(
            Bars(title="Verdicts", note=f"Of every version.{more}", bars=bars),
            Table(title="Versions", note=note, heads=view.heads, rows=view.rows),
        ),
        next=(
            "sweep.frame", "sweep.decisions(0)", "wb.compare(lake.replay(), sweep.replay(0))",
            "sweep.bundle(0).files",
        ),
    )  # fmt: skip


def _tuned(rows: pl.DataFrame) -> list[str]:
    """What tells versions apart: their number, and the values that were tuned or their bundle's name."""
    tuned = [
        name
        for name in rows.columns
        if name not in COUNTS and name not in ("version", "policy_version", "name")
    ]
    return ["version", *(tuned or ["name"])]


def view_of(sweep: Sweep) -> View:
    """Return title, sentences and table."""
    rows = sweep.rows
    names = sorted(set(rows["name"]))
    what = visible(shorten(names[0], _MAX_TEXT)) if len(names) == 1 else count(len(names), "bundle")
    title = f"Sweep: {count(rows.height, 'version')} of {what}, contexts {visible(sweep.context)}"
    columns = list(_columns(rows))
    cells = [[_cell(value) for value in row] for row in rows.select(columns).head(MAX_ROWS).rows()]
    heads = [visible(shorten(name, _MAX_TEXT)).replace("_calls_", " ") for name in columns]
    return View(title, list(_lines(sweep)), heads, cells, max(0, rows.height - MAX_ROWS))


def _columns(rows: pl.DataFrame) -> Iterator[str]:
    """The columns worth a glance: which version, its verdicts, and whose calls it stops."""
    tuned = [name for name in rows.columns if name not in COUNTS]
    yield "version"
    yield from (name for name in tuned if name not in ("version", "policy_version", "name"))
    if rows["name"].n_unique() > 1 or len(tuned) == len(("version", "policy_version", "name")):
        yield "name"
    yield from (state for state in STATES if state not in UNRESOLVED or rows[state].sum())
    for side, verb in SIDES.items():
        if rows[f"{side}_calls_ran"].sum():
            yield f"{side}_calls_{verb}"


def _cell(value: Any) -> str | int:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, int) else visible(shorten(str(value), _MAX_TEXT))


def _lines(sweep: Sweep) -> Iterator[str]:
    """What the versions range over, in sentences."""
    rows = sweep.rows
    yield f"{count(rows['decisions'][0], 'decision')} each."
    for side, verb in SIDES.items():
        ran, stopped = rows[f"{side}_calls_ran"], rows[f"{side}_calls_{verb}"]
        if ran.sum():
            verbs = {"stopped": "Stop", "disturbed": "Disturb"}
            yield f"{verbs[verb]} {_span(stopped)} of {count(ran[0], f'{side} call')} that ran."
    for state in UNRESOLVED:
        if rows[state].sum():
            yield f"{_span(rows[state])} {state}: neither allowed nor blocked."
    if beyond := left_out(sweep.lake.held_back):
        yield f"{beyond[0].upper()}{beyond[1:]}."


def _span(numbers: pl.Series) -> str:
    least, most = int(numbers.min()), int(numbers.max())  # type: ignore[arg-type]  # counts, and there is one
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
