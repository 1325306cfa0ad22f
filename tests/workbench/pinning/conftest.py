"""A reviewed support desk, and bundles that differ from its baseline by one policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.bundle import Bundle, load_bundle
from workbench.bench.reviewed import reviewed_lake
from workbench.lake import Lake, open_lake
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake of 4,000 decisions, with every verdict in it."""
    return open_lake(reviewed_lake(tmp_path_factory.mktemp("pins"), 4_000))


@pytest.fixture(scope="session")
def baseline() -> Bundle:
    return load_bundle(shipped("support-desk/baseline"))


@pytest.fixture(scope="session")
def with_policy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Return what makes the baseline with one more policy."""
    made: dict[str, Bundle] = {}

    def make(policy: str) -> Bundle:
        if policy not in made:
            made[policy] = load_bundle(copied(tmp_path_factory.mktemp("bundle"), policy))
        return made[policy]

    return make


def copied(folder: Path, policy: str = "") -> Path:
    """Copy the baseline into a folder, with one more policy."""
    source = shipped("support-desk/baseline")
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "zz.cedar").write_text(policy + "\n")
    return folder
