"""Lakes that the runtime wrote, replayed by both engines: columns must say what Cedar says, row by row."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

import workbench.redeciding
from runtime import ApprovalRequired, Blocked, CallableSource, Runtime
from runtime.bundle import Bundle, bundle_from_files
from runtime.canonical import NotCanonical
from runtime.entities import EntityUid
from runtime.errors import GovernanceError
from workbench.lake import Lake, open_lake
from workbench.replay import FRAME, Replay

Lookup = Callable[[dict[str, Any]], Any]

SCHEMA = """
entity Org; entity Team in [Org]; entity User;
entity Color enum ["red", "green"];
entity Agent in [Team, Agent] = {
  level?: Long, cap?: decimal, boss?: Agent, since?: datetime, pause?: duration, net?: ipaddr, tags?: Set<String>,
  profile?: { grade?: Long, city?: String, deep?: { n?: Long } }, friends?: Set<Agent>, flag?: Bool };
entity Order in [Agent, Team, Order] = {
  owner?: Agent, open?: Bool, amount?: decimal, lines?: Set<{ sku: String, qty: Long }>, color?: Color, label?: String,
  count?: Long };
action money; action reads;
action refund in [money] appliesTo { principal: [Agent], resource: [Order], context: {
  args: {
    order_id: String, amount: Long, note?: String, rate?: decimal, when?: datetime, wait?: duration, addr?: ipaddr,
    @scaled("price*100") price_cents?: Long, who?: Agent, color?: Color, teams?: Set<Team>, tags?: Set<String>,
    nums?: Set<Long>, lines?: Set<{ sku: String, qty: Long }>, box?: { size?: Long, deep?: { n?: Long } }, ok?: Bool },
  order?: { refundable: Long, rate?: decimal, owner?: Agent, vip?: Bool, placed?: datetime, addr?: ipaddr },
  limits?: Set<Long>, rows?: Set<{ k: String, v: Long }>, on_behalf_of?: User } };
action look in [reads] appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, who?: Agent }, order?: { refundable: Long }, on_behalf_of?: Agent } };
action ping in [reads, money] appliesTo { principal: [Agent], resource: [Agent], context: {
  args: { to: String }, on_behalf_of?: Agent } };
action move appliesTo { principal: [Agent], resource: [Order], context: { args: { num: Long, kind?: String } } };
"""
_FACT = """
[[facts]]
name = "{name}"
actions = {actions}
source = "{name}"
key = {{ id = "{key}" }}
shared = true
"""


def fact(name: str, key: str, actions: str = '["*"]', **more: str) -> str:
    """A fact of a source of the same name; `more` is TOML by key."""
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[sources.{name}]\nkind = "callable"' + _FACT.format(name=name, key=key, actions=actions) + lines


_AGENT = ["level", "cap", "boss", "since", "pause", "net", "tags", "profile", "friends", "flag"]
_ORDER = ["owner", "open", "amount", "lines", "color", "label", "count"]
SPEC = "".join(
    [
        fact(
            "order",
            "args.order_id",
            '["refund"]',
            fields='["refundable", "rate", "owner", "vip", "placed", "addr"]',
        ),
        fact("agent", "principal.id", fields=json.dumps(_AGENT), into='"principal"'),
        fact(
            "chain",
            "principal.id",
            '["refund", "look"]',
            parents='{ team = "Team", chief = "Agent" }',
            into='"principal"',
        ),
        fact(
            "owned",
            "resource.id",
            '["refund", "look"]',
            fields=json.dumps(_ORDER),
            parents='{ holder = "Agent", team = "Team" }',
            into='"resource"',
        ),
        fact("limits", "principal.id", '["refund"]', fields='["n"]', shape='"set"'),
        fact("rows", "args.note", '["refund"]', fields='["k", "v"]', shape='"set"'),
    ]
)
DATA: Mapping[str, Mapping[Any, Any]] = {
    "order": {
        "o-1": {"refundable": 100, "rate": "2.5", "owner": "bot", "vip": True, "placed": "2026-01-02", "addr": "10.0.0.1"},
        "o-2": {"refundable": 2**53 + 1, "rate": "0.1000", "owner": "ana", "placed": "2026-11-22T10:00:00+02:00", "addr": "10.0.0.0/8"},
        'o "q"': {"refundable": -5, "owner": 'b"o"', "vip": False, "addr": "::1"},
        "": {"refundable": 0, "rate": "-1", "owner": "", "vip": False},
    },
    "agent": {
        "bot": {"level": 3, "cap": "10.0001", "boss": "ana", "since": "2020-01-01", "pause": "1h", "net": "10.0.0.0/8",
                "tags": ["x", "y"], "profile": {"grade": 2, "city": "Ulm", "deep": {"n": 1}}, "friends": ["ana", "boss"], "flag": True},
        "ana": {"level": 2**62, "cap": "3", "boss": "boss", "tags": [], "profile": {}, "friends": [], "flag": False},
        'b"o"': {"level": -1, "boss": 'b"o"', "tags": ["x"], "profile": {"city": '"q"'}},
        "boss": {"level": 9, "boss": "none"},
    },
    "chain": {"bot": {"team": ["red", "blue"], "chief": "boss"}, "ana": {"team": ["red"]}, "ü::x": {"chief": "ana"}},
    "owned": {
        "o-1": {"owner": "bot", "open": True, "amount": "12.34", "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}],
                "color": "red", "holder": "bot", "team": "red"},
        "o-2": {"owner": "ana", "open": False, "amount": "0.0001", "lines": [], "color": "green", "label": "L", "holder": "boss", "count": 7},
        'o "q"': {"owner": 'b"o"', "label": 'q"q'},
        "a::b": {"owner": "none", "count": 2**63 - 1},
    },
    "limits": {"bot": [{"n": 1}, {"n": 5}, {"n": 5}]},
    "rows": {"n1": [{"k": "a", "v": 1}, {"k": "b", "v": 4}], "n2": [{"k": "b", "v": 2}]},
}  # fmt: skip
PERMIT = '@id("permit") permit(principal is Agent, action, resource);\n'
REFUND = 'forbid(principal, action == Action::"refund", resource)'
POLICIES = (
    PERMIT
    + f"""
