"""SIGKILL of a night at every step it names, and in the middle of its writing: run again, all is as if it had not been.

What is compared is everything a night leaves: the state, the files, what was told, and every run in MLflow.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.workbench.regressing.growing import DESK, Growing
from workbench.bench.reviewed import reviewed_lake
from workbench.regressing.job_file import read_job
from workbench.regressing.regress import STEPS
from workbench.regressing.state import State
from workbench.regressing.stored import to_json
from workbench.shipped import shipped
from workbench.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CHILD = Path(__file__).parent / "night_child.py"
JOB = f"""
lake = "lake"
candidates = ["{shipped("support-desk/candidate")}"]
[[gates]]
quantity = "harm_through_share"
at_most = 0.5
[drift]
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
traces = 2
[notify]
file = "told.jsonl"
on = ["inconclusive"]
[output]
notebook = false
artifacts = ["policies"]
"""
PASSED = (
    "planned", "replayed", "filed", "judged", "filed", "judged", "entered", "logged", "notified", "written", "told",
    "done",
)  # fmt: skip
"""What a night of that job passes: a candidate, and drift beside it."""
POINTS = [(step, PASSED[: at + 1].count(step)) for at, step in enumerate(PASSED)]
EVERY = POINTS[1::2]
BY_NAME = [pytest.param(*each, marks=pytest.mark.fuzz) for each in POINTS[::2]]
"""Half of the points run with all tests, the others with `-m fuzz`: each is a night of its own."""
CHANGES = 4
"""So many of the changes that a night makes to the disk are deadly, each in a test of its own."""

_RUN = re.compile(r"\b[0-9a-f]{32}\b")
_OF_THE_TRY = {"seconds", "resumed"}
_OF_THE_RUN = {"mlflow.parentRunId", "mlflow.artifactLocation", "mlflow.traceRequestId"}


class Nights:
    """A place where nights run, one after another, each from the same beginning."""

    def __init__(self, folder: Path) -> None:
        self.place, self.begin = folder / "place", folder / "begin"
        self.begin.mkdir()
        (self.begin / "job.toml").write_text(JOB)
        self.growing = Growing(self.begin, reviewed_lake(folder / "reviewed", 300))
        self.growing.grow(desk=self.growing.last[DESK] // 2, review=self.growing.last["review"] // 2)
        made = [
            sys.executable,
            "-c",
            f"from workbench.tracking import connect\nwith connect('sqlite:///{self.begin}/mlflow.db'): pass",
        ]
        subprocess.run(made, check=True, capture_output=True)
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fresh(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.begin, self.place)

    def run(self, **case: Any) -> tuple[int, dict[str, Any]]:
        """Run a night in a process of its own: what it died of, and what it said."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"job": str(self.place / "job.toml"), **case}) + "\n")
        self._child.stdin.flush()
        ended, said = json.loads(self._child.stdout.readline())
        return ended, said

    def close(self) -> None:
        self._child.communicate(timeout=60)
        assert self._child.returncode == 0


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    found = Nights(tmp_path_factory.mktemp("kill"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def undisturbed(nights: Nights) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a night leaves that nobody stopped, and what it said."""
    nights.fresh()
    ended, said = nights.run()
    assert ended == 0
    assert said["problems"] == []
    return left(nights.place), said


def left(place: Path) -> dict[str, Any]:
    """Everything that nights left in a place, but for times and the ids that MLflow gave."""
    with State.open(place / ".redecide" / "job", read_only=True) as state:
        told = list(state.nights())
        last = state.last()
        assert last is not None
        every = {each.series: state.sums(each.series) for each in last.asked}
        kept = {
            "nights": [_same(json.loads(to_json(each))) for each in told],
            "windows": {series: state.looks(series) for series in every},
            "sums": {series: None if each is None else each.rows() for series, each in every.items()},
        }
    pages = place / "nights" / "job"
    return {
        **kept,
        "files": sorted(str(path.relative_to(pages)) for path in pages.rglob("*") if path.is_file()),
        "night.json": [_same(json.loads(path.read_text())) for path in sorted(pages.glob("*/night.json"))],
        "told": [_same(json.loads(line)) for line in (place / "told.jsonl").read_text().splitlines()],
        "waiting": sorted(
            path.name for path in (place / ".redecide/job/outbox").glob("*.*") if path.is_dir()
        ),
        "mlflow": _mlflow(f"sqlite:///{place / 'mlflow.db'}"),
    }


def _same(given: Any) -> Any:
    """JSON without what a second try may differ in: how long it took, that it was one, and ids of runs."""
    match given:
        case dict():
            return {name: _same(each) for name, each in given.items() if name not in _OF_THE_TRY}
        case list():
            return [_same(each) for each in given]
        case str():
            return _RUN.sub("RUN", given)
        case float():
            return float(f"{given:.6g}")  # sums come in the order that threads finish in
    return given


def _mlflow(uri: str) -> list[str]:
    """Every run with its numbers, every trace and registered version, as sorted texts."""
    with connect(uri) as store:  # which knows that the file of that name is another one by now
        experiments = store.client.search_experiments()
        found = [each for one in experiments for each in _experiment(store.client, one.experiment_id)]
        models = [
            ("model", each.name, each.version, each.tags) for each in store.client.search_model_versions()
        ]
    return sorted(map(_text, [*found, *models]))


def _experiment(client: Any, experiment: str) -> Iterator[tuple[Any, ...]]:
    for run in client.search_runs([experiment]):
        history = {
            name: [
                (each.step, _same(each.value)) for each in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        tags = {name: _same(value) for name, value in run.data.tags.items() if name not in _OF_THE_RUN}
        files = sorted(each.path for each in client.list_artifacts(run.info.run_id))
        yield "run", run.info.run_name, run.info.status, _same(run.data.params), history, tags, files
    for trace in client.search_traces(locations=[experiment], max_results=50):
        yield (
            "trace",
            len(trace.data.spans),
            sorted((each.name, str(each.value)) for each in trace.info.assessments),
        )


def _text(given: object) -> str:
    return json.dumps(given, sort_keys=True, default=str)


def test_the_points_are_all_the_steps_of_a_night(undisturbed: tuple[dict[str, Any], dict[str, Any]]) -> None:
    found, said = undisturbed
    assert said["steps"] == list(PASSED)
    assert set(PASSED) == set(STEPS)
    assert len(found["told"]) == len(found["nights"]) == 1
    assert found["waiting"] == []
    runs = [json.loads(each) for each in found["mlflow"]]
    assert {each[2] for each in runs if each[0] == "run"} == {"FINISHED"}
    assert any(each[0] == "run" and each[-1] for each in runs), "files are there"


@pytest.mark.parametrize(("step", "nth"), [*EVERY, *BY_NAME])
def test_killed_at_a_step_and_run_again_it_is_as_if_it_had_not_been(
    nights: Nights, undisturbed: tuple[dict[str, Any], dict[str, Any]], step: str, nth: int
) -> None:
    wanted, said = undisturbed
    nights.fresh()
    assert nights.run(step=step, nth=nth)[0] == signal.SIGKILL
    ended, again = nights.run()
    assert (ended, again["exit"]) == (0, said["exit"])
    _require_same(_without_nothing_new(nights.place), wanted, step == "done")


@pytest.mark.parametrize("part", range(CHANGES))
def test_killed_in_the_middle_of_writing_it_is_as_if_it_had_not_been(
    nights: Nights, undisturbed: tuple[dict[str, Any], dict[str, Any]], part: int
) -> None:
    """At changes of the disk all over the night: a folder made, a file opened, a name moved."""
    wanted, said = undisturbed
    nights.fresh()
    change = 1 + (2 * part + 1) * said["changes"] // (2 * CHANGES)
    assert nights.run(change=change)[0] == signal.SIGKILL
    ended, again = nights.run()
    assert (ended, again["exit"]) == (0, said["exit"])
    _require_same(_without_nothing_new(nights.place), wanted, done=False)


def _without_nothing_new(place: Path) -> dict[str, Any]:
    shutil.rmtree(place / "nights" / "job" / "nothing-new", ignore_errors=True)
    return left(place)


def _require_same(found: dict[str, Any], wanted: dict[str, Any], done: bool) -> None:
    """After a night that was done, the next run finds nothing new, and says so to whoever is told."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if name == "told" and done:
            assert found[name][0] == value[0]
        else:
            assert found[name] == value, f"{name}: {_differs(_text(found[name]), _text(value))}"


def _differs(one: str, other: str) -> str:
    """Where two texts begin to differ, and how."""
    at = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return f"{one[max(at - 200, 0) : at + 60]!r} instead of {other[at : at + 60]!r}"


def test_what_came_meanwhile_is_a_night_of_its_own(nights: Nights) -> None:
    """Killed while it judged; then the lake grew: two nights, by the windows of two undisturbed ones."""
    end, reviewed = nights.growing.last[DESK], nights.growing.last["review"]

    def grown() -> None:
        shutil.rmtree(nights.place / "lake")
        more = Growing.__new__(Growing)
        more.path, more._whole, more.ends = (
            nights.place / "lake",
            nights.growing._whole,
            dict(nights.growing.ends),
        )
        shutil.copytree(nights.begin / "lake", more.path)
        more.grow(desk=end, review=reviewed)

    def both(first: Callable[[], None]) -> dict[str, Any]:
        nights.fresh()
        first()
        grown()
        assert nights.run()[0] == 0
        return left(nights.place)

    wanted = both(lambda: _ended(nights.run(), 0))
    found = both(lambda: _ended(nights.run(step="judged", nth=1), signal.SIGKILL))
    assert len(wanted["nights"]) == 2
    _require_same(found, wanted, done=False)
    assert read_job(nights.place / "job.toml").name == "job"


def _ended(found: tuple[int, Any], how: int) -> None:
    assert found[0] == how
