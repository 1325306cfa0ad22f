"""How long a governed call takes: `redecide bench runtime`.

One rule: everything that is compared is measured in one run, in turns: every kind of call of ours, the bare commit,
and agent-governance-toolkit's calls, round after round, on one file system. A spell in which the machine is busy
hits them all.

What is timed is `Session.call` of an empty tool, from the call to its return: decision and outcome are durable. *Time
above the disk* is its median less its commits times the median of a bare SQLite commit. `cpu` is processor time of
the process, all threads, system's part of the commits included: it hardly depends on who else uses the machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.bench import runtime_load
from workbench.bench.measure import answer
from workbench.bench.runtime_agt import NotInstalled, Toolkit, default_venv, interpreter
from workbench.bench.runtime_cases import CASES, RULES, CallCase, Governed
from workbench.bench.runtime_disk import AppendedFile, BareLedger, commits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WARM: Final = 40
"""Calls of each kind before anything is timed."""
AUDITS: Final = ("ships", "durable")

Taken = dict[str, "_Times"]


class _Times(NamedTuple):
    """What calls of one kind took."""

    ns: list[int]
    cpu: list[float]
    """Processor seconds, by round."""

    def summary(self) -> dict[str, float]:
        """Median and 99th percentile, microseconds, and processor time a call."""
        ordered = sorted(self.ns)
        return {
            "calls": len(ordered),
            "p50_us": statistics.median(ordered) / 1e3,
            "p99_us": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e3,
            "mean_us": statistics.fmean(ordered) / 1e3,
            "cpu_us": sum(self.cpu) / len(ordered) * 1e6,
        }


def measure(
    *,
    folder: str | None,
    calls: int,
    rounds: int,
    seconds: float,
    agt: bool,
    venv: str | None = None,
    install: bool = True,
) -> dict[str, Any]:
    """Time governed calls, what the disk takes, and the toolkit, in turns; then throughput, drain, verify and import.

    Args:
        folder: where the ledgers are written; None: the system's folder for temporary files.
        calls: of each kind.
        rounds: turns they are divided into.
        seconds: of each throughput.
        agt: measure agent-governance-toolkit, too.
        venv: its environment; None: one in the user's cache.
        install: make that environment if it is not there.
    """
    with tempfile.TemporaryDirectory(prefix="redecide-bench-", dir=folder) as made, ExitStack() as stack:
        path = Path(made)
        toolkit, missing = _toolkit(stack, path, venv, agt=agt, install=install)
        found = _latencies(path, stack, toolkit, max(1, calls // rounds), rounds)
        found["agt"] |= {"missing": missing, "throughput": runtime_load.of_toolkit(toolkit, seconds)}
        found |= {"folder": str(path.parent), "file_system": _file_system(path)}
        found |= runtime_load.throughput(path, seconds)
    return found | {"import": _import_seconds()}


def _toolkit(
    stack: ExitStack, path: Path, venv: str | None, *, agt: bool, install: bool
) -> tuple[Toolkit | None, str | None]:
    """The toolkit's process, or why there is none."""
    if not agt:
        return None, "not asked for"
    try:
        python = interpreter(default_venv() if venv is None else Path(venv), install=install)
    except NotInstalled as exc:
        return None, str(exc)
    return stack.enter_context(Toolkit(python, path)), None


def _latencies(
    path: Path, stack: ExitStack, toolkit: Toolkit | None, calls: int, rounds: int
) -> dict[str, Any]:
    cases = {case: _opened(case, path / f"case-{number}", stack) for number, case in enumerate(CASES)}
    commits = {
        case: commits_of(made.ledger, made.call) for case, made in cases.items() if isinstance(made, Governed)
    }
    bare, appended = BareLedger(path / "bare.sqlite"), AppendedFile(path / "appended")
    stack.callback(bare.close)
    stack.callback(appended.close)
    works: dict[str, Callable[[], object]] = {"bare": bare.commit, "appended": appended.append}
    works |= {case.name: made.call for case, made in cases.items() if isinstance(made, Governed)}
    taken: Taken = {name: _Times([], []) for name in works}
    theirs: Taken = {}
    _round(works, _Taken(), WARM)
    for _ in range(rounds):
        _round(works, taken, calls)
        _their_round(toolkit, theirs, calls)
    disk = {name: taken.pop(name).summary() for name in ("bare", "appended")}
    by_case = {case.name: case for case in commits}
    return {
        "disk": disk,
        "calls": [_case_row(by_case[name], times, commits, disk) for name, times in taken.items()],
        "not_measured": {case.name: why for case, why in cases.items() if isinstance(why, str)},
        "agt": {"calls": [_their_row(name, times, disk) for name, times in theirs.items()]},
    }


def _opened(case: CallCase, path: Path, stack: ExitStack) -> Governed | str:
    """The case's runtime; what this release does not have is said, not guessed."""
    try:
        made = Governed.open(case, path)
    except TypeError as exc:
        return f"this release cannot: {exc}"
    stack.callback(made.close)
    return made


class _Taken(dict[str, _Times]):
    """Times that nobody keeps."""

    def __missing__(self, name: str) -> _Times:
        return _Times([], [])


def _round(works: Mapping[str, Callable[[], object]], taken: Taken, calls: int) -> None:
    clock = time.perf_counter_ns
    for name, work in works.items():
        times, used = taken[name], time.process_time()
        for _ in range(calls):
            began = clock()
            work()
            times.ns.append(clock() - began)
        times.cpu.append(time.process_time() - used)


def _their_round(toolkit: Toolkit | None, taken: Taken, calls: int) -> None:
    if toolkit is None:
        return
    for audit in AUDITS:
        for rules in RULES:
            if not taken.get(f"{audit}/{rules}"):
                taken[f"{audit}/{rules}"] = _Times([], [])
                toolkit.ask(rules=rules, audit=audit, calls=WARM)
            found, times = toolkit.ask(rules=rules, audit=audit, calls=calls), taken[f"{audit}/{rules}"]
            times.ns.extend(found["ns"])
            times.cpu.append(found["cpu"])


def _case_row(
    case: CallCase, times: _Times, commits: Mapping[CallCase, float], disk: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    found = times.summary()
    above = found["p50_us"] - commits[case] * disk["bare"]["p50_us"]
    return {"case": case.name, "rules": case.rules, "commits": commits[case], "above_disk_us": above, **found}


def _their_row(name: str, times: _Times, disk: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    audit, _, rules = name.partition("/")
    found, syncs = times.summary(), 2 if audit == "durable" else 0
    above = found["p50_us"] - syncs * disk["appended"]["p50_us"]
    return {"audit": audit, "rules": rules, "syncs": syncs, "above_disk_us": above, **found}


def _file_system(path: Path) -> str:
    """The type of file system that holds a folder, as the system tells it."""
    mounts: Iterator[list[str]] = (
        line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    )
    holds = [(len(m[1]), m[2]) for m in mounts if path.is_relative_to(m[1])]
    return max(holds)[1] if holds else "unknown"


def _import_seconds(times: int = 5) -> dict[str, float]:
    """What `import runtime` takes in a fresh process, the interpreter's own start not counted."""
    code = "import time; t = time.perf_counter(); import runtime; print(time.perf_counter() - t)"
    command = [sys.executable, "-P", "-c", code]
    found = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603 - ours
        for _ in range(times)
    ]
    return {"best_s": min(found), "median_s": statistics.median(found)}


if __name__ == "__main__":
    answer({"measure": measure}[sys.argv[1]](**json.loads(sys.argv[2])))
