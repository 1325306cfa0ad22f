"""A runtime with one tool whose body and whose source of facts a test sets; an empty ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runtime import Runtime
from runtime.bundle import bundle_from_files
from runtime.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = """
entity Agent; entity User; entity Thing; entity Tool;
action "act" appliesTo { principal: [Agent], resource: [Thing], context: {
  directory?: { note: String }, args: { id: String, note?: String, tags?: Set<String> } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { args: {} } };
"""
POLICIES = """
@id("permit") permit(principal, action, resource);
@id("cut") @verdict("modify") @patch("{\\"note\\": null}") forbid(principal, action == Action::"act", resource)
  when { context.args has note && context.args.note like "*secret*" };
"""
SPEC = """
[sources.directory]
kind = "callable"
[[facts]]
name = "directory"
actions = ["act"]
source = "directory"
key = { id = "args.id" }
fields = ["note"]
shared = true
"""


class World:
    """A runtime with one tool, `act`, whose body a test sets."""

    def __init__(self, lake: Path, more: str = "") -> None:
        self.source: Callable[[Any], Any] = lambda _: None
        texts = {"p.cedar": POLICIES + more, "schema.cedarschema": SCHEMA, "context.toml": SPEC}
        self.runtime = Runtime.open(
            bundle_from_files(texts, "b"), lake=lake, sources={"directory": self._ask}
        )
        self.body: Callable[..., Any] = lambda **_: None

        @self.runtime.tool(resource="Thing::{id}")
        def act(id: str, note: str | None = None, tags: list[str] | None = None) -> Any:  # noqa: A002
            return self.body(id=id, note=note, tags=tags)

        self.act = act

    def _ask(self, where: Any) -> Any:
        return self.source(where)

    def session(self, **changes: Any) -> Any:
        return self.runtime.session(**({"principal": "Agent::bot", "tenant": "acme"} | changes))

    def outcome(self, session: Any) -> dict[str, Any]:
        found = self.runtime.ledger.outcome_of(session.last_decision["decision_id"])
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "lake")
    yield made
    made.runtime.ledger.close()


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        yield opened
