"""Frames of conformance cases: the cases of one policy set and schema, padded, and how each engine decides them.

One rule: `Alone` is the measure. It asks `cedarpy.is_authorized` one request at a time, of the text of that request's
own store, and shares nothing with the engines but the parsed policies and schema.

A frame of one row proves little: what an engine shares between rows cannot go wrong there. `padding` makes more rows
out of a frame's own: its requests on its other stores, other uids of the same types in them, and stores with entities
left out, which is where a hierarchy or an attribute of one row would leak into another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import cedarpy

from runtime.canonical import sha256
from runtime.cedar import ask_batch, faults
from runtime.entities import EntityUid, Slice
from runtime.errors import GovernanceError
from runtime.policy import Case
from runtime.ruling import Answer
from runtime.schema import parse_schema
from workbench.conform_report import NO_DECISION, Said
from workbench.rows import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.canonical import Json
    from workbench.columnar import ColumnarAnswers
    from workbench.conform_cases import FileCase

EngineName: TypeAlias = Literal["rows", "columnar"]
MAX_CUT_STORES = 8
"""Stores with entities left out, made for one frame; each is parsed once, and asked by many rows."""
_LEAVE_OUT = 0.3
_OTHER_UID = 0.5
_OTHER_CONTEXT = 0.25
_ANYTHING = 0.1


class Row(NamedTuple):
    """One row of a frame: what engines are given, and the text that Cedar alone is given."""

    case: Case
    context: str
    store: str


class Decided(NamedTuple):
    """What an engine says of a frame's rows."""

    answers: list[Said]
    handed_over: Mapping[int, str]
    """Position of each row that the columnar engine gave to the row engine, whole or some policies of it, with the
    reason."""


@dataclass(frozen=True, slots=True)
class Handles:
    """A policy set and a schema, parsed once."""

    policy_text: str
    policies: cedarpy.PolicySet
    schema: cedarpy.Schema | None
    schema_text: str | None
    """In Cedar's schema syntax."""


def parse(policies: str, schema_text: str | None) -> Handles | str:
    """Parse both, or say why today's Cedar takes one of them no more."""
    try:
        parsed = cedarpy.PolicySet.from_str(policies)
        if not schema_text:
            return Handles(policies, parsed, None, None)
        if schema_text.lstrip().startswith("{"):  # JSON: no schema in Cedar's own syntax begins so
            schema = cedarpy.Schema.from_json_str(schema_text)
            return Handles(policies, parsed, schema, str(schema))
        return Handles(policies, parsed, cedarpy.Schema.from_str(schema_text), schema_text)
    except ValueError as exc:
        return str(exc)


@dataclass(slots=True)
class Alone:
    """`cedarpy.is_authorized`, one request at a time; equal questions are asked once."""

    handles: Handles | str
    _stores: dict[str, cedarpy.Entities | str] = field(default_factory=dict)
    _asked: dict[tuple[object, ...], Answer] = field(default_factory=dict)

    def ask(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: str, store: str
    ) -> Answer:
        """Return Cedar's answer; what it refuses before any policy is `NoDecision`, with the cause."""
        key = (principal, action, resource, context, store)
        if key not in self._asked:
            self._asked[key] = self._ask(principal, action, resource, context, store)
        return self._asked[key]

    def _ask(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: str, store: str
    ) -> Answer:
        if isinstance(self.handles, str):
            return Answer("NoDecision", cause=self.handles)
        entities = self._store(store, self.handles)
        if isinstance(entities, str):
            return Answer("NoDecision", cause=entities)
        request = {
            "principal": principal.json(),
            "action": action.json(),
            "resource": resource.json(),
            "context": context,
        }
        try:
            found = cedarpy.is_authorized(request, self.handles.policies, entities, self.handles.schema)
        except ValueError as exc:  # text that is not Unicode does not reach Cedar
            return Answer("NoDecision", cause=str(exc))
        told = found.diagnostics
        if found.decision is cedarpy.Decision.NoDecision:
            return Answer("NoDecision", cause="; ".join(told.errors))
        decision: Literal["Allow", "Deny"] = "Allow" if found.allowed else "Deny"
        return Answer(decision, tuple(sorted(told.reasons)), faults(told.errors, None), found.allowed)

    def _store(self, text: str, handles: Handles) -> cedarpy.Entities | str:
        if text not in self._stores:
            try:
                self._stores[text] = cedarpy.Entities.from_json_str(text, handles.schema)
            except ValueError as exc:
                self._stores[text] = str(exc)
        return self._stores[text]