@id("huge") forbid(principal, action in Action::"money", resource) when {{ context.args has amount && context.args.amount > 9000 }};
@id("own") {REFUND} unless {{ resource has owner && resource.owner == principal || principal in Team::"red" || principal in Agent::"boss" }};
@id("cap") @verdict("modify") @patch("{{\\"amount\\": {{\\"$ref\\": \\"context.order.refundable\\"}}}}")
{REFUND} when {{ context has order && context.args.amount > context.order.refundable }};
@id("ask") @verdict("approve") {REFUND} when {{ context.args.amount > 50 && context.args has rate && context.args.rate.greaterThan(decimal("1.0")) }};
@id("look-rule") forbid(principal, action == Action::"look", resource) when {{ resource has open && !resource.open }};
@id("pinger") forbid(principal, action == Action::"ping", resource) when {{ principal has level && principal.level < 0 }};
"""
)


@dataclass(frozen=True)
class Call:
    """One call to record."""

    tool: str
    args: Mapping[str, Any] = field(default_factory=dict)
    principal: str = "bot"
    behalf: tuple[str, str] | None = None
    key: str | None = None
    tenant: str = "acme"


def looked_up(data: Mapping[str, Mapping[Any, Any]], version: str | None = "1") -> dict[str, CallableSource]:
    """Sources over `data`: source → id → record."""

    def lookup(table: Mapping[Any, Any]) -> Lookup:
        return lambda where: table.get(where["id"])

    return {name: CallableSource(lookup(table), version) for name, table in data.items()}


def bundle(
    policies: str, schema: str = SCHEMA, context: str = SPEC, limits: str = "", links: str = ""
) -> Bundle:
    files = {
        "p.cedar": policies,
        "schema.cedarschema": schema,
        "context.toml": context,
        "limits.toml": limits,
    }
    return bundle_from_files(files | ({"links.json": links} if links else {}), "test")


def _refund(
    order_id: Any, amount: Any = None, note: Any = None, rate: Any = None, when: Any = None, wait: Any = None,
    addr: Any = None, price: Any = None, who: Any = None, color: Any = None, teams: Any = None, tags: Any = None,
    nums: Any = None, lines: Any = None, box: Any = None, ok: Any = None,
) -> int:  # fmt: skip
    return 1


def _anything(**_args: Any) -> int:
    return 1


RESOURCES = {
    "refund": "Order::{order_id}",
    "look": "Order::{order_id}",
    "ping": "Agent::{to}",
    "move": "Order::n-{num}",
}


@dataclass
class Recorder:
    """Writes lakes with the real runtime."""

    root: Path

    def __call__(
        self,
        bundle: Bundle,
        calls: Iterable[Call],
        sources: Mapping[str, Any] | None = None,
        *,
        lake: str = "lake",
        ledger: str | None = None,
        nulls: bool = False,
        resources: Mapping[str, str] = RESOURCES,
    ) -> Lake:
        """Record calls.

        Args:
            sources: by name; None: `DATA`.
            ledger: file name of a ledger of its own.
            nulls: `refund` has default arguments, which are recorded as null.
        """
        where = self.root / lake
        path = None if ledger is None else self.root / ledger
        given = looked_up(DATA) if sources is None else sources
        with Runtime.open(bundle, lake=where, ledger=path, sources=given) as runtime:
            for name, resource in resources.items():
                runtime.tool(
                    _refund if nulls and name == "refund" else _anything, name=name, resource=resource
                )
            runtime.tool(lambda: None, name="shell")
            for call in calls:
                session = runtime.session(
                    principal=EntityUid("Agent", call.principal),
                    tenant=call.tenant,
                    on_behalf_of=None if call.behalf is None else EntityUid(*call.behalf),
                )
                with suppress(Blocked, ApprovalRequired, GovernanceError, NotCanonical):
                    session.call(call.tool, **call.args, idempotency_key=call.key)
        return open_lake(str(where))


def _values(column: pl.Series) -> list[Any]:
    return column.to_list()


@dataclass(frozen=True)
class Both:
    """Replays by both engines, which must agree."""

    def __call__(
        self, lake: Lake, *, columnar: bool = False, allowed: Iterable[str] = (), **axes: Any
    ) -> Replay:
        """Replay, hold all columns of the columnar replay against Cedar's, and return it.

        Twice, if the first one read the lake and kept what it found: once afresh, once from there.

        Args:
            columnar: nothing may be handed over, but for reasons that start with one of `allowed`.
        """
        rows = lake.replay(engine="rows", **axes)
        lake.shelf.drop()
        columns = lake.replay(engine="auto", **axes)
        if lake.shelf.kept is not None:
            again = lake.replay(engine="auto", **axes)
            assert_frame_equal(again.rows, columns.rows)
            assert again.handed_over == columns.handed_over
        for name in FRAME:
            if name not in ("engine", "handed_over"):
                assert _values(columns.rows[name]) == _values(rows.rows[name]), name
        assert columns.digest() == rows.digest()
        assert columns.counts() == rows.counts()
        assert columns.rows["handed_over"].is_not_null().sum() == sum(columns.handed_over.values())
        if columnar:
            rest = {
                why: n
                for why, n in columns.handed_over.items()
                if not why.startswith(tuple(allowed) or ("\0",))
            }
            assert rest == {}
        return columns


@pytest.fixture(autouse=True)
def columns_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small lakes go through the columns, too."""
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)


