"""Bounds against a slow reference: every world that the record allows, one by one.

The reference knows nothing of the expressions. It writes down, for one decision, all that may have been and may be
(it ran or not, it was harm or not, it is granted or not, …), counts each quantity in each of these worlds in plain
Python, and takes the least and the most. The bounds must be these, no less and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.effects import EFFECTS
from workbench.weighing.simulators import Simulation, simulate
from workbench.weighing.stakes import Stakes
from workbench.weighing.worth import sums, worth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.compare import Diff

    Make = Callable[..., Diff]

THENS = tuple(dict.fromkeys(then for then, _ in EFFECTS))
STAKES = {
    "harm": {"origin": "attack"},
    "good": {"origin": "user"},
    "chargeback": {"chargeback": "true"},
    "no chargeback": {"chargeback": "false"},
    "both": {"origin": "user", "chargeback": "true"},
    "unlabelled": {},
}
FREE = ((False, False), (True, False), (False, True))
"""What an action may come to: harm, good work, or neither."""


@dataclass(frozen=True)
class World:
    """One way it may have been, and may be."""

    ran: bool
    harm: bool
    good: bool
    money: int
    asked: bool
    asks: bool
    runs: bool
    harm_now: bool
    good_now: bool
    money_now: int
    changed: bool
    same_action: bool
    """What would run is what ran."""


def worlds(call: dict[str, Any], unlabelled: str) -> Iterator[World]:
    """Every world that the record of a call allows."""
    then, now, said = call["then"], call["now"], call["said"]
    counts = then != "granted"  # the decision that was resumed is counted
    for ran in {"ran": [True], "in_doubt": [True, False]}.get(then, [False]):
        for harm, good in _labels(said, unlabelled):
            money = call["money"]
            known = {"ran": ran, "harm": harm, "good": good, "money": money, "asked": _asked(then)}
            for kind, granted in _futures(now):
                effect = EFFECTS[then, kind]  # type: ignore[index]  # texts of the vocabularies
                asks = kind == "waits"
                runs = counts and (
                    ran if effect == "same" else kind != "does_not_run" and (not asks or granted)
                )
                same = effect == "same" or (
                    then in ("ran", "in_doubt") and (kind == "same_action" or (asks and call["same"]))
                )
                outcomes = [(harm, good)] if same else _free(said, unlabelled)
                for harm_now, good_now in outcomes:
                    other = money if same or now in ("undecidable", "quarantined") else call["money_now"]
                    yield World(
                        **known, asks=asks, runs=runs, harm_now=harm_now, good_now=good_now, money_now=other,
                        changed=effect != "same", same_action=same and ran,
                    )  # fmt: skip


def _asked(then: str) -> bool:
    return then in ("granted", "not_granted", "waiting")


def _labels(said: str, unlabelled: str) -> tuple[tuple[bool, bool], ...]:
    match said:
        case "harm" | "chargeback":
            return ((True, False),)
        case "good" | "no chargeback":
            return ((False, True),)
        case "unlabelled" if unlabelled == "apart":
            return ((False, False),)
        case _:
            return FREE


def _free(said: str, unlabelled: str) -> tuple[tuple[bool, bool], ...]:
    """What may come of an action that never ran."""
    match said:
        case "harm":  # meant ill: it does no good
            return ((False, False), (True, False))
        case "good":
            return ((False, False), (False, True))
        case "unlabelled" if unlabelled == "apart":
            return ((False, False),)
        case _:
            return FREE


def _futures(now: str) -> list[tuple[str, bool]]:
    every = [
        ("same_action", True),
        ("another_action", True),
        ("waits", True),
        ("waits", False),
        ("does_not_run", True),
    ]
    return every if now in ("undecidable", "quarantined") else [each for each in every if each[0] == now]


def counted(w: World) -> dict[str, int]:
    """Count every quantity in one world."""
    found: dict[str, bool | int] = {
        "decisions": True,
        "calls_ran": w.ran,
        "calls_run_now": w.runs and not w.asks,
        "calls_prevented": w.ran and w.changed and not w.runs and not w.asks,
        "calls_held": w.ran and w.changed and w.asks,
        "calls_altered": w.ran and w.runs and not w.asks and not w.same_action,
        "calls_released": not w.ran and w.changed and w.runs and not w.asks,
        "calls_escalated": not w.ran and w.changed and w.asks,
        "good_blocked": w.ran and w.good and w.changed and not w.runs and not w.asks,
        "good_held": w.ran and w.good and w.changed and w.asks,
        "good_altered": w.ran and w.good and w.runs and not w.asks and not w.same_action,
        "approvals_then": w.asked,
        "approvals_now": w.asks,
        "approvals_added": w.asks and not w.asked,
        "approvals_saved": w.asked and not w.asks,
        "money_then": w.money * w.ran,
        "money_now": w.money_now * w.runs,
    }
    names = {"harm": ("avoided", "through"), "good": ("lost", "done")}
    for side, (gone, stays) in names.items():
        before = w.ran and getattr(w, side)
        after = w.runs and getattr(w, f"{side}_now")
        found |= {
            f"{side}_ran": before,
            f"{side}_{gone}": before and not after,
            f"{side}_{stays}": after,
            f"{side}_new": after and not before,
            f"{side}_money_ran": w.money * before,
            f"{side}_money_{gone}": (w.money - (w.money_now if after else 0)) if before else 0,
            f"{side}_money_{stays}": w.money_now * after,
        }
    return {name: int(value) for name, value in found.items()}


def every_call() -> Iterator[dict[str, Any]]:
    """Each row of the table of effects, and quarantined ones, with each label, and another or the same action."""
    nows = ("same_action", "another_action", "waits", "does_not_run", "undecidable", "quarantined")
    for then, now, said, same, (money, other) in product(
        THENS, nows, STAKES, (True, False), ((100, 40), (-30, 70))
    ):
        if now != "waits" and same:
            continue
        yield {
            "then": then,
            "now": now,
            "said": said,
            "same": same,
            "money": money,
            "money_now": money if same else other,
        }


CALLS = list(every_call())


def stakes_of(unlabelled: str) -> Stakes:
    return Stakes(
        harm={"origin": ["attack"], "chargeback": ["true"]},
        good={"origin": ["user"], "chargeback": ["false"]},
        money={"refund": "cents"},
        unlabelled=unlabelled,  # type: ignore[arg-type]  # one of its vocabulary
        missing="none",
    )


def compared(make: Make, calls: list[dict[str, Any]]) -> Diff:
    return make(
        {
            "then": call["then"],
            "now": call["now"],
            "labels": STAKES[call["said"]],
            "args": f'{{"cents":{call["money"]}}}',
            "now_args": f'{{"cents":{call["money_now"]}}}'
            + ("" if call["same"] or call["now"] != "waits" else " "),
        }
        for call in calls
    )


def limits(found: list[dict[str, int]], name: str) -> tuple[int, int]:
    values = [each[name] for each in found]
    return min(values), max(values)


@pytest.mark.parametrize("unlabelled", ["apart", "bounds"])
def test_bounds_of_each_decision_are_those_of_all_its_worlds(make: Make, unlabelled: str) -> None:
    stakes = stakes_of(unlabelled)
    quantities = stakes.quantities()
    bounds = {end: [getattr(each, end).alias(each.name) for each in quantities] for end in ("low", "high")}
    rows = stakes.columns(compared(make, CALLS)).collect()
    lows, highs = (rows.select(exprs).to_dicts() for exprs in bounds.values())
    wrong = []
    for call, low, high in zip(CALLS, lows, highs, strict=True):
        found = [counted(each) for each in worlds(call, unlabelled)]
        wrong += [
            (name, call, (low[name], high[name]), limits(found, name))
            for name in found[0]
            if (low[name], high[name]) != limits(found, name)
        ]
    assert not wrong, f"{len(wrong)} bounds, first {wrong[:3]}"
    assert len(CALLS) * len(counted(next(worlds(CALLS[0], unlabelled)))) > 15_000
    assert {each.name for each in quantities} - {*counted(next(worlds(CALLS[0], unlabelled)))} == {
        "money_not_known", *(each.name for each in quantities if each.of is not None)
    }  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(picked=st.lists(st.sampled_from(CALLS), min_size=1, max_size=40), data=st.data())
def test_any_completion_of_a_log_is_within_its_bounds(
    make: Make, picked: list[dict[str, Any]], data: st.DataObject
) -> None:
    mode = data.draw(st.sampled_from(["apart", "bounds"]))
    found = worth(compared(make, picked), stakes_of(mode))
    chosen = [counted(data.draw(st.sampled_from(list(worlds(call, mode))))) for call in picked]
    numbers = found.numbers
    for name in chosen[0]:
        true = sum(each[name] for each in chosen)
        assert name not in numbers or numbers[name].low <= true <= numbers[name].high, name
    if found.has_labels:
        harm = {
            name: sum(each[name] for each in chosen)
            for name in ("harm_ran", "harm_avoided", "harm_through", "harm_new")
        }
        assert harm["harm_ran"] - harm["harm_avoided"] + harm["harm_new"] == harm["harm_through"]


@settings(max_examples=20, deadline=None)
@given(picked=st.lists(st.sampled_from(CALLS), min_size=1, max_size=40))
def test_every_decision_is_in_one_class(make: Make, picked: list[dict[str, Any]]) -> None:
    found = worth(compared(make, picked), stakes_of("apart"))
    classes = found.classes.collect()
    assert classes["n"].sum() == len(picked) == found["decisions"].low
    if not found.has_labels:
        return
    n = found.numbers
    fates = {(stake, fate): int(rows["n"].sum()) for (stake, fate), rows in classes.group_by("stake", "fate")}
    for stake, gone, stays in (("harm", "harm_avoided", "harm_through"), ("good", "good_lost", "good_done")):
        assert n[gone].low == fates.get((stake, "gone"), 0)
        assert n[stays].low == fates.get((stake, "remains"), 0)
    open_ = sum(fates.get((stake, "not_known"), 0) for stake in ("harm", "good")) + sum(
        count for (stake, _), count in fates.items() if stake == "contradictory"
    )
    assert n["harm_through"].high <= n["harm_through"].low + open_
    # Of the harmful actions known to have run, each is avoided, let through, or not known.
    share = n["harm_avoided_share"]
    through = n["harm_through_share"]
    assert share.of == through.of
    assert share.low + through.high == share.high + through.low == share.of


def test_a_duplicate_is_nothing_of_its_own(make: Make) -> None:
    """An idempotency hit returns what its original returned: it neither runs nor waits, whatever is decided."""
    nows = ("same_action", "another_action", "waits", "does_not_run", "undecidable", "quarantined")
    calls = [
        {"then": "did_not_run", "now": now, "kind": "duplicate", "labels": STAKES["harm"]} for now in nows
    ]
    found = worth(make(calls), stakes_of("bounds"))
    assert {name: bound.high for name, bound in found.numbers.items() if bound.high} == {"decisions": 6}


SIMULATED = [
    None,
    *(
        {"harm": harm, "good": good}
        for harm, good in ((True, False), (False, True), (False, False), (None, None))
    ),
]


@settings(max_examples=20, deadline=None)
@given(
    picked=st.lists(
        st.sampled_from([c for c in CALLS if c["said"] in ("chargeback", "no chargeback", "both")]),
        min_size=1,
        max_size=30,
    ),
    said=st.lists(st.sampled_from(SIMULATED), min_size=30, max_size=30),
)
def test_what_is_simulated_narrows_the_bounds_and_widens_none(
    make: Make, picked: list[dict[str, Any]], said: list[dict[str, bool | None] | None]
) -> None:
    answers = iter(said)

    def simulator(_: object) -> Simulation:
        answer = next(answers)
        if answer is None:
            raise OSError("away")
        return Simulation(outcome="ran", harm=answer["harm"], good=answer["good"])

    diff = compared(make, picked)
    simulated = simulate(diff, {"refund": simulator}, without=["session"])
    frame = worth(diff, stakes_of("apart"), simulated).frame.collect()
    assert frame.filter(
        (pl.col("low") < pl.col("log_low")) | (pl.col("high") > pl.col("log_high"))
    ).is_empty()
    assert frame.filter(pl.col("low") > pl.col("high")).is_empty()


def test_a_share_is_of_what_is_known_to_have_run(make: Make) -> None:
    calls = [
        {"then": "ran", "now": "does_not_run", "labels": {"origin": "attack"}},
        {"then": "ran", "now": "same_action", "labels": {"origin": "attack"}},
        {"then": "in_doubt", "now": "does_not_run", "labels": {"origin": "attack"}},
    ]
    found = worth(make(calls))
    assert (found["harm_avoided"].low, found["harm_avoided"].high) == (1, 2)
    share = found["harm_avoided_share"]
    assert (share.low, share.high, share.of) == (1, 1, 2)
    assert share.shares == "50.0 %"


def test_denominators_hold_their_numerators(make: Make) -> None:
    stakes = stakes_of("bounds")
    quantities = tuple(each for each in stakes.quantities() if each.of is not None)
    rows = stakes.columns(compared(make, CALLS))
    found = rows.select(
        **{
            each.name: ((each.low <= each.high) & (each.high <= each.of) & each.of.is_in([0, 1])).all()
            for each in quantities
            if each.of is not None
        }
    ).collect()
    assert found.row(0) == (True,) * len(quantities)
    assert rows.select(**sums(quantities)).collect().null_count().sum_horizontal().item() == 0
    assert all(rows.select(each.low).collect_schema().dtypes() == [pl.Int64] for each in quantities)
