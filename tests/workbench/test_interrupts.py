"""Interrupts: whenever one comes, the kernel stays usable, nothing is left behind, and the same call is right after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from queue import Empty
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import start_new_kernel

import workbench as wb
from workbench.bench.lake import build_lake
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

N = 12_000
CANDIDATE = "support-desk/candidate"
SET_UP = """
import os, tempfile, threading
import workbench as wb
import workbench.progress as told
import workbench.spill as spill
from workbench.shipped import shipped
told.DELAY, told.EVERY = 0.001, 0.01
spill.IN_MEMORY = 1_000                    # so that results go to files
lake, candidate = wb.open({uri!r}), shipped({candidate!r})
found = dict()
"""
LEFT = """
print(sorted(each.name for each in threading.enumerate() if each.name.startswith("redecide")))
print(told._work_under_way(), [name for name in os.listdir(tempfile.gettempdir()) if "redecide" in name])
"""
CALLS = {
    "replaying": "lake.replay(candidate, engine='rows')",
    "simulating state": "lake.replay(candidate, state='simulated', engine='rows')",
    "sweeping 40 versions": "lake.sweep(candidate, {'refund_limit': range(0, 40_000, 1_000)})",
    "counting what was exercised": "wb.coverage(lake, candidate, engine='rows')",
    "replaying a grid of 4": "wb.grid(lake, candidate, limits=candidate, engine='rows')",
}
"""What is done, by what its progress says."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a support desk's lake."""
    found = str(tmp_path_factory.mktemp("interrupted") / "lake")
    build_lake(found, N)
    return found


class Kernel:
    """A kernel, and what it says."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.digest = ""
        """Of a replay that nobody interrupted."""

    def run(self, code: str, *, interrupted_at: str = "") -> tuple[str, str, list[str]]:
        """Run code; return the error's name (empty: none), what it printed, and what was shown meanwhile.

        Interrupts when what is shown begins with `interrupted_at`.
        """
        asked, error, printed = self.client.execute(code), "", ""
        shown: list[str] = []
        while True:
            message = self._message(asked)
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return error, printed, shown
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                error = content["ename"]
            elif kind in ("display_data", "update_display_data"):
                shown.append(content["data"]["text/plain"])
                if interrupted_at and shown[-1].startswith(interrupted_at):
                    self.manager.interrupt_kernel()
                    interrupted_at = ""

    def _message(self, asked: str) -> dict[str, Any]:
        while True:
            try:
                message: dict[str, Any] = self.client.get_iopub_msg(timeout=240)
            except Empty:
                pytest.fail("the kernel says nothing any more")
            if message["parent_header"].get("msg_id") == asked:
                return message


@pytest.fixture(scope="module")
def kernel(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Start a kernel with the lake open."""
    place = tmp_path_factory.mktemp("temporary")
    environment = {**os.environ, "TMPDIR": str(place), "REDECIDE_CACHE": "off"}
    manager, client = start_new_kernel(kernel_name="python3", env=environment, cwd=str(place))
    try:
        found = Kernel(manager, client)
        error, printed, _ = found.run(SET_UP.format(uri=uri, candidate=CANDIDATE))
        assert (error, printed) == ("", "")
        found.digest = wb.open(uri).replay(shipped(CANDIDATE)).digest()
        yield found
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", CALLS)
def test_a_kernel_that_is_interrupted_stays_usable(kernel: Kernel, what: str) -> None:
    error, _, shown = kernel.run(f"found = {CALLS[what]}", interrupted_at=what)
    assert error == "KeyboardInterrupt", shown[-3:]
    assert shown[-1] == "", "what was shown is gone"
    assert kernel.run(LEFT)[:2] == ("", "[]\nNone []\n")
    error, printed, _ = kernel.run("found = lake.replay(candidate); print(found.digest()); del found")
    assert error == ""
    assert printed.split() == [kernel.digest]


MOMENTS = """
import os, signal, sys, threading
{set_up}
class Nobody:
    def draw(self, told): pass
    def clear(self): pass
told.surface = Nobody
want = lake.replay(candidate).digest()
for moment in range({moments}):
    killer = threading.Timer(0.05 * moment, os.kill, (os.getpid(), signal.SIGINT))
    try:
        killer.start()
        said = lake.replay(candidate).digest()
        assert said == want, said
        killer.join()
        threading.Event().wait(10)
        raise AssertionError("the interrupt was lost")
    except KeyboardInterrupt:
        pass
    for _ in range(3):
        try:
            killer.join()
            left = [each.name for each in threading.enumerate() if each.name.startswith("redecide")]
            break
        except KeyboardInterrupt:          # Polars' and Python's own, of one signal
            pass
    assert not left, left
    assert told._work_under_way() is None
    files = [name for name in os.listdir(tempfile.gettempdir()) if "redecide" in name]
    assert not files, files
assert lake.replay(candidate).digest() == want
print("right")
"""


@pytest.mark.slow
def test_a_script_is_interrupted_at_any_moment(uri: str, tmp_path: Path) -> None:
    code = MOMENTS.format(set_up=SET_UP.format(uri=uri, candidate=CANDIDATE), moments=12)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "REDECIDE_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "right\n", done.stderr[-3_000:]


def test_work_leaves_handlers_as_they_were(kernel: Kernel) -> None:
    code = "import signal\nlake.replay(candidate)\n"
    told = kernel.run(f"{code}print(signal.getsignal(signal.SIGINT).__name__, signal.set_wakeup_fd(-1))")[1]
    assert told == f"{signal.default_int_handler.__name__} -1\n"
