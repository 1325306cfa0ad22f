"""Recorded decisions of one moment of a replay as typed columns: what the stages before policy make of them.

One rule: a row is in a part only with everything it would be asked with, exactly; what this module does not derive
the way `runtime.prepare` does is held back with the reason, and goes to the row engine.

Typed once for a schema; any number of bundles of that schema are decided over the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.request import ResourceTemplate
from runtime.schema import EntityRef, Record, type_text
from runtime.spec import RESERVED
from workbench.columnar.json_columns import read_json, read_typed
from workbench.columnar.world import Table
from workbench.history.contexts import fact_column
from workbench.history.facts import VALUE, context_fact, entity_fact, with_codes
from workbench.history.holding import Holding
from workbench.history.ids import Ids
from workbench.history.resources import derived
from workbench.history.roles import Use, here, may_stand_bare, role_table
from workbench.history.world import action_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.schema import ActionType, CedarSchema
    from workbench.columnar.decoding import Ref
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.json_leaves import Leaves
    from workbench.columnar.layouts import Layout
    from workbench.history.contexts import Contexts
    from workbench.history.facts import FactColumns

ROLES = ("principal", "resource")
_TOLD = ("idempotency_conflict", "duplicate_differs", "args_invalid", "patch_invalid")
"""Refusals by the session or the tool: what those could not take is not in the trace, that they did not is."""


_RESUMED = pl.col("approval").is_not_null()
_WHY_RESUMED = "the call was resumed: which forbids its grants lift differs from row to row"


class PartKey(NamedTuple):
    """What the rows of a part share."""

    tool: str
    principal_type: str
    resource_type: str | None
    on_behalf_of_type: str | None
    resource_template: str


@dataclass(slots=True)
class Part:
    """Rows that share tool, entity types and resource template."""

    key: PartKey
    rows: pl.DataFrame
    """Columns of `decisions`, those of `Contexts.frame`, and `row`."""
    holding: Holding
    action: ActionType
    leaves: Leaves
    args: Typed
    session: Typed
    frame: pl.DataFrame
    """What kernels read, a row a row."""

    @property
    def record(self) -> Record:
        """Type of the arguments."""
        return record_of(self.action, "args")


@dataclass(slots=True)
class Chunk:
    """Typed columns of some recorded decisions."""

    schema: CedarSchema
    ids: Ids
    parts: list[Part]
    tables: dict[str, Table]
    """Entity types, actions among them, and facts of the context (see `fact_table`)."""
    action_rows: Mapping[Ref, int]
    layouts: Mapping[tuple[str, str], Layout]
    """Of facts of the context, by name and text of the type."""
    origins: Mapping[str, pl.DataFrame]
    """What each row of an entity table was made of; see `role_table`."""
    held: pl.DataFrame
    """`row` (UInt32), `why` (String): rows that are in no part."""


def type_chunk(rows: pl.DataFrame, contexts: Contexts, schema: CedarSchema, *, own: bool) -> Chunk:
    """Type a chunk.

    Args:
        rows: columns of `decisions`, joined with `Contexts.frame`, and `row` (UInt32).
        contexts: the facts that codes refer to.
        schema: of the policies that will decide.
        own: it is the schema the rows were decided under; facts without a place in it are then no matter of course.
    """
    parts, held = _parts(rows, schema)
    entity_facts = _entity_facts(parts, contexts, schema, whole=not own)
    context_facts = _context_facts(parts, contexts)
    ids = _noted(parts, [*entity_facts.values(), *context_facts.values()])
    tables, action_rows = action_tables(schema)
    entities, origins = _role_tables(parts, entity_facts, ids, schema)
    tables |= entities
    for (name, kind), found in context_facts.items():
        tables[fact_table(name, kind)] = _fact_table(found, ids)
    for part in parts:
        _complete(part, context_facts, ids)
    layouts = {key: found.layouts[VALUE] for key, found in context_facts.items()}
    return Chunk(schema, ids, parts, tables, action_rows, layouts, origins, held)


def fact_table(name: str, kind: str) -> str:
    """Name of the table of a fact of the context, read as a type."""
    return f"fact {name}: {kind}"


def record_of(action: ActionType, name: str) -> Record:
    """A record of an action's context."""
    found = action.context.attrs[name].type
    assert isinstance(found, Record)  # noqa: S101 - the standard context says so
    return found


