"""Log a comparison as an MLflow run: parameters are pins, metrics its numbers, artifacts and traces its evidence.

One rule: the run says on which rows, under which policies and by which code every number came about, so that anybody
can make it again. What leaves the lake passes `workbench.masking.leaving`.

Two steps: `prepare` writes all of it into a folder, without MLflow; `workbench.runs.sending.send` gives MLflow what
the folder holds, exactly once. `log` is both; a job puts the folder in an outbox between them, so that a server that
is away costs no result.

The run is made through a client of its own: the caller's tracking address, active experiment and active run are as
they were. A failure of ours leaves no half-written run; one of the store's leaves a run marked `FAILED`. No git, pip
or model inference is done.

Accepted: MLflow takes 2 to 5 s to import and as much to make a new local store, once each.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from runtime.canonical import new_id
from workbench.progress import progress
from workbench.runs.files import names_of
from workbench.runs.preparing import FILES, prepare
from workbench.tracking import library, local_uri, look, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.compare import Diff
    from workbench.faces import Page
    from workbench.runs.contents import Scored
    from workbench.runs.entry import Entry
    from workbench.runs.outbox import Outbox
    from workbench.runs.sending import Sent

__all__ = ["LoggedRun", "Waiting", "log", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """A run that is in the tracking store, complete."""

    run_id: str
    experiment_id: str
    tracking_uri: str
    artifacts: tuple[str, ...]
    """Paths below the run's artifact root."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Ids of the nested runs, by slice."""
    traces: Mapping[str, str] = field(default_factory=dict)
    """Ids of the traces, by decision."""
    left_out: tuple[str, ...] = ()
    """What this MLflow does not take, and why; empty: nothing."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A run that is on disk, whole, and not in the store yet: the next flush of its outbox sends it."""

    id: str
    """The entry's."""
    outbox: Path
    why: str
    """Why it was not sent."""


@overload
def log(
    diff: Diff, *, experiment: str, scores: Scored | Mapping[str, Scored] | None = None,
    tracking_uri: str | None = None, directory: str | Path | None = None, run_name: str | None = None,
    outbox: None = None, **more: Any,
) -> LoggedRun: ...  # fmt: skip
@overload
def log(
    diff: Diff, *, experiment: str, scores: Scored | Mapping[str, Scored] | None = None,
    tracking_uri: str | None = None, directory: str | Path | None = None, run_name: str | None = None,
    outbox: Outbox | Path | str, **more: Any,
) -> LoggedRun | Waiting: ...  # fmt: skip
def log(
    diff: Diff,
    *,
    experiment: str,
    scores: Scored | Mapping[str, Scored] | None = None,
    tracking_uri: str | None = None,
    directory: str | Path | None = None,
    run_name: str | None = None,
    outbox: Outbox | Path | str | None = None,
    **more: Any,
) -> LoggedRun | Waiting:
    """Log a comparison to MLflow.

    Args:
        diff: the comparison.
        experiment: name of the experiment; made if there is none.
        scores: what `wb.score` gave, or several by name (`{"baseline": …, "candidate": …}`).
        tracking_uri: where to log. None: the address that the caller set for MLflow (`mlflow.set_tracking_uri`,
            `MLFLOW_TRACKING_URI`), else a local SQLite store beside the lake, or in the working directory for a lake
            that is not a local folder.
        directory: where to keep a local SQLite store, whatever the caller set; not together with `tracking_uri`.
        run_name: None: `<baseline> → <candidate>`.
        outbox: a folder that keeps the run until the store has it; what waits there is sent, too. None: a store that
            is away is an error.
        **more: as `prepare` takes it: `outcome`, `step`, `slices`, `traces`, `tags`, `params`, `notes`, `numbers`,
            `earlier`, `series`, `coverage`.

    Returns:
        Where the run is; with an outbox and no store: that it waits. Parameters: pins of both replays. Metrics:
        `diff.summary()`, `diff.metrics()`, `regressed…`, and `score.…` for those of `scores`; nested runs have those
        of slices. Input: the decisions, with their Delta source. Artifacts: `changed.parquet`, `report.html`,
        `summary.json`, `slices.parquet`, and where there are such `outcome.…`, `scores.parquet`, `coverage.…`,
        `policies/…`, `plots/…`. Traces: the worst regressions. Tags: `redecide.…`.

    Raises:
        MissingExtra: MLflow is not installed.
        TrackingError: the store cannot be reached or does not take the run; names its address.
        ValueError: both `tracking_uri` and `directory`.
        JobStateError: the outbox cannot be written.

    Durability: the run is in the store when this returns, or, with an outbox, on disk.
    Cost: as `prepare`; some five requests a run, two a trace.
    """
    module = library()
    uri = store_uri(module, tracking_uri, directory, str(diff.cand.lake.uri))
    keywords = {"id": new_id(), "experiment": experiment, "scores": scores, "run_name": run_name, **more}
    make = partial(prepare, diff, **keywords)
    with progress(None, "logging to MLflow"):
        return _logged(make, uri) if outbox is None else _kept(make, uri, outbox)


def _logged(make: Callable[[Path], Entry], uri: str) -> LoggedRun:
    """Prepare and send; nothing is kept."""
    from workbench.runs.sending import send  # noqa: PLC0415 - MLflow's own imports

    look(uri)  # before the work, not after it
    with tempfile.TemporaryDirectory(prefix="redecide-") as folder:
        make(Path(folder))
        return _told(send(Path(folder), uri), names_of(Path(folder) / FILES))


def _kept(make: Callable[[Path], Entry], uri: str, outbox: Outbox | Path | str) -> LoggedRun | Waiting:
    """Prepare, keep, and send what waits."""
    from workbench.runs.outbox import Outbox  # noqa: PLC0415 - as above
    from workbench.runs.sending import Sent  # noqa: PLC0415

    box = outbox if isinstance(outbox, Outbox) else Outbox(Path(outbox))
    files: list[str] = []

    def remembered(folder: Path) -> Entry:
        entry = make(folder)
        files.extend(names_of(folder / FILES))
        return entry

    ident = box.put(remembered)
    told = box.flush(uri)
    mine = next((each for each in told if each.id == ident), None)
    if isinstance(mine, Sent):
        return _told(mine, tuple(files))
    others = [str(each) for each in told if not isinstance(each, Sent)]
    return Waiting(id=ident, outbox=box.folder, why=str(mine) if mine is not None else "; ".join(others))


def _told(sent: Sent, files: tuple[str, ...]) -> LoggedRun:
    return LoggedRun(
        run_id=sent.run_id,
        experiment_id=sent.experiment_id,
        tracking_uri=sent.tracking_uri,
        artifacts=files,
        slices={key: run_id for key, run_id in sent.run_ids.items() if key},
        traces=dict(sent.trace_ids),
        left_out=sent.left_out,
    )


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
