"""Our reading of Cedar schemas against Cedar's own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import cedarpy
import pytest

from runtime.errors import PolicySchemaError
from runtime.projection import project
from runtime.schema import (
    Attribute,
    CedarSchema,
    CedarType,
    EntityRef,
    Extension,
    Primitive,
    Record,
    Scaled,
    SetOf,
    parse_schema,
    type_text,
    with_standard_context,
)
from runtime.schema_parser import SchemaSyntaxError, parse_declarations, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.canonical import Json

# One construct of the grammar each; names that look like keywords are there on purpose.
TEXTS = {
    "empty": "",
    "comments": '// nothing\nentity A; // "still; nothing\n',
    "entities": "entity A, B in [A]; entity C in B { x: Long, y?: Set<Set<String>>, }; entity D = {} tags Long;",
    "nested records": "entity A { a: { b: { c?: Bool }, }, };",
    "enum": 'entity Color enum ["red", "bl\\"ue", "\\u{e9}"]; entity A { c: Color };',
    "extensions": "entity A { a: decimal, b: ipaddr, c: datetime, d: __cedar::duration, e: __cedar::Long };",
    "quoted names": 'entity A { "a b": Long, "in": Bool, "q\\"\\n\\t\\\\\\0\\u{7}\\x41": String };',
    "keywords as names": (
        "entity entity, type, action, namespace, tags, enum, appliesTo, principal, context, attributes, Set;"
        "action entity, action, appliesTo appliesTo { principal: Set, resource: principal };"
    ),
    "actions": (
        'entity U; action "view it", edit in ["all", Action::"more"] appliesTo { resource: [U, U], principal: U, };'
        'action all; action "more" attributes {}; action none in all;'
    ),
    "common types": (
        "type T = { u: U, s: Set<T2> }; type T2 = Long; entity U { t: T };"
        "action a appliesTo { principal: U, resource: U, context: T };"
    ),
    "annotations": (
        '@doc("x") @bare entity A { @doc("\\"y\\"") a: Long, @k b?: { @in("z") c: Bool } };'
        '@doc("t") type T = Long; @scaled action a; @n("1") namespace N { @m("2") entity A2; }'
    ),
    "namespaces": (
        "namespace N { entity U in [G] { a: G, b: N::G, c: M::U, d: T, e: Root }; entity G; type T = Set<U>;"
        '  action a in ["b", Action::"b", M::Action::"c", "root"] appliesTo { principal: U, resource: M::U };'
        "  action b; }"
        "namespace M { entity U; action c; }"
        'entity Root; action root in [N::Action::"b"];'
    ),
    "shadowed extension": "namespace N { type ipaddr = String; entity E { a: ipaddr, b: __cedar::ipaddr }; }",
    "shadowed built-in": "entity String, decimal; entity A { a: String, b: decimal, c: __cedar::String };",
    "common before entity": "type A = String; entity A; entity B { a: A };",
    "actions as entities": (
        "action A; entity U { a: Action, b: N::Action }; namespace N { action B; entity V { a: Action }; }"
        "namespace M { entity V { a: Action }; }"
    ),
}


SAMPLES: dict[str, Json] = {
    "Long": 1, "String": "x", "Bool": True,
    "decimal": 1.5, "ipaddr": "::1", "datetime": "2026-11-22", "duration": "1h",
}  # fmt: skip


def handle_text(schema: CedarSchema) -> str:
    return str(cedarpy.Schema.from_json_str(json.dumps(schema.to_json())))


def sample(type_: CedarType) -> Json:
    """A JSON value of a type, every member present."""
    match type_:
        case Primitive(name) | Extension(name):
            return SAMPLES[name]
        case EntityRef():
            return type_.enum[0] if type_.enum else "x"
        case SetOf(element):
            return [sample(element)]
        case Record(attrs):
            return {name: sample(attribute.type) for name, attribute in attrs.items()}


def plain(type_: CedarType) -> CedarType:
    """A type without the annotations and member names that projection reads in its own way."""
    match type_:
        case SetOf(element):
            return SetOf(plain(element))
        case Record(attrs):
            kept = {n: a for n, a in attrs.items() if n not in {"__extn", "__entity", "__expr"}}
            return Record({n: Attribute(plain(a.type), a.required) for n, a in kept.items()})
        case _:
            return type_


def disagreements(schema: CedarSchema, text: str) -> Iterator[str]:
    """Types of ours under which Cedar, with the author's own schema, refuses a value."""
    engine = cedarpy.Schema.from_str(text)
    for entity in schema.entity_types.values():
        if entity.enum is None:
            tags = {} if entity.tags is None else {"t": project(sample(entity.tags), plain(entity.tags), "t")}
            attrs = project(sample(plain(entity.attrs)), plain(entity.attrs), "attrs")
            body = {"uid": {"type": entity.name, "id": "x"}, "attrs": attrs, "parents": [], "tags": tags}
            try:
                cedarpy.Entities.from_json_str(json.dumps([body]), engine)
            except ValueError as exc:
                yield f"{entity.name}: {exc}"
    for action in schema.actions.values():
        if action.principals:
            request = {
                "principal": {"type": action.principals[0], "id": one_id(schema, action.principals[0])},
                "resource": {"type": action.resources[0], "id": one_id(schema, action.resources[0])},
                "action": {
                    "type": "::".join(p for p in (action.namespace, "Action") if p),
                    "id": action.name,
                },
                "context": json.dumps(
                    project(sample(plain(action.context)), plain(action.context), "context")
                ),
            }
            result = cedarpy.is_authorized(request, "permit(principal, action, resource);", "[]", engine)
            if result.decision.value != "Allow":
                yield f"{action.key}: {result.diagnostics.errors}"


