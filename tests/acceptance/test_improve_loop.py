"""The loop closes: traffic, a nightly job that finds a regression, a tuned version that ships, new traffic under it.

Everything is the real thing: a runtime that follows `champion`, its lake, job files, MLflow in a local store, the
promotion from the run of the night that said *ship*. Nobody restarts the runtime.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

import workbench as wb
from runtime import Blocked, Runtime, load_bundle
from workbench.errors import NotPromotable
from workbench.promoting.promote import alias_log
from workbench.promoting.registry import differences
from workbench.regressing.job_file import read_job
from workbench.regressing.regress import regress
from workbench.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.bundle import Bundle
    from workbench.regressing.result import Candidate, Night

pytestmark = pytest.mark.slow

SCHEMA = """
entity Agent; entity Order;
action "refund" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
RULES = """
@id("may-refund") permit (principal, action == Action::"refund", resource);

@id("large")
@tune("{{\\"most\\": {{\\"value\\": {limit}, \\"min\\": 0, \\"max\\": 100000}}}}")
forbid (principal, action == Action::"refund", resource) when {{ context.args.cents > {limit} }};
"""
IN_FORCE, PROPOSED = 50_000, 3_000
"""Limits of the rules in force, which let fraud through, and of a proposal that stops half of the good work."""
SESSIONS = 120
"""A night."""
JOB = """
name = "refunds"
lake = "lake"
baseline = "champion"
candidates = ["{candidate}"]

[window]
mode = "new"
first = "all"

[stakes]
harm = {{ origin = ["attack"] }}
good = {{ origin = ["user"] }}
money = {{ refund = "cents" }}

[[gates]]
quantity = "good_lost_share"
at_most = 0.1

[[gates]]
quantity = "harm_through_share"
at_most = 0.3

[looks]
largest_session = 2

[mlflow]
tracking_uri = "{store}"
experiment = "refunds"
traces = 3

[output]
notebook = false
"""


def rules(folder: Path, limit: int) -> Path:
    """Write a bundle that forbids refunds above a limit."""
    folder.mkdir(parents=True)
    (folder / "refunds.cedar").write_text(RULES.format(limit=limit))
    (folder / "schema.cedarschema").write_text(SCHEMA)
    return folder


class Shop:
    """Production: a runtime that is never restarted, and customers, some of whom are none."""

    def __init__(self, root: Path) -> None:
        self.root, self.pick = root, random.Random(8)
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        self.store = f"sqlite:///{root / 'mlflow.db'}"
        now = rules(root / "policies" / "now", IN_FORCE)
        with Runtime.open(now, lake=root / "lake", clock=self.clock) as first:
            self.customer(self.ready(first), "user", 1_000)
        wb.promote(self.lake, now, force=True, reason="the rules we began with")
        self.runtime = self.ready(
            Runtime.open("champion", lake=root / "lake", look_every=3600, clock=self.clock)
        )

    @property
    def lake(self) -> wb.Lake:
        return wb.open(self.root / "lake")

    def clock(self) -> datetime:
        self.now += timedelta(milliseconds=5)
        return self.now

    def ready(self, runtime: Runtime) -> Runtime:
        """Give a runtime the desk's only tool."""
        runtime.tool(lambda order_id, cents: cents, name="refund", resource="Order::{order_id}")
        return runtime

    def customer(self, runtime: Runtime, who: str, *cents: int) -> None:
        """One session, and what the review said of each call in it."""
        with runtime.session(principal="Agent::desk", tenant="acme") as session:
            for each in cents:
                with suppress(Blocked):
                    session.call("refund", order_id=f"o-{each}", cents=each)
                asked = session.last_decision
                assert asked is not None
                runtime.label(
                    "origin", who, session=session, decision_id=str(asked["decision_id"]), source="review"
                )

    def night(self) -> None:
        """A day of business. One customer in six is none, and asks for more than 120.00."""
        self.now += timedelta(days=1)
        for number in range(SESSIONS):
            fraud = number % 6 == 0
            cents = self.pick.randrange(12_001, 40_000) if fraud else self.pick.randrange(500, 6_000)
            more = self.pick.randrange(12_001, 20_000) if fraud else cents // 2
            self.customer(self.runtime, "attack" if fraud else "user", cents, more)
        self.runtime.drain()

    def regress(self, candidate: str) -> Night:
        """The nightly job, asked about a candidate."""
        path = self.root / "nightly.toml"
        path.write_text(JOB.format(candidate=candidate, store=self.store))
        return regress(read_job(path), now=self.clock)

    def champion(self) -> str:
        return alias_log(self.lake).current[0].bundle_version


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("loop"))
    yield made
    made.runtime.close()


