"""One decision in full, over real lakes that the runtime wrote: every section, every check, and what attackers try."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import Blocked
from runtime.bundle import load_bundle
from tests.workbench.test_replay import BASE, CAPPED, FACTS, record, write_bundle, write_orders
from tests.workbench.test_replay_resumed import Story
from workbench.compare import compare
from workbench.errors import DecisionNotFound
from workbench.lake import Lake, open_lake
from workbench.viewing.decision import Decision, decision, decision_html, styles
from workbench.viewing.decision_versions import versions_html
from workbench.viewing.decision_view import MAX_DOCUMENT

HOSTILE = '"><script>window.__pwned=1</script><img src=x onerror=alert(1)>\u202e'
BLOB = "x" * 2_000_000


class Html(HTMLParser):
    """The elements and the text of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.marked: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag not in ("span", "mark", "code", "b"):
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if "mark" in self.open:
            self.marked[-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of calls whose orders' facts are asked for, one with hostile arguments, one of two megabytes."""
    root = tmp_path_factory.mktemp("decision")
    write_orders(root, 100)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("refund", {"order_id": "o-1", "amount_cents": 50}),
        ("refund", {"order_id": "o-1", "amount_cents": 500}),
        ("refund", {"order_id": "o-1", "amount_cents": 9500}),
        ("refund", {"order_id": HOSTILE, "amount_cents": 9500, "note": HOSTILE}),
        ("refund", {"order_id": "o-1", "amount_cents": 9500, "note": BLOB}),
        ("refund", {"order_id": "o-1", "amount_cents": "x"}),
    ]
    record(root, write_bundle(root / "base", CAPPED, context=FACTS), calls)
    return root


@pytest.fixture(scope="module")
def lake(root: Path) -> Lake:
    return open_lake(str(root / "lake"))


def ident(lake: Lake, call: int) -> str:
    return str(lake.decisions.collect()["decision_id"][call])


def of(lake: Lake, call: int) -> Decision:
    return decision(lake, ident(lake, call))


def shown(html: str) -> Html:
    return Html(html)


def results(found: Decision) -> dict[str, str]:
    return {check.what: check.result for check in found.evidence}


def test_an_allowed_call_in_full(lake: Lake) -> None:
    found = of(lake, 0)
    text = shown(found._repr_html_()).text
    for said in (
        'refund on Order::"o-1"', "allow", 'Agent::"bot"', "nobody", "acme", "s, step 0", '"amount_cents": 50',
        "permit (permit) applies", "{refundable_cents: 100}", 'order_id = "o-1"', "succeeded", "hash of the row",
    ):  # fmt: skip
        assert said in text, said
    assert re.search(r"orders\s+0\b", text), "the fact's source and version"
    assert {check.what: check.result for check in found.evidence} == {
        "hash of the row": "holds", "row before": "holds", "row after": "holds", "arguments and context": "holds",
        "entities": "holds", "policies": "holds", "decided again": "holds", "signed checkpoint": "not checked",
    }  # fmt: skip


def test_the_deciding_clause_is_marked_in_the_text(lake: Lake) -> None:
    html = of(lake, 2)._repr_html_()
    assert "context.args.amount_cents > 9000" in shown(html).marked
    deciding = re.findall(r'<mark class="rd-m-true rd-decides" title="([^"]*)"', html)
    assert "true: context.args.amount_cents = 9,500" in deciding
    assert "Blocked by huge" in shown(html).text


def test_what_would_run_beside_what_was_given(lake: Lake) -> None:
    found = of(lake, 1)
    assert found.verdict == "modify"
    text = shown(found._repr_html_()).text
    assert "What would run 1 difference as given as changed amount_cents 500 100" in text
    assert "the same" in text


def test_a_refusal_before_policies(lake: Lake) -> None:
    text = shown(of(lake, 5)._repr_html_()).text
    assert "Blocked by the stage request" in text
    assert "none: it did not run" in text


def test_every_face_says_the_same(lake: Lake) -> None:
    found = of(lake, 2)
    faces = {"repr": repr(found), "markdown": found.markdown(), "cell": shown(found._repr_html_()).text}
    for name, face in faces.items():
        for said in ("huge", "9,500", "forbid", "hash of the row", "acme"):
            assert said in face, (name, said)
    assert "context.args.amount_cents > 9000" in faces["repr"]