@pytest.fixture(scope="session")
def both() -> Both:
    return Both()


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


@pytest.fixture(scope="session")
def kit() -> Any:
    """What tests are written with: `bundle`, `Call`, `fact`, `looked_up` and the desk's texts."""

    class Kit:
        bundle, Call, fact, looked_up = (
            staticmethod(bundle),
            Call,
            staticmethod(fact),
            staticmethod(looked_up),
        )
        SCHEMA, SPEC, POLICIES, PERMIT, REFUND, DATA = SCHEMA, SPEC, POLICIES, PERMIT, REFUND, DATA

    return Kit


ORDER_IDS = ["o-1", "o-2", 'o "q"', "ö\\é", "a::b", "", "o\x00x", "o\n2", "zed"]
AGENTS = ["bot", "ana", 'b"o"', "ü::x", "boss", "none"]


def generated(n: int, seed: int) -> Iterator[Call]:
    """Random calls of every tool, some of which no stage takes."""
    pick = random.Random(seed)
    for _ in range(n):
        tool = pick.choices(["refund", "look", "ping", "move", "shell"], [10, 3, 2, 1, 0.3])[0]
        who = pick.choice(AGENTS)
        behalf = pick.choice(
            [None, None, ("User", "u1") if tool == "refund" else ("Agent", pick.choice([who, "ana", ""]))]
        )
        yield Call(tool, _arguments(tool, who, pick), who, behalf, pick.choice(["k", *[None] * 9]))


