"""Stores that tests of sending share: making one takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.workbench.runs.stores import Children, server
from workbench.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a local store, made."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with connect(uri) as store:
        store.experiment("first")
    return uri


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server."""
    with server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.close()
