"""What a lake's self-replay found, kept with the lake, so that the next replay begins where candidates differ.

One rule: kept is only what hangs on the record (rows at the pin, typed by their own schema, and whether they come out
as recorded), and it is used only while every file it was read from is still part of the lake's tables: rows that were
erased, masked or rewritten since are read again.

Not used, and read afresh: for contexts that are compiled again, for the second level of self-replay (what it finds
hangs on sources that may change), for another schema, and where limits need columns that were not read.

Accepted: memory. Some 800 bytes a decision, at most `workbench.shelf.MOST` in a process, the lake that was used
longest ago given up first; a history that does not fit alone is not kept. It goes with the lake object.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES, POLICIES
from workbench import shelf
from workbench.history.records import MORE, NEEDED, STATUS, Records, with_contexts
from workbench.history.run import BROKEN, Prepared, same_schema
from workbench.history.slim import fresh, size_of, slim
from workbench.opening import table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.history.contexts import Contexts
    from workbench.history.run import Axes, ColumnarRun, Sound
    from workbench.lake import Lake

    Files = Mapping[str, frozenset[str]]
    """Of tables, by name."""

ASIDE = 20_000
"""Rows of a chunk that Cedar decides whatever the candidate, above which they are read again each time."""
_READ = (DECISIONS, OUTCOMES, CONTEXTS, POLICIES)
_PLACE = ("writer", "position")


@dataclass(slots=True)
class Kept:
    """The self-replay of a lake's decisions."""

    contexts: Contexts
    strict: bool
    columns: frozenset[str]
    """That were read of records, beside those that always are."""
    files: Files
    """Of the tables, before they were read."""
    chunks: list[Prepared] = field(default_factory=list)
    size: int = 0

    def __iter__(self) -> Iterator[Prepared]:
        """Yield the chunks, in order, each ready for one more bundle."""
        yield from map(refreshed, self.chunks)


def found(lake: Lake, axes: Axes, columns: Sequence[str], *, strict: bool) -> Kept | None:
    """Return the self-replay that a replay of a lake may begin with; None: there is none.

    Args:
        lake: the pinned lake.
        axes: what the replay decides with.
        columns: that it needs of records, beside those that are always read.
        strict: it refuses to hand over.

    Cost: reads the newest Delta logs of four tables.
    """
    kept = lake.shelf.kept
    if kept is None or axes.verify is not None or axes.recompiler is not None:
        return None
    owns = {sound.own.version: sound.own for chunk in kept.chunks for sound in chunk.sound}
    fits = kept.strict == strict and kept.columns.issuperset(columns)
    if not fits or not all(same_schema(axes.bundle_for(own), own) for own in owns.values()):
        return None
    if not _still(kept, files_of(lake)):
        lake.shelf.drop()
        return None
    lake.shelf.touch()
    return kept


@contextmanager
def keeping(run: ColumnarRun, columns: Sequence[str], files: Files, expected: int) -> Iterator[Keeper]:
    """Keep what a replay finds of its chunks, if all of them are told, and it fits.

    Args:
        run: the replay.
        columns: that are read of records, beside those that always are.
        files: of the tables, before any was read; see `files_of`.
        expected: how many decisions there are: what will not fit is not begun.
    """
    keeper = Keeper(run, Kept(run.contexts, run.strict, frozenset(columns), files), expected)
    yield keeper
    if keeper.whole:
        run.lake.shelf.put(keeper.kept)


@dataclass(slots=True)
class Keeper:
    """Takes the chunks of a replay, one after the other."""

    run: ColumnarRun
    kept: Kept
    expected: int
    """Decisions there are."""
    whole: bool = False
    """Every chunk was told, and all of it is kept."""
    _height: int = 0
    _fits: bool = True

    def __post_init__(self) -> None:
        if self.run.axes.recompiler is not None:
            self._fits = False

    def add(self, prepared: Prepared) -> None:
        """Take a chunk."""
        self.take(self.slimmed(prepared))

    def slimmed(self, prepared: Prepared) -> Prepared | None:
        """Return a chunk as it is kept, for `take`; None: none is, any more. Threads may ask at once."""
        if not self._fits:
            return None
        if self.run.axes.verify is not None and not clean(prepared):
            self._fits = False  # the first level alone may find otherwise
            return None
        return _kept(prepared, self.run.lake)

    def take(self, slimmed: Prepared | None) -> None:
        """Take the next chunk."""
        if slimmed is not None:
            self.kept.chunks.append(slimmed)
            self.kept.size += _size(slimmed)
            self._height += slimmed.height
            self._fits &= self.kept.size * self.expected <= shelf.MOST * self._height
        if not self._fits:
            self.kept.chunks.clear()

    def finish(self) -> None:
        """Say that all chunks were told."""
        self.whole = self._fits


