"""Many versions of the policies over one history: one scan, one typing, one self-replay for all of them.

One rule: every decision is in the tally of every version, under what `lake.replay` of that version alone would say of
it; what columns do not decide, the row engine decides, version by version.

Versions whose policies for a tool are the same share the answers for its calls. Rows with an evaluation error stay in
columns, which know that it happened, if not its message: a tally has no messages.

Accepted: a row that one version's policies cannot be compiled for is left to the row engine in all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from workbench.effects import EFFECTS, now_of
from workbench.history.chunk import type_chunk
from workbench.history.deciding import grouped
from workbench.history.merging import families, merged, reaching
from workbench.history.recompiling import Again
from workbench.history.run import _joined as joined
from workbench.history.run import _refusal as refusal
from workbench.history.sharing import BLOCK, HANDED_OVER, SAID, Skeletons, shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.bundle import Bundle
    from workbench.effects import Effect, Then
    from workbench.history.groups import PolicyGroup
    from workbench.history.merging import Merged
    from workbench.history.run import Axes, ColumnarRun

_KEYS = ("then", "kind", "recorded_verdict", "side")
"""What an effect depends on besides what a version says."""
_COUNTED = ("status", "verdict", "verdict_changed", "effect", "then")


class Told(NamedTuple):
    """What a replay says of a decision, as far as it is counted; named as in `workbench.replay.FRAME`."""

    status: str
    verdict: str | None
    verdict_changed: bool | None
    effect: Effect
    then: Then
    side: str
    """Whose call it is."""


Tally = Counter[Told]
"""Decisions by what is said of them."""


class _Family(NamedTuple):
    """Versions that are decided together."""

    numbers: tuple[int, ...]
    """Of the sweep's versions; their places are those in `merged`."""
    merged: Merged
    own: bool
    """Rows of the bundle were decided by these policies."""

    @property
    def places(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(len(self.numbers)))


class _Left(NamedTuple):
    """Rows that columns do not decide."""

    places: tuple[int, ...]
    """Versions of a family."""
    rows: pl.DataFrame
    """`row` (UInt32), `why` (String)."""


