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
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.effects import EFFECTS, now_of
from workbench.history.chunk import type_chunk
from workbench.history.deciding import grouped
from workbench.history.merging import families, merged, reaching
from workbench.history.recompiling import Again
from workbench.history.run import joined, refusal, same_schema
from workbench.history.sharing import BLOCK, HANDED_OVER, SAID, Skeletons, shared
from workbench.history.slim import only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.bundle import Bundle
    from workbench.effects import Effect, Then
    from workbench.history.groups import PolicyGroup
    from workbench.history.merging import Merged
    from workbench.history.run import Axes, ColumnarRun, Prepared, Sound

_KEYS = ("then", "kind", "recorded_verdict", "side", "part")
"""What an effect, and where it is counted, depend on besides what a version says."""
_SUMS = (pl.len().cast(pl.Int64).alias("n"), pl.col("money").sum())
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
    part: str = ""
    """Of the history: what a search looks at, or what it is confirmed on."""


@dataclass(slots=True)
class Tally:
    """Decisions by what is said of them."""

    n: Counter[Told] = field(default_factory=Counter)
    """How many."""
    money: Counter[Told] = field(default_factory=Counter)
    """What they were about, in the smallest unit, where that is declared."""

    def add(self, told: Told, n: int, money: int) -> None:
        """Count `n` decisions, about `money` in all."""
        self.n[told] += n
        self.money[told] += money


Counted = Iterable[tuple[Told, int, int]]
"""What is said, of how many decisions, and about how much money."""


