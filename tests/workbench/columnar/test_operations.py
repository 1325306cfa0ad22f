"""Column operations against the constants they fold to, at the ends of 64 bits; extension texts against Cedar."""

from __future__ import annotations

import ipaddress
import json
from itertools import product
from typing import Any

import cedarpy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.columnar.extension_text import CONSTRUCTORS, READERS, NotAValue
from workbench.columnar.nodes import FALSE, TRUE, and_, apply, column, gather, literal, not_, or_, when
from workbench.columnar.operations import DAY, MAX, MIN, OPERATIONS

EDGES = (
    MIN,
    MIN + 1,
    -(2**62) - 1,
    -(2**62),
    -3_037_000_500,
    -2,
    -1,
    0,
    1,
    2,
    3_037_000_500,
    2**62,
    MAX - 1,
    MAX,
)
PAIRS = pl.DataFrame(list(product(EDGES, EDGES)), schema={"a": pl.Int64, "b": pl.Int64}, orient="row")


@pytest.mark.parametrize(
    "op", ["add", "sub", "mul", "add_overflows", "sub_overflows", "mul_overflows", "less"]
)
def test_arithmetic_over_columns_is_what_constants_fold_to(op: str) -> None:
    operation = OPERATIONS[op]
    assert operation.fold is not None
    found = PAIRS.select(operation.lower(None, pl.col("a"), pl.col("b"))).to_series().to_list()
    assert found == [operation.fold(None, a, b) for a, b in PAIRS.iter_rows()]


@pytest.mark.parametrize("unit", [1_000, 60_000, 3_600_000, DAY])
def test_durations_truncate_toward_zero(unit: int) -> None:
    operation = OPERATIONS["quotient"]
    assert operation.fold is not None
    found = PAIRS.select(operation.lower(unit, pl.col("a"))).to_series().to_list()
    assert found == [operation.fold(unit, a) for a, _ in PAIRS.iter_rows()]
    assert operation.fold(1_000, -1_999) == -1


def test_conditions_fold() -> None:
    a, b = (column(name, "bool", nullable=False) for name in "ab")
    assert and_(a, TRUE) is a
    assert and_(a, b) is and_(a, b)
    assert or_(a, not_(a)) is TRUE
    assert and_(a, not_(a), b) is FALSE
    assert when(a, TRUE, FALSE) is a


def test_what_is_asked_of_one_entity_moves_into_its_table() -> None:
    index = column("principal", "code", nullable=False)
    level = gather("User", "level", index, "long", nullable=True)
    asked = apply("less", literal(2, "long"), level)
    assert asked.op == "gather"
    boss = gather("User", "boss", index, "code", nullable=True)
    of_boss = apply("less", literal(2, "long"), gather("User", "level", boss, "long", nullable=True))
    assert and_(asked, of_boss).op == "gather"
    assert and_(asked, of_boss).args == (index,)


def texts(alphabet: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.text(alphabet, max_size=8), *parts)


CALLS = st.one_of(
    st.tuples(
        st.just("decimal"),
        texts("0123456789.- ", st.from_regex(r"-?92233720368547758?\.[0-9]{1,5}", fullmatch=True)),
    ),
    st.tuples(
        st.just("datetime"),
        texts(
            "0123456789-:TZ",
            st.from_regex(
                r"[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{3})?(Z|[+-][0-2][0-9][0-6][0-9]))?",
                fullmatch=True,
            ),
        ),
    ),
    st.tuples(
        st.just("duration"),
        texts(
            "0129-dhms",
            st.from_regex(
                r"-?(9223372036854775807ms|9223372036854775808ms|[0-9]{1,12}d[0-9]{1,14}h)", fullmatch=True
            ),
        ),
    ),
    st.tuples(
        st.just("ip"),
        texts(
            "0129af:./",
            st.from_regex(r"([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?", fullmatch=True),
            st.from_regex(r"([0-9a-f]{0,4}:){2,8}[0-9a-f]{0,4}(/[0-9]{1,3})?", fullmatch=True),
        ),
    ),
)


def shown(name: str, payload: int | str) -> Any:
    """A call that gives the value which was read, written another way."""
    match name, payload:
        case "decimal", int(units):
            sign = "-" if units < 0 else ""
            return {"decimal": [{"Value": f"{sign}{abs(units) // 10_000}.{abs(units) % 10_000:04d}"}]}
        case "datetime", int(ms):
            start: Any = {"datetime": [{"Value": "1970-01-01"}]}
            return {"offset": [start, {"duration": [{"Value": f"{ms}ms"}]}]}
        case "duration", int(ms):
            return {"duration": [{"Value": f"{ms}ms"}]}
        case _:
            number = int(str(payload)[1:33], 16)
            address = (
                ipaddress.IPv4Address(number) if str(payload)[0] == "4" else ipaddress.IPv6Address(number)
            )
            return {"ip": [{"Value": f"{address}/{int(str(payload)[33:36])}"}]}


@settings(max_examples=300, deadline=None)
@given(call=CALLS)
def test_extension_texts_are_read_as_cedar_reads_them(call: tuple[str, str]) -> None:
    name, text = call
    try:
        want = shown(name, READERS[CONSTRUCTORS[name]](text))
    except NotAValue:
        want = None
    left = {name: [{"Value": text}]}
    body = {"==": {"left": left, "right": left if want is None else want}}
    everyone = {"op": "All"}
    policy: dict[str, Any] = {
        "effect": "permit",
        "principal": everyone,
        "action": everyone,
        "resource": everyone,
    }
    policy["conditions"] = [{"kind": "when", "body": body}]
    tree = {"staticPolicies": {"p": policy}, "templates": {}, "templateLinks": []}
    request = {"principal": 'A::"a"', "action": 'A::"a"', "resource": 'A::"a"', "context": {}}
    found = cedarpy.is_authorized(request, cedarpy.PolicySet.from_json_str(json.dumps(tree)), "[]")
    assert bool(found.diagnostics.errors) == (want is None)
    assert found.allowed == (want is not None)
