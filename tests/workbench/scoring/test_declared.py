"""Scoring as a job declares it: read, refused with everything that is wrong, and run with a judge over real HTTP."""

from __future__ import annotations

import json
import math
import tomllib
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench as wb
from tests.workbench.scoring.scripted_judge import Trouble, scripted_judge
from workbench.bench.reviewed import reviewed_lake
from workbench.compare import Diff
from workbench.errors import ScoringInvalid
from workbench.faces import text
from workbench.masking import MASKED
from workbench.scoring.declared import Asked, Drawn, Scoring, read_scoring
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://127.0.0.1:9/v1"
DECLARED = """
metrics = [
  "verdict_correctness",
  { metric = "tool_permission", denied_tools = ["change_address"] },
  { metric = "g_eval", name = "Fits Task", criteria = "fits?", label = "origin", yes = ["user"], no = ["attack"] },
]
cases = { flips = 60, control = 40, strata = ["tool"], seed = 3 }
judge = { url = "http://127.0.0.1:9/v1", model = "judge-8b", options = { max_tokens = 200 } }
concurrency = 4
rate = 6000
timeout = 30
retries = 1
keep = true
level = 0.9
"""


def read(toml: str) -> Scoring:
    return read_scoring(tomllib.loads(toml), "[scoring]")


def test_reads_what_is_declared() -> None:
    found = read(DECLARED)
    assert found.metrics[0] == Asked(metric="verdict_correctness")
    assert found.metrics[1].params == {"denied_tools": ["change_address"]}
    fits = found.metrics[2]
    assert (fits.params, fits.label, fits.yes, fits.no) == (
        {"name": "Fits Task", "criteria": "fits?"}, "origin", ("user",), ("attack",),
    )  # fmt: skip
    assert found.cases == Drawn(flips=60, control=40, strata=("tool",), seed=3)
    assert (found.concurrency, found.rate, found.timeout, found.retries, found.keep, found.level) == (
        4,
        6000,
        30,
        1,
        True,
        0.9,
    )
    plain = read('metrics = ["over_blocking"]')
    assert plain == Scoring(metrics=(Asked(metric="over_blocking"),))
    assert (plain.cases, plain.judge, plain.keep) == ("changed", None, False)
    assert read('metrics = ["over_blocking"]\ncases = "all"').cases == "all"


WRONG = {
    "": "`metrics` is missing",
    'metrics = "over_blocking"': "`metrics` is missing",
    "metrics = [3]": "`metrics` 1 is 3",
    'metrics = [{ name = "x" }]': 'a table with `metric = "…"`',
    'metrics = ["over_blokking"]': "did you mean `over_blocking`",
    'metrics = [{ metric = "over_blocking", threshhold = 1 }]': "no parameter `threshhold`; did you mean `threshold`",
    'metrics = ["over_blocking", "over_blocking"]': "over_blocking",
    'metrics = [{ metric = "over_blocking", yes = "ok", no = ["OK"] }]': "both have `ok`",
    'metrics = [{ metric = "over_blocking", label = 3 }]': "`label` is 3",
    'metrics = ["toxicity"]': "asks a judge, and none is given",
    'metrics = ["over_blocking"]\nmetric = []': "`metric` is no key of a job file here; did you mean `metrics`",
    'metrics = ["over_blocking"]\ncases = "flips"': "`cases` is 'flips'",
    'metrics = ["over_blocking"]\ncases = { flip = 3 }': "did you mean `flips`",
    'metrics = ["over_blocking"]\ncases = { flips = -1 }': "`flips` is -1",
    'metrics = ["over_blocking"]\ncases = { strata = [1] }': "`strata` is [1]",
    'metrics = ["over_blocking"]\nrate = 0': "`rate` is 0",
    'metrics = ["over_blocking"]\nrate = inf': "`rate` is inf",
    'metrics = ["over_blocking"]\ntimeout = "1m"': "`timeout` is '1m'",
    'metrics = ["over_blocking"]\nconcurrency = 0': "`concurrency` is 0",
    'metrics = ["over_blocking"]\nretries = 1.5': "`retries` is 1.5",
    'metrics = ["over_blocking"]\nkeep = "yes"': "`keep` is 'yes'",
    'metrics = ["over_blocking"]\nlevel = 95': "`level` is 95",
    'metrics = ["over_blocking"]\njudge = "gpt"': "`judge` is no table",
    'metrics = ["toxicity"]\njudge = { model = "m" }': "`url` is missing",
    'metrics = ["toxicity"]\njudge = { url = "there", model = "m" }': "give an address",
    'metrics = ["toxicity"]\njudge = { url = "http://x/v1", model = "m", api_key = "k-1" }': "does not belong in a file",
    'metrics = ["toxicity"]\njudge = { url = "http://x/v1", model = "m", temprature = 1 }': "did you mean `temperature`",
    'metrics = ["toxicity"]\njudge = { url = "http://x/v1", model = "m", api_key_env = "NOT_SET" }': "NOT_SET, which is not set",
    'metrics = ["toxicity"]\njudge = { url = "http://x/v1", model = "m", options = 3 }': "`options` is no table",
    'metrics = ["over_blocking"]\njudge = { url = "http://x/v1", model = "m" }': "no metric asks one",
}


