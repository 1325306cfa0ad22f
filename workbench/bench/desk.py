"""A seeded support desk: sessions of tool calls, and the tables its facts come from, as plain columns.

One rule: the same seed and size give the same rows, whatever size the pieces are taken in: rows are drawn in blocks
of `BLOCK`, each with a generator of its own.

A session is one agent's work for one customer: about twenty calls on one order and one ticket. Shares are in
`datasets/support-desk/bench.toml`. `desk_columns` gives what a columnar engine takes; `workbench.bench.lake` makes
recorded decisions of the same rows.

Accepted: counters of a session are drawn, not added up from its verdicts, because a later call would depend on the
verdict of an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.bench.config import BenchConfig, bench_config
from workbench.bench.desk_tables import DeskTables, desk_tables
from workbench.bench.desk_texts import bodies, canonical_args, countries, streets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

BLOCK = 1 << 17
"""Rows drawn at a time."""
TOOLS = ("lookup_order", "issue_refund", "change_address", "reply_ticket", "close_ticket")
SHORTEST, LONGEST = 12, 28
"""Calls in a session."""
START_MS = 1_788_220_800_000
"""2026-09-01T00:00:00Z, when the first block's sessions begin."""
SCOPES = (["refunds:write", "tickets:write"], ["tickets:write"])
"""Scopes of a session: with refunds, and reading only."""
_OVERFLOWING = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DeskFrame:
    """Calls, and the tables that their facts come from."""

    rows: pl.DataFrame
    """One row a call: `session` (UInt32, number), `step` (Int32), `at` (Int64, ms since the epoch, `context.now`),
    `tenant`, `tool`, `agent` (id of the principal `Agent`), `customer` (id of the `Customer` it acts for),
    `resource_type` (`Order` | `Ticket`), `resource` (id), `scopes` (List[String]), `calls`, `refunded_cents` (Int64,
    `context.session`), `tier`, `country` (`context.customer`; null: the customer is unknown), `args` (canonical JSON
    of the arguments) and the arguments, null where the tool has none such: `order_id`, `ticket_id`, `amount_cents`
    (Int64), `reason`, `street`, `city`, `to_country` (`address`), `body`, `internal` (Boolean), `resolution`. Texts
    are String. Nothing else is null."""
    tables: DeskTables


