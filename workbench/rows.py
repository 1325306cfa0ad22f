"""The row engine: recorded decisions decided again by Cedar itself, in batches.

One rule: a batch answers for each of its rows exactly what an evaluation of that row alone would. Rows share one
entity store only where no uid has two versions, *absent* being a version, too: an entity that one row has and
another refers to without having it keeps the two apart.

The fold is `runtime.policy.decide`, the one the runtime drives for a single call. Here thousands of its generators
go in step: whatever they ask Cedar is collected, packed into batches, asked at once and sent back.

The columnar engine is the other implementation of `Engine`; this one is its oracle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import cedarpy

from runtime.cedar import ask_batch, engine_name, evaluate_batch
from runtime.entities import EntityUid
from runtime.policy import Decision, Derive, Evaluate, decide
from workbench.atoms import atoms_of
from workbench.columnar.policies import document_tree
from workbench.memo import remembered
from workbench.undecided import possible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.entities import Entity
    from runtime.policy import Ask, Case, Grants, Prepared
    from runtime.request import Request
    from runtime.ruling import Answer

MAX_OPEN_BATCHES = 16
"""Batches a case is offered to before a new one is opened; bounds packing at O(rows × batches)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recorded decision to decide again."""

    request: Request
    bundle: Bundle
    prepare: Callable[[Mapping[str, Json]], Prepared]
    """Answers with the stages before policy for these arguments, from the record or recompiled."""
    grants: Grants | None = None
    """Of a resumed call: what was granted then. Of a candidate's policies those are lifted that were granted under
    the same id and ask for approval; what people would have said to others is not known, and those still ask."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The record does not say enough: some value of what is missing gives another verdict."""

    missing: tuple[str, ...]


class Engine(Protocol):
    """Decides jobs; one result a job, in order."""

    @property
    def name(self) -> str:
        """Name and version, as the `engine` column has it."""

    def run(self, jobs: Sequence[Job]) -> list[Decision | Undecided]:
        """Decide every job. Raises nothing for a job that cannot be decided: that is `Undecided`."""


@dataclass(slots=True)
class _Live:
    """A fold under way, waiting for Cedar's answer."""

    index: int
    job: Job
    fold: Generator[Ask, Prepared | Answer, Decision]
    ask: Evaluate


class RowEngine:
    """`cedarpy`, row by row in batches. About 10–30 k decisions/s on one core."""

    @property
    def name(self) -> str:
        """Name and version of the engine."""
        return engine_name()

    def run(self, jobs: Sequence[Job]) -> list[Decision | Undecided]:
        """Decide every job. See `Engine`."""
        results: list[Decision | Undecided | None] = [None] * len(jobs)
        live = [found for i, job in enumerate(jobs) if (found := _start(i, job, results))]
        while live:
            answers = _answers(live)
            live = [
                found
                for item, answer in zip(live, answers, strict=True)
                if (found := _next(item, answer, results))
            ]
        return [result for result in results if result is not None]


def _start(index: int, job: Job, results: list[Decision | Undecided | None]) -> _Live | None:
    return _advance(index, job, decide(job.request, job.bundle, job.grants), None, results)


def _next(
    item: _Live, answer: Answer | Undecided, results: list[Decision | Undecided | None]
) -> _Live | None:
    if isinstance(answer, Undecided):
        item.fold.close()
        results[item.index] = answer
        return None
    return _advance(item.index, item.job, item.fold, answer, results)


def _advance(
    index: int,
    job: Job,
    fold: Generator[Ask, Prepared | Answer, Decision],
    reply: Prepared | Answer | None,
    results: list[Decision | Undecided | None],
) -> _Live | None:
    """Run a fold until it asks Cedar something, or ends."""
    while True:
        try:
            ask = fold.send(reply)  # type: ignore[arg-type]  # the first send is None, as generators want
        except StopIteration as stop:
            results[index] = stop.value
            return None
        if isinstance(ask, Derive):
            reply = job.prepare(ask.args)
        else:
            return _Live(index, job, fold, ask)


def _answers(live: Sequence[_Live]) -> list[Answer | Undecided]:
    """Answer what every fold waits for: one group for each policy set, and whether something is missing."""
    answers: dict[int, Answer | Undecided] = {}
    groups: dict[tuple[str, frozenset[str], bool], list[_Live]] = {}
    for item in live:
        key = (item.job.bundle.policy_hash, item.ask.lifted, bool(item.ask.prepared.missing))
        groups.setdefault(key, []).append(item)
    for (_, lifted, missing), items in groups.items():
        found = _with_missing(items, lifted) if missing else _whole(items, lifted)
        answers.update((item.index, answer) for item, answer in zip(items, found, strict=True))
    return [answers[item.index] for item in live]


def _whole(items: Sequence[_Live], lifted: frozenset[str]) -> list[Answer]:
    bundle = items[0].job.bundle
    return _packed(
        [_case(item) for item in items],
        bundle,
        lambda cases, store: evaluate_batch(cases, store, bundle, lifted),
    )


