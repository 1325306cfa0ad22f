"""A browser on a real JupyterLab, and small lakes for it.

How to write a test (a sync function in a file of this folder; all of them get the markers `browser` and `slow`):

    def test_counts_follow_the_filter(lab: Lab, desk_lake: Path) -> None:
        book = lab.notebook([
            "import workbench as wb",
            f"lake = wb.open({str(desk_lake)!r})",
            "view = wb.explore(lake); view",
        ], name="explore").run()
        view = book.cell(2)                                  # Locator of the third cell's output, in view
        view.get_by_role("searchbox", name="Tenant").fill("acme")
        expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", "1003")
        assert book.value("view.selection.collect().height") == 1002      # JSON of an expression, in the kernel
        book.theme("dark"); book.shot("explore")             # build/screenshots/explore-dark.png

`book.run()` waits until the kernel is idle; for what a thread sends later use `expect(...)` on the page or
`book.becomes(expression, value)` in the kernel, never a sleep. After each test the fixture asserts that the page reported
no error and asked for nothing outside this machine: a test that expects an error empties `book.console_errors` itself; a
failed one leaves `failed-*.png`. What holds for every view is in `checks`. Kernels start in a second, JupyterLab is
loaded once a file: put what can share a notebook into one. `lab` lives as long as a file's tests, because Playwright holds the thread's event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import lab as labs
from tests.browser import lakes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from playwright.sync_api import Browser

    from tests.browser.lab import Lab, Server

HERE = Path(__file__).parent
REPORT = pytest.StashKey[pytest.TestReport]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder: `-m browser`; all of it is slow."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("browser")
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep how the test went, for its picture."""
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Return where Chromium is; without it, what needs it is skipped."""
    path = labs.chromium()
    if path is None:
        pytest.skip(f"no Chromium on the PATH; install it: {labs.INSTALL}")
    return path


@pytest.fixture(scope="session")
def lab_server(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a JupyterLab server, one a worker."""
    pytest.importorskip("jupyterlab", reason="the workbench extra is not installed")
    server = labs.start(tmp_path_factory.mktemp("jupyter") / "lab")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    """Return a running Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=labs.PATIENCE * 1_000)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium_path, headless=True, args=list(labs.CHROMIUM)
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def _window(chromium: Browser, lab_server: Server) -> Iterator[Lab]:
    lab = labs.Lab.open(lab_server, chromium)
    yield lab
    lab.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, _window: Lab) -> Iterator[Lab]:
    """Return JupyterLab in a window; after the test, no error was reported and nothing was asked of other machines."""
    _window.elsewhere.clear()
    _window.console.clear()
    yield _window
    if (report := request.node.stash.get(REPORT, None)) is not None and report.failed:
        _window.shot(f"failed-{request.node.name}")
    assert _window.elsewhere == [], "the page asked for something outside this machine"
    assert _window.console == [], "the page reported errors"


@pytest.fixture(scope="session")
def desk_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a support desk's lake: 5,200 decisions, 4 tenants, every verdict, every call labelled by origin."""
    return lakes.desk(tmp_path_factory.mktemp("desk") / "lake")


@pytest.fixture(scope="session")
def desk_candidate() -> Path:
    """Return the support desk's candidate bundle, which has tunable literals."""
    return lakes.CANDIDATE


@pytest.fixture(scope="session")
def hostile_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake as an attacker would fill it: markup in every name and argument, 2 MB in one of them."""
    return lakes.hostile(tmp_path_factory.mktemp("hostile") / "lake")


@pytest.fixture(scope="session")
def crowded_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with ten thousand names each of policies, principals and tenants."""
    return lakes.crowded(tmp_path_factory.mktemp("crowded") / "lake")
