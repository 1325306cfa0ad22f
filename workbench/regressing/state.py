"""What a regression job keeps between nights, so that it can be stopped anywhere and go on.

One rule: a run of the job is planned, with all its windows, before anything is looked at, and a run that was planned
is finished before another is. So no window is skipped, and none is looked at twice.

A run looks at one window a series (a candidate against a baseline, or the drift of one job). Its phases:

| phase | what is on disk | what a stopped run goes on with |
|---|---|---|
| `planned` | its windows | the windows without a result |
| `judged` | every result, and the sums of sessions that they add | logging |
| `logged` | the entries for MLflow, in the outbox or there | what is told of them |
| `told` | reports, notifications | nothing but the end |
| `done` | the whole night | |

Sums of a session are those of the night that looked at it last; earlier ones stay on disk beside them.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import polars as pl

from runtime.canonical import canonical, sha256
from workbench.errors import JobStateError
from workbench.regressing import state_disk as disk
from workbench.regressing.result import Candidate, Drifted, Night, Range
from workbench.regressing.stored import from_json, to_json
from workbench.regressing.windows import Look, Stretch
from workbench.splitting import SESSION

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.regressing.windows import Plan

Phase = Literal["planned", "judged", "logged", "told", "done"]
PHASES: Final[tuple[Phase, ...]] = ("planned", "judged", "logged", "told", "done")

NIGHT: Final = "_night"
"""Column of `State.sums`: the night that looked at the session last."""
FIRST: Final = "_first"
"""Column of `State.sums`: the night that looked at the session first, whose window it is of."""


def series_key(asks: Mapping[str, Json]) -> str:
    """Return the name of a series: a digest of what makes its nights comparable."""
    return sha256(canonical(dict(asks)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One window of a run."""

    series: str
    about: Mapping[str, Json]
    """What it is of, as `State.begin` was told."""
    look: Look
    result: Candidate | Drifted | None
    """None: it was not judged yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run of the job, as it is on disk."""

    run: int
    """From 1."""
    job: str
    started: str
    """ISO time, UTC: of the first try."""
    phase: Phase
    again: int
    """How often it was judged once more on purpose."""
    asked: tuple[Asked, ...]
    """In the order they were planned in."""
    notes: Mapping[str, Json]
    night: Night | None
    """None: it is not done."""

    def of(self, series: str) -> Asked | None:
        """Return the window of a series; None: the run has none."""
        return next((each for each in self.asked if each.series == series), None)


