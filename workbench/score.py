"""Score replayed decisions with DeepEval: labels against verdicts, and judges where they are asked for.

One rule: no row is lost. Each metric gives one row for each case: a score, an error, or *not applicable* with the
reason; they are counted apart, and a mean is over scores alone.

It works in a notebook, a coroutine and a job alike (`workbench.scoring.measure` says how), makes no connection of its
own (`workbench.scoring.offline`), and importing this module loads nothing of DeepEval.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import polars as pl

from workbench.errors import ScoringInvalid
from workbench.progress import progress
from workbench.scoring.gathering import Replayed, gathered, said
from workbench.scoring.results import SCHEMA, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deepeval.metrics import BaseConversationalMetric, BaseMetric

    from workbench.progress import Advance
    from workbench.scoring.cases import Cases
    from workbench.scoring.storing import Keeper, Keeping
    from workbench.scoring.waiting import Patience

    Metric: TypeAlias = BaseMetric | BaseConversationalMetric

__all__ = ["SCHEMA", "Compared", "Replayed", "Sampled", "Scores", "score"]


class Compared(Protocol):
    """What scoring reads of a `workbench.compare.Diff`."""

    @property
    def cand(self) -> Replayed:
        """The replay that is scored."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a decision, with `changed`."""


class Sampled(Protocol):
    """What scoring reads of a sample of decisions."""

    @property
    def ids(self) -> pl.DataFrame:
        """One row a decision: `tenant`, `decision_id`, `stratum`, `weight` (decisions it stands for)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one call of `score` has in hand."""

    replay: Replayed
    labels: pl.DataFrame
    """As `workbench.scoring.gathering.said` gives them."""
    chosen: pl.DataFrame | None
    """`tenant`, `decision_id`, `stratum`, `weight`; None: all decisions."""
    patience: Patience
    lake: Keeping | None
    """Where scores are known from; None: nowhere."""
    keeper: Keeper | None


def score(
    source: Replayed | Compared,
    metrics: Sequence[Metric | type[Metric]] | None = None,
    *,
    threshold: float | None = None,
    labels: pl.LazyFrame | None = None,
    cases: Literal["all", "changed"] | Sampled = "all",
    concurrency: int = 8,
    retries: int = 2,
    rate: float | None = None,
    timeout: float = 60.0,
    keep: bool = False,
    actor: str | None = None,
) -> Scores:
    """Score a replay, or the candidate of a comparison.

    Args:
        source: a `Replay` or a `Diff`.
        metrics: DeepEval metrics, ours (`workbench.scoring.metrics`) or any other; a class stands for its default
            instance. None: `workbench.scoring.metrics.DEFAULTS`. A conversational metric, and one with
            `level = "session"`, is measured once a session, any other once a decision. They are copied for each case:
            what is given keeps no result.
        threshold: minimum score that counts as success, for the default metrics and for classes; None: their own.
        labels: the labels in force (`tenant`, `session_id`, `decision_id`, `label`, `value`; the last of equal ones
            holds); None: those of the lake.
        cases: `all` decisions; those that a comparison `changed`; or a sample (`workbench.scoring.sampling`). A
            session is a case if one of its decisions is chosen; its `weight` is null then, it was not drawn.
        concurrency: cases at once, of metrics that wait: those with a model, or with `waits = True`.
        retries: attempts after the first, of metrics that wait.
        rate: calls of a model a minute, for each metric that waits; None: as fast as it goes.
        timeout: seconds an attempt of a metric that waits may take.
        keep: whether rows are kept in the lake's `scores`, and known ones taken from there: nothing is judged twice.
        actor: who scores, in kept rows; None: this process's user.

    Returns:
        `Scores`. A metric that raises gives a row with `error`; undecided and quarantined decisions, and
        those without the label a metric needs, are rows that are `not_applicable`.

    Raises:
        MissingExtra: DeepEval is not installed.
        ScoringInvalid: no metric, two metrics of one name, or an argument that is none of what it may be. Nothing was
            judged.
        LakeError: rows cannot be kept; those written before stay.

    Cost: collects the chosen decisions; 10 µs each, and what metrics take: little for one that says what it reads,
    100 µs a case for any other, and as long as a judge takes. No connection is made but by a judge, and nothing is
    written without `keep`.
    """
    # Here, because DeepEval takes seconds to import.
    from workbench.scoring import measure, storing  # noqa: PLC0415
    from workbench.scoring import metrics as ours  # noqa: PLC0415
    from workbench.scoring.waiting import Patience  # noqa: PLC0415

    keywords = {} if threshold is None else {"threshold": threshold}
    asked = ours.DEFAULTS if metrics is None else metrics
    given: list[Any] = [each(**keywords) if isinstance(each, type) else each for each in asked]
    chosen = measure.named(given)
    replay = cast("Replayed", getattr(source, "cand", source))  # a comparison's, else itself
    _require(concurrency=concurrency, retries=retries, rate=rate, timeout=timeout)
    lake = storing.lake_that_keeps(replay.lake) if keep else None
    with progress(None, "scoring"), ExitStack() as stack:
        run = _Run(
            replay=replay,
            labels=said(replay.lake.labels if labels is None else labels),
            chosen=_ids(source, cases),
            patience=Patience(concurrency=concurrency, retries=retries, rate=rate, timeout=timeout),
            lake=lake,
            keeper=None
            if lake is None
            else stack.enter_context(storing.Keeper(lake, replay.id, actor=actor)),
        )
        return _scored(run, chosen, cases if isinstance(cases, str) else "a sample")


