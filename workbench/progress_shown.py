"""Where progress is seen: a line of a terminal, or an output of a notebook.

One rule: both are gone when the work is: the line is wiped, the output is empty, also in a notebook that is saved.

Out of scope: widgets. An output that is replaced needs none, shows in every front end, and leaves no model behind in
the kernel.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from workbench.progress import Surface, Told

CELLS = 14
"""Characters of a bar in a terminal."""
_FULL, _PARTS, _EMPTY = "█", " ▏▎▍▌▋▊▉", " "
MINUTE, HOUR = 60, 3600
LEAST = 0.02
"""Of the work done before it is said how long the rest will take."""


def surface() -> Surface | None:
    """Return where a person may be looking: a notebook, a terminal; None: nowhere."""
    if _in_kernel():
        return _Output()
    error = sys.stderr
    return _Line(error) if error is not None and error.isatty() else None


def _in_kernel() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython  # noqa: PLC0415 - there is a kernel, so it is loaded

    return hasattr(get_ipython(), "kernel")


def told_text(told: Told, *, percent: bool = True) -> str:
    """Say how far work is, and how long the rest will take; where that is not known, how long it has taken.

    Example:
        >>> from workbench.progress import Told
        >>> told_text(Told(text="", done=1200, total=4000, unit="decision", fraction=0.3, seconds=30))
        '30 %, 1,200 of 4,000 decisions, about 1:10 left'
    """
    parts = [] if told.fraction is None or not percent else [f"{100 * told.fraction:.0f} %"]
    if told.total is not None:
        parts.append(f"{told.done:,} of {told.total:,} {told.unit}s")
    if told.fraction is not None and LEAST < told.fraction < 1:
        parts.append(f"about {_clock(told.seconds * (1 - told.fraction) / told.fraction)} left")
    else:
        parts.append(_clock(told.seconds))
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), MINUTE)
    hours, minutes = divmod(minutes, HOUR // MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(slots=True)
class _Line:
    """The last line of a terminal."""

    stream: TextIO

    def draw(self, told: Told) -> None:
        columns = shutil.get_terminal_size().columns - 1
        bar = "" if told.fraction is None else f" |{_bar(told.fraction)}|"
        numbers = f" {told_text(told, percent=False)}"
        if len(told.text) + len(bar) + len(numbers) > columns:
            bar, numbers = "", f" {told_text(told)}"
        room = max(0, columns - len(bar) - len(numbers))
        text = told.text if len(told.text) <= room else f"…{told.text[len(told.text) - room + 1 :]}"
        self._write(f"\r{text}{bar}{numbers}"[: columns + 1] + "\x1b[K")

    def clear(self) -> None:
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        known = text.encode(self.stream.encoding or "ascii", "replace").decode(
            self.stream.encoding or "ascii"
        )
        try:
            self.stream.write(known)
            self.stream.flush()
        except (OSError, ValueError):
            return  # the terminal is gone; the work goes on


def _bar(fraction: float) -> str:
    eighths = round(fraction * CELLS * len(_PARTS))
    full, part = divmod(eighths, len(_PARTS))
    found = _FULL * full + (_PARTS[part] if part else "")
    return found.ljust(CELLS, _EMPTY)


@dataclass(slots=True)
class _Output:
    """An output of the cell that does the work."""

    handle: Any = None

    def draw(self, told: Told) -> None:
        from IPython import display  # noqa: PLC0415 - as above

        bundle = {"text/html": html(told), "text/plain": f"{told.text}: {told_text(told)}"}
        if self.handle is None:
            show: Any = display.display
            self.handle = show(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)

    def clear(self) -> None:
        self.handle.update({"text/plain": ""}, raw=True)


_TRACK = "width:180px;height:6px;border-radius:3px;background:rgba(127,127,127,.28);overflow:hidden;flex:none"
_ROW = "display:flex;gap:12px;align-items:center;min-height:22px;font:13px/1.5 system-ui,sans-serif"


def html(told: Told) -> str:
    """Return progress as a line of HTML, in any theme."""
    share = "" if told.fraction is None else f' aria-valuenow="{100 * told.fraction:.0f}"'
    width = 100 if told.fraction is None else 100 * told.fraction
    fill = f"width:{width:.1f}%;height:100%;background:#3f84b5;opacity:{0.35 if told.fraction is None else 1}"
    role = f'role="progressbar" aria-label="{escape(told.text)}" aria-valuemin="0" aria-valuemax="100"{share}'
    return (
        f'<div style="{_ROW}"><div {role} style="{_TRACK}"><div style="{fill}"></div></div>'
        f"<span>{escape(told.text)}</span>"
        f'<span style="opacity:.7;font-variant-numeric:tabular-nums">{escape(told_text(told))}</span></div>'
    )
