"""Drift between windows of real lakes, and its measures by hand."""

from __future__ import annotations

import json
import math
import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from runtime import Blocked, Runtime
from workbench.drifting.drift import FRAME, Drift, _ranked, _row, drift
from workbench.drifting.measures import categories, categories_p, numbers, numbers_p
from workbench.drifting.values import Name, _members
from workbench.errors import NotComparable
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = """
entity Team; entity Agent in [Team] = { level?: Long }; entity Order = { open?: Bool };
action "refund" appliesTo { principal: [Agent], resource: [Order],
  context: { args: { order_id: String, cents: Long, note?: String, rate?: decimal, until?: datetime },
             order?: { refundable: Long, rate?: decimal, placed?: String } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
POLICIES = """
@id("permit") permit(principal is Agent, action, resource);
@id("over") forbid(principal, action == Action::"refund", resource)
when { context has order && context.args.cents > context.order.refundable };
@id("level") forbid(principal, action == Action::"look", resource) when { principal has level && principal.level < 1 };
"""
FACTS = """
[sources.orders]
kind = "delta"
uri = "../orders"
[sources.agents]
kind = "delta"
uri = "../agents"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { id = "args.order_id" }
fields = ["refundable", "rate", "placed"]
shared = true
[[facts]]
name = "agent"
actions = ["*"]
source = "agents"
key = { id = "principal.id" }
fields = ["level"]
into = "principal"
shared = true
"""


def orders(root: Path, refundable: int, known: int) -> None:
    """`known` of ten orders; the first can be refunded `refundable`, each further one more."""
    ids = [f"o-{n}" for n in range(known)]
    rows = {
        "id": ids,
        "refundable": [refundable + n for n in range(known)],
        "rate": pa.array(["1.5"] * known),
        "placed": ["2026-01-02T03:04:05Z"] * known,
    }
    write_deltalake(str(root / "orders"), pa.table(rows), mode="overwrite")


def _refund(order_id: str, cents: int, note: str | None = None, rate: str = "", until: str = "") -> int:
    return 1


def record(root: Path, sessions: int, seed: int, note: Callable[[int], str | None] = lambda _: None) -> Lake:
    """Each session: two refunds of some order by one of two agents, and one look."""
    folder = root / "bundle"
    folder.mkdir(exist_ok=True)
    for name, text in (("p.cedar", POLICIES), ("schema.cedarschema", SCHEMA), ("context.toml", FACTS)):
        (folder / name).write_text(text)
    pick = random.Random(seed)
    with Runtime.open(folder, lake=root / "lake") as runtime:
        runtime.tool(_refund, name="refund", resource="Order::{order_id}")
        runtime.tool(lambda order_id: 1, name="look", resource="Order::{order_id}")
        for number in range(sessions):
            session = runtime.session(principal=f"Agent::a{number % 2}", tenant="acme")
            given = note(number)
            args = {"rate": "1.25", "until": "2027-01-01"} | ({} if given is None else {"note": given})
            for _ in range(2):
                with suppress(Blocked):
                    session.call(
                        "refund", order_id=f"o-{pick.randrange(10)}", cents=pick.randrange(50, 150), **args
                    )
            session.call("look", order_id="o-1")
    return open_lake(root / "lake")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two windows of 40 sessions: in the second, orders can be refunded less, and half of them are unknown."""
    root = tmp_path_factory.mktemp("desk")
    write_deltalake(str(root / "agents"), pa.table({"id": ["a0", "a1"], "level": [1, 2]}))
    orders(root, 100, 10)
    before = record(root, 40, 1)
    time.sleep(0.01)
    at = datetime.now(UTC)
    orders(root, 20, 5)
    after = record(root, 40, 2)
    return {"root": root, "before": before, "after": after, "at": at}


def by_name(found: Drift) -> dict[str, dict[str, Any]]:
    rows = found.frame.collect().to_dicts()
    return {" ".join(filter(None, (row["path"], row["what"], row["tool"]))): row for row in rows}


def test_what_changed_and_which_decisions_hang_on_it(desk: dict[str, Any]) -> None:
    lake = desk["after"]
    found = drift(lake, (None, desk["at"]))
    rows = by_name(found)
    assert found.frame.collect_schema() == pl.Schema(FRAME)
    assert (found.decisions, found.sessions, found.shared_sessions) == ((120, 120), (40, 40), 0)
    drifted = set(found.drifted.collect()["path"])
    assert {"context.order", "context.order.refundable"} <= drifted
    assert not {"principal.level", "context.args.order_id", "context.args.cents", "tool"} & drifted
    value = rows["context.order.refundable value"]
    # 100 to 109 before, 20 to 24 after: nothing in common.
    assert (value["distance"], value["effect"], value["measure"]) == (pytest.approx(1), 1, "D")
    assert value["standardised"] < -10
    assert value["p_holm"] < 0.001
    assert (value["n_before"], value["policies"]) == (80, ["over"])
    recorded = lake.decisions.filter(pl.col("decided_at") >= desk["at"]).collect()
    over = recorded["determining"].list.contains("over").sum()
    assert value["decisions"] == rows["context.order status"]["decisions"] == over > 0
    assert rows["principal.level value"]["policies"] == ["level"]
    assert rows["context.args.rate value refund"]["before"] == "1.25 (1.25 to 1.25)"
    assert rows["context.args.until age refund"]["n_before"] == 80
    statuses = recorded.filter(pl.col("tool") == "refund").height
    assert statuses == 80
    status = rows["context.order status"]
    assert status["before"].startswith("found 66.7 %, not_asked 33.3 %")
    assert status["sessions_after"] == 40


