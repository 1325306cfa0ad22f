"""JSON that readers get wrong, each against Cedar's own answer: whether it takes the context, and which value it sees."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import cedarpy
import polars as pl
import pytest

from runtime.canonical import parse
from runtime.projection import ProjectionError, project
from runtime.schema import Record, parse_schema
from workbench.columnar.json_columns import read_typed
from workbench.columnar.json_leaves import take_leaves, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.columnar.json_plan import Form

SCHEMA = """
entity U;
action act appliesTo { principal: U, resource: U, context: {
  n?: Long, s?: String, t?: Bool, d?: decimal, w?: datetime, u?: duration, i?: ipaddr, e?: U,
  ns?: Set<Long>, r?: { n?: Long }, o?: { n: Long }
} };
"""
RECORD = parse_schema(SCHEMA).actions["act"].context
DEEP = "[" * 500 + "]" * 500

NUMBERS = (
    *(
        "5",
        "-5",
        "0",
        "-0",
        "5.0",
        "5.7",
        "05",
        "+5",
        "5.",
        ".5",
        "1e2",
        "1E2",
        "1e-2",
        "0x5",
        "5_0",
        " 5",
        "5 ",
        "\u0665",
    ),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "1" + "0" * 400,
    ),
    *("9" * 5000, "true", "null", '"5"', "NaN", "Infinity", "-Infinity", "[5]", "{}", "", "5 5", "5//x"),
)
STRINGS = (
    *(
        '"a"',
        '""',
        '"a\\nb"',
        '"\\u0041"',
        '"\\u00e9"',
        '"é"',
        '"\\/"',
        '"\\ud83d\\ude00"',
        '"😀"',
        '"a\\\\"',
        '"\\""',
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
        '"\x00"',
        '"\n"',
        '"\t"',
        '"\x1f"',
        '"\x7f"',
        '"\\x41"',
        '"a',
        "'a'",
    ),
    *('"a"b"', '"a","s":"b"', '"\\u00"', "5", "null", DEEP, '"a\\"', '"\ufeff"', '"a\\","n":5,"t":"b"'),
)
OBJECTS = (
    *(
        "{}",
        "[]",
        "null",
        "5",
        '""',
        "",
        " {}",
        "{} ",
        "{ }",
        "{}x",
        "{}{}",
        '{"n":5',
        '{"n":5}}',
        '{"n":5,}',
        "{,}",
    ),
    *(
        '{"n":5,"n":5}',
        '{"n":4,"n":5}',
        '{"n":5,"n":4}',
        '{"s":"a","n":5}',
        '{"n":5, "s":"a"}',
        '{"n" :5}',
        '{"n":5;"s":"a"}',
    ),
    *(
        '{"x":5}',
        '{"n":5,"x":null}',
        '{"n":5,"x":1}',
        '{"r":{"n":5}}',
        '{"r":{}}',
        '{"r":{"n":5},"n":5}',
        '{"n":5,"r":{"n":4}}',
    ),
    *(
        '{"r":{"n":4},"r":{"n":5}}',
        '{"n":"x","n":5}',
        '{"n":5,"n":"x"}',
        '{"n":1.5,"n":5}',
        '{"n":5,"n":1.5}',
        '{"n":null,"n":5}',
    ),
    *('{"ns":[-0]}', '{"e":{"id":"a","id":"b","type":"U"}}', '{"n":-0,"n":5}', '{"ns":[1],"ns":[2]}'),
    *(
        '{"r":{"n":5,"n":4}}',
        '{"r":null}',
        '{"r":[]}',
        '{"r":{"n":null}}',
        '{"r":{"m":1}}',
        '{"o":{}}',
        '{"o":{"n":5}}',
    ),
    *(
        '{"\\u006e":5}',
        '{"ns":[]}',
        '{"ns":[3,1,3]}',
        '{"ns":[1,]}',
        '{"ns":[1,"2"]}',
        '{"ns":[1.0]}',
        '{"ns":[01]}',
    ),
    *(
        '{"ns":[null]}',
        '{"ns":[[1]]}',
        '{"ns":' + DEEP + "}",
        '{"ns":[9223372036854775808]}',
        '{"__extn":5}',
        '{"n":5}\x00',
    ),
    *(
        '\ufeff{"n":5}',
        '{"n":5}/*x*/',
        '{"t":true}',
        '{"t":True}',
        '{"t":"true"}',
        '{"t":1}',
        '{"t":tru}',
        '{"t":truefalse}',
    ),
)
CEDAR = (
    *(
        '{"d":{"__extn":{"arg":"1.5","fn":"decimal"}}}',
        '{"d":{"__extn":{"fn":"decimal","arg":"1.5"}}}',
        '{"d":"1.5"}',
    ),
    *(
        '{"d":1.5}',
        '{"d":{"__extn":{"arg":"1.55555","fn":"decimal"}}}',
        '{"d":{"__extn":{"arg":"1.5","fn":"ip"}}}',
    ),
    *(
        '{"d":{"__extn":{"arg":"-0.0","fn":"decimal"}}}',
        '{"d":{"__extn":{"arg":"922337203685477.5808","fn":"decimal"}}}',
    ),
    *(
        '{"d":{"__extn":{"arg":"1.5","fn":"decimal","x":1}}}',
        '{"d":{"arg":"1.5","fn":"decimal"}}',
        '{"d":{"fn":"decimal","arg":"1.5"}}',
    ),
    *(
        '{"w":{"__extn":{"arg":"2024-01-01T10:00:00Z","fn":"datetime"}}}',
        '{"w":{"__extn":{"arg":"2024-02-30T10:00:00Z","fn":"datetime"}}}',
    ),
    *(
        '{"w":{"__extn":{"arg":"2024-01-01T10:00:60Z","fn":"datetime"}}}',
        '{"w":{"__extn":{"arg":"2024-01-01T10:00:00.5Z","fn":"datetime"}}}',
    ),
    *(
        '{"w":{"__extn":{"arg":"2024-01-01","fn":"datetime"}}}',
        '{"w":{"__extn":{"arg":"2024-01-01T10:00:00.123+0130","fn":"datetime"}}}',
    ),
    *(
        '{"u":{"__extn":{"arg":"1d2h","fn":"duration"}}}',
        '{"u":{"__extn":{"arg":"","fn":"duration"}}}',
        '{"u":"1h"}',
    ),
    *(
        '{"i":{"__extn":{"arg":"10.0.0.1","fn":"ip"}}}',
        '{"i":{"__extn":{"arg":"10.0.0.256","fn":"ip"}}}',
        '{"i":"::1"}',
    ),
    *(
        '{"e":{"__entity":{"id":"a","type":"U"}}}',
        '{"e":{"__entity":{"type":"U","id":"a"}}}',
        '{"e":{"id":"a","type":"U"}}',
        '{"e":"a"}',
    ),
    *(
        '{"e":{"__entity":{"id":"a","type":"V"}}}',
        '{"e":{"__entity":{"id":"a\\"","type":"U"}}}',
        '{"e":{"__entity":{"id":"a"}}}',
    ),
)
TEXTS = (
    *(f'{{"n":{number}}}' for number in NUMBERS),
    *(f'{{"n":5,"s":{string}}}' for string in STRINGS),
    *OBJECTS,
    *CEDAR,
)


def literal(value: Any) -> str:
    """A value as Cedar writes it."""
    if not isinstance(value, str):
        return str(value).lower()
    return '"' + "".join(c if c.isalnum() else f"\\u{{{ord(c):x}}}" for c in value) + '"'


EXTENSION_LITERALS: dict[str, Callable[[Any], str]] = {
    "d": lambda units: (
        f'decimal("{"-" if units < 0 else ""}{abs(units) // 10_000}.{abs(units) % 10_000:04d}")'
    ),
    "w": lambda ms: f'datetime("1970-01-01").offset(duration("{ms}ms"))',
    "u": lambda ms: f'duration("{ms}ms")',
    "e": lambda ident: f"U::{literal(ident)}",
}


def condition(name: str, value: Any, at: str = "context") -> str:
    """Cedar's text for: this member is there and has this value; null: it is not there."""
    if value is None:
        return f"!({at} has {name})"
    if name == "i":  # our text of an address is its number; which one it is, `test_json_reading` tells
        return f"{at} has i && {at}.i.isInRange({at}.i)"
    if isinstance(value, list):
        return f"{at} has {name} && {at}.{name} == [{','.join(map(literal, value))}]"
    text = EXTENSION_LITERALS[name](value) if name in EXTENSION_LITERALS else literal(value)
    return f"({at} has {name} && {at}.{name} == {text})"


