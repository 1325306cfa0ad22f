"""The command `redecide regress`: one night of a regression job.

One rule: exit codes 0 to 2 are verdicts, and nothing else is. Whatever keeps the job from its verdict (a file that
cannot be read, a bug of ours, a signal) is 3 with one line on standard error, because an interpreter that stops at
an exception exits with 1, which here says *regression*. What is to be printed cannot change a verdict either.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from runtime.errors import GovernanceError
from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_replay import COULD_NOT_RUN
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.regressing.reporting.page import Told
    from workbench.regressing.reporting.plan import Plan
    from workbench.regressing.result import Night

JobPath = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job's file.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the job and show its windows; judge and keep nothing.")
]
Again = Annotated[bool, typer.Option("--again", help="Judge the last window once more.")]
JunitPath = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file, too.")]

Schedule = Annotated[
    Literal["cron", "github", "airflow", "dagster"] | None,
    typer.Option("--schedule", help="Print a file that runs the job every night, and run nothing now."),
]
When = Annotated[
    str | None,
    typer.Option("--when", help="With --schedule: five fields, as cron has them. Default: 30 2 * * *."),
]


def regress(
    job: JobPath,
    dry_run: DryRun = False,
    again: Again = False,
    schedule: Schedule = None,
    when: When = None,
    junit: JunitPath = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Judge what is new in a lake: exit code 0 ship, 1 regression, 2 inconclusive, 3 could not run."""
    try:
        _require_one({"--json": as_json, "--markdown": as_markdown})
        _require_one({"--dry-run": dry_run, "--again": again})
        if schedule is not None:
            return _print_schedule(schedule, job, when)
        _require_schedule(when)
        night = _night(job, dry_run=dry_run, again=again)
    except KeyboardInterrupt:
        _stop("stopped; run it again, and it goes on where it was")
    except (WorkbenchError, GovernanceError, ImportError, OSError) as exc:
        _stop(_said(exc))
    except Exception as exc:  # noqa: BLE001 - else it would exit with 1: regression
        traceback.print_exc()
        _stop(f"a bug in redecide: {type(exc).__name__}: {exc}; nothing was judged")
    told, code = _result(night, dry_run=dry_run)
    _tell(told, as_json=as_json, as_markdown=as_markdown, html=html)
    if junit is not None and not dry_run:
        _write(junit, lambda: _junit(night))
    if code == COULD_NOT_RUN:
        _say(_why(night))
    raise typer.Exit(code)


def _require_schedule(when: str | None) -> None:
    if when is not None:
        raise WorkbenchError("--when says when a schedule runs the job; give --schedule, too")


def _print_schedule(kind: str, path: Path, when: str | None) -> None:
    from workbench.regressing.schedules import NIGHTLY, schedule

    sys.stdout.write(schedule(kind, path, when=when or NIGHTLY))


def _require_one(options: Mapping[str, bool]) -> None:
    if all(options.values()):
        raise WorkbenchError(f"give {' or '.join(options)}, not both")


def _night(path: Path, *, dry_run: bool, again: bool) -> Night:
    from workbench.regressing.job_file import read_job
    from workbench.regressing.regress import regress as run

    return run(read_job(path), dry_run=dry_run, again=again)


def _result(night: Night, *, dry_run: bool) -> tuple[Told | Plan, int]:
    """What is shown, and the exit code: of a dry run, whether the job could run."""
    from workbench.regressing.reporting.page import Told
    from workbench.regressing.reporting.plan import Plan

    plan = Plan(night)
    return (plan, 0 if plan.runs else COULD_NOT_RUN) if dry_run else (Told(night), night.exit_code)


def _tell(told: Told | Plan, *, as_json: bool, as_markdown: bool, html: Path | None) -> None:
    """Print the night and write the page that is asked for; what fails is said, and the verdict stays as it is."""
    from workbench import faces

    try:
        _print(told, as_json=as_json, as_markdown=as_markdown)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as exc:  # noqa: BLE001 - as above: a terminal that cannot show a letter is no regression
        _say(f"not all of it could be printed: {exc}")
    if html is not None:
        _write(html, lambda: faces.html(told.page()))


def _print(told: Told | Plan, *, as_json: bool, as_markdown: bool) -> None:
    from workbench.regressing.reporting.markdown import markdown
    from workbench.regressing.reporting.page import Told

    match told:
        case Told() if as_markdown:
            sys.stdout.write(markdown(told.night))
        case Told() if not as_json:
            emit(replace(told, whole=False), as_json=False, as_markdown=False, html=None)
            for kind, path in told.night.outputs.items():
                print(f"{kind}: {path}")
        case _:
            emit(told, as_json=as_json, as_markdown=as_markdown, html=None)


def _junit(night: Night) -> str:
    from workbench.regressing.reporting.junit import junit

    return junit(night)


def _write(path: Path, content: Callable[[], str]) -> None:
    from workbench import faces

    try:
        faces.written(content(), path)
    except Exception as exc:  # noqa: BLE001 - as above
        _say(f"{path} was not written: {exc}")


def _why(night: Night) -> str:
    """Why nothing was judged, in a line."""
    stopped = [each for each in night.candidates if each.verdict == "could not run"]
    notes = [f"`{each.name}`: {note}" for each in stopped for note in each.notes]
    return "could not run: " + ("; ".join([*night.problems, *notes]) or "there was nothing to judge")


def _said(exc: BaseException) -> str:
    """What to say of an error; of a library that is missing, how it is installed."""
    from workbench.doctor import extra_of

    extra = extra_of(exc.name or "") if isinstance(exc, ModuleNotFoundError) else None
    return str(exc) if extra is None else f"{exc}; run pip install 'redecide[{extra}]'"


def _say(message: str) -> None:
    from workbench.texts import visible

    print(f"redecide: error: {visible(' '.join(message.split()))}", file=sys.stderr)


def _stop(message: str) -> NoReturn:
    _say(message)
    raise typer.Exit(COULD_NOT_RUN)
