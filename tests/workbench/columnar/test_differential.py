"""Columnar against Cedar itself: generated policy sets, entities in several versions, rows of many types.

Types are mostly respected, so that expressions get somewhere, and now and then are not. Attributes have their usual
type most of the time; some are missing, some are of another type. Counter-examples became cases of `test_operators`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

import cedarpy
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from workbench.columnar import ColumnarAnswer, decide_cases

LONGS = (0, 1, -1, 2, 3, 7, -86_400_001, 2**63 - 1, -(2**63), 2**62, -(2**62), 10_000_000_000)
TEXTS = ("", "a", "b", "ab", "a*b", "a\nb", "é", "日本", "x y", "l1", "[a-c]+", "\\", '"', "\u0000", "aXb")
IDS = ("a", "b", "c", "d e", "é")
TYPES = ("U", "G", "D")
DECIMALS = ("0.0", "1.5", "-1.5", "1.50", "922337203685477.5807", "-922337203685477.5808", "nope", "1.23456")
IPS = (
    "127.0.0.1",
    "10.0.0.0/8",
    "10.1.2.3",
    "::1",
    "ff00::1",
    "224.0.0.1",
    "0.0.0.0/0",
    "::/0",
    "bad",
    "10.0.0.1/24",
)
DATES = (
    "2024-01-01",
    "1969-12-31T23:59:59.999Z",
    "0000-01-01",
    "9999-12-31T23:59:59Z",
    "2024-02-29T12:00:00+0530",
    "2023-02-29",
)
DURATIONS = (
    "0ms",
    "1h",
    "-1h",
    "1d2h3m4s5ms",
    "9223372036854775807ms",
    "-9223372036854775808ms",
    "-1ms",
    "x",
)
PATTERNS = ("*", "a*", "*b", "*a*", "a*b", r"a\*b", "", "a", "*é*", "a**b", "[a-c]+", '*\\"*', "*.*")
KINDS = ("long", "bool", "string", "decimal", "ip", "datetime", "duration", "entity", "set", "record")

ATTRIBUTES = {
    "n": "long",
    "k": "long",
    "t": "bool",
    "s": "string",
    "m": "entity",
    "g": "entity",
    "ss": "set",
    "gs": "set",
    "r": "record",
    "dec": "decimal",
    "ip": "ip",
    "dt": "datetime",
    "du": "duration",
    "x": "long",
    "y": "string",
    "z": "set",
}
"""Usual kind of an attribute, wherever it stands."""
TAGS = ("a", "b", "ab", "é")


def quote(text: str) -> str:
    """A Cedar string literal."""
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\u0000": "\\0"}
    return '"' + "".join(special.get(c, c) for c in text) + '"'


@dataclass
class Maker:
    """Draws everything from one source of choices."""

    rng: Random
    mixed: float = 0.08
    """How often a type is not the usual one."""

    def kind(self, usual: str) -> str:
        """A kind: the usual one, mostly."""
        return self.rng.choice(KINDS) if self.rng.random() < self.mixed else usual

    # Data

    def extension(self, kind: str) -> Any:
        texts = {"decimal": DECIMALS, "ip": IPS, "datetime": DATES, "duration": DURATIONS}[kind]
        bad = ("nope", "1.23456", "bad", "2023-02-29", "x")
        arg = self.rng.choice([text for text in texts if text not in bad])
        return {"__extn": {"fn": kind, "arg": arg}}

    def uid(self) -> EntityUid:
        return EntityUid(self.rng.choice(TYPES), self.rng.choice(IDS))

    def value(self, usual: str, depth: int = 2) -> Any:  # noqa: PLR0911 - a case a kind
        rng = self.rng
        match self.kind(usual):
            case "long":
                return rng.choice(LONGS)
            case "bool":
                return rng.random() < 0.5
            case "string":
                return rng.choice(TEXTS)
            case "entity":
                return {"__entity": self.uid().json()}
            case "set":
                if depth == 0:
                    return []
                inner = rng.choice(("long", "string", "entity", "entity", "bool", "record", "set", "decimal"))
                return [self.value(inner, depth - 1) for _ in range(rng.randrange(4))]
            case "record":
                if depth == 0:
                    return {}
                names = rng.sample(("x", "y", "z", "n", "m"), rng.randrange(4))
                return {name: self.value(ATTRIBUTES[name], depth - 1) for name in names}
            case kind:
                return self.extension(kind)

    def attrs(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.value(ATTRIBUTES[name]) for name in names if self.rng.random() < 0.8}

    def entity(self, uid: EntityUid) -> Entity:
        order = [EntityUid(kind, ident) for kind in TYPES for ident in IDS]
        later = [each for each in order if order.index(each) > order.index(uid)]
        parents = self.rng.sample(later, min(len(later), self.rng.choice((0, 0, 1, 2, 3))))
        tags = {tag: self.value("string", 1) for tag in TAGS if self.rng.random() < 0.4}
        return Entity(uid, self.attrs(tuple(ATTRIBUTES)), tuple(parents), tags)

    def store(self) -> dict[EntityUid, Entity]:
        uids = [EntityUid(kind, ident) for kind in TYPES for ident in IDS]
        return {uid: self.entity(uid) for uid in uids if self.rng.random() < 0.7}

    def cases(self, count: int) -> list[Case]:
        """Cases over a few entity stores; most entities are the same in all, some come in two versions."""
        base = self.store()
        stores = [base]
        for _ in range(self.rng.randrange(3)):
            changed = {
                uid: self.entity(uid) if self.rng.random() < 0.3 else each for uid, each in base.items()
            }
            stores.append({uid: each for uid, each in changed.items() if self.rng.random() < 0.9})
        slices = []
        for each in stores:
            action = Entity(
                EntityUid("Action", "view"),
                {},
                (EntityUid("Action", "all"),) if self.rng.random() < 0.7 else (),
            )
            slices.append(Slice((*each.values(), action)))
        return [self.case(self.rng.choice(slices)) for _ in range(count)]

    def case(self, entities: Slice) -> Case:
        principal = EntityUid("U", self.rng.choice(IDS)) if self.rng.random() < 0.8 else self.uid()
        resource = EntityUid("D", self.rng.choice(IDS)) if self.rng.random() < 0.8 else self.uid()
        action = EntityUid("Action", self.rng.choice(("view", "view", "edit")))
        return Case(principal, action, resource, self.attrs(tuple(ATTRIBUTES)), entities)

    # Policies

    def policies(self, count: int, depth: int) -> str:
        return "\n".join(self.policy(depth) for _ in range(count))

    def policy(self, depth: int) -> str:
        effect = self.rng.choice(("permit", "permit", "forbid"))
        clauses = "".join(
            f" {self.rng.choice(('when', 'when', 'unless'))} {{ {self.expr('bool', depth)} }}"
            for _ in range(self.rng.choice((1, 1, 2)))
        )
        action = self.rng.choice(
            ("action",) * 3
            + (
                'action == Action::"view"',
                'action in Action::"all"',
                'action in [Action::"edit", Action::"all"]',
            )
        )
        return f"{effect}({self.scope('principal')}, {action}, {self.scope('resource')}){clauses};"

    def scope(self, name: str) -> str:
        kind = "U" if name == "principal" else "D"
        return self.rng.choice(
            (name,) * 5
            + (
                f"{name} == {self.literal()}",
                f"{name} in {self.literal()}",
                f"{name} is {kind}",
                f"{name} is {kind} in {self.literal()}",
            )
        )

    def literal(self) -> str:
        uid = self.uid()
        return f"{uid.type}::{quote(uid.id)}"

    def leaf(self, kind: str) -> str:  # noqa: PLR0911 - a case a kind
        rng = self.rng
        match kind:
            case "long":
                return f"({rng.choice(LONGS[:6] if rng.random() < 0.8 else LONGS)})"
            case "bool":
                return rng.choice(("true", "false"))
            case "string":
                return quote(rng.choice(TEXTS))
            case "entity":
                return rng.choice(("principal", "resource", "action", self.literal()))
            case "set":
                return (
                    "["
                    + ", ".join(
                        self.leaf(rng.choice(("long", "string", "entity"))) for _ in range(rng.randrange(3))
                    )
                    + "]"
                )
            case "record":
                return rng.choice(("context", "{}", '{x: 1, y: "a"}', "{n: 1}"))
            case "decimal":
                return f"decimal({quote(rng.choice(DECIMALS))})"
            case "ip":
                return f"ip({quote(rng.choice(IPS))})"
            case "datetime":
                return f"datetime({quote(rng.choice(DATES))})"
            case _:
                return f"duration({quote(rng.choice(DURATIONS))})"

    def path(self, kind: str, depth: int) -> str:
        """An attribute that is usually of this kind."""
        names = [name for name, usual in ATTRIBUTES.items() if usual == kind]
        if self.rng.random() < 0.15 and depth > 0:
            return f"{self.expr('entity', depth - 1)}.getTag({self.expr('string', 0)})"
        base = self.rng.choice(
            (
                "principal",
                "resource",
                "context",
                "context",
                "principal.m",
                "resource.m",
                "context.m",
                "context.r",
                self.literal(),
            )
        )
        if depth > 1 and self.rng.random() < 0.2:
            base = f"({self.expr(self.rng.choice(('entity', 'record')), depth - 1)})"
        name = self.rng.choice(names)
        if self.rng.random() < 0.3 and kind != "bool":
            return f"(if {base} has {name} then {base}.{name} else {self.expr(kind, max(depth - 1, 0))})"
        return f"{base}.{name}"

    def expr(self, usual: str, depth: int) -> str:
        kind = self.kind(usual) if self.rng.random() < 0.4 else usual
        roll = self.rng.random()
        if roll < 0.12 or (depth <= 0 and roll < 0.5):
            return self.leaf(kind)
        if depth <= 0 or (roll < 0.4 and kind != "bool"):
            return self.path(kind, depth)
        if roll < 0.48:
            return f"(if {self.expr('bool', depth - 1)} then {self.expr(kind, depth - 1)} else {self.expr(kind, depth - 1)})"
        return f"({self.operation(kind, depth - 1)})"

    def operation(self, kind: str, depth: int) -> str:
        def e(kind: str) -> str:
            return self.expr(kind, depth)

        rng = self.rng
        match kind:
            case "bool":
                return self.condition(depth)
            case "long":
                method = rng.choice(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"))
                return rng.choice(
                    (
                        f"{e('long')} {rng.choice('+-*')} {e('long')}",
                        f"-({e('long')})",
                        f"{e('duration')}.{method}()",
                    )
                )
            case "set":
                inner = rng.choice(KINDS)
                return "[" + ", ".join(e(inner) for _ in range(rng.randrange(4))) + "]"
            case "record":
                return (
                    "{"
                    + ", ".join(
                        f"{name}: {e(ATTRIBUTES[name])}"
                        for name in rng.sample(("x", "y", "n"), rng.randrange(4))
                    )
                    + "}"
                )
            case "datetime":
                return rng.choice((f"{e('datetime')}.offset({e('duration')})", f"{e('datetime')}.toDate()"))
            case "duration":
                return rng.choice(
                    (f"{e('datetime')}.durationSince({e('datetime')})", f"{e('datetime')}.toTime()")
                )
            case _:
                return self.path(kind, depth)

    def condition(self, depth: int) -> str:
        def e(kind: str) -> str:
            return self.expr(kind, depth)

        rng = self.rng
        any_kind = rng.choice(KINDS)
        name = rng.choice(tuple(ATTRIBUTES))
        compare = rng.choice(("<", "<=", ">", ">="))
        decimal = rng.choice(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"))
        return rng.choice(
            (
                f"{e('bool')} && {e('bool')}",
                f"{e('bool')} || {e('bool')}",
                f"!{e('bool')}",
                f"{e(any_kind)} == {e(any_kind)}",
                f"{e(any_kind)} != {e(any_kind)}",
                f"{e('long')} {compare} {e('long')}",
                f"{e('datetime')} {compare} {e('datetime')}",
                f"{e('duration')} {compare} {e('duration')}",
                f"{e('decimal')}.{decimal}({e('decimal')})",
                f"{e('entity')} in {e('entity')}",
                f"{e('entity')} in {e('set')}",
                f"{e('entity')} in [{e('entity')}, {e('entity')}]",
                f"{e('entity')} is {rng.choice(TYPES)}",
                f"{e('entity')} is {rng.choice(TYPES)} in {e('entity')}",
                f"{rng.choice((e('entity'), e('record')))} has {name}",
                f"{rng.choice((e('entity'), e('record')))} has m.{name}",
                f"(context has {name} && context.{name} == {e(ATTRIBUTES[name])})",
                f"{e('string')} like {self.pattern()}",
                f"{e('set')}.contains({e(any_kind)})",
                f"{e('set')}.containsAll({e('set')})",
                f"{e('set')}.containsAny({e('set')})",
                f"{e('set')}.isEmpty()",
                f"{e('set')} == {e('set')}",
                f"{e('entity')}.hasTag({e('string')})",
                f"{e('ip')}.{rng.choice(('isIpv4', 'isIpv6', 'isLoopback', 'isMulticast'))}()",
                f"{e('ip')}.isInRange({e('ip')})",
            )
        )

    def pattern(self) -> str:
        return '"' + self.rng.choice(PATTERNS).replace('\\"', '\\"') + '"'


def document(case: Case) -> str:
    """A case's entities as Cedar reads them; `Slice.text` refuses numbers beyond 2^53."""
    return json.dumps([entity.json() for entity in case.slice.entities])


