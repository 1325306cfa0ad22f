"""What a tuner's view shows, as JSON: numbers written out, differences told apart, good from bad.

One rule: nothing is computed in the browser. It gets the words and marks of each cell, and draws them; so the view,
its tests and a person in a terminal see the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from workbench.metrics import STATES
from workbench.searching.objectives import OBJECTIVES
from workbench.texts import count, share, shorten, visible
from workbench.tuning.sliders import sliders_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workbench.live.answer import Answer
    from workbench.tuning.state import Now
    from workbench.tuning.trying import Tried, Try

Tone = Literal["good", "bad", "none"]
"""Whether a difference is welcome; `none` where nobody can say."""

MAX_FLIPS = 50
"""Kinds of changed verdicts in one table."""
MAX_NAME = 120
MAX_POINTS = 400
"""Versions in one picture; the newest, and those on the front."""
_TILES: Mapping[str, str] = {
    "harm_let_through": "Harm let through",
    "good_held_up": "Good work held up",
    "calls_held_up": "Calls held up",
    "approvals_asked": "Approvals asked",
    "undecided": "Undecided",
}
_UNITS: Mapping[str, str] = {
    "harm_let_through": "of attack calls",
    "good_held_up": "of good calls that ran",
    "calls_held_up": "of calls that ran",
    "approvals_asked": "of all decisions",
    "undecided": "of all decisions",
}


def files_of(now: Now) -> dict[str, Any]:
    """Return the texts: those that may be edited, and the others."""
    editable = now.draft.editable
    return {
        "policies": {file: now.draft.files[file] for file in editable},
        "others": {file: text for file, text in now.draft.files.items() if file not in editable},
    }


def problems_of(now: Now) -> list[dict[str, Any]]:
    """Return what is wrong with the texts, each at its line."""
    return [{**asdict(each), "place": each.place} for each in now.draft.problems]


def controls_of(now: Now) -> list[dict[str, Any]]:
    """Return the sliders; while the text is in error, those of the last one that loads: they cannot be moved then."""
    return [asdict(slider) for slider in sliders_of(now.bundle)]


def status_of(now: Now) -> dict[str, Any]:
    """Return in which state the session is, and a sentence about it."""
    phase = "ready"
    if now.draft.problems:
        phase = "error"
        wrong = count(len(now.draft.problems), "problem")
        text = f"{wrong} in the text: the numbers are of the last version that loads"
    elif now.problem:
        phase, text = "failed", f"could not be decided: {now.problem}"
    elif now.is_deciding:
        phase, text = "deciding", "deciding…"
    else:
        text = f"{now.answer.decisions:,} decisions in {_duration(now.answer.seconds)}"
        handed_over = sum(now.answer.handed_over.values())
        if now.answer.left:
            text += f"; {now.answer.left:,} of them not yet: Cedar must be asked, they count as undecided"
        elif handed_over:
            text += f", {handed_over:,} of them by Cedar"
    left = now.answer.left if phase == "ready" else 0
    return {"phase": phase, "text": text, "is_stale": now.is_stale, "left": left}


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def answer_of(now: Now, baseline: Answer) -> dict[str, Any]:
    """Return verdicts and tiles, each with its difference to the baseline."""
    return {
        "verdicts": list(_verdicts(now.answer, baseline)),
        "tiles": list(_tiles(now.answer, baseline)),
        "flips": list(_flips(now)),
        "flipped": _flipped(now),
    }


def _flips(now: Now) -> Iterator[dict[str, str]]:
    for tool, before, after, n in now.change.flips.head(MAX_FLIPS).iter_rows():
        yield {"tool": visible(shorten(tool, MAX_NAME)), "from": before, "to": after, "n": f"{n:,}"}


def _flipped(now: Now) -> str:
    kinds = now.change.flips.height
    if not kinds:
        return "None: every decision has the verdict that the baseline gives it."
    rest = f"; the {MAX_FLIPS} most frequent of {kinds:,} kinds are listed" if kinds > MAX_FLIPS else ""
    return f"{share(now.change.changed, now.answer.decisions)} of all: {count(now.change.changed, 'decision')}{rest}."


def _verdicts(answer: Answer, baseline: Answer) -> Iterator[dict[str, Any]]:
    for state in STATES:
        n, was = answer.verdicts.get(state, 0), baseline.verdicts.get(state, 0)
        if n or was or state not in ("undecided", "quarantined"):
            yield {
                "name": state,
                "n": f"{n:,}",
                "share": share(n, answer.decisions),
                "part": n / max(1, answer.decisions),
                "delta": signed(n - was),
                "tone": "none",
            }


def _tiles(answer: Answer, baseline: Answer) -> Iterator[dict[str, Any]]:
    numbers, before = _numbers(answer), _numbers(baseline)
    for name, title in _TILES.items():
        n, of = numbers.get(name, (0, 0))
        if name == "calls_held_up" and numbers.get("good_held_up", (0, 0))[1]:
            continue  # whose calls they are is known
        yield {
            "name": name,
            "title": title,
            "n": f"{n:,}",
            "share": f"{share(n, of)} {_UNITS[name]}" if of else "no labels say so",
            "part": n / max(1, of),
            "delta": signed(n - before.get(name, (0, 0))[0]),
            "tone": _tone(n - before.get(name, (0, 0))[0]) if of else "none",
            "help": OBJECTIVES[name].text if name in OBJECTIVES else "neither allowed nor blocked",
        }


def _numbers(answer: Answer) -> dict[str, tuple[int, int]]:
    undecided = sum(answer.verdicts.get(state, 0) for state in ("undecided", "quarantined"))
    return {**answer.objectives, "undecided": (undecided, answer.decisions)}


def signed(difference: int) -> str:
    """Write a difference.

    Example:
        >>> signed(1200), signed(-3), signed(0)
        ('+1,200', '−3', '±0')
    """
    return f"+{difference:,}" if difference > 0 else f"−{-difference:,}" if difference else "±0"


def _tone(difference: int) -> Tone:
    """Of a number of which less is better."""
    return "bad" if difference > 0 else "good" if difference else "none"


def picture_of(now: Now, tried: Tried, baseline: Answer) -> dict[str, Any]:
    """Return the versions tried as points: what is held up against what is let through, and which is which."""
    x, y = tried.axes
    on_front = tried.front
    points = [_point(each, x.name, y.name, is_front=each.number in on_front) for each in tried.all]
    kept = [point for point in points if point["front"] or point["number"] == 0]
    rest = [point for point in points if point not in kept]
    room = max(0, MAX_POINTS - len(kept))
    current = tried.by_version.get(now.bundle.version)
    return {
        "x": {"title": _TILES[x.name], "help": x.text},
        "y": {"title": _TILES[y.name], "help": y.text},
        "points": sorted([*kept, *rest[len(rest) - room :]], key=lambda point: point["number"]),
        "left_out": len(rest) - min(room, len(rest)) + tried.dropped,
        "current": -1 if current is None else current.number,
        "baseline": {"x": baseline.objectives[x.name][0], "y": baseline.objectives[y.name][0]},
    }


def _point(tried: Try, x: str, y: str, *, is_front: bool) -> dict[str, Any]:
    (across, _), (up, _) = tried.objectives[x], tried.objectives[y]
    what = tried.changed or "as the session began"
    return {
        "number": tried.number,
        "x": across,
        "y": up,
        "front": is_front,
        "text": f"#{tried.number}: {visible(shorten(what, 120))}",
        "said": f"{_TILES[x]} {across:,}, {_TILES[y].lower()} {up:,}",
    }
