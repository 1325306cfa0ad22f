"""Generated schemas, entities and policy sets, in frames of many rows: columnar against Cedar itself.

What `test_differential` leaves out: types come from a schema (optional members, tags, enumerations, hierarchies of
types and of actions, namespaces), policies are written for it (permits, forbids and links of templates, ten or
ninety), slices hold deep hierarchies in several versions, and some rows are what Cedar refuses. Every frame is decided
with its schema and again without one.

The long profile: `pytest -m fuzz tests/workbench/columnar/test_fuzz.py`, with `FUZZ_SECONDS` and `FUZZ_SEED`.
Counter-examples, shrunk, become named cases of `test_operators` and `test_bad_input`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import cedarpy
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.schema import CedarSchema, parse_schema
from workbench.columnar import decide_cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGS = (0, 1, -1, 2, 3, 7, 10, 99, -86_400_001, 2**63 - 1, 2**63 - 2, -(2**63), 2**62, -(2**62), 2**53 + 1)
TEXTS = (
    *(
        "",
        "a",
        "b",
        "ab",
        "aXb",
        "a*b",
        "a\nb",
        "é",
        "e\u0301",
        "日本",
        "\U0001f600",
        "l1",
        "[a-c]+",
        "\\",
        '"',
    ),
    *("\u0000", "1.5", "-0.5", "1.50", "10.1.2.3", "::1", "2024-02-29", "1h", "-1ms", "x" * 40),
)
IDS = ("a", "b", "c", "d e", "é", '"', "0", "z\n")
EXTENSIONS = {
    "decimal": ("0.0", "1.5", "-1.5", "1.50", "922337203685477.5807", "-922337203685477.5808"),
    "ipaddr": ("127.0.0.1", "10.0.0.0/8", "10.1.2.3", "::1", "ff00::1", "224.0.0.1", "0.0.0.0/0", "::/0"),
    "datetime": ("2024-01-01", "1969-12-31T23:59:59.999Z", "0000-01-01", "2024-02-29T12:00:00+0530"),
    "duration": ("0ms", "1h", "-1h", "1d2h3m4s5ms", "9223372036854775807ms", "-9223372036854775808ms"),
}
FUNCTIONS = {"decimal": "decimal", "ipaddr": "ip", "datetime": "datetime", "duration": "duration"}
PATTERNS = ("*", "a*", "*b", "*a*", "a*b", r"a\*b", "", "a", "*é*", "a**b", "[a-c]+", "*.*", "1*", "*\\0*")
NAMES = ("n", "m", "s", "t", "u", "owner", "r", "ss", "x", "y", "if", "a b", "é")
SCALARS = ("Long", "Bool", "String", "decimal", "ipaddr", "datetime", "duration")


class Type(NamedTuple):
    """A type: a scalar's name, or `entity`, `set`, `record` with what it is of."""

    kind: str
    of: Any = None


Members = dict[str, tuple[Type, bool]]
"""Type, and whether it must be there."""


@dataclass
class Kind:
    """An entity type."""

    name: str
    parents: list[str] = field(default_factory=list)
    attrs: Members = field(default_factory=dict)
    tags: Type | None = None
    enum: list[str] | None = None


@dataclass
class Act:
    """An action; without principals it is a group."""

    name: str
    groups: list[str]
    principals: list[str]
    resources: list[str]
    context: Members


def quote(text: str) -> str:
    """A Cedar string literal."""
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\u0000": "\\0"}
    return '"' + "".join(special.get(c, c) for c in text) + '"'


def literal(kind: str, ident: str) -> str:
    return f"{kind}::{quote(ident)}"