def files_of(lake: Lake) -> Files:
    """Return the files that the tables a replay reads consist of now."""
    tables = ((table, table_of(lake.store, table)) for table in _READ)
    return {table.name: frozenset(found.file_uris()) for table, found in tables if found is not None}


def _still(kept: Kept, now: Files) -> bool:
    """Whether what was read still stands: nothing of it is gone, and nothing that it lacked has come."""
    if any(files - now.get(name, frozenset()) for name, files in kept.files.items()):
        return False
    settled = any(chunk.settled.height for chunk in kept.chunks)
    return not settled or kept.files == now  # a context that was lost may be there again


def refreshed(prepared: Prepared) -> Prepared:
    """Return the same chunk for one more bundle: deciding notes things in what it reads."""
    return prepared._replace(sound=[each._replace(chunk=fresh(each.chunk)) for each in prepared.sound])


def first_level(prepared: Prepared) -> Prepared:
    """Return a chunk that is `clean` as a self-replay on the first level alone has it."""
    sound = [each._replace(base=_first_level(each.base)) for each in prepared.sound]
    return prepared._replace(sound=sound)


def _first_level(base: pl.DataFrame) -> pl.DataFrame:
    return base.with_columns(recompilable=pl.lit(None, pl.Boolean))


def clean(prepared: Prepared) -> bool:
    """Whether no row failed a self-replay on both levels, which has more that can fail than the first alone."""
    broken = (sound.over.filter(pl.col("why") == BROKEN).height for sound in prepared.sound)
    settled = (sound.settled.height for sound in prepared.sound)
    return not prepared.settled.height and not any(broken) and not any(settled)


def _kept(prepared: Prepared, lake: Lake) -> Prepared:
    sound = [_slim(each) for each in prepared.sound]
    over = (
        pl.concat([each.over["row"] for each in sound]).unique().sort()
        if sound
        else pl.Series(dtype=pl.UInt32)
    )
    aside = _whole(lake, prepared.records(over)) if 0 < over.len() <= ASIDE else None
    places = prepared.places
    return Prepared(prepared.settled, sound, partial(_records, lake, places, over, aside), places)


def _slim(sound: Sound) -> Sound:
    return sound._replace(chunk=slim(sound.chunk), rows=None, base=_first_level(sound.base))


def _records(
    lake: Lake, places: pl.DataFrame, over: pl.Series, aside: pl.DataFrame | None, rows: pl.Series
) -> pl.DataFrame:
    """Records of some rows, with contexts: those that are kept aside, and others as the lake has them."""
    known = rows.is_in(over.implode()) if aside is not None else None
    if aside is not None and known is not None and known.all():
        return aside[over.search_sorted(rows)]
    return _whole(lake, _read(lake, places[rows]))


def _read(lake: Lake, places: pl.DataFrame) -> pl.DataFrame:
    """Read records again, by writer and position; how their calls ended is known."""
    among = pl.col("position").is_in(places["position"].implode())
    found = (
        lake.history.filter(pl.col("writer").is_in(places["writer"].unique().implode()) & among)
        .select(*NEEDED, *(name for name in MORE if name not in NEEDED))
        .join(places.lazy(), on=list(_PLACE), how="semi")
        .collect()
    )
    return places.join(found, on=list(_PLACE), how="left", maintain_order="left").select(
        *found.columns, STATUS
    )


def _whole(lake: Lake, records: pl.DataFrame) -> pl.DataFrame:
    return with_contexts(Records(lake).whole(records), lake)


def _size(prepared: Prepared) -> int:
    every = (prepared.settled, prepared.places, *(each.base for each in prepared.sound))
    chunks = (size_of(each.chunk) for each in prepared.sound)
    return int(sum(each.estimated_size() for each in every)) + sum(chunks)