@dataclass(slots=True)
class Sweeping:
    """A sweep under way: chunks of records in, tallies grow."""

    versions: Sequence[Bundle]
    """Distinct ones."""
    itself: ColumnarRun
    """Replays what was recorded by its own policies."""
    axes: Callable[[Bundle], Axes]
    """What a version decides with."""
    by_rows: Callable[[Bundle, pl.DataFrame], pl.DataFrame]
    """The row engine: a version and records in, rows of `FRAME` out, in order."""
    sides: Callable[[pl.DataFrame], pl.Series]
    """Whose call each row of `FRAME` is (String)."""
    clock: Callable[[], float] = time.perf_counter
    tallies: list[Tally] = field(init=False)
    """One a version."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by what it was spent on."""
    handed_over: Counter[str] = field(default_factory=Counter)
    """Rows that Cedar decided, by reason; each counts once for every version it was decided for."""
    _skeletons: Skeletons = field(default_factory=Skeletons)
    _families: dict[str | None, list[_Family]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tallies = [Counter() for _ in self.versions]

    def chunk(self, records: pl.DataFrame) -> None:
        """Take recorded decisions into the tallies.

        Args:
            records: rows of `decisions` with `execution_status`.

        Raises:
            UnsupportedPolicy: the self-replay is strict, and a row cannot be decided in columns; names the reason.
        """
        with self.timed("self-replay"):
            told = self.itself.chunk(records)
            told = told.with_columns(self.sides(told).alias("side")).with_row_index("row")
        axes = self.axes(self.versions[0])
        bad = told["status"] == "quarantined"
        if axes.recompiler is not None:
            bad |= ~told["recompilable"].fill_null(value=True)
        chunk = _Chunk(self, records, told, axes)
        chunk.quarantine(told.filter(bad)["row"])
        # Rows with an evaluation error went to Cedar for its message; columns may decide them.
        over = pl.when(pl.col("errors").list.len().fill_null(0) == 0).then("handed_over").alias("why")
        rows = joined(records, self.itself.contexts).with_columns(told.select(over)["why"]).filter(~bad)
        for (version,), mine in rows.partition_by("bundle_version", as_dict=True).items():
            own = self.itself.find_bundle(str(version))
            assert own is not None  # noqa: S101 - others are quarantined
            left = mine.filter(pl.col("why").is_not_null()).select("row", "why")
            chunk.decide(mine.filter(pl.col("why").is_null()).drop("why"), left, own)

    def families(self, own: Bundle) -> list[_Family]:
        """The versions, merged as far as they are decided alike for rows of a recorded bundle."""
        same = tuple(n for n, each in enumerate(self.versions) if each.policy_hash == own.policy_hash)
        key = own.policy_hash if same else None
        if key not in self._families:
            others = tuple(n for n in range(len(self.versions)) if n not in same)
            found = [
                _Family(tuple(others[n] for n in numbers), each, own=False)
                for numbers, each in families([self.versions[n] for n in others])
            ]
            if same:
                found.append(_Family(same, merged([self.versions[n] for n in same]), own=True))
            self._families[key] = found
        return self._families[key]

    @property
    def skeletons(self) -> Skeletons:
        """Answers about missing facts, kept over chunks."""
        return self._skeletons

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time that the body takes."""
        start = self.clock()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + self.clock() - start


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some decisions, being decided."""

    sweeping: Sweeping
    records: pl.DataFrame
    told: pl.DataFrame
    """What their self-replay says: columns of `FRAME`, `side` and `row`."""
    axes: Axes

    def quarantine(self, rows: pl.Series) -> None:
        """Count rows that no version can be asked about."""
        found = self.told.select("then", "side")[rows].group_by("then", "side").len()
        tally = Counter(
            {
                Told("quarantined", None, None, "quarantined", then, side): n
                for then, side, n in found.iter_rows()
            }
        )
        for each in self.sweeping.tallies:
            each.update(tally)

    def decide(self, rows: pl.DataFrame, left: pl.DataFrame, own: Bundle) -> None:
        """Count rows of a recorded bundle: those that columns may decide, and those left to the row engine."""
        sweeping = self.sweeping
        contexts, again = sweeping.itself.contexts, self.axes.recompiler
        if again is not None and rows.height:
            with sweeping.timed("compiling contexts"):
                fresh, contexts = Again(again, sweeping.itself.lake).compiled(rows, own.spec)
            self.quarantine(fresh.filter(pl.col("cause").is_not_null())["row"])
            rows = fresh.filter(pl.col("cause").is_null())
        for family in sweeping.families(own):
            bundle = sweeping.axes(family.merged.bundle).bundle_for(own)
            known = family.own or again is not None  # then nothing that policies may read is missing
            with sweeping.timed("typing"):
                typed = type_chunk(rows, contexts, bundle.schema, own=known)
            lefts = [_Left(family.places, left), _Left(family.places, typed.held)]
            with sweeping.timed("deciding"):
                for part in typed.parts:
                    found = grouped(part, typed, contexts, bundle, own=known)
                    lefts.append(_Left(family.places, found.held.select("row", "why")))
                    self._refused(family, found.refused["row"])
                    for group in found.groups:
                        lefts += self._count(family, group)
            with sweeping.timed("row engine"):
                self._leave(family, lefts)

    def _refused(self, family: _Family, rows: pl.Series) -> None:
        """Count rows that limits refuse, whatever the policies."""
        found = self.told.select(_KEYS)[rows].group_by(_KEYS).len()
        tally = Counter[Told]()
        for *keys, n in found.iter_rows():
            tally[_told(BLOCK, False, *keys)] += n
        self._add(family, family.places, tally)

    def _count(self, family: _Family, group: PolicyGroup) -> Iterator[_Left]:
        """Count a group, and yield what columns do not decide of it."""
        rows = group.compiled.part.rows["row"].gather(group.rows)
        recorded = group.compiled.part.rows["enforced_args"].gather(group.rows)
        found = shared(group, family.merged, recorded, self.sweeping.skeletons)
        told = self.told.select(_KEYS)[rows].with_columns(found.classes.alias("class"))
        counts = told.group_by("class", *_KEYS).len("n")
        for places, version in found.versions:
            said = pl.DataFrame({"said": version.said, "same": version.same})[counts["class"]]
            table = counts.hstack(said).filter(pl.col("said") != HANDED_OVER)
            tally = Counter[Told]()
            for *keys, n in table.group_by("said", "same", *_KEYS).agg(pl.col("n").sum()).iter_rows():
                tally[_told(*keys)] += n
            self._add(family, places, tally)
            if (version.said == HANDED_OVER).any():
                frame = pl.DataFrame({"row": rows, "why": version.why.gather(found.classes)})
                over = (version.said == HANDED_OVER).gather(found.classes)
                yield _Left(places, frame.filter(over))

    def _add(self, family: _Family, places: Sequence[int], tally: Tally) -> None:
        for place in places:
            self.sweeping.tallies[family.numbers[place]].update(tally)

    def _leave(self, family: _Family, lefts: Sequence[_Left]) -> None:
        """Have the row engine decide rows, once for versions that have the same policies for their tool."""
        by_places: dict[tuple[int, ...], list[pl.DataFrame]] = {}
        for places, rows in lefts:
            if rows.height:
                by_places.setdefault(places, []).append(rows)
        for places, frames in by_places.items():
            rows = pl.concat(frames).sort("row")
            if self.sweeping.itself.strict:
                raise refusal(rows)
            for why, n in rows.group_by("why").len().iter_rows():
                self.sweeping.handed_over[why] += n * len(places)
            self._by_rows(family, places, rows["row"])

    def _by_rows(self, family: _Family, places: Sequence[int], rows: pl.Series) -> None:
        tools = self.told["tool"].gather(rows)
        for tool in tools.unique():
            mine = rows.filter(tools == tool)
            within = reaching(family.merged, tool)
            alike: dict[frozenset[str], list[int]] = {}
            for place in places:
                ids = frozenset(family.merged.ids[place].values())
                alike.setdefault(ids & within, []).append(place)
            for those in alike.values():
                version = family.merged.versions[those[0]]
                told = self.sweeping.by_rows(version, self.records[mine]).select(_COUNTED)
                said = told.with_columns(self.told["side"].gather(mine)).group_by(*_COUNTED, "side").len()
                self._add(family, those, Counter({Told(*keys): n for *keys, n in said.iter_rows()}))


@cache
def _told(said: int, same: bool, then: Then, kind: str, recorded: str, side: str) -> Told:  # noqa: FBT001 - columns
    """What is counted of a decision that a version says something of."""
    status, verdict = SAID[said]
    if verdict is None:
        return Told(status, None, None, "undecided", then, side)
    effect = EFFECTS[then, now_of(verdict, kind=kind, same_action=same)]
    return Told(status, verdict, verdict != recorded, effect, then, side)