@pytest.mark.parametrize(("toml", "said"), WRONG.items())
def test_what_is_wrong_is_said(toml: str, said: str) -> None:
    with pytest.raises(ScoringInvalid) as invalid:
        read(toml)
    assert said in str(invalid.value)
    assert str(invalid.value).startswith("[scoring]")
    assert "k-1" not in str(invalid.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ScoringInvalid) as invalid:
        read('metrics = ["gevl", "toxicty"]\nrate = 0\nkeeep = true\njudge = { url = "x" }')
    lines = str(invalid.value).splitlines()
    for said in ("gevl", "toxicty", "`rate`", "`keeep`", "`model` is missing"):
        assert any(said in line for line in lines)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    """Return a reviewed support desk, its candidate beside what was recorded."""
    lake = wb.open(reviewed_lake(tmp_path_factory.mktemp("desk"), 2_000))
    return wb.compare(lake.replay(), lake.replay(policy=shipped("support-desk/candidate")))


def answer(prompt: str) -> Any:
    """A judge that finds everything fit but refunds."""
    if "Evaluation Criteria:" in prompt:
        return {"steps": ["look at it"]}
    return {"score": 2 if "issue_refund" in prompt else 9, "reason": "because"}


def test_runs_with_a_judge(desk: Diff) -> None:
    with scripted_judge({"": answer}) as server:
        found = read(DECLARED.replace(URL, server.url)).run(desk, actor="test")
        asked = len(server.asked)
        again = read(DECLARED.replace(URL, server.url)).run(desk, actor="test")
        assert len(server.asked) == asked  # nothing is judged twice
    assert found.sample is not None
    assert len(found.sample) == 100
    assert asked <= 101  # the steps, and each case of other content once
    assert found.scores.frame.collect()["metric"].unique().sort().to_list() == [
        "fits_task", "tool_permission", "verdict_correctness",
    ]  # fmt: skip
    fits = found.debiased["fits_task"]
    assert (fits.label, fits.level, fits.labels) == ("origin", 0.9, 100)
    assert set(found.debiased) == set(found.agreement) == {"fits_task"}
    refunds = found.scores.frame.filter(pl.col("metric") == "fits_task", pl.col("score") == 0.2).collect()
    assert (
        found.agreement["fits_task"].people_passed + found.agreement["fits_task"].both_failed
        == refunds.height
    )
    summary = found.summary()
    assert all(type(name) is str and math.isfinite(value) for name, value in summary.items())
    assert summary["sample.sampled"] == 100
    assert found.frame.collect().equals(found.scores.table)  # it stands wherever scores do
    assert found.replay_id == desk.cand.id
    assert summary["fits_task.debiased.rate"] == fits.rate
    assert summary["fits_task.agreement.kappa"] == found.agreement["fits_task"].kappa.value  # type: ignore[union-attr]
    assert again.summary() == summary
    assert again.scores.reused > 0
    shown = text(found.page())
    assert "Judges, corrected" in shown
    assert f"fits_task: {fits.rate:.1%}" in shown
    assert repr(found)
    assert "<table" in found._repr_html_()


