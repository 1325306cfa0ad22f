"""Ledgers that earlier releases wrote: opened, upgraded in one transaction, nothing lost; later ones are refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runtime import ledgerfile
from runtime.errors import LedgerError, LedgerTooNew
from runtime.evidence import broken_links
from runtime.ledger import Ledger, SessionStep
from runtime.ledgerfile import LEDGER_VERSION
from runtime.testing import decision, execution
from runtime.trace import DECISIONS, DRAINED, OUTCOMES

GOLDEN = Path(__file__).parent / "golden"
OLD = [f"ledger_v{version}" for version in range(1, LEDGER_VERSION)]
ACTIONS = "SELECT decision_id, position, state, holder, handle, moved FROM actions ORDER BY position"


@pytest.fixture
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a golden ledger, with the log that its writer left when it died."""
    for suffix in (".sqlite", ".sqlite-wal"):
        shutil.copy(GOLDEN / f"{request.param}{suffix}", tmp_path)
    return tmp_path / f"{request.param}.sqlite"


def expected_of(path: Path) -> Any:
    return json.loads((GOLDEN / f"{path.stem}.json").read_text())


def read_all(ledger: Ledger) -> dict[str, Any]:
    return {
        table.name: [[number, row] for number, row in ledger.rows_after(table, 0, 2**62, 1000)]
        for table in DRAINED
    }


def version_of(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        return str(database.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()[0])
    finally:
        database.close()


@pytest.mark.parametrize("old", OLD, indirect=True)
def test_an_old_ledger_opens_with_everything_in_it(old: Path) -> None:
    expected = expected_of(old)
    for _ in range(2):  # the second time there is nothing to upgrade
        with Ledger.open(old, create=False) as ledger:
            assert ledger.id == expected["id"]
            assert [*ledger.head()] == expected["head"]
            assert [*ledger.extent()] == expected["extent"]
            assert read_all(ledger) == expected["rows"]
            assert [row["decision_id"] for row in ledger.unfinished()] == expected["unfinished"]
            for key, *rest in expected["claims"]:
                claim = ledger.claim(key)
                assert claim is not None
                assert [claim.args_hash, claim.decision_id] == rest
            for tenant, session, *counters in expected["sessions"]:
                assert [*ledger.session(tenant, session)][: len(counters)] == counters
            actions = ledger.query(ACTIONS)
            assert [row[0] for row in actions] == expected["unfinished"]
            assert {row[2:] for row in actions} == {("started", None, None, None)}
    assert version_of(old) == str(LEDGER_VERSION)


@pytest.mark.parametrize("old", OLD, indirect=True)
def test_an_upgraded_ledger_goes_on_as_one_of_ours(old: Path) -> None:
    expected = expected_of(old)
    with Ledger.open(old) as ledger:
        (tenant, session, steps, *_), *_ = expected["sessions"]
        made = decision(tenant=tenant, session_id=session)
        step = SessionStep(
            tenant=tenant, session_id=session, expected_step=steps, ran=True, owner="Agent::bot"
        )
        ledger.commit(evidence=[(DECISIONS, made)], session=step)
        assert ledger.query(ACTIONS)[-1][3] == ledger.holder.id
        for ident in [*expected["unfinished"], made["decision_id"]]:
            row = ledger.decision(ident)
            assert row is not None
            ledger.commit(evidence=[(OUTCOMES, execution(row))])
        assert ledger.unfinished() == []
        chain = [
            (t.name, row) for t in (DECISIONS, OUTCOMES) for _, row in ledger.rows_after(t, 0, 2**62, 1000)
        ]
        assert broken_links(chain) == []
        assert ledger.head()[0] == expected["head"][0] + 2 + len(expected["unfinished"])


@pytest.mark.parametrize("old", OLD, indirect=True)
def test_an_upgrade_that_fails_leaves_the_old_ledger(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version_of(old)
    with monkeypatch.context() as patched:
        patched.setattr(ledgerfile, "_ADDED", (*ledgerfile._ADDED, ("actions", "x", "TEXT NOT NULL")))
        with pytest.raises(LedgerError, match="NOT NULL"):
            Ledger.open(old)
    assert version_of(old) == before
    with Ledger.open(old) as ledger:
        assert read_all(ledger) == expected_of(old)["rows"]


@pytest.mark.parametrize("old", OLD, indirect=True)
def test_those_who_open_an_old_ledger_at_once_all_find_it_upgraded(old: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(lambda _: Ledger.open(old), range(4)))
    for ledger in ledgers:
        assert read_all(ledger) == expected_of(old)["rows"]
        ledger.close()


@pytest.mark.parametrize("old", OLD[-1:], indirect=True)
def test_a_ledger_of_a_later_release_is_refused_untouched(old: Path) -> None:
    Ledger.open(old).close()
    with sqlite3.connect(old) as database:
        database.execute(
            "UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(LEDGER_VERSION + 1),)
        )
    database.close()
    before = old.read_bytes()
    with pytest.raises(LedgerTooNew, match=f"version {LEDGER_VERSION + 1}.*upgrade redecide"):
        Ledger.open(old)
    assert old.read_bytes() == before
