"""Processes that send entries and are killed at a point between two effects.

Run as a script it forks one process a case, a line of JSON, and answers with what became of it: how often it came to
such a point, and the signal it died of. It forks, because starting MLflow for every case would take minutes; no store
is open before a fork.

A point is: the answer of an HTTP request that changes something is there; a transaction that wrote to the local store
is about to be committed; a file is about to be copied, renamed or removed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

FILES = frozenset({"shutil.copyfile", "os.rename", "os.remove", "shutil.rmtree", "os.mkdir"})


class Points:
    """Counts the points; at the fatal one the process is killed."""

    def __init__(self, fatal: int | None, below: str) -> None:
        self.fatal, self.below, self.count = fatal, below, 0

    def reached(self, *_: object) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def committing(self, connection: Any) -> None:
        if connection.connection.dbapi_connection.in_transaction:
            self.reached()

    def watch(self, event: str, args: tuple[Any, ...]) -> None:
        if event in FILES and any(self.below in str(each) for each in args[:2]):
            self.reached()

    def install(self) -> None:
        import requests
        import sqlalchemy

        sys.addaudithook(self.watch)
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", self.committing)
        plain: Any = requests.Session.send

        def send(session: Any, request: Any, **more: Any) -> Any:
            answer = plain(session, request, **more)
            if request.method != "GET" and not request.path_url.endswith("/search"):
                self.reached()
            return answer

        requests.Session.send = send  # type: ignore[method-assign, assignment]


def act(case: dict[str, Any]) -> None:
    from workbench.runs.outbox import Outbox
    from workbench.runs.sending import send

    if case["do"] == "send":
        send(Path(case["folder"]), case["uri"])
    elif case["do"] == "flush":
        Outbox(Path(case["folder"])).flush(case["uri"])
    else:
        entries = importlib.import_module("entries")  # beside this script
        entry = entries.entry_of(case["name"])
        Outbox(Path(case["folder"])).put(lambda folder: (entries.placed(entry, folder), entry)[1])


def start(case: dict[str, Any]) -> tuple[int, int]:
    """Fork; return the child and where it says how many points it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        points = Points(case.get("fatal"), case["below"])
        points.install()
        act(case)
        os.write(writing, str(points.count).encode())
    except BaseException as exc:  # noqa: BLE001 - told to whoever started it
        os.write(writing, f"{type(exc).__name__}: {exc}".encode())
        os._exit(3)
    os._exit(0)


def ended(child: int, reading: int) -> dict[str, Any]:
    with os.fdopen(reading) as told:
        said = told.read()
    status = os.waitpid(child, 0)[1]
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "said": said}


if __name__ == "__main__":
    import mlflow  # once, for all of them
    import mlflow.store.tracking.rest_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracing.client  # noqa: F401

    import workbench.runs.outbox  # noqa: F401

    for line in sys.stdin:
        cases = json.loads(line)
        started = [start(case) for case in cases]  # at the same time
        sys.stdout.write(json.dumps([ended(*each) for each in started]) + "\n")
        sys.stdout.flush()