@dataclass(frozen=True)
class Desk:
    """A desk of a size: its tables, and its calls block by block."""

    n: int
    seed: int
    config: BenchConfig

    @cached_property
    def tables(self) -> DeskTables:
        """The tables that facts come from."""
        return desk_tables(self.n, self.seed)

    def blocks(self, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[pl.DataFrame]:
        """Yield the calls, `BLOCK` rows at a time; columns as in `DeskFrame.rows`.

        Args:
            wanted: tells which blocks, by number; the others cost next to nothing.
        """
        first_session = 0
        for number, start in enumerate(range(0, self.n, BLOCK)):
            block = _Block(self, number, min(BLOCK, self.n - start), first_session)
            if wanted(number):
                yield block.frame()
            first_session += block.sessions


def desk(n: int, seed: int | None = None, config: BenchConfig | None = None) -> Desk:
    """Return a desk of `n` calls; seed and shares as configured unless given.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"a desk has at least 1 call, got {n}")
    config = config or bench_config()
    return Desk(n, config.seed if seed is None else seed, config)


def desk_columns(n: int, seed: int | None = None) -> DeskFrame:
    """Return `n` calls in memory, about 350 bytes each; see `DeskFrame`.

    Cost: about a microsecond a row.
    """
    made = desk(n, seed)
    return DeskFrame(pl.concat(list(made.blocks())), made.tables)


class _Block:
    """One block of calls, while it is drawn."""

    def __init__(self, made: Desk, number: int, n: int, first_session: int) -> None:
        self.tables, self.shares, self.n = made.tables, made.config, n
        self.rng = np.random.default_rng([made.seed, number])
        self.first_session = first_session
        lengths = self.rng.integers(SHORTEST, LONGEST + 1, n // SHORTEST + 1)
        self.sessions = int(np.searchsorted(np.cumsum(lengths), n)) + 1
        lengths = lengths[: self.sessions]
        self.of = np.repeat(np.arange(self.sessions), lengths)[:n]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.step = np.arange(n) - starts[self.of]
        self.start_ms = START_MS + number * 3_600_000

    def chosen(self, share: float, size: int) -> Flags:
        """Draw which of `size` things are so."""
        return self.rng.random(size) < share

    def below(self, bound: int, size: int) -> Ints:
        """Draw numbers below `bound`."""
        return self.rng.integers(0, bound, size)

    def of_tenant(self, bound: int, tenant: Ints) -> Ints:
        """Draw a number below `bound` that belongs to each tenant: tables deal rows out by turns."""
        count = len(self.tables.tenants)
        return tenant + count * self.below(bound // count, len(tenant))

    def frame(self) -> pl.DataFrame:
        """Draw the block."""
        session = self._sessions().select(pl.all().gather(pl.lit(pl.Series(self.of))))
        calls = pl.concat([session, self._calls()], how="horizontal")
        calls = calls.with_columns(**_arguments()).with_columns(at=pl.col("at") + pl.col("step") * 7_013)
        return calls.with_columns(args=canonical_args()).select(*COLUMNS)

    def _sessions(self) -> pl.DataFrame:
        """Draw who works for whom on what; one row a session."""
        n, shares, tables = self.sessions, self.shares.sessions, self.tables
        tenant = self.below(len(tables.tenants), n)
        other = (tenant + 1) % len(tables.tenants)
        customer = self.of_tenant(tables.customers.height, tenant)
        ticket = self.of_tenant(tables.tickets.height, tenant)
        colleague = self.chosen(shares.colleagues_ticket, n)
        agent = np.where(colleague, self.of_tenant(tables.agents.height, tenant), tables.assignee[ticket])
        foreign = self.chosen(shares.foreign_agent, n)
        agent = np.where(foreign, self.of_tenant(tables.agents.height, other), agent)
        order = customer + tables.customers.height * self.below(tables.orders_each, n)
        stranger = self.of_tenant(tables.orders.height, tenant)
        order = np.where(self.chosen(shares.strangers_order, n), stranger, order)
        order = np.where(
            self.chosen(shares.foreign_order, n), self.of_tenant(tables.orders.height, other), order
        )
        order = np.where(self.chosen(shares.lost_order, n), tables.orders.height + order, order)
        return self._named(tenant, agent, customer, order, ticket)

    def _named(self, tenant: Ints, agent: Ints, customer: Ints, order: Ints, ticket: Ints) -> pl.DataFrame:
        n, tables, shares = self.sessions, self.tables, self.shares.sessions
        known = ~self.chosen(shares.newcomer, n)
        shops = tables.customers[customer]
        newcomer = pl.format("n-{}", pl.Series(customer))
        return pl.select(
            session=pl.Series(np.arange(n) + self.first_session, dtype=pl.UInt32),
            at=pl.Series(self.start_ms + self.below(3_600_000, n)),
            tenant=pl.Series(tables.tenants).gather(tenant),
            agent=tables.agents["agent_id"].gather(agent),
            customer=pl.when(pl.Series(known)).then(shops["customer_id"]).otherwise(newcomer),
            tier=pl.when(pl.Series(known)).then(shops["tier"]),
            country=pl.when(pl.Series(known)).then(shops["country"]),
            home=shops["country"],
            order=pl.format("o-{}", pl.Series(order)),
            left_cents=pl.Series(tables.refundable(order)),
            ticket=tables.tickets["ticket_id"].gather(ticket),
            scopes=pl.Series(SCOPES).gather(self.chosen(shares.reads_only, n).astype(np.int64)),
            base_cents=pl.Series(self.below(55_000, n)),
        )

    def _calls(self) -> pl.DataFrame:
        """Draw tools and what arguments are made of; one row a call."""
        n, shares = self.n, self.shares.calls
        odds = [float(getattr(shares, tool)) for tool in TOOLS]
        tool = self.rng.choice(len(TOOLS), n, p=np.array(odds) / sum(odds))
        bought = self.rng.lognormal(8.6, 1.1, n).astype(np.int64) + 1
        amount = np.where(self.chosen(shares.overflowing_refund, n), _OVERFLOWING, bought)
        body = bodies(self.below, self.chosen, n, shares)
        return pl.select(
            step=pl.Series(self.step, dtype=pl.Int32),
            tool=pl.Series(TOOLS).gather(tool),
            number=pl.Series(self.below(1_000_000, n)),
            wanted_cents=pl.Series(amount),
            whole=pl.Series(self.chosen(0.25, n)),
            abroad=pl.Series(self.chosen(shares.address_abroad, n)),
            elsewhere=countries().gather(self.below(len(countries()), n)),
            place=streets().gather(self.below(len(streets()), n)),
            drawn_body=body,
            private=pl.Series(self.chosen(shares.internal_reply, n)),
        )


def _arguments() -> dict[str, pl.Expr]:
    """Columns of a call from what was drawn for it."""
    tool = pl.col("tool")
    orders = tool.is_in(TOOLS[:3])

    def only(name: str, value: Any) -> pl.Expr:
        return pl.when(tool == name).then(value)

    capped = pl.when("whole").then(pl.max_horizontal("left_cents", 1)).otherwise("wanted_cents")
    return {
        "resource_type": pl.when(orders).then(pl.lit("Order")).otherwise(pl.lit("Ticket")),
        "resource": pl.when(orders).then("order").otherwise("ticket"),
        "order_id": pl.when(orders).then("order"),
        "ticket_id": pl.when(~orders).then("ticket"),
        "amount_cents": only("issue_refund", capped),
        "reason": only("issue_refund", pl.format("case {}: arrived damaged", "number")),
        "street": only("change_address", pl.format("{} {}", "place", pl.col("number") % 240 + 1)),
        "city": only("change_address", pl.format("District {}", pl.col("number") % 997)),
        "to_country": only("change_address", pl.when("abroad").then("elsewhere").otherwise("home")),
        "body": only("reply_ticket", pl.format("{} Reference {}.", "drawn_body", "number")),
        "internal": only("reply_ticket", pl.col("private")),
        "resolution": only("close_ticket", pl.format("solved, see note {}", "number")),
        "calls": pl.col("step").cast(pl.Int64),
        "refunded_cents": pl.col("base_cents") + pl.col("step").cast(pl.Int64) * 900,
    }


COLUMNS = (
    "session", "step", "at", "tenant", "tool", "agent", "customer", "resource_type", "resource", "scopes", "calls",
    "refunded_cents", "tier", "country", "args", "order_id", "ticket_id", "amount_cents", "reason", "street", "city",
    "to_country", "body", "internal", "resolution",
)  # fmt: skip
"""Of `DeskFrame.rows`."""