def _arguments(tool: str, who: str, pick: random.Random) -> dict[str, Any]:
    match tool:
        case "look":
            return {"order_id": pick.choice(ORDER_IDS)} | (
                {"who": pick.choice(AGENTS)} if pick.random() < 0.4 else {}
            )
        case "ping":
            return {"to": pick.choice([*AGENTS, who])}
        case "move":
            return {"num": pick.choice([1, 2, -3, 2**63 - 1])} | (
                {"kind": "k"} if pick.random() < 0.5 else {}
            )
        case "shell":
            return {}
    amounts = [0, 1, 50, 51, 99, 100, 101, 500, 9001, -1, 2**62, 2**63 - 1]
    args = {"order_id": pick.choice(ORDER_IDS), "amount": pick.choice(amounts)}
    optional = {name: each for name, each in _optional(pick).items() if pick.random() < 0.3}
    return args | optional | {name: None for name in ("note", "box", "who") if pick.random() < 0.04}


def _optional(pick: random.Random) -> dict[str, Any]:
    return {
        "note": pick.choice(["n1", "n2", "", '"x" \\ ü\x00', "\U0001f600"]),
        "rate": pick.choice([1, 1.5, "2.50", 1, 1.5, "2.50", 0.25, "1.00001", -3.5, "x"]),
        "when": pick.choice(["2026-11-22", "2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00+02:00"]),
        "wait": pick.choice(["1h", "1d2h", "90s", "-5ms"]),
        "addr": pick.choice(["10.1.2.3", "::1", "10.0.0.0/8"]),
        "price": pick.choice([1, 1.25, "3.10", 0.01]),
        "who": pick.choice([*AGENTS, {"type": "Agent", "id": "ana"}, {"type": "Agent", "id": "bot"}]),
        "color": pick.choice(["red", "green", "red", "green", "blue"]),
        "teams": pick.sample(["red", "blue", 'gr"een'], pick.randint(0, 3)),
        "tags": pick.choices(["x", "y", "ü", "\n"], k=pick.randint(0, 3)),
        "nums": pick.choices([1, 2, -7], k=pick.randint(0, 3)),
        "lines": [{"sku": pick.choice("ab"), "qty": pick.randint(1, 2)} for _ in range(pick.randint(0, 2))],
        "box": pick.choice(
            [{}, {"size": 3}, {"size": None, "deep": {}}, {"deep": {"n": 4}}, {"size": 1, "deep": None}]
        ),
        "ok": pick.random() < 0.5,
    }


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of random calls under `POLICIES`."""
    return Recorder(tmp_path_factory.mktemp("desk"))(bundle(POLICIES), generated(220, seed=7))


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A smaller lake of the same kind, for what is asked many times."""
    return Recorder(tmp_path_factory.mktemp("corner"))(bundle(POLICIES), generated(90, seed=3))


Changes = Mapping[str, Mapping[str, Any]]
"""Columns to change, with their new values, by key of the row. A function gets the row."""


def rewrite(uri: str, table: str, key: str, changes: Changes) -> None:
    """Write a table again with other values."""
    handle = DeltaTable(f"{uri}/{table}")
    rows = handle.to_pyarrow_table()
    found = rows.to_pylist()
    for row in found:
        for name, value in changes.get(row[key], {}).items():
            row[name] = value(row) if callable(value) else value
    made = pa.Table.from_pylist(found, schema=rows.schema)
    write_deltalake(handle, made, mode="overwrite", partition_by=handle.metadata().partition_columns)


@pytest.fixture
def tamper(desk: Lake, tmp_path: Path) -> Callable[[str, Changes], Lake]:
    """Returns a copy of the desk's lake with some rows changed: table, changes by decision id or context hash."""

    def tampered(table: str, changes: Changes) -> Lake:
        copy = tmp_path / "copy"
        if not copy.exists():
            shutil.copytree(desk.uri, copy)
        rewrite(str(copy), table, "context_hash" if table == "contexts" else "decision_id", changes)
        return open_lake(str(copy))

    return tampered
