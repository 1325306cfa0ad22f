"""What a run says of a comparison, before any tracking store has seen it: pins, numbers, tags, data set, artifacts.

One rule: everything here has passed `workbench.masking.leaving`, and fits MLflow's limits.
"""

from __future__ import annotations

import getpass
import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from runtime.canonical import Json, canonical, content_hash
from runtime.trace import DECISIONS
from workbench.masking import leaving
from workbench.texts import count, share
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANGED, REPORT, SUMMARY, SCORES = "changed.parquet", "report.html", "summary.json", "scores.parquet"
"""Artifacts of a run."""

MAX_KEY, MAX_PARAM = 250, 6000
"""MLflow's limits: characters of a name, and of a parameter."""


class LakeLike(Protocol):
    """What logging reads of a lake."""

    @property
    def uri(self) -> str:
        """Path or address of the lake."""

    @property
    def decisions(self) -> pl.LazyFrame:
        """One row a decision, at the pin."""


class Replayed(Protocol):
    """What logging reads of a replay."""

    @property
    def id(self) -> str:
        """Names the replay."""

    @property
    def lake(self) -> Any:
        """The lake it was made from, a `LakeLike`."""

    @property
    def pins(self) -> Mapping[str, object]:
        """What was pinned."""

    @property
    def policy(self) -> tuple[str, str]:
        """Name and version of the bundle."""

    @property
    def context(self) -> str:
        """Which contexts."""


class Compared(Protocol):
    """What logging reads of a `workbench.compare.Diff`."""

    @property
    def base(self) -> Replayed:
        """What was compared with."""

    @property
    def cand(self) -> Replayed:
        """The candidate."""

    @property
    def changed(self) -> pl.LazyFrame:
        """Decisions that change."""

    @property
    def headline(self) -> str:
        """The result in words."""

    def summary(self) -> Mapping[str, int | float]:
        """Every number."""

    def metrics(self) -> Mapping[str, float]:
        """What it is worth, and how sure that is."""

    @property
    def verdict(self) -> str | None:
        """Ship, don't ship or inconclusive; None: no gates are declared."""

    def to_html(self, path: str | Path) -> Path:
        """Write the report."""


class Scored(Protocol):
    """What logging reads of a `workbench.score.Scores`."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a metric and case."""

    def summary(self) -> Mapping[str, int | float]:
        """Every number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a run says, masked, before any store has seen it."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    dataset: dict[str, str]


def contents_of(diff: Compared, scores: Mapping[str, Scored]) -> Contents:
    """Gather what a run says. Numbers that are not finite are left out, and named in a tag.

    Args:
        diff: the comparison.
        scores: by the prefix of their names, `""` for none.
    """
    numbers = {**diff.summary(), **diff.metrics()}
    for name, scored in scores.items():
        prefix = f"score.{name}." if name else "score."
        numbers |= {f"{prefix}{metric}": value for metric, value in scored.summary().items()}
    finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    left_out = sorted(numbers.keys() - finite.keys())
    tags = _tags(diff) | ({"redecide.metrics_left_out": ", ".join(left_out)} if left_out else {})
    return Contents(
        params=_keyed(leaving(_params(diff))),
        metrics=_keyed(finite),
        tags={name: _cut(str(value)) for name, value in leaving(tags).items()},
        dataset=_dataset(diff, int(numbers.get("decisions", 0))),
    )


def _params(diff: Compared) -> dict[str, str]:
    """Pins that both replays share as `pins.…`; policy, context and the others under their side's name."""
    found: dict[str, object] = {"redecide": release(), "recorded.bundle_versions": _recorded(diff.cand.lake)}
    base, cand = (_other_pins(replay) for replay in (diff.base, diff.cand))
    shared = {name for name in base.keys() & cand.keys() if base[name] == cand[name]}
    found |= {f"pins.{name}": base[name] for name in sorted(shared)}
    for side, replay, pins in (("baseline", diff.base, base), ("candidate", diff.cand, cand)):
        found |= {f"{side}.policy": replay.policy[0], f"{side}.bundle_version": replay.policy[1]}
        found |= {f"{side}.context": replay.context, f"{side}.replay": replay.id}
        found |= {f"{side}.pins.{name}": value for name, value in pins.items() if name not in shared}
    return {
        name: _cut(value if isinstance(value, str) else canonical(_json(value)))
        for name, value in found.items()
    }


def _other_pins(replay: Replayed) -> dict[str, object]:
    """What is pinned beside policy and context, flat."""
    return {name: value for name, value in _flat(replay.pins) if name not in ("policy", "context")}


