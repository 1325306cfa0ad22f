"""Entries for tests, and what MLflow says it has of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.runs.entry import Assessment, Entry, Measure, Registered, Run, Series, Trace
from workbench.runs.entry_files import write_entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.runs.sending import Sent

NOON = 1_790_000_000_000_000_000
DATASET = {
    "name": "decisions", "digest": "d" * 32, "source_type": "delta_table", "source": '{"path": "lake/decisions"}',
}  # fmt: skip


def entry_of(name: str, *, slices: int = 1, traces: int = 1, step: int = 4, value: float = 0.5) -> Entry:
    """One that has some of everything; experiment, model and series are its own, by `name`."""
    measures = (
        Measure(name="harm", value=value, step=step),
        Measure(name="kept", value=1 - value, step=step),
    )
    registered = Registered(model=f"redecide.{name}", bundle_version="b" * 64, aliases={"champion": 7})
    first = Run(
        key="", name="base → candidate", params={"pins.ledger": "41"}, measures=measures, dataset=DATASET,
        tags={"redecide.outcome": "ship"}, files="files", registered=(registered,),
    )  # fmt: skip
    nested = (Run(key=f"tool={at}", name=f"tool {at}", parent="", measures=measures) for at in range(slices))
    return Entry(
        id=f"{name}-1", experiment=name, runs=(first, *nested), series=Series(name="nightly", measures=measures),
        traces=tuple(map(trace_of, range(traces))),
    )  # fmt: skip


def trace_of(at: int) -> Trace:
    spans = (
        {
            "name": "request",
            "type": "TOOL",
            "inputs": {"iban": "masked", "cents": 1250},
            "end_ns": NOON + 9_000_000,
        },
        {"name": "policy", "outputs": {"base": "allow", "candidate": "deny"}, "error": "good work stopped"},
    )
    said = (
        Assessment(name="effect", value="disturbed", rationale="the task was benign"),
        Assessment(name="expected", value="allow", kind="expectation", by="person", source="ann"),
    )
    return Trace(
        key=f"decision-{at}", run="", name="send_money", started_ns=NOON, spans=spans,
        tags={"tool": "send_money", "redecide.session": "s1"},
        assessments=said,
    )  # fmt: skip


def placed(entry: Entry, folder: Path) -> Path:
    """Write an entry and its files."""
    place_files(folder)
    write_entry(entry, folder)
    return folder


def place_files(folder: Path) -> None:
    (folder / "files" / "plots").mkdir(parents=True, exist_ok=True)
    (folder / "files" / "report.html").write_text("<p>a report")
    (folder / "files" / "plots" / "changed.svg").write_text("<svg/>")


def again(entry: Entry, name: str, **changes: Any) -> Entry:
    return replace(entry, id=f"{entry.experiment}-{name}", **changes)


class Seen:
    """What MLflow has of an experiment."""

    def __init__(self, client: Any, experiment: str) -> None:
        self.client = client
        self.id = client.get_experiment_by_name(experiment).experiment_id
        self.runs: Sequence[Any] = client.search_runs([self.id])
        self.traces = client.search_traces(locations=[self.id])

    def run(self, key: str) -> Any:
        """The one run of a key."""
        (found,) = [run for run in self.runs if run.data.tags.get("redecide.key") == key]
        return found

    def series(self) -> Any:
        (found,) = [run for run in self.runs if "redecide.series" in run.data.tags]
        return found

    def points(self, run: Any, name: str) -> list[tuple[int, float]]:
        return sorted(
            (each.step, each.value) for each in self.client.get_metric_history(run.info.run_id, name)
        )

    def files(self, run: Any, path: str = "") -> list[str]:
        every = self.client.list_artifacts(run.info.run_id, path)
        return sorted(
            name for each in every for name in (self.files(run, each.path) if each.is_dir else [each.path])
        )


def require_once(client: Any, entry: Entry, sent: Sent) -> None:
    """MLflow has all of an entry, and nothing twice; nothing else is in its experiment."""
    seen = Seen(client, entry.experiment)
    assert Counter(run.data.tags.get("redecide.key", "series") for run in seen.runs) == Counter(
        [*(run.key for run in entry.runs), *(["series"] if entry.series else [])]
    )
    assert {run.info.status for run in seen.runs} == {"FINISHED"}
    for run in entry.runs:
        found = seen.run(run.key)
        assert sent.run_ids[run.key] == found.info.run_id
        assert found.data.params == run.params
        parent = None if run.parent is None else sent.run_ids[run.parent]
        assert found.data.tags.get("mlflow.parentRunId") == parent
        for each in run.measures:
            assert seen.points(found, each.name) == [(each.step, each.value)]
        assert seen.files(found) == (["plots/changed.svg", "report.html"] if run.files else [])
        assert len(found.inputs.dataset_inputs) == (run.dataset is not None)
        for model in run.registered:
            (version,) = client.search_model_versions(f"name = '{model.model}'")
            assert version.run_id == found.info.run_id
            assert dict(client.get_registered_model(model.model).aliases) == dict.fromkeys(
                model.aliases, version.version
            )
    if entry.series:
        for each in entry.series.measures:
            assert seen.points(seen.series(), each.name) == [(each.step, each.value)]
    require_traces(seen, entry, sent)


def require_traces(seen: Seen, entry: Entry, sent: Sent) -> None:
    assert {each.info.trace_id for each in seen.traces} == set(sent.trace_ids.values())
    assert len(seen.traces) == len(entry.traces) == len(sent.trace_ids)
    by_key = {each.key: each for each in entry.traces}
    for found in seen.traces:
        trace = by_key[found.info.client_request_id]
        assert found.info.trace_id == sent.trace_ids[trace.key]
        assert found.info.trace_metadata["mlflow.sourceRun"] == sent.run_ids[trace.run]
        assert found.info.trace_metadata["mlflow.trace.session"] == trace.tags["redecide.session"]
        assert found.info.tags["mlflow.traceName"] == trace.name
        assert found.info.tags.items() >= trace.tags.items()
        assert [span.name for span in found.data.spans] == [step["name"] for step in trace.spans]
        root, *parts = found.data.spans
        assert {part.parent_id for part in parts} <= {root.span_id}
        assert [(root.inputs, root.outputs)] == [
            (trace.spans[0].get("inputs"), trace.spans[0].get("outputs"))
        ]
        said = [(each.name, (each.feedback or each.expectation).value, each.source.source_type, each.rationale)
                for each in found.info.assessments]  # fmt: skip
        sources = {"program": "CODE", "person": "HUMAN", "judge": "LLM_JUDGE"}
        assert Counter(said) == Counter(
            (each.name, each.value, sources[each.by], each.rationale) for each in trace.assessments
        )
