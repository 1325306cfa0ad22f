"""Why a decision comes out as it does: hand-made lakes through the real runtime, every sentence expected in words."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from runtime import CallableSource
from runtime.bundle import load_bundle
from tests.workbench.test_replay import (
    ASKING,
    BASE,
    CAPPED,
    FACTS,
    PERMIT,
    STRICT,
    record,
    write_bundle,
    write_orders,
)
from tests.workbench.test_replay_resumed import Story
from workbench.cli_why import why as why_command
from workbench.compare import compare
from workbench.errors import DecisionNotFound, ReplayFailure
from workbench.explaining.why import Why, why, why_of
from workbench.faces import Code
from workbench.lake import Lake, open_lake

REFUND = 'forbid(principal, action == Action::"refund", resource)'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of nine calls under `BASE`; the orders' facts are asked for."""
    root = tmp_path_factory.mktemp("why")
    write_orders(root, 100)
    record(root, write_bundle(root / "base", BASE, context=FACTS))
    return root


@pytest.fixture(scope="module")
def lake(root: Path) -> Lake:
    return open_lake(str(root / "lake"))


def ids(lake: Lake) -> list[str]:
    """In the order of the calls."""
    return lake.decisions.select("decision_id").collect()["decision_id"].to_list()


def under(lake: Lake, root: Path, call: int, policies: str, **more: Any) -> Why:
    name = f"next-{abs(hash((policies, str(more))))}"
    bundle = write_bundle(root / name, policies, context=FACTS, **more)
    return why_of(lake, ids(lake)[call], load_bundle(bundle))


def row(found: Why, policy: str, key: str) -> dict[str, Any]:
    (told,) = found.frame.filter(pl.col("policy") == policy, pl.col("key") == key).collect().to_dicts()
    return told


def test_an_edited_bound(lake: Lake, root: Path) -> None:
    found = under(lake, root, 1, BASE.replace("9000", "400"))
    name = found.cand.name
    assert found.lines == (
        (
            'refund by Agent::"bot" on Order::"o-1" (tenant acme, session s, step 1): allow as recorded, block under '
            f"{name}; effect: prevented"
        ),
        (
            "Blocked now by `huge` (p.cedar:2): `context.args.amount_cents > 400` (p.cedar:2) is true: "
            "context.args.amount_cents = 500; as recorded `context.args.amount_cents > 9000` (p.cedar:2) was false"
        ),
    )
    assert found.changes == (
        "past `huge` (p.cedar:2): `context.args.amount_cents > 400` (context.args.amount_cents = 500) must not hold",
    )
    told = row(found, "huge", "1.1")
    assert told["version"] == "edited"
    assert (told["clause"], told["base_clause"]) == (
        "context.args.amount_cents > 400",
        "context.args.amount_cents > 9000",
    )
    assert (told["then"], told["now"], told["changed"]) == ("false", "true", True)
    assert (told["let_then"], told["let_now"]) == (False, True)
    assert told["values"] == [
        {"path": "context.args.amount_cents", "state": "value", "value": "500", "source": "argument"}
    ]
    assert row(found, "permit", "principal")["changed"] is False


def test_flipped_lines_are_marked_in_the_text(lake: Lake, root: Path) -> None:
    found = under(lake, root, 1, BASE.replace("9000", "400"))
    texts = {part.title: part.text for part in found.page().parts if isinstance(part, Code)}
    assert list(texts) == [
        f"huge under {found.cand.name} (p.cedar:2)",
        "huge as recorded (p.cedar:2)",
        f"permit under {found.cand.name} (p.cedar:1)",
    ]
    huge = '@id("huge") forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > '
    action, amount = 'true: action = Action::"refund"', "context.args.amount_cents = 500"
    assert list(texts.values())[:2] == [
        f">   2  {huge}400 }};    // {action} | true: {amount}",
        f">   2  {huge}9000 }};    // {action} | false: {amount}",
    ]
    alone = why_of(lake, ids(lake)[0])
    (permit,) = [part.text for part in alone.page().parts if isinstance(part, Code)]
    assert permit.startswith("    1  @id")  # nothing but its scope, which holds


def test_the_recorded_decision_alone(lake: Lake) -> None:
    found = why_of(lake, ids(lake)[4])
    assert found.single
    assert found.lines == (
        'refund by Agent::"bot" on Order::"o-1" (tenant acme, session s, step 4): block',
        (
            "Blocked by `huge` (p.cedar:2): `context.args.amount_cents > 9000` (p.cedar:2) is true: "
            "context.args.amount_cents = 9,500"
        ),
    )
    assert found.as_dict()["candidate"] is None
    assert found.frame.collect()["changed"].sum() == 0


