"""What MLflow is to have of a comparison, all of it, written into a folder that can be sent without lake or policy.

One rule: each part is made once, here, from what its own module says; nothing is said that was not masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.progress import progress
from workbench.promoting.registry import VERSION_TAG, model_of
from workbench.runs import ARTIFACTS
from workbench.runs.contents import contents_of, masked
from workbench.runs.dataset import dataset_of, watermark_of
from workbench.runs.entry import Entry, Measure, Registered, Run, Series
from workbench.runs.entry_files import write_entry
from workbench.runs.files import Parts, write, write_summary
from workbench.runs.regressed import counted, known, regressed
from workbench.runs.slices import slices_of
from workbench.runs.traces import traces_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.covering.result import Coverage
    from workbench.runs.contents import Judged, Scored

FILES = "files"
"""Folder of the artifacts in an entry's folder."""


def prepare(
    diff: Diff,
    folder: Path,
    *,
    id: str,  # noqa: A002 - the entry's, as `Entry` has it
    experiment: str,
    scores: Scored | Mapping[str, Scored] | None = None,
    outcome: Judged | None = None,
    step: int | None = None,
    slices: Sequence[str] = ("tool",),
    traces: int = 20,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    numbers: Mapping[str, float] | None = None,
    earlier: Sequence[Measure] = (),
    series: str = "nightly",
    coverage: Coverage | bool = True,
    artifacts: Collection[str] = ARTIFACTS,
    worse: pl.DataFrame | None = None,
) -> Entry:
    """Write all that MLflow is to have of a comparison into a folder. MLflow is not needed for it.

    Args:
        diff: the comparison.
        folder: that exists and is empty.
        id: names the entry for good: MLflow gets one of each id. 1 to 120 letters, digits, `-`, `_`, `.`.
        experiment: name of the experiment.
        scores: what `wb.score` gave, or several by name.
        outcome: what is said of the candidate; None: `diff.outcome`.
        step: where its numbers stand on MLflow's axis, for a run of a series; the watermark, so that a line is drawn
            over what was decided and not over when it was looked at. None: at the watermark, and no series.
        slices: columns of `diff.frame` by which nested runs are made, each by itself; see `workbench.runs.slices`.
        traces: regressed decisions that become traces, at most.
        run_name: None: `<baseline> → <candidate>`.
        tags: more tags, by name; they go before ours.
        params: more parameters, by name; they go before ours.
        notes: Markdown above the headline in the run's description; as it is, so escape what is not yours.
        numbers: more metrics, by name.
        earlier: numbers of earlier steps of the series, as they are now.
        series: its name, where `step` is given.
        coverage: counted already; True: it is counted (above 100,000 decisions over a part of the log); False:
            it is left out.
        artifacts: of `workbench.runs.files.ARTIFACTS`, those that are written; the numbers always are.
        worse: what `regressed(diff)` gives, where it was collected already; None: it is looked for.

    Returns:
        The entry, as `entry.json` in `folder` has it. Its first run is the comparison, with the decisions as its data
        set and all artifacts; a run a slice is nested in it.

    Raises:
        ColumnUnknown: a slice names another column.
        StakesInvalid: a label that the stakes need is not in the lake.

    Durability: `entry.json` is on disk when it returns; an outbox makes the rest so. Cost on a million decisions:
    some 15 s beside the comparison's own numbers.
    """
    named = _named(scores)
    judged = outcome if outcome is not None else diff.outcome
    at = watermark_of(diff.cand.pins) if step is None else step
    parts = slices_of(diff, slices, step=at)
    worse = regressed(diff).collect() if worse is None else worse
    states = counted(worse)
    (folder / FILES).mkdir()
    with progress(None, "writing the report"):
        made = Parts(
            scores=named, outcome=judged, slices=parts.table, coverage=coverage, artifacts=frozenset(artifacts)
        )  # fmt: skip
        left_out = write(folder / FILES, diff, made)
    contents = contents_of(
        diff, named, outcome=judged, numbers=_numbers(states) | dict(numbers or {}), params=params,
        tags={**parts.tags, **_left_out(left_out), **(tags or {})}, notes=notes,
    )  # fmt: skip
    more = {"outcome": None if judged is None else dict(judged.as_dict()), "regressed": states}
    write_summary(folder / FILES, diff, contents, left_out=left_out, more=more)
    parent = Run(
        key="",
        name=run_name or f"{diff.base.policy[0]} → {diff.cand.policy[0]}",
        params=contents.params,
        measures=tuple(Measure(name=name, value=value, step=at) for name, value in contents.metrics.items()),
        tags=contents.tags,
        dataset=masked(dataset_of(diff, int(diff.summary()["decisions"]))),
        files=FILES,
        registered=_registered(diff),
    )
    entry = Entry(
        id=id,
        experiment=experiment,
        runs=(parent, *parts.runs),
        traces=traces_of(diff, worse, most=traces, scores=named),
        series=None if step is None else _series(series, earlier, parent),
    )
    write_entry(entry, folder)
    return entry


def _named(scores: Scored | Mapping[str, Scored] | None) -> dict[str, Scored]:
    """Scores by prefix of their names: none, where there is only one."""
    if scores is None:
        return {}
    return dict(scores) if isinstance(scores, Mapping) else {"": scores}


def _numbers(states: Mapping[str, int]) -> dict[str, float]:
    """How many decisions get worse, and how."""
    each = {f"regressed.{name.replace(', ', '_').replace(' ', '_')}": float(n) for name, n in states.items()}
    return {"regressed": float(known(states)), **each}


def _left_out(parts: Mapping[str, str]) -> dict[str, str]:
    return {f"redecide.not_written.{what}": why for what, why in parts.items()}


def _series(name: str, earlier: Sequence[Measure], run: Run) -> Series:
    """The line that goes on: the run's numbers, and what is known better of earlier ones."""
    mine = {(each.name, each.step) for each in run.measures}
    before = tuple(each for each in earlier if (each.name, each.step) not in mine)
    return Series(name=name, measures=(*before, *run.measures), tags={"redecide.kind": "series"})


def _registered(diff: Diff) -> tuple[Registered, ...]:
    """The candidate as a version of its lake's registered model, with the aliases the lake has for it."""
    lake: Any = diff.cand.lake
    bundle = getattr(getattr(diff.cand, "asked", None), "policy", None)
    if bundle is None or not hasattr(lake, "aliases"):
        return ()
    held = lake.aliases.sort("at", "row_id").unique("alias", keep="last", maintain_order=True)
    mine = held.filter(pl.col("bundle_version") == bundle.version).select(
        "alias", pl.col("at").dt.epoch("us")
    )
    tags = masked({VERSION_TAG: bundle.version, "redecide.bundle": bundle.name})
    aliases = {str(name): int(at) for name, at in mine.collect().iter_rows()}
    return (Registered(model=model_of(lake.uri), bundle_version=bundle.version, tags=tags, aliases=aliases),)
