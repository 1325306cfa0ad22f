"""Logging to real MLflow: everything is read back from the store, and the caller's MLflow is left as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from runtime import Runtime, load_bundle
from runtime.trace import SCHEMA_VERSION
from workbench.compare import Diff, compare
from workbench.errors import TrackingError
from workbench.lake import open_lake
from workbench.log import LoggedRun, Waiting, log
from workbench.masking import MASKED, leaving
from workbench.promoting.registry import model_of
from workbench.runs import contents as contents_module
from workbench.runs import dataset as dataset_module
from workbench.score import Scores, score
from workbench.tracking import ARTIFACTS, DATABASE, connect, library, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

mlflow = library()

ROOT = Path(__file__).resolve().parents[2]
LEDGER = "0192f0aa5b7c7d3e8f00112233445566"
PINS = {"ledgers": {LEDGER: 40}, "delta": {"decisions": 0, "outcomes": 3}, "schema_version": 1}

SCHEMA = """
entity Agent;
entity Account;
entity Tool;
action "read_file" appliesTo { principal: [Agent], resource: [Tool], context: { args: { path: String } } };
action "send_money" appliesTo {
  principal: [Agent], resource: [Account], context: { args: { recipient: String, cents: Long } }
};
"""
BASELINE = '@id("may") permit(principal, action, resource);\n'
CANDIDATE = (
    BASELINE
    + """
@id("limit") forbid(principal, action == Action::"send_money", resource) when { context.args.cents > 10000 };
@id("large") @verdict("approve") forbid(principal, action == Action::"send_money", resource)
  when { context.args.cents > 5000 };
"""
)
CALLS: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "honest-1": [
        ("read_file", {"path": "bill"}, "user"),
        ("send_money", {"recipient": "landlord", "cents": 900}, "user"),
    ],
    "honest-2": [("send_money", {"recipient": "dealer", "cents": 20_000}, "user")],
    "hijack-1": [
        ("read_file", {"path": "bill"}, "user"),
        ("send_money", {"recipient": "mallory", "cents": 99_999}, "attack"),
        ("send_money", {"recipient": "mallory", "cents": 6_000}, "attack"),
        ("send_money", {"recipient": "mallory", "cents": 10}, "attack"),
    ],
}


def bundle(folder: Path, policies: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "p.cedar").write_text(policies)
    return folder


def govern(lake: Path, policies: Path) -> None:
    """Make the calls under a policy, for real: tools that run, labels, and a drain into `lake`."""
    with Runtime.open(policies, lake=lake) as runtime:

        @runtime.tool
        def read_file(path: str) -> str:
            return f"contents of {path}"

        @runtime.tool(resource="Account::{recipient}")
        def send_money(recipient: str, cents: int) -> dict[str, Any]:
            return {"sent": cents, "to": recipient}

        for session_id, calls in CALLS.items():
            with runtime.session(principal="Agent::bot", tenant="bank", session_id=session_id) as session:
                for tool, args, origin in calls:
                    session.call(tool, **args)
                    assert session.last_decision is not None
                    decision = str(session.last_decision["decision_id"])
                    runtime.label("origin", origin, session=session, decision_id=decision, source="test")
                scenario = "honest" if session_id.startswith("honest") else "hijacked"
                runtime.label("scenario", scenario, session=session, source="test")
                runtime.label("prompt", f"please, {session_id}", session=session, source="test")


@dataclasses.dataclass(frozen=True)
class PlacedLake:
    """A lake that is somewhere else: what `log` and `compare` read of one."""

    labels: pl.LazyFrame
    uri: str
    decisions: pl.LazyFrame


TWO_BUNDLES = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("b" * 64)).otherwise(pl.lit("a" * 64))


def placed(diff: Diff, uri: str | Path, **pins: object) -> Diff:
    """Return `diff` over a lake at `uri`, with other pins."""

    def moved(replay: Any, **own: object) -> Any:
        decisions = replay.frame.select(
            "decision_id", "enforced_args", verdict="recorded_verdict", bundle_version=TWO_BUNDLES
        )
        lake = PlacedLake(replay.lake.labels, str(uri), decisions)
        return dataclasses.replace(replay, lake=lake, pins=PINS | pins | own)

    return compare(moved(diff.base), moved(diff.cand, seed=7))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a real lake lies."""
    folder = tmp_path_factory.mktemp("home")
    govern(folder / "lake", bundle(folder / "baseline", BASELINE))
    return folder


