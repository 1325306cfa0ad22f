"""A refund desk as a user would build it: the shipped bundle, facts in a Delta table, and a payment provider."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLE = Path(__file__).resolve().parents[2] / "datasets" / "refund-desk" / "baseline"


class Bank:
    """A payment provider that reserves, captures and releases, as card payments are made; in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(
            "CREATE TABLE payments (effect_id TEXT PRIMARY KEY, order_id TEXT, cents INTEGER, account TEXT, state TEXT)"
        )

    def reserve(self, effect_id: str, order_id: str, cents: int, account: str) -> dict[str, Any]:
        """Set money aside; nothing has moved."""
        self._db.execute(
            "INSERT INTO payments VALUES (?,?,?,?,'reserved')", (effect_id, order_id, cents, account)
        )
        return {"payment": effect_id, "cents": cents, "account": account}

    def capture(self, effect_id: str) -> None:
        """Pay what was reserved, out of the house."""
        self._db.execute(
            "UPDATE payments SET state = 'paid' WHERE effect_id = ? AND state = 'reserved'", (effect_id,)
        )

    def release(self, effect_id: str) -> None:
        """Give up what was reserved; again and again is the same as once."""
        self._db.execute(
            "UPDATE payments SET state = 'released' WHERE effect_id = ? AND state != 'paid'", (effect_id,)
        )

    def all(self, state: str) -> list[tuple[str, int, str]]:
        """Return (order, cents, account) of the payments in a state."""
        query = "SELECT order_id, cents, account FROM payments WHERE state = ? ORDER BY rowid"
        return self._db.execute(query, (state,)).fetchall()


class Desk:
    """One refund desk, open for business."""

    def __init__(self, folder: Path, *, staged: bool = True, **opened: Any) -> None:
        self.folder, self.lake, self.ledger = folder, folder / "lake", folder / "lake" / "_ledger.sqlite"
        self.accounts = {"ana": "DE-ana", "bob": "GB-bob"}
        """Where the customer system says that money goes."""
        self.wrong_account: str | None = None
        """What a poisoned customer record would have the tool pay to instead."""
        self.exported: list[str] = []
        self.asked: list[str] = []
        self.cost_micros = 2_000
        self.bank = Bank(folder / "bank.sqlite")
        self.set_orders(age=timedelta(0))
        self.runtime = Runtime.open(BUNDLE, lake=self.lake, sources={"orders": folder / "orders"}, **opened)
        self._register(staged=staged)

    def set_orders(self, *, age: timedelta) -> None:
        """Load the order table anew, as the nightly job does; `age` ago."""
        rows = {
            "tenant": ["acme", "acme", "globex"],
            "order_id": ["o-17", "o-18", "o-99"],
            "owner": ["ana", "ana", "bob"],
            "paid_cents": [4_200, 90_000, 7_654_321],
            "refunded_cents": [0, 0, 0],
            "updated_at": [datetime.now(UTC) - age] * 3,
        }
        pl.DataFrame(rows).write_delta(self.folder / "orders", mode="overwrite")

    def _register(self, *, staged: bool) -> None:
        tool = self.runtime.tool
        guards = (self.goes_to_the_customer,)
        refund: dict[str, Any] = {"effect": "idempotent"}
        if staged:
            refund = {"effect": "staged", "commit": self.commit, "abort": self.abort}

        @tool(resource="Order::{order_id}", effect="read")
        def look_up_order(order_id: str) -> dict[str, str]:
            return {"order_id": order_id, "status": "delivered"}

        @tool(resource="Order::{order_id}", writes=("Order::{order_id}",), guards=guards, **refund)
        def issue_refund(order_id: str, amount_cents: int, effect_id: str) -> dict[str, Any]:
            handle = self.bank.reserve(
                effect_id, order_id, amount_cents, self.wrong_account or self.accounts["ana"]
            )
            if not staged:
                self.bank.capture(effect_id)
            return handle

        @tool(resource="Model::small", effect="read", usage=self.usage)
        def ask_model(prompt: str) -> dict[str, Any]:
            self.asked.append(prompt)
            return {"text": "let me think again", "tokens": 120}

        @tool(resource="Order::{order_id}")
        def export_orders(order_id: str, to: str) -> None:
            self.exported.append(to)

        self.look_up_order, self.issue_refund, self.ask_model = look_up_order, issue_refund, ask_model
        self.export_orders = export_orders

    def commit(self, handle: dict[str, Any], effect_id: str) -> dict[str, Any]:
        """Pay what was prepared."""
        self.bank.capture(effect_id)
        return {"paid_cents": handle["cents"]}

    def abort(self, effect_id: str) -> None:
        """Give up what was prepared."""
        self.bank.release(effect_id)

    def goes_to_the_customer(self, proposal: Any) -> tuple[bool, str]:
        """Output guard: the money goes to the account of the customer that the session acts for."""
        expected = self.accounts[proposal.identity.on_behalf_of.id]
        found = proposal.result["account"]
        return found == expected, f"pays to {found}; the customer's account is {expected}"

    def usage(self, result: Any) -> Any:
        """What the model's provider charges for an answer."""
        from runtime.usage import Usage

        return Usage(cost_micros=self.cost_micros, input_tokens=result["tokens"], output_tokens=12)

    def session(self, **changes: Any) -> Any:
        """Open a session of the assistant, for Ana of acme unless said otherwise."""
        who = {"principal": "Agent::refund-bot", "on_behalf_of": "Customer::ana", "tenant": "acme"}
        return self.runtime.session(**(who | changes))

    def table(self, name: str) -> pl.DataFrame:
        """Return a table of the lake, as Delta has it: what anybody else sees. Nothing in it: no columns either."""
        path = self.lake / name
        return pl.read_delta(str(path)) if path.exists() else pl.DataFrame()

    def drained(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Drain, and return decisions and executions, each in the ledger's order."""
        self.runtime.drain()
        outcomes = self.table("outcomes")
        if not outcomes.is_empty():
            outcomes = outcomes.filter(kind="execution").sort("position")
        return self.table("decisions").sort("position"), outcomes


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Give an open desk with an empty ledger."""
    opened = Desk(tmp_path)
    yield opened
    opened.runtime.close(drain=False)


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Any]:
    """Give what opens a desk with more arguments for `Runtime.open`."""
    opened: list[Desk] = []

    def make(**arguments: Any) -> Desk:
        opened.append(Desk(tmp_path, **arguments))
        return opened[-1]

    yield make
    for each in opened:
        each.runtime.close(drain=False)
