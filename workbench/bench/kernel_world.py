"""The support desk as the columnar engine takes it: entity tables, and raw columns with the layouts of each tool.

One rule: nothing is computed here that a decision needs; what is prepared is what a reader of Arrow files has anyway,
columns and the dictionaries of their ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from runtime.entities import Slice
from workbench.bench.desk import TOOLS
from workbench.bench.desk_tables import QUEUES, TEAMS
from workbench.columnar.layouts import EntityShape, Layout, RecordShape, ScalarShape, SetShape, view
from workbench.columnar.nodes import column, gather, literal
from workbench.columnar.policies import read_policies
from workbench.columnar.slices import view_of
from workbench.columnar.values import EntityData, RecordData, total
from workbench.columnar.world import Table, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import cedarpy
    from cedarpy import pst

    from runtime.schema import CedarSchema
    from workbench.bench.desk import DeskFrame
    from workbench.columnar.nodes import DType, Node
    from workbench.columnar.policies import Policies
    from workbench.columnar.values import ScalarKind, Value

Keys: TypeAlias = Literal["dictionary", "strings"]
"""How ids, tenants and countries come: as dictionary codes (`Enum`), as Arrow has them; or as texts."""

RESOURCE_TYPES: Mapping[str, str] = {
    tool: "Ticket" if tool.endswith("_ticket") else "Order" for tool in TOOLS
}


@dataclass(frozen=True, slots=True)
class DeskInput:
    """What a kernel is run on."""

    rows: pl.DataFrame
    """One row a call, raw: `tool`, `agent`, `customer`, `resource`, `tenant`, `country`, `to_country` (`Enum` or
    String, see `Keys`; the last two may be null), `body` (String), `internal` (Boolean), `scopes` (UInt32, codes of
    distinct lists, or List[String]), `at`, `calls`, `refunded_cents`, `amount_cents` (Int64). Arguments are null
    where the tool has none such."""
    keys: Keys
    ids: Mapping[str, pl.Enum]
    """Ids of `Agent`, `Customer`, `Order` and `Ticket`, in the order of their tables; of `resource`, both last."""
    policies: Policies
    world: World
    actions: Mapping[str, int]
    """Row of each tool's action."""


def desk_input(
    frame: DeskFrame, policies: cedarpy.PolicySet, schema: CedarSchema, keys: Keys = "dictionary"
) -> DeskInput:
    """Prepare calls and tables for a kernel."""
    tables = frame.tables
    ids = {
        "Agent": _ids(tables.agents["agent_id"], frame.rows["agent"]),
        "Customer": _ids(tables.customers["customer_id"], frame.rows["customer"]),
        "Order": _ids(tables.orders["order_id"], frame.rows["order_id"]),
        "Ticket": _ids(tables.tickets["ticket_id"], frame.rows["ticket_id"]),
    }
    ids["resource"] = pl.Enum(pl.concat([ids["Order"].categories, ids["Ticket"].categories]))
    read = read_policies(policies)
    world = World(read.names)
    actions = _actions(world, schema)
    _fill(world, frame, ids)
    for ref in read.literals:
        world.code(ref)
    rows = _rows(frame.rows, ids, keys)
    if keys == "dictionary":
        rows = rows.with_columns(scopes=_dictionary(world, "scopes", rows["scopes"]))
    return DeskInput(rows, keys, ids, read, world, actions)


def _dictionary(world: World, name: str, lists: pl.Series) -> pl.Series:
    """Make a column of lists one of codes, and a table of the distinct lists."""
    distinct = lists.unique(maintain_order=True)
    table = world.tables[name] = Table(versions=False)
    table.columns.series[name] = distinct.list.sort()
    numbered = pl.DataFrame({"list": distinct}).with_row_index("code")
    coded = lists.to_frame("list").join(numbered, on="list", how="left", maintain_order="left")
    return coded["code"].cast(pl.UInt32)


def _ids(known: pl.Series, used: pl.Series) -> pl.Enum:
    """The ids of a table, and after them those that calls name without being there."""
    return pl.Enum(
        pl.concat([known, used.unique(maintain_order=True).drop_nulls()]).unique(maintain_order=True)
    )


def _rows(rows: pl.DataFrame, ids: Mapping[str, pl.Enum], keys: Keys) -> pl.DataFrame:
    kept = rows.select(
        *("tool", "agent", "customer", "resource", "tenant", "country", "to_country", "body", "internal"),
        *("scopes", "at", "calls", "refunded_cents", "amount_cents"),
    )
    if keys == "strings":
        return kept
    own = {"agent": ids["Agent"], "customer": ids["Customer"], "resource": ids["resource"]}
    few = {
        name: pl.Enum(kept[name].unique(maintain_order=True).drop_nulls())
        for name in ("tool", "tenant", "country", "to_country")
    }
    return kept.with_columns(pl.col(name).cast(dtype) for name, dtype in (own | few).items())


def _actions(world: World, schema: CedarSchema) -> dict[str, int]:
    """Add the actions that the schema declares; their rows by name."""
    seen = view_of(Slice(()), schema)
    rows = {ref.id: world.row(ref, seen) for ref in sorted(seen.entities)}
    world.freeze()
    return rows


