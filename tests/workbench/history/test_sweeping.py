"""Versions decided together say what each says alone: the oracle is the row engine's replay of every version."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench.redeciding
from runtime import CallableSource, Runtime
from runtime.bundle import Bundle, bundle_from_files
from runtime.errors import ApprovalRequired, Blocked
from workbench.compare import compare
from workbench.errors import UnsupportedPolicy
from workbench.history.merging import families, merged, reaching
from workbench.lake import open_lake
from workbench.sweep import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from workbench.lake import Lake
    from workbench.replay import Replay
    from workbench.sweep import Sweep

SCHEMA = """
entity Team;
entity Agent in [Team] = { level?: Long };
entity Order = { cents?: Long, owner?: Agent };
action "refund" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, amount: Long, note?: String }, order?: { cents: Long }, payee?: { known: Bool } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String }, payee?: { known: Bool } } };
action "ping" appliesTo { principal: [Agent], resource: [Agent], context: { args: { to: String } } };
"""
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
BUDGET = 'version = 1\n[[budget]]\nname = "few"\nper = "session"\nmeasure = "calls"\nmax = {most}\nactions = ["refund"]\n'
PERMIT = '@id("may") permit (principal, action, resource);\n'
REFUND = 'forbid (principal, action == Action::"refund", resource)'
LOOK = 'forbid (principal, action == Action::"look", resource)'


def modify(name: str, patch: dict[str, Any], when: str) -> str:
    text = json.dumps(json.dumps(patch))
    return f'@id("{name}") @verdict("modify") @patch({text}) {REFUND} when {{ {when} }};\n'


def big(limit: int, name: str = "big") -> str:
    return f'@id("{name}") {REFUND} when {{ context.args.amount > {limit} }};\n'


def ask(limit: int) -> str:
    return f'@id("ask") @verdict("approve") {REFUND} when {{ context.args.amount > {limit} }};\n'


CUT = modify(
    "cut",
    {"amount": {"$ref": "resource.cents"}},
    "resource has cents && context.args.amount > resource.cents",
)
BASE = (
    PERMIT
    + CUT
    + big(900, "cap")
    + f'@id("shy") {LOOK} when {{ principal has level && principal.level < 2 }};\n'
)
PIECES: dict[str, str] = {
    "nothing": "",
    "cut": CUT,
    "cut to the order": modify("cut", {"amount": {"$ref": "context.order.cents"}}, "context.args.amount > 60"),
    "another cut": modify("trim", {"amount": 10}, "context.args.amount > 100"),
    "the same cut": modify("same", {"amount": {"$ref": "resource.cents"}}, "context.args.amount > 250"),
    "a note": modify("anote", {"note": "seen"}, 'context.args has note && context.args.note like "*x*"'),
    "no note": modify("plain", {"note": None}, "context.args.amount > 30"),
    "another order": modify("move", {"order_id": "o-2"}, "context.args.amount > 400"),
    "an error": f'@id("over") {REFUND} when {{ context.args.amount * 20000000000000000 > 0 }};\n',
    "a permit in error": '@id("err") permit (principal, action == Action::"refund", resource) when { context.args.amount * 20000000000000000 > 0 };\n',
    "an unasked fact": f'@id("new") {REFUND} when {{ context.args.amount > 100 && context has payee && !context.payee.known }};\n',
    "an unasked fact, elsewhere": f'@id("newlook") {LOOK} when {{ context has payee && context.payee.known }};\n',
    "a fact unasked for what is cut": CUT
    + f'@id("late") {REFUND} when {{ context.args.amount == 200 && context has payee && !context.payee.known }};\n',
    "a text for a number": modify("text", {"amount": {"$ref": "context.args.note"}}, "context.args has note"),
    "unasked parents": f'@id("team") {REFUND} when {{ principal in Team::"gold" && context.args.amount > 50 }};\n',
    "an owner": f'@id("owner") {REFUND} unless {{ resource has owner && resource.owner == principal }};\n',
    "an owner's level": f'@id("olevel") {REFUND} when {{ resource has owner && resource.owner has level }};\n',
    "a ping": '@id("noping") forbid (principal, action == Action::"ping", resource) when { context.args.to == "bot" };\n',
}  # fmt: skip
CUTS = {"cut", "cut to the order", "a fact unasked for what is cut"}
"""Pieces that use one id."""


def bundle(policies: str, *, limits: str = "", links: str = "", schema: str = SCHEMA) -> Bundle:
    files = {"p.cedar": policies, "schema.cedarschema": schema, "context.toml": SPEC, "limits.toml": limits}
    return bundle_from_files(files | ({"links.json": links} if links else {}), "test")


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for order in ("o-1", "o-2", "o-9"):
        for amount in (5, 50, 61, 120, 300, 450, 700, 950):
            yield ("bot" if amount % 2 else "ana"), "refund", {"order_id": order, "amount": amount}
            yield (
                "bot",
                "refund",
                {"order_id": order, "amount": amount + 1, "note": "x" if amount % 3 else "y"},
            )
        for who in ("bot", "ana", "new"):
            yield who, "look", {"order_id": order}
    yield "bot", "refund", {"order_id": "o-1", "amount": 2**53 + 1}
    yield "bot", "refund", {"order_id": "o-1", "amount": "x"}
    yield "bot", "ping", {"to": "bot"}
    yield "bot", "ping", {"to": "ana"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Some sixty calls of two bundles; every third is labelled, one row and one context are damaged."""
    root = tmp_path_factory.mktemp("sweeping")
    orders = {"o-1": {"cents": 200, "owner": "bot"}, "o-2": {"cents": 60}}
    agents = {"bot": {"level": 3}, "ana": {"level": 1}}
    sources = {
        "orders": CallableSource(lambda where: orders.get(str(where["id"]))),
        "agents": CallableSource(lambda where: agents.get(str(where["id"]))),
    }
    for number, policies in enumerate((BASE, BASE.replace("900", "500"))):
        with Runtime.open(bundle(policies), lake=root / "lake", sources=sources) as runtime:
            runtime.tool(lambda order_id, amount, note=None: 1, name="refund", resource="Order::{order_id}")
            runtime.tool(lambda order_id: 1, name="look", resource="Order::{order_id}")
            runtime.tool(lambda to: 1, name="ping", resource="Agent::{to}")
            for place, (who, tool, args) in enumerate(calls()):
                if number and place % 4:
                    continue
                ident = f"s{number}{who}"
                with runtime.session(principal=f"Agent::{who}", tenant="acme", session_id=ident) as session:
                    with suppress(Blocked, ApprovalRequired):
                        session.call(tool, **args)
                    if place % 3 == 0 and session.last_decision is not None:
                        said = "attack" if place % 2 else "user"
                        decision = str(session.last_decision["decision_id"])
                        runtime.label("origin", said, session=session, decision_id=decision, source="test")
    return open_lake(root / "lake")


