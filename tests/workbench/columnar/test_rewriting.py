"""Plans against a plain reading of the same conditions, row by row: whatever a plan rewrites, the answer is the same.

Texts come as String, `Enum` and `Categorical`; frames are short and long, so that both of Polars' engines run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.columnar.lowering import lower
from workbench.columnar.nodes import (
    FALSE,
    TRUE,
    Node,
    and_,
    apply,
    boolean,
    column,
    equal,
    filled,
    gather,
    literal,
    not_,
    or_,
    ordered,
    present,
    when,
)
from workbench.columnar.operations import pattern_text
from workbench.columnar.rewriting import Lookup, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Row = dict[str, Any]
TEXTS = ("", "a", "ab", "ba", "a*", "b.", None)
CODES = st.integers(0, 5)
USERS: Mapping[str, list[Any]] = {
    "level": [1, None, 3, 3],
    "name": ["a", "ab", None, ""],
    "known": [True, False, True, False],
    "old": [False, False, True, True],
    "boss": [1, None, 0, 3],
    "teams": [[0, 2], [], [1], None],
    "above": [[1], [0, 1, 2], [], [5]],
}
DOCS: Mapping[str, list[Any]] = {
    "level": [2, 3, None],
    "name": ["ab", "a", "c"],
    "open": [True, True, False],
    "shut": [False, True, True],
    "owner": [3, 0, 1],
    "team": [2, None, 7],
    "readers": [[0, 1], [2], []],
}
TABLES = {"User": USERS, "Doc": DOCS}
_KINDS: Mapping[str, tuple[str, Any]] = {
    **dict.fromkeys(("level",), ("long", pl.Int64)),
    **dict.fromkeys(("name",), ("text", pl.String)),
    **dict.fromkeys(("known", "old", "open", "shut"), ("bool", pl.Boolean)),
    **dict.fromkeys(("boss", "owner", "team"), ("code", pl.UInt32)),
    **dict.fromkeys(("teams", "above", "readers"), ("list", pl.List(pl.UInt32))),
}


@dataclass(frozen=True)
class Term:
    """One expression twice: as the compiler builds it, and as a function of a row."""

    node: Node
    of: Callable[[Row], Any]


def source(table: str, node: Node) -> pl.Series:
    """What a node gives over a table."""
    frame = pl.DataFrame([pl.Series(n, v, dtype=_KINDS[n][1]) for n, v in TABLES[table].items()])
    return lower({"value": node}, source).collect(frame)["value"]


def attribute(table: str, name: str, host: Term) -> Term:
    """An attribute of an entity."""
    values = TABLES[table][name]
    nullable = None in values
    node = gather(table, name, host.node, _KINDS[name][0], nullable=nullable)  # type: ignore[arg-type]
    return Term(node, lambda row: None if (at := host.of(row)) is None else values[at])


def of_frame(name: str, dtype: Any, *, nullable: bool) -> Term:
    """A column of the frame."""
    return Term(column(name, dtype, nullable=nullable), lambda row: row[name])


def strict(function: Callable[..., bool]) -> Callable[..., bool]:
    """An operation that is false of nothing."""
    return lambda *args: None not in args and function(*args)


def joined(node: Node, function: Callable[..., Any], *args: Term) -> Term:
    """An operation over terms."""
    return Term(node, lambda row: function(*(arg.of(row) for arg in args)))


PRINCIPAL, RESOURCE = (of_frame(name, "code", nullable=False) for name in ("principal", "resource"))
OWNER = attribute("Doc", "owner", RESOURCE)
BOSS = attribute("User", "boss", PRINCIPAL)
USER_HOSTS = st.sampled_from([PRINCIPAL, OWNER, BOSS])
TEXT = st.one_of(
    st.sampled_from([of_frame("t", "text", nullable=True), of_frame("u", "text", nullable=False)]),
    USER_HOSTS.map(lambda host: attribute("User", "name", host)),
    st.just(attribute("Doc", "name", RESOURCE)),
    st.sampled_from(["a", "ab", "z"]).map(lambda text: Term(literal(text, "text"), lambda _: text)),
)
LONG = st.one_of(
    st.just(of_frame("n", "long", nullable=True)),
    USER_HOSTS.map(lambda host: attribute("User", "level", host)),
    st.just(attribute("Doc", "level", RESOURCE)),
    st.integers(0, 4).map(lambda number: Term(literal(number, "long"), lambda _: number)),
)
CODE = st.one_of(
    st.sampled_from(
        [of_frame("c", "code", nullable=True), PRINCIPAL, attribute("Doc", "team", RESOURCE), BOSS]
    ),
    CODES.map(lambda code: Term(literal(code, "code"), lambda _: code)),
)
LIST = st.one_of(
    USER_HOSTS.flatmap(lambda h: st.sampled_from(["teams", "above"]).map(lambda n: attribute("User", n, h))),
    st.just(attribute("Doc", "readers", RESOURCE)),
)
PATTERN = st.lists(st.sampled_from([None, "a", "b", "ab", "*", "."]), max_size=4).map(
    lambda parts: tuple(p for i, p in enumerate(parts) if p is not None or i == 0 or parts[i - 1] is not None)
)


def _like(text: Term, parts: tuple[str | None, ...]) -> Term:
    pattern = re.compile(pattern_text(parts) + r"\Z")
    return joined(apply("like", text.node, param=parts), strict(lambda t: bool(pattern.match(t))), text)


def _flags(host: Term) -> st.SearchStrategy[Term]:
    return st.sampled_from(["known", "old"]).map(lambda name: attribute("User", name, host))


def _of(flag: Term) -> Term:
    """A flag of an entity that may not be there, as the layouts read it."""
    return Term(filled(flag.node), lambda row: bool(flag.of(row)))


LEAF = st.one_of(
    st.sampled_from([True, False]).map(lambda v: Term(boolean(v), lambda _: v)),
    st.sampled_from(["p", "q"]).map(lambda name: of_frame(name, "bool", nullable=False)),
    USER_HOSTS.flatmap(_flags).map(_of),
    st.sampled_from(["open", "shut"]).map(lambda name: attribute("Doc", name, RESOURCE)),
    st.builds(
        lambda a, b: joined(apply("less", a.node, b.node), strict(lambda x, y: x < y), a, b), LONG, LONG
    ),
    st.builds(
        lambda a, b: joined(equal(a.node, b.node), strict(lambda x, y: x == y), a, b), TEXT, TEXT
    ).filter(lambda term: term.node is not TRUE),
    st.builds(_like, TEXT, PATTERN),
    st.builds(
        lambda a, b: joined(apply("is_member", a.node, b.node), strict(lambda x, y: y in x), a, b), LIST, CODE
    ),
    st.builds(
        lambda a, b: joined(apply("overlaps", a.node, b.node), strict(lambda x, y: bool({*x} & {*y})), a, b),
        LIST,
        LIST,
    ),
    st.builds(
        lambda a, b: joined(apply("is_subset", a.node, b.node), strict(lambda x, y: {*x} <= {*y}), a, b),
        LIST,
        LIST,
    ),
    st.one_of(TEXT, LONG, CODE, LIST).map(
        lambda term: joined(present(term.node), lambda value: value is not None, term)
    ),
)


def _conditions(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    several = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        inner.map(lambda a: joined(not_(a.node), lambda x: not x, a)),
        several.map(lambda t: joined(and_(*(a.node for a in t)), lambda *x: all(x), *t)),
        several.map(lambda t: joined(or_(*(a.node for a in t)), lambda *x: any(x), *t)),
        st.builds(
            lambda c, a, b: joined(when(c.node, a.node, b.node), lambda x, y, z: y if x else z, c, a, b),
            inner,
            inner,
            inner,
        ),
    )


CONDITION = st.recursive(LEAF, _conditions, max_leaves=12)
ROW = st.fixed_dictionaries(
    {
        "principal": st.integers(0, 3),
        "resource": st.integers(0, 2),
        "p": st.booleans(),
        "q": st.booleans(),
        "n": st.one_of(st.none(), st.integers(0, 4)),
        "c": st.one_of(st.none(), st.integers(0, 9)),
        "t": st.sampled_from(TEXTS),
        "u": st.sampled_from([text for text in TEXTS if text is not None]),
    }
)
SCHEMA = {
    **dict.fromkeys(("principal", "resource", "c"), pl.UInt32),
    **dict.fromkeys(("p", "q"), pl.Boolean),
    **dict.fromkeys(("t", "u"), pl.String),
    "n": pl.Int64,
}
ENUM = pl.Enum(sorted(text for text in TEXTS if text is not None))


def answers(terms: list[Term], frame: pl.DataFrame) -> list[list[Any]]:
    """What a plan gives, by output."""
    plan = lower({f"s{n}": term.node for n, term in enumerate(terms)}, source)
    return [each.to_list() for each in plan.collect(frame).get_columns()]


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(CONDITION, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=12))
def test_a_plan_says_what_the_conditions_say(terms: list[Term], rows: list[Row]) -> None:
    wanted = [[term.of(row) for row in rows] for term in terms]
    frame = pl.DataFrame(rows, schema=SCHEMA)
    assert answers(terms, frame) == wanted
    assert answers(terms, frame.cast({"t": ENUM, "u": ENUM})) == wanted
    assert answers(terms, frame.cast({"t": ENUM, "u": pl.Categorical()})) == wanted


SEARCH = st.builds(
    _like,
    st.sampled_from([of_frame("t", "text", nullable=True), of_frame("u", "text", nullable=False)]),
    st.sampled_from(
        [(None, "a", None), (None, "b", None), (None, "a", None, "b"), (None, "ab", None), (None,)]
    ),
)
FLAG = st.sampled_from(["p", "q"]).map(lambda name: of_frame(name, "bool", nullable=False))
EVERY_ROW = [
    {"principal": 0, "resource": 0, "n": 0, "c": 0, "p": p, "q": q, "t": t, "u": u}
    for p in (True, False)
    for q in (True, False)
    for t in ("ab", "b", None)
    for u in ("ba", "a", "")
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.recursive(st.one_of(SEARCH, FLAG), _conditions, max_leaves=6), min_size=1, max_size=3))
def test_searches_find_what_they_found(terms: list[Term]) -> None:
    wanted = [[term.of(row) for row in EVERY_ROW] for term in terms]
    assert answers(terms, pl.DataFrame(EVERY_ROW, schema=SCHEMA)) == wanted


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(CONDITION, min_size=1, max_size=4), st.lists(ROW, min_size=7, max_size=7))
def test_a_long_frame_is_decided_in_order(terms: list[Term], rows: list[Row]) -> None:
    times = 20_011
    wanted = [[term.of(row) for row in rows] * times for term in terms]
    frame = pl.concat([pl.DataFrame(rows, schema=SCHEMA)] * times)
    assert answers(terms, frame) == wanted
    assert answers(terms, frame.cast({"t": ENUM})) == wanted


P, Q = (column(name, "bool", nullable=False) for name in "pq")
X, Y = (column(name, "bool", nullable=False) for name in "xy")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (and_(P, or_(P, Q)), P),
        (or_(P, and_(P, Q)), P),
        (and_(P, or_(not_(P), Q)), and_(P, Q)),
        (or_(P, and_(not_(P), Q)), or_(P, Q)),
        (and_(and_(P, Q), not_(P)), FALSE),
        (or_(or_(P, Q), not_(Q)), TRUE),
        (and_(and_(P, Q), P), and_(P, Q)),
        (and_(not_(or_(P, Q)), P), FALSE),
        (and_(X, FALSE, *(or_(P, column(f"c{n}", "bool", nullable=False)) for n in range(99))), FALSE),
    ],
)
def test_what_is_said_already_is_not_said_again(found: Node, wanted: Node) -> None:
    assert found is wanted


def shown(nodes: Mapping[str, Node], frame: pl.DataFrame) -> str:
    """The query that a plan becomes."""
    return lower(nodes, source).run(frame.lazy()).explain(optimized=False)


FRAME = pl.DataFrame([{"principal": 0, "resource": 1, "p": True, "t": "a"}], schema_overrides=SCHEMA)
LIKES = [
    apply("like", column("t", "text", nullable=False), param=(None, text, None))
    for text in ("x.y", "a|b", "z")
]


def test_texts_of_two_tables_are_compared_as_codes() -> None:
    same = equal(attribute("User", "name", PRINCIPAL).node, attribute("Doc", "name", RESOURCE).node)
    assert lower({"s": same}, source).run(FRAME.lazy()).collect()["s"].to_list() == [True]
    looks = [node.param for node in ordered(rewritten({"s": same}, source).values()) if node.op == "look"]
    assert [look.series.dtype for look in looks if isinstance(look, Lookup)] == [pl.UInt8, pl.UInt8]


def test_one_walk_looks_for_all_that_one_condition_asks_for() -> None:
    assert shown({"s": or_(*LIKES)}, FRAME).count("str.contains") == 1
    # What is asked for by two stays as it is: it is computed once for both.
    assert shown({"s": or_(*LIKES), "r": LIKES[0]}, FRAME).count("str.contains") == 2


def test_texts_are_searched_where_all_else_holds() -> None:
    query = shown({"s": and_(column("p", "bool", nullable=False), LIKES[0])}, FRAME)
    assert "when(" in query
    assert "when(" not in shown({"s": and_(P, LIKES[0]), "r": LIKES[0]}, FRAME)


def test_what_is_asked_of_a_text_alone_is_asked_of_its_dictionary() -> None:
    asked = {"s": or_(*LIKES), "r": equal(column("t", "text", nullable=False), literal("a", "text"))}
    query = shown(asked, FRAME.cast({"t": pl.Enum(["a", "a|b"])}))
    assert "str.contains" not in query
    found = lower(asked, source).collect(
        pl.DataFrame({"t": ["a", "a|b", "axb"]}).cast(pl.Enum(["axb", "a", "a|b"]))
    )
    assert found.rows() == [(False, True), (True, False), (False, False)]
