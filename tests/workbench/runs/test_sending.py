"""Entries get to MLflow once: real stores, processes killed at every point, answers that are lost on the way."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.workbench.runs.entries import NOON, Seen, again, entry_of, placed, require_once
from tests.workbench.runs.stores import Proxy, free_port
from workbench.errors import TrackingError
from workbench.runs.entry import Assessment, Measure, Registered, Run, Series, Trace
from workbench.runs.entry_files import write_entry
from workbench.runs.sending import send
from workbench.tracking import connect, standing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.workbench.runs.stores import Children
    from workbench.runs.entry import Entry


def client_of(uri: str) -> Any:
    with connect(uri) as store:
        return store.client


def sent_twice(entry: Entry, folder: Path, uri: str) -> None:
    sent = send(folder, uri)
    require_once(client_of(uri), entry, sent)
    assert send(folder, uri) == sent
    require_once(client_of(uri), entry, sent)


def test_all_of_an_entry_is_there_and_sending_again_changes_nothing(local: str, tmp_path: Path) -> None:
    entry = entry_of("whole", slices=3, traces=3)
    sent_twice(entry, placed(entry, tmp_path / "entry"), local)


def killed_everywhere(
    children: Children, uri: str, folder: Path, kind: str, slices: int
) -> Iterator[tuple[Entry, Path]]:
    """Kill a process at every point of sending an entry, each time another one; yield them as they were left."""
    entry = entry_of(f"{kind}-undisturbed", slices=slices)
    case = {"do": "send", "uri": uri, "below": str(folder)}
    there = placed(entry, folder / entry.id)
    points = children.points(case | {"folder": str(there)})
    assert points >= 12
    for fatal in range(1, points + 1):
        entry = entry_of(f"{kind}-{fatal}", slices=slices)
        there = placed(entry, folder / entry.id)
        children.killed(case | {"folder": str(there)}, fatal)
        yield entry, there


@pytest.mark.crash
@pytest.mark.slow
def test_killed_at_any_point_of_a_local_store_it_is_there_once(
    children: Children, local: str, tmp_path: Path
) -> None:
    for entry, folder in killed_everywhere(children, local, tmp_path, "local", 1):
        require_once(client_of(local), entry, send(folder, local))


@pytest.mark.crash
@pytest.mark.fuzz
def test_killed_after_any_answer_of_a_server_it_is_there_once(
    children: Children, served: str, tmp_path: Path
) -> None:
    for entry, folder in killed_everywhere(children, served, tmp_path, "served", 0):
        require_once(client_of(served), entry, send(folder, served))


@pytest.mark.crash
def test_killed_again_and_again_it_is_there_once(children: Children, local: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    entry = entry_of("stubborn", slices=2, traces=2)
    folder = placed(entry, tmp_path / "entry")
    case = {"do": "send", "uri": local, "folder": str(folder), "below": str(tmp_path)}
    for _ in range(12):
        children.run(case | {"fatal": chance.randrange(1, 16)})
    sent_twice(entry, folder, local)


@pytest.mark.crash
def test_two_processes_at_once_send_it_once(children: Children, local: str, tmp_path: Path) -> None:
    entry = entry_of("both")
    folder = placed(entry, tmp_path / "entry")
    case = {"do": "send", "uri": local, "folder": str(folder), "below": str(tmp_path)}
    ends = children.run(case, case, case)
    assert [end["signal"] for end in ends] == [0, 0, 0], ends
    require_once(client_of(local), entry, send(folder, local))


# What comes of a network.


@pytest.fixture
def proxy(served: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    found = Proxy(served)
    yield found
    found.close()


@pytest.mark.slow
def test_every_first_answer_is_lost_and_it_is_there_once(proxy: Proxy, served: str, tmp_path: Path) -> None:
    """MLflow repeats what got no answer, so whatever makes something makes it twice."""
    entry = entry_of("lossy")
    folder = placed(entry, tmp_path / "entry")
    lost: set[str] = set()

    def lose(method: str, path: str, number: int) -> str:
        fresh = method == "POST" and path not in lost and not path.endswith(("/search", "/version"))
        lost.add(path)
        return "lose" if fresh else "pass"

    proxy.rule = lose
    sent = send(folder, proxy.uri)
    made = [each for each in proxy.seen if each.endswith("/runs/create")]
    assert len(made) == len(entry.runs) + 2  # a series, and one that was made twice
    assert any(path.endswith("/v1/traces") for path in lost)
    assert any(path.endswith("/model-versions/create") for path in lost)
    require_once(client_of(served), entry, sent)


@pytest.mark.slow
def test_a_run_that_arrives_late_is_found_before_the_end(proxy: Proxy, served: str, tmp_path: Path) -> None:
    """A request of a killed process that is done after the next process looked for runs."""
    entry = entry_of("late", traces=0)
    folder = placed(entry, tmp_path / "entry")
    client = client_of(served)

    def arrives(method: str, path: str, number: int) -> str:
        if path.endswith("/log-batch") and not made:
            tags = {"redecide.entry": entry.id, "redecide.key": "", "from": "before"}
            made.append(client.create_run(client.get_experiment_by_name("late").experiment_id, tags=tags))
        return "pass"

    made: list[Any] = []
    proxy.rule = arrives
    sent = send(folder, proxy.uri)
    assert len(made) == 1
    require_once(client, entry, sent)


def test_of_two_runs_the_one_that_says_something_stays(local: str, tmp_path: Path) -> None:
    """A double that arrives after a crash may say that it began before."""
    entry = entry_of("double")
    folder = placed(entry, tmp_path / "entry")
    broken = replace(entry.runs[1], measures=(Measure(name="harm?", value=1.0),))
    write_entry(replace(entry, runs=(entry.runs[0], broken)), folder)
    with pytest.raises(TrackingError):
        send(folder, local)
    write_entry(entry, folder)
    client = client_of(local)
    filled = Seen(client, "double").run("")
    tags = {"redecide.entry": entry.id, "redecide.key": ""}
    client.create_run(filled.info.experiment_id, start_time=1, tags=tags)
    sent = send(folder, local)
    assert sent.run_id == filled.info.run_id
    require_once(client, entry, sent)


@pytest.mark.slow
def test_a_server_that_goes_away_halfway_leaves_what_is_completed_later(
    proxy: Proxy, served: str, tmp_path: Path
) -> None:
    entry = entry_of("gone")
    folder = placed(entry, tmp_path / "entry")
    proxy.rule = lambda method, path, number: "refuse" if number > 9 else "pass"
    with pytest.raises(TrackingError, match="did not take the run"):
        send(folder, proxy.uri)
    assert {run.info.status for run in Seen(client_of(served), "gone").runs} == {"RUNNING"}
    require_once(client_of(served), entry, send(folder, served))


@pytest.mark.slow
def test_a_server_that_takes_no_spans_gets_the_rest_and_that_is_said(
    proxy: Proxy, served: str, tmp_path: Path
) -> None:
    entry = entry_of("old", traces=2)
    folder = placed(entry, tmp_path / "entry")
    proxy.rule = lambda method, path, number: (200, "2.22.0") if path == "/version" else "pass"
    sent = send(folder, proxy.uri)
    assert sent.left_out == (
        "2 traces: log_spans is not supported: MLflow server version 2.22.0 is less than 3.4",
    )
    assert sent.trace_ids == {}
    seen = Seen(client_of(served), "old")
    assert seen.run("").data.tags["redecide.left_out"] == sent.left_out[0]
    require_once(client_of(served), replace(entry, traces=()), sent)
    assert send(folder, proxy.uri) == sent
    assert not any("traces" in each for each in proxy.seen)


# What a store says.


def test_strings_of_the_log_get_there_as_they_are(local: str, tmp_path: Path) -> None:
    """Names of tools are other people's: quotes, markup, what reorders text, and more than fits."""
    nasty = "pay'; drop --\n<script>\u202e`%_\\" + "x" * 3000
    entry = entry_of("hostile", slices=0, traces=0)
    step = {"name": nasty, "inputs": {nasty: nasty}, "attributes": {nasty: [nasty]}, "error": nasty}
    said = Assessment(name="effect", value=nasty, rationale=nasty, source="it's")
    trace = Trace(
        key="d'1",
        run=nasty,
        name=nasty,
        started_ns=NOON,
        spans=(step,),
        tags={"tool": nasty},
        assessments=(said,),
    )
    nested = Run(key=nasty, name=nasty, parent="", params={"p": nasty}, tags={"redecide.slice": nasty})
    series = Series(name="it's nightly", measures=entry.runs[0].measures)
    entry = replace(entry, runs=(*entry.runs, nested), traces=(trace,), series=series)
    folder = placed(entry, tmp_path / "entry")
    sent = send(folder, local)
    assert send(folder, local) == sent
    seen = Seen(client_of(local), "hostile")
    assert len(seen.runs) == 3
    assert seen.run(nasty).data.tags["redecide.slice"] == nasty
    (found,) = seen.traces
    assert found.data.spans[0].inputs == {nasty: nasty}
    assert found.info.assessments[0].feedback.value == nasty
    assert len(found.info.tags["mlflow.traceName"]) == 200


