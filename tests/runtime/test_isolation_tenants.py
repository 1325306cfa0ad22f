"""Tenants side by side in one runtime, with the same names for everything: nothing of one reaches another.

A stateful model: each tenant is an independent little world of sessions, keys, budgets, approvals, stops and facts.
Whatever is done in any order, the runtime must behave as if each tenant were alone, down to the lake's partitions.
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from runtime import (
    ApprovalRequired,
    ApprovalUnknown,
    Blocked,
    CallableSource,
    IdempotencyConflict,
    RecordRefused,
    RegistrationError,
    Runtime,
    current_session,
)
from runtime.authenticators import Approver
from runtime.bundle import bundle_from_files
from runtime.entities import EntityUid
from runtime.errors import NotAnApprover
from runtime.lake import LakeStore
from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.authenticators import Matter

TENANTS = [
    "acme",
    "ACME",
    "acme ",
    " acme",
    "acme.",
    "acme..",
    "",
    ".",
    "..",
    "a/b",
    "a%2Fb",
    "a%252Fb",
    "a\\b",
    "a\x00",
    "a",
    "tenant=a",
    "tenant=acme",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "ﬁ",
    "fi",
    "null",
    "None",
    "__HIVE_DEFAULT_PARTITION",
    "%",
    "_",
    "**",
    "' OR 1=1 --",
    '","acme',
    "acme\n",
    "\u202eemca",
    "acme\u200b",
]
"""Names that are one if anything escapes, normalises, folds, trims, globs or joins them."""

BUDGET = 6
FILES = {
    "p.cedar": """
@id("permit") permit(principal, action, resource);
@id("ask") @verdict("approve") @approvers("Role::\\"finance\\"") forbid(principal, action == Action::"pay", resource);
@id("known") forbid(principal, action == Action::"act", resource) unless { context has person };
@id("fit") @verdict("modify") @patch("{\\"note\\": {\\"$ref\\": \\"context.person.name\\"}}")
forbid(principal, action == Action::"act", resource) when { context has person && context.args.note != context.person.name };
""",
    "schema.cedarschema": """
entity Agent; entity Thing; entity Role;
action "act" appliesTo { principal: [Agent], resource: [Thing], context: {
  person?: { name: String }, args: { id: String, note: String } } };
action "pay" appliesTo { principal: [Agent], resource: [Thing], context: { args: { id: String } } };
""",
    "context.toml": """
[sources.people]
kind = "callable"
[[facts]]
name = "person"
actions = ["act"]
source = "people"
key = { id = "args.id" }
fields = ["name"]
tenant_column = "tenant"
""",
    "limits.toml": f"""
version = 2
[[budget]]
name = "calls"
per = "tenant"
measure = "calls"
max = {BUDGET}
actions = ["act"]
""",
}
BOSS = EntityUid("Agent", "boss")


class Vouch:
    """A credential that vouches for somebody in one tenant."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant


class Vouching:
    """Authenticates by what the credential says; a real one verifies it first."""

    takes: type = Vouch

    def authenticate(self, credential: Vouch, for_: Matter) -> Approver:
        return Approver(
            uid=EntityUid("Agent", "boss"),
            roles=frozenset({EntityUid("Role", "finance")}),
            tenants=frozenset({credential.tenant}),
            method="test",
            credential_id=f"boss of {for_.approval_id}",
        )


class Books:
    """What one tenant has: the model."""

    def __init__(self) -> None:
        self.calls = 0
        self.claims: dict[tuple[str, str], tuple[str, Any]] = {}
        self.owners: dict[str, str] = {}
        self.pending: list[tuple[str, str]] = []
        self.granted: set[str] = set()
        self.names: dict[str, str] = {}
        self.decisions: list[str] = []
        self.stop: Any = None


class Directory:
    """Facts of all tenants, behind one versioned source."""

    def __init__(self) -> None:
        self.revision = 0
        self.people: dict[tuple[str, str], str] = {}

    def version(self) -> int:
        return self.revision

    def __call__(self, where: dict[str, Any]) -> Any:
        name = self.people.get((where["tenant"], where["id"]))
        return None if name is None else {"name": name, "tenant": where["tenant"]}


