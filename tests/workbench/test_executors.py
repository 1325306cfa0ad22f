"""Executors: chunks decided in a thread's company, after a journey through `pickle`, and on a real Ray."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import Blocked, Runtime
from runtime.bundle import load_bundle
from runtime.errors import PolicySyntaxError
from workbench import redeciding
from workbench.bench.lake import build_lake
from workbench.errors import (
    ColumnUnknown,
    LakeNotFound,
    MissingExtra,
    OracleMismatch,
    ReplayFailure,
    UnsupportedPolicy,
)
from workbench.executors import Failure, PlacesWanted, ahead, in_order, is_local
from workbench.history.records import MORE, Records
from workbench.lake import Lake, open_lake
from workbench.portable import sent_of, tasks_of
from workbench.ray_executor import RayRunner, connected
from workbench.recompile import Recompiler
from workbench.rows import RowEngine
from workbench.where import recorded_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine, Job

DESK = Path(__file__).resolve().parents[2] / "datasets" / "support-desk"
ROWS = 2_000

SCHEMA = """
entity User;
entity Agent;
entity Order;
action "refund", "look" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, amount_cents?: Long }, order?: { refundable_cents: Long } }
};
"""
POLICIES = """
@id("permit") permit(principal is Agent, action, resource);
@id("over") forbid(principal, action, resource) when {
  context has order && context.args has amount_cents && context.args.amount_cents > context.order.refundable_cents
};
"""
FACTS = """
[sources.orders]
kind = "delta"
[[facts]]
name = "order"
actions = [{actions}]
source = "orders"
key = {{ order_id = "args.order_id" }}
fields = ["refundable_cents"]
tenant_column = "tenant"
"""
CALLS: list[tuple[str, int, dict[str, Any]]] = [
    ("look", 1, {}),
    ("refund", 1, {"amount_cents": 50}),
    ("refund", 2, {"amount_cents": 500}),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake of two thousand decisions, with sources of facts beside it."""
    folder = tmp_path_factory.mktemp("desk") / "lake"
    build_lake(folder, ROWS)
    return open_lake(folder)


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small lakes be decided in columns, too."""
    monkeypatch.setattr(redeciding, "COLUMNS_PAY", 0)


def write_bundle(folder: Path, actions: str) -> Path:
    folder.mkdir()
    (folder / "p.cedar").write_text(POLICIES)
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "context.toml").write_text(FACTS.format(actions=actions))
    return folder


def record(root: Path, bundle: Path, orders: Path) -> Path:
    with Runtime.open(bundle, lake=root / "lake", sources={"orders": orders}) as runtime:
        for name in ("look", "refund"):
            runtime.tool(
                lambda order_id, amount_cents=None: {"ok": True}, name=name, resource="Order::{order_id}"
            )
        with runtime.session(principal="Agent::bot", tenant="acme", session_id="s") as session:
            for tool, order, more in CALLS:
                try:
                    session.call(tool, order_id=f"o-{order}", **more)
                except Blocked:
                    continue
    return root / "lake"


def elsewhere(
    lake: Lake, engine: EngineName | Engine, size: int, *axes: Any, known: Any = None
) -> pl.DataFrame:
    """Decide a lake as workers do: what is sent and each task go through `pickle`, and nothing else is shared."""
    rows = RowEngine() if isinstance(engine, str) else engine
    work = sent_of(redeciding.Plan(lake, rows, *(axes or [None] * 4)), engine)
    work = replace(work, places=known)
    answers = []
    for task in tasks_of(lake, Records(lake).chunks(MORE), size):
        sent, chunk = pickle.loads(pickle.dumps((work, task)))
        answers.append(sent.decide(chunk))
    found = pl.from_arrow(pa.concat_tables(answers))
    assert isinstance(found, pl.DataFrame)
    return found


def rows_of(replay: Replay) -> pl.DataFrame:
    return replay.frame.collect()


@pytest.mark.parametrize("engine", ["auto", pytest.param("rows", marks=pytest.mark.ray)])
@pytest.mark.parametrize("size", [ROWS, 300])
def test_sent_away_a_lake_comes_out_as_here(desk: Lake, columns: None, engine: EngineName, size: int) -> None:
    here = rows_of(desk.replay(engine=engine, recompile=False))
    assert here.height == ROWS
    assert elsewhere(desk, engine, size).equals(here)


def test_candidate_and_limits_travel_as_their_files(desk: Lake, columns: None) -> None:
    bundle = load_bundle(DESK / "candidate")
    here = rows_of(desk.replay(bundle, limits=bundle))
    assert here["verdict_changed"].any()
    assert elsewhere(desk, "auto", 700, bundle, bundle, None, None).equals(here)


def test_a_task_holds_what_its_rows_refer_to_and_no_more(desk: Lake) -> None:
    chunks = list(Records(desk).chunks(MORE))
    tasks = list(tasks_of(desk, chunks, 300))
    assert [task.records.num_rows for task in tasks] == [300] * 6 + [200]
    texts = [set(task.contexts["context_hash"].to_pylist()) for task in tasks]
    for task, found in zip(tasks, texts, strict=True):
        named = {
            *task.records["context_hash"].to_pylist(),
            *task.records["enforced_context_hash"].to_pylist(),
        }
        assert found == named - {None}
    assert 1.5 * max(map(len, texts)) < len(set().union(*texts))
    assert max(len(pickle.dumps(task)) for task in tasks) < len(pickle.dumps(chunks[0].to_arrow())) / 2


@pytest.mark.slow
def test_what_the_lake_lost_is_lost_there_too(desk: Lake, columns: None, tmp_path: Path) -> None:
    lake = copied(desk, tmp_path / "lake")
    contexts = pl.read_delta(str(tmp_path / "lake" / "contexts")).sort("context_hash")
    gone, bent = contexts["context_hash"][0], contexts["context_hash"][1]
    damaged = contexts.filter(pl.col("context_hash") != gone).with_columns(
        context=pl.when(pl.col("context_hash") == bent).then(pl.lit("{}")).otherwise("context")
    )
    overwrite(tmp_path / "lake" / "contexts", damaged)
    here = rows_of(lake.replay(recompile=False))
    assert set(here["cause"].drop_nulls()) == {"context_lost", "context_corrupt"}
    assert elsewhere(lake, "auto", 300).equals(here)

    overwrite(tmp_path / "lake" / "policies", pl.read_delta(str(tmp_path / "lake" / "policies")).head(1))
    lost = open_lake(tmp_path / "lake")
    here = rows_of(lost.replay(recompile=False))
    assert here["cause"].unique().to_list() == ["policy_lost"]
    assert elsewhere(lost, "auto", 300).equals(here)


def copied(lake: Lake, to: Path) -> Lake:
    import shutil

    shutil.copytree(lake.uri, to)
    return open_lake(to)


def overwrite(table: Path, rows: pl.DataFrame) -> None:
    schema = pa.schema(DeltaTable(str(table)).schema().to_arrow())
    write_deltalake(str(table), rows.to_arrow().cast(schema), mode="overwrite")


def test_who_has_the_whole_lake_is_asked_where_a_source_was(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    table = pa.table({"tenant": ["acme"] * 2, "order_id": ["o-1", "o-2"], "refundable_cents": [100, 100]})
    write_deltalake(str(orders), table)
    lake = open_lake(record(tmp_path, write_bundle(tmp_path / "base", '"refund"'), orders))
    wide = load_bundle(write_bundle(tmp_path / "wide", '"refund", "look"'))
    here = rows_of(lake.replay(wide, context=wide))
    assert here["status"].to_list() == ["decided"] * 3
    recompiler = Recompiler(wide.spec, {}, tmp_path / "lake", partial(recorded_places, lake))
    verify = Recompiler(None, {}, tmp_path / "lake", partial(recorded_places, lake))
    axes = (wide, None, recompiler, verify)
    with pytest.raises(PlacesWanted):
        elsewhere(lake, "rows", 2, *axes)
    assert elsewhere(lake, "rows", 2, *axes, known=recorded_places(lake)).equals(here)


def test_a_bundle_that_is_not_what_its_files_say_is_refused(desk: Lake) -> None:
    bundle = load_bundle(DESK / "candidate")
    other = replace(bundle, files=load_bundle(DESK / "baseline").files)
    with pytest.raises(ReplayFailure, match="`candidate` is not what its files say"):
        elsewhere(desk, "rows", ROWS, other, None, None, None)


def test_the_next_chunk_is_read_while_one_is_decided() -> None:
    asked = [threading.Event() for _ in range(3)]

    def chunks() -> Iterator[int]:
        for number, event in enumerate(asked):
            event.set()
            yield number

    for number in ahead(chunks()):
        if number + 1 < len(asked):
            assert asked[number + 1].wait(10)
    assert number == 2


def test_reading_ahead_passes_errors_on_and_stops_when_it_is_closed() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("no disk")

    found = ahead(broken())
    assert next(found) == 1
    with pytest.raises(OSError, match="no disk"):
        next(found)

    taken: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with closing(ahead(counted())) as some:
        next(some)
    assert len(taken) <= 2
    assert not any(thread.name.startswith("redecide-reading") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedPolicy("cannot", policy_id="p", node="like"),
        ColumnUnknown("verdct", ["verdict"], "the frame"),
        OracleMismatch("they differ", case={"row": 1}),
        LakeNotFound("nothing there"),
        MissingExtra("`x` is not installed", name="x"),
        PolicySyntaxError("no", file="p.cedar", line=3),
        PlacesWanted(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_our_errors_survive_the_journey(error: Exception) -> None:
    found = pickle.loads(pickle.dumps(Failure.of(error))).raised()
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


def test_what_is_no_executor_is_refused_before_anything_is_read(desk: Lake) -> None:
    for wrong in ("lcoal", "", os, None):
        with pytest.raises(ValueError, match="`executor` must be 'local', 'ray', the address"):
            desk.replay(executor=wrong)  # type: ignore[arg-type]  # that is the point
    assert is_local("local")
    assert not any(is_local(each) for each in ("ray", "auto", "10.0.0.5:6379", "ray://cluster:10001"))


def test_without_ray_the_command_that_installs_it_is_named(
    desk: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"`ray` is not installed; run pip install 'redecide\[ray\]'"):
        desk.replay(executor="ray")


# -- a real Ray: 10 s to start on an idle machine --------------------------------------------------------------


def complete(asked: Any) -> Any:
    raise AssertionError("nothing is to be completed")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Return Ray, initialised as somebody else would have."""
    pytest.importorskip("ray")
    with connected("ray", complete) as runner:
        runner.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield runner.ray
    assert not runner.ray.is_initialized()


