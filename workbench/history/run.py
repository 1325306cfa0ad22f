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
from workbench.history.deciding import decide_chunk
from workbench.history.recompiling import Again
from workbench.history.records import Records, with_contexts
from workbench.history.results import assembled, quarantined
from workbench.history.slices import Addresses
from workbench.history.verifying import reproduced
from workbench.recorded import Recorded
from workbench.replay import UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.bundle import Bundle
    from workbench.history.chunk import Chunk
    from workbench.history.contexts import Contexts
    from workbench.lake import Lake
    from workbench.recompile import Recompiler


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
    found: pl.DataFrame
    """What was decided of them, a row a row."""
    broken: pl.DataFrame
    """Rows that did not come out as recorded."""
    over: pl.DataFrame
    """`row` and `why` of those that columns do not decide."""
    told: pl.DataFrame | None
    """Why contexts of `rows` cannot be compiled again, a row a row; None: not asked."""


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
    handed_over: dict[str, int] = field(default_factory=dict)
    """Rows by reason, so far."""
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
        rows = joined(records, self.contexts)
        addresses = self.axes.verify is not None
        cause = damage(rows, self.contexts, self.find_bundle, addresses=addresses, hashes=self._args_hashes)
        alive = rows.filter(cause.is_null()) if cause.null_count() < rows.height else rows
        parts = [self._unresolved(rows.filter(cause.is_not_null()), cause.drop_nulls())]
        over = [pl.DataFrame(schema={"row": pl.UInt32, "why": pl.String})]
        for (version,), mine in alive.partition_by("bundle_version", as_dict=True).items():
            own = self.find_bundle(str(version))
            assert own is not None  # noqa: S101 - others are damaged
            for done, rest in self._decided(mine, own):
                parts.append(done)
                over.append(rest)
        left = pl.concat(over).unique("row").sort("row")
        if left.height:
            parts.append(self._by_rows(records, left))
        return pl.concat(parts).sort("row").drop("row")

    def _decided(self, rows: pl.DataFrame, own: Bundle) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Rows of one recorded bundle: those decided, and those to hand over."""
        itself = self.itself(rows, own)
        broken, over = itself.broken, itself.over
        if self.strict:
            yield quarantined(broken, self._why_not(broken)), over
        else:  # Cedar has the last word on a row that is about to be quarantined
            said = broken.select("row", why=pl.lit("it did not come out as recorded"))
            yield quarantined(broken.clear(), said["why"].clear()), pl.concat([over, said])
        sound, found, failed = self._recompilable(itself)
        yield failed, over.clear()
        if self.axes.recompiler is not None:
            yield from self._over_new_contexts(sound, own, self.axes.recompiler)
        elif self.axes.again:
            yield self._candidate(sound, own, itself.chunk)
        else:
            yield assembled(sound, found), over.clear()

    def itself(self, rows: pl.DataFrame, own: Bundle) -> Itself:
        """The self-replay: it hangs on the record and on whether the second level is asked, on nothing else."""
        chunk = type_chunk(rows, self.contexts, own.schema, own=True)
        verify = self.axes.verify
        itself = self._without_errors(decide_chunk(chunk, self.contexts, own, own=True))
        kept, itself, over = handed_apart(rows, itself)
        same = reproduced(kept, itself, chunk, None if verify is None else self._addresses_of(own))
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

    def _recompilable(self, itself: Itself) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
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
        found = self._without_errors(decide_chunk(chunk, contexts, bundle, own=True))
        kept, found, over = handed_apart(rows.filter(fine), found)
        yield assembled(kept, found), over

    def compiled(
        self, rows: pl.DataFrame, own: Bundle, recompiler: Recompiler
    ) -> tuple[pl.DataFrame, Contexts]:
        """Rows with their contexts compiled again: it hangs on the spec and the sources, on no policy."""
        return Again(recompiler, self.lake).compiled(rows, own.spec)

    def _addresses_of(self, own: Bundle) -> Addresses:
        if own.policy_hash not in self._addresses:
            self._addresses[own.policy_hash] = Addresses(self.contexts, own.schema)
        return self._addresses[own.policy_hash]

    def _candidate(self, rows: pl.DataFrame, own: Bundle, chunk: Chunk) -> tuple[pl.DataFrame, pl.DataFrame]:
        bundle = self.axes.bundle_for(own)
        same_policy = bundle.policy_hash == own.policy_hash
        # Under the same schema every fact has the place it had.
        alike = bundle.files[SCHEMA_FILE] == own.files[SCHEMA_FILE]
        typed = chunk if alike else type_chunk(rows, self.contexts, bundle.schema, own=False)
        found = self._without_errors(decide_chunk(typed, self.contexts, bundle, own=same_policy))
        kept, found, over = handed_apart(rows, found)
        return assembled(kept, found), over

    def _without_errors(self, found: pl.DataFrame) -> pl.DataFrame:
        """Hand over rows with evaluation errors, unless columns are demanded."""
        if self.strict:
            return found
        wrong = pl.col("errors").list.len() > 0
        return found.with_columns(
            status=pl.when(wrong).then(pl.lit("handed_over")).otherwise("status"),
            why=pl.when(wrong).then(pl.lit("an evaluation error, whose message is Cedar's")).otherwise("why"),
        )

    def _by_rows(self, records: pl.DataFrame, over: pl.DataFrame) -> pl.DataFrame:
        for why, n in over.group_by("why").len().iter_rows():
            self.handed_over[why] = self.handed_over.get(why, 0) + n
        if self.strict:
            raise refusal(over)
        found = self.by_rows(records[over["row"]])
        return found.with_columns(handed_over=over["why"]).select(over["row"], pl.all())


def handed_apart(rows: pl.DataFrame, found: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Rows that were decided, what was decided of them, and `row` and `why` of those that are handed over."""
    if found.height != rows.height:
        found = found.join(rows.select("row"), on="row", how="semi", maintain_order="left")
    here = found["status"] != "handed_over"
    over = found.filter(~here).select("row", "why")
    if over.is_empty():  # wide rows are not copied without need
        return rows, found, over
    return rows.filter(here), found.filter(here), over


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
