"""JSON texts to typed columns: every row against the runtime's own reading of it, over generated types and texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.canonical import NotCanonical, canonical, parse
from runtime.projection import ProjectionError, project
from runtime.schema import Attribute, EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.decoding import Bound, Elements, Extended, Ref, Unfit, decode
from workbench.columnar.json_columns import read_json, read_typed, typed
from workbench.columnar.json_leaves import take_leaves, written
from workbench.columnar.layouts import EntityShape, RecordShape, ScalarShape, SetShape, canonical_text

if TYPE_CHECKING:
    from runtime.canonical import Json
    from runtime.schema import CedarType
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.json_plan import Form
    from workbench.columnar.layouts import Layout

NAMES = ("a", "b", "id", "type", "arg", "fn", "é", 'k"x', "we ird", "z\\", "aa", "日", "n,")
TEXTS = (
    "",
    "a",
    "x y",
    '"',
    "\\",
    'a","b":1',
    "é",
    "日本",
    "\n",
    "\u0000",
    "\x1f",
    "\x7f",
    "null",
    "5",
    "😀",
    "\ud800",
)
NUMBERS = (
    *("0", "1", "-1", "5", "12345678901", "123456789012", "9007199254740993", "9223372036854775807"),
    *(
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "100000000000000000000",
        "1e2",
        "1E2",
    ),
    *(
        "-0",
        "0.5",
        "5.0",
        "5.7",
        "12.34",
        "0.0001",
        "0.00001",
        "-0.5",
        "1e-2",
        "99999999999.9999",
        "1.23456",
        "1e400",
    ),
    *("922337203685477.5807", "922337203685477.5808", "12.50", "007", "+5", "1.", ".5", "NaN", "-"),
)
EXTENSIONS = {
    "decimal": (
        "1.5",
        "-0.5",
        "12.50",
        "1",
        "1.23456",
        "922337203685477.5807",
        "922337203685477.5808",
        "x",
        "007.1",
    ),
    "datetime": (
        *("2024-01-01", "2024-01-01T10:00:00Z", "2024-02-29T12:00:00.250+0530", "2024-01-01T10:00:00+05:30"),
        *(
            "2023-02-29",
            "0000-01-01",
            "9999-12-31T23:59:59Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T10:00:00.5Z",
            "x",
        ),
        *("2024-01-01T10:00:00.123456789Z", "1969-12-31T23:59:59.999Z", "2024-01-01T10:00:00"),
    ),
    "duration": (
        "1d2h",
        "-1ms",
        "0ms",
        "9223372036854775807ms",
        "9223372036854775808ms",
        "x",
        "-",
        "",
        "1h1d",
        "01s",
    ),
    "ipaddr": (
        "10.0.0.1",
        "10.0.0.0/8",
        "::1",
        "2001:db8::/32",
        "10.0.0.1/33",
        "::ffff:1.2.3.4",
        "01.2.3.4",
        "x",
    ),
}

scalars = st.sampled_from(
    [
        *(
            Primitive("Long"),
            Primitive("String"),
            Primitive("Bool"),
            EntityRef("U"),
            EntityRef("N::E", ("a", "é")),
        ),
        *(Extension("decimal"), Extension("datetime"), Extension("duration"), Extension("ipaddr")),
    ]
)


def records(inner: st.SearchStrategy[CedarType]) -> st.SearchStrategy[Record]:
    plain = st.builds(Attribute, inner, st.booleans())
    scaled = st.builds(
        lambda required, member, factor: Attribute(
            Primitive("Long"), required, {"scaled": f"{member}*{factor}"}
        ),
        st.booleans(),
        st.sampled_from(["a", "b", "aa"]),
        st.sampled_from([1, 100, 10_000, 10**12]),
    )
    return st.dictionaries(st.sampled_from(NAMES), plain | plain | plain | scaled, max_size=5).map(Record)


types: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.builds(SetOf, inner) | records(inner), max_leaves=6
)
declared = records(types)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


texts_of_strings = st.sampled_from(TEXTS).map(quoted) | st.text(max_size=6).map(quoted)
numbers = st.sampled_from(NUMBERS) | st.integers(-(2**65), 2**65).map(str)
junk = st.sampled_from(
    ["null", "true", "[]", "{}", "[null]", '{"a":1}', "[1,[2]]", '"\\ud800"', "", "[1", "x"]
)


def values(type_: CedarType, form: Form) -> st.SearchStrategy[str]:
    """JSON texts meant for a type; mostly right, now and then not."""
    return st.one_of(*[_right(type_, form)] * 12, junk, numbers, texts_of_strings)


def _right(type_: CedarType, form: Form) -> st.SearchStrategy[str]:
    match type_:
        case Primitive("Long"):
            return numbers
        case Primitive("Bool"):
            return st.sampled_from(["true", "false"])
        case Primitive():
            return texts_of_strings
        case EntityRef(type=kind):
            return st.tuples(
                st.sampled_from(["a", "é", 'x"', "5"]), st.sampled_from([kind, kind, kind, "U"])
            ).flatmap(lambda pair: st.sampled_from(_entity_texts(*pair, form)))
        case Extension(name):
            return st.sampled_from(EXTENSIONS[name]).flatmap(
                lambda arg: st.sampled_from(_extension_texts(name, arg, form))
            )
        case SetOf(element):
            return st.lists(values(element, form), max_size=3).map(lambda found: f"[{','.join(found)}]")
        case Record():
            return objects(type_, form)
    raise AssertionError(type_)


def _entity_texts(ident: str, kind: str, form: Form) -> list[str]:
    uid = canonical({"id": ident, "type": kind})
    turned = f'{{"type":{quoted(kind)},"id":{quoted(ident)}}}'
    return (
        [quoted(ident), uid, turned]
        if form == "arguments"
        else [f'{{"__entity":{uid}}}', uid, f'{{"__entity":{turned}}}']
    )


def _extension_texts(name: str, arg: str, form: Form) -> list[str]:
    if form == "arguments":
        return [quoted(arg), arg]
    function = "ip" if name == "ipaddr" else name
    return [
        canonical({"__extn": {"fn": function, "arg": arg}}),
        quoted(arg),
        canonical({"fn": function, "arg": arg}),
    ]


@st.composite
def objects(draw: st.DrawFn, record: Record, form: Form) -> str:
    """Text of an object; members mostly sorted, each once, all of them declared."""
    wanted: dict[str, CedarType] = {}
    for name, each in record.attrs.items():
        source = each.scaled.member if form == "arguments" and each.scaled else name
        if each.required or draw(st.booleans()):
            wanted[source] = Extension("decimal") if each.scaled else each.type
    members = [(name, draw(values(type_, form))) for name, type_ in wanted.items()]
    if draw(st.integers(0, 11)) == 0:
        members.append((draw(st.sampled_from(NAMES)), draw(junk)))
    if draw(st.integers(0, 11)):
        members.sort(key=lambda pair: pair[0].encode("utf-16-be", "surrogatepass"))
    comma, colon = (", ", " : ") if draw(st.integers(0, 15)) == 0 else (",", ":")
    return "{" + comma.join(f"{quoted(name)}{colon}{value}" for name, value in members) + "}"


@st.composite
def cases(draw: st.DrawFn, form: Form) -> tuple[Record, list[str]]:
    record = draw(declared)
    return record, draw(st.lists(objects(record, form), min_size=1, max_size=5))


def valid_unicode(text: str) -> str:
    """A column of texts holds no lone surrogates; JSON can still name one, by an escape."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if not text.isascii() else text


