"""What a night found, on its way out: MLflow, notifications, files.

One rule: what cannot be delivered is a problem of the night that is told, never a night that is lost; an entry for
MLflow is in the outbox, on disk, before anybody tries to send it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from workbench.errors import WorkbenchError
from workbench.runs.entry_files import read_entry
from workbench.runs.outbox import Outbox
from workbench.runs.sending import Sent
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from workbench.regressing.job import Job
    from workbench.regressing.result import Candidate, Drifted, Night
    from workbench.runs.entry import Entry

OUTBOX = "outbox"
"""Folder below the state's, of what MLflow is to have."""

ENTRY = "entry.json"

Result = TypeVar("Result", bound="Candidate | Drifted")

Runs = dict[str, tuple[str, str | None]]
"""By entry: id and address of its first run."""


def put(job: Job, folders: Sequence[tuple[int, Path]]) -> list[str]:
    """Put what judging wrote down into the outbox.

    Args:
        job: what is asked.
        folders: of each window, with its night.

    Returns:
        What is not there any more, a sentence each.

    Raises:
        JobStateError: it cannot be written.

    Durability: on disk when it returns.
    """
    if job.mlflow is None:
        return []  # nobody would ever send it
    outbox, lost = Outbox(job.state / OUTBOX), []
    for night, folder in folders:
        if (folder / ENTRY).exists():
            outbox.put(lambda into, folder=folder: _copied(folder, into))  # type: ignore[misc]  # bound now
        else:
            lost.append(
                f"MLflow: {folder} is not there, so it gets nothing of night {night}; judge it --again"
            )
    return lost


def _copied(folder: Path, into: Path) -> Entry:
    shutil.copytree(folder, into, dirs_exist_ok=True)
    return read_entry(into)


def flush(job: Job) -> tuple[Runs, list[str]]:
    """Send what waits in the outbox, of this night and of earlier ones.

    Returns:
        Runs that are in MLflow now, and what went wrong, a sentence each.
    """
    if job.mlflow is None:
        return {}, []
    try:
        outbox = Outbox(job.state / OUTBOX)
        done = (
            outbox.flush(tracking_uri(job)) if outbox.waiting() else []
        )  # without MLflow's seconds, if it is empty
    except WorkbenchError as exc:
        return {}, [f"MLflow: {visible(str(exc))}; what is to be logged is kept, and sent with the next run"]
    sent = [each for each in done if isinstance(each, Sent)]
    runs = {each.id: (each.run_id, each.url) for each in sent}
    told = [f"MLflow: {each}" for each in done if not isinstance(each, Sent)]
    told += [f"MLflow: of entry {each.id} it does not take {what}" for each in sent for what in each.left_out]
    now = {each.id for each in done}
    told += [
        f"MLflow: entry {name} was set aside before, in {outbox.folder / 'refused'}: {visible(why.strip())}"
        for name, why in outbox.refused().items()
        if name not in now
    ]
    return runs, told


def tracking_uri(job: Job) -> str:
    """Return the MLflow store that a job logs to: as declared, else as `wb.log` would find it."""
    from workbench.log import store_uri  # noqa: PLC0415 - Polars and all of a comparison
    from workbench.tracking import library  # noqa: PLC0415

    return store_uri(library(), None if job.mlflow is None else job.mlflow.tracking_uri, None, job.lake)


def with_run(result: Result, run: tuple[str, str | None] | None) -> Result:
    """Return a result with the run that MLflow has of it; None: it has none."""
    return result if run is None else replace(result, run_id=run[0], run_url=run[1])


def tell(
    job: Job,
    night: Night,
    folder: Path,
    at: Callable[[str], object],
    *,
    notebook: bool = False,
    earlier: Sequence[Night] = (),
) -> Night:
    """Notify whoever asked for it, and write the night down.

    Args:
        job: what is asked.
        night: what it came to.
        folder: of the night.
        at: told the steps.
        notebook: whether there are artifacts that the notebook shows.
        earlier: nights before it, for the notebook.

    Returns:
        The night, with its files and with what went wrong.
    """
    if job.notify is not None:
        night = replace(night, problems=(*night.problems, *job.notify.send(night, folder=job.path.parent)))
    at("notified")
    from workbench.regressing.reporting.write import write  # noqa: PLC0415 - templates and XML

    if job.output.notebook and notebook:
        night = _with_notebook(night, folder, earlier)
    night = write(night, folder, job.output.formats)  # last, so that each names all of them
    at("written")
    return night


def _with_notebook(night: Night, folder: Path, earlier: Sequence[Night]) -> Night:
    from workbench.regressing.reporting.notebook import execute  # noqa: PLC0415 - a kernel

    try:
        page = execute(night, folder / "notebook", earlier=earlier)
    except (WorkbenchError, OSError, ImportError) as exc:
        return replace(
            night, problems=(*night.problems, f"the notebook could not be run: {visible(str(exc))}")
        )
    return replace(night, outputs={**night.outputs, "notebook": str(page)})