def test_the_same_windows_however_they_are_given(desk: dict[str, Any]) -> None:
    lake, at = desk["after"], desk["at"]
    by_time = drift(lake, (None, at)).frame.collect()
    stamp = at.isoformat()
    for before, after in (
        ((None, stamp), (stamp, None)),
        ((None, at.replace(tzinfo=None)), (at, "2999-01-01")),
        (desk["before"].pins, None),
        (desk["before"].pins.as_dict(), lake.pins),
        (desk["before"], lake),
        (desk["before"], None),
    ):
        assert drift(lake, before, after).frame.collect().equals(by_time)


def test_two_lakes(desk: dict[str, Any], tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "agents"), pa.table({"id": ["a0", "a1"], "level": [1, 2]}))
    orders(tmp_path, 100, 10)
    other = record(tmp_path, 10, 3)
    found = drift(desk["before"], desk["before"], other)
    assert found.decisions == (120, 30)
    assert "context.order.refundable" not in set(found.drifted.collect()["path"])


def test_nothing_drifts_between_a_window_and_another_like_it(desk: dict[str, Any]) -> None:
    """Halves of the first window; sessions in both are tested in one."""
    lake = desk["before"]
    middle = lake.decisions.select("decided_at").collect()["decided_at"][61]
    found = drift(lake, (None, middle))
    assert found.shared_sessions == 1
    assert found.drifted.filter(pl.col("what") != "age").collect()["path"].to_list() == []


def test_faces(desk: dict[str, Any]) -> None:
    found = drift(desk["after"], (None, desk["at"]))
    said = repr(found)
    assert "Most decisions hang on context.order" in said
    assert "120 decisions in 40 sessions" in said
    assert "exact on this log" in said
    assert "p: estimate" in said
    assert "| context.order.refundable |" in found.markdown()
    assert "context.order.refundable" in found._repr_html_()
    assert json.loads(json.dumps(found.as_dict()))["after"]["decisions"] == 120


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            ("2999-01-01", None),
            (None, None),
            r"no decision in the window \(2999-01-01 00:00:00 UTC to the end\)",
        ),
        ((None, None), None, "no decision in the window"),
        (("yesterday", None), None, "'yesterday' is no time; write 2026-11-01"),
        ((None, 7), None, "7 is no time"),
        ("2026", None, "is a pair of times, a pin"),
    ],
)
def test_windows_that_are_none(desk: dict[str, Any], before: Any, after: Any, told: str) -> None:
    with pytest.raises(NotComparable, match=told):
        drift(desk["after"], before, after)


def test_levels_that_are_none(desk: dict[str, Any]) -> None:
    with pytest.raises(NotComparable, match="`level` is between 0 and 1"):
        drift(desk["after"], (None, desk["at"]), level=95)


def test_arguments_that_come_and_go(tmp_path: Path) -> None:
    """A note that was never given, and now is: its shape drifts, the value is in one window only."""
    write_deltalake(str(tmp_path / "agents"), pa.table({"id": ["a0"], "level": [1]}))
    orders(tmp_path, 100, 10)
    before = record(tmp_path, 8, 1)
    after = record(tmp_path, 8, 2, lambda number: f"note {number}")
    found = drift(after, before.pins)
    rows = by_name(found)
    assert rows["context.args shape refund"]["after"].startswith("order_id, cents, note, ")
    assert rows["context.args shape refund"]["drifted"]
    assert found.one_sided == ("context.args.note of refund",)
    assert "In one window only: context.args.note of refund." in repr(found)


def values(sessions: list[str], found: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"session": sessions, "value": found})


