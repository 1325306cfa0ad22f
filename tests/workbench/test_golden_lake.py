"""A lake of an older release replays, compares and verifies as it did then: `tests/runtime/golden/make_lake_v1.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench as wb
import workbench.redeciding
from runtime.drain import drain
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from workbench.doctor_lake import lake_findings
from workbench.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.lake import Lake

GOLDEN = Path(__file__).parent.parent / "runtime" / "golden"
EXPECTED: Mapping[str, Any] = json.loads((GOLDEN / "expected_v1.json").read_text())
SIDES = {"self": (), "candidate": ("policy", "limits"), "recompiled": ("policy", "context")}


@pytest.fixture(scope="module", params=["as it is", "upgraded", "half-way"])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the golden files: the lake as it is, after a drain of this release, or in the middle of one."""
    # A space and an accent: such folders are scanned another way.
    place = tmp_path_factory.mktemp("golden") / ("a é" if request.param == "upgraded" else "plain")
    shutil.copytree(GOLDEN, place)
    store = LakeStore(place / "lake_v1", write=True)
    with Ledger.open(place / "lake_v1" / "_ledger.sqlite", create=False) as ledger:
        if request.param == "upgraded":
            drain(ledger, store)
        elif request.param == "half-way":
            _die_half_way(ledger, store)
    return place


def _die_half_way(ledger: Ledger, store: LakeStore) -> None:
    def stop(step: str) -> None:
        if step == "written:decisions":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        drain(ledger, store, at_step=stop)


def pinned(golden: Path) -> Lake:
    """Open the lake at what it held when it was made."""
    return open_lake(golden / "lake_v1", at=EXPECTED["ledgers"])


def replays(golden: Path, side: str, engine: Any) -> Any:
    given: dict[str, Any] = dict.fromkeys(SIDES[side], golden / "candidate_v1")
    return pinned(golden).replay(engine=engine, **given)


@pytest.mark.parametrize("engine", ["rows", "auto"])
@pytest.mark.parametrize("side", SIDES)
def test_it_replays_as_it_did(golden: Path, side: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)
    found, then = replays(golden, side, engine), EXPECTED["replays"][side]
    columns = list(then["rows"][0])
    assert found.frame.select(columns).sort("decision_id").collect().to_dicts() == then["rows"]
    assert found.counts() == then["counts"]
    assert found.digest() == then["digests"][engine]


def test_it_compares_as_it_did(golden: Path) -> None:
    lake = pinned(golden)
    diff = wb.compare(lake.replay(), lake.replay(policy=golden / "candidate_v1"))
    then = EXPECTED["summary"]
    assert {name: value for name, value in diff.summary().items() if name in then} == then


def test_it_is_sound(golden: Path) -> None:
    """A drain that died half-way has brought decisions without their outcomes: its ledger says so."""
    found = {each.subject: each for each in lake_findings(str(golden / "lake_v1"), list(EXPECTED["ledgers"]))}
    assert {name: found[name].status for name, _ in EXPECTED["doctor"]} == dict(EXPECTED["doctor"])


def test_every_row_is_shown_with_the_columns_of_now(golden: Path) -> None:
    lake = pinned(golden)
    assert "38 decisions in 7 sessions of 2 tenants" in repr(lake)
    decisions = lake.decisions.select("effect", "writes", "grants", "approval").collect()
    assert decisions.height == 38
    assert decisions.null_count().row(0) == (38,) * 4
    assert lake.outcomes.filter(pl.col("reason_code").is_not_null()).collect().height == 0
    assert lake.decisions.collect_schema()["writes"] == pl.List(pl.String)
    assert set(lake.decisions.collect()["tenant"]) == {"acme", "globex/eu é"}
