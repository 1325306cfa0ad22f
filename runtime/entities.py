"""Cedar entities as values: uids, entities, slices, and how each is addressed by content.

An entity row is addressed by the hash of (uid, attributes, tags, direct parents); a decision names its *slice*,
the hash of its sorted entity hashes. Equal slices mean equal answers from any Cedar engine.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from runtime.canonical import Json, canonical, canonical_texts, sha256
from runtime.once import once

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_IDENT = r"[A-Za-z_][A-Za-z0-9_]*"
_TYPE = re.compile(rf"{_IDENT}(?:::{_IDENT})*")
_QUOTED = re.compile(rf'(?P<type>{_IDENT}(?:::{_IDENT})*)::(?P<id>".*")', re.DOTALL)


_quote = json.encoder.encode_basestring
"""As `json.dumps(…, ensure_ascii=False)` writes a text, without the encoder it would make each time."""


@dataclass(frozen=True, slots=True, order=True)
class EntityUid:
    """A Cedar entity uid: a type name and an id. Any string is an id."""

    type: str
    """Type name, with its namespace: `Shop::User`."""
    id: str
    """Id, unescaped."""

    @classmethod
    def parse(cls, text: str) -> EntityUid:
        r"""Parse `Type::"id"`, or the short form `Type::id` where it is unambiguous.

        Raises:
            ValueError: if `text` is neither; more than one `::` without quotes is ambiguous and refused.

        Example:
            >>> EntityUid.parse("Agent::refund-bot")
            EntityUid(type='Agent', id='refund-bot')
            >>> str(EntityUid.parse('Shop::User::"a::b"'))
            'Shop::User::"a::b"'
        """
        if quoted := _QUOTED.fullmatch(text):
            try:
                return cls(quoted["type"], json.loads(quoted["id"]))
            except json.JSONDecodeError as exc:
                raise ValueError(f"entity uid has a malformed quoted id: {text!r}: {exc}") from exc
        kind, separator, ident = text.partition("::")
        if not separator or not ident or not _TYPE.fullmatch(kind) or "::" in ident:
            raise ValueError(
                f'entity uid must be `Type::id`, or `Namespace::Type::"id"` with quotes, got {text!r}'
            )
        return cls(kind, ident)

    def __str__(self) -> str:
        return f"{self.type}::{_quote(self.id)}"

    def json(self) -> dict[str, str]:
        """Return Cedar's JSON form, `{"type": …, "id": …}`."""
        return {"type": self.type, "id": self.id}


@dataclass(frozen=True)
class Entity:
    """One entity: attributes and tags in Cedar JSON, and its direct parents."""

    uid: EntityUid
    attrs: Mapping[str, Json] = field(default_factory=dict)
    """Attributes, Cedar JSON (`{"__extn": …}`, `{"__entity": …}` for what JSON cannot say)."""
    parents: tuple[EntityUid, ...] = ()
    """Direct parents; ancestors are entities of their own in the slice."""
    tags: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def alone(cls, uid: EntityUid) -> Self:
        """Return an entity without attributes, parents and tags, its text and address written already.

        Raises:
            NotCanonical: its uid holds a lone surrogate.
        """
        made = object.__new__(cls)
        text = f'{{"attrs":{{}},"parents":[],"uid":{canonical_texts({"type": uid.type, "id": uid.id})}}}'
        made.__dict__.update(uid=uid, attrs={}, parents=(), tags={}, content=text, hash=sha256(text))
        return made

    def json(self) -> dict[str, Json]:
        """Return the entity as Cedar's entity JSON; parents sorted, `tags` only if there are any."""
        body: dict[str, Json] = {
            "uid": dict(self.uid.json()),
            "attrs": dict(self.attrs),
            "parents": [dict(parent.json()) for parent in sorted(set(self.parents))],
        }
        return body | ({"tags": dict(self.tags)} if self.tags else {})

    @once
    def content(self) -> str:
        """Canonical JSON text: what the hash is taken of and what `entities.entity` stores."""
        if self.attrs or self.parents or self.tags:
            return canonical(self.json())
        return f'{{"attrs":{{}},"parents":[],"uid":{canonical_texts(self.uid.json())}}}'

    @once
    def hash(self) -> str:
        """Content address, 64 hex digits."""
        return sha256(self.content)


@dataclass(frozen=True)
class Slice:
    """The entities one decision was made with, sorted by content address, one per uid."""

    entities: tuple[Entity, ...] = ()

    @classmethod
    def of(cls, entities: Iterable[Entity]) -> Slice:
        """Build a slice.

        Raises:
            ValueError: if one uid comes with two contents; no Cedar engine could decide that.
        """
        found: dict[EntityUid, Entity] = {}
        for entity in entities:
            if found.setdefault(entity.uid, entity).hash != entity.hash:
                raise ValueError(f"entity {entity.uid} comes with two different contents in one slice")
        return cls(tuple(sorted(found.values(), key=lambda entity: entity.hash)))

    @classmethod
    def of_two(cls, one: Entity, two: Entity) -> Self:
        """Return `of` two entities of different uids that are no more than their names (`Entity.alone`)."""
        first, last = (one, two) if one.hash < two.hash else (two, one)
        made, hashes = object.__new__(cls), [first.hash, last.hash]
        address = sha256(f'["{hashes[0]}","{hashes[1]}"]')
        made.__dict__.update(entities=(first, last), entity_hashes=hashes, hash=address, telling=None)
        return made

    @once
    def entity_hashes(self) -> list[str]:
        """The addresses of the members, sorted."""
        return [entity.hash for entity in self.entities]

    @once
    def hash(self) -> str:
        """Content address of the slice: SHA-256 of the canonical list of entity hashes."""
        quoted = ",".join([f'"{address}"' for address in self.entity_hashes])
        return sha256(f"[{quoted}]")

    @once
    def telling(self) -> str | None:
        """The entities that are more than their names, as such a document; null: there are none."""
        told = [e.content for e in self.entities if e.attrs or e.parents or e.tags]
        return f"[{','.join(told)}]" if told else None

    @once
    def text(self) -> str:
        """The slice as a Cedar entities document (JSON)."""
        return "[" + ",".join(entity.content for entity in self.entities) + "]"
