"""What a dry run shows: the windows that a job would judge, and what would keep it from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from workbench import faces
from workbench.regressing.reporting.sections import span
from workbench.texts import count
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.canonical import Json
    from workbench.regressing.result import Candidate, Night, Range


@dataclass(frozen=True, slots=True, repr=False)
class Plan(faces.Faces):
    """A night of which only the windows are known."""

    night: Night

    @property
    def runs(self) -> bool:
        """Whether nothing is known that would keep the job from its verdict."""
        found = [each.window for each in self.night.candidates]
        return not self.night.problems and all(found)

    def page(self) -> faces.Page:
        """Say the windows."""
        night = self.night
        rows = [_row(each) for each in night.candidates]
        if night.drift is not None:
            rows.append(
                ("this window beside the last", "", night.drift.night, *_window(night.drift.after), 0)
            )
        heads = ("candidate", "against", "night", "decisions", "sessions", "from", "to", "late sessions")
        table = faces.Table(title="Windows", heads=heads, rows=rows, code=frozenset({0, 1}))
        return faces.Page(
            kind="dry run",
            title=night.job,
            badges=(("dry run", "plain"),),
            lines=tuple(self._lines()),
            parts=(table,),
            pins={"lake": shown(night.lake)},
        )

    def _lines(self) -> Iterator[str]:
        asked = len(self.night.candidates)
        what = (
            count(asked, "candidate") if asked else "no candidate: this window would be held beside the last"
        )
        yield f"Nothing was judged, kept or sent: {what}."
        for each in self.night.candidates:
            told = [span(each.window)] if each.window is not None else ["no window"]
            yield f"`{each.name}`: {'. '.join([*told, *each.notes])}."
        yield from (f"Problem: {each}" for each in self.night.problems)

    def as_dict(self) -> dict[str, Json]:
        """Return the windows as JSON."""
        from workbench.regressing.reporting.as_json import as_dict  # noqa: PLC0415 - only where JSON is asked for

        whole = as_dict(self.night)
        kept = {name: whole[name] for name in ("job", "lake", "problems")}
        names = ("name", "version", "baseline", "baseline_version", "night", "window", "reopened", "notes")
        candidates = cast("list[dict[str, Json]]", whole["candidates"])  # what `as_dict` makes of them
        drift = cast("dict[str, Json] | None", whole["drift"])
        windows: list[Json] = [{name: each[name] for name in names} for each in candidates]
        after = None if drift is None else drift["after"]
        return {"dry_run": True, "runs": self.runs, **kept, "candidates": windows, "drift": after}


def _row(each: Candidate) -> tuple[faces.Cell, ...]:
    late = sum(window.sessions for window in each.reopened)
    return each.name, each.baseline, each.night, *_window(each.window), late


def _window(window: Range | None) -> tuple[faces.Cell, ...]:
    if window is None:
        return None, None, None, None
    return window.decisions, window.sessions, (window.first or "")[:19], (window.last or "")[:19]