def one_id(schema: CedarSchema, type_: str) -> str:
    enum = schema.entity_types[type_].enum
    return enum[0] if enum else "x"


@pytest.mark.parametrize("name", TEXTS)
def test_cedar_reads_our_json_as_it_reads_the_text(name: str) -> None:
    assert handle_text(parse_schema(TEXTS[name])) == str(cedarpy.Schema.from_str(TEXTS[name]))


@pytest.mark.parametrize("name", TEXTS)
def test_resolved_types_are_those_cedar_checks_values_by(name: str) -> None:
    assert list(disagreements(parse_schema(TEXTS[name]), TEXTS[name])) == []


@pytest.mark.parametrize("name", TEXTS)
def test_json_derived_from_the_types_means_the_same(name: str) -> None:
    schema = parse_schema(TEXTS[name])
    derived = handle_text(replace(schema, written=None))
    assert parse_schema(derived) == schema


def published_texts(data: Path) -> set[str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    texts: set[str] = set()
    for file in sorted((data / "cedar_cases").glob("*.parquet")):
        texts |= set(parquet.read_table(file, columns=["schema_text"])["schema_text"].to_pylist())
    policies = parquet.read_table(data / "policies" / "policies.parquet", columns=["language", "text"])
    texts |= {row["text"] for row in policies.to_pylist() if row["language"] == "cedarschema"}
    return {text for text in texts if text and engine_reads(text)}


def engine_reads(text: str) -> bool:
    try:
        cedarpy.Schema.from_str(text)
    except ValueError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.fuzz)])
def test_published_schemas_agree_with_cedar(shared_data: Path, every: int) -> None:
    """Every fourth of the published schemas; all of them: `pytest -m fuzz`."""
    texts = published_texts(shared_data)
    assert len(texts) > 4_000
    wrong = []
    for text in sorted(texts)[::every]:
        schema = parse_schema(text)
        if handle_text(schema) != str(cedarpy.Schema.from_str(text)) or list(disagreements(schema, text)):
            wrong.append(text)
    assert wrong == []


def test_types_are_resolved_and_qualified() -> None:
    schema = parse_schema(TEXTS["namespaces"])
    attrs = schema.entity_types["N::U"].attrs.attrs
    assert {name: type_text(attribute.type) for name, attribute in attrs.items()} == {
        "a": "N::G", "b": "N::G", "c": "M::U", "d": "Set<N::U>", "e": "Root",
    }  # fmt: skip
    assert schema.entity_types["N::U"].parents == ("N::G",)
    assert schema.actions["N::a"].parents == ("N::b", "N::b", "M::c", "root")
    assert schema.actions["N::a"].principals == ("N::U",)
    assert schema.actions["root"].parents == ("N::b",)


def test_attributes_keep_what_is_optional_and_their_annotations() -> None:
    attrs = (
        parse_schema('entity A { @scaled("amount*100") cents: Long, @x b?: Bool };')
        .entity_types["A"]
        .attrs.attrs
    )
    assert attrs["cents"].scaled == Scaled("amount", 100)
    assert attrs["b"] == Attribute(Primitive("Bool"), required=False, annotations={"x": ""})
    assert attrs["b"].scaled is None


def test_enumerations_and_actions_carry_their_ids() -> None:
    schema = parse_schema(TEXTS["actions as entities"] + TEXTS["enum"].replace("entity A ", "entity E "))
    ref = schema.entity_types["U"].attrs.attrs["b"].type
    assert ref == EntityRef("N::Action")
    assert isinstance(ref, EntityRef)
    assert ref.enum == ("B",)
    assert schema.entity_types["Color"].enum == ("red", 'bl"ue', "é")


