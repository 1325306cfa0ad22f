"""Staged and compensable effects, keys, timeouts, cancellation: what is recorded is what happened, or doubt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime import (
    ActionMoved,
    Blocked,
    IdempotencyConflict,
    InDoubt,
    InProgress,
    LedgerError,
    NotCommitted,
    RegistrationError,
    ToolMemory,
    ToolTimeout,
    current_session,
)
from runtime.actions import find, move, under_way
from runtime.broker import Invoke
from runtime.errors import GuardRejected, ToolCrashed
from runtime.evidence import CHAIN_COLUMNS
from runtime.isolation import Isolation
from runtime.ledger import Claim, ClaimTaken
from runtime.lifecycle import ENDINGS, FIRST, RESOLUTIONS, TRANSITIONS, after, concluded
from runtime.protocol import ending_of
from runtime.settling import effect_id_of
from runtime.trace import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable


def raises(error: BaseException) -> Callable[..., Any]:
    def fn(handle: Any = None, *_: Any, **__: Any) -> Any:
        raise error

    return fn


def ended(till: Any) -> tuple[str, str | None]:
    return till.last()["status"], till.last()["reason_code"]


# -- commits per call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "commits", "did"),
    [
        ({}, 2, ["pay"]),
        ({"effect": "read"}, 2, ["pay"]),
        ({"effect": "idempotent"}, 2, ["pay"]),
        ({"effect": "compensable", "undo": "undo"}, 2, ["pay"]),
        ({"effect": "compensable", "undo": "undo", "guards": [lambda _: True]}, 2, ["pay"]),
        ({"effect": "compensable", "undo": "undo", "guards": [lambda _: False]}, 3, ["pay", "undo"]),
        ({"effect": "staged", "commit": "commit", "abort": "abort"}, 3, ["pay", "commit"]),
        (
            {"effect": "staged", "commit": "commit", "abort": "abort", "guards": [lambda _: True]},
            4,
            ["pay", "commit"],
        ),
        (
            {"effect": "staged", "commit": "commit", "abort": "abort", "guards": [lambda _: False]},
            4,
            ["pay", "abort"],
        ),
    ],
)
def test_transactions_per_call(till: Any, declared: Any, commits: int, did: list[str]) -> None:
    till.declare(
        **{k: getattr(till, v) if k in ("commit", "abort", "undo") else v for k, v in declared.items()}
    )
    with contextlib.suppress(PermissionError):
        till.call()
    assert (till.commits, till.events) == (commits, did)
    assert under_way(till.ledger) == []
    with pytest.raises(Blocked):
        till.call(cents=2000)
    assert till.commits == commits + 1


def test_the_handle_is_durable_before_the_guards_judge_and_their_word_before_the_commit(till: Any) -> None:
    seen: list[Any] = []

    def look(where: str) -> None:
        (action,) = under_way(till.ledger)
        seen.append((where, action.state, action.handle, action.guards))

    def guard(_: Any) -> bool:
        look("guard")
        return True

    def commit(handle: Any) -> str:
        look("commit")
        return "paid"

    till.staged(guards=[guard], commit=commit)
    assert till.call() == "paid"
    said = '[{"guard":"guard","passed":true,"reason":""}]'
    assert seen == [("guard", "staged", '{"hold":"o"}', None), ("commit", "committing", '{"hold":"o"}', said)]
    assert (ended(till), till.last()["result"], till.last()["guards"]) == (
        ("succeeded", "returned"),
        '"paid"',
        said,
    )
    assert till.steps == [
        *(
            "deciding",
            "decided",
            "ran",
            "staged",
            "judging",
            "judged",
            "committing",
            "committed",
            "ending",
            "ended",
        ),
    ]


def test_what_it_declares_is_in_the_decision(till: Any) -> None:
    till.declare(effect="idempotent", writes=["Order::{id}", "Ledger::main"])
    till.call()
    assert till.decision()["effect"] == "idempotent"
    assert till.decision()["writes"] == ['Ledger::"main"', 'Order::"o"']
    with pytest.raises(Blocked):
        till.call(cents=2000)
    assert "writes" not in till.decision()  # nothing is enforced


# -- keys ------------------------------------------------------------------------------------------------------


def test_every_function_gets_the_same_effect_id_and_no_caller_can_give_it(till: Any) -> None:
    seen: list[str] = []

    def pay(effect_id: str, id: str, cents: int | None = None) -> str:  # noqa: A002
        seen.append(effect_id)
        return id

    def commit(effect_id: str, handle: str) -> str:
        seen.append(effect_id)
        return handle

    def guard(proposal: Any) -> bool:
        seen.append(proposal.effect_id)
        return True

    till.runtime.tool(
        pay, resource="Order::{id}", effect="staged", commit=commit, abort=lambda handle: None,
        guards=[guard],
    )  # fmt: skip
    assert till.call("o", key="k") == "o"
    assert set(seen) == {effect_id_of(till.decision())}
    assert len(seen) == 3
    till.call("o")
    assert seen[-1] == till.decision()["decision_id"] == effect_id_of(till.decision())
    with pytest.raises(Blocked, match="effect_id"):
        till.call("o", effect_id="forged")
    assert "effect_id" not in till.runtime.find_tool("pay").signature.parameters


def test_concurrent_duplicates_run_once_and_may_ask_again(till: Any, gate: Any) -> None:
    till.declare(gate, effect="idempotent")
    first = threading.Thread(target=lambda: till.call(key="k"))
    first.start()
    gate.reached.wait(20)
    with pytest.raises(InProgress, match="ask again later"):
        till.call(key="k")
    with pytest.raises(IdempotencyConflict):
        till.call("other", key="k")
    gate.opened.set()
    first.join()
    assert till.call(key="k") == "o"
    assert till.events == ["pay"]


def test_a_running_call_of_another_open_ledger_is_in_progress_too(
    till: Any, gate: Any, tmp_path: Any, make_till: Any
) -> None:
    till.declare(gate, effect="idempotent")
    other = make_till(tmp_path / "lake")
    other.declare(effect="idempotent")
    assert other.runtime.recovered.in_doubt == []
    first = threading.Thread(target=lambda: till.call(key="k"))
    first.start()
    gate.reached.wait(20)
    with pytest.raises(InProgress):
        other.call(key="k")
    late = make_till(tmp_path / "lake")  # opened while it runs: it touches nothing
    assert late.runtime.recovered.in_doubt == []
    late.ledger.close()
    gate.opened.set()
    first.join()
    assert other.call(key="k") == "o"
    other.ledger.close()
    assert other.events == []


def test_a_key_expires_after_its_time_but_never_while_its_action_is_open(till: Any) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    till.runtime.clock = lambda: now
    till.declare(effect="idempotent", key_ttl=60)
    till.call(key="k")
    now += timedelta(seconds=59)
    till.call(key="k")
    assert till.events == ["pay"]
    now += timedelta(seconds=2)
    till.call(key="k")
    assert till.events == ["pay", "pay"]
    # Taken over, it holds for its own time.
    till.call(key="k")
    assert till.events == ["pay", "pay"]
    row = till.ledger.query("SELECT decision_id FROM claims")[0][0]
    insert = "INSERT INTO actions (decision_id, position, state) VALUES (?, 1, 'in_doubt')"
    till.ledger.commit(moves=[lambda db: db.execute(insert, (row,))])  # as a crash would leave it
    now += timedelta(days=1)
    with contextlib.suppress(InDoubt):
        till.call(key="k")
    assert till.events == ["pay", "pay"]


def test_an_expired_key_is_not_taken_over_in_a_race_either(till: Any) -> None:
    """The transaction looks again: the action may have come into doubt since the key was read."""
    till.declare(effect="idempotent", key_ttl=1)
    till.call(key="k")
    key_hash, args_hash, ident, expires = till.ledger.query("SELECT * FROM claims")[0]
    insert = "INSERT INTO actions (decision_id, position, state) VALUES (?, 1, 'in_doubt')"
    till.ledger.commit(moves=[lambda db: db.execute(insert, (ident,))])
    for at in (expires - 1, expires):
        with pytest.raises(ClaimTaken, match=ident):
            till.ledger.commit(claim=Claim(key_hash, args_hash, "another", at=at))
    till.ledger.commit(moves=[lambda db: db.execute("DELETE FROM actions")])
    with pytest.raises(ClaimTaken, match=ident):
        till.ledger.commit(claim=Claim(key_hash, args_hash, "another", at=expires - 1))
    till.ledger.commit(claim=Claim(key_hash, args_hash, "another", at=expires))
    assert till.ledger.claim(key_hash).decision_id == "another"


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_a_prepare_that_raises_is_aborted_and_told(till: Any) -> None:
    till.staged(raises(ValueError("no cover")))
    with pytest.raises(ValueError, match="no cover"):
        till.call(key="k")
    assert (ended(till), till.last()["error_type"]) == (("aborted", "raised"), "ValueError")
    assert till.did == [("pay", "o"), ("abort", None)]
    assert under_way(till.ledger) == []
    with pytest.raises(InDoubt, match="was aborted; to run it, use another key"):
        till.call(key="k")


def test_an_abort_that_raises_is_owed_and_the_error_says_so(till: Any) -> None:
    till.staged(raises(ValueError("no cover")), abort=lambda handle, effect_id: 1 / 0)
    with pytest.raises(ValueError, match="no cover") as caught:
        till.call()
    assert "it will be told again" in caught.value.__notes__[0]
    assert [action.state for action in under_way(till.ledger)] == ["aborting"]
    assert ended(till) == ("aborted", "raised")
    assert till.runtime.in_doubt() == []


def test_an_abort_that_cannot_know_what_is_meant_is_not_called(till: Any) -> None:
    till.staged(raises(ValueError()), abort=lambda handle: till.did.append(("abort", handle)))
    with pytest.raises(ValueError):  # noqa: PT011
        till.call()
    assert till.events == ["pay"]
    assert under_way(till.ledger) == []


@pytest.mark.parametrize(
    ("status", "outcome", "caught"),
    [
        (None, ("in_doubt", "raised"), InDoubt),
        (lambda effect_id: "unknown", ("in_doubt", "raised"), InDoubt),
        (lambda effect_id: 1 / 0, ("in_doubt", "raised"), InDoubt),
        (lambda effect_id, handle: "succeeded" if handle else 0, ("succeeded", "asked"), InDoubt),
        (lambda effect_id: "aborted", ("aborted", "asked"), ConnectionError),
    ],
)
def test_a_commit_that_raises_is_doubt_unless_the_tool_knows(
    till: Any, status: Any, outcome: Any, caught: Any
) -> None:
    till.staged(commit=raises(ConnectionError("reset")), status=status)
    with pytest.raises(caught, match="reset"):
        till.call(key="k")
    assert ended(till) == outcome
    assert till.last()["error_type"] == "ConnectionError"
    assert ("abort" in till.events) == (outcome[0] == "aborted")
    assert len(till.runtime.in_doubt()) == (outcome[0] == "in_doubt")
    with pytest.raises(InDoubt):  # never retried
        till.call(key="k")
    assert till.events.count("pay") == 1


def test_a_commit_that_says_nothing_was_committed_is_aborted(till: Any) -> None:
    till.staged(commit=raises(NotCommitted("declined")))
    with pytest.raises(NotCommitted):
        till.call()
    assert (ended(till), till.events) == (("aborted", "raised"), ["pay", "abort"])
    assert under_way(till.ledger) == []


def test_a_commit_whose_process_could_not_begin_is_aborted(till: Any) -> None:
    till.staged(commit=raises(ToolCrashed("no such module", began=False)))
    with pytest.raises(ToolCrashed):
        till.call()
    assert (ended(till), till.events) == (("aborted", "crashed"), ["pay", "abort"])


def test_an_undo_that_raises_is_in_doubt(till: Any) -> None:
    till.declare(effect="compensable", undo=raises(OSError("gone")), guards=[lambda _: False])
    with pytest.raises(InDoubt, match="was to be undone, and that failed: gone"):
        till.call()
    assert ended(till) == ("in_doubt", "raised")


@pytest.mark.parametrize("point", ["staged", "committing"])
def test_a_disk_that_fails_before_the_commit_lets_nothing_be_committed(
    till: Any, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = till.ledger.commit, {"staged": 2, "committing": 3}[point]
    count = 0

    def failing(**given: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            raise LedgerError("the disk is full")
        return commit(**given)

    monkeypatch.setattr(till.ledger, "commit", failing)
    till.staged(guards=[lambda _: True])
    with pytest.raises(LedgerError, match="the disk is full"):
        till.call()
    assert till.events == ["pay", "abort"]
    assert ended(till) == ("aborted", "raised")


def test_a_disk_that_stays_full_lets_nothing_be_committed_either(
    till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> Any:
        raise LedgerError("the disk is full")

    def body(_: str) -> Any:
        monkeypatch.setattr(till.ledger, "commit", full)
        return {}

    till.staged(body)
    with pytest.raises(LedgerError):
        till.call()
    assert till.events == ["pay", "abort"]
    assert [action.state for action in under_way(till.ledger)] == ["preparing"]  # the next opening aborts it


# -- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("declared", "outcome", "caught"),
    [
        ({"effect": "read"}, ("cancelled", "timeout"), ToolTimeout),
        ({"effect": "idempotent"}, ("in_doubt", "timeout"), InDoubt),
        ({}, ("in_doubt", "timeout"), InDoubt),
        ({"effect": "compensable", "undo": print}, ("in_doubt", "timeout"), InDoubt),
    ],
)
@pytest.mark.parametrize("how", ["call", "acall"])
async def test_a_tool_that_takes_too_long(
    till: Any, gate: Any, is_async: bool, declared: Any, outcome: Any, caught: Any, how: str
) -> None:
    def body(_: str) -> Any:
        return asyncio.sleep(60) if is_async else gate()

    till.declare(body, is_async=is_async, timeout=0.05, **declared)
    with pytest.raises(caught, match=r"tool 'pay' did not return within 0\.05 s"):
        if how == "call":
            await asyncio.to_thread(till.call)
        else:
            await till.session().acall("pay", "o")
    assert ended(till) == outcome
    gate.opened.set()


def test_what_a_tool_comes_to_after_its_time_ends_the_doubt(till: Any, gate: Any) -> None:
    till.declare(gate, effect="idempotent", timeout=0.05)
    with pytest.raises(InDoubt):
        till.call(key="k")
    (doubt,) = till.runtime.in_doubt()
    recorded = threading.Event()
    till.runtime.at_step = lambda step: recorded.set() if step == "ended" else None
    gate.opened.set()
    assert recorded.wait(20)
    assert ended(till) == ("succeeded", "returned")
    assert till.runtime.in_doubt() == []
    assert till.call(key="k") == "o"
    with pytest.raises(ActionMoved):
        till.runtime.resolve(doubt.decision_id, "aborted", source="me")


def test_what_no_guard_has_judged_stays_in_doubt(till: Any, gate: Any) -> None:
    over = threading.Event()

    def body(_: str) -> str:
        gate()
        over.set()
        return "unjudged"

    till.declare(body, effect="idempotent", timeout=0.05, guards=[lambda _: False])
    with pytest.raises(InDoubt):
        till.call(key="k")
    gate.opened.set()
    assert over.wait(20)
    for thread in threading.enumerate():
        if thread.name.startswith("tool"):
            thread.join(20)
    assert ended(till) == ("in_doubt", "timeout")


def test_a_prepare_that_takes_too_long_is_aborted_and_a_commit_in_doubt(till: Any, gate: Any) -> None:
    till.staged(gate, timeout=0.05)
    with pytest.raises(ToolTimeout):
        till.call()
    assert (ended(till), till.events) == (("aborted", "timeout"), ["pay", "abort"])
    gate.opened.set()
    slow = type(gate)()
    del till.runtime.tools["pay"]
    till.staged(commit=lambda handle: slow(), timeout=0.05)
    with pytest.raises(InDoubt, match="did not return within"):
        till.call()
    assert ended(till) == ("in_doubt", "timeout")
    recorded = threading.Event()
    till.runtime.at_step = lambda step: recorded.set() if step == "ended" else None
    slow.opened.set()
    assert recorded.wait(20)
    assert ended(till) == ("succeeded", "returned")  # it was carried out after all


def test_a_tools_own_timeout_error_is_a_failure_like_any(till: Any) -> None:
    till.declare(raises(TimeoutError("upstream")), effect="idempotent", timeout=30)
    with pytest.raises(TimeoutError, match="upstream"):
        till.call()
    assert ended(till) == ("failed", "raised")


def test_a_timed_tool_runs_in_its_callers_context(till: Any) -> None:
    till.declare(lambda _: repr(current_session()), timeout=30)
    with till.session() as session:
        assert session.call("pay", "o") == repr(session)


@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize(
    ("error", "given", "status", "reason"),
    [
        (ToolTimeout(), {}, None, "timeout"),
        (ToolMemory(), {}, None, "memory"),
        (ToolCrashed("killed"), {}, None, "crashed"),
        (ToolCrashed("no such module", began=False), {}, "aborted", "crashed"),
        (OSError(), {}, "failed", "raised"),
        (KeyboardInterrupt(), {}, None, "cancelled"),
        (KeyboardInterrupt(), {"abandoned": True}, None, "cancelled"),
        (KeyboardInterrupt(), {"isolate": Isolation()}, None, "cancelled"),
        (KeyboardInterrupt(), {"started": False}, "aborted", "given_up"),
    ],
)
def test_how_a_tool_ended_that_did_not_return(
    effect: Any, error: BaseException, given: Any, status: Any, reason: str
) -> None:
    """One that was stopped or interrupted, or runs on, is in doubt unless it only reads."""
    step = Invoke(name="t", fn=print, args={}, **{"started": True} | given)
    doubt = "cancelled" if effect == "read" else "in_doubt"
    assert ending_of(error, step, effect) == (status or doubt, reason)
    assert reason in ENDINGS


# -- cancellation ----------------------------------------------------------------------------------------------


async def test_a_cancelled_task_leaves_a_sync_tool_running_and_says_so(till: Any, gate: Any) -> None:
    till.declare(gate, effect="idempotent")
    task = asyncio.create_task(till.session().acall("pay", "o", idempotency_key="k"))
    await asyncio.to_thread(gate.reached.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended(till) == ("in_doubt", "cancelled")
    recorded = threading.Event()
    till.runtime.at_step = lambda step: recorded.set() if step == "ended" else None
    gate.opened.set()
    assert await asyncio.to_thread(recorded.wait, 20)
    assert ended(till) == ("succeeded", "returned")


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_commit_under_way_is_never_abandoned(till: Any, gate: Any, is_async: bool) -> None:
    async def commit_async(handle: Any) -> str:
        return str(await asyncio.to_thread(gate, "paid"))

    till.staged(commit=commit_async if is_async else lambda handle: gate("paid"))
    task = asyncio.create_task(till.session().acall("pay", "o"))
    await asyncio.to_thread(gate.reached.wait, 20)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended(till), till.events) == (("succeeded", "returned"), ["pay"])


async def test_a_task_cancelled_while_guards_judge_is_aborted(till: Any, gate: Any) -> None:
    till.staged(guards=[lambda _: gate(True)])
    task = asyncio.create_task(till.session().acall("pay", "o"))
    await asyncio.to_thread(gate.reached.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    assert (ended(till), till.events) == (("aborted", "cancelled"), ["pay", "abort"])
    assert json.loads(till.last()["guards"])[0]["passed"] is False


@pytest.mark.parametrize("step", ["decided", "ran", "staged", "judging", "judged", "committing", "committed"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_between_any_two_steps_leaves_what_holds(
    till: Any, step: str, error: type[BaseException]
) -> None:
    """As a signal handler raises: not where somebody's function runs, but in between."""
    once: list[str] = []

    def at_step(name: str) -> None:
        if name == step and not once:
            once.append(name)
            raise error

    till.runtime.at_step = at_step
    till.staged(guards=[lambda _: True])
    with pytest.raises(error):
        till.call(key="k")
    assert ("commit" in till.events) == (step == "committed")
    assert till.last()["status"] == ("in_doubt" if step == "committed" else "aborted")
    assert till.runtime.running == {}
    with pytest.raises((InDoubt, InProgress)) as caught:
        till.call(key="k")
    assert isinstance(caught.value, InDoubt)


