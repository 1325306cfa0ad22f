"""Values of systems of record as JSON: exact, or refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import NotCanonical, canonical
from runtime.errors import SourceError
from runtime.values import to_json

NOON = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (1.5, 1.5),
        (5.0, 5),
        (-0.0, 0),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (NOON, "2026-11-22T12:00:00.123Z"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2026-11-22T12:00:00.123Z"),
        (date(2026, 11, 22), "2026-11-22"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": [Decimal(1), {"b": None}]}, {"a": ["1", {"b": None}]}),
        (("x", "y"), ["x", "y"]),
        ({"b", "a"}, ["a", "b"]),
        (np.int64(5), 5),
        (np.bool_(True), True),
        (np.float64(2.5), 2.5),
        (np.str_("x"), "x"),
        (pa.scalar(Decimal("1.10")), "1.10"),
        (pa.scalar("x"), "x"),
    ],
)
def test_values_become_json(value: Any, expected: Any) -> None:
    got = to_json(value, "column `x`")
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"x", "bytes"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1e300, "beyond 2\\*\\*53"),
        (2**63, "beyond 64 bits"),
        (Decimal("NaN"), "Decimal"),
        (datetime(2026, 1, 1), "has no zone"),  # noqa: DTZ001 - the point
        ({1: 2}, "member whose name is not a string"),
        ([{"a": b""}], r"\[0\]\.a holds bytes"),
        (object(), "object"),
        (timedelta(1), "timedelta"),
    ],
)
def test_values_that_have_no_json_are_refused(value: Any, why: str) -> None:
    with pytest.raises(SourceError, match=f"column `x`.*{why}"):
        to_json(value, "column `x`")


@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.lists))
def test_what_is_recorded_reads_back_the_same(value: Any) -> None:
    try:
        text = canonical(to_json(value, "x"))
    except (NotCanonical, SourceError):
        return  # too large, or floats beside integers beyond 2**53
    back = json.loads(text)
    assert back == to_json(value, "x")
    assert repr(back) == repr(to_json(value, "x"))