@pytest.fixture(autouse=True)
def columns_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)


_alone: dict[tuple[Any, ...], dict[str, int]] = {}


def counted(replay: Replay) -> dict[str, int]:
    """What `COUNTS` are of a replay, counted row by row."""
    side = compare(replay, replay).frame.select("side").collect().to_series()
    found: dict[str, int] = replay.rows.with_columns(side.alias("side")).select(**COUNTS).row(0, named=True)
    return found


def alone(lake: Lake, version: Bundle, **options: Any) -> dict[str, int]:
    """What the row engine says of one version."""
    key = (version.version, *sorted((name, str(each)) for name, each in options.items()))
    if key not in _alone:
        replay = lake.replay(version, engine="rows", **options)
        _alone[key] = counted(replay)
    return _alone[key]


def agrees(lake: Lake, versions: Sequence[Bundle], **options: Any) -> Sweep:
    """Sweep in columns, and hold every number of every version against its replay."""
    sweep = lake.sweep(versions, **options)
    assert sweep.engine.startswith("redecide-columnar")
    for row, version in zip(sweep.rows.iter_rows(named=True), versions, strict=True):
        assert {name: row[name] for name in COUNTS} == alone(lake, version, **options), version.files[
            "p.cedar"
        ]
    return sweep


def test_the_lake_has_every_kind_of_row(lake: Lake) -> None:
    """Else agreement would say little."""
    row = alone(lake, bundle(PERMIT + CUT + ask(300) + big(600)))
    assert all(row[state] for state in ("allow", "modify", "approve", "block"))
    assert row["attack_calls"] and row["honest_calls"] and row["unlabelled_calls"]  # noqa: PT018


@pytest.mark.parametrize("piece", PIECES)
def test_thresholds_beside_every_kind_of_policy(lake: Lake, piece: str) -> None:
    versions = [bundle(PERMIT + PIECES[piece] + ask(limit) + big(600)) for limit in (0, 60, 449, 10_000)]
    agrees(lake, versions)


@pytest.mark.slow
def test_versions_that_have_little_in_common(lake: Lake) -> None:
    """Other policies, other patches under one id, other schemas, the recorded policies, and one twice."""
    other = SCHEMA.replace("note?: String", "note?: String, why?: String").replace(
        "level?: Long", "level?: Long, more?: Bool"
    )
    own = lake.find_bundle(lake.bundles.collect()["bundle_version"][0])
    assert own is not None
    versions = [bundle(PERMIT + piece) for piece in PIECES.values()]
    versions += [
        bundle(PERMIT + CUT + big(400), schema=other),
        own,
        bundle(BASE),
        bundle(big(5)),
        bundle(PERMIT),
    ]
    agrees(lake, versions)