def test_as_dict_is_json_and_whole(lake: Lake) -> None:
    told: Any = json.loads(json.dumps(of(lake, 2).as_dict()))
    assert told["decision"]["verdict"] == "block"
    assert told["why"]["base"]["determining"] == ["huge"]
    assert {each["what"] for each in told["evidence"]} >= {"hash of the row", "signed checkpoint"}


def test_beside_a_replay(lake: Lake, root: Path) -> None:
    bundle = write_bundle(root / "loose", BASE.replace("9000", "9900"), context=FACTS)
    replay = lake.replay(load_bundle(bundle), engine="rows")
    found = decision(lake, ident(lake, 2), replay=replay)
    text = shown(found._repr_html_()).text
    assert "block now allow" in text
    assert "`huge`" not in text
    assert found.replayed
    assert not of(lake, 2).replayed


def test_the_start_of_an_id_is_enough_and_a_wrong_one_is_said(lake: Lake) -> None:
    whole = ident(lake, 0)
    assert decision(lake, f" {whole} ").id == whole
    with pytest.raises(DecisionNotFound, match=r"begin with|too short"):
        decision(lake, whole[:4])
    with pytest.raises(DecisionNotFound, match="no decision"):
        decision(lake, "ffff" + whole)


def test_a_narrowed_lake_still_shows_any_decision(lake: Lake) -> None:
    narrowed = lake.where(pl.col("verdict") == "block")
    assert decision(narrowed, ident(lake, 0)).verdict == "allow"


def test_sizes_are_bounded_and_what_is_cut_is_said(lake: Lake) -> None:
    found = of(lake, 4)
    html = found._repr_html_()
    assert len(html) < 8 * MAX_DOCUMENT
    assert "more characters are not shown" in html
    assert len(repr(found)) < 3 * MAX_DOCUMENT
    assert BLOB[:100_000] not in html


def test_hundreds_of_policies_that_decide_are_counted(tmp_path: Path) -> None:
    forbid = '@id("p{n}") forbid(principal, action == Action::"refund", resource) when {{ context.args.amount_cents > {n} }};\n'
    write_orders(tmp_path, 100)
    bundle = write_bundle(
        tmp_path / "many", BASE + "".join(forbid.format(n=n) for n in range(300)), context=FACTS
    )
    record(tmp_path, bundle, [("refund", {"order_id": "o-1", "amount_cents": 9500})])
    lake = open_lake(str(tmp_path / "lake"))
    html = of(lake, 0)._repr_html_()
    assert len(html) < 2 * MAX_DOCUMENT
    assert "And 297 more things would have to be otherwise." in html
    assert "293 more matter" in html


def test_hostile_arguments_stay_text(lake: Lake) -> None:
    html = of(lake, 3)._repr_html_()
    assert not shown(html).tags & {"script", "img", "iframe"}
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html


def test_styles_are_one_element_of_ours() -> None:
    assert styles().strip().startswith("<style>")
    assert styles().count("<style>") == 1
    assert "url(" not in styles()


# -- evidence --------------------------------------------------------------------------------------------------


def altered(lake: Lake, tmp_path: Path, call: int, **columns: Any) -> Decision:
    """The decision in a copy of the lake in which somebody changed its row."""
    copy = tmp_path / "lake"
    shutil.copytree(lake.uri, copy)
    table = DeltaTable(str(copy / "decisions"))
    rows = pa.table(table.to_pyarrow_table())
    place = rows["decision_id"].to_pylist().index(ident(lake, call))
    for name, value in columns.items():
        at, values = rows.schema.get_field_index(name), rows[name].to_pylist()
        values[place] = value
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    write_deltalake(table, rows, mode="overwrite", partition_by=["tenant"])
    return decision(open_lake(str(copy)), ident(lake, call))


@pytest.mark.parametrize(
    ("columns", "broken"),
    [
        ({"latency_us": 1}, {"hash of the row"}),
        ({"reason": "because"}, {"hash of the row"}),
        ({"args": '{"amount_cents":1,"order_id":"o-1"}'}, {"hash of the row", "arguments and context"}),
        ({"context_hash": "0" * 64}, {"hash of the row", "arguments and context"}),
        ({"bundle_version": "0" * 64}, {"hash of the row", "policies"}),
        ({"verdict": "allow"}, {"hash of the row", "decided again"}),
        ({"prev_hash": "0" * 64}, {"hash of the row", "row before"}),
        ({"hash": "0" * 64}, {"hash of the row", "row after"}),
    ],
)
def test_a_changed_row_is_found(
    lake: Lake, tmp_path: Path, columns: dict[str, Any], broken: set[str]
) -> None:
    found = altered(lake, tmp_path, 2, **columns)
    seen = {what for what, result in results(found).items() if result == "broken"}
    assert broken <= seen, results(found)
    assert "evidence broken" in shown(found._repr_html_()).text
    if columns.keys() & {"latency_us", "reason"}:
        assert seen == broken


