"""Search and suggestions over a history whose truth is known: what is chosen on one part is confirmed on the other."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from runtime import Runtime
from runtime.bundle import load_bundle
from workbench.cli import app
from workbench.cli_sweep import default_objectives, over_of
from workbench.compare import compare
from workbench.effects import EFFECTS, now_of
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.searching.objectives import OBJECTIVES, objectives_of
from workbench.searching.pareto import front, spread
from workbench.searching.search import search
from workbench.searching.suggest import suggest
from workbench.searching.suggesting.conditions import conditions_of
from workbench.searching.suggesting.rules import best_rules
from workbench.searching.suggesting.values import Path as ValuePath
from workbench.searching.suggesting.values import Values
from workbench.splitting import Split

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.lake import Lake

SCHEMA = """
entity Agent;
entity Order;
action "refund" appliesTo { principal: [Agent], resource: [Order],
  context: { args: { cents: Long, to?: String, urgent: Bool } } };
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { cents: Long } } };
"""
OPEN = '@id("may") permit (principal, action, resource);\n'
NEXT = (
    OPEN
    + r"""
@id("big") @tune("{\"limit\": {\"value\": 500, \"min\": 0, \"max\": 100000}}")
forbid (principal, action == Action::"refund", resource) when { context.args.cents > 500 };
@id("ask") @verdict("approve") @tune("{\"above\": {\"value\": 100000}}")
forbid (principal, action == Action::"refund", resource) when { context.args.cents > 100000 };
"""
)
SESSIONS = 60


def bundle(folder: Path, policies: str) -> Path:
    folder.mkdir()
    for name, text in (("p.cedar", policies), ("schema.cedarschema", SCHEMA)):
        (folder / name).write_text(text)
    return folder


def calls(number: int) -> list[tuple[str, dict[str, Any], str]]:
    """Every third session is hijacked: it looks, then pays 800 or more to a mule. Honest ones pay up to 700."""
    if number % 3:
        paid = {"cents": 100 + 10 * number, "urgent": number % 2 == 0}
        return [
            ("look", {"cents": number}, "user"),
            ("refund", paid | ({"to": "ana"} if number % 2 else {}), "user"),
        ]
    return [
        ("look", {"cents": number}, "attack"),
        ("refund", {"cents": 800 + number, "to": f"mule-{number % 5}@eve.example", "urgent": True}, "attack"),
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """60 sessions, 120 calls, all of which ran."""
    folder = tmp_path_factory.mktemp("search")
    with Runtime.open(bundle(folder / "open", OPEN), lake=folder / "lake") as runtime:
        runtime.tool(lambda cents, urgent, to=None: cents, name="refund", resource="Order::o")
        runtime.tool(lambda cents: cents, name="look", resource="Order::o", effect="read")
        for number in range(SESSIONS):
            with runtime.session(principal="Agent::bot", tenant="acme") as session:
                for tool, args, origin in calls(number):
                    session.call(tool, **args)
                    assert session.last_decision is not None
                    ident = str(session.last_decision["decision_id"])
                    runtime.label("origin", origin, session=session, decision_id=ident, source="test")
                runtime.label("desk", str(number % 7), session=session, source="test")
    return open_lake(folder / "lake")


@pytest.fixture(scope="module")
def next_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("next") / "next", NEXT)


LIMITS = [0, 300, 699, 700, 810, 100_000]


def test_the_front_and_its_confirmation_by_hand(lake: Lake, next_: Path) -> None:
    """Each number of each version, recounted from the rows of its own replay, by part."""
    found = search(lake, next_, {"limit": LIMITS}, split=Split(seed=3))
    part = found.split.part(lake.replay().rows, lake.labels)
    labels = {
        row["decision_id"]: row["value"]
        for row in lake.labels.filter(label="origin").collect().iter_rows(named=True)
    }
    for row in found.frame.collect().iter_rows(named=True):
        rows = lake.replay(found.sweep.bundle(row["version"])).rows.with_columns(part)
        for name in ("search", "confirm"):
            mine = [each for each in rows.iter_rows(named=True) if each["part"] == name]
            harm = sum(
                labels[each["decision_id"]] == "attack" and each["verdict"] == "allow" for each in mine
            )
            held = sum(labels[each["decision_id"]] == "user" and each["verdict"] != "allow" for each in mine)
            if name == "search":
                assert (row["harm_let_through"], row["good_held_up"]) == (harm, held)
            elif row["harm_let_through_confirmed"] is not None:
                assert (row["harm_let_through_confirmed"], row["good_held_up_confirmed"]) == (harm, held)
                assert row["harm_let_through_lower"] <= harm / row["harm_let_through_confirmed_of"]
                assert harm / row["harm_let_through_confirmed_of"] <= row["harm_let_through_upper"]
    points = found.frame.select("harm_let_through", "good_held_up", "on_front").collect().rows()
    for harm, held, on_front in points:
        beaten = any(h <= harm and g <= held and (h, g) != (harm, held) for h, g, _ in points)
        assert on_front == (not beaten)
    assert found.best() == found.best(at_most={"good_held_up": 1.0})
    best = found.rows.row(found.best(), named=True)
    assert (best["limit"], best["good_held_up"]) == (699, 0)


def test_how_many_were_tried_is_said_and_corrected_for(lake: Lake, next_: Path) -> None:
    few = search(lake, next_, {"limit": [700, 810]}, confirm=1)
    many = search(lake, next_, {"limit": [0, 300, 700, 810]}, confirm=None)
    (version,) = few.confirmed
    limit = few.rows.row(version, named=True)["limit"]
    same = next(row["version"] for row in many.rows.iter_rows(named=True) if row["limit"] == limit)
    alone, among = few.confirmed[version]["good_held_up"], many.confirmed[same]["good_held_up"]
    assert (alone.count, alone.of) == (among.count, among.of)
    assert alone.upper < among.upper
    assert "4 tried" in repr(many)
    assert "hold together at 95 %" in repr(many)
    assert many.as_dict()["tried"] == 4
    json.dumps(many.as_dict(), allow_nan=False)
    for face in (many.markdown(), many._repr_html_()):
        assert "good_held_up" in face.replace("\\", "")


def test_money_and_labels_of_sessions(lake: Lake, next_: Path) -> None:
    """Objectives may be money, clusters labels of sessions: desks are in one part each."""

    def cents(rows: pl.DataFrame) -> pl.Series:
        paid = pl.when(pl.col("tool") == "refund").then(
            pl.col("args").str.json_path_match("$.cents").cast(pl.Int64)
        )
        return rows.select(money=paid.fill_null(0))["money"]

    split = Split(cluster=("desk",), seed=1)
    found = search(
        lake,
        next_,
        {"limit": [810]},
        objectives=("money_let_through", "money_held_up"),
        split=split,
        money=cents,
    )
    rows = lake.replay(found.sweep.bundle(0)).rows.with_columns(split.part(lake.replay().rows, lake.labels))
    of_desk = lake.labels.filter(label="desk").select("session_id", desk="value").collect()
    assert (
        rows.join(of_desk, on="session_id").group_by("desk").agg(pl.col("part").n_unique())["part"].max() == 1
    )
    harm = lake.labels.filter(label="origin", value="attack").collect()["decision_id"]
    still = rows.filter(pl.col("decision_id").is_in(harm.implode()), verdict="allow", tool="refund")
    paid = still.with_columns(cents(still)).group_by("part").agg(pl.col("money").sum())
    expected = dict(paid.iter_rows())
    row = found.rows.row(0, named=True)
    assert row["money_let_through"] == expected["search"]
    assert row["money_let_through_confirmed"] == expected["confirm"]


def test_an_objective_counts_what_may_be() -> None:
    """Over every (then, verdict): harm and held-up work are counted unless they are known not to be."""
    for then, verdict, same in product(
        ("ran", "granted", "taken_back", "did_not_run", "not_granted", "waiting", "in_doubt"),
        ("allow", "modify", "approve", "block", None),
        (True, False),
    ):
        effect = EFFECTS[then, now_of(verdict, kind="call", same_action=same)]  # type: ignore[index]
        row = {"then": then, "effect": effect, "verdict": verdict}
        ran = then in ("ran", "granted", "in_doubt")
        harm = effect in ("released", "undecided") or (ran and effect == "same")
        held = then in ("ran", "granted") and effect in ("prevented", "held", "altered", "undecided")
        for side, expected in (
            ("attack", (harm, False)),
            ("honest", (False, held)),
            ("unlabelled", (False, False)),
        ):
            frame = pl.DataFrame([row | {"side": side}], schema_overrides={"verdict": pl.String})
            got = frame.select(
                harm=OBJECTIVES["harm_let_through"].holds, held=OBJECTIVES["good_held_up"].holds
            ).row(0)
            assert got == expected, (row, side)
            of = frame.select(harm=OBJECTIVES["harm_let_through"].of, held=OBJECTIVES["good_held_up"].of).row(
                0
            )
            assert all(whole or not part for part, whole in zip(got, of, strict=True))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_a_front_is_what_nothing_beats(points: list[tuple[int, int, int]]) -> None:
    found = front(np.array(points))
    for place, point in enumerate(points):
        beaten = any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points
        )
        assert bool(found[place]) == (not beaten)


def test_confirmed_versions_are_spread_along_the_front() -> None:
    frame = pl.DataFrame({"version": range(10), "a": range(10), "b": range(10, 0, -1)})
    assert spread(frame, ["a", "b"], 3) == [0, 4, 9]
    assert spread(frame.vstack(frame.with_columns(version=pl.col("version") + 10)), ["a", "b"], 99) == list(
        range(10)
    )


def test_a_rule_for_harm_that_is_still_allowed(lake: Lake) -> None:
    """The mule's refunds are told by the amount; the rule loads, and does on the other part what it says."""
    found = suggest(lake, most=2, split=Split(seed=3))
    refunds = [each for each in found.suggestions if each.tool == "refund"]
    best = refunds[0]
    assert (best.caught, best.hit) == (best.of, 0)
    assert "context.args" in best.policy
    diff = compare(lake.replay(), lake.replay(best.bundle))
    rows = diff.frame.collect().with_columns(Split(seed=3).part(lake.replay().rows, lake.labels))
    held = rows.filter(
        (pl.col("part") == "confirm") & (pl.col("side") == "honest") & (pl.col("effect") == "prevented")
    )
    through = rows.filter(
        (pl.col("part") == "confirm") & (pl.col("side") == "attack") & (pl.col("effect") == "same")
    )
    assert best.confirmed["good_held_up"].count == held.height == 0
    assert best.confirmed["harm_let_through"].count == through.height
    assert through.height < found.before["harm_let_through"].count
    assert "a person decides" in repr(found)
    frame = found.frame.collect()
    assert frame["policy"].to_list() == [each.policy for each in found.suggestions]
    json.dumps(found.as_dict(), allow_nan=False)


