"""Simulators: what is asked, how often, what an answer does to the numbers, and what a failing one does not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from workbench.errors import SimulatorsInvalid
from workbench.weighing.simulators import Simulation, Situation, prepared, simulate
from workbench.weighing.worth import worth

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.compare import Diff

    Make = Callable[..., Diff]

ATTACK = {"origin": "attack"}


def call(then: str, now: str, **more: Any) -> dict[str, Any]:
    return {"then": then, "now": now, "labels": ATTACK, **more}


def test_only_what_the_log_does_not_know_is_asked(make: Make) -> None:
    calls = [
        call("ran", "same_action"),
        call("ran", "another_action"),
        call("ran", "does_not_run"),
        call("ran", "waits"),
        call("ran", "waits", now_args='{"cents":1}'),
        call("ran", "undecidable"),
        call("ran", "quarantined"),
        call("did_not_run", "same_action"),
        call("did_not_run", "waits"),
        call("in_doubt", "waits", now_args='{"cents":1}'),
        call("granted", "another_action"),
        call("waiting", "waits"),
        call("ran", "another_action", tool="other"),
    ]
    found = simulate(make(calls), {"refund": lambda _: Simulation(outcome="ran")})
    assert found.rows["decision_id"].to_list() == ["d-1", "d-4", "d-7", "d-8", "d-9"]
    assert found.rows["effect"].to_list() == ["altered", "held", "released", "escalated", "unknown"]


def test_a_situation_is_what_is_known_of_the_call(make: Make) -> None:
    seen: list[Situation] = []

    def ask(situation: Situation) -> Simulation:
        seen.append(situation)
        return Simulation(outcome="no_effect")

    simulate(
        make([call("ran", "another_action", now_args='{"cents":4}', result='{"ok":true}')]), {"refund": ask}
    )
    assert seen == [
        Situation(
            tool="refund", args={"cents": 4}, recorded_args={"cents": 10}, principal='Agent::"bot"', tenant="acme",
            session="s-1", then="ran", status="succeeded", result={"ok": True}, error=None,
        )
    ]  # fmt: skip


def test_a_result_that_was_not_kept_whole_is_not_known(make: Make) -> None:
    kept = '{"text":"\u00e4\u00f6"}'
    results: list[object] = []

    def ask(situation: Situation) -> Simulation:
        results.append(situation.result)
        return Simulation(outcome="ran")

    calls = [
        call("ran", "another_action", result=kept, bytes=size, session=f"s-{size}") for size in (None, 40_000)
    ]
    simulate(make(calls), {"refund": ask})
    assert results == [{"text": "\u00e4\u00f6"}, None]


def test_the_same_situation_is_simulated_once_and_in_the_logs_order(make: Make) -> None:
    calls = [
        call("did_not_run", "same_action", session=f"s-{n % 2}", args=f'{{"cents":{n % 3}}}')
        for n in range(12)
    ]
    asked: list[tuple[object, str | None]] = []

    def ask(situation: Situation) -> Simulation:
        asked.append((situation.args["cents"], situation.session))
        return Simulation(outcome="ran", money=len(asked))

    diff = make(calls)
    found = simulate(diff, {"refund": ask})
    assert asked == [(n % 3, f"s-{n % 2}") for n in range(6)]
    assert found.rows["sim_money"].to_list() == [1, 2, 3, 4, 5, 6] * 2
    asked.clear()
    assert simulate(diff, {"refund": ask}, without=["session"]).situations == 3
    assert asked == [(0, None), (1, None), (2, None)]


def test_an_answer_narrows_the_bounds_and_is_called_simulated(make: Make) -> None:
    calls = [
        call("ran", "another_action", args='{"cents":900}', now_args='{"cents":100}'),
        call("ran", "another_action", args='{"cents":500}', now_args='{"cents":200}'),
        call("ran", "same_action"),
        {"then": "ran", "now": "another_action", "labels": {"origin": "user"}},
    ]
    diff = make(calls)
    stakes = {"money": {"refund": "cents"}}
    simulated = simulate(
        diff,
        {
            "refund": lambda s: Simulation(
                outcome="ran", harm=s.args["cents"] == 200, good=False, reason="small sums are no harm"
            )
        },
    )
    alone, found = worth(diff, stakes), worth(diff, stakes, simulated)
    assert {n: (alone[n].low, alone[n].high, alone[n].basis) for n in ("harm_avoided", "good_lost", "harm_ran")} == {
        "harm_avoided": (0, 2, "bounds"), "good_lost": (0, 1, "bounds"), "harm_ran": (3, 3, "exact"),
    }  # fmt: skip
    assert {n: (found[n].low, found[n].high, found[n].basis) for n in ("harm_avoided", "good_lost", "harm_ran")} == {
        "harm_avoided": (1, 1, "simulated"), "good_lost": (1, 1, "simulated"), "harm_ran": (3, 3, "exact"),
    }  # fmt: skip
    assert (found["harm_money_avoided"].low, found["harm_money_avoided"].high) == (900 + 300, 900 + 300)
    row = found.frame.filter(quantity="harm_avoided").collect().row(0, named=True)
    assert (row["log_low"], row["log_high"]) == (0, 2)
    assert "Simulated: 3 calls the log cannot tell of" in repr(found)


def test_an_action_without_effect_is_neither_harm_nor_good(make: Make) -> None:
    diff = make(
        [
            call("did_not_run", "same_action"),
            {"then": "did_not_run", "now": "same_action", "labels": {"origin": "user"}},
        ]
    )
    found = worth(
        diff,
        {"money": {"refund": "cents"}},
        simulate(diff, {"refund": lambda _: Simulation(outcome="no_effect")}),
    )
    assert {found[n].high for n in ("harm_through", "good_done", "money_now")} == {0}
    failed = simulate(diff, {"refund": lambda _: Simulation(outcome="failed")})
    assert (
        worth(diff, None, failed)["harm_through"].low,
        worth(diff, None, failed)["harm_through"].high,
    ) == (0, 1)


def test_simulated_harm_of_an_unlabelled_call_counts(make: Make) -> None:
    """Nobody labelled what then did not run; that it would be harm now is known by the simulator alone."""
    diff = make([{"then": "did_not_run", "now": "same_action"}, {"then": "ran", "now": "same_action"}])
    assert "harm_through" not in worth(diff).numbers
    found = worth(diff, None, simulate(diff, {"refund": lambda _: Simulation(outcome="ran", harm=True)}))
    assert (found["harm_through"].low, found["harm_through"].high, found["harm_through"].basis) == (
        1,
        1,
        "simulated",
    )
    assert found["harm_ran"].high == 0


def test_waiting_is_not_simulated_away(make: Make) -> None:
    """What an approver would say nobody knows; that it would be no harm if granted can be simulated."""
    diff = make([call("did_not_run", "waits")])
    harm = simulate(diff, {"refund": lambda _: Simulation(outcome="ran", harm=True)})
    none = simulate(diff, {"refund": lambda _: Simulation(outcome="ran", harm=False)})
    assert (worth(diff, None, harm)["harm_through"].low, worth(diff, None, harm)["harm_through"].high) == (
        0,
        1,
    )
    assert worth(diff, None, none)["harm_through"].high == 0


def test_a_simulator_that_fails_leaves_its_rows_as_they_were(make: Make) -> None:
    diff = make([call("ran", "another_action", args=f'{{"cents":{n}}}') for n in range(5)])
    forever = threading.Event()

    def ask(situation: Situation) -> Simulation:
        match situation.recorded_args:
            case {"cents": 0}:
                raise OSError("the sandbox is away")
            case {"cents": 1}:
                return "fine"  # type: ignore[return-value]  # what a simulator must not do
            case {"cents": 2}:
                return Simulation(outcome="ran", harm=True, good=True)
            case {"cents": 3}:
                forever.wait(20)
        return Simulation(outcome="ran", harm=False)

    found = simulate(diff, {"refund": ask}, seconds=0.5)
    forever.set()
    assert found.rows["cause"].to_list() == [
        "OSError: the sandbox is away",
        "it returned a str, not a `Simulation`",
        "ValueError: it is both harm and good; say one, or None for not known",
        "TimeoutError: it took more than 0.5 s",
        None,
    ]
    avoided = worth(diff, None, found)["harm_avoided"]
    assert (avoided.low, avoided.high, avoided.basis) == (1, 5, "simulated")
    assert "Of 4 of them the simulator failed" in repr(found)


@pytest.mark.parametrize(
    "wrong",
    [{"outcome": "perhaps"}, {"outcome": "ran", "harm": 1}, {"outcome": "ran", "money": 1.5},
     {"outcome": "ran", "money": 2**63}, {"outcome": "ran", "money": True}, {"outcome": "no_effect", "harm": True},
     {"outcome": "no_effect", "money": 5}, {"outcome": "ran", "reason": None}],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"outcome|harm|money|effect|reason"):
        Simulation(**wrong)


class Payments:
    """A staged tool: prepares a hold, and lets go of it. Its commit must never be called."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.said: list[tuple[str, object, str]] = []

    def pay(self, cents: int, effect_id: str) -> dict[str, str]:
        self.said.append(("prepare", cents, effect_id))
        if cents > 500:
            raise PermissionError("no funds")
        self.held.append(effect_id)
        if cents == 13:
            raise RuntimeError("half-way")
        return {"hold": effect_id}

    def commit(self, handle: object) -> None:
        raise AssertionError("committed")

    def release(self, handle: dict[str, str] | None, effect_id: str) -> None:
        self.said.append(("abort", handle, effect_id))
        if effect_id in self.held:
            self.held.remove(effect_id)


