"""Nights of a job over a lake that grows: what they say together is what one night over all of it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.workbench.regressing.growing import DESK, Growing
from workbench.regressing.job_file import read_job
from workbench.regressing.regress import STEPS, regress
from workbench.shipped import shipped

if TYPE_CHECKING:
    from workbench.regressing.result import Candidate, Night

CANDIDATE = shipped("support-desk/candidate")
BASELINE = shipped("support-desk/baseline")
GATES = """
[[gates]]
quantity = "harm_through_share"
at_most = {harm}

[[gates]]
quantity = "good_lost_share"
at_most = {good}

[looks]
largest_session = 25
"""
DECISIONS = 700
STOPPED = ("replayed", "judged", "logged")
"""Where a night is stopped here; `test_kill.py` kills it at every step."""
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def job_file(
    folder: Path, *, name: str = "job", gates: str = GATES, harm: float = 0.95, good: float = 0.9, **more: Any
) -> Path:
    keys = {"name": name, "lake": "lake", "candidates": [str(CANDIDATE)], **more}
    tables = keys.pop("tables", "")
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items() if value is not None)
    text += gates.format(harm=harm, good=good)
    text += f'\n[output]\nfolder = "nights-{name}"\nnotebook = false\nformats = ["json", "markdown", "junit"]\nartifacts = []\n{tables}'
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def night(path: Path, **options: Any) -> Night:
    return regress(read_job(path), **options)


def only(found: Night) -> Candidate:
    (candidate,) = found.candidates
    return candidate


@pytest.fixture
def desk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Growing:
    return Growing(tmp_path, _whole(tmp_path_factory))


def _whole(factory: pytest.TempPathFactory) -> Path:
    from workbench.bench.reviewed import reviewed_lake

    return reviewed_lake(factory.getbasetemp() / "reviewed", DECISIONS)


def said(found: Night) -> list[tuple[object, ...]]:
    return [
        (each.text, each.state, each.low, each.high, each.lower, each.upper, each.sessions)
        for each in only(found).gates
    ]


@pytest.mark.slow
def test_nights_together_say_what_one_night_over_all_says(desk: Growing, tmp_path: Path) -> None:
    """Windows cut through sessions; labels come nights later; the last look is that of one night over all."""
    end, reviewed = desk.last[DESK], desk.last["review"]
    path = job_file(tmp_path)
    seen = []
    for part, labels in ((0.2, 0), (0.45, 0), (0.8, 0.5), (1, 0.7), (1, 1)):
        desk.grow(desk=int(part * end), review=int(labels * reviewed))
        seen.append(only(night(path)))
    whole = night(job_file(tmp_path, name="whole"))
    assert said(whole) == [
        (g.text, g.state, g.low, g.high, g.lower, g.upper, g.sessions) for g in seen[-1].gates
    ]
    assert [each.night for each in seen] == [1, 2, 3, 4, 5]
    windows = [each.window for each in seen]
    assert sum(window.decisions for window in windows if window) == DECISIONS
    for before, after in pairwise(windows):
        assert before is not None
        assert after is not None
        assert after.after == before.to, "no decision is skipped, and none is in two windows"
    assert seen[0].reopened == ()
    late = [each for found in seen for each in found.reopened]
    assert {each.night for each in late} == {1, 2, 3, 4}, "late labels open the windows they touch again"
    assert sum(each.labels for each in seen[4].reopened) == reviewed - int(0.7 * reviewed)
    assert seen[4].window is not None
    assert seen[4].window.decisions == 0


@pytest.mark.slow
def test_sessions_that_go_on_are_counted_once(desk: Growing, tmp_path: Path) -> None:
    end = desk.last[DESK]
    path = job_file(tmp_path)
    desk.grow(desk=end // 3)
    first = only(night(path))
    desk.grow(desk=end)
    second = only(night(path))
    assert first.window is not None
    assert second.window is not None
    (reopened,) = second.reopened
    assert reopened.night == 1
    assert 0 < reopened.decisions < second.window.decisions
    sessions = desk.grow().history.select("tenant", "session_id").unique().collect().height
    assert first.window.sessions + second.window.sessions > sessions
    assert max(gate.sessions for gate in second.gates) <= sessions


@pytest.mark.slow
def test_nothing_new_says_what_was_said_and_logs_nothing(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    path = job_file(tmp_path, tables='[mlflow]\nexperiment = "e"\n')
    first, second = night(path), night(path)
    assert only(first).run_id is not None
    assert only(second).run_id is None
    assert (first.verdict, said(first)) == (second.verdict, said(second))
    assert "nothing is new since night 1" in only(second).notes[0]
    assert _runs(tmp_path) == {"comparison": 1, "slice": len(_tools(first)), "series": 1}


def _tools(found: Night) -> list[str]:
    return [name for name in only(found).numbers if name.startswith("calls_")][:0] or TOOLS


TOOLS = ["change_address", "close_ticket", "issue_refund", "read_order", "reply_ticket"]


def _runs(folder: Path) -> dict[str, int]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    kinds: dict[str, int] = {}
    for each in client.search_experiments():
        for run in client.search_runs([each.experiment_id]):
            kind = run.data.tags.get("redecide.kind", "?")
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def test_verdicts_are_exit_codes(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    ship = night(job_file(tmp_path, name="ship", gates=GATES.replace("at_most", 'on = "log"\nat_most')))
    no = night(
        job_file(tmp_path, name="no", gates=GATES.replace("at_most", 'on = "log"\nat_most'), good=0.01)
    )
    open_ = night(job_file(tmp_path, name="open", harm=0.9))
    assert [each.exit_code for each in (ship, no, open_)] == [0, 1, 2]
    assert only(no).regressed > 0
    assert {"decision_id", "tool", "from", "to", "clause"} <= only(no).examples[0].keys()
    assert only(no).examples[0]["clause"]
    assert "more would tell" in " ".join(gate.why for gate in only(open_).gates)


def test_the_window_without_labels_is_inconclusive_and_says_so(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK])
    found = night(job_file(tmp_path))
    assert found.exit_code == 2
    assert "labelled" in " ".join(only(found).notes)
    assert {gate.state for gate in only(found).gates} == {"open"}


def test_an_empty_window_is_inconclusive_and_skips_nothing(desk: Growing, tmp_path: Path) -> None:
    """`first = "new"`: what was there before the first night is not looked at; what comes later all is."""
    end = desk.last[DESK]
    desk.grow(desk=end // 2)
    path = job_file(tmp_path, tables='[window]\nfirst = "new"\n')
    first = night(path)
    assert first.exit_code == 2
    assert "the series begins here" in " ".join(only(first).notes)
    desk.grow(desk=end)
    second = only(night(path))
    assert second.window is not None
    assert (second.window.after[DESK], second.window.to[DESK]) == (end // 2, end)


def test_a_candidate_that_is_the_baseline_could_not_run(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK])
    found = night(job_file(tmp_path, baseline=str(BASELINE), candidates=[str(BASELINE)]))
    assert found.exit_code == 3
    assert "it is the baseline" in only(found).notes[0]
    assert "drift" in only(found).notes[0]


def test_one_candidate_that_does_not_load_keeps_no_other_from_its_verdict(
    desk: Growing, tmp_path: Path
) -> None:
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "schema.cedarschema").write_bytes((CANDIDATE / "schema.cedarschema").read_bytes())
    (broken / "p.cedar").write_text('@id("x") permit(principal, action, resource) when { nonsense };')
    found = night(job_file(tmp_path, candidates=[str(broken), str(CANDIDATE)]))
    assert [each.verdict for each in found.candidates] == ["could not run", "inconclusive"]
    assert found.exit_code == 3
    assert "p.cedar" in found.candidates[0].notes[0]
    assert found.candidates[1].night == 1


def test_a_lake_that_is_not_there_is_told_and_written(tmp_path: Path) -> None:
    found = night(job_file(tmp_path))
    assert found.exit_code == 3
    assert "no lake" in found.problems[0]
    written = json.loads((tmp_path / "nights-job" / "could-not-run" / "night.json").read_text())
    assert written["problems"] == list(found.problems)


@pytest.mark.slow
def test_a_night_that_was_stopped_is_finished_by_the_same_windows_first(
    desk: Growing, tmp_path: Path
) -> None:
    """Stopped by an exception at each step: what the next run tells of that night is what it would have been."""
    end = desk.last[DESK]
    desk.grow(desk=end // 2, review=desk.last["review"] // 2)
    undisturbed = night(job_file(tmp_path, name="calm"))
    assert set(STOPPED) < set(STEPS)
    for step in STOPPED:
        path = job_file(tmp_path, name=f"stopped-{step}")

        def stop(reached: str, step: str = step) -> None:
            if reached == step:
                raise _StoppedError

        with pytest.raises(_StoppedError):
            night(path, at=stop)
        found = night(path)
        assert found.resumed, step
        assert (said(found), only(found).window, found.verdict) == (
            said(undisturbed), only(undisturbed).window, undisturbed.verdict,
        ), step  # fmt: skip


class _StoppedError(Exception):
    """The process dies here."""


@pytest.mark.slow
def test_what_came_after_a_stopped_night_is_a_night_of_its_own(desk: Growing, tmp_path: Path) -> None:
    end = desk.last[DESK]
    desk.grow(desk=end // 2)
    path = job_file(tmp_path)

    def stop(reached: str) -> None:
        if reached == "replayed":
            raise _StoppedError

    with pytest.raises(_StoppedError):
        night(path, at=stop)
    desk.grow(desk=end)
    found = only(night(path))
    assert found.night == 2
    assert found.window is not None
    assert found.window.after[DESK] == end // 2
    folders = sorted(each.name for each in (tmp_path / "nights-job").iterdir())
    assert folders == ["night-00001", "night-00002"]


@pytest.mark.slow
def test_several_candidates_share_the_baselines_replay(desk: Growing, tmp_path: Path) -> None:
    from workbench import replaying, versions

    desk.grow(desk=desk.last[DESK])
    other = tmp_path / "other"
    other.mkdir()
    for each in CANDIDATE.iterdir():
        (other / each.name).write_bytes(each.read_bytes())
    policies = other / "orders.cedar"
    policies.write_text(policies.read_text() + "\n// another version\n")
    calls: list[Any] = []
    plain = replaying.run_replays

    def counted(lake: Any, askings: Any, **options: Any) -> Any:
        calls.extend(asked.policy for asked in askings)
        return plain(lake, askings, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(versions, "run_replays", counted)
        found = night(job_file(tmp_path, candidates=[str(CANDIDATE), str(other)]))
    assert [each.night for each in found.candidates] == [1, 1]
    assert found.candidates[0].version != found.candidates[1].version
    assert calls.count(None) == 1, "the baseline, as recorded, is decided once"
    assert len(calls) == 3


@pytest.mark.slow
def test_again_judges_the_same_windows_by_other_thresholds(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    log = GATES.replace("at_most", 'on = "log"\nat_most')
    first = night(job_file(tmp_path, gates=log))
    again = night(job_file(tmp_path, gates=log, good=0.01), again=True)
    assert (first.exit_code, again.exit_code) == (0, 1)
    assert only(first).window == only(again).window
    assert only(again).night == 1


def test_a_dry_run_shows_windows_and_changes_nothing(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK])
    path = job_file(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = night(path, dry_run=True)
    window = only(found).window
    assert window is not None
    assert window.decisions == DECISIONS
    assert sorted(tmp_path.iterdir()) == before


def test_without_candidates_a_window_is_held_beside_the_last(desk: Growing, tmp_path: Path) -> None:
    end = desk.last[DESK]
    path = job_file(tmp_path, candidates=None, gates="")
    desk.grow(desk=end // 2)
    first = night(path)
    desk.grow(desk=end)
    second = night(path)
    assert first.drift is not None
    assert second.drift is not None
    assert (first.exit_code, first.drift.night) == (2, 1)
    assert "first window" in first.drift.notes[0]
    assert second.drift.night == 2
    assert second.drift.after.after == second.drift.before.to
    assert second.drift.gates
    assert second.exit_code in (0, 2), "the desk does the same all month"


def test_a_window_of_time_is_the_same_however_often(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK])
    times = desk.grow().history.select("decided_at").collect().to_series()
    middle: Any = times.median()
    table = f'[window]\nmode = "time"\nuntil = "{middle.isoformat()}"\n'
    path = job_file(tmp_path, tables=table)
    found = only(night(path, now=lambda: NOON))
    assert found.window is not None
    assert found.window.decisions == (times < middle).sum()
    later = only(night(path, now=lambda: NOON + timedelta(days=1)))
    assert said_gates(later) == said_gates(found)


def said_gates(found: Candidate) -> list[tuple[object, ...]]:
    return [(each.low, each.high, each.sessions) for each in found.gates]


def test_a_job_may_be_of_some_tenants_only(desk: Growing, tmp_path: Path) -> None:
    lake = desk.grow(desk=desk.last[DESK])
    found = only(night(job_file(tmp_path, tables='[filter]\ntenant = ["acme"]\n')))
    import polars as pl

    assert found.window is not None
    assert found.window.decisions == lake.where(pl.col("tenant") == "acme").history.collect().height > 0


@pytest.mark.slow
def test_a_window_of_time_keeps_what_sessions_did_before_it(desk: Growing, tmp_path: Path) -> None:
    """Windows overlap: a session that a wider one saw whole is not cut down to its part of a narrower one."""
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    times: Any = desk.grow().history.select("decided_at").collect().to_series()
    path = job_file(tmp_path, tables='[window]\nmode = "time"\nlast = "3h"\n')
    whole = only(night(path, now=lambda: times.max() + timedelta(seconds=1)))
    path = job_file(tmp_path, tables='[window]\nmode = "time"\nlast = "5m"\n')
    part = only(night(path, now=lambda: times.max() + timedelta(seconds=1)))
    assert whole.window is not None
    assert part.window is not None
    assert 0 < part.window.decisions < whole.window.decisions == DECISIONS
    assert part.night == 2
    assert said_gates(part) == said_gates(whole)


def test_again_refuses_what_the_job_no_longer_asks_for_and_keeps_what_was_found(
    desk: Growing, tmp_path: Path
) -> None:
    desk.grow(desk=desk.last[DESK])
    path = job_file(tmp_path)
    night(path)
    other = _copied(CANDIDATE, tmp_path / "other")
    (other / "orders.cedar").write_text((other / "orders.cedar").read_text() + "\n// changed\n")
    refused = night(job_file(tmp_path, candidates=[str(other)]), again=True)
    assert refused.exit_code == 3
    assert "no longer asks for" in refused.problems[0]
    kept = only(night(job_file(tmp_path)))
    assert (kept.night, "nothing is new since night 1" in kept.notes[0]) == (1, True)


def _copied(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to))


@pytest.mark.slow
def test_a_night_that_was_finished_late_does_not_hide_its_regression(desk: Growing, tmp_path: Path) -> None:
    """Stopped while it found a regression on the log; the thresholds are then relaxed, and more comes: exit code 1."""
    desk.grow(desk=desk.last[DESK] // 2, review=desk.last["review"])
    log = GATES.replace("at_most", 'on = "log"\nat_most')

    def stop(reached: str) -> None:
        if reached == "judged":
            raise _StoppedError

    with pytest.raises(_StoppedError):
        night(job_file(tmp_path, gates=log, good=0.01), at=stop)
    desk.grow(desk=desk.last[DESK])
    found = night(job_file(tmp_path, gates=log))
    assert (found.exit_code, only(found).night, found.resumed) == (1, 1, True)
    assert "the night after it" in found.problems[-1]
    assert "ship" in found.problems[-1]


def test_a_candidate_whose_sources_are_away_is_looked_at_by_the_next_run(
    desk: Growing, tmp_path: Path
) -> None:
    """One candidate cannot be judged, the other is; nothing of the window is lost to the first."""
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    path = tmp_path / "job.toml"
    text = job_file(tmp_path).read_text()
    path.write_text(f'context = "candidate"\n{text}\n[sources]\norders = "nowhere"\n')
    found = night(path)
    assert found.exit_code == 3
    assert only(found).notes
    plan = night(path, dry_run=True)
    window = only(plan).window
    assert window is not None
    assert (window.decisions, only(plan).night) == (DECISIONS, 1)


def test_a_candidate_that_was_in_force_could_not_run(desk: Growing, tmp_path: Path) -> None:
    desk.grow(desk=desk.last[DESK])
    found = night(job_file(tmp_path, candidates=[str(BASELINE)]))
    assert found.exit_code == 3
    assert "under this very version" in only(found).notes[0]


@pytest.mark.slow
def test_two_jobs_over_one_log_are_two_runs(desk: Growing, tmp_path: Path) -> None:
    """The same window, candidate and series, another threshold and state: MLflow has both, each with its verdict."""
    desk.grow(desk=desk.last[DESK], review=desk.last["review"])
    log = GATES.replace("at_most", 'on = "log"\nat_most')
    to = '[mlflow]\nexperiment = "e"\nslices = []\ntraces = 0\n'
    ids = []
    for name, good in (("kind", 0.9), ("strict", 0.01)):
        path = job_file(tmp_path, name=name, gates=log, good=good, tables=f"{to}\n")
        ids.append(only(night(path)).run_id)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    outcomes = [client.get_run(str(run)).data.tags["redecide.outcome"] for run in ids]
    assert outcomes == ["ship", "don't ship"]


def test_what_failed_in_the_night_before_is_not_said_of_the_next(
    desk: Growing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped night is finished and fails once; the night after it, in the same run, is judged, and says so."""
    from workbench.errors import NotComparable
    from workbench.regressing.judging import judge

    desk.grow(desk=desk.last[DESK])
    path, plain, calls = job_file(tmp_path), judge, []

    def stop(reached: str) -> None:
        if reached == "planned":
            raise _StoppedError

    def once(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise NotComparable("a source is away")
        return plain(*args, **options)

    with pytest.raises(_StoppedError):
        night(path, at=stop)
    monkeypatch.setattr("workbench.regressing.regress.judge", once)
    told = night(path)
    assert (told.verdict, only(told).notes) == ("could not run", ("a source is away",))
    after = json.loads((tmp_path / "nights-job" / "night-00002" / "night.json").read_text())
    (candidate,) = after["candidates"]
    assert (candidate["verdict"], candidate["night"]) == ("inconclusive", 1)
    assert candidate["window"]["decisions"] == DECISIONS
