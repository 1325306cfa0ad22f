"""The drift gate: what moved is found, what did not raises no alarm however many nights it looks, doubt stays open."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from workbench.drifting.measures import categories_p, numbers, numbers_p
from workbench.errors import JobInvalid
from workbench.lake import Lake, open_lake
from workbench.regressing.drift_gate import DriftGate, judge_drift, needed, read_drift, spent
from workbench.regressing.drift_windows import _alone, unseen_shapes
from workbench.statistics.multiplicity import adjusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runtime.bundle import Bundle

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order],
  context: { args: { order_id: String, cents: Long, note?: String }, order?: { paid: Long, country: String } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
OVER = """@id("over") forbid(principal, action == Action::"pay", resource)
when { context has order && context.args.cents > context.order.paid };
"""
FACTS = """
[sources.orders]
kind = "callable"
[[facts]]
name = "order"
actions = ["pay"]
source = "orders"
key = { id = "args.order_id" }
fields = ["paid", "country"]
shared = true
"""
START = datetime(2026, 3, 1, tzinfo=UTC)
NIGHT = 180
"""Sessions."""


def bundle(policies: str = PERMIT + OVER) -> Bundle:
    return bundle_from_files(
        {"p.cedar": policies, "schema.cedarschema": SCHEMA, "context.toml": FACTS}, "orders"
    )


def order(key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Every order says in its id what is known of it: `paid-country-n`, or nothing."""
    paid, country, _ = key["id"].split("-")
    return {"paid": int(paid), "country": country} if paid != "0" else None