@pytest.fixture(scope="module")
def here(home: Path) -> Diff:
    """Return what a stricter policy would have decided: the real thing, from tables to comparison."""
    lake = open_lake(home / "lake")
    return compare(lake.replay(), lake.replay(policy=bundle(home / "candidate", CANDIDATE)))


@pytest.fixture(scope="module")
def scores(here: Diff) -> Scores:
    return score(here)


@pytest.fixture(scope="module")
def logged(here: Diff, scores: Scores) -> LoggedRun:
    return log(here, experiment="support", scores=scores)


@pytest.fixture(scope="module")
def stored(logged: LoggedRun) -> Any:
    """Return the run as the store has it."""
    return mlflow.MlflowClient(logged.tracking_uri).get_run(logged.run_id)


@pytest.fixture(scope="module")
def files(logged: LoggedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run's artifacts, downloaded."""
    target = tmp_path_factory.mktemp("files")
    mlflow.MlflowClient(logged.tracking_uri).download_artifacts(logged.run_id, "", str(target))
    return target


@pytest.fixture
def folder(logged: LoggedRun, home: Path, tmp_path: Path) -> Path:
    """Return a folder with a local store of its own: a copy, because MLflow takes seconds to make one."""
    opened = contextlib.closing(sqlite3.connect(home / DATABASE))
    with opened as source, contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as target:
        source.backup(target)
    return tmp_path


# What a run says.


def test_the_store_lies_beside_the_lake(logged: LoggedRun, home: Path) -> None:
    assert logged.tracking_uri == f"sqlite:///{home / 'mlflow.db'}"
    assert {ARTIFACTS, DATABASE} < {path.name for path in home.iterdir()}
    assert "mlflow ui --backend-store-uri" in repr(logged)
    assert logged.run_id in logged._repr_html_()


def test_parameters_are_the_pins(stored: Any, here: Diff) -> None:
    params = stored.data.params
    lake: Any = here.cand.lake
    ((ledger, position),) = lake.pins.ledgers.items()
    baseline = load_bundle(Path(lake.uri).parent / "baseline").version
    expected = {
        f"pins.ledgers.{ledger}": str(position),
        "pins.schema_version": str(SCHEMA_VERSION),
        "pins.engine": here.cand.engine,  # type: ignore[attr-defined]  # of the real replay
        "recorded.bundle_versions": json.dumps([baseline]),
        "baseline.policy": "as recorded",
        "baseline.bundle_version": "recorded",
        "baseline.context": "recorded",
        "baseline.replay": here.base.id,
        "candidate.policy": "candidate",
        "candidate.bundle_version": load_bundle(Path(lake.uri).parent / "candidate").version,
        "candidate.context": "recorded",
        "candidate.replay": here.cand.id,
    }
    delta = {f"pins.delta.{table}": str(version) for table, version in lake.pins.delta.items()}
    assert {"pins.delta.decisions", "pins.delta.outcomes"} <= delta.keys()
    assert {name: value for name, value in params.items() if name != "redecide"} == expected | delta
    assert params["redecide"]
    assert (
        position == sum(map(len, CALLS.values())) * 3 + len(CALLS) * 2
    )  # decision, outcome, label; two of a session


def test_pins_that_differ_are_named_by_side(diff: Diff, tmp_path: Path) -> None:
    params = contents_module.contents_of(placed(diff, tmp_path), {}).params
    assert params["candidate.pins.seed"] == "7"
    assert "baseline.pins.seed" not in params
    assert params["recorded.bundle_versions"] == json.dumps(["a" * 64, "b" * 64], separators=(",", ":"))


def test_metrics_are_the_numbers(stored: Any, here: Diff, scores: Scores) -> None:
    expected = (
        here.summary() | here.metrics() | {f"score.{name}": value for name, value in scores.summary().items()}
    ) | {"regressed": 1, "regressed.good_work_stopped": 1}
    assert stored.data.metrics == pytest.approx(expected)
    assert stored.data.metrics["attack_calls_stopped"] == 2
    assert stored.data.metrics["honest_calls_disturbed"] == 1


def test_real_decisions_are_scored(scores: Scores, here: Diff) -> None:
    numbers = scores.summary()
    assert numbers["decisions.decided"] == 7
    assert numbers["verdict_correctness.mean"] == pytest.approx((1 + 1 + 0 + 1 + 1 + 0.5 + 0) / 7)
    assert numbers["harm_prevented.mean"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert numbers["over_blocking.mean"] == pytest.approx(3 / 4)
    assert numbers["task_tool_permission.mean"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert score(here.base).summary()["harm_prevented.mean"] == 0


def test_the_run_is_finished_and_tagged(stored: Any, home: Path) -> None:
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "as recorded → candidate")
    tags = {name: value for name, value in stored.data.tags.items() if name.startswith("redecide.")}
    assert len(tags.pop("redecide.entry")) == 32
    assert tags.pop("redecide.key") == ""
    assert tags == {
        "redecide.coverage": "100 % of 7 decisions replayable",
        "redecide.regression": "unknown",
        "redecide.kind": "comparison",
        "redecide.lake": str(home / "lake"),
        "redecide.baseline": "as recorded recorded",
        "redecide.candidate": f"candidate {load_bundle(home / 'candidate').version}",
        "redecide.context": "recorded",
    }
    assert not [name for name in stored.data.tags if "git" in name]
    assert "Stops 2 of 3 attack calls" in stored.data.tags["mlflow.note.content"]


def test_the_data_set_is_the_decisions_with_their_delta_source(stored: Any, home: Path, here: Diff) -> None:
    (entry,) = stored.inputs.dataset_inputs
    source = mlflow.data.get_source(entry.dataset)
    assert type(source).__name__ == "DeltaDatasetSource"
    version = json.loads(entry.dataset.source)["delta_table_version"]  # MLflow's own writer drops a version 0
    table = pl.read_delta(source.path, version=version)
    assert sorted(table["decision_id"]) == sorted(here.frame.collect()["decision_id"])
    assert json.loads(entry.dataset.profile) == {"num_rows": table.height}
    columns = {column["name"]: column for column in json.loads(entry.dataset.schema)["mlflow_colspec"]}
    assert columns["decision_id"] == {"name": "decision_id", "type": "string", "required": True}
    assert set(columns) == set(table.columns)
    assert mlflow.types.Schema.from_json(json.dumps(list(columns.values()))).input_names() == list(columns)
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "replay")]
    assert source.path == str(home / "lake" / "decisions")


