"""The systems of record of the support desk: agents, customers, orders and tickets.

One rule: row k of a table belongs to tenant k modulo the number of tenants, so that a thing of a tenant can be drawn
without a search. Ids are at most twelve bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

TENANTS = ("acme", "birch", "corona", "delta")
TEAMS = ("billing", "fraud", "leads", "mail", "night", "phone", "returns", "vip")
QUEUES = ("general", "returns", "vip")
STATUSES = ("placed", "shipped", "delivered", "frozen")
TIERS = ("basic", "plus", "gold")
COUNTRIES = ("AT", "CH", "DE", "DK", "ES", "FR", "IT", "NL", "PL", "SE")
AGENTS, LEAST, ORDERS_EACH = 400, 400, 3
OLDEST_MS = 1_709_251_200_000
"""2024-03-01: orders are placed from here on, in 30 months."""


@dataclass(frozen=True)
class DeskTables:
    """What facts are looked up in. Ids are unique in their table; texts are String, nothing is null."""

    agents: pl.DataFrame
    """One row an agent: `agent_id`, `tenant`, `level` (Int64, 1 to 4), `teams` (List[String], sorted)."""
    customers: pl.DataFrame
    """One row a customer: `customer_id`, `tenant`, `tier`, `country`."""
    orders: pl.DataFrame
    """One row an order: `order_id`, `owner` (a customer's id), `tenant`, `status`, `refundable_cents`, `placed_at`
    (Int64, ms since the epoch)."""
    tickets: pl.DataFrame
    """One row a ticket: `ticket_id`, `assignee` (an agent's id), `team`, `tenant`, `priority` (Int64, 1 to 5),
    `queue` (of `Queue`)."""
    assignee: Ints
    """Row of a ticket's assignee in `agents`."""
    tenants: tuple[str, ...] = TENANTS
    orders_each: int = ORDERS_EACH
    """Orders of each customer: customer k owns orders k, k + customers, …"""

    @cached_property
    def teams(self) -> pl.DataFrame:
        """One row a team: `team_id`."""
        return pl.DataFrame({"team_id": TEAMS})

    def refundable(self, order: Ints) -> Ints:
        """What is left to refund of each order; zero where there is no such order."""
        known = order < self.orders.height
        cents = self.orders["refundable_cents"].to_numpy()
        return np.where(known, cents[np.where(known, order, 0)], 0)


def desk_tables(n: int, seed: int) -> DeskTables:
    """Return the tables of a desk with `n` calls: a customer for 60 calls, a ticket for 20, not below `LEAST`."""
    rng = np.random.default_rng([seed, 2**31])
    customers = _rounded(max(LEAST, n // 60))
    tickets = _rounded(max(LEAST, n // 20))
    assignee = rng.integers(0, AGENTS // len(TENANTS), tickets) * len(TENANTS) + _tenant_of(tickets)
    agents = _agents(rng)
    return DeskTables(
        agents=agents,
        customers=_customers(rng, customers),
        orders=_orders(rng, customers),
        tickets=_tickets(rng, agents, assignee),
        assignee=assignee,
    )


def _rounded(count: int) -> int:
    return -(-count // len(TENANTS)) * len(TENANTS)


def _tenant_of(count: int) -> Ints:
    return np.arange(count) % len(TENANTS)


def _named(prefix: str, count: int) -> pl.Expr:
    return pl.format(f"{prefix}-{{}}", pl.Series(np.arange(count)))


def _drawn(
    rng: np.random.Generator, values: tuple[str, ...], count: int, odds: tuple[float, ...]
) -> pl.Series:
    return pl.Series(values).gather(rng.choice(len(values), count, p=odds))


def _tenants(count: int) -> pl.Series:
    return pl.Series(TENANTS).gather(_tenant_of(count))


def _agents(rng: np.random.Generator) -> pl.DataFrame:
    odds = (0.25, 0.03, 0.06, 0.2, 0.1, 0.16, 0.15, 0.05)
    counts = rng.integers(1, 4, AGENTS)
    teams = [sorted(TEAMS[i] for i in rng.choice(len(TEAMS), k, replace=False, p=odds)) for k in counts]
    return pl.select(
        agent_id=_named("a", AGENTS),
        tenant=_tenants(AGENTS),
        level=pl.Series(rng.integers(1, 5, AGENTS)),
        teams=pl.Series(teams),
    )


def _customers(rng: np.random.Generator, count: int) -> pl.DataFrame:
    return pl.select(
        customer_id=_named("c", count),
        tenant=_tenants(count),
        tier=_drawn(rng, TIERS, count, (0.7, 0.2, 0.1)),
        country=pl.Series(COUNTRIES).gather(rng.integers(0, len(COUNTRIES), count)),
    )


def _orders(rng: np.random.Generator, customers: int) -> pl.DataFrame:
    count = customers * ORDERS_EACH
    return pl.select(
        order_id=_named("o", count),
        owner=pl.format("c-{}", pl.Series(np.arange(count) % customers)),
        tenant=pl.Series(TENANTS).gather(np.arange(count) % customers % len(TENANTS)),
        status=_drawn(rng, STATUSES, count, (0.2, 0.3, 0.44, 0.06)),
        refundable_cents=pl.Series(rng.lognormal(9.2, 1.0, count).astype(np.int64)),
        placed_at=pl.Series(OLDEST_MS + rng.integers(0, 30 * 30 * 86_400, count) * 1_000),
    )


def _tickets(rng: np.random.Generator, agents: pl.DataFrame, assignee: Ints) -> pl.DataFrame:
    count = len(assignee)
    return pl.select(
        ticket_id=_named("t", count),
        assignee=agents["agent_id"].gather(assignee),
        team=_drawn(rng, TEAMS, count, (0.3, 0.05, 0.02, 0.2, 0.1, 0.13, 0.15, 0.05)),
        tenant=_tenants(count),
        priority=pl.Series(rng.choice(5, count, p=(0.3, 0.3, 0.2, 0.14, 0.06)) + 1),
        queue=_drawn(rng, QUEUES, count, (0.7, 0.25, 0.05)),
    )
