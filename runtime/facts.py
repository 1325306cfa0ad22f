"""Compiled facts as values: what came back, from where, and the content address of it all.

One rule: `CompiledContext.from_content(c.content) == c`; what is replayed is what was decided with.

Import from `runtime.context`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runtime.canonical import Json, NotCanonical, canonical, canonical_texts, content_hash, sha256
from runtime.once import once

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.spec import Into, SourceKind

FactStatus = Literal["found", "none", "not_asked", "failed"]
"""`found` rows came back; `none` asked for, and there is nothing (or the request has no key to ask with);
`not_asked` the spec does not ask for it in this action; `failed` no answer that could be used, see `Fact.code`."""

NO_VALUE = content_hash(None)
"""Hash of a fact that has no value."""

_encoder = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact with its provenance, before projection by the schema."""

    name: str
    status: FactStatus
    value: Json = None
    """Record of the fields (null where the row has none), or list for a set; null: nothing is placed."""
    into: Into
    parents: list[list[str]]
    """Direct parents it gives the entity it is placed in: sorted `[type, id]`."""
    source: str
    kind: SourceKind
    uri: str | None = None
    """Location of the source that was asked; null: none was."""
    version: str | None = None
    """Version of the source that was read; null: it has none, or was not asked."""
    key: dict[str, Json]
    """What was asked, by column; null: the request does not give it, so the source was not asked."""
    as_of: int | None = None
    """When it was true, microseconds UTC: the oldest of the age column, else the source's own time."""
    hash: str = NO_VALUE
    """Content address of `value`."""
    code: str | None = None
    """Why it failed: `source_failed`, `not_unique`, `tenant_crossing`; null: it did not."""
    message: str | None = None

    def json(self) -> dict[str, Json]:
        """Return the record that is stored under the fact's name; `error` only if it failed."""
        body: dict[str, Json] = {
            "status": self.status,
            "value": self.value,
            "into": self.into,
            "parents": [list(pair) for pair in self.parents],
            "source": self.source,
            "kind": self.kind,
            "uri": self.uri,
            "version": self.version,
            "key": self.key,
            "as_of": self.as_of,
            "hash": self.hash,
        }
        return body if self.code is None else body | {"error": {"code": self.code, "message": self.message}}

    @once
    def text(self) -> str | None:
        """Canonical text of the record; None: it needs RFC 8785's care, with the others beside it."""
        if not (is_plain(self.value) and is_plain(self.key)):
            return None
        try:
            return _encoder.encode(self.json()).decode()
        except UnicodeError as exc:
            raise NotCanonical(f"facts have no canonical JSON form: {exc}") from exc


@dataclass(frozen=True, slots=True)
class CompiledContext:
    """The facts of one request, content-addressed."""

    facts: Mapping[str, Fact]
    """Every fact of the spec by name, those not asked for among them."""
    spec_hash: str
    content: str
    """Canonical JSON: `{"facts": {name: record}, "spec": spec_hash}`."""
    hash: str
    """Content address: SHA-256 of `content`."""
    told: tuple[Fact, ...] = field(init=False, compare=False, repr=False)
    """Those with a value for the context: most facts of a spec are of other actions."""
    placed: tuple[Fact, ...] = field(init=False, compare=False, repr=False)
    """Those that were found for an entity."""

    def __post_init__(self) -> None:
        """Find the facts that tell something."""
        every = self.facts.values()
        told = tuple([f for f in every if f.value is not None and f.into == "context"])
        placed = tuple([f for f in every if f.status == "found" and f.into != "context"])
        object.__setattr__(self, "told", told)
        object.__setattr__(self, "placed", placed)

    @classmethod
    def of(cls, facts: Iterable[Fact], spec_hash: str) -> CompiledContext:
        """Compile facts.

        Raises:
            NotCanonical: they have no canonical JSON form together.
        """
        by_name = {fact.name: fact for fact in facts}
        content = _content(by_name, spec_hash)
        return cls(by_name, spec_hash, content, sha256(content))

    @classmethod
    def from_content(cls, content: str) -> CompiledContext:
        """Read a recorded context back. `hash` is computed from `content`: compare it with the recorded address.

        Raises:
            ValueError: not a compiled context.
        """
        try:
            stored: dict[str, Any] = msgspec.json.decode(content)
            facts = {name: _read_fact(name, body) for name, body in stored["facts"].items()}
            return cls(facts, stored["spec"], content, sha256(content))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a compiled context: {type(exc).__name__}: {exc}: {content!r:.80}") from exc


def _content(facts: Mapping[str, Fact], spec_hash: str) -> str:
    """Canonical text of all facts. Where no value needs RFC 8785's care, in a tenth of `canonical`'s time."""
    texts = {name: facts[name].text for name in sorted(facts)}
    if None not in texts.values():
        members = ",".join([f"{canonical_texts(name)}:{text}" for name, text in texts.items()])
        return f'{{"facts":{{{members}}},"spec":{canonical_texts(spec_hash)}}}'
    body: dict[str, Json] = {"facts": {name: fact.json() for name, fact in facts.items()}, "spec": spec_hash}
    return canonical(body)


def is_plain(value: Json) -> bool:
    """Whether there is no float, no integer beyond 64 bits and no member name beyond ASCII in it."""
    match value:
        case dict():
            return all([name.isascii() and is_plain(item) for name, item in value.items()])
        case list():
            return all(map(is_plain, value))
        case int():
            return -(2**63) <= value < 2**63
        case _:
            return not isinstance(value, float)


def _read_fact(name: str, body: dict[str, Any]) -> Fact:
    error = body.pop("error", None) or {}
    return Fact(name=name, code=error.get("code"), message=error.get("message"), **body)
