"""Show things as HTML: a comparison as a page and as a notebook cell, and what all templates share.

One rule: no number is computed here. Whatever is shown is `Diff.summary()` or one of its tables, so a terminal, a
notebook, the page and MLflow agree. And no string from the log is markup: templates escape everything, the page
forbids scripts and any load, and characters that do not show are written as escapes.

Out of scope: looking at more than the first rows. The page says how many there are, and which table has them.
"""

from __future__ import annotations

import base64
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import certainty, plots
from workbench.effects import STOPPED
from workbench.errors import need
from workbench.faces import written
from workbench.masking import leaving
from workbench.metrics import FREES, HELP, METRICS, RAN, SIDES, STATES, STOPS, has_labels, side_is
from workbench.texts import count, number, share, shorten, visible
from workbench.tracking import shown
from workbench.words import Numbers, cause_words, headline, matrix, tenant_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.compare import Diff, Replayed

MAX_ROWS = 50
"""Decisions in one list of the page."""
MAX_POLICIES = 30
FIRST_ROWS = 12
"""Rows of a long table that a notebook cell shows unfolded."""
MAX_TEXT = 4000
"""Characters of one argument text on the page."""

_EFFECTS = {
    "same": "as it was",
    "altered": "ran; would run otherwise",
    "held": "ran; would wait for approval",
    "prevented": "ran; would not run",
    "released": "did not run; now would",
    "escalated": "did not run; would wait for approval",
    "unknown": "may have run; would not run as it did",
    "undecided": "something it depends on was not recorded",
    "quarantined": "the record does not reproduce itself",
}
_LISTS: tuple[tuple[str, str, pl.Expr], ...] = (
    ("Honest calls disturbed", "They ran, and belong to the user's task.", side_is("honest") & STOPS),
    (
        "Attack calls that would still run",
        "They ran, belong to an attack, and the candidate lets them run again.",
        side_is("attack") & RAN & (pl.col("effect") == "same"),
    ),
    ("Attack calls stopped", "They ran, and belong to an attack.", side_is("attack") & STOPS),
    ("Unlabelled calls stopped", "They ran; nobody said whose they were.", side_is("unlabelled") & STOPS),
    ("Released", "They did not run; now they would, or would wait for approval.", FREES),
    (
        "Other changes",
        "Another verdict; what ran stays, or is in doubt.",
        pl.col("changed") & ~STOPS & ~FREES,
    ),
    ("Could not be replayed", "Neither allowed nor blocked.", pl.col("status") != "decided"),
)
"""The page's lists. Each changed decision is in one of them; each that could not be replayed is in the last."""


def notebook(diff: Diff) -> str:
    """Return the comparison as an HTML fragment for a notebook cell, in the notebook's theme."""
    return rendered("cell.html.j2", _shared(diff))


def page(diff: Diff, *, figures: bool = True) -> str:
    """Return the report as one self-contained HTML page: no scripts, no network, light and dark.

    `figures` draws the charts, too, in about a second.
    """
    drawn = {"effects": plots.effects(diff), "policies": plots.policies(diff)} if figures else {}
    pins = diff.cand.pins
    ledgers = pins.get("ledgers")
    more = {
        "details": _details(diff),
        "figures": {name: picture(plot) for name, plot in drawn.items()},
        "metrics": [metric for metric in METRICS if metric.name in diff.summary()],
        "effects": _effects(diff),
        "causes": diff.causes.collect().to_dicts(),
        "lists": list(_lists(diff)),
        "ledgers": sorted(ledgers.items()) if isinstance(ledgers, dict) else [],
        "lake": shown(diff.cand.lake.uri),
    }
    return rendered("page.html.j2", _shared(diff) | more)


def _details(diff: Diff) -> list[Any]:
    """Gates, what the change is worth, and which numbers are exact: the tables of those results."""
    found: list[Any] = [] if diff.outcome is None else list(diff.outcome.page().parts)
    found += diff.worth.page().parts
    return found + (list(diff.divergence.page().parts[:1]) if certainty.has_history(diff) else [])


def write(diff: Diff, path: str | Path) -> Path:
    """Write `page(diff)` to `path`, making its folder; whole or not at all. Returns the path."""
    return written(page(diff), path)


@cache
def _environment() -> Any:
    jinja2 = need("jinja2")
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("workbench", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "n": _number,
        "seen": lambda value: visible(str(value)),
        "short": shorten,
        "share": share,
        "many": count,
        "ticks": _ticked,
    }
    environment.globals |= {"max_text": MAX_TEXT, "first_rows": FIRST_ROWS, "help": HELP, "states": STATES}
    return environment


_PER_CENT = re.compile(r"(\d) %")


