"""Decisions as rows of hashed keys: what a decision reads, and what it changes, as numbers that can be joined.

One rule: two things that are the same have the same key; keys are 64-bit hashes, so two different things share one
with a chance of 2^-64, and then a decision is called conditional that was exact, never the other way round.
"""

from __future__ import annotations

import json
import re
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import polars as pl

from runtime.request import ResourceTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from workbench.diverging.shared import Counter, Lookup, Rows

_TENANT, _TYPE, _ID, _OTHER = 1, 2, 3, 4
"""Seeds of the hashes, so that a tenant `a` and an entity `a` differ."""
_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WRITTEN = r'(?s)^([^"]*)::(".*")$'
"""An entity's uid as `runtime.entities.EntityUid` writes it."""

TENANT = pl.col("tenant").hash(_TENANT)
UIDS = ("principal", "on_behalf_of", "resource")
"""Entities that a decision names, and so reads."""
_ROOTS: Mapping[tuple[str, ...], str] = {
    ("tenant",): "tenant",
    ("session",): "session_id",
    ("tool",): "tool",
    ("principal", "id"): "principal_id",
    ("on_behalf_of", "id"): "on_behalf_of_id",
    ("resource", "id"): "resource_id",
}


def of_session() -> pl.Expr:
    """Key of a session."""
    return TENANT ^ pl.col("session_id").hash(_OTHER)


def of_uid(name: str) -> pl.Expr:
    """Key of an entity a row names, from its columns `<name>_type` and `<name>_id`; null: none."""
    kind, ident = pl.col(f"{name}_type"), pl.col(f"{name}_id")
    return pl.when(kind.is_not_null() & ident.is_not_null()).then(TENANT ^ kind.hash(_TYPE) ^ ident.hash(_ID))


def of_id(value: pl.Expr, *, shared: bool) -> pl.Expr:
    """Key of an entity of which only the id is known; null: not even that. `shared` by all tenants."""
    return pl.when(value.is_not_null()).then(value.hash(_ID) if shared else TENANT ^ value.hash(_ID))


def written(part: int) -> pl.Expr:
    """List of hashes of the types (`part` 1) or ids (2) of the entities in `writes`; null: undeclared."""
    found = pl.element().str.extract(_WRITTEN, part)
    hashed = found.hash(_TYPE) if part == 1 else found.str.json_decode(pl.String).hash(_ID)
    return pl.col("writes").list.eval(hashed)


def looked_up(lookup: Lookup, args: str = "args") -> pl.Expr:
    """Key of what a row's facts are looked up by; null: by nothing, or the row asks for none of them."""
    value = pl.col(_ROOTS[lookup.path]) if lookup.path in _ROOTS else member(args, lookup.path[1:])
    return pl.when(among(lookup.asked, "context_spec_hash")).then(of_id(value, shared=lookup.shared))


def member(column: str, names: Sequence[str]) -> pl.Expr:
    """A scalar in a column of JSON objects, as text; null: absent or null."""
    path = "".join(f"[{json.dumps(name, ensure_ascii=False)}]" for name in names)
    return pl.col(column).str.json_path_match(f"${path}")


def among(rows: Iterable[Rows], version: str) -> pl.Expr:
    """Whether a row is decided with one of these versions, and of one of these tools."""
    return reduce(or_, (_one_of(each, version) for each in sorted(rows, key=str)), pl.lit(value=False))


def _one_of(rows: Rows, version: str) -> pl.Expr:
    key, tools = rows
    here = pl.lit(value=True) if key is None else pl.col(version) == key
    return here & of_tools(tools)


def one_of(column: str, values: Iterable[str]) -> pl.Expr:
    """Whether a column of texts holds one of these; there may be none."""
    return pl.col(column).is_in(pl.Series([*values], dtype=pl.String).implode())


def of_tools(tools: tuple[str, ...]) -> pl.Expr:
    """Whether a row is a call of one of these tools; `*` is all."""
    return pl.lit(value=True) if "*" in tools else one_of("tool", tools)


def scope(counter: Counter) -> pl.Expr:
    """Key of whom a row is counted for; null: for nobody."""
    match counter.per:
        case "principal" | "on_behalf_of" as who:
            return of_uid(who)
        case "tool":
            return TENANT ^ pl.col("tool").hash(_OTHER)
        case "session":
            return of_session()
        case "tenant":
            return TENANT


def resource_of(templates: Iterable[str], args: str) -> tuple[pl.Expr, pl.Expr]:
    """Type and id of the resource that `resource_template` makes of the arguments in a column.

    A null id: it cannot be made of these.
    """
    kind: pl.Expr = pl.lit(None, pl.String)
    ident: pl.Expr = pl.lit(None, pl.String)
    for text in templates:
        here = pl.col("resource_template") == text
        try:
            found = ResourceTemplate.parse(text)
        except ValueError:  # as a damaged row may have it
            continue
        kind = pl.when(here).then(pl.lit(found.type)).otherwise(kind)
        ident = pl.when(here).then(_filled(found, args)).otherwise(ident)
    return kind, ident


def _filled(template: ResourceTemplate, args: str) -> pl.Expr:
    parts = _SLOT.split(template.id)  # text, slot, text, slot …
    texts = [member(args, (part,)) if place % 2 else pl.lit(part) for place, part in enumerate(parts)]
    return pl.concat_str(texts)
