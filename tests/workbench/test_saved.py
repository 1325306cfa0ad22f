"""Saved replays: made again after new data, compaction and vacuum, they are the same, or an error says what differs."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import Blocked, CallableSource, Runtime
from runtime.bundle import load_bundle
from runtime.errors import CommitConflict, LedgerError
from runtime.lake import LakeStore
from runtime.trace import REPLAYS
from workbench.errors import (
    BundleNotFound,
    LakeError,
    NotSavable,
    PinUnreachable,
    ReplayDiffers,
    ReplayNotFound,
)
from workbench.keeping.reopening import reopen
from workbench.keeping.saved import save, saved, saved_replays
from workbench.lake import Lake, open_lake
from workbench.rows import RowEngine

if TYPE_CHECKING:
    from workbench.replay import Replay

SCHEMA = """
entity Agent; entity Order;
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, cents: Long }, order?: { refundable: Long } }
};
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
OVER = PERMIT + (
    '@id("over") forbid(principal, action, resource) '
    "when { context has order && context.args.cents > context.order.refundable };\n"
)
FACTS = """
[sources.orders]
kind = "delta"
uri = "../orders"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { id = "args.order_id" }
fields = ["refundable"]
shared = true
"""


def bundle(folder: Path, policies: str, context: str = FACTS, limits: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "p.cedar": policies,
        "schema.cedarschema": SCHEMA,
        "context.toml": context,
        "limits.toml": limits,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def orders(root: Path, refundable: int) -> None:
    rows = {"id": ["o-1", "o-2"], "refundable": [refundable, 9]}
    write_deltalake(str(root / "orders"), pa.table(rows), mode="overwrite")


def record(root: Path, *cents: int) -> Lake:
    """Record refunds of two orders each."""
    with Runtime.open(bundle(root / "base", PERMIT), lake=root / "lake") as runtime:
        runtime.tool(lambda order_id, cents: cents, name="refund", resource="Order::{order_id}")
        with runtime.session(principal="Agent::bot", tenant="acme") as session:
            for each in cents:
                for order in ("o-1", "o-2"):
                    try:
                        session.call("refund", order_id=order, cents=each)
                    except Blocked:
                        continue
    return open_lake(root / "lake")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    orders(tmp_path, 100)
    return record(tmp_path, 5, 50, 500)


def compacted(lake: Lake) -> None:
    """Compact and vacuum every table of a lake."""
    for log in Path(lake.uri).glob("*/_delta_log"):
        table = DeltaTable(str(log.parent))
        table.optimize.compact()
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table.create_checkpoint()


def rows_of(replay: Replay) -> list[tuple[Any, ...]]:
    return replay.frame.drop("engine", "errors").collect().rows()


AXES: dict[str, Any] = {
    "itself": lambda _: {},
    "a policy": lambda root: {"policy": bundle(root / "next", OVER)},
    "a bundle": lambda root: {"policy": load_bundle(bundle(root / "next", OVER))},
    "limits": lambda root: {
        "limits": bundle(root / "few", PERMIT, limits='[[budget]]\nname = "few"\nmax = 2\n')
    },
    "a context": lambda root: {
        "policy": bundle(root / "next", OVER),
        "context": root / "next" / "context.toml",
    },
    "a version": lambda root: {"policy": bundle(root / "next", OVER), "versions": {"orders": 0}},
    "a time": lambda root: {"policy": bundle(root / "next", OVER), "at": datetime.now(UTC)},
    "a place": lambda root: {"sources": {"orders": root / "orders"}, "context": bundle(root / "next", OVER)},
    "columns": lambda root: {"policy": bundle(root / "next", OVER), "engine": "columnar", "recompile": True},
}


@pytest.mark.slow
def test_they_come_out_the_same_after_all_that_happens_to_a_lake(lake: Lake, tmp_path: Path) -> None:
    """Every way to replay, saved; then new data, new facts, compaction and vacuum, and the folders of bundles gone."""
    replays = {name: lake.replay(**axes(tmp_path)) for name, axes in AXES.items()}
    kept = {name: save(replay, name=name, actor="ana") for name, replay in replays.items()}
    for folder in ("next", "few"):
        shutil.rmtree(tmp_path / folder)
    orders(tmp_path, 1)
    later = record(tmp_path, 7, 70)
    compacted(later)
    fresh = open_lake(later.uri)
    assert fresh.replay(recompile=False).counts()["decisions"] == 10
    for name, replay in replays.items():
        assert (kept[name].decisions, kept[name].digest, kept[name].actor) == (6, replay.digest(), "ana")
        again = reopen(fresh, name)
        assert rows_of(again) == rows_of(replay)
        assert again.digest() == kept[name].digest
        assert (again.id, again.policy, again.context) == (replay.id, replay.policy, replay.context)
        assert {**again.pins, "delta": 0} == {**replay.pins, "delta": 0}
        assert save(again).at == kept[name].at  # it is there already
    assert len({replay.digest() for replay in replays.values()}) > 2


def test_what_is_kept_is_said(lake: Lake, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "next", OVER)
    save(lake.replay(), actor="ana", now=datetime(2026, 1, 1, tzinfo=UTC))
    kept = save(lake.replay(folder, at=datetime(2026, 11, 1, tzinfo=UTC)), name="next", actor="bob")
    rows = saved_replays(open_lake(lake.uri)).collect()
    assert rows.select("name", "policy", "context", "rows", "actor").rows() == [
        (
            "next",
            load_bundle(folder).version,
            "recorded spec, sources at 2026-11-01T00:00:00+00:00",
            6,
            "bob",
        ),
        (None, "recorded", "recorded", 6, "ana"),
    ]
    assert saved(lake, "next").replay_id == saved(lake, kept.replay_id).replay_id == kept.replay_id
    assert kept.as_dict()["digest"] == kept.digest
    assert "Saved by bob" in repr(kept)
    assert "sources at 2026" in kept.markdown()
    assert json.loads(json.dumps(kept.as_dict()))["pins"]["asked"]["at"] == "2026-11-01T00:00:00+00:00"


def test_ids_and_names_that_do_not_fit(lake: Lake) -> None:
    with pytest.raises(ReplayNotFound, match=r"no saved replay 'x' in the lake at .*; it has none"):
        saved(lake, "x")
    one, two = save(lake.replay(), name="a"), save(lake.replay())
    with pytest.raises(ReplayNotFound, match="2 saved replays begin with"):
        saved(lake, one.replay_id[:6])
    with pytest.raises(ReplayNotFound, match=rf"no saved replay 'b' .*it has {two.replay_id}, a"):
        saved(lake, "b")
    later = save(lake.replay(), name="a", now=datetime(2099, 1, 1, tzinfo=UTC))
    assert saved(lake, "a").replay_id == later.replay_id


def test_a_name_is_kept_or_refused(lake: Lake) -> None:
    replay = lake.replay()
    assert save(replay, name="a") == save(replay, name="a") == save(replay)
    with pytest.raises(NotSavable, match=r"saved already, as 'a', .* save that as 'b'"):
        save(replay, name="b")
    with pytest.raises(NotSavable, match="a name is a text"):
        save(lake.replay(), name=" ")


def test_what_cannot_be_made_again_is_refused_when_it_is_saved(lake: Lake, tmp_path: Path) -> None:
    source = CallableSource(lambda where: {"refundable": 1}, "1")
    next_ = bundle(tmp_path / "next", OVER, FACTS.replace('"delta"\nuri = "../orders"', '"callable"'))
    with pytest.raises(NotSavable, match=r"source `orders` was given as <CallableSource in memory>"):
        save(lake.replay(next_, context=next_, sources={"orders": source}))
    with pytest.raises(NotSavable, match="decided by an engine in memory"):
        save(lake.replay(engine=RowEngine()))
    with pytest.raises(NotSavable, match="nobody can say how to make it again"):
        save(replace(lake.replay(), asked=None))
    changed = replace(load_bundle(bundle(tmp_path / "some", OVER)), version="0" * 64)
    with pytest.raises(NotSavable, match="`some` is not what its files say"):
        save(lake.replay(changed))
    replay = lake.replay()
    assert replay.asked is not None
    secret = replace(replay.asked, sources={"orders": "s3://key:secret@bucket/orders"})
    with pytest.raises(NotSavable, match=r"password in its address, s3://key:\*\*\*@bucket/orders"):
        save(replace(replay, asked=secret))
    assert saved_replays(open_lake(lake.uri)).collect().is_empty()
    assert open_lake(lake.uri).bundles.collect().height == 1


def test_pins_hide_passwords_and_say_what_was_given(lake: Lake, tmp_path: Path) -> None:
    replay = lake.replay(sources={"orders": tmp_path / "orders"}, versions={"orders": 0})
    assert replay.pins["sources"] == {"orders": str(tmp_path / "orders")}
    assert replay.pins["versions"] == {"orders": "0"}
    assert replay.asked is not None
    secret = replace(replay.asked, sources={"orders": "s3://key:secret@bucket/orders"})
    assert "secret" not in str(replace(replay, asked=secret).pins)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"verdict": "'block'"}, "cause not reproduced 6, was 0"),
        ({"args": "'{}'"}, "cause row corrupt 6, was 0"),
    ],
)
def test_a_changed_lake_is_named(lake: Lake, damage: dict[str, str], told: str) -> None:
    kept = save(lake.replay(), actor="ana")
    DeltaTable(f"{lake.uri}/decisions").update(updates=damage, predicate="true")
    with pytest.raises(ReplayDiffers, match="does not come out as it did when ana saved it") as caught:
        reopen(open_lake(lake.uri), kept.replay_id)
    assert told in caught.value.differences
    assert "refund decided allow same 0, was 6" in caught.value.differences