@dataclass
class Failing:
    """An engine that fails in a way of its own."""

    how: str
    name: str = "failing"

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        if self.how == "dies":
            os._exit(3)
        raise ArithmeticError("no such number\nsecond line")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", pytest.param("rows", marks=pytest.mark.ray)])
def test_ray_gives_the_rows_that_this_process_gives(
    ray: Any, desk: Lake, columns: None, monkeypatch: pytest.MonkeyPatch, engine: EngineName
) -> None:
    monkeypatch.setattr("workbench.portable.COLUMNS_ROWS", (300, 300))
    monkeypatch.setattr("workbench.portable.CEDAR_ROWS", 300)
    told: list[int] = []
    there = desk.replay(DESK / "candidate", executor="ray", engine=engine, on_rows=told.append)
    here = desk.replay(DESK / "candidate", engine=engine)
    assert rows_of(there).equals(rows_of(here))
    assert (there.digest(), there.engine, there.handed_over) == (here.digest(), here.engine, here.handed_over)
    assert told == [300] * 6 + [200]
    assert ray.is_initialized()  # by somebody else, who still wants it


@pytest.mark.ray
def test_ray_verifies_recorded_contexts_from_their_sources(ray: Any, desk: Lake, columns: None) -> None:
    there, here = desk.replay(executor=ray), desk.replay()
    assert rows_of(here)["recompilable"].all()
    assert rows_of(there).equals(rows_of(here))