def test_a_new_policy_over_a_fact_with_its_provenance(lake: Lake, root: Path) -> None:
    found = under(lake, root, 1, STRICT)
    assert found.lines[1] == (
        "Blocked now by `over` (p.cedar:3): `context.args.amount_cents > context.order.refundable_cents` (p.cedar:3) is "
        "true: context.args.amount_cents = 500, context.order.refundable_cents = 100; there is no such policy as recorded"
    )
    told = row(found, "over", "1.2")
    assert told["version"] == "candidate"
    assert told["then"] is None
    assert told["values"][1] == {
        "path": "context.order.refundable_cents",
        "state": "value",
        "value": "100",
        "source": 'fact `order` (found) of orders version 0, order_id = "o-1", tenant = "acme"',
    }
    assert row(found, "over", "1.1")["let_now"] is True


def test_a_fact_that_is_not_there_is_absent_and_no_order_is_said_of_it(lake: Lake, root: Path) -> None:
    found = under(lake, root, 3, STRICT)
    assert found.cand.verdict == "allow"
    assert found.lines[1].startswith("Permitted by `permit` (p.cedar:1)")
    told = row(found, "over", "1.1")
    assert (told["now"], told["let_now"], told["values"][0]["state"]) == ("false", False, "absent")
    assert row(found, "over", "1.2")["now"] == "not_reached"
    assert row(found, "over", "1.2")["let_now"] is None


NARROW = (
    '@id("permit") permit(principal is Agent, action, resource)\n'
    'when {\n  context.tenant == "acme" &&\n  context has now\n}\n'
    'unless { context.scopes.contains("closed") || context.session.calls > 0 };\n'
    '@id("looks") permit(principal, action == Action::"look", resource);\n'
    '@id("never") permit(principal == Agent::"other", action == Action::"refund", resource);\n'
)


def test_no_permit_says_where_each_fails(lake: Lake, root: Path) -> None:
    found = under(lake, root, 1, NARROW)
    assert found.cand.row["reason_code"] == "not_permitted"
    assert found.lines[1:] == (
        (
            "Blocked: permit `permit` (p.cedar:1) no longer holds: its `unless` holds: `context.session.calls > 0` (p.cedar:6) is "
            "true: context.session.calls = 1; as recorded there was no such clause"
        ),
    )
    assert found.changes == (
        (
            'a permit must be satisfied: for `permit` `context.scopes.contains("closed") || context.session.calls > 0` '
            "(context.scopes = [], context.session.calls = 1) must not hold; and what is evaluated after it"
        ),
    )
    assert row(found, "permit", "2.1")["let_now"] is False
    assert row(found, "permit", "1.1")["let_now"] is True
    assert row(found, "never", "principal")["now"] == "false"
    assert row(found, "looks", "action")["now"] == "false"


def test_what_stopped_it_then_and_no_longer_does(lake: Lake, root: Path) -> None:
    freed = under(lake, root, 4, BASE.replace("9000", "9900"))
    assert freed.lines[-1] == (
        "`huge` (p.cedar:2), which stopped it then, no longer applies: `context.args.amount_cents > 9900` (p.cedar:2) is "
        "false: context.args.amount_cents = 9,500; as recorded `context.args.amount_cents > 9000` (p.cedar:2) was true"
    )
    assert freed.changes == ()
    gone = under(lake, root, 4, PERMIT)
    assert gone.lines[-1] == f"`huge`, which stopped it then, is not in {gone.cand.name}"


def test_held_for_approval_and_changed(lake: Lake, root: Path) -> None:
    asked = under(lake, root, 1, ASKING)
    assert asked.lines[1].startswith(
        "Held for approval now by `ask` (p.cedar:3): `context.args.amount_cents > 100`"
    )
    assert row(asked, "ask", "1.1")["effect"] == "approve"
    cut = under(lake, root, 1, CAPPED)
    assert cut.cand.verdict == "modify"
    assert cut.lines[1].startswith(
        "Changed now by `cap` (p.cedar:3): `context.args.amount_cents > context.order.refundable"
    )
    assert cut.lines[2] == "It would run with `amount_cents` 500 changed to 100"
    both = cut.frame.filter(policy="cap", key="1.2").collect()
    assert dict(zip(both["request"], both["now"], strict=True)) == {"original": "true", "patched": "false"}


