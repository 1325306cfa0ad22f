"""One scan of a lake for all versions of a sweep: what they decide with, and the chunks they decide.

One rule: the axes are those `workbench.versions.replay_lake` makes of the same arguments, the policies aside.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from runtime.spec import check_spec
from workbench.compare import _JOINED as JOINED
from workbench.compare import _labels_of as labels_of
from workbench.executors import ahead
from workbench.history.limiting import INPUTS, needs_inputs
from workbench.history.records import ADDRESSES, Records
from workbench.history.results import ENGINE as COLUMNAR
from workbench.history.sweeping import Sweeping
from workbench.recompile import Recompiler
from workbench.redeciding import _by_rows as by_rows
from workbench.redeciding import _columnar as columnar
from workbench.redeciding import _Plan as Plan
from workbench.replay import RECORDED
from workbench.rows import RowEngine
from workbench.versions import _bundle as bundle_of
from workbench.versions import _context_label as label_of
from workbench.versions import _spec as spec_of
from workbench.where import check_sources, recorded_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from workbench.history.sweeping import Tally
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine

    Given = str | PathLike[str] | Bundle


class Scanned(NamedTuple):
    """What came of a scan."""

    tallies: Sequence[Tally]
    """One a version."""
    context: str
    """How the contexts came about, in a few words."""
    engine: str
    handed_over: Mapping[str, int]
    """Rows that Cedar decided, by reason, each once for every version."""
    seconds: Mapping[str, float]
    """Time by what it was spent on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How every version is replayed, as `lake.replay` takes it."""

    context: Given
    limits: Given | None
    sources: Mapping[str, Any] | None
    at: datetime | None
    engine: EngineName | Engine

    def replay(self, lake: Lake, bundle: Bundle, *, on_rows: Callable[[int], object] | None = None) -> Replay:
        """Replay one version."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return lake.replay(bundle, **given, on_rows=on_rows)

    def axes(
        self, lake: Lake, bundles: Sequence[Bundle], engine: Engine
    ) -> tuple[Callable[[Bundle | None], Plan], str]:
        """Return what a version (None: each row's own) is decided with, and how the contexts came about.

        Raises:
            BundleError, BundleNotFound, ReplayFailure: as `workbench.versions.replay_lake`.
        """
        spec = None if self.context == RECORDED else spec_of(lake, self.context)
        sources, limits = self.sources or {}, self.limits
        limits_of = None if limits is None else bundle_of(lake, limits)
        if spec is not None:
            for bundle in bundles:
                check_spec(spec, bundle.schema)
        if spec is not None or sources:
            check_sources(lake, spec, sources)
        base = None if "://" in lake.uri else Path(lake.uri)
        known = partial(recorded_places, lake)
        again = spec is not None or self.at is not None
        recompiler = Recompiler(spec, sources, base, known, at=self.at) if again else None
        verify = Recompiler(None, sources, base, known) if again else None

        def axes(bundle: Bundle | None) -> Plan:
            if bundle is None:
                return Plan(lake, engine, None, None, None, verify)
            return Plan(lake, engine, bundle, limits_of, recompiler, verify)

        label = label_of(spec, self.context, self.at)
        return axes, label + (f", limits of {limits_of.name}" if limits_of else "")


def sweep_scan(
    lake: Lake,
    bundles: Sequence[Bundle],
    options: Options,
    *,
    strict: bool,
    advance: Callable[[int], object],
) -> Scanned:
    """Decide all versions in columns, over one scan.

    Args:
        lake: the pinned lake.
        bundles: the versions, distinct.
        options: of every version.
        strict: columns are demanded.
        advance: told how many decisions of how many versions a chunk had, multiplied.

    Raises:
        UnsupportedPolicy: `strict`, and a row cannot be decided in columns; names the reason.
    """
    engine = RowEngine()
    axes, context = options.axes(lake, bundles, engine)
    itself = axes(None)
    run = columnar(itself, strict=strict)
    found = Sweeping(bundles, run, axes, lambda bundle, rows: by_rows(axes(bundle), rows), _sider(lake))
    inputs = (INPUTS,) if needs_inputs(lake, [axes(bundle).limits_of for bundle in bundles[:1]]) else ()
    chunks = ahead(Records(lake).chunks(inputs if itself.verify is None else (*ADDRESSES, *inputs)))
    with closing(chunks):
        while True:
            with found.timed("reading"):
                records = next(chunks, None)
            if records is None:
                name = f"{COLUMNAR} with {engine.name}"
                return Scanned(found.tallies, context, name, dict(found.handed_over), found.seconds)
            found.chunk(records)
            advance(records.height * len(bundles))


def _sider(lake: Lake) -> Callable[[pl.DataFrame], pl.Series]:
    """Tells whose call each row of a replay is."""
    labels = lake.labels.collect().lazy()

    def sides(rows: pl.DataFrame) -> pl.Series:
        found = labels_of(
            rows.lazy(), labels
        ).collect()  # all of it: a projection over the joins loses their order
        return found.select(side=JOINED["side"].cast(pl.String))["side"]

    return sides
