"""Ready files that run a regression job every night: a cron line, a GitHub workflow, an Airflow DAG, a Dagster job.

One rule: what runs the job keeps its exit code (0 ship, 1 regression, 2 inconclusive, 3 could not run), runs one at a
time, and leaves doubles to the job itself: a night that was stopped is finished by the next, over the same decisions.

The texts are in `schedules_files/`; what stands in them between `@` is filled in here, quoted for its language.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from workbench.errors import JobInvalid
from workbench.regressing.job_file import read_job
from workbench.regressing.reporting.markdown import marker
from workbench.texts import visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from workbench.regressing.job import Job

Kind = Literal["cron", "github", "airflow", "dagster"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NIGHTLY = "30 2 * * *"
"""Half past two, every night."""

_FILES = Path(__file__).parent / "schedules_files"
_FIELD = re.compile(r"@([A-Z]+)@")
_WHEN = re.compile(r"(?:[\d*A-Za-z][\dA-Za-z*,/-]* ){4}[\d*A-Za-z][\dA-Za-z*,/-]*")
_MOST = (59, 23, 31, 12, 7)
"""Of minute, hour, day, month and weekday."""
_OPEN = "${{"
"""Begins an expression in a GitHub workflow, wherever it stands."""


def schedule(kind: str, path: str | PathLike[str], *, when: str = NIGHTLY) -> str:
    """Return the text of a file that runs a job on a schedule.

    Args:
        kind: one of `KINDS`.
        path: the job's file; it is read, and has to be right.
        when: five fields, as cron has them. GitHub and Dagster read them as UTC, cron as the machine's time.

    Raises:
        JobInvalid: the job cannot be run as it is declared, there is no such kind, or `when` is no time; or the path
            has what cannot be written into such a file.
    """
    if kind not in KINDS:
        raise JobInvalid(f"there is no schedule for `{visible(kind)}`; {closest(kind, KINDS)}")
    if not _WHEN.fullmatch(when) or any(map(_beyond, when.split(), _MOST)):
        raise JobInvalid(
            f"`{visible(when)}` is no time; give minute, hour, day, month and weekday, as `{NIGHTLY}`"
        )
    job = read_job(path)
    values = _VALUES[kind](job, when)
    for name in ("JOB", "PATHS", "STATE", "OUTPUT"):
        _require_plain(values.get(name, ""))
    return _FIELD.sub(lambda found: values[found[1]], (_FILES / f"{kind}.tmpl").read_text(encoding="utf-8"))


def _beyond(field: str, most: int) -> bool:
    """Whether a field names a number that there is not; steps may be larger than what they step through."""
    parts = re.split(r"[,-]", re.sub(r"/\d+", "", field))
    return any(part.isdecimal() and int(part) > most for part in parts)


def _require_plain(value: str) -> None:
    if not value.isprintable() or _OPEN in value:
        raise JobInvalid(f"`{visible(value)}` cannot be written into a schedule; give the job a plainer path")


def _cron(job: Job, when: str) -> dict[str, str]:
    command = shlex.join(_command(job))
    _require_plain(command)
    return {
        "NAME": job.name, "WHEN": when, "OUTPUT": str(job.output.folder),
        "COMMAND": command.replace("%", r"\%"),  # an unescaped one ends the command
    }  # fmt: skip


def _github(job: Job, when: str) -> dict[str, str]:
    root = _root(job.path)
    watched = [_inside(job.path, root)]
    watched += [f"{_inside(each.path, root)}/**" for each in job.candidates if each.path is not None]
    return {
        "NAME": job.name,
        "SLUG": _slug(job),
        "WHEN": dumps(when),
        "PATHS": dumps(watched),
        "JOB": dumps(watched[0]),
        "MARKER": dumps(marker(job.name)),
        "STATE": dumps(_inside(job.state, root)),
        "OUTPUT": _inside(job.output.folder, root),
    }


def _python(job: Job, when: str) -> dict[str, str]:
    return {
        "NAME": job.name,
        "ID": dumps(f"redecide_{_slug(job).replace('-', '_')}"),
        "WHEN": dumps(when),
        "ARGUMENTS": dumps(_command(job)),
    }


_VALUES: Mapping[Kind, Callable[[Job, str], dict[str, str]]] = {
    "cron": _cron, "github": _github, "airflow": _python, "dagster": _python,
}  # fmt: skip


def _command(job: Job) -> list[str]:
    """What runs the job from anywhere: a schedule has neither our folder nor our path."""
    here = shutil.which("redecide", path=str(Path(sys.executable).parent))
    return [here or "redecide", "regress", str(job.path), "--markdown"]


def _slug(job: Job) -> str:
    return re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-") or "job"


def _root(path: Path) -> Path:
    """The repository a job is in; without any, its own folder."""
    return next((each for each in path.parents if (each / ".git").exists()), path.parent)


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