def test_the_patched_request_is_what_is_explained_where_it_decided(lake: Lake, root: Path) -> None:
    after = CAPPED + f'@id("round") {REFUND} when {{ context.args.amount_cents == 100 }};\n'
    found = under(lake, root, 1, after)
    assert found.cand.row["reason_code"] == "patch_insufficient"
    assert (
        "`round` (p.cedar:4), of the changed request: `context.args.amount_cents == 100` (p.cedar:4) is true: context.args.amount_cents = 100"
        in found.lines[1]
    )


def test_the_changed_request_is_compared_with_the_changed_request(lake: Lake, root: Path) -> None:
    """500 is cut to 100 under both: then 100 was no matter for approval; the 500 before the cut would have been."""
    ask = '@id("ask") @verdict("approve") ' + REFUND + " when {{ context.args.amount_cents > {} }};\n"
    base, cand = (
        load_bundle(write_bundle(root / f"ask-{bound}", CAPPED + ask.format(bound), context=FACTS))
        for bound in (400, 50)
    )
    found = why(compare(lake.replay(base), lake.replay(cand)), ids(lake)[1])
    assert (found.base.verdict, found.cand.verdict) == ("modify", "approve")
    assert found.lines[1] == (
        "Held for approval now by `ask` (p.cedar:4), of the changed request: `context.args.amount_cents > 50` (p.cedar:4) "
        "is true: context.args.amount_cents = 100; under ask-400 `context.args.amount_cents > 400` (p.cedar:4) was false"
    )


def test_an_unless_that_does_not_hold_lets_and_what_comes_after_it_stops(lake: Lake, root: Path) -> None:
    text = f'@id("mid") {REFUND} unless {{ context.args.amount_cents > 300 && context.args.amount_cents > 800 }} '
    base, cand = (
        load_bundle(
            write_bundle(
                root / f"mid-{bound}",
                BASE + text + f"when {{ context.args.amount_cents > {bound} }};",
                context=FACTS,
            )
        )
        for bound in (600, 400)
    )
    found = why(compare(lake.replay(base), lake.replay(cand)), ids(lake)[1])
    told = {key: row(found, "mid", key) for key in ("1.1", "1.2", "2.1")}
    assert [(each["now"], each["let_now"]) for each in told.values()] == [
        ("true", True),
        ("false", True),
        ("true", True),
    ]
    assert told["2.1"]["let_then"] is False
    assert found.lines[1].endswith("under mid-600 `context.args.amount_cents > 600` (p.cedar:3) was false")
    assert found.changes == (
        (
            "past `mid` (p.cedar:3): its `unless` must hold, which needs `context.args.amount_cents > 800` "
            "(context.args.amount_cents = 500); or `context.args.amount_cents > 400` (context.args.amount_cents = 500) must "
            "not hold"
        ),
    )


def test_an_evaluation_error_is_told_with_its_message(lake: Lake, root: Path) -> None:
    found = under(
        lake,
        root,
        1,
        BASE + f'@id("odd") {REFUND} when {{ context.args.amount_cents * 9000000000000000000 > 1 }};\n',
    )
    assert found.cand.row["reason_code"] == "policy_error"
    assert found.lines[1].startswith(
        "Blocked now by `odd`: `context.args.amount_cents * 9000000000000000000 > 1` (p.cedar:3) could not be evaluated: "
    )
    assert "overflow" in found.lines[1]
    assert (row(found, "odd", "1.1")["now"], row(found, "odd", "1.1")["let_now"]) == ("error", False)


def test_undecided_names_what_was_not_asked_and_what_hangs_on_it(tmp_path: Path) -> None:
    record(tmp_path, write_bundle(tmp_path / "base", BASE))
    lake = open_lake(str(tmp_path / "lake"))
    found = under(lake, tmp_path, 1, STRICT)
    assert found.cand.verdict == "undecided"
    assert found.lines[1:] == (
        "Undecided: the record did not ask for `context.order`",
        "Whether `over` (p.cedar:3) applies hangs on `context has order` (context.order is not asked)",
    )
    told = row(found, "over", "1.1")
    assert (told["now"], told["let_now"], told["values"][0]["state"]) == ("unknown", None, "not asked")
    assert row(found, "huge", "1.1")["now"] == "false"


BUDGET = '[[budget]]\nname = "few"\nper = "session"\nmeasure = "calls"\nmax = {}\n'


