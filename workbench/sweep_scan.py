"""One scan of a lake for all versions of a sweep: what they decide with, and the chunks they decide.

One rule: the axes are those of `workbench.asked`, as a single replay takes them, the policies aside.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.asked import asked_of
from workbench.diff_rows import JOINED, labels_of
from workbench.ending import ending
from workbench.history.limiting import INPUTS, needs_inputs
from workbench.history.results import ENGINE as COLUMNAR
from workbench.history.sweeping import Sweeping, Tagged
from workbench.preparing import prepared_here
from workbench.redeciding import Plan
from workbench.redeciding import replayed_by_rows as by_rows
from workbench.rows import RowEngine

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
    from workbench.splitting import Split

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
    versions: Mapping[str, int | str] | None
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
        asked = asked_of(
            lake,
            context=self.context,
            limits=self.limits,
            sources=self.sources,
            versions=self.versions,
            at=self.at,
        )
        for bundle in bundles:
            asked.of(bundle)
        recompiler = asked.recompiler(lake)
        verify = asked.verifier(lake) if asked.again else None

        def axes(bundle: Bundle | None) -> Plan:
            if bundle is None:
                return Plan(lake, engine, None, None, None, verify)
            return Plan(lake, engine, bundle, asked.limits, recompiler, verify)

        return axes, asked.context


def sweep_scan(
    lake: Lake,
    bundles: Sequence[Bundle],
    options: Options,
    *,
    strict: bool,
    advance: Callable[[int], object],
    tags: Callable[[pl.DataFrame], Tagged],
) -> Scanned:
    """Decide all versions in columns, over one scan.

    Args:
        lake: the pinned lake.
        bundles: the versions, distinct.
        options: of every version.
        strict: columns are demanded.
        advance: told how many decisions of how many versions a chunk had, multiplied.
        tags: tells what is known of rows besides; see `tagger`.

    Raises:
        UnsupportedPolicy: `strict`, and a row cannot be decided in columns; names the reason.
    """
    engine = RowEngine()
    axes, context = options.axes(lake, bundles, engine)
    inputs = (INPUTS,) if needs_inputs(lake, [axes(bundle).limits_of for bundle in bundles[:1]]) else ()
    run, chunks, _ = prepared_here(axes(None), strict=strict, more=inputs)
    found = Sweeping(bundles, run, axes, lambda bundle, rows: by_rows(axes(bundle), rows), tags)
    with ending(chunks.close):
        while True:
            with found.timed("reading"):  # and replaying it by itself; not what was kept
                prepared = next(chunks, None)
            if prepared is None:
                name = f"{COLUMNAR} with {engine.name}"
                return Scanned(found.tallies, context, name, dict(found.handed_over), found.seconds)
            found.chunk(prepared)
            advance(prepared.height * len(bundles))


def tagger(
    lake: Lake, split: Split | None, money: Callable[[pl.DataFrame], pl.Series]
) -> Callable[[pl.DataFrame], Tagged]:
    """Tells whose call each row of a replay is, which part of the history it is in, and what it is about."""
    labels = lake.labels.collect().lazy()

    def tags(rows: pl.DataFrame) -> Tagged:
        found = labels_of(
            rows.lazy(), labels
        ).collect()  # all of it: a projection over the joins loses their order
        side = found.select(side=JOINED["side"].cast(pl.String))["side"]
        part = pl.Series([""]).new_from_index(0, rows.height) if split is None else split.part(rows, labels)
        return Tagged(side, part, money(rows))

    return tags
