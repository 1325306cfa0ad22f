"""Which policies, contexts and limits to replay with: what people give, made into what a replay takes.

One rule: an axis that is not given is taken as recorded, row by row. A bundle given for one axis gives that axis
only: `policy=` its policies and schema, `context=` its `context.toml`, `limits=` its `limits.toml`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.bundle import Bundle, load_bundle
from runtime.errors import ContextSpecError
from runtime.spec import ContextSpec, check_spec, parse_spec
from workbench.recompile import Recompiler
from workbench.redeciding import run_replay
from workbench.replay import RECORDED
from workbench.where import check_sources, recorded_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from os import PathLike

    from workbench.executors import Executor
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine

AS_RECORDED = ("as recorded", RECORDED)
"""Name and version of the policies of a self-replay: each decision's own."""


def replay_lake(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    recompile: bool | None = None,
    engine: EngineName | Engine = "auto",
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
) -> Replay:
    """Decide every recorded decision again. Nothing is executed.

    Args:
        lake: the pinned lake.
        policy: a bundle folder, a bundle, or a bundle version the lake holds; None: each decision's own policies.
        context: `recorded`, or whose spec to compile the facts again by: a bundle (folder), or a `context.toml`.
        limits: a bundle (folder) whose limits to decide with; None: as recorded.
        sources: locations of sources by name, as `Runtime.open` takes them; they go before the recorded ones.
        at: compile facts as they were at this time, instead of when each decision was made.
        recompile: check that the recorded spec over the recorded versions gives the recorded contexts, too; None: in
            a self-replay, and where contexts are compiled again, which rests on it.
        engine: `auto` decides in columns where that pays, `columnar` demands it, `rows` asks Cedar for every row.
        executor: `local` decides in this process, `ray` on Ray, or a Ray cluster; see `workbench.executors.Executor`.
        on_rows: told how many rows were decided, now and then; None: a progress bar in a terminal and in a notebook,
            if it takes more than a second.

    Raises:
        BundleError: a bundle or spec cannot be used; names file and line.
        BundleNotFound: no such version in the lake.
        ReplayFailure: a source of facts is not where it is said to be, or nobody says where it is; or Ray fails.
        MissingExtra: Ray is asked for, and not installed.
    """
    candidate = None if policy is None else _bundle(lake, policy)
    limits_of = None if limits is None else _bundle(lake, limits)
    spec = None if context == RECORDED else _spec(lake, context)
    if spec is not None and candidate is not None:
        check_spec(spec, candidate.schema)
    if spec is not None or sources:
        check_sources(lake, spec, sources or {})
    base = None if "://" in lake.uri else Path(lake.uri)  # as the runtime binds them
    known = partial(recorded_places, lake)
    again = spec is not None or at is not None
    asked = again or (candidate is None and limits_of is None) if recompile is None else recompile
    return run_replay(
        lake,
        candidate=candidate,
        limits_of=limits_of,
        recompiler=Recompiler(spec, sources or {}, base, known, at=at) if again else None,
        verify=Recompiler(None, sources or {}, base, known) if asked else None,
        labels=(
            AS_RECORDED if candidate is None else (candidate.name, candidate.version),
            _context_label(spec, context, at) + (f", limits of {limits_of.name}" if limits_of else ""),
        ),
        engine=engine,
        executor=executor,
        on_rows=on_rows,
    )


def _bundle(lake: Lake, given: str | PathLike[str] | Bundle) -> Bundle:
    """A bundle as it is, from its folder, or from the lake by its version."""
    if isinstance(given, Bundle):
        return given
    path, text = Path(given), str(given)
    looks_like_version = not path.exists() and text and set(text) <= set("0123456789abcdef")
    return lake.bundle(text) if looks_like_version else load_bundle(path)


def _spec(lake: Lake, given: str | PathLike[str] | Bundle | ContextSpec) -> ContextSpec:
    if isinstance(given, ContextSpec):
        return given
    if isinstance(given, Bundle) or Path(given).suffix != ".toml":
        return _bundle(lake, given).spec
    path = Path(given)
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ContextSpecError(f"cannot read it: {exc}", file=str(path)) from exc


def _context_label(spec: ContextSpec | None, given: object, at: datetime | None) -> str:
    """How the contexts came about, in a few words."""
    if spec is None:
        return RECORDED if at is None else f"{RECORDED} spec, sources at {at.isoformat()}"
    name = given.name if isinstance(given, Bundle) else Path(str(given)).name if given is not spec else "spec"
    return f"{name} {spec.hash[:8]}" + ("" if at is None else f", sources at {at.isoformat()}")
