"""Coverage of a lake: what its decisions exercised of policies, contexts and values.

One rule: nothing leaves the denominator. Every table sums to the decisions it is about, and the headline says how
many of them no clause was evaluated for, and why.

All numbers are exact on this log. A side that is not covered says that nobody went there, not that it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from workbench.asked import asked_of
from workbench.covering import frames
from workbench.covering.documents import document, lcov
from workbench.covering.faces import page_of
from workbench.covering.gap import CoverageGap
from workbench.covering.html import html_of
from workbench.covering.lines import files_of
from workbench.covering.scanning import Scan
from workbench.covering.views import Views
from workbench.errors import ColumnUnknown, NotComparable
from workbench.faces import Faces, written
from workbench.history.caching import contexts_of
from workbench.history.limiting import INPUTS, needs_inputs
from workbench.history.records import ADDRESSES, NEEDED, STATUS, Records
from workbench.masking import leaving
from workbench.progress import progress
from workbench.redeciding import Plan, chosen_engine, in_columns
from workbench.redeciding import columnar_run as columnar
from workbench.redeciding import replayed_by_rows as by_rows
from workbench.replay import RECORDED
from workbench.rows import RowEngine
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from os import PathLike
    from pathlib import Path

    import polars as pl

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.covering.counts import Counts
    from workbench.covering.lines import File
    from workbench.faces import Page
    from workbench.lake import Lake
    from workbench.redeciding import EngineName


def coverage(
    lake: Lake,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    engine: EngineName = "auto",
    where: pl.Expr | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Coverage:
    """Count what the decisions of a lake exercise.

    Args:
        lake: the pinned lake.
        policy: whose policies: a bundle folder, a bundle, or a version the lake holds; None: each decision's own.
        context: `recorded`, or whose spec to compile the facts again by.
        limits: whose limits hold; None: as recorded.
        sources: locations of sources by name; as `Lake.replay`.
        versions: versions of sources to compile facts at; as `Lake.replay`.
        at: compile facts as they were at this time.
        engine: `auto` counts in columns, and asks Cedar for rows that columns do not take; `columnar` leaves those
            as handed over; `rows` asks Cedar for every row.
        where: which decisions to count, over those columns of `lake.decisions` that a replay reads; None: all.
        on_rows: told how many decisions were counted, now and then; None: a progress bar, where somebody may look.

    Raises:
        BundleError, BundleNotFound, ReplayFailure: as `Lake.replay`.
        ColumnUnknown: `where` names a column that is not read.

    Cost: about 1.5 times a replay of the lake under the same axes; memory O(chunk) and what is counted.
    """
    asked = asked_of(lake, policy, context=context, limits=limits, sources=sources, versions=versions, at=at)
    rows = RowEngine()
    verify = asked.verifier(lake) if asked.again else None
    plan = Plan(lake, rows, asked.policy, asked.limits, asked.recompiler(lake), verify)
    total = Records(lake).count()
    inputs = (INPUTS,) if needs_inputs(lake, [asked.limits]) else ()
    more = inputs if verify is None else (*ADDRESSES, *inputs)
    _require(where, (*NEEDED, *more, STATUS))
    chosen = chosen_engine(engine, total)
    with progress(total, "counting what was exercised", on_rows) as advance:
        run = columnar(plan, strict=False) if in_columns(chosen) else None
        scan = Scan(
            lake,
            plan,
            partial(by_rows, plan) if run is None else run.chunk,
            contexts_of(lake) if run is None else run.contexts,
            by_rows=engine == "rows",
            strict=engine == "columnar",
            where=where,
            more=more,
        )
        counts = scan.run(advance)
    pins = {name: str(end) for name, end in sorted(lake.pins.ledgers.items())}
    bundles = (
        scan.bundles if asked.policy is None else {asked.policy.policy_hash: asked.policy} | scan.bundles
    )
    return Coverage(counts, bundles, asked.labels[0], asked.labels[1], shown(lake.uri), pins)


def _require(where: pl.Expr | None, known: Sequence[str]) -> None:
    for name in [] if where is None else where.meta.root_names():
        if name not in known:
            raise ColumnUnknown(name, known, "what a replay reads of `decisions`")


@dataclass(frozen=True, eq=False, repr=False)
class Coverage(Faces):
    """What decisions exercised. Made by `coverage`; every table is a LazyFrame."""

    counts: Counts
    """What was counted; `a.counts + b.counts` is what both hold."""
    bundles: Mapping[str, Bundle]
    """Whose policies were asked, by policy hash."""
    policy: tuple[str, str]
    """Name and version of the policies; `("as recorded", "recorded")`: each decision's own."""
    context: str
    """`recorded`, or which spec the contexts were compiled again with."""
    lake: str
    """Where the decisions are."""
    ledgers: Mapping[str, str] = field(default_factory=dict)
    """Last position of each ledger that was counted."""

    @cached_property
    def views(self) -> Views:
        """The counts, read as clauses, policies and boundaries."""
        return Views(self.counts, self.bundles)

    @cached_property
    def files(self) -> tuple[File, ...]:
        """The policy files, line by line."""
        return files_of(self.views)

    @property
    def clauses(self) -> pl.LazyFrame:
        """One row a clause; see `workbench.covering.frames.clauses`."""
        return frames.clauses(self.views)

    @property
    def policies(self) -> pl.LazyFrame:
        """One row a policy."""
        return frames.policies(self.views)

    @property
    def boundaries(self) -> pl.LazyFrame:
        """One row a literal that a policy compares with, and how many decisions were on each side of it."""
        return frames.boundaries(self.views)

    @property
    def tools(self) -> pl.LazyFrame:
        """One row a tool, those never called among them."""
        return frames.tools(self.views)

    @property
    def stages(self) -> pl.LazyFrame:
        """One row a way decisions ended."""
        return frames.stages(self.views)

    @property
    def contexts(self) -> pl.LazyFrame:
        """One row a shape of context that occurred."""
        return frames.contexts(self.views)

    @property
    def facts(self) -> pl.LazyFrame:
        """One row a tool, fact and status, those that never occurred among them."""
        return frames.facts(self.views)

    @property
    def arguments(self) -> pl.LazyFrame:
        """One row a set of optional arguments that was given."""
        return frames.arguments(self.views)

    @property
    def optional(self) -> pl.LazyFrame:
        """One row an optional argument: how often it was given and omitted."""
        return frames.optional(self.views)

    @property
    def ranges(self) -> pl.LazyFrame:
        """One row a tool and path: how values lie; see `workbench.covering.frames.ranges`."""
        return frames.ranges(self.views)

    def __add__(self, other: Coverage) -> Coverage:
        """Return the coverage of both, which must have no decision in common."""
        same = self.policy == other.policy and self.context == other.context
        policy = self.policy if same else ("several", f"{self.policy[1]:.13}, {other.policy[1]:.13}")
        lake = self.lake if self.lake == other.lake else f"{self.lake} and {other.lake}"
        bundles = {**self.bundles, **other.bundles}
        ledgers = {**self.ledgers, **other.ledgers}
        return Coverage(self.counts + other.counts, bundles, policy, self.context, lake, ledgers)

    def against(self, other: Coverage) -> CoverageGap:
        """Return what this exercises that `other` does not.

        Args:
            other: of what was tested, such as an evaluation set; this is of production.

        Raises:
            NotComparable: it is no coverage.
        """
        if not isinstance(other, Coverage):
            raise NotComparable(
                f"coverage is compared with coverage, not with a {type(other).__name__}; give `wb.coverage(lake)`"
            )
        return CoverageGap.of(self, other)

    def page(self) -> Page:
        """What it says, for all faces."""
        return page_of(self)

    def to_html(self, path: str | Path) -> Path:
        """Write a page with the policies' lines coloured; no scripts, no network. Returns the path."""
        return written(html_of(self), path)

    def lcov(self, root: str = "") -> str:
        """Return an LCOV tracefile; see `workbench.covering.documents`.

        Args:
            root: folder of the bundle's files, as whoever reads the tracefile finds them.
        """
        return leaving(lcov(self.files, root))

    def as_dict(self) -> Mapping[str, Json]:
        """Return all of it as JSON, in the manner of LCOV.

        Returns:
            `format`, `version`; `lake`, `policy`, `policy_version`, `context`, `ledgers`; `decisions` (`total`, by
            `status`, and `clauses`: by whether clauses were evaluated); `totals` (clauses, branches and branches
            hit); `files`, each with `lines` (`line`, `hits`, `state`: both, one, unknown or never); and the tables of
            this class, each a list of rows under its name.
        """
        names = (
            "policies", "clauses", "boundaries", "tools", "stages", "contexts", "facts", "arguments", "optional",
            "ranges",
        )  # fmt: skip
        found: dict[str, Any] = document(
            self.views, self.files, {name: getattr(self, name) for name in names}
        )
        head: dict[str, Json] = {
            "lake": self.lake,
            "policy": self.policy[0],
            "policy_version": self.policy[1],
            "context": self.context,
            "ledgers": dict(self.ledgers),
        }
        return dict(leaving({**found, **head}))  # type: ignore[arg-type]  # what was JSON stays JSON