def test_facts_that_were_vacuumed_are_named(lake: Lake, tmp_path: Path) -> None:
    next_ = bundle(tmp_path / "next", OVER)
    kept = save(lake.replay(next_, context=next_))
    orders(tmp_path, 1)
    DeltaTable(str(tmp_path / "orders")).vacuum(0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(ReplayDiffers, match="cause source vacuumed 6, was 0"):
        reopen(lake, kept.replay_id)


def test_other_decisions_with_the_same_numbers_are_not_the_same(lake: Lake) -> None:
    kept = save(lake.replay())
    rows = {"digest": "'0'"}
    DeltaTable(f"{lake.uri}/replays").update(updates=rows, predicate="true")
    with pytest.raises(ReplayDiffers, match="the numbers are the same, but other decisions"):
        reopen(lake, kept.replay_id)


def test_what_is_gone_is_named(lake: Lake, tmp_path: Path) -> None:
    kept = save(lake.replay(bundle(tmp_path / "next", OVER)))
    copy = tmp_path / "copy"
    shutil.copytree(lake.uri, copy)
    DeltaTable(f"{copy}/decisions").delete("step > 2")
    with pytest.raises(PinUnreachable, match="the pin asks for"):
        reopen(open_lake(copy), kept.replay_id)
    DeltaTable(f"{lake.uri}/policies").delete("name = 'next'")
    with pytest.raises(BundleNotFound, match="no bundle of version"):
        reopen(open_lake(lake.uri), kept.replay_id)


def test_sources_that_moved_are_given_again(lake: Lake, tmp_path: Path) -> None:
    next_ = bundle(tmp_path / "next", OVER, FACTS.replace('uri = "../orders"\n', ""))
    kept = save(lake.replay(next_, context=next_, sources={"orders": tmp_path / "orders"}))
    shutil.move(tmp_path / "orders", tmp_path / "moved")
    assert reopen(lake, kept.replay_id, sources={"orders": tmp_path / "moved"}).digest() == kept.digest


def test_several_people_save_at_once(lake: Lake, tmp_path: Path) -> None:
    """Into a lake that has no table of replays yet."""
    paths = [bundle(tmp_path / f"n{n}", OVER.replace("cents >", f"cents + {n} >")) for n in range(6)]
    replays = [lake.replay(path) for path in paths]
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(save, replays))
    fresh = open_lake(lake.uri)
    found = saved_replays(fresh).collect()
    assert sorted(found["replay_id"]) == sorted(each.replay_id for each in kept)
    assert fresh.bundles.collect().height == 7
    assert reopen(fresh, kept[3].replay_id).policy[0] == "n3"


