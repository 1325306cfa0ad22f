"""Everything shows itself: every result over a hostile lake as a cell and in a terminal; nothing is markup or a dump."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench as wb
from runtime import Blocked, Runtime
from runtime.bundle import load_bundle
from tests.workbench.conftest import SCHEMA as FRAME
from tests.workbench.conftest import FrameLake, FrameReplay
from tests.workbench.test_replay import FACTS, SCHEMA, write_bundle, write_orders
from workbench.faces import (
    Bar,
    Bars,
    Cedar,
    Code,
    Compared,
    Document,
    Faces,
    Item,
    Listing,
    Page,
    Table,
    cell,
    text,
)
from workbench.lake import Lake, open_lake
from workbench.overview import MOST, Overview, overview
from workbench.viewing.cedar_html import Mark
from workbench.viewing.decision import decision

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = '"><script>window.__pwned=1</script><img src=x onerror=alert(1)>\u202e\x1b[2J'
IN_CEDAR = json.dumps(HOSTILE.replace("\x1b", "").replace("\u202e", ""))
POLICIES = (
    f"@id({IN_CEDAR}) @doc({IN_CEDAR}) permit(principal is Agent, action, resource);\n"
    f'@id("huge {IN_CEDAR[1:]}) @tune("{{\\"limit\\": {{\\"value\\": 9000, \\"min\\": 0, \\"max\\": 50000}}}}") '
    'forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > 9000 };\n'
)
MAX_CELL_CHARS = 120_000
MAX_TEXT_CHARS = 40_000


class Tags(HTMLParser):
    """What a browser would make of a fragment: no scripts, no handlers, every element closed."""

    void = frozenset({"br", "img", "source"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "link", "base", "form")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "srcset"):
                assert (value or "").startswith("data:image/svg+xml;base64,")
            if name == "href":
                assert (value or "").startswith(("http://", "https://"))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)


def check(html: str) -> str:
    """The text of a cell that is safe and no dump."""
    found = " ".join(" ".join(Tags(html).texts).split())
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert len(html) < MAX_CELL_CHARS
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose tenant, session, principal, arguments, policies and labels try to be markup."""
    root = tmp_path_factory.mktemp("reprs")
    write_orders(root, 100)
    bundle = write_bundle(root / "base", POLICIES, context=FACTS, schema=SCHEMA)
    with Runtime.open(bundle, lake=root / "lake") as runtime:
        runtime.tool(
            lambda order_id, amount_cents, note=None: {"said": note},
            name="refund",
            resource="Order::{order_id}",
        )
        with runtime.session(
            principal=f"Agent::{json.dumps(HOSTILE)}", tenant=HOSTILE[:20], session_id=HOSTILE
        ) as session:
            for n, cents in enumerate((50, 500, 9_500, 700)):
                try:
                    session.call("refund", order_id=HOSTILE, amount_cents=cents, note=f"{HOSTILE} {n}")
                except Blocked:
                    continue
    write_bundle(root / "next", POLICIES.replace("9000", "400"), context=FACTS, schema=SCHEMA)
    return root


@pytest.fixture(scope="module")
def results(hostile: Path) -> dict[str, Any]:
    """What the workbench returns, by name."""
    lake = open_lake(str(hostile / "lake"))
    bundle = load_bundle(hostile / "next")
    base, cand = lake.replay(), lake.replay(bundle)
    diff = wb.compare(base, cand, gates={"gates": [{"quantity": "calls_prevented_share", "at_most": 0.9}]})
    flip = diff.changed.collect()["decision_id"][0]
    coverage = wb.coverage(lake, bundle)
    return {
        "lake": lake, "history": lake.where(pl.col("tool") == "refund"), "replay": cand, "self-replay": base,
        "diff": diff, "sweep": lake.sweep(bundle, over={"limit": [400, 600, 9000]}), "coverage": coverage,
        "gap": coverage.against(wb.coverage(lake.where(pl.col("verdict") == "block"), bundle)),
        "decision": decision(lake, flip), "decision of a replay": decision(lake, flip, replay=cand),
        "why": diff.why(flip), "worth": diff.worth, "estimates": diff.estimates, "divergence": diff.divergence,
        "outcome": diff.outcome, "grid": wb.grid(lake, bundle, limits=bundle),
    }  # fmt: skip