tenants = st.sampled_from(TENANTS)
sessions = st.sampled_from(["s", "S", "s ", "a/b"])
agents = st.sampled_from(["bot", "Bot"])
idents = st.sampled_from(["1", "2"])
keys = st.none() | st.sampled_from(["k", "K", "k "])


class Tenants(RuleBasedStateMachine):
    """One runtime, many tenants."""

    folder: Path
    number = 0

    @initialize(pair=st.lists(tenants, min_size=2, max_size=4, unique=True))
    def open(self, pair: list[str]) -> None:
        Tenants.number += 1
        self.lake = self.folder / str(Tenants.number)
        self.directory = Directory()
        self.runtime = Runtime.open(
            bundle_from_files(FILES, "b"),
            lake=self.lake,
            sources={"people": CallableSource(self.directory, self.directory.version)},
            authenticators=[Vouching()],
        )
        self.effects: list[tuple[str, str, str]] = []
        self.books = {name: Books() for name in pair}
        self.names = pair
        self.runtime.tool(self._act, name="act", resource="Thing::{id}")
        self.runtime.tool(self._pay, name="pay", resource="Thing::{id}")

    def _act(self, id: str, note: str) -> str:  # noqa: A002 - as the schema says
        return self._effect("act", f"{id}:{note}")

    def _pay(self, id: str) -> str:  # noqa: A002 - as the schema says
        return self._effect("pay", id)

    def _effect(self, tool: str, what: str) -> str:
        session = current_session()
        assert session is not None
        self.effects.append((session.identity.tenant, tool, what))
        return f"{session.identity.tenant}|{len(self.effects)}|{what}"

    def _tenant(self, index: int) -> tuple[str, Books]:
        name = self.names[index % len(self.names)]
        return name, self.books[name]

    def _session(self, tenant: str, session_id: str, agent: str) -> Any:
        """Open a session; None where it is somebody else's, as the model says it must be."""
        owner = self.books[tenant].owners.get(session_id, agent)
        if owner == agent:
            return self.runtime.session(principal=f"Agent::{agent}", tenant=tenant, session_id=session_id)
        with pytest.raises(RegistrationError):
            self.runtime.session(principal=f"Agent::{agent}", tenant=tenant, session_id=session_id)
        return None

    def _decided(self, session: Any, tenant: str, session_id: str, agent: str) -> dict[str, Any]:
        row = dict(session.last_decision)
        assert row["tenant"] == tenant
        self.books[tenant].decisions.append(row["decision_id"])
        self.books[tenant].owners.setdefault(session_id, agent)
        return row

    @rule(index=st.integers(0, 3), ident=idents, name=st.sampled_from(["Ada", "Eve"]))
    def learn(self, index: int, ident: str, name: str) -> None:
        tenant, books = self._tenant(index)
        self.directory.revision += 1
        self.directory.people[tenant, ident] = books.names[ident] = f"{name} of {tenant}"

    @rule(index=st.integers(0, 3), session_id=sessions, agent=agents, ident=idents, key=keys)
    def call(self, index: int, session_id: str, agent: str, ident: str, key: str | None) -> None:
        tenant, books = self._tenant(index)
        session = self._session(tenant, session_id, agent)
        if session is None:
            return
        before = len(self.effects)
        known = books.names.get(ident)
        claim = books.claims.get((agent, key)) if key is not None else None
        try:
            result = session.call("act", ident, "x", idempotency_key=key)
        except IdempotencyConflict:
            self._decided(session, tenant, session_id, agent)
            assert claim is not None
            assert claim[0] != ident
            assert len(self.effects) == before
            return
        except Blocked:
            row = self._decided(session, tenant, session_id, agent)
            assert len(self.effects) == before
            if books.stop is not None:
                assert row["decided_by"] == "limits"
            elif claim is not None:
                assert (
                    claim[0] == ident
                )  # the fact has changed since, so what would run now is another action
                assert row["reason_code"] == "duplicate_differs" or books.calls >= BUDGET or known is None
            else:
                assert known is None or books.calls >= BUDGET
            return
        row = self._decided(session, tenant, session_id, agent)
        assert books.stop is None
        if claim is not None:
            assert (result, len(self.effects)) == (claim[1], before)
            return
        assert known is not None
        assert books.calls < BUDGET
        assert json.loads(row["enforced_args"])["note"] == known  # this tenant's fact, by way of a patch
        assert self.effects[before:] == [(tenant, "act", f"{ident}:{known}")]
        books.calls += 1
        if key is not None:
            books.claims[agent, key] = (ident, result)

    @rule(index=st.integers(0, 3), session_id=sessions, agent=agents, ident=idents)
    def ask(self, index: int, session_id: str, agent: str, ident: str) -> None:
        tenant, books = self._tenant(index)
        session = self._session(tenant, session_id, agent)
        if session is None:
            return
        before = len(self.effects)
        with pytest.raises((ApprovalRequired, Blocked)) as caught:
            session.call("pay", ident)
        row = self._decided(session, tenant, session_id, agent)
        assert isinstance(caught.value, Blocked) == (books.stop is not None)
        assert len(self.effects) == before
        if books.stop is None:
            books.pending.append((row["decision_id"], agent))

    @rule(index=st.integers(0, 3), other=st.integers(0, 3), which=st.integers(0, 9))
    def grant(self, index: int, other: int, which: int) -> None:
        """Somebody who may approve in one tenant tries in it, and in another."""
        _, books = self._tenant(index)
        if not books.pending:
            return
        ident, _ = books.pending[which % len(books.pending)]
        credential = Vouch(self._tenant(other)[0])
        mine = self._tenant(other)[1] is books
        if ident in books.granted:
            return
        if mine:
            self.runtime.approvals.grant(ident, credential)
            books.granted.add(ident)
        else:
            with pytest.raises(NotAnApprover):
                self.runtime.approvals.grant(ident, credential)
            with pytest.raises(NotAnApprover):
                self.runtime.approvals.deny(ident, credential)

    @rule(index=st.integers(0, 3), other=st.integers(0, 3), which=st.integers(0, 9), session_id=sessions)
    def resume(self, index: int, other: int, which: int, session_id: str) -> None:
        """The same agent resumes an approval in its tenant, and in another under the same names."""
        _, books = self._tenant(index)
        if not books.pending:
            return
        ident, agent = books.pending[which % len(books.pending)]
        tenant, others = self._tenant(other)
        session = self._session(tenant, session_id, agent)
        if session is None:
            return
        before = len(self.effects)
        if others is not books:
            with pytest.raises(ApprovalUnknown):
                session.resume(ident)
        elif ident not in books.granted or books.stop is not None:
            with pytest.raises((ApprovalRequired, Blocked)):
                session.resume(ident)
        else:
            session.resume(ident)
            assert [effect[:2] for effect in self.effects[before:]] == [(tenant, "pay")]
            books.pending.remove((ident, agent))
            before += 1
        assert len(self.effects) == before

    @rule(index=st.integers(0, 3), other=st.integers(0, 3), which=st.integers(0, 9), session_id=sessions)
    def label(self, index: int, other: int, which: int, session_id: str) -> None:
        tenant, books = self._tenant(index)
        _, others = self._tenant(other)
        session = self._session(tenant, session_id, "bot")
        if session is None or not others.decisions:
            return
        ident = others.decisions[which % len(others.decisions)]
        if others is books:
            self.runtime.label("ok", "yes", session=session, decision_id=ident, source="test")
        else:
            with pytest.raises(RecordRefused, match="another tenant"):
                self.runtime.label("ok", "yes", session=session, decision_id=ident, source="test")

    @rule(index=st.integers(0, 3))
    def stop(self, index: int) -> None:
        tenant, books = self._tenant(index)
        if books.stop is not None:
            self.runtime.stops.lift(books.stop, by="test")
            books.stop = None
        elif tenant.strip():  # a stop of a tenant has to name one
            books.stop = self.runtime.stops.set(tenant=tenant, reason="test", by="test")

    @invariant()
    def what_waits_is_listed_in_its_own_tenant(self) -> None:
        for name, books in getattr(self, "books", {}).items():
            listed = {approval.id for approval in self.runtime.approvals.list(tenant=name)}
            assert listed == {ident for ident, _ in books.pending} - books.granted

    def teardown(self) -> None:
        if not hasattr(self, "runtime"):
            return
        try:
            self._check_lake()
        finally:
            self.runtime.ledger.close()

    def _check_lake(self) -> None:
        self.runtime.drain()
        store = LakeStore(self.lake)
        rows = store.read(DECISIONS, ["decision_id", "tenant", "context_hash"]).to_pylist()
        contexts = {row["context_hash"]: row["context"] for row in store.read(CONTEXTS).to_pylist()}
        of = {row["decision_id"]: row["tenant"] for row in rows}
        for name, books in self.books.items():
            assert {ident for ident, tenant in of.items() if tenant == name} >= set(books.decisions)
        assert set(of.values()) <= set(self.names)
        for row in store.read(OUTCOMES, ["decision_id", "tenant"]).to_pylist():
            assert row["tenant"] == of[row["decision_id"]]
        for row in rows:
            facts = json.loads(contexts[row["context_hash"]])["facts"] if row["context_hash"] else {}
            for fact in facts.values():
                assert fact["key"].get("tenant", row["tenant"]) == row["tenant"]
                assert fact["value"] is None or fact["value"]["name"].endswith(f" of {row['tenant']}")
        for table in (DECISIONS, OUTCOMES):
            handle = store.table(table)
            if handle is not None:
                held = {part["tenant"] or "" for part in handle.partitions()}
                assert held <= set(self.names)


