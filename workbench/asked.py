"""What a replay is asked for, resolved: bundles loaded, places checked, and how contexts come about, in words.

One rule: an axis that is not given is taken as recorded, row by row; and whoever replays by the same axes, a single
version, a sweep of many, or a replay that is opened again, takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.bundle import Bundle, load_bundle
from runtime.errors import ContextSpecError
from runtime.spec import ContextSpec, check_spec, parse_spec
from workbench.errors import AxisInvalid, ReplayFailure
from workbench.memo import remembered
from workbench.recompile import Recompiler
from workbench.replay import RECORDED
from workbench.texts import visible
from workbench.tracking import shown
from workbench.where import check_sources, check_versions, recorded_places

if TYPE_CHECKING:
    from os import PathLike

    from runtime.canonical import Json
    from workbench.lake import Lake

AS_RECORDED = ("as recorded", RECORDED)
"""Name and version of the policies of a self-replay: each decision's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The axes of a replay. Made by `asked_of`."""

    policy: Bundle | None = None
    """Whose policies and schema decide; None: each row's own."""
    spec: ContextSpec | None = None
    """What contexts are compiled again by; None: each row's own."""
    spec_name: str = RECORDED
    """What the spec was given as, in a word."""
    limits: Bundle | None = None
    """Whose limits hold; None: as recorded."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """Places of sources by name; they go before the recorded ones."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of sources to read, by name; they go before `at` and before the recorded ones."""
    at: datetime | None = None
    """Compile facts as of this time."""
    recompile: bool | None = None
    """Check the second level of self-replay; None: where it is needed, see `verifies`."""
    more: Mapping[str, Json] = field(default_factory=dict)
    """What else `Lake.replay` was given that decides what comes out, such as simulated state; JSON."""

    @property
    def again(self) -> bool:
        """Whether contexts are compiled again to decide over."""
        return self.spec is not None or self.at is not None or bool(self.versions)

    @property
    def verifies(self) -> bool:
        """Whether it is checked that recorded contexts can be compiled again."""
        if self.recompile is None:
            return self.again or (self.policy is None and self.limits is None)
        return self.recompile

    @property
    def labels(self) -> tuple[tuple[str, str], str]:
        """((policy name, version), contexts) as a replay shows them."""
        policy = AS_RECORDED if self.policy is None else (self.policy.name, self.policy.version)
        return policy, self.context

    @property
    def context(self) -> str:
        """How the contexts came about, in a few words."""
        said = [] if self.spec is None else [f"{self.spec_name} {self.spec.hash[:8]}"]
        said += [] if self.spec is not None or not self.again else [f"{RECORDED} spec"]
        said += [f"{name} at version {version}" for name, version in sorted(self.versions.items())]
        if self.at is not None:
            rest = "other sources" if self.versions else "sources"
            said.append(f"{rest} at {self.at.isoformat()}")
        said = said or [RECORDED]
        return ", ".join(said + ([f"limits of {self.limits.name}"] if self.limits else []))

    @property
    def pins(self) -> dict[str, Any]:
        """What was given, as JSON fit to be shown: no password, no object. An axis that was not given is left out."""
        sources = {name: place_of(given) for name, given in sorted(self.sources.items())}
        found = {
            "limits": None if self.limits is None else self.limits.version,
            "spec": None if self.spec is None else self.spec.hash,
            "sources": {name: shown(place) for name, place in sources.items()},
            "versions": dict(sorted(self.versions.items())),
            "at": None if self.at is None else self.at.isoformat(),
            **self.more,
        }
        return {name: value for name, value in found.items() if value not in (None, {})}

    def recompiler(self, lake: Lake) -> Recompiler | None:
        """What compiles the contexts to decide over; None: they are taken as recorded."""
        if not self.again:
            return None
        return Recompiler(self.spec, self.sources, *_known(lake), at=self.at, versions=self.versions)

    def verifier(self, lake: Lake) -> Recompiler | None:
        """What compiles the recorded spec at the recorded versions, for the second level; None: not asked."""
        return Recompiler(None, self.sources, *_known(lake)) if self.verifies else None

    def of(self, policy: Bundle | None) -> Asked:
        """The same with other policies.

        Raises:
            ContextSpecError: the spec does not fit their schema.
        """
        if self.spec is not None and policy is not None:
            check_spec(self.spec, policy.schema)
        return replace(self, policy=policy)