def test_limits_say_which_budget_and_how_far_it_was_spent(lake: Lake, root: Path) -> None:
    bundle = write_bundle(root / "limited", BASE, context=FACTS, limits="version = 1\n" + BUDGET.format(2))
    found = why_of(lake, ids(lake)[3], limits=load_bundle(bundle))
    assert found.lines[1] == (
        "Blocked by the stage `limits`, before policies: budget 'few' allows 2 calls per session, 3 ran"
    )
    assert found.changes == (
        "the stage `limits` must let it pass: budget 'few' allows 2 calls per session, 3 ran",
    )
    (table,) = [
        part for part in found.page().parts if getattr(part, "title", "") == "What the limits stage saw"
    ]
    assert ["calls", "3"] in [list(each) for each in table.rows]  # type: ignore[union-attr]  # a table
    assert found.frame.filter(pl.col("now").is_not_null()).collect().is_empty()  # policies were not asked now


def test_a_refused_request_says_which_argument(lake: Lake) -> None:
    found = why_of(lake, ids(lake)[6])
    assert found.lines[1].startswith("Blocked by the stage `request`, before policies: ")
    assert "amount_cents" in found.lines[1]
    assert "'shell'" in why_of(lake, ids(lake)[-1]).lines[1]


def test_a_stale_fact_says_which_and_how_old(tmp_path: Path) -> None:
    told = datetime.now(UTC) - timedelta(seconds=400)
    orders = CallableSource(
        lambda _: {"tenant": "acme", "refundable_cents": 100, "at": told.isoformat()}, "1"
    )
    spec = FACTS.replace('kind = "delta"\nuri = "../orders"', 'kind = "callable"')

    def aged(most: str) -> str:
        return spec.replace("fields =", f'age_column = "at"\nmax_age = "{most}"\nfields =')

    record(tmp_path, write_bundle(tmp_path / "base", BASE, context=aged("1h")), sources={"orders": orders})
    lake = open_lake(str(tmp_path / "lake"))
    strict = load_bundle(write_bundle(tmp_path / "strict", BASE, context=aged("5m")))
    found = why_of(lake, ids(lake)[0], context=strict, sources={"orders": orders})
    assert found.cand.verdict == "block"
    assert found.lines[1].startswith("Blocked by the stage `context`, before policies: fact `order` is 40")
    assert "`max_age` allows 300 s" in found.lines[1]
    (facts,) = [part for part in found.page().parts if getattr(part, "title", "") == "Facts"]
    assert facts.rows[0][0] == "order"  # type: ignore[union-attr]  # a table
    assert facts.rows[0][-1] is True  # type: ignore[union-attr]  # as above


def test_other_facts_flip_a_clause_whose_text_is_the_same(root: Path, tmp_path: Path) -> None:
    """Contexts compiled again at a later version of the source: the clause is the same, its values are not."""
    write_orders(tmp_path, 900)
    base = write_bundle(tmp_path / "base", STRICT, context=FACTS)
    record(tmp_path, base)
    write_orders(tmp_path, 100)
    lake = open_lake(str(tmp_path / "lake"))
    found = why_of(lake, ids(lake)[1], versions={"orders": 1})
    assert (found.base.verdict, found.cand.verdict) == ("allow", "block")
    assert found.lines[1] == (
        "Blocked now by `over` (p.cedar:3): `context.args.amount_cents > context.order.refundable_cents` (p.cedar:3) is "
        "true: context.args.amount_cents = 500, context.order.refundable_cents = 100; as recorded "
        "`context.args.amount_cents > context.order.refundable_cents` (p.cedar:3) was false: "
        "context.order.refundable_cents = 900"
    )


