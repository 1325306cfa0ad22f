"""A runtime with one tool whose body and whose source of facts a test sets; an empty ledger."""

from __future__ import annotations

import json
import os
import pwd
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime import (
    ApprovalRequired,
    Blocked,
    EntityUid,
    OsIdentity,
    OsUsers,
    Runtime,
    SignedTokens,
    SigningKey,
    TokenKey,
    sign_approval,
)
from runtime.bundle import bundle_from_files
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = """
entity Agent; entity User; entity Thing; entity Tool;
action "act" appliesTo { principal: [Agent], resource: [Thing], context: {
  directory?: { note: String }, args: { id: String, note?: String, tags?: Set<String> } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { args: {} } };
"""
POLICIES = """
@id("permit") permit(principal, action, resource);
@id("cut") @verdict("modify") @patch("{\\"note\\": null}") forbid(principal, action == Action::"act", resource)
  when { context.args has note && context.args.note like "*secret*" };
"""
SPEC = """
[sources.directory]
kind = "callable"
[[facts]]
name = "directory"
actions = ["act"]
source = "directory"
key = { id = "args.id" }
fields = ["note"]
shared = true
"""


class World:
    """A runtime with one tool, `act`, whose body a test sets."""

    def __init__(self, lake: Path, more: str = "") -> None:
        self.source: Callable[[Any], Any] = lambda _: None
        texts = {"p.cedar": POLICIES + more, "schema.cedarschema": SCHEMA, "context.toml": SPEC}
        self.runtime = Runtime.open(
            bundle_from_files(texts, "b"), lake=lake, sources={"directory": self._ask}
        )
        self.body: Callable[..., Any] = lambda **_: None

        @self.runtime.tool(resource="Thing::{id}")
        def act(id: str, note: str | None = None, tags: list[str] | None = None) -> Any:  # noqa: A002
            return self.body(id=id, note=note, tags=tags)

        self.act = act

    def _ask(self, where: Any) -> Any:
        return self.source(where)

    def session(self, **changes: Any) -> Any:
        return self.runtime.session(**({"principal": "Agent::bot", "tenant": "acme"} | changes))

    def outcome(self, session: Any) -> dict[str, Any]:
        found = self.runtime.ledger.outcome_of(session.last_decision["decision_id"])
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "lake")
    yield made
    made.runtime.ledger.close()


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore(tmp_path / "lake", write=True)