def _with_missing(items: Sequence[_Live], lifted: frozenset[str]) -> list[Answer | Undecided]:
    """Decide only if every value of what is missing gives one verdict and one change."""
    bundle = items[0].job.bundle
    engine, schema = atoms_of(bundle).engine, bundle.cedar_schema
    atoms = _packed(
        [_case(item) for item in items],
        bundle,
        lambda cases, store: ask_batch(cases, store, engine, schema),
    )
    plain = _whole(items, lifted)
    return [
        answer if _is_sure(told, item, lifted) else Undecided(item.ask.prepared.missing)
        for item, told, answer in zip(items, atoms, plain, strict=True)
    ]


def _is_sure(told: Answer, item: _Live, lifted: frozenset[str]) -> bool:
    return possible(told, item.job.bundle, item.ask.prepared.missing, lifted).settled


def _case(item: _Live) -> Case:
    case = item.ask.prepared.case
    assert case is not None  # noqa: S101 - Evaluate is asked of what was not refused
    return case


@dataclass(slots=True)
class _Batch:
    """Cases that share one entity store, and the version each uid has in it (None: absent)."""

    versions: dict[EntityUid, str | None] = field(default_factory=dict)
    entities: dict[EntityUid, Entity] = field(default_factory=dict)
    members: list[int] = field(default_factory=list)

    def takes(self, needs: Mapping[EntityUid, str | None]) -> bool:
        versions = self.versions
        return all(versions.get(uid, version) == version for uid, version in needs.items())

    def add(self, index: int, case: Case, needs: Mapping[EntityUid, str | None]) -> None:
        self.versions.update(needs)
        self.members.append(index)
        for entity in case.slice.entities:
            self.entities.setdefault(entity.uid, entity)

    def document(self) -> str:
        return "[" + ",".join(entity.content for entity in self.entities.values()) + "]"


def _packed(
    cases: Sequence[Case],
    bundle: Bundle,
    evaluate: Callable[[Sequence[Case], cedarpy.Entities], Sequence[Answer]],
) -> list[Answer]:
    """Evaluate in batches; answers in order."""
    answers: dict[int, Answer] = {}
    for batch in pack(cases, policy_literals(bundle)):
        store = cedarpy.Entities.from_json_str(batch.document(), bundle.cedar_schema)
        found = evaluate([cases[i] for i in batch.members], store)
        answers.update(zip(batch.members, found, strict=True))
    return [answers[i] for i in range(len(cases))]


def pack(cases: Sequence[Case], literals: frozenset[EntityUid]) -> list[_Batch]:
    """Put cases into batches in which no uid has two versions, first fit over the newest open batches."""
    batches: list[_Batch] = []
    for index, case in enumerate(cases):
        needs = _needs(case, literals)
        batch = next((b for b in reversed(batches[-MAX_OPEN_BATCHES:]) if b.takes(needs)), None)
        if batch is None:
            batch = _Batch()
            batches.append(batch)
        batch.add(index, case, needs)
    return batches


def _needs(case: Case, literals: frozenset[EntityUid]) -> dict[EntityUid, str | None]:
    """The version of every uid that can matter to this case: what it has, and what it names without having."""
    needs: dict[EntityUid, str | None] = dict.fromkeys(literals)
    needs.update(dict.fromkeys((case.principal, case.resource, *_mentioned(case.context))))
    for entity in case.slice.entities:
        needs.update((uid, needs.get(uid)) for uid in _mentioned_by(entity.content))
    needs.update((entity.uid, entity.hash) for entity in case.slice.entities)
    return needs


@lru_cache(maxsize=65_536)
def _mentioned_by(content: str) -> frozenset[EntityUid]:
    """Uids an entity's parents, attributes and tags name; cached by the entity's content."""
    body = json.loads(content)
    parents = (EntityUid(parent["type"], parent["id"]) for parent in body["parents"])
    return frozenset(parents) | frozenset(_mentioned([body["attrs"], body.get("tags", {})]))


def _mentioned(value: object) -> Iterator[EntityUid]:
    match value:
        case {"__entity": {"type": str(kind), "id": str(ident)}}:
            yield EntityUid(kind, ident)
        case {"type": str(kind), "id": str(ident), **rest} if not rest:
            # With a schema, Cedar reads this as a uid, too. A record of that shape only parts a batch.
            yield EntityUid(kind, ident)
        case dict():
            for item in value.values():
                yield from _mentioned(item)
        case list():
            for item in value:
                yield from _mentioned(item)


_literals: dict[str, frozenset[EntityUid]] = {}


def policy_literals(bundle: Bundle) -> frozenset[EntityUid]:
    """Return the entity uids the policies name; actions are left out, the schema gives them to every store."""

    def named() -> frozenset[EntityUid]:
        uids: Iterable[cedarpy.pst.EntityUid] = cedarpy.pst.entity_uids(document_tree(bundle.document))
        found = (EntityUid(str(uid.type), uid.id) for uid in uids)
        return frozenset(uid for uid in found if uid.type.rpartition("::")[2] != "Action")

    return remembered(_literals, bundle.policy_hash, named)
