"""A lake of recorded decisions of any size, from a seed.

One rule: it is a lake like any other. Every row replays as recorded, every hash stands over its content, positions
have no gaps and the chains hold; facts lie beside it as Delta tables, so that contexts can be compiled again.

Written block by block (`desk.BLOCK` rows), so memory grows with the facts only; `WRITERS` ledgers take turns, and may
be written by as many processes.

Accepted: counters of a session are drawn (see `desk`); one outcome in 97 failed, the others succeeded; there are no
approvals, duplicates and labels.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime import trace
from runtime.arrow import arrow_schema
from runtime.bundle import load_bundle
from runtime.lake import LakeStore
from workbench.bench.chain import chained
from workbench.bench.config import bench_config
from workbench.bench.desk import BLOCK, desk
from workbench.bench.desk_facts import AS_OF_US, URI, DeskRecords
from workbench.bench.lake_rows import decision_rows, outcome_rows
from workbench.errors import LakeError
from workbench.progress import progress
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle import Bundle
    from runtime.trace import Table
    from workbench.bench.desk import Desk
    from workbench.bench.desk_tables import DeskTables
    from workbench.progress import Advance

WRITERS = 2
"""Ledgers of a lake. Fixed, so that a lake is the same whatever machine makes it."""
BASELINE = "support-desk/baseline"


@dataclass(frozen=True, slots=True)
class Built:
    """What was written."""

    uri: str
    decisions: int
    outcomes: int
    contexts: int


def build_lake(
    uri: str | Path,
    n: int,
    seed: int | None = None,
    *,
    processes: int = 1,
    told: Advance | None = None,
) -> Built:
    """Write a lake of `n` decisions under the support desk's baseline.

    Args:
        uri: a folder; made if it is missing.
        n: decisions.
        seed: as configured unless given. The same seed and `n` give the same rows.
        processes: how many write at once, at most `WRITERS`.
        told: told how many decisions a block had; None: a progress bar.

    Raises:
        LakeError: a lake is there already.

    Cost: 35 µs of processor time a decision, half of it for the chain; 2.2 GiB of memory a process for ten
    million; 570 bytes a decision on disk. A lake that was interrupted is removed.
    """
    if Path(uri).exists() and any(Path(uri).iterdir()):
        raise LakeError(f"{uri} is not empty; a lake is built into a folder of its own")
    made, parts = desk(n, seed), list(range(WRITERS))
    store = LakeStore(uri, write=True)
    try:
        _write_tables(store, made)
        with progress(n, f"building a lake of {n:,} decisions", told) as advance:
            if processes == 1 or n <= BLOCK:
                found = [_write(store.uri, made.n, made.seed, part, advance) for part in parts]
            else:
                found = _in_processes(store.uri, made, min(processes, WRITERS), advance)
    except BaseException:
        shutil.rmtree(uri, ignore_errors=True)
        raise
    return Built(store.uri, n, sum(each[0] for each in found), sum(each[1] for each in found))


def lake_of(folder: Path, n: int) -> str:
    """Return the lake of `n` decisions below a folder, built if it is not there; named by seed, size and bundle.

    It is built beside its place and moved there, so that what has the name is whole.
    """
    name = f"desk-{bench_config().seed}-{n}-{_bundle().version[:12]}"
    place, beside = folder / name, folder / f"{name}.part"
    if not place.exists():
        shutil.rmtree(beside, ignore_errors=True)
        build_lake(beside, n, processes=WRITERS)
        beside.rename(place)
    return str(place)


def _in_processes(uri: str, made: Desk, processes: int, advance: Advance) -> list[tuple[int, int]]:
    # Not forked: Polars' threads would not survive it.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_write, uri, made.n, made.seed, part) for part in range(WRITERS)]
        for number, task in enumerate(as_completed(tasks), start=1):
            task.result()
            advance(made.n * number // WRITERS - made.n * (number - 1) // WRITERS)
    return [task.result() for task in tasks]


def _write_tables(store: LakeStore, made: Desk) -> None:
    """Write what does not depend on calls: facts, policies, and empty tables, so that nobody races to make them."""
    _write_facts(store.uri, made.tables)
    for table in trace.DRAINED:
        if table is not trace.BLOBS:
            store.create(table)
    store.append(trace.POLICIES, _bundle().row_dicts())


def _write_facts(uri: str, tables: DeskTables) -> None:
    from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - as in `runtime.lake`

    # Its own time of the commit, so that the facts' ages, and with them all hashes, follow from the seed.
    when = CommitProperties(custom_metadata={"inCommitTimestamp": str(AS_OF_US // 1_000)})
    placed = pl.from_epoch("placed_at", "ms").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    named = {
        "agents": tables.agents, "customers": tables.customers, "tickets": tables.tickets,
        "orders": tables.orders.with_columns(placed_at=placed),
    }  # fmt: skip
    for name, table in named.items():
        write_deltalake(f"{uri}/{URI.format(name)}", table.to_arrow(), commit_properties=when)


def _bundle() -> Bundle:
    return load_bundle(shipped(BASELINE))


def _write(uri: str, n: int, seed: int, part: int, advance: Advance | None = None) -> tuple[int, int]:
    """Write one ledger's blocks; returns its outcomes and contexts."""
    writer = _Writer(LakeStore(uri, write=True), _bundle(), desk(n, seed), part)
    if part == 0:
        writer.append(trace.ENTITIES, writer.records.entities)
    for calls in writer.blocks():
        writer.write(calls)
        if advance is not None:
            advance(calls.height)
    return writer.outcomes, writer.contexts


