"""Progress: seen by who looks, by nobody else, and gone afterwards."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from polars.exceptions import PanicException

from workbench import progress as module
from workbench.ending import ending, undoing
from workbench.progress import Told, listening, progress
from workbench.progress_shown import html, told_text

if TYPE_CHECKING:
    from collections.abc import Iterator

WORK = """
import time
from workbench import progress
progress.DELAY = {delay}
with progress.progress(4, "replaying \\x1b[2J next") as advance:
    for _ in range(4):
        time.sleep(0.15)
        advance(1)
"""


class Seen:
    """A surface that keeps what is drawn, and lets the work wait until something was."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.cleared = 0
        self.drawn = threading.Event()

    def draw(self, told: Told) -> None:
        self.told.append(told)
        self.drawn.set()

    def clear(self) -> None:
        self.cleared += 1

    def next(self) -> Told:
        """Return what is drawn next."""
        self.drawn.clear()
        assert self.drawn.wait(30)
        return self.told[-1]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    monkeypatch.setattr(module, "DELAY", 0.001)
    monkeypatch.setattr(module, "EVERY", 0.001)
    surface = Seen()
    with listening(surface):
        yield surface


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "redecide-progress"]


def test_who_is_told_is_told_and_nothing_is_shown(seen: Seen, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    with progress(3, "counting", told.append) as advance:
        advance(2)
        with progress(5, "a part of it") as inner:
            inner(5)
            assert not ours()
        advance(1)
    assert told == [2, 1]
    assert seen.told == []
    assert capfd.readouterr() == ("", "")


def test_parts_are_named_with_how_far_the_whole_is(seen: Seen) -> None:
    with progress(None, "searching"), progress(4, "confirming", unit="version") as advance:
        advance(1)
        with progress(200, "replaying next") as inner:
            inner(100)
            told = seen.next()
    assert told.text == "searching › confirming (1 of 4) › replaying next"
    assert (told.done, told.total, told.unit) == (100, 200, "decision")
    assert told.fraction == (1 + 100 / 200) / 4
    assert seen.cleared == 1


def test_work_that_counts_nothing_is_seen_and_a_part_that_ended_is_not(seen: Seen) -> None:
    with progress(None, "saving"):
        with progress(2, "reading") as advance:
            advance(2)
        told = seen.next()
    assert (told.text, told.total, told.fraction) == ("saving", None, None)
    assert "left" not in told_text(told)


def test_what_advances_outer_work_from_inside_is_counted_there(seen: Seen) -> None:
    with progress(10, "sweeping") as advance, progress(10, "replaying", advance) as inner:
        inner(7)
        told = seen.next()
    assert (told.text, told.done) == ("sweeping", 7)


def test_an_interrupt_that_polars_takes_for_a_panic_is_an_interrupt(seen: Seen) -> None:
    """Seen in the planning of a Delta scan, which imports Python's thread pool: `unwrap()` on a `KeyboardInterrupt`."""
    said = (
        "called `Result::unwrap()` on an `Err` value: PyErr { type: <class 'KeyboardInterrupt'>, value: … }"
    )
    with pytest.raises(KeyboardInterrupt), progress(3, "counting"):
        raise PanicException(said)
    with pytest.raises(PanicException, match="index out of bounds"), progress(3, "counting"):
        raise PanicException("index out of bounds")


def test_an_end_by_an_error_leaves_nothing(seen: Seen) -> None:
    with pytest.raises(KeyboardInterrupt), progress(9, "replaying"):
        seen.next()
        raise KeyboardInterrupt
    assert not ours()
    assert seen.cleared == 1
    with progress(1, "again") as advance:
        advance(1)
        assert seen.next().text == "again", "not a part of what failed"


def test_ends_are_reached_though_the_interrupt_comes_twice() -> None:
    tries: list[int] = []

    def end() -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError), ending(end):
        raise ZeroDivisionError
    assert tries == [0, 1], "the second interrupt is the first one's echo"
    tries.clear()
    with pytest.raises(KeyboardInterrupt), ending(end):
        pass
    assert tries == [0, 1], "an interrupt of the end itself is raised, once it is ended"


def test_undone_is_only_what_is_not_whole() -> None:
    undone: list[str] = []
    with undoing(lambda: undone.append("whole")):
        pass
    with pytest.raises(ValueError, match="half"), undoing(lambda: undone.append("half")):
        raise ValueError("half")
    assert undone == ["half"]


def in_terminal(code: str) -> str:
    """Run code with standard error on a terminal of 80 columns; return what it wrote there."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stderr=follower, stdout=follower, env=environment
    )
    os.close(follower)
    written = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(leader)
    assert process.wait() == 0
    return written.decode()


def test_a_terminal_sees_long_work_and_then_nothing() -> None:
    seen = in_terminal(WORK.format(delay=0.05))
    assert re.search(r"[123] of 4 decisions", seen)
    assert "\x1b[2J" not in seen
    lines = seen.split("\r")
    assert all(len(line.removesuffix("\x1b[K")) <= 80 for line in lines)
    assert lines[-1] == "\x1b[K", "the line is wiped"


def test_a_terminal_sees_nothing_of_short_work() -> None:
    assert in_terminal(WORK.format(delay=60)) == ""


def test_a_script_writes_nothing_and_has_no_thread() -> None:
    code = WORK.format(delay=0) + "\nimport threading; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_text_in_a_notebook_is_text() -> None:
    texts: list[str] = []
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            texts.extend(value for name, value in attrs if name == "aria-label" and value)

        def handle_data(self, data: str) -> None:
            texts.append(data)

    hostile = 'replaying "><img src=x onerror=alert(1)>'
    Reader().feed(html(Told(text=hostile, done=1, total=2, unit="decision", fraction=0.5, seconds=3)))
    assert set(tags) == {"div", "span"}
    assert texts[:2] == [hostile, hostile]


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_keeps_none(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(WORK.format(delay=delay)) for delay in (0.05, 60)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert [len(cell.outputs) for cell in cells] == [1, 0]
    assert cells[0].outputs[0]["data"] == {"text/plain": ""}, "a bar that stands still in a saved notebook"
