"""What a desk's calls are decided with, as the trace records it: facts, compiled contexts, entities, slices.

One rule: texts are canonical and stand at their hashes, byte for byte what `runtime.context` and `runtime.entities`
make of the same tables; tests compare them. They are put together from columns, because a Python object a row would
take most of the time.

A *case* is what calls of one session on one resource share: agent, customer, resource, and so the compiled context
and the slice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from runtime.canonical import content_hash
from runtime.entities import Entity, EntityUid
from workbench.bench.desk import START_MS
from workbench.bench.desk_tables import QUEUES, TEAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.bench.desk_tables import DeskTables

URI: Final = "facts/{}"
"""Where a source's table is, from the lake's folder."""
VERSION: Final = "0"
AS_OF_US: Final = (START_MS - 86_400_000) * 1_000
"""When that version of the tables came to be: a day before the first call."""

Json = pl.Expr
"""A JSON text a row."""


def sha256_of(texts: pl.Series) -> pl.Series:
    """The SHA-256 of each text, as hex digits. Polars has none of its own; 0.7 µs each."""
    sha256 = hashlib.sha256
    found = [sha256(text).hexdigest() for text in texts.cast(pl.Binary).to_list()]
    return pl.Series(texts.name, found, dtype=pl.String)


def obj(members: Mapping[str, Json | str]) -> Json:
    """A JSON object; members are given in canonical order, a text is a constant."""
    parts: list[pl.Expr] = []
    for name, value in members.items():
        parts += [
            pl.lit(f'{"," if parts else "{"}"{name}":'),
            pl.lit(value) if isinstance(value, str) else value,
        ]
    return pl.concat_str(*parts, pl.lit("}"))


def text(name: str) -> Json:
    """A column's texts, which hold nothing that JSON escapes, as JSON strings."""
    return pl.concat_str(pl.lit('"'), pl.col(name), pl.lit('"'))


def timestamp_of(name: str) -> Json:
    """Milliseconds since the epoch as `runtime.values.timestamp` writes them, as JSON strings."""
    return pl.from_epoch(name, "ms").dt.strftime('"%Y-%m-%dT%H:%M:%S%.3fZ"')


def texts(name: str) -> Json:
    """Lists of such texts as JSON arrays."""
    filled = pl.concat_str(pl.lit('["'), pl.col(name).list.join('","'), pl.lit('"]'))
    return pl.when(pl.col(name).list.len() == 0).then(pl.lit("[]")).otherwise(filled)


# -- facts -----------------------------------------------------------------------------------------------------

AGENT: Final = obj({"level": pl.col("level"), "tenant": text("agent_tenant")})
CUSTOMER: Final = obj({"country": text("country"), "tier": text("tier")})
ORDER: Final = obj({
    "owner": text("owner"), "placed_at": timestamp_of("placed_at"), "refundable_cents": pl.col("refundable_cents"),
    "status": text("status"), "tenant": text("resource_tenant"),
})  # fmt: skip
TICKET: Final = obj({
    "assignee": text("assignee"), "priority": pl.col("priority"), "team": text("team"),
    "tenant": text("resource_tenant"),
})  # fmt: skip
NO_VALUE: Final = content_hash(None)


def _fact(
    source: str,
    into: str,
    key: Json,
    *,
    hash_: str | None = None,
    value: Json | None = None,
    parents: Json | str = "[]",
) -> Json:
    """A fact that was asked for; without a value: there was none."""
    return obj({
        "as_of": str(AS_OF_US), "hash": f'"{NO_VALUE}"' if hash_ is None else text(hash_), "into": f'"{into}"',
        "key": key, "kind": '"delta"', "parents": parents, "source": f'"{source}"',
        "status": '"none"' if value is None else '"found"', "uri": f'"{URI.format(source)}"',
        "value": "null" if value is None else value, "version": f'"{VERSION}"',
    })  # fmt: skip


def _not_asked(source: str, into: str) -> Json:
    return obj({
        "as_of": "null", "hash": f'"{NO_VALUE}"', "into": f'"{into}"', "key": "{}", "kind": '"delta"',
        "parents": "[]", "source": f'"{source}"', "status": '"not_asked"', "uri": "null", "value": "null",
        "version": "null",
    })  # fmt: skip


def _either(found: pl.Expr, one: Json, other: Json) -> Json:
    return pl.when(found).then(one).otherwise(other)


_IS_ORDER: Final = pl.col("resource_type") == "Order"