def _recorded(lake: LakeLike) -> list[str]:
    """The bundle versions that the decisions were made under: what a self-replay's policy is."""
    versions = lake.decisions.select(pl.col("bundle_version").unique().sort()).collect()
    return list(versions.to_series())


def release() -> str:
    """Return the version of this release."""
    try:
        return version("redecide")
    except PackageNotFoundError:  # run from a source tree
        return "not installed"


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested mappings under dotted names; nulls are absent."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        elif item is not None:
            yield f"{prefix}{name}", item


def _json(value: object) -> Json:
    if isinstance(value, list | tuple | set | frozenset):
        items = [_json(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    return value if isinstance(value, bool | int | float) else str(value)


def _cut(text: str) -> str:
    """Fit a parameter; a longer one keeps its content address, and is whole in `summary.json`."""
    tail = f"… sha256:{content_hash(text)}"
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - len(tail)] + tail


def _keyed(named: Mapping[str, Any]) -> dict[str, Any]:
    """Names as MLflow takes them; what had to change carries a piece of its hash, so that no two meet."""
    return {_key(name): value for name, value in named.items()}


def _key(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_. :-]", "_", name)
    if plain == name and len(name) <= MAX_KEY:
        return name
    return f"{plain[: MAX_KEY - 9]}-{content_hash(name)[:8]}"


def _tags(diff: Compared) -> dict[str, str]:
    outcome = {} if diff.verdict is None else {"redecide.outcome": diff.verdict}
    return {
        **outcome,
        "redecide.coverage": _coverage(diff.summary()),
        "redecide.kind": "comparison",
        "redecide.lake": shown(str(diff.cand.lake.uri)),
        "redecide.baseline": " ".join(diff.base.policy),
        "redecide.candidate": " ".join(diff.cand.policy),
        "redecide.context": diff.cand.context,
        "mlflow.note.content": f"<pre>{html.escape(diff.headline)}</pre>",
        "mlflow.source.name": "redecide",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user_name(),
    }


def _coverage(numbers: Mapping[str, int | float]) -> str:
    """How much of the log the comparison speaks of: `98.7 % of 1,204,331 decisions replayable`."""
    whole = numbers.get("decisions", 0)
    return f"{share(numbers.get('decisions_replayed', 0), whole)} of {count(whole, 'decision')} replayable"


def user_name() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"


_TYPES: Mapping[str, Any] = {
    "string": {"type": "string"},
    "int32": {"type": "integer"},
    "int64": {"type": "long"},
    "bool": {"type": "boolean"},
    "float64": {"type": "double"},
    "timestamp": {"type": "datetime"},
    "list<string>": {"type": "array", "items": {"type": "string"}},
    "list<policy_error>": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": "string", "required": True} for name in ("policy", "message")},
        },
    },
}
"""MLflow's names of our column types."""


def _dataset(diff: Compared, rows: int) -> dict[str, str]:
    """The decisions that were replayed: rows by ledger and position, in a Delta table at a version.

    The digest is of the logical pin: compaction changes the Delta version, and neither the rows nor the digest.
    """
    pins = diff.cand.pins
    delta = pins.get("delta")
    source = {"path": f"{shown(str(diff.cand.lake.uri)).rstrip('/')}/{DECISIONS.name}"}
    at = delta.get(DECISIONS.name) if isinstance(delta, Mapping) else None
    columns = [
        {**_TYPES[each.dtype], "name": each.name, "required": each.required} for each in DECISIONS.columns
    ]
    return {
        "name": DECISIONS.name,
        "digest": content_hash(json.loads(json.dumps(pins.get("ledgers"), default=str)))[:32],
        "source_type": "delta_table",
        "source": json.dumps(source | ({} if at is None else {"delta_table_version": at})),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": rows}),
    }


def write(folder: Path, diff: Compared, scores: Mapping[str, Scored], contents: Contents) -> tuple[str, ...]:
    """Write the artifacts; return their names."""
    leaving(diff.changed).sink_parquet(folder / CHANGED)
    report = diff.to_html(folder / REPORT)
    report.write_text(leaving(report.read_text(encoding="utf-8")), encoding="utf-8")
    for name, scored in scores.items():
        file = folder / "scores" / f"{_key(name)}.parquet" if name else folder / SCORES
        file.parent.mkdir(exist_ok=True)
        leaving(scored.frame).sink_parquet(file)
    summary = {
        "metrics": contents.metrics,
        "params": contents.params,
        "tags": contents.tags,
        "pins": {
            "baseline": leaving(diff.base.pins),
            "candidate": leaving(diff.cand.pins),
        },
    }
    text = json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False, default=str, allow_nan=False)
    (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))
