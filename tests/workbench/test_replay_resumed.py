"""Calls that waited for people, replayed: what was granted stays granted, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from runtime import ApprovalRequired, Blocked, Runtime, SignedTokens, SigningKey, TokenKey, sign_approval
from runtime.bundle import bundle_from_files
from runtime.entities import EntityUid
from workbench.errors import UnsupportedPolicy
from workbench.lake import Lake, open_lake

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, cents: Long, note?: String } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
ASK = '@id("large") @verdict("approve") forbid(principal, action, resource) when { context.args.cents > 100 };\n'
HUGE = '@id("huge") @verdict("approve") forbid(principal, action, resource) when { context.args.cents > 1000 };\n'
CAP = (
    '@id("cap") @verdict("modify") @patch("{\\"cents\\": 300}") '
    "forbid(principal, action, resource) when { context.args.cents == 333 };\n"
)
BY_PEOPLE = (
    '@id("by-people") forbid(principal, action, resource) when { context has approval && '
    'context.approval.approvers.contains("User::\\"eve\\"") };\n'
)
LATE = (
    '@id("late") @verdict("approve") forbid(principal, action, resource) '
    'when { context.args.cents == 700 && context.now > datetime("2026-11-23T01:00:00Z") };\n'
)
POLICIES = PERMIT + ASK + HUGE + CAP + BY_PEOPLE + LATE
SECRET = b"s" * 32


def folder(root: Path, policies: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "p.cedar").write_text(policies)
    (root / "schema.cedarschema").write_text(SCHEMA)
    return root


class Story:
    """A runtime whose calls are granted, denied or left waiting, and the lake it leaves."""

    def __init__(self, root: Path) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.root = root
        anything = frozenset({"*"})
        key = TokenKey(
            id="k",
            algorithm="HMAC-SHA256",
            material=SECRET,
            subjects=anything,
            roles=anything,
            tenants=anything,
        )
        self.known = [SignedTokens([key])]
        self.runtime = self.open(POLICIES)

    def open(self, policies: str) -> Runtime:
        files = {"p.cedar": policies, "schema.cedarschema": SCHEMA}
        runtime = Runtime.open(
            bundle_from_files(files, "b"), lake=self.root / "lake", clock=lambda: self.now,
            authenticators=self.known,
        )  # fmt: skip

        @runtime.tool(resource="Order::{order_id}")
        def pay(order_id: str, cents: int, note: str | None = None) -> int:
            if cents == 666:
                raise RuntimeError("no")
            return cents

        return runtime

    def session(self, runtime: Runtime | None = None) -> Any:
        return (runtime or self.runtime).session(principal="Agent::bot", tenant="acme", session_id="s")

    def ask(self, cents: int, **more: Any) -> str:
        with pytest.raises(ApprovalRequired) as asked:
            self.session().call("pay", order_id="o", cents=cents, **more)
        self.now += timedelta(seconds=1)
        return asked.value.approval_id

    def says(self, ident: str, who: str = "User::fin", **more: Any) -> Any:
        key = SigningKey(id="k", algorithm="HMAC-SHA256", material=SECRET)
        waiting = self.runtime.approvals.get(ident)
        return sign_approval(waiting, key=key, approver=EntityUid.parse(who), now=self.now, **more)

    def grant(self, ident: str, who: str = "User::fin") -> None:
        self.runtime.approvals.grant(ident, self.says(ident, who))
        self.now += timedelta(seconds=1)

    def told(self) -> Lake:
        self.runtime.close()
        return open_lake(self.root / "lake")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Every way in which a call that waited can go on, an amount each."""
    story = Story(tmp_path_factory.mktemp("resumed"))
    session = story.session()
    session.call("pay", order_id="o", cents=1)
    for cents in (500, 5000, 333):
        ident = story.ask(cents)
        story.grant(ident)
        session.resume(ident)
    again = story.ask(600)
    story.grant(again)
    session.resume(again)
    with pytest.raises(Blocked):
        session.resume(again)  # grant_consumed
    failed = story.ask(666)
    story.grant(failed)
    with pytest.raises(RuntimeError):
        session.resume(failed)
    eve = story.ask(510)
    story.grant(eve, "User::eve")
    with pytest.raises(Blocked):
        session.resume(eve)  # by a policy that looks at the approvers
    denied = story.ask(520)
    story.runtime.approvals.deny(denied, story.says(denied, decision="denied"))
    with pytest.raises(Blocked):
        session.resume(denied)
    stale = story.ask(530)
    story.grant(stale)
    other = story.open(POLICIES + "// changed\n")
    with pytest.raises(Blocked):
        story.session(other).resume(stale)  # grant_stale
    other.ledger.close()
    keyed = [story.ask(540, idempotency_key="k") for _ in range(2)]
    for ident in keyed:
        story.grant(ident)
        session.resume(ident)
    first = story.ask(700)
    story.grant(first)
    story.now += timedelta(hours=2)
    with pytest.raises(ApprovalRequired) as asked:
        session.resume(first)
    story.grant(asked.value.approval_id)
    session.resume(asked.value.approval_id)
    story.ask(550)  # left waiting
    return story.told()


