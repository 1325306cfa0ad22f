"""What a replay keeps for the next one: it changes what a replay costs, and nothing it says."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from workbench import shelf
from workbench.history import keeping
from workbench.history.records import Records
from workbench.lake import Lake, open_lake

LIMITS = '[[budget]]\nname = "few"\nmax = 0\nactions = ["ping"]\n'


class Reads:
    """Counts how often records are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        spans = Records.spans

        def counted(records: Records, *args: Any) -> Any:
            self.n += 1
            return spans(records, *args)

        monkeypatch.setattr(Records, "spans", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def own(desk: Lake) -> Lake:
    """The desk's lake, opened for one test."""
    return open_lake(desk.uri)


def candidates(kit: Any) -> list[Any]:
    """Policies that go through what only some parts of a record hold: patches, references, what is missing, errors."""
    patch = (
        kit.PERMIT
        + '@id("cut") @verdict("modify") @patch("{\\"amount\\": 1}") forbid(principal, action == Action::"refund", resource)'
        " when { context.args.amount > 1 };\n"
    )
    texts = [
        kit.POLICIES,
        kit.PERMIT,
        kit.PERMIT + '@id("few") forbid(principal, action, resource) when { context.session.calls > 2 };\n',
        kit.PERMIT
        + '@id("vip") forbid(principal, action == Action::"refund", resource) when { context has order };\n',
        kit.PERMIT
        + '@id("err") forbid(principal, action == Action::"refund", resource) when { context.args.amount * 9223372036854775807 > 5 };\n',
        kit.PERMIT
        + '@id("boss") forbid(principal, action, resource) when { principal has boss && principal.boss == principal };\n',
        patch,
    ]
    return [kit.bundle(text) for text in texts]


def test_candidates_after_a_self_replay_say_what_they_say_alone(own: Lake, kit: Any, reads: Reads) -> None:
    alone = [open_lake(own.uri).replay(bundle) for bundle in candidates(kit)]
    own.replay(recompile=False)
    before = reads.n
    for bundle, one in zip(candidates(kit), alone, strict=True):
        found = own.replay(bundle)
        assert_frame_equal(found.rows, one.rows)
        assert (found.digest(), found.handed_over) == (one.digest(), one.handed_over)
    assert reads.n == before


def test_a_candidate_keeps_for_a_self_replay_and_both_levels_for_one(
    own: Lake, kit: Any, reads: Reads
) -> None:
    wanted = open_lake(own.uri).replay(recompile=False)
    own.replay(kit.bundle(kit.PERMIT))
    before = reads.n
    found = own.replay(recompile=False)
    assert reads.n == before
    assert_frame_equal(found.rows, wanted.rows)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "columnar"])
def test_sweeps_begin_there_too(own: Lake, kit: Any, reads: Reads, engine: Any) -> None:
    bundles = candidates(kit)[:3]
    alone = open_lake(own.uri).sweep(bundles, engine="auto").frame.collect()
    own.sweep(bundles, engine="auto")
    before = reads.n
    if engine == "auto":
        assert_frame_equal(own.sweep(bundles, engine="auto").frame.collect(), alone)
        assert reads.n == before
    else:  # hands nothing over, so what was handed over cannot be taken
        assert keeping.found(own, _plan(own), (), strict=True) is None


@pytest.mark.slow
def test_a_sweep_reads_again_what_another_schema_needs(own: Lake, kit: Any) -> None:
    other = kit.bundle(kit.PERMIT, kit.SCHEMA.replace("level?: Long, ", ""), "")
    bundles = [*candidates(kit)[:2], other]
    alone = open_lake(own.uri).sweep(bundles).frame.collect()
    own.replay(recompile=False)
    assert own.shelf.kept is not None
    assert_frame_equal(own.sweep(bundles).frame.collect(), alone)


def _plan(lake: Lake) -> Any:
    from workbench.redeciding import Plan
    from workbench.rows import RowEngine

    return Plan(lake, RowEngine(), None, None, None, None)


