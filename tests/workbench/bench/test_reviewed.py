"""The reviewed desk: a lake like any other, with labels behind it, built once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from typer.testing import CliRunner

from workbench.bench import reviewed
from workbench.bench.reviewed import reviewed_lake
from workbench.cli import app
from workbench.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reviewed_lake(tmp_path_factory.mktemp("desk"), 600)


def test_every_decision_and_session_is_labelled(place: Path) -> None:
    lake = open_lake(place)
    labels = lake.labels.collect()
    assert labels.filter(label="origin")["decision_id"].n_unique() == 600
    assert labels.filter(label="scenario")["session_id"].n_unique() == lake.sessions.collect().height
    attacks = lake.decisions.join(labels.filter(label="origin", value="attack").lazy(), on="decision_id")
    tools = set(attacks.collect()["tool"])
    assert tools == {"issue_refund", "change_address"}
    hijacked = set(labels.filter(label="scenario", value="hijacked")["session_id"])
    assert set(attacks.collect()["session_id"]) <= hijacked
    assert 0 < len(hijacked) < lake.sessions.collect().height / 2
    cents = pl.col("args").str.json_path_match("$.amount_cents").cast(pl.Int64)
    assert attacks.filter(tool="issue_refund").select(cents.min()).collect().item() >= reviewed.FROM_CENTS


def test_it_replays_as_recorded_and_the_doctor_finds_nothing(place: Path) -> None:
    counts = open_lake(place).replay().counts()
    assert counts["decisions"] == counts["decidable"] == 600
    examined = CliRunner().invoke(app, ["doctor", str(place)])
    assert examined.exit_code == 0, examined.output


def test_it_is_built_once_and_what_was_interrupted_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / f"{reviewed_lake(tmp_path, 40).name}.part"
    assert not part.exists()
    place = reviewed_lake(tmp_path, 60)
    place.rename(place.with_name(f"{place.name}.part"))
    assert open_lake(reviewed_lake(tmp_path, 60)).decisions.collect().height == 60
    monkeypatch.setattr(reviewed, "build_lake", None)  # would be called
    assert reviewed_lake(tmp_path, 60) == place
