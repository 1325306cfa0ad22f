"""Rows of one tool, typed: what the stages before policy make of them is settled, and policies are asked again.

One rule: nothing here hangs on a candidate's policies. What limits refuse and what columns do not hold of a row is
found once, because a candidate decides over recorded facts and counters, under recorded limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from runtime.record import request_of
from workbench.columnar.policies import Policies
from workbench.history.deciding import DecidedPart as Deciding
from workbench.history.deciding import bound_names
from workbench.history.deciding import present_facts as present
from workbench.history.groups import PolicyGroup
from workbench.history.groups import compiled_part as compiled
from workbench.history.holding import Holding
from workbench.history.limiting import limited
from workbench.live.evaluating import FAILS, Evaluator
from workbench.live.said import Said
from workbench.recorded import missing_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from runtime.entities import EntityUid
    from runtime.facts import CompiledContext
    from runtime.request import Request
    from workbench.columnar.json_leaves import Leaves
    from workbench.history.chunk import Chunk, Part
    from workbench.history.contexts import Contexts
    from workbench.history.groups import Compiled
    from workbench.live.evaluating import Evaluated
    from workbench.live.keeping import Kept

    Rows = NDArray[np.intp]

_NO_POLICIES = Policies((), frozenset(), frozenset(), whole_context=False)


class Kind(NamedTuple):
    """Rows whose records ask for the same facts: what a candidate may miss is the same for all of them."""

    context: CompiledContext
    request: Request
    resource: EntityUid
    """All three of one of the rows."""


class Span(NamedTuple):
    """Decisions of a chunk, as their self-replay left them."""

    open: NDArray[np.bool_]
    """Which of them policies may be asked about in columns."""
    keys: NDArray[np.int32]
    """Key of each."""
    start: int
    """Row of the first in the history."""


@dataclass(slots=True)
class Settled:
    """Rows that no policy is asked about, and rows left to Cedar; as rows of the history."""

    said: list[tuple[Said, Rows]] = field(default_factory=list)
    left: dict[str, list[Rows]] = field(default_factory=dict)
    """By reason."""

    def leave(self, why: str, rows: Rows) -> None:
        """Leave rows to Cedar."""
        if len(rows):
            self.left.setdefault(why, []).append(rows)


@dataclass(slots=True)
class LivePart:
    """Rows of one tool and the same types, of one recorded bundle, that policies decide in columns."""

    number: int
    part: Part
    chunk: Chunk
    own: Bundle
    bare: Compiled
    """No policy, compiled: the variables that patches refer to."""
    rows: Rows
    """Rows of the history, ascending."""
    keys: NDArray[np.int32]
    """Key of each."""
    recorded: pl.Series
    """String: arguments that were enforced then; null: none."""
    same: NDArray[np.bool_]
    """Whether those were the arguments as they came."""
    kinds: tuple[Kind, ...]
    kind: NDArray[np.uint32]
    """Of each row."""
    bound: frozenset[str]
    room: Mapping[str, pl.Series]
    evaluator: Evaluator
    known: bool = False
    """Whatever a context does not hold is absent, not missing: contexts were compiled again."""

    @property
    def tool(self) -> str:
        """Tool of all rows."""
        return self.part.key.tool

    @property
    def height(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def frame(self) -> pl.DataFrame:
        """What kernels read, a row a row."""
        return self.part.frame

    def group(self, rows: Rows, bundle: Bundle) -> Changing:
        """Some of the rows, for a bundle's patches to be applied to."""
        where = pl.Series(rows, dtype=pl.UInt32)
        return Changing(replace(self.bare, bundle=bundle), self.chunk, where, (), self.bound, self.room)

    def missing(self, bundle: Bundle) -> tuple[tuple[str, ...], ...]:
        """What a candidate may read and the record did not ask for, by kind of rows."""
        if self.known or bundle.policy_hash == self.own.policy_hash:
            return ((),) * len(self.kinds)
        return tuple(missing_names(*kind, bundle) for kind in self.kinds)