def decide(engine: EngineName, cases: Sequence[Case], handles: Handles | str) -> Decided:
    """Decide a frame's rows by one engine, in order. What cannot be parsed is `NoDecision` to every engine."""
    if isinstance(handles, str):
        return Decided([NO_DECISION for _ in cases], {})
    if engine == "columnar":
        return _columnar(cases, handles)
    return Decided([said(answer) for answer in _rows(cases, handles)], {})


def said(answer: Answer) -> Said:
    """Reduce an answer to what is compared."""
    if answer.decision == "NoDecision":
        return NO_DECISION
    errors = {fault.policy for fault in answer.errors}
    return Said(answer.decision, tuple(sorted(set(answer.reasons))), tuple(sorted(errors)))


def _columnar(cases: Sequence[Case], handles: Handles) -> Decided:
    """Decide in columns; what is handed over, the row engine decides."""
    from workbench.columnar import decide_cases, policy_tree  # noqa: PLC0415 - loads Polars

    try:
        schema = None if handles.schema_text is None else parse_schema(handles.schema_text)
        tree = policy_tree(handles.policy_text)
    except (GovernanceError, ValueError, RecursionError) as exc:  # we do not read it, Cedar does
        return _handed_over(cases, handles, dict.fromkeys(range(len(cases)), f"not read: {exc}"), {})
    found = decide_cases(cases, tree, schema=schema)
    own = (i for i in range(len(cases)) if i not in found.handed_over)
    told = {i: found.answer(i) for i in own}
    answers = {i: Said(each.decision, each.reasons, each.errors) for i, each in told.items()}
    decided = _handed_over(cases, handles, found.handed_over, answers)
    return Decided(decided.answers, {**found.handed_over, **_asked(found)})


def _asked(found: ColumnarAnswers) -> dict[int, str]:
    """The rows that are decided in columns but for some policies, as hand-overs."""
    return {
        row: "; ".join(f"policy `{each}`: {found.policies_handed_over[each]}" for each in policies)
        for row, policies in found.asked.items()
    }


def _handed_over(
    cases: Sequence[Case], handles: Handles, reasons: Mapping[int, str], answers: dict[int, Said]
) -> Decided:
    rest = [i for i in range(len(cases)) if i in reasons]
    answers |= zip(rest, map(said, _rows([cases[i] for i in rest], handles)), strict=True)
    return Decided([answers[i] for i in range(len(cases))], reasons)


def _rows(cases: Sequence[Case], handles: Handles) -> list[Answer]:
    answers: dict[int, Answer] = {}
    for batch in pack(cases, literals(cases, handles)):
        members = [cases[i] for i in batch.members]
        found = _together(members, batch.document(), handles)
        answers.update(zip(batch.members, found, strict=True))
    return [answers[i] for i in range(len(cases))]


def _together(cases: Sequence[Case], document: str, handles: Handles) -> list[Answer]:
    """Ask cases on one store; if Cedar does not take it, the store of one of them is at fault, not of all."""
    try:
        store = cedarpy.Entities.from_json_str(document, handles.schema)
    except ValueError as exc:
        by_store: dict[str, list[int]] = {}
        for i, case in enumerate(cases):
            by_store.setdefault(case.slice.text, []).append(i)
        if len(by_store) == 1:
            return [Answer("NoDecision", cause=str(exc)) for _ in cases]
        answers: dict[int, Answer] = {}
        for text, members in by_store.items():
            answers |= zip(members, _together([cases[i] for i in members], text, handles), strict=True)
        return [answers[i] for i in range(len(cases))]
    return ask_batch(cases, store, handles.policies, handles.schema)


