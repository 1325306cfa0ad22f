"""An entry as a file, `entry.json`, in the folder of what it sends: written whole, read as it was written.

One rule: what is read is what was written, or nothing is: a member that is missing, unknown or of another type is
refused with where it stands.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from workbench.durably import sync
from workbench.errors import TrackingError
from workbench.masking import leaving
from workbench.runs.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.runs.entry import Measure, Run, Trace

NAME = "entry.json"
"""The file, in its entry's folder."""

FORMAT = 1
"""Version of the file."""

MAX_ID = 120
"""Characters of an id: it names a folder, and stands in a query."""

KINDS, BY = ("feedback", "expectation"), ("program", "person", "judge")
"""What an assessment may be, and who may say it."""


def write_entry(entry: Entry, folder: Path) -> Path:
    """Write an entry beside the files it names, which are there already. Returns the file.

    Args:
        entry: what is to be sent.
        folder: its folder; runs name theirs below it.

    Raises:
        ValueError: the entry cannot be sent as it is: a number that is not finite, a key that is taken, a run before
            its parent, a folder that is not below; says where.
        OSError: the file cannot be written; what stood there still does.

    Durability: on disk when it returns, under its name or not at all.
    """
    problem = next(_faults(entry, folder), None)
    if problem is not None:
        raise ValueError(f"entry {entry.id!r}: {problem}")
    value = {"format": FORMAT, "entry": msgspec.to_builtins(entry)}
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path = folder / NAME
    unfinished = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(leaving(text).encode())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(folder)
    return path


def read_entry(folder: Path) -> Entry:
    """Read the entry of a folder.

    Raises:
        TrackingError: there is none, it is damaged, or a newer release wrote it; names the file.
    """
    path = folder / NAME
    try:
        entry = _entry(json.loads(path.read_bytes()))
        problem = next(_faults(entry, folder), None)
    except OSError as exc:
        raise TrackingError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise TrackingError(f"{path} is no entry that this release reads: {exc}") from exc
    if problem is not None:
        raise TrackingError(f"{path} is no entry: {problem}")
    return entry


def _entry(value: object) -> Entry:
    """Raises ValueError: msgspec's own, or for what it would pass over."""
    if not isinstance(value, dict) or value.keys() != {"format", "entry"}:
        raise ValueError("it has other members than `format` and `entry`")
    if value["format"] != FORMAT:
        raise ValueError(f"it is of format {value['format']!r:.20}, not {FORMAT}; send it with what wrote it")
    entry = msgspec.convert(value["entry"], Entry)
    if json.loads(json.dumps(msgspec.to_builtins(entry))) != value["entry"]:
        raise ValueError("it has members that are unknown, or lacks some")
    return entry


def _faults(entry: Entry, folder: Path) -> Iterator[str]:
    """Yield why an entry cannot be sent."""
    if not entry.id or len(entry.id) > MAX_ID or not set(entry.id) <= _IN_ID:
        yield f"an id is 1 to {MAX_ID} letters, digits, `-`, `_` and `.`; got {entry.id!r:.60}"
    if not entry.experiment.strip():
        yield "it names no experiment"
    if not entry.runs or entry.runs[0].key:
        yield "the first run's key is empty, and there is one"
    seen: set[str] = set()
    for run in entry.runs:
        yield from _run_faults(run, seen, folder)
        seen.add(run.key)
    traces: set[str] = set()
    for trace in entry.traces:
        if trace.key in traces or not trace.key:
            yield f"two traces have the key {trace.key!r}" if trace.key else "a trace has no key"
        if trace.run not in seen:
            yield f"trace {trace.key!r} belongs to run {trace.run!r}, which is not there"
        if not trace.spans:
            yield f"trace {trace.key!r} has no spans"
        yield from _said_faults(trace)
        traces.add(trace.key)
    yield from _number_faults("series", () if entry.series is None else entry.series.measures)


def _run_faults(run: Run, before: set[str], folder: Path) -> Iterator[str]:
    if run.key in before:
        yield f"two runs have the key {run.key!r}"
    if run.parent is not None and run.parent not in before:
        yield f"run {run.key!r} stands before its parent {run.parent!r}"
    yield from _number_faults(f"run {run.key!r}", run.measures)
    if run.files is None:
        return
    path = PurePosixPath(run.files)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        yield f"files of run {run.key!r} are not below the entry's folder: {run.files!r}"
    elif not (folder / path).is_dir():
        yield f"files of run {run.key!r} are not there: {run.files!r}"


def _said_faults(trace: Trace) -> Iterator[str]:
    for each in trace.assessments:
        if each.kind not in KINDS or each.by not in BY:
            yield f"trace {trace.key!r}: {each.name!r} is {each.kind!r} by a {each.by!r}"
        if each.kind == "expectation" and each.value is None:
            yield f"trace {trace.key!r}: nothing is expected as {each.name!r}"


def _number_faults(where: str, measures: tuple[Measure, ...]) -> Iterator[str]:
    seen: set[tuple[str, int]] = set()
    for each in measures:
        if not math.isfinite(each.value):
            yield f"{where}: {each.name!r} is {each.value}, which is not finite"
        if (each.name, each.step) in seen:
            yield f"{where}: {each.name!r} stands twice at step {each.step}"
        seen.add((each.name, each.step))


_IN_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