def test_a_session_counts_once_however_many_calls_it_makes() -> None:
    """Six sessions of fifty equal calls are six values: 300 against 300 decisions would be beyond doubt."""
    pick = random.Random(5)
    name = Name("x", "value")
    pair = []
    for side in "ab":
        means = [pick.gauss(0, 1) for _ in range(6)]
        rows = [(f"{side}{n}", mean) for n, mean in enumerate(means) for _ in range(50)]
        pair.append(values([row[0] for row in rows], [row[1] for row in rows]))
    row = _row(name, (pair[0], pair[1]), pl.Series(dtype=pl.String))
    assert row["sessions_before"] == row["sessions_after"] == 6
    assert row["p"] > 0.05
    assert numbers_p(pair[0]["value"].to_numpy(), pair[1]["value"].to_numpy()) < 1e-6


def test_what_cannot_be_tested_has_no_p_and_did_not_drift() -> None:
    rows = [
        _row(Name(name, "value"), (values(list(ids), [0.0] * len(ids)), values(list(ids), [9.0] * len(ids))), pl.Series(dtype=pl.String))
        | {"policies": [], "decisions": 0}
        for name, ids in (("few", "abc"), ("many", "abcdefgh"))
    ]  # fmt: skip
    found = {row["path"]: row for row in _ranked(rows, 0.95, 0.1).to_dicts()}
    assert (found["few"]["p"], found["few"]["p_holm"], found["few"]["drifted"]) == (None, None, False)
    assert found["few"]["distance"] == 1
    assert found["many"]["drifted"]
    assert found["many"]["p_holm"] == found["many"]["p"]  # one test was made, not two


def test_measures_by_hand() -> None:
    assert categories([4, 0], [0, 4])[:2] == pytest.approx((1, 1))
    assert categories([4, 4], [2, 2])[:2] == pytest.approx((0, 0), abs=1e-7)
    assert categories([4, 4], [2, 2]).standardised is None
    assert categories([4], [2]) == (0, 0, None)
    # p = (3/4, 1/4), q = (1/4, 3/4): the mean is (1/2, 1/2), so the divergence is 1 - h(1/4) bits.
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert categories([3, 1], [1, 3]).distance == pytest.approx(math.sqrt(1 - entropy))
    assert categories([3, 1], [1, 3]).effect == pytest.approx(0.5)  # chi-square 2 of 8
    assert categories_p([3, 2], [2, 3]) == pytest.approx(1.0)  # Fisher: no table is likelier
    assert categories_p([30, 10], [10, 30]) == pytest.approx(2.975e-05, rel=1e-3)  # hypergeometric
    assert categories_p([25, 15], [15, 25]) == pytest.approx(0.02535, rel=1e-3)  # chi-square 5, one degree
    assert math.isnan(categories_p([2, 1], [9, 9]))
    assert categories_p([9], [9]) == 1
    ten = np.arange(10.0)
    assert numbers(ten, ten + 5).effect == 0.5
    assert numbers(ten, ten + 5).standardised == pytest.approx(5 / ten.std())
    assert numbers(ten, ten).distance == pytest.approx(0, abs=1e-7)
    assert numbers(ten, ten + 100).distance == pytest.approx(1)
    assert numbers(np.ones(3), np.ones(3)) == (0, 0, None)
    assert numbers_p(ten, ten + 100) == pytest.approx(
        2 / math.comb(20, 10)
    )  # two of all orders are so extreme
    assert math.isnan(numbers_p(ten[:4], ten))


@pytest.mark.parametrize("kind", ["numbers", "categories", "rare categories"])
def test_alike_windows_are_told_apart_as_often_as_said(kind: str) -> None:
    """At 5 %, in at most 5 % of 400 pairs of windows, give or take the luck of the draw (0.5 % is at 7.9 %)."""
    pick = np.random.default_rng(7)

    def once() -> float:
        if kind == "numbers":
            return numbers_p(pick.lognormal(size=40), pick.lognormal(size=60))
        shares = [0.5, 0.3, 0.2] if kind == "categories" else [0.9, *[0.1 / 12] * 12]
        return categories_p(*(pick.multinomial(n, shares).tolist() for n in (40, 60)))

    assert sum(once() <= 0.05 for _ in range(400)) / 400 < 0.079


def test_members_of_facts() -> None:
    texts = [
        '{"n":1,"rate":"2.50","deep":{"on":true},"tags":["a","b"],"at":"2026-01-02T03:04:05Z","id":"x"}',
        '{"n":2.5,"rate":"0.10","deep":{},"at":"2026-01-02 03:04:05+02:00","none":null}',
        "null",
        '["a","b","c"]',
    ]
    found = _members(pl.Series(texts))
    assert {name: column.to_list() for name, column in found.items() if name[1] != "age"} == {
        ("n", "value"): [1.0, 2.5, None, None],
        ("rate", "value"): [2.5, 0.1, None, None],
        ("deep.on", "value"): ["true", None, None, None],
        ("tags", "value"): [2.0, None, None, None],
        ("id", "value"): ["x", None, None, None],
        ("", "size"): [None, None, None, 3.0],
    }
    assert found["at", "age"].dt.hour().to_list() == [3, 1, None, None]