def test_a_run_left_by_a_failure_is_marked_and_completed(local: str, tmp_path: Path) -> None:
    entry = entry_of("failed")
    whole = placed(entry, tmp_path / "entry")
    bad = Measure(name="harm?", value=1.0)
    broken = replace(entry, runs=(entry.runs[0], replace(entry.runs[1], measures=(bad,))))
    write_entry(broken, whole)
    with pytest.raises(TrackingError, match="did not take the run") as caught:
        send(whole, local)
    assert standing(caught.value) == "refused"
    assert {run.info.status for run in Seen(client_of(local), "failed").runs} == {"FAILED"}
    write_entry(entry, whole)
    sent_twice(entry, whole, local)


def test_nobody_answers(tmp_path: Path) -> None:
    folder = placed(entry_of("nobody"), tmp_path / "entry")
    with pytest.raises(TrackingError, match="nobody answers") as caught:
        send(folder, f"http://127.0.0.1:{free_port()}")
    assert standing(caught.value) == "away"


def test_a_database_that_is_locked_is_away(local: str, tmp_path: Path) -> None:
    """As one on a full disk is: SQLite says both as an operational error."""
    path = tmp_path / "store" / "mlflow.db"
    path.mkdir(parents=True)
    with pytest.raises(TrackingError) as caught:
        send(placed(entry_of("locked"), tmp_path / "entry"), f"sqlite:///{path}")
    assert standing(caught.value) == "away"