def rows(replay: Any) -> pl.DataFrame:
    cents = pl.col("args").str.json_path_match("$.cents").cast(pl.Int64)
    return replay.frame.collect().sort("position").with_columns(cents=cents)  # type: ignore[no-any-return]


def test_every_row_reproduces_itself_and_changes_no_effect(lake: Lake) -> None:
    found = rows(lake.replay(engine="rows"))
    assert found.filter(pl.col("kind") == "resumed").height == 12
    assert found["decidable"].all(), found.filter(~pl.col("decidable")).select(
        "kind", "cents", "cause", "recorded_reason_code"
    )
    assert set(found["status"]) == {"decided"}
    assert set(found["effect"]) == {"same"}
    assert not found["verdict_changed"].any()
    codes = set(found.filter(pl.col("recorded_decided_by") == "approval")["reason_code"])
    assert codes == {"grant_consumed", "grant_denied", "grant_stale"}


def test_what_became_of_a_call_that_waited(lake: Lake) -> None:
    found = rows(lake.replay(engine="rows")).filter(pl.col("recorded_verdict") == "approve")
    then = {cents: sorted(set(mine["then"])) for (cents,), mine in found.group_by("cents")}
    assert then == {
        500: ["granted"], 5000: ["granted"], 333: ["granted"], 600: ["granted"], 666: ["granted"],
        510: ["waiting"], 520: ["not_granted"], 530: ["waiting"], 550: ["waiting"],
        540: ["granted", "waiting"],  # the second returned what the first had done: it had no effect of its own
        700: ["granted"],  # both: the one that asked first, and the one that asked when it was resumed
    }  # fmt: skip


def test_the_columnar_engine_hands_them_over_and_says_so(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    by_rows = lake.replay(engine="rows")
    with monkeypatch.context() as patch:
        patch.setattr("workbench.redeciding.COLUMNS_PAY", 0)
        mixed = lake.replay(engine="auto")
    how = ("engine", "handed_over")
    assert rows(mixed).drop(how).equals(rows(by_rows).drop(how))
    ((why, count),) = mixed.handed_over.items()
    # The twelve, and the duplicate that one of them became; no other row.
    assert (why.split(":")[0], count) == ("the call was resumed", 13)
    with pytest.raises(UnsupportedPolicy, match="the call was resumed"):
        lake.replay(engine="columnar")


CANDIDATES: dict[str, tuple[str, dict[int, tuple[str, str]]]] = {
    "no approval any more": (
        PERMIT,
        {500: ("allow", "same"), 5000: ("allow", "same"), 550: ("allow", "released")},
    ),
    "the same approvals": (
        POLICIES,
        {500: ("approve", "same"), 5000: ("approve", "same"), 550: ("approve", "same")},
    ),
    "a plain forbid": (
        PERMIT + ASK.replace('@verdict("approve") ', ""),
        {500: ("block", "prevented"), 5000: ("block", "prevented"), 550: ("block", "same")},
    ),
}


@pytest.mark.parametrize(("policies", "asking"), CANDIDATES.values(), ids=CANDIDATES)
def test_what_a_candidate_would_have_asked(
    lake: Lake, tmp_path: Path, policies: str, asking: dict[int, tuple[str, str]]
) -> None:
    found = rows(lake.replay(policy=folder(tmp_path / "next", policies), engine="rows"))
    asked = found.filter(pl.col("kind") == "call", pl.col("cents").is_in(list(asking)))
    assert {row["cents"]: (row["verdict"], row["effect"]) for row in asked.iter_rows(named=True)} == asking


def test_a_candidate_is_granted_what_people_granted_and_no_more(lake: Lake, tmp_path: Path) -> None:
    """The same action under another text is what people approved; a policy of another id asks them anew."""

    def resumed(policies: str, cents: int) -> tuple[str, str, str]:
        found = rows(lake.replay(policy=folder(tmp_path / "next", policies), engine="rows"))
        (row,) = found.filter(
            pl.col("kind") == "resumed", pl.col("cents") == cents, pl.col("recorded_verdict") == "allow"
        ).iter_rows(named=True)
        return row["verdict"], row["reason_code"], row["effect"]

    assert resumed(POLICIES + "// another text\n", 500) == ("allow", "permitted", "same")
    assert resumed(PERMIT, 500) == ("allow", "permitted", "same")
    assert resumed(POLICIES.replace('"large"', '"other"'), 500) == ("approve", "approval_required", "held")
    assert resumed(PERMIT + ASK.replace('@verdict("approve") ', ""), 500) == (
        "block",
        "forbidden",
        "prevented",
    )
    cut = CAP.replace("333", "500")
    assert resumed(POLICIES + cut.replace('"cap"', '"cut"'), 500) == ("block", "grant_stale", "prevented")


def test_a_damaged_approval_is_quarantined(tmp_path: Path) -> None:
    from workbench.recorded import Recorded

    record = Recorded({"approval": "[]", "policy_hash": "p"}, None, None)
    with pytest.raises(TypeError):
        _ = record.grants
