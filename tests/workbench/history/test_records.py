"""How a call ended, as replay reads it: the last execution holds, however far behind its decision it stands."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import workbench.history.records
from runtime import actions
from runtime.drain import drain
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.testing import MOMENT, decision, execution, sample
from runtime.trace import DECISIONS, OUTCOMES
from workbench.history.records import STATUS, Records
from workbench.lake import open_lake

CALLS: dict[str, tuple[str, list[tuple[str, str | None]]]] = {
    "done": ("allow", [("execution", "succeeded")]),
    "resolved": ("allow", [("execution", "in_doubt"), ("label", None), ("execution", "succeeded")]),
    "doubtful": ("modify", [("execution", "in_doubt")]),
    "twice in doubt": ("allow", [("execution", "in_doubt"), ("execution", "aborted")]),
    "undone": ("allow", [("execution", "compensated")]),
    "granted": ("approve", [("approval", "succeeded")]),
    "denied": ("approve", [("approval", None), ("execution", "denied")]),
    "only a label": ("allow", [("label", None)]),
    "open": ("allow", []),
}
"""Verdict, and outcomes in order."""
EXPECTED = {
    "done": "succeeded", "resolved": "succeeded", "doubtful": "in_doubt", "twice in doubt": "aborted",
    "undone": "compensated", "granted": None, "denied": "denied", "only a label": None, "open": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a lake in which first outcomes stand near their decisions, later ones far behind all of them."""
    tmp_path = tmp_path_factory.mktemp("records")
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        made = {
            name: decision(verdict=verdict, decision_id=name, tenant="t")
            for name, (verdict, _) in CALLS.items()
        }
        later: list[dict[str, Any]] = []
        for name, row in made.items():
            ledger.commit(evidence=[(DECISIONS, row)])
            outcomes = [
                execution(row, status=status)
                if kind == "execution"
                else sample(OUTCOMES, kind=kind, decision_id=name, session_id="s", tenant="t", status=status)
                for kind, status in CALLS[name][1]
            ]
            if name == "undone":
                ledger.commit(moves=[actions.move(name, "started", "undoing", at=MOMENT)])
            for outcome in outcomes[:1]:
                ledger.commit(evidence=[(OUTCOMES, outcome)])
            later += outcomes[1:]
        for outcome in later:
            ledger.commit(evidence=[(OUTCOMES, outcome)])
        drain(ledger, LakeStore(tmp_path / "lake", write=True))
    return open_lake(tmp_path / "lake")


@pytest.mark.parametrize("near", [0, 1, 5, 1000])
@pytest.mark.parametrize("span", [1, 3, 1000])
def test_the_last_execution_holds(lake: Any, monkeypatch: pytest.MonkeyPatch, near: int, span: int) -> None:
    monkeypatch.setattr(workbench.history.records, "_NEAR", near)
    rows = pl.concat(Records(lake).chunks(span=span))
    assert dict(rows.select("decision_id", STATUS).iter_rows()) == EXPECTED
