"""A narrowed lake: what it gives is what the whole lake gives of those decisions, and it says what it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench.redeciding
from runtime import ApprovalRequired, Runtime, SignedTokens, SigningKey, TokenKey, sign_approval
from runtime.bundle import bundle_from_files
from runtime.entities import EntityUid
from workbench.compare import compare
from workbench.covering import coverage
from workbench.errors import AxisInvalid, ColumnUnknown, NotComparable, NotSavable
from workbench.keeping.saved import save
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
ASK = (
    '@id("large") @verdict("approve") forbid(principal, action == Action::"pay", resource) '
    "when { context.args.cents > 400 };\n"
)
OVER = '@id("over") forbid(principal, action == Action::"pay", resource) when { context.args.cents > 40 };\n'
SECRET = b"s" * 32
ACME = pl.col("tenant") == "acme"


def bundle(policies: str) -> Any:
    return bundle_from_files({"p.cedar": policies, "schema.cedarschema": SCHEMA}, "b")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two tenants; in each a call that waited for a person was granted, and ran as a decision of its own."""
    root = tmp_path_factory.mktemp("narrow")
    anything = frozenset({"*"})
    known = TokenKey(
        id="k", algorithm="HMAC-SHA256", material=SECRET, subjects=anything, roles=anything, tenants=anything
    )
    with Runtime.open(
        bundle(PERMIT + ASK), lake=root / "lake", authenticators=[SignedTokens([known])]
    ) as runtime:
        runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
        runtime.tool(lambda order_id: order_id, name="look", resource="Order::{order_id}")
        for tenant in ("acme", "blue"):
            session = runtime.session(principal="Agent::bot", tenant=tenant)
            for cents in (5, 50):
                session.call("pay", order_id="o", cents=cents)
                session.call("look", order_id="o")
            with pytest.raises(ApprovalRequired) as asked:
                session.call("pay", order_id="o", cents=500)
            waiting = runtime.approvals.get(asked.value.approval_id)
            key = SigningKey(id="k", algorithm="HMAC-SHA256", material=SECRET)
            said = sign_approval(
                waiting, key=key, approver=EntityUid.parse("User::fin"), now=datetime.now(UTC)
            )
            runtime.approvals.grant(asked.value.approval_id, said)
            session.resume(asked.value.approval_id)
            runtime.label("origin", "honest", session=session, source="test")
    return open_lake(root / "lake")


SAID = ("decision_id", "kind", "status", "verdict", "determining", "then", "effect", "recorded_verdict")
CHOICES = {
    "a tenant": ACME,
    "a tool": pl.col("tool") == "pay",
    "what asked, not what resumed it": pl.col("kind") == "call",
    "what resumed, not what asked": pl.col("kind") == "resumed",
    "nothing": pl.lit(value=False),
}


@pytest.mark.parametrize("engine", ["rows", "auto"])
@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("policy", [None, PERMIT + ASK + OVER], ids=["itself", "candidate"])
def test_its_replay_is_the_replay_of_those_decisions(
    lake: Lake, engine: str, chosen: pl.Expr, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)
    given = None if policy is None else bundle(policy)
    whole = lake.replay(given, engine=engine)  # type: ignore[arg-type]  # parametrised
    ids = lake.decisions.filter(chosen).select("decision_id").collect()["decision_id"]
    narrow = lake.where(chosen).replay(given, engine=engine)  # type: ignore[arg-type]  # parametrised
    wanted = whole.rows.filter(pl.col("decision_id").is_in(ids.implode())).select(SAID)
    assert narrow.rows.select(SAID).equals(wanted)
    assert narrow.counts()["decisions"] == ids.len()


def test_what_waited_is_known_to_have_run_though_its_resumption_is_not_chosen(lake: Lake) -> None:
    found = lake.where(pl.col("kind") == "call").replay().rows.filter(recorded_verdict="approve")
    assert found["then"].to_list() == ["granted", "granted"]


def test_it_counts_what_it_is_narrowed_to(lake: Lake) -> None:
    narrow = lake.where(ACME)
    assert lake.overview.decisions == 2 * narrow.overview.decisions
    assert narrow.overview.labels == {"origin": 1}
    assert sum(narrow.overview.endings.values()) * 2 == sum(lake.overview.endings.values())
    assert narrow.sessions.collect()["tenant"].to_list() == ["acme"]
    assert set(narrow.executions.collect()["decision_id"]) <= set(narrow.decisions.collect()["decision_id"])
    assert narrow.labels.collect().height == 2, "labels are what decisions refer to: all there"
    counted: Any = coverage(narrow).as_dict()["decisions"]
    assert counted["total"] == narrow.overview.decisions


def test_conditions_add_up_and_stay_at_another_pin(lake: Lake) -> None:
    one = lake.where(ACME).where(pl.col("tool") == "look")
    both = lake.where(ACME, pl.col("tool") == "look")
    ids = one.decisions.collect()["decision_id"].to_list()
    assert len(ids) == 2
    assert both.decisions.collect()["decision_id"].to_list() == ids
    assert one.at(lake.pins).decisions.collect()["decision_id"].to_list() == ids
    assert lake.where().chosen is None
    assert lake.chosen is None, "the lake itself stays as it is"