def test_what_was_taken_out_on_purpose_is_not_called_broken(lake: Lake, tmp_path: Path) -> None:
    found = altered(lake, tmp_path, 2, args='{"amount_cents":{"__redecide":"erased"},"order_id":"o-1"}')
    assert results(found)["hash of the row"] == "not checked"
    assert results(found)["arguments and context"] == "not checked"
    assert "erased: context.args.amount_cents" in shown(found._repr_html_()).text


def test_the_last_row_of_a_chain_is_not_fixed_by_a_later_one(lake: Lake) -> None:
    last = lake.decisions.collect()["decision_id"][-1]
    assert results(decision(lake, last))["row after"] == "not checked"


# -- people ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Calls that waited: granted, denied, and left waiting."""
    story = Story(tmp_path_factory.mktemp("waited"))
    granted = story.ask(500)
    story.grant(granted)
    story.session().resume(granted)
    denied = story.ask(520)
    story.runtime.approvals.deny(denied, story.says(denied, decision="denied"))
    story.now += timedelta(seconds=1)
    with pytest.raises(Blocked):
        story.session().resume(denied)
    story.ask(550)
    return story.told()


def by(lake: Lake, cents: int, kind: str) -> str:
    rows = lake.decisions.filter(
        pl.col("kind") == kind, pl.col("args").str.contains(f'"cents":{cents}')
    ).collect()
    return str(rows["decision_id"][0])


def test_who_granted_what_when(waited: Lake) -> None:
    asked, resumed = by(waited, 500, "call"), by(waited, 500, "resumed")
    for ident_ in (asked, resumed):
        text = shown(decision_html(waited, ident_)).text
        assert 'approval granted User::"fin"' in text
        assert "for large, known by" in text
        assert re.search(r"2026-11-23 00:00:0\d\.\d{3} UTC", text)
    assert f"resumed decision {resumed}" in shown(decision_html(waited, asked)).text
    assert f"resumed after approval of {asked}" in shown(decision_html(waited, resumed)).text
    assert "grants used" in shown(decision_html(waited, resumed)).text


def test_how_a_call_that_waited_ended_is_what_a_replay_says(waited: Lake) -> None:
    frame = waited.replay(engine="rows").frame.select("decision_id", "then", "effect").collect()
    for ident_, then, effect in frame.iter_rows():
        row = decision(waited, ident_).base.row
        assert (row["then"], row["effect"]) == (then, effect), ident_


def test_a_denied_call_says_who(waited: Lake) -> None:
    assert "approval denied" in shown(decision_html(waited, by(waited, 520, "call"))).text


# -- two versions ----------------------------------------------------------------------------------------------


def test_both_versions_clauses_and_contexts(lake: Lake, root: Path) -> None:
    bundle = write_bundle(root / "tight", CAPPED.replace("9000", "400"), context=FACTS)
    diff = compare(lake.replay(engine="rows"), lake.replay(load_bundle(bundle), engine="rows"))
    html = versions_html(diff, ident(lake, 1))
    page = shown(html)
    assert "context.args.amount_cents > 9000" in page.marked
    assert "context.args.amount_cents > 400" in page.marked
    assert page.text.count("huge (forbid) ") == 2
    assert "as recorded" in page.text
    assert "What policies saw The same on both sides." in page.text
    assert re.search(r"<b>−</b> \d+<.*<b>\+</b> \d+<", html, re.DOTALL), "edited lines are signed"


def test_versions_of_hostile_and_huge_arguments(lake: Lake, root: Path) -> None:
    bundle = write_bundle(root / "tighter", CAPPED.replace("9000", "300"), context=FACTS)
    diff = compare(lake.replay(engine="rows"), lake.replay(load_bundle(bundle), engine="rows"))
    for call in (3, 4):
        html = versions_html(diff, ident(lake, call))
        assert not shown(html).tags & {"script", "img"}
        assert len(html) < 8 * MAX_DOCUMENT
