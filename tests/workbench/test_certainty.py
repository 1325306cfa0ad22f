"""A comparison says what it is worth, how sure that is and whether to ship, and every face says the same."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import workbench as wb
from runtime import Runtime
from workbench import certainty
from workbench.cli import app
from workbench.cli_replay import COULD_NOT_RUN, moment_of, versions_of
from workbench.closed_loop import simulate
from workbench.errors import (
    AxisInvalid,
    ColumnUnknown,
    GatesInvalid,
    NotEstimable,
    NotSavable,
    WorkbenchError,
)
from workbench.faces import markdown
from workbench.pages import diff_page, replay_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.compare import Diff
    from workbench.lake import Lake

SCHEMA = """
entity Agent;
entity Order;
action "refund" appliesTo { principal: [Agent], resource: [Order], context: { args: { cents: Long } } };
"""
OPEN = '@id("may") permit (principal, action, resource);\n'
CAP = '@id("cap") forbid (principal, action, resource) when { context.args.cents > 500 };\n'
ASK = (
    '@id("ask") @verdict("approve") forbid (principal, action, resource) when { context.args.cents > 100 };\n'
)


def bundle(folder: Path, name: str, policies: str) -> Path:
    made = folder / name
    made.mkdir()
    for file, text in (("p.cedar", policies), ("schema.cedarschema", SCHEMA)):
        (made / file).write_text(text)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certainty")


@pytest.fixture(scope="module")
def lake(folder: Path) -> Lake:
    """30 sessions of two refunds: every fifth pays 900 to a thief, the others 50; five desks."""
    with Runtime.open(bundle(folder, "open", OPEN), lake=folder / "lake") as runtime:
        runtime.tool(lambda cents: cents, name="refund", resource="Order::o")
        for number in range(30):
            with runtime.session(principal="Agent::bot", tenant="acme") as session:
                for cents, origin in (
                    (50, "user"),
                    (900 if number % 5 == 0 else 50, "user" if number % 5 else "attack"),
                ):
                    session.call("refund", cents=cents)
                    assert session.last_decision is not None
                    ident = str(session.last_decision["decision_id"])
                    runtime.label("origin", origin, session=session, decision_id=ident, source="test")
                runtime.label("desk", str(number % 6), session=session, source="test")
    return wb.open(folder / "lake")


@pytest.fixture(scope="module")
def cap(folder: Path) -> Path:
    return bundle(folder, "cap", OPEN + CAP)


@pytest.fixture(scope="module")
def ask(folder: Path) -> Path:
    return bundle(folder, "ask", OPEN + ASK)


GATES: list[dict[str, Any]] = [
    {"quantity": "harm_through_share", "at_most": 0.5},
    {"quantity": "good_lost_share", "at_most": 0.2},
]


def diff_of(lake: Lake, policy: Path, **options: Any) -> Diff:
    return wb.compare(lake.replay(), lake.replay(policy), **options)


def test_worth_estimates_divergence_and_outcome_by_hand(lake: Lake, cap: Path) -> None:
    diff = diff_of(lake, cap, gates=GATES)
    assert (diff.worth["harm_avoided"].low, diff.worth["harm_avoided"].high) == (6, 6)
    assert diff.worth["good_lost"].high == 0
    assert diff.estimates["harm_avoided_share"].low.clusters.count == 6
    lower, upper = diff.estimates["good_lost_share"].interval(0.95)
    assert lower == 0
    assert 0 < upper < 0.2
    assert diff.divergence.counts()["decisions"] == 60
    assert diff.verdict in ("ship", "inconclusive")
    assert diff.outcome is diff.outcome
    assert diff_of(lake, cap).outcome is None
    assert diff_of(lake, cap).verdict is None


def test_a_wider_cluster_says_less(lake: Lake, cap: Path) -> None:
    narrow, wide = diff_of(lake, cap), diff_of(lake, cap, cluster=("desk",))
    assert wide.estimates["good_lost_share"].low.clusters.count == 6
    narrow_upper, wide_upper = (each.estimates["good_lost_share"].upper(0.05) for each in (narrow, wide))
    assert wide_upper > narrow_upper
    assert "the unit is the desk" in repr(wide)
    assert wide.estimates.cluster == "by desk"
    assert diff_of(lake, cap, cluster="desk").cluster == ("desk",)
    with pytest.raises(ColumnUnknown, match="no column `dsk`; did you mean `desk`"):
        _ = diff_of(lake, cap, cluster=("dsk",)).estimates


@pytest.mark.parametrize(
    "cluster", [("decision_id",), ("decision_id", "desk")], ids=["column", "with a label"]
)
def test_a_cluster_is_a_session_or_wider(lake: Lake, cap: Path, cluster: tuple[str, ...]) -> None:
    """Decisions of one session counted as independent would make every interval too narrow."""
    with pytest.raises(NotEstimable, match="sessions are in several clusters"):
        _ = diff_of(lake, cap, cluster=cluster).estimates


def test_every_face_has_the_same_numbers(lake: Lake, ask: Path) -> None:
    diff = diff_of(lake, ask, gates=GATES)
    metrics = certainty.metrics(diff)
    assert (metrics["worth.harm_avoided.low"], metrics["worth.harm_avoided.high"]) == (0, 6)
    assert metrics["outcome"] == {"ship": 1, "inconclusive": 0}.get(str(diff.verdict), -1)
    assert (
        0 <= metrics["estimate.harm_avoided_share.lower"] <= metrics["estimate.harm_avoided_share.upper"] <= 1
    )
    assert metrics["divergence.exact"] == diff.divergence.counts()["exact"]
    said = "0 to 6 would not come about (0 % to 100 %)"
    faces = [
        repr(diff),
        diff._repr_html_(),
        markdown(diff_page(diff)),
        diff.to_html(Path(lake.uri).parent / "r.html").read_text(),
    ]
    for face in faces:
        assert said in face
        assert str(diff.verdict).split(" ")[-1] in face.lower()
    json.dumps(certainty.as_dict(diff), allow_nan=False)


def test_a_replay_as_a_page(lake: Lake, cap: Path) -> None:
    page = replay_page(lake.replay(cap))
    assert page.lines[0].startswith("100 % of 60 decisions replayable under cap")
    assert any(row[0] == "decisions" and row[1] == 60 for row in page.parts[1].rows)  # type: ignore[union-attr]


def test_gates_that_cannot_be_read(lake: Lake, cap: Path) -> None:
    unreadable: list[Any] = [[], [{"quantity": "harm_through_share"}], {"gate": []}]
    for wrong in unreadable:
        with pytest.raises(GatesInvalid):
            diff_of(lake, cap, gates=wrong)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def toml(folder: Path, gates: Sequence[dict[str, Any]]) -> str:
    path = folder / "gates.toml"
    path.write_text(
        "".join(f'[[gates]]\nquantity = "{g["quantity"]}"\nat_most = {g["at_most"]}\n' for g in gates)
    )
    return str(path)


@pytest.mark.parametrize(("at_most", "code"), [(0.99, 0), (0.3, 2), (None, 1)])
def test_the_exit_code_is_the_verdict(
    lake: Lake, cap: Path, ask: Path, tmp_path: Path, at_most: float | None, code: int
) -> None:
    """Ship, inconclusive (0 of n is not 0), and a candidate that lets all harm through."""
    policy, gate = (cap, at_most) if at_most is not None else (Path(lake.uri).parent / "open", 0.1)
    gates = toml(tmp_path, [{"quantity": "harm_through_share", "at_most": gate}])
    told = run("compare", lake.uri, "--policy", str(policy), "--gates", gates, "--json")
    assert told.exit_code == code, told.output
    found = json.loads(told.stdout)
    assert found["outcome"]["exit_code"] == code
    assert found["decisions"] == 60


def test_what_could_not_be_judged_has_a_code_of_its_own(lake: Lake, cap: Path, tmp_path: Path) -> None:
    gates = toml(tmp_path, [{"quantity": "harm_throug_share", "at_most": 0.1}])
    told = run("compare", lake.uri, "--policy", str(cap), "--gates", gates)
    assert told.exit_code == COULD_NOT_RUN
    assert "harm_through_share" in told.stderr


def test_commands_print_markdown_and_pages(lake: Lake, cap: Path, tmp_path: Path) -> None:
    page = tmp_path / "replay.html"
    told = run(
        "replay", lake.uri, "--policy", str(cap), "--markdown", "--html", str(page), "--save", "capped"
    )
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("## Replay under cap")
    assert "60" in page.read_text()
    assert wb.open(lake.uri).reopen("capped").counts()["decisions"] == 60
    told = run("compare", lake.uri, "--policy", str(cap), "--markdown", "--stakes", str(_stakes(tmp_path)))
    assert told.exit_code == 0, told.output
    assert "| allow |" in told.stdout
    told = run(
        "replay", lake.uri, "--policy", str(cap), "--state", "simulated", "--approvals", "granted", "--json"
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["decisions"] == 60


def _stakes(folder: Path) -> Path:
    path = folder / "stakes.toml"
    path.write_text('money = { refund = "cents" }\n')
    return path


def test_options_that_cannot_be_read() -> None:
    assert moment_of("2026-11-01").isoformat() == "2026-11-01T00:00:00+00:00"
    for wrong in (
        lambda: moment_of("yesterday"),
        lambda: versions_of(["orders"]),
        lambda: versions_of(["=1"]),
    ):
        with pytest.raises(WorkbenchError):
            wrong()


def test_simulated_state_needs_what_it_says(lake: Lake, cap: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"state": "closed"}, {"approvals": "granted"}, {"state": "simulated", "executor": "ray"},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(AxisInvalid, match="state"):
            lake.replay(cap, **options)


@pytest.mark.parametrize("at", [datetime(2026, 11, 1), "2026-11-01"], ids=["no zone", "a text"])  # noqa: DTZ001
def test_a_time_names_its_zone(lake: Lake, cap: Path, at: object) -> None:
    with pytest.raises(AxisInvalid, match="`at` is a time with its zone"):
        lake.replay(cap, at=at)  # type: ignore[arg-type]


def test_gates_that_could_not_be_judged_are_no_verdict(lake: Lake, cap: Path, tmp_path: Path) -> None:
    """Exit codes 0 to 2 are verdicts."""
    gates = tmp_path / "gates.toml"
    gates.write_text('[[gates]]\nquantity = "harm_through_share"\nat_most = 0.5\n')
    wrong: tuple[list[str], ...] = (
        [],
        ["--policy", str(cap), "--approvals", "granted"],
        ["--policy", str(cap), "--at", "yesterday"],
    )
    for options in wrong:
        told = CliRunner().invoke(app, ["compare", lake.uri, "--gates", str(gates), *options])
        assert told.exit_code == COULD_NOT_RUN, told.output


def test_a_replay_over_simulated_state_is_saved_and_opened_again(lake: Lake, cap: Path) -> None:
    replay = lake.replay(cap, state="simulated", approvals="denied")
    kept = wb.save(replay)
    again = wb.open(lake.uri).reopen(kept.replay_id)
    assert again.digest() == replay.digest()
    assert again.pins["approvals"] == "denied"


def test_what_cannot_be_opened_again_is_not_saved(lake: Lake, cap: Path) -> None:
    with pytest.raises(NotSavable, match="took counters"):
        wb.save(simulate(lake, cap, others="recorded"))
