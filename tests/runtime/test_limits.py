"""`limits.toml`: what loads, what is refused at its line, and what follows from recorded inputs alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.entities import EntityUid
from runtime.errors import LimitsError
from runtime.limits import Breaker, Budget, Limits, Loop, Meter, duration
from runtime.limits_file import parse_limits
from runtime.request import Request, ResourceTemplate
from runtime.ruling import REASONS

SCHEMA = """
entity Agent; entity Order; entity Tool;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order: String, cents: Long, @scaled("price*100") price_cents?: Long, rate?: decimal, box?: { cents?: Long } } } };
action "give" appliesTo { principal: [Agent], resource: [Order], context: { args: { order: String, cents: Long } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { args: {} } };
"""
V2 = "version = 2\n"


def bundle(limits: str, policies: str = '@id("p") permit(principal, action, resource);') -> Bundle:
    files = {"p.cedar": policies, "schema.cedarschema": SCHEMA, "limits.toml": limits}
    return bundle_from_files(files, "b")


def request(tool: str = "pay", **inputs: Any) -> Request:
    session = {"calls": inputs.pop("calls", 0)} | inputs.pop("session", {})
    return Request(
        decision_id="d", session_id="s", step=0, tenant="t", principal=EntityUid("Agent", "a"),
        on_behalf_of=inputs.pop("behalf", None), scopes=(), tool=tool, resource=ResourceTemplate.parse("Order::{order}"),
        required_scopes=(), args={}, idempotency_key=None, at=datetime(2026, 11, 23, tzinfo=UTC),
        session_state=session, limits=inputs,
    )  # fmt: skip


def test_everything_that_a_file_may_say() -> None:
    limits = bundle(
        V2
        + """
[[budget]]
name = "money"
per = "on_behalf_of"
measure = "args.box.cents"
window = "1d12h"
max = 500_000
actions = ["pay"]
[[budget]]
name = "cost"
measure = "cost_micros"
max = 0
[[loop]]
name = "again"
max_repeats = 3
max_period = 4
actions = ["pay", "look"]
[[breaker]]
name = "down"
last = 10
min_calls = 2
max_error_rate = 0.29
open_for = "90s"
probes = 2
actions = ["pay"]
"""
    ).limits
    meter = Meter(per="on_behalf_of", measure="args.box.cents", window_ms=36 * 3_600_000, actions=("pay",))
    assert limits.budgets == (
        Budget(name="money", max=500_000, actions=("pay",), meter=meter),
        Budget(name="cost", max=0, meter=Meter(measure="cost_micros")),
    )
    assert limits.loops == (Loop(name="again", max_repeats=3, max_period=4, actions=("look", "pay")),)
    assert limits.breakers == (
        Breaker(name="down", last=10, min_calls=2, max_error_ppm=290_000, open_ms=90_000, probe_ms=90_000, probes=2, actions=("pay",)),
    )  # fmt: skip


BUDGET = V2 + '[[budget]]\nname = "b"\nmax = 3\n'
LOOP = V2 + '[[loop]]\nname = "l"\nmax_repeats = 1\n'
BREAKER = V2 + '[[breaker]]\nname = "k"\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (BUDGET + 'per = "sesion"', 5, "did you mean `session`"),
        (BUDGET + 'measure = "cost_micro"', 5, "did you mean `cost_micros`"),
        (BUDGET + 'measure = "args."', 5, "or args.<path>"),
        (BUDGET + 'window = "60"', 5, 'a duration such as "24h"'),
        (BUDGET + 'window = ""', 5, "must be a string"),
        (BUDGET + 'windw = "60s"', 5, "unknown key `windw`, did you mean `window`"),
        (V2 + '[[budget]]\nname = "b"\nmax = 2.5', 4, "`max` must be an integer of 0 or more, got 2.5"),
        (V2 + f'[[budget]]\nname = "b"\nmax = {2**63}', 4, "`max` must be an integer"),
        (BUDGET + 'actions = ["pya"]', 5, "action 'pya' is not declared in the schema, did you mean `pay`"),
        (BUDGET + 'measure = "args.cents"\nactions = ["look"]', 5, "action `look` has no argument `cents`"),
        (BUDGET + 'measure = "args.cent"', 5, "no action has an argument `cent`"),
        (BUDGET + 'measure = "args.rate"\nactions = ["pay"]', 5, '`@scaled("rate*100") rate_cents: Long`'),
        (BUDGET + '[[budget]]\nname = "b"\nmax = 1', 6, "budget `b` is there twice"),
        (LOOP + "max_perod = 2", 5, "did you mean `max_period`"),
        (LOOP + "max_period = 9", 5, "from 1 to 8, got 9"),
        (V2 + '[[loop]]\nname = "l"', 2, "`max_repeats` must be an integer from 0 to 1000000, it is missing"),
        (LOOP + 'actions = ["x"]', 5, "loop `l`: action 'x' is not declared"),
        (BREAKER + "max_error_rate = 1.0", 4, "from 0 to below 1"),
        (BREAKER + "min_calls = 30", 4, "from 1 to 20, got 30"),
        (BREAKER + "open_four = 1", 4, "did you mean `open_for`"),
        (V2 + "[[braker]]\n", 2, "unknown key `braker`, did you mean `breaker`"),
        (
            '[[budget]]\nname = "b"\nmax = 3\nwindow = "1h"',
            4,
            "`window` is not of version 1; it needs `version = 2`",
        ),
        ('[[budget]]\nname = "b"\nmax = 3\nper = "tenant"', 4, "got 'tenant'; it needs `version = 2`"),
        ('[[loop]]\nname = "b"\nmax_repeats = 3', 1, "it needs `version = 2`"),
        ("version = true", 1, "`version` must be 1 or 2"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_way_out(text: str, line: int, message: str) -> None:
    with pytest.raises(LimitsError) as caught:
        bundle(text)
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("limits.toml", line)


def test_a_file_of_version_1_counts_every_call_of_the_session() -> None:
    limits = bundle('[[budget]]\nname = "few"\nmax = 2\nactions = ["pay"]').limits
    assert limits.judge(request("look", calls=9), {}).refusal is None
    refusal = limits.judge(request("pay", calls=2), {}).refusal
    assert refusal is not None
    assert refusal.message == "budget 'few' allows 2 calls per session, 2 ran"
    assert limits.judge(request("pay", calls=1), {}) == (None, ())


def one(text: str) -> Limits:
    return parse_limits(V2 + text)


@pytest.mark.parametrize(
    ("per", "window", "measure", "used", "projection", "code"),
    [
        ("session", None, "calls", 2, {}, None),
        ("session", None, "calls", 3, {}, "budget_spent"),
        ("tenant", "60s", "calls", 3, {}, "rate_exceeded"),
        ("tool", None, "args.cents", 0, {"cents": 3}, None),
        ("tool", None, "args.cents", 1, {"cents": 3}, "budget_spent"),
        ("tool", None, "args.cents", 3, {}, None),
        ("tool", None, "args.cents", 3, {"cents": 0}, None),
        ("tool", None, "args.cents", 0, {"cents": -1}, "amount_invalid"),
        ("tool", None, "args.cents", 0, {"cents": "3"}, "amount_invalid"),
        ("tool", None, "args.cents", 0, {"cents": True}, "amount_invalid"),
        ("tool", None, "args.a.cents", 1, {"a": {"cents": 3}}, "budget_spent"),
        ("tool", None, "args.a.cents", 9, {"a": 3}, "budget_spent"),
        ("principal", "1h", "tokens", 2, {}, None),
        ("principal", "1h", "tokens", 3, {}, "rate_exceeded"),
    ],
)
def test_a_budget_by_what_was_recorded(
    per: str, window: str | None, measure: str, used: int, projection: Any, code: str | None
) -> None:
    text = f'[[budget]]\nname = "b"\nper = "{per}"\nmeasure = "{measure}"\nmax = 3\n'
    limits = one(text + (f'window = "{window}"' if window else ""))
    meter = limits.budgets[0].meter
    asked = request(calls=used) if meter.of_session else request(meters={meter.name: used})
    found = limits.judge(asked, projection)
    assert (None if found.refusal is None else found.refusal.code) == code
    assert found.missing == ()
    assert code is None or code in REASONS


def test_a_counter_the_record_does_not_have_is_missing_not_zero() -> None:
    limits = one('[[budget]]\nname = "b"\nper = "tenant"\nmax = 3\nwindow = "60s"')
    assert limits.judge(request(), {}) == (None, ("limits.calls per tenant in 1m",))
    assert limits.judge(request(meters={"calls per tenant in 61s": 0}), {}).missing
    tokens = one('[[budget]]\nname = "b"\nmeasure = "tokens"\nmax = 3')
    assert tokens.judge(request(), {}).missing == ("limits.tokens per session",)  # a record of version 1
    counted = request(session={"input_tokens": 1, "output_tokens": 2})
    assert tokens.judge(counted, {}).refusal is not None


def test_the_sessions_own_counters_bound_what_is_counted_of_some_tools() -> None:
    limits = one('[[budget]]\nname = "b"\nmax = 3\nactions = ["pay"]')
    assert limits.judge(request(calls=2), {}) == (None, ())  # no more of `pay` than of all
    assert limits.judge(request(calls=3), {}).missing == ('limits.calls per session of ["pay"]',)
    assert limits.judge(request(calls=3, meters={'calls per session of ["pay"]': 2}), {}) == (None, ())


def test_a_sure_refusal_goes_before_what_is_missing() -> None:
    limits = one('[[budget]]\nname = "a"\nper = "tenant"\nmax = 3\n[[budget]]\nname = "b"\nmax = 3\n')
    found = limits.judge(request(calls=3), {})
    assert found.refusal is not None
    assert found.refusal.message.startswith("budget 'b'")


def test_the_name_and_the_bound_are_no_part_of_what_is_recorded() -> None:
    two = [one(f'[[budget]]\nname = "{name}"\nper = "tenant"\nmax = {most}').budgets[0] for name, most in (("a", 1), ("b", 9))]  # fmt: skip
    assert two[0].meter == two[1].meter


@given(st.integers(1, 2**42))
def test_a_duration_reads_back(millis: int) -> None:
    limits = one(f'[[budget]]\nname = "b"\nmax = 1\nwindow = "{duration(millis)}"')
    assert limits.budgets[0].meter.window_ms == millis


@pytest.mark.parametrize(
    ("cycles", "repeats", "period", "refused"),
    [
        ([3], 3, 1, False), ([4], 3, 1, True), ([0, 7], 3, 2, False), ([0, 8], 3, 2, True), ([0, 8], 3, 1, False),
        ([], 0, 8, False), ([1], 0, 1, True), ([0, 1], 0, 2, False),
    ],
)  # fmt: skip
def test_a_loop_by_what_was_recorded(cycles: list[int], repeats: int, period: int, refused: bool) -> None:
    limits = one(f'[[loop]]\nname = "l"\nmax_repeats = {repeats}\nmax_period = {period}')
    found = limits.judge(request(cycles={"*": cycles}), {})
    assert (found.refusal is not None) == refused
    assert found.refusal is None or found.refusal.code == "loop_detected"
    assert limits.judge(request(), {}).missing == ("limits.cycles of *",)


def test_a_breaker_by_what_was_recorded() -> None:
    limits = one('[[breaker]]\nname = "k"')
    key = limits.breakers[0].key

    def code(state: Any) -> str | None:
        refusal = limits.judge(request(breakers={key: state}), {}).refusal
        return None if refusal is None else refusal.code

    assert code({"state": "closed", "calls": 9, "errors": 0}) is None
    assert code({"state": "open", "calls": 9, "errors": 9, "until": 0}) == "breaker_open"
    assert code({"state": "half_open", "calls": 9, "errors": 9, "probing": 0}) is None
    assert code({"state": "half_open", "calls": 9, "errors": 9, "probing": 1}) == "breaker_open"
    other = one('[[breaker]]\nname = "k"\nmin_calls = 6')
    assert other.judge(request(breakers={key: {"state": "closed"}}), {}).missing == (
        f"limits.{other.breakers[0].key}",
    )


def test_a_stop_goes_before_everything_and_needs_no_limits() -> None:
    limits = one('[[budget]]\nname = "b"\nmax = 0')
    stopped = request(stopped={"id": "x", "by": "ops", "reason": "fire", "what": "tool 'pay'"})
    for each in (limits, parse_limits("")):
        refusal = each.judge(stopped, {}).refusal
        assert refusal is not None
        assert (refusal.code, refusal.message) == ("stopped", "emergency stop of tool 'pay' by ops: fire")


def test_calls_for_nobody_are_not_held_to_a_budget_of_those_they_are_for() -> None:
    limits = one('[[budget]]\nname = "b"\nper = "on_behalf_of"\nmax = 0')
    assert limits.judge(request(), {}) == (None, ())
    assert limits.judge(request(behalf=EntityUid("User", "u")), {}).missing


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ("context.session.calls > 1", {"calls"}),
        ("context.session has wall_ms && context.session.wall_ms > 1", {"wall_ms"}),
        ("context has session.repeats", {"repeats"}),
        ('context["session"]["failures"] == 1', {"failures"}),
        ("context.session == context.session", "all"),
        ('context.tenant == "x"', set()),
    ],
)  # fmt: skip
def test_which_counters_policies_watch(condition: str, reads: Any) -> None:
    guarded = condition if "has " in condition else f"context.session has failures && {condition}"
    loaded = bundle("", f'@id("p") permit(principal, action, resource) when {{ {guarded} }};')
    every = {"calls", "cost_micros", "failures", "input_tokens", "output_tokens", "repeats", "wall_ms"}
    expected = every if reads == "all" else reads | (set() if "has " in condition else {"failures"})
    assert loaded.limits.watched == expected


def test_a_patch_that_refers_to_a_counter_watches_it() -> None:
    patch = '@patch("{\\"cents\\": {\\"$ref\\": \\"context.session.cost_micros\\"}}")'
    text = f'@id("p") permit(principal, action, resource); @id("m") @verdict("modify") {patch} forbid(principal, action == Action::"pay", resource);'
    assert bundle("", text).limits.watched == {"cost_micros"}
