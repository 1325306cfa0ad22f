"""SIGKILL of a process at every named step of a governed call, and at random moments of many.

A process that dies keeps what it wrote in the page cache: these tests prove that no order of steps loses, doubles or
invents anything. They prove nothing about power loss; the ledger's own tests do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ActionMoved, GuardRejected, InDoubt, RecordedFailure
from runtime.actions import under_way
from runtime.evidence import broken_links
from runtime.protocol import STEPS
from runtime.recovery import recover
from runtime.settling import effect_id_of
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.crash

SCRIPT = Path(__file__).with_name("crash_child.py")
EVERYTHING = (0, 2**62, 1_000_000)
EFFECTS = {"put", "commit", "book", "wild"}
"""Events that are an effect; others prepare, or take one back."""


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("crash_child", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bank_of = _load()


@pytest.fixture(scope="module")
def run_child() -> Iterator[Callable[..., int]]:
    """Run a case in a process of its own; return the signal it died of."""
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forks:
        assert forks.stdin is not None
        stdin = forks.stdin

        def run(folder: Path, **case: Any) -> int:
            folder.mkdir(exist_ok=True)
            stdin.write(json.dumps({"folder": str(folder)} | case) + "\n")
            stdin.flush()
            assert forks.stdout is not None
            return int(forks.stdout.readline())

        yield run
        stdin.close()


def rows(runtime: Any, table: Any) -> list[dict[str, Any]]:
    return [row for _, row in runtime.ledger.rows_after(table, *EVERYTHING)]


def executions(runtime: Any) -> dict[str, list[dict[str, Any]]]:
    """Execution outcomes by decision, in order."""
    found = defaultdict(list)
    for row in rows(runtime, OUTCOMES):
        if row.get("kind") == "execution":
            found[row["decision_id"]].append(row)
    return found


# -- at every named step ---------------------------------------------------------------------------------------

CASES: dict[tuple[str, str], dict[str, tuple[str | None, set[str]]]] = {
    # (tool, id): step → (outcome after recovery, events at the bank by then)
    ("look", "good"): {
        "deciding": (None, set()),
        "decided": ("cancelled", set()),
        "ran": ("cancelled", set()),
        "ending": ("cancelled", set()),
        "ended": ("succeeded", set()),
    },
    ("put", "good"): {
        "decided": ("in_doubt", set()),
        "ran": ("in_doubt", {"put"}),
        "ending": ("in_doubt", {"put"}),
        "ended": ("succeeded", {"put"}),
    },
    ("pay", "good"): {
        "deciding": (None, set()),
        "decided": ("aborted", set()),
        "ran": ("aborted", {"prepare"}),
        "staged": ("aborted", {"prepare"}),
        "judging": ("aborted", {"prepare"}),
        "judged": ("aborted", {"prepare"}),
        "committing": ("in_doubt", {"prepare"}),
        "committed": ("in_doubt", {"prepare", "commit"}),
        "ending": ("in_doubt", {"prepare", "commit"}),
        "ended": ("succeeded", {"prepare", "commit"}),
    },
    ("pay", "bad"): {
        "judged": ("aborted", {"prepare"}),
        "ending": ("aborted", {"prepare"}),
        "aborting": ("aborted", {"prepare"}),
        "told": ("aborted", {"prepare", "abort"}),
    },
    ("book", "good"): {
        "decided": ("in_doubt", set()),
        "judged": ("in_doubt", {"book"}),
        "ended": ("succeeded", {"book"}),
    },
    ("book", "bad"): {
        "judged": ("in_doubt", {"book"}),
        "undoing": ("in_doubt", {"book"}),
        "undone": ("in_doubt", {"book", "unbook"}),
        "ending": ("in_doubt", {"book", "unbook"}),
        "ended": ("compensated", {"book", "unbook"}),
    },
}
POINTS = [
    (*which, step, asks)
    for which, steps in CASES.items()
    for step, (status, _) in steps.items()
    for asks in ([False, True] if status == "in_doubt" else [False])
]
"""A tool that can be asked is one more case where there is a question."""


def test_every_named_step_is_a_case() -> None:
    assert {step for *_, step, _ in POINTS} == set(STEPS)


@pytest.mark.parametrize(("tool", "ident", "fatal", "asks"), POINTS)
def test_killed_at_any_step(
    tmp_path: Path, run_child: Any, tool: str, ident: str, fatal: str, asks: bool
) -> None:
    status, events = CASES[tool, ident][fatal]
    assert run_child(tmp_path, tool=tool, id=ident, key="k", fatal=fatal) == signal.SIGKILL
    runtime, bank = bank_of.open_runtime(tmp_path, asks=asks, tools=False)
    with runtime.ledger:
        assert {event for event, _ in bank.effects()} == events
        decided = rows(runtime, DECISIONS)
        assert len(decided) == (status is not None)
        if status is None:
            assert under_way(runtime.ledger) == []
            return
        (decision,) = decided
        ident_of_effect = effect_id_of(decision)
        assert {effect for _, effect in bank.effects()} <= {ident_of_effect}
        last = executions(runtime)[decision["decision_id"]]
        assert [row["status"] for row in last] == [status]
        assert [doubt.effect_id for doubt in runtime.in_doubt()] == [ident_of_effect] * (status == "in_doubt")

        bank_of.register(runtime, bank, asks=asks)
        check_after_recovery(runtime, bank, decision, status, asks=asks)
        with (
            pytest.raises((InDoubt, GuardRejected, RecordedFailure)) if status != "succeeded" else _nothing()
        ):
            bank_of.call(runtime, tool, ident, "k")
        assert max(bank.effects().values(), default=0) <= 1 + (fatal == "told")  # nothing ran again


def _nothing() -> Any:
    return contextlib.nullcontext()


def check_after_recovery(runtime: Any, bank: Any, decision: Any, status: str, *, asks: bool) -> None:
    """Once the tools are there: told, asked, and otherwise left alone."""
    truth = bank.status(effect_id_of(decision))
    known = [row["status"] for row in executions(runtime)[decision["decision_id"]]]
    events = {event for event, _ in bank.effects()}
    if status == "in_doubt" and asks:
        undone = "unbook" in events
        assert known == ["in_doubt", "compensated" if undone else truth]
        assert under_way(runtime.ledger) == []
    elif status == "in_doubt":
        assert known == ["in_doubt"]
        assert [action.state for action in under_way(runtime.ledger)] == ["in_doubt"]
    else:
        assert known == [status]
        assert under_way(runtime.ledger) == []
    if decision["tool"] == "pay" and status == "aborted":
        assert "abort" in events
        assert "commit" not in events


def test_a_person_resolves_what_nobody_knows(tmp_path: Path, run_child: Any) -> None:
    assert run_child(tmp_path, tool="wild", id="good", key="k", fatal="ran") == signal.SIGKILL
    runtime, bank = bank_of.open_runtime(tmp_path, asks=True)
    with runtime.ledger:
        (doubt,) = runtime.in_doubt()
        assert (doubt.tool, doubt.args, doubt.concluded) == ("wild", {"id": "good"}, True)
        with pytest.raises(ValueError, match="`status` is one of aborted, cancelled"):
            runtime.resolve(doubt.decision_id, "denied", source="me")
        with pytest.raises(ValueError, match="`source` says who"):
            runtime.resolve(doubt.decision_id, "aborted", source=" ")
        row = runtime.resolve(doubt.decision_id, "succeeded", source="User::ana, by the statement")
        assert (row["reason_code"], row["source"]) == ("resolved", "User::ana, by the statement")
        with pytest.raises(ActionMoved, match="is not in doubt"):
            runtime.resolve(doubt.decision_id, "aborted", source="me")
        assert runtime.in_doubt() == []
        assert bank.effects() == Counter({("wild", doubt.effect_id): 1})


def test_two_that_recover_at_once_conclude_once(tmp_path: Path, run_child: Any) -> None:
    """The second finds what the first concluded between its look and its commit."""
    for tool in ("wild", "pay"):
        assert run_child(tmp_path, tool=tool, id="good", fatal="ran") == signal.SIGKILL
    first, _ = bank_of.open_runtime(tmp_path, asks=False, tools=False)
    with first.ledger:
        found = dict(executions(first))
        assert sorted(row[0]["status"] for row in found.values()) == ["aborted", "in_doubt"]
        late = recover(first)
        assert (late.aborted, late.in_doubt, sorted(late.owed)) == ([], [], ["pay", "wild"])
        assert executions(first) == found


# -- at random moments -----------------------------------------------------------------------------------------


def crash_at_random(folder: Path, run_child: Any, seed: int) -> Counter[str]:
    """Kill a process that calls everything from three threads; return what was found, by outcome."""
    moment = random.Random(seed).uniform(0.0, 0.15)
    assert run_child(folder, seed=seed, kill_after=moment) == signal.SIGKILL
    runtime, bank = bank_of.open_runtime(folder, asks=seed % 2 == 0)
    with runtime.ledger:
        return check_everything(runtime, bank, folder, asks=seed % 2 == 0)


def check_everything(runtime: Any, bank: Any, folder: Path, *, asks: bool) -> Counter[str]:
    decisions = {row["decision_id"]: row for row in rows(runtime, DECISIONS)}
    outcomes, effects = executions(runtime), bank.effects()
    chain: list[tuple[str, dict[str, Any]]] = [("decisions", row) for row in decisions.values()]
    chain += [("outcomes", row) for row in rows(runtime, OUTCOMES)]
    chain.sort(key=lambda link: link[1]["position"])
    assert broken_links(chain) == []

    ran = {
        ident: row for ident, row in decisions.items() if row["kind"] == "call" and row["verdict"] == "allow"
    }
    by_effect = {effect_id_of(row): ident for ident, row in ran.items()}
    assert len(by_effect) == len(ran)  # one idempotency key, one action
    assert {effect for _, effect in effects} <= by_effect.keys()  # no effect without its trace
    twice = {
        each: n for each, n in effects.items() if n > 1 and each[0] != "abort"
    }  # an abort may come again
    assert twice == {}
    acknowledged = (folder / "acks").read_text().split() if (folder / "acks").exists() else []
    for ident in set(acknowledged) & ran.keys():
        assert outcomes[ident][-1]["status"] == "succeeded"  # what was returned is what is recorded
    assert set(acknowledged) <= decisions.keys()

    doubtful = {doubt.decision_id for doubt in runtime.in_doubt()}
    assert {action.decision_id for action in under_way(runtime.ledger)} == doubtful
    for ident, row in ran.items():
        events = {event for event, effect in effects if effect == effect_id_of(row)}
        check_action([found["status"] for found in outcomes[ident]], events, row, ident in doubtful)
    if asks:
        assert {decisions[ident]["tool"] for ident in doubtful} <= {"wild"}
    return Counter(found[-1]["status"] for found in outcomes.values())


def check_action(known: list[str], events: set[str], row: dict[str, Any], doubtful: bool) -> None:
    """What is recorded of an action is what the bank knows, or doubt."""
    assert known[:-1] in ([], ["in_doubt"]), known  # one ending; before it doubt, at most
    assert doubtful == (known[-1] == "in_doubt")
    match known[-1]:
        case "succeeded" if row["tool"] != "look":
            assert events & EFFECTS
            assert not events & {"abort", "unbook"}
        case "aborted":
            assert not events & EFFECTS
            assert row["tool"] != "pay" or "abort" in events
        case "compensated":
            assert "unbook" in events
        case "cancelled":
            assert row["tool"] == "look"
        case "failed":
            raise AssertionError(row)


def test_killed_at_forty_random_moments(tmp_path: Path, run_child: Any) -> None:
    found = sum((crash_at_random(tmp_path / str(s), run_child, s) for s in range(40)), Counter[str]())
    assert found["succeeded"] > 40
    assert found["in_doubt"] + found["aborted"] + found["cancelled"] > 10  # the kills did hit something


@pytest.mark.fuzz
def test_killed_at_five_hundred_random_moments(tmp_path: Path, run_child: Any) -> None:
    found = sum((crash_at_random(tmp_path / str(s), run_child, s) for s in range(1000, 1500)), Counter[str]())
    assert found["succeeded"] > 500
    assert found["in_doubt"] + found["aborted"] + found["cancelled"] > 100