def cedar_takes(text: str, cells: dict[str, Any] | None) -> bool:
    """Whether Cedar takes a context and, if cells are given, sees exactly their values."""
    wanted = "true"
    if cells is not None:
        scalars = [condition(name, cells[name]) for name in ("n", "s", "t", "d", "w", "u", "i", "e", "ns")]
        nested = [
            f"(context has {r} && {condition('n', cells[f'{r}.n'], f'context.{r}')})"
            if cells[f"{r}?"]
            else f"!(context has {r})"
            for r in ("r", "o")
        ]
        wanted = " && ".join(scalars + nested)
    request = {"principal": 'U::"a"', "action": 'Action::"act"', "resource": 'U::"a"', "context": text}
    policy = f"permit(principal, action, resource) when {{ {wanted} }};"
    answer = cedarpy.is_authorized_batch([request], policy, "[]", SCHEMA)[0]
    if cells is not None:
        assert answer.allowed, (text, wanted, answer.diagnostics.errors)
    return answer.decision.value != "NoDecision"


def cells_of(text: str, form: Any, record: Record = RECORD) -> dict[str, Any] | None:
    """What is read of one text, by attribute; null: refused."""
    found = read_typed(pl.Series([text]), record, form=form)
    cells = {name.partition(" ")[2]: value for name, value in found.columns.row(0, named=True).items()}
    assert found.bad.height in (0, 1)
    return None if found.bad.height else cells


