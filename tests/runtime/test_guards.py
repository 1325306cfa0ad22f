"""Output guards: only a plain yes lets an effect through, whatever else a guard does."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import GovernanceError, Guard, GuardRejected, InDoubt, Proposal
from runtime.actions import under_way
from runtime.guards import verdict_of

if TYPE_CHECKING:
    from pathlib import Path


def reason(till: Any) -> list[Any]:
    said = json.loads(till.last()["guards"])
    return [(each["guard"], each["passed"], each["reason"]) for each in said]


# -- what an answer is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "passed", "failed"),
    [
        (True, True, False),
        (False, False, False),
        ((True, "fine"), True, False),
        ((False, "no"), False, False),
        ((True, None), True, False),
        ((False, 5), False, False),
        (None, False, True),
        (1, False, True),
        ("yes", False, True),
        ((True,), False, True),
        ((True, "a", "b"), False, True),
        ([True, "fine"], False, True),
        ((1, "fine"), False, True),
        ({}, False, True),
    ],
)
def test_what_an_answer_says(answer: Any, passed: bool, failed: bool) -> None:
    said = verdict_of(Guard(lambda _: None, "g"), answer)
    assert (said.passed, said.failed) == (passed, failed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner),
    )
)
def test_nothing_passes_but_true(answer: Any) -> None:
    plain = answer[0] if isinstance(answer, tuple) and len(answer) == 2 else answer
    assert verdict_of(Guard(lambda _: None, "g"), answer).passed == (plain is True)


# -- before a commit -------------------------------------------------------------------------------------------


def test_a_rejected_staged_effect_is_never_committed_and_the_trace_says_so(till: Any) -> None:
    seen: list[Proposal] = []

    def polite(proposal: Proposal) -> bool:
        seen.append(proposal)
        return True

    def cap(proposal: Proposal) -> tuple[bool, str]:
        return False, f"{proposal.args['id']} is over"

    till.staged(guards=[polite, cap, lambda _: 1 / 0])
    with till.session(on_behalf_of="User::ana") as session, pytest.raises(GuardRejected) as caught:
        session.call("pay", "o", 5, idempotency_key="k")
    assert till.did == [("pay", "o"), ("abort", {"hold": "o"})]
    assert reason(till) == [
        ("polite", True, ""),
        ("cap", False, "o is over"),
    ]  # the third is not asked any more
    assert (till.last()["status"], till.last()["reason_code"]) == ("aborted", "guard_rejected")
    assert caught.value.outcome["outcome_id"] == till.last()["outcome_id"]
    assert isinstance(caught.value, PermissionError)
    assert isinstance(caught.value, GovernanceError)
    assert "guard 'cap' rejected decision" in str(caught.value)
    assert "o is over; nothing was committed" in str(caught.value)
    (proposal,) = seen
    assert (proposal.tool, proposal.args, proposal.result) == ("pay", {"id": "o", "cents": 5}, {"hold": "o"})
    assert proposal.decision_id == session.last_decision["decision_id"]
    assert (proposal.identity.tenant, str(proposal.identity.on_behalf_of)) == ("t", 'User::"ana"')
    with pytest.raises(GuardRejected):  # and so does a repeat
        till.runtime.session(principal="Agent::a", tenant="t", on_behalf_of="User::ana").call(
            "pay", "o", 5, idempotency_key="k"
        )
    assert till.events == ["pay", "abort"]


@pytest.mark.parametrize(
    "guard", [lambda _: 1 / 0, lambda _: None, lambda _: "ok", lambda: True, lambda _: (_ for _ in ())]
)
def test_a_guard_that_gives_no_verdict_rejects(till: Any, guard: Any) -> None:
    till.staged(guards=[guard])
    with pytest.raises(GuardRejected):
        till.call()
    assert (till.last()["status"], till.last()["reason_code"]) == ("aborted", "guard_failed")
    assert till.events == ["pay", "abort"]


def test_a_guard_that_takes_too_long_rejects(till: Any, gate: Any) -> None:
    till.staged(guards=[Guard(lambda _: gate(True), "slow", timeout=0.05)])
    with pytest.raises(GuardRejected):
        till.call()
    gate.opened.set()
    assert reason(till) == [("slow", False, "ToolTimeout: guard 'slow' did not return within 0.05 s")]
    assert till.last()["reason_code"] == "guard_failed"
    assert till.events == ["pay", "abort"]


def test_a_guard_cannot_change_what_it_judges(till: Any) -> None:
    def meddle(proposal: Proposal) -> bool:
        proposal.args["id"] = "other"  # type: ignore[index]
        proposal.result["hold"] = "other"
        return True

    seen: list[Any] = []

    def see(proposal: Proposal) -> bool:
        seen.append(proposal.args)
        return True

    till.staged(guards=[meddle, see])
    till.call()
    assert till.did == [("pay", "o"), ("commit", {"hold": "o"})]
    assert seen == [{"id": "o", "cents": None}]


def test_no_guard_is_asked_while_the_ledger_is_locked(till: Any) -> None:
    """A guard may use the runtime itself."""
    till.staged(guards=[lambda _: till.ledger.head()[0] > 0 and till.runtime.in_doubt() == []])
    assert till.call() == "paid"


# -- after an effect -------------------------------------------------------------------------------------------


def test_a_rejected_compensable_effect_is_undone(till: Any) -> None:
    states: list[str] = []

    def undo(result: Any, effect_id: str) -> None:
        states.extend(action.state for action in under_way(till.ledger))
        till.did.append(("undo", result))

    till.declare(effect="compensable", undo=undo, guards=[lambda _: (False, "too much")])
    with pytest.raises(GuardRejected, match="too much; it was undone"):
        till.call(key="k")
    assert states == ["undoing"]  # durable before the undo
    assert till.did == [("pay", "o"), ("undo", {"hold": "o"})]
    assert (till.last()["status"], till.last()["reason_code"]) == ("compensated", "guard_rejected")
    with pytest.raises(GuardRejected, match="ended as compensated"):
        till.call(key="k")


@pytest.mark.parametrize("effect", ["read", "idempotent", None])
def test_a_rejected_result_is_withheld_and_its_effect_recorded(till: Any, effect: Any) -> None:
    till.declare(lambda _: "the secret", effect=effect, guards=[lambda p: p.result != "the secret"])
    for _ in range(2):  # a repeat does not get it either
        with pytest.raises(GuardRejected) as caught:
            till.call(key="k")
        assert "secret" not in str(caught.value)
    assert till.events == ["pay"]
    last = till.last()
    assert (last["status"], last["reason_code"], last["result"]) == (
        "succeeded",
        "guard_rejected",
        '"the secret"',
    )


def test_an_interruption_while_guards_judge_undoes_or_withholds(till: Any) -> None:
    def interrupt(_: Any) -> bool:
        raise KeyboardInterrupt

    till.declare(effect="compensable", undo=till.undo, guards=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        till.call()
    assert (till.last()["status"], till.last()["reason_code"]) == ("compensated", "cancelled")
    assert till.events == ["pay", "undo"]
    del till.runtime.tools["pay"]
    till.declare(effect="idempotent", guards=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        till.call(key="k")
    assert (till.last()["status"], till.last()["reason_code"]) == ("succeeded", "cancelled")
    with pytest.raises(GuardRejected):  # nobody has judged it
        till.call(key="k")


# -- async -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["call", "acall"])
@pytest.mark.parametrize("answer", [True, False])
async def test_async_guards_judge_in_both_drivers(till: Any, how: str, answer: bool) -> None:
    async def judge(_: Proposal) -> bool:
        await asyncio.sleep(0)
        return answer

    async def slow(_: Proposal) -> bool:
        await asyncio.sleep(60)
        return True

    till.staged(guards=[judge, Guard(slow, timeout=0.05)])
    with pytest.raises(GuardRejected):
        if how == "call":
            await asyncio.to_thread(till.call)
        else:
            await till.session().acall("pay", "o")
    assert [passed for _, passed, _ in reason(till)] == ([True, False] if answer else [False])
    assert till.last()["reason_code"] == ("guard_failed" if answer else "guard_rejected")


async def test_an_async_guard_of_a_sync_call_in_a_loop_rejects(till: Any) -> None:
    async def judge(_: Proposal) -> bool:
        return True

    till.staged(guards=[judge])
    with pytest.raises(GuardRejected, match=r"await session\.acall"):
        till.call()
    assert till.events == ["pay", "abort"]


async def test_a_whole_async_protocol(till: Any) -> None:
    async def commit(handle: Any) -> str:
        await asyncio.sleep(0)
        till.did.append(("commit", handle))
        return "paid"

    async def abort(handle: Any) -> None:
        till.did.append(("abort", handle))

    async def decent(proposal: Proposal) -> bool:
        return proposal.args["id"] != "bad"

    till.declare(is_async=True, effect="staged", commit=commit, abort=abort, guards=[decent])
    session = till.session()
    assert await session.acall("pay", "good") == "paid"
    with pytest.raises(GuardRejected):
        await session.acall("pay", "bad")
    assert till.events == ["pay", "commit", "pay", "abort"]
    assert await asyncio.to_thread(till.call, "good") == "paid"


async def test_guards_and_commits_do_not_block_the_loop(till: Any, gate: Any) -> None:
    till.staged(guards=[lambda _: gate(True)])
    task = asyncio.create_task(till.session().acall("pay", "o"))
    while not gate.reached.is_set():  # noqa: ASYNC110 - the loop runs while the guard waits
        await asyncio.sleep(0)
    gate.opened.set()
    assert await task == "paid"


# -- all together ----------------------------------------------------------------------------------------------

ANSWERS: dict[str, Any] = {
    "yes": lambda _: True, "no": lambda _: (False, "no"), "raises": lambda _: 1 / 0, "odd": lambda _: "yes",
}  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    effect=st.sampled_from(["read", "idempotent", "staged", "compensable"]),
    answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=4),
)
def test_an_effect_counts_exactly_when_every_guard_says_yes(
    make_till: Any, tmp_path: Path, effect: str, answers: list[str]
) -> None:
    till = make_till(tmp_path / threading.current_thread().name)
    functions = {"staged": ("commit", "abort"), "compensable": ("undo",)}.get(effect, ())
    declared = {name: getattr(till, name) for name in functions}
    till.declare(effect=effect, guards=[ANSWERS[answer] for answer in answers], **declared)
    accepted = all(answer == "yes" for answer in answers)
    try:
        till.call()
        assert accepted
    except GuardRejected:
        assert not accepted
    except InDoubt as exc:
        raise AssertionError from exc
    asked = len(json.loads(till.last()["guards"] or "[]"))
    first = next((i for i, answer in enumerate(answers) if answer != "yes"), None)
    assert asked == (len(answers) if first is None else first + 1)
    consequence = {"staged": ("commit", "abort"), "compensable": (None, "undo")}.get(effect, (None, None))
    assert till.events[1:] == [each for each in [consequence[not accepted]] if each]
    statuses = {"staged": "aborted", "compensable": "compensated"}
    assert till.last()["status"] == ("succeeded" if accepted else statuses.get(effect, "succeeded"))
    assert under_way(till.ledger) == []
    till.ledger.close()