def _known(lake: Lake) -> tuple[Path | None, Any]:
    """Where relative locations start from, as the runtime binds them; and what tells recorded places."""
    return None if "://" in lake.uri else Path(lake.uri), partial(recorded_places, lake)


def asked_of(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    recompile: bool | None = None,
) -> Asked:
    """Resolve and check what a replay is asked for; the arguments are those of `workbench.versions.replay_lake`.

    Raises:
        BundleError: a bundle or spec cannot be used; names file and line.
        BundleNotFound: no such version in the lake.
        ReplayFailure: a source of facts is not where it is said to be, or nobody says where it is; or a version is
            asked of a source that does not exist, or has none.
        AxisInvalid: `at` is no time, or names no zone.
    """
    spec = None if isinstance(context, str) and context == RECORDED else spec_of(lake, context)
    found = Asked(
        spec=spec,
        spec_name=RECORDED if spec is None else _name_of(context, spec),
        limits=None if limits is None else bundle_of(lake, limits),
        sources=dict(sources or {}),
        versions=_versions(versions or {}),
        at=_moment(at),
        recompile=recompile,
    )
    found = found.of(None if policy is None else bundle_of(lake, policy))
    if spec is not None or sources:
        check_sources(lake, spec, found.sources)
    if found.versions:
        check_versions(lake, spec, found.sources, found.versions)
    return found


def _moment(given: object) -> datetime | None:
    """A time, which names its zone: one without would be another moment on another machine."""
    if given is None or (isinstance(given, datetime) and given.utcoffset() is not None):
        return given
    raise AxisInvalid(
        f"`at` is a time with its zone, as datetime(2026, 11, 1, tzinfo=UTC); got {given!r:.80}"
    )


def _versions(given: Mapping[str, int | str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ReplayFailure(f"`versions` maps sources to versions, as {{'orders': 12}}; got {given!r:.80}")
    for name, version in given.items():
        whole = isinstance(version, int) and not isinstance(version, bool) and version >= 0
        if not whole and not (isinstance(version, str) and version):
            raise ReplayFailure(
                f"source `{name}`: a version is a whole number or a text, as {{{name!r}: 12}}; got {version!r:.80}"
            )
    return {name: str(version) for name, version in given.items()}


def bundle_of(lake: Lake, given: str | PathLike[str] | Bundle) -> Bundle:
    """A bundle as it is, from its folder, or from the lake by its version."""
    if isinstance(given, Bundle):
        return given
    path, text = Path(given), str(given)
    looks_like_version = not path.exists() and text and set(text) <= set("0123456789abcdef")
    return lake.bundle(text) if looks_like_version else load_bundle(path)


def spec_of(lake: Lake, given: str | PathLike[str] | Bundle | ContextSpec) -> ContextSpec:
    """The spec of a bundle, of a `context.toml`, or as it is."""
    if isinstance(given, ContextSpec):
        return given
    if isinstance(given, Bundle) or Path(given).suffix != ".toml":
        return bundle_of(lake, given).spec
    path = Path(given)
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ContextSpecError(f"cannot read it: {exc}", file=str(path)) from exc


def _name_of(given: object, spec: ContextSpec) -> str:
    if isinstance(given, Bundle):
        return given.name
    return "spec" if given is spec else Path(str(given)).name


def place_of(given: object) -> str:
    """Where a source given by a place is; of one given as an object, its kind in words."""
    if isinstance(given, str | Path):
        return str(given) if "://" in str(given) else str(Path(given).absolute())
    return visible(f"<{type(given).__name__} in memory>")


_effective_cache: dict[tuple[str, str, str], Bundle] = {}


def effective_bundle(base: Bundle, spec: Any, limits: Any) -> Bundle:
    """Return a bundle with another spec and other limits; the same one each time."""
    key = (base.policy_hash, spec.hash, limits.hash)
    return remembered(_effective_cache, key, lambda: replace(base, spec=spec, limits=limits))
