"""A small reviewed lake, and copies of it that may be written to or damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

import workbench as wb
from workbench.bench.reviewed import reviewed_lake

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.lake import Lake


@pytest.fixture(scope="session")
def desk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a reviewed lake of 240 decisions is; not to be written to."""
    return reviewed_lake(tmp_path_factory.mktemp("desk"), 240)


@pytest.fixture(scope="session")
def desk(desk_folder: Path) -> Lake:
    """Return that lake, opened."""
    return wb.open(desk_folder)


@pytest.fixture
def own_desk(desk_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be written to."""
    return Path(shutil.copytree(desk_folder, tmp_path / "lake"))


@pytest.fixture
def damaged(desk_folder: Path, tmp_path: Path) -> Callable[[str, str, str], Lake]:
    """Return what makes a lake of which a column of a table was written over, where a condition holds."""

    def make(table: str, column: str, where: str) -> Lake:
        folder = shutil.copytree(desk_folder, tmp_path / table)
        DeltaTable(folder / table).update(updates={column: f"concat({column}, ' ')"}, predicate=where)
        return wb.open(folder)

    return make
