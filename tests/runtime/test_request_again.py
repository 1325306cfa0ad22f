"""Requests of one session and tool share what hangs on them, and nothing of one call is found in the next."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from runtime.deciding import Settler
from runtime.record import request_of
from runtime.request import Request
from runtime.testing import request

if TYPE_CHECKING:
    from pathlib import Path

_OWN = st.fixed_dictionaries(
    {
        "decision_id": st.text(min_size=1),
        "step": st.integers(0, 9),
        "args": st.dictionaries(st.text(), st.integers()),
        "bound": st.none() | st.tuples(st.just({}), st.text()),
        "idempotency_key": st.none() | st.text(),
        "at": st.datetimes().map(lambda at: at.replace(tzinfo=UTC)),
        "session_state": st.fixed_dictionaries({"calls": st.integers(0, 9)}),
    }
)

FILES = {
    "schema.cedarschema": """
        entity Agent; entity Order; entity User;
        action one appliesTo { principal: [Agent], resource: [Order], context: { args: { order: String } } };
        action two appliesTo { principal: [Agent], resource: [Order], context: { args: { order: String } } };
    """,
    "rules.cedar": '@id("base") permit (principal, action, resource);',
    "context.toml": "version = 1\n",
    "limits.toml": "version = 1\n",
}


@given(_OWN, _OWN)
def test_a_request_made_from_another_is_the_one_made_anew(
    first: dict[str, Any], then: dict[str, Any]
) -> None:
    common = {"tool": "send_money", "tenant": "other", "scopes": ("a",), "required_scopes": ("b",)}
    like = request(**common)
    before = dict(like.__dict__)
    made = [like.again(**own) for own in (first, then)]
    assert made == [request(**common, **own) for own in (first, then)]
    for each, own in zip(made, (first, then), strict=True):
        wanted = request(**common, **own)
        assert {
            f.name: getattr(each, f.name) for f in fields(Request)
        } == wanted.__dict__  # also what is not compared
    assert like.__dict__ == before


def test_calls_of_one_session_keep_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Request] = []
    decide = Settler._decide

    def spy(self: Settler, asked: Request, *others: Any) -> Any:
        made.append(asked)
        return decide(self, asked, *others)

    monkeypatch.setattr(Settler, "_decide", spy)
    times = iter(datetime(2026, 11, 24, 1, minute, tzinfo=UTC) for minute in range(60))
    bundle = bundle_from_files(FILES, "b")
    with Runtime.open(bundle, lake=tmp_path / "lake", clock=lambda: next(times)) as runtime:
        one = runtime.tool(lambda order: order, name="one", resource="Order::{order}")
        runtime.tool(lambda order: order, name="two", resource="Order::x-{order}", scopes=["s"])
        session = runtime.session(principal="Agent::bot", tenant="acme", on_behalf_of="User::ana")
        rows = []
        for tool, order, key in [("one", "a", "k"), ("two", "b", None), (one, "c", None), ("two", "d", "k")]:
            with pytest.raises(Blocked, match="scope_missing") if tool == "two" else nullcontext():
                session.call(tool, order=order, idempotency_key=key)
            assert session.last_decision is not None
            rows.append(runtime.ledger.decision(str(session.last_decision["decision_id"])))
        runtime.close(drain=False)
    assert [request_of(row) for row in rows if row is not None] == made
    assert [(r.tool, r.args, r.idempotency_key, r.step, r.required_scopes) for r in made] == [
        ("one", {"order": "a"}, "k", 0, ()),
        ("two", {"order": "b"}, None, 1, ("s",)),
        ("one", {"order": "c"}, None, 2, ()),
        ("two", {"order": "d"}, "k", 3, ("s",)),
    ]
    assert [str(r.resource.text) for r in made] == ["Order::{order}", "Order::x-{order}"] * 2