# Series.


def points(entry: Entry, uri: str, name: str) -> list[tuple[int, float]]:
    seen = Seen(client_of(uri), entry.experiment)
    return seen.points(seen.series(), name)


def night(entry: Entry, name: str, step: int, **values: float) -> Entry:
    measures = tuple(Measure(name=key, value=value, step=step) for key, value in values.items())
    runs = tuple(replace(run, files=None, registered=()) for run in entry.runs)
    return again(entry, name, series=Series(name="nightly", measures=measures), runs=runs, traces=())


def sent_night(entry: Entry, folder: Path, uri: str) -> None:
    (folder / entry.id).mkdir()
    write_entry(entry, folder / entry.id)
    send(folder / entry.id, uri)


def test_nights_draw_one_line(local: str, tmp_path: Path) -> None:
    entry = entry_of("nights")
    for number in range(1, 4):
        sent_night(night(entry, f"n{number}", number * 10, harm=number / 8, kept=1.0), tmp_path, local)
    run_id = Seen(client_of(local), "nights").series().info.run_id
    assert points(entry, local, "harm") == [(10, 0.125), (20, 0.25), (30, 0.375)]
    sent_night(night(entry, "n4", 40, harm=0.5), tmp_path, local)
    assert Seen(client_of(local), "nights").series().info.run_id == run_id  # the same run goes on
    assert points(entry, local, "kept") == [(10, 1.0), (20, 1.0), (30, 1.0)]