def test_quarantined_says_why(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "lake"
    shutil.copytree(root / "lake", copy)
    shutil.rmtree(copy / "contexts")
    lake = open_lake(str(copy))
    found = why_of(lake, ids(lake)[1])
    assert found.base.verdict == "quarantined"
    assert found.lines[1] == "It cannot be replayed: the lake does not hold the context the row refers to"
    assert found.frame.collect().is_empty()
    assert found.changes == ()


def test_what_people_granted_is_told(tmp_path: Path) -> None:
    story = Story(tmp_path)
    ident = story.ask(500)
    story.grant(ident)
    story.session().resume(ident)
    lake = story.told()
    resumed = lake.decisions.filter(kind="resumed").collect()["decision_id"][0]
    assert "`large` would ask for approval; it was granted" in why_of(lake, resumed).lines


def test_every_decision_says_what_the_replay_says(lake: Lake, root: Path) -> None:
    for policies in (CAPPED, NARROW):
        bundle = load_bundle(write_bundle(root / "each", policies, context=FACTS))
        diff = compare(lake.replay(recompile=False), lake.replay(bundle))
        for told in diff.frame.collect().to_dicts():
            found = why(diff, told["decision_id"])
            assert (found.base.verdict, found.cand.verdict) == (told["from"], told["to"])
            assert found.notes == ()
            assert len(found.lines) > 1
            assert (found.changes == ()) == (told["to"] in ("allow", "undecided", "quarantined"))
            if told["decided_by"] == "policy" and told["reason_code"] == "forbidden":
                lets = found.frame.filter(pl.col("policy").is_in(told["determining"])).collect()["let_now"]
                assert lets.drop_nulls().all()


def test_ids(lake: Lake) -> None:
    every = ids(lake)
    start = next(n for n in range(4, 37) if sum(each.startswith(every[0][:n]) for each in every) == 1)
    assert why_of(lake, every[0][:start]).decision_id == every[0]
    with pytest.raises(DecisionNotFound, match=r"9 decisions begin with .*; give more of the id"):
        why_of(lake, every[0][:4])
    with pytest.raises(DecisionNotFound, match="too short"):
        why_of(lake, every[0][:2])
    with pytest.raises(DecisionNotFound, match=f"no decision .* near it are {every[3]}"):
        why_of(lake, every[3][5:])
    with pytest.raises(DecisionNotFound, match=every[-1]):
        why_of(lake, every[-1] + "0")
    with pytest.raises(DecisionNotFound, match=re.escape(r"no decision '\x1b[2J'")):
        why_of(lake, "\x1b[2J")


def test_a_comparison_of_no_lake(lake: Lake, root: Path) -> None:
    replay = lake.replay(load_bundle(write_bundle(root / "x", STRICT, context=FACTS)))
    forgetful = compare(lake.replay(recompile=False), replay)
    object.__setattr__(replay, "asked", None)
    with pytest.raises(ReplayFailure, match=r"why_of\(lake, decision_id, policy="):
        why(forgetful, ids(lake)[0])


HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e`"


def test_hostile_values_stay_text_on_every_face(tmp_path: Path) -> None:
    calls = [("refund", {"order_id": HOSTILE, "amount_cents": 500, "note": HOSTILE})]
    record(tmp_path, write_bundle(tmp_path / "base", BASE), calls)
    lake = open_lake(str(tmp_path / "lake"))
    asks = (
        BASE + f'@id("note") {REFUND} when {{ context.args has note && context.args.note like "*alert*" }};\n'
    )
    found = under(lake, tmp_path, 0, asks)
    page = found.to_html(tmp_path / "why.html").read_text()
    for face in (repr(found), found.markdown(), page, found._repr_html_()):
        assert "\x1b" not in face
        assert "\u202e" not in face
        assert "alert" in face
    for face in (page, found._repr_html_()):
        assert "<script>alert" not in face
    assert "context.args.note" in page


def run(*args: str) -> Any:
    app = typer.Typer()
    app.command()(why_command)
    return CliRunner().invoke(app, [*args])


def test_the_command(lake: Lake, root: Path, tmp_path: Path) -> None:
    ident = ids(lake)[1]
    candidate = write_bundle(root / "strict", STRICT, context=FACTS)
    shown = run(lake.uri, ident, "--policy", str(candidate), "--html", str(tmp_path / "why.html"))
    assert shown.exit_code == 0, shown.output
    assert "Blocked now by `over` (p.cedar:3)" in shown.output
    assert "is true" in (tmp_path / "why.html").read_text()
    told = json.loads(run(lake.uri, ident, "--policy", str(candidate), "--json").output)
    assert told["decision_id"] == ident
    assert (told["base"]["verdict"], told["candidate"]["verdict"]) == ("allow", "block")
    assert told["candidate"]["determining"] == ["over"]
    assert told["args"] == {"amount_cents": 500, "order_id": "o-1", "note": None}
    (flipped,) = [each for each in told["clauses"] if each["policy"] == "over" and each["key"] == "1.2"]
    assert flipped["now"] == "true"
    assert run(lake.uri, ident, "--markdown").output.startswith(f"## Decision {ident}")
    assert isinstance(run(lake.uri, "nothing-like-it").exception, DecisionNotFound)