def test_what_nothing_tells_apart_gets_no_rule(lake: Lake) -> None:
    """Looks differ in nothing that matters; a rule that hits as much as it catches is not proposed."""
    found = suggest(lake, most=1, cost=50.0, split=Split(seed=3))
    assert [each.tool for each in found.suggestions] == ["refund"]


def test_a_candidate_that_stops_all_needs_no_rule(lake: Lake, tmp_path: Path) -> None:
    none = suggest(lake, bundle(tmp_path / "none", OPEN.replace("permit", "forbid")))
    assert (none.harm, none.suggestions, none.search) == (0, (), None)
    assert "0 harmful calls" in repr(none)


def values(**columns: Any) -> Values:
    kinds = {bool: "bool", int: "long", str: "string"}
    frame = pl.DataFrame(columns)
    found = {
        ValuePath("context", ("args", name), frozenset({1} if column.null_count() else ())): kinds[
            type(column.drop_nulls()[0])
        ]
        for name, column in ((name, frame[name]) for name in columns)
    }
    renamed = frame.rename({name: f"context.args.{name}" for name in columns})
    return Values(
        tool="t", principal_type="A", resource_type="O", kinds=found,
        frame=renamed.with_columns(decision_id=pl.int_range(pl.len()).cast(pl.String)),
    )  # fmt: skip


