"""How many governed calls a second, by threads, tasks and processes; how fast they are drained and verified.

One rule: a call counts if it returned within the time, decision and outcome durable; all share one ledger. Drain and
verification are of that ledger, whole, the best of `TURNS`; what it takes to import the libraries of the lake, once a
process, is told apart.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runtime.drain import drain
from runtime.lake import LakeStore
from runtime.verifying import verify_ledger
from workbench.bench.measure import BenchFailed
from workbench.bench.runtime_cases import CallCase, Governed

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import Session
    from workbench.bench.runtime_agt import Toolkit

THREADS: Final = (1, 2, 4, 8)
TASKS: Final = (8, 64)
PROCESSES: Final = 2
TURNS: Final = 3
LEDGER: Final = "ledger.sqlite"
_READY: Final = "ready"
_CASE: Final = CallCase(name="load")


def throughput(path: Path, seconds: float) -> dict[str, Any]:
    """Measure governed calls a second over one ledger, and the drain of it."""
    made = Governed.open(_CASE, path / "load")
    try:
        found: list[dict[str, Any]] = [
            {"threads": count, **_by_threads(made, count, seconds)} for count in THREADS
        ]
        found += [{"tasks": count, **asyncio.run(_by_tasks(made, count, seconds))} for count in TASKS]
        found += [{"processes": PROCESSES, **_by_processes(path / "load", seconds)}]
        return {
            "throughput": found,
            "drain": _drain(made, path / "drained"),
            "verify": _verify(made.ledger),
        }
    finally:
        made.close()


def of_toolkit(toolkit: Toolkit | None, seconds: float) -> list[dict[str, Any]]:
    """The toolkit's durable calls a second, by threads."""
    if toolkit is None:
        return []
    return [
        {"threads": count} | _rate(toolkit.ask(rules="one", audit="durable", threads=count, seconds=seconds))
        for count in (THREADS[0], THREADS[-1])
    ]


def _rate(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "calls_per_second": found["calls"] / found["seconds"]}


def _by_threads(made: Governed, threads: int, seconds: float) -> dict[str, Any]:
    sessions = [made.new_session() for _ in range(threads)]
    counts = [0] * threads
    gate = threading.Barrier(threads + 1)
    until = 0.0

    def work(index: int) -> None:
        gate.wait()
        counts[index] = _call_until(made.call_in, sessions[index], until)

    running = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    used, began = time.process_time(), time.perf_counter()
    until = began + seconds
    gate.wait()
    for thread in running:
        thread.join()
    took, calls = time.perf_counter() - began, sum(counts)
    return _rate({"calls": calls, "seconds": took}) | {"cpu_us": (time.process_time() - used) / calls * 1e6}


def _call_until(call: Callable[[Session], object], session: Session, until: float) -> int:
    found = 0
    while time.perf_counter() < until:
        call(session)
        found += 1
    return found


async def _by_tasks(made: Governed, tasks: int, seconds: float) -> dict[str, Any]:
    sessions = [made.new_session() for _ in range(tasks)]
    used, began = time.process_time(), time.perf_counter()

    async def work(session: Session) -> int:
        found = 0
        while time.perf_counter() < began + seconds:
            await made.acall_in(session)
            found += 1
        return found

    calls = sum(await asyncio.gather(*map(work, sessions)))
    took = time.perf_counter() - began
    return _rate({"calls": calls, "seconds": took}) | {"cpu_us": (time.process_time() - used) / calls * 1e6}


def _by_processes(path: Path, seconds: float) -> dict[str, Any]:
    """Processes that share the ledger, each with one thread, over the same seconds: all open before one begins."""
    running = [_Process(path, number, seconds) for number in range(PROCESSES)]
    for each in running:
        each.wait_until_ready()
    for each in running:
        each.go()
    found = [each.answer() for each in running]
    calls = sum(each["calls"] for each in found)
    return _rate({"calls": calls, "seconds": max(each["seconds"] for each in found)})


class _Process:
    """A further process on the ledger, which begins when it is told."""

    def __init__(self, path: Path, number: int, seconds: float) -> None:
        params = json.dumps({"path": str(path), "number": number, "seconds": seconds})
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", __spec__.name, params],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Wait for its first call.

        Raises:
            BenchFailed: it ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - opened above
        if self._process.stdout.readline().strip() != _READY:
            raise BenchFailed("a process that was to share the ledger ended before it began")

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None  # noqa: S101 - opened above
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return what it counted, once it has ended.

        Raises:
            BenchFailed: it ended without an answer.
        """
        said, _ = self._process.communicate()
        if not said.strip():
            raise BenchFailed("a process that shared the ledger ended without an answer")
        found: dict[str, Any] = json.loads(said)
        return found


def _share(*, path: str, number: int, seconds: float) -> None:
    """Call for some seconds over a ledger that others use as well; as a child of `_by_processes`."""
    folder = Path(path)
    made = Governed.open(_CASE, folder / f"process-{number}", ledger=folder / LEDGER)
    try:
        made.call()
        sys.stdout.write(f"{_READY}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        began = time.perf_counter()
        calls = _call_until(made.call_in, made.session, began + seconds)
        found = {"calls": calls, "seconds": time.perf_counter() - began}
    finally:
        made.close()
    sys.stdout.write(json.dumps(found) + "\n")


def _drain(made: Governed, path: Path) -> dict[str, Any]:
    """Drain everything into one new lake after another."""
    began = time.perf_counter()
    import deltalake  # noqa: F401, PLC0415 - what a first drain loads
    import pyarrow.json  # noqa: F401, PLC0415

    loaded = time.perf_counter() - began
    found = []
    for turn in range(TURNS):
        store = LakeStore(path / str(turn), write=True)
        began, used = time.perf_counter(), time.process_time()
        report = drain(made.runtime.ledger, store)
        took = time.perf_counter() - began
        found.append((took, time.process_time() - used, dict(report.rows)))
    return {"import_seconds": loaded} | _best(found)


def _verify(ledger: Path) -> dict[str, Any]:
    """Verify the ledger, chain and contents."""
    found = []
    for _ in range(TURNS):
        began, used = time.perf_counter(), time.process_time()
        said = verify_ledger(ledger)
        took = time.perf_counter() - began
        if not said.whole:
            raise BenchFailed(f"the ledger of the benchmark is broken: {said.broken[:1] + said.changed[:1]}")
        found.append((took, time.process_time() - used, {"chain": said.rows, "contents": said.contents}))
    return _best(found)


def _best(found: list[tuple[float, float, dict[str, int]]]) -> dict[str, Any]:
    took, used, rows = min(found, key=lambda each: each[0])
    total = sum(rows.values())
    return {
        "rows": rows,
        "seconds": took,
        "cpu_seconds": used,
        "rows_per_second": total / took,
        "cpu_us": used / total * 1e6,
    }


if __name__ == "__main__":
    _share(**json.loads(sys.argv[1]))