@pytest.mark.slow
def test_other_axes_are_read_afresh(own: Lake, kit: Any, both: Any, reads: Reads) -> None:
    own.replay(recompile=False)
    before = reads.n
    own.replay(kit.bundle(kit.PERMIT, kit.SCHEMA.replace("level?: Long, ", ""), ""))
    assert reads.n == before + 1  # another schema has other columns
    own.replay(recompile=True)
    assert reads.n == before + 2  # sources may have changed
    own.replay(kit.bundle(kit.PERMIT, limits=LIMITS), limits=kit.bundle(kit.PERMIT, limits=LIMITS))
    both(own, limits=kit.bundle(kit.PERMIT, limits=LIMITS), recompile=False)


def test_a_lake_narrowed_or_at_another_pin_keeps_its_own(own: Lake) -> None:
    own.replay(recompile=False)
    some = own.where(pl.col("tool") == "ping")
    assert own.shelf.kept is not None
    assert some.shelf.kept is None
    assert own.at(own.pins).shelf.kept is None
    assert some.replay(recompile=False).rows["tool"].unique().to_list() == ["ping"]


def test_what_was_rewritten_is_read_again(tamper: Any) -> None:
    """An erasure or an alteration is found, though the lake object was replayed before it."""
    lake = tamper("decisions", {})
    lake.replay(recompile=False)
    kept = lake.shelf.kept
    assert kept is not None
    first = lake.decisions.select("writer", "position").collect().row(0)
    from deltalake import DeltaTable

    DeltaTable(f"{lake.uri}/decisions").update(
        updates={"args": "'{}'", "projection": "'{}'"}, predicate=f"position = {first[1]}"
    )
    found = lake.replay(recompile=False)
    assert lake.shelf.kept is not kept
    assert_frame_equal(found.rows, open_lake(lake.uri).replay(recompile=False).rows)


def test_rows_that_are_appended_beyond_the_pin_change_nothing(record: Any, kit: Any, reads: Reads) -> None:
    bundle = kit.bundle(kit.PERMIT)
    calls = [kit.Call("ping", {"to": "ana"}, "bot") for _ in range(3)]
    lake = record(bundle, calls)
    first = lake.replay(recompile=False)
    record(bundle, calls)
    before = reads.n
    assert_frame_equal(lake.replay(recompile=False).rows, first.rows)
    assert reads.n == before
    assert open_lake(lake.uri).replay(recompile=False).rows.height == 2 * first.rows.height


def test_what_does_not_fit_is_not_kept(own: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MOST", 1_000)
    wanted = own.replay(recompile=False)
    assert own.shelf.kept is None
    assert_frame_equal(own.replay(recompile=False).rows, wanted.rows)


def test_the_lake_used_longest_ago_makes_room(desk: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in [found for ref in shelf._shelves.values() if (found := ref()) is not None]:
        each.drop()
    one, two, three = (open_lake(desk.uri) for _ in range(3))
    one.replay(recompile=False)
    monkeypatch.setattr(shelf, "MOST", 2 * one.shelf.size + 100)
    two.replay(recompile=False)
    one.replay(recompile=False)
    three.replay(recompile=False)
    assert [each.shelf.kept is not None for each in (one, two, three)] == [True, False, True]


def test_it_goes_with_the_lake(desk: Lake) -> None:
    lake = open_lake(desk.uri)
    lake.replay(recompile=False)
    kept = lake.shelf.kept
    assert kept is not None
    chunk = weakref.ref(kept.chunks[0].sound[0].chunk.ids) if hasattr(kept, "__weakref__") else None
    where = weakref.ref(lake.shelf)
    del lake, kept
    gc.collect()
    assert where() is None
    assert chunk is None or chunk() is None


def test_an_interrupted_replay_keeps_nothing(own: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(keeping.Keeper, "finish", fail)
    with pytest.raises(KeyboardInterrupt):
        own.replay(recompile=False)
    assert own.shelf.kept is None


@pytest.mark.slow
def test_threads_share_it(own: Lake, kit: Any) -> None:
    bundles = candidates(kit)
    alone = [open_lake(own.uri).replay(bundle).rows for bundle in bundles]
    own.replay(recompile=False)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda bundle: own.replay(bundle).rows, bundles * 2))
    for one, two in zip(found, alone * 2, strict=True):
        assert_frame_equal(one, two)
