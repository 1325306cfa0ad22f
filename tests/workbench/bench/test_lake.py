"""Lakes of the bench: what is recorded is what the row engine decides, byte for byte, and the evidence holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import workbench as wb
from runtime import trace
from runtime.bundle import load_bundle
from runtime.evidence import broken_links, check_address, check_row
from runtime.lake import LakeStore
from runtime.policy import Decision
from runtime.record import decision_row
from workbench.bench import desk as desk_module
from workbench.bench import lake as lake_module
from workbench.bench.desk import desk_columns
from workbench.bench.desk_facts import DeskRecords
from workbench.bench.desk_requests import jobs, moment
from workbench.bench.lake import build_lake, lake_of
from workbench.bench.lake_rows import decision_rows
from workbench.errors import LakeError
from workbench.rows import RowEngine
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.trace import Table

N = 10_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("bench") / "lake")
    build_lake(uri, N)
    return uri


def _rows(uri: str, table: Table) -> list[dict[str, Any]]:
    frame = pl.from_arrow(LakeStore(uri).read(table))
    assert isinstance(frame, pl.DataFrame)
    times = [column.name for column in table.columns if column.dtype == "timestamp"]
    return frame.with_columns(pl.col(times).dt.epoch("us")).to_dicts()


@pytest.mark.slow
def test_the_row_engine_decides_as_recorded(lake: str) -> None:
    opened = wb.open(lake)
    replay = opened.replay(engine="rows", recompile=False)
    counts = replay.counts()
    assert (counts["decisions"], counts["decidable"], counts["decisions_decided"]) == (N, N, N)
    shares = Counter(replay.rows["verdict"].to_list())
    assert min(shares[verdict] for verdict in ("allow", "modify", "approve", "block")) >= N * 0.05
    assert counts["decisions"] / 12 < opened.contexts.collect().height < counts["decisions"] / 8


def test_contexts_compile_again(tmp_path: Path) -> None:
    build_lake(tmp_path / "lake", 1_500, seed=3)
    counts = wb.open(tmp_path / "lake").replay(engine="rows", recompile=True).counts()
    assert (counts["recompilable"], counts["not_recompilable"]) == (1_500, 0)


@pytest.mark.slow
def test_every_column_is_what_the_runtime_records() -> None:
    """Beyond what a replay compares: reasons, inputs of stages, patched derivations."""
    frame, bundle = desk_columns(12_000), load_bundle(shipped("support-desk/baseline"))
    cases, _ = DeskRecords.of(frame.tables).cases(frame.rows, bundle.context_spec_hash)
    # Rows that are rare, and some of the others.
    found = decision_rows(frame.rows, cases, bundle)
    rare = (
        pl.col("reason_code").is_in(["policy_error", "budget_spent"])
        | pl.col("enforced_projection").is_not_null()
    )
    keep = found.with_row_index().filter(rare | (pl.col("index") < 2_000))["index"].to_list()
    every = jobs(frame, bundle)
    for row, decision in zip(keep, RowEngine().run([every[row] for row in keep]), strict=True):
        assert isinstance(decision, Decision)
        got = found.row(row, named=True)
        wanted = decision_row(
            decision, bundle, decided_at=moment(0), latency_us=got["latency_us"], engine=got["engine"]
        )
        different = {
            name: (value, got.get(name))
            for name, value in wanted.items()
            if name not in ("decision_id", "decided_at", "evaluated_at") and value != got.get(name)
        }
        assert different == {}, row
        assert got["evaluated_at"] == decision.request.at


def test_the_evidence_holds(lake: str) -> None:
    chains = []
    for table in (trace.DECISIONS, trace.OUTCOMES):
        rows = _rows(lake, table)
        for row in rows:
            check_row(table, row)
        assert len({row[table.key] for row in rows}) == len(rows)
        chains += [(table.name, row) for row in rows]
    assert len(chains) > N * 1.5
    assert broken_links(chains) == []
    addressed = [
        (table, row) for table in (trace.CONTEXTS, trace.ENTITIES, trace.SLICES) for row in _rows(lake, table)
    ]
    assert len(addressed) > N / 10
    for table, row in addressed:
        check_address(table, row)


@pytest.mark.slow
def test_a_lake_of_several_blocks_is_one_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BLOCK", 500)
    monkeypatch.setattr(lake_module, "BLOCK", 500)
    built = build_lake(tmp_path / "lake", 2_200)
    chains = [(t.name, row) for t in (trace.DECISIONS, trace.OUTCOMES) for row in _rows(built.uri, t)]
    assert broken_links(chains) == []
    assert {row["writer"] for _, row in chains} == {"desk-0", "desk-1"}
    assert (built.decisions, built.decisions + built.outcomes) == (2_200, len(chains))
    counts = wb.open(built.uri).replay(engine="rows", recompile=False).counts()
    assert counts["decisions_decided"] == 2_200


def test_the_same_seed_gives_the_same_hashes(tmp_path: Path) -> None:
    def hashes(name: str, seed: int) -> set[str]:
        return {row["hash"] for row in _rows(build_lake(tmp_path / name, 800, seed).uri, trace.DECISIONS)}

    one = hashes("one", 5)
    assert one == hashes("two", 5)
    assert not one & hashes("three", 6)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(LakeError, match="is not empty"):
        build_lake(tmp_path, 10)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_lake_that_was_interrupted_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pulled(Exception):  # noqa: N818
        pass

    def pull(*_: object) -> None:
        raise Pulled

    with monkeypatch.context() as patched:
        patched.setattr(lake_module._Writer, "write", pull)
        with pytest.raises(Pulled):
            lake_of(tmp_path, 500)
    assert list(tmp_path.iterdir()) == []
    place = lake_of(tmp_path, 500)
    assert wb.open(place).decisions.collect().height == 500
    assert lake_of(tmp_path, 500) == place


@pytest.mark.slow
def test_processes_write_the_lake_that_one_would(tmp_path: Path) -> None:
    n = desk_module.BLOCK + 3_000  # a block for each ledger
    done: list[int] = []
    two = build_lake(tmp_path / "two", n, processes=2, told=done.append)
    one = build_lake(tmp_path / "one", n, told=lambda _: None)
    assert sum(done) == n
    assert (two.outcomes, two.contexts) == (one.outcomes, one.contexts)

    def heads(uri: str) -> pl.DataFrame:
        rows = wb.open(uri).decisions.select("writer", "position", "hash")
        return rows.group_by("writer").agg(pl.all().last()).sort("writer").collect()

    assert_frame_equal(heads(two.uri), heads(one.uri))
    assert heads(one.uri).height == 2