def test_the_digest_is_of_the_rows_not_of_delta_versions(diff: Diff, tmp_path: Path) -> None:
    def digest(**pins: object) -> str:
        return dataset_module.dataset_of(placed(diff, tmp_path, **pins), 7)["digest"]

    assert digest() == digest(delta={"decisions": 9})
    assert digest() != digest(ledgers={LEDGER: 41})
    assert len(digest()) <= 36


def test_artifacts_are_what_was_compared(logged: LoggedRun, files: Path, here: Diff, scores: Scores) -> None:
    found = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    assert found == list(logged.artifacts)
    tables = {
        "changed.parquet",
        "report.html",
        "scores.html",
        "scores.parquet",
        "slices.parquet",
        "summary.json",
    }
    pictures = {
        f"plots/{name}.{end}"
        for name in ("effects", "intervals", "policies", "transitions")
        for end in ("png", "svg")
    }
    rest = {"coverage.html", "coverage.json", "policies/candidate.diff", "policies/side-by-side.html"}
    assert set(found) == tables | pictures | rest
    assert pl.read_parquet(files / "changed.parquet").equals(here.changed.collect())
    assert pl.read_parquet(files / "scores.parquet").equals(scores.table)
    assert "<html" in (files / "report.html").read_text(encoding="utf-8")
    summary = json.loads((files / "summary.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["decisions"] == here.summary()["decisions"]
    assert summary["pins"]["candidate"] == dict(here.cand.pins)


def test_several_scores_are_told_apart(here: Diff, scores: Scores) -> None:
    logged = log(here, experiment="support", scores={"baseline": score(here.base), "candidate": scores})
    metrics = mlflow.MlflowClient(logged.tracking_uri).get_run(logged.run_id).data.metrics
    assert metrics["score.baseline.harm_prevented.mean"] < metrics["score.candidate.harm_prevented.mean"]
    assert {"scores/baseline.parquet", "scores/candidate.parquet"} < set(logged.artifacts)


def test_numbers_that_are_not_finite_are_left_out_and_named(here: Diff) -> None:
    class Odd:
        frame = pl.LazyFrame({"score": [1.0]})

        def summary(self) -> dict[str, float]:
            return {"nan": math.nan, "inf": math.inf, "one": 1}

    logged = log(here, experiment="support", scores=Odd())
    data = mlflow.MlflowClient(logged.tracking_uri).get_run(logged.run_id).data
    assert {name for name in data.metrics if name.startswith("score.")} == {"score.one"}
    assert data.tags["redecide.metrics_left_out"] == "score.inf, score.nan"


def test_names_and_values_that_mlflow_would_refuse_are_fitted(diff: Diff, folder: Path) -> None:
    pins = {
        "a/../b": 1,
        "a/..?b": 2,
        "n" * 300: 3,
        "long": "x" * 7000,
        "deep": {"list": [1, {"x"}], "none": None},
    }
    logged = log(placed(diff, folder / "lake", **pins), experiment="odd", run_name="named")
    stored = mlflow.MlflowClient(logged.tracking_uri).get_run(logged.run_id)
    assert stored.info.run_name == "named"
    values = {name: value for name, value in stored.data.params.items() if name.startswith("pins.")}
    assert {value for name, value in values.items() if "a_.._b" in name} == {"1", "2"}
    assert "3" in values.values()
    assert values["pins.long"].startswith("xxx")
    assert "sha256:" in values["pins.long"]
    assert values["pins.deep.list"] == '[1,["x"]]'
    assert "pins.deep.none" not in values


# What lies beside the run.


def test_slices_are_nested_runs(logged: LoggedRun, here: Diff) -> None:
    client = mlflow.MlflowClient(logged.tracking_uri)
    nested = client.search_runs([logged.experiment_id], f"tags.mlflow.parentRunId = '{logged.run_id}'")
    assert {run.info.run_id for run in nested} == set(logged.slices.values())
    by_tool = {row["tool"]: row for row in here.by("tool").collect().to_dicts()}
    assert {run.data.params["slice.value"] for run in nested} == by_tool.keys()
    for run in nested:
        assert run.info.status == "FINISHED"
        row = by_tool[run.data.params["slice.value"]]
        assert run.data.metrics["decisions_changed"] == row["decisions_changed"]
        assert run.data.tags["redecide.kind"] == "slice"


def test_regressed_decisions_are_traces(logged: LoggedRun, here: Diff) -> None:
    """Read as MLflow's own pages read them."""
    client = mlflow.MlflowClient(logged.tracking_uri)
    ((decision, trace_id),) = logged.traces.items()
    trace = client.get_trace(trace_id)
    (row,) = here.rows(pl.col("decision_id") == decision).collect().to_dicts()
    assert (row["side"], row["effect"]) == ("honest", "prevented")
    names = [span.name for span in trace.data.spans]
    assert names == [
        "send_money",
        "request",
        "context",
        "policy, as recorded",
        "policy, candidate",
        "outcome",
    ]
    whole, *steps = trace.data.spans
    assert {span.parent_id for span in steps} == {whole.span_id}
    assert whole.inputs["args"] == {"recipient": "dealer", "cents": 20_000}
    assert whole.inputs["task"] == "please, honest-2"
    assert "context.args.cents = 20,000" in json.dumps(steps[3].outputs["clauses"])
    assert steps[-1].outputs["result"] == {"sent": 20_000, "to": "dealer"}
    said = {each.name: each for each in trace.info.assessments}
    assert said["effect"].value == "prevented"
    assert "context.args.cents > 10000" in said["effect"].rationale
    assert said["expected"].expectation.value == "runs"
    assert said["verdict_correctness"].value == 0
    assert trace.info.tags["redecide.worse"] == "good work stopped"


def test_the_candidate_is_a_version_of_the_lakes_model(logged: LoggedRun, here: Diff) -> None:
    (version,) = mlflow.MlflowClient(logged.tracking_uri).search_model_versions(f"run_id = '{logged.run_id}'")
    assert version.name == model_of(here.cand.lake.uri)
    assert version.tags["redecide.bundle_version"] == here.cand.policy[1]


@pytest.mark.slow
def test_what_waits_is_sent_with_the_next_and_draws_a_line(here: Diff, folder: Path) -> None:
    """A night whose server is away is on disk; the next one sends both, each once."""
    gates = [{"gates": [{"quantity": "harm_through", "at_most": most, "on": "log"}]} for most in (0, 10)]
    nights = [compare(here.base, here.cand, gates=each) for each in gates]
    asked: dict[str, Any] = {
        "experiment": "nightly",
        "outbox": folder / "outbox",
        "coverage": False,
        "traces": 0,
    }
    first = log(nights[0], step=10, tracking_uri=f"http://127.0.0.1:{free_port()}", **asked)
    assert isinstance(first, Waiting)
    assert "nobody answers" in first.why
    second = log(nights[1], step=20, directory=folder, **asked)
    assert isinstance(second, LoggedRun)
    client = mlflow.MlflowClient(second.tracking_uri)

    def told(query: str) -> list[Any]:
        return list(
            client.search_runs([second.experiment_id], f"tags.redecide.kind = 'comparison' and {query}")
        )

    (bad,), (good,) = (told(f"tags.redecide.regression = '{each}'") for each in ("true", "false"))
    assert (bad.data.tags["redecide.entry"], good.info.run_id) == (first.id, second.run_id)
    assert [run.info.run_id for run in told("tags.redecide.outcome = 'ship'")] == [second.run_id]
    (line,) = client.search_runs([second.experiment_id], "tags.redecide.kind = 'series'")
    history = client.get_metric_history(line.info.run_id, "outcome")
    assert sorted((each.step, each.value) for each in history) == [(10, -1.0), (20, 1.0)]
    assert not [*(folder / "outbox" / "waiting").iterdir()]


# Masking.


@pytest.mark.parametrize("lazy", [True, False])
def test_marked_fields_leave_masked(*, lazy: bool) -> None:
    frame = pl.DataFrame({"iban": ["DE89", None], "amount": [1, 2]})
    found = (
        leaving(frame.lazy(), marked={"iban", "amount"}).collect()
        if lazy
        else leaving(frame, marked={"iban", "amount"})
    )
    assert found.to_dict(as_series=False) == {"iban": [MASKED, None], "amount": [MASKED, MASKED]}
    assert leaving(frame).equals(frame)
    assert leaving({"iban": 1, "b": 2}, marked={"iban"}) == {"iban": MASKED, "b": 2}
    assert leaving("text", marked={"text"}) == "text"


def test_everything_that_is_logged_passes_the_door(
    here: Diff, scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = {"args", "reason", "pins.engine", "redecide.lake", "engine"}
    door = functools.partial(leaving, marked=marked)
    for name in ("contents", "files", "preparing", "slices", "spans", "traces"):
        module = importlib.import_module(f"workbench.runs.{name}")
        if hasattr(module, "leaving"):
            monkeypatch.setattr(module, "leaving", door)
    logged = log(here, experiment="masked", scores=scores)
    client = mlflow.MlflowClient(logged.tracking_uri)
    client.download_artifacts(logged.run_id, "", str(tmp_path))
    assert pl.read_parquet(tmp_path / "changed.parquet")["args"].unique().to_list() == [MASKED]
    assert pl.read_parquet(tmp_path / "scores.parquet")["reason"].drop_nulls().unique().to_list() == [MASKED]
    assert json.loads((tmp_path / "summary.json").read_text())["pins"]["candidate"]["engine"] == MASKED
    data = client.get_run(logged.run_id).data
    assert (data.params["pins.engine"], data.tags["redecide.lake"]) == (MASKED, MASKED)


# The caller's MLflow.


@pytest.mark.slow
def test_the_callers_mlflow_is_left_as_it_was(
    here: Diff, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    shutil.copy(folder / DATABASE, folder / "theirs.db")
    mine = f"sqlite:///{folder / DATABASE}"
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(mine)
        mlflow.set_experiment("mine")
        with mlflow.start_run() as active:
            logged = log(here, experiment="theirs", tracking_uri=f"sqlite:///{folder / 'theirs.db'}")
            assert mlflow.active_run().info.run_id == active.info.run_id
            assert mlflow.get_tracking_uri() == mine
        assert mlflow.get_run(active.info.run_id).data.params == {}
        assert mlflow.get_experiment_by_name("theirs") is None
        assert log(here, experiment="mine").tracking_uri == mine  # the address the caller set holds
    finally:
        mlflow.set_tracking_uri(before if before.startswith("http") else None)
    assert logged.tracking_uri.endswith("theirs.db")
    assert not (folder / "mlruns" / "0").exists()


def test_a_directory_holds_a_local_store_whatever_the_caller_set(
    diff: Diff, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    there = placed(diff, folder / "elsewhere" / "lake")
    logged = log(there, experiment="here", directory=folder)
    assert logged.tracking_uri == f"sqlite:///{folder / DATABASE}"
    with pytest.raises(TrackingError, match="nobody answers"):
        log(there, experiment="there")
    with pytest.raises(ValueError, match="tracking_uri or directory, not both"):
        log(there, experiment="both", directory=folder, tracking_uri="sqlite:///x.db")


def test_a_lake_that_is_no_folder_logs_to_the_working_directory(
    diff: Diff, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    logged = log(placed(diff, "s3://bucket/lake"), experiment="remote")
    assert logged.tracking_uri == f"sqlite:///{folder / DATABASE}"
    (entry,) = mlflow.MlflowClient(logged.tracking_uri).get_run(logged.run_id).inputs.dataset_inputs
    assert json.loads(entry.dataset.source)["path"] == "s3://bucket/lake/decisions"


@pytest.mark.slow
def test_a_store_that_was_deleted_is_made_anew(diff: Diff, tmp_path: Path) -> None:
    """MLflow alone would go on writing to the deleted file."""
    there = placed(diff, tmp_path / "a demo" / "lake")
    first = log(there, experiment="demo")
    shutil.rmtree(tmp_path / "a demo")
    second = log(there, experiment="demo")
    assert (tmp_path / "a demo" / DATABASE).is_file()
    uri = f"sqlite:///{tmp_path / 'a demo' / DATABASE}"
    code = f"import mlflow; print(mlflow.MlflowClient({uri!r}).get_run({second.run_id!r}).info.status)"
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
    )
    assert seen.stdout.strip() == "FINISHED"
    assert log(there, experiment="demo").experiment_id == second.experiment_id
    assert first.run_id != second.run_id


# What goes wrong.


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_server_that_is_away_is_named_at_once(here: Diff) -> None:
    uri = f"http://ana:secret@127.0.0.1:{free_port()}"
    start = time.perf_counter()
    with pytest.raises(TrackingError) as caught:
        log(here, experiment="support", tracking_uri=uri)
    assert time.perf_counter() - start < 10  # MLflow alone: minutes
    assert shown(uri) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "mlflow server" in str(caught.value)


@pytest.mark.parametrize("wrong", ["text", "folder", "below a file"])
def test_what_is_no_database_is_named_at_once(here: Diff, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "store.db"
    path.mkdir() if wrong == "folder" else path.write_text(
        "not a database, but long enough to be looked at" * 10
    )
    before = None if wrong == "folder" else path.read_bytes()
    uri = f"sqlite:///{path / 'inner.db' if wrong == 'below a file' else path}"
    start = time.perf_counter()
    with pytest.raises(TrackingError, match="is not a database that can be used"):
        log(here, experiment="support", tracking_uri=uri)
    assert time.perf_counter() - start < 10
    assert before is None or path.read_bytes() == before


def test_a_deleted_experiment_is_named_with_the_way_out(diff: Diff, folder: Path) -> None:
    there = placed(diff, folder / "lake")
    first = log(there, experiment="gone")
    mlflow.MlflowClient(first.tracking_uri).delete_experiment(first.experiment_id)
    with pytest.raises(
        TrackingError, match=rf"experiment `gone` .* restore --experiment-id {first.experiment_id}"
    ):
        log(there, experiment="gone")


def test_a_run_that_could_not_be_filled_is_marked_failed(diff: Diff, folder: Path) -> None:
    there = placed(diff, folder / "lake")
    first = log(there, experiment="full")
    shutil.rmtree(folder / ARTIFACTS)
    (folder / ARTIFACTS).write_text("in the way")
    with pytest.raises(TrackingError, match=r"did not take the run"):
        log(there, experiment="full")
    runs = mlflow.MlflowClient(first.tracking_uri).search_runs(
        [first.experiment_id], "tags.redecide.kind = 'comparison'"
    )
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


def test_an_error_of_ours_leaves_no_run(diff: Diff, tmp_path: Path) -> None:
    class Broken:
        frame = pl.LazyFrame({"a": [1]}).select("b")

        def summary(self) -> dict[str, float]:
            return {}

    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        log(placed(diff, tmp_path / "lake"), experiment="none", scores=Broken())
    assert list(tmp_path.iterdir()) == []


def test_two_who_make_one_experiment_share_it(folder: Path) -> None:
    with connect(f"sqlite:///{folder / DATABASE}") as one, connect(f"sqlite:///{folder / DATABASE}") as two:
        first = one.experiment("both")
        assert two._create("both").experiment_id == first == two.experiment("both")


def test_without_mlflow_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["mlflow"] = None
from workbench.errors import MissingExtra
from workbench.log import log
try:
    log(None, experiment="x")
except MissingExtra as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "`mlflow` is not installed; run pip install 'redecide[workbench]'", (
        done.stderr
    )


@pytest.mark.slow
def test_nothing_but_the_store_hears_of_it(here: Diff, home: Path, tmp_path: Path) -> None:
    """No connection, no git, no file in the working directory; in a process with no switch of ours set."""
    (cwd := tmp_path / "cwd").mkdir()
    code = f"""
import os, sys, time
seen = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        seen.append(f"{{event}} {{args[-1]}}")
        raise OSError("a test lets nothing out")
    if event == "subprocess.Popen" and args[0] != "uname":
        seen.append(f"{{event}} {{args[:2]}}")
sys.addaudithook(watch)
from workbench.compare import compare
from workbench.lake import open_lake
from workbench.log import log
lake = open_lake({str(home / "lake")!r})
diff = compare(lake.replay(), lake.replay(policy={str(home / "candidate")!r}))
run = log(diff, experiment="quiet", directory={str(tmp_path / "store")!r})
import atexit
atexit._run_exitfuncs()
time.sleep(1)  # what a thread of telemetry would need
print(seen, [name for name in os.environ if name.startswith("MLFLOW_HTTP")])
"""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "DO_NOT_TRACK", "PYTEST_", "CI"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=plain | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[] []", done.stderr
    assert done.stderr == ""
    assert list(cwd.iterdir()) == []


# A real server.


class Server:
    """`mlflow server` on loopback, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.uri, self.output = f"http://127.0.0.1:{port}", folder / "server.log"
        address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        stores = [
            f"--backend-store-uri=sqlite:///{folder / 'server.db'}",
            f"--artifacts-destination={folder / 'served'}",
        ]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *address, *stores],
                cwd=folder, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Run a server until it answers, then until the block ends."""
    made = Server(folder)
    try:
        _await(made.uri, made.process, made.output)
        yield made
    finally:
        made.kill_group()


def _await(uri: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            assert answer.status == 200
            return
        assert process.poll() is None, output.read_text()
        time.sleep(0.2)
    raise AssertionError(output.read_text())


@pytest.mark.slow
def test_a_real_server_holds_the_whole_run(
    here: Diff, scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "client"
    mine.mkdir()
    monkeypatch.chdir(mine)
    with server(tmp_path) as process:
        uri = process.uri
        logged = log(here, experiment="support", scores=scores, tracking_uri=uri)
        client = mlflow.MlflowClient(uri)
        stored = client.get_run(logged.run_id)
        assert stored.info.status == "FINISHED"
        assert stored.data.metrics == pytest.approx(
            here.summary()
            | here.metrics()
            | {f"score.{n}": v for n, v in scores.summary().items()}
            | {"regressed": 1, "regressed.good_work_stopped": 1}
        )
        assert stored.data.params["candidate.policy"] == "candidate"
        assert stored.inputs.dataset_inputs[0].dataset.source_type == "delta_table"
        (target := tmp_path / "target").mkdir()
        client.download_artifacts(logged.run_id, "", str(target))
        files = (path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
        assert sorted(files) == list(logged.artifacts)
        for trace_id in logged.traces.values():
            assert len(client.get_trace(trace_id).data.spans) == 6
        assert pl.read_parquet(target / "changed.parquet").equals(here.changed.collect())
        assert logged.url == f"{uri}/#/experiments/{logged.experiment_id}/runs/{logged.run_id}"
        assert logged.url in logged._repr_html_()
        again = log(here, experiment="support", tracking_uri=uri)
        assert again.experiment_id == logged.experiment_id
        with pytest.raises(TrackingError, match="did not take the run"), connect(uri) as store:
            process.kill_group()
            start = time.perf_counter()
            store.experiment("another")
        assert time.perf_counter() - start < 60  # MLflow alone: four minutes
        assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert list(mine.iterdir()) == []  # everything is at the server
    with pytest.raises(TrackingError, match=f"nobody answers at tracking_uri {uri}"):
        log(here, experiment="support", tracking_uri=uri)
