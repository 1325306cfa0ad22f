"""How coverage shows itself: listing, page, JSON, LCOV, and the command."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from workbench.cli_coverage import coverage as command
from workbench.covering import Coverage, coverage
from workbench.covering.lines import listing
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.lake import Lake

HOSTILE = "<script>alert(1)</script>"
STATES = {  # line: state, from the counts by hand in `test_counting`
    2: "both", 5: "both", 6: "both", 9: "both", 11: "both", 12: "both", 14: "both", 17: "never",
}  # fmt: skip


@pytest.fixture(scope="module")
def found(lake: Lake) -> Coverage:
    return coverage(lake)


def test_lines_have_the_state_of_their_least_clause(found: Coverage, tested: Lake) -> None:
    (file,) = found.files
    assert {line.number: line.state for line in file.lines if line.state} == STATES
    (file,) = coverage(tested).files
    states = {line.number: line.state for line in file.lines if line.state}
    # Of three calls none was huge, all orders were known, the note said ok.
    assert states == STATES | {5: "never", 6: "one", 9: "never", 11: "one", 14: "never"}
    assert file.missing == "never false 11, 14; never reached 14, 17; never true 6"


def test_listing(found: Coverage) -> None:
    lines = listing(found.files[0]).splitlines()
    assert lines[0].endswith('   1  @id("read")')
    assert lines[1].split()[:3] == ["9", "6", "2"]  # satisfied, decisive, line
    assert lines[5].split()[:3] == ["1", "7", "6"]  # true, false, line
    assert lines[16].startswith("!")


def test_text_and_markdown(found: Coverage) -> None:
    text = repr(found)
    assert "85.7 % of the 21 ways that 13 clauses can go were taken; of 4 policies 3 were satisfied" in text
    assert "Of 12 decisions: 9 decided by policies; 3 refused before policies were asked." in text
    assert "Never called: cancel." in text
    assert "```cedar" in found.markdown()


def test_json_has_it_all(found: Coverage) -> None:
    document = json.loads(json.dumps(found.as_dict()))
    assert (document["format"], document["version"]) == ("redecide-coverage", 1)
    assert document["decisions"]["total"] == sum(document["decisions"]["clauses"].values()) == 12
    assert document["totals"]["branches_hit"] == sum(file["branches_hit"] for file in document["files"]) == 18
    for clause in document["clauses"]:
        truths = ("true", "false", "error", "not_reached", "unknown")
        assert sum(clause[truth] for truth in truths) == clause["decisions"]
    assert [line["line"] for line in document["files"][0]["lines"]] == list(STATES)


class Trace:
    """A reader of LCOV tracefiles, after `man geninfo`; refuses what is not one."""

    TEXT = frozenset({"TN", "SF"})
    NUMBERS = frozenset({"FNF", "FNH", "BRF", "BRH", "LF", "LH"})

    def __init__(self, text: str) -> None:
        assert text.endswith("end_of_record\n")
        self.files = [
            self._file(part) for part in text.removesuffix("end_of_record\n").split("end_of_record\n")
        ]

    def _file(self, text: str) -> dict[str, Any]:
        found: dict[str, Any] = {"FN": {}, "FNDA": {}, "BRDA": [], "DA": {}}
        for line in text.splitlines():
            kind, _, rest = line.partition(":")
            if kind in self.TEXT:
                found[kind] = rest
            elif kind in self.NUMBERS:
                found[kind] = int(rest)
            elif kind == "FN":
                number, name = rest.split(",")
                found["FN"][name] = int(number)
            elif kind == "FNDA":
                number, name = rest.split(",")
                found["FNDA"][name] = int(number)
            elif kind == "BRDA":
                number, block, branch, taken = rest.split(",")
                found["BRDA"].append(
                    (int(number), int(block), int(branch), None if taken == "-" else int(taken))
                )
            elif kind == "DA":
                number, hits = rest.split(",")
                found["DA"][int(number)] = int(hits)
            else:
                raise AssertionError(line)
        return found


def test_lcov_is_a_tracefile(found: Coverage) -> None:
    (file,) = Trace(found.lcov(root="/repo/policies")).files
    assert file["SF"] == "/repo/policies/p.cedar"
    assert file["FN"] == {"read": 2, "huge": 5, "over": 9, "never": 17}
    assert file["FNDA"] == {"read": 9, "huge": 1, "over": 2, "never": 0}
    assert (file["FNF"], file["FNH"]) == (4, 3)
    assert file["DA"] == {2: 9, 5: 8, 6: 8, 9: 8, 11: 8, 12: 7, 14: 4, 17: 0}
    assert (file["LF"], file["LH"]) == (8, 7)
    taken = [n for *_, n in file["BRDA"]]
    assert (file["BRF"], file["BRH"]) == (len(taken), sum(bool(n) for n in taken)) == (21, 18)
    places = Counter((block, branch) for _, block, branch, _ in file["BRDA"])
    assert set(places.values()) == {1}
    assert {(n, taken) for n, block, _, taken in file["BRDA"] if n == 6} == {(6, 1), (6, 7)}
    assert all(taken is None for n, *_, taken in file["BRDA"] if n == 17)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.rows: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        """Lines of the policies, as they are read."""
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        assert not any(name.startswith("on") or name in ("src", "href") for name in given)
        if tag == "td":
            self._open = given.get("class") == "t"
            self.texts += [""] if self._open else []
        if tag == "tr" and given.get("class"):
            self.rows.append((str(given["class"]), given.get("title")))

    def handle_data(self, data: str) -> None:
        if self._open and self.texts:
            self.texts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "td"


def test_page_colours_lines_and_runs_nothing(lake: Lake, desk: Any, tmp_path: Path) -> None:
    hostile = f'@id("a") @doc("{HOSTILE}") permit (principal, action, resource); // {HOSTILE}\n'
    policies = (
        hostile + '@id("b") forbid (principal is Agent, action, resource) when { context.tenant == "x" };\n'
    )
    shown = coverage(lake, desk.bundle("hostile", policies)).to_html(tmp_path / "a" / "c.html").read_text()
    page = _Page()
    page.feed(shown)
    assert page.tags["script"] == 0
    assert "alert(1)" in shown
    assert [state for state, _ in page.rows] == ["both", "never"]
    assert page.texts == policies.splitlines()
    assert "context.tenant == &#34;x&#34;: false 9" in shown


def run(*args: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*args])
    if isinstance(result.exception, WorkbenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_command(lake: Lake, tested: Lake, tmp_path: Path) -> None:
    trace, page = tmp_path / "c.info", tmp_path / "c.html"
    said = run(lake.uri, "--lcov", str(trace), "--html", str(page))
    assert said.startswith("Coverage of the recorded policies by 12 decisions")
    assert Trace(trace.read_text()).files[0]["SF"] == "p.cedar"
    assert "coverage" in page.read_text()
    gap = json.loads(run(lake.uri, "--against", tested.uri, "--json"))
    assert gap["evaluation"]["decisions"] == 3
    with pytest.raises(WorkbenchError, match="leave --against out"):
        run(lake.uri, "--against", tested.uri, "--lcov", str(trace))


def test_policies_of_one_template_share_its_lines(lake: Lake, desk: Any) -> None:
    template = (
        '@id("all") permit (principal, action, resource);\n'
        '@id("on") forbid (principal, action == Action::"refund", resource == ?resource)\n'
        "when { context.args.amount_cents > 100 };\n"
    )
    folder = desk.bundle("linked", template)
    orders = [
        {"id": f"on-{n}", "template": "on", "values": {"?resource": f'Order::"o-{n}"'}} for n in (1, 2, 7)
    ]
    (folder / "links.json").write_text(json.dumps(orders))
    found = coverage(lake, folder)
    counts = {(each.policy, each.clause.key): each.truths for each in found.views.clauses}
    assert [(counts[f"on-{n}", "1.1"]["true"], counts[f"on-{n}", "1.1"]["false"]) for n in (1, 2, 7)] == [
        (4, 1), (2, 0), (0, 0),
    ]  # fmt: skip
    (file,) = found.files
    line = file.lines[2].least
    assert line is not None
    assert line.policies == ("on-1", "on-2", "on-7")
    assert (line.truths["true"], line.truths["false"]) == (6, 1)
    assert Trace(found.lcov()).files[0]["FNDA"] == {"all": 9, "on": 6}
    assert [policy.told for policy in file.policies][1].startswith("on: satisfied 6, decisive 6 of 24")


def test_two_bundles_of_one_lake_are_told_apart(desk: Any) -> None:
    desk.lake(
        "both",
        [("look", {"order_id": "o-1"})],
        desk.bundle("one", '@id("a") permit (principal, action, resource);\n'),
    )
    lake = desk.lake(
        "both",
        [("look", {"order_id": "o-1"})] * 2,
        desk.bundle("two", '@id("b") forbid (principal, action, resource);\n'),
    )
    found = coverage(lake)
    assert found.views.decisions == 3
    assert sorted(file.shown.split()[0] for file in found.files) == ["one", "two"]
    assert {each.policy: (each.decisions, each.satisfied, each.decisive) for each in found.views.policies} == {
        "a": (1, 1, 1), "b": (2, 2, 2),
    }  # fmt: skip
    assert len(Trace(found.lcov()).files) == 2
