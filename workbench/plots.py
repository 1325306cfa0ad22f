"""Pictures of a comparison: Altair charts that need no network, in a notebook, a report and as files.

One rule: a chart shows numbers that `Diff` gives, and computes none. It is drawn here, by vl-convert; what leaves is
an image, so no script and no CDN is needed to look at it, and text from the log stays text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.errors import need
from workbench.metrics import SIDES, STATES
from workbench.texts import visible

if TYPE_CHECKING:
    from workbench.compare import Diff

Theme = Literal["light", "dark", "either"]
"""`either`: grey text that reads on both, for a notebook whose theme we do not know."""

MAX_BARS = 15
"""Tenants or policies in one chart; the rest are one bar, `n others`."""

_INK: dict[Theme, str] = {"light": "#4b5563", "dark": "#b6bec9", "either": "#7f8894"}
_RULE: dict[Theme, str] = {"light": "#e5e7eb", "dark": "#343b45", "either": "#7f889444"}
_EFFECT_COLOURS = {
    "prevented": "#1f7a5c",
    "held": "#35a79c",
    "altered": "#5b8def",
    "released": "#e07a3f",
    "escalated": "#d9a441",
    "unknown": "#8f6bb3",
    "undecided": "#b08bd0",
    "quarantined": "#6b5b7b",
    "same": "#a9b2bc",
}
"""In the order they are stacked: what changes first."""
_STACKED = {effect: place for place, effect in enumerate(_EFFECT_COLOURS)}


@dataclass(frozen=True)
class Plot:
    """A chart that shows itself as an image, offline."""

    chart: Any
    """The Altair chart, to change at will."""

    def svg(self, theme: Theme = "either") -> str:
        """Return the chart as SVG text; about 0.1 s, the first one 1 s."""
        return str(need("vl_convert").vegalite_to_svg(self._themed(theme).to_dict()))

    def png(self, theme: Theme = "light", *, scale: float = 2) -> bytes:
        """Return the chart as PNG; `scale` 1 is 72 dots an inch."""
        return bytes(need("vl_convert").vegalite_to_png(self._themed(theme).to_dict(), scale=scale))

    def save(self, path: str | Path, theme: Theme = "light") -> Path:
        """Write the chart as `.svg` or `.png`, by the ending. Returns the path.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".svg":
                path.write_text(self.svg(theme), encoding="utf-8")
            case ".png":
                path.write_bytes(self.png(theme))
            case other:
                raise ValueError(f"a plot is saved as `.svg` or `.png`, got {other!r} in {str(path)!r}")
        return path

    def _themed(self, theme: Theme) -> Any:
        ink, rule = _INK[theme], _RULE[theme]
        text = {"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal"}
        axis = text | {
            "gridColor": rule,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "labelLimit": 220,
        }
        config = {
            "background": "transparent",
            "font": "Arial, Helvetica, sans-serif",  # one set of widths: what is measured here is what is shown
            "padding": 8,
            "view": {"stroke": None},
            "axis": axis,
            "legend": text | {"orient": "top", "title": None, "symbolType": "square"},
            "header": text,
            "title": {"color": ink, "anchor": "start", "fontWeight": "normal"},
        }
        return self.chart.configure(**config)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": repr(self)}


def effects(diff: Diff) -> Plot:
    """Draw what becomes of the calls that ran: a bar for each tenant and side, split by effect."""
    alt = need("altair")
    rows = diff.frame.filter(pl.col("then") == "ran").group_by("tenant", "side", "effect").agg(n=pl.len())
    data = _folded(rows.collect(), "tenant", "n", keys=["side", "effect"]).with_columns(
        pl.col("side") + " calls"
    )
    bars = (
        alt.Chart(alt.InlineData(values=data.to_dicts()))
        .mark_bar(height=14)
        .encode(
            x=alt.X(
                "n:Q",
                stack="normalize",
                title="share of the calls that ran",
                axis=alt.Axis(format="%", tickCount=5),
            ),
            y=alt.Y("tenant:N", title=None),
            color=_colours(alt, data["effect"].unique()),
            order=alt.Order("order:Q"),
        )
        .properties(width=560, height=alt.Step(24))
    )
    sides = [f"{side} calls" for side in SIDES]
    header = alt.Header(
        labelAngle=0, labelAlign="left", labelFontWeight="bold", labelOrient="top", labelAnchor="start"
    )
    row = alt.Row("side:N", sort=sides, title=None, header=header)
    return Plot(bars.facet(row=row, spacing=10).resolve_scale(y="independent"))


