"""The commands `redecide bench …`.

One rule: each figure is taken in a process of its own, on the support desk of one seed, and printed with the machine
and versions it was taken on; `--json` gives everything that was measured.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.bench.config import bench_config
from workbench.bench.measure import in_child, machine
from workbench.bench.told import (
    closed_lines,
    kernel_lines,
    lake_lines,
    machine_lines,
    statistics_lines,
    sweep_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

app = typer.Typer(
    help="Measure how fast calls are governed, and history is decided again.", no_args_is_help=True
)


class EngineChoice(StrEnum):
    """Engines of `Lake.replay`."""

    auto = "auto"
    columnar = "columnar"
    rows = "rows"


class KeysChoice(StrEnum):
    """How ids come to the kernel."""

    dictionary = "dictionary"
    strings = "strings"


_WIDE = 110
"""Columns that the widest table takes; into a file it is not cut to a terminal's."""

Rows = Annotated[
    list[int] | None,
    typer.Option("--rows", min=1, help="Decisions; repeat for several. Default: as configured."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print everything that was measured as one JSON object.")
]
LakesPath = Annotated[
    Path | None,
    typer.Option(
        "--lakes", help="Folder that lakes are kept in and reused from. Default: built and thrown away."
    ),
]


@app.command()
def replay(
    *,
    rows: Rows = None,
    policies: Annotated[
        list[int] | None, typer.Option(help="Policies; repeat for several. Default: the bundle's, and 100.")
    ] = None,
    keys: Annotated[
        KeysChoice, typer.Option(help="How ids come: as codes, or as texts.")
    ] = KeysChoice.dictionary,
    repeats: Annotated[int, typer.Option(min=1, help="The best of so many.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time the columnar kernel and Cedar on the same calls: raw columns in, masks out."""
    sizes, numbers = rows or list(bench_config().sizes), policies or [0, 100]
    wanted = [{"rows": size, "policies": numbers[0]} for size in sizes]
    wanted += [{"rows": sizes[-1], "policies": number} for number in numbers[1:]]
    runs = _runs("kernel", [each | {"keys": keys.value, "repeats": repeats} for each in wanted])
    _print("kernel", runs, kernel_lines, as_json=as_json)


@app.command()
def decode(
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Texts of each size.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="The best of so many.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time how JSON arguments become typed columns, beside other readers."""
    from workbench.bench.decode import decode_lines  # noqa: PLC0415 - heavy imports stay inside the commands

    (found,) = _runs("decode", [{"rows": rows, "repeats": repeats}])
    _print("decode", found["runs"], lambda runs: decode_lines({**found, "runs": runs}), as_json=as_json)


@app.command()
def lake(
    *,
    rows: Rows = None,
    lakes: LakesPath = None,
    engine: Annotated[EngineChoice, typer.Option(help="Which engine.")] = EngineChoice.columnar,
    as_json: AsJson = False,
) -> None:
    """Time the way from Delta tables to a comparison, with peak memory and where the time goes."""
    with _lakes(lakes, rows or list(bench_config().sizes)) as uris:
        wanted = [{"uri": uri, "engine": engine.value} for uri in uris]
        runs = _runs("lake", wanted)
        runs[-1] |= _runs("lake_profile", wanted[-1:])[0]
    _print("lake", runs, lake_lines, as_json=as_json)


@app.command()
def sweep(
    *,
    rows: Rows = None,
    versions: Annotated[int, typer.Option(min=1, help="Versions of the policies.")] = 100,
    lakes: LakesPath = None,
    engine: Annotated[EngineChoice, typer.Option(help="Which engine.")] = EngineChoice.columnar,
    as_json: AsJson = False,
) -> None:
    """Time a sweep of many policy versions over one lake."""
    with _lakes(lakes, rows or [bench_config().sizes[-1]]) as uris:
        tasks = [{"uri": uri, "versions": versions, "engine": engine.value} for uri in uris]
        runs = _runs("sweep", tasks)
    _print("sweep", runs, sweep_lines, as_json=as_json)


@app.command()
def closed(*, rows: Rows = None, lakes: LakesPath = None, as_json: AsJson = False) -> None:
    """Time a replay over state simulated again, beside the plain replay of the same lake."""
    with _lakes(lakes, rows or [bench_config().sizes[-1]]) as uris:
        runs = _runs("closed", [{"uri": uri} for uri in uris])
    _print("closed", runs, closed_lines, as_json=as_json)


@app.command()
def live(*, rows: Rows = None, lakes: LakesPath = None, as_json: AsJson = False) -> None:
    """Time edits of a policy over a prepared history, beside a sweep and a replay of the same."""
    from workbench.bench.live import live_lines  # noqa: PLC0415 - heavy imports stay inside the commands

    with _lakes(lakes, rows or [1_000_000]) as uris:
        runs = _runs("live", [{"uri": uri} for uri in uris])
    _print("live", runs, live_lines, as_json=as_json)


@app.command()
def regress(
    *,
    rows: Rows = None,
    lakes: LakesPath = None,
    stopped: Annotated[
        list[str] | None,
        typer.Option(
            "--stopped", metavar="STEP", help="Time going on with a night stopped there, too; repeat."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time a night of a regression job over a reviewed lake, and going on with one that was stopped."""
    from workbench.bench.regress import STOPPED, regress_lines  # noqa: PLC0415 - heavy imports stay inside the commands
    from workbench.bench.reviewed import reviewed_lake  # noqa: PLC0415 - as above

    steps = STOPPED if stopped is None else stopped
    with tempfile.TemporaryDirectory(prefix="redecide-bench-") as made:
        uris = [str(reviewed_lake(lakes or made, size)) for size in rows or [1_000_000]]
        wanted = [{"uri": uri, "stopped": step} for uri in uris for step in (None, *steps)]
        runs = _runs("regress", wanted)
    _print("regress", runs, regress_lines, as_json=as_json)


@app.command()
def statistics(
    *,
    rows: Rows = None,
    slices: Annotated[bool, typer.Option(help="Estimate slices by tool, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Time a comparison with its intervals and gates, over made decisions in sessions of ten."""
    runs = _runs("statistics", [{"rows": each, "slices": slices} for each in rows or [10_000_000]])
    _print("statistics", runs, statistics_lines, as_json=as_json)


@app.command()
def score(
    *,
    rows: Rows = None,
    repeats: Annotated[int, typer.Option(min=1, help="The best of so many.")] = 3,
    lakes: LakesPath = None,
    as_json: AsJson = False,
) -> None:
    """Time scoring and DeepEval's own loop on the same cases, and the flips of a reviewed lake."""
    from workbench.bench.reviewed import reviewed_lake  # noqa: PLC0415 - heavy imports stay inside the commands
    from workbench.bench.score import score_lines  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(prefix="redecide-bench-") as made:
        uris = [reviewed_lake(lakes or made, size) for size in rows or [20_000]]
        runs = _runs("score", [{"uri": str(uri), "repeats": repeats} for uri in uris])
    _print("score", runs, score_lines, as_json=as_json)


@app.command()
def runtime(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer calls, shorter: half a minute.")] = False,
    calls: Annotated[int | None, typer.Option(min=1, help="Calls of each kind. Default: 3,000.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of each throughput. Default: 3.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Where ledgers are written: the disk that is measured."
        ),
    ] = None,
    venv: Annotated[
        Path | None, typer.Option(help="Environment of agent-governance-toolkit. Default: in your cache.")
    ] = None,
    agt: Annotated[
        bool, typer.Option("--agt/--no-agt", help="Measure agent-governance-toolkit beside it.")
    ] = True,
    install: Annotated[
        bool, typer.Option("--install/--no-install", help="Install it if it is not there.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Time a governed, durable call, the disk alone, and agent-governance-toolkit, in turns."""
    wanted = {
        "folder": None if folder is None else str(folder),
        "calls": calls or (300 if quick else 3_000),
        "rounds": 3 if quick else 15,
        "seconds": seconds or (0.5 if quick else 3.0),
        "agt": agt,
        "venv": None if venv is None else str(venv),
        "install": install,
    }
    with _status() as say:
        say("runtime: calls, the disk, the toolkit, in turns")
        found = in_child("measure", module="workbench.bench.runtime", **wanted)
    if as_json:
        _print("runtime", [found], lambda _: iter(()), as_json=True)
        return
    from rich.console import Console  # noqa: PLC0415 - heavy imports stay inside the commands

    from workbench.bench.runtime_told import runtime_tables  # noqa: PLC0415 - as above

    console = Console(soft_wrap=True)
    console.width = max(console.width, _WIDE)
    for shown in (*runtime_tables(found), *machine_lines(machine())):
        console.print(shown, highlight=False, markup=False)


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the lake is written.")],
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Decisions.")] = 100_000,
    seed: Annotated[int | None, typer.Option(help="Seed. Default: as configured.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that write at once, at most 2.")] = 2,
) -> None:
    """Write a lake of recorded decisions of the support desk."""
    from workbench.bench.lake import build_lake  # noqa: PLC0415 - heavy imports stay inside the commands

    built = build_lake(folder, rows, seed, processes=processes)
    typer.echo(
        f"{built.uri}: {built.decisions:,} decisions, {built.outcomes:,} outcomes, {built.contexts:,} contexts"
    )


def _runs(task: str, wanted: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run a task once for each set of parameters, telling which one is under way."""
    found = []
    with _status() as say:
        for number, params in enumerate(wanted, start=1):
            shown = ", ".join(f"{name} {value}" for name, value in params.items())
            say(f"{task} {number} of {len(wanted)}: {shown}")
            found.append(in_child(task, **params))
    return found


@contextmanager
def _status() -> Iterator[Callable[[str], object]]:
    """A line on standard error that says what is under way, where somebody may look."""
    from rich.console import Console  # noqa: PLC0415 - heavy imports stay inside the commands

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update


@contextmanager
def _lakes(folder: Path | None, sizes: Iterable[int]) -> Iterator[list[str]]:
    """Lakes of these sizes: kept in a folder and reused, or built and thrown away."""
    if folder is not None:
        yield [_lake(folder, size) for size in sizes]
        return
    with tempfile.TemporaryDirectory(prefix="redecide-bench-") as made:
        yield [_lake(Path(made), size) for size in sizes]


def _lake(folder: Path, size: int) -> str:
    """The lake of a size below a folder. A lake that could not be finished is not there (`build_lake`)."""
    from workbench.bench.lake import lake_of  # noqa: PLC0415 - heavy imports stay inside the commands

    return lake_of(folder, size)


def _print(
    name: str,
    runs: list[dict[str, Any]],
    lines: Callable[[Sequence[dict[str, Any]]], Iterator[str]],
    *,
    as_json: bool,
) -> None:
    found = machine()
    if as_json:
        typer.echo(json.dumps({"benchmark": name, "machine": found, "runs": runs}, indent=2))
        return
    for line in (*lines(runs), *machine_lines(found)):
        typer.echo(line)
