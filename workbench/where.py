"""Where the facts of a replay are: what is given, what a spec says, what the record says.

One rule: a location that cannot be right is said before the first row is decided, with the way out, and not as a
cause on every row. A table that is there and cannot be read at a version is a row's own matter.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from runtime.context import CompiledContext
from runtime.sources import Source
from workbench.errors import ReplayFailure
from workbench.texts import count
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.spec import ContextSpec, SourceSpec
    from workbench.lake import Lake


def check_sources(lake: Lake, spec: ContextSpec | None, given: Mapping[str, Any]) -> None:
    """Refuse locations that cannot be right.

    Args:
        lake: whose record says what was declared, and where it was.
        spec: what contexts are compiled again by; None: each row's own spec.
        given: locations by name. A name that no spec declares is ignored, so that one mapping serves several bundles,
            unless it is close to one that is declared and not given.

    Raises:
        ReplayFailure: a name is misspelt, there is no table at a place, or nobody says where a source is.
    """
    declared = _declared(lake) | (dict(spec.sources) if spec else {})
    for name, place in given.items():
        if name in declared:
            _require_there(declared[name], place)
        elif close := get_close_matches(name, declared.keys() - given.keys(), n=1):
            raise ReplayFailure(f"no context spec declares a source `{name}`; did you mean `{close[0]}`?")
    asked = {fact.source for fact in spec.facts} if spec else set()
    open_ones = [name for name in sorted(asked - given.keys()) if _is_open(declared[name])]
    places = recorded_places(lake) if open_ones else {}
    if unsaid := [name for name in open_ones if name not in places]:
        names = ", ".join(f"`{name}`" for name in unsaid)
        raise ReplayFailure(
            f"nobody says where {count(len(unsaid), 'source')} of facts may be found: {names}; give `sources="
            f"{{{unsaid[0]!r}: 'path/to/table'}}` (`--source {unsaid[0]}=PATH`, or a folder of tables by name)"
        )


def check_versions(
    lake: Lake, spec: ContextSpec | None, given: Mapping[str, Any], versions: Mapping[str, str]
) -> None:
    """Refuse versions that cannot be read: of a source nobody asks, of one without versions, or not written yet.

    Args:
        lake: whose record says what was declared, and where it was.
        spec: what contexts are compiled again by; None: each row's own spec.
        given: locations by name.
        versions: by name of the source. A version that is gone is a row's own matter (`source_vacuumed`).

    Raises:
        ReplayFailure: one of these; names the sources or the versions there are.
    """
    declared = _declared(lake) if spec is None else dict(spec.sources)
    for name, version in versions.items():
        if name not in declared:
            close = get_close_matches(name, declared, n=1)
            known = ", ".join(f"`{each}`" for each in sorted(declared)) or "none"
            raise ReplayFailure(
                f"`versions` names a source `{name}` that no fact is asked of; "
                + (f"did you mean `{close[0]}`?" if close else f"the sources are {known}")
            )
        _require_versions(declared[name], given.get(name))
        if declared[name].kind == "delta":
            _require_version(declared[name], version, _all_places(lake, declared[name], given))


def _require_versions(source: SourceSpec, given: object) -> None:
    if source.kind == "sql" and source.version_query is None and not isinstance(given, Source):
        raise ReplayFailure(
            f"source `{source.name}` is a SQL table without `version_query`: it has no versions to be read at; "
            "leave it out of `versions`"
        )


def _require_version(source: SourceSpec, version: str, places: Iterable[str]) -> None:
    if not version.isdecimal():
        raise ReplayFailure(
            f"source `{source.name}`: a version of a Delta table is a whole number, got {version!r:.80}"
        )
    for place in places:
        last = _last_version(place)
        if last is not None and int(version) > last:
            raise ReplayFailure(
                f"source `{source.name}`: the table at {shown(place)!r} has versions up to {last}, not {version}"
            )


def _last_version(place: str) -> int | None:
    """The newest version of a table; None: it cannot be opened from here, which its rows will say."""
    try:
        return int(DeltaTable(place).version())
    except (DeltaError, OSError, ValueError):
        return None


def _all_places(lake: Lake, source: SourceSpec, given: Mapping[str, Any]) -> list[str]:
    """Where a table is: as given, as its spec says, else wherever the record says it was."""
    base = None if "://" in lake.uri else Path(lake.uri)
    if source.name in given:
        place = given[source.name]
        return [str(place)] if isinstance(place, str | Path) else []
    if source.uri is not None:
        return [from_base(source.uri, base)]
    return [from_base(place, base) for place in sorted(recorded_places(lake).get(source.name, ()))]


def _declared(lake: Lake) -> dict[str, SourceSpec]:
    """Sources that the recorded bundles declare, by name."""
    bundles = map(lake.find_bundle, lake.bundles.select("bundle_version").collect().to_series())
    return {name: source for bundle in bundles if bundle for name, source in bundle.spec.sources.items()}


def _is_open(source: SourceSpec) -> bool:
    """Whether its place has to be said. Other kinds have no versions: where they are would change nothing."""
    return source.kind == "delta" and source.uri is None


def _require_there(source: SourceSpec, place: object) -> None:
    if source.kind != "delta" or not isinstance(place, str | Path) or "://" in str(place):
        return
    if not (Path(place) / "_delta_log").is_dir():
        raise ReplayFailure(f"source `{source.name}`: there is no Delta table at {str(place)!r}")


def recorded_places(lake: Lake) -> dict[str, frozenset[str]]:
    """Return where the record says each source was. O(contexts); of those the pinned decisions refer to."""
    used = pl.concat(
        [
            lake.decisions.select(context_hash=pl.col(name))
            for name in ("context_hash", "enforced_context_hash")
        ]
    )
    texts = lake.contexts.join(used.unique(), on="context_hash", how="semi").select("context").collect()
    found: dict[str, set[str]] = {}
    for text in texts.to_series():
        for source, uri in _places(text):
            found.setdefault(source, set()).add(uri)
    return {source: frozenset(uris) for source, uris in sorted(found.items())}


def _places(text: str) -> Iterable[tuple[str, str]]:
    try:
        facts = CompiledContext.from_content(text).facts.values()
    except ValueError:
        return []  # damaged: its rows are quarantined for that
    return [(fact.source, fact.uri) for fact in facts if fact.uri is not None]


def from_base(uri: str, base: Path | None) -> str:
    """Return a recorded location so that it can be opened: a relative one starts from `base`."""
    return uri if "://" in uri or base is None else str(base / uri)