def test_templates_and_links(lake: Lake) -> None:
    template = '@id("t") forbid (principal == ?principal, action, resource) when { context.args has amount && context.args.amount > %d };\n'

    def links(who: str) -> str:
        return json.dumps([{"template": "t", "id": "l", "values": {"?principal": f'Agent::"{who}"'}}])

    first = bundle(PERMIT + template % 100, links=links("bot"))
    versions = [
        first,
        bundle(PERMIT + template % 100, links=links("ana")),
        bundle(PERMIT + template % 300, links=links("bot")),
    ]
    counts = agrees(lake, versions).rows["block"].to_list()
    assert len(set(counts)) == 3


def test_limits_hold_for_every_version(lake: Lake) -> None:
    limits = bundle(PERMIT, limits=BUDGET.format(most=3))
    versions = [bundle(PERMIT + CUT + ask(limit)) for limit in (60, 300)]
    sweep = agrees(lake, versions, limits=limits)
    assert sweep.rows["block"].to_list() > lake.sweep(versions).rows["block"].to_list()


_PIECES = st.lists(st.sampled_from(sorted(PIECES)), max_size=4, unique=True)
_VERSION = st.tuples(_PIECES, st.sampled_from([0, 60, 449]), st.sampled_from([100, 600]), st.booleans())


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_VERSION, min_size=1, max_size=4))
def test_any_mixture(lake: Lake, versions: list[tuple[list[str], int, int, bool]]) -> None:
    made = []
    for pieces, one, two, permit in versions:
        texts = dict.fromkeys(
            PIECES[piece]
            for piece in pieces
            if piece not in CUTS or not CUTS & set(pieces[: pieces.index(piece)])
        )
        made.append(bundle((PERMIT if permit else "") + "".join(texts) + ask(one) + big(two)))
    agrees(lake, made)


def test_only_what_cannot_be_decided_in_columns_goes_to_cedar(lake: Lake) -> None:
    versions = [bundle(PERMIT + CUT + ask(limit)) for limit in (10, 100, 1000)]
    before = lake.sweep(versions)
    moving = [bundle(PERMIT + PIECES["another order"] + ask(limit)) for limit in (10, 100, 1000)]
    after = lake.sweep(moving)
    told = [why for why in after.handed_over if "which the resource" in why]
    assert len(told) == 1
    assert set(after.handed_over) - set(told) <= set(before.handed_over)
    with pytest.raises(UnsupportedPolicy, match=r"cannot be decided in columns"):
        lake.sweep(moving, engine="columnar")


def test_the_damaged_are_quarantined_in_every_version(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(lake.uri, tmp_path / "copy")
    handle = DeltaTable(tmp_path / "copy" / "decisions")
    table = handle.to_pyarrow_table()
    rows = table.to_pylist()
    for row in rows[::5]:
        row["context_hash"] = "0" * 64
    for row in rows[1::5]:
        row["verdict"] = "block" if row["verdict"] == "allow" else "allow"
    rewritten = pa.Table.from_pylist(rows, schema=table.schema)
    write_deltalake(handle, rewritten, mode="overwrite", partition_by=handle.metadata().partition_columns)
    damaged = open_lake(tmp_path / "copy")
    versions = [bundle(PERMIT + CUT + ask(limit)) for limit in (60, 300)]
    sweep = damaged.sweep(versions)
    for row, version in zip(sweep.rows.iter_rows(named=True), versions, strict=True):
        replay = damaged.replay(version, engine="rows")
        assert {name: row[name] for name in COUNTS} == counted(replay)
        assert row["quarantined"] == len(rows[::5]) + len(rows[1::5])


def test_merging_keeps_a_policy_once_and_the_order_of_ids() -> None:
    versions = [bundle(PERMIT + ask(limit) + CUT) for limit in (1, 2, 2)] + [bundle(PERMIT + ask(1))]
    whole = merged(versions)
    assert len(whole.bundle.policies) == 4
    assert whole.ids[1] == whole.ids[2]
    for ids in whole.ids:
        assert sorted(ids.values()) == [ids[ident] for ident in sorted(ids)]
    assert whole.ids[0]["ask"] != whole.ids[1]["ask"]
    assert whole.ids[0].keys() - whole.ids[3].keys() == {"cut"}


def test_what_reaches_a_tool_and_what_is_merged() -> None:
    versions = [
        bundle(PERMIT + ask(1) + PIECES["a ping"]),
        bundle(
            PERMIT + ask(1) + '@id("in") forbid (principal in Team::"t", action == Action::"ping", resource);'
        ),
        bundle(PERMIT + ask(2)),
        bundle(PERMIT, schema=SCHEMA.replace("level?: Long", "level?: Long, more?: Bool")),
    ]
    found = families(versions)
    assert [numbers for numbers, _ in found] == [(0, 2), (1,), (3,)]
    apart, below = found[0][1], found[1][1]
    assert reaching(apart, "look") == {apart.ids[0]["may"]}
    assert reaching(below, "look") == {below.ids[0]["may"], below.ids[0]["in"]}
    assert reaching(apart, "refund") == {apart.ids[0]["may"], apart.ids[0]["ask"], apart.ids[1]["ask"]}
