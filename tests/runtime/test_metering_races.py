"""Counters that several threads and processes share, and that a crash leaves as they were."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from runtime import Blocked
from runtime.ledger import Ledger

LIMITS = """
version = 2
[[budget]]
name = "calls"
per = "tenant"
max = {calls}
[[budget]]
name = "money"
per = "tenant"
measure = "args.cents"
window = "1h"
max = {cents}
"""

CHILD = """
import os, signal, sys, threading
from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files

lake, name, threads, each, kill = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
schema = '''entity Agent; entity Order; action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order: String, cents: Long } } };'''
policy = '@id("p") permit(principal, action, resource);'
texts = {"p.cedar": policy, "schema.cedarschema": schema, "limits.toml": sys.argv[6]}
runtime = Runtime.open(bundle_from_files(texts, "b"), lake=lake)
ran = []

@runtime.tool(resource="Order::{order}")
def pay(order: str, cents: int) -> None:
    ran.append(cents)
    if kill == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

def work(number: int) -> None:
    session = runtime.session(principal="Agent::bot", tenant="acme", session_id=f"{name}-{number}")
    for _ in range(each):
        try:
            session.call(pay, order="o", cents=3)
        except Blocked:
            pass

workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(len(ran))
runtime.ledger.close()
"""


def spawn(lake: Path, name: str, limits: str, *, threads: int, each: int, kill: str = "") -> Any:
    command = [sys.executable, "-c", CHILD, str(lake), name, str(threads), str(each), kill, limits]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("calls", "cents", "expected"), [(37, 10**6, 37), (10**6, 100, 33)])
def test_two_processes_of_threads_run_exactly_what_a_budget_allows(
    tmp_path: Path, calls: int, cents: int, expected: int
) -> None:
    limits = LIMITS.format(calls=calls, cents=cents)
    children = [spawn(tmp_path / "lake", name, limits, threads=3, each=20) for name in "ab"]
    ran = [int(child.communicate(timeout=120)[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum(ran) == expected
    with Ledger.open(tmp_path / "lake" / "_ledger.sqlite") as ledger:
        used = dict(ledger.query("SELECT meter, used FROM meters"))
        assert used == {"calls per tenant": expected, "args.cents per tenant in 1h": 3 * expected}
        assert ledger.query("SELECT count(*) FROM metered") == [(0,)]


def test_threads_of_one_process_run_exactly_what_a_budget_allows(metered: Any) -> None:
    world = metered(LIMITS.format(calls=25, cents=10**6))

    def work(number: int) -> None:
        session = world.session(session_id=f"s{number}")
        for _ in range(10):
            try:
                session.call("pay", order="o")
            except Blocked:
                continue

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.ran == 25


@pytest.mark.crash
def test_what_was_taken_stays_taken_when_the_process_is_killed(tmp_path: Path) -> None:
    """Killed inside the tool: nobody knows whether it took effect, so nothing is given back."""
    limits = LIMITS.format(calls=2, cents=10**6)
    lake = tmp_path / "lake"
    for _ in range(2):
        killed = spawn(lake, "k", limits, threads=1, each=1, kill="kill")
        killed.communicate(timeout=60)
        assert killed.returncode == -9
    last = spawn(lake, "last", limits, threads=1, each=3)
    assert (int(last.communicate(timeout=60)[0]), last.returncode) == (0, 0)
    with Ledger.open(lake / "_ledger.sqlite") as ledger:
        assert dict(ledger.query("SELECT meter, used FROM meters"))["calls per tenant"] == 2
        assert ledger.query("SELECT count(*) FROM metered") == [(2,)]  # kept while they are in doubt


@pytest.mark.crash
def test_a_probe_whose_process_was_killed_is_lost_and_the_breaker_goes_on(tmp_path: Path) -> None:
    limits = 'version = 2\n[[breaker]]\nname = "k"\nmin_calls = 1\nmax_error_rate = 0\nopen_for = "1ms"\nprobe_for = "1ms"\n'
    lake = tmp_path / "lake"
    killed = spawn(lake, "k", limits, threads=1, each=1, kill="kill")
    killed.communicate(timeout=60)
    with Ledger.open(lake / "_ledger.sqlite") as ledger:
        assert ledger.query("SELECT count(*) FROM metered") == [(1,)]
    again = spawn(
        lake, "a", limits, threads=1, each=1
    )  # recovery tells the breaker; a call finds it half open
    assert int(again.communicate(timeout=60)[0]) == 1


def test_a_counter_that_moves_while_a_call_is_decided_has_it_decided_again(metered: Any) -> None:
    """Another call spends the budget between the reading and the commit."""
    world = metered(LIMITS.format(calls=1, cents=10**6))
    ledger, commit, first = world.runtime.ledger, world.runtime.ledger.commit, [True]

    def slow(**what: Any) -> Any:
        if what.get("session") is not None and first.pop() if first else False:
            assert world.ask("pay", world.session(session_id="other")) == "permitted"
        return commit(**what)

    ledger.commit = slow
    assert world.ask("pay") == "budget_spent"
    assert world.ran == 1


def test_a_counter_that_policies_watch_moves_while_a_call_is_decided(metered: Any) -> None:
    policies = """
@id("permit") permit(principal, action, resource);
@id("frail") forbid(principal, action, resource) when { context.session has failures && context.session.failures > 0 };
"""
    world = metered(policies=policies)
    session = world.session()
    world.ask("look", session)
    ledger, commit, first = world.runtime.ledger, world.runtime.ledger.commit, [True]

    def slow(**what: Any) -> Any:
        if what.get("session") is not None and first:
            first.clear()
            commit(moves=[lambda db: db.execute("UPDATE session_meters SET failures = 1")])
        return commit(**what)

    ledger.commit = slow
    assert world.ask("pay", session) == "forbidden"
    assert world.ran == 1


def test_of_two_calls_that_find_a_breaker_half_open_one_probes(metered: Any) -> None:
    limits = 'version = 2\n[[breaker]]\nname = "k"\nmin_calls = 1\nmax_error_rate = 0\nopen_for = "60s"'
    world = metered(limits)
    world.body = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        world.session().call("pay", order="o")
    world.clock.pass_by(seconds=60)
    ledger, commit, first, ran = world.runtime.ledger, world.runtime.ledger.commit, [True], list[str]()

    def slow(**what: Any) -> Any:
        if what.get("session") is not None and first:
            first.clear()
            world.body = lambda: ran.append(world.ask("pay", world.session(session_id="during")))
            assert world.ask("pay", world.session(session_id="other")) == "permitted"
            commit(moves=[lambda db: db.execute(HALF_OPEN)])  # as if the other probe were under way still
        return commit(**what)

    ledger.commit = slow
    assert world.ask("pay") == "breaker_open"
    assert ran == ["breaker_open"]


HALF_OPEN = (
    "UPDATE circuits SET circuit ="
    " json_set(circuit, '$.state', 'half_open', '$.probes', json_object('other', json_extract(circuit, '$.since')))"
)