def _parts(rows: pl.DataFrame, schema: CedarSchema) -> tuple[list[Part], pl.DataFrame]:
    parts, held = [], [rows.filter(_RESUMED).select("row", why=pl.lit(_WHY_RESUMED))]
    for values, mine in rows.filter(~_RESUMED).partition_by(PartKey._fields, as_dict=True).items():
        key = PartKey(*values)
        why = _unfit(key, schema)
        if why is None:
            parts.append(_part(key, mine, schema))
        else:
            held.append(mine.select("row", why=pl.lit(why)))
    empty = pl.DataFrame(schema={"row": pl.UInt32, "why": pl.String})
    return parts, pl.concat([empty, *held])


def _unfit(key: PartKey, schema: CedarSchema) -> str | None:
    """Why a part is not typed; the row engine then says what becomes of its rows."""
    if _template_type(key.resource_template) != key.resource_type:
        return "the recorded resource is not of the template's type"
    action = schema.actions.get(key.tool)
    if action is None or "args" not in action.context.attrs:
        return f"action `{key.tool}` is not declared"
    if key.principal_type not in action.principals or key.resource_type not in action.resources:
        return f"action `{key.tool}` does not apply to `{key.principal_type}` and `{key.resource_type}`"
    for kind in (key.principal_type, str(key.resource_type)):
        declared = schema.entity_types.get(kind)
        if declared is None or declared.enum is not None:
            return f"entity type `{kind}` is not declared, or an enumeration"
    return _unfit_behalf(key, action, schema)


def _template_type(text: str) -> str | None:
    """Type of a template's resources; null: it is none."""
    try:
        return ResourceTemplate.parse(text).type
    except ValueError:
        return None


def _unfit_behalf(key: PartKey, action: ActionType, schema: CedarSchema) -> str | None:
    declared = action.context.attrs.get("on_behalf_of")
    if declared is None:
        return None
    if key.on_behalf_of_type is None:
        return "`context.on_behalf_of` is required" if declared.required else None
    if declared.type != EntityRef(key.on_behalf_of_type) or not may_stand_bare(key.on_behalf_of_type, schema):
        return f"`context.on_behalf_of` cannot be a bare `{key.on_behalf_of_type}`"
    return None


def _part(key: PartKey, rows: pl.DataFrame, schema: CedarSchema) -> Part:
    action = schema.actions[key.tool]
    holding = Holding(rows.height)
    holding.add(_as_recorded(rows), "refused before the stages, or under another context after its patch")
    leaves, args = read_json(rows["args"], record_of(action, "args"), form="arguments")
    holding.add_rows(args.bad, "arguments")
    session = read_typed(rows["session_state"], record_of(action, "session"), form="cedar")
    holding.add_rows(session.bad, "session state")
    resource = derived(key.resource_template, leaves, args, record_of(action, "args"))
    if resource is None:
        holding.add_all("a resource template that is not derived in columns")
    else:
        holding.add(resource.ne_missing(rows["resource_id"]), "the recorded resource is another")
    return Part(key, rows, holding, action, leaves, args, session, rows.select("row"))


def _as_recorded(rows: pl.DataFrame) -> pl.Series:
    """Rows whose answer is in the record: refused by the session or the tool, or patched under a later context."""
    other = pl.col("enforced_context_hash").is_not_null() & (
        pl.col("enforced_context_hash") != pl.col("context_hash")
    )
    refused = pl.col("reason_code").is_in(_TOLD)
    lacking = pl.col("required_scopes").list.set_difference("scopes").list.len() > 0
    uneven = pl.col("evaluated_at").dt.timestamp("us") % 1_000 != 0
    itself = (pl.col("resource_id") == pl.col("principal_id")) & (
        pl.col("resource_type") == pl.col("principal_type")
    )
    half = pl.col("on_behalf_of_type").is_not_null() & pl.col("on_behalf_of_id").is_null()
    found = rows.select(held=(other | refused | lacking | uneven | itself | half).fill_null(value=False))
    return found["held"] | rows["shape"].is_null()


def _facts_of(part: Part, contexts: Contexts) -> dict[str, pl.Series]:
    return {name: part.rows[fact_column(name)] for name in contexts.facts}


def _entity_facts(
    parts: list[Part], contexts: Contexts, schema: CedarSchema, *, whole: bool
) -> dict[tuple[str, str, str], FactColumns]:
    """Facts that fill entities, by entity type, role and name."""
    used: dict[tuple[str, str, str], list[pl.Series]] = {}
    for part in parts:
        for role, kind in zip(ROLES, (part.key.principal_type, str(part.key.resource_type)), strict=True):
            for name, codes in _facts_of(part, contexts).items():
                if (contexts.facts[name].frame["into"] == role).any():
                    used.setdefault((kind, role, name), []).append(codes)
    return {
        (kind, role, name): entity_fact(
            contexts.facts[name], pl.concat(codes), role, schema.entity_types[kind], whole=whole
        )
        for (kind, role, name), codes in used.items()
    }