def _ticked(said: str) -> Any:
    """A sentence with what stands between backticks as code, and numbers kept with their `%`; escaped like all."""
    markup = need("markupsafe")
    pieces = _PER_CENT.sub("\\1\N{NO-BREAK SPACE}%", said).split("`")
    whole = len(pieces) % 2 == 1  # a backtick without its fellow is a character like any other
    parts = [
        markup.Markup("<code>{}</code>").format(piece) if place % 2 and whole else markup.escape(piece)
        for place, piece in enumerate(pieces)
    ]
    return markup.Markup("" if whole else "`").join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def rendered(template: str, values: dict[str, Any]) -> str:
    """Fill in one of our templates; every string is escaped."""
    return str(_environment().get_template(template).render(values))


def _shared(diff: Diff) -> dict[str, Any]:
    """What the cell and the page both show."""
    numbers = diff.summary()
    policies = diff.policies.collect()
    return {
        "base": _side("base", diff.base),
        "cand": _side("candidate", diff.cand),
        "lines": headline(diff),
        "summary": numbers,
        "labelled": has_labels(numbers),
        "tiles": _tiles(numbers),
        "matrix": matrix(diff),
        "cell": _cell,
        "tenants": tenant_table(diff),
        "sure": _sure(diff),
        "written": number,
        "policies": policies.head(MAX_POLICIES).to_dicts(),
        "policies_left_out": max(0, policies.height - MAX_POLICIES),
        "policies_unlabelled": bool(policies["unlabelled_calls_stopped"].sum()),
    }


def _sure(diff: Diff) -> dict[str, Any]:
    """What the change is worth and how sure that is: sentences, and tables as `workbench.faces` has them."""
    if not certainty.at_a_glance(diff):
        return {"lines": [], "tables": []}
    found = certainty.table(diff)
    return {"lines": list(certainty.lines(diff)), "tables": [] if found is None else [found]}


def _side(role: str, replay: Replayed) -> dict[str, str]:
    name, version = replay.policy
    return {"role": role, "name": name, "version": version, "context": replay.context, "id": replay.id}


def _tiles(numbers: Numbers) -> list[tuple[str, str, str, str]]:
    """The numbers everybody asks for first: part, whole, in words, hue."""
    sides = ("attack", "honest") if has_labels(numbers) else ("unlabelled",)
    hues = {"attack": "good", "honest": "bad", "unlabelled": "tight"}
    verbs = [(side, SIDES[side]) for side in sides]
    calls = [
        (f"{side}_calls_{verb}", f"{side}_calls_ran", f"{side} calls {verb}", hues[side])
        for side, verb in verbs
    ]
    return [
        *calls,
        ("decisions_changed", "decisions", "decisions change", "tight"),
        ("decisions_replayed", "decisions", "decisions replayed", "plain"),
    ]


def _cell(before: str, to: str, number: int, most: int) -> tuple[str, int]:
    """Hue and strength of a cell of the matrix; the scale is a square root, so that rare changes show."""
    direction = STATES.index(to) - STATES.index(before)
    hue = "tight" if direction > 0 else "loose" if direction < 0 else "same"
    doubt = {before, to} & {"undecided", "quarantined"}
    return "doubt" if doubt else hue, round(12 + 46 * math.sqrt(number / most))


def _effects(diff: Diff) -> list[dict[str, Any]]:
    found = diff.effects.collect()
    total = found.select(pl.col("n", *SIDES).sum()).to_dicts()[0] | {"effect": "all", "help": ""}
    return [*(row | {"help": _EFFECTS[row["effect"]]} for row in found.to_dicts()), total]


def _lists(diff: Diff) -> Iterator[dict[str, Any]]:
    totals = diff.frame.select(where.sum().alias(title) for title, _, where in _LISTS).collect()
    for title, help_, where in _LISTS:
        if n := int(totals[title].item()):
            found = leaving(diff.rows(where).head(MAX_ROWS).collect())
            rows = [_listed(row) for row in found.iter_rows(named=True)]
            yield {"title": title, "help": help_, "n": n, "rows": rows}


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    """A decision as the page shows it: who decided, and which hue its effect has."""
    nobody = f"({row['decided_by']}: {row['reason_code']})"
    by = [cause_words(row)] if row["status"] != "decided" else list(row["determining"] or [nobody])
    hues = dict.fromkeys(STOPPED, "tight") | {"released": "loose", "escalated": "loose", "same": "same"}
    hue = hues.get(row["effect"], "doubt")
    now = row["enforced_args"] if row["enforced_args"] != row["args"] else None
    return row | {"by": by, "hue": hue, "args": row["args"] or "", "now": now, "reason": row["reason"] or ""}


def picture(plot: plots.Plot) -> dict[str, str]:
    """The chart in both themes, as images: what is in an image cannot run or load."""
    return {theme: _data_uri(plot.svg(theme)) for theme in ("light", "dark")}


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