def test_an_interruption_right_after_the_decisions_commit_finds_the_decision(till: Any) -> None:
    commit = till.ledger.commit

    def interrupted(**given: Any) -> Any:
        commit(**given)
        till.ledger.commit = commit
        raise KeyboardInterrupt

    till.ledger.commit = interrupted
    till.declare(effect="idempotent")
    with pytest.raises(KeyboardInterrupt):
        till.call()
    assert (ended(till), till.events) == (("aborted", "given_up"), [])
    assert under_way(till.ledger) == []


# -- the table -------------------------------------------------------------------------------------------------


def test_every_transition_leads_somewhere_and_everything_can_end() -> None:
    states = set(TRANSITIONS)
    assert set(FIRST.values()) <= states
    reachable, queue = set(FIRST.values()), list(FIRST.values())
    while queue:
        for following in TRANSITIONS[queue.pop()] & states - reachable:
            reachable.add(following)  # type: ignore[arg-type]
            queue.append(following)  # type: ignore[arg-type]
    assert reachable == states
    assert all(TRANSITIONS[state] for state in states)
    assert all(after("in_doubt", status) for status in RESOLUTIONS)
    with pytest.raises(KeyError):
        after("aborting", "aborted")


@pytest.mark.parametrize("state", list(TRANSITIONS))
@pytest.mark.parametrize("effect", list(FIRST))
def test_what_is_concluded_is_a_transition(state: Any, effect: Any) -> None:
    found = concluded(state, effect)
    assert (found is None) == (state in ("aborting", "in_doubt"))
    if found is not None:
        assert after(state, found.status)
        assert found.status in ("aborted", "cancelled", "in_doubt")  # never an answer that nobody gave