class _Writer:
    """One ledger while it is written."""

    def __init__(self, store: LakeStore, bundle: Bundle, made: Desk, part: int) -> None:
        self.store, self.bundle, self.desk, self.part = store, bundle, made, part
        self.name = f"desk-{part}"
        self.records = DeskRecords.of(made.tables)
        self.position, self.last_hash = 0, trace.GENESIS
        self.outcomes = self.contexts = 0

    def blocks(self) -> Iterator[pl.DataFrame]:
        """Yield this ledger's blocks."""
        return self.desk.blocks(lambda number: number % WRITERS == self.part)

    def write(self, calls: pl.DataFrame) -> None:
        """Write one block: content-addressed tables first, so that no row refers to a missing one."""
        cases, strange = self.records.cases(calls, self.bundle.context_spec_hash)
        decisions = decision_rows(calls, cases, self.bundle)
        decisions = self._positioned(decisions)
        outcomes = outcome_rows(decisions)
        found, self.last_hash = chained(
            {"decisions": (decisions, trace.DECISIONS), "outcomes": (outcomes, trace.OUTCOMES)},
            self.last_hash,
        )
        self.append(trace.ENTITIES, strange)
        self.append(trace.SLICES, cases.select("slice_hash", "entity_hashes").unique("slice_hash"))
        self.append(trace.CONTEXTS, cases.select("context_hash", "context").unique("context_hash"))
        self.append(trace.DECISIONS, found["decisions"])
        self.append(trace.OUTCOMES, found["outcomes"])
        self.outcomes += outcomes.height
        self.contexts += cases["context_hash"].n_unique()

    def _positioned(self, decisions: pl.DataFrame) -> pl.DataFrame:
        """Give positions: an outcome stands right after its decision."""
        ran = decisions["verdict"].is_in(["allow", "modify"]).cast(pl.Int64)
        before = ran.cum_sum() - ran
        place = pl.int_range(1, pl.len() + 1, dtype=pl.Int64) + before + self.position
        self.position += decisions.height + int(ran.sum())
        return decisions.with_columns(
            position=place, writer=pl.lit(self.name), schema_version=pl.lit(trace.SCHEMA_VERSION, pl.Int32)
        )

    def append(self, table: Table, frame: pl.DataFrame) -> None:
        """Append a frame; columns that it lacks are null."""
        self.store.append(table, _arrow(table, frame))


def _arrow(table: Table, frame: pl.DataFrame) -> Any:
    names = [column.name for column in table.columns]
    missing = [pl.lit(None).alias(name) for name in names if name not in frame.columns]
    return frame.with_columns(missing).select(names).to_arrow().cast(arrow_schema(table))