def _fill(world: World, frame: DeskFrame, ids: Mapping[str, pl.Enum]) -> None:
    """Add the tables of everybody else."""
    tables = frame.tables
    for kind, names in (("Team", TEAMS), ("Queue", QUEUES)):
        world.tables[kind] = _named(names)
    world.tables["Customer"] = _table(pl.DataFrame(), ids["Customer"], "", {})
    world.tables["Agent"] = _table(
        tables.agents.with_columns(Team=_codes("teams", TEAMS)),
        ids["Agent"],
        "agent_id",
        {"tenant": "string", "level": "long"},
    )
    world.tables["Order"] = _table(
        tables.orders.with_columns(owner=_row("owner", ids["Customer"])),
        ids["Order"],
        "order_id",
        {
            "owner": "entity Customer",
            "tenant": "string",
            "status": "string",
            "refundable_cents": "long",
            "placed_at": "datetime",
        },
    )
    world.tables["Ticket"] = _table(
        tables.tickets.with_columns(
            assignee=_row("assignee", ids["Agent"]),
            team=_row("team", pl.Enum(TEAMS)),
            Queue=_codes(pl.concat_list("queue"), QUEUES),
        ),
        ids["Ticket"],
        "ticket_id",
        {"assignee": "entity Agent", "team": "entity Team", "tenant": "string", "priority": "long"},
    )


def _row(name: str, ids: pl.Enum) -> pl.Expr:
    return pl.col(name).cast(ids).to_physical().cast(pl.UInt32)


def _codes(lists: str | pl.Expr, names: tuple[str, ...]) -> pl.Expr:
    expr = pl.col(lists) if isinstance(lists, str) else lists
    return expr.list.eval(pl.element().cast(pl.Enum(names)).to_physical().cast(pl.UInt32)).list.sort()


def _named(names: tuple[str, ...]) -> Table:
    table = Table(codes={name: code for code, name in enumerate(names)}, versions=False)
    table.columns.series["uid"] = pl.Series(range(len(names)), dtype=pl.UInt32)
    return table


def _table(rows: pl.DataFrame, ids: pl.Enum, key: str, attrs: Mapping[str, str]) -> Table:
    """A table with a row for each id, in their order; with nothing in it for ids that are not among the rows."""
    known = rows.rename({key: "id"}) if key else pl.DataFrame({"id": []}, schema={"id": pl.String})
    every = pl.DataFrame({"id": ids.categories}).join(known, on="id", how="left", maintain_order="left")
    table = Table(versions=False)
    table.columns.series["uid"] = pl.int_range(every.height, dtype=pl.UInt32, eager=True)
    for name, kind in attrs.items():
        table.columns.series[name] = every[name]
        table.attrs[name] = _optional(kind, name)
    for kind in set(every.columns) & {"Team", "Queue"}:
        table.above.add(kind)
        table.columns.series[f"above {kind}"] = every[kind].fill_null([])
    return table


def _optional(kind: str, name: str, *, missing: bool = True) -> Layout:
    if kind.startswith("entity "):
        return Layout(((None, EntityShape(kind.removeprefix("entity "), name)),), missing)
    return Layout(((None, ScalarShape(_kind(kind), name)),), missing)


def _kind(name: str) -> ScalarKind:
    kinds: tuple[ScalarKind, ...] = ("long", "bool", "string", "datetime")
    return next(kind for kind in kinds if kind == name)


def _always(kind: str, name: str) -> Layout:
    return _optional(kind, name, missing=False)


def _record(*, mask: str | None = None, **members: Layout) -> Layout:
    return Layout(((mask, RecordShape(members)),), missing=mask is not None)


_ARGS: Mapping[str, Mapping[str, Layout]] = {
    "lookup_order": {},
    "issue_refund": {"amount_cents": _always("long", "amount_cents")},
    "change_address": {"address": _record(country=_always("string", "to_country"))},
    "reply_ticket": {"body": _always("string", "body"), "internal": _always("bool", "internal")},
    "close_ticket": {},
}
"""Where the arguments that policies name stand."""


def variables_of(given: DeskInput, tool: str) -> dict[pst.VarName, Value]:
    """What the variables of a policy stand for in the calls of a tool."""
    world = given.world
    row = given.actions[tool]
    action = EntityData(
        "Action", literal(row, "code"), literal(world.tables["Action"].rows[row].code, "code")
    )
    members = {
        name: view(layout, _reader(given.keys), world.entity) for name, layout in _context(tool).items()
    }
    return {
        "principal": total(world.entity("Agent", _index("principal"))),
        "action": total(action),
        "resource": total(world.entity(RESOURCE_TYPES[tool], _index("resource"))),
        "context": total(RecordData(members)),
    }


def _index(name: str) -> Node:
    return column(name, "code", nullable=False)


def _reader(keys: Keys) -> Callable[[str, DType, bool], Node]:
    def reader(name: str, dtype: DType, nullable: bool) -> Node:  # noqa: FBT001 - the signature of `Reader`
        if name == "scopes" and keys == "dictionary":
            return gather("scopes", "scopes", _index("scopes"), dtype, nullable=nullable)
        return column(name, dtype, nullable=nullable)

    return reader


def _context(tool: str) -> dict[str, Layout]:
    """Where the members of a tool's context stand, as the schema's types say."""
    return {
        "args": Layout(((None, RecordShape(_ARGS[tool])),), missing=False),
        "now": _always("datetime", "at"),
        "tenant": _always("string", "tenant"),
        "scopes": Layout(((None, SetShape("string", "scopes")),), missing=False),
        "session": _record(
            calls=_always("long", "calls"), refunded_cents=_optional("long", "refunded_cents")
        ),
        "on_behalf_of": _optional("entity Customer", "customer row"),
        "customer": _record(mask="customer known", country=_always("string", "country")),
    }