STRICTER = frozenset({'{"d":{"__extn":{"arg":"1.5","fn":"decimal","x":1}}}'})
"""What Cedar takes and we hand over: a call with a member too many, which it overlooks."""


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:60])
def test_cedar_form_is_read_as_cedar_reads_it(text: str) -> None:
    cells = cells_of(text, "cedar")
    if cells is None:
        assert cedar_takes(text, None) == (text in STRICTER)
    else:
        assert cedar_takes(text, cells)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:60])
def test_arguments_are_read_as_the_runtime_hands_them_to_cedar(text: str) -> None:
    cells = cells_of(text, "arguments")
    try:
        given = parse(text)
        projected = json.dumps(project(given, RECORD, "context.args"))
    except (ValueError, ProjectionError):
        assert cells is None
        return
    assert cells is not None
    assert cedar_takes(projected, cells)


@pytest.mark.parametrize(
    "text", [text for text in TEXTS if "\ud800" not in text], ids=lambda text: ascii(text)[:60]
)
def test_leaves_say_the_text_or_are_odd(text: str) -> None:
    leaves = take_leaves(pl.Series([text]), RECORD, form="arguments")
    again = written(leaves, RECORD, form="arguments").item()
    assert leaves.odd.item() == (again != text)


@pytest.mark.parametrize("form", ["arguments", "cedar"])
def test_all_texts_in_one_column(form: Form) -> None:
    """One row touches no other, wherever it stands: in frames larger than one step of the streaming engine, too."""
    alone = {text: cells_of(text, form) for text in TEXTS}
    order = list(TEXTS) * 40 + ['{"n":5}'] * 120_000
    Random(7).shuffle(order)
    found = read_typed(pl.Series([*order, None]), RECORD, form=form)
    assert [*found.bad["row"]] == [i for i, text in enumerate(order) if alone[text] is None] + [len(order)]
    for text, row in zip(order, found.columns.iter_rows(), strict=False):
        cells = alone[text]
        assert row == tuple([None] * len(row) if cells is None else cells.values()), text
