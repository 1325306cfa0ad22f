"""Promotion: only what a run says ship for, or a person with a reason; runtimes take it up; MLflow mirrors it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from typer.testing import CliRunner

from runtime import Blocked, Runtime, load_bundle
from runtime.errors import AliasMoved
from workbench.cli import app
from workbench.compare import compare
from workbench.errors import NotPromotable, TrackingError
from workbench.lake import Lake, open_lake
from workbench.log import LoggedRun, log
from workbench.promoting.evidence import LOOKS
from workbench.promoting.promote import alias_log, promote, roll_back
from workbench.promoting.registry import differences, model_of
from workbench.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
OVER = '@id("over") forbid(principal, action, resource) when { context.args.cents > 100 };\n'
ALL = '@id("all") forbid(principal, action, resource);\n'
SHIPS = {"gates": [{"quantity": "harm_through", "at_most": 0, "on": "log"}]}


def folder(root: Path, policies: str) -> Path:
    root.mkdir(parents=True)
    (root / "p.cedar").write_text(policies)
    (root / "schema.cedarschema").write_text(SCHEMA)
    return root


def govern(lake: Path, bundle: Any, *cents: int, **more: Any) -> list[str]:
    """Pay, and return what became of it; what is above 100 is an attack's."""
    told: list[str] = []
    with Runtime.open(bundle, lake=lake, **more) as runtime:
        runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
        for each in cents:
            with runtime.session(principal="Agent::bot", tenant="acme") as session:
                try:
                    session.call("pay", order_id="o", cents=each)
                    told.append("ran")
                except Blocked:
                    told.append("blocked")
                runtime.label("origin", "attack" if each > 100 else "user", session=session, source="test")
    return told


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One local store for all: a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _store(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake whose champion lets everything run, and two candidates."""
    folder(tmp_path / "base", PERMIT)
    folder(tmp_path / "over", PERMIT + OVER)
    folder(tmp_path / "all", PERMIT + ALL)
    limits = 'version = 2\n[[budget]]\nname = "one"\nper = "tenant"\nmax = 1\n'
    (folder(tmp_path / "tight", PERMIT + OVER) / "limits.toml").write_text(limits)
    spec = '[sources.x]\nkind = "callable"\n'
    (folder(tmp_path / "facts", PERMIT + OVER) / "context.toml").write_text(spec)
    assert govern(tmp_path / "lake", tmp_path / "base", 5, 50, 500) == ["ran"] * 3
    return tmp_path


@pytest.fixture
def lake(root: Path) -> Lake:
    found = open_lake(root / "lake")
    promote(found, root / "base", force=True, reason="the first one")
    return found


def logged(lake: Lake, candidate: Path, gates: Any = SHIPS, baseline: Path | None = None) -> LoggedRun:
    diff = compare(lake.replay(baseline), lake.replay(candidate), gates=gates)
    return log(diff, experiment="nightly")


def narrowed(lake: Lake, candidate: Path) -> LoggedRun:
    return logged(lake.where(pl.col("args").str.contains("500")), candidate)


def champion(lake: Lake) -> str:
    return alias_log(lake).current[0].bundle_version


def test_what_a_run_says_ship_for_becomes_champion_and_is_enforced(lake: Lake, root: Path) -> None:
    """The loop: traffic, comparison, gates, promotion, and the new traffic carries the new version."""
    run = logged(lake, root / "over")
    with Runtime.open("champion", lake=lake.uri, look_every=3600) as runtime:
        runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
        session = runtime.session(principal="Agent::bot", tenant="acme")
        assert session.call("pay", order_id="o", cents=500) == 500
        done = promote(lake, root / "over", run_id=run.run_id, actor="eve")
        assert runtime.follower is not None
        assert runtime.follower.look().problem is None
        with pytest.raises(Blocked):
            session.call("pay", order_id="o", cents=500)
    over = load_bundle(root / "over").version
    assert (done.alias.alias, done.alias.bundle_version, done.alias.actor) == ("champion", over, "eve")
    assert done.alias.reason == f"run {run.run_id} says ship"
    assert champion(lake) == over
    last = lake.at().decisions.tail(1).collect().row(0, named=True)
    assert last["bundle_version"] == over
    assert json.loads(last["stage_inputs"])["alias"]["row_id"] == done.alias.row_id
    again = open_lake(lake.uri).replay().counts()
    assert again["decisions"] == again["decisions_decided"] == 5


def test_mlflow_mirrors_the_lake_and_a_difference_is_told(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    done = promote(lake, root / "over", run_id=run.run_id)
    name = model_of(lake.uri)
    assert done.problem is None
    assert str(done.mirrored).startswith(f"{name}/")
    with connect(run.tracking_uri) as store:
        found = store.client.get_model_version_by_alias(name, "champion")
        assert found.tags["redecide.bundle_version"] == done.alias.bundle_version
        assert found.run_id == run.run_id
        assert store.client.get_run(run.run_id).data.tags["redecide.promoted.champion"] == done.alias.row_id
    history = alias_log(lake)
    assert list(differences(lake.uri, history.current, run.tracking_uri)) == []
    roll_back(lake, reason="too strict")
    history = alias_log(lake)
    (told,) = differences(lake.uri, history.current, run.tracking_uri)
    assert f"in the lake, for {done.alias.bundle_version[:12]} in MLflow's {name}" in told


def test_a_rollback_is_mirrored_where_it_is_told_which_store(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    promote(lake, root / "over", run_id=run.run_id)
    back = roll_back(lake, reason="too strict", tracking_uri=run.tracking_uri)
    assert (back.mirrored, back.problem) == (None, None)  # MLflow never heard of the first version
    (told,) = differences(lake.uri, alias_log(lake).current, run.tracking_uri)
    assert "for nothing in MLflow's" in told, "nothing, rather than the version that was taken back"


def test_rolling_back_twice_goes_two_versions_back(lake: Lake, root: Path) -> None:
    base = champion(lake)
    for name in ("over", "all"):
        promote(lake, root / name, force=True, reason="x")
    assert roll_back(lake, reason="first on call").bundle == "over"
    assert roll_back(lake, reason="second on call").alias.bundle_version == base
    with pytest.raises(NotPromotable, match="one version only"):
        roll_back(lake, reason="third on call")
    promote(lake, root / "all", force=True, reason="fixed")
    assert roll_back(lake, reason="or not").alias.bundle_version == base


def test_where_mlflow_cannot_be_told_the_lake_holds(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = logged(lake, root / "over")

    def away(*_: Any) -> str:
        raise TrackingError("nobody answers")

    monkeypatch.setattr("workbench.promoting.promote.mirror", away)
    done = promote(lake, root / "over", run_id=run.run_id)
    assert (done.mirrored, done.problem) == (None, "nobody answers")
    assert "MLflow was not told: nobody answers" in repr(done)
    assert champion(lake) == done.alias.bundle_version


def refusals(lake: Lake, root: Path) -> dict[str, tuple[Callable[[], object], str]]:
    over, every = root / "over", root / "all"
    impossible = {"gates": [{"quantity": "good_lost", "at_most": 0, "on": "log"}]}
    return {
        "no run": (lambda: promote(lake, over), "no run says that over"),
        "forced without a reason": (lambda: promote(lake, over, force=True), "needs a reason"),
        "don't ship": (
            lambda: promote(lake, every, run_id=logged(lake, every, impossible).run_id),
            "it says: don't ship",
        ),
        "no gates": (lambda: promote(lake, over, run_id=logged(lake, over, None).run_id), "it had no gates"),
        "another version": (
            lambda: promote(lake, every, run_id=logged(lake, over).run_id),
            f"it is about version {load_bundle(over).version[:12]}",
        ),
        "another baseline": (
            lambda: promote(lake, over, run_id=logged(lake, over, baseline=every).run_id),
            f"compared with {load_bundle(every).version[:12]}, and the alias stands for",
        ),
        "some decisions": (
            lambda: promote(lake, every, run_id=narrowed(lake, every).run_id),
            "it is of some decisions only, those where",
        ),
        "other limits": (
            lambda: promote(lake, root / "tight", run_id=logged(lake, root / "tight").run_id),
            "it was not decided with the limits of this version",
        ),
        "other facts": (
            lambda: promote(lake, root / "facts", run_id=logged(lake, root / "facts").run_id),
            "it was not decided with the context spec of this version",
        ),
        "champion already": (
            lambda: promote(lake, root / "base", force=True, reason="x"),
            "already; nothing to do",
        ),
        "nothing before": (lambda: roll_back(lake, reason="x"), "it has stood for one version only"),
        "never given": (lambda: roll_back(lake, alias="challenger", reason="x"), "it was never given"),
    }


@pytest.mark.parametrize(
    "what",
    ["no run", "forced without a reason", "don't ship", "no gates", "another version", "another baseline",
     "some decisions", "other limits", "other facts", "champion already", "nothing before", "never given"],
)  # fmt: skip
def test_what_nothing_speaks_for_is_refused_and_changes_nothing(lake: Lake, root: Path, what: str) -> None:
    asked, message = refusals(lake, root)[what]
    before, bundles = alias_log(lake).rows, lake.bundles.collect().height
    with pytest.raises(NotPromotable) as refused:
        asked()
    assert message in str(refused.value)
    assert alias_log(lake).rows == before
    assert lake.bundles.collect().height == bundles


def test_a_run_that_is_not_there_or_not_ours_is_refused(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    with pytest.raises(NotPromotable, match="there is no run 'nothing'"):
        promote(lake, root / "over", run_id="nothing")
    with connect(run.tracking_uri) as store:
        other = store.client.create_run(run.experiment_id).info.run_id
    with pytest.raises(NotPromotable, match="is no comparison that"):
        promote(lake, root / "over", run_id=other)
    with pytest.raises(TrackingError):
        promote(lake, root / "over", run_id=run.run_id, tracking_uri="http://127.0.0.1:9")


def test_a_run_of_another_lake_is_refused(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    govern(root / "elsewhere" / "lake", root / "base", 5)
    other = open_lake(root / "elsewhere" / "lake")
    with pytest.raises(NotPromotable, match="it is about the lake at"):
        promote(other, root / "over", run_id=run.run_id, tracking_uri=run.tracking_uri)


def test_a_run_that_is_not_finished_is_refused(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    with connect(run.tracking_uri) as store:
        store.client.set_terminated(run.run_id, "FAILED")
    with pytest.raises(NotPromotable, match="the run is failed, not finished"):
        promote(lake, root / "over", run_id=run.run_id)


@pytest.mark.slow
def test_a_window_speaks_for_a_version_only_with_a_jobs_nights_behind_it(lake: Lake, root: Path) -> None:
    """A comparison of the newest rows, logged by hand, is of some decisions; a job's run says what all nights say."""
    (ledger,) = lake.pins.ledgers
    window = lake.since({ledger: 1})
    diff = compare(window.replay(), window.replay(root / "over"), gates=SHIPS)
    assert diff.verdict == "ship"
    by_hand = log(diff, experiment="nightly")
    with pytest.raises(NotPromotable, match="no job's nights stand behind it"):
        promote(lake, root / "over", run_id=by_hand.run_id)
    of_a_job = log(diff, experiment="nightly", tags={LOOKS: "2 windows"})
    assert promote(lake, root / "over", run_id=of_a_job.run_id).alias.alias == "champion"


def test_the_champion_moved_since_the_run(lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = logged(lake, root / "over")
    promote(lake, root / "all", force=True, reason="an emergency")
    with pytest.raises(NotPromotable, match="and the alias stands for"):
        promote(lake, root / "over", run_id=run.run_id)
    stale = alias_log(lake).rows[:1]
    monkeypatch.setattr("workbench.promoting.promote._read", lambda _: list(stale))
    with pytest.raises(AliasMoved, match="it was moved by"):
        promote(lake, root / "over", run_id=run.run_id)


def test_the_log_says_who_why_and_that_it_was_forced(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over", None)
    promote(lake, root / "over", run_id=run.run_id, force=True, reason="we know better", actor="eve")
    roll_back(lake, reason="we did not", actor="bob")
    rows = alias_log(lake).rows
    assert [row.actor for row in rows][1:] == ["eve", "bob"]
    assert [row.reason for row in rows] == [
        "forced: the first one",
        f"forced, run {run.run_id} says nothing: we know better",
        "forced: rolled back: we did not",
    ]
    assert rows[2].bundle_version == rows[0].bundle_version
    shown = repr(alias_log(lake))
    assert "champion is base" in shown
    assert "we know better" in shown


def test_what_is_in_the_log_is_text(lake: Lake, root: Path) -> None:
    promote(lake, root / "over", force=True, reason="<script>alert(1)</script>\x1b[2J", actor="<b>")
    html = alias_log(lake)._repr_html_()
    assert "<script>alert" not in html
    assert (
        "<b>" not in html.split("<table")[1].split("</table")[0].replace("<b>", "<b>", 0)
        or "&lt;b&gt;" in html
    )
    assert "\x1b" not in repr(alias_log(lake))


def test_the_commands(lake: Lake, root: Path) -> None:
    run = logged(lake, root / "over")
    done = CliRunner().invoke(
        app, ["promote", lake.uri, str(root / "over"), "--from-run", run.run_id, "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bundle_version"] == load_bundle(root / "over").version
    back = CliRunner().invoke(app, ["promote", lake.uri, "--back", "--reason", "no"])
    assert back.exit_code == 0
    assert "champion is base" in back.output
    told = CliRunner().invoke(app, ["aliases", lake.uri, "--json"])
    assert [row["reason"] for row in json.loads(told.stdout)["history"]][-1] == "forced: rolled back: no"
    differs = CliRunner().invoke(app, ["aliases", lake.uri, "--tracking-uri", run.tracking_uri])
    assert differs.exit_code == 1
    for wrong in (
        ["promote", lake.uri],
        ["promote", lake.uri, "--back"],
        ["promote", lake.uri, "x", "--back"],
    ):
        assert CliRunner().invoke(app, wrong).exit_code != 0


def test_a_version_of_the_lake_can_be_named(lake: Lake, root: Path) -> None:
    version = load_bundle(root / "base").version
    promote(lake, root / "over", force=True, reason="x")
    done = promote(lake, version[:12], force=True, reason="y")
    assert done.alias.bundle_version == version
    assert lake.aliases.filter(pl.col("alias") == "champion").collect().height == 3
