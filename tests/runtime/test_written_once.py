"""Texts and addresses that are made from parts already written: byte for byte what `canonical` gives of the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.arguments import plain_arguments
from runtime.canonical import NotCanonical, canonical, content_hash, parse, sha256
from runtime.entities import Entity, EntityUid, Slice
from runtime.evidence import preimage
from runtime.ledger_state import content_text
from runtime.policy import Prepared, action_hash
from runtime.request import Request, RequestInvalid, ResourceTemplate
from runtime.tools import make_tool
from runtime.trace import CONTEXTS

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text('"\\\u007f\u2028 ab\n\x00', max_size=6)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(st.sampled_from(("order_id", "amount", "note", "_x")), values, max_size=4)
uids = st.builds(EntityUid, st.sampled_from(("User", "Shop::User")), texts)


@given(uids)
def test_a_uid_is_quoted_as_json_quotes(uid: EntityUid) -> None:
    assert str(uid) == f"{uid.type}::{json.dumps(uid.id, ensure_ascii=False)}"
    assert EntityUid.parse(str(uid)) == uid


@given(st.text(max_size=4))
def test_any_id_is_quoted_as_json_quotes(ident: str) -> None:
    """Lone surrogates among them."""
    assert str(EntityUid("User", ident)) == f"User::{json.dumps(ident, ensure_ascii=False)}"


@given(st.lists(st.builds(Entity, uids), max_size=4, unique_by=lambda entity: entity.uid))
def test_bare_entities_and_their_slice_have_canonical_texts(entities: list[Entity]) -> None:
    found = Slice.of(entities)
    for entity in found.entities:
        assert entity.content == canonical(entity.json())
    assert found.hash == content_hash(list(found.entity_hashes))
    assert found.telling is None


def request_of(args: dict[str, Any], **changes: Any) -> Request:
    request = Request(
        decision_id="d",
        session_id="s",
        step=0,
        tenant="acme",
        principal=EntityUid("Agent", "bot"),
        on_behalf_of=None,
        scopes=(),
        tool="refund",
        resource=ResourceTemplate.parse("Order::{order_id}"),
        required_scopes=(),
        args=args,
        idempotency_key=None,
        at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        session_state={"calls": 0},
    )
    return replace(request, **changes)


@given(arguments, uids, st.none() | uids, st.none() | uids, texts, st.booleans())
def test_the_hash_of_an_action_is_that_of_the_whole_object(
    args: dict[str, Any],
    who: EntityUid,
    behalf: EntityUid | None,
    what: EntityUid | None,
    tenant: str,
    known: bool,
) -> None:
    try:
        text = canonical(args)
    except NotCanonical:  # floats beside integers beyond 2**53: refused before
        return
    request = request_of(args, principal=who, on_behalf_of=behalf, tenant=tenant)
    prepared = Prepared(args=args, args_text=text if known else None, resource=what)
    assert action_hash(request, prepared, "p" * 64) == content_hash(
        {
            "principal": str(who),
            "on_behalf_of": None if behalf is None else str(behalf),
            "tenant": tenant,
            "action": 'Action::"refund"',
            "resource": None if what is None else str(what),
            "args": args,
            "policy": "p" * 64,
        }
    )


@given(arguments)
def test_arguments_come_with_their_text_and_read_back_as_it(given_args: dict[str, Any]) -> None:
    try:
        args, text = plain_arguments(given_args)
    except RequestInvalid:
        with pytest.raises(NotCanonical):
            canonical(given_args)
        return
    assert text == canonical(given_args) == canonical(dict(args))
    assert args == parse(text)
    assert [type(value) for value in args.values()] == [type(parse(text)[name]) for name in args]  # type: ignore[call-overload,index]
    assert args is not given_args


def test_a_known_text_says_nothing_of_other_arguments() -> None:
    args: dict[str, Any] = {"order_id": "o-1"}
    request = request_of(args, bound=(args, canonical(args)))
    assert request.is_bound
    assert request.args_text == '{"order_id":"o-1"}'
    for other in ({"order_id": "o-2"}, dict(args)):
        patched = replace(request, args=other)
        assert not patched.is_bound
        assert patched.args_text == canonical(dict(other))
    assert request == replace(request, bound=None)


class Name(str):
    """A name that says what it likes of itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("order_id")


def test_names_come_from_the_signature_not_from_the_caller() -> None:
    def refund(order_id: str) -> None: ...

    tool = make_tool(refund, name=None, resource="Order::{order_id}", scopes=(), store="full")
    bound = tool.bind((), {Name("order_id"): "o-1"})
    assert [type(name) for name in bound.args] == [str]
    assert bound.text == '{"order_id":"o-1"}'


def test_arguments_that_are_all_given_by_name_are_bound_as_any_others() -> None:
    def refund(order_id: str, amount: int = 5, **more: str) -> None: ...

    def plain(order_id: str, amount: int = 5) -> None: ...

    calls: tuple[tuple[Any, tuple[Any, ...], dict[str, Any], dict[str, Any]], ...] = (
        (plain, (), {"amount": 7, "order_id": "o"}, {"order_id": "o", "amount": 7}),
        (plain, ("o",), {}, {"order_id": "o", "amount": 5}),
        (
            refund,
            (),
            {"order_id": "o", "amount": 7, "more": "x"},
            {"order_id": "o", "amount": 7, "more": "x"},
        ),
        (refund, ("o",), {"memo": "m"}, {"order_id": "o", "amount": 5, "memo": "m"}),
    )
    for function, args, kwargs, named in calls:
        tool = make_tool(function, name=None, resource="Order::{order_id}", scopes=(), store="full")
        bound = tool.bind(args, kwargs)
        assert (bound.args, bound.refusal, bound.text) == (named, None, canonical(dict(named)))
    refused = make_tool(plain, name=None, resource="Order::{order_id}", scopes=(), store="full").bind(
        (), {"order_id": "o", "x": 1}
    )
    assert refused.text is None
    assert refused.refusal is not None


def test_hashes_stand_for_the_same_texts() -> None:
    assert sha256(canonical([])) == Slice().hash


@given(texts)
def test_a_content_is_stored_as_its_preimage(text: str) -> None:
    row = {"context_hash": sha256(text), "context": text}
    assert content_text(CONTEXTS, row) == preimage(CONTEXTS.name, row)
