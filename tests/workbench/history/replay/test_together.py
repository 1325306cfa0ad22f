"""Several replays over one scan: each is the replay that it is alone, in every column and every word."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import workbench as wb
import workbench.redeciding
from tests.workbench.history.replay.conftest import generated
from workbench import preparing, spill
from workbench.errors import AxisInvalid, UnsupportedPolicy
from workbench.history.records import Records
from workbench.history.run import ColumnarRun
from workbench.history.together import Together
from workbench.lake import Lake, open_lake
from workbench.replay import Replay

# Files of results that are let go are removed by Python, which warns of it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMITS = '[[budget]]\nname = "few"\nmax = 0\nactions = ["ping"]\n'
SPAN = 90
"""Positions a chunk, so that small lakes have several."""


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have chunks of few rows, decided by more threads than there may be cores."""
    monkeypatch.setattr(Records.spans, "__defaults__", (SPAN,))
    monkeypatch.setattr(Records.chunks, "__defaults__", ((), SPAN))
    monkeypatch.setattr(preparing, "_threads", lambda _: 3)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How often a chunk was prepared: whether the second level was asked for, each time."""
    found: list[bool] = []
    plain = ColumnarRun.prepared

    def counted(run: ColumnarRun, records: pl.DataFrame) -> Any:
        found.append(run.axes.verify is not None)
        return plain(run, records)

    monkeypatch.setattr(ColumnarRun, "prepared", counted)
    return found


def hold(
    lake: Lake, askings: Sequence[Mapping[str, Any]], *, engine: Any = "auto", sources: Any = None
) -> list[Replay]:
    """Replay one by one and together, and hold everything that a replay says to be the same.

    One by one over one lake, whose self-replay serves the candidates: `test_kept` holds those to replays of a lake opened anew.
    """
    opened = open_lake(lake.uri)
    alone = [opened.replay(**{"sources": sources, **each}, engine=engine) for each in askings]
    together = open_lake(lake.uri).replay_all(askings, engine=engine, sources=sources)
    assert len(together) == len(alone)
    for one, other in zip(alone, together, strict=True):
        same(one, other)
    return together


def same(one: Replay, other: Replay) -> None:
    """Hold two replays to be one."""
    assert_frame_equal(other.rows, one.rows)
    assert other.digest() == one.digest()
    assert other.counts() == one.counts()
    assert other.headline == one.headline
    assert {**other.pins, "delta": None} == {**one.pins, "delta": None}
    assert (other.policy, other.context, other.engine) == (one.policy, one.context, one.engine)
    assert other.handed_over == one.handed_over
    assert other.engine_asked == one.engine_asked


def askings(kit: Any) -> list[dict[str, Any]]:
    """Every kind of axis that leaves contexts alone: policies, another schema, limits, and both levels."""
    patch = (
        kit.PERMIT
        + '@id("cut") @verdict("modify") @patch("{\\"amount\\": 1}") forbid(principal, action == Action::"refund", resource)'
        " when { context.args.amount > 1 };\n"
    )
    erring = '@id("err") forbid(principal, action == Action::"refund", resource) when { context.args.amount * 9223372036854775807 > 5 };\n'
    facts = '@id("vip") forbid(principal, action == Action::"refund", resource) when { context has order };\n'
    few = kit.bundle(kit.PERMIT, limits=LIMITS)
    other = kit.bundle(kit.PERMIT, kit.SCHEMA.replace("level?: Long, ", ""), "")
    return [
        {"recompile": False},
        {"policy": kit.bundle(patch)},
        {"policy": kit.bundle(kit.PERMIT + erring)},
        {"policy": kit.bundle(kit.PERMIT + facts)},
        {"policy": few, "limits": few},
        {"limits": few},
        {"policy": other},
        {"policy": kit.bundle(kit.PERMIT), "recompile": True},
        {},
    ]


def test_every_axis_together(corner: Lake, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hold(corner, askings(kit), sources=kit.looked_up(kit.DATA))
    assert sum(found[2].handed_over.values()) > 0
    assert found[-1].counts()["recompilable"] > 0
    assert found[0].files is None
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    filed = open_lake(corner.uri).replay_all(askings(kit), sources=kit.looked_up(kit.DATA))
    assert all(each.files is not None for each in filed)
    for one, other in zip(found, filed, strict=True):
        same(one, other)


@pytest.mark.parametrize("seed", [11, 12, pytest.param(13, marks=pytest.mark.slow)])
def test_generated_histories(record: Any, kit: Any, seed: int) -> None:
    lake = record(kit.bundle(kit.POLICIES), generated(70, seed))
    hold(lake, askings(kit)[:4], sources=kit.looked_up(kit.DATA))


def test_what_columns_demand_they_share(record: Any, corner: Lake, kit: Any) -> None:
    bundles = [kit.bundle(kit.PERMIT), kit.bundle(kit.PERMIT + "// again\n")]
    lake = record(kit.bundle(kit.PERMIT), [kit.Call("ping", {"to": "ana"}, "bot") for _ in range(40)])
    hold(lake, [{"policy": each} for each in bundles], engine="columnar")
    with pytest.raises(UnsupportedPolicy):
        open_lake(corner.uri).replay_all(bundles, engine="columnar")


def test_one_scan_and_one_self_replay_serve_all(desk: Lake, kit: Any, prepared: list[bool]) -> None:
    chunks = len(list(Records(desk).chunks()))
    assert chunks > 3
    open_lake(desk.uri).replay_all([{"recompile": False}, kit.bundle(kit.PERMIT), kit.bundle(kit.POLICIES)])
    assert prepared == [False] * chunks


def test_both_levels_serve_the_first_where_no_row_fails(record: Any, kit: Any, prepared: list[bool]) -> None:
    calls = [kit.Call("ping", {"to": "ana"}, "bot") for _ in range(80)]
    lake = record(kit.bundle(kit.PERMIT), calls)
    sources = kit.looked_up(kit.DATA)
    hold(lake, [{}, {"policy": kit.bundle(kit.POLICIES)}], sources=sources)
    prepared.clear()
    open_lake(lake.uri).replay_all([None, kit.bundle(kit.POLICIES)], sources=sources)
    assert prepared
    assert all(prepared)


def test_a_row_that_fails_on_the_second_level_alone(tamper: Any, kit: Any) -> None:
    """It is quarantined where both are asked for, and decided where the first is."""
    first = tamper("decisions", {}).decisions.filter(pl.col("verdict") == "allow").collect()
    changed = {ident: {"action_hash": "0" * 64} for ident in first["decision_id"][:3]}
    lake = tamper("decisions", changed)
    base, cand = hold(lake, [{}, {"policy": kit.bundle(kit.PERMIT)}], sources=kit.looked_up(kit.DATA))
    assert base.counts()["decisions_quarantined"] >= 3
    assert cand.counts()["decisions_quarantined"] < base.counts()["decisions_quarantined"]


def test_damaged_rows(tamper: Any, kit: Any) -> None:
    rows = tamper("decisions", {}).decisions.collect()
    ids = rows["decision_id"]
    changed = {
        ids[3]: {"verdict": "block"},
        ids[70]: {"args": "{"},
        ids[71]: {"bundle_version": "f" * 64},
        ids[150]: {"context_hash": "e" * 64},
        ids[151]: {"determining": ["other"]},
    }
    found = hold(tamper("decisions", changed), askings(kit)[:4], sources=kit.looked_up(kit.DATA))
    assert found[1].counts()["decisions_quarantined"] >= 3


def test_several_recorded_bundles(record: Any, kit: Any) -> None:
    ping, look = kit.Call("ping", {"to": "ana"}, "bot"), kit.Call("look", {"order_id": "o-1"}, "ana")
    for number in range(3):
        lake = record(kit.bundle(f"{kit.POLICIES}// {number}\n"), [ping, look] * 20)
    lake = record(
        kit.bundle(kit.PERMIT, kit.SCHEMA.replace("count?: Long", "counted?: Long"), ""), [ping] * 9
    )
    assert lake.bundles.collect().height == 4
    hold(
        lake, [{}, {"policy": kit.bundle(kit.PERMIT)}, {"recompile": False}], sources=kit.looked_up(kit.DATA)
    )


def test_contexts_that_are_compiled_again(corner: Lake, kit: Any) -> None:
    data = {**kit.DATA, "order": {key: {**each, "refundable": 7} for key, each in kit.DATA["order"].items()}}
    other, sources = kit.bundle(kit.POLICIES + "// other\n"), kit.looked_up(data)
    given = [
        {},
        {"policy": other},
        {"context": other},
        {"policy": other, "context": other},
        {"recompile": False},
    ]
    found = hold(corner, given, sources=sources)
    assert found[2].rows["status"].to_list() != found[1].rows["status"].to_list()


def test_what_was_kept_serves_all(desk: Lake, kit: Any, prepared: list[bool]) -> None:
    given = askings(kit)[:4]
    alone = [open_lake(desk.uri).replay(**each) for each in given]
    lake = open_lake(desk.uri)
    lake.replay_all(given)
    assert lake.shelf.kept is not None
    prepared.clear()
    for one, other in zip(alone, lake.replay_all(given), strict=True):
        same(one, other)
    assert prepared == []


def test_small_histories_and_engines_of_ones_own(
    corner: Lake, kit: Any, monkeypatch: pytest.MonkeyPatch, prepared: list[bool]
) -> None:
    given = [{}, {"policy": kit.bundle(kit.PERMIT)}]
    hold(corner, given, engine="rows", sources=kit.looked_up(kit.DATA))
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 5_000)
    told: list[int] = []
    found = open_lake(corner.uri).replay_all(given, on_rows=told.append)
    assert sum(told) == 2 * found[0].counts()["decisions"]
    assert "columnar" not in found[0].engine
    assert prepared == []


def test_progress_counts_every_replay(corner: Lake, kit: Any) -> None:
    told: list[int] = []
    found = open_lake(corner.uri).replay_all([None, kit.bundle(kit.PERMIT)], on_rows=told.append)
    assert sum(told) == 2 * found[0].counts()["decisions"]


def test_a_comparison_is_that_of_two_replays(desk: Lake, kit: Any) -> None:
    bundle, sources = kit.bundle(kit.PERMIT), kit.looked_up(kit.DATA)
    alone = open_lake(desk.uri)
    wanted = wb.compare(alone.replay(sources=sources), alone.replay(bundle, sources=sources), level=0.9)
    found = open_lake(desk.uri).compare(bundle, sources=sources, level=0.9)
    assert found.summary() == wanted.summary()
    assert found.level == wanted.level
    assert_frame_equal(found.frame.collect(), wanted.frame.collect())
    same(wanted.base, found.base)  # type: ignore[arg-type]  # both are replays
    same(wanted.cand, found.cand)  # type: ignore[arg-type]  # both are replays


def test_a_comparison_with_simulated_state(record: Any, kit: Any) -> None:
    lake = record(kit.bundle(kit.PERMIT), [kit.Call("ping", {"to": "ana"}, "bot") for _ in range(20)])
    bundle = kit.bundle(kit.POLICIES)
    wanted = wb.compare(lake.replay(recompile=False), lake.replay(bundle, state="simulated"))
    found = lake.compare(bundle, state="simulated", recompile=False)
    assert found.summary() == wanted.summary()
    assert "simulated" in found.cand.context


def test_what_cannot_share_says_so(corner: Lake) -> None:
    with pytest.raises(AxisInvalid, match=r"`state` is no axis .*: policy, context, limits"):
        corner.replay_all([{"state": "simulated"}])
    assert corner.replay_all([]) == []


def _left() -> tuple[list[str], list[str]]:
    names = [each.name for each in Path(tempfile.gettempdir()).iterdir()]
    files = [name for name in names if name.startswith("redecide-replay-")]
    return files, [each.name for each in threading.enumerate() if each.name.startswith("redecide")]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["writing", "deciding"])
def test_nothing_is_left_of_what_was_not_finished(
    desk: Lake,
    kit: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raised: type[BaseException],
    where: str,
) -> None:
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    calls: list[int] = []
    target, name = (spill.Spill, "add") if where == "writing" else (Together, "prepared")
    plain = getattr(target, name)

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            assert _left()[0], "there are files to leave"
            raise raised
        return plain(*args)

    lake = open_lake(desk.uri)
    with monkeypatch.context() as patched:
        patched.setattr(target, name, failing)
        with pytest.raises(raised):
            lake.replay_all([{"recompile": False}, kit.bundle(kit.PERMIT)])
    assert _left() == ([], [])
    assert lake.shelf.kept is None
    again = lake.replay_all([{"recompile": False}, kit.bundle(kit.PERMIT)])
    same(open_lake(desk.uri).replay(kit.bundle(kit.PERMIT)), again[1])