def context_text(spec_hash: str) -> Json:
    """The compiled context of a case, over the columns of `DeskRecords.cases`."""
    agent_key = obj({"agent_id": text("agent")})
    customer_key = obj({"customer_id": text("customer"), "tenant": text("tenant")})
    order_key, ticket_key = obj({"order_id": text("resource")}), obj({"ticket_id": text("resource")})
    teams = _pairs("Team", "teams")
    queue = pl.concat_str(pl.lit('[["Queue","'), "queue", pl.lit('"]]'))
    order = _either(
        pl.col("owner").is_not_null(),
        _fact("orders", "resource", order_key, hash_="order_hash", value=ORDER),
        _fact("orders", "resource", order_key),
    )
    ticket = _fact("tickets", "resource", ticket_key, hash_="ticket_hash", value=TICKET, parents=queue)
    customer = _either(
        pl.col("country").is_not_null(),
        _fact("customers", "context", customer_key, hash_="customer_hash", value=CUSTOMER),
        _fact("customers", "context", customer_key),
    )
    facts = obj({
        "agent": _fact("agents", "principal", agent_key, hash_="agent_hash", value=AGENT, parents=teams),
        "customer": customer,
        "order": _either(_IS_ORDER, order, _not_asked("orders", "resource")),
        "ticket": _either(_IS_ORDER, _not_asked("tickets", "resource"), ticket),
    })  # fmt: skip
    return obj({"facts": facts, "spec": f'"{spec_hash}"'})


def _pairs(kind: str, name: str) -> Json:
    joined = pl.col(name).list.join(f'"],["{kind}","')
    return pl.concat_str(pl.lit(f'[["{kind}","'), joined, pl.lit('"]]'))


# -- entities --------------------------------------------------------------------------------------------------


def _entity(kind: str, ident: str, attrs: Json | str = "{}", parents: Json | str = "[]") -> Json:
    uid = obj({"id": text(ident), "type": f'"{kind}"'})
    return obj({"attrs": attrs, "parents": parents, "uid": uid})


def _ref(kind: str, name: str) -> Json:
    return obj({"__entity": obj({"id": text(name), "type": f'"{kind}"'})})


_TEAMS_ABOVE = pl.concat_str(
    pl.lit('[{"id":"'), pl.col("teams").list.join('","type":"Team"},{"id":"'), pl.lit('","type":"Team"}]')
)
_QUEUE_ABOVE = pl.concat_str(pl.lit('[{"id":"'), "queue", pl.lit('","type":"Queue"}]'))
ENTITY_TEXTS: Final[Mapping[str, Json]] = {
    "Agent": _entity(
        "Agent", "agent_id", obj({"level": pl.col("level"), "tenant": text("tenant")}), _TEAMS_ABOVE
    ),
    "Customer": _entity("Customer", "customer_id"),
    "Order": _entity("Order", "order_id", obj({
        "owner": _ref("Customer", "owner"),
        "placed_at": obj({"__extn": obj({"arg": timestamp_of("placed_at"), "fn": '"datetime"'})}),
        "refundable_cents": pl.col("refundable_cents"), "status": text("status"), "tenant": text("tenant"),
    })),
    "Ticket": _entity("Ticket", "ticket_id", obj({
        "assignee": _ref("Agent", "assignee"), "priority": pl.col("priority"), "team": _ref("Team", "team"),
        "tenant": text("tenant"),
    }), _QUEUE_ABOVE),
}  # fmt: skip
"""Canonical text of an entity by its type, over the columns of its table."""
_BARE: Final[Mapping[str, Json]] = {kind: _entity(kind, "id") for kind in ("Customer", "Order")}


def bare(kind: str, ids: pl.Series) -> pl.DataFrame:
    """Rows of `entities` for entities without attributes."""
    return _rows(kind, pl.DataFrame({"id": ids}), "id", _BARE[kind])


def _rows(kind: str, table: pl.DataFrame, key: str, content: Json) -> pl.DataFrame:
    found = table.select(uid_type=pl.lit(kind), uid_id=pl.col(key), entity=content)
    return found.insert_column(0, sha256_of(found["entity"]).alias("entity_hash"))


def _named(kind: str, ids: tuple[str, ...]) -> pl.DataFrame:
    entities = [Entity(EntityUid(kind, ident)) for ident in ids]
    return pl.DataFrame({
        "entity_hash": [entity.hash for entity in entities], "uid_type": [kind] * len(ids), "uid_id": ids,
        "entity": [entity.content for entity in entities],
    })  # fmt: skip


