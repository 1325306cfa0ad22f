"""First divergence: small histories by hand, and generated ones against a reference that looks at every pair."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.entities import EntityUid
from runtime.limits import Breaker
from runtime.limits_file import parse_limits
from runtime.request import Request, RequestInvalid, ResourceTemplate
from runtime.spec import parse_spec
from runtime.trace import DECISIONS
from workbench.compare import compare
from workbench.diverging import Divergence
from workbench.diverging.gathering import gather
from workbench.diverging.reach import reached
from workbench.diverging.result import diverged
from workbench.diverging.shared import InForce
from workbench.errors import ColumnUnknown, NotComparable
from workbench.lake import _empty
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.limits import Budget

START = datetime(2026, 11, 1, tzinfo=UTC)
TEMPLATES = {
    "pay": "Order::{order}",
    "look": "Order::{order}",
    "send": "Box::in-{to}-{order}",
    "ping": "Host::h",
}
LIMITS = {
    "none": parse_limits("version = 2\n"),
    "mixed": parse_limits(
        """
version = 2
[[budget]]
name = "own"
max = 3
[[budget]]
name = "rate"
per = "tenant"
max = 9
window = "4m"
actions = ["pay"]
[[breaker]]
name = "down"
per = "tool"
actions = ["send"]
[[loop]]
name = "again"
max_repeats = 2
"""
    ),
    "user": parse_limits(
        """
version = 2
[[budget]]
name = "user"
per = "on_behalf_of"
max = 5
actions = ["look", "pay"]
[[budget]]
name = "cost"
per = "principal"
measure = "cost_micros"
max = 5
window = "1m"
actions = ["ping"]
"""
    ),
}
FACT = """
[[facts]]
name = "{name}"
actions = {actions}
source = "s"
key = {{ {key} }}
fields = ["x"]
{more}
"""
HEAD = 'version = 1\n[sources.s]\nkind = "delta"\n'
SPECS = {
    "none": parse_spec("version = 1\n"),
    "order": parse_spec(
        HEAD
        + FACT.format(
            name="order",
            actions='["pay", "send"]',
            key='id = "args.order", t = "tenant"',
            more='tenant_column = "t"',
        )
    ),
    "shared": parse_spec(
        HEAD
        + FACT.format(
            name="a", actions='["*"]', key='id = "args.deep.who", k = "resource.type"', more="shared = true"
        )
        + FACT.format(name="b", actions='["ping"]', key='id = "principal.id"', more="shared = true")
    ),
}
EVERY = InForce(limits=LIMITS, specs=SPECS)


@dataclass(frozen=True)
class Said:
    """What a replay says of a decision; the effect is given, not derived."""

    verdict: str | None = "allow"
    effect: str = "same"
    code: str = "c"
    by: tuple[str, ...] = ()
    args: str | None = None
    """Enforced, if others than given."""


@dataclass(frozen=True)
class Made:
    """One decision of a log."""

    session: str = "s"
    tool: str = "pay"
    order: Any = "o"
    cand: Said = Said()
    base: Said | None = None
    """None: as recorded."""
    then: Said = Said()
    tenant: str = "t"
    principal: str = "bot"
    user: str | None = None
    who: str | None = None
    writes: tuple[str, ...] | None = None
    kind: str | None = None
    """Of the tool's effect."""
    limits: str = "none"
    spec: str = "none"
    minute: int | None = None
    """When; None: its place in the log."""
    writer: str = "w"

    @property
    def args(self) -> dict[str, Any]:
        given = {"order": self.order, "to": "x", "deep": {"who": self.who}}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def enforced(self) -> str | None:
        if self.then.verdict == "block":
            return None
        return self.then.args or json.dumps(self.args)

    def resource(self, args: str | None = None) -> EntityUid | None:
        try:
            return ResourceTemplate.parse(TEMPLATES[self.tool]).resolve(
                json.loads(args) if args else self.args
            )
        except RequestInvalid:
            return None

    def at(self, place: int) -> datetime:
        return START + timedelta(minutes=place if self.minute is None else self.minute)


@dataclass(frozen=True)
class Numbered:
    """A decision with its place in its ledger."""

    made: Made
    place: int
    position: int