class Shop:
    """A lake that grows window by window; each session pays once or twice, and looks."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder, self.pick, self.now = folder, random.Random(seed), START
        self.pins: list[dict[str, int]] = [{}]
        self.times: list[datetime] = []

    def clock(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def window(
        self,
        sessions: int,
        *,
        countries: str = "DE DE DE FR",
        unknown: float = 0.0,
        under: Bundle | None = None,
        again: str | None = None,
    ) -> None:
        """Record one night; `unknown` the share of sessions with an order nobody knows, `again` a session's id."""
        self.now = START + timedelta(days=len(self.pins))
        self.times.append(self.now)
        with Runtime.open(
            under or bundle(), lake=self.folder, sources={"orders": order}, clock=self.clock
        ) as runtime:
            runtime.tool(
                lambda order_id, cents, note=None: cents,
                name="pay",
                resource="Order::{order_id}",
                effect="idempotent",
            )
            runtime.tool(lambda order_id: 1, name="look", resource="Order::{order_id}", effect="read")
            for _ in range(sessions):
                session = runtime.session(principal="Agent::a", tenant="acme", session_id=again)
                country = self.pick.choice(countries.split())
                for _ in range(self.pick.choice((1, 2))):
                    paid = 0 if self.pick.random() < unknown else 100
                    with suppress(Blocked):
                        session.call(
                            "pay",
                            order_id=f"{paid}-{country}-{self.pick.randrange(20)}",
                            cents=self.pick.randrange(120),
                        )
                session.call("look", order_id="100-DE-1")
        self.pins.append(dict(open_lake(self.folder).pins.ledgers))

    def lake(self, number: int) -> Lake:
        """The window of a night, counted from 1."""
        whole = open_lake(self.folder).at(self.pins[number])
        return whole.since(self.pins[number - 1]) if self.pins[number - 1] else whole


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two nights alike; one in which orders come from elsewhere and many are unknown; few; and another policy."""
    made = Shop(tmp_path_factory.mktemp("shop") / "lake")
    made.window(NIGHT)
    made.window(NIGHT)
    made.window(NIGHT, countries="DE FR FR FR", unknown=0.5)
    made.window(6)
    made.window(NIGHT, under=bundle(PERMIT))
    return made


GATE = DriftGate(least=0.25)
"""As far as so many sessions a window show."""


def test_windows_that_are_alike_pass(shop: Shop) -> None:
    found = judge_drift(shop.lake(1), shop.lake(2), GATE, 1)
    assert found.verdict == "ship"
    assert [each.state for each in found.gates] == ["met", "met"]
    assert found.numbers["sessions.before"] == found.numbers["sessions.after"] == NIGHT
    assert found.numbers["drifted"] == found.numbers["uncovered_share"] == 0
    whole = shop.lake(2).history.collect()
    blocked = whole.filter(pl.col("verdict").cast(pl.String) == "block").height / whole.height
    assert found.numbers["verdict.block.after"] == pytest.approx(blocked)
    assert found.headline[0].startswith("0 of ")
    assert not any(row["drifted"] for row in found.rows)


def test_what_moved_fails_and_is_named_first(shop: Shop) -> None:
    found = judge_drift(shop.lake(2), shop.lake(3), GATE, 3)
    assert found.verdict == "don't ship"
    drifted, uncovered = found.gates
    assert (drifted.state, uncovered.state) == ("failed", "failed")
    names = [row["name"] for row in found.rows if row["drifted"]]
    assert "context.order.country" in names
    assert "context.order status" in names
    assert found.rows[0]["drifted"]
    assert "context.order.country" in drifted.why or "context.order status" in drifted.why
    rows = shop.lake(3).history.filter(pl.col("context_hash").is_not_null()).collect()
    unknown = rows.filter(pl.col("tool") == "pay", pl.col("args").str.contains('"0-')).height
    assert found.numbers["uncovered_share"] == pytest.approx(unknown / rows.height)
    assert uncovered.low == uncovered.high == uncovered.lower
    assert "pay by Agent on Order: order none" in uncovered.why
    assert any("order none" in str(row["name"]) for row in found.uncovered)


def test_what_is_ignored_is_not_looked_at(shop: Shop) -> None:
    gate = DriftGate(least=0.25, ignore=("context.order*",), max_uncovered=1)
    found = judge_drift(shop.lake(2), shop.lake(3), gate, 3)
    assert not any(str(row["name"]).startswith("context.order") for row in found.rows)
    assert found.gates[1].state == "met"
    allowed = DriftGate(least=0.25, max_drifted=50, max_uncovered=1)
    assert judge_drift(shop.lake(2), shop.lake(3), allowed, 3).gates[0].state == "met"


def test_too_few_sessions_leave_it_open_and_say_how_many_more(shop: Shop) -> None:
    found = judge_drift(shop.lake(3), shop.lake(4), GATE, 2)
    assert found.verdict == "inconclusive"
    assert found.gates[0].state == "open"
    alpha, tested = 0.05 * spent(2) / 2, int(found.numbers["variables_tested"])
    each = math.ceil(2 * needed(GATE, alpha, tested))
    assert f"about {each:,} sessions in each window, {each - 6:,} more than the smaller has ({NIGHT} before, 6 now)" in found.gates[0].why  # fmt: skip


def test_a_new_shape_in_few_sessions_may_be_chance(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "lake")
    shop.window(20)
    shop.window(18)
    shop.window(2, unknown=1)
    both = open_lake(tmp_path / "lake").at(shop.pins[3]).since(shop.pins[1])
    found = judge_drift(shop.lake(1), both, DriftGate(max_uncovered=0.01), 1)
    assert found.gates[1].state == "open"
    assert found.gates[1].low == 0
    assert found.gates[1].high == found.numbers["uncovered_share"] > 0.01
    least = int(found.gates[1].why.split("that takes ")[1].split()[0])
    kinds = unseen_shapes(shop.lake(1), both, 0.01).kinds
    assert _alone(least, 20, 20) <= 0.05 * spent(1) / 2 / kinds < _alone(least - 1, 20, 20)


def test_a_session_in_both_windows_is_no_witness_for_the_second(tmp_path: Path) -> None:
    """One session that goes on all night has a shape that was never there: however many calls, it is one session."""
    shop = Shop(tmp_path / "lake")
    shop.window(30, again="s-1")
    shop.window(30, again="s-1", unknown=1)
    shapes = unseen_shapes(shop.lake(1), shop.lake(2), 0.5)
    assert shapes.sessions == (0, 0)
    assert shapes.unseen >= 30
    assert shapes.sure == 0


def test_verdicts_are_compared_under_one_policy(shop: Shop) -> None:
    """The policy was relaxed between the windows: what agents asked for did not change, and nothing drifted."""
    recorded = [shop.lake(n).history.select((pl.col("verdict").cast(pl.String) == "block").mean()).collect().item() for n in (2, 5)]  # fmt: skip
    assert recorded[0] > 0.05
    assert recorded[1] == 0
    found = judge_drift(shop.lake(2), shop.lake(5), GATE, 2)
    assert found.verdict == "ship"
    assert "verdict.block.before" not in found.numbers
    assert found.numbers["distance.verdict"] == 0
    assert any("The policy changed between the windows" in note for note in found.notes)


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_window_is_inconclusive(shop: Shop, empty: int) -> None:
    windows = [shop.lake(1), shop.lake(2)]
    windows[empty] = windows[empty].where(pl.col("tool") == "nothing of that name")
    found = judge_drift(windows[0], windows[1], GATE, 2)
    assert found.verdict == "inconclusive"
    assert [each.state for each in found.gates] == ["open", "open"]
    assert ("window before" in found.headline[0]) == (empty == 0)
    assert found.numbers["decisions.before"] == (0 if empty == 0 else found.numbers["decisions.before"])


def test_windows_by_time(shop: Shop) -> None:
    """The same windows, by the hour instead of by position."""
    lake = open_lake(shop.folder)
    at = pl.col("decided_at")
    one, two = (lake.where(at >= shop.times[n], at < shop.times[n + 1]) for n in (1, 2))
    assert judge_drift(one, two, GATE, 3) == judge_drift(shop.lake(2), shop.lake(3), GATE, 3)


def test_the_table() -> None:
    assert read_drift({}, "job.toml [drift]") == DriftGate()
    given = {
        "level": 0.9, "least": 0.2, "max_drifted": 2, "max_uncovered": 0, "ignore": ["*age"], "compare": "first",
    }  # fmt: skip
    found = read_drift(given, "job.toml [drift]")
    assert {name: getattr(found, name) for name in given} == given | {"ignore": ("*age",)}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"levl": 0.9}, "there is no key `levl`; did you mean `level`?"),
        ({"level": 95}, "`level` is 95; it lies between 0.5 and 1"),
        ({"level": True}, "`level` is True"),
        ({"least": 0}, "`least` is 0; it is a distance above 0"),
        ({"least": "0.1"}, "`least` is '0.1'"),
        ({"least": math.nan}, "`least` is nan"),
        ({"max_drifted": 1.5}, "`max_drifted` is 1.5; it is how many variables"),
        ({"max_drifted": -1}, "`max_drifted` is -1"),
        ({"max_uncovered": 2}, "`max_uncovered` is 2; it is a share"),
        ({"ignore": "x"}, "`ignore` is 'x'; it is a list"),
        ({"compare": ["last"]}, '`compare` is [\'last\']; it is "last" or "first"'),
    ],
)
def test_a_table_that_is_none(table: dict[str, Any], told: str) -> None:
    with pytest.raises(JobInvalid) as refused:
        read_drift(table, "job.toml [drift]")
    assert f"job.toml [drift]: {told}" in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(JobInvalid) as refused:
        read_drift({"levl": 1, "least": -1, "compare": "best"}, "job.toml [drift]")
    assert len(str(refused.value).splitlines()) == 3


def test_what_the_nights_spend_is_all_there_is_and_no_more() -> None:
    """Between the sum of the first and what an integral leaves for the rest: together one."""
    nights = 20_000
    first = math.fsum(spent(night) for night in range(1, nights + 1))
    rest = [spent(1) * 2 * math.log(2) ** 2 / math.log(nights + shift) for shift in (2, 1)]
    assert first + rest[0] <= 1 <= first + rest[1]
    assert all(one > other for one, other in pairwise(map(spent, range(1, 400))))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12))
def test_how_surely_a_shape_is_new(n: int, m: int, k: int) -> None:
    """Of all ways to choose k sessions, those that choose none of the first window."""
    k = min(k, m)
    assert _alone(k, n, m) == pytest.approx(math.comb(m, k) / math.comb(n + m, k), rel=1e-9)


# Whether it errs as often as said


def alarm(
    pick: np.random.Generator, draw: Callable[[], Any], nights: int, part: Callable[[int], float]
) -> bool:
    """Whether a run of nights without any change raises an alarm: each is compared with the one before."""
    windows = [draw() for _ in range(nights + 1)]
    for night, (one, two) in enumerate(pairwise(windows), 1):
        p = [
            numbers_p(a, b) if a.dtype == np.float64 else categories_p(*(np.bincount(each, minlength=9).tolist() for each in (a, b)))
            for a, b in zip(one, two, strict=True)
        ]  # fmt: skip
        if adjusted(p).min() <= 0.05 * part(night) / 2:
            return True
    return False


@pytest.mark.simulation
def test_a_hundred_nights_without_change_raise_no_more_alarms_than_said() -> None:
    """Every p-value is judged as if any distance mattered. Looking at 95 % each night would alarm nearly always."""
    pick = np.random.default_rng(3)

    def draw() -> list[Any]:
        n = int(pick.integers(30, 300))
        return [
            pick.lognormal(size=n), np.floor(pick.exponential(3, size=n)),
            pick.choice(4, n, p=[0.7, 0.2, 0.09, 0.01]), pick.choice(2, n, p=[0.98, 0.02]), pick.choice(9, n),
        ]  # fmt: skip

    runs = 200
    spending = sum(alarm(pick, draw, 100, spent) for _ in range(runs))
    assert spending / runs <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs)
    every_night = sum(alarm(pick, draw, 100, lambda _: 1.0) for _ in range(20))
    assert every_night >= 10


@pytest.mark.simulation
def test_a_long_first_window_does_not_alarm_by_itself() -> None:
    """5,000 sessions against 200, rare categories: far out, where nights spend their error, a p-value is one."""
    pick = np.random.default_rng(5)
    shares, pairs = [0.9, 0.05, 0.03, 0.02], 30_000
    counts = zip(pick.multinomial(5_000, shares, pairs), pick.multinomial(200, shares, pairs), strict=True)
    rare = sum(categories_p(one.tolist(), two.tolist()) <= 0.001 for one, two in counts)
    assert rare <= 0.001 * pairs + 2.6 * math.sqrt(0.001 * pairs)


@pytest.mark.simulation
def test_as_many_sessions_as_it_asks_for_show_what_it_promises() -> None:
    """A share that moves by `least` is found about eight times in ten, at the level of the night and all variables."""
    pick = np.random.default_rng(4)
    for night, variables in ((1, 20), (50, 60)):
        alpha = 0.05 * spent(night) / 2
        gate = DriftGate(least=0.12)
        n = math.ceil(2 * needed(gate, alpha, variables))
        found = 0
        for _ in range(300):
            counts = [[int(k := pick.binomial(n, share)), n - k] for share in (0.9, 0.8)]
            found += categories_p(*counts) <= alpha / variables
        assert 0.68 <= found / 300 <= 0.92


@pytest.mark.simulation
def test_forty_nights_of_a_real_lake_without_change(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "lake", seed=9)
    for _ in range(41):
        shop.window(40)
    told = [judge_drift(shop.lake(n), shop.lake(n + 1), DriftGate(least=0.01), n) for n in range(1, 41)]
    assert "don't ship" not in [each.verdict for each in told]


def test_distances_that_matter_are_the_ones_declared() -> None:
    """9 in 10 against 8 in 10, to the first order, as `needed` has it."""
    from workbench.drifting.measures import categories

    distance = categories([90, 10], [80, 20]).distance
    squares = 0.1**2 / 0.85 + 0.1**2 / 0.15
    assert 8 * math.log(2) * distance**2 == pytest.approx(squares, rel=0.02)
    assert numbers(np.arange(9.0), np.arange(9.0)).distance == pytest.approx(0, abs=1e-7)
