"""`redecide regress` as a scheduler runs it: every exit code, each with one clear line where it is no verdict."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

from tests.workbench.regressing.nights import candidate, night
from workbench.bench.reviewed import reviewed_lake
from workbench.cli import main
from workbench.regressing.reporting.as_json import dumps
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.regressing.result import Night

GATES = {
    0: '{ quantity = "calls_released", at_most = 0, on = "log" }',
    1: '{ quantity = "calls_prevented", at_most = 0, on = "log" }',
    2: '{ quantity = "harm_through_share", at_most = 0.9 }',
}
"""A gate by the exit code it leads to, on the reviewed lake."""


class Done(NamedTuple):
    """What a run of the command came to."""

    returncode: int
    stdout: str
    stderr: str


class Command(Protocol):
    """Runs `redecide regress`."""

    def __call__(self, *args: str | Path) -> Done: ...


@pytest.fixture
def redecide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["redecide", "regress", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
        told = capsys.readouterr()
        return Done(int(stopped.value.code or 0), told.out, told.err)

    return run


def one_line(done: Done) -> str:
    """Return the one line that a run with exit code 3 leaves on standard error."""
    assert done.returncode == 3, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("redecide: error: ")
    return lines[0]


def job(folder: Path, gate: str, lake: Path, *more: str) -> Path:
    """Write a job."""
    path = folder / "refunds.toml"
    path.write_text(
        f"""
        lake = "{lake}"
        candidates = ["{shipped("support-desk/candidate")}"]
        gates = [{gate}]
        output = {{ folder = "nights", formats = ["json"], notebook = false }}
        """
        + "\n".join(more)
    )
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reviewed_lake(tmp_path_factory.mktemp("lake"), 200)


@pytest.mark.slow
@pytest.mark.parametrize("code", GATES)
def test_the_verdict_is_the_exit_code(code: int, lake: Path, tmp_path: Path, redecide: Command) -> None:
    path = job(tmp_path, GATES[code], lake)
    done = redecide(path, "--json", "--junit", "junit.xml", "--html", "night.html")
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["exit_code"], found["job"]) == (code, "refunds")
    assert found["candidates"][0]["window"]["decisions"] == 200
    assert "<testsuites" in (tmp_path / "junit.xml").read_text()
    assert "<script" not in (tmp_path / "night.html").read_text()
    assert done.stderr == ""
    again = redecide(path, "--markdown")  # nothing is new: the verdict is the same
    assert again.returncode == code
    assert again.stdout.startswith("<!-- redecide regress ")
    assert "no new decision" in again.stdout


@pytest.mark.slow
def test_a_dry_run_shows_the_windows_and_leaves_nothing(
    lake: Path, tmp_path: Path, redecide: Command
) -> None:
    path = job(tmp_path, GATES[1], lake)
    done = redecide(path, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["dry_run"], found["runs"]) == (True, True)
    assert [each["window"]["decisions"] for each in found["candidates"]] == [200]
    assert [each.name for each in tmp_path.iterdir()] == ["refunds.toml"]
    assert "Nothing was judged" in redecide(path, "--dry-run").stdout


def test_a_job_that_cannot_be_read_is_3(tmp_path: Path, redecide: Command) -> None:
    assert "none.toml" in one_line(redecide("none.toml"))
    (tmp_path / "bad.toml").write_text("lake = [")
    assert "is no TOML" in one_line(redecide("bad.toml"))
    (tmp_path / "bad.toml").write_text('lake = "x"\ncandidate = ["y"]')
    assert "did you mean `candidates`" in one_line(redecide("bad.toml"))


def test_a_job_without_a_lake_is_3_and_says_so(tmp_path: Path, redecide: Command) -> None:
    path = job(tmp_path, GATES[0], tmp_path / "nowhere")
    said = one_line(redecide(path))
    assert "could not run: " in said
    assert "nowhere" in said
    assert "nowhere" in one_line(redecide(path, "--dry-run"))


@pytest.mark.parametrize(
    "args", [(), ("a.toml", "--jsn"), ("a.toml", "b.toml"), ("a.toml", "--schedule", "crn")], ids=" ".join
)
def test_a_slip_of_the_pen_is_3(args: Sequence[str], redecide: Command) -> None:
    assert "redecide regress --help" in one_line(redecide(*args))


def test_options_that_exclude_each_other_are_3(redecide: Command) -> None:
    assert "--json or --markdown" in one_line(redecide("a.toml", "--json", "--markdown"))
    assert "--dry-run or --again" in one_line(redecide("a.toml", "--dry-run", "--again"))


def test_a_schedule_is_printed_and_nothing_runs(tmp_path: Path, redecide: Command) -> None:
    path = job(tmp_path, GATES[0], tmp_path / "nowhere")
    done = redecide(path, "--schedule", "cron", "--when", "0 4 * * *")
    assert done.returncode == 0, done.stderr
    assert "0 4 * * *" in done.stdout
    assert [each.name for each in tmp_path.iterdir()] == ["refunds.toml"]
    assert "is no time" in one_line(redecide(path, "--schedule", "cron", "--when", "soon"))


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redecide: Command) -> Callable[..., Done]:
    """Run the command where the night comes to something else: what the command makes of that is in question."""

    def run(come_to: Night | BaseException, *args: str) -> Done:
        def regress(*_: object, **__: object) -> Night:
            if isinstance(come_to, BaseException):
                raise come_to
            return come_to

        monkeypatch.setattr("workbench.regressing.regress.regress", regress)
        return redecide(job(tmp_path, GATES[0], tmp_path), *args)

    return run


def test_a_bug_of_ours_is_no_regression(instead: Callable[..., Done]) -> None:
    """An interpreter that stops at an exception exits with 1."""
    done = instead(ZeroDivisionError("x"))
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("redecide: error: a bug in redecide: ZeroDivisionError")


def test_who_stops_it_gets_3(instead: Callable[..., Done]) -> None:
    assert "goes on where it was" in one_line(instead(KeyboardInterrupt()))


def test_a_library_that_is_missing_is_named_with_its_extra(instead: Callable[..., Done]) -> None:
    said = one_line(instead(ModuleNotFoundError("no `mlflow`", name="mlflow")))
    assert "pip install 'redecide[workbench]'" in said


@pytest.mark.parametrize(("state", "code"), [("met", 0), ("failed", 1), ("open", 2), (None, 3)])
def test_each_verdict_has_its_code(state: str | None, code: int, instead: Callable[..., Done]) -> None:
    done = instead(night(candidate(state, notes=("no bundle at `x`",))))
    assert done.returncode == code
    assert done.stderr == (
        "" if code < 3 else "redecide: error: could not run: `policies/next`: no bundle at `x`\n"
    )


def test_a_terminal_that_cannot_show_it_does_not_change_the_verdict(
    instead: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"))
    done = instead(night(candidate("failed"), job="nächtlich"))
    assert done.returncode == 1
    assert "not all of it could be printed" in done.stderr


def test_a_file_that_cannot_be_written_does_not_change_the_verdict(
    instead: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "junit.xml").mkdir()
    done = instead(night(candidate("open")), "--junit", "junit.xml")
    assert done.returncode == 2
    assert "junit.xml was not written" in done.stderr


def test_a_reader_that_had_enough_does_not_change_the_verdict(tmp_path: Path) -> None:
    """As `redecide regress job.toml | head -1`, in a process of its own: it ends with what Python makes of a pipe."""
    (tmp_path / "night.json").write_text(dumps(night(candidate("met"))))
    job(tmp_path, GATES[0], tmp_path)
    code = (
        "import sys, workbench.regressing.regress as module; from workbench.cli import main;"
        "from workbench.regressing.reporting.as_json import read;"
        "module.regress = lambda *_, **__: read('night.json');"
        "sys.argv = ['redecide', 'regress', 'refunds.toml']; main()"
    )
    reader, writer = os.pipe()
    os.close(reader)  # whoever writes is told so at once
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-P", "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_installed_command(lake: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("redecide")), "regress", str(job(tmp_path, GATES[1], lake))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "refunds [don't ship]" in done.stdout