def in_ledgers(log: Sequence[Made]) -> list[Numbered]:
    """Decisions in (writer, position) order, as lake and replays have them."""
    seen: dict[str, int] = {}
    found = []
    for place, made in enumerate(log):
        seen[made.writer] = seen.get(made.writer, 0) + 1
        found.append(Numbered(made, place, seen[made.writer]))
    return sorted(found, key=lambda row: (row.made.writer, row.position))


def uid_columns(role: str, uid: EntityUid | None) -> dict[str, Any]:
    return {f"{role}_type": uid.type if uid else None, f"{role}_id": uid.id if uid else None}


def decision(row: Numbered) -> dict[str, Any]:
    made = row.made
    patched = made.resource(made.then.args) if made.then.args else None
    return {
        "decision_id": f"d{row.place}", "writer": made.writer, "position": row.position, "tenant": made.tenant,
        "session_id": made.session, "decided_at": made.at(row.place), "evaluated_at": made.at(row.place),
        **uid_columns("principal", EntityUid("Agent", made.principal)),
        **uid_columns("on_behalf_of", None if made.user is None else EntityUid("User", made.user)),
        "tool": made.tool, **uid_columns("resource", made.resource()), "resource_template": TEMPLATES[made.tool],
        "args": json.dumps(made.args), "verdict": made.then.verdict, "enforced_args": made.enforced,
        **uid_columns("enforced_resource", patched), "effect": made.kind,
        "writes": None if made.writes is None or made.enforced is None else [*made.writes],
        "limits_hash": made.limits, "context_spec_hash": made.spec,
    }  # fmt: skip


def replayed(row: Numbered, said: Said) -> dict[str, Any]:
    made, then = row.made, row.made.then
    decided = said.verdict is not None
    return {
        "decision_id": f"d{row.place}", "writer": made.writer, "position": row.position, "tenant": made.tenant,
        "session_id": made.session, "tool": made.tool, "kind": "call", "decided_at": made.at(row.place),
        "args": json.dumps(made.args),
        "recorded_verdict": then.verdict, "recorded_decided_by": "policy", "recorded_reason_code": then.code,
        "recorded_determining": [*then.by], "status": "decided" if decided else said.effect, "missing": [],
        "verdict": said.verdict, "decided_by": "policy" if decided else None, "reason_code": said.code,
        "determining": [*said.by], "then": "ran", "effect": said.effect, "errors": [],
        "enforced_args": None if said.verdict in (None, "block") else said.args or json.dumps(made.args),
    }  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """Where a replay is from."""

    uri: str = "lake"
    labels: pl.LazyFrame = field(
        default_factory=lambda: pl.LazyFrame(
            schema=dict.fromkeys(
                ("tenant", "session_id", "decision_id", "label", "value", "source"), pl.String
            )
        )
    )


@dataclass(frozen=True)
class Told:
    """A replay by hand."""

    frame: pl.LazyFrame
    lake: Tables = field(default_factory=Tables)
    id: str = "r"
    policy: tuple[str, str] = ("p", "v")
    context: str = "recorded"
    pins: dict[str, object] = field(default_factory=lambda: {"ledgers": {"w": 9}})


def frames(log: Sequence[Made]) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]:
    rows = in_ledgers(log)
    schema = {name: kind for name, kind in _empty(DECISIONS).schema.items() if name in decision(rows[0])}
    return (
        pl.LazyFrame([decision(row) for row in reversed(rows)], schema=schema),
        pl.LazyFrame([replayed(row, row.made.base or row.made.then) for row in rows], schema=dict(FRAME)),
        pl.LazyFrame([replayed(row, row.made.cand) for row in rows], schema=dict(FRAME)),
    )


def told(log: Sequence[Made], found: InForce = EVERY) -> Divergence:
    decisions, base, cand = frames(log)
    return diverged(compare(Told(base), Told(cand)), decisions, found)


def short(log: Sequence[Made], found: InForce = EVERY) -> str:
    """One letter a decision, in the order they were given: Exact, in Session, Across."""
    rows = told(log, found).frame.select("decision_id", "divergence").collect()
    letter = {"exact": "E", "conditional_in_session": "S", "conditional_across_sessions": "A"}
    by_id = {ident: letter[kind] for ident, kind in rows.iter_rows()}
    return "".join(by_id[f"d{place}"] for place in range(len(log)))


