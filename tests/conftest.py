"""What every test shares: Hypothesis profiles, a quiet environment, the optional real data beside the repository."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the repository's root on the path; `datasets/` would then pass for a library of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# Before any import of the libraries concerned. The workbench sets these itself; a test may import a library directly.
os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# No deadlines: two cores are shared with child processes and fsync, and a slow example is not a wrong one.
settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "nightly", parent=settings.get_profile("ci"), max_examples=2000, stateful_step_count=100
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


BY_NAME = ("fuzz", "ray", "simulation")
"""Markers of tests that run only when they are asked for: `pytest -m fuzz`."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes many minutes, unless its marker is named; with workers, start the longest test first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("demo") is None)
    asked = str(config.getoption("-m"))
    for item in items:
        for name in BY_NAME:
            if item.get_closest_marker(name) and name not in asked:
                item.add_marker(pytest.mark.skip(reason=f"takes long: pytest -m {name}"))


def pytest_collection_finish() -> None:
    """Leave what collecting made out of every later walk of the garbage collector: 5,000 tests, which stay anyway.

    It was a fifth of a second a collection, and tests that ask for one to see what is left behind ask often.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter end as usual: libraries look for what they left over."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository; without it, what needs it is skipped."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(
            "no ../shared/data beside the repository: this test measures on real data that we do not ship"
        )
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that all workers of this run know; it goes with the process that holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the demo's lake is, built once in a run by the first worker that asks.

    Read it, or copy it (15 MB) to let something write there. It is stamped with what it is built from, as any folder
    of the demo's is, so what is asked to build the same takes it as it is.
    """
    pytest.importorskip("agentdojo", reason="the `agentdojo` extra is not installed")
    from workbench.demo import demo_lake

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # a worker has a folder of its own in the run's
    with locked(root / "demo.lock"):
        demo_lake(root / "redecide-demo")
    return root / "redecide-demo"