def literals(cases: Sequence[Case], handles: Handles) -> frozenset[EntityUid]:
    """Return the uids whose version or absence can matter to every case: those that the policies name.

    Without a schema, actions are entities like others; with one, it gives them to every store.
    """
    try:
        named = cedarpy.pst.entity_uids(handles.policies.to_pst())
    except (ValueError, RecursionError):  # deeper than `pst` goes: whatever any case has may matter
        return frozenset(entity.uid for case in cases for entity in case.slice.entities)
    found = {EntityUid(str(uid.type), uid.id) for uid in named}
    if handles.schema is None:
        return frozenset(found | {case.action for case in cases})
    return frozenset(uid for uid in found if not is_action(uid))


def is_action(uid: EntityUid) -> bool:
    """Whether Cedar takes this entity for an action."""
    return uid.type.rpartition("::")[2] == "Action"


def shuffled(cases: Sequence[FileCase], multiply: int) -> tuple[list[Row], dict[int, int]]:
    """Return a frame's rows, and at which position each row of the file stands.

    Args:
        cases: the cases of one policy set and schema. Those that cannot be said as values are left out.
        multiply: rows of padding; 0: none, and nothing is shuffled.
    """
    own = [(each.row, Row(each.case, each.context_json, each.entities_json)) for each in cases if each.case]
    if not multiply or not own:
        return [row for _, row in own], {number: i for i, (number, _) in enumerate(own)}
    chance = random.Random(sha256(cases[0].policies + cases[0].entities_json))  # noqa: S311 - repeatable, no secret
    rows: list[tuple[int | None, Row]] = [*own]
    rows += [(None, row) for row in padding([row for _, row in own], multiply, chance)]
    chance.shuffle(rows)
    return [row for _, row in rows], {number: i for i, (number, _) in enumerate(rows) if number is not None}


def padding(rows: Sequence[Row], count: int, chance: random.Random) -> list[Row]:
    """Return `count` more rows, made of the requests and stores of `rows`."""
    stores = _stores(rows, chance)
    named = {uid for row in rows for uid in (row.case.principal, row.case.resource)}
    named |= {each.uid for store, _ in stores for each in store.entities if not is_action(each.uid)}
    by_type: dict[str, list[EntityUid]] = {}
    for uid in sorted(named):
        by_type.setdefault(uid.type, []).append(uid)
    return [_padded(rows, stores, by_type, chance) for _ in range(count)]


def _stores(rows: Sequence[Row], chance: random.Random) -> list[tuple[Slice, str]]:
    """Return the stores of `rows`, and some with entities left out."""
    whole = list({row.store: (row.case.slice, row.store) for row in rows}.values())
    cut = []
    for _ in range(MAX_CUT_STORES):
        entities = chance.choice(whole)[0].entities
        left = Slice.of(entity for entity in entities if chance.random() > _LEAVE_OUT)
        cut.append((left, left.text))
    return whole + cut


def _padded(
    rows: Sequence[Row],
    stores: Sequence[tuple[Slice, str]],
    by_type: Mapping[str, Sequence[EntityUid]],
    chance: random.Random,
) -> Row:
    """Make one row: mostly one that the schema admits, now and then anything."""
    of = chance.choice(rows)
    anything = chance.random() < _ANYTHING
    uids = [of.case.principal, of.case.resource]
    for i, uid in enumerate(uids):
        if anything:
            uids[i] = chance.choice(by_type[chance.choice(list(by_type))])
        elif chance.random() < _OTHER_UID:
            uids[i] = chance.choice(by_type[uid.type])
    context: tuple[Mapping[str, Json], str] = of.case.context, of.context
    if anything or chance.random() < _OTHER_CONTEXT:
        other = chance.choice(rows)
        if anything or other.case.action == of.case.action:
            context = other.case.context, other.context
    slice_, store = chance.choice(stores)
    return Row(Case(uids[0], of.case.action, uids[1], context[0], slice_), context[1], store)
