"""What is declared to be at stake: labels of decisions and sessions, late ones, money in arguments; and its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.canonical import canonical
from workbench.errors import StakesInvalid
from workbench.weighing.money import amount
from workbench.weighing.stakes import Money, Stakes
from workbench.weighing.worth import worth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.compare import Diff

    Make = Callable[..., Diff]

CHARGEBACKS = {"harm": {"chargeback": ["true"]}, "good": {"chargeback": ["false"]}}
BOTH = {
    "harm": {"origin": ["attack"], "chargeback": ["true"]},
    "good": {"origin": ["user"], "chargeback": ["false"]},
}


def stake(diff: Diff, stakes: object) -> list[str]:
    found = Stakes.of(stakes).columns(diff).collect()  # type: ignore[arg-type]  # as people give them
    return found["stake"].to_list()


def test_without_any_the_label_origin_says_it(make: Make) -> None:
    diff = make(
        [
            {"then": "ran", "now": "same_action", "labels": {"origin": said}}
            for said in ("attack", "user", "bot")
        ]
    )
    assert stake(diff, None) == ["harm", "good", "unlabelled"]
    assert Stakes.of(None) == Stakes() == Stakes.of({"money": {}})
    assert stake(make([{"then": "ran", "now": "same_action"}]), None) == ["unlabelled"]


def test_a_decision_labelled_both_is_neither(make: Make) -> None:
    diff = make([{"then": "ran", "now": "does_not_run", "labels": {"origin": "user", "chargeback": "true"}}])
    rows = Stakes.of(BOTH).columns(diff).collect()
    assert rows.select("stake", "harm", "good", "counted").row(0) == ("contradictory", None, None, True)
    n = worth(diff, BOTH).numbers
    assert [(n[name].low, n[name].high) for name in ("harm_avoided", "good_lost")] == [(0, 1), (0, 1)]
    assert stake(diff, {**BOTH, "conflicts": "harm"}) == ["harm"]
    with pytest.raises(StakesInvalid, match=r"1 decision is labelled both .* first is d-0"):
        Stakes.of({**BOTH, "conflicts": "error"}).columns(diff)
    assert "labelled both harm and good work" in repr(worth(diff, BOTH))


def test_a_decisions_own_label_goes_before_its_sessions(make: Make) -> None:
    calls = [{"then": "ran", "now": "same_action", "session": name} for name in ("a", "a", "b", "c")]
    labels = [
        (None, "a", "chargeback", "true"),
        ("d-1", "a", "chargeback", "false"),
        (None, "b", "chargeback", "maybe"),
        ("d-9", "z", "chargeback", "true"),
    ]
    diff = make(calls, labels=labels)
    assert stake(diff, CHARGEBACKS) == ["harm", "good", "unlabelled", "unlabelled"]
    said = repr(worth(diff, CHARGEBACKS))
    assert "Label chargeback = 'maybe' means neither harm nor good work (1 time)." in said


def test_a_sessions_origin_holds_for_calls_without_one(make: Make) -> None:
    calls = [
        {"then": "ran", "now": "same_action"},
        {"then": "ran", "now": "same_action", "labels": {"origin": "user"}},
    ]
    assert stake(make(calls, labels=[(None, "s-1", "origin", "attack")]), None) == ["harm", "good"]


def test_an_outcome_says_nothing_of_another_action(make: Make) -> None:
    """A label of intent holds for whatever runs for the call; one of the outcome only for what ran."""
    for labels, stakes in (({"origin": "user"}, None), ({"chargeback": "false"}, CHARGEBACKS)):
        diff = make([{"then": "ran", "now": "another_action", "labels": labels}])
        through = worth(diff, stakes)["harm_through"]
        assert (through.low, through.high) == ((0, 0) if stakes is None else (0, 1))


def test_unlabelled_decisions_are_counted_apart_and_said_so(make: Make) -> None:
    calls = [
        {"then": "ran", "now": "does_not_run"},
        {"then": "ran", "now": "same_action", "labels": {"origin": "user"}},
    ]
    apart, bounds = worth(make(calls)), worth(make(calls), {"unlabelled": "bounds"})
    assert (apart["harm_avoided"].high, bounds["harm_avoided"].high, bounds["harm_avoided"].low) == (0, 1, 0)
    assert "Unlabelled: 1 decision, counted apart; 1 ran, and of these 1 would be prevented" in repr(apart)
    assert "in the bounds" in repr(bounds)


def test_a_label_that_the_lake_does_not_have_is_refused_by_name(make: Make) -> None:
    diff = make([{"then": "ran", "now": "same_action", "labels": {"chargeback": "false"}}])
    wrong = {"harm": {"chargebak": ["true"]}, "good": {}}
    with pytest.raises(StakesInvalid, match=r"no label `chargebak`; did you mean `chargeback`\?"):
        Stakes.of(wrong).columns(diff)
    assert stake(diff, {**wrong, "missing": "none"}) == ["unlabelled"]
    assert "Nobody said chargeback = 'true'." in repr(worth(diff, CHARGEBACKS))


def test_files_say_what_attributes_say(tmp_path: Path) -> None:
    text = """
    [stakes]
    harm = { origin = ["attack"], chargeback = "true" }
    good = { origin = ["user"] }
    unlabelled = "bounds"
    [stakes.money]
    refund = "payment.cents"
    send = { argument = "amount", unit = "cents", decimals = 2 }
    """
    (tmp_path / "stakes.toml").write_text(text)
    found = Stakes.of(tmp_path / "stakes.toml")
    assert found.harm == {"origin": ("attack",), "chargeback": ("true",)}
    assert found.moneys == {
        "refund": Money(argument=("payment", "cents"), unit="cents"),
        "send": Money(argument=("amount",), unit="cents", decimals=2),
    }
    assert (found.unlabelled, found.unit, found.labels) == ("bounds", "cents", ("chargeback", "origin"))
    assert Stakes.of(found) is found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hram": {}}, "no key `hram`; did you mean `harm`"),
        ({"harm": ["attack"]}, "give values by label"),
        ({"harm": {"chargeback": [True]}}, 'labels are texts: "true"'),
        ({"harm": {"a": ["x"]}, "good": {"a": ["x"]}}, "`a` = 'x' is declared both"),
        ({"unlabelled": "ignore"}, "it is one of apart, bounds"),
        ({"money": {"a": "cents", "b": "dollars"}}, "one sum needs one unit"),
        ({"money": {"a": {"argument": "x", "decimals": 12}}}, "at most 9"),
        ({"money": {"a": 5}}, "name the argument"),
        ({"money": "cents"}, "give an argument by tool"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(StakesInvalid, match=message):
        Stakes.of(given)
    with pytest.raises(StakesInvalid, match="nowhere"):
        Stakes.of(tmp_path / "nowhere.toml")


def test_money_of_a_tool_that_is_not_in_the_log_is_refused(make: Make) -> None:
    diff = make([{"then": "ran", "now": "same_action"}])
    with pytest.raises(
        StakesInvalid, match="tool `refnd`, which the log does not have; did you mean `refund`"
    ):
        Stakes.of({"money": {"refnd": "cents"}}).columns(diff)


def read(texts: list[str | None], argument: str, decimals: int = 0) -> list[int | None]:
    money = {"refund": Money(argument=tuple(argument.split(".")), unit="c", decimals=decimals)}
    frame = pl.LazyFrame({"text": pl.Series(texts, dtype=pl.String), "tool": ["refund"] * len(texts)})
    return frame.select(amount(pl.col("text"), money)).collect().to_series().to_list()


def test_money_is_read_exactly_or_not_at_all() -> None:
    texts = ['{"a":5}', '{"a":"5"}', '{"a":5.5}', '{"a":null}', "{}", '{"a":[5]}', '{"a":true}', "no JSON", None,
             '{"a":-7}', '{"a":9223372036854775807}', '{"a":9223372036854775808}', '{"b":{"a":5}}']  # fmt: skip
    assert read(texts, "a") == [5, *[None] * 8, -7, 2**63 - 1, None, None]
    assert read(['{"p":{"a~/b":3}}'], "p.a~/b") == [3]
    assert read(['{"a":12.5}', '{"a":12.05}', '{"a":12}', '{"a":0.001}', '{"a":-0.5}', '{"a":"1.5"}'], "a", 2) == [
        1250, 1205, 1200, None, -50, None,
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(-(2**63), 2**63 - 1),
    name=st.text(min_size=1, max_size=8).filter(lambda x: "." not in x and "\x00" not in x),
)
def test_any_whole_number_of_any_argument_comes_back(number: int, name: str) -> None:
    try:
        text = canonical({name: number, "zz": str(number)})
    except ValueError:  # a lone surrogate
        return
    assert read([text], name) == [number] if name != "zz" else True


def test_money_of_what_would_run_is_that_of_its_own_arguments(make: Make) -> None:
    calls = [
        {"then": "ran", "now": "another_action", "labels": {"origin": "attack"}, "args": '{"cents":900}', "now_args": '{"cents":100}'},
        {"then": "ran", "now": "does_not_run", "labels": {"origin": "attack"}, "args": '{"cents":50}'},
        {"then": "ran", "now": "does_not_run", "labels": {"origin": "user"}, "args": '{"cents":7}'},
        {"then": "ran", "now": "same_action", "labels": {"origin": "user"}, "args": '{"cents":9000}', "acted": '{"cents":800}'},
        {"then": "ran", "now": "does_not_run", "labels": {"origin": "user"}, "args": '{"cents":"5"}'},
        {"then": "ran", "now": "does_not_run", "labels": {"origin": "user"}, "args": '{"cents":11}', "tool": "read"},
    ]  # fmt: skip
    found = worth(make(calls), {"money": {"refund": "cents"}})
    n = {name: (bound.low, bound.high) for name, bound in found.numbers.items() if "money" in name}
    assert n == {
        "harm_money_ran": (950, 950),
        "harm_money_avoided": (850, 950),
        "harm_money_through": (0, 100),
        "good_money_ran": (807, 807),
        "good_money_lost": (7, 7),
        "good_money_done": (800, 800),
        "money_then": (1757, 1757),
        "money_now": (900, 900),
        "money_not_known": (1, 1),
    }
    assert found["harm_money_avoided"].unit == "cents"
    assert "Not in these sums: 1 call whose money" in repr(found)
    assert {found[name].basis for name in n if name != "money_not_known"} == {"partial"}


def test_money_that_a_patch_hides_is_in_no_sum_that_needs_it(make: Make) -> None:
    call = {
        "then": "ran",
        "now": "another_action",
        "labels": {"origin": "attack"},
        "now_args": '{"cents":"?"}',
    }
    found = worth(make([call]), {"money": {"refund": "cents"}})
    assert {name: (found[f"harm_money_{name}"].low, found[f"harm_money_{name}"].high) for name in ("ran", "avoided", "through")} == {
        "ran": (10, 10), "avoided": (0, 0), "through": (0, 0),
    }  # fmt: skip
    assert (found["money_not_known"].high, found["harm_money_avoided"].basis) == (1, "partial")
    assert (
        worth(make([{**call, "now": "does_not_run"}]), {"money": {"refund": "cents"}})[
            "harm_money_avoided"
        ].basis
        == "exact"
    )