# -- cases -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeskRecords:
    """The desk's tables with the hashes that cases are made of."""

    agents: pl.DataFrame
    customers: pl.DataFrame
    orders: pl.DataFrame
    tickets: pl.DataFrame
    entities: pl.DataFrame
    """Rows of `entities` for all of them, and for teams and queues."""

    @classmethod
    def of(cls, tables: DeskTables) -> DeskRecords:
        """Hash the tables."""
        above = {kind: _named(kind, ids) for kind, ids in (("Team", TEAMS), ("Queue", QUEUES))}
        keyed = {
            "Agent": (tables.agents, "agent_id"), "Customer": (tables.customers, "customer_id"),
            "Order": (tables.orders, "order_id"), "Ticket": (tables.tickets, "ticket_id"),
        }  # fmt: skip
        rows = {kind: _rows(kind, table, key, ENTITY_TEXTS[kind]) for kind, (table, key) in keyed.items()}
        hashes = {kind: each["entity_hash"] for kind, each in rows.items()}
        teams = pl.col("teams").list.eval(_address(pl.element(), above["Team"]))
        agents = tables.agents.with_columns(team_hashes=teams, agent_entity=hashes["Agent"])
        tickets = tables.tickets.with_columns(
            queue_hash=_address(pl.col("queue"), above["Queue"]), resource_entity=hashes["Ticket"]
        )
        return cls(
            _valued(agents.rename({"tenant": "agent_tenant"}), "agent_hash", AGENT),
            _valued(
                tables.customers.drop("tenant").with_columns(customer_entity=hashes["Customer"]),
                "customer_hash", CUSTOMER,
            ),
            _valued(
                tables.orders.rename({"tenant": "resource_tenant"}).with_columns(resource_entity=hashes["Order"]),
                "order_hash", ORDER,
            ),
            _valued(tickets.rename({"tenant": "resource_tenant"}), "ticket_hash", TICKET),
            pl.concat([*rows.values(), *above.values()]),
        )  # fmt: skip

    def cases(self, calls: pl.DataFrame, spec_hash: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Put together what calls are decided with.

        Args:
            calls: as in `DeskFrame.rows`.
            spec_hash: of the context spec.

        Returns:
            One row a case, in order of its first call: `session`, `resource_type`, the attributes of agent and
            resource (null: of the other kind, or not there), `context`, `context_hash`, `entity_hashes` (sorted),
            `slice_hash`. And the rows of `entities` that no table has.
        """
        keys = ("session", "resource_type")
        columns = (*keys, "tenant", "agent", "customer", "resource", "tier", "country")
        found = calls.select(columns).unique(keys, keep="first", maintain_order=True)
        found = self._joined(found)
        orphans = found.filter(pl.col("resource_entity").is_null())["resource"].unique(maintain_order=True)
        newcomers = found.filter(pl.col("customer_entity").is_null())["customer"].unique(maintain_order=True)
        strange = pl.concat([bare("Order", orphans), bare("Customer", newcomers)])
        found = found.with_columns(
            _filled("resource", "resource_entity", strange), _filled("customer", "customer_entity", strange)
        )
        members = pl.concat_list("agent_entity", "customer_entity", "resource_entity", "team_hashes")
        every = pl.concat_list(members, "queue_hash").list.drop_nulls()
        found = found.with_columns(context=context_text(spec_hash), entity_hashes=every.list.sort())
        hashes = found.select(context_hash="context", slice_hash=texts("entity_hashes"))
        return found.with_columns(sha256_of(each) for each in hashes), strange

    def _joined(self, found: pl.DataFrame) -> pl.DataFrame:
        found = found.join(
            self.agents, left_on="agent", right_on="agent_id", how="left", maintain_order="left"
        )
        known = self.customers.select("customer_id", "customer_hash", "customer_entity")
        found = found.join(
            known, left_on="customer", right_on="customer_id", how="left", maintain_order="left"
        )
        orders = self.orders.rename({"order_id": "resource"})
        tickets = self.tickets.rename({"ticket_id": "resource"})
        found = found.join(orders, on="resource", how="left", maintain_order="left")
        return found.join(
            tickets, on="resource", how="left", maintain_order="left", suffix="_of_ticket"
        ).with_columns(
            pl.coalesce(name, f"{name}_of_ticket").alias(name)
            for name in ("resource_tenant", "resource_entity")
        )


def _valued(table: pl.DataFrame, name: str, value: Json) -> pl.DataFrame:
    return table.with_columns(sha256_of(table.select(value.alias(name)).to_series()))


def _address(ids: pl.Expr, rows: pl.DataFrame) -> pl.Expr:
    return ids.replace_strict(rows["uid_id"], rows["entity_hash"], return_dtype=pl.String)


def _filled(ident: str, name: str, strange: pl.DataFrame) -> pl.Expr:
    """The address of an entity, looked up among those that no table has where it is null."""
    found = pl.col(ident).replace_strict(
        strange["uid_id"], strange["entity_hash"], default=None, return_dtype=pl.String
    )
    return pl.coalesce(name, found).alias(name)
