"""A model of ledger and lake under commits, reopening, crashes, other processes' handles and interrupted drains."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.drain import drain
from runtime.errors import CommitConflict
from runtime.evidence import broken_links
from runtime.lake import LakeStore, to_arrow
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionStep
from runtime.testing import context, decision, entity, execution
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, ENTITIES, OUTCOMES

EVERYTHING = (0, 2**62, 100_000)
names = st.sampled_from(["a", "b", "ü/"])


class Killed(BaseException):
    """Stands for the death of a drainer."""


class LedgerModel(RuleBasedStateMachine):
    """What the ledger must hold, kept in plain Python."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redecide-"))
        self.generation = 0
        self.ledger = Ledger.open(self.folder / "ledger0.sqlite")
        self.store = LakeStore(self.folder / "lake", write=True)
        self.decisions: list[dict[str, Any]] = []
        self.open: list[str] = []
        self.rows = 0
        self.contents: set[tuple[str, str]] = set()
        self.sessions: Counter[tuple[str, str]] = Counter()
        self.claims: dict[str, Claim] = {}
        self.drained: dict[str, int] = {}

    def _commit(self, ledger: Ledger, tenant: str, session: str, key: str | None, text: str) -> None:
        made = decision(tenant=tenant, session_id=session)
        contents = [context(text), entity(text)]
        steps = self.sessions[tenant, session]
        claim = Claim(key, "args", made["decision_id"]) if key else None
        step = SessionStep(tenant=tenant, session_id=session, expected_step=steps, ran=True, owner="me")
        held = self.claims.get(key) if key else None
        with pytest.raises(ClaimTaken) if held else contextlib.nullcontext() as caught:
            ledger.commit(contents=contents, evidence=[(DECISIONS, made)], claim=claim, session=step)
        if caught:
            assert caught.value.claim == held
            return
        if claim:
            self.claims[claim.key_hash] = claim
        self.sessions[tenant, session] += 1
        self.contents |= {(table.name, row[table.key]) for table, row in contents}
        self.decisions.append(made)
        self.open.append(made["decision_id"])
        self.rows += 1

    @rule(tenant=names, session=names, key=st.none() | names, text=names)
    def commit(self, tenant: str, session: str, key: str | None, text: str) -> None:
        self._commit(self.ledger, tenant, session, key, text)

    @rule(tenant=names, session=names, text=names)
    def commit_elsewhere(self, tenant: str, session: str, text: str) -> None:
        with Ledger.open(self.ledger.path, create=False) as other:
            assert other.id == self.ledger.id
            self._commit(other, tenant, session, None, text)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def commit_late(self, data: Any) -> None:
        (tenant, session), steps = data.draw(st.sampled_from(sorted(self.sessions.items())))
        late = SessionStep(
            tenant=tenant,
            session_id=session,
            expected_step=data.draw(st.integers(0, steps - 1)),
            ran=True,
            owner="me",
        )
        with pytest.raises(CommitConflict):
            self.ledger.commit(contents=[context("lost")], evidence=[(DECISIONS, decision())], session=late)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        ident = data.draw(st.sampled_from(self.open))
        made = next(row for row in self.decisions if row["decision_id"] == ident)
        self.ledger.commit(evidence=[(OUTCOMES, execution(made)), (OUTCOMES, execution(made, kind="label"))])
        self.open.remove(ident)
        self.rows += 2

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.ledger.path, create=False)

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files as they are, log included; the old handle closes later."""
        self.generation += 1
        copy = self.folder / f"ledger{self.generation}.sqlite"
        for suffix in ("", "-wal"):
            if Path(f"{self.ledger.path}{suffix}").exists():
                shutil.copy(f"{self.ledger.path}{suffix}", f"{copy}{suffix}")
        self.ledger.close()
        self.ledger = Ledger.open(copy, create=False)

    @rule()
    def drain(self) -> None:
        report = drain(self.ledger, self.store, lease_seconds=0)
        assert report.upto == self.rows
        self._check_lake()

    @rule(after=st.integers(1, 20))
    def drain_and_die(self, after: int) -> None:
        left = iter(range(after))

        def at_step(_step: str) -> None:
            if next(left, None) is None:
                raise Killed

        with contextlib.suppress(Killed):
            drain(self.ledger, self.store, lease_seconds=0, at_step=at_step)

    @rule(pause=st.sampled_from([f"read:{table.name}" for table in DRAINED]))
    def drain_against_another(self, pause: str) -> None:
        def at_step(step: str) -> None:
            if step == pause:
                drain(self.ledger, self.store, lease_seconds=0)

        drain(self.ledger, self.store, lease_seconds=0, at_step=at_step)
        self._check_lake()

    def _check_lake(self) -> None:
        for table in (CONTEXTS, ENTITIES, DECISIONS, OUTCOMES):
            rows = [row for _, row in self.ledger.rows_after(table, *EVERYTHING)]
            by_key = [(table.key, "ascending")]
            found = self.store.read(table).sort_by(by_key)
            assert found.equals(to_arrow(table, rows).sort_by(by_key)), table.name

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        ledger = self.ledger
        rows = {
            table: [row for _, row in ledger.rows_after(table, *EVERYTHING)]
            for table in (CONTEXTS, ENTITIES, DECISIONS, OUTCOMES)
        }
        assert ledger.head()[0] == self.rows
        assert [row["decision_id"] for row in rows[DECISIONS]] == [
            row["decision_id"] for row in self.decisions
        ]
        assert [row["decision_id"] for row in ledger.unfinished()] == self.open
        assert {(t.name, row[t.key]) for t in (CONTEXTS, ENTITIES) for row in rows[t]} == self.contents
        assert broken_links((t.name, row) for t in (DECISIONS, OUTCOMES) for row in rows[t]) == []
        for (tenant, session), steps in self.sessions.items():
            assert ledger.session(tenant, session) == (steps, steps, "me")
        for key, claim in self.claims.items():
            assert ledger.claim(key) == claim

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            drain(self.ledger, self.store, lease_seconds=0)
            self._check_lake()
            self.ledger.close()
            shutil.rmtree(self.folder)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=max(5, settings().max_examples // 5), stateful_step_count=20)
