"""Ship, don't ship or inconclusive: by hand, and that doubt is no answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from workbench.compare import compare
from workbench.errors import GatesInvalid
from workbench.estimating.estimates import Estimate, Estimates, estimates
from workbench.estimating.gates import Gate, decide
from workbench.estimating.gates_file import read
from workbench.statistics.clusters import fit, gather
from workbench.statistics.proportions import lower_bound, upper_bound
from workbench.weighing.quantities import Quantity

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.estimating.gates_file import Given


def seen(sessions: int, *, harm: tuple[int, int], good: tuple[int, int] = (0, 0)) -> Estimates:
    """Sessions of one decision each: of so many, harm gets through and good work is lost, at least and at most."""
    found = []
    for name, (low, high) in (("harm", harm), ("good", good)):
        of = Quantity(
            name=name, text=name, unit="calls", low=pl.col("low"), high=pl.col("high"), of=pl.lit(1)
        )
        fits = [fit(gather([1.0, 0.0], 1.0, n=[x, sessions - x], cap=1.0), "share") for x in (low, high)]
        found.append(Estimate(quantity=of, slice=None, low=fits[0], high=fits[1]))
    return Estimates(estimates=tuple(found), level=0.95, cluster="sessions", by=(), pins={})


HARM = {"quantity": "harm", "at_most": 0.01}


def test_ships_when_the_bound_clears_the_threshold() -> None:
    """The textbook's 299: none of 299 sessions bounds the rate by 1 % at 95 %; of 298 it does not."""
    ship, not_yet = (decide(seen(n, harm=(0, 0)), [HARM]) for n in (299, 298))
    assert (ship.verdict, ship.exit_code, ship.clusters_needed) == ("ship", 0, 0)
    assert ship.gates[0].safe == pytest.approx(upper_bound(0, 299, 0.05))
    assert ship.gates[0].safe <= 0.01 < not_yet.gates[0].safe
    assert (not_yet.verdict, not_yet.exit_code, not_yet.clusters_needed) == ("inconclusive", 2, 1)


def test_does_not_ship_when_the_other_bound_is_beyond() -> None:
    found = decide(seen(1000, harm=(30, 30)), [HARM])
    assert (found.verdict, found.exit_code) == ("don't ship", 1)
    assert found.gates[0].state == "failed"
    assert "future traffic is above 1 %, too" in found.gates[0].why


def test_inconclusive_says_how_many_more_and_they_are_enough() -> None:
    found = decide(seen(1000, harm=(8, 8)), [HARM])
    assert found.verdict == "inconclusive"
    more = found.clusters_needed
    assert more is not None
    # With so many, the bound clears the threshold in about four of five cases if the rate is 0.8 %.
    flips = np.random.default_rng(1).binomial(1000 + more, 0.008, 2000)
    cleared = np.mean([upper_bound(x, 1000 + more, 0.05) <= 0.01 for x in flips])
    assert cleared == pytest.approx(0.8, abs=0.05)
    assert f"about {more:,} more (sessions)" in repr(found)


def test_no_number_of_sessions_closes_what_the_log_leaves_open() -> None:
    """Between none and all: known at least 0.2 %, possibly 50 %."""
    found = decide(seen(1000, harm=(2, 500)), [HARM])
    assert (found.verdict, found.clusters_needed) == ("inconclusive", None)
    assert "label, or simulate" in found.gates[0].why
    on_it = decide(seen(1000, harm=(10, 10)), [HARM])
    assert (on_it.verdict, on_it.clusters_needed) == ("inconclusive", None)


def test_bounds_count_on_their_unfavourable_side() -> None:
    """Met only if the most possible clears it, failed only if the least possible is beyond."""
    assert decide(seen(1000, harm=(0, 1)), [HARM]).verdict == "ship"
    assert decide(seen(1000, harm=(0, 40)), [HARM]).verdict == "inconclusive"
    assert decide(seen(1000, harm=(30, 900)), [HARM]).verdict == "don't ship"


def test_at_least_is_the_mirror() -> None:
    gate = {"quantity": "harm", "at_least": 0.9}
    assert decide(seen(200, harm=(195, 195)), [gate]).verdict == "ship"
    assert decide(seen(200, harm=(183, 183)), [gate]).verdict == "inconclusive"
    assert decide(seen(200, harm=(150, 150)), [gate]).verdict == "don't ship"
    assert decide(seen(200, harm=(150, 195)), [gate]).verdict == "inconclusive"