class Changing(PolicyGroup):
    """Rows whose arguments patches change."""

    __slots__ = ()

    def changed(self, rows: pl.Series, leaves: Leaves) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The columns with new arguments, and rows (`row`, `reason`) that are refused; see `PolicyGroup.again`."""
        return self._again(rows, leaves)


def live_part(
    part: Part,
    chunk: Chunk,
    contexts: Contexts,
    bundle: Bundle,
    own: Bundle,
    span: Span,
    number: int,
    kept: Kept[Evaluated],
) -> tuple[LivePart | None, Settled]:
    """Take the rows of a part through the stages before policy.

    Args:
        part: typed, of `chunk`.
        chunk: what it refers to.
        contexts: of the lake.
        bundle: of the schema it is typed by, with the recorded spec and limits.
        own: the recorded bundle.
        span: the decisions of the chunk.
        number: names the part.
        kept: what is evaluated is kept there.

    Returns:
        The rows that policies decide (None: there are none), and the others of the span that are open.
    """
    rows = part.rows["row"].to_numpy().astype(np.intp)
    alive, settled = span.open[rows], Settled()
    try:
        bare = compiled(part, chunk, bundle, _NO_POLICIES)
    except FAILS as exc:
        settled.leave(f"{type(exc).__name__}: {str(exc)[:200]}", rows[alive] + span.start)
        return None, settled
    found = limited(part, bundle.limits)
    stages = _Stages(part, chunk, contexts, bundle, own=True)
    whys = (part.holding.why, stages.stale, bare.holding.why, found.why)
    frame = pl.DataFrame([each.alias(str(place)) for place, each in enumerate(whys)])
    told = frame.select(why=pl.coalesce(pl.all())).with_columns(code=found.refused["reason_code"])
    free = alive & told.select(pl.col("why").is_null() & pl.col("code").is_null()).to_series().to_numpy()
    _settle(settled, told, rows + span.start, alive & ~free)
    if not free.any():
        return None, settled
    at = np.flatnonzero(free)
    slim = _slim(part, at)
    where = pl.Series(at, dtype=pl.UInt32)
    kind, kinds = stages.kinds(where)
    recorded = part.rows["enforced_args"].gather(where)
    less = replace(chunk, parts=[], origins={}, held=chunk.held.clear())
    made = LivePart(
        number=number, part=slim, chunk=less, own=own,
        bare=replace(bare, part=slim, holding=Holding(0)),
        rows=rows[at] + span.start, keys=span.keys[rows[at]], recorded=recorded,
        same=slim.rows["args"].eq_missing(recorded).to_numpy(), kinds=kinds, kind=kind,
        bound=bound_names(part, bundle), room={name: each.gather(where) for name, each in found.room.items()},
        evaluator=Evaluator(slim, less, bundle, kept, number),
    )  # fmt: skip
    return made, settled


def _settle(settled: Settled, told: pl.DataFrame, rows: Rows, where: NDArray[np.bool_]) -> None:
    """Rows that are refused by limits, and rows that columns do not hold."""
    rest = told.with_columns(row=pl.Series(rows)).filter(pl.Series(where))
    for (why, code), mine in rest.partition_by("why", "code", as_dict=True).items():
        found = mine["row"].to_numpy()
        if why is not None:
            settled.leave(str(why), found)
        else:
            settled.said.append((Said("decided", "block", "limits", str(code)), found))


def _slim(part: Part, at: Rows) -> Part:
    """Some rows of a part, without what was needed to settle them."""
    whole = len(at) == part.rows.height
    rows = part.rows.select("args")
    where = pl.Series(at, dtype=pl.UInt32)
    return replace(
        part,
        rows=rows if whole else rows[where],
        frame=part.frame if whole else part.frame[where],
        leaves=part.leaves if whole else part.leaves.take(where),
        args=replace(part.args, columns=part.args.columns.clear()),
        session=replace(part.session, columns=part.session.columns.clear()),
        holding=Holding(len(at)),
    )


class _Stages(Deciding):
    """The stages before policy, over one part."""

    __slots__ = ()

    @property
    def stale(self) -> pl.Series:
        """Why the context stage may refuse, by row."""
        return self._stale()

    def kinds(self, where: pl.Series) -> tuple[NDArray[np.uint32], tuple[Kind, ...]]:
        """The kind of each of some rows, and the kinds: by what their records ask for, and the counters they have."""
        session, height = self.part.session, self.part.rows.height
        there = [
            session.columns.select(present(layout).alias(name)).to_series()
            for name, layout in session.layouts.items()
        ]
        whole = [each if each.len() == height else each.new_from_index(0, height) for each in there]
        frame = pl.DataFrame([self.part.rows["shape"], *whole])[where]
        distinct = frame.unique(maintain_order=True).with_row_index("kind")
        keys = [pl.col(name) for name in frame.columns]
        kind = frame.join(distinct, on=keys, how="left", nulls_equal=True, maintain_order="left")["kind"]
        first = (
            pl.DataFrame({"kind": kind, "at": where}).group_by("kind").agg(pl.col("at").min()).sort("kind")
        )
        return kind.to_numpy(), tuple(self._kind(row) for row in first["at"])

    def _kind(self, row: int) -> Kind:
        record = self.part.rows.row(row, named=True)
        request = request_of({**record, "stage_inputs": "{}"})  # limits play no part
        return Kind(self.contexts.example(record["shape"]), request, request.resource.resolve(request.args))