def tuned(shop: Shop) -> Path:
    """Search the proposal's limit on half of the sessions, confirm on the others, and keep the best."""
    found = wb.search(
        shop.lake,
        shop.root / "policies" / "strict",
        {"most": [1_500, 3_000, 6_500, 9_000, 30_000]},
        objectives=["harm_let_through", "good_held_up"],
    )
    best = found.best("harm_let_through", at_most={"good_held_up": 0.2})
    return written(shop.root / "policies" / "tuned", found.sweep.bundle(best))


def written(folder: Path, bundle: Bundle) -> Path:
    folder.mkdir()
    for name, text in bundle.files.items():
        (folder / name).write_text(text)
    return folder


def refused(shop: Shop) -> None:
    """A day under the rules in force; somebody proposes a limit of 30.00, and the job says what that would do."""
    first, strict = shop.champion(), rules(shop.root / "policies" / "strict", PROPOSED)
    shop.night()
    night = shop.regress("policies/strict")
    assert night.exit_code == 1, night
    (candidate,) = night.candidates
    assert (candidate.baseline, candidate.baseline_version) == ("champion", first)
    lost = next(gate for gate in candidate.gates if gate.quantity == "good_lost_share")
    assert lost.state == "failed"
    assert lost.lower is not None
    assert lost.lower > 0.1
    assert candidate.regressed > 0
    assert {(row["side"], row["worse"]) for row in candidate.examples} == {("honest", "good work stopped")}
    assert "context.args.cents > 3000" in str(candidate.examples[0]["clause"])
    assert candidate.run_id is not None
    with pytest.raises(NotPromotable, match="it says: don't ship"):
        wb.promote(shop.lake, strict, run_id=candidate.run_id, tracking_uri=shop.store)
    assert shop.champion() == first


def passed(shop: Shop) -> Candidate:
    """It is tuned on the history, and after another day the job lets it pass."""
    made = tuned(shop)
    shop.night()
    night = shop.regress("policies/tuned")
    assert night.exit_code == 0, night
    (candidate,) = night.candidates
    assert [gate.state for gate in candidate.gates] == ["met", "met"]
    assert candidate.version == load_bundle(made).version
    with connect(shop.store) as store:
        tags = store.client.get_run(candidate.run_id).data.tags
    assert (tags["redecide.outcome"], tags["redecide.regression"]) == ("ship", "false")
    return candidate


def promoted(shop: Shop, candidate: Candidate) -> None:
    """It is promoted from that run; the runtime takes it up without a restart, and new traffic carries it."""
    made = shop.root / "policies" / "tuned"
    done = wb.promote(shop.lake, made, run_id=candidate.run_id, tracking_uri=shop.store, actor="eve")
    assert (done.alias.reason, done.problem) == (f"run {candidate.run_id} says ship", None)
    assert shop.runtime.follower is not None
    assert shop.runtime.follower.look().problem is None
    assert list(differences(shop.lake.uri, alias_log(shop.lake).current, shop.store)) == []
    before = shop.lake.pins
    shop.night()
    new = shop.lake.since(before).history.collect()
    assert new["bundle_version"].unique().to_list() == [candidate.version]
    assert new.height == 2 * SESSIONS
    assert json.loads(new["stage_inputs"][0])["alias"]["row_id"] == done.alias.row_id
    cents = pl.col("args").str.json_path_match("$.cents").cast(pl.Int64)
    blocked = new.filter(pl.col("verdict").cast(pl.String) == "block")
    assert blocked.height == 2 * SESSIONS // 6
    assert blocked.select(cents.min()).item() > 12_000


def next_night(shop: Shop, champion: str) -> None:
    """The next proposal is compared with it: the champion of then is the baseline of now."""
    rules(shop.root / "policies" / "loose", 20_000)
    (candidate,) = shop.regress("policies/loose").candidates
    assert candidate.baseline_version == champion
    assert candidate.window is not None
    assert candidate.window.watermark == sum(shop.lake.pins.ledgers.values())
    assert candidate.verdict == "don't ship"  # it lets run what the champion stopped
    same = shop.regress("policies/tuned")
    assert same.exit_code == 3
    assert "it is the baseline" in str(same.candidates[0].notes)


def test_the_loop_closes(shop: Shop) -> None:
    """One story, in the order it happens."""
    refused(shop)
    candidate = passed(shop)
    promoted(shop, candidate)
    next_night(shop, str(candidate.version))
    assert [row.reason for row in alias_log(shop.lake).rows] == [
        "forced: the rules we began with",
        f"run {candidate.run_id} says ship",
    ]