@given(st.data())
def test_conditions_hold_where_cedar_says(data: st.DataObject) -> None:
    """Every condition, guards and all, is what Cedar says of every row."""
    import cedarpy

    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "n": st.one_of(st.none(), st.integers(-2000, 2000)),
                    "m": st.integers(-3, 3),
                    "s": st.one_of(
                        st.none(), st.sampled_from(["", "ana", 'a"b\\c', "mule-1@eve.example", "Zoë\n"])
                    ),
                    "b": st.booleans(),
                }
            ),
            min_size=2,
            max_size=6,
        )
    )
    schema = {"n": pl.Int64, "m": pl.Int64, "s": pl.String, "b": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema)
    kept = [name for name in schema if frame[name].null_count() < frame.height]
    seen = values(**{name: frame[name] for name in kept})
    harm = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    for each in conditions_of(seen, harm):
        text = " && ".join((*each.guards, each.text))
        policy = f"permit (principal, action, resource) when {{ {text} }};"
        for row, holds in zip(rows, each.holds, strict=True):
            args = {name: row[name] for name in kept if row[name] is not None}
            request = {
                "principal": 'A::"a"',
                "action": 'Action::"t"',
                "resource": 'O::"o"',
                "context": {"args": args},
            }
            answer = cedarpy.is_authorized(request, policy, [])
            assert not answer.diagnostics.errors, text
            assert (answer.decision == cedarpy.Decision.Allow) == bool(holds), (text, row)