def test_a_step_that_is_there_with_the_same_value_is_not_repeated(local: str, tmp_path: Path) -> None:
    entry = entry_of("repeated")
    sent_night(night(entry, "n1", 10, harm=0.1), tmp_path, local)
    sent_night(night(entry, "n2", 10, harm=0.1), tmp_path, local)
    assert points(entry, local, "harm") == [(10, 0.1)]


def test_a_corrected_step_supersedes_and_all_others_stay(local: str, tmp_path: Path) -> None:
    entry = entry_of("corrected")
    for number in range(1, 4):
        sent_night(night(entry, f"n{number}", number * 10, harm=number / 8, kept=1.0), tmp_path, local)
    before = Seen(client_of(local), "corrected").series()
    stamps = {each.step: each.timestamp for each in before_history(local, before, "kept")}
    late = night(entry, "n4", 20, harm=0.75)
    sent_night(late, tmp_path, local)
    assert points(entry, local, "harm") == [(10, 0.125), (20, 0.75), (30, 0.375)]
    assert points(entry, local, "kept") == [(10, 1.0), (20, 1.0), (30, 1.0)]
    after = Seen(client_of(local), "corrected").series()
    assert after.info.run_id != before.info.run_id
    assert after.data.tags["redecide.series_generation"] == "1"
    assert {each.step: each.timestamp for each in before_history(local, after, "kept")} == stamps


def before_history(uri: str, run: Any, name: str) -> Any:
    return client_of(uri).get_metric_history(run.info.run_id, name)


@pytest.mark.crash
def test_killed_at_any_point_of_a_correction_the_series_is_there_once(
    children: Children, local: str, tmp_path: Path
) -> None:
    def prepared(name: str) -> tuple[Entry, Path]:
        entry = entry_of(name, slices=0)
        sent_night(night(entry, "n1", 10, harm=0.1, kept=1.0), tmp_path, local)
        late = night(entry, "n2", 10, harm=0.2, kept=1.0)
        (tmp_path / late.id).mkdir()
        write_entry(late, tmp_path / late.id)
        return entry, tmp_path / late.id

    case = {"do": "send", "uri": local, "below": str(tmp_path)}
    count = children.points(case | {"folder": str(prepared("correct")[1])})
    for fatal in range(1, count + 1):
        entry, folder = prepared(f"correct-{fatal}")
        children.killed(case | {"folder": str(folder)}, fatal)
        send(folder, local)
        assert (points(entry, local, "harm"), points(entry, local, "kept")) == ([(10, 0.2)], [(10, 1.0)])


# Registered versions.


def test_an_alias_that_was_given_later_is_not_taken_back(local: str, tmp_path: Path) -> None:
    entry = entry_of("aliases", slices=0, traces=0)

    def registered(name: str, version: str, at: int) -> None:
        one = Registered(model="redecide.aliases", bundle_version=version, aliases={"champion": at})
        sent_night(
            again(entry, name, runs=(replace(entry.runs[0], files=None, registered=(one,)),)), tmp_path, local
        )

    client = client_of(local)
    registered("new", "n" * 64, 20)
    registered("old", "o" * 64, 10)  # sent late: MLflow was away
    assert (
        client.get_model_version_by_alias("redecide.aliases", "champion").tags["redecide.bundle_version"]
        == "n" * 64
    )
    registered("newest", "o" * 64, 30)
    assert (
        client.get_model_version_by_alias("redecide.aliases", "champion").tags["redecide.bundle_version"]
        == "o" * 64
    )
    assert len(client.search_model_versions("name = 'redecide.aliases'")) == 2
