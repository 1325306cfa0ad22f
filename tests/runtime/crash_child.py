"""A bank whose effects are a file of its own, synced at once, and processes that use it through a runtime and die.

Run as a script it forks one process a line of standard input, a case as JSON, and answers with the signal each died
of (or minus its exit code). It forks, because starting Python hundreds of times would take minutes; nothing is open
before a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from runtime import GovernanceError, Runtime, current_session
from runtime.bundle import bundle_from_files

TOOLS = ("look", "put", "pay", "book", "wild")
SCHEMA = "entity Agent; entity Thing;\n" + "\n".join(
    f'action "{name}" appliesTo {{ principal: [Agent], resource: [Thing], context: {{ args: {{ id: String }} }} }};'
    for name in TOOLS
)
POLICIES = '@id("permit") permit(principal, action, resource);'


class Bank:
    """The system behind the tools. Effects are lines of a file that is synced before a function returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "effects"
        self._lock = threading.Lock()

    def note(self, event: str, effect_id: str) -> None:
        with self._lock:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(handle, f"{event} {effect_id}\n".encode())
            os.fsync(handle)
            os.close(handle)

    def effects(self) -> Counter[tuple[str, str]]:
        """How often each (event, effect) happened. A line is one write: it is there or it is not."""
        if not self.path.exists():
            return Counter()
        return Counter(tuple(line.split()) for line in self.path.read_text().splitlines())  # type: ignore[misc]

    def status(self, effect_id: str) -> str:
        """What the bank knows of an effect, once nobody is at work on it."""
        found = {event for event, effect in self.effects() if effect == effect_id}
        if "unbook" in found:
            return "aborted"
        return "succeeded" if found & {"put", "commit", "book"} else "aborted"


def open_runtime(folder: Path, *, asks: bool, tools: bool = True) -> tuple[Runtime, Bank]:
    """Open a runtime with a tool of each effect; with `asks`, the bank answers questions after a crash."""
    runtime = Runtime.open(
        bundle_from_files({"p.cedar": POLICIES, "schema.cedarschema": SCHEMA}, "b"), lake=folder / "lake"
    )
    bank = Bank(folder)
    if tools:
        register(runtime, bank, asks=asks)
    return runtime, bank


def register(runtime: Runtime, bank: Bank, *, asks: bool) -> None:
    status: dict[str, Any] = {"status": bank.status} if asks else {}

    def decent(proposal: Any) -> tuple[bool, str]:
        return not proposal.args["id"].startswith("bad"), "as its id says"

    def look(id: str) -> str:  # noqa: A002
        return id

    def put(id: str, effect_id: str) -> str:  # noqa: A002
        bank.note("put", effect_id)
        return id

    def pay(id: str, effect_id: str) -> dict[str, str]:  # noqa: A002
        bank.note("prepare", effect_id)
        return {"hold": effect_id}

    def commit(hold: dict[str, str]) -> str:
        bank.note("commit", hold["hold"])
        return "paid"

    def abort(hold: dict[str, str] | None, effect_id: str) -> None:
        assert hold is None or hold["hold"] == effect_id
        bank.note("abort", effect_id)

    def book(id: str, effect_id: str) -> str:  # noqa: A002
        bank.note("book", effect_id)
        return effect_id

    def unbook(booked: str) -> None:
        bank.note("unbook", booked)

    def wild(id: str, effect_id: str) -> str:  # noqa: A002
        bank.note("wild", effect_id)
        return id

    where = "Thing::{id}"
    runtime.tool(look, resource=where, effect="read")
    runtime.tool(put, resource=where, effect="idempotent", writes=[where], **status)
    runtime.tool(
        pay,
        resource=where,
        effect="staged",
        commit=commit,
        abort=abort,
        guards=[decent],
        writes=[where],
        **status,
    )
    runtime.tool(book, resource=where, effect="compensable", undo=unbook, guards=[decent], **status)
    runtime.tool(wild, resource=where)


def die_at(runtime: Runtime, fatal: str) -> None:
    def at_step(step: str) -> None:
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    runtime.at_step = at_step


def call(runtime: Runtime, tool: str, ident: str, key: str | None, session_id: str | None = None) -> Any:
    with runtime.session(principal="Agent::a", tenant="t", session_id=session_id) as session:
        result = session.call(tool, ident, idempotency_key=key)
        assert current_session() is session
        assert session.last_decision is not None
        return result, session.last_decision["decision_id"]


def one_call(case: dict[str, Any]) -> None:
    """Die at a named step of one call."""
    folder = Path(case["folder"])
    runtime, _ = open_runtime(folder, asks=False)
    die_at(runtime, case["fatal"])
    with contextlib.suppress(GovernanceError):
        call(runtime, case["tool"], case["id"], case.get("key"))


def many_calls(case: dict[str, Any], ready: int) -> None:
    """Call everything from several threads until somebody kills us; note what was returned, synced."""
    folder = Path(case["folder"])
    runtime, _ = open_runtime(folder, asks=False)
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def work(number: int) -> None:
        chance = random.Random(f"{case['seed']} {number}")
        for _ in range(10_000):
            tool, ident = chance.choice(TOOLS), chance.choice(["good", "bad"])
            key = chance.choice([None, f"k{chance.randrange(6)}{ident}"])
            with contextlib.suppress(GovernanceError):
                _, decision_id = call(runtime, tool, ident, key)
                os.write(acks, f"{decision_id}\n".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    os.write(ready, b"!")
    for thread in threads:
        thread.join()


def run_case(case: dict[str, Any]) -> int:
    """Fork, let the child run its case, kill it if the case says when; return the signal it died of."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            one_call(case) if "fatal" in case else many_calls(case, writing)
        except BaseException as exc:  # noqa: BLE001
            sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    os.close(writing)
    if "kill_after" in case:
        os.read(reading, 1)
        time.sleep(case["kill_after"])
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{run_case(json.loads(line))}\n")
        sys.stdout.flush()
