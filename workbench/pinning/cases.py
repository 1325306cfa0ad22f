"""Recorded decisions as pytest tests: the half of the plugin that is loaded where a test uses it.

One rule: a decision that could not be checked is a failure, with the reason, unless the marker says otherwise
(`undecided="skip"`). A misspelt argument of the marker, or a folder without pins, is an error of the collection: no
test may go missing without a word.

`workbench.pytest_plugin` is the other half; pytest loads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from runtime.bundle import load_bundle
from runtime.errors import GovernanceError
from workbench.errors import PinInvalid, WorkbenchError
from workbench.texts import count, visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.bundle import Bundle
    from workbench.pinning.checking import Checked
    from workbench.pinning.pins import Pinned

FIXTURE = "redecide_pin"
KEYS = ("pins", "policy", "lake", "where", "limit", "undecided")
"""Arguments of the marker."""
LIMIT = 100
"""Decisions of a lake that become tests, unless the marker says otherwise."""
UNDECIDED = ("fail", "skip")

_BUNDLES = pytest.StashKey[dict[Path, Any]]()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recorded decision that a test is made of."""

    ident: str
    """Name of the test's parameter."""
    source: Path | Pinned
    """A file, read when the test runs, or a decision of a lake."""
    policy: Path | None
    undecided: str

    def opened(self, config: pytest.Config) -> PinCase:
        """Return what the test gets."""
        return PinCase(case=self, config=config)


@dataclass(frozen=True, kw_only=True)
class PinCase:
    """What a test gets as `redecide_pin`."""

    case: Case
    config: pytest.Config

    @cached_property
    def pinned(self) -> Pinned:
        """The decision.

        Raises:
            PinInvalid: its file cannot be read.
        """
        from workbench.pinning.pins import read_pin  # noqa: PLC0415 - polars and cedarpy come with it

        source = self.case.source
        return read_pin(source) if isinstance(source, Path) else source

    @cached_property
    def checked(self) -> Checked:
        """What the bundle makes of it.

        Raises:
            PinInvalid: no bundle was named, or the file cannot be read.
            BundleError: the bundle does not load.
        """
        return self.pinned.check(_bundle(self.config, self.case.policy))

    def require(self) -> None:
        """Fail the test unless the bundle comes to what is expected."""
        try:
            checked = self.checked
        except (WorkbenchError, GovernanceError) as exc:
            pytest.fail(visible(str(exc)), pytrace=False)
        if checked.outcome == "undecided" and self.case.undecided == "skip":
            pytest.skip(checked.message)
        if not checked.passed:
            pytest.fail(checked.message, pytrace=False)


class Found(NamedTuple):
    """Decisions of a lake."""

    pins: list[Pinned]
    total: int
    """How many the query selects."""


def parametrised(metafunc: pytest.Metafunc, marker: pytest.Mark, tell: Callable[[str], object]) -> None:
    """Make a test of each decision that a marked function names.

    Args:
        metafunc: the function.
        marker: its marker.
        tell: told what does not become a test.
    """
    cases, wrong = list[Case](), ""
    try:
        cases = list(_cases(metafunc.config, marker, tell))
    except (WorkbenchError, GovernanceError) as exc:
        wrong = visible(str(exc))
    if wrong:  # out here, or the report would show the exception, too
        pytest.fail(f"@pytest.mark.redecide on {metafunc.definition.nodeid}: {wrong}", pytrace=False)
    if FIXTURE not in metafunc.fixturenames:
        metafunc.fixturenames.append(FIXTURE)
    metafunc.parametrize(FIXTURE, cases, indirect=True, ids=[case.ident for case in cases])