METERED_SCHEMA = """
entity Agent; entity User; entity Order; entity Tool;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order: String, cents?: Long, @scaled("price*100") price_cents?: Long } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { args: { n?: Long } } };
"""
METERED_POLICIES = """
@id("permit") permit(principal, action, resource);
@id("never") forbid(principal, action == Action::"pay", resource) when { context.args has cents && context.args.cents == 13 };
@id("cap") @verdict("modify") @patch("{\\"cents\\": 500}") forbid(principal, action == Action::"pay", resource)
  when { context.args has cents && context.args.cents > 500 };
"""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class Metered:
    """A runtime under limits, with tools that do what a test sets."""

    def __init__(
        self,
        lake: Path,
        limits: str,
        policies: str = METERED_POLICIES,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        texts = {"p.cedar": policies, "schema.cedarschema": METERED_SCHEMA, "limits.toml": limits}
        authenticators = options.pop("authenticators", ())
        self.runtime = Runtime.open(
            bundle_from_files(texts, "b"), lake=lake, clock=self.clock, authenticators=authenticators
        )
        self.body: Callable[[], Any] = lambda: None
        self.ran = 0

        @self.runtime.tool(resource="Order::{order}", **options)
        def pay(order: str, cents: int | None = None, price: Any = None) -> Any:
            self.ran += 1
            return self.body()

        @self.runtime.tool
        def look(n: int | None = None) -> Any:
            self.ran += 1
            return self.body()

    def session(self, **changes: Any) -> Any:
        return self.runtime.session(
            **({"principal": "Agent::bot", "tenant": "acme", "session_id": "s"} | changes)
        )

    def ask(self, tool: str = "pay", /, session: Any = None, **args: Any) -> str:
        """Call; return the reason code of the decision."""
        opened = self.session() if session is None else session
        if tool == "pay":
            args.setdefault("order", "o")
        with suppress(Blocked, RuntimeError):
            opened.call(tool, **args)
        return str(opened.last_decision["reason_code"])

    def outcome(self, session: Any) -> dict[str, Any]:
        found = self.runtime.ledger.outcome_of(session.last_decision["decision_id"])
        assert found is not None
        return found

    def inputs(self, session: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(session.last_decision["stage_inputs"])["limits"]
        return found


@pytest.fixture
def metered(tmp_path: Path) -> Iterator[Callable[..., Metered]]:
    """Opens runtimes under limits; all share one ledger, unless they name another lake."""
    opened: list[Metered] = []

    def make(limits: str = "", lake: str = "lake", **more: Any) -> Metered:
        opened.append(Metered(tmp_path / lake, limits, **more))
        return opened[-1]

    yield make
    for each in opened:
        each.runtime.ledger.close()


SECRET = b"s" * 32
KEY = SigningKey(id="desk", algorithm="HMAC-SHA256", material=SECRET)
PAY_SCHEMA = """
entity Agent; entity User; entity Order;
action "pay" appliesTo { principal: [Agent, User], resource: [Order], context: {
  on_behalf_of?: User, args: { order_id: String, cents: Long, note?: String } } };
"""
PAY_POLICIES = """
@id("permit") permit(principal, action, resource);
@id("large") @verdict("approve") @approvers("Role::\\"finance\\", User::\\"cfo\\"")
forbid(principal, action, resource) when { context.args.cents > 100 };
@id("huge") @verdict("approve") @approvers("Role::\\"board\\"")
forbid(principal, action, resource) when { context.args.cents > 1000 };
@id("odd") @verdict("approve") forbid(principal, action, resource) when { context.args.cents == 7 };
@id("mine") @verdict("approve") @approvers("User::\\"ana\\", Agent::\\"bot\\"")
forbid(principal, action, resource) when { context.args.cents == 9 };
@id("round") @verdict("modify") @patch("{\\"cents\\": 200}") forbid(principal, action, resource)
  when { context.args.cents == 201 };
"""


class Desk:
    """A runtime that pays, a clock, and people with tokens."""

    def __init__(self, lake: Path, **more: Any) -> None:
        self.clock, self.paid, self.lake = Clock(), list[int](), lake
        anything = frozenset({"*"})
        key = TokenKey(
            id="desk",
            algorithm="HMAC-SHA256",
            material=SECRET,
            subjects=anything,
            roles=anything,
            tenants=anything,
        )
        login = OsIdentity(uid=EntityUid("User", "cfo"), tenants=frozenset({"acme"}))
        self.token_key = key
        known = [SignedTokens([key]), OsUsers({pwd.getpwuid(os.getuid()).pw_name: login})]
        bundle = bundle_from_files({"p.cedar": PAY_POLICIES, "schema.cedarschema": PAY_SCHEMA}, "b")
        given: dict[str, Any] = {"clock": self.clock, "authenticators": known}
        self.runtime = Runtime.open(bundle, lake=lake, **(given | more))

        @self.runtime.tool(resource="Order::{order_id}")
        def pay(order_id: str, cents: int, note: str | None = None) -> int:
            self.paid.append(cents)
            return cents

        self.approvals = self.runtime.approvals

    def session(self, **changes: Any) -> Any:
        given = {"principal": "Agent::bot", "tenant": "acme", "on_behalf_of": "User::ana"}
        return self.runtime.session(**(given | changes))

    def ask(self, cents: int = 500, **changes: Any) -> str:
        """Call, and return the id of the approval it waits for."""
        with pytest.raises(ApprovalRequired) as asked:
            self.session(**changes).call("pay", order_id="o", cents=cents)
        return asked.value.approval_id

    def token(self, approval_id: str, who: str = "User::fin", *roles: str, **more: Any) -> Any:
        given: dict[str, Any] = {"key": KEY, "now": self.clock.now, "approver": EntityUid.parse(who)} | more
        held = [EntityUid.parse(role) for role in roles or ("Role::finance",)]
        return sign_approval(self.approvals.get(approval_id), roles=held, **given)

    def rows(self, approval_id: str) -> list[dict[str, Any]]:
        """Outcomes of the decision that asked, of any kind."""
        found = self.runtime.ledger.query(
            "SELECT row FROM outcomes WHERE decision_id = ? ORDER BY position", (approval_id,)
        )
        return [json.loads(row) for (row,) in found]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "lake")
    yield made
    made.runtime.ledger.close()


@pytest.fixture
def make_desk() -> type[Desk]:
    return Desk


# -- the broker ------------------------------------------------------------------------------------------------

TILL_SCHEMA = """
entity Agent; entity User; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { id: String, cents?: Long } } };
"""
TILL_POLICIES = """
@id("permit") permit(principal, action, resource);
@id("too-much") forbid(principal, action, resource) when { context.args has cents && context.args.cents > 1000 };
"""


class Till:
    """One tool, `pay`, declared as a test likes; what it did, in order; how often the ledger committed."""

    def __init__(self, lake: Path) -> None:
        bundle = bundle_from_files({"p.cedar": TILL_POLICIES, "schema.cedarschema": TILL_SCHEMA}, "b")
        self.runtime = Runtime.open(bundle, lake=lake)
        self.ledger = self.runtime.ledger
        self.did: list[Any] = []
        self.commits = 0
        self.steps: list[str] = []
        self.runtime.at_step = self.steps.append
        commit = self.ledger.commit

        def counted(**given: Any) -> Any:
            self.commits += 1
            return commit(**given)

        self.ledger.commit = counted  # type: ignore[method-assign]

    def declare(self, body: Any = None, *, is_async: bool = False, **declared: Any) -> None:
        """Register `pay`; `body` gets what it is called with, and what it returns is the result."""

        def pay(id: str, cents: int | None = None) -> Any:  # noqa: A002
            self.did.append(("pay", id))
            return body(id) if body else {"hold": id}

        async def pay_async(id: str, cents: int | None = None) -> Any:  # noqa: A002
            self.did.append(("pay", id))
            result = body(id) if body else {"hold": id}
            return await result if hasattr(result, "__await__") else result

        fn = pay_async if is_async else pay
        self.runtime.tool(fn, name="pay", resource="Order::{id}", **declared)

    def staged(self, body: Any = None, **declared: Any) -> None:
        given: dict[str, Any] = {"effect": "staged", "commit": self.commit, "abort": self.abort}
        self.declare(body, **(given | declared))

    def commit(self, handle: Any) -> str:
        self.did.append(("commit", handle))
        return "paid"

    def abort(self, handle: Any, effect_id: str) -> None:
        self.did.append(("abort", handle))

    def undo(self, result: Any) -> None:
        self.did.append(("undo", result))

    def session(self, **given: Any) -> Any:
        return self.runtime.session(principal="Agent::a", tenant="t", **given)

    def call(self, ident: str = "o", key: str | None = None, **args: Any) -> Any:
        return self.session().call("pay", ident, idempotency_key=key, **args)

    def last(self) -> dict[str, Any]:
        """The last execution outcome."""
        found = [row for _, row in self.ledger.rows_after(OUTCOMES, 0, 2**62, 10_000)]
        return {"reason_code": None, "guards": None} | found[-1]

    def decision(self) -> dict[str, Any]:
        return self.ledger.rows_after(DECISIONS, 0, 2**62, 10_000)[-1][1]

    @property
    def events(self) -> list[str]:
        return [what for what, _ in self.did]


class Gate:
    """Stops a function until it is opened; says when it has come there."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, result: Any = "through") -> Any:
        self.reached.set()
        assert self.opened.wait(20)
        return result


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    made = Till(tmp_path / "lake")
    yield made
    made.ledger.close()


@pytest.fixture
def make_till() -> type[Till]:
    return Till


@pytest.fixture
def gate() -> Gate:
    return Gate()
