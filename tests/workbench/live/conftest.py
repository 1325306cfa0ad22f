"""A small history with every kind of row in it, and the oracle that answers are held against: the row engine."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable

from runtime import CallableSource, Runtime, SignedTokens, SigningKey, TokenKey, sign_approval
from runtime.bundle import Bundle, bundle_from_files
from runtime.entities import EntityUid
from runtime.errors import ApprovalRequired, Blocked
from workbench.compare import compare
from workbench.lake import Lake, open_lake
from workbench.live import Answer, Live, prepare
from workbench.sweep import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from workbench.replay import Replay

SCHEMA = """
entity Team;
entity Agent in [Team] = { level?: Long };
entity Order = { cents?: Long, owner?: Agent };
action "refund" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, amount: Long, note?: String }, order?: { cents: Long }, payee?: { known: Bool } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String }, payee?: { known: Bool } } };
"""
OTHER = SCHEMA.replace("level?: Long", "level?: Long, more?: Bool")
SPEC = """
[sources.orders]
kind = "callable"
[sources.agents]
kind = "callable"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { id = "args.order_id" }
fields = ["cents"]
shared = true
[[facts]]
name = "owned"
actions = ["refund", "look"]
source = "orders"
key = { id = "resource.id" }
fields = ["cents", "owner"]
into = "resource"
shared = true
[[facts]]
name = "agent"
actions = ["refund", "look"]
source = "agents"
key = { id = "principal.id" }
fields = ["level"]
into = "principal"
shared = true
"""
LIMITS = """
version = 2
[[budget]]
name = "few"
per = "session"
measure = "calls"
max = 14
actions = ["refund"]
[[budget]]
name = "money"
per = "session"
measure = "args.amount"
max = 2000
actions = ["refund"]
"""
PERMIT = '@id("may") permit (principal, action, resource);\n'
REFUND = 'forbid (principal, action == Action::"refund", resource)'
LOOK = 'forbid (principal, action == Action::"look", resource)'
ERASED = '{"__redecide":"erased"}'


def modify(name: str, patch: dict[str, Any], when: str) -> str:
    """A policy that changes refunds."""
    text = json.dumps(json.dumps(patch))
    return f'@id("{name}") @verdict("modify") @patch({text}) {REFUND} when {{ {when} }};\n'


def big(limit: int, name: str = "big") -> str:
    """A policy that forbids large refunds."""
    return f'@id("{name}") {REFUND} when {{ context.args.amount > {limit} }};\n'


def ask(limit: int) -> str:
    """A policy that has large refunds approved."""
    return f'@id("ask") @verdict("approve") {REFUND} when {{ context.args.amount > {limit} }};\n'


CUT = modify(
    "cut",
    {"amount": {"$ref": "resource.cents"}},
    "resource has cents && context.args.amount > resource.cents",
)
RECORDED = (
    PERMIT + CUT + ask(470) + f'@id("shy") {LOOK} when {{ principal has level && principal.level < 2 }};\n'
)
PIECES: dict[str, str] = {
    "nothing": "",
    "cut": CUT,
    "cut to the order": modify("cut", {"amount": {"$ref": "context.order.cents"}}, "context.args.amount > 60"),
    "another cut": modify("trim", {"amount": 10}, "context.args.amount > 100"),
    "a note": modify("note", {"note": "seen"}, 'context.args has note && context.args.note like "*x*"'),
    "another order": modify("move", {"order_id": "o-2"}, "context.args.amount > 400"),
    "an error": f'@id("over") {REFUND} when {{ context.args.amount * 20000000000000000 > 0 }};\n',
    "an unasked fact": f'@id("new") {REFUND} when {{ context has payee && !context.payee.known }};\n',
    "an unasked fact of what is cut": CUT
    + f'@id("late") {REFUND} when {{ context.args.amount == 200 && context has payee && !context.payee.known }};\n',
    "an unasked fact that a cut makes void": CUT
    + f'@id("early") {REFUND} when {{ context.args.amount > 300 && context has payee && !context.payee.known }};\n',
    "a patch that reads an unasked fact": modify(
        "known", {"note": {"$ref": "context.payee.known"}}, "context.args.amount > 300"
    ),
    "unasked parents": f'@id("team") {REFUND} when {{ principal in Team::"gold" && context.args.amount > 50 }};\n',
    "unasked parents, elsewhere": '@id("team") forbid (principal in Team::"gold", action == Action::"look", resource);\n',
    "an owner": f'@id("owner") {REFUND} unless {{ resource has owner && resource.owner == principal }};\n',
    "an owner's level": f'@id("level") {REFUND} when {{ resource has owner && resource.owner has level }};\n',
}  # fmt: skip
"""What an edit may add; those of one id exclude each other (`CUTS`)."""
CUTS = frozenset(name for name, text in PIECES.items() if '@id("cut")' in text)
TEAMS = frozenset({"unasked parents", "unasked parents, elsewhere"})


def bundle(
    policies: str, *, schema: str = SCHEMA, links: str = "", spec: str = SPEC, limits: str = ""
) -> Bundle:
    """A bundle of these policies."""
    files = {"p.cedar": policies, "schema.cedarschema": schema, "context.toml": spec, "limits.toml": limits}
    return bundle_from_files(files | ({"links.json": links} if links else {}), "test")


@dataclass
class Desk:
    """Writes the history with the real runtime."""

    root: Path
    now: datetime = datetime(2026, 11, 23, tzinfo=UTC)
    orders: Mapping[str, Any] = field(
        default_factory=lambda: {"o-1": {"cents": 200, "owner": "bot"}, "o-2": {"cents": 60}}
    )
    agents: Mapping[str, Any] = field(default_factory=lambda: {"bot": {"level": 3}, "ana": {"level": 1}})

    def write(self, made: Bundle, *, every: int) -> None:
        """Record some calls under a bundle; every third is labelled, one in seven of those that wait is granted."""
        sources = {"orders": _source(self.orders), "agents": _source(self.agents)}
        anything = frozenset({"*"})
        token = TokenKey(
            id="k",
            algorithm="HMAC-SHA256",
            material=b"s" * 32,
            subjects=anything,
            roles=anything,
            tenants=anything,
        )
        with Runtime.open(
            made, lake=self.root / "lake", sources=sources, clock=lambda: self.now, authenticators=[SignedTokens([token])]
        ) as runtime:  # fmt: skip
            runtime.tool(lambda order_id, amount, note=None: 1, name="refund", resource="Order::{order_id}")
            runtime.tool(lambda order_id: 1, name="look", resource="Order::{order_id}")
            for place, (who, tool, args) in enumerate(_calls()):
                if place % every:
                    continue
                self.now += timedelta(seconds=1)
                with runtime.session(
                    principal=f"Agent::{who}",
                    tenant="acme",
                    session_id=f"{made.version[:4]}{who}{place // 9}",
                ) as session:
                    try:
                        session.call(tool, **args)
                    except ApprovalRequired as waiting:
                        self._granted(runtime, session, waiting.approval_id)
                    except Blocked:
                        pass
                    if place % 3 == 0 and session.last_decision is not None:
                        said = "attack" if place % 2 else "user"
                        ident = str(session.last_decision["decision_id"])
                        runtime.label("origin", said, session=session, decision_id=ident, source="test")

    def _granted(self, runtime: Runtime, session: Any, ident: str) -> None:
        key = SigningKey(id="k", algorithm="HMAC-SHA256", material=b"s" * 32)
        said = sign_approval(
            runtime.approvals.get(ident), key=key, approver=EntityUid("User", "fin"), now=self.now
        )
        runtime.approvals.grant(ident, said)
        with suppress(Blocked, ApprovalRequired):
            session.resume(ident)


def _source(table: Mapping[str, Any]) -> CallableSource:
    return CallableSource(lambda where: table.get(str(where["id"])))


def _calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for order in ("o-1", "o-2", "o-9"):
        for amount in (5, 50, 61, 120, 300, 450, 700, 950):
            who = "bot" if amount % 2 else "ana"
            yield who, "refund", {"order_id": order, "amount": amount}
            note = "x" if amount % 3 else "y"
            yield "bot", "refund", {"order_id": order, "amount": amount + 1, "note": note}
        for who in ("bot", "ana", "new"):
            yield who, "look", {"order_id": order}
    yield "bot", "refund", {"order_id": "o-1", "amount": 2**53 + 1}
    yield "bot", "refund", {"order_id": "o-1", "amount": "x"}


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Some eighty calls of three bundles, one of another schema; resumed, limited, damaged and erased ones among them."""
    desk = Desk(tmp_path_factory.mktemp("live"))
    desk.write(bundle(RECORDED, limits=LIMITS), every=1)
    desk.write(bundle(RECORDED.replace("470", "100"), limits=LIMITS), every=4)
    desk.write(bundle(PERMIT + PIECES["an unasked fact"], schema=OTHER), every=5)
    rows = open_lake(desk.root / "lake").decisions.collect()
    for place, (column, value) in enumerate((("args", ERASED), ("verdict", "block"), ("context_hash", "00"))):
        chosen = rows.filter(pl.col("verdict") == "allow")["decision_id"][place * 3]
        DeltaTable(desk.root / "lake" / "decisions").update(
            updates={column: f"'{value}'"}, predicate=f"decision_id = '{chosen}'"
        )
    return open_lake(desk.root / "lake")