def test_a_staged_tools_prepare_is_aborted_whatever_it_does(make: Make) -> None:
    tool = Payments()
    diff = make([call("did_not_run", "same_action", args=f'{{"cents":{n}}}') for n in (5, 13, 900)])
    found = simulate(
        diff,
        {"refund": prepared(tool.pay, tool.release, refusals=(PermissionError,))},
    )
    assert found.rows["outcome"].to_list() == ["ran", None, "no_effect"]
    assert found.rows["cause"].to_list() == [None, "RuntimeError: half-way", None]
    assert found.rows["reason"].to_list()[2] == "PermissionError: no funds"
    assert [what for what, *_ in tool.said] == ["prepare", "abort"] * 3
    assert tool.held == []
    assert all(one[2] == other[2] for one, other in zip(tool.said[::2], tool.said[1::2], strict=True))
    through = worth(diff, None, found)["harm_through"]
    assert (through.low, through.high) == (0, 2)


def test_a_judge_sees_the_handle_before_the_abort(make: Make) -> None:
    tool = Payments()

    def judge(situation: Situation, handle: dict[str, str]) -> Simulation:
        assert tool.held == [handle["hold"]]
        return Simulation(outcome="ran", harm=True, money=3)

    diff = make([call("did_not_run", "same_action", args='{"cents":5}')])
    found = simulate(diff, {"refund": prepared(tool.pay, tool.release, judge=judge)})
    assert found.rows.select("outcome", "sim_harm", "sim_money", "cause").row(0) == ("ran", True, 3, None)
    assert tool.held == []


