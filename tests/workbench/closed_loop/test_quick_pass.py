"""The quick pass against the plain one: any history, as integers, comes to the same run."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.limits import AFTER
from runtime.limits_file import parse_limits
from workbench.closed_loop.entries import NO, UNSURE, YES, Calls, End, Run
from workbench.closed_loop.log import AFTER as COUNTERS
from workbench.closed_loop.quick import QuickPass
from workbench.closed_loop.rules import Ruleset, ruleset
from workbench.closed_loop.sequence import Pass
from workbench.closed_loop.tracks import Guard

PERS = ("session", "principal", "on_behalf_of", "tenant", "tool")
BUDGETS = (
    '[[budget]]\nname = "s"\nmax = {}\n',
    '[[budget]]\nname = "s2"\nmax = {}\nactions = ["pay"]\n',
    '[[budget]]\nname = "p"\nper = "principal"\nmax = {}\n',
    '[[budget]]\nname = "w"\nper = "tenant"\nwindow = "20s"\nmax = {}\n',
    '[[budget]]\nname = "m"\nper = "tenant"\nmeasure = "args.cents"\nmax = {}0\nactions = ["pay"]\n',
    '[[budget]]\nname = "mw"\nper = "session"\nmeasure = "args.cents"\nwindow = "5s"\nmax = {}0\n',
    '[[budget]]\nname = "c"\nper = "principal"\nmeasure = "cost_micros"\nmax = {}\n',
    '[[budget]]\nname = "sc"\nmeasure = "tokens"\nmax = {}\n',
    '[[breaker]]\nname = "b"\nlast = {}\nmin_calls = 1\nopen_for = "7s"\nmax_error_rate = 0.4\n',
    '[[breaker]]\nname = "bp"\nper = "principal"\nlast = {}\nmin_calls = 1\nopen_for = "20s"\n',
)


def rulesets_of(pick: Random) -> list[Ruleset]:
    chosen = pick.sample(BUDGETS, pick.randint(1, 4))
    limits = parse_limits("version = 2\n" + "".join(each.format(pick.randint(1, 6)) for each in chosen))
    found = [ruleset(limits, tool, on_behalf=pick.random() < 0.5) for tool in ("pay", "look")]
    return [rules for rules in found if rules is not None]


def history(
    pick: Random, rules: int, *, sure: bool
) -> tuple[Calls, list[int], list[tuple[Any, ...]], list[bool]]:
    """Calls of two ledgers, with outcomes between them; `sure`: what almost all of a real log is like."""
    rows, now = pick.randint(1, 60), 1_000_000
    doubt = [NO, YES, YES, YES] if sure else [NO, YES, YES, UNSURE]
    at, ledger, order, ends = [], [], [], []
    split = rows if sure else pick.randint(1, rows)
    for row in range(rows):
        now += pick.choice([0, 1, 500, 3000, 9000] if sure else [0, 1, 900, 4000, 30_000, -5_000, -60_000])
        at.append(now)
        ledger.append(0 if row < split else 1)
    for which in (0, 1):
        for row in (row for row in range(rows) if ledger[row] == which):
            order.append(row)
            if order and pick.random() < 0.7:
                of = row if pick.random() < 0.8 else pick.choice([each for each in order if each >= 0])
                status = pick.choice(
                    ["succeeded"] * 4 + ["failed"] * 3 + ["in_doubt", "aborted", "denied", "cancelled"]
                )
                used = {name: pick.randint(0, 3) for name in COUNTERS} if pick.random() < 0.8 else None
                ends.append(
                    (
                        of,
                        status,
                        pick.random() < 0.8,
                        at[row] + pick.choice([0, 40]),
                        used,
                        pick.random() < 0.1,
                    )
                )
                order.append(-len(ends))
    ran = [pick.random() < 0.8 for _ in range(rows)]
    resumes = [
        pick.randint(0, row - 1) if row and not sure and pick.random() < 0.15 else -1 for row in range(rows)
    ]
    heir = [-1] * rows
    for row, asker in enumerate(resumes):
        if asker >= 0 and pick.random() < 0.5:
            heir[asker] = row
    amounts = [pick.choice([0, 1, 5, 5, 20] if sure else [-1, 0, 1, 5, 20]) for _ in range(rows)]
    scope = {per: [2 * ledger[row] + pick.randint(0, 1) for row in range(rows)] for per in PERS}
    calls = Calls(
        free=[pick.choice(doubt) for _ in range(rows)],
        asks=[pick.choice([NO, NO, YES] if sure else [NO, YES, UNSURE]) for _ in range(rows)],
        early=[pick.random() < 0.1 for _ in range(rows)],
        plain=[pick.random() < 0.9 for _ in range(rows)],
        ran=ran,
        known=[each and (sure or pick.random() < 0.8) for each in ran],
        at=at,
        rules=[pick.randint(-1, rules - 1) for _ in range(rows)],
        per=scope,
        ledger=ledger,
        asked={"args.cents": amounts},
        taken={"args.cents": [pick.choice([each, each, 5]) for each in amounts]},
        then={
            name: [pick.choice([row // 3, row // 3, row // 3, None if not sure else 0]) for row in range(rows)]
            for name in ("calls", *sorted({name for names in AFTER.values() for name in names}))
        },
        resumes=resumes,
        heir=heir,
        key=[-1 if sure or pick.random() < 0.8 else pick.randint(0, 1) for _ in range(rows)],
        repeat=[pick.random() < 0.2 for _ in range(rows)],
        conflict=[pick.random() < 0.1 for _ in range(rows)],
        args=[pick.randint(0, 1) for _ in range(rows)],
        action=[pick.randint(-1, 1) for _ in range(rows)],
    )  # fmt: skip
    return calls, order, ends, [True, True] if sure else [pick.random() < 0.7, True]


def both(seed: int, *, sure: bool) -> tuple[Run, Run]:
    pick = Random(seed)
    rulesets = rulesets_of(pick)
    calls, order, ends, whole = history(pick, len(rulesets), sure=sure)
    how = {"denied": not sure and pick.random() < 0.2, "worded": pick.random() < 0.7}
    plain, quick = Pass(calls, rulesets, whole, **how), QuickPass(calls, rulesets, whole, ends, **how)
    for what in order:
        if what >= 0:
            plain.decide(what)
        else:
            plain.end(End._make(ends[-1 - what]))
    some = pick.randint(1, len(order))
    quick.through(order[:some])
    quick.through(order[some:])
    return plain.found, quick.found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), sure=st.booleans())
def test_a_quick_pass_comes_to_the_same(seed: int, sure: bool) -> None:
    plain, quick = both(seed, sure=sure)
    assert quick == plain


def test_both_kinds_of_rows_occur_in_these_histories() -> None:
    """The property above is about something: rows that run, are refused for sure, may be, and hang on others."""
    runs = [both(seed, sure=seed % 2 == 0)[1] for seed in range(60)]
    assert sum(len(run.refused) for run in runs) > 30
    assert sum(len(run.told) for run in runs) > 30
    assert any(run.conflicts for run in runs)
    assert any(run.unasked for run in runs)
    assert {answer for run in runs for answer in run.runs} == {NO, YES, UNSURE}


@pytest.mark.parametrize("seed", range(20))
def test_a_guard_counts_as_its_circuit_does(seed: int) -> None:
    pick = Random(seed)
    text = '[[breaker]]\nname = "b"\nlast = {}\nmin_calls = 3\nopen_for = "7s"\nmax_error_rate = 0.6\n'
    (breaker,) = parse_limits("version = 2\n" + text.format(pick.randint(3, 8))).breakers
    plain, now, nexts = Guard(breaker, whole=True), 0, dict[Any, Any]()
    counting, states = Guard(breaker, whole=True, nexts=nexts), set()
    for call in range(100):
        now += pick.choice([-20, 0, 100, 4000])
        status = pick.choice(["succeeded", "succeeded", "failed", "cancelled", "in_doubt"])
        for guard in (counting, plain):
            guard.passes(str(call), now)
        if not counting.counts(status, now):
            counting.ended(str(call), status, now)
        plain.ended(str(call), status, now)
        assert counting.circuit == plain.circuit
        states.add(plain.circuit.state)
    assert nexts
    assert len(states) > 1
