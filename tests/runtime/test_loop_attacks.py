"""What tools and callers do to a call, on purpose or by mistake: only what was decided runs, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import (
    Blocked,
    GovernanceError,
    InDoubt,
    RegistrationError,
    current_session,
)
from runtime.canonical import parse

if TYPE_CHECKING:
    from collections.abc import Iterator


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError("no repr")


class BadDump:
    def model_dump(self, **_: Any) -> Any:
        raise KeyError("dump")


class BadStrError(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def lazily(ran: list[int]) -> Iterator[None]:
    for i in range(3):
        ran.append(i)
        yield


# -- what comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [BadRepr, BadDump, deep])
def test_a_result_whose_own_methods_raise_is_recorded_and_returned(world: Any, make: Any) -> None:
    result = make()
    world.body = lambda **_: result
    with world.session() as session:
        assert session.call(world.act, "1") is result
    assert world.outcome(session)["status"] == "succeeded"


def test_an_exception_whose_str_raises_is_recorded_and_raised(world: Any) -> None:
    def body(**_: Any) -> None:
        raise BadStrError

    world.body = body
    with world.session() as session, pytest.raises(BadStrError):
        session.call(world.act, "1")
    assert world.outcome(session)["error_message"] == "<BadStrError whose str raises ValueError>"


def test_a_huge_message_is_cut(world: Any) -> None:
    def body(**_: Any) -> None:
        raise ValueError("x" * 10_000_000)

    world.body = body
    with world.session() as session, pytest.raises(ValueError, match="xxx"):
        session.call(world.act, "1")
    assert len(world.outcome(session)["error_message"]) < 20_000


def test_a_result_that_sqlite_could_not_hold_is_kept_as_its_address(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.tools.KEPT_BYTES", 100_000)
    world.body = lambda **_: "x" * 100_001
    with world.session() as session:
        session.call(world.act, "1", idempotency_key="k")
        with pytest.raises(InDoubt, match="'hash', not in full"):
            session.call(world.act, "1", idempotency_key="k")
    assert world.runtime.ledger.unfinished() == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_interruption_is_recorded_and_goes_on(world: Any, error: BaseException) -> None:
    def body(**_: Any) -> None:
        raise error

    world.body = body
    with world.session() as session, pytest.raises(type(error)):
        session.call(world.act, "1")
    # The tool was in the middle: whether it had its effect is not known.
    assert (world.outcome(session)["status"], world.outcome(session)["reason_code"]) == (
        "in_doubt",
        "cancelled",
    )


async def test_stop_iteration_reaches_the_caller_and_never_hangs_a_task(world: Any) -> None:
    world.body = lambda **_: next(iter([]))
    with world.session() as session:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await asyncio.wait_for(session.acall(world.act, "1"), 5)
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await asyncio.to_thread(session.call, world.act, "1")
    assert world.outcome(session)["status"] == "failed"


async def test_a_coroutine_from_a_sync_tool_is_awaited_before_its_outcome_is_recorded(world: Any) -> None:
    ran: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0)
        ran.append("ran")
        return "done"

    world.body = lambda **_: work()
    with world.session() as session:
        assert await session.acall(world.act, "1") == "done"
        assert world.outcome(session)["result"] == '"done"'
        assert await asyncio.to_thread(session.call, world.act, "1") == "done"
        with pytest.raises(GovernanceError, match=r"await session\.acall"):
            session.call(world.act, "1")
    assert ran == ["ran", "ran"]
    assert world.outcome(session)["status"] == "failed"


def test_an_object_with_an_async_call_is_an_async_tool(world: Any) -> None:
    class Look:
        async def __call__(self) -> str:
            return "seen"

    world.runtime.tool(Look(), name="look")
    with world.session() as session:
        assert session.call("look") == "seen"
    assert world.outcome(session)["result"] == '"seen"'


def test_a_generator_is_refused_because_its_effects_would_come_after_its_outcome(world: Any) -> None:
    ran: list[int] = []
    world.body = lambda **_: lazily(ran)
    with world.session() as session, pytest.raises(GovernanceError, match="return a list"):
        session.call(world.act, "1")
    assert (world.outcome(session)["status"], ran) == ("failed", [])


# -- what is given ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [BadRepr, BadDump, deep])
def test_an_argument_whose_own_methods_raise_is_blocked_and_recorded(world: Any, make: Any) -> None:
    for given in ({"note": make()}, {"nope": make()}):
        with world.session() as session, pytest.raises(Blocked) as caught:
            session.call(world.act, "1", **given)
        assert caught.value.decision.reason_code == "args_invalid"
    assert world.runtime.ledger.head()[0] == 2


def test_the_tool_gets_what_was_decided_whatever_becomes_of_the_callers_list(world: Any) -> None:
    tags = ["a"]
    got: list[Any] = []

    def source(_: Any) -> None:
        tags.append("after the decision began")

    def body(**given: Any) -> None:
        got.append(list(given["tags"]))
        given["tags"].append("by the tool")

    world.source, world.body = source, body
    with world.session() as session:
        session.call(world.act, "1", tags=tags)
    assert got == [["a"]]
    assert session.last_decision["args"].endswith('"tags":["a"]}')


def test_a_set_is_one_array_in_every_process(world: Any) -> None:
    words = {f"word-{i}" for i in range(50)}
    with world.session() as session:
        session.call(world.act, "1", tags=words)
    assert session.last_decision["enforced_args"].count("word-") == 50
    args: Any = parse(session.last_decision["args"])
    assert args["tags"] == sorted(words)


def test_a_patch_that_uncovers_the_tools_own_default_is_blocked(tmp_path: Path, make_world: Any) -> None:
    ran: list[str] = []
    runtime = make_world(tmp_path / "lake").runtime
    del runtime.tools["act"]

    @runtime.tool(resource="Thing::{id}")
    def act(id: str, tags: list[str] | None = None, note: str = "the default, a secret") -> None:  # noqa: A002
        ran.append(note)

    with (
        runtime.session(principal="Agent::bot", tenant="acme") as session,
        pytest.raises(Blocked, match="its own default") as caught,
    ):
        session.call(act, "1", note="a secret")
    assert (caught.value.decision.reason_code, ran) == ("patch_invalid", [])
    runtime.ledger.close()


# -- who calls what --------------------------------------------------------------------------------------------


def test_a_function_that_only_shares_a_tools_name_is_not_that_tool(world: Any) -> None:
    def act(id: str) -> None: ...  # noqa: A002

    with world.session() as session, pytest.raises(RegistrationError, match="is no tool that is registered"):
        session.call(act, "1")


def test_a_tool_is_found_by_its_function_and_through_a_frameworks_wrapper(world: Any) -> None:
    def look() -> str:
        return "seen"

    world.runtime.tool(look)

    @functools.wraps(world.act)
    def wrapped(*args: Any) -> Any:
        return world.act(*args)

    with world.session() as session:
        assert session.call(look) == "seen"
        session.call(wrapped, "1")
        assert session.last_decision["tool"] == "act"


def test_a_governed_function_does_not_run_its_namesake_of_another_runtime(
    world: Any, tmp_path: Path, make_world: Any
) -> None:
    other = make_world(tmp_path / "other")
    ran: list[str] = []
    world.body = lambda **_: ran.append("mine")
    other.body = lambda **_: ran.append("other")
    with other.session(), pytest.raises(GovernanceError, match="registered with another runtime"):
        world.act("1")
    assert ran == []
    other.runtime.ledger.close()


def test_sessions_left_out_of_order_leave_no_identity_behind(world: Any) -> None:
    one, two = world.session(), world.session(principal="Agent::two")
    with contextlib.ExitStack() as stack:
        one.__enter__()
        stack.enter_context(two)
        one.__exit__(None, None, None)
        assert current_session() is two
    assert current_session() is None


def test_another_principal_cannot_continue_a_session(world: Any) -> None:
    early = [world.session(session_id="s", principal="Agent::evil") for _ in range(1)]
    with world.session(session_id="s") as session:
        session.call(world.act, "1")
    for changes in ({"principal": "Agent::evil"}, {"on_behalf_of": "User::ana"}):
        with pytest.raises(RegistrationError, match='is of Agent::"bot", not of Agent::'):
            world.session(session_id="s", **changes)
    with pytest.raises(
        RegistrationError, match="leave `session_id` out"
    ):  # opened before anybody had begun it
        early[0].call(world.act, "1")
    world.session(session_id="s").call(world.act, "1")
    world.session(session_id="s", tenant="other", principal="Agent::evil").call(world.act, "1")


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"scopes": "admin"}, r"a list of names, got the text 'admin'; write \['admin'\]"),
        ({"scopes": [1]}, "`scopes` must be text, got 1"),
        ({"tenant": None}, "`tenant` must be text, got None"),
        ({"session_id": ""}, "must not be empty"),
        ({"session_id": 5}, "`session_id` must be text, got 5"),
        ({"principal": "bot"}, "`principal`: entity uid must be"),
        ({"principal": 5}, "`principal`"),
    ],
)
def test_an_identity_written_down_wrongly_opens_no_session(world: Any, identity: Any, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        world.session(**identity)
