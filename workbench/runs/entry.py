"""What is to be in MLflow, as a folder on disk: one run or a tree of them, with files and traces.

One rule: an entry is whole and masked when it is written, and sending it needs nothing else: no lake, no policy, no
clock. Its id names it for good: two entries of one id are one and the same, and MLflow gets it once.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - `entry_files` reads the types of the fields
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of a run."""

    name: str
    value: float
    """Finite."""
    step: int = 0
    """Where it stands on MLflow's axis: the ledger positions that were read so far; 0: it has no place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A policy bundle as a version of a registered model."""

    model: str
    bundle_version: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    """What the lake calls this version, with the time it was given (microseconds, UTC): an older one gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run to be made."""

    key: str
    """Names it in its entry; the first run's is empty."""
    name: str
    parent: str | None = None
    """Key of the run it is nested in; None: of none in this entry."""
    params: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, str] | None = None
    """As `mlflow.entities.Dataset` takes it."""
    files: str | None = None
    """Folder of its artifacts, below the entry's folder; None: it has none."""
    registered: tuple[Registered, ...] = ()
    """Versions that this run speaks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What was said of a trace."""

    name: str
    value: Any
    """JSON."""
    rationale: str | None = None
    kind: str = "feedback"
    """`feedback` of a person or a program, or `expectation`: what it should have been."""
    source: str = "redecide"
    """Who says so."""
    by: str = "program"
    """What that is: a `program`, a `person` or a `judge` (a language model)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One decision, as MLflow shows it."""

    key: str
    """Names it in its entry: the decision's id."""
    run: str
    """Key of the run it belongs to."""
    name: str
    started_ns: int
    """UTC, nanoseconds since 1970."""
    spans: tuple[Mapping[str, Any], ...]
    """Steps: `name`, `type`, `inputs`, `outputs`, `attributes`, `start_ns`, `end_ns`, `error`; all but the name may
    be missing. The others are parts of the first."""
    tags: Mapping[str, str] = field(default_factory=dict)
    assessments: tuple[Assessment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A run that goes on: each entry adds to its numbers, so that MLflow draws a line."""

    name: str
    """Of the run; one an experiment."""
    measures: tuple[Measure, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is sent at once."""

    id: str
    """Names it for good."""
    experiment: str
    runs: tuple[Run, ...]
    """Parents before what is nested in them; the first is the run that the caller gets."""
    traces: tuple[Trace, ...] = ()
    series: Series | None = None
