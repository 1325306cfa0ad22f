"""Clauses of policies: what they are, and on which lines they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files, load_bundle
from workbench.explaining import clauses as clauses_module
from workbench.explaining.clauses import Clause, Clauses, clauses_of
from workbench.explaining.cutting import cut

SCHEMA = """
entity Team; entity Agent in [Team] = { level?: Long, a?: { b?: Bool } };
entity Order = { owner?: Agent, open?: Bool };
action all;
action "pay" in [all] appliesTo { principal: [Agent], resource: [Order], context: {
  args: { n: Long, s?: String, ok?: Bool, tags?: Set<String> } } };
"""


def bundle_of(text: str, links: object = None) -> Bundle:
    files = {"p.cedar": text, "schema.cedarschema": SCHEMA}
    return bundle_from_files(files | ({"links.json": json.dumps(links)} if links else {}), "test")


def told(clauses: Clauses, policy: str = "p") -> list[tuple[str, str, str, int | None, int | None, str]]:
    return [(c.key, c.place, c.op, c.line, c.end_line, c.text) for c in clauses.policies[policy].walk()]


ODD = r"""// head: permit(principal, action, resource) when { false };
@id("p") @note("if (") @permit("x; when {")
permit ( principal is Agent in Team::"g" , action in [Action::"pay", Action::"all"], // , )
  resource
)
when { // ) tricky }
  ((principal has a.b) && (context.args has s && context.args.s like "x*\*&&y" // && no
   && (context.args.s == "a && b" || (!(context.args has ok && true) && {"a b": 1}["a b"] == 1)))) }