@dataclass
class World:
    """A generated schema, and data that fits it."""

    rng: Random
    kinds: dict[str, Kind] = field(default_factory=dict)
    actions: dict[str, Act] = field(default_factory=dict)
    wrong: float = 0.0
    """How often a value is one that Cedar refuses."""
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.ids = rng.sample(IDS, rng.randrange(2, len(IDS) + 1))
        names = rng.sample(("U", "G", "D", "N::V", "M::F"), rng.randrange(2, 5))
        self.kinds = {name: Kind(name) for name in names}
        if rng.random() < 0.4:
            self.kinds["Color"] = Kind("Color", enum=["red", "a", "é"])
        for kind in list(self.kinds.values()):
            if kind.enum is None:
                kind.parents = [name for name in self.kinds if rng.random() < 0.4]
                kind.attrs = self.members(2, 6)
                kind.tags = self.type(1) if rng.random() < 0.4 else None
        groups: list[str] = []
        for name in ("all", "some")[: rng.randrange(3)]:
            self.actions[name] = Act(name, [g for g in groups if rng.random() < 0.7], [], [], {})
            groups.append(name)
        for name in ("view", "edit", "d o")[: rng.randrange(1, 4)]:
            chosen = [g for g in groups if rng.random() < 0.6]
            principals, resources = self.some_kinds(), self.some_kinds()
            self.actions[name] = Act(name, chosen, principals, resources, self.members(3, 6))

    def some_kinds(self) -> list[str]:
        return self.rng.sample(list(self.kinds), self.rng.randrange(1, min(3, len(self.kinds)) + 1))

    def members(self, depth: int, most: int) -> Members:
        chosen = self.rng.sample(NAMES, self.rng.randrange(most + 1))
        return {name: (self.type(depth), self.rng.random() < 0.6) for name in chosen}

    def type(self, depth: int) -> Type:
        roll = self.rng.random()
        if depth <= 0 or roll < 0.5:
            return Type(self.rng.choice(SCALARS))
        if roll < 0.7:
            return Type("entity", self.rng.choice(list(self.kinds)))
        if roll < 0.85:
            of_entities = self.rng.random() < 0.4
            inner = Type("entity", self.rng.choice(list(self.kinds))) if of_entities else self.type(depth - 1)
            return Type("set", inner)
        return Type("record", self.members(depth - 1, 3))

    # The schema as text.

    def schema(self) -> str:
        return "\n".join([*map(self.declared, self.kinds.values()), *map(self.action, self.actions.values())])

    def declared(self, kind: Kind) -> str:
        namespace, _, name = kind.name.rpartition("::")
        if kind.enum is not None:
            text = f"entity {name} enum [{', '.join(map(quote, kind.enum))}];"
        else:
            above = f" in [{', '.join(kind.parents)}]" if kind.parents else ""
            tags = f" tags {self.written(kind.tags)}" if kind.tags else ""
            text = f"entity {name}{above} {self.record(kind.attrs)}{tags};"
        return f"namespace {namespace} {{ {text} }}" if namespace else text

    def action(self, act: Act) -> str:
        groups = f" in [{', '.join(map(quote, act.groups))}]" if act.groups else ""
        if not act.principals:
            return f"action {quote(act.name)}{groups};"
        return (
            f"action {quote(act.name)}{groups} appliesTo {{ principal: [{', '.join(act.principals)}], "
            f"resource: [{', '.join(act.resources)}], context: {self.record(act.context)} }};"
        )

    def record(self, members: Members) -> str:
        inner = (f"{quote(n)}{'' if must else '?'}: {self.written(t)}" for n, (t, must) in members.items())
        return "{ " + ", ".join(inner) + " }"

    def written(self, of: Type) -> str:
        match of:
            case Type("entity", name):
                return str(name)
            case Type("set", inner):
                return f"Set<{self.written(inner)}>"
            case Type("record", members):
                return self.record(members)
            case Type(name):
                return f"__cedar::{name}"

    # Values as Cedar JSON, in the forms that need no schema.

    def value(self, of: Type) -> Any:
        rng = self.rng
        if rng.random() < self.wrong:
            return rng.choice(
                (None, 1.5, 2**63, "1", 1, True, [], {}, [[1]], {"x": 1}, "\ud800", self.value(self.type(1)))
            )
        match of:
            case Type("Long"):
                return rng.choice(LONGS)
            case Type("Bool"):
                return rng.random() < 0.5
            case Type("String"):
                return rng.choice(TEXTS)
            case Type("entity", name):
                return {"__entity": self.uid(name).json()}
            case Type("set", inner):
                return [self.value(inner) for _ in range(rng.choice((0, 0, 1, 2, 3, 5)))]
            case Type("record", members):
                return self.body(members)
            case Type(name):
                return {"__extn": {"fn": FUNCTIONS[name], "arg": rng.choice(EXTENSIONS[name])}}

    def body(self, members: Members) -> dict[str, Any]:
        rng = self.rng
        found = {n: self.value(t) for n, (t, must) in members.items() if must or rng.random() < 0.6}
        if found and rng.random() < self.wrong:
            del found[rng.choice(list(found))]
        if rng.random() < self.wrong:
            found[rng.choice(NAMES)] = 1
        return found

    def uid(self, kind: str) -> EntityUid:
        return EntityUid(kind, self.rng.choice(self.kinds[kind].enum or self.ids))

    def entity(self, uid: EntityUid, deep: bool) -> Entity:
        """An entity; parents come later in the order, so there is no circle."""
        kind, rng = self.kinds[uid.type], self.rng
        if kind.enum is not None:
            return Entity(uid)
        order = [EntityUid(name, ident) for name in self.kinds for ident in self.kinds[name].enum or self.ids]
        later = [each for each in order[order.index(uid) + 1 :] if each.type in self.above(uid.type)]
        parents = later[:1] if deep else rng.sample(later, min(len(later), rng.choice((0, 0, 1, 2, 3))))
        tags: dict[str, Any] = {}
        if kind.tags is not None:
            tags = {tag: self.value(kind.tags) for tag in ("a", "b", "é") if rng.random() < 0.5}
        return Entity(uid, self.body(kind.attrs), tuple(parents), tags)

    def above(self, kind: str) -> list[str]:
        return self.kinds[kind].parents

    def store(self) -> dict[EntityUid, Entity]:
        deep = self.rng.random() < 0.3
        uids = [
            EntityUid(name, ident) for name, kind in self.kinds.items() for ident in kind.enum or self.ids
        ]
        return {uid: self.entity(uid, deep) for uid in uids if self.rng.random() < (0.9 if deep else 0.6)}

    def slices(self) -> list[Slice]:
        """Some versions of one store: entities changed, and left out."""
        base, rng = self.store(), self.rng
        stores = [base]
        for _ in range(rng.randrange(4)):
            share = rng.choice((0.05, 0.2))  # a few: what only leads to a changed entity stays as it is
            changed = {u: self.entity(u, deep=False) if rng.random() < share else e for u, e in base.items()}
            stores.append({u: e for u, e in changed.items() if rng.random() > share / 2})
        acts = [
            Entity(EntityUid("Action", a.name), {}, tuple(EntityUid("Action", g) for g in a.groups))
            for a in self.actions.values()
        ]
        return [Slice((*store.values(), *acts)) for store in stores]

    def cases(self, number: int) -> list[Case]:
        slices = self.slices()
        return [self.case(self.rng.choice(slices)) for _ in range(number)]

    def case(self, entities: Slice) -> Case:
        act = self.rng.choice([act for act in self.actions.values() if act.principals])
        principal, resource = self.rng.choice(act.principals), self.rng.choice(act.resources)
        if self.rng.random() < self.wrong:
            principal = self.rng.choice(list(self.kinds))
        action = EntityUid("Action", act.name)
        return Case(self.uid(principal), action, self.uid(resource), self.body(act.context), entities)