def _require(*, concurrency: int, retries: int, rate: float | None, timeout: float) -> None:
    wrong = [
        f"{name} must be {allowed}, got {given!r}"
        for name, given, allowed, fits in (
            ("concurrency", concurrency, "at least 1", concurrency >= 1),
            ("retries", retries, "0 or more", retries >= 0),
            ("rate", rate, "above 0 calls a minute, or None", rate is None or rate > 0),
            ("timeout", timeout, "above 0 seconds", timeout > 0),
        )
        if not fits
    ]
    if wrong:
        raise ScoringInvalid("; ".join(wrong))


def _ids(source: Any, cases: str | Sampled) -> pl.DataFrame | None:
    """Which decisions are scored; None: all."""
    if not isinstance(cases, str):
        return cases.ids.select("tenant", "decision_id", "stratum", pl.col("weight").cast(pl.Float64))
    if cases == "all":
        return None
    if cases != "changed":
        raise ScoringInvalid(f"cases must be `all`, `changed` or a sample, got {cases!r}")
    if not hasattr(source, "cand"):
        raise ScoringInvalid(
            "cases='changed' needs a comparison, got a replay: wb.score(wb.compare(base, cand), …)"
        )
    rows = source.frame.filter(pl.col("changed")).select("tenant", "decision_id")
    return cast("pl.DataFrame", rows.with_columns(**_ALL).collect())  # a comparison's


_ALL = {"stratum": pl.lit(None, pl.String), "weight": pl.lit(None, pl.Float64)}


def _scored(run: _Run, chosen: Mapping[str, Any], what: str) -> Scores:
    from workbench.scoring import measure, versions  # noqa: PLC0415 - as above

    made: dict[object, pl.DataFrame] = {}
    widely = run.chosen is not None and any(
        measure.level_of(metric) != "decision" for metric in chosen.values()
    )
    tables, judged = [], 0
    for name, metric in chosen.items():
        cases = _cases(run, metric, made, widely=widely)
        with progress(len(cases), name, unit="case") as advance:
            table, now = _measured(run, name, metric, versions.version_of(metric), cases, advance)
        tables.append(table)
        judged += now
    table = pl.concat(tables)
    return Scores(
        replay_id=run.replay.id,
        table=table,
        decisions=_states(run),
        judged=judged,
        reused=table.height - judged,
        chosen=what,
    )