unless { if principal has level then principal.level > 1 else context.args.n > 1 && context.args.n < 9 }
when { true } when { "x
y" != "z" && [1,2].contains(3) };
"""


def test_an_odd_layout() -> None:
    assert told(clauses_of(bundle_of(ODD))) == [
        ("principal", "principal", "one", 3, 3, 'principal is Agent in Team::"g"'),
        ("action", "action", "one", 3, 3, 'action in [Action::"pay", Action::"all"]'),
        ("1.1", "when", "one", 7, 7, "principal has a.b"),
        ("1.2", "when", "one", 7, 7, "context.args has s"),
        ("1.3", "when", "one", 7, 7, 'context.args.s like "x*\\*&&y"'),
        (
            "1.4", "when", "or", 8, 8,
            'context.args.s == "a && b" || (!(context.args has ok && true) && {"a b": 1}["a b"] == 1)',
        ),
        ("1.4.1", "when", "one", 8, 8, 'context.args.s == "a && b"'),
        ("1.4.2", "when", "and", 8, 8, '!(context.args has ok && true) && {"a b": 1}["a b"] == 1'),
        ("1.4.2.1", "when", "one", 8, 8, "!(context.args has ok && true)"),
        ("1.4.2.2", "when", "one", 8, 8, '{"a b": 1}["a b"] == 1'),
        (
            "2.1", "unless", "one", 9, 9,
            "if principal has level then principal.level > 1 else context.args.n > 1 && context.args.n < 9",
        ),
        ("3.1", "when", "one", 10, 10, "true"),
        ("4.1", "when", "one", 10, 11, '"x\\ny" != "z"'),
        ("4.2", "when", "one", 11, 11, "[1,2].contains(3)"),
    ]  # fmt: skip


def test_where_text_and_cedar_disagree_no_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scanner is made to cut at the wrong places: lines are unknown then, and the clauses are Cedar's own."""

    def wrong(text: str) -> object:
        pieces = cut(text)
        assert pieces is not None
        scope, bodies = pieces.scope, pieces.bodies
        return type(pieces)((*scope[1:], scope[0]), (*bodies[1:], bodies[0]))

    right = told(clauses_of(bundle_of(ODD)))
    monkeypatch.setattr(clauses_module, "cut", wrong)
    monkeypatch.setattr(clauses_module, "_known", {})
    found = told(clauses_of(bundle_of(ODD)))
    assert {line for _, _, _, line, _, _ in found} == {None}
    assert [place for _, place, _, _, _, _ in found if place != "when"] == ["principal", "action", "unless"]
    assert 'principal is Agent in Team::"g"' in [text for *_, text in found]
    assert len(found) == len(right) + 1  # `has a.b` is two to Cedar


def test_links_share_the_clauses_of_their_template() -> None:
    text = (
        '@id("t") forbid(principal in ?principal, action, resource == ?resource) when { context.args.n > 1 };\n'
        '@id("any") permit(principal, action, resource);'
    )
    values = {"?principal": 'Team::"a"', "?resource": 'Order::"o"'}
    links = [{"template": "t", "id": each, "values": values} for each in ("one", "two")]
    clauses = clauses_of(bundle_of(text, links))
    assert sorted(clauses.policies) == ["any", "one", "two"]
    assert clauses.policies["one"].source == "t"
    assert [c.id for c in clauses.texts] == ["t:principal", "t:resource", "t:1.1"]
    assert [c.text for c in clauses.texts] == [
        "principal in ?principal",
        "resource == ?resource",
        "context.args.n > 1",
    ]
    assert len(clauses.places) == 6
    assert told(clauses, "any") == []


LEAVES = [
    "context.args.n > 1", "principal has level", 'context.args has s && context.args.s like "&& || \\* //"', "!(context.args.n == 2)",
    '(context.args.n == 3 || "if" == "if")', "principal has a.b", 'principal in Team::"x"', "(if true then false else true)",
]  # fmt: skip
BLANK = st.sampled_from([" ", "\n", "  \n\n ", " // && || ) } ;\n", '\n\t// "\n'])


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]]]:
    """A policy of leaves in a random layout, and the line on which each leaf begins."""
    text = '@id("p")' + draw(BLANK) + "forbid(principal, action, resource)"
    wanted = []
    for _ in range(draw(st.integers(1, 3))):
        text += draw(BLANK) + draw(st.sampled_from(["when", "unless"])) + draw(BLANK) + "{"
        depth = draw(st.integers(0, 2))
        text += "(" * depth
        for number in range(draw(st.integers(1, 4))):
            leaf = draw(st.sampled_from(LEAVES))
            text += (draw(BLANK) + "&&" if number else "") + draw(BLANK)
            wrapped = draw(st.integers(0, 2))
            text += "(" * wrapped
            parts = leaf.split(" && ") if leaf.startswith("context.args has s &&") else [leaf]
            wanted += [(part, text.count("\n") + 1) for part in parts]
            text += leaf + ")" * wrapped
        text += ")" * depth + draw(BLANK) + "}"
    return text + ";", wanted


@settings(max_examples=60, deadline=None)
@given(case=laid_out())
def test_lines_in_any_layout(case: tuple[str, list[tuple[str, int]]]) -> None:
    text, wanted = case
    found = clauses_of(bundle_of(text)).policies["p"].top
    assert [(clause.text, clause.line) for clause in found] == [
        (part[1:-1] if part.startswith("(") else part, line) for part, line in wanted
    ]


def _shipped() -> list[Path]:
    return sorted(
        path.parent for path in Path("datasets").rglob("schema.cedarschema") if "tables" not in path.parts
    )


@pytest.mark.parametrize("folder", _shipped(), ids=str)
def test_every_clause_of_the_shipped_bundles_has_its_line(folder: Path) -> None:
    bundle = load_bundle(folder)
    clauses = clauses_of(bundle)
    for clause in clauses.texts:
        assert clause.line is not None, clause
        assert clause.end_line is not None
        lines = bundle.files[clause.file].split("\n")[clause.line - 1 : clause.end_line]
        assert "".join(clause.text.split()) in "".join("".join(lines).split())


def test_children_are_of_their_clause() -> None:
    def check(clause: Clause) -> None:
        assert (clause.op == "one") == (not clause.children)
        for number, child in enumerate(clause.children, 1):
            assert child.key == f"{clause.key}.{number}"
            assert child.place == clause.place
            check(child)

    for clause in clauses_of(bundle_of(ODD)).policies["p"].top:
        check(clause)