def _cases(config: pytest.Config, marker: pytest.Mark, tell: Callable[[str], object]) -> Iterator[Case]:
    """Read the marker."""
    asked = marker.kwargs
    if marker.args:
        raise PinInvalid("give arguments by name: pins='tests/pins', policy='policies/next'")
    for name in asked.keys() - set(KEYS):
        raise PinInvalid(f"no argument `{name}`; {closest(name, KEYS)}")
    undecided = asked.get("undecided", UNDECIDED[0])
    if undecided not in UNDECIDED:
        raise PinInvalid(f"`undecided` is {undecided!r}; {closest(str(undecided), UNDECIDED)}")
    if ("pins" in asked) == ("lake" in asked):
        raise PinInvalid("give either `pins`, a file or folder of pins, or `lake`, with `where`")
    given = config.getoption("--redecide-policy") or asked.get("policy")
    policy = None if given is None else config.rootpath / given
    sources = _of_lake(config, asked, tell) if "lake" in asked else _of_files(config, asked["pins"])
    for ident, source in sources:
        yield Case(ident=ident, source=source, policy=policy, undecided=undecided)


def _of_files(config: pytest.Config, place: Any) -> Iterator[tuple[str, Path]]:
    from workbench.pinning.pins import SUFFIX, pin_files  # noqa: PLC0415 - as above

    root = config.rootpath / place
    for file in pin_files(root):
        inside = file.name if file == root else file.relative_to(root).as_posix()
        yield inside.removesuffix(SUFFIX), file


def _of_lake(
    config: pytest.Config, asked: Mapping[str, Any], tell: Callable[[str], object]
) -> Iterator[tuple[str, Pinned]]:
    found = decisions_of(config, asked["lake"], asked.get("where"), asked.get("limit", LIMIT))
    if found.total > len(found.pins):
        said = f"{len(found.pins):,} of {count(found.total, 'decision')} of {asked['lake']} are tests; see `limit`"
        tell(visible(said))
    for each in found.pins:
        yield f"{each.file.request.tool}-{each.decision_id}", each


def decisions_of(config: pytest.Config, lake: Any, where: Any, limit: int) -> Found:
    """Return decisions of a lake as pins that hide nothing; they stay in this process.

    Args:
        config: of the run; a relative path is taken from its root.
        lake: folder or URL.
        where: columns of `decisions` with the value, or values, they must have; or a Polars expression; None: all.
        limit: how many at most, the first by time.

    Raises:
        LakeError: no lake, or an empty one.
        ColumnUnknown: a column that `decisions` does not have; names the closest.
        PinInvalid: none is selected, or one cannot be decided again.

    Cost: as `why` for each decision, some tens of milliseconds.
    """
    import polars as pl  # noqa: PLC0415 - as above

    from workbench.errors import ColumnUnknown  # noqa: PLC0415 - as above
    from workbench.lake import open_lake  # noqa: PLC0415 - as above
    from workbench.pinning.making import whole_pin  # noqa: PLC0415 - as above

    text = str(lake)
    opened = open_lake(text if "://" in text else config.rootpath / text)
    rows = opened.history
    if isinstance(where, Mapping):
        known = rows.collect_schema().names()
        for name, value in where.items():
            if name not in known:
                raise ColumnUnknown(name, known, "`decisions`")
            rows = rows.filter(pl.col(name).is_in(value if isinstance(value, list | tuple) else [value]))
    elif where is not None:
        rows = rows.filter(where)
    ids = rows.select("decision_id", "decided_at").sort("decided_at", "decision_id").collect()["decision_id"]
    if ids.is_empty():
        raise PinInvalid(f"no decision of {text} is selected by {where!r}")
    return Found([whole_pin(opened, each) for each in ids.head(limit)], ids.len())


def _bundle(config: pytest.Config, policy: Path | None) -> Bundle:
    """Load a bundle once a run."""
    if policy is None:
        raise PinInvalid(
            "say which policies: policy='policies/next' in the marker, or --redecide-policy FOLDER"
        )
    known = config.stash.setdefault(_BUNDLES, {})
    if policy not in known:
        known[policy] = load_bundle(policy)
    return cast("Bundle", known[policy])
