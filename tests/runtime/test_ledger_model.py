"""A model of ledger and lake: commits alone and in groups by several handles, actions moved from state to state,
reopening, crashes, upgrades of older files, and interrupted drains.

Everything the ledger must hold is kept in plain Python and compared after every step.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime import actions
from runtime.arrow import to_arrow
from runtime.drain import drain
from runtime.errors import CommitConflict
from runtime.evidence import broken_links
from runtime.holders import is_alive
from runtime.lake import LakeStore
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionStep
from runtime.ledgerfile import LEDGER_VERSION
from runtime.lifecycle import FIRST, TRANSITIONS, State, after
from runtime.testing import context, decision, entity, execution
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, ENTITIES, OUTCOMES, ExecutionStatus

EVERYTHING = (0, 2**62, 100_000)
GOLDEN = Path(__file__).parent / "golden"
UNTOLD = "SELECT decision_id, state, holder FROM actions ORDER BY position"
names = st.sampled_from(["a", "b", "ü/"])
effects = st.sampled_from(sorted(FIRST, key=str))
states = st.sampled_from(sorted(TRANSITIONS))
statuses = st.sampled_from(["succeeded", "failed", "cancelled", "aborted", "compensated", "in_doubt"])
origins = st.sampled_from([None, *(f"ledger_v{version}" for version in range(1, LEDGER_VERSION))])


class Killed(BaseException):
    """Stands for the death of a drainer."""


class LedgerModel(RuleBasedStateMachine):
    """What the ledger must hold, kept in plain Python."""

    @initialize(origin=origins)
    def start(self, origin: str | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redecide-"))
        self.generation = 0
        self.store = LakeStore(self.folder / "lake", write=True)
        self.decisions: list[dict[str, Any]] = []
        self.states: dict[str, State] = {}
        """Of every action that has not ended, in the order they began."""
        self.holders: dict[str, str | None] = {}
        self.told: set[str] = set()
        """Actions that have their final outcome, and whose tool has still to be told."""
        self.rows = 0
        self.contents: set[tuple[str, str]] = set()
        self.sessions: Counter[tuple[str, str]] = Counter()
        self.claims: dict[str, Claim] = {}
        path = self.folder / "ledger0.sqlite"
        if origin is not None:
            self._from_golden(origin, path)
        self.ledger = Ledger.open(path)
        self.other = Ledger.open(path)

    def _from_golden(self, origin: str, path: Path) -> None:
        """Begin with what an earlier release wrote; opening it upgrades it."""
        for suffix in ("", "-wal"):
            shutil.copy(GOLDEN / f"{origin}.sqlite{suffix}", f"{path}{suffix}")
        kept = json.loads((GOLDEN / f"{origin}.json").read_text())
        self.decisions = [row for _, row in kept["rows"]["decisions"]]
        self.states = dict.fromkeys(kept["unfinished"], "started")
        self.holders = dict.fromkeys(kept["unfinished"])
        self.rows = kept["head"][0]
        for table in (CONTEXTS, ENTITIES):
            self.contents |= {(table.name, row[table.key]) for _, row in kept["rows"][table.name]}
        self.claims = {key: Claim(key, *rest) for key, *rest in kept["claims"]}

    def _handle(self, *, other: bool) -> Ledger:
        return self.other if other else self.ledger

    def _commit(
        self, ledger: Ledger, tenant: str, session: str, key: str | None, text: str, effect: str | None = None
    ) -> None:
        made = decision(tenant=tenant, session_id=session, effect=effect)
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
        self._decided(made, ledger)

    def _decided(self, made: dict[str, Any], ledger: Ledger) -> None:
        ident = made["decision_id"]
        self.decisions.append(made)
        self.states[ident] = FIRST[made["effect"]]
        self.holders[ident] = ledger.holder.id
        self.rows += 1

    @rule(tenant=names, session=names, key=st.none() | names, text=names, effect=effects, other=st.booleans())
    def commit(
        self, tenant: str, session: str, key: str | None, text: str, effect: str | None, *, other: bool
    ) -> None:
        self._commit(self._handle(other=other), tenant, session, key, text, effect)

    @rule(tenant=names, session=names, text=names)
    def commit_elsewhere(self, tenant: str, session: str, text: str) -> None:
        with Ledger.open(self.ledger.path, create=False) as other:
            assert other.id == self.ledger.id
            self._commit(other, tenant, session, None, text)
        assert not is_alive(self.ledger.path, other.holder.id)

    @rule(keys=st.lists(st.none() | names, min_size=2, max_size=5), effect=effects, other=st.booleans())
    def commit_together(self, keys: list[str | None], effect: str | None, *, other: bool) -> None:
        """Threads that all queue while somebody commits: one group, in the order they came."""
        ledger = self._handle(other=other)
        writer = ledger._writer
        made = [decision(effect=effect) for _ in keys]
        results: dict[int, Any] = {}

        def commit(number: int, claim: Claim | None) -> None:
            try:
                results[number] = ledger.commit(evidence=[(DECISIONS, made[number])], claim=claim)
            except BaseException as error:  # noqa: BLE001 - what each thread gets is what is tested
                results[number] = error

        threads = []
        with writer._lock:
            for number, key in enumerate(keys):
                claim = Claim(key, "args", made[number]["decision_id"]) if key else None
                threads.append(threading.Thread(target=commit, args=(number, claim)))
                threads[-1].start()
                deadline = time.monotonic() + 30
                while len(writer._queue) <= number:
                    assert time.monotonic() < deadline
                    time.sleep(0.0002)
        for thread in threads:
            thread.join()
        for number, key in enumerate(keys):
            if key in self.claims:
                assert isinstance(results[number], ClaimTaken)
                assert results[number].claim == self.claims[key]
                continue
            assert [row["position"] for row in results[number]] == [self.rows + 1]
            if key is not None:
                self.claims[key] = Claim(key, "args", made[number]["decision_id"])
            self._decided(made[number], ledger)

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

    def _draw_decision(self, data: Any) -> dict[str, Any]:
        """One whose action is under way if there is one, most of the time; else any that was let run."""
        under_way = [row for row in self.decisions if row["decision_id"] in self.states]
        ran = [row for row in self.decisions if row["verdict"] == "allow"]
        drawn: dict[str, Any] = data.draw(st.sampled_from(under_way or ran) | st.sampled_from(ran))
        return drawn

    @precondition(lambda self: self.decisions)
    @rule(data=st.data(), old=states, new=states, other=st.booleans())
    def move(self, data: Any, old: State, new: State, *, other: bool) -> None:
        """From the state it is in, or believed to be in, to any: only what the table has happens."""
        ident = self._draw_decision(data)["decision_id"]
        old = data.draw(st.sampled_from([self.states.get(ident, old), old]))
        if new not in TRANSITIONS[old]:
            with pytest.raises(CommitConflict, match="no transition"):
                actions.move(ident, old, new, at=1)
            return
        fits = self.states.get(ident) == old
        with contextlib.nullcontext() if fits else pytest.raises(CommitConflict, match="cannot"):
            self._handle(other=other).commit(moves=[actions.move(ident, old, new, at=1)])
        if fits:
            self.states[ident] = new

    @precondition(lambda self: self.decisions)
    @rule(data=st.data(), status=statuses, other=st.booleans())
    def finish(self, data: Any, status: ExecutionStatus, *, other: bool) -> None:
        """An outcome, with a label beside it: both are there or none is."""
        made = self._draw_decision(data)
        ident = made["decision_id"]
        outcome = execution(made, status=status)
        label = execution(made, kind="label", status=None)
        following: Any = None
        if ident in self.states:
            with contextlib.suppress(KeyError):
                following = after(self.states[ident], status)
        with contextlib.nullcontext() if following else pytest.raises(CommitConflict, match="cannot end"):
            self._handle(other=other).commit(evidence=[(OUTCOMES, outcome), (OUTCOMES, label)])
        if following is None:
            return
        self.rows += 2
        if following in TRANSITIONS:
            self.states[ident] = following
            self.told |= {ident} if status == "aborted" else set()
        else:
            del self.states[ident]

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def tell(self, data: Any) -> None:
        ident = data.draw(st.sampled_from(sorted(self.states)))
        fits = self.states[ident] == "aborting"
        with contextlib.nullcontext() if fits else pytest.raises(CommitConflict, match="cannot"):
            self.ledger.commit(moves=[actions.told(ident)])
        if fits:
            del self.states[ident]

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
        for handle in (self.ledger, self.other):
            handle.close()
        self.ledger, self.other = (Ledger.open(copy, create=False) for _ in range(2))
        for holder in filter(None, self.holders.values()):
            assert not is_alive(copy, holder)

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
        under_way = [(row["decision_id"], row["decision_id"] in self.told) for row in self.decisions]
        under_way = [(ident, told) for ident, told in under_way if ident in self.states]
        assert ledger.query(UNTOLD) == [(i, self.states[i], self.holders[i]) for i, _ in under_way]
        assert [row["decision_id"] for row in ledger.unfinished()] == [i for i, told in under_way if not told]
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
            self.other.close()
            shutil.rmtree(self.folder)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=max(5, settings().max_examples // 5), stateful_step_count=20)
