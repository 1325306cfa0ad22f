"""The loop: a pass over the log, counters, rows decided again, until nothing changes; then rows that limits touch.

One rule: what was decided last for a row holds; everything else is as the first replay has it.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import polars as pl

from workbench.closed_loop.again import rows_again
from workbench.closed_loop.calls import NARROW, Book, plans_of
from workbench.closed_loop.entries import UNSURE, YES, Run
from workbench.closed_loop.log import COUNTERS
from workbench.closed_loop.quick import QuickPass
from workbench.closed_loop.reading import NOTHING_MOVED, counters_of, differing, seen_by_policies
from workbench.closed_loop.rewriting import approvals_refused, inputs_with
from workbench.closed_loop.session import moved, rewritten
from workbench.closed_loop.state import AT_LEAST, STATE_UNKNOWN, State
from workbench.closed_loop.wording import RESULT, refusals, worded
from workbench.effects import EFFECTS
from workbench.errors import OracleMismatch
from workbench.history.limiting import INPUTS
from workbench.history.results import once_each
from workbench.progress import progress
from workbench.redeciding import in_columns
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.closed_loop.again import LoopPlan
    from workbench.closed_loop.log import Log
    from workbench.closed_loop.state import Approvals
    from workbench.redeciding import EngineName
    from workbench.rows import Engine

_AT_ONCE = 20_000
"""Events of the log after which it is told that they were gone through."""
_LOWS = tuple(f"low {name}" for name in COUNTERS)
_NAMES = pl.List(pl.String)
REASONS = {
    "idempotency_conflict": "its idempotency key is held by decision {} with other arguments",
    "duplicate_differs": "what would run now differs from what {} runs",
}
"""Of calls that another under their key refuses, in words."""


class Found(NamedTuple):
    """What a simulation came to."""

    patch: pl.DataFrame
    """`row`, and `RESULT`: rows that come out otherwise than the first replay has them, or were decided again."""
    state: State


@dataclass(slots=True)
class Loop:
    """A simulation under way."""

    plan: LoopPlan
    free: LoopPlan
    """The same without the limits that verdicts move."""
    chosen: EngineName | Engine
    frame: pl.LazyFrame
    """The first replay, decided by `free`."""
    log: Log
    approvals: Approvals
    others: bool
    """Whether counters that the runtime does not keep are unknown once their session has moved."""
    narrow: pl.DataFrame = field(init=False)
    book: Book = field(init=False)
    patch: pl.DataFrame = field(init=False)
    redecided: int = 0

    def run(self) -> Found:
        """Go on until nothing changes."""
        self.narrow = self.frame.select(NARROW).collect()
        self.patch = pl.DataFrame(schema={"row": pl.UInt32, **{name: FRAME[name] for name in RESULT}})
        self.book = Book(self.log, plans_of(self.plan, self.log), self.frame, self.approvals)
        reads, last, passes = counters_of(self.plan, self.log, others=self.others), NOTHING_MOVED, 0
        while True:
            passes += 1
            run, told = self._pass(passes)
            # Where policies read no counters, what moved is asked of the rows alone that are decided again.
            moves = self._moves(told) if reads.select(_reads_any()).item() else NOTHING_MOVED
            seen = seen_by_policies(moves, reads, self.log, self.narrow)
            todo = differing(seen, last)
            if todo.is_empty():
                break
            self._decide(self.free, todo.join(moves, on="row", how="left", maintain_order="left"))
            last = seen
        self._limited(run, told, seen)
        self._referring(run)
        state = self._state(run, told, passes)
        return Found(self.patch.sort("row"), state)

    # -- a pass ----------------------------------------------------------------------------------------------------

    def _pass(self, number: int) -> tuple[Run, pl.DataFrame]:
        """Find which calls run as rows are decided now; and `runs`, `known`, `heir` a row."""
        calls, told = self.book.calls(self.narrow)
        if not self.book.hangs_together:
            return Run(bytearray(calls.free), {}), self._with_runs(bytearray(calls.free), told)
        whole = [self.log.whole.get(writer, False) for writer in self.book.ledgers]
        found = QuickPass(
            calls, self.book.plans.rulesets, whole, self.book.ends,
            denied=self.approvals == "denied", worded=in_columns(self.chosen),
        )  # fmt: skip
        order = self.book.order
        with (
            _without_collecting(),
            progress(len(order), f"pass {number} over the log", unit="event") as advance,
        ):
            for start in range(0, len(order), _AT_ONCE):
                some = order[start : start + _AT_ONCE]
                found.through(some)
                advance(len(some))
        return found.found, self._with_runs(found.found.runs, told)

    @staticmethod
    def _with_runs(runs: bytearray, told: pl.DataFrame) -> pl.DataFrame:
        return told.with_columns(runs=pl.Series("runs", list(runs), dtype=pl.UInt8))

    def _moves(self, told: pl.DataFrame, rows: pl.Series | None = None) -> pl.DataFrame:
        found = moved(self.log, told, rows)
        return NOTHING_MOVED if found is None else found.select(NOTHING_MOVED.columns)

    # -- deciding again --------------------------------------------------------------------------------------------

    def _decide(self, plan: LoopPlan, wanted: pl.DataFrame) -> None:
        """Decide rows over other state, and take what is said of them."""
        empty: dict[str, pl.DataType] = {
            "unknown": _NAMES, "limits": pl.String(), "code": pl.String(), "at_least": pl.Boolean(),
        }  # fmt: skip
        lacking = [
            pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in empty.items()
            if name not in wanted.columns
        ]
        wanted = wanted.with_columns(lacking)
        said, places = [], self.log.rows.select("row", "writer", "position")
        with progress(wanted.height, "deciding rows again") as advance:
            for part in rows_again(plan, self.chosen, wanted, places, _with_state):
                said.append(part.select("row", *RESULT))
                advance(part.height)
        found = pl.concat(said).sort("row")
        unknown = wanted["unknown"].list.len().fill_null(0) > 0
        state = found.select(s=(pl.col("status") == "undecided") & unknown)["s"]
        least = wanted["at_least"] & found["decided_by"].eq("limits")
        found = found.with_columns(
            cause=pl.when(state).then(pl.lit(STATE_UNKNOWN)).otherwise("cause"),
            reason=pl.when(least.fill_null(value=False))
            .then(pl.col("reason") + AT_LEAST)
            .otherwise("reason"),
        )
        self.redecided += found.height
        self._take(found)

    def _take(self, found: pl.DataFrame) -> None:
        self.patch = pl.concat([self.patch.join(found, on="row", how="anti"), found])
        mine = found.with_columns(patched=pl.col("reason").str.starts_with("after the patch of "))
        names = [name for name in self.narrow.columns if name != "recorded_reason_code"]
        at = found["row"]
        self.narrow = _put(self.narrow, at, mine.select(names))

    def _limited(self, run: Run, calls: pl.DataFrame, seen: pl.DataFrame) -> None:
        """Decide the rows that limits touch by all limits, and those whose approval is not there.

        What refuses a row for sure is worded by the limit itself; of each limit the first such row is decided, too.
        """
        refused = refusals(self.frame, worded(run.refused, self.book.plans.rulesets))
        code = "grant_denied" if self.approvals == "denied" else "grant_stale"
        some = {**run.told, **run.examples}
        told = pl.DataFrame(
            {
                "row": list(some),
                "limits": [each.inputs for each in some.values()],
                "names": [each.unknown for each in some.values()],
                "at_least": [each.at_least for each in some.values()],
            },
            schema={"row": pl.UInt32, "limits": pl.String, "names": _NAMES, "at_least": pl.Boolean},
        )
        unasked = pl.DataFrame({"row": run.unasked}, schema={"row": pl.UInt32}).with_columns(
            code=pl.lit(code)
        )
        unasked = unasked.join(refused, on="row", how="anti")  # limits come first
        wanted = told.join(unasked, on="row", how="full", coalesce=True).sort("row")
        if wanted.is_empty():
            return
        policies, moves = seen.select("row", "unknown"), self._moves(calls, wanted["row"])
        wanted = wanted.join(policies, on="row", how="left", maintain_order="left").join(
            moves, on="row", how="left", maintain_order="left"
        )
        names = pl.concat_list(pl.col("names", "unknown").fill_null([])).list.unique(maintain_order=True)
        wanted = wanted.with_columns(unknown=names).drop("names")
        touched = wanted["limits"].is_not_null()
        for plan, rows in ((self.plan, wanted.filter(touched)), (self.free, wanted.filter(~touched))):
            if rows.height:  # where limits are known to let a call through, their inputs are not asked for
                self._decide(plan, rows)
        self._certify(run, refused)
        if refused.height:
            self.redecided += refused.height - len(run.examples)
            self._take(refused)

    def _certify(self, run: Run, worded: pl.DataFrame) -> None:
        """Hold the pass, and what was worded, to what the engine says of the rows it refused."""
        said = self.patch.filter(pl.col("row").is_in(list(run.examples))).sort("row")
        ours = worded.join(said, on="row", how="semi").sort("row")
        told = [name for name in RESULT if name not in ("engine", "handed_over")]
        differs = said.select(
            pl.any_horizontal(said[name].ne_missing(ours[name]) for name in told)
        ).to_series()
        if differs.any():
            self._mismatch(int(differs.sum()), int(said.filter(differs)["row"][0]))
        refused = [row for row, each in run.told.items() if each.refused]
        found = self.narrow[refused].with_columns(row=pl.Series(refused, dtype=pl.UInt32))
        other = found.filter((pl.col("status") == "decided") & (pl.col("verdict") != "block"))
        if other.height:
            self._mismatch(other.height, int(other["row"][0]))

    def _mismatch(self, rows: int, first: int) -> NoReturn:
        row = self.log.rows.row(first, named=True)
        raise OracleMismatch(
            f"a simulated limit refuses {rows:,} calls of which the engine says otherwise, the first at "
            f"{row['writer']} position {row['position']}; this is an error of `workbench.closed_loop`: report it",
            case=f"{row['writer']} {row['position']}",
        )

    # -- rows that hang on other rows ------------------------------------------------------------------------------

    def _referring(self, run: Run) -> None:
        """Repeats that are first now, first calls that are repeats now, and rows that hang on one that is unsure."""
        fresh = self._effects(run.fresh, lambda verdict: verdict in ("allow", "modify"))
        repeats = self._effects(run.repeats, lambda _: False)
        for found in (fresh, repeats, self._conflicts(run)):
            if found is not None:
                self._take(found)
        rows = sorted(set(run.unsure))
        if rows:
            found = self._current(rows)
            nothing = [
                pl.lit(None, dtype=FRAME[name]).alias(name)
                for name in RESULT
                if name not in ("status", "cause", "missing", "effect", "engine", "handed_over")
            ]
            named = pl.lit(["what became of the decision it refers to"], dtype=_NAMES)
            self._take(
                found.with_columns(
                    *nothing,
                    status=pl.lit("undecided"),
                    effect=pl.lit("undecided"),
                    cause=pl.lit(STATE_UNKNOWN),
                    missing=named,
                ).select("row", *RESULT)
            )

    def _conflicts(self, run: Run) -> pl.DataFrame | None:
        """Calls that another under their key refuses now."""
        if not run.conflicts:
            return None
        ids = self.frame.select("decision_id").collect()["decision_id"]
        rows = sorted(run.conflicts)
        codes = [run.conflicts[row][0] for row in rows]
        said = [
            REASONS[code].format(ids[run.conflicts[row][1]]) for code, row in zip(codes, rows, strict=True)
        ]
        found = self._current(rows)
        block = pl.lit("block")
        effect = once_each(found, ("then",), lambda then: EFFECTS[then, "does_not_run"])
        return found.with_columns(
            pl.lit([], dtype=_NAMES).alias("determining"),
            pl.lit([], dtype=FRAME["errors"]).alias("errors"),
            pl.lit([], dtype=_NAMES).alias("missing"),
            pl.lit(None, dtype=pl.String).alias("enforced_args"),
            pl.lit(None, dtype=pl.String).alias("cause"),
            pl.Series("reason_code", codes),
            pl.Series("reason", said),
            status=pl.lit("decided"),
            verdict=block,
            decided_by=pl.lit("request"),
            effect=effect,
            verdict_changed=pl.Series(
                self.frame.select("recorded_verdict").collect()["recorded_verdict"].gather(found["row"])
                != "block"
            ),
        ).select("row", *RESULT)

    def _effects(self, rows: list[int], runs: Callable[[str], bool]) -> pl.DataFrame | None:
        """Rows with the effect they have if they run now, or do not, whatever their kind."""
        if not rows:
            return None
        found = self._current(sorted(rows))
        same = (found["enforced_args"] == self.log.rows["enforced_args"].gather(found["row"])).fill_null(
            value=False
        )

        def effect(then: str, verdict: str | None, same_action: bool) -> str:  # noqa: FBT001 - a column's value
            if verdict is None:
                return "undecided"
            if not runs(verdict):
                now = "waits" if verdict == "approve" and runs is not _never else "does_not_run"
            else:
                now = "same_action" if same_action else "another_action"
            return EFFECTS[then, now]  # type: ignore[index]  # both are of the closed vocabularies

        keys = found.with_columns(same=same)
        return found.with_columns(effect=once_each(keys, ("then", "verdict", "same"), effect)).select(
            "row", *RESULT
        )

    def _current(self, rows: list[int]) -> pl.DataFrame:
        """Rows of the replay as they stand, with `row` and `then`."""
        wanted = pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})
        first = (
            self.frame.with_row_index("row")
            .join(wanted.lazy(), on="row", how="semi")
            .collect(engine="streaming")
        )
        base = first.select("row", "then", *RESULT).sort("row")
        told = self.patch.join(wanted, on="row", how="semi").join(base.select("row", "then"), on="row")
        rest = base.join(told, on="row", how="anti")
        return pl.concat([rest, told.select(rest.columns)]).sort("row")

    # -- the result ------------------------------------------------------------------------------------------------

    def _state(self, run: Run, told: pl.DataFrame, passes: int) -> State:
        runs = told["runs"]
        as_then = told["known"] | (told["heir"] >= 0)
        return State(
            approvals=self.approvals,
            passes=passes,
            redecided=self.redecided,
            limited=sum(each.refused for each in run.told.values()) + sum(map(len, run.refused.values())),
            assumed=int(((runs == YES) & ~as_then).sum()),
            unsure=int((runs == UNSURE).sum()),
        )

    def overlaid(self, patch: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield the replay with what was decided since, in order."""
        start = 0
        for part in self.frame.collect_batches(maintain_order=True):
            here = patch.filter(pl.col("row").is_between(start, start + part.height - 1))
            at = here["row"] - start
            start += part.height
            yield _put(part, at, here.select(RESULT)) if here.height else part


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Have no garbage looked for meanwhile: a pass makes millions of small values, and no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _reads_any() -> pl.Expr:
    return ((pl.col("reads").list.len() > 0) | (pl.col("others").list.len() > 0)).any()


def _never(_: str) -> bool:
    return False


def _put(frame: pl.DataFrame, at: pl.Series, values: pl.DataFrame) -> pl.DataFrame:
    """A frame with other values at some places, in the columns of `values`."""
    source = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    others = pl.int_range(frame.height, frame.height + at.len(), dtype=pl.UInt32, eager=True)
    # One piece: gathering lists out of two is many times dearer.
    both = pl.concat([frame.select(values.columns), values], rechunk=True)
    return frame.with_columns(both.select(pl.all().gather(source.scatter(at, others))))


def _with_state(records: pl.DataFrame) -> pl.DataFrame:
    """Records with the state they are to be decided over."""
    return records.with_columns(
        rewritten(records["session_state"], records.select(_LOWS)).alias("session_state"),
        inputs_with(records[INPUTS], records["limits"]).alias(INPUTS),
        approvals_refused(records["approval"], records["code"]).alias("approval"),
    )


__all__ = ["RESULT", "Found", "Loop"]