@pytest.mark.filterwarnings("error")
def test_tenants_never_meet(tmp_path: Path) -> None:
    Tenants.folder = tmp_path
    run_state_machine_as_test(
        Tenants, settings=settings(max_examples=12, stateful_step_count=25, deadline=None)
    )


def test_every_name_has_its_own_partition(tmp_path: Path) -> None:
    """All of them at once, with one key, one session id and one principal."""
    directory = Directory()
    sources = {"people": CallableSource(directory, directory.version)}
    with Runtime.open(bundle_from_files(FILES, "b"), lake=tmp_path, sources=sources) as runtime:

        @runtime.tool(resource="Thing::{id}")
        def act(id: str, note: str) -> str:  # noqa: A002 - as the schema says
            session = current_session()
            assert session is not None
            return f"{session.identity.tenant}|{note}"

        for tenant in TENANTS:
            directory.people[tenant, "1"] = f"Ada of {tenant}"
        for _ in range(2):
            for tenant in TENANTS:
                with runtime.session(principal="Agent::bot", tenant=tenant, session_id="s") as session:
                    assert session.call("act", "1", "x", idempotency_key="k") == f"{tenant}|Ada of {tenant}"
                    assert session.counters().calls == 1
        runtime.drain()
        store = LakeStore(tmp_path)
        rows = store.read(DECISIONS, ["tenant", "kind", "session_id"]).to_pylist()
        assert sorted((row["tenant"], row["kind"]) for row in rows) == sorted(
            (tenant, kind) for tenant in TENANTS for kind in ("call", "duplicate")
        )
        handle = store.table(DECISIONS)
        assert handle is not None
        assert sorted(part["tenant"] or "" for part in handle.partitions()) == sorted(TENANTS)


@pytest.mark.parametrize(
    "tenant", ["__HIVE_DEFAULT_PARTITION__", "*", "\ud800", "x" * 241, "/" * 100, 5, None, b"acme"]
)
def test_a_tenant_that_cannot_be_a_partition_opens_no_session(tmp_path: Path, tenant: Any) -> None:
    sources = {"people": Directory()}
    with (
        Runtime.open(bundle_from_files(FILES, "b"), lake=tmp_path, sources=sources) as runtime,
        pytest.raises(RegistrationError),
    ):
        runtime.session(principal="Agent::bot", tenant=tenant)
