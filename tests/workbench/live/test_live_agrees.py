"""Every edit says what a replay of it says, decision by decision: the oracle is the row engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import CallableSource
from workbench.errors import AxisInvalid
from workbench.live import prepare
from workbench.sweep import COUNTS

if TYPE_CHECKING:
    from workbench.lake import Lake
    from workbench.live import Live


def test_the_history_has_every_kind_of_row(live: Live) -> None:
    """Else agreement would say little."""
    answer = live.baseline
    assert all(answer.verdicts.values()), answer.verdicts
    assert all(answer.counts[f"{side}_calls"] for side in ("attack", "honest", "unlabelled"))
    assert set(answer.said["kind"]) == {"call", "resumed"}
    assert "limits" in set(answer.said["decided_by"])
    assert len(live.history.schemas) == 2
    assert any("resumed" in why for why in answer.handed_over)


def test_the_recorded_policies_are_the_self_replay(lake: Lake, live: Live, kit: Any) -> None:
    replay = lake.replay(recompile=False, engine="rows")
    kit.holds(live.baseline, replay)
    assert live.baseline.bundle is None


def test_thresholds_beside_every_kind_of_policy(lake: Lake, live: Live, kit: Any, piece: str) -> None:
    for limit in (60, 449, 60):
        kit.agrees(live, lake, kit.bundle(kit.PERMIT + piece + kit.ask(limit) + kit.big(600)))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_sequence_of_edits(lake: Lake, live: Live, kit: Any, data: st.DataObject) -> None:
    """Whatever was decided before, and whatever is kept of it."""
    names = st.lists(st.sampled_from(sorted(kit.PIECES)), max_size=4, unique=True)
    for _ in range(data.draw(st.integers(1, 3))):
        pieces = data.draw(names)
        for group in (kit.CUTS, kit.TEAMS):  # of one id
            pieces = [each for each in pieces if each not in group or each == min(group & set(pieces))]
        first, second = data.draw(st.tuples(st.sampled_from([0, 60, 449]), st.sampled_from([100, 600])))
        text = "".join(kit.PIECES[each] for each in pieces) + kit.ask(first) + kit.big(second)
        permit = data.draw(st.sampled_from([kit.PERMIT, ""]))
        kit.agrees(live, lake, kit.bundle(permit + text))


def test_a_patched_row_is_left_once_however_many_reasons_there_are(lake: Lake, live: Live, kit: Any) -> None:
    """By what its patch refers to, and by a policy that is asked again: it was counted twice, and never complete."""
    pieces = ("an owner's level", "an unasked fact of what is cut", "a note")
    text = "".join(kit.PIECES[each] for each in pieces) + kit.ask(0) + kit.big(100)
    answer = kit.agrees(live, lake, kit.bundle(kit.PERMIT + text))
    assert answer.left == 0
    assert sum(answer.handed_over.values()) <= answer.decisions


def test_the_recorded_bundles_themselves(lake: Lake, live: Live, kit: Any) -> None:
    """Rows of the own policies miss nothing, those of others may."""
    for version in lake.bundles.collect()["bundle_version"]:
        own = lake.find_bundle(version)
        assert own is not None
        kit.agrees(live, lake, own)


def test_another_schema_reads_the_history_again(lake: Lake, live: Live, kit: Any) -> None:
    wider = kit.SCHEMA.replace("note?: String", "note?: String, why?: String")
    narrower = kit.SCHEMA.replace("cents?: Long, owner", "owner")
    less = kit.SCHEMA.partition('action "look"')[0]  # its calls fit no schema
    text = kit.PERMIT + kit.big(400)
    for schema in (kit.OTHER, wider, narrower, less, wider):
        kit.agrees(live, lake, kit.bundle(text, schema=schema, spec=""))
        again = live.decide(kit.bundle(text + kit.ask(60), schema=schema, spec=""))
        assert again is not None
        assert not again.retyped
        kit.holds(
            live.complete(again), kit.replayed(lake, kit.bundle(text + kit.ask(60), schema=schema, spec=""))
        )
    fifth = live.decide(kit.bundle(text, schema=kit.OTHER, spec=""))
    assert fifth is not None
    assert fifth.retyped  # others took its place


def test_templates_and_links(lake: Lake, live: Live, kit: Any) -> None:
    template = (
        '@id("t") forbid (principal == ?principal, action, resource) '
        "when { context.args has amount && context.args.amount > %d };\n"
    )
    found = set()
    for who, amount in (("bot", 100), ("ana", 100), ("bot", 300)):
        links = json.dumps([{"template": "t", "id": "l", "values": {"?principal": f'Agent::"{who}"'}}])
        answer = kit.agrees(live, lake, kit.bundle(kit.PERMIT + template % amount, links=links))
        found.add(answer.verdicts["block"])
    assert len(found) == 3


def test_another_verdict_or_patch_of_the_same_condition(lake: Lake, live: Live, kit: Any) -> None:
    """The condition was evaluated before; what follows from it is another thing."""
    when = "context.args.amount > 100"
    for text in (
        f'@id("x") {kit.REFUND} when {{ {when} }};',
        f'@id("x") @verdict("approve") {kit.REFUND} when {{ {when} }};',
        kit.modify("x", {"amount": 7}, "context.args.amount > 400"),
        kit.modify("x", {"amount": 7}, when),
        kit.modify("x", {"amount": 7}, "context.args.amount > 400 || context.args.amount < 60"),
        kit.modify("x", {"amount": 8}, when),
        kit.modify("y", {"amount": 8}, when),
        kit.modify("x", {"amount": 7}, when) + kit.modify("y", {"amount": 8}, when),
        f'@id("x") permit (principal, action == Action::"refund", resource) when {{ {when} }};',
    ):
        kit.agrees(live, lake, kit.bundle(kit.PERMIT + text))


@pytest.mark.parametrize("keep", [0, 30_000])
def test_whatever_is_forgotten(lake: Lake, kit: Any, keep: int) -> None:
    tight = prepare(lake, kit.bundle(kit.RECORDED + kit.big(600)), keep=keep)
    for limit in (60, 300, 60):
        kit.agrees(tight, lake, kit.bundle(kit.PERMIT + kit.CUT + kit.ask(limit)))
        assert tight.used <= keep


def test_the_numbers_are_those_of_a_sweep(lake: Lake, live: Live, kit: Any) -> None:
    made = kit.bundle(kit.PERMIT + kit.CUT + kit.ask(100))
    answer = kit.agrees(live, lake, made)
    row = lake.sweep([made], engine="rows").rows.row(0, named=True)
    assert dict(answer.counts) == {name: row[name] for name in COUNTS}


def test_limits_and_contexts_of_their_own(lake: Lake, kit: Any) -> None:
    """The axes of a replay hold for every edit."""
    limits = kit.bundle(kit.PERMIT, limits=kit.LIMITS.replace("14", "3"))
    orders = {"o-1": {"cents": 90, "owner": "ana"}, "o-2": {"cents": 500}, "o-9": {"cents": 1}}
    sources = {
        "orders": CallableSource(lambda where: orders.get(str(where["id"])), "1"),
        "agents": CallableSource(lambda where: {"level": 1}, "1"),
    }
    spec = kit.bundle(kit.PERMIT, spec=kit.SPEC.replace('["cents", "owner"]', '["owner"]'))
    made = [kit.bundle(kit.PERMIT + kit.CUT + kit.ask(limit)) for limit in (60, 300)]
    made.append(kit.bundle(kit.PERMIT + kit.CUT, schema=kit.OTHER))
    for axes in ({"limits": limits}, {"context": spec, "sources": sources}):
        live = prepare(lake, made[0], **axes)
        kit.holds(live.baseline, kit.replayed(lake, made[0], **axes))
        for each in made:
            kit.agrees(live, lake, each, **axes)
        with pytest.raises(AxisInvalid, match="policy"):
            prepare(lake, **axes)