def shown(case: Case) -> str:
    """A case, for a failing test's message."""
    uids = [str(uid) for uid in (case.principal, case.action, case.resource)]
    return f"{uids} context={json.dumps(case.context)} entities={document(case)}"


def asked(cases: list[Case], policies: cedarpy.PolicySet, permits: cedarpy.PolicySet) -> list[ColumnarAnswer]:
    """Cedar's answers, each case with its own entities."""
    stores = {id(case.slice): cedarpy.Entities.from_json_str(document(case)) for case in cases}
    return [one_asked(case, policies, permits, stores[id(case.slice)]) for case in cases]


def one_asked(
    case: Case, policies: cedarpy.PolicySet, permits: cedarpy.PolicySet, entities: cedarpy.Entities
) -> ColumnarAnswer:
    request = {
        "principal": case.principal.json(),
        "action": case.action.json(),
        "resource": case.resource.json(),
        "context": json.dumps(case.context),
    }
    result = cedarpy.is_authorized(request, policies, entities)
    assert result.decision.value != "NoDecision", result.diagnostics.errors
    errors = {text.split("`")[1] for text in result.diagnostics.errors}
    return ColumnarAnswer(
        "Allow" if result.allowed else "Deny",
        tuple(sorted(result.diagnostics.reasons)),
        tuple(sorted(errors)),
        cedarpy.is_authorized(request, permits, entities).allowed,
    )


