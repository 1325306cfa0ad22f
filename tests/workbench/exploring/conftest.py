"""A support desk's lake, small; an attacker's one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import workbench as wb
from tests.browser import lakes
from workbench.bench.lake import build_lake

if TYPE_CHECKING:
    from workbench.lake import Lake


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake of 800 decisions: four tenants, every verdict."""
    place = tmp_path_factory.mktemp("explored") / "lake"
    build_lake(place, 800, told=lambda _: None)
    return wb.open(place)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake with markup in every name, and an argument of two megabytes."""
    return wb.open(lakes.hostile(tmp_path_factory.mktemp("hostile") / "lake"))
