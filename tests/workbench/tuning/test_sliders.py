from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.errors import PolicyError
from runtime.tuning import find, tuned
from workbench.shipped import shipped
from workbench.tuning.sliders import parsed, sliders_of, written

if TYPE_CHECKING:
    from runtime.literals import Value
    from workbench.tuning.sliders import Slider

SCHEMA = (
    "entity A; action pay appliesTo { principal: A, resource: A, "
    "context: { args: { n: Long, d: decimal, s: String, b: Bool } } };"
)


def bundle_of(tune: str, condition: str) -> Bundle:
    quoted = tune.replace('"', '\\"')
    policy = f'@id("p") @tune("{quoted}")\npermit (principal, action, resource) when {{ {condition} }};'
    return bundle_from_files({"schema.cedarschema": SCHEMA, "p.cedar": policy}, "demo")


def slider_of(tune: str, condition: str) -> Slider:
    (slider,) = sliders_of(bundle_of(tune, condition))
    return slider


@pytest.mark.parametrize(
    ("tune", "condition", "control", "positions"),
    [
        ('{"n": {"value": 3, "min": 1, "max": 4}}', "context.args.n < 3", "range", ("1", "2", "3", "4")),
        ('{"n": {"value": 3, "choices": [9, 3]}}', "context.args.n < 3", "choice", ("9", "3")),
        ('{"n": {"value": 3, "min": 1}}', "context.args.n < 3", "field", ()),
        ('{"n": {"value": 3}}', "context.args.n < 3", "field", ()),
        ('{"b": {"value": true}}', "context.args.b == true", "switch", ()),
        ('{"s": {"value": "x"}}', 'context.args.s == "x"', "field", ()),
        (
            '{"d": {"value": "1.5", "min": "1.0", "max": "2.0"}}',
            'context.args.d.lessThan(decimal("1.5"))',
            "range",
            tuple(f"{n / 10:.1f}" for n in range(10, 21)),
        ),
        ('{"t": {"value": "2h", "min": "1h", "max": "9h"}}', 'duration("2h") < duration("3d")', "field", ()),
    ],
)
def test_a_literal_is_moved_as_its_declaration_allows(
    tune: str, condition: str, control: str, positions: tuple[str, ...]
) -> None:
    slider = slider_of(tune, condition)
    assert (slider.control, slider.positions) == (control, positions)


def test_sliders_stand_in_the_order_of_the_text() -> None:
    bundle = bundle_from_files(
        {p.name: p.read_text() for p in shipped("support-desk/candidate").iterdir()}, "candidate"
    )
    assert [(each.name, each.value, each.line) for each in sliders_of(bundle)] == [
        ("refund_limit", "5000", 34),
        ("session_budget", "30000", 43),
        ("urgent", "3", 22),
    ]


@given(
    low=st.integers(-(2**63), 2**63 - 2), span=st.integers(1, 2**63), at=st.floats(0, 1),
)  # fmt: skip
def test_every_position_of_64_bits_is_exact_allowed_and_in_order(low: int, span: int, at: float) -> None:
    high = min(low + span, 2**63 - 1)
    value = min(high, low + int((high - low) * at))
    slider = slider_of(
        f'{{"n": {{"value": {value}, "min": {low}, "max": {high}}}}}', f"context.args.n < ({value})"
    )
    numbers = [int(text) for text in slider.positions]
    assert (numbers[0], numbers[-1]) == (low, high)
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= 403
    steps = {b - a for a, b in pairwise(numbers[1:-1])}
    assert len(steps) <= 1, "steps between the bounds are equal"


@pytest.mark.parametrize(
    ("tune", "condition", "text", "value"),
    [
        ('{"n": {"value": 3}}', "context.args.n < 3", "-7", -7),
        ('{"n": {"value": 3}}', "context.args.n < 3", " 12 ", 12),
        ('{"b": {"value": true}}', "context.args.b == true", "false", False),
        ('{"s": {"value": "x"}}', 'context.args.s == "x"', " 5 ", " 5 "),
        ('{"d": {"value": "1.5"}}', 'context.args.d.lessThan(decimal("1.5"))', "2.25", "2.25"),
    ],
)
def test_what_is_written_is_read_by_its_kind(tune: str, condition: str, text: str, value: Value) -> None:
    bundle = bundle_of(tune, condition)
    (key,) = bundle.tunables
    found = parsed(find(bundle, key), text)
    assert (found, type(found)) == (value, type(value))
    assert written(tuned(bundle, {key: found}).tunables[key].value) == written(value)


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "5000000000000000000000", "9" * 10_000, "٣", "true", "0x10"]
)
def test_what_is_no_long_is_refused_and_says_what_is(text: str) -> None:
    bundle = bundle_of('{"n": {"value": 3, "min": 0, "max": 9}}', "context.args.n < 3")
    with pytest.raises(PolicyError, match="a Long of at least 0 and at most 9"):
        parsed(find(bundle, "n"), text)
