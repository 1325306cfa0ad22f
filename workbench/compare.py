"""Compare two replays of the same decisions: every number, once.

One rule: nothing leaves the denominator silently. Whatever the two replays say of a decision, it is one cell of
the transition matrix, one effect and one status; undecided and quarantined rows are cells like any other.

What the numbers are called and count stands in `workbench.metrics`; this module makes the rows they count.

Trade-off accepted: the columns that counts are made of are collected once and kept (about 300 bytes a decision);
arguments and reasons stay in the replay and are joined in, lazily, for the rows that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import polars as pl

from workbench.effects import ALL_EFFECTS
from workbench.errors import ColumnUnknown, NotComparable
from workbench.metrics import DECIDED, METRICS, SESSION, SIDES, STATES, STOPS, UNRESOLVED, counts, side_is

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_NARROW = (
    "decision_id", "tenant", "session_id", "step", "principal", "tool", "kind", "decided_at", "recorded_verdict",
    "decided_by", "reason_code", "determining", "then",
)  # fmt: skip
_WHY = ("status", "cause", "missing")
_WIDE = ("resource", "args", "enforced_args", "reason", "errors")
"""Columns that stay in the replay until a row is looked at."""


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


def compare(base: Replayed, cand: Replayed) -> Diff:
    """Compare `cand` with `base`, decision by decision.

    Args:
        base: what to compare with; usually `lake.replay()`, the self-replay.
        cand: the candidate, a replay of the same decisions.

    Returns:
        The comparison. Nothing is read yet; the first number collects once, O(decisions).

    Raises:
        NotComparable: the two replays pin other ledgers or positions, or one is no replay.
        ColumnUnknown: a replay's frame lacks a column.
    """
    for side, given in (("base", base), ("candidate", cand)):
        if not hasattr(given, "frame"):
            raise NotComparable(
                f"the {side} is no replay but a {type(given).__name__}; `lake.replay()` makes one"
            )
    left, right = base.pins.get("ledgers"), cand.pins.get("ledgers")
    if left != right:
        raise NotComparable(
            f"the replays cover different decisions: base pins {left!r}, candidate pins {right!r}; "
            "make both from one `lake`"
        )
    _require(cand, (*_NARROW, *_WIDE, *_WHY, "verdict", "effect"), "the candidate replay")
    _require(base, ("decision_id", *_WHY, "verdict", "effect", "determining"), "the base replay")
    return Diff(base, cand)


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
        return pl.concat([self.frame, self.cand.frame.select(_WIDE)], how="horizontal").filter(where)

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

    @property
    def labels(self) -> pl.LazyFrame:
        """The labels in force, as the lake has them."""
        return self.cand.lake.labels

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
        # Side by side, not joined: equal pins give equal rows in equal order, and a join would move every list.
        base = self.base.frame.select("decision_id", _STATE.alias("from"), **_BASE).collect()
        cand = self.cand.frame.select(*_NARROW, _STATE.alias("to"), *_WHY, _EFFECT).collect()
        _require_same(base["decision_id"], cand["decision_id"])
        labels = _labels_of(cand.lazy(), self.cand.lake.labels).collect()
        rows = pl.concat([cand, base.drop("decision_id"), labels], how="horizontal").lazy()
        found = rows.with_columns(**_JOINED).with_columns(**_CHANGES)
        return found.drop("base_status", "base_cause", "base_missing").collect()

    @cached_property
    def _summary(self) -> dict[str, int | float]:
        found: dict[str, int | float] = self.by().collect().row(0, named=True)
        parts = ((metric.name, *metric.of) for metric in METRICS if metric.of)
        found |= {name: found[part] / found[whole] for name, part, whole in parts if found[whole]}
        return {metric.name: found[metric.name] for metric in METRICS if metric.name in found}


def _require_same(base: pl.Series, cand: pl.Series) -> None:
    """Refuse rows that only one of the replays has: they would leave the denominator."""
    if base.equals(cand):
        return
    only_base, only_cand = (
        (~one.is_in(other.implode())).sum() for one, other in ((base, cand), (cand, base))
    )
    raise NotComparable(
        f"the replays cover different decisions: {only_base:,} are in the base only, {only_cand:,} in the candidate "
        "only, or their order differs; replay both over all decisions of one `lake`"
    )


def _labels_of(rows: pl.LazyFrame, labels: pl.LazyFrame) -> pl.LazyFrame:
    """Give `origin` (of the decision) and `scenario` (of the session) for each row; null where nobody said."""
    text = labels.with_columns(pl.col("decision_id").cast(pl.String), pl.col("value").cast(pl.String))
    of_call = pl.col("decision_id").is_not_null()
    found = rows.select("tenant", "session_id", "decision_id")
    for name, level, key in (("origin", of_call, "decision_id"), ("scenario", ~of_call, "session_id")):
        said = text.filter(level, pl.col("label") == name).select("tenant", key, pl.col("value").alias(name))
        last = said.unique(["tenant", key], keep="last", maintain_order=True)
        found = found.join(last, on=["tenant", key], how="left", maintain_order="left")
    return found.select("origin", "scenario")


_STATE = pl.when(pl.col("status") == "decided").then("verdict").otherwise("status").cast(pl.Enum(STATES))
_EFFECT = pl.col("effect").cast(pl.Enum(ALL_EFFECTS))
_BASE = {"base_effect": _EFFECT} | {f"base_{name}": pl.col(name) for name in (*_WHY, "determining")}
_JOINED: dict[str, pl.Expr] = {
    "status": (
        pl.when(pl.any_horizontal(pl.col("status", "base_status") == "quarantined")).then(pl.lit("quarantined"))
        .when(pl.any_horizontal(pl.col("status", "base_status") == "undecided")).then(pl.lit("undecided"))
        .otherwise("status").cast(pl.Enum(("decided", *UNRESOLVED)))
    ),
    "cause": pl.coalesce("cause", "base_cause"),
    "missing": pl.when(pl.col("missing").list.len() > 0).then("missing").otherwise("base_missing"),
    "side": (
        pl.when(pl.col("origin") == "attack").then(pl.lit("attack"))
        .when(pl.col("origin") == "user").then(pl.lit("honest"))
        .otherwise(pl.lit("unlabelled")).cast(pl.Enum(tuple(SIDES)))
    ),
}  # fmt: skip
_FLIPS = pl.col("from") != pl.col("to")
_CHANGES = {
    "changed": DECIDED & (_FLIPS | (pl.col("effect") != pl.col("base_effect"))),
    "verdict_changed": pl.when(DECIDED).then(_FLIPS),
}
