"""Send an entry to MLflow, exactly once: whatever was there of it, all of it is there afterwards, and nothing twice.

One rule: MLflow is asked what it has before anything is made, and the entry's first run is `FINISHED` last of all. So
a process may be killed between any two requests, and sending the same folder again completes what it left. What is
made carries the entry's id: runs as a tag, traces and what is said of them in their own ids, which are made from it.

MLflow repeats a request whose answer was lost, and a request of a process that was killed may arrive after the next
one began: a run can be made twice. So runs are looked up again after they were made and before the first is finished;
the one that was filled stays, others are deleted.

Accepted: two copies of one entry that are sent from two machines at the same moment can leave a second run, which the
next sending of either removes.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workbench.errors import TrackingError
from workbench.promoting.registry import register, stand
from workbench.runs.entry_files import read_entry
from workbench.runs.seeing import show, trace_ids
from workbench.runs.series import go_on
from workbench.tracking import connect, library, look, run_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from workbench.runs.entry import Entry, Run
    from workbench.tracking import Store

ENTRY_TAG, KEY_TAG, LEFT_OUT_TAG = "redecide.entry", "redecide.key", "redecide.left_out"
"""Tags of every run: the entry and the run's key in it; of the first: what MLflow could not take."""

PARENT_TAG = "mlflow.parentRunId"

MEASURES, PARAMS = 900, 100
"""Numbers and parameters in a request, of which MLflow takes a thousand and a hundred."""

FINISHED = "FINISHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An entry that is in MLflow, whole."""

    id: str
    tracking_uri: str
    """As this process can use it."""
    experiment_id: str
    run_ids: Mapping[str, str]
    """By key; the first run's is empty."""
    trace_ids: Mapping[str, str] = field(default_factory=dict)
    """By key."""
    left_out: tuple[str, ...] = ()
    """What this MLflow does not take, and why; empty: nothing."""

    @property
    def run_id(self) -> str:
        """The first run's."""
        return self.run_ids[""]

    @property
    def url(self) -> str | None:
        """The first run's page; None: the store is no server."""
        return run_url(self.tracking_uri, self.experiment_id, self.run_id)


