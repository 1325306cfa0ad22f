"""What a change is worth, end to end: a hand-computed log, its faces, and a real lake with grants and late labels."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from runtime import ApprovalRequired, Runtime, SignedTokens, SigningKey, TokenKey, sign_approval
from runtime.bundle import bundle_from_files
from runtime.entities import EntityUid
from workbench import faces
from workbench.compare import compare
from workbench.errors import ColumnUnknown
from workbench.lake import open_lake
from workbench.weighing.simulators import Simulation, Situation, prepared, simulate
from workbench.weighing.stakes import Stakes
from workbench.weighing.worth import worth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.lake import Lake

    Make = Callable[..., Diff]

HOSTILE = '<script>alert("x")</script>\u202e'
SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
ASK = '@id("large") @verdict("approve") forbid(principal, action, resource) when { context.args.cents > 2000 };\n'
PATCH = (
    '@id("cap{0}") @verdict("modify") @patch("{{\\"cents\\": {1}}}") '
    "forbid(principal, action, resource) when {{ context.args.cents == {0} }};\n"
)
STOP = '@id("stop") forbid(principal, action, resource) when { context.args.cents == 1500 };\n'
BASELINE = PERMIT + ASK + PATCH.format(333, 300)
CANDIDATE = PERMIT + STOP + PATCH.format(333, 300) + PATCH.format(900, 100)
SECRET = b"s" * 32


class Desk:
    """A desk whose payments are staged: held, then captured or let go. It remembers what became of each."""

    def __init__(self, root: Path) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.held: set[str] = set()
        self.captured: list[int] = []
        everybody = frozenset({"*"})
        key = TokenKey(
            id="k", algorithm="HMAC-SHA256", material=SECRET, subjects=everybody, roles=everybody, tenants=everybody
        )  # fmt: skip
        self.runtime = Runtime.open(
            bundle_from_files({"p.cedar": BASELINE, "schema.cedarschema": SCHEMA}, "base"),
            lake=root / "lake", clock=lambda: self.now, authenticators=[SignedTokens([key])],
        )  # fmt: skip
        self.runtime.tool(
            self.pay, name="pay", effect="staged", commit=self.capture, abort=self.release, resource="Order::{order_id}"
        )  # fmt: skip

    def pay(self, order_id: str, cents: int, effect_id: str) -> dict[str, Any]:
        self.held.add(effect_id)
        return {"id": effect_id, "cents": cents, "order": order_id}

    def capture(self, handle: dict[str, Any]) -> int:
        self.held.discard(handle["id"])
        self.captured.append(handle["cents"])
        return int(handle["cents"])

    def release(self, handle: dict[str, Any] | None, effect_id: str) -> None:
        self.held.discard(effect_id)

    def session(self) -> Any:
        self.now += timedelta(seconds=1)
        return self.runtime.session(principal="Agent::bot", tenant="acme", session_id="s")

    def call(self, cents: int, origin: str) -> str:
        """Ask for a payment; if it waits, the id of its approval is returned, else an empty text."""
        session = self.session()
        try:
            session.call("pay", order_id="o", cents=cents)
        except ApprovalRequired as asked:
            self.label(session, "origin", origin)
            return asked.approval_id
        self.label(session, "origin", origin)
        return ""

    def label(self, session: Any, name: str, value: str) -> None:
        decision = str(session.last_decision["decision_id"])
        self.runtime.label(name, value, session=session, decision_id=decision, source="test")

    def grant(self, ident: str, origin: str) -> None:
        key = SigningKey(id="k", algorithm="HMAC-SHA256", material=SECRET)
        waiting = self.runtime.approvals.get(ident)
        token = sign_approval(waiting, key=key, approver=EntityUid.parse("User::fin"), now=self.now)
        self.runtime.approvals.grant(ident, token)
        session = self.session()
        session.resume(ident)
        self.label(session, "origin", origin)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Return a desk after six payments: two good ones, one of them cut; three harmful ones, one granted; one waits."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.call(50, "user")
    desk.call(333, "user")
    desk.grant(desk.call(5000, "attack"), "attack")
    desk.call(900, "attack")
    desk.call(1500, "attack")
    desk.call(3000, "attack")
    desk.runtime.drain()
    return desk


@pytest.fixture(scope="module")
def lake(desk: Desk) -> Lake:
    return open_lake(desk.runtime.lake)


@pytest.fixture(scope="module")
def diff(lake: Lake) -> Diff:
    candidate = bundle_from_files({"p.cedar": CANDIDATE, "schema.cedarschema": SCHEMA}, "next")
    return compare(lake.replay(), lake.replay(policy=candidate))


def spans(found: Any, *names: str) -> dict[str, tuple[int, int]]:
    return {name: (found[name].low, found[name].high) for name in names}


HARM = ("harm_ran", "harm_avoided", "harm_through", "harm_new")
MONEY = (
    "harm_money_ran",
    "harm_money_avoided",
    "harm_money_through",
    "good_money_ran",
    "money_then",
    "money_now",
)


def test_a_real_log_by_hand(diff: Diff, desk: Desk) -> None:
    """1500 is stopped, 900 becomes 100, 5000 runs unasked, 3000 would run at last; 333 is cut to 300 as before."""
    assert desk.captured == [50, 300, 5000, 900, 1500]
    found = worth(diff, {"money": {"pay": "cents"}})
    assert spans(found, *HARM) == {
        "harm_ran": (3, 3), "harm_avoided": (1, 2), "harm_through": (1, 3), "harm_new": (0, 1),
    }  # fmt: skip
    assert spans(found, *MONEY) == {
        "harm_money_ran": (7400, 7400),
        "harm_money_avoided": (1500 + 800, 1500 + 900),
        "harm_money_through": (5000, 5000 + 100 + 3000),
        "good_money_ran": (350, 350),
        "money_then": (7750, 7750),
        "money_now": (50 + 300 + 5000 + 100 + 3000,) * 2,
    }
    assert spans(found, "good_ran", "good_lost", "approvals_then", "approvals_now", "approvals_saved") == {
        "good_ran": (2, 2), "good_lost": (0, 0), "approvals_then": (2, 2), "approvals_now": (0, 0), "approvals_saved": (2, 2),
    }  # fmt: skip
    assert (found["harm_avoided"].basis, found["harm_ran"].basis) == ("bounds", "exact")


def test_a_staged_tools_own_prepare_tells_and_nothing_is_captured(diff: Diff, desk: Desk) -> None:
    captured, asked = list(desk.captured), []

    def judge(situation: Situation, handle: dict[str, Any]) -> Simulation:
        assert desk.held == {handle["id"]}
        asked.append((situation.then, handle["cents"]))
        return Simulation(outcome="ran", harm=handle["cents"] > 1000)

    simulated = simulate(diff, {"pay": prepared(desk.pay, desk.release, judge=judge)})
    assert asked == [("ran", 100), ("waiting", 3000)]
    assert (desk.captured, desk.held) == (captured, set())
    found = worth(diff, {"money": {"pay": "cents"}}, simulated)
    assert spans(found, *HARM, "harm_money_avoided", "harm_money_through") == {
        "harm_ran": (3, 3), "harm_avoided": (2, 2), "harm_through": (2, 2), "harm_new": (1, 1),
        "harm_money_avoided": (2400, 2400), "harm_money_through": (8000, 8000),
    }  # fmt: skip
    assert {found[name].basis for name in HARM[1:]} == {"simulated"}
    assert simulated.rows["result"].to_list() == ["900", None]


def test_a_label_counts_when_it_comes(desk: Desk, diff: Diff) -> None:
    """A chargeback recorded after the comparison was made is in the next one."""
    stakes = {"harm": {"chargeback": ["true"]}, "good": {"chargeback": ["false"]}, "missing": "none"}
    assert worth(diff, stakes).has_labels is False
    session = desk.session()
    rows = diff.frame.filter(pl.col("tool") == "pay").select("decision_id").collect().to_series()
    for decision, value in ((rows[0], "false"), (rows[5], "true")):
        desk.runtime.label("chargeback", value, session=session, decision_id=decision, source="bank")
    desk.runtime.drain()
    late = open_lake(desk.runtime.lake)
    candidate = bundle_from_files({"p.cedar": CANDIDATE, "schema.cedarschema": SCHEMA}, "next")
    found = worth(compare(late.replay(), late.replay(policy=candidate)), stakes)
    assert spans(found, "harm_ran", "harm_avoided", "good_ran", "good_lost") == {
        "harm_ran": (1, 1), "harm_avoided": (1, 1), "good_ran": (1, 1), "good_lost": (0, 0),
    }  # fmt: skip
    assert "Unlabelled: 5 decisions, counted apart" in repr(found)


def test_the_same_policy_is_worth_nothing(lake: Lake) -> None:
    base = lake.replay()
    found = worth(
        compare(base, lake.replay(policy=lake.bundle(base.lake.decisions.collect()["bundle_version"][0])))
    )
    for name in ("harm_avoided", "harm_new", "good_lost", "good_new", "approvals_added", "approvals_saved"):
        assert (found[name].low, found[name].high) == (0, 0), name
    assert (found.frame.collect()["basis"] == "exact").all()


def test_without_labels_nothing_is_said_of_harm(make: Make) -> None:
    found = worth(make([{"then": "ran", "now": "waits"}]))
    assert not [name for name in found.numbers if name.startswith(("harm", "good", "money"))]
    assert "No label says which were harmful." in repr(found)
    assert found["calls_held"].low == 1


def test_numbers_by_a_column_add_up(diff: Diff) -> None:
    found = worth(diff, {"money": {"pay": "cents"}})
    for column in ("tool", "then", "session_id", "kind"):
        parts = found.by(column).collect()
        for name, bound in found.numbers.items():
            assert (parts[f"{name}_low"].sum(), parts[f"{name}_high"].sum()) == (bound.low, bound.high), (
                column,
                name,
            )
    assert found.by().collect().height == 1
    with pytest.raises(ColumnUnknown, match="did you mean `tool`"):
        found.by("toll")
    with pytest.raises(ColumnUnknown, match="did you mean `harm_avoided`"):
        found["harm_avoidd"]


def test_every_face_shows_the_numbers_and_nothing_of_the_log_gets_through(make: Make, tmp_path: Path) -> None:
    calls = [
        {"then": "ran", "now": "another_action", "labels": {"origin": "attack"}, "tool": HOSTILE},
        {"then": "ran", "now": "same_action", "labels": {"origin": HOSTILE}},
    ]
    diff = make(calls)
    simulated = simulate(diff, {HOSTILE: lambda _: 1 / 0})  # type: ignore[dict-item,return-value]  # it fails
    found = worth(diff, None, simulated)
    shown = [
        repr(found),
        found.markdown(),
        found._repr_html_(),
        found.to_html(tmp_path / "w.html").read_text(),
    ]
    for face in shown:
        assert "harmful actions that ran and would not come about" in face
        assert "0 to 1" in face
        assert "\u202e" not in face
    assert all("<script>alert" not in face for face in shown[1:])
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    row = next(row for row in data["quantities"] if row["quantity"] == "harm_avoided")
    assert (row["low"], row["high"], row["basis"]) == (0, 1, "bounds")
    assert sum(row["n"] for row in data["classes"]) == 2
    assert data["simulated"]["outcomes"][0]["outcome"] == "not known"
    assert faces.text(simulated.page()) == repr(simulated)


def test_every_column_is_there_and_rows_stay_as_they_were(diff: Diff) -> None:
    from workbench.weighing.at_stake import ADDED

    rows = Stakes.of({"money": {"pay": "cents"}}).columns(diff).collect()
    assert rows.columns == [*diff.frame.collect_schema().names(), *ADDED]
    assert rows.select(diff.frame.collect_schema().names()).equals(diff.frame.collect())
    kinds = {name: rows.schema[name] for name in ADDED if name != "stake"}
    assert set(kinds.values()) == {pl.Boolean(), pl.Int64()}