def test_an_abort_that_fails_is_a_cause(make: Make) -> None:
    def abort(handle: object) -> None:
        raise OSError("the hold stays")

    diff = make([call("did_not_run", "same_action")])
    found = simulate(diff, {"refund": prepared(lambda cents: cents, abort)})
    assert found.rows["cause"].to_list() == ["OSError: the hold stays"]


def test_wrong_names_and_other_comparisons_are_refused(make: Make) -> None:
    diff = make([call("ran", "another_action")])
    with pytest.raises(SimulatorsInvalid, match=r"no tool `refnd` to simulate; did you mean `refund`\?"):
        simulate(diff, {"refnd": lambda _: Simulation(outcome="ran")})
    with pytest.raises(SimulatorsInvalid, match="`sesion`, which cannot be withheld; did you mean `session`"):
        simulate(diff, {"refund": lambda _: Simulation(outcome="ran")}, without=["sesion"])
    other = simulate(
        make([call("ran", "another_action")], candidate="r-2"),
        {"refund": lambda _: Simulation(outcome="ran")},
    )
    with pytest.raises(SimulatorsInvalid, match="another candidate"):
        worth(diff, None, other).numbers  # noqa: B018 - the first number collects
    with pytest.raises(SimulatorsInvalid, match="no function"):
        prepared("pay", lambda handle: None)  # type: ignore[arg-type]  # what is refused