def _context_facts(parts: list[Part], contexts: Contexts) -> dict[tuple[str, str], FactColumns]:
    """Facts that fill the context, by name and text of the declared type."""
    used: dict[tuple[str, str], list[pl.Series]] = {}
    types = {}
    for part in parts:
        for name, codes in _facts_of(part, contexts).items():
            declared = part.action.context.attrs.get(name)
            if declared is not None and name not in RESERVED:
                key = (name, type_text(declared.type))
                types[key] = declared.type
                used.setdefault(key, []).append(codes)
    return {
        key: context_fact(contexts.facts[key[0]], pl.concat(codes), types[key]) for key, codes in used.items()
    }


def _noted(parts: list[Part], facts: list[FactColumns]) -> Ids:
    ids = Ids()
    for part in parts:
        key = part.key
        for kind, column in (
            (key.principal_type, "principal_id"),
            (key.resource_type, "resource_id"),
            (key.on_behalf_of_type, "on_behalf_of_id"),
        ):
            if kind is not None:
                ids.note(kind, part.rows[column])
        for column, kind in part.args.refs.items():
            ids.note(kind, part.args.columns[column])
    for found in facts:
        found.note(ids)
    ids.number()
    return ids


def _role_tables(
    parts: list[Part], facts: Mapping[tuple[str, str, str], FactColumns], ids: Ids, schema: CedarSchema
) -> tuple[dict[str, Table], dict[str, pl.DataFrame]]:
    """Entity tables and what they were made of; puts where principals and resources stand into each part's frame."""
    uses: dict[str, list[tuple[Part, Use]]] = {}
    for part in parts:
        named = {name: part.rows[fact_column(name)] for _, _, name in facts}
        for role, kind in zip(ROLES, (part.key.principal_type, str(part.key.resource_type)), strict=True):
            use = Use(role, part.rows[f"{role}_id"], named)
            uses.setdefault(kind, []).append((part, use))
    tables, origins = {}, {}
    for kind, found in uses.items():
        own = {(role, name): each for (of, role, name), each in facts.items() if of == kind}
        tables[kind], places, origins[kind] = role_table(
            schema.entity_types[kind], [use for _, use in found], own, ids, schema
        )
        for (part, use), place in zip(found, places, strict=True):
            part.holding.add(place.bad, f"the {use.role} cannot be assembled from its facts")
            part.frame = part.frame.hstack([place.index.alias(use.role), place.uid.alias(f"{use.role} uid")])
    return tables, origins


def _fact_table(found: FactColumns, ids: Ids) -> Table:
    frame = found.coded(ids)
    table = Table(versions=False)
    table.columns.series.update({name: frame[name] for name in frame.columns})
    return table


def _complete(part: Part, facts: Mapping[tuple[str, str], FactColumns], ids: Ids) -> None:
    """Put the rest of the context into a part's frame."""
    rows, key = part.rows, part.key
    columns = [
        rows["evaluated_at"].dt.timestamp("ms").alias("now"),
        rows["scopes"],
        rows["tenant"],
        *_prefixed("session", part.session.columns),
        *_prefixed("args", with_codes(part.args.columns, part.args.refs, ids)),
    ]
    if key.on_behalf_of_type is not None:
        columns.append(ids.codes(key.on_behalf_of_type, rows["on_behalf_of_id"]).alias("on_behalf_of"))
    for (name, kind), found in facts.items():
        declared = part.action.context.attrs.get(name)
        if declared is None or type_text(declared.type) != kind:
            continue
        at = found.rows(rows[fact_column(name)])
        part.holding.add(
            found.bad.gather(at).fill_null(value=False), f"fact `{name}` does not fit the schema"
        )
        if declared.required:
            there = found.frame.select(here(found.layouts[VALUE])).to_series().gather(at)
            part.holding.add(~there.fill_null(value=False), f"`context.{name}` is required")
        columns.append(at.alias(fact_column(name)))
    for name, declared in part.action.context.attrs.items():
        if declared.required and name not in RESERVED and (name, type_text(declared.type)) not in facts:
            part.holding.add_all(f"`context.{name}` is required")  # no decision at all has such a fact
    part.frame = part.frame.hstack(columns)


def _prefixed(prefix: str, frame: pl.DataFrame) -> list[pl.Series]:
    return [frame[name].alias(f"{prefix} {name}") for name in frame.columns]
