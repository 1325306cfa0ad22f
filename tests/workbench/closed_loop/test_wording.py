"""Refusals that are sure, worded by the limits themselves: as the engine says them, and held to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from workbench import redeciding
from workbench.closed_loop import Simulated, again, iterating, simulate, wording
from workbench.closed_loop.quick import QuickPass
from workbench.errors import OracleMismatch
from workbench.history.results import ENGINE as COLUMNAR

LIMITS = (
    '[[breaker]]\nname = "b"\nlast = 4\nmin_calls = 2\nopen_for = "7s"\nmax_error_rate = 0.4\nactions = ["look"]\n'
    '[[loop]]\nname = "l"\nmax_repeats = 12\n'
    '[[budget]]\nname = "s"\nmax = 9\n'
    '[[budget]]\nname = "m"\nper = "tenant"\nmeasure = "args.cents"\nmax = 400\nactions = ["pay"]\n'
    '[[budget]]\nname = "w"\nper = "principal"\nwindow = "10s"\nmax = 4\n'
)


def desk(loops: Any, root: Path, n_calls: int) -> Any:
    calls = [
        loops.Call(
            tool="pay" if n % 3 else "look",
            args=(("order", "o"), ("cents", 30 + n % 4)) if n % 3 else (),
            session=n // 20 % 2,
            wait_ms=(0, 700, 2500)[n % 3],
            fails=n % 4 == 0,
        )
        for n in range(n_calls)
    ]
    return loops.record(root, loops.bundle(), calls)


@pytest.fixture
def lake(loops: Any, tmp_path: Path) -> Any:
    return desk(loops, tmp_path, 80)


@pytest.fixture(scope="module")
def shorter(loops: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """For what takes a plan a span and pass."""
    return desk(loops, tmp_path_factory.mktemp("shorter"), 40)


@pytest.fixture
def in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small histories are left to Cedar otherwise."""
    monkeypatch.setattr(redeciding, "COLUMNS_PAY", 0)
    monkeypatch.setattr(again, "COLUMNS_PAY", 0)


def rows_of(found: Simulated) -> pl.DataFrame:
    return found.frame.collect().drop("engine", "handed_over")


@pytest.mark.usefixtures("in_columns")
def test_sure_refusals_are_worded_as_the_engine_words_them(
    loops: Any, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, asked = loops.bundle("", LIMITS), list[int]()
    plainly = again.rows_again

    def counted(plan: Any, chosen: Any, wanted: pl.DataFrame, *more: Any) -> Any:
        asked.append(wanted.height)
        return plainly(plan, chosen, wanted, *more)

    monkeypatch.setattr(iterating, "rows_again", counted)
    worded = simulate(lake, limits=candidate)
    few = sum(asked)
    asked.clear()
    with monkeypatch.context() as patch:
        made = QuickPass.__init__
        patch.setattr(QuickPass, "__init__", lambda *a, **k: made(*a, **{**k, "worded": False}))
        engines = simulate(lake, limits=candidate)
    assert rows_of(worded).equals(rows_of(engines))
    assert worded.state == engines.state
    assert worded.engine.startswith(COLUMNAR)
    assert set(worded.rows["reason_code"].drop_nulls()) >= {"breaker_open", "budget_spent", "rate_exceeded"}
    assert few < sum(asked) / 4  # the engine is asked of one row a limit


@pytest.mark.usefixtures("in_columns")
def test_words_are_held_to_the_engine(loops: Any, lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "_budget", lambda *_: ("budget_spent", "because"))
    with pytest.raises(OracleMismatch, match="of which the engine says otherwise"):
        simulate(lake, limits=loops.bundle("", LIMITS))


@pytest.mark.usefixtures("in_columns")
@pytest.mark.parametrize(
    ("span", "sparse"),
    [
        pytest.param(7, 0, marks=pytest.mark.slow),
        pytest.param(7, 1000, marks=pytest.mark.slow),
        (100_000, 0),
        (100_000, 1000),
    ],
)
def test_rows_decided_again_are_the_ones_that_were_meant(
    loops: Any, shorter: Any, monkeypatch: pytest.MonkeyPatch, span: int, sparse: int
) -> None:
    policies = '@id("odd") forbid(principal, action, resource) when { context.session.calls == 3 };\n'
    candidate = loops.bundle(policies, LIMITS)
    expected = simulate(shorter, candidate, limits=candidate)
    monkeypatch.setattr(again, "SPAN", span)
    monkeypatch.setattr(again, "SPARSE", sparse)
    found = simulate(shorter, candidate, limits=candidate)
    assert rows_of(found).equals(rows_of(expected))
    assert found.state.redecided > 10
    assert found.state.passes > 1
