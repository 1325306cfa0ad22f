"""The command `redecide`.

One rule: what went wrong is one line on standard error and exit code 2, and names the way out. A traceback is a bug
of ours.

Heavy imports stay inside the commands: `redecide --help` loads none of the libraries of the extras, and works
without them.
"""

from __future__ import annotations

import json
import os
import sys
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from runtime.errors import GovernanceError
from workbench.bench.cli import app as bench
from workbench.cli_approvals import app as approvals
from workbench.cli_coverage import coverage
from workbench.cli_drift import drift
from workbench.cli_grid import grid
from workbench.cli_import import app as imports
from workbench.cli_ledger import findings, resolve, upgrade
from workbench.cli_pin import pin
from workbench.cli_promote import aliases, promote
from workbench.cli_regress import regress
from workbench.cli_replay import COULD_NOT_RUN, compare, replay
from workbench.cli_stop import stop
from workbench.cli_sweep import suggest, sweep
from workbench.cli_verify import verify
from workbench.cli_why import why
from workbench.doctor import Finding, extra_of, installation
from workbench.errors import WorkbenchError, need
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.progress import Progress


FAILED = 2
"""Exit code: the command could not do what was asked."""
UNSOUND = 1
"""Exit code of `doctor` and `conform`: it looked, and found something wrong."""
LAKE = "lake"
"""Folder of the lake below a working directory."""

_MISUNDERSTOOD = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""Click's `UsageError`, of whichever Click this Typer uses."""

app = typer.Typer(
    name="redecide",
    help="Replay every decision your agents made, under policies and contexts they have not met yet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
datasets = typer.Typer(help="Build data sets of recorded decisions.", no_args_is_help=True)
app.add_typer(datasets, name="datasets")
app.add_typer(bench, name="bench")
app.add_typer(approvals, name="approvals")
app.add_typer(imports, name="import")
for command in (replay, compare, grid, why, sweep, suggest, coverage, drift, pin, regress):
    app.command()(command)


Workdir = Annotated[Path, typer.Option(help="Folder for what is built; made if it is missing.")]
Suites = Annotated[
    list[str] | None, typer.Option("--suite", help="Only this suite; repeat for several. Default: all.")
]


class DataSet(StrEnum):
    """Data sets that `redecide datasets build` makes."""

    agentdojo = "agentdojo"


class EngineChoice(StrEnum):
    """Engines that `redecide conform` compares."""

    rows = "rows"
    columnar = "columnar"
    both = "both"


AsJson = Annotated[bool, typer.Option("--json", help="Print numbers as one JSON object.")]


def main() -> None:
    """Run `redecide`; the entry point of the installed command."""
    try:
        raise SystemExit(app(standalone_mode=False))
    except _MISUNDERSTOOD as exc:
        raise SystemExit(_misunderstood(exc)) from exc
    except (WorkbenchError, GovernanceError) as exc:
        raise SystemExit(_fail(str(exc))) from exc
    except ModuleNotFoundError as exc:
        if (extra := extra_of(exc.name or "")) is None:
            raise
        message = f"`{exc.name}` is not installed; run pip install 'redecide[{extra}]'"
        raise SystemExit(_fail(message)) from exc
    except (
        OSError
    ) as exc:  # a full disk, a folder that may not be written: the system's message names the file
        raise SystemExit(_fail(str(exc))) from exc


def _misunderstood(exc: Any) -> int:
    """Say what of the command line was not understood, and where it is explained."""
    if type(exc).__name__ == "NoArgsIsHelpError":  # not public; the help has been printed
        return FAILED
    path = "redecide" if exc.ctx is None else exc.ctx.command_path
    _fail(f"{exc.format_message().rstrip('.')}; see `{path} --help`")
    # A job that asked for a verdict must not take a slip of the pen for `inconclusive`.
    gated = path.endswith(" compare") and any(each.startswith("--gates") for each in sys.argv)
    judges = gated or path.endswith(" regress")
    return COULD_NOT_RUN if judges else FAILED


def _fail(message: str) -> int:
    """Print a message of any shape as one line; a Cedar error spans several."""
    print(f"redecide: error: {' '.join(message.split())}", file=sys.stderr)
    return FAILED


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"redecide {version('redecide')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replay every decision your agents made, under policies and contexts they have not met yet."""


@app.command()
def demo(
    workdir: Workdir = Path("redecide-demo"),
    suite: Suites = None,
    fresh: Annotated[bool, typer.Option(help="Build again what an earlier run left.")] = False,
) -> None:
    """Govern, record, replay, score and log real agent tool calls, then confirm it live."""
    from workbench.demo import run_demo

    raise typer.Exit(run_demo(workdir, suites=_suites(suite), fresh=fresh))


@datasets.command()
def build(
    name: Annotated[DataSet, typer.Argument(help="Which data set.")],  # noqa: ARG001 - typer checks it; there is one
    workdir: Workdir = Path("redecide-demo"),
    suite: Suites = None,
    bundle: Annotated[
        str, typer.Option(help="`baseline` or `candidate`, or a bundle folder: what governs the calls.")
    ] = "baseline",
) -> None:
    """Drive a data set's sessions through the governed runtime, into a lake."""
    from workbench.agentdojo.drive import build as build_agentdojo
    from workbench.agentdojo.scripts import sessions

    chosen = _suites(suite)
    if (workdir / LAKE).exists():
        raise WorkbenchError(
            f"there is a lake at {workdir / LAKE} already; remove it, or name another --workdir"
        )
    with _progress() as progress:
        total = sum(1 for _ in sessions(suites=chosen))
        task = progress.add_task(f"governing sessions under {bundle}", total=total)
        report = build_agentdojo(
            workdir, suites=chosen, bundle=bundle, lake=LAKE, on_session=lambda _: progress.advance(task)
        )
    print(f"{workdir / LAKE}: {report.sessions.total():,} sessions, {report.decisions.total():,} decisions")


@app.command(name="conform")
def conform_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Cases, as Parquet or JSONL.")],
    multiply: Annotated[int, typer.Option(min=0, help="Pad each frame with at least N shuffled rows.")] = 0,
    engine: Annotated[EngineChoice, typer.Option(help="Which engines.")] = EngineChoice.both,
    as_json: AsJson = False,
) -> None:
    """Compare the engines with recorded answers of Cedar. Exit code 1: they disagree."""
    from rich.console import Console

    from workbench.conform import ENGINES, conform
    from workbench.conform_cases import count_rows
    from workbench.conform_report import as_json as object_of
    from workbench.conform_report import printable

    engines = [name for name in ENGINES if engine.value in (name, "both")]
    reports = []
    console = Console(stderr=True)
    with _progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for file in files:
            task = progress.add_task(file.name, total=count_rows(file))
            reports.append(
                conform(
                    file,
                    engines=engines,
                    multiply=multiply,
                    on_cases=lambda done, task=task: progress.advance(task, done),  # type: ignore[misc]  # bound now
                )
            )
    if as_json:
        print(json.dumps(object_of(reports), indent=2))
    else:
        print("\n".join(printable(line) for report in reports for line in report.lines()))
    if not all(report.agrees for report in reports):
        raise typer.Exit(UNSOUND)


