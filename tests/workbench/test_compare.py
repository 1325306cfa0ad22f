"""Comparing two replays: every number by hand, every sum to all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.compare import Diff, compare
from workbench.effects import ALL_EFFECTS
from workbench.errors import ColumnUnknown, NotComparable
from workbench.metrics import METRICS, SIDES, STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXPECTED = {
    "decisions": 19,
    "decisions_replayed": 17,
    "decisions_not_replayed": 2,
    "decisions_undecided": 1,
    "decisions_quarantined": 1,
    "decisions_replayed_share": 17 / 19,
    "decisions_changed": 10,
    "verdicts_changed": 9,
    "effect_same": 7,
    "effect_altered": 3,
    "effect_held": 1,
    "effect_prevented": 3,
    "effect_released": 1,
    "effect_escalated": 1,
    "effect_unknown": 1,
    "effect_undecided": 1,
    "effect_quarantined": 1,
    "attack_calls": 8,
    "attack_calls_ran": 6,
    "attack_calls_stopped": 4,
    "attack_calls_still_run": 2,
    "attack_calls_unresolved": 0,
    "attack_calls_released": 1,
    "attack_calls_stopped_share": 4 / 6,
    "honest_calls": 9,
    "honest_calls_ran": 7,
    "honest_calls_disturbed": 1,
    "honest_calls_still_run": 4,
    "honest_calls_unresolved": 2,
    "honest_calls_released": 1,
    "honest_calls_disturbed_share": 1 / 7,
    "unlabelled_calls": 2,
    "unlabelled_calls_ran": 2,
    "unlabelled_calls_stopped": 2,
    "unlabelled_calls_still_run": 0,
    "unlabelled_calls_unresolved": 0,
    "unlabelled_calls_released": 0,
    "unlabelled_calls_stopped_share": 1.0,
    "sessions": 9,
    "sessions_affected": 7,
    "sessions_honest": 3,
    "sessions_honest_disturbed": 1,
    "sessions_hijacked": 5,
    "sessions_hijacked_stopped": 2,
    "sessions_hijacked_partly": 1,
    "sessions_hijacked_not_stopped": 1,
    "sessions_hijacked_no_attack_ran": 1,
    "sessions_unlabelled": 1,
}
"""Of the history in `conftest.py`, counted by hand."""


def test_every_number_by_hand(diff: Diff) -> None:
    assert diff.summary() == EXPECTED


def test_numbers_are_plain_named_and_say_what_they_rest_on(diff: Diff) -> None:
    assert list(diff.summary()) == [metric.name for metric in METRICS]
    assert {type(number) for number in diff.summary().values()} == {int, float}
    assert diff.exact == dict.fromkeys(diff.summary(), True)


def test_by_tenant(diff: Diff, hostile_tenant: str) -> None:
    found = diff.tenants.collect()
    names = (
        "decisions",
        "attack_calls_ran",
        "attack_calls_stopped",
        "honest_calls_disturbed",
        "sessions_hijacked",
    )
    assert found.select("tenant", *names).rows() == [
        (hostile_tenant, 8, 2, 1, 0, 3),
        ("banking", 11, 4, 3, 1, 2),
    ]


def test_breakdowns_sum_to_the_summary(diff: Diff) -> None:
    for frame in (diff.tenants, diff.sessions, diff.by("tenant", "scenario"), diff.by("scenario")):
        sums = frame.select(pl.col(name).sum() for name in EXPECTED if not name.endswith("_share")).collect()
        assert sums.row(0, named=True) == {n: v for n, v in EXPECTED.items() if not n.endswith("_share")}


def test_a_session_counts_in_each_row_it_has_calls_in(diff: Diff) -> None:
    found = {row["tool"]: row for row in diff.by("tool").collect().to_dicts()}
    assert (found["send_money"]["decisions"], found["send_money"]["sessions"]) == (6, 3)
    assert found["send_money"]["sessions_hijacked_stopped"] == 2
    assert found["update_password"]["sessions_hijacked_not_stopped"] == 1


def test_transitions(diff: Diff) -> None:
    assert {(start, end): n for start, end, n in diff.transitions.collect().rows()} == {
        ("allow", "allow"): 6,
        ("allow", "modify"): 2,
        ("allow", "approve"): 1,
        ("allow", "block"): 4,
        ("allow", "undecided"): 1,
        ("modify", "modify"): 1,
        ("approve", "approve"): 1,
        ("block", "allow"): 1,
        ("block", "approve"): 1,
        ("quarantined", "quarantined"): 1,
    }


def test_effects_name_also_those_that_do_not_occur(diff: Diff) -> None:
    rows = {row["effect"]: row for row in diff.effects.collect().to_dicts()}
    assert list(rows) == list(ALL_EFFECTS)
    assert rows["altered"] == {"effect": "altered", "n": 3, "attack": 1, "honest": 0, "unlabelled": 2}
    calm = diff.base
    none = {row["effect"]: row["n"] for row in compare(calm, calm).effects.collect().to_dicts()}
    assert none == dict.fromkeys(ALL_EFFECTS, 0) | {"same": 18, "quarantined": 1}


def test_changed_rows_are_decided_and_carry_what_one_looks_at(diff: Diff) -> None:
    rows = diff.changed.collect()
    assert rows["decision_id"].to_list() == [f"d-{n:02}" for n in (1, 2, 6, 7, 8, 12, 13, 15, 17, 18)]
    first = rows.row(0, named=True)
    wanted = {
        "from": "allow",
        "to": "block",
        "effect": "prevented",
        "determining": ["limit"],
        "origin": "user",
    }
    wanted |= {
        "base_determining": ["may"],
        "scenario": "honest",
        "tool": "send_money",
        "args": '{"note":"rent"}',
    }
    assert {name: first[name] for name in wanted} == wanted
    same_verdict = rows.row(9, named=True)
    assert (same_verdict["verdict_changed"], same_verdict["effect"]) == (False, "altered")


def test_unresolved_rows_say_why(diff: Diff) -> None:
    rows = diff.unresolved.select(
        "decision_id", "status", "cause", "missing", "changed", "verdict_changed"
    ).collect()
    assert rows.rows() == [
        ("d-04", "undecided", "missing", ["payee"], False, None),
        ("d-16", "quarantined", "context_hash", [], False, None),
    ]
    assert diff.causes.collect().rows() == [
        ("undecided", "missing", ["payee"], 1),
        ("quarantined", "context_hash", [], 1),
    ]


def test_a_row_that_only_the_base_lacks_is_not_replayed(
    history: Sequence[Any], made: Callable[..., Any]
) -> None:
    base = made(history, recorded=True)
    hidden = pl.col("decision_id") == "d-00"
    lost = base.frame.with_columns(
        status=pl.when(hidden).then(pl.lit("quarantined")).otherwise("status"),
        cause=pl.when(hidden).then(pl.lit("policy_lost")).otherwise("cause"),
    )
    found = compare(replace(base, frame=lost), made(history))
    assert found.summary()["decisions_quarantined"] == 2
    assert ("quarantined", "allow", 1) in found.transitions.collect().rows()
    assert found.causes.filter(pl.col("cause") == "policy_lost").collect().height == 1


def test_policies_say_who_stops_what(diff: Diff, hostile_policy: str) -> None:
    assert diff.policies.collect().rows() == [
        ("limit", "block", 1, 1, 0, 1),
        ("(policy: no_permit)", "block", 1, 0, 0, 1),
        (hostile_policy, "block", 1, 0, 0, 0),
        ("large", "modify", 1, 0, 2, 3),
        ("large", "approve", 1, 0, 0, 1),
    ]


def test_without_labels_everything_counts_as_unlabelled(unlabelled: Diff) -> None:
    numbers = unlabelled.summary()
    assert {name: numbers[name] for name in numbers if name.startswith("effect_")} == {
        name: EXPECTED[name] for name in EXPECTED if name.startswith("effect_")
    }
    assert (numbers["attack_calls"], numbers["honest_calls"], numbers["unlabelled_calls"]) == (0, 0, 19)
    assert (numbers["unlabelled_calls_ran"], numbers["unlabelled_calls_stopped"]) == (15, 7)
    assert (numbers["sessions_unlabelled"], numbers["sessions_affected"]) == (9, 7)
    assert "attack_calls_stopped_share" not in numbers
    assert unlabelled.changed.select("origin", "scenario").collect().null_count().row(0) == (10, 10)


def test_an_attack_call_makes_a_session_hijacked_whatever_its_label(
    history: Sequence[Any], made: Callable[..., Any]
) -> None:
    rows = [replace(history[6], session=session) for session in ("x-plain-1", "x-honest-1")]
    found = compare(made(rows, recorded=True), made(rows)).summary()
    assert (found["sessions_hijacked"], found["sessions_hijacked_stopped"], found["sessions_honest"]) == (
        2,
        2,
        0,
    )


def test_labels_reach_only_their_own_tenant(history: Sequence[Any], made: Callable[..., Any]) -> None:
    cand = made(history)
    foreign = cand.lake.labels.with_columns(tenant=pl.lit("somebody else"))
    found = compare(made(history, recorded=True), replace(cand, lake=replace(cand.lake, labels=foreign)))
    assert found.summary()["unlabelled_calls"] == 19
    assert found.summary()["sessions_unlabelled"] == 9


def test_the_last_label_holds(history: Sequence[Any], made: Callable[..., Any]) -> None:
    cand = made(history)
    revised = cand.lake.labels.filter(pl.col("decision_id") == "d-06").with_columns(value=pl.lit("user"))
    labels = pl.concat([cand.lake.labels, revised])
    found = compare(made(history, recorded=True), replace(cand, lake=replace(cand.lake, labels=labels)))
    assert (found.summary()["decisions"], found.summary()["attack_calls"]) == (19, 7)


def test_a_replay_against_itself_changes_nothing(diff: Diff) -> None:
    found = compare(diff.cand, diff.cand)
    assert found.changed.collect().height == 0
    assert found.summary()["sessions_affected"] == 0
    assert found.summary()["attack_calls_stopped"] == 4  # against what ran, not against the base


def test_no_decisions_at_all(made: Callable[..., Any]) -> None:
    found = compare(made([], recorded=True), made([]))
    assert set(found.summary().values()) == {0}
    assert not [name for name in found.summary() if name.endswith("_share")]


# -- lazy in, lazy out ------------------------------------------------------------------------------------------


def test_collects_once(history: Sequence[Any], made: Callable[..., Any]) -> None:
    runs: list[str] = []

    def counted(replay: Any, name: str) -> Any:
        def ran(frame: pl.DataFrame) -> pl.DataFrame:
            runs.append(name)
            return frame

        return replace(replay, frame=replay.frame.map_batches(ran, schema=replay.frame.collect_schema()))

    diff = compare(counted(made(history, recorded=True), "base"), counted(made(history), "cand"))
    assert runs == []
    tables = [
        diff.tenants,
        diff.policies,
        diff.effects,
        diff.causes,
        diff.transitions,
        diff.sessions,
        diff.frame,
    ]
    assert all(isinstance(table, pl.LazyFrame) for table in tables)
    for table in tables:
        table.collect()
    _ = diff.summary(), diff.summary(), diff.exact
    assert sorted(runs) == ["base", "cand"]


# -- what cannot be compared -----------------------------------------------------------------------------------


def test_no_replay(history: Sequence[Any], made: Callable[..., Any]) -> None:
    replay = made(history)
    with pytest.raises(NotComparable, match="the candidate is no replay but a str"):
        compare(replay, "policies/next")  # type: ignore[arg-type]
    with pytest.raises(NotComparable, match="the base is no replay but a FrameLake"):
        compare(replay.lake, replay)


def test_other_pins(history: Sequence[Any], made: Callable[..., Any]) -> None:
    other = made(history, pins={"ledgers": {"ledger-1": 41}})
    with pytest.raises(NotComparable, match=r"'ledger-1': 40.*'ledger-1': 41.*make both from one `lake`"):
        compare(made(history, recorded=True), other)


@pytest.mark.parametrize(
    ("left", "right", "says"),
    [
        (19, 18, "1 are in the base only, 0 in the candidate only"),
        (17, 19, "0 are in the base only, 2 in the candidate"),
    ],
)
def test_rows_that_only_one_has(
    history: Sequence[Any], made: Callable[..., Any], left: int, right: int, says: str
) -> None:
    diff = compare(made(history[:left], recorded=True), made(history[:right]))
    with pytest.raises(NotComparable, match=says):
        diff.summary()


def test_a_column_that_is_not_there(history: Sequence[Any], made: Callable[..., Any]) -> None:
    replay = made(history)
    with pytest.raises(ColumnUnknown, match="the candidate replay has no column `then`"):
        compare(made(history, recorded=True), replace(replay, frame=replay.frame.drop("then")))


def test_a_breakdown_by_what_is_not_there(diff: Diff) -> None:
    with pytest.raises(ColumnUnknown, match="has no column `tenent`; did you mean `tenant`"):
        diff.by("tenent")


# -- whatever the rows ------------------------------------------------------------------------------------------

_STATUS = {"undecided": "undecided", "quarantined": "quarantined"}


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of any mix, effects as unlikely as they come: sums must hold without the effects' own table."""
    names = st.fixed_dictionaries(
        {
            "session": st.sampled_from(["x-honest-1", "x-hijack-1", "x-plain-1"]),
            "recorded": st.sampled_from(STATES[:4]),
            "then": st.sampled_from(["ran", "did_not_run", "waiting", "in_doubt"]),
            "to": st.sampled_from(STATES),
            "effect": st.sampled_from(ALL_EFFECTS[:7]),
            "by": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "origin": st.sampled_from(["user", "attack", None, "somebody"]),
            "tenant": st.sampled_from(["one", "two"]),
        }
    )
    rows = draw(st.lists(names, max_size=12))
    return [row | {"tool": "t", "effect": _STATUS.get(row["to"], row["effect"])} for row in rows]


