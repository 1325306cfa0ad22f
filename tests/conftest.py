"""What every test shares: Hypothesis profiles, a quiet environment, the optional real data beside the repository.

And what a run of many does: it starts the files that take longest first, so that no worker is left alone with one of them
at the end, and says how many slow tests it left out.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
LONGEST = Path(__file__).with_name("longest.txt")
"""Files whose tests take long, with their seconds: what `--longest` found, kept in the repository."""
WORTH_KEEPING = 4.0
"""Seconds from which the order of a file matters."""
LEFT_OUT = pytest.StashKey[int]()
TOOK = pytest.StashKey[defaultdict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run keep what it took."""
    parser.addoption(
        "--longest", action="store_true", help=f"keep how long files took in tests/{LONGEST.name}"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[LEFT_OUT], config.stash[TOOK] = 0, defaultdict(float)
    config.pluginmanager.register(Clock(config.stash[TOOK]))


def longest() -> dict[str, float]:
    """Return the seconds of the files that take longest, by path below the root."""
    lines = [line.split() for line in LONGEST.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    return {path: float(seconds) for seconds, path in lines}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes many minutes, unless its marker is named; with workers, start the longest files first."""
    if hasattr(config, "workerinput"):
        seconds = longest()
        items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0))
    asked = str(config.getoption("-m"))
    for item in items:
        for name in BY_NAME:
            if item.get_closest_marker(name) and name not in asked:
                item.add_marker(pytest.mark.skip(reason=f"takes long: pytest -m {name}"))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the slow ones."""
    if items:
        items[0].config.stash[LEFT_OUT] += sum(item.get_closest_marker("slow") is not None for item in items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker left out: each collects all tests."""
    node.config.stash[LEFT_OUT] = node.workeroutput.get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    if count := config.stash[LEFT_OUT]:
        terminalreporter.section("left out")
        terminalreporter.write_line(
            f"{count} slow tests (the demo, every notebook, the browser, long runs): `make slow` runs them"
        )


class Clock:
    """Adds up what the tests of each file took, wherever they ran."""

    def __init__(self, took: defaultdict[str, float]) -> None:
        self.took = took

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of a test."""
        self.took[report.nodeid.partition("::")[0]] += report.duration


def keep(took: defaultdict[str, float]) -> None:
    """Write down the seconds of long files: the most that was seen, of files that there are."""
    known = {path: seconds for path, seconds in longest().items() if (ROOT / path).is_file()}
    seen = {path: max(seconds, known.get(path, 0)) for path, seconds in {**known, **took}.items()}
    lines = [f"{seconds:.0f} {path}\n" for path, seconds in seen.items() if seconds >= WORTH_KEEPING]
    head = [line for line in LONGEST.read_text(encoding="utf-8").splitlines(keepends=True) if line[:1] == "#"]
    LONGEST.write_text("".join([*head, *sorted(lines, key=_by_seconds)]), encoding="utf-8")


def _by_seconds(line: str) -> tuple[float, str]:
    seconds, path = line.split()
    return -float(seconds), path


def pytest_collection_finish() -> None:
    """Leave what collecting made out of every later walk of the garbage collector: 5,000 tests, which stay anyway.

    It was a fifth of a second a collection, and tests that ask for one to see what is left behind ask often.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the interpreter end as usual: libraries look for what they left over. Tell what was seen."""
    gc.unfreeze()
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = config.stash[LEFT_OUT]
    elif config.getoption("--longest"):
        keep(config.stash[TOOK])


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
