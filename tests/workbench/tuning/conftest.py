"""A desk that is tuned: a labelled lake, prepared once, and a copy of the candidate bundle."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import workbench as wb
from runtime.bundle import load_bundle
from tests.browser.lakes import CANDIDATE, desk
from workbench.live import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.bundle import Bundle
    from workbench.lake import Lake
    from workbench.live import Live


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a support desk's lake: 5,200 decisions, which columns replay; every call labelled by origin."""
    return wb.open(desk(tmp_path_factory.mktemp("tuned") / "lake"))


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """Return the candidate as it is."""
    return load_bundle(CANDIDATE)


@pytest.fixture(scope="session")
def live(lake: Lake, bundle: Bundle) -> Live:
    """Return the history, prepared with the candidate as the baseline."""
    return prepare(lake, bundle, on_rows=lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the candidate's folder."""
    return shutil.copytree(CANDIDATE, tmp_path / "policies" / "candidate")
