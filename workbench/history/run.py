"""Replaying recorded decisions in columns: chunk in, rows of `workbench.replay.FRAME` out.

One rule: what columns do not decide, the row engine decides, and the row says so (`engine`, `handed_over`). Rows
whose policies raise an error go there too, unless columns are demanded: the message is Cedar's to say.

A chunk needs nothing but its own rows and the contexts they refer to, so chunks can be decided anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import polars as pl

from runtime.cedar import engine_name
from runtime.schema import SCHEMA_FILE
from workbench.errors import UnsupportedPolicy
from workbench.history.chunk import type_chunk
from workbench.history.damage import damage
from workbench.history.deciding import decided_chunk
from workbench.history.recompiling import Again
from workbench.history.records import STATUS, Records, with_contexts
from workbench.history.results import assembled, base_of, quarantined
from workbench.history.slices import Addresses
from workbench.history.verifying import reproduced
from workbench.recorded import Recorded
from workbench.replay import FRAME, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.bundle import Bundle
    from workbench.history.chunk import Chunk
    from workbench.history.contexts import Contexts
    from workbench.history.decided import Decided
    from workbench.lake import Lake
    from workbench.recompile import Recompiler


BROKEN = "it did not come out as recorded"
ERRED = "an evaluation error, whose message is Cedar's"
_NOTHING_OVER = pl.DataFrame(schema={"row": pl.UInt32, "why": pl.String})
_NOTHING_TOLD = pl.DataFrame(schema={"row": pl.UInt32, **FRAME})


class Axes(Protocol):
    """What a replay decides with."""

    @property
    def again(self) -> bool:
        """Whether anything is to be decided otherwise than it was recorded."""

    @property
    def verify(self) -> Recompiler | None:
        """Checks that recorded contexts can be compiled again; null: not asked."""

    @property
    def recompiler(self) -> Recompiler | None:
        """Compiles contexts again to decide over; null: as recorded."""

    def bundle_for(self, own: Bundle) -> Bundle:
        """The bundle that decides rows of a recorded one."""


class Itself(NamedTuple):
    """Rows of one recorded bundle, decided as they were."""

    chunk: Chunk
    rows: pl.DataFrame
    """That came out as recorded."""
    found: Decided
    """What was decided of them, a row a row."""
    broken: pl.DataFrame
    """Rows that did not come out as recorded."""
    over: pl.DataFrame
    """`row` and `why` of those that columns do not decide."""
    told: pl.DataFrame | None
    """Why contexts of `rows` cannot be compiled again, a row a row; None: not asked."""


class Sound(NamedTuple):
    """Rows of one recorded bundle, replayed by themselves."""

    own: Bundle
    chunk: Chunk
    came_out: pl.Series
    """UInt32, ascending: `row` of those that came out as recorded, and that candidates may be asked about."""
    found: Decided | None
    """What was decided of these by their own policies; None: it is decided again when it is asked for."""
    base: pl.DataFrame
    """What no candidate changes of these and of those in `over`; see `workbench.history.results.base_of`."""
    rows: pl.DataFrame | None
    """Those that came out, as recorded, for who types them again or compiles contexts again; None: not kept."""
    settled: pl.DataFrame
    """Rows of `FRAME`, and `row`: those that are quarantined."""
    over: pl.DataFrame
    """`row` and `why` of rows that Cedar decides, whatever the candidate."""

    @property
    def every(self) -> pl.Series:
        """UInt32: `row` of all of them."""
        return pl.concat([self.came_out, self.settled["row"], self.over["row"]]).unique().sort()


class Prepared(NamedTuple):
    """A chunk of decisions, replayed by themselves: all that hangs on no candidate."""

    settled: pl.DataFrame
    """Rows of `FRAME`, and `row`: those that cannot be replayed."""
    sound: Sequence[Sound]
    """By recorded bundle."""
    records: Callable[[pl.Series], pl.DataFrame]
    """Gives recorded decisions by their rows of the chunk, as they were read; if they are kept, with contexts."""
    places: pl.DataFrame
    """`writer`, `position` and `execution_status` of every decision of the chunk."""

    @property
    def height(self) -> int:
        """How many decisions there are."""
        return self.places.height


@dataclass(frozen=True, slots=True)
class ColumnarRun:
    """A replay in columns."""

    find_bundle: Callable[[str], Bundle | None]
    axes: Axes
    contexts: Contexts
    by_rows: Callable[[pl.DataFrame], pl.DataFrame]
    """The row engine: records in, rows of `FRAME` out, in order."""
    lake: Lake
    """Holds the texts of contexts, where they are compiled again."""
    strict: bool = False
    """Refuse to hand over, and decide rows with evaluation errors without their messages."""
    _addresses: dict[str, Addresses] = field(default_factory=dict)

    def chunk(self, records: pl.DataFrame) -> pl.DataFrame:
        """Decide recorded decisions.

        Args:
            records: rows of `decisions` with `execution_status`.

        Returns:
            One row each, in order; columns as in `FRAME`.

        Raises:
            UnsupportedPolicy: `strict`, and a row cannot be decided in columns; names the reason.
        """
        return self.decided(self.prepared(records))

    def prepared(self, records: pl.DataFrame) -> Prepared:
        """Replay recorded decisions by themselves; see `chunk`."""
        rows = joined(records, self.contexts)
        addresses = self.axes.verify is not None
        cause = damage(rows, self.contexts, self.find_bundle, addresses=addresses, hashes=self._args_hashes)
        alive = rows.filter(cause.is_null()) if cause.null_count() < rows.height else rows
        settled = self._unresolved(rows.filter(cause.is_not_null()), cause.drop_nulls())
        sound = []
        for (version,), mine in _by_bundle(alive):
            own = self.find_bundle(str(version))
            assert own is not None  # noqa: S101 - others are damaged
            sound.append(self._sound(mine, own))
        return Prepared(settled, sound, records.__getitem__, records.select("writer", "position", STATUS))

    def decided(self, prepared: Prepared) -> pl.DataFrame:
        """Decide what was prepared by this replay's policies; see `chunk`."""
        parts, over = [prepared.settled], [_NOTHING_OVER]
        answers: list[tuple[pl.DataFrame, Decided]] = []
        for sound in prepared.sound:
            parts.append(sound.settled)
            over.append(sound.over)
            if self.axes.recompiler is None:
                found, rest = self._in_columns(sound)
                answers.append((sound.base, found))
                over.append(rest)
                continue
            assert sound.rows is not None  # noqa: S101 - what is kept is not used for this axis
            for done, rest in self._over_new_contexts(sound.rows, sound.own, self.axes.recompiler):
                parts.append(done)
                over.append(rest)
        left = pl.concat(over).unique("row").sort("row")
        told = self._by_rows(prepared.records(left["row"]), left) if left.height else _NOTHING_TOLD
        for base, found in answers:
            mine = told["row"].is_in(base["row"].implode())
            parts.append(assembled(base, found, told.filter(mine)))
            told = told.filter(~mine)
        return _in_order([*parts, told]).drop("row")

    def _in_columns(self, sound: Sound) -> tuple[Decided, pl.DataFrame]:
        """What columns decide of rows of one recorded bundle, and what they hand over."""
        if self.axes.again or sound.found is None:
            return self._candidate(sound)
        return sound.found, _NOTHING_OVER

    def _sound(self, rows: pl.DataFrame, own: Bundle) -> Sound:
        """Replay rows of one recorded bundle by themselves."""
        itself = self.itself(rows, own)
        broken, over = itself.broken, itself.over
        if self.strict:
            settled = quarantined(broken, self._why_not(broken))
        else:  # Cedar has the last word on a row that is about to be quarantined
            said = broken.select("row", why=pl.lit(BROKEN))
            settled, over = quarantined(broken.clear(), said["why"].clear()), pl.concat([over, said])
        sound, found, failed = self._recompilable(itself)
        settled = pl.concat([settled, failed])
        base = _NOTHING_TOLD if self.axes.recompiler is not None else _base(rows, sound, settled)
        return Sound(own, itself.chunk, sound["row"], found, base, sound, settled, over)

    def itself(self, rows: pl.DataFrame, own: Bundle) -> Itself:
        """The self-replay: it hangs on the record and on whether the second level is asked, on nothing else."""
        chunk = type_chunk(rows, self.contexts, own.schema, own=True)
        verify = self.axes.verify
        itself, over = self._apart(decided_chunk(chunk, self.contexts, own, own=True).of(rows["row"]))
        kept = rows if over.is_empty() else rows.join(over, on="row", how="anti", maintain_order="left")
        addresses = None if verify is None else self._addresses_of(own)
        same = reproduced(kept, itself.frame(), chunk, addresses)
        sound, found = (kept, itself) if same.all() else (kept.filter(same), itself.filter(same))
        told = Again(verify, self.lake).problems(sound, own.spec) if verify and sound.height else None
        return Itself(chunk, sound, found, kept.filter(~same), over, told)

    def _args_hashes(self, some: pl.DataFrame) -> pl.Series:
        return Records(self.lake).whole(some)["args_hash"]

    def _unresolved(self, rows: pl.DataFrame, causes: pl.Series) -> pl.DataFrame:
        """Rows that cannot be replayed; those with holes say what is missing."""
        if not causes.is_in(list(UNDECIDED)).any():
            return quarantined(rows, causes)
        whole = with_contexts(Records(self.lake).whole(rows), self.lake)
        found = (
            Recorded(row, row["context"], row["enforced_context"]).holes if cause in UNDECIDED else None
            for row, cause in zip(whole.iter_rows(named=True), causes, strict=True)
        )
        about = pl.Series([holes and list(holes.names) for holes in found], dtype=pl.List(pl.String))
        return quarantined(rows, causes, about)

    def _why_not(self, rows: pl.DataFrame) -> pl.Series:
        """Causes of rows that did not come out as recorded, where Cedar is not asked for the last word."""
        if rows.is_empty():
            return pl.Series(dtype=pl.String)
        recorded = Records(self.lake).whole(rows)["engine"]
        same = recorded == engine_name()
        return pl.select(
            pl.when(same).then(pl.lit("not_reproduced")).otherwise(pl.lit("engine_mismatch"))
        ).to_series()

    def _recompilable(self, itself: Itself) -> tuple[pl.DataFrame, Decided, pl.DataFrame]:
        """The second level of self-replay; its failures are quarantined where contexts are to be compiled again."""
        rows, found, told = itself.rows, itself.found, itself.told
        nothing = quarantined(rows.clear(), rows["verdict"].clear())
        if told is None:
            return rows, found, nothing
        fine = told["cause"].is_null()
        rows = rows.with_columns(recompilable=fine)
        if self.axes.recompiler is None:
            return rows, found, nothing
        bad = told.filter(~fine)
        failed = quarantined(rows.filter(~fine), bad["cause"], bad["about"], decidable=True)
        return rows.filter(fine), found.filter(fine), failed

    def _over_new_contexts(
        self, rows: pl.DataFrame, own: Bundle, recompiler: Recompiler
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Decide over contexts compiled again; whatever the spec does not ask for is absent, not missing."""
        if rows.is_empty():
            return
        fresh, contexts = self.compiled(rows, own, recompiler)
        fine = fresh["cause"].is_null()
        bad = fresh.filter(~fine)
        nothing = pl.DataFrame(schema={"row": pl.UInt32, "why": pl.String})
        yield quarantined(rows.filter(~fine), bad["cause"], bad["about"], decidable=True), nothing
        bundle = self.axes.bundle_for(own)
        chunk = type_chunk(fresh.filter(fine), contexts, bundle.schema, own=True)
        yield self.framed(rows.filter(fine), decided_chunk(chunk, contexts, bundle, own=True))

    def framed(self, rows: pl.DataFrame, found: Decided) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of `FRAME` of what was decided, and `row` and `why` of rows that are handed over."""
        found, over = self._apart(found)
        kept = rows if over.is_empty() else rows.join(over, on="row", how="anti", maintain_order="left")
        return assembled(base_of(kept), found, _NOTHING_TOLD), over

    def compiled(
        self, rows: pl.DataFrame, own: Bundle, recompiler: Recompiler
    ) -> tuple[pl.DataFrame, Contexts]:
        """Rows with their contexts compiled again: it hangs on the spec and the sources, on no policy."""
        return Again(recompiler, self.lake).compiled(rows, own.spec)

    def _addresses_of(self, own: Bundle) -> Addresses:
        if own.policy_hash not in self._addresses:
            self._addresses[own.policy_hash] = Addresses(self.contexts, own.schema)
        return self._addresses[own.policy_hash]

    def _candidate(self, sound: Sound) -> tuple[Decided, pl.DataFrame]:
        own = sound.own
        bundle = self.axes.bundle_for(own)
        same_policy = bundle.policy_hash == own.policy_hash
        typed = sound.chunk
        if not same_schema(bundle, own):
            assert sound.rows is not None  # noqa: S101 - what is kept is not used for another schema
            typed = type_chunk(sound.rows, self.contexts, bundle.schema, own=False)
        return self._apart(decided_chunk(typed, self.contexts, bundle, own=same_policy).of(sound.came_out))

    def _apart(self, found: Decided) -> tuple[Decided, pl.DataFrame]:
        """What was decided, and `row` and `why` of rows that are handed over."""
        found = found if self.strict else found.without_errors(ERRED)
        over = found.handed_over()
        return (found, over) if over.is_empty() else (found.filter(found.here), over)

    def _by_rows(self, records: pl.DataFrame, over: pl.DataFrame) -> pl.DataFrame:
        if self.strict:
            raise refusal(over)
        found = self.by_rows(records)
        return found.with_columns(handed_over=over["why"]).select(over["row"], pl.all())


def same_schema(bundle: Bundle, own: Bundle) -> bool:
    """Whether every fact has the place under one bundle that it has under the other."""
    return bundle.files[SCHEMA_FILE] == own.files[SCHEMA_FILE]


def _base(rows: pl.DataFrame, sound: pl.DataFrame, settled: pl.DataFrame) -> pl.DataFrame:
    """What no candidate changes of the rows that are not settled; `recompilable` as it was found of sound ones."""
    if settled.height:
        rows = rows.join(settled, on="row", how="anti", maintain_order="left")
    base = base_of(rows)
    if "recompilable" not in sound.columns:
        return base
    known = base.select("row").join(
        sound.select("row", "recompilable"), on="row", how="left", maintain_order="left"
    )
    return base.with_columns(known["recompilable"])


def _in_order(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows by `row`. Each part is in order; sorting moves every text, and mostly there is one part."""
    there = [part for part in parts if part.height] or parts[:1]
    return there[0] if len(there) == 1 else pl.concat(there).sort("row")


def _by_bundle(rows: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
    """Rows by recorded bundle; those of one bundle are not copied."""
    versions = rows["bundle_version"]
    if versions.n_unique() == 1:
        yield (versions[0],), rows
        return
    yield from rows.partition_by("bundle_version", as_dict=True).items()


def refusal(over: pl.DataFrame) -> UnsupportedPolicy:
    """Return the error of rows that columns do not decide, where columns are demanded."""
    why = str(over["why"][0])
    policy = why.removeprefix("policy `").partition("`")[0] if why.startswith("policy `") else "?"
    node = why.partition("`: ")[2].partition(":")[0]
    return UnsupportedPolicy(
        f"{over.height:,} decisions cannot be decided in columns, the first because of: {why}",
        policy_id=policy,
        node=node,
    )


def joined(records: pl.DataFrame, contexts: Contexts) -> pl.DataFrame:
    """Records with a row number and the codes of their facts."""
    numbered = records.with_row_index("row")
    return numbered.join(contexts.frame, on="context_hash", how="left", maintain_order="left")