@pytest.mark.ray
def test_a_worker_that_wants_places_is_told(ray: Any, tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    table = pa.table({"tenant": ["acme"] * 2, "order_id": ["o-1", "o-2"], "refundable_cents": [100, 100]})
    write_deltalake(str(orders), table)
    lake = open_lake(record(tmp_path, write_bundle(tmp_path / "base", '"refund"'), orders))
    wide = load_bundle(write_bundle(tmp_path / "wide", '"refund", "look"'))
    assert rows_of(lake.replay(wide, context=wide, executor=ray)).equals(
        rows_of(lake.replay(wide, context=wide))
    )
    with pytest.raises(ReplayFailure, match="cannot be sent to Ray's workers; give a source's location"):
        lake.replay(wide, context=wide, executor=ray, sources={"orders": threading.Lock()})


@pytest.mark.ray
def test_errors_of_workers_are_ours(ray: Any, desk: Lake) -> None:
    with pytest.raises(
        ReplayFailure, match=r"failed on a worker of Ray: ArithmeticError: no such number$"
    ) as told:
        desk.replay(engine=Failing("fails"), executor=ray)
    assert isinstance(told.value.__cause__, ray.exceptions.RayTaskError)
    with pytest.raises(ReplayFailure, match="Ray lost a chunk for good"):
        desk.replay(engine=Failing("dies"), executor=ray)
    with pytest.raises(ReplayFailure, match="`ray` is connected already, so it cannot connect to 'auto'"):
        desk.replay(executor="auto")


@dataclass(frozen=True)
class Refusing:
    """Work that columns refuse."""

    def decide(self, task: Any) -> Any:
        raise UnsupportedPolicy("cannot", policy_id="p", node="like")


@pytest.mark.ray
def test_a_refusal_crosses_over_whole_and_what_is_under_way_is_cancelled(ray: Any, desk: Lake) -> None:
    tasks = list(tasks_of(desk, Records(desk).chunks(MORE), 300))
    answers = RayRunner(ray, complete).answers(Refusing(), tasks)
    with pytest.raises(UnsupportedPolicy, match="policy `p`: cannot") as told:
        next(answers)
    assert (told.value.policy_id, told.value.node) == ("p", "like")
    with pytest.raises(StopIteration):
        next(answers)


ALONE = """
import os, subprocess, sys
import workbench.redeciding as redeciding
from workbench.lake import open_lake
redeciding.COLUMNS_PAY = 0

def children():
    return subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout

def listening():
    hexed = [line.split() for file in ("/proc/net/tcp", "/proc/net/tcp6") for line in open(file).readlines()[1:]]
    return {row[1] for row in hexed if row[3] == "0A"}

if __name__ == "__main__":
    lake, seen, old = open_lake(sys.argv[1]), set(), listening()
    there = lake.replay(executor="ray", on_rows=lambda rows: seen.update(listening() - old))
    import ray
    assert not ray.is_initialized()
    assert not {"RAY_USAGE_STATS_ENABLED", "POLARS_MAX_THREADS"} & os.environ.keys()
    assert "gcs_server" not in children() and "raylet" not in children(), children()
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:")
    assert seen and all(each.startswith(loopback) for each in seen), seen
    assert there.frame.collect().equals(lake.replay().frame.collect())
    print(there.digest())
"""


@pytest.mark.ray
def test_a_ray_that_was_started_for_a_replay_is_gone_after_it(desk: Lake, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    done = subprocess.run(
        [sys.executable, str(script), desk.uri], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isalnum()
    assert done.stderr == ""


def test_answers_come_in_order_however_long_each_takes() -> None:
    gates = [threading.Event() for _ in range(6)]

    def work(number: int, _: Any) -> int:
        if number % 2:
            gates[number - 1].set()
        else:
            assert gates[number].wait(10), "the next one is worked on meanwhile"
        return number

    assert list(in_order(work, range(6), threads=2)) == list(range(6))


def test_few_are_under_way_at_a_time() -> None:
    taken: list[int] = []

    def given() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    for number in in_order(lambda number, _: number, given(), threads=3):
        assert taken[-1] <= number + 3


def test_the_first_failure_is_raised_after_what_came_before_it() -> None:
    def work(number: int, _: Any) -> int:
        if number >= 3:
            raise LookupError(number)
        return number

    found = in_order(work, range(9), threads=4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="3"):
        next(found)
    assert _deciding() == []


def test_what_nobody_waits_for_is_not_finished() -> None:
    stopped: list[int] = []
    begun = threading.Semaphore(0)

    def work(number: int, going: Callable[[], None]) -> int:
        if number == 0:
            return number
        begun.release()
        try:
            while True:
                time.sleep(0.001)
                going()
        finally:
            stopped.append(number)

    found = in_order(work, range(9), threads=2)
    assert next(found) == 0
    assert begun.acquire(timeout=10)
    found.close()
    assert set(stopped) <= {1, 2}
    assert stopped
    assert _deciding() == []


def _deciding() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "redecide-deciding"]