def _failing(
    monkeypatch: pytest.MonkeyPatch, *, commits: bool, error: type[LedgerError], times: int
) -> list[int]:
    """Let the store refuse the first appends of replays, before or after they were committed."""
    real = LakeStore.append
    calls: list[int] = []

    def append(store: LakeStore, table: Any, rows: Any, **more: Any) -> int:
        if table is not REPLAYS or len(calls) >= times:
            return real(store, table, rows, **more)
        calls.append(1)
        if commits:
            real(store, table, rows, **more)
        raise error("cannot append")

    monkeypatch.setattr(LakeStore, "append", append)
    monkeypatch.setattr("workbench.keeping.appending.PAUSE_S", 0)
    return calls


@pytest.mark.parametrize(
    ("commits", "error", "times"),
    [(False, CommitConflict, 3), (True, LedgerError, 1)],
    ids=["somebody was faster", "the acknowledgement was lost"],
)
def test_one_row_whatever_happens_to_the_commit(
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
    commits: bool,
    error: type[LedgerError],
    times: int,
) -> None:
    calls = _failing(monkeypatch, commits=commits, error=error, times=times)
    kept = save(lake.replay())
    assert len(calls) == times
    assert open_lake(lake.uri).replays.select("replay_id").collect().rows() == [(kept.replay_id,)]


@pytest.mark.parametrize(
    ("error", "told"), [(CommitConflict, "others committed"), (LedgerError, "cannot append")]
)
def test_a_lake_that_refuses(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, error: type[LedgerError], told: str
) -> None:
    _failing(monkeypatch, commits=False, error=error, times=100)
    with pytest.raises(LakeError, match=told):
        save(lake.replay())
    assert open_lake(lake.uri).replays.collect().is_empty()


def test_the_runtime_goes_on_after_a_replay_was_saved(lake: Lake, tmp_path: Path) -> None:
    """Texts that a replay brought are no rows of a ledger: drains and checks do not mind them."""
    save(lake.replay(bundle(tmp_path / "next", OVER)))
    later = record(tmp_path, 8)
    assert later.decisions.select(pl.len()).collect().item() == 8
    assert set(later.replay().rows["status"]) == {"decided"}
