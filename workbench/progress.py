"""Progress of long work: what is being done, and how much of it, in a terminal and in a notebook.

One rule: it is for who looks. Work of a second shows none; where standard error is no terminal (a script's log, a
pipe) and there is no notebook, nothing is written; and when the work ends, however it ends, nothing of it is left:
no line, no output, no thread.

Work is made of work: `progress` within `progress` names a part of it, in the same line. What does the work only
counts; a thread draws four times a second, so that a part that takes a minute and counts nothing is seen, too, and an
interrupt of the work never meets a half-drawn line.

Accepted: a thread for each piece of work that somebody may look at (some 50 µs). Other threads that a piece of work
starts tell nothing unless they are given its `Advance`.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from weakref import ReferenceType, ref

from polars.exceptions import PanicException

from workbench.ending import ending, interrupts_of
from workbench.progress_shown import surface
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[int], object]

DELAY = 1.0
"""Seconds of work before any progress is shown."""
EVERY = 0.25
"""Seconds from one drawing to the next."""
MAX_SIGNALS = 64
"""Signals that are read at a time."""
MAX_TEXT = 60
"""Characters of what one part is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of work under way."""

    text: str
    """What is being done; parts of parts behind an arrow."""
    done: int
    total: int | None
    """Of the smallest part that knows it; None: none does."""
    unit: str
    """Of what."""
    fraction: float | None
    """Of all the work, 0 to 1, as far as it is known."""
    seconds: float
    """Since the work began."""


class Surface(Protocol):
    """Where progress is seen."""

    def draw(self, told: Told) -> None:
        """Show it, in place of what was shown."""

    def clear(self) -> None:
        """Show nothing any more. Called once, last, if anything was drawn."""


@contextmanager
def progress(
    total: int | None, text: str, told: Advance | None = None, *, unit: str = "decision"
) -> Iterator[Advance]:
    """Show progress while work is done; what is given is called with how much was done.

    Args:
        total: how much there is to do; None: nobody knows, or it is one thing.
        text: what is being done. Within other work: which part of it.
        told: called instead; of work that is told so, nothing is shown, nor of its parts.
        unit: of what.

    Example:
        >>> with progress(3, "counting") as advance:
        ...     for _ in range(3):
        ...         _ = advance(1)
    """
    outer = _work_under_way()
    if told is not None:
        with (
            nullcontext() if outer else _marked(_Work(None))
        ):  # what it counts for is shown by the work around it
            yield told
        return
    if outer is not None:
        with outer.doing(text, total, unit) as part:
            yield part.advance
        return
    work = _Work(_listener.get() or surface())
    with _marked(work), _heeding(work), work.shown(), work.doing(text, total, unit) as part:
        yield part.advance


@contextmanager
def listening(surface: Surface) -> Iterator[None]:
    """Have progress of what is done inside drawn elsewhere, such as in a widget.

    Args:
        surface: drawn on by a thread of its own, one at a time; never before `DELAY` is over.
    """
    before = _listener.get()
    _listener.set(surface)
    try:
        yield
    finally:
        _listener.set(before)


@dataclass(slots=True)
class _Part:
    """One thing that is done."""

    text: str
    total: int | None
    unit: str
    work: _Work
    done: int = 0

    def advance(self, more: int) -> None:
        self.done += more
        self.work.heed()

    def fraction(self, within: float | None) -> float | None:
        """How much of it is done, given how much of the part under way is."""
        if not self.total:
            return within
        return min(1.0, (self.done + (within or 0.0)) / self.total)


@dataclass(eq=False)
class _Work:
    """All that is done at a time, with what shows it."""

    surface: Surface | None
    """None: nobody looks."""
    parts: list[_Part] = field(default_factory=list)
    """The one under way last."""
    over: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)

    signals: socket.socket | None = None
    """Gives the numbers of signals that came."""

    def heed(self) -> None:
        """Raise an interrupt that was lost on its way."""
        try:
            came = b"" if self.signals is None else self.signals.recv(MAX_SIGNALS)
        except BlockingIOError:
            return
        if signal.SIGINT in came:
            raise KeyboardInterrupt

    @contextmanager
    def doing(self, text: str, total: int | None, unit: str) -> Iterator[_Part]:
        part = _Part(shorten(visible(text), MAX_TEXT), total, unit, self)
        depth = len(self.parts)
        try:
            self.parts.append(part)
            yield part
            self.heed()
        finally:
            del self.parts[depth:]  # no call, which an interrupt could come before

    @contextmanager
    def shown(self) -> Iterator[None]:
        if self.surface is None:
            yield
            return
        context = copy_context()  # a notebook's output goes to the cell whose work it is
        thread = threading.Thread(target=context.run, args=(self._draw, self.surface), daemon=True)
        thread.name = "redecide-progress"

        def end() -> None:
            self.over.set()  # first: now the thread ends, and clears what it drew, whatever comes
            if thread.ident is not None:
                thread.join()

        with ending(end):
            thread.start()
            yield

    def _draw(self, surface: Surface) -> None:
        drawn = False
        wait = DELAY
        try:
            while not self.over.wait(wait):
                drawn, wait = True, EVERY
                surface.draw(self.told())
        finally:
            if drawn:
                surface.clear()

    def told(self) -> Told:
        parts = tuple(self.parts)
        fraction: float | None = None
        for part in reversed(parts):
            fraction = part.fraction(fraction)
        counted = next((part for part in reversed(parts) if part.total), None)
        return Told(
            text=" › ".join(_named(part, of=part is not counted) for part in parts),
            done=0 if counted is None else counted.done,
            total=None if counted is None else counted.total,
            unit="" if counted is None else counted.unit,
            fraction=fraction,
            seconds=time.monotonic() - self.began,
        )


def _named(part: _Part, *, of: bool) -> str:
    """What a part is called; how far it is, too, where it is not the one whose numbers are shown."""
    return f"{part.text} ({part.done:,} of {part.total:,})" if of and part.total else part.text


_under_way: ContextVar[ReferenceType[_Work] | None] = ContextVar("under_way", default=None)
"""Weak, so that work whose end was interrupted twice over is not taken for work under way."""
_listener: ContextVar[Surface | None] = ContextVar("listener", default=None)


def _work_under_way() -> _Work | None:
    found = _under_way.get()
    work = None if found is None else found()
    return None if work is None or work.over.is_set() else work


@contextmanager
def _heeding(work: _Work) -> Iterator[None]:
    """See that an interrupt ends the work.

    Python drops what is raised in the callback of a weak reference, and Polars' scans end in such callbacks: there an
    interrupt is raised that came while a query ran. So signals are read off the side, too, and an interrupt that was
    dropped is raised where the work next counts. Handlers stay as they are: Polars' own, which stops a query, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    before = -1

    def end() -> None:
        signal.set_wakeup_fd(before)
        work.signals = None
        reader.close()
        writer.close()

    with ending(end):
        for each in (reader, writer):
            each.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before == -1:
            work.signals = reader
        else:  # somebody reads them already
            signal.set_wakeup_fd(before)
        # Polars calls Python from within a query, and takes an interrupt that is raised there for its own fault.
        with interrupts_of(PanicException):
            yield


@contextmanager
def _marked(work: _Work) -> Iterator[None]:
    before = _under_way.get()

    def end() -> None:
        work.over.set()
        _under_way.set(before)

    with ending(end):
        _under_way.set(ref(work))
        yield