def expected(text: str, record: Record, form: Form) -> Any:
    """What the runtime reads; null: refused."""
    try:
        value = parse(text) if form == "arguments" else json.loads(text, parse_int=cedar_integer)
        found = decode(project(value, record, "context.args") if form == "arguments" else value, record)
    except (ValueError, ProjectionError, Unfit):
        return None
    return plain(found, record)


def cedar_integer(digits: str) -> int | float:
    """A negative zero is no integer to Cedar's parser (`test_json_traps` asks it)."""
    return -0.0 if digits == "-0" else int(digits)


def plain(value: Any, type_: CedarType) -> Any:
    """A decoded value as this test compares it: sets as sets of canonical texts or scalars."""
    match value:
        case Extended(payload=payload):
            return payload
        case Ref(id=ident):
            return ident
        case Elements(members):
            assert isinstance(type_, SetOf)
            if isinstance(type_.element, SetOf | Record) or type_.element == Primitive("Bool"):
                return sorted({canonical_text(coded(member)) for member in members})
            return sorted({plain(member, type_.element) for member in members})
        case dict():
            assert isinstance(type_, Record)
            return {name: plain(each, type_.attrs[name].type) for name, each in value.items()}
    return value


def code(kind: str, ident: str) -> int:
    return len(kind) * 1000 + sum(map(ord, ident))