def _cases(run: _Run, metric: Any, made: dict[object, pl.DataFrame], *, widely: bool) -> Cases:
    """The cases of a metric. What they are made of is gathered once for metrics that see the same.

    Args:
        run: what is scored.
        metric: whose cases.
        made: what was gathered so far.
        widely: whether to gather whole sessions, since some metric is of sessions.
    """
    from workbench.scoring import cases, measure  # noqa: PLC0415 - as above

    level, facts, look_up = (
        measure.level_of(metric),
        measure.reads_facts(metric),
        getattr(metric, "look_up", None),
    )
    wide = widely and (look_up is None or level != "decision")
    key = facts, look_up and id(metric)
    if key not in made:
        made[key] = gathered(
            run.replay, run.labels, run.chosen, whole_sessions=wide, context=facts, look_up=look_up
        )
    rows = made[key]
    if run.chosen is None or level != "decision":
        return cases.cases_of(rows, level)
    if wide:
        keys = ["tenant", "decision_id"]
        rows = rows.join(run.chosen.select(keys), on=keys, how="semi", maintain_order="left")
    return cases.cases_of(rows, level).weighed(run.chosen)


def _measured(
    run: _Run, name: str, metric: Any, version: str, cases: Cases, advance: Advance
) -> tuple[pl.DataFrame, int]:
    """Score all cases with one metric: its rows in the order of the cases, and how many were judged now."""
    from workbench.scoring import measure  # noqa: PLC0415 - as above

    keys = cases.keys.with_columns(metric=pl.lit(name), metric_version=pl.lit(version))
    keys = keys.with_columns(**{name: each for name, each in _ALL.items() if name not in keys.columns})
    ids = keys.select(name for name in SCHEMA if name not in measure.OUTCOME)
    parts, todo = _known(run, metric, ids)
    advance(ids.height - len(todo))
    kept: set[str] = set()
    for numbers, found in measure.outcomes(metric, cases, todo, run.patience):
        rows = pl.concat([ids[numbers], found], how="horizontal").select(*SCHEMA)
        parts.append((numbers, rows))
        if run.keeper is not None:  # one row a content: that is what it is found by
            fresh = rows.unique("case_hash", keep="first", maintain_order=True)
            new = [address not in kept for address in fresh["case_hash"]]
            kept.update(fresh["case_hash"])
            run.keeper.add(fresh.filter(pl.Series(new, dtype=pl.Boolean)))
        advance(len(numbers))
    places = [number for numbers, _ in parts for number in numbers]
    table = pl.concat([pl.DataFrame(schema=SCHEMA), *(rows for _, rows in parts)])
    judged = ids["case_hash"].gather(todo).n_unique() if measure.waits(metric) else len(todo)
    return table[pl.Series(places, dtype=pl.UInt32).arg_sort()], judged


def _known(
    run: _Run, metric: Any, ids: pl.DataFrame
) -> tuple[list[tuple[list[int], pl.DataFrame]], list[int]]:
    """Rows of cases that the lake knows, and the places of the others."""
    from workbench.scoring import measure, storing  # noqa: PLC0415 - as above

    every = list(range(ids.height))
    if run.lake is None or not every:
        return [], every
    known = storing.known(run.lake, ids["metric"][0], ids["metric_version"][0])
    rows = ids.with_row_index("place").join(known, on="case_hash", how="inner", maintain_order="left")
    passes = {each: measure.again(metric, each) for each in rows["score"].drop_nulls().unique()}
    scored = pl.col("score").is_not_null()
    rows = rows.with_columns(
        status=pl.when(scored)
        .then(pl.lit("scored"))
        .otherwise(pl.lit("not_applicable"))
        .cast(SCHEMA["status"]),
        success=pl.Series([passes.get(each) for each in rows["score"]], dtype=pl.Boolean),
        error=pl.lit(None, pl.String),
    )
    places = rows["place"].to_list()
    return [(places, rows.select(*SCHEMA))], sorted(set(every) - set(places))


def _states(run: _Run) -> dict[str, int]:
    """All decisions of the replay by what could be judged, chosen or not."""
    keys = ["tenant", "decision_id"]
    labelled = run.labels.filter(pl.col("label") == "origin", pl.col("decision_id").is_not_null())
    rows = run.replay.frame.select(*keys, "status").collect()
    counted = {str(status): int(number) for status, number in rows["status"].value_counts().iter_rows()}
    found = {state: counted.get(state, 0) for state in ("decided", "undecided", "quarantined")}
    return found | {"unlabelled": rows.join(labelled.select(keys).unique(), on=keys, how="anti").height}