def test_a_move_that_is_no_transition_is_refused_and_writes_nothing(till: Any, gate: Any) -> None:
    till.declare(gate)
    thread = threading.Thread(target=till.call)
    thread.start()
    gate.reached.wait(20)
    ((ident, *_),) = under_way(till.ledger)
    with pytest.raises(ActionMoved, match="it is no transition"):
        move(ident, "started", "staged", at=0)
    with pytest.raises(ActionMoved, match="it is 'started'"):
        till.ledger.commit(moves=[move(ident, "staged", "committing", at=0)])
    found = find(till.ledger, ident)
    assert found is not None
    assert found.state == "started"
    gate.opened.set()
    thread.join()
    with pytest.raises(ActionMoved, match="has ended; its last outcome holds"):
        till.ledger.commit(moves=[move(ident, "staged", "committing", at=0)])
    outcome = {name: value for name, value in till.last().items() if name not in CHAIN_COLUMNS}
    with pytest.raises(ActionMoved, match="has ended"):
        till.ledger.commit(evidence=[(OUTCOMES, outcome | {"outcome_id": "again", "status": "failed"})])


# -- declarations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"effect": "write"}, "is one of read, idempotent, staged, compensable"),
        ({"effect": "staged"}, "needs `abort=` and `commit=`; missing is abort, commit"),
        ({"effect": "staged", "commit": print}, "missing is abort"),
        ({"effect": "compensable"}, "needs `undo=`"),
        (
            {"effect": "read", "undo": lambda r: 0},
            "`undo=` is for tools that are compensable; this one is read",
        ),
        ({"undo": lambda r: 0}, "this one is of no declared effect"),
        (
            {"effect": "read", "status": lambda effect_id: 0},
            "is for tools that are idempotent or staged or compensable",
        ),
        ({"effect": "read", "writes": ["Order::{id}"]}, "'read' writes nothing"),
        ({"writes": "Order::{id}"}, "`writes` is a list"),
        ({"writes": ["Order::{order}"]}, "uses `order`; its parameters are id, cents"),
        ({"writes": ["Order"]}, "must be `Type::id`"),
        ({"writes": ["Order::{id!r}"]}, "braces must hold"),
        ({"writes": [5]}, "must be text"),
        ({"timeout": 0}, "`timeout` is a number of seconds above 0, got 0"),
        ({"timeout": True}, "`timeout` is a number"),
        ({"timeout": float("inf")}, "`timeout` is a number"),
        ({"key_ttl": -1}, "`key_ttl` is a number"),
        ({"guards": "guard"}, "`guards` is a list of callables"),
        ({"guards": [5]}, "a guard is a callable, got 5"),
        ({"usage": 5}, "`usage=` is a function"),
        ({"isolate": 5}, "is a `runtime.isolation.Isolation`"),
        ({"effect": "idempotent", "status": 5}, "`status=` is a function"),
        (
            {"effect": "idempotent", "status": lambda handle: 0},
            "without them it cannot know which effect is meant",
        ),
        ({"effect": "compensable", "undo": lambda: 0}, "without them it cannot know"),
        ({"effect": "compensable", "undo": lambda a, b: 0}, "must be callable with the result"),
        ({"effect": "compensable", "undo": lambda a, /: 0}, "must be callable with the result"),
    ],
)
def test_a_declaration_that_could_not_be_kept_is_refused(till: Any, declared: Any, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        till.declare(**declared)
    assert till.runtime.tools == {}


# -- nothing goes unrecorded -----------------------------------------------------------------------------------


def test_arguments_without_a_common_form_are_a_recorded_block(till: Any) -> None:
    with till.session() as session:
        till.declare()
        for args in ({"id": 2**62, "cents": 0.5}, {"id": "o", "cents": [2**62, 0.5]}):
            with pytest.raises(Blocked) as caught:
                session.call("pay", **args)
            assert caught.value.decision.reason_code == "args_invalid"
            assert session.last_decision["reason_code"] == "args_invalid"
    assert till.events == []


def test_whatever_deciding_raises_is_a_recorded_block(till: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    till.declare()
    monkeypatch.setattr("runtime.enforced.prepare", raises(RecursionError("too deep")))
    with till.session() as session, pytest.raises(Blocked, match="RecursionError: too deep"):
        session.call("pay", "o")
    assert till.decision()["reason_code"] == "undecidable"
    assert till.events == []


# -- what comes late -------------------------------------------------------------------------------------------


def test_what_a_given_up_prepare_comes_to_hold_is_released(till: Any, gate: Any) -> None:
    """`abort` takes the handle alone: until there is one, nothing can be told, and the action is owed."""
    released = threading.Event()

    def abort(handle: Any) -> None:
        till.did.append(("abort", handle))

    till.staged(lambda ident: gate({"hold": ident}), abort=abort, timeout=0.05)
    with pytest.raises(ToolTimeout):
        till.call()
    assert ended(till) == ("aborted", "timeout")
    assert till.ledger.query("SELECT state FROM actions") == [("aborting",)]
    till.runtime.at_step = lambda step: released.set() if step == "told" else None
    gate.opened.set()
    assert released.wait(20)
    assert till.did == [("pay", "o"), ("abort", {"hold": "o"})]
    assert till.ledger.query("SELECT state FROM actions") == []


def test_an_ending_that_the_disk_refused_is_recorded_once_it_takes_it(till: Any) -> None:
    """Else another process would take it for running, as long as this one lives."""
    till.declare(effect="idempotent")
    commit, full = till.ledger.commit, True

    def refusing(**given: Any) -> Any:
        if full and any(table is OUTCOMES for table, _ in given.get("evidence", ())):
            raise LedgerError("the disk is full")
        return commit(**given)

    till.ledger.commit = refusing
    with pytest.raises(InDoubt, match="could not be recorded"):
        till.call("first", key="k")
    assert till.ledger.query("SELECT state FROM actions") == [("started",)]
    full = False
    till.call("second")
    assert till.ledger.query("SELECT state FROM actions") == [("in_doubt",)]
    (doubt,) = till.runtime.in_doubt()
    till.runtime.resolve(doubt.decision_id, "succeeded", source="User::ana, by the statement")
    with pytest.raises(
        InDoubt, match=f"{doubt.decision_id}, succeeded, as found by User::ana, by the statement"
    ):
        till.call("first", key="k")


def test_a_result_without_a_canonical_form_is_undone_all_the_same(till: Any) -> None:
    till.declare(lambda _: 10**5000, effect="compensable", undo=till.undo, guards=[lambda _: False])
    with pytest.raises(GuardRejected):
        till.call()
    assert ended(till) == ("compensated", "guard_rejected")
