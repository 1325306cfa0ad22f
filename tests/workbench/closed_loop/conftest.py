"""Histories for closed loops: recorded through the runtime, and driven again through it, one call after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import polars as pl
import pytest

from runtime import ApprovalRequired, Runtime, SignedTokens, SigningKey, TokenKey, sign_approval
from runtime.bundle import Bundle, bundle_from_files
from runtime.entities import EntityUid
from runtime.errors import GovernanceError
from runtime.usage import report_usage
from workbench.closed_loop import Simulated
from workbench.closed_loop.state import Approvals
from workbench.lake import Lake, open_lake

SCHEMA = """
entity Agent; entity User; entity Order; entity Tool;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  on_behalf_of?: User, args: { order: String, cents?: Long, @scaled("price*100") price_cents?: Long } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { on_behalf_of?: User, args: { n?: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
SECRET = b"s" * 32


def bundle(policies: str = "", limits: str = "", name: str = "b") -> Bundle:
    """A bundle that permits everything but for these policies; limits of version 2."""
    text = f"version = 2\n{limits}" if limits else ""
    files = {"p.cedar": PERMIT + policies, "schema.cedarschema": SCHEMA, "limits.toml": text}
    return bundle_from_files(files, name)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, and how it ends if it runs."""

    tool: str = "look"
    args: tuple[tuple[str, Any], ...] = ()
    who: str = "x"
    session: int = 0
    tenant: str = "a"
    key: str | None = None
    wait_ms: int = 1000
    """Before it."""
    fails: bool = False
    cost: int = 0
    tokens: int = 0
    wall_ms: int = 0
    answer: str | None = None
    """If it has to wait: `granted` and resumed at once, `denied`, or nothing."""


class Fate(NamedTuple):
    """How a call ends of which the record does not say."""

    fails: bool = False
    cost: int = 0


NOTHING_WRONG = Fate()


class World:
    """A runtime under one bundle, with its clock in our hands."""

    def __init__(self, root: Path, made: Bundle) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.root = root
        anything = frozenset({"*"})
        key = TokenKey(
            id="k",
            algorithm="HMAC-SHA256",
            material=SECRET,
            subjects=anything,
            roles=anything,
            tenants=anything,
        )
        self.runtime = Runtime.open(
            made, lake=root, clock=lambda: self.now, authenticators=[SignedTokens([key])]
        )
        self.ends: tuple[bool, int, int, int] = (False, 0, 0, 0)
        self.ran = 0

        def body() -> int:
            fails, cost, tokens, wall_ms = self.ends
            self.ran += 1
            self.now += timedelta(milliseconds=wall_ms)
            report_usage(cost_micros=cost, input_tokens=tokens, output_tokens=0)
            if fails:
                raise RuntimeError("no")
            return self.ran

        @self.runtime.tool(resource="Order::{order}")
        def pay(order: str, cents: int | None = None, price: Any = None) -> int:
            return body()

        @self.runtime.tool
        def look(n: int | None = None) -> int:
            return body()

    def session(self, who: str, session: str, tenant: str) -> Any:
        behalf = "User::ana" if who == "y" else None
        return self.runtime.session(
            principal=f"Agent::{who}", tenant=tenant, session_id=session, on_behalf_of=behalf
        )

    def answer(self, ident: str, *, grants: bool) -> None:
        key = SigningKey(id="k", algorithm="HMAC-SHA256", material=SECRET)
        waiting = self.runtime.approvals.get(ident)
        who = EntityUid.parse("User::fin")
        if grants:
            self.runtime.approvals.grant(ident, sign_approval(waiting, key=key, approver=who, now=self.now))
        else:
            said = sign_approval(waiting, key=key, approver=who, now=self.now, decision="denied")
            self.runtime.approvals.deny(ident, said)

    def call(self, call: Call) -> None:
        """Make a call as it is planned."""
        self.now += timedelta(milliseconds=call.wait_ms)
        self.ends = (call.fails, call.cost, call.tokens, call.wall_ms)
        session = self.session(call.who, f"{call.who}{call.session}", call.tenant)
        try:
            session.call(call.tool, idempotency_key=call.key, **dict(call.args))
        except ApprovalRequired as asked:
            if call.answer is not None:
                self.now += timedelta(milliseconds=500)
                self.answer(asked.approval_id, grants=call.answer == "granted")
                with suppress(GovernanceError, RuntimeError):
                    session.resume(asked.approval_id)
        except (GovernanceError, RuntimeError):
            pass

    def lake(self) -> Lake:
        self.runtime.close()
        return open_lake(self.root)


def record(root: Path, made: Bundle, calls: Sequence[Call]) -> Lake:
    """A lake of these calls, decided by this bundle."""
    world = World(root, made)
    for call in calls:
        world.call(call)
    return world.lake()


def drive(
    root: Path, made: Bundle, lake: Lake, *, fate: Fate = NOTHING_WRONG, approvals: Approvals = "recorded"
) -> pl.DataFrame:
    """Drive the calls of a lake through the runtime under another bundle, one after the other.

    A call that ran then with what it runs with now ends as it ended; of others `fate` says how. Where a call asks and
    was resumed then, it is resumed, with the answer it got then or, if `denied`, with a refusal; `granted`: it is
    granted and resumed where it asks.

    Returns:
        One row a row of the log: `decision_id` and what is said of it now; null where it cannot come up.
    """
    world = World(root, made)
    rows = lake.decisions.collect().to_dicts()
    ends = {row["decision_id"]: row for row in lake.executions.collect().to_dicts()}
    asked: dict[str, str] = {}
    done: set[str] = set()
    found: list[dict[str, Any]] = []
    heirs = {row["linked_to"]: row for row in rows if row["kind"] == "resumed"}
    for row in rows:
        world.now = row["evaluated_at"]
        resumed = row["kind"] == "resumed"
        heir = row if resumed or row["verdict"] in ("allow", "modify") else heirs.get(row["decision_id"], row)

        def ending(args: str | None, heir: dict[str, Any] = heir) -> None:
            end = ends.get(heir["decision_id"])
            ran = end is not None and end["started_at"] is not None and heir["kind"] != "duplicate"
            if end is None or not ran or args != heir["enforced_args"]:
                world.ends = (fate.fails, fate.cost, 0, 0)
                return
            wall = round((end["ended_at"] - end["started_at"]).total_seconds() * 1000)
            world.ends = (end["status"] == "failed", end["cost_micros"] or 0, end["input_tokens"] or 0, wall)

        session = world.session(row["principal_id"], row["session_id"], row["tenant"])
        ident = None
        if resumed:
            ident = asked.get(row["linked_to"])
            if ident is None or row["linked_to"] in done:
                found.append({"decision_id": row["decision_id"], "now": None})
                continue
            world.answer(ident, grants=approvals != "denied" and row["reason_code"] != "grant_denied")
        with watched(world, ending) as told:
            try:
                if ident is not None:
                    session.resume(ident)
                else:
                    session.call(
                        row["tool"], idempotency_key=row["idempotency_key"], **json.loads(row["args"])
                    )
            except ApprovalRequired as waits:
                asked[row["decision_id"]] = waits.approval_id
                if approvals == "granted":
                    done.add(row["decision_id"])
                    world.answer(waits.approval_id, grants=True)
                    with suppress(GovernanceError, RuntimeError):
                        session.resume(waits.approval_id)
            except (GovernanceError, RuntimeError):
                pass
        found.append({"decision_id": row["decision_id"], "now": told[0] if told else None})
    made_rows = {row["decision_id"]: row for row in world.lake().decisions.collect().to_dicts()}
    columns = (
        "verdict",
        "decided_by",
        "reason_code",
        "reason",
        "determining",
        "enforced_args",
        "kind",
        "session_state",
    )
    return pl.DataFrame(
        [
            {
                "decision_id": row["decision_id"],
                **{n: made_rows[row["now"]][n] if row["now"] else None for n in columns},
            }
            for row in found
        ],
        infer_schema_length=None,
    )


@contextmanager
def watched(world: World, ending: Any) -> Iterator[list[str]]:
    """Note which decisions are made meanwhile, and let the tool end as it is said before it runs."""
    commit, told = world.runtime.ledger.commit, []

    def noting(*args: Any, **more: Any) -> Any:
        links = commit(*args, **more)
        for _, row in more.get("evidence") or ():
            if "verdict" in row:
                told.append(row["decision_id"])
                ending(row["enforced_args"])
        return links

    world.runtime.ledger.commit = noting  # type: ignore[method-assign]
    try:
        yield told
    finally:
        del world.runtime.ledger.commit


SAID = ("verdict", "enforced_args")
WHY = ("decided_by", "reason_code", "reason", "determining")


def differing(replay: Simulated, reference: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows that the replay says something else of than the runtime.

    Where something had to be assumed, undecided rows are let off, and why a call is blocked may be told otherwise:
    what blocks it for sure is named before what may.
    """
    doubt = bool(replay.state.assumed or replay.state.unsure)
    named = pl.col("reason").str.replace_all("[0-9a-f]{32}", "…")  # decisions have other ids there
    rows = replay.rows.select("decision_id", "status", "cause", "missing", *SAID, *WHY).with_columns(named)
    reference = reference.with_columns(named)
    both = rows.join(reference, on="decision_id", suffix=" there", validate="1:1", maintain_order="left")
    names = SAID if doubt else (*SAID, *WHY)
    keys = ("idempotency_conflict", "duplicate_differs")
    found = []
    for row in both.to_dicts():
        if row["verdict there"] is None or (doubt and row["status"] == "undecided"):
            continue
        worded = row["reason_code"] in keys and row["reason_code"] == row["reason_code there"]
        if any(row[name] != row[f"{name} there"] for name in names if not (worded and name == "reason")):
            found.append(row)
    return found


@pytest.fixture(scope="session")
def loops() -> SimpleNamespace:
    """What this module has, for tests."""
    return SimpleNamespace(
        Call=Call, Fate=Fate, bundle=bundle, differing=differing, drive=drive, record=record, PERMIT=PERMIT
    )