# The reference: every pair, in plain Python.


def answer(verdict: str | None) -> str | None:
    return "runs" if verdict in ("allow", "modify") else verdict


def acts(made: Made) -> bool:
    return any(
        said.verdict is None or said.effect != "same" or answer(said.verdict) != answer(made.then.verdict)
        for said in (made.base or made.then, made.cand)
    )


def marks(made: Made) -> bool:
    def other(said: Said) -> bool:
        refused = answer(said.verdict) != "runs"
        return refused and (said.code, said.by) != (made.then.code, made.then.by)

    return acts(made) or any(other(said) for said in (made.base or made.then, made.cand))


def request(row: Numbered, args: dict[str, Any]) -> Request:
    made = row.made
    return Request(
        decision_id="d", session_id=made.session, step=0, tenant=made.tenant,
        principal=EntityUid("Agent", made.principal),
        on_behalf_of=None if made.user is None else EntityUid("User", made.user), scopes=(), tool=made.tool,
        resource=ResourceTemplate.parse(TEMPLATES[made.tool]), required_scopes=(), args=args, idempotency_key=None,
        at=made.at(row.place), session_state={},
    )  # fmt: skip


def variants(made: Made) -> Iterator[str]:
    """Arguments that are or may be enforced, beside those given."""
    for said in (made.then, made.base or made.then, made.cand):
        if said.verdict in ("modify", "approve", "allow") and said.args:
            yield said.args


def resources(made: Made) -> set[EntityUid]:
    found = {made.resource(), *(made.resource(args) for args in variants(made))}
    return {uid for uid in found if uid is not None}


def written(made: Made) -> set[EntityUid]:
    if made.kind == "read":
        return set()
    listed = None if made.enforced is None else made.writes
    declared = {EntityUid.parse(text) for text in listed or ()}
    elsewhere = {"altered", "released", "unknown", "undecided", "quarantined"}
    moved = any(said.effect in elsewhere for said in (made.base or made.then, made.cand))
    return declared | (resources(made) if listed is None or moved else set())


def reads(made: Made, uid: EntityUid, tenant: str, found: InForce) -> bool:
    """Whether a decision reads an entity that was written in a tenant."""
    named = {EntityUid("Agent", made.principal), *resources(made)}
    named |= set() if made.user is None else {EntityUid("User", made.user)}
    if tenant == made.tenant and uid in named:
        return True
    specs = [found.specs[made.spec]] if made.spec in found.specs else []
    for spec in (*specs, *found.more_specs):
        for fact in spec.asked(made.tool):
            shared = fact.tenant_column is None
            for column, path in fact.paths:
                if (
                    column == fact.tenant_column
                    or path[-1] == "type"
                    or not (shared or tenant == made.tenant)
                ):
                    continue
                if uid.id in looked_up(made, path):
                    return True
    return False


