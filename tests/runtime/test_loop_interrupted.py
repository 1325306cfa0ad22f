"""Calls that are given up or fail half way, and declarations that could never work."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runtime import (
    Blocked,
    BundleError,
    InDoubt,
    LedgerError,
    RegistrationError,
    Runtime,
    current_session,
)
from runtime.bundle import bundle_from_files
from runtime.errors import CommitConflict

# -- while it is decided ---------------------------------------------------------------------------------------


def test_a_source_cannot_run_a_tool_of_the_session_that_asks_it(world: Any) -> None:
    ran: list[str] = []
    world.runtime.tool(lambda: ran.append("ran"), name="look")

    def source(_: Any) -> None:
        session = current_session()
        assert session is not None
        session.call("look")

    world.source = source
    with world.session() as session, pytest.raises(Blocked, match="sources only read"):
        session.call(world.act, "1")
    assert ran == []


def test_a_tool_may_call_another_tool_of_its_session(world: Any) -> None:
    world.runtime.tool(lambda: "seen", name="look")
    with world.session() as session:
        world.body = lambda **_: session.call("look")
        assert session.call(world.act, "1") == "seen"
        assert session.last_decision["step"] == 1


async def test_a_call_given_up_while_it_is_decided_is_aborted_not_in_doubt(world: Any) -> None:
    asked, answer, ran = threading.Event(), threading.Event(), list[int]()

    def source(_: Any) -> None:
        asked.set()
        answer.wait(5)

    world.source, world.body = source, lambda **_: ran.append(1)
    with world.session() as session:
        task = asyncio.create_task(session.acall(world.act, "1", idempotency_key="k"))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # at once, though the source has not answered
        answer.set()
        ledger = world.runtime.ledger
        for _ in range(200):
            if ledger.head()[0] == 2:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(InDoubt, match="given up before its tool started"):
            session.call(world.act, "1", idempotency_key="k")
    assert (ledger.unfinished(), ran) == ([], [])


async def test_an_outcome_is_durable_before_a_second_cancellation_gets_through(world: Any) -> None:
    started = asyncio.Event()

    async def look() -> None:
        started.set()
        await asyncio.sleep(60)

    world.runtime.tool(look)
    with world.session() as session:
        task = asyncio.create_task(session.acall("look"))
        await started.wait()
        commit = world.runtime.ledger.commit

        def slow(**given: Any) -> Any:
            time.sleep(0.2)
            return commit(**given)

        world.runtime.ledger.commit = slow
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.outcome(session)["reason_code"] == "cancelled"


async def test_a_closed_coroutine_still_records_its_outcome(world: Any) -> None:
    started = asyncio.Event()

    async def look() -> None:
        started.set()
        await asyncio.sleep(60)

    world.runtime.tool(look)
    session = world.session()
    coroutine = session.acall("look")
    task = asyncio.ensure_future(coroutine)
    await started.wait()
    coroutine.close()
    assert world.outcome(session)["reason_code"] == "cancelled"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await task


def test_a_locked_ledger_fails_once_and_is_not_retried_for_minutes(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def locked(**_: Any) -> Any:
        tries.append(1)
        raise CommitConflict("another process held it for 10 s; safe to retry")

    monkeypatch.setattr(world.runtime.ledger, "commit", locked)
    with world.session() as session, pytest.raises(CommitConflict, match="held it for 10 s"):
        session.call(world.act, "1")
    assert len(tries) == 1


@pytest.mark.parametrize("error", [None, ValueError("broken"), KeyboardInterrupt()])
def test_a_disk_that_fails_after_the_tool_ran_is_in_doubt_never_a_ledger_error(
    world: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    def full(**_: Any) -> Any:
        raise LedgerError("the disk is full")

    def body(**_: Any) -> None:
        monkeypatch.setattr(world.runtime.ledger, "commit", full)
        if error is not None:
            raise error

    world.body = body
    with world.session() as session:
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt) as interrupted:
                session.call(world.act, "1")
            assert "the disk is full" in interrupted.value.__notes__[0]
        else:
            with pytest.raises(InDoubt, match="could not be recorded: the disk is full"):
                session.call(world.act, "1")
        with pytest.raises(LedgerError, match="the disk is full"):  # nothing ran
            session.call(world.act, "1")
    assert len(world.runtime.ledger.unfinished()) == 1


# -- what is declared ------------------------------------------------------------------------------------------


def _yields() -> Any:
    yield 1


async def _yields_async() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("fn", "given", "message"),
    [
        (5, {"name": "look"}, "has no signature"),
        (functools.partial(print), {}, "needs a name of printable characters, got ''"),
        (lambda: 1, {"name": "\ud800"}, "needs a name of printable characters"),
        (_yields, {"name": "look"}, "is a generator"),
        (_yields_async, {"name": "look"}, "is a generator"),
        (lambda: 1, {"name": "look", "store": "ful"}, "must be one of full, hash, none, got 'ful'"),
        (lambda: 1, {"name": "look", "scopes": "admin"}, "a list of names"),
        (lambda arg: 1, {"name": "t", "resource": "Thing::{arg!r}"}, "braces must hold an argument's name"),
        (lambda: 1, {"name": "look", "resource": "Thing::x"}, "its action applies to Tool; pass `resource=`"),
    ],
)
def test_a_declaration_that_would_fail_every_call_is_refused(
    world: Any, fn: Any, given: Any, message: str
) -> None:
    with pytest.raises(RegistrationError, match=message):
        world.runtime.tool(fn, **given)


def test_an_action_in_a_namespace_is_refused_at_load_because_no_tool_could_be_it(tmp_path: Path) -> None:
    schema = 'namespace Shop {\n entity Agent;\n action "buy" appliesTo { principal: [Agent], resource: [Agent] }; }'
    policy = '@id("p") permit(principal, action, resource);'
    with pytest.raises(BundleError, match=r"schema\.cedarschema:3: action `Shop::buy` .* declare it outside"):
        bundle_from_files({"schema.cedarschema": schema, "p.cedar": policy}, "b")
    types_only = schema.replace('action "buy"', '} action "buy"').replace("[Agent]", "[Shop::Agent]")[:-1]
    runtime = Runtime.open(
        bundle_from_files({"schema.cedarschema": types_only, "p.cedar": policy}, "b"), lake=tmp_path
    )
    runtime.tool(lambda: "bought", name="buy", resource="Shop::Agent::x")
    assert runtime.session(principal='Shop::Agent::"a"', tenant="t").call("buy") == "bought"
    runtime.ledger.close()


@pytest.mark.parametrize("ident", ["it's", 'a\\"b', "a\\nb", "a\\\\b", "a`: b", "\\u{202e}x", "\\0"])
def test_a_forbid_of_any_id_that_errs_blocks_and_is_recorded(
    tmp_path: Path, ident: str, make_world: Any
) -> None:
    errs = f"""@id("{ident}") forbid(principal, action == Action::"act", resource)
      when {{ context.session.calls + 9223372036854775807 + 1 > 0 }};"""
    world = make_world(tmp_path / "lake", more=errs)
    with world.session() as session, pytest.raises(Blocked) as caught:
        session.call(world.act, "1")
    assert caught.value.decision.reason_code == "policy_error"
    assert session.last_decision["determining"] == [caught.value.decision.errors[0].policy]
    world.runtime.ledger.close()


def test_a_lake_that_no_delta_table_can_be_in_is_refused_before_anything_is_recorded(
    tmp_path: Path, make_world: Any
) -> None:
    with pytest.raises(LedgerError, match="choose another folder"):
        make_world(tmp_path / "a%20b")
    assert not (tmp_path / "a%20b").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot open ledger"):
        make_world(tmp_path / "file")


def test_a_runtime_may_be_closed_twice(world: Any) -> None:
    world.runtime.close()
    world.runtime.close()


def test_a_ledger_of_version_1_is_upgraded_and_its_sessions_go_on(tmp_path: Path, make_world: Any) -> None:
    world = make_world(tmp_path / "lake")
    world.session(session_id="s").call(world.act, "1")
    world.runtime.ledger.close()
    with sqlite3.connect(world.runtime.ledger.path) as database:
        database.execute("ALTER TABLE sessions DROP COLUMN owner")
        database.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
    database.close()
    for step in (1, 2):
        again = make_world(tmp_path / "lake")
        with again.session(session_id="s") as session:
            session.call(again.act, "1")
            assert session.last_decision["step"] == step
        again.runtime.ledger.close()
    with pytest.raises(RegistrationError, match="is of Agent"):
        make_world(tmp_path / "lake").session(session_id="s", principal="Agent::evil")
