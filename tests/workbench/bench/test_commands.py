"""The commands `redecide bench …`, small: that they measure what they say, and say what went wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from workbench.bench.cli import app
from workbench.bench.measure import BenchFailed, Sampler, best_of, in_child
from workbench.bench.regress import regress_lines
from workbench.bench.told import kernel_lines, lake_lines, sweep_lines
from workbench.texts import visible

if TYPE_CHECKING:
    from pathlib import Path


def _json(*args: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*args, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["machine"]["versions"]["polars"]
    return found


@pytest.mark.slow
def test_the_kernel_is_timed_and_held_to_cedar() -> None:
    found = _json("replay", "--rows", "2000", "--policies", "0", "--policies", "30", "--repeats", "1")
    few, many = found["runs"]
    assert (few["rows"], few["policies"], many["policies"]) == (2_000, 13, 30)
    assert few["checked_rows"] == few["cedar_rows"] == 2_000
    assert few["ratio"] == pytest.approx(few["decisions_per_second"] / few["cedar_decisions_per_second"])
    said = "\n".join(kernel_lines(found["runs"]))
    assert "30 policies take" in said
    assert "goal" in said


@pytest.mark.slow
def test_a_lake_is_compared_and_kept(tmp_path: Path) -> None:
    args = ("lake", "--rows", "1500", "--lakes", str(tmp_path))
    found = _json(*args, "--engine", "rows")
    (run,) = found["runs"]
    assert (run["rows"], run["counts"]["base"]["decisions_decided"]) == (1_500, 1_500)
    assert sum(run["phases"].values()) == pytest.approx(run["seconds"], rel=0.1)
    (kept,) = tmp_path.iterdir()
    assert run["uri"] == str(kept)
    again = _json(*args, "--engine", "columnar")["runs"][0]
    assert again["transitions"] == run["transitions"]
    assert again["summary"] == run["summary"]
    assert "1,500" in "\n".join(lake_lines([run, again]))


@pytest.mark.slow
def test_a_sweep_counts_each_version(tmp_path: Path) -> None:
    (run,) = _json("sweep", "--rows", "800", "--versions", "3", "--lakes", str(tmp_path))["runs"]
    assert (run["versions"], run["rows"]) == (3, 800)
    assert run["approve"] == sorted(run["approve"], reverse=True)  # a larger budget asks less often
    assert run["approve"][0] > run["approve"][-1]
    assert "3 versions over 800 decisions" in "\n".join(sweep_lines([run]))


def test_readers_are_timed_side_by_side() -> None:
    found = _json("decode", "--rows", "3000", "--repeats", "1")
    readers = {(run["size"], run["reader"]) for run in found["runs"]}
    assert {size for size, _ in readers} == {"short", "long"}
    assert len(readers) == len(found["runs"]) >= 6
    assert {run["ratio"] for run in found["runs"] if run["reader"] == "redecide"} == {1.0}


def test_a_task_that_fails_says_why() -> None:
    with pytest.raises(BenchFailed, match=r"`lake` did not finish: .*no lake at /nowhere"):
        in_child("lake", uri="/nowhere", engine="rows")


def test_a_lake_is_not_built_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = CliRunner().invoke(app, ["build", str(tmp_path), "--rows", "10"])
    assert "is not empty" in visible(str(done.exception))


def test_the_sampler_names_the_function_that_takes_the_time() -> None:
    from workbench import texts

    def busy() -> None:
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            texts.shorten("x" * 200, 40)
            time.sleep(0.001)

    with Sampler() as sampler:
        busy()
    assert sampler.seen.total() > 5
    assert sum(sampler.shares().values()) == pytest.approx(1, abs=0.02)


def test_the_shortest_time_counts() -> None:
    naps = iter((0.02, 0.0, 0.01))
    best, cpu, every = best_of(3, lambda: time.sleep(next(naps)))
    assert (best, len(every)) == (min(every), 3)
    assert cpu < best < 0.01


@pytest.mark.fuzz
def test_a_night_and_going_on_with_one_that_was_stopped(tmp_path: Path) -> None:
    args = ("regress", "--rows", "600", "--lakes", str(tmp_path), "--stopped", "judged")
    fresh, resumed = _json(*args)["runs"]
    assert (fresh["rows"], fresh["stopped"], resumed["stopped"]) == (600, None, "judged")
    assert fresh["verdict"] == resumed["verdict"]
    assert {"planned", "replayed", "filed", "judged", "logged", "done"} <= fresh["steps"].keys()
    assert "judged" not in resumed["steps"], "what was judged is not judged again"
    assert "of a whole night" in "\n".join(regress_lines([fresh, resumed]))
