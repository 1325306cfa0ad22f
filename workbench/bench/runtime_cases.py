"""Calls that `redecide bench runtime` times: bundles, arguments, and what must come of each.

One rule: a case says what a call must end in, and is held to it; a benchmark of calls that did something else fails.

The tool is empty, so that everything that is timed is governance. No two calls are alike: each is about an order of
its own, so nothing that is remembered by content helps, as it would not help an agent.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from runtime import ApprovalRequired, Blocked, Runtime, load_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runtime import Session

Rules = Literal["one", "hundred", "hundred_tools"]
"""`one` permit on an argument; `hundred`: and 99 forbids on an argument of the same tool, none of them satisfied;
`hundred_tools`: and 99 forbids of a tool each, as agent-governance-toolkit's own benchmark has them."""

Ending = Literal["allow", "modify", "approve", "block", "duplicate"]

RULES: Final[tuple[Rules, ...]] = ("one", "hundred", "hundred_tools")
AMOUNTS: Final[Mapping[Ending, int]] = {
    "allow": 4_200, "duplicate": 4_200, "modify": 7_000, "approve": 30_000, "block": 150_000,
}  # fmt: skip
_MANY: Final = 100
_SCHEMA: Final = """
entity Agent;
entity User;
entity Order;
action refund appliesTo {{
  principal: [Agent], resource: [Order],
  context: {{ args: {{ order_id: String, amount_cents: Long }}{fact} }}
}};
"""
_FACT: Final = """version = 1
[sources.orders]
kind = "callable"
[[facts]]
name = "order"
source = "orders"
actions = ["refund"]
key = { order_id = "args.order_id" }
tenant_column = "tenant"
fields = ["status", "total_cents"]
into = "context"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCase:
    """One kind of call."""

    name: str
    rules: Rules = "one"
    fact: bool = False
    """A policy looks at a fact, looked up in a dictionary of this process."""
    ending: Ending = "allow"
    staged: bool = False
    """The tool prepares and commits; both are empty."""


CASES: Final = (
    CallCase(name="allow"),
    CallCase(name="allow, a fact", fact=True),
    CallCase(name="allow, 100 rules", rules="hundred"),
    CallCase(name="allow, 100 rules, a fact", rules="hundred", fact=True),
    CallCase(name="allow, 100 rules of 100 tools", rules="hundred_tools"),
    CallCase(name="block", ending="block"),
    CallCase(name="modify", ending="modify"),
    CallCase(name="approve", ending="approve"),
    CallCase(name="duplicate", ending="duplicate"),
    CallCase(name="staged", staged=True),
)


def files_of(case: CallCase) -> dict[str, str]:
    """The bundle of a case, by file."""
    others = [f"tool_{i}" for i in range(1, _MANY)] if case.rules == "hundred_tools" else []
    schema = _SCHEMA.format(
        fact=", order?: { status: String, total_cents: Long }" if case.fact else ""
    ) + "".join(f"action {name} appliesTo {{ principal: [Agent], resource: [Order] }};\n" for name in others)
    return {
        "schema.cedarschema": schema,
        "rules.cedar": "\n".join(_policies(case)),
        "context.toml": _FACT if case.fact else "version = 1\n",
        "limits.toml": "version = 1\n",
    }


def _policies(case: CallCase) -> Iterator[str]:
    paid = ' && context has order && context.order.status == "paid"' if case.fact else ""
    scope = '(principal, action == Action::"refund", resource)'
    yield f'@id("base")\npermit {scope} when {{ context.args.amount_cents < 100000{paid} }};'
    if case.ending == "modify":
        patch = '@verdict("modify")\n@patch("{\\"amount_cents\\": 5000}")'
        yield f'@id("cap")\n{patch}\nforbid {scope} when {{ context.args.amount_cents > 5000 }};'
    if case.ending == "approve":
        yield f'@id("large")\n@verdict("approve")\nforbid {scope} when {{ context.args.amount_cents > 20000 }};'
    for i in range(1, _MANY if case.rules == "hundred" else 1):
        yield f'@id("rule-{i}")\nforbid {scope} when {{ context.args.amount_cents > {200_000 + i} }};'
    for i in range(1, _MANY if case.rules == "hundred_tools" else 1):
        yield f'@id("rule-{i}")\nforbid (principal, action == Action::"tool_{i}", resource);'


def _orders(key: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**key, "status": "paid", "total_cents": 5_000}]


@dataclass
class Governed:
    """A runtime with one tool, open on a ledger."""

    case: CallCase
    runtime: Runtime
    session: Session
    ledger: Path
    _ids: Iterator[int] = field(default_factory=itertools.count)
    _key: str = "first"

    @classmethod
    def open(cls, case: CallCase, folder: Path, *, ledger: Path | None = None) -> Governed:
        """Open the bundle of a case; its ledger is `folder/ledger.sqlite` unless another is given."""
        bundle = folder / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)
        for name, text in files_of(case).items():
            (bundle / name).write_text(text, encoding="utf-8")
        ledger = ledger or folder / "ledger.sqlite"
        runtime = Runtime.open(
            load_bundle(bundle),
            lake=folder / "lake",
            ledger=ledger,
            sources={"orders": _orders} if case.fact else {},
        )
        runtime.tool(_prepare, name="refund", resource="Order::{order_id}", **_effects(case))
        made = cls(case, runtime, _session(runtime), ledger)
        made.repeat()
        return made

    def repeat(self) -> None:
        """Make the first call of a key, for `duplicate`; it must be the repeats that are timed."""
        if self.case.ending == "duplicate":
            self.call()

    def call(self) -> None:
        """Make one call, and hold it to what must come of it."""
        self.call_in(self.session)

    def call_in(self, session: Session) -> None:
        """Make one call in a session of this runtime's."""
        ending = self.case.ending
        repeated = ending == "duplicate"
        order = "o-0" if repeated else f"o-{next(self._ids)}"
        try:
            session.call(
                "refund",
                idempotency_key=self._key if repeated else None,
                order_id=order,
                amount_cents=AMOUNTS[ending],
            )
        except Blocked:
            found = "block"
        except ApprovalRequired:
            found = "approve"
        else:
            found = ending if ending in ("modify", "duplicate") else "allow"
        if found != ending:
            raise RuntimeError(f"a call of case {self.case.name!r} ended as {found}, not as {ending}")

    async def acall_in(self, session: Session) -> None:
        """Make one call from async code."""
        await session.acall("refund", order_id=f"o-{next(self._ids)}", amount_cents=AMOUNTS[self.case.ending])

    def new_session(self) -> Session:
        """Return a further session."""
        return _session(self.runtime)

    def close(self) -> None:
        """Close without draining."""
        self.runtime.close(drain=False)


def _session(runtime: Runtime) -> Session:
    return runtime.session(principal="Agent::bot", on_behalf_of="User::ana", tenant="acme")


def _effects(case: CallCase) -> dict[str, Any]:
    return {"effect": "staged", "commit": _end, "abort": _end} if case.staged else {}


def _prepare(order_id: str, amount_cents: int) -> None:
    """The tool: empty."""


def _end(handle: object) -> None:
    """Commit, or abort: empty."""
