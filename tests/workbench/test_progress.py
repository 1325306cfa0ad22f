"""Progress: seen by who looks, by nobody else, and gone afterwards."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from workbench.progress import progress

WORK = """
import time
from workbench import progress
progress.DELAY = {delay}
with progress.progress(4, "replaying \\x1b[2J next") as advance:
    for _ in range(4):
        time.sleep(0.15)
        advance(1)
"""


def test_who_is_told_is_told_and_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    with progress(3, "counting", told.append) as advance:
        advance(2)
        advance(1)
    assert told == [2, 1]
    assert capfd.readouterr() == ("", "")


def in_terminal(code: str) -> str:
    """Run code with standard error on a terminal of 80 columns; return what it wrote there."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    process = subprocess.Popen([sys.executable, "-P", "-c", code], stderr=follower)
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
    seen = in_terminal(WORK.format(delay=0.1))
    assert "4/4" in seen or "3/4" in seen
    assert "\x1b[2J" not in seen
    assert seen.rpartition("\r")[2] == ""
    assert seen.split("\r")[-2].strip() == ""


def test_a_terminal_sees_nothing_of_short_work() -> None:
    assert in_terminal(WORK.format(delay=60)) == ""


def test_a_script_writes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WORK.format(delay=0)], capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_keeps_none(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(WORK.format(delay=delay)) for delay in (0.1, 60)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert [len(cell.outputs) for cell in cells] == [1, 0]
    assert "/4" not in str(cells[0].outputs), "a bar that stands at what it was in a saved notebook"
