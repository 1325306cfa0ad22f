"""Log a comparison as one MLflow run: parameters are pins, metrics its numbers, artifacts its evidence.

One rule: the run says on which rows, under which policies and by which code every number came about, so that anybody
can make it again. What leaves the lake passes `workbench.masking.leaving`.

The run is made through a client of its own: the caller's tracking address, active experiment and active run are as
they were. Artifacts are written to a temporary folder before the run exists, so that a failure of ours leaves no
half-written run; one of the store's leaves a run marked `FAILED`. No git, pip or model inference is done.

Accepted: MLflow takes 2 to 5 s to import and as much to make a new local store, once each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.progress import progress
from workbench.run import Compared, Contents, Scored, contents_of, write
from workbench.tracking import Store, connect, library, local_uri, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from workbench.faces import Page

__all__ = ["LoggedRun", "log"]

BATCH = 100
"""Parameters that MLflow takes in a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """A run that is in the tracking store, complete."""

    run_id: str
    experiment_id: str
    tracking_uri: str
    artifacts: tuple[str, ...]
    """Paths below the run's artifact root."""

    @property
    def url(self) -> str | None:
        """The run's page, None where the store is no server."""
        if not self.tracking_uri.startswith(("http://", "https://")):
            return None
        return f"{shown(self.tracking_uri).rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    @property
    def look(self) -> str:
        """How to look at it: an address, or the command that opens one."""
        return self.url or f"mlflow ui --backend-store-uri '{shown(self.tracking_uri)}'"

    def __repr__(self) -> str:
        return f"LoggedRun {self.run_id} at {shown(self.tracking_uri)}: {', '.join(self.artifacts)}; see {self.look}"

    def page(self) -> Page:
        """What a notebook cell shows."""
        from workbench.faces import Item, Listing, Page  # noqa: PLC0415 - a job that logs shows nothing

        items = [
            Item("run", self.run_id, is_code=True),
            Item("store", shown(self.tracking_uri), is_code=True),
        ]
        more = f" and {len(self.artifacts) - _NAMED:,} more" if len(self.artifacts) > _NAMED else ""
        items.append(Item("look at it", self.look, is_code=self.url is None, is_link=self.url is not None))
        items.append(Item("files", ", ".join(self.artifacts[:_NAMED]) + more))
        return Page(kind="MLflow", title="Logged run", lines=[], parts=(Listing(items=items),))

    def _repr_html_(self) -> str:
        from workbench.faces import cell  # noqa: PLC0415 - as above

        return cell(self.page())


_NAMED = 6
"""Files of a run that are named."""


def log(
    diff: Compared,
    *,
    experiment: str,
    scores: Scored | Mapping[str, Scored] | None = None,
    tracking_uri: str | None = None,
    directory: str | Path | None = None,
    run_name: str | None = None,
) -> LoggedRun:
    """Log a comparison as one MLflow run.

    Args:
        diff: the comparison.
        experiment: name of the experiment; made if there is none.
        scores: what `wb.score` gave, or several by name (`{"baseline": …, "candidate": …}`).
        tracking_uri: where to log. None: the address that the caller set for MLflow (`mlflow.set_tracking_uri`,
            `MLFLOW_TRACKING_URI`), else a local SQLite store beside the lake, or in the working directory for a lake
            that is not a local folder.
        directory: where to keep a local SQLite store, whatever the caller set; not together with `tracking_uri`.
        run_name: None: `<baseline> → <candidate>`.

    Returns:
        Where the run is. Parameters: pins of both replays. Metrics: `diff.summary()`, and `score.…` for those of
        `scores`. Input: the decisions, with their Delta source. Artifacts: `changed.parquet`, `report.html`,
        `summary.json`, `scores.parquet`. Tags: `redecide.…`.

    Raises:
        MissingExtra: MLflow is not installed.
        TrackingError: the store cannot be reached or does not take the run; names its address.
        ValueError: both `tracking_uri` and `directory`.

    Durability: the run is in the store when this returns.
    Cost: collects the changed decisions; some ten requests.
    """
    module = library()
    named = _named(scores)
    uri = store_uri(module, tracking_uri, directory, str(diff.cand.lake.uri))
    with progress(None, "logging to MLflow"), tempfile.TemporaryDirectory(prefix="redecide-") as folder:
        with progress(None, "writing the report"):
            contents = contents_of(diff, named)
            artifacts = write(Path(folder), diff, named, contents)
        with connect(uri) as store:
            experiment_id = store.experiment(experiment)
            name = run_name or f"{diff.base.policy[0]} → {diff.cand.policy[0]}"
            run_id = _send(store, experiment_id, name, contents, Path(folder))
    return LoggedRun(run_id=run_id, experiment_id=experiment_id, tracking_uri=store.uri, artifacts=artifacts)


def _named(scores: Scored | Mapping[str, Scored] | None) -> dict[str, Scored]:
    """Scores by prefix of their names: none, where there is only one."""
    if scores is None:
        return {}
    return dict(scores) if isinstance(scores, Mapping) else {"": scores}


def store_uri(module: Any, tracking_uri: str | None, directory: str | Path | None, lake: str) -> str:
    """Return the store that is meant; arguments as `log` takes them, `module` MLflow, `lake` the lake's address.

    Raises:
        ValueError: both `tracking_uri` and `directory`.
    """
    if tracking_uri is not None and directory is not None:
        raise ValueError(
            f"give tracking_uri or directory, not both; got {shown(tracking_uri)!r} and {str(directory)!r}"
        )
    if directory is None and tracking_uri is None and module.tracking.is_tracking_uri_set():
        return str(module.get_tracking_uri())
    return tracking_uri or local_uri(_home(lake) if directory is None else Path(directory))


def _home(lake: str) -> Path:
    """The folder that holds a lake, where it is a local one."""
    path = lake.removeprefix("file://")
    return Path.cwd() if "://" in path else Path(path).resolve().parent


def _send(store: Store, experiment_id: str, name: str, contents: Contents, folder: Path) -> str:
    """Make the run and fill it; a run that could not be filled is marked `FAILED`."""
    run = store.client.create_run(experiment_id, run_name=name, tags=contents.tags)
    run_id, status = str(run.info.run_id), "FAILED"
    try:
        _fill(store.client, run_id, contents)
        store.client.log_artifacts(run_id, str(folder))
        status = "FINISHED"
    finally:
        store.client.set_terminated(run_id, status)
    return run_id


def _fill(client: Any, run_id: str, contents: Contents) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param  # noqa: PLC0415 - seconds

    now = int(time.time() * 1000)
    context = [InputTag("mlflow.data.context", "replay")]
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**contents.dataset), context)])
    for names in _batches(contents.params):
        client.log_batch(run_id, params=[Param(name, contents.params[name]) for name in names])
    for names in _batches(contents.metrics):
        client.log_batch(run_id, metrics=[Metric(name, contents.metrics[name], now, 0) for name in names])


def _batches(names: Iterable[str]) -> Iterator[Sequence[str]]:
    every = list(names)
    for start in range(0, len(every), BATCH):
        yield every[start : start + BATCH]