def test_runs_without_a_judge(desk: Diff) -> None:
    found = read('metrics = ["verdict_correctness", "over_blocking"]').run(desk)
    changed = desk.changed.select(pl.len()).collect().item()
    assert found.summary()["verdict_correctness.n"] == changed
    assert (found.debiased, found.agreement, found.sample, found.notes) == ({}, {}, None, ())


def test_one_bad_case_does_not_end_the_run(desk: Diff) -> None:
    """Some cases get nonsense for an answer: they have no score, the note says how many, the others are judged."""

    def sometimes(prompt: str) -> Any:
        return "hm" if "close_ticket" in prompt else answer(prompt)

    with scripted_judge({"": sometimes}) as server:
        found = read(DECLARED.replace(URL, server.url).replace("keep = true", "")).run(desk)
    status = found.scores.frame.filter(pl.col("metric") == "fits_task").collect()["status"].value_counts()
    counts = dict(status.iter_rows())
    assert counts["scored"] > 0
    assert counts["errored"] > 0
    assert found.notes[0].startswith(f"fits_task: {counts['errored']} cases could not be judged, as: ")
    assert "answered nonsense, twice" in found.notes[0]
    assert found.debiased["fits_task"].judged == counts["scored"]


def test_a_judge_that_refuses_is_asked_once(desk: Diff) -> None:
    with scripted_judge({"": Trouble(status=401)}) as server:
        found = read(DECLARED.replace(URL, server.url).replace("concurrency = 4", "concurrency = 1")).run(
            desk
        )
        assert len(server.asked) == 1
    assert found.summary()["fits_task.errored"] == 100
    assert found.debiased["fits_task"].method == "none"


def test_several_machines_are_told(desk: Diff) -> None:
    with scripted_judge({"": answer}) as server:

        def turning(prompt: str) -> Any:
            server.fingerprint = f"fp_{len(server.asked) % 2}"
            return answer(prompt)

        server.table[""] = turning
        found = read(DECLARED.replace(URL, server.url).replace("keep = true", "")).run(desk)
    assert any(note.startswith("several versions of judge-8b answered") for note in found.notes)


def test_an_unset_key_is_found_before_anything_is_judged(desk: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it goes away between reading and running."""
    with scripted_judge({"": answer}) as server:
        declared = DECLARED.replace(URL, server.url).replace(
            'model = "judge-8b"', 'model = "m", api_key_env = "KEY_9"'
        )
        with pytest.raises(ScoringInvalid, match="KEY_9, which is not set"):
            read(declared)
        monkeypatch.setenv("KEY_9", "k")
        job = read(declared)
        monkeypatch.delenv("KEY_9")
        with pytest.raises(ScoringInvalid, match="KEY_9, which is not set"):
            job.run(desk)
        assert not server.asked


def test_what_a_judge_sees_is_masked(desk: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt passes the one door out of the lake."""
    monkeypatch.setattr("workbench.scoring.judges.leaving", lambda prompt: f"{MASKED} {len(prompt)}")
    with scripted_judge({"": {"steps": ["a"], "score": 5, "reason": "x"}}) as server:
        read(DECLARED.replace(URL, server.url).replace("keep = true", "")).run(desk)
        assert server.prompts
        assert all(prompt.startswith(MASKED) for prompt in server.prompts)


def test_paths_are_the_files(tmp_path: Path) -> None:
    """A bundle's folder is relative to the job's file."""
    (tmp_path / "next").symlink_to(shipped("support-desk/candidate"))
    table = tomllib.loads('metrics = [{ metric = "policy_compliance", bundle = "next" }]')
    found = read_scoring(table, folder=tmp_path)
    assert found.metrics[0].params == {"bundle": str(tmp_path / "next")}
    with pytest.raises(ScoringInvalid, match="policy_compliance"):
        read_scoring(table, folder=tmp_path / "elsewhere")


def test_a_folder_of_scores(desk: Diff, tmp_path: Path) -> None:
    """As JSON: what a file of it holds."""
    found = read('metrics = ["verdict_correctness"]').run(desk)
    file = tmp_path / "scored.json"
    file.write_text(json.dumps(found.as_dict()), encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8"))["numbers"] == found.summary()