def coded(value: Any) -> Any:
    match value:
        case Ref(kind, ident):
            return Bound(kind, 0, code(kind, ident))
        case Elements(members):
            return Elements(tuple(map(coded, members)))
        case dict():
            return {name: coded(each) for name, each in value.items()}
    return value


def lifted(found: Typed, row: int) -> dict[str, Any]:
    """A row read back through the layouts."""
    cells = found.columns.row(row, named=True)
    made = {name: _lift(layout, cells) for name, layout in found.layouts.items()}
    return {name: value for name, value in made.items() if value is not None}


def _lift(layout: Layout, cells: dict[str, Any]) -> Any:
    ((mask, shape),) = layout.shapes
    match shape:
        case ScalarShape(_, name) | EntityShape(_, name) | SetShape(_, name):
            assert layout.missing or cells[name] is not None
            return cells[name]
        case RecordShape(members):
            assert (mask is not None) == layout.missing
            below = {name: _lift(each, cells) for name, each in members.items()}
            kept = {name: value for name, value in below.items() if value is not None}
            assert mask is None or cells[mask] or not kept
            return kept if mask is None or cells[mask] else None


def check_typed(found: Typed, texts: list[str], record: Record, form: Form) -> None:
    bad = dict(found.bad.iter_rows())
    for row, text in enumerate(texts):
        wanted = expected(text, record, form)
        if wanted is None:
            assert bad[row], text
            assert set(found.columns.row(row)) <= {None}, text
        else:
            assert row not in bad, (text, bad[row])
            assert lifted(found, row) == wanted, text


def check_leaves(texts: list[str], record: Record, form: Form) -> None:
    leaves = take_leaves(pl.Series(texts), record, form=form)
    again = written(leaves, record, form=form).to_list()
    lost = set(leaves.refused["row"])
    for row, text in enumerate(texts):
        if leaves.odd[row]:
            assert row in lost or again[row] != text or not is_canonical(text)
        else:
            assert again[row] == text
            assert is_canonical(text)
        if row not in lost:
            assert without_nulls(parse(again[row])) == without_nulls(json.loads(text))


def is_canonical(text: str) -> bool:
    try:
        return canonical(parse(text)) == text
    except NotCanonical:
        return False


def without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return float(value) if type(value) is int and abs(value) > 2**53 else value


@pytest.mark.slow
@pytest.mark.parametrize("form", ["arguments", "cedar"])
def test_every_row_is_what_the_runtime_reads(form: Form) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(form))
    def check(case: tuple[Record, list[str]]) -> None:
        record, raw = case
        texts = [valid_unicode(text) for text in raw]
        found = read_typed(pl.Series(texts), record, form=form, coder=code)
        check_typed(found, texts, record, form)
        check_leaves(texts, record, form)
        leaves, both = read_json(pl.Series(texts), record, form=form, coder=code)
        assert both.columns.equals(found.columns)
        again = typed(leaves, record, form=form, coder=code)
        for row in (~leaves.odd).arg_true():
            assert again.columns.row(row) == found.columns.row(row)

    check()


def test_a_record_of_nothing_keeps_its_rows() -> None:
    """Found by the test above: without a leaf there is no column that knows how many rows there are."""
    record = Record({"a": Attribute(Record({}))})
    texts = ['{"a":{}}', '{"a" : {}}', "{}", '{"a":{"b":1}}']
    leaves, found = read_json(pl.Series(texts), record, form="cedar")
    assert leaves.odd.to_list() == [False, True, True, True]
    assert written(leaves, record, form="cedar").to_list() == ['{"a":{}}', '{"a":{}}', None, None]
    assert found.bad["row"].to_list() == [2, 3]


def test_leaves_of_some_rows() -> None:
    record = Record(
        {
            "a": Attribute(Primitive("Long")),
            "r": Attribute(Record({"b": Attribute(Primitive("Bool"))}), False),
        }
    )
    texts = ['{"a":1}', "x", '{"a":2,"r":{"b":true}}', '{"a":3, "r":{"b":false}}', '{"a":4,"c":1}']
    leaves = take_leaves(pl.Series(texts), record, form="arguments").take(pl.Series([4, 2, 3, 1]))
    assert written(leaves, record, form="arguments").to_list() == [
        None,
        texts[2],
        '{"a":3,"r":{"b":false}}',
        None,
    ]
    assert leaves.refused["row"].to_list() == [0, 3]
    assert leaves.odd.to_list() == [True, False, True, True]
    again = typed(leaves, record, form="arguments")
    assert again.bad["reason"].to_list() == leaves.refused["reason"].to_list()
    assert again.columns.row(1) == (2, True, True)