def policies(diff: Diff) -> Plot:
    """Draw which policies stop calls that ran: attack calls, honest calls, unlabelled calls."""
    alt = need("altair")
    counts = {f"{side}_calls_{verb}": f"{side} calls {verb}" for side, verb in SIDES.items()}
    found = diff.policies.rename(counts).group_by("policy").agg(pl.col(*counts.values()).sum())
    data = _folded(
        found.unpivot(list(counts.values()), index="policy", variable_name="calls", value_name="n")
        .filter(pl.col("n") > 0)
        .collect(),
        "policy",
        "n",
        keys=["calls"],
    )
    names = [name for name in counts.values() if name in set(data["calls"])]
    colours = dict(zip(counts.values(), ("#1f7a5c", "#d9822b", "#9aa5b1"), strict=True))
    chart = (
        alt.Chart(alt.InlineData(values=data.to_dicts()))
        .mark_bar(height=14)
        .encode(
            x=alt.X(
                "n:Q",
                title="calls that ran and would be stopped",
                axis=alt.Axis(tickMinStep=1, tickCount=6, format=",d"),
            ),
            y=alt.Y("policy:N", sort="-x", title=None),
            order=alt.Order("calls:N"),
            color=alt.Color(
                "calls:N", scale=alt.Scale(domain=names, range=[colours[name] for name in names])
            ),
        )
    )
    return Plot(chart.properties(width=520, height=alt.Step(24)))


def transitions(diff: Diff) -> Plot:
    """Draw the transition matrix; a cell's colour is its square root, so that rare changes show."""
    alt = need("altair")
    data = diff.transitions.with_columns(pl.col("from", "to").cast(pl.String)).collect()
    base = alt.Chart(alt.InlineData(values=data.to_dicts())).encode(
        x=alt.X(
            "to:N",
            sort=list(STATES),
            title=visible(diff.cand.policy[0]),
            axis=alt.Axis(orient="top", labelAngle=0),
        ),
        y=alt.Y("from:N", sort=list(STATES), title=visible(diff.base.policy[0])),
    )
    colour = alt.Color("n:Q", scale=alt.Scale(type="sqrt", range=["#dbe4f0", "#3b6fb5"]), legend=None)
    most = max(data["n"].to_list(), default=0)
    ink = alt.condition(f"datum.n > {most / 3}", alt.value("#fff"), alt.value("#222"))
    text = base.mark_text().encode(text=alt.Text("n:Q", format=","), color=ink)
    return Plot(
        (base.mark_rect(cornerRadius=3).encode(color=colour) + text).properties(width=480, height=260)
    )


def _colours(alt: Any, used: pl.Series) -> Any:
    domain = [effect for effect in _EFFECT_COLOURS if effect in set(used)]
    return alt.Color(
        "effect:N", scale=alt.Scale(domain=domain, range=[_EFFECT_COLOURS[effect] for effect in domain])
    )


def _folded(data: pl.DataFrame, name: str, size: str, *, keys: list[str]) -> pl.DataFrame:
    """Keep the `MAX_BARS` largest names, fold the rest into one; made visible, sorted, with a stacking order."""
    totals = data.group_by(name).agg(pl.col(size).sum()).sort(size, name, descending=[True, False])
    kept, rest = totals[name][:MAX_BARS].to_list(), max(0, totals.height - MAX_BARS)
    shown = pl.when(pl.col(name).is_in(kept)).then(name).otherwise(pl.lit(f"{rest} others"))
    folded = data.with_columns(shown).group_by(name, *keys).agg(pl.col(size).sum())
    order = (
        pl.col("effect").replace_strict(_STACKED, return_dtype=pl.Int64) if "effect" in keys else pl.lit(0)
    )
    texts = {kept_name: visible(kept_name) for kept_name in folded[name].unique()}
    return (
        folded.with_columns(pl.col(*keys).cast(pl.String))
        .with_columns(order=order)
        .sort(name, *keys)
        .with_columns(pl.col(name).replace_strict(texts, return_dtype=pl.String))
    )