@app.command()
def doctor(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[LAKE|LEDGER]", help="A lake to look at, too, or a ledger's file."),
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="The lake's ledger, where it is not beside it.")] = None,
) -> None:
    """Report versions, whether a lake is sound, what in its ledger is in doubt. Exit code 1: something is wrong."""
    found = [*installation(), *(findings(target, ledger) if target is not None else ())]
    _print_findings(found)
    if any(finding.status == "bad" for finding in found):
        raise typer.Exit(UNSOUND)


app.command()(verify)
app.command()(resolve)
app.command()(upgrade)
app.command()(stop)
app.command()(promote)
app.command()(aliases)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Folder of notebooks; if missing, made from ours.")] = Path(
        "notebooks"
    ),
) -> None:
    """Open JupyterLab on the notebooks. Other options go to JupyterLab: `redecide lab --no-browser`."""
    need("jupyterlab")
    _lay_out(folder)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    # It works without a network: ask nobody for news or newer releases.
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if os.geteuid() == 0:  # a container's user; the server listens on loopback, with a token
        command.append("--allow-root")
    os.execv(sys.executable, [*command, *context.args])  # noqa: S606 - our own interpreter, no shell


def _lay_out(folder: Path) -> None:
    """Make a missing folder of notebooks from those that come with Redecide; an existing one is left as it is."""
    if not folder.is_dir():
        import shutil

        shutil.copytree(shipped("notebooks"), folder)


def _suites(asked: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check the suites before anything is built; none asked for is None: all."""
    from workbench.agentdojo.scripts import SUITES

    for name in asked or ():
        if name not in SUITES:
            close = get_close_matches(name, SUITES, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"suites are {', '.join(SUITES)}"
            raise WorkbenchError(f"no suite {name!r}; {hint}")
    return tuple(asked) if asked else None


def _progress(*, console: Console | None = None, transient: bool = False, disable: bool = False) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=transient, disable=disable)


def _print_findings(findings: Sequence[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding.status]
        print(f"{mark}  {finding.subject:<{width}}  {finding.text}")
