"""A night as a page: in a terminal, a notebook cell and an HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.faces import Faces, Listing, Page
from workbench.regressing.reporting.as_json import as_dict
from workbench.regressing.reporting.sections import HUE, exit_words, headline, sections
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.canonical import Json
    from workbench.parts import Part
    from workbench.regressing.reporting.sections import Section
    from workbench.regressing.result import Night


@dataclass(frozen=True, slots=True, repr=False)
class Told(Faces):
    """A night that shows itself."""

    night: Night
    whole: bool = True
    """Whether its page has the tables of all numbers, too."""

    def page(self) -> Page:
        """What it says."""
        return night_page(self.night, whole=self.whole)

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return as_dict(self.night)


def night_page(night: Night, *, whole: bool = True) -> Page:
    """Return what a night says as a page; `whole`: with the tables of all numbers, which a face may fold."""
    return Page(
        kind="regression job",
        title=night.job,
        badges=((night.verdict, HUE[night.verdict]),),
        lines=(*headline(night), exit_words(night)),
        parts=tuple(part for section in sections(night) for part in _parts(section, whole=whole)),
        pins={
            "lake": shown(night.lake),
            "started": night.started,
            **({"took": f"{night.seconds:,.1f} s"} if night.seconds else {}),
            **({"resumed": "where an earlier try was stopped"} if night.resumed else {}),
            **night.outputs,
        },
    )


def _parts(section: Section, *, whole: bool) -> Iterator[Part]:
    badge = f" ({section.badge[0]})" if section.badge else ""
    yield Listing(title=section.title + badge, note=" ".join(section.lines), items=section.items)
    yield from section.parts
    yield from section.folded if whole else ()