NAMES = (
    "lake", "history", "replay", "self-replay", "diff", "sweep", "coverage", "gap", "decision", "decision of a replay",
    "why", "worth", "estimates", "divergence", "outcome", "grid",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_safe_and_no_dump(results: dict[str, Any], name: str) -> None:
    said = check(results[name]._repr_html_())
    assert len(said) > 60, "it says something"


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_shows_no_more_than_a_few_screens(results: dict[str, Any], name: str) -> None:
    said = repr(results[name])
    assert len(said) < MAX_TEXT_CHARS
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "<" + "object" not in said
    assert " at 0x" not in said


def test_both_themes_are_in_every_cell(results: dict[str, Any]) -> None:
    for name in NAMES:
        html = results[name]._repr_html_()
        assert 'body[data-jp-theme-light="false"] .redecide' in html, name
        assert 'body[data-jp-theme-light="true"] .redecide' in html, name


def test_a_narrowed_lake_says_what_it_is_narrowed_to(results: dict[str, Any]) -> None:
    said = check(results["history"]._repr_html_())
    assert "lake, narrowed" in said
    assert 'col("tool")' in said
    assert "narrowed to decisions where" in repr(results["history"])


def test_a_replay_shows_what_was_recorded_beside_what_it_says(results: dict[str, Any]) -> None:
    said = check(results["replay"]._repr_html_())
    assert "as recorded allow 3 75.0 % block 1 25.0 %" in said
    assert "under next allow 1 25.0 % block 3 75.0 %" in said
    assert results["replay"].transitions.rows() == [
        ("allow", "allow", 1),
        ("allow", "block", 2),
        ("block", "block", 1),
    ]
    assert "Replay as recorded" in check(results["self-replay"]._repr_html_())


def test_a_sweep_shows_every_version(results: dict[str, Any]) -> None:
    said = check(results["sweep"]._repr_html_())
    assert "version 0 400 allow 1 25.0 % block 3 75.0 %" in said
    assert "version 2 9000 allow 3 75.0 % block 1 25.0 %" in said


# -- sizes -----------------------------------------------------------------------------------------------------

MANY = 10_000


def test_a_lake_of_thousands_of_bundles_labels_and_ledgers(hostile: Path) -> None:
    lake = open_lake(str(hostile / "lake"))
    names = [f"{HOSTILE} {n}" for n in range(MANY)]
    found = overview(lake)._replace(
        bundles=[{"name": name, "version": f"{n:064x}", "decisions": 1} for n, name in enumerate(names)],
        labels=dict.fromkeys(names, 1), endings=dict.fromkeys(names, 1), verdicts=dict.fromkeys(names, 1), tenants=MANY,
    )  # fmt: skip
    assert isinstance(found, Overview)
    crowded = _with(lake, found, {f"ledger-{n:05}": n for n in range(MANY)})
    said = check(crowded._repr_html_())
    for what in ("bundles", "labels", "pins"):
        assert f"{MANY - MOST:,} more in lake.{what}" in said
    assert len(repr(crowded)) < MAX_TEXT_CHARS
    assert f"and {MANY - MOST:,} more" in repr(crowded)


def _with(lake: Lake, found: Overview, ledgers: dict[str, int]) -> Lake:
    """The lake as if that were in it: what is shown of it is what is looked at here, not how it is counted."""
    crowded = Lake(lake.uri, type(lake.pins)(ledgers), lake.store)
    crowded.__dict__["overview"] = found
    return crowded


def test_a_comparison_of_thousands_of_tenants_and_policies() -> None:
    row = dict.fromkeys(FRAME) | {
        "session_id": "s", "step": 0, "principal": 'Agent::"a"', "args": "{}", "kind": "call", "status": "decided",
        "recorded_verdict": "allow", "then": "ran", "decided_by": "policy", "reason_code": "forbidden",
        "effect": "prevented", "verdict": "block", "verdict_changed": True, "missing": [], "errors": [],
    }  # fmt: skip
    many = [
        row | {"decision_id": f"d{n:06}", "tenant": f"{HOSTILE} {n}", "tool": f"t{n}", "determining": [f"p{n} {HOSTILE}"]}
        for n in range(MANY)
    ]  # fmt: skip
    base = [
        each | {"verdict": "allow", "effect": "same", "verdict_changed": False, "determining": []}
        for each in many
    ]
    labels = pl.LazyFrame(
        schema=dict.fromkeys(("tenant", "session_id", "decision_id", "label", "value"), pl.String)
    )
    sides = [FrameReplay(pl.LazyFrame(rows, schema=FRAME), FrameLake(labels)) for rows in (base, many)]
    diff = wb.compare(*sides)
    diff._repr_html_()
    began = time.process_time()
    said = check(diff._repr_html_())
    assert time.process_time() - began < 2, "it was computed; to show it again costs nothing"
    assert "smaller tenants" in said
    assert len(repr(diff)) < MAX_TEXT_CHARS


class Huge(Faces):
    """A result of every kind of part, each far too large."""

    def page(self) -> Page:
        rows = [(f"{HOSTILE} {n}", n, "x" * 1_000) for n in range(MANY)]
        wide = [[f"{n}" for n in range(MANY // 10)]]
        policy = f"@id({IN_CEDAR})\n" * MANY
        parts: list[Any] = [
            Table(title=HOSTILE, note=HOSTILE, heads=("a", "b", "c"), rows=rows, code=frozenset({2})),
            Table(title="wide", heads=wide[0], rows=wide),
            Code(title="code", text=f"{HOSTILE}\n" * MANY),
            Cedar(
                title="cedar",
                text=policy,
                marks=[Mark(start=0, end=9, truth="error", said=HOSTILE * 99, decides=True)],
            ),
            Document(title="json", text=json.dumps("x" * 30_000), left_out=5),
            Compared(
                title="compared",
                left={},
                right=dict.fromkeys(map(str, range(MANY))),
                names=(HOSTILE, HOSTILE),
            ),
            Listing(
                title="listing",
                items=[Item(HOSTILE, HOSTILE * 999, is_code=True), Item("b", HOSTILE, hue="bad")],
            ),
            Bars(title="bars", bars=[Bar(HOSTILE, [(HOSTILE, 3), ("allow", 1)])]),
        ]
        return Page(
            kind=HOSTILE, title=HOSTILE * 99, lines=[HOSTILE * 999, "of `odd` and `more", *map(str, range(MANY))], parts=parts * 9,
            badges=[(HOSTILE, "bad")],
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {}


def test_a_huge_page_is_cut_and_says_so() -> None:
    html = Huge()._repr_html_()
    Tags(html)
    assert len(html) < 2_000_000, "24 parts at their bounds"
    assert "more rows" in html
    assert "more parts" in html
    assert "And 9,986 more sentences." in html
    assert "\u202e" not in html
    said = repr(Huge())
    assert len(said) < 20 * MAX_TEXT_CHARS
    assert "… 62 more parts: `markdown()` has all of it" in said
    assert "\x1b" not in said


def test_what_stands_between_backticks_is_code_and_still_escaped() -> None:
    page = Page(kind="k", title="t", lines=["clause `a < b` of <b>", "an odd ` stays"], parts=[])
    html = cell(page)
    assert "clause <code>a &lt; b</code> of &lt;b&gt;" in html
    assert "an odd ` stays" in html
    assert "clause `a < b` of <b>" in text(page)