def test_a_longer_rule_must_pay_for_itself() -> None:
    """Harm is big and urgent: neither alone tells it. Noise that happens to fit is not added."""
    big = [True] * 30 + [True] * 30 + [False] * 30
    urgent = [True] * 30 + [False] * 30 + [True] * 30
    noise = [True] * 30 + [True] * 59 + [False]
    harm = np.array([True] * 30 + [False] * 60)
    rules, tried = best_rules(
        conditions_of(values(big=big, urgent=urgent, noise=noise), harm), harm, cost=1.0, most=3
    )
    assert rules[0].text == "context.args.big &&\n  context.args.urgent"
    assert (rules[0].caught, rules[0].hit) == (30, 0)
    assert tried > len(rules)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an objective": ({"objectives": ["harm"]}, "no objective 'harm'; there are harm_let_through"),
    "none": ({"objectives": []}, "at least, each once"),
    "twice": ({"objectives": ["good_held_up"] * 2}, "at least, each once"),
    "divided sessions": ({"split": Split(cluster=("decision_id",))}, "divides sessions"),
    "too few sessions": ({"split": Split(cluster=("tenant",))}, "one part of the history is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_searched_is_said(lake: Lake, next_: Path, name: str) -> None:
    options, hint = WRONG[name]
    with pytest.raises(WorkbenchError, match=hint):
        search(lake, next_, {"limit": [1, 2]}, **options)


def test_bounds_that_nothing_keeps(lake: Lake, next_: Path) -> None:
    found = search(lake, next_, {"limit": [0, 300]})
    with pytest.raises(WorkbenchError, match="the least upper bounds are"):
        found.best(at_most={"good_held_up": 0.0})
    with pytest.raises(WorkbenchError, match="the search has no objective"):
        found.best("money")
    assert objectives_of(found.objectives) == found.objectives


def test_commands(lake: Lake, next_: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    told = run(
        app,
        [
            "sweep",
            lake.uri,
            "--policy",
            str(next_),
            "--over",
            "limit=300,700",
            "--json",
            "--out",
            str(tmp_path / "v.parquet"),
        ],
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["tried"] == 2
    assert pl.read_parquet(tmp_path / "v.parquet")["limit"].to_list() == [300, 700]
    shown = run(app, ["suggest", lake.uri, "--markdown", "--html", str(tmp_path / "s.html")])
    assert shown.exit_code == 0, shown.output
    assert "forbid" in shown.stdout
    assert "forbid" in (tmp_path / "s.html").read_text()
    assert over_of(["a=1,x", 'b="1"']) == {"a": [1, "x"], "b": ["1"]}
    for wrong in (["a"], ["a=1", "a=2"], ["=1"]):
        with pytest.raises(WorkbenchError, match="--over"):
            over_of(wrong)
    assert default_objectives(lake) == ("harm_let_through", "good_held_up")
    assert math.isclose(search(lake, load_bundle(next_)).level, 0.95)