class Tagged(NamedTuple):
    """What a sweep knows of each row of `FRAME`, besides what is decided; in order."""

    side: pl.Series
    """String: whose call it is."""
    part: pl.Series
    """String: of the history."""
    money: pl.Series
    """Int64: what it is about; 0: nothing, or not declared."""


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
    tags: Callable[[pl.DataFrame], Tagged]
    """Tells what is known of rows of `FRAME`."""
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
        self.tallies = [Tally() for _ in self.versions]

    def chunk(self, prepared: Prepared) -> None:
        """Take recorded decisions, replayed by themselves, into the tallies.

        Raises:
            UnsupportedPolicy: the self-replay is strict, and a row cannot be decided in columns; names the reason.
        """
        with self.timed("self-replay"):
            told = self.itself.decided(prepared)
            tags = self.tags(told)._asdict()
            told = told.with_columns(each.alias(name) for name, each in tags.items()).with_row_index("row")
        axes = self.axes(self.versions[0])
        bad = told["status"] != "decided"
        if axes.recompiler is not None:
            bad |= ~told["recompilable"].fill_null(value=True)
        chunk = _Chunk(self, prepared, told, axes)
        chunk.quarantine(told.filter(bad)["row"])
        # Rows with an evaluation error went to Cedar for its message; columns may decide them.
        over = pl.when(pl.col("errors").list.len().fill_null(0) == 0).then("handed_over").alias("why")
        rest = told.select("row", over).filter(~bad)
        for sound in prepared.sound:
            mine = rest.filter(rest["row"].is_in(sound.every.implode()))
            left = mine.filter(pl.col("why").is_not_null())
            chunk.decide(sound, mine.filter(pl.col("why").is_null())["row"], left)

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
    prepared: Prepared
    told: pl.DataFrame
    """What their self-replay says: columns of `FRAME`, of `Tagged`, and `row`."""
    axes: Axes

    def quarantine(self, rows: pl.Series) -> None:
        """Count rows that no version can be asked about: quarantined, but for those that something was erased of."""
        keys = ("then", "side", "part")
        erased = pl.col("status") == "undecided"
        status = pl.when(erased).then(pl.lit("undecided")).otherwise(pl.lit("quarantined"))
        found = self.told[rows].group_by(status.alias("status"), *keys).agg(_SUMS)
        for status_, then, side, part, n, money in found.iter_rows():
            told = Told(status_, None, None, status_, then, side, part)
            for each in self.sweeping.tallies:
                each.add(told, n, money)

    def decide(self, sound: Sound, rows: pl.Series, left: pl.DataFrame) -> None:
        """Count rows of a recorded bundle: those that columns may decide, and those left to the row engine."""
        sweeping, own = self.sweeping, sound.own
        contexts, again = sweeping.itself.contexts, self.axes.recompiler
        records = cache(lambda: joined(self.prepared.records(rows), contexts).with_columns(row=rows))
        if again is not None and rows.len():
            with sweeping.timed("compiling contexts"):
                fresh, contexts = Again(again, sweeping.itself.lake).compiled(records(), own.spec)
            self.quarantine(fresh.filter(pl.col("cause").is_not_null())["row"])
            fresh = fresh.filter(pl.col("cause").is_null())
            records = cache(lambda: fresh)
        for family in sweeping.families(own):
            bundle = sweeping.axes(family.merged.bundle).bundle_for(own)
            known = family.own or again is not None  # then nothing that policies may read is missing
            with sweeping.timed("typing"):
                if again is None and same_schema(bundle, own):
                    typed = only(sound.chunk, rows)
                else:
                    typed = type_chunk(records(), contexts, bundle.schema, own=known)
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
        found = self.told.select(*_KEYS, "money")[rows].group_by(_KEYS).agg(_SUMS)
        self._add(family, family.places, _weighed(found, lambda keys: _told(BLOCK, False, *keys)))

    def _count(self, family: _Family, group: PolicyGroup) -> Iterator[_Left]:
        """Count a group, and yield what columns do not decide of it."""
        rows = group.compiled.part.rows["row"].gather(group.rows)
        recorded = group.compiled.part.rows["enforced_args"].gather(group.rows)
        found = shared(group, family.merged, recorded, self.sweeping.skeletons)
        told = self.told.select(*_KEYS, "money")[rows].with_columns(found.classes.alias("class"))
        counts = told.group_by("class", *_KEYS).agg(_SUMS)
        for places, version in found.versions:
            said = pl.DataFrame({"said": version.said, "same": version.same})[counts["class"]]
            table = counts.hstack(said).filter(pl.col("said") != HANDED_OVER)
            sums = table.group_by("said", "same", *_KEYS).agg(pl.col("n", "money").sum())
            self._add(family, places, _weighed(sums, lambda keys: _told(*keys)))
            if (version.said == HANDED_OVER).any():
                frame = pl.DataFrame({"row": rows, "why": version.why.gather(found.classes)})
                over = (version.said == HANDED_OVER).gather(found.classes)
                yield _Left(places, frame.filter(over))

    def _add(self, family: _Family, places: Sequence[int], counted: Counted) -> None:
        tallies = [self.sweeping.tallies[family.numbers[place]] for place in places]
        for told, n, money in counted:
            for tally in tallies:
                tally.add(told, n, money)

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
                told = self.sweeping.by_rows(version, self.prepared.records(mine)).select(_COUNTED)
                tagged = told.hstack(self.told.select(Tagged._fields)[mine])
                said = tagged.group_by(*_COUNTED, "side", "part").agg(_SUMS)
                self._add(family, those, _weighed(said, lambda keys: Told(*keys)))


def _weighed(sums: pl.DataFrame, told: Callable[[Sequence[Any]], Told]) -> Counted:
    """Rows of keys with `n` and `money` last, as what is counted."""
    return ((told(keys), n, money) for *keys, n, money in sums.iter_rows())


@cache
def _told(said: int, same: bool, then: Then, kind: str, recorded: str, side: str, part: str) -> Told:  # noqa: FBT001 - columns
    """What is counted of a decision that a version says something of."""
    status, verdict = SAID[said]
    if verdict is None:
        return Told(status, None, None, "undecided", then, side, part)
    effect = EFFECTS[then, now_of(verdict, kind=kind, same_action=same)]
    return Told(status, verdict, verdict != recorded, effect, then, side, part)
