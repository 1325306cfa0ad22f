"""Two nights of a job's state, and processes that die in the middle of them.

Run as a script it forks one process a line of standard input, a case as JSON, and answers with a JSON line: the signal
it died of (or minus its exit code), and how many lines of the state's code it had run. It forks, because starting
Python hundreds of times would take minutes; Polars' threads do not live before a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import polars as pl

from workbench.regressing.result import Candidate, Drifted, Night, Range
from workbench.regressing.state import Asked, Begun, State
from workbench.regressing.windows import ALWAYS, TOUCHED, Plan

SERIES = ("candidate-a", "candidate-b", "drift")
TRACED = ("state.py", "state_disk.py")


def planned(night: int) -> Plan:
    """The window of a night: ten positions of one ledger."""
    window = Range(
        after={"a": night * 10 - 10}, to={"a": night * 10}, decisions=10, sessions=3, first=None, last=None
    )
    return Plan(window=window, stretch=ALWAYS, touched=pl.DataFrame(schema=TOUCHED), seen=(), chosen=None)


def sums(night: int, series: str) -> pl.DataFrame:
    """Sums of three sessions; one of them is of the night before."""
    return pl.DataFrame(
        {
            "tenant": ["t"] * 3,
            "session_id": [f"s{night - 1}-late", f"s{night}-late", f"s{night}"],
            "harm.low": [night * 1.0, 2.0, len(series)],
        }
    )


def result(asked: Asked) -> Candidate | Drifted:
    """What a window came to: what follows from the window."""
    window, night = asked.look.range, asked.look.night
    if asked.series == "drift":
        return Drifted(
            verdict="inconclusive", night=night, before=window, after=window, gates=(), rows=({"name": "é", "p": None},),
            uncovered=(), numbers={"far": float("inf")}, headline=("nothing",),
        )  # fmt: skip
    return Candidate(
        name=asked.series, bundle="b", version="1" * 64, baseline="recorded", baseline_version=None, verdict="ship",
        night=night, window=window, examples=({"determining": ["a"], "clause": None},),
    )  # fmt: skip


def one_night(state: State) -> None:
    """Finish what was begun, or plan and finish the next night."""
    begun = state.unfinished()
    if begun is None:
        night = len(list(state.nights())) + 1
        begun = state.begin("job", "2026-11-23", {name: (planned(night), {"name": name}) for name in SERIES})
    finished(state, begun)


def finished(state: State, begun: Begun) -> None:
    for asked in begun.asked:
        if asked.result is None:
            frame = None if asked.series == "drift" else sums(asked.look.night, asked.series)
            begun = state.judged(begun, asked.series, result(asked), frame)
    if begun.phase == "judged":
        begun = state.reached(begun, "logged", runs={"a": begun.run})
    if begun.phase == "logged":
        begun = state.reached(begun, "told")
    results = tuple(each.result for each in begun.asked if isinstance(each.result, Candidate))
    state.finish(begun, Night(job="job", lake="lake", started=begun.started, seconds=0.0, candidates=results))


def run(case: dict[str, Any], done: int) -> None:
    """Run nights until so many are done, and die at the given line of the state's code."""
    steps, fatal = 0, case.get("fatal")

    def local(frame: Any, event: str, _: object) -> Any:
        nonlocal steps
        if event == "line":
            steps += 1
            if steps == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def called(frame: Any, event: str, arg: object) -> Any:
        return local if Path(frame.f_code.co_filename).name in TRACED else None

    sys.settrace(called)
    with State.open(Path(case["folder"])) as state:
        while len(list(state.nights())) < case["nights"]:
            one_night(state)
    sys.settrace(None)
    os.write(done, str(steps).encode())


def forked(case: dict[str, Any]) -> list[int]:
    """Fork, let the child run its case; return what it died of, and the lines it ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            run(case, writing)
        except BaseException as exc:  # noqa: BLE001
            sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    os.close(writing)
    steps = os.read(reading, 20)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
    return [ended, int(steps or 0)]


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(forked(json.loads(line)))}\n")
        sys.stdout.flush()