def test_null_is_not_chosen(lake: Lake) -> None:
    unknown = pl.when(pl.col("tenant") == "acme").then(statement=True)
    assert lake.where(unknown).replay().counts()["decisions"] == lake.where(ACME).overview.decisions


def test_a_sweep_and_a_comparison_are_of_what_was_chosen(lake: Lake) -> None:
    narrow = lake.where(ACME)
    swept = narrow.sweep([bundle(PERMIT + ASK + OVER)])
    assert swept.frame.collect()["decisions"].to_list() == [narrow.replay().counts()["decisions"]]
    assert swept.pins["where"].startswith(f"{ACME} #")
    diff = compare(narrow.replay(), narrow.replay(bundle(PERMIT + ASK + OVER)))
    assert set(diff.frame.collect()["tenant"]) == {"acme"}
    assert diff.divergence.counts()["decisions"] == 6
    assert "an earlier change among the others is not seen" in diff.divergence.headline


def test_it_says_so(lake: Lake) -> None:
    narrow = lake.where(ACME)
    text = str(ACME)
    assert f"narrowed to decisions where {text}" in repr(narrow)
    assert f"of decisions where {text}" in narrow.replay().headline
    assert narrow.replay().pins["where"].startswith(f"{text} #")
    ids = lake.decisions.collect()["decision_id"]
    one, other = (lake.where(pl.col("decision_id").is_in(some)).replay() for some in (ids[:3], ids[3:6]))
    assert one.pins["where"] != other.pins["where"], "two conditions of one text"
    assert one.pins["where"] == lake.where(pl.col("decision_id").is_in(ids[:3])).replay().pins["where"]
    assert "where" not in lake.replay().pins


def refused(lake: Lake) -> dict[str, tuple[type[Exception], str, Callable[[], object]]]:
    narrow = lake.where(ACME)
    return {
        "column": (ColumnUnknown, "did you mean `tenant`", lambda: lake.where(pl.col("tennant") == "acme")),
        "no truth": (ValueError, "gives String", lambda: lake.where(pl.col("tenant"))),
        "no expression": (ValueError, "takes Polars expressions", lambda: lake.where("acme")),  # type: ignore[arg-type]
        "compare": (
            NotComparable,
            "cover different decisions",
            lambda: compare(lake.replay(), narrow.replay()),
        ),
        "save": (NotSavable, "of decisions that were chosen", lambda: save(narrow.replay())),
        "simulate": (AxisInvalid, "moved by every call", lambda: narrow.replay(state="simulated")),
    }


@pytest.mark.parametrize("what", ["column", "no truth", "no expression", "compare", "save", "simulate"])
def test_refusals_say_the_way_out(lake: Lake, what: str) -> None:
    kind, message, asked = refused(lake)[what]
    with pytest.raises(kind, match=message):
        asked()


def test_a_window_is_what_came_after_a_pin_and_is_named_so(lake: Lake) -> None:
    """Windows partition the log: nothing is in two, nothing in none; pins of replays name them."""
    (ledger, last), *others = lake.pins.ledgers.items()
    assert others == []
    every = lake.history.select("decision_id").collect()["decision_id"].sort()
    for middle in range(last + 1):
        before, after = lake.at({ledger: middle}) if middle else None, lake.since({ledger: middle})
        parts = [each.history.select("decision_id").collect() for each in (before, after) if each is not None]
        assert pl.concat(parts)["decision_id"].sort().equals(every), middle
    window = lake.since({ledger: last // 2})
    replay = window.replay(recompile=False)
    assert replay.pins["after"] == {ledger: last // 2}
    assert "where" not in replay.pins
    assert f"position > {last // 2} of ledger {ledger}" in replay.headline
    assert replay.counts()["decisions"] == window.history.collect().height
    with pytest.raises(NotComparable, match="lake\\.since"):
        compare(lake.replay(recompile=False), replay)


def test_a_window_and_a_condition_both_hold(lake: Lake) -> None:
    (ledger,) = lake.pins.ledgers
    both = lake.where(ACME).since({ledger: 4})
    rows = both.history.collect()
    every = lake.where(ACME).history.collect()
    assert 0 < rows.height < every.height
    assert rows["decision_id"].sort().equals(every.filter(pl.col("position") > 4)["decision_id"].sort())
    assert {"after", "where"} <= both.replay(recompile=False).pins.keys()


def test_a_ledger_that_is_not_named_is_in_the_window(lake: Lake) -> None:
    assert lake.since({"another": 10**9}).history.collect().height == lake.history.collect().height
    many = {f"l{n}": 5 for n in range(40)}  # written another way
    assert lake.since(many).history.collect().height == lake.history.collect().height
