"""`redecide pin`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from workbench.cli_pin import pin
from workbench.errors import PinInvalid
from workbench.pinning.pins import read_pin

if TYPE_CHECKING:
    from workbench.lake import Lake


def called(*args: str) -> Any:
    app = typer.Typer()
    app.command()(pin)
    found = CliRunner().invoke(app, args)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


@pytest.fixture(scope="session")
def replies(desk: Lake) -> list[str]:
    rows = desk.history.filter(pl.col("tool") == "reply_ticket").select("decision_id").sort("decision_id")
    return rows.collect()["decision_id"].head(2).to_list()


def test_it_prints_the_file(desk: Lake, replies: list[str], tmp_path: Path) -> None:
    found = called(desk.uri, replies[0])
    place = tmp_path / "a.pin.json"
    place.write_text(found.stdout)
    assert read_pin(place).decision_id == replies[0]


def test_it_writes_and_says_what_is_in_clear(desk: Lake, replies: list[str], tmp_path: Path) -> None:
    place = tmp_path / "new" / "a.pin.json"
    found = called(desk.uri, replies[0], "--out", str(place), "--keep", "args.body", "--note", "why")
    assert f"pinned {place}" in found.stdout
    assert "in clear: context.args.body, " in found.stdout
    assert "left out: context.customer" in found.stdout
    kept = read_pin(place).file
    assert (kept.kept, kept.note) == (["context.args.body"], "why")
    called(desk.uri, replies[0], "--out", str(place))  # the same decision again
    assert read_pin(place).file.kept == []
    with pytest.raises(PinInvalid, match="pin of another decision"):
        called(desk.uri, replies[1], "--out", str(place))
    assert read_pin(place).decision_id == replies[0]


def test_it_writes_into_a_folder(desk: Lake, replies: list[str], tmp_path: Path) -> None:
    called(desk.uri, replies[1], "--out", str(tmp_path), "--expect", "block")
    (place,) = tmp_path.iterdir()
    assert place.name == f"{replies[1]}.pin.json"
    assert read_pin(place).file.expected.verdict == "block"
