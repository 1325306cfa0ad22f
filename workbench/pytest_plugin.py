"""The pytest plugin's light half: options, the marker, and fixtures that load Redecide only where a test uses them.

One rule: it imports pytest and nothing else, and does nothing in a run without the marker or a fixture of ours:
pytest imports every installed plugin in every run. (`import workbench` itself loads nothing but its errors.)

```python
@pytest.mark.redecide(pins="tests/pins", policy="policies/next")
def test_decisions_stay_as_they_are() -> None:
    "Each file of `tests/pins` is a test of its own; the plugin checks it."
```

What it does is in `workbench.pinning.cases`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MARKER = "redecide"
FIXTURE = "redecide_pin"
_NOTES = pytest.StashKey[dict[str, None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--redecide-policy`."""
    group = parser.getgroup(MARKER, "recorded decisions as tests")
    group.addoption(
        "--redecide-policy",
        metavar="FOLDER",
        default=None,
        help="Bundle folder that pinned decisions are checked against, instead of the marker's `policy`.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "redecide(pins, policy, lake, where, limit, undecided): recorded decisions as tests: of the files at `pins`, "
        "or of the decisions of `lake` that `where` selects, checked against the bundle folder `policy`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each decision that a marked function names."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is not None:
        from workbench.pinning.cases import parametrised  # noqa: PLC0415 - only where it is used

        notes = metafunc.config.stash.setdefault(_NOTES, {})
        parametrised(metafunc, marker, tell=lambda note: notes.update({note: None}))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Check the decision before the body of a marked function runs."""
    if pyfuncitem.get_closest_marker(MARKER) is not None:
        # A function that does not name the fixture has the case, and not what the fixture makes of it.
        case: Any = pyfuncitem.callspec.params[FIXTURE]
        pin: Any = pyfuncitem.funcargs.get(FIXTURE) or case.opened(pyfuncitem.config)
        pin.require()
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what did not become a test."""
    for note in config.stash.get(_NOTES, ()):
        terminalreporter.write_line(f"redecide: {note}")


@pytest.fixture
def redecide_pin(request: pytest.FixtureRequest) -> Any:
    """Return one recorded decision of the marker: `.pinned`, `.checked`, `.require()`."""
    if not hasattr(request, "param"):
        pytest.fail(
            f"`{FIXTURE}` needs the marker: @pytest.mark.redecide(pins='tests/pins', policy='…')",
            pytrace=False,
        )
    return request.param.opened(request.config)


@pytest.fixture
def redecide_lake_decisions(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that takes a lake, `where` and `limit`, and returns decisions as pins that hide nothing."""
    from workbench.pinning.cases import decisions_of  # noqa: PLC0415 - only where it is used

    return lambda lake, where=None, limit=100: decisions_of(request.config, lake, where, limit).pins