BROKEN = {
    "entity A {\n  x: Long\n  y: Long };": (3, "expected `}`"),
    "entity A\n= { x: Fob };": (2, "Fob"),
    "entity A;\nentity B;\nentity A;": (3, "declared twice"),
    "entity A;\nentity T;\nnamespace N { type U = Long;\n entity T; }": (4, "shadows"),
    "action a\n in [b];": (2, "undeclared action"),
    "entity A;\n/* no */": (2, "unexpected character '/'"),
    'entity A {\n "a\\q": Long };': (2, "unknown escape"),
    '\n{"": {}}': (1, "is JSON"),
    'entity A {\n @scaled("a*x")\n b: Long };': (3, "member*factor"),
    'entity A {\n @scaled("a*10")\n b: String };': (3, "makes a `Long`"),
    'entity A {\n @scaled("b*10")\n b: Long };': (3, "another name"),
    'action "N::a";\nnamespace N { action a; }': (2, "both be called `N::a`"),
    "entity A;\naction a appliesTo { principal: A, resource: A, context: A };": (None, "A"),
}


@pytest.mark.parametrize("text", BROKEN)
def test_refusals_name_file_line_and_cause(text: str) -> None:
    line, cause = BROKEN[text]
    with pytest.raises(PolicySchemaError) as caught:
        parse_schema(text, "my.cedarschema")
    assert caught.value.file == "my.cedarschema"
    assert cause in str(caught.value)
    if line is not None:
        assert caught.value.line == line
        assert str(caught.value).startswith(f"my.cedarschema:{line}: ")


def test_the_parser_alone_never_accepts_what_it_does_not_know() -> None:
    for text in (
        "entity",
        "entity A",
        "entity A in;",
        "action a appliesTo { who: A };",
        "type T;",
        "entity A { x };",
    ):
        with pytest.raises(SchemaSyntaxError):
            parse_declarations(text)


@pytest.mark.parametrize("literal", [r'"\q"', r'"\u{d800}"', r'"\u{110000}"', r'"\x80"'])
def test_escapes_that_are_no_characters_are_refused(literal: str) -> None:
    with pytest.raises(ValueError, match="escape"):
        unescape(literal)


def context_of(members: str) -> dict[str, str]:
    applies = f"principal: A, resource: A, context: {{{members}}}"
    schema = with_standard_context(
        parse_schema(f"entity A; action group; action a in group appliesTo {{ {applies} }};")
    )
    assert schema.actions["group"].context == Record()
    # Cedar accepts the augmented schema, and reads it as we do.
    assert parse_schema(handle_text(schema)) == schema
    attrs = schema.actions["a"].context.attrs
    return {
        name + "?" * (not attribute.required): type_text(attribute.type) for name, attribute in attrs.items()
    }


STANDARD = {
    "args": "{}",
    "now": "datetime",
    "scopes": "Set<String>",
    "tenant": "String",
    "session": "{calls: Long, cost_micros?: Long, failures?: Long, input_tokens?: Long, output_tokens?: Long, "
    "repeats?: Long, wall_ms?: Long}",
    "approval?": "{approvers: Set<String>, granted_at: datetime}",
}


def test_the_standard_context_is_added() -> None:
    assert context_of("") == STANDARD
    assert context_of("payee?: { trusted: Bool }") == {**STANDARD, "payee?": "{trusted: Bool}"}


@pytest.mark.parametrize(
    ("members", "changed"),
    [
        ("args: { x: Long }", {"args": "{x: Long}"}),
        (
            "session: { calls: Long, spent?: decimal }",
            {"session": STANDARD["session"].replace("wall_ms?: Long", "wall_ms?: Long, spent?: decimal")},
        ),
        (
            "session: { calls: Long, failures?: String }",
            {"session": STANDARD["session"].replace("failures?: Long", "failures?: String")},
        ),
        ("on_behalf_of?: A", {"on_behalf_of?": "A"}),
        ("now: datetime, tenant: String", {}),
        ("approval?: { approvers: Set<String>, granted_at: datetime }", {}),
    ],
)
def test_declared_members_of_the_standard_context_stay(members: str, changed: dict[str, str]) -> None:
    assert context_of(members) == {**STANDARD, **changed}


@pytest.mark.parametrize(
    ("member", "allowed"),
    [
        ("args: Long", "`args: {…}`"),
        ("args?: {}", "`args: {…}`"),
        ("now: Long", "`now: datetime`"),
        ("scopes?: Set<String>", "`scopes: Set<String>`"),
        ("session: {}", "`session: {calls: Long}`"),
        ("session: { calls: Long, x: Bool }", "`session: {calls: Long}`"),
        ("session: { calls?: Long }", "`session: {calls: Long}`"),
        ("on_behalf_of?: String", "`on_behalf_of?:` an entity type"),
        ("approval: { approvers: Set<String>, granted_at: datetime }", "`approval?: {approvers"),
    ],
)
def test_other_declarations_of_the_standard_context_are_refused(member: str, allowed: str) -> None:
    text = f"entity A;\naction a appliesTo {{ principal: A, resource: A, context: {{ {member} }} }};"
    with pytest.raises(PolicySchemaError, match=r"^s:2: action `a` declares") as caught:
        with_standard_context(parse_schema(text), "s")
    assert f"declare {allowed}" in str(caught.value)
