"""The projection is exact, total over what it accepts, and never lets a caller speak Cedar's own escapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import cedarpy
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from runtime.projection import ProjectionError, project
from runtime.schema import (
    ActionType,
    Attribute,
    CedarSchema,
    CedarType,
    EntityRef,
    EntityType,
    Extension,
    Primitive,
    Record,
    SetOf,
)

if TYPE_CHECKING:
    from runtime.canonical import Json

LONG, STRING, BOOL = Primitive("Long"), Primitive("String"), Primitive("Bool")
COLOR = EntityRef("Color", enum=("red", "blue"))
NAMES = ("a", "b", "c d", "é", "type", "amount")
EXTENSIONS: tuple[Literal["decimal", "ipaddr", "datetime", "duration"], ...] = (
    "decimal", "ipaddr", "datetime", "duration",
)  # fmt: skip
PLAIN_TYPES: st.SearchStrategy[CedarType] = st.one_of(
    st.sampled_from([LONG, STRING, BOOL, EntityRef("User"), COLOR]),
    st.sampled_from([Extension(name) for name in EXTENSIONS]),
)


def records(members: st.SearchStrategy[CedarType]) -> st.SearchStrategy[CedarType]:
    attribute = st.builds(Attribute, members, st.booleans(), st.just({}))
    scaled = st.builds(Attribute, st.just(LONG), st.booleans(), st.just({"scaled": "amount * 100"}))
    plain = st.dictionaries(st.sampled_from(NAMES), attribute, max_size=4)
    return st.builds(
        lambda attrs, more: Record({**attrs, **more}), plain, st.just({}) | st.builds(dict, cents=scaled)
    )


TYPES: st.SearchStrategy[CedarType] = st.recursive(
    PLAIN_TYPES, lambda inner: st.builds(SetOf, inner) | records(inner), max_leaves=6
)

DECIMALS = st.from_regex(
    r"-?[0-9]{1,16}(\.[0-9]{1,5})?|9223372036854775?\.580[78]|-?0[0-9]*\.0+", fullmatch=True
)
DATETIMES = st.from_regex(
    r"[0-9]{4}-(0[0-9]|1[0-3])-([0-2][0-9]|3[0-2])(T([01][0-9]|2[0-4]):[0-6][0-9]:[0-6][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-4]):?[0-6][0-9])?)?",
    fullmatch=True,
)
DURATIONS = st.from_regex(
    r"-?([0-9]{1,12}d)?([0-9]{1,14}h)?([0-9]{1,3}m)?([0-9]{1,3}s)?([0-9]{1,20}ms)?|922337203685477580[78]ms",
    fullmatch=True,
)
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){2,4}(/[0-9]{0,3})?", fullmatch=True),
    st.from_regex(r"([0-9a-fA-F]{0,5}:){1,8}([0-9a-fA-F]{0,4}|[0-9.]{7})(/[0-9]{0,3})?", fullmatch=True),
)
TEXTS = {"decimal": DECIMALS, "datetime": DATETIMES, "duration": DURATIONS, "ipaddr": ADDRESSES}
FUNCTIONS = {"decimal": "decimal", "datetime": "datetime", "duration": "duration", "ipaddr": "ip"}

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*NAMES, "cents", "__extn", "__entity", "__expr", "fn", "arg"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
ESCAPES: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"__extn": {"fn": "decimal", "arg": "1.0"}},
        {"__entity": {"type": "User", "id": "root"}},
        {"__expr": "principal"},
        {"type": "Admin", "id": "root"},
        {"type": "User", "id": "ana", "more": 1},
        "\ud800",
    ]
)


def fitting(type_: CedarType) -> st.SearchStrategy[Any]:
    """JSON that mostly fits `type_`."""
    match type_:
        case Primitive("Long"):
            return st.integers(-(2**63), 2**63 - 1)
        case Primitive("Bool"):
            return st.booleans()
        case Primitive():
            return st.text()
        case Extension("decimal"):
            return (
                st.integers(-(10**15), 10**15) | st.decimals(-(10**9), 10**9, places=4).map(float) | DECIMALS
            )
        case Extension(name):
            return TEXTS[name]
        case EntityRef(name):
            ids = st.sampled_from(["red", "blue"]) if type_ is COLOR else st.text()
            return ids | st.builds(lambda i: {"type": name, "id": i}, ids)
        case SetOf(element):
            return st.lists(fitting(element), max_size=3)
        case Record(attrs):
            given = {
                a.scaled.member if a.scaled else n: money() if a.scaled else fitting(a.type)
                for n, a in attrs.items()
            }
            required = {a.scaled.member if a.scaled else n for n, a in attrs.items() if a.required}
            return st.fixed_dictionaries(
                {n: s for n, s in given.items() if n in required},
                optional={n: s | st.none() for n, s in given.items() if n not in required},
            )


def money() -> st.SearchStrategy[Any]:
    return st.integers(-(10**12), 10**12) | st.decimals(-(10**9), 10**9, places=2).map(float)


def values(type_: CedarType) -> st.SearchStrategy[Any]:
    """Mostly fitting values, and some with another value put somewhere inside."""
    return fitting(type_) | fitting(type_).flatmap(
        lambda v: st.builds(mutated, st.just(v), ANYTHING | ESCAPES, st.integers(0, 9))
    )


def mutated(value: Any, other: Any, place: int) -> Any:
    match value:
        case dict() if value and place:
            key = sorted(value)[place % len(value)]
            return {**value, key: mutated(value[key], other, place // 2)}
        case list() if value and place:
            return [*value[:-1], mutated(value[-1], other, place // 2)]
        case _:
            return other


def engine(type_: CedarType) -> cedarpy.Schema:
    schema = CedarSchema(
        entity_types={
            "User": EntityType(name="User"),
            "Color": EntityType(name="Color", enum=("red", "blue")),
        },
        actions={
            "act": ActionType(
                name="act",
                principals=("User",),
                resources=("User",),
                context=Record({"args": Attribute(type_)}),
            )
        },
    )
    return cedarpy.Schema.from_json_str(json.dumps(schema.to_json()))


def ask(type_: CedarType, projected: Json, condition: str = "true") -> cedarpy.AuthzResult:
    request = {
        "principal": 'User::"x"',
        "action": 'Action::"act"',
        "resource": 'User::"x"',
        "context": json.dumps({"args": projected}),
    }
    policy = f"permit(principal, action, resource) when {{ {condition} }};"
    return cedarpy.is_authorized(request, policy, "[]", engine(type_))


@given(st.data())
def test_what_is_accepted_cedar_accepts_and_what_is_refused_says_why(data: st.DataObject) -> None:
    type_ = data.draw(TYPES)
    value = data.draw(values(type_))
    try:
        projected = project(value, type_, "context.args")
    except ProjectionError as error:
        refused = error
    else:
        result = ask(type_, projected)
        assert result.decision.value == "Allow", result.diagnostics.errors
        return
    assert refused.path.startswith("context.args")
    assert refused.why
    assert str(refused).startswith(f"`{refused.path}` {refused.why}, got ")


@given(st.data())
def test_fitting_values_without_extensions_are_never_refused(data: st.DataObject) -> None:
    type_ = data.draw(
        st.recursive(st.sampled_from([LONG, STRING, BOOL]), lambda i: st.builds(SetOf, i) | plain_records(i))
    )
    assert project(data.draw(fitting(type_)), type_, "context.args") is not None


def plain_records(members: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    attribute = st.builds(Attribute, members, st.booleans(), st.just({}))
    return st.builds(Record, st.dictionaries(st.sampled_from(NAMES), attribute, max_size=4))


@pytest.mark.parametrize("type_", [Extension(name) for name in EXTENSIONS], ids=EXTENSIONS)
@given(data=st.data())
def test_texts_of_extension_types_are_accepted_where_cedar_accepts_them(
    type_: Extension, data: st.DataObject
) -> None:
    text = data.draw(TEXTS[type_.name])
    written: Json = {"__extn": {"fn": FUNCTIONS[type_.name], "arg": text}}
    if ask(type_, written).decision.value == "Allow":
        projected = project(text, type_, "context.args")
        assert projected == written or type_.name == "decimal"  # a decimal loses needless zeros


EDGES = {
    "decimal": (
        "-0.0 007.10 1.0000 922337203685477.5807 922337203685477.5808 -922337203685477.5808 -922337203685477.5809"
    ),
    "datetime": (
        "0000-02-29 1900-02-29 2026-12-31T23:59:59Z 2026-12-31T24:00:00Z 2026-12-31T23:60:00Z 2026-12-31T23:59:60Z "
        "2026-12-31T00:00:00.123-2359 2026-12-31T00:00:00+2400 2026-12-31T00:00:00+0060 9999-12-31T23:59:59.999-2359 "
        "0000-01-01T00:00:00+2359 2026-12-31Z 2026-00-01 2026-13-01"
    ),
    "duration": (
        "0ms 1d2h3m4s5ms -1d 1h1d 1ms1ms - +1d 9223372036854775807ms 9223372036854775808ms -9223372036854775808ms "
        "-9223372036854775809ms 106751991167d 106751991168d 00001d"
    ),
    "ipaddr": (
        "10.0.0.1/32 10.0.0.1/33 10.0.0.1/08 10.0.0.1/ 01.2.3.4 1.2.3 255.255.255.256 ::1/128 ::1/129 ::/00 "
        "::ffff:1.2.3.4 fe80::1%eth0 00001:: ABCD:: 1:2:3:4:5:6:7:: 1.2.3.4/+1"
    ),
}


@pytest.mark.parametrize("type_", [Extension(name) for name in EXTENSIONS], ids=EXTENSIONS)
def test_the_edges_of_extension_types_are_cedars(type_: Extension) -> None:
    for text in EDGES[type_.name].split():
        cedar = ask(type_, {"__extn": {"fn": FUNCTIONS[type_.name], "arg": text}}).decision.value == "Allow"
        try:
            project(text, type_, "x")
        except ProjectionError:
            assert not cedar, text
        else:
            assert cedar, text


@given(
    st.decimals(-(10**16), 10**16, places=5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
)
@example(0.1)
@example(1e22)
@example(-922337203685477.5808)
@example(Decimal("922337203685477.5807"))
def test_decimals_and_scaled_integers_are_exact_or_refused(number: float | Decimal) -> None:
    value: Json = str(number) if isinstance(number, Decimal) else number
    assume("E" not in str(value))
    exact = Fraction(Decimal(repr(number))) if isinstance(number, float) else Fraction(number)
    check_exact(value, Extension("decimal"), exact, 10_000)
    check_exact(value, Record({"cents": Attribute(LONG, annotations={"scaled": "amount*100"})}), exact, 100)


def check_exact(value: Json, type_: CedarType, exact: Fraction, factor: int) -> None:
    fits = (exact * factor).denominator == 1 and -(2**63) <= exact * factor < 2**63
    given_value: Json = {"amount": value} if isinstance(type_, Record) else value
    try:
        projected: Any = project(given_value, type_, "x")
    except ProjectionError:
        assert not fits
        return
    assert fits
    found = projected["cents"] if isinstance(type_, Record) else Decimal(projected["__extn"]["arg"]) * factor
    assert Fraction(found) == exact * factor


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.timezones(), st.booleans())  # noqa: DTZ001
def test_rfc_3339_means_the_same_instant_to_cedar(moment: datetime, zone: Any, millis: bool) -> None:
    aware = moment.replace(
        tzinfo=zone, microsecond=moment.microsecond // 1000 * 1000 if millis else moment.microsecond
    )
    offset = aware.utcoffset()
    assume(offset is not None and offset.total_seconds() % 60 == 0)
    type_ = Extension("datetime")
    if not millis and moment.microsecond % 1000:
        with pytest.raises(ProjectionError, match="milliseconds"):
            project(aware.isoformat(), type_, "x")
        return
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    instant = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    same = f'context.args == datetime("1970-01-01").offset(duration("{instant}ms"))'
    assert ask(type_, project(aware.isoformat(), type_, "x"), same).decision.value == "Allow"


ARGS = Record(
    {
        "name": Attribute(STRING),
        "cents": Attribute(LONG, required=False, annotations={"scaled": "amount*100"}),
        "count": Attribute(LONG, required=False),
        "rate": Attribute(Extension("decimal"), required=False),
        "at": Attribute(Extension("datetime"), required=False),
        "who": Attribute(EntityRef("User"), required=False),
        "color": Attribute(COLOR, required=False),
        "tags": Attribute(SetOf(STRING), required=False),
        "inner": Attribute(Record({"x": Attribute(BOOL)}), required=False),
        "__extn": Attribute(STRING, required=False),
    }
)

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({}, "context.args.name", "is required: pass a `String`"),
    "required null": ({"name": None}, "context.args.name", "is required"),
    "undeclared": ({"name": "x", "nam": 1}, "context.args.nam", "undeclared member (did you mean `name`?)"),
    "undeclared far": ({"name": "x", "zzz": 1}, "context.args.zzz", "declared are"),
    "no identifier": ({"name": "x", "a b": 1}, "context.args['a b']", "undeclared"),
    "boolean as integer": ({"name": "x", "count": True}, "context.args.count", "must be a `Long`"),
    "float as integer": ({"name": "x", "count": 5.0}, "context.args.count", "declare it `decimal`, or `@scaled`"),
    "integer beyond 64 bits": ({"name": "x", "count": 2**63}, "context.args.count", "64 bits"),
    "five digits": ({"name": "x", "rate": 0.00001}, "context.args.rate", "four fractional digits"),
    "decimal range": ({"name": "x", "rate": 1e15}, "context.args.rate", "beyond a `decimal`"),
    "NaN": ({"name": "x", "rate": float("nan")}, "context.args.rate", "finite number"),
    "infinite scaled": ({"name": "x", "amount": float("inf")}, "context.args.amount", "finite number"),
    "boolean decimal": ({"name": "x", "rate": True}, "context.args.rate", "must be a `decimal`"),
    "huge exponent": ({"name": "x", "rate": "1e9999"}, "context.args.rate", "64 bits"),
    "tiny exponent": ({"name": "x", "rate": "1e-9999"}, "context.args.rate", "four fractional digits"),
    "scaled inexact": ({"name": "x", "amount": 0.005}, "context.args.amount", "times 100 must be an integer"),
    "scaled range": ({"name": "x", "amount": 1e17}, "context.args.amount", "must fit a `Long`"),
    "scaled given": ({"name": "x", "cents": 5}, "context.args.cents", "computed from `amount`"),
    "microseconds": ({"name": "x", "at": "2026-11-22T10:00:00.123456Z"}, "context.args.at", "milliseconds"),
    "no such day": ({"name": "x", "at": "2026-02-30"}, "context.args.at", "a day that exists"),
    "no offset": ({"name": "x", "at": "2026-02-20T10:00:00"}, "context.args.at", "must be a `datetime`"),
    "number as datetime": ({"name": "x", "at": 5}, "context.args.at", "the text of a `datetime`"),
    "other type": ({"name": "x", "who": {"type": "Role", "id": "a"}}, "context.args.who", "of type `User`"),
    "not in enum": ({"name": "x", "color": "green"}, "context.args.color", "`red`, `blue`"),
    "null element": ({"name": "x", "tags": ["a", None]}, "context.args.tags[1]", "must not be null"),
    "string as set": ({"name": "x", "tags": "a"}, "context.args.tags", "an array, for `Set<String>`"),
    "nested": ({"name": "x", "inner": {"x": 1}}, "context.args.inner.x", "must be a `Bool`"),
    "list as record": ({"name": "x", "inner": []}, "context.args.inner", "an object, for `{x: Bool}`"),
    "surrogate": ({"name": "\ud800"}, "context.args.name", "lone surrogate"),
    "escape as string": (
        {"name": {"__extn": {"fn": "decimal", "arg": "1.0"}}}, "context.args.name", "must be a `String`",
    ),
    "escape as decimal": (
        {"name": "x", "rate": {"__extn": {"fn": "decimal", "arg": "1.0"}}}, "context.args.rate", "a `decimal`",
    ),
    "escape as entity": (
        {"name": "x", "who": {"__entity": {"type": "User", "id": "a"}}}, "context.args.who", "the id of a `User`",
    ),
    "escape as record": (
        {"name": "x", "inner": {"__expr": "1"}}, "context.args.inner.__expr", "Cedar's JSON keeps for itself",
    ),
    "declared escape": ({"name": "x", "__extn": "a"}, "context.args.__extn", "Cedar's JSON keeps for itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_path_value_and_way_out(case: str) -> None:
    value, path, why = REFUSED[case]
    with pytest.raises(ProjectionError) as caught:
        project(value, ARGS, "context.args")
    assert caught.value.path == path
    assert why in caught.value.why
    assert f"`{path}`" in str(caught.value)


def test_an_accepted_record() -> None:
    value: Json = {
        "name": "x", "amount": 12.34, "rate": "1.50", "at": "2026-11-22T10:00:00.120000+01:00", "who": "ana",
        "color": {"type": "Color", "id": "red"}, "tags": ["b", "a"], "inner": {"x": True}, "count": None,
        "gone": None,
    }  # fmt: skip
    assert project(value, ARGS, "context.args") == {
        "name": "x",
        "cents": 1234,
        "rate": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        "at": {"__extn": {"fn": "datetime", "arg": "2026-11-22T10:00:00.120+0100"}},
        "who": {"__entity": {"type": "User", "id": "ana"}},
        "color": {"__entity": {"type": "Color", "id": "red"}},
        "tags": ["b", "a"],
        "inner": {"x": True},
    }


def test_a_scaled_member_may_be_declared_itself() -> None:
    record = Record(
        {
            "amount": Attribute(Extension("decimal")),
            "cents": Attribute(LONG, annotations={"scaled": "amount*100"}),
        }
    )
    assert project({"amount": 1.5}, record, "x") == {
        "amount": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        "cents": 150,
    }


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ProjectionError) as caught:
        project("x" * 1000, LONG, "x")
    assert len(str(caught.value)) < 200
    assert caught.value.value == "x" * 1000