@given(histories())
def test_everything_sums_to_all(compared: Callable[..., Diff], rows: list[dict[str, Any]]) -> None:
    diff = compared(rows)
    n = diff.summary()
    assert diff.transitions.collect()["n"].sum() == len(rows) == n["decisions"]
    assert diff.effects.collect()["n"].sum() == len(rows)
    assert sum(n[f"effect_{effect}"] for effect in ALL_EFFECTS) == len(rows)
    assert n["decisions_replayed"] + n["decisions_undecided"] + n["decisions_quarantined"] == len(rows)
    assert diff.causes.collect()["n"].sum() == n["decisions_not_replayed"] == diff.unresolved.collect().height
    assert diff.changed.collect().height == n["decisions_changed"] <= n["decisions_replayed"]
    assert sum(n[f"{side}_calls"] for side in SIDES) == len(rows)
    assert n["sessions_honest"] + n["sessions_hijacked"] + n["sessions_unlabelled"] == n["sessions"]
    kinds = ("stopped", "partly", "not_stopped", "no_attack_ran")
    assert sum(n[f"sessions_hijacked_{kind}"] for kind in kinds) == n["sessions_hijacked"]
    assert n["sessions_honest_disturbed"] <= n["sessions_honest"]
    for side, verb in SIDES.items():
        parts = (n[f"{side}_calls_{part}"] for part in (verb, "still_run", "unresolved"))
        assert sum(parts) <= n[f"{side}_calls_ran"] <= n[f"{side}_calls"]
    stops = {f"{side}_calls_{verb}": n[f"{side}_calls_{verb}"] for side, verb in SIDES.items()}
    once = diff.policies.select(pl.col(*stops, "alone").sum()).collect().row(0, named=True)
    assert all(once[name] >= number for name, number in stops.items())
    assert once["alone"] <= sum(stops.values())
