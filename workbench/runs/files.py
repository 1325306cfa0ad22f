"""The artifacts of a run: what a reader opens, beside the numbers, as files below one folder.

One rule: whatever is written has passed `workbench.masking.leaving`. A part that a comparison cannot have (it is of
no lake, a source of its facts is away) is left out and named with the reason, never written empty.

Cost on a million decisions: some 10 s, most of it coverage and the report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import faces, plots
from workbench.certainty import has_history
from workbench.covering.result import coverage
from workbench.errors import WorkbenchError, need
from workbench.faces import written
from workbench.masking import leaving
from workbench.progress import progress
from workbench.runs import ARTIFACTS
from workbench.runs.contents import key, rows_of
from workbench.runs.policy_diff import policy_diff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.covering.result import Coverage
    from workbench.runs.contents import Compared, Contents, Judged, Scored

CHANGED, REPORT, SUMMARY, SCORES, SLICES = (
    "changed.parquet", "report.html", "summary.json", "scores.parquet", "slices.parquet",
)  # fmt: skip
"""Artifacts of a run; beside them `outcome.*`, `coverage.*`, `policies/*` and `plots/*`."""
MAX_COUNTED = 100_000
"""Decisions above which coverage is counted over a part of the log: counting costs more than a replay."""
STRETCH = 20_000
"""Positions of the log that are counted, or not, together: a stretch is read at a time."""
PLOTS: Mapping[str, Callable[[Any], plots.Plot]] = {
    "effects": plots.effects,
    "policies": plots.policies,
    "transitions": plots.transitions,
    "intervals": plots.intervals,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What files are made of, beside the comparison itself."""

    scores: Mapping[str, Scored] = field(default_factory=dict)
    """By name, `""` for the only ones."""
    outcome: Judged | None = None
    slices: pl.DataFrame | None = None
    coverage: Coverage | bool = True
    """What was counted already; True: it is counted; False: it is not asked for."""
    artifacts: frozenset[str] = frozenset(ARTIFACTS)
    """Of `ARTIFACTS`, those that are wanted."""


def write(folder: Path, diff: Compared, parts: Parts) -> dict[str, str]:
    """Write the artifacts, but for `SUMMARY`.

    Args:
        folder: that exists.
        diff: the comparison.
        parts: what else there is.

    Returns:
        What was left out, with the reason.
    """
    leaving(diff.changed).sink_parquet(folder / CHANGED)
    if "report" in parts.artifacts:
        report = diff.to_html(folder / REPORT)
        report.write_text(leaving(report.read_text(encoding="utf-8")), encoding="utf-8")
    _write_scores(folder, parts.scores)
    if parts.slices is not None:
        leaving(parts.slices).write_parquet(folder / SLICES)
    if parts.outcome is not None:
        _write_page(folder / "outcome", parts.outcome.page(), parts.outcome.as_dict())
    left_out: dict[str, str] = {}
    if not isinstance(getattr(diff, "frame", None), pl.LazyFrame) or not has_history(diff):  # type: ignore[arg-type]  # asked here
        return dict.fromkeys(_OF_LAKES, "the comparison is of no lake that can be read")
    whole: Any = diff
    for what, make in _OF_LAKES.items():
        if what not in parts.artifacts:
            continue
        try:
            with progress(None, f"writing {what}"):
                make(folder, whole, parts)
        except WorkbenchError as exc:
            left_out[what] = str(exc)
    return left_out


def write_summary(
    folder: Path, diff: Compared, contents: Contents, *, left_out: Mapping[str, str], more: Mapping[str, Any]
) -> None:
    """Write what the run says, whole, as JSON: parameters and tags that MLflow cuts are not cut here."""
    summary = {
        "metrics": contents.metrics,
        "params": contents.params,
        "tags": contents.tags,
        "pins": {"baseline": leaving(diff.base.pins), "candidate": leaving(diff.cand.pins)},
        "left_out": dict(left_out),
        **leaving(more),
    }
    _write_json(folder / SUMMARY, summary)


def names_of(folder: Path) -> tuple[str, ...]:
    """Return the paths of all files below a folder, sorted, `/` between parts."""
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))


def counted_coverage(diff: Diff, *, most: int = MAX_COUNTED) -> Coverage:
    """Count what the decisions of a comparison exercise of its candidate.

    Above `most` decisions every second (third …) stretch of the log is counted, about so many decisions over all of
    its time; what is counted says so.
    """
    lake: Any = diff.cand.lake
    asked = getattr(diff.cand, "asked", None)
    part = -(-int(diff.summary()["decisions"]) // most)
    if part > 1:
        lake = lake.where((pl.col("position") - 1) // STRETCH % part == 0)
    axes: dict[str, Any] = {}
    if asked is not None:
        axes = {"limits": asked.limits, "sources": asked.sources, "versions": asked.versions, "at": asked.at}
        axes |= {} if asked.spec is None else {"context": asked.spec}
    found = coverage(lake, getattr(asked, "policy", None), **axes)
    if part <= 1:
        return found
    return replace(found, lake=f"{found.lake}, one in {part:,} stretches of {STRETCH:,} positions")


def _write_scores(folder: Path, scores: Mapping[str, Scored]) -> None:
    for name, scored in scores.items():
        file = folder / "scores" / f"{key(name)}.parquet" if name else folder / SCORES
        file.parent.mkdir(exist_ok=True)
        leaving(rows_of(scored)).sink_parquet(file)
        page = getattr(scored, "page", None)
        if page is not None:
            faces.write(page(), file.with_suffix(".html"))


def _write_plots(folder: Path, diff: Diff, _: Parts) -> None:
    (folder / "plots").mkdir(exist_ok=True)
    for name, draw in PLOTS.items():
        svg = draw(diff).svg("light")
        written(svg, folder / "plots" / f"{name}.svg")
        png = need("vl_convert").svg_to_png(
            svg, scale=2
        )  # of the same picture: drawing it is what takes long
        (folder / "plots" / f"{name}.png").write_bytes(png)


def _write_policies(folder: Path, diff: Diff, _: Parts) -> None:
    found = policy_diff(diff)
    written(found.html(), folder / "policies" / "side-by-side.html")
    written(found.unified, folder / "policies" / "candidate.diff")


def _write_coverage(folder: Path, diff: Diff, parts: Parts) -> None:
    if parts.coverage is False:
        return
    found = counted_coverage(diff) if parts.coverage is True else parts.coverage
    found.to_html(folder / "coverage.html")
    _write_json(folder / "coverage.json", dict(found.as_dict()))


def _write_page(path: Path, page: faces.Page, value: Mapping[str, Any]) -> None:
    faces.write(page, path.with_suffix(".html"))
    _write_json(path.with_suffix(".json"), dict(leaving(value)))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str, allow_nan=False)
    written(text + "\n", path)


_OF_LAKES: Mapping[str, Callable[[Path, Diff, Parts], None]] = {
    "plots": _write_plots,
    "policies": _write_policies,
    "coverage": _write_coverage,
}
"""Parts that only a comparison of a lake has."""