@pytest.fixture(scope="session")
def live(lake: Lake) -> Live:
    """The history, prepared once for all edits."""
    return prepare(lake)


_replays: dict[tuple[Any, ...], Replay] = {}
SAYS = ("decision_id", "status", "verdict", "effect")


def replayed(lake: Lake, made: Bundle, **axes: Any) -> Replay:
    """What the row engine says of a bundle."""
    key = (lake.uri, made.version, *sorted((name, str(each)) for name, each in axes.items()))
    if key not in _replays:
        _replays[key] = lake.replay(made, engine="rows", **axes)
    return _replays[key]


def counted(replay: Replay) -> dict[str, int]:
    """What `COUNTS` are of a replay, counted row by row."""
    side = compare(replay, replay).frame.select("side").collect().to_series()
    found: dict[str, int] = replay.rows.with_columns(side.alias("side")).select(**COUNTS).row(0, named=True)
    return found


def holds(answer: Answer | None, replay: Replay) -> Answer:
    """Hold every decision and every number of an answer against a replay."""
    assert answer is not None
    texts = pl.all().cast(pl.String)
    mine, theirs = answer.rows().collect().with_columns(texts), replay.rows.select(SAYS)
    different = mine.with_row_index("row").filter(
        pl.Series(a != b for a, b in zip(mine.rows(), theirs.rows(), strict=True))
    )
    assert different.is_empty(), (different, theirs[different["row"]], answer.handed_over, answer.bundle)
    assert dict(answer.counts) == counted(replay)
    assert (
        sum(answer.verdicts.values())
        == sum(answer.effects.values())
        == answer.decisions
        == replay.rows.height
    )
    assert answer.exact
    return answer


def agrees(live: Live, lake: Lake, made: Bundle, **axes: Any) -> Answer:
    """Decide a bundle, ask Cedar about what is left, and hold the answer."""
    first = live.decide(made)
    assert first is not None
    return holds(live.complete(first), replayed(lake, made, **axes))


@pytest.fixture(params=PIECES)
def piece(request: pytest.FixtureRequest) -> str:
    """One of `PIECES`."""
    return PIECES[request.param]


@pytest.fixture(scope="session")
def kit() -> Any:
    """What tests are written with."""
    return SimpleNamespace(
        bundle=bundle, modify=modify, big=big, ask=ask, agrees=agrees, holds=holds, replayed=replayed, counted=counted,
        PIECES=PIECES, CUTS=CUTS, TEAMS=TEAMS, PERMIT=PERMIT, CUT=CUT, RECORDED=RECORDED, SCHEMA=SCHEMA, OTHER=OTHER,
        SPEC=SPEC, LIMITS=LIMITS, REFUND=REFUND, SAYS=SAYS,
    )  # fmt: skip