class Path(NamedTuple):
    """An attribute that a policy can get at: its text, its type, and what must be asked before."""

    text: str
    type: Type
    guards: tuple[str, ...]


@dataclass
class Author:
    """Writes policies for a world: of the right types mostly, and not always with a guard."""

    world: World
    rng: Random
    wild: float
    """How often an expression is of another type than it should be."""
    paths: list[Path] = field(default_factory=list)
    known: dict[Type, list[Path]] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)

    def policies(self, number: int, depth: int) -> tuple[str, list[dict[str, Any]]]:
        """Texts of policies, and links of those that are templates."""
        texts, links = [], []
        for n in range(number):
            text = self.policy(depth)
            texts.append(text)
            if "?principal" in text or "?resource" in text:
                slots = [slot for slot in ("?principal", "?resource") if slot in text]
                for _ in range(self.rng.randrange(3)):
                    values = {slot: self.uid() for slot in slots}
                    links.append(
                        {"template_id": f"policy{n}", "new_id": f"l{next(self.ids)}", "values": values}
                    )
        return "\n".join(texts), links

    def uid(self, kind: str | None = None) -> str:
        uid = self.world.uid(kind or self.rng.choice(list(self.world.kinds)))
        return literal(uid.type, uid.id)

    def policy(self, depth: int) -> str:
        rng, world = self.rng, self.world
        act = rng.choice([act for act in world.actions.values() if act.principals])
        principal, resource = rng.choice(act.principals), rng.choice(act.resources)
        self.paths = [
            Path("principal", Type("entity", principal), ()),
            Path("resource", Type("entity", resource), ()),
        ]
        self.paths += self.below(Path("context", Type("record", act.context), ()), 4)
        for path in self.paths[:2]:
            self.paths += self.below(path, 3)
        names = list(world.actions)
        several = ", ".join(f"Action::{quote(name)}" for name in rng.sample(names, len(names) // 2 + 1))
        one, group = f"Action::{quote(act.name)}", f"Action::{quote(rng.choice(names))}"
        action = rng.choice(
            ("action", "action", f"action == {one}", f"action in {group}", f"action in [{several}]")
        )
        scopes = self.scope("principal", principal), action, self.scope("resource", resource)
        clauses = "".join(
            f" {rng.choice(('when', 'when', 'unless'))} {{ {self.expr(Type('Bool'), depth)} }}"
            for _ in range(rng.choice((0, 1, 1, 2)))
        )
        return f"{rng.choice(('permit', 'permit', 'forbid'))}({', '.join(scopes)}){clauses};"

    def scope(self, name: str, kind: str) -> str:
        target = self.rng.choice((self.uid(), self.uid(kind), f"?{name}"))
        forms = (
            f"{name} == {target}",
            f"{name} in {target}",
            f"{name} is {kind}",
            f"{name} is {kind} in {target}",
        )
        return self.rng.choice((name,) * 4 + forms)

    def below(self, path: Path, depth: int) -> list[Path]:
        if depth == 0:
            return []
        match path.type:
            case Type("entity", name):
                members = self.world.kinds[name].attrs
            case Type("record", members):
                pass
            case _:
                return []
        found = []
        for name, (of, must) in members.items():
            member = Path(
                f"{path.text}[{quote(name)}]",
                of,
                path.guards
                if must and path.type.kind == "record"
                else (*path.guards, f"{path.text} has {quote(name)}"),
            )
            found += [member, *self.below(member, depth - 1)]
        return found

    def pick(self, of: Type) -> Path | None:
        fitting = [path for path in self.paths if path.type == of]
        return self.rng.choice(fitting) if fitting else None

    def expr(self, of: Type, depth: int) -> str:
        rng = self.rng
        if rng.random() < self.wild:
            of = self.world.type(1)
        roll = rng.random()
        path = self.pick(of)
        if path and (roll < 0.45 or depth <= 0):
            return self.guarded(path, of, depth)
        if depth <= 0 or roll < 0.5:
            return self.constant(of)
        if roll < 0.58:
            return f"(if {self.expr(Type('Bool'), depth - 1)} then {self.expr(of, depth - 1)} else {self.expr(of, depth - 1)})"
        return f"({self.made(of, depth - 1)})"

    def guarded(self, path: Path, of: Type, depth: int) -> str:
        if not path.guards or self.rng.random() < 0.4:
            return path.text
        asked = " && ".join(path.guards)
        if of.kind == "Bool" and self.rng.random() < 0.5:
            return f"({asked} && {path.text})"
        return f"(if {asked} then {path.text} else {self.constant(of) if depth <= 0 else self.expr(of, depth - 1)})"

    def constant(self, of: Type) -> str:
        rng = self.rng
        match of:
            case Type("Long"):
                return f"({rng.choice(LONGS[:9] if rng.random() < 0.8 else LONGS)})"
            case Type("Bool"):
                return rng.choice(("true", "false"))
            case Type("String"):
                return quote(rng.choice(TEXTS))
            case Type("entity", name):
                return rng.choice(("principal", "resource", self.uid(name), self.uid()))
            case Type("set", inner):
                return "[" + ", ".join(self.constant(inner) for _ in range(rng.randrange(3))) + "]"
            case Type("record", members):
                inner = (
                    f"{quote(n)}: {self.constant(t)}"
                    for n, (t, must) in members.items()
                    if must or rng.random() < 0.5
                )
                return "{" + ", ".join(inner) + "}"
            case Type(name):
                return f"{FUNCTIONS[name]}({quote(rng.choice((*EXTENSIONS[name], 'x')))})"

    def made(self, of: Type, depth: int) -> str:  # noqa: PLR0911 - a case a type
        def e(kind: str) -> str:
            return self.expr(Type(kind), depth)

        rng = self.rng
        match of:
            case Type("Bool"):
                return self.condition(depth)
            case Type("Long"):
                method = rng.choice(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"))
                return rng.choice(
                    (
                        f"{e('Long')} {rng.choice('+-*')} {e('Long')}",
                        f"-({e('Long')})",
                        f"{e('duration')}.{method}()",
                    )
                )
            case Type("set", inner):
                return "[" + ", ".join(self.expr(inner, depth) for _ in range(rng.randrange(4))) + "]"
            case Type("record", members):
                inner = (
                    f"{quote(n)}: {self.expr(t, depth)}"
                    for n, (t, must) in members.items()
                    if must or rng.random() < 0.5
                )
                return "{" + ", ".join(inner) + "}"
            case Type("datetime"):
                return rng.choice(
                    (
                        f"{e('datetime')}.offset({e('duration')})",
                        f"{e('datetime')}.toDate()",
                        f"datetime({e('String')})",
                    )
                )
            case Type("duration"):
                return rng.choice(
                    (
                        f"{e('datetime')}.durationSince({e('datetime')})",
                        f"{e('datetime')}.toTime()",
                        f"duration({e('String')})",
                    )
                )
            case Type("decimal" | "ipaddr" as name):
                return f"{FUNCTIONS[name]}({e('String')})"
            case _:
                tagged = [k.name for k in self.world.kinds.values() if k.tags == of]
                if tagged:
                    return f"{self.entity(depth, rng.choice(tagged))}.getTag({self.tag(depth)})"
                return self.constant(of)

    def entity(self, depth: int, name: str | None = None) -> str:
        return self.expr(Type("entity", name or self.rng.choice(list(self.world.kinds))), depth)

    def tag(self, depth: int) -> str:
        return (
            quote(self.rng.choice(("a", "b", "é")))
            if self.rng.random() < 0.6
            else self.expr(Type("String"), depth)
        )

    def some_type(self) -> Type:
        """A type of which something is at hand."""
        return self.rng.choice(self.paths).type if self.rng.random() < 0.8 else self.world.type(1)

    def condition(self, depth: int) -> str:
        def e(kind: str) -> str:
            return self.expr(Type(kind), depth)

        rng = self.rng
        of = self.some_type()
        ordered = rng.choice(("Long", "Long", "datetime", "duration"))
        sets = rng.choice([path.type for path in self.paths if path.type.kind == "set"] or [Type("set", of)])
        has = rng.choice([p for p in self.paths if p.type.kind in {"entity", "record"}])
        decimal = rng.choice(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"))
        name = rng.choice(list(self.world.kinds))
        forms = (
            lambda: f"{e('Bool')} && {e('Bool')}",
            lambda: f"{e('Bool')} || {e('Bool')}",
            lambda: f"!{e('Bool')}",
            lambda: f"{self.expr(of, depth)} {rng.choice(('==', '!='))} {self.expr(of, depth)}",
            lambda: f"{e(ordered)} {rng.choice(('<', '<=', '>', '>='))} {e(ordered)}",
            lambda: f"{e('decimal')}.{decimal}({e('decimal')})",
            lambda: f"{self.entity(depth)} in {self.entity(depth)}",
            lambda: self.among(depth),
            lambda: self.among(depth),
            lambda: f"{self.entity(depth)} in [{self.entity(depth)}, {self.uid()}]",
            lambda: f"{self.entity(depth)} is {name}",
            lambda: f"{self.entity(depth)} is {name} in {self.entity(depth)}",
            lambda: f"{has.text} has {quote(rng.choice(NAMES))}",
            lambda: f"{e('String')} like {self.pattern()}",
            lambda: f"{self.expr(sets, depth)}.contains({self.expr(sets.of, depth)})",
            lambda: (
                f"{self.expr(sets, depth)}.{rng.choice(('containsAll', 'containsAny'))}({self.expr(sets, depth)})"
            ),
            lambda: f"{self.expr(sets, depth)}.isEmpty()",
            lambda: f"{self.expr(sets, depth)} == {self.expr(sets, depth)}",
            lambda: f"{self.entity(depth)}.hasTag({self.tag(depth)})",
            lambda: f"{e('ipaddr')}.{rng.choice(('isIpv4', 'isIpv6', 'isLoopback', 'isMulticast'))}()",
            lambda: f"{e('ipaddr')}.isInRange({e('ipaddr')})",
        )
        return rng.choice(forms)()

    def among(self, depth: int) -> str:
        """`in` a set of entities, one that data holds if there is one."""
        held = [p.type for p in self.paths if p.type.kind == "set" and p.type.of.kind == "entity"]
        name = self.rng.choice(held).of.of if held else self.rng.choice(list(self.world.kinds))
        left = self.entity(depth, name) if self.rng.random() < 0.5 else self.entity(depth)
        return f"{left} in {self.expr(Type('set', Type('entity', name)), depth)}"

    def pattern(self) -> str:
        return '"' + self.rng.choice(PATTERNS) + '"'


# Cedar's own answers.


class Told(NamedTuple):
    """What Cedar says of a row; no decision: it refuses it."""

    decision: str
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    permitted: bool = False


REFUSED = Told("NoDecision")


@dataclass
class Oracle:
    """`cedarpy.is_authorized`, one row at a time, each with its own entities."""

    policies: cedarpy.PolicySet
    permits: cedarpy.PolicySet
    schema: cedarpy.Schema | None
    stores: dict[int, cedarpy.Entities | None] = field(default_factory=dict)

    def ask(self, case: Case) -> Told:
        entities = self.store(case.slice)
        if entities is None:
            return REFUSED
        uids = {"principal": case.principal, "action": case.action, "resource": case.resource}
        request = {**{name: uid.json() for name, uid in uids.items()}, "context": json.dumps(case.context)}
        result = cedarpy.is_authorized(request, self.policies, entities, self.schema)
        if result.decision.value == "NoDecision":
            return REFUSED
        permitted = cedarpy.is_authorized(request, self.permits, entities, self.schema).allowed
        errors = {text.split("`")[1] for text in result.diagnostics.errors}
        return Told(
            result.decision.value, tuple(sorted(result.diagnostics.reasons)), tuple(sorted(errors)), permitted
        )

    def store(self, entities: Slice) -> cedarpy.Entities | None:
        if id(entities) not in self.stores:
            try:
                text = json.dumps([each.json() for each in entities.entities])
                self.stores[id(entities)] = cedarpy.Entities.from_json_str(text, self.schema)
            except ValueError:
                self.stores[id(entities)] = None
        return self.stores[id(entities)]


def parsed(text: str, links: Sequence[Any]) -> tuple[cedarpy.PolicySet, cedarpy.PolicySet] | None:
    """The policies, and the permits alone; null: the text leaves Cedar's grammar, and says nothing."""
    try:
        handle = cedarpy.PolicySet.from_str(text).with_linked_batch(list(links))
        tree = handle.to_pst()
    except ValueError:
        return None
    static = {i: p for i, p in tree.static_policies.items() if p.effect == "permit"}
    kept = tuple(each for each in tree.template_links if tree.templates[each.template_id].effect == "permit")
    only = cedarpy.pst.PolicySet(templates=tree.templates, static_policies=static, template_links=kept)
    return handle, cedarpy.PolicySet.from_pst(only)


@dataclass
class Tally:
    """What a run has seen."""

    frames: int = 0
    rows: int = 0
    refused: int = 0
    allowed: int = 0
    erring: int = 0
    reasoned: int = 0

    def add(self, told: Told) -> None:
        self.rows += 1
        self.refused += told is REFUSED
        self.allowed += told.decision == "Allow"
        self.erring += bool(told.errors)
        self.reasoned += bool(told.reasons)


def hold(cases: list[Case], text: str, links: Sequence[Any], schema: str | None, tally: Tally) -> None:
    """Hold one frame against Cedar, row by row."""
    handles = parsed(text, links)
    if handles is None:
        return
    read: CedarSchema | None = None if schema is None else parse_schema(schema)
    oracle = Oracle(*handles, None if schema is None else cedarpy.Schema.from_str(schema))
    found = decide_cases(cases, handles[0], schema=read)
    tally.frames += 1
    for row, case in enumerate(cases):
        want = oracle.ask(case)
        tally.add(want)
        got = REFUSED if row in found.handed_over else Told(*_fields(found.answer(row)))
        if got != want:
            note(shown(case, text, links, schema, want, got))
        assert got == want, found.handed_over.get(row)


def _fields(answer: Any) -> tuple[str, tuple[str, ...], tuple[str, ...], bool]:
    return answer.decision, answer.reasons, answer.errors, answer.permitted


def shown(case: Case, text: str, links: Sequence[Any], schema: str | None, want: Told, got: Told) -> str:
    uids = [str(uid) for uid in (case.principal, case.action, case.resource)]
    entities = json.dumps([each.json() for each in case.slice.entities])
    return (
        f"want {want}\ngot  {got}\n{uids} context={json.dumps(case.context)}\n{text}\nlinks {list(links)}\n"
        f"schema {schema}\nentities {entities}"
    )


def frame(
    rng: Random, *, wild: float, wrong: float, policies: int, rows: int, depth: int, tally: Tally
) -> None:
    """Generate a frame, and decide it with its schema and without."""
    world = World(rng, wrong=wrong)
    text, links = Author(world, rng, wild).policies(policies, depth)
    cases = world.cases(rows)
    hold(cases, text, links, world.schema(), tally)
    hold(cases, text, links, None, tally)


QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.mark.slow
@settings(QUICK, max_examples=150)
@given(
    rng=st.randoms(note_method_calls=False, use_true_random=True),
    wild=st.sampled_from((0.0, 0.03, 0.1)),
    wrong=st.sampled_from((0.0, 0.0, 0.01, 0.05)),
    policies=st.sampled_from((2, 8, 20)),
    rows=st.sampled_from((4, 30, 100)),
)
def test_a_generated_frame(rng: Random, wild: float, wrong: float, policies: int, rows: int) -> None:
    frame(rng, wild=wild, wrong=wrong, policies=policies, rows=rows, depth=3, tally=Tally())


@settings(QUICK, max_examples=40)
@given(rng=st.randoms(note_method_calls=False, use_true_random=False), wrong=st.sampled_from((0.0, 0.05)))
def test_a_small_frame_whose_choices_shrink(rng: Random, wrong: float) -> None:
    frame(rng, wild=0.05, wrong=wrong, policies=2, rows=2, depth=2, tally=Tally())


def test_frames_say_something() -> None:
    """The generator is worth its time: decisions of every kind, errors, refused rows."""
    tally = Tally()
    for seed in range(30):
        frame(Random(seed), wild=0.03, wrong=0.004, policies=8, rows=20, depth=3, tally=tally)
    rows = tally.rows - tally.refused
    assert tally.rows * 0.02 < tally.refused < tally.rows * 0.5
    assert rows * 0.1 < tally.allowed < rows * 0.9
    assert tally.reasoned > rows * 0.3
    assert rows * 0.1 < tally.erring < rows * 0.95


@pytest.mark.fuzz
def test_frames_for_long() -> None:
    """Frames from seeds in order, for `FUZZ_SECONDS`; prints how many ran clean, and the seed of one that did not."""
    first, tally = int(os.environ.get("FUZZ_SEED", "0")), Tally()
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "1200"))
    seed = first
    while time.monotonic() < end:
        rng = Random(seed)
        try:
            frame(
                rng,
                wild=rng.choice((0.0, 0.02, 0.1)),
                wrong=rng.choice((0.0, 0.0, 0.003, 0.03)),
                policies=rng.choice((1, 2, 4, 8, 16, 90)),
                rows=rng.choice((1, 3, 10, 40, 200)),
                depth=rng.randrange(1, 5),
                tally=tally,
            )
        except BaseException as exc:
            exc.add_note(f"seed {seed}, after {tally}")
            raise
        seed += 1
    print(f"seeds {first} to {seed - 1} ran clean: {tally}")  # noqa: T201 - what one runs this for