def looked_up(made: Made, path: tuple[str, ...]) -> set[str]:
    if path == ("principal", "id"):
        return {made.principal}
    if path == ("tenant",):
        return {made.tenant}
    found = set()
    for args in (made.args, *map(json.loads, variants(made))):
        value: Any = args
        for name in path[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found.add(value if isinstance(value, str) else json.dumps(value))
    return found


def shares_limit(row: Numbered, earlier: Numbered, found: InForce) -> bool:
    one, two = request(row, {}), request(earlier, {})
    own = [found.limits[row.made.limits]] if row.made.limits in found.limits else []
    limits: list[Budget | Breaker] = []
    for each in (*own, *found.more_limits):
        limits += [*each.budgets, *each.breakers]
    return one.tenant == two.tenant and any(
        limit.applies(one.tool) and shares(limit, one, two) for limit in limits
    )


def shares(limit: Budget | Breaker, one: Request, two: Request) -> bool:
    """Whether what became of `two` moves what `one` is judged by."""
    if isinstance(limit, Breaker):
        same = limit.scope(one) is not None and limit.scope(one) == limit.scope(two)
        return limit.applies(two.tool) and same and limit.per != "session"
    meter = limit.meter
    if meter.per == "session" or not meter.counts(two.tool) or meter.scope(one) is None:
        return False
    if meter.scope(one) != meter.scope(two):
        return False
    if meter.window_ms is None or meter.is_after:
        return True
    gone = (one.at - two.at) / timedelta(milliseconds=1)
    return gone < meter.window_ms + -(-meter.window_ms // 60)


def reference(log: Sequence[Made], found: InForce) -> str:
    latest: dict[str, datetime] = {}
    keyed = []
    for row in in_ledgers(log):
        at = row.made.at(row.place)
        latest[row.made.writer] = max(at, latest.get(row.made.writer, at))
        keyed.append(((latest[row.made.writer], row.made.writer, row.position), row))
    ordered = [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
    letters = {}
    for place, row in enumerate(ordered):
        letters[row.place] = letter_of(row, ordered[:place], found)
    return "".join(letters[place] for place in range(len(log)))


def letter_of(row: Numbered, earlier: Sequence[Numbered], found: InForce) -> str:
    made = row.made
    same = [e for e in earlier if (e.made.tenant, e.made.session) == (made.tenant, made.session)]
    if any(marks(each.made) for each in same):
        return "S"
    wide = not found.known or made.limits not in found.limits or made.spec not in found.specs
    for each in earlier:
        if not acts(each.made):
            continue
        if wide and each.made.tenant == made.tenant:
            return "A"
        if shares_limit(row, each, found):
            return "A"
        if any(reads(made, uid, each.made.tenant, found) for uid in written(each.made)):
            return "A"
    return "E"


BLOCK = Said("block", "prevented", by=("p",))
REFUSED = Said("block", "same", by=("p",))


def test_after_a_changed_effect_its_session_is_conditional() -> None:
    log = [Made(), Made(cand=BLOCK), Made(order="o2"), Made("other", order="o3")]
    assert short(log) == "EESE"
    found = told(log)
    assert found.counts() == {
        "exact": 3, "conditional_in_session": 1, "conditional_across_sessions": 0, "decisions": 4,
    }  # fmt: skip
    assert found.frame.select("after", "through").collect().rows()[2] == ("d1", "session")


@pytest.mark.parametrize(
    ("then", "cand", "expected"),
    [
        (Said(), Said(), "EE"),
        (Said(), Said(by=("other",)), "EE"),  # a permit's name is not seen
        (REFUSED, REFUSED, "EE"),
        (REFUSED, Said("block", "same", by=("q",)), "ES"),  # the message names the policy
        (REFUSED, Said("block", "same", code="d", by=("p",)), "ES"),
        (REFUSED, Said("approve", "escalated", by=("p",)), "ES"),
        (Said("approve", "same"), Said("allow", "same"), "ES"),  # granted then, runs at once now
        (Said("allow"), Said("modify", "same"), "EE"),
        (Said(), Said(None, "undecided"), "ES"),
        (Said(), Said(None, "quarantined"), "ES"),
        (Said(), Said("block", "unknown"), "ES"),
    ],
)
def test_what_the_agent_sees_otherwise(then: Said, cand: Said, expected: str) -> None:
    assert short([Made(then=then, cand=cand), Made(order="z")]) == expected


def test_a_base_that_departs_from_the_record_counts_too() -> None:
    assert short([Made(base=BLOCK), Made(order="z")]) == "ES"


def test_another_session_is_reached_through_the_resource() -> None:
    assert short([Made("a", cand=BLOCK), Made("b"), Made("b", order="z")]) == "EAE"
    assert short([Made("b"), Made("a", cand=BLOCK)]) == "EE"  # what was before is exact
    assert short([Made("a", cand=BLOCK, tenant="u"), Made("b")]) == "EE"  # another tenant's order
    assert short([Made("a", cand=BLOCK, kind="read"), Made("b")]) == "EE"  # a reader writes nothing
    refusal = Made("a", then=REFUSED, cand=Said("block", "same", by=("q",)))
    assert short([refusal, Made("b")]) == "EE"  # another refusal is no changed action


def test_what_the_tool_declares_counts_instead_of_its_resource() -> None:
    declared = Made("a", cand=BLOCK, writes=('Agent::"b\\"o"',))
    assert short([declared, Made("b"), Made("c", principal='b"o', order="z")]) == "EEA"
    assert short([Made("a", cand=BLOCK, writes=()), Made("b")]) == "EE"
    assert short([Made("a", cand=Said("modify", "altered", args='{"order":"q"}'), writes=()),
                  Made("b"), Made("c", order="q"), Made("d", order="r")]) == "EAAE"  # fmt: skip


def test_a_fact_is_read_by_what_it_is_looked_up_by() -> None:
    wrote = Made("a", "ping", cand=BLOCK, writes=('Order::"o"',))
    reader = Made("b", "send", spec="order")
    assert short([wrote, reader]) == "EA"
    assert short([wrote, Made("b", "send")]) == "EE"  # its resource is a box: only the fact is an order's
    assert short([wrote, Made("b", "send", spec="order", tenant="u")]) == "EE"
    assert short([wrote, Made("b", "ping", order="z", who="o", spec="shared", tenant="u")]) == "EA"
    five = Made("a", "ping", cand=BLOCK, writes=('Order::"5"',))
    assert short([five, Made("b", "send", order=5, spec="order")]) == "EA"


def test_a_counter_is_shared_by_whom_it_counts() -> None:
    log = [
        Made("a", order="1", cand=BLOCK, limits="mixed"),
        Made("b", order="2", limits="mixed"),
        Made("b", order="3", limits="none"),  # judged by none
        Made("c", order="4", limits="mixed", tenant="u"),
        Made("c", "look", order="5", limits="mixed"),  # the budget is for payments
        Made("d", order="6", limits="mixed", minute=100),  # forgotten
    ]
    assert short(log) == "EAEEEE"
    assert short(log, InForce(limits=LIMITS, specs=SPECS, more_limits=(LIMITS["mixed"],))) == "EAAEEE"


def test_a_window_holds_a_sixtieth_more_and_the_latest_change_counts() -> None:
    log = [
        Made("a", order="1", cand=BLOCK, limits="mixed", minute=0),
        Made("b", order="2", cand=BLOCK, limits="mixed", minute=3),
        Made("c", order="3", limits="mixed", minute=7),  # 4 min after the second, in the bucket's end
        Made("d", order="4", limits="mixed", minute=8),
    ]
    assert short(log) == "EAAE"


def test_what_nobody_can_show_is_shared() -> None:
    log = [Made("a", order="1", cand=BLOCK), Made("b", order="2", limits="lost"), Made("c", order="3")]
    assert short(log) == "EAE"
    assert short(log, InForce(limits=LIMITS, specs=SPECS, known=False)) == "EAA"
    assert told(log).frame.collect()["through"].to_list() == [None, "unknown", None]


def test_ledgers_are_put_in_order_by_time() -> None:
    log = [
        Made("a", cand=BLOCK, writer="w", minute=5),
        Made("b", writer="v", minute=4),  # before it, though `v` comes first by name
        Made("b", writer="v", minute=6),
        Made("b", writer="v", minute=1),  # its clock went back
    ]
    assert short(log) == "EEAA"


def test_chains_are_counted_apart() -> None:
    log = [Made("a", cand=BLOCK), Made("b"), Made("b", order="z"), Made("c", order="z"), Made("d", order="y")]
    found = told(log)
    assert short(log) == "EAEEE"
    assert found.chained == 2


def test_without_changes_everything_is_exact() -> None:
    found = told([Made(), Made(then=REFUSED, cand=REFUSED), Made("b")])
    assert found.counts()["exact"] == 3
    assert found.chained == 0


def test_faces_say_which_numbers_are_exact() -> None:
    log = [Made(), Made(cand=BLOCK), Made(order="o2", cand=BLOCK), Made("other", order="o3", cand=BLOCK)]
    found = told(log)
    assert found.headline == (
        "No earlier change reaches 3 of 4 decisions (75.0 %): what is said of them is exact. "
        "1 are conditional in their session, 0 across sessions"
    )
    assert "Of 3 prevented, 2 exact and 1 conditional." in repr(found)
    assert found.as_dict()["by_effect"] == [
        {"effect": "same", "exact": 1, "conditional_in_session": 0, "conditional_across_sessions": 0, "decisions": 1},
        {"effect": "prevented", "exact": 2, "conditional_in_session": 1, "conditional_across_sessions": 0, "decisions": 3},
    ]  # fmt: skip
    with pytest.raises(ColumnUnknown, match="did you mean `tool`"):
        found.by("tol")


def test_rows_that_do_not_fit_are_refused() -> None:
    decisions, base, cand = frames([Made(), Made()])
    with pytest.raises(NotComparable, match="different decisions"):
        diverged(compare(Told(base), Told(cand)), decisions.tail(1), EVERY)


SAID = st.one_of(
    st.just(Said()),
    st.just(Said()),
    st.builds(
        Said,
        verdict=st.sampled_from(["allow", "block", "approve"]),
        effect=st.sampled_from(["same", "same", "prevented", "released"]),
        by=st.sampled_from([(), ("p",)]),
    ),
    st.builds(Said, verdict=st.none(), effect=st.sampled_from(["undecided", "quarantined"])),
    st.builds(
        Said,
        verdict=st.sampled_from(["modify", "approve"]),
        effect=st.sampled_from(["same", "altered", "held"]),
        args=st.sampled_from(['{"order": "x"}', '{"order": 5, "deep": {"who": "y"}}', '{"to": "x"}']),
    ),
)
NAMES = st.sampled_from(["x", "y", "z"])
WRITTEN = st.sampled_from(['Order::"x"', 'Agent::"y"', 'User::"z"', 'Order::"5"'])
MADE = st.builds(
    Made,
    session=st.sampled_from("abcdefgh"),
    tool=st.sampled_from(sorted(TEMPLATES)),
    order=st.sampled_from(["x", "y", "z", 5, None]),
    cand=SAID,
    base=st.none() | st.none() | SAID,
    then=st.builds(
        Said,
        verdict=st.sampled_from(["allow", "allow", "block", "approve"]),
        by=st.sampled_from([(), ("p",)]),
    )
    | SAID.filter(lambda said: said.verdict is not None),
    tenant=st.sampled_from("ttu"),
    principal=NAMES,
    user=st.none() | NAMES,
    who=st.none() | NAMES,
    writes=st.none()
    | st.lists(
        st.sampled_from(['Order::"x"', 'Agent::"y"', 'User::"z"', 'Order::"5"']), max_size=2, unique=True
    ).map(tuple),
    kind=st.sampled_from([None, None, "read", "staged"]),
    limits=st.sampled_from([*LIMITS, "lost"]),
    spec=st.sampled_from([*SPECS, *SPECS, "lost"]),
    minute=st.none() | st.integers(0, 12),
    writer=st.sampled_from("vw"),
)
FOUND = st.builds(
    InForce,
    limits=st.just(LIMITS),
    specs=st.just(SPECS),
    more_limits=st.sampled_from([(), (), (LIMITS["mixed"],), (LIMITS["user"],)]),
    more_specs=st.sampled_from([(), (), (SPECS["shared"],)]),
    known=st.sampled_from([True, True, True, False]),
)


def check(log: list[Made], found: InForce) -> None:
    assert short(log, found) == reference(log, found)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.lists(MADE, min_size=1, max_size=14), FOUND)
def test_generated_histories_agree_with_the_reference(log: list[Made], found: InForce) -> None:
    check(log, found)


@pytest.mark.fuzz
@settings(max_examples=5_000, deadline=None)
@given(st.lists(MADE, min_size=2, max_size=25), FOUND)
def test_many_generated_histories_agree_with_the_reference(log: list[Made], found: InForce) -> None:
    check(log, found)


@settings(max_examples=30, deadline=None)
@given(st.lists(MADE, min_size=1, max_size=14))
def test_the_change_that_is_named_comes_before(log: list[Made]) -> None:
    decisions, base, cand = frames(log)
    rows = reached(gather(decisions, [base, cand], EVERY))
    for name in ("in_session", "across"):
        assert (rows[name].is_null() | (rows[name] < rows["order"])).all()