def test_failures_are_adjusted_over_the_gates_and_ships_are_not() -> None:
    """At 22 of 1,000 the p-value of 1.5 % is 0.05 by itself: a failure alone, none among ten."""
    gate = {"quantity": "harm", "at_most": 0.0142}
    alone = decide(seen(1000, harm=(22, 22)), [gate])
    assert alone.verdict == "don't ship"
    p = alone.gates[0].p_failed
    assert lower_bound(22, 1000, p) == pytest.approx(0.0142, rel=1e-2)
    others = [{"quantity": "good", "at_most": 0.5 + k / 100} for k in range(9)]
    among = decide(seen(1000, harm=(22, 22)), [gate, *others])
    assert among.verdict == "inconclusive"
    assert among.gates[0].p_failed == pytest.approx(10 * p)
    clean = {"quantity": "good", "at_most": 0.00301}
    assert {decide(seen(1000, harm=(0, 0)), [clean] * n).verdict for n in (1, 20)} == {"ship"}


def test_every_gate_counts() -> None:
    both = [HARM, {"quantity": "good", "at_most": 0.1}]
    assert decide(seen(1000, harm=(0, 0), good=(10, 10)), both).verdict == "ship"
    assert decide(seen(1000, harm=(0, 0), good=(95, 95)), both).verdict == "inconclusive"
    assert decide(seen(1000, harm=(8, 8), good=(300, 300)), both).verdict == "don't ship"


def test_a_gate_on_the_log_counts_what_is_there() -> None:
    none = {"quantity": "harm", "at_most": 0, "on": "log"}
    assert decide(seen(5, harm=(0, 0)), [none]).verdict == "ship"
    assert decide(seen(5, harm=(0, 1)), [none]).verdict == "inconclusive"
    assert decide(seen(5, harm=(1, 1)), [none]).verdict == "don't ship"


def test_a_gate_on_nothing_is_open() -> None:
    """No session has any of what it is a share of."""
    empty = seen(5, harm=(0, 0))
    none = fit(gather([], []), "share")
    from dataclasses import replace

    harm = replace(empty.estimates[0], low=none, high=none)
    found = decide(replace(empty, estimates=(harm,)), [HARM])
    assert (found.verdict, found.clusters_needed) == ("inconclusive", None)
    on_log = decide(replace(empty, estimates=(harm,)), [HARM | {"on": "log"}])
    assert on_log.verdict == "inconclusive"