class State:
    """A job's folder. Made by `State.open`, closed by `close` or the end of a `with`."""

    def __init__(self, folder: Path, connection: sqlite3.Connection | None, lock: disk.Lock | None) -> None:
        self.folder = folder
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Open a folder; made if it is not there.

        Args:
            folder: on a local disk.
            read_only: to look at it, whoever works on it; nothing is made.

        Raises:
            JobStateError: another job works on it; or it is damaged, of a newer redecide, or cannot be written.
        """
        if read_only:
            return cls(folder, disk.read_only(folder), None)
        lock = disk.Lock(folder)
        try:
            state = cls(folder, disk.opened(folder), lock)
        except BaseException:
            lock.release()
            raise
        state._sweep()
        return state

    def close(self) -> None:
        """Let others in. Nothing is written: all that was said is on disk."""
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.release()
        self._connection = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, job: str, started: str, plans: Mapping[str, tuple[Plan, Mapping[str, Json]]]) -> Begun:
        """Plan a run: one window a series, each the next of its series.

        Args:
            job: its name.
            started: ISO time, UTC.
            plans: by series: what it looks at, and what it is of, as JSON for whoever goes on with it.

        Raises:
            JobStateError: a run is unfinished; or it cannot be written, and nothing is planned.

        Durability: all of it is on disk when it returns, or none.
        """
        if (open_ := self.unfinished()) is not None:
            raise JobStateError(
                f"run {open_.run} of {self.folder} is {open_.phase} and not done: finish it first"
            )
        with self._writing() as connection:
            run = connection.execute(
                "INSERT INTO runs (job, started, phase) VALUES (?, ?, 'planned')", (job, started)
            ).lastrowid
            connection.executemany(
                "INSERT INTO looks (series, night, run, place, about, range, since, until) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        series,
                        len(self.looks(series)) + 1,
                        run,
                        place,
                        json.dumps(about),
                        to_json(plan.window),
                        *_texts(plan),
                    )
                    for place, (series, (plan, about)) in enumerate(plans.items())
                ],
            )
        return self._run(int(run or 0))

    def unfinished(self) -> Begun | None:
        """Return the run that was planned and is not done; None: there is none."""
        found = self._rows("SELECT run FROM runs WHERE phase <> 'done'")
        return self._run(found[0][0]) if found else None

    def last(self) -> Begun | None:
        """Return the newest run; None: there is none."""
        found = self._rows("SELECT max(run) FROM runs")
        return self._run(found[0][0]) if found and found[0][0] else None

    def nights(self) -> Iterator[Night]:
        """Yield the nights that are done, oldest first."""
        for (text,) in self._rows("SELECT came_to FROM runs WHERE phase = 'done' ORDER BY run"):
            yield from_json(text, Night)

    def looks(self, series: str) -> tuple[Look, ...]:
        """Return what nights that are done looked at, oldest first: what `windows.plan` takes as `seen`."""
        return tuple(each.look for each in self._asked("series = ? AND phase = 'done'", series))

    def results(self, series: str) -> tuple[Candidate | Drifted, ...]:
        """Return what nights that are done came to, oldest first."""
        found = self._asked("series = ? AND phase = 'done'", series)
        return tuple(each.result for each in found if each.result is not None)

    def judged(
        self, begun: Begun, series: str, result: Candidate | Drifted, sums: pl.DataFrame | None = None
    ) -> Begun:
        """Keep what a window came to, in place of what was kept of it before.

        Args:
            begun: the run.
            series: whose window.
            result: as it shall be told.
            sums: one row a session that was looked at; None: nothing was.

        Returns:
            The run; `judged` once every window of it is.

        Durability: the sums, then the result, are on disk when it returns; or neither counts.
        """
        asked = _require(begun, series)
        name, digest = (None, None)
        if sums is not None:
            stem = f"sums-{series[:16]}-{asked.look.night:05}"
            name, digest = disk.write_sums(self.folder, stem, sums)
        with self._writing() as connection:
            connection.execute(
                "UPDATE looks SET result = ?, sums = ?, digest = ? WHERE series = ? AND night = ?",
                (to_json(result), name, digest, series, asked.look.night),
            )
            _judged(connection, begun.run)
        return self._run(begun.run)

    def drop(self, begun: Begun, series: str) -> Begun:
        """Forget a planned window that nobody asks for any more: the next run of its series looks at it."""
        asked = _require(begun, series)
        with self._writing() as connection:
            connection.execute("DELETE FROM looks WHERE series = ? AND night = ?", (series, asked.look.night))
            _judged(connection, begun.run)
        return self._run(begun.run)

    def reached(self, begun: Begun, phase: Phase, **notes: Json) -> Begun:
        """Say how far a run has come, and keep notes for whoever goes on with it.

        Raises:
            JobStateError: it was further already, or is done by `finish` only.
        """
        if phase == "done" or PHASES.index(phase) < PHASES.index(begun.phase):
            raise JobStateError(f"run {begun.run} is {begun.phase}; it cannot become {phase}")
        with self._writing() as connection:
            connection.execute("UPDATE runs SET phase = ? WHERE run = ?", (phase, begun.run))
            connection.executemany(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)",
                [(begun.run, name, json.dumps(value)) for name, value in notes.items()],
            )
        return self._run(begun.run)

    def finish(self, begun: Begun, night: Night) -> Begun:
        """Say that a run is done. From now on its windows were looked at."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET phase = 'done', came_to = ? WHERE run = ?", (to_json(night), begun.run)
            )
        self._sweep()
        return self._run(begun.run)

    def again(self) -> Begun | None:
        """Take the newest run back to `planned`, to judge the same windows once more; None: there is none.

        Until it is done again, its windows count as not looked at. A run that is not done is returned as it is.
        """
        found = self.last()
        if found is None or found.phase != "done":
            return found
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET phase = 'planned', again = again + 1 WHERE run = ?", (found.run,)
            )
            connection.execute("UPDATE looks SET result = NULL WHERE run = ?", (found.run,))
            connection.execute("DELETE FROM notes WHERE run = ?", (found.run,))
        return self._run(found.run)

    def sums(
        self, series: str, begun: Begun | None = None, *, by: Sequence[str] = SESSION
    ) -> pl.DataFrame | None:
        """Return the sums of every session that nights looked at, as the last of them found it.

        Args:
            series: whose.
            begun: a run whose own sums count, too, though it is not done; None: only nights that are.
            by: columns that name a session.

        Returns:
            One row a session: the columns of the frames, missing ones null, and `_night`, `_first`; None: there is
            none.

        Raises:
            JobStateError: a file is gone or was changed.
        """
        own = begun.run if begun is not None else 0
        rows = self._rows(
            "SELECT night, sums, digest FROM looks JOIN runs USING (run) WHERE series = ? AND sums IS NOT NULL "
            "AND result IS NOT NULL AND (phase = 'done' OR run = ?) ORDER BY night",
            series, own,
        )  # fmt: skip
        frames = [
            disk.read_sums(self.folder, name, digest).with_columns(pl.lit(night, pl.Int64).alias(NIGHT))
            for night, name, digest in rows
        ]
        if not frames:
            return None
        every = pl.concat(frames, how="diagonal_relaxed").with_columns(
            pl.col(NIGHT).min().over(by).alias(FIRST)
        )
        return every.unique(by, keep="last", maintain_order=True)

    def _run(self, run: int) -> Begun:
        (job, started, phase, again, night) = self._rows(
            "SELECT job, started, phase, again, came_to FROM runs WHERE run = ?", run
        )[0]
        notes = self._rows("SELECT name, value FROM notes WHERE run = ?", run)
        return Begun(
            run=run, job=job, started=started, phase=phase, again=again, asked=self._asked("run = ?", run),
            notes={name: json.loads(value) for name, value in notes},
            night=from_json(night, Night) if phase == "done" else None,
        )  # fmt: skip

    def _asked(self, where: str, *values: object) -> tuple[Asked, ...]:
        rows = self._rows(
            "SELECT series, night, about, range, since, until, result FROM looks JOIN runs USING (run) "  # noqa: S608
            f"WHERE {where} ORDER BY night, place",
            *values,
        )
        return tuple(
            Asked(
                series=series,
                about=json.loads(about),
                look=Look(
                    night=night,
                    range=from_json(range_, Range),
                    stretch=Stretch(_moment(since), _moment(until)),
                ),
                result=_result(result),
            )
            for series, night, about, range_, since, until, result in rows
        )

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        with disk.refused(self.folder):
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk at its end, or none."""
        if self._connection is None or self._lock is None:
            raise JobStateError(f"{self.folder} is open to be looked at only")
        with disk.refused(self.folder):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _sweep(self) -> None:
        named = {name for (name,) in self._rows("SELECT sums FROM looks WHERE sums IS NOT NULL")}
        disk.sweep(self.folder, named)


def _judged(connection: sqlite3.Connection, run: int) -> None:
    """Say that a run is judged, once every window of it is."""
    connection.execute(
        "UPDATE runs SET phase = 'judged' WHERE run = ? AND phase = 'planned' "
        "AND NOT EXISTS (SELECT 1 FROM looks WHERE looks.run = runs.run AND result IS NULL)",
        (run,),
    )


def _require(begun: Begun, series: str) -> Asked:
    found = begun.of(series)
    if found is None:
        raise JobStateError(f"run {begun.run} has no window of series {series[:12]}")
    return found


def _texts(plan: Plan) -> tuple[str | None, str | None]:
    since, until = (None if each is None else each.isoformat() for each in plan.stretch)
    return since, until


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _result(text: str | None) -> Candidate | Drifted | None:
    if text is None:
        return None
    if text.startswith('{"Candidate"'):
        return from_json(text, Candidate)
    return from_json(text, Drifted)
