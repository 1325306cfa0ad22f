"""Extension values of texts in columns and in entity tables: as Cedar reads them, errors and all."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from workbench.columnar import decide_cases
from workbench.columnar.extension_text import CONSTRUCTORS
from workbench.columnar.reading import payload_text, payload_texts

WHO, VIEW, DOC = EntityUid("U", "ann"), EntityUid("Action", "view"), EntityUid("D", "doc")

TEXTS = [
    *(
        "",
        " ",
        "1",
        "1.5",
        "-0.0",
        "1.50000",
        "922337203685477.5807",
        "922337203685477.5808",
        "+1.0",
        "1.5\n",
    ),
    *("٣.٥", "1.5\u0000", ".5", "1.", "-922337203685477.5808", "00001.0"),
    *("127.0.0.1", "10.0.0.0/8", "10.0.0.1/33", "010.0.0.1", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "::/0"),
    *("::1/129", "1.2.3", "1.2.3.4/08", "١.2.3.4"),
    *("2024-02-29", "2023-02-29", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123+0530", "0000-01-01"),
    *("2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "20240101", "9999-12-31T23:59:59.999-2359"),
    *("0ms", "1h", "-1d2h3m4s5ms", "1m1h", "9223372036854775807ms", "9223372036854775808ms", "-", "1.5h"),
]
CONDITIONS = [
    'decimal({}).lessThan(decimal("1.6"))',
    'decimal({}) == decimal("0.0")',
    "ip({}).isIpv4()",
    'ip({}).isInRange(ip("10.0.0.0/8"))',
    'ip({}) == ip("::1")',
    'datetime({}) < datetime("2024-01-02")',
    'datetime({}).toTime() == duration("0ms")',
    "duration({}).toHours() > 0",
    'duration({}) == duration("1h")',
    'datetime("2024-01-01").offset(duration({})) > datetime("1970-01-01")',
]


def outcomes(condition: str, cases: list[Case]) -> tuple[str, str]:
    """What columns and Cedar say, a letter a case."""
    policies = cedarpy.PolicySet.from_str(f"permit(principal, action, resource) when {{ {condition} }};")
    found = decide_cases(cases, policies, schema=None)
    assert not found.handed_over
    assert not found.policies_handed_over
    own = [found.answer(row) for row in range(len(cases))]
    told = [_alone(case, policies) for case in cases]
    return "".join("E" if a.errors else "T" if a.permitted else "F" for a in own), "".join(told)


def _alone(case: Case, policies: cedarpy.PolicySet) -> str:
    request = {"principal": str(WHO), "action": str(VIEW), "resource": str(DOC)}
    entities = json.dumps([each.json() for each in case.slice.entities])
    result = cedarpy.is_authorized({**request, "context": json.dumps(case.context)}, policies, entities)
    return "E" if result.diagnostics.errors else "T" if result.allowed else "F"


def case(context: dict[str, Any], attrs: dict[str, Any] | None = None) -> Case:
    return Case(WHO, VIEW, DOC, context, Slice((Entity(WHO, attrs or {}),)))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_texts_of_requests(condition: str) -> None:
    cases = [*(case({"s": text}) for text in TEXTS), case({"s": 1}), case({}), case({"s": TEXTS[3]})]
    own, cedar = outcomes(condition.format("context.s"), cases)
    assert own == cedar
    assert "E" in own
    assert set(own) & {"T", "F"}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_texts_of_entities(condition: str) -> None:
    cases = [*(case({}, {"s": text}) for text in TEXTS), case({}, {"s": True}), case({})]
    own, cedar = outcomes(condition.format("principal.s"), cases)
    assert own == cedar


def test_a_choice_between_column_and_constant() -> None:
    cases = [case({"s": text, "t": t}) for text in ("1.5", "x") for t in (True, False)]
    own, cedar = outcomes('decimal(if context.t then context.s else "2.0").lessThan(decimal("2.0"))', cases)
    assert own == cedar == "TFEF"


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(CONSTRUCTORS.values())),
    texts=st.lists(st.none() | st.sampled_from(TEXTS) | st.text("0123456789.:-/dhmsTZ", max_size=12)),
)
def test_a_column_is_read_as_each_text_is(kind: Any, texts: list[str | None]) -> None:
    frame = pl.DataFrame({"s": pl.Series(texts, dtype=pl.String)})
    for lazy in (frame.lazy().select(payload_texts(kind, pl.col("s"))),):
        want = [None if text is None else payload_text(kind, text) for text in texts]
        assert lazy.collect().to_series().to_list() == want
        assert lazy.collect(engine="streaming").to_series().to_list() == want
