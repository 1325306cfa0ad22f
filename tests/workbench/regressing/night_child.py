"""Nights of a job, and processes that die in the middle of them.

Run as a script it forks one process a line of standard input, a case as JSON, and answers with a JSON line: what the
process died of (or minus its exit code), and what it said: the steps it passed, and how often it changed the disk.
It forks, because what a night needs takes seconds to import; nothing of it has run before a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import altair as alt  # noqa: F401 - as below
import mlflow
import mlflow.store.tracking.sqlalchemy_store  # takes seconds

from workbench import plots, report  # noqa: F401 - as above
from workbench.regressing import drift_gate, judging, regress  # noqa: F401 - as above
from workbench.regressing.job_file import read_job
from workbench.scoring import declared  # noqa: F401 - as above

CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})
"""What Python tells before it changes names on a disk."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Run a night, and die at the `nth` time of a `step`, or at the `change`-th change of the disk."""
    steps: list[str] = []
    changes = 0

    def at(step: str) -> None:
        steps.append(step)
        if step == case.get("step") and steps.count(step) == case["nth"]:
            die()

    def told(event: str, args: tuple[Any, ...]) -> None:
        nonlocal changes
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            changes += 1
            if changes == case.get("change"):
                die()

    sys.addaudithook(told)
    night = regress.regress(read_job(case["job"]), at=at, now=lambda: NOW, **case.get("options", {}))
    return {"steps": steps, "changes": changes, "exit": night.exit_code, "problems": night.problems}


def forked(case: dict[str, Any]) -> list[Any]:
    """Fork, let the child run its case; return what it died of, and what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(run(case)).encode())
        except BaseException as exc:  # noqa: BLE001
            sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
    return [ended, json.loads(said) if said else None]


if __name__ == "__main__":
    assert mlflow.__version__
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(forked(json.loads(line)))}\n")
        sys.stdout.flush()