def send(folder: Path, tracking_uri: str) -> Sent:
    """Send the entry of a folder; what MLflow has of it already is left as it is or completed.

    Args:
        folder: what `write_entry` wrote, with its files.
        tracking_uri: of the store.

    Raises:
        TrackingError: the entry cannot be read, or the store cannot be reached or refuses. Runs that were made are
            marked `FAILED` where that can be said. Send again.
        MissingExtra: MLflow is not installed.

    Durability: in the store when it returns. Cost: some four requests a run and one a trace; three, if it is there
    already.
    """
    entry = read_entry(folder)
    library()
    with _alone(folder), connect(tracking_uri) as store:
        return _send(store, entry, folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process sends this folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _send(store: Store, entry: Entry, folder: Path) -> Sent:
    experiment_id = store.experiment(entry.experiment)
    runs = _runs(store.client, experiment_id, entry)
    sent = Sent(
        id=entry.id,
        tracking_uri=store.uri,
        experiment_id=experiment_id,
        run_ids={key: str(run.info.run_id) for key, run in runs.items()},
    )
    try:
        return _complete(store, entry, folder, runs, sent)
    except BaseException:
        _mark_failed(store, runs)
        raise


def _complete(store: Store, entry: Entry, folder: Path, runs: Mapping[str, Any], sent: Sent) -> Sent:
    """Add what is missing; the first run is finished last."""
    if runs[""].info.status == FINISHED:
        told = runs[""].data.tags.get(LEFT_OUT_TAG)
        return replace(sent, trace_ids={} if told else trace_ids(entry), left_out=(told,) if told else ())
    client = store.client
    shown, left_out = show(store, entry, sent.experiment_id, sent.run_ids)
    for run in entry.runs:
        if runs[run.key].info.status != FINISHED:
            _fill(client, runs[run.key], run, sent.run_ids, folder)
            if run.key:
                client.set_terminated(sent.run_ids[run.key], FINISHED)
    if entry.series is not None:
        go_on(client, sent.experiment_id, entry.series, runs[""].info.start_time)
    if left_out:
        client.set_tag(sent.run_id, LEFT_OUT_TAG, "; ".join(left_out))
    _only(client, _found(client, sent.experiment_id, entry), sent.run_ids)
    client.set_terminated(sent.run_id, FINISHED)
    return replace(sent, trace_ids=shown, left_out=left_out)


# Runs.


def _runs(client: Any, experiment_id: str, entry: Entry) -> dict[str, Any]:
    """Return MLflow's run of each key; those that were never made are made."""
    found = _found(client, experiment_id, entry)
    missing = [run for run in entry.runs if run.key not in found]
    for run in missing:
        parent = {} if run.parent is None else {PARENT_TAG: found[run.parent][0].info.run_id}
        tags = {**run.tags, **parent, ENTRY_TAG: entry.id, KEY_TAG: run.key}
        made = client.create_run(experiment_id, tags=tags, run_name=run.name)
        found[run.key] = [made]
    if missing:  # an answer may have been lost, and the run made twice
        found = _found(client, experiment_id, entry)
    if lost := [run.key for run in entry.runs if run.key not in found]:
        raise TrackingError(f"MLflow does not find the runs {lost} that it made a moment ago; send again")
    first = {run.key: found[run.key][0] for run in entry.runs}
    _only(client, found, {key: run.info.run_id for key, run in first.items()})
    return first


def _found(client: Any, experiment_id: str, entry: Entry) -> dict[str, list[Any]]:
    """Return the runs of an entry by key: finished ones first, then those that say something, then as they were made.

    What was made twice is empty, and may claim to be the older: a client says itself when it began.
    """
    query, token, every = f"tags.`{ENTRY_TAG}` = '{entry.id}'", None, []
    while True:
        page = client.search_runs([experiment_id], query, page_token=token)
        every += page
        token = page.token
        if not token:
            break
    by_key: dict[str, list[Any]] = {}
    for run in sorted(every, key=_rank):
        by_key.setdefault(run.data.tags.get(KEY_TAG, ""), []).append(run)
    return by_key


def _rank(run: Any) -> tuple[bool, bool, int, str]:
    info, data = run.info, run.data
    return info.status != FINISHED, not (data.metrics or data.params), info.start_time, info.run_id


def _only(client: Any, found: Mapping[str, Sequence[Any]], keep: Mapping[str, str]) -> None:
    """Delete what was made twice."""
    for key, runs in found.items():
        for run in runs:
            if key in keep and run.info.run_id != keep[key]:
                client.delete_run(run.info.run_id)


def _fill(client: Any, made: Any, run: Run, run_ids: Mapping[str, str], folder: Path) -> None:
    """Send what belongs to one run. Each request may have been made before: it changes nothing then."""
    run_id, at = made.info.run_id, made.info.start_time
    if made.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    if run.dataset is not None:
        _input(client, run_id, run.dataset)
    if run.parent is not None and made.data.tags.get(PARENT_TAG) != run_ids[run.parent]:
        client.set_tag(run_id, PARENT_TAG, run_ids[run.parent])  # it was nested in one that was made twice
    for batch in _batches(run, at):
        client.log_batch(run_id, **batch)
    if run.files is not None:
        client.log_artifacts(run_id, str(folder / run.files))
    for each in run.registered:
        version = register(client, each.model, each.bundle_version, run_id, each.tags)
        for alias, given in each.aliases.items():
            stand(client, each.model, alias, version, given)


def _input(client: Any, run_id: str, dataset: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415 - seconds, and only where it is used

    tags = [InputTag("mlflow.data.context", "replay")]
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**dataset), tags)])


def _batches(run: Run, at: int) -> Iterator[dict[str, Any]]:
    """Yield what fits a request: numbers at the run's own time, so that the same number is the same row again."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - as above

    params = [Param(name, value) for name, value in run.params.items()]
    metrics = [Metric(each.name, each.value, at, each.step) for each in run.measures]
    for number in range(max(-(-len(params) // PARAMS), -(-len(metrics) // MEASURES))):
        yield {
            "params": params[number * PARAMS : (number + 1) * PARAMS],
            "metrics": metrics[number * MEASURES : (number + 1) * MEASURES],
        }


def _mark_failed(store: Store, runs: Mapping[str, Any]) -> None:
    """Say of runs that could not be filled that they are not whole, if anybody is there to hear it."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    with suppress(MlflowException, SQLAlchemyError, OSError):  # a TrackingError is an OSError
        look(store.uri)
        for run in runs.values():
            if store.client.get_run(run.info.run_id).info.status != FINISHED:
                store.client.set_terminated(run.info.run_id, "FAILED")
