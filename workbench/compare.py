"""Compare two replays of the same decisions: every number, once.

One rule: nothing leaves the denominator silently. Whatever the two replays say of a decision, it is one cell of
the transition matrix, one effect and one status; undecided and quarantined rows are cells like any other.

What the numbers are called and count stands in `workbench.metrics`; this module makes the rows they count.

Trade-off accepted: the columns that counts are made of are collected once and kept (about 300 bytes a decision);
arguments and reasons stay in the replay and are joined in, lazily, for the rows that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from workbench.diff_rows import NARROW, WHY, WIDE, rows_of
from workbench.effects import ALL_EFFECTS
from workbench.errors import ColumnUnknown, NotComparable
from workbench.estimating.gates_file import read as read_gates
from workbench.metrics import METRICS, SESSION, SIDES, STOPS, counts, side_is
from workbench.narrowing import require_same
from workbench.splitting import SESSION as SESSION_KEY
from workbench.splitting import clusters, names_of
from workbench.weighing.stakes import Stakes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from workbench.comparing.view import CompareView
    from workbench.diverging import Divergence
    from workbench.estimating.estimates import Estimates
    from workbench.estimating.gates import Outcome
    from workbench.estimating.gates_file import Gate
    from workbench.estimating.gates_file import Given as GatesGiven
    from workbench.explaining.why import Why
    from workbench.weighing.simulators import Simulated
    from workbench.weighing.worth import Worth

    StakesGiven = Stakes | Mapping[str, Any] | str | PathLike[str] | None


class LakeLike(Protocol):
    """What a comparison reads of the lake."""

    @property
    def uri(self) -> str:
        """Path or address."""

    @property
    def labels(self) -> pl.LazyFrame:
        """The labels in force: `tenant`, `session_id`, `decision_id`, `label`, `value`."""


class Replayed(Protocol):
    """What a comparison reads of a replay: one row a recorded decision, already decided again."""

    @property
    def id(self) -> str:
        """Names the replay."""

    @property
    def lake(self) -> LakeLike:
        """The lake it was made from."""

    @property
    def pins(self) -> Mapping[str, object]:
        """What was pinned; `ledgers` names the decisions."""

    @property
    def policy(self) -> tuple[str, str]:
        """Name and version of the bundle; for a self-replay, of what was recorded."""

    @property
    def context(self) -> str:
        """Which contexts: `recorded`, or how they were compiled again."""

    @property
    def frame(self) -> pl.LazyFrame:
        """The rows. Reading some columns must be cheap: the replay is not run again."""


def compare(
    base: Replayed,
    cand: Replayed,
    *,
    stakes: StakesGiven = None,
    gates: GatesGiven | None = None,
    cluster: Sequence[str] = SESSION_KEY,
    level: float = 0.95,
) -> Diff:
    """Compare `cand` with `base`, decision by decision.

    Args:
        base: what to compare with; usually `lake.replay()`, the self-replay.
        cand: the candidate, a replay of the same decisions.
        stakes: what is harm, good work and money: a mapping or TOML file, see `wb.Stakes`; None: label `origin` says
            it.
        gates: what the candidate must keep to be shipped: a mapping or TOML file, see
            `workbench.estimating.gates_file.Gate`.
        cluster: what is independent of each other: columns, or names of labels on sessions. The session, or wider.
        level: of intervals, between 0 and 1.

    Returns:
        The comparison. Nothing is read yet; the first number collects once, O(decisions).

    Raises:
        NotComparable: the two replays pin other ledgers or positions, or one is no replay.
        ColumnUnknown: a replay's frame lacks a column.
        StakesInvalid, GatesInvalid: they cannot be used; names file and key.
    """
    for side, given in (("base", base), ("candidate", cand)):
        if not hasattr(given, "frame"):
            kind = type(given).__name__
            raise NotComparable(f"the {side} is no replay but a {kind}; `lake.replay()` makes one")
    left, right = base.pins.get("ledgers"), cand.pins.get("ledgers")
    if left != right:
        raise NotComparable(
            f"the replays cover different decisions: base pins {left!r}, candidate pins {right!r}; "
            "make both from one `lake`"
        )
    require_same(base.pins, cand.pins)
    _require(cand, (*NARROW, *WIDE, *WHY, "verdict", "effect"), "the candidate replay")
    _require(base, ("decision_id", *WHY, "verdict", "effect", "determining"), "the base replay")
    asked = () if gates is None else read_gates(gates)
    return Diff(base, cand, Stakes.of(stakes), asked, names_of(cluster), level)


def _require(replay: Replayed, columns: Sequence[str], where: str) -> None:
    known = replay.frame.collect_schema().names()
    for name in columns:
        if name not in known:
            raise ColumnUnknown(name, known, where)


@dataclass(frozen=True, eq=False, repr=False)
class Diff:
    """Two replays of the same decisions, side by side. Made by `compare`; every table is a LazyFrame.

    Collected on first use, once: O(decisions), about 300 bytes each. Everything after that is cheap.
    """

    base: Replayed
    cand: Replayed
    stakes: Stakes = field(default_factory=lambda: Stakes.of(None))
    """What is harm, good work and money."""
    gates: tuple[Gate, ...] = ()
    """What the candidate must keep."""
    cluster: tuple[str, ...] = SESSION_KEY
    """What is independent of each other."""
    level: float = 0.95
    """Of intervals."""
    simulated: Simulated | None = None
    """What simulators said of actions that never ran."""

    @property
    def frame(self) -> pl.LazyFrame:
        """All decisions, one row each, in the log's order.

        Columns: `decision_id`, `tenant`, `session_id`, `step`, `principal`, `tool`, `kind`, `decided_at`,
        `recorded_verdict`; `from` and `to` (what base and candidate say, Enum of `STATES`); `status` (Enum
        `decided | undecided | quarantined`: the worse of the two), `cause`, `missing`; `then`, `effect` (the
        candidate's, Enum), `base_effect`; `changed` (Bool: decided under both, and another verdict or effect),
        `verdict_changed` (Bool, from base to candidate, null unless decided under both); `determining`,
        `base_determining`, `decided_by`, `reason_code` (the candidate's); the labels `origin` and `scenario` (null:
        unlabelled), `side` (Enum `attack | honest | unlabelled`).
        """
        return self._rows.lazy()

    @property
    def changed(self) -> pl.LazyFrame:
        """Decisions that change, decided under both; one row each.

        Columns of `frame`, and `resource`, `args`, `enforced_args` (what the candidate would run; null: nothing),
        `reason`, `errors`.
        """
        return self.rows(pl.col("changed"))

    @property
    def unresolved(self) -> pl.LazyFrame:
        """Decisions that either replay could not decide, with `cause` and `missing`; columns as in `changed`."""
        return self.rows(pl.col("status") != "decided")

    def rows(self, where: pl.Expr) -> pl.LazyFrame:
        """Return the decisions for which `where` holds, with arguments and reasons, in the log's order.

        Args:
            where: over the columns of `frame`.
        """
        return pl.concat([self.frame, self.cand.frame.select(WIDE)], how="horizontal").filter(where)

    @property
    def transitions(self) -> pl.LazyFrame:
        """The matrix: one row for each (`from`, `to`) that occurs, `n` decisions; sums to all."""
        return self.frame.group_by("from", "to").agg(n=pl.len()).sort("from", "to")

    @property
    def effects(self) -> pl.LazyFrame:
        """One row for each effect: `n` decisions, and of them `attack`, `honest`, `unlabelled`; sums to all."""
        sides = [pl.col("side").eq(side).sum().alias(side) for side in SIDES]
        every = pl.LazyFrame({"effect": pl.Series(ALL_EFFECTS, dtype=pl.Enum(ALL_EFFECTS))})
        counted = self.frame.group_by("effect").agg(pl.len().alias("n"), *sides)
        return every.join(counted, on="effect", how="left", maintain_order="left").with_columns(
            pl.col("n", *SIDES).fill_null(0)
        )

    @property
    def causes(self) -> pl.LazyFrame:
        """Why decisions are unresolved: `status`, `cause`, `missing` (list, sorted), `n`; most frequent first."""
        rows = self.frame.filter(pl.col("status") != "decided").with_columns(pl.col("missing").list.sort())
        keys = ("status", "cause", "missing")
        return rows.group_by(keys).agg(n=pl.len()).sort("n", *keys[:2], descending=[True, False, False])

    @property
    def policies(self) -> pl.LazyFrame:
        """Which policies stop calls that ran.

        Returns:
            One row for each (`policy`, `verdict`): `attack_calls_stopped`, `honest_calls_disturbed`,
            `unlabelled_calls_stopped`, and `alone`, the calls no other policy stops too. A call that two policies
            stop counts for each. Where no policy determined it, `policy` is the stage and its reason in
            parentheses, as `(policy: not_permitted)`.
        """
        nobody = pl.format("({}: {})", "decided_by", "reason_code")
        named = (
            pl.when(pl.col("determining").list.len() > 0)
            .then("determining")
            .otherwise(pl.concat_list(nobody))
        )
        counts = [(side_is(side) & STOPS).sum().alias(f"{side}_calls_{verb}") for side, verb in SIDES.items()]
        return (
            self.frame.filter(STOPS)
            .select("side", "then", "effect", policy=named, verdict="to", alone=named.list.len() == 1)
            .explode("policy")
            .group_by("policy", "verdict")
            .agg(*counts, pl.col("alone").sum())
            .sort("attack_calls_stopped", "honest_calls_disturbed", "policy", "verdict",
                  descending=[True, True, False, False])
        )  # fmt: skip

    @property
    def tenants(self) -> pl.LazyFrame:
        """One row a tenant, sorted: `METRICS` without the shares."""
        return self.by("tenant")

    @property
    def sessions(self) -> pl.LazyFrame:
        """One row for each (`tenant`, `session_id`), sorted: its kind and counts; `sessions_…` are 0 or 1."""
        return self.by("tenant", "session_id")

    @cached_property
    def labels(self) -> pl.LazyFrame:
        """The labels in force, as the lake has them; read once."""
        return self.cand.lake.labels.collect().lazy()

    def by(self, *columns: str) -> pl.LazyFrame:
        """Break the numbers down.

        Args:
            columns: of `frame`; none gives one row, of all.

        Returns:
            One row for each combination, sorted: the columns, then `METRICS` without the shares (UInt32). A
            session with decisions in several rows counts in each, by the calls it has there.

        Raises:
            ColumnUnknown: naming the closest.
        """
        known = self._rows.columns
        for name in columns:
            if name not in known:
                raise ColumnUnknown(name, known, "the comparison")
        calls, sessions = counts("decision"), counts("session")
        cells = list(dict.fromkeys((*columns, "tenant", "session_id")))
        each = self.frame.group_by(cells).agg(**calls, **SESSION).with_columns(**sessions)
        sums = [pl.col(metric.name).sum().cast(pl.Int64) for metric in METRICS if metric.count is not None]
        return each.group_by(columns).agg(sums).sort(columns) if columns else each.select(sums)

    def summary(self) -> dict[str, int | float]:
        """Return every number of `METRICS` by name, as plain numbers; a share of nothing is left out."""
        return dict(self._summary)

    @property
    def exact(self) -> dict[str, bool]:
        """For each name of `summary()`: whether it is exact on this log (all are; estimates come with intervals)."""
        return {metric.name: metric.exact for metric in METRICS if metric.name in self._summary}

    @cached_property
    def worth(self) -> Worth:
        """What the change is worth on this log: harm, good work, approvals, money, each between bounds."""
        from workbench.weighing.worth import worth  # noqa: PLC0415 - it imports us

        return worth(self, self.stakes, self.simulated)

    @cached_property
    def estimates(self) -> Estimates:
        """What that says of future traffic: every quantity with its interval, over clusters. O(decisions), once."""
        from workbench.estimating.estimates import estimates  # noqa: PLC0415 - it imports us

        given: Any = self.cluster
        columns = [name for name in given if name in self._rows.columns]
        if len(columns) < len(given):  # labels of sessions
            sessions = self._rows.select(*dict.fromkeys((*SESSION_KEY, *columns))).unique(maintain_order=True)
            given = sessions.select(*SESSION_KEY, clusters(sessions, self.labels, self.cluster))
        found = estimates(self, stakes=self.stakes, simulated=self.simulated, cluster=given, level=self.level)
        return found if given is self.cluster else replace(found, cluster="by " + ", ".join(self.cluster))

    @cached_property
    def outcome(self) -> Outcome | None:
        """Ship, don't ship or inconclusive, by the declared gates; None: none are declared."""
        from workbench.estimating.gates import decide  # noqa: PLC0415 - it imports us

        return decide(self.estimates, self.gates) if self.gates else None

    @property
    def verdict(self) -> str | None:
        """`ship`, `don't ship` or `inconclusive`; None: no gates are declared."""
        return None if self.outcome is None else self.outcome.verdict

    def metrics(self) -> dict[str, float]:
        """Return what the change is worth and how sure that is, by name; see `workbench.certainty.metrics`."""
        from workbench.certainty import metrics  # noqa: PLC0415 - it imports us

        return metrics(self)

    @cached_property
    def divergence(self) -> Divergence:
        """Which decisions are exact on this log, and which come after something that changes.

        Raises:
            NotComparable: the comparison was not made from a lake.
        """
        from workbench.diverging import divergence  # noqa: PLC0415 - it imports us

        return divergence(self)

    def why(self, decision_id: str) -> Why:
        """Explain one decision under both versions: the clause that flipped, with the values it saw.

        Args:
            decision_id: its id, or enough of its first characters.

        Raises:
            DecisionNotFound: none, or several; names ids that are near.
        """
        from workbench.explaining.why import why  # noqa: PLC0415 - it imports us

        return why(self, decision_id)

    def view(self, *others: Diff) -> CompareView:
        """Look at it in a notebook; see `wb.compare_view`."""
        from workbench.comparing.view import compare_view  # noqa: PLC0415 - it imports us

        return compare_view(self, *others)

    def with_simulated(self, simulated: Simulated) -> Diff:
        """Return the same comparison with what simulators said (`wb.simulate(diff, …)`)."""
        found = replace(self, simulated=simulated)
        if "_rows" in self.__dict__:
            found.__dict__["_rows"] = self._rows
        return found

    @property
    def headline(self) -> str:
        """The result in words: outcomes first, then what could not be replayed, with causes."""
        from workbench.words import headline  # noqa: PLC0415 - it imports us

        return "\n".join(headline(self))

    def to_html(self, path: str | Path) -> Path:
        """Write the report: one self-contained page, no scripts, no network. Returns the path."""
        from workbench.report import write  # noqa: PLC0415 - it imports us

        return write(self, path)

    def __repr__(self) -> str:
        from workbench.words import text  # noqa: PLC0415 - it imports us

        return text(self)

    def _repr_html_(self) -> str:
        from workbench.report import notebook  # noqa: PLC0415 - it imports us

        return notebook(self)

    @cached_property
    def _rows(self) -> pl.DataFrame:
        return rows_of(self.base.frame, self.cand.frame, self.labels)

    @cached_property
    def _summary(self) -> dict[str, int | float]:
        found: dict[str, int | float] = self.by().collect().row(0, named=True)
        parts = ((metric.name, *metric.of) for metric in METRICS if metric.of)
        found |= {name: found[part] / found[whole] for name, part, whole in parts if found[whole]}
        return {metric.name: found[metric.name] for metric in METRICS if metric.name in found}
