"""SIGKILL of a child at every named point of the drain, and at random moments of writing and draining.

A process that dies keeps what it wrote in the page cache: these tests prove that no order of steps loses or
doubles a row. They prove nothing about power loss.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runtime.arrow import to_arrow
from runtime.drain import drain
from runtime.evidence import broken_links
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.testing import blob, context, decision, entity, entity_slice, execution, sample
from runtime.trace import DECISIONS, DRAINED, OUTCOMES, POLICIES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.crash

EVERYTHING = (0, 2**62, 100_000)
STEPS = [
    "leased",
    *(f"{point}:{table.name}" for table in DRAINED for point in ("opened", "read", "written")),
    "drained",
]

DRAIN_AND_DIE = """
    import os, signal, sys
    from runtime.drain import drain
    from runtime.lake import LakeStore
    from runtime.ledger import Ledger

    ledger, lake, fatal = sys.argv[1:]

    def at_step(step):
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    drain(Ledger.open(ledger, create=False), LakeStore(lake, write=True), at_step=at_step)
"""

WRITE_AND_DRAIN = """
    import sys
    from runtime.drain import drain
    from runtime.lake import LakeStore
    from runtime.ledger import Claim, Ledger
    from runtime.testing import context, decision, execution
    from runtime.trace import DECISIONS, OUTCOMES

    ledger = Ledger.open(sys.argv[1])
    store = LakeStore(sys.argv[2], write=True)
    while True:
        for _ in range(20):
            made = decision()
            text = context(made["decision_id"])
            ledger.commit(
                contents=[text],
                evidence=[(DECISIONS, made | {"context_hash": text[1]["context_hash"]})],
                claim=Claim(made["decision_id"], "a", made["decision_id"]),
            )
            print(made["decision_id"], flush=True)
            ledger.commit(evidence=[(OUTCOMES, execution(made))])
        drain(ledger, store)
"""


def child(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def fill(ledger: Ledger) -> None:
    for number in range(3):
        contents = [context(str(number)), entity(str(number)), blob(str(number))]
        contents += [entity_slice([contents[1][1]["entity_hash"]]), (POLICIES, sample(POLICIES))]
        made = decision(tenant=f"t{number}")
        ledger.commit(contents=contents, evidence=[(DECISIONS, made), (OUTCOMES, execution(made))])


def assert_lake_is_ledger(ledger: Ledger, store: LakeStore) -> None:
    """Every row once, as it was written, and the chain read back from Delta itself is whole."""
    chain: list[tuple[str, Any]] = []
    for table in DRAINED:
        rows = [row for _, row in ledger.rows_after(table, *EVERYTHING)]
        found, by_key = store.read(table), [(table.key, "ascending")]
        assert Counter(found[table.key].to_pylist()) == Counter(row[table.key] for row in rows), table.name
        assert found.sort_by(by_key).equals(to_arrow(table, rows).sort_by(by_key)), table.name
        if table in (DECISIONS, OUTCOMES):
            chain += [(table.name, as_row(row)) for row in found.to_pylist()]
    assert len(chain) == ledger.head()[0]
    assert broken_links(chain) == []


def as_row(row: dict[str, Any]) -> dict[str, Any]:
    """Delta's moments as the microseconds that rows have."""
    moments = {name: value for name, value in row.items() if hasattr(value, "timestamp")}
    return row | {name: round(value.timestamp() * 1_000_000) for name, value in moments.items()}


@pytest.mark.parametrize("fatal", STEPS)
def test_killed_at_any_point_the_next_drain_completes_it(tmp_path: Path, fatal: str) -> None:
    path, lake = tmp_path / "ledger.sqlite", tmp_path / "lake"
    with Ledger.open(path) as ledger:
        fill(ledger)
    died = subprocess.run(child(DRAIN_AND_DIE, path, lake, fatal), check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    with Ledger.open(path, create=False) as ledger:
        store = LakeStore(lake, write=True)
        before = {table.name: store.read(table).num_rows for table in DRAINED}
        report = drain(ledger, store)
        assert report.holder is None  # the dead drainer's lease is nobody's
        assert {name: before[name] + report.rows.get(name, 0) for name in before} == dict.fromkeys(before, 3)
        assert_lake_is_ledger(ledger, store)


def test_killed_again_and_again_at_random_moments(tmp_path: Path) -> None:
    """Every acknowledged decision is in the ledger, and what a last drain leaves is the ledger, once."""
    seed = 20261122
    moments = random.Random(seed)
    path, lake = tmp_path / "ledger.sqlite", tmp_path / "lake"
    acknowledged: set[str] = set()
    for _ in range(8):
        running = subprocess.Popen(child(WRITE_AND_DRAIN, path, lake), stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        acknowledged.add(running.stdout.readline().strip())
        time.sleep(moments.uniform(0, 0.6))
        running.kill()
        rest, _ = running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL
        acknowledged.update(line for line in rest.split("\n")[:-1])
    with Ledger.open(path, create=False) as ledger:
        store = LakeStore(lake, write=True)
        assert drain(ledger, store).holder is None
        assert_lake_is_ledger(ledger, store)
        stored = set(store.read(DECISIONS)["decision_id"].to_pylist())
        assert acknowledged <= stored
        assert len(acknowledged) > 8
        assert len(stored) <= len(acknowledged) + 8  # killed between commit and acknowledgement
        assert all(ledger.claim(one) for one in stored)
        finished = set(store.read(OUTCOMES)["decision_id"].to_pylist())
        assert {row["decision_id"] for row in ledger.unfinished()} == stored - finished


def test_a_drain_leaves_a_process_that_ends_well(tmp_path: Path) -> None:
    """Native threads must not abort the interpreter at exit."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        fill(ledger)
    for number in range(5):
        command = child(DRAIN_AND_DIE, path, tmp_path / str(number), "never")
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
