"""A picture that shows itself: in a notebook, a report and as a file, light and dark, without a network.

One rule: it is drawn here, by vl-convert, and what leaves is an image: no script and no CDN is needed to look at it,
and text from the log stays text.

Accepted: nothing moves and nothing can be hovered over. The numbers are in `Plot.data`; the chart itself is an Altair
chart (`Plot.chart`) for who wants more.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.errors import need
from workbench.masking import leaving

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Theme = Literal["light", "dark", "either"]
"""`either`: grey text that reads on both, where the theme is not known."""

INK: dict[Theme, str] = {"light": "#4b5563", "dark": "#b6bec9", "either": "#7f8894"}
RULE: dict[Theme, str] = {"light": "#e5e7eb", "dark": "#343b45", "either": "#7f889444"}
WIDTH = 560
"""Of a panel, in pixels; with its labels it fits a notebook of 1280."""
_SHOWN = """<style>
.rd-plot{display:inline-block;max-width:100%;padding:8px 12px;border-radius:8px;background:#fff}
.rd-plot img{display:block;max-width:100%;height:auto}
.rd-plot img.rd-dark{display:none}
@media (prefers-color-scheme:dark){.rd-plot{background:#13171c}
  .rd-plot img.rd-light{display:none}.rd-plot img.rd-dark{display:block} }
body[data-jp-theme-light="true"] .rd-plot,body.vscode-light .rd-plot{background:#fff}
body[data-jp-theme-light="true"] .rd-plot img.rd-light,body.vscode-light .rd-plot img.rd-light{display:block}
body[data-jp-theme-light="true"] .rd-plot img.rd-dark,body.vscode-light .rd-plot img.rd-dark{display:none}
body[data-jp-theme-light="false"] .rd-plot,body.vscode-dark .rd-plot{background:#13171c}
body[data-jp-theme-light="false"] .rd-plot img.rd-light,body.vscode-dark .rd-plot img.rd-light{display:none}
body[data-jp-theme-light="false"] .rd-plot img.rd-dark,body.vscode-dark .rd-plot img.rd-dark{display:block}
</style>"""
"""What the notebook says of its theme comes first, then what the system says, as in `templates/_style.html.j2`."""


@dataclass(frozen=True, repr=False, eq=False)
class Plot:
    """A chart that shows itself as an image, offline."""

    chart: Any
    """The Altair chart, to change at will."""
    data: pl.DataFrame
    """The numbers that are drawn, folded as they are drawn."""
    text: str
    """Says what is drawn, for who does not see it."""

    def svg(self, theme: Theme = "either") -> str:
        """Return the chart as SVG text; about 0.1 s, the first one 1 s."""
        return str(need("vl_convert").vegalite_to_svg(self._spec(theme)))

    def png(self, theme: Theme = "light", *, scale: float = 2) -> bytes:
        """Return the chart as PNG; `scale` 1 is 72 dots an inch."""
        return bytes(need("vl_convert").vegalite_to_png(self._spec(theme), scale=scale))

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

    def _spec(self, theme: Theme) -> dict[str, Any]:
        found: dict[str, Any] = self._themed(theme).to_dict()
        return found

    def _themed(self, theme: Theme) -> Any:
        ink, rule = INK[theme], RULE[theme]
        text = {"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal"}
        axis = text | {
            "gridColor": rule,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "labelLimit": 270,
            "titleLimit": WIDTH,
        }
        config = {
            "background": {"light": "#ffffff", "dark": "#13171c", "either": "transparent"}[theme],
            "font": "Arial, Helvetica, sans-serif",  # one set of widths: what is measured here is what is shown
            "padding": 8,
            "view": {"stroke": None},
            "axis": axis,
            "legend": text
            | {"orient": "top", "title": None, "symbolType": "square", "symbolOpacity": 1, "labelLimit": 320},
            "header": text,
            "text": {"color": ink},
            "rule": {"color": ink},
            "title": _title(ink),
        }
        return self.chart.properties(description=self.text).configure(**config)

    def __repr__(self) -> str:
        return f"{self.text}\n`.data` has the numbers, `.save('picture.svg')` the picture."

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        images = "".join(
            f'<img class="rd-{theme}" alt="{escape(self.text)}" src="{_data_uri(self.svg(theme))}">'
            for theme in ("light", "dark")
        )
        shown = f'{_SHOWN}<div class="rd-plot">{images}</div>'
        return {"text/html": shown, "image/svg+xml": self.svg(), "text/plain": repr(self)}


def _title(ink: str) -> dict[str, Any]:
    """How a title and what stands under it are written."""
    size = {"fontSize": 12, "subtitleFontSize": 11, "limit": WIDTH + 260}
    return size | {"color": ink, "subtitleColor": ink, "anchor": "start", "fontWeight": "normal"}


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def nothing(text: str) -> Plot:
    """Draw that there is nothing to draw.

    Args:
        text: says what there is none of.
    """
    alt = need("altair")
    data = pl.DataFrame({"said": [text]})
    chart = alt.Chart(inline(data)).mark_text(fontSize=13, align="left", dx=8).encode(text="said:N")
    return Plot(chart.encode(x=alt.value(0)).properties(width=WIDTH, height=48), data, text)


def inline(data: pl.DataFrame) -> Any:
    """Return rows as a chart takes them: in itself, and masked, because a picture is made to leave."""
    return need("altair").InlineData(values=leaving(data).to_dicts())


def scale(colours: Mapping[str, str], used: Iterable[object]) -> Any:
    """Return the scale of the colours that are used, in their order."""
    wanted = set(used)
    domain = [name for name in colours if name in wanted]
    return need("altair").Scale(domain=domain, range=[colours[name] for name in domain])
