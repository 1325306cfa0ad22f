"""Real signals to real processes: calls under way are finished or recorded, the ledger is drained and closed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runtime import GovernanceError, ShuttingDown
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, signal, sys, threading, time
from pathlib import Path
from runtime import Runtime, ShuttingDown
from runtime.bundle import bundle_from_files

folder, how = Path(sys.argv[1]), sys.argv[2]
schema = '''entity Agent; entity Tool;
action "slow" appliesTo { principal: [Agent], resource: [Tool], context: { args: {} } };'''
files = {"p.cedar": '@id("p") permit(principal, action, resource);', "schema.cedarschema": schema}
rt = Runtime.open(bundle_from_files(files, "b"), lake=folder / "lake")
rt.shutdown_on(signal.SIGTERM, signal.SIGINT)

def say(word):
    print(word, flush=True)

def slow():
    say("running")
    for _ in range(2000):
        time.sleep(0.01)

async def slow_async():
    say("running")
    await asyncio.sleep(20)

def finishes():
    say("running")
    while not rt.stopping:
        time.sleep(0.005)
    return "finished"

session = rt.session(principal="Agent::a", tenant="t")
if how == "main":
    rt.tool(slow, name="slow", effect="idempotent")
    session.call("slow")
elif how == "with":
    rt.tool(slow, name="slow", effect="idempotent")
    with rt:
        session.call("slow")
elif how == "loop":
    rt.tool(slow_async, name="slow", effect="idempotent")
    asyncio.run(session.acall("slow"))
elif how == "thread":
    rt.tool(finishes, name="slow", effect="idempotent")
    def work():
        try:
            while True:
                session.call("slow")
        except ShuttingDown:
            say("refused")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""

ENDS = {
    "main": ("in_doubt", "cancelled"),
    "with": ("in_doubt", "cancelled"),
    "loop": ("in_doubt", "cancelled"),
    "thread": ("succeeded", "returned"),
}


@pytest.mark.crash
@pytest.mark.parametrize(
    ("how", "number"), [*((how, signal.SIGTERM) for how in ENDS), ("main", signal.SIGINT)]
)
def test_a_signal_ends_the_process_with_every_call_recorded(tmp_path: Path, how: str, number: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (128 + number, "")
    assert out == ("refused\n" if how == "thread" else "")
    with Ledger.open(tmp_path / "lake" / "_ledger.sqlite", create=False) as ledger:
        assert len(ledger.unfinished()) == (ENDS[how][0] == "in_doubt")
        ((_, outcome),) = ledger.rows_after(OUTCOMES, 0, 2**62, 100)
        assert (outcome["status"], outcome["reason_code"]) == ENDS[how]
    store = LakeStore(tmp_path / "lake", write=True)
    assert (store.read(DECISIONS).num_rows, store.read(OUTCOMES).num_rows) == (1, 1)  # drained


def test_closing_waits_for_calls_of_other_threads_and_refuses_new_ones(till: Any, gate: Any) -> None:
    till.declare(gate, effect="idempotent")
    first = threading.Thread(target=till.call)
    first.start()
    gate.reached.wait(20)
    closing = threading.Thread(target=till.runtime.close, kwargs={"drain": False})
    closing.start()
    while not till.runtime.stopping:
        threading.Event().wait(0.001)
    with pytest.raises(ShuttingDown):
        till.call()
    assert closing.is_alive()
    gate.opened.set()
    first.join(20)
    closing.join(20)
    with Ledger.open(till.ledger.path) as ledger:
        assert ledger.unfinished() == []


def test_what_does_not_end_in_time_is_recorded_as_what_is_known(till: Any, gate: Any) -> None:
    till.declare(gate, effect="idempotent")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            till.call()
        except GovernanceError as exc:
            caught.append(exc)

    first = threading.Thread(target=work)
    first.start()
    gate.reached.wait(20)
    till.runtime.close(drain=False, grace=0.01)
    with Ledger.open(till.ledger.path) as ledger:
        ((_, outcome),) = ledger.rows_after(OUTCOMES, 0, 2**62, 100)
        assert (outcome["status"], outcome["reason_code"]) == ("in_doubt", "cancelled")
    gate.opened.set()
    first.join(20)
    assert len(caught) <= 1


def test_signals_are_installed_in_the_main_thread_only(till: Any) -> None:
    caught: list[BaseException] = []

    def install() -> None:
        try:
            till.runtime.shutdown_on(signal.SIGUSR1)
        except GovernanceError as exc:
            caught.append(exc)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert "call `shutdown_on` there" in str(caught[0])