def test_a_comparison_by_a_file_of_gates(diff: Diff, tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(
        '[[gates]]\nquantity = "harm_through_share"\nat_most = 0.05\n\n'
        '[[gates]]\nquantity = "calls_prevented_share"\nat_most = 0.99\nlevel = 0.8\neach = true\n'
    )
    found = decide(diff, path, by="tenant")
    assert found.gates[0].estimate.slice is None
    assert len(found.gates) == 3  # two tenants
    assert found.verdict == "inconclusive"
    assert found.pins["candidate"] == "r-1"
    assert "<b>slack" not in found._repr_html_()
    said = found.as_dict()
    json.dumps(said, allow_nan=False)
    assert said["gates"][0]["at_most"] == 0.05  # type: ignore[index, call-overload]


TOOLS = {"quantity": "calls_prevented_share", "at_most": 0.5, "on": "log", "each": "tool"}


def test_gates_name_their_own_slices(diff: Diff, tmp_path: Path) -> None:
    """A file says it all: `decide` without `by`, and a comparison with declared gates, judge as with `by`."""
    path = tmp_path / "gates.toml"
    path.write_text(
        '[[gates]]\nquantity = "calls_prevented_share"\nat_most = 0.5\non = "log"\neach = "tool"\n\n'
        '[[gates]]\nquantity = "calls_held_share"\nat_most = 0.99\neach = ["tenant", "tool"]\n\n'
        '[[gates]]\nquantity = "calls_held_share"\nat_most = 0.99\n'
    )
    found = decide(diff, path)
    by_tool = decide(diff, [TOOLS | {"each": True}], by="tool")
    by_both = decide(
        diff, [{"quantity": "calls_held_share", "at_most": 0.99, "each": True}], by=("tenant", "tool")
    )
    told = [(each.gate.quantity, each.estimate.slice, each.state, each.safe) for each in found.gates]
    expected = [
        (each.gate.quantity, each.estimate.slice, each.state, each.safe)
        for each in (*by_tool.gates, *by_both.gates)
    ]
    assert told[:-1] == expected
    assert len(expected) > 10
    assert told[-1][1] is None
    # By hand: of four `send_money` that ran two are prevented, one is held, one altered.
    ran = {each.estimate.slice: each for each in found.gates if each.gate.by == ("tool",)}
    assert set(ran) == set(diff.frame.select("tool").collect()["tool"])
    assert ran["send_money"].safe == 2 / 4
    again = compare(diff.base, diff.cand, gates=path)
    assert again.outcome is not None
    assert again.outcome.as_dict() == found.as_dict()
    json.dumps(found.as_dict(), allow_nan=False)


def test_one_slice_fails_the_whole_and_is_named(diff: Diff) -> None:
    """All together keep it; `invite` (one of two) and `send_money` (two of four) alone do not."""
    assert decide(diff, [TOOLS | {"at_most": 0.49, "each": False}]).verdict == "ship"
    found = decide(diff, [TOOLS | {"at_most": 0.49}])
    failed = {each.estimate.slice for each in found.gates if each.state == "failed"}
    assert (found.verdict, failed) == ("don't ship", {"invite", "send_money"})
    line = next(each for each in found.page().lines if "invite" in each)
    assert line.startswith(
        "calls_prevented_share <= 0.49 on this log for each tool (invite): 0.5 on this log"
    )
    hostile = decide(diff, [TOOLS | {"each": "tenant", "at_most": 0.01}])
    assert "<b>slack" not in hostile._repr_html_()


def test_slices_of_no_column(diff: Diff) -> None:
    with pytest.raises(GatesInvalid, match=r"gate `calls_prevented_share`: `each` names a column: .*tool"):
        decide(diff, [TOOLS | {"each": "tol"}])


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        ([], "no gate is declared"),
        ({}, "no gate is declared"),
        ({"gate": []}, "no key `gate`"),
        ({"gates": "x"}, "is a list"),
        ([{"quantity": "harm", "atmost": 0.1}], "gate 1 has no key `atmost`; did you mean `at_most`"),
        ([{"at_most": 0.1}], "names no `quantity`"),
        ([{"quantity": 3, "at_most": 0.1}], "name of a quantity"),
        ([{"quantity": "harm"}], "give one of `at_most` and `at_least`"),
        ([{"quantity": "harm", "at_most": 0.1, "at_least": 0.1}], "give one of"),
        ([{"quantity": "harm", "at_most": "5 %"}], "give a number"),
        ([{"quantity": "harm", "at_most": True}], "give a number"),
        ([{"quantity": "harm", "at_most": float("nan")}], "give a number"),
        ([{"quantity": "harm", "at_most": 0.1, "level": 95}], "between 0.5 and 1"),
        ([{"quantity": "harm", "at_most": 0.1, "on": "logs"}], '"future" or "log"'),
        ([{"quantity": "harm", "at_most": 0.1, "each": 1}], r'it is a column, as "tool"'),
        ([{"quantity": "harm", "at_most": 0.1, "each": ""}], r'it is a column, as "tool"'),
        ([{"quantity": "harm", "at_most": 0.1, "each": []}], r'or several, as \["tenant", "tool"\]'),
        ([{"quantity": "harm", "at_most": 0.1, "each": ["tool", 1]}], "or several"),
        ([{"quantity": "harm", "at_most": 0.1, "each": True}], r'`each = "tool"`, or give `by`'),
        (
            [{"quantity": "harm", "at_most": 0.1, "each": "tool"}],
            "gate `harm`: .*were not made of a comparison",
        ),
        ([{"quantity": "harms", "at_most": 0.1, "each": "tool"}], "did you mean `harm`"),
        ([{"quantity": "harms", "at_most": 0.1}], "did you mean `harm`"),
        ([{"quantity": "harm", "at_most": 0}], 'on = "log"'),
        ([{"quantity": "harm", "at_least": 1}], 'on = "log"'),
        (["harm"], "it has keys"),
    ],
)
def test_refuses_gates_with_the_fix(gates: Given, says: str) -> None:
    with pytest.raises(GatesInvalid, match=says):
        decide(seen(10, harm=(0, 0)), gates)


def test_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    with pytest.raises(GatesInvalid, match=r"gates\.toml"):
        read(path)
    for text, says in (("gates = x", "line 1"), ("[[gates]]\nquantty = 1\n", "did you mean `quantity`")):
        path.write_text(text)
        with pytest.raises(GatesInvalid, match=says) as caught:
            read(str(path))
        assert "gates.toml" in str(caught.value)


def test_takes_gates_in_any_form() -> None:
    gate = Gate(quantity="harm", at_most=0.01)
    forms: list[Any] = [gate, [gate], {"gates": [gate]}, {"gates": [HARM]}, [HARM]]
    assert {read(each) for each in forms} == {(gate,)}
    assert gate.as_dict() == HARM | {"level": 0.95, "on": "future", "each": False}
    with pytest.raises(GatesInvalid, match="made already"):
        decide(seen(3, harm=(0, 0)), gate, by="tool")


def test_agrees_with_the_estimate(diff: Diff) -> None:
    found = estimates(diff, cluster=("tenant", "session_id"))
    judged = decide(
        found, {"gates": [{"quantity": "harm_through_share", "at_most": 0.05, "level": 0.975}]}
    ).gates[0]
    assert judged.safe == found["harm_through_share"].interval(0.95).upper