def compare(maker: Maker, *, policies: int, depth: int, rows: int) -> int:
    """Hold one generated frame against Cedar; the number of rows."""
    text = maker.policies(policies, depth)
    try:
        handle = cedarpy.PolicySet.from_str(text)
    except ValueError:
        return 0  # about one text in 3,000 leaves Cedar's grammar, and says nothing
    tree = json.loads(cedarpy.policies_to_json_str(text))
    tree["staticPolicies"] = {i: p for i, p in tree["staticPolicies"].items() if p["effect"] == "permit"}
    permits = cedarpy.PolicySet.from_json_str(json.dumps(tree))
    cases = maker.cases(rows)
    found = decide_cases(cases, handle, schema=None)
    assert dict(found.handed_over) == {}
    for row, (case, want) in enumerate(zip(cases, asked(cases, handle, permits), strict=True)):
        if found.answer(row) != want:
            note(f"{text}\n{shown(case)}")
        assert found.answer(row) == want
    return len(cases)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(
    rng=st.randoms(note_method_calls=False, use_true_random=True),
    mixed=st.sampled_from((0.0, 0.03, 0.1, 0.3)),
    policies=st.integers(1, 5),
    rows=st.integers(1, 8),
)
def test_a_generated_frame_is_decided_as_cedar_decides(
    rng: Random, mixed: float, policies: int, rows: int
) -> None:
    compare(Maker(rng, mixed), policies=policies, depth=3, rows=rows)


@pytest.mark.slow
def test_many_generated_frames() -> None:
    """200 frames from fixed seeds, deeper and longer: ten seconds; `-m fuzz` makes new ones for as long as asked."""
    rows = 0
    for seed in range(200):
        rng = Random(seed)
        maker = Maker(rng, rng.choice((0.0, 0.03, 0.1, 0.3)))
        rows += compare(
            maker, policies=rng.randrange(1, 7), depth=rng.randrange(1, 5), rows=rng.randrange(1, 12)
        )
    assert rows > 1_000
