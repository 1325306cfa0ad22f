"""Measuring: repeated timings, peak memory, where the time goes, and on what machine.

One rule: a figure is the best of its repeats, taken in a process of its own, and never without the machine and the
versions it was taken with. Others may use the machine at the same time: the load is told, not hidden.

Accepted: a process of its own is cold as to imports and caches of ours; the system's file cache is as it is.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

LIBRARIES = ("redecide", "polars", "duckdb", "deltalake", "pyarrow", "cedarpy")
_EVERY = 0.005
"""Seconds between two looks of `Sampler`."""
_OURS = ("workbench.", "runtime.")
_WAITING = ("workbench.executors:", "workbench.progress:")
"""Functions of threads that wait for others, or draw."""
_ELSEWHERE = "(elsewhere)"
_ANSWER = "redecide-bench "
"""What begins the line on which a child answers."""


class BenchFailed(WorkbenchError, RuntimeError):  # noqa: N818 - the state's own name
    """A benchmark's process ended without an answer. Carries the last line of what it said."""

    kind = "bench_failed"


class Timing(NamedTuple):
    """What repeats of one piece of work took, seconds."""

    best: float
    cpu: float
    """Least processor time, of all threads: steadier than `best` where others use the machine."""
    every: list[float]


def best_of(repeats: int, work: Callable[[], object]) -> Timing:
    """Run `work` a number of times."""
    times, used = [], []
    for _ in range(repeats):
        started, before = time.perf_counter(), cpu_seconds()
        work()
        times.append(time.perf_counter() - started)
        used.append(cpu_seconds() - before)
    return Timing(min(times), min(used), times)


def peak_mib() -> float:
    """The most memory this process has held so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB


def cpu_seconds() -> float:
    """Processor time this process has used so far, of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine() -> dict[str, Any]:
    """What figures are taken on: processors, load, Python and library versions."""
    return {
        "cpus": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


@dataclass
class Sampler:
    """Where the time goes: which of our functions is innermost on each thread, looked at every 5 ms.

    Threads that wait for others, or draw, are left out; where all do, the main one counts.
    """

    seen: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to look."""
        watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(watched,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, main: int) -> None:
        own = threading.get_ident()
        while not self._stop.wait(_EVERY):
            frames = sys._current_frames()  # noqa: SLF001 - the documented way
            every = {each: _innermost(frame) for each, frame in frames.items() if each != own}
            at_work = [
                name for name in every.values() if name != _ELSEWHERE and not name.startswith(_WAITING)
            ]
            self.seen.update(at_work or [every.get(main, _ELSEWHERE)])

    def shares(self, most: int = 12) -> dict[str, float]:
        """Shares of the time by function, largest first."""
        total = self.seen.total() or 1
        return {name: round(count / total, 3) for name, count in self.seen.most_common(most)}


def _innermost(frame: FrameType | None) -> str:
    """The innermost function of ours; the benchmark's own are passed over."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_OURS) and not module.startswith("workbench.bench."):
            return f"{module}:{frame.f_code.co_name}"
        frame = frame.f_back
    return _ELSEWHERE


def in_child(task: str, *, module: str = "workbench.bench.tasks", **params: Any) -> dict[str, Any]:
    """Run a task of a module in a process of its own.

    Raises:
        BenchFailed: it ended without an answer.
    """
    # -P: the working directory, which may be a checkout with a folder `datasets`, stays off the path.
    command = [sys.executable, "-P", "-m", module, task, json.dumps(params)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    for line in done.stdout.splitlines():
        if line.startswith(_ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(_ANSWER))
            return answer
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise BenchFailed(f"the benchmark `{task}` did not finish: {last}")


def answer(found: dict[str, Any]) -> None:
    """Answer as a child."""
    sys.stdout.write(f"{_ANSWER}{json.dumps(found)}\n")
