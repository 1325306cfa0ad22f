"""What a job keeps between nights: whole, once, one job at a time, and refused where it is not what was written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import JobStateError
from workbench.regressing import state_disk
from workbench.regressing.result import Candidate, Drifted, GateLook, Night, Range, Reopened
from workbench.regressing.state import PHASES, State, series_key
from workbench.regressing.stored import from_json, to_json
from workbench.regressing.windows import ALWAYS, TOUCHED, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD = Path(__file__).parent / "state_child.py"
STRIDE = 193
"""Of so many lines of the state's code, a process dies at one; no divisor of any loop in it."""


def planned(to: int = 10) -> Plan:
    window = Range(after={"a": to - 10}, to={"a": to}, decisions=10, sessions=3, first=None, last=None)
    return Plan(window=window, stretch=ALWAYS, touched=pl.DataFrame(schema=TOUCHED), seen=(), chosen=None)


def came_to(name: str, night: int = 1, **given: Any) -> Candidate:
    return Candidate(
        name=name, bundle="b", version="1", baseline="recorded", baseline_version=None, verdict="ship", night=night,
        window=planned().window, **given,
    )  # fmt: skip


def sums(*sessions: str, low: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame({"tenant": "t", "session_id": list(sessions), "harm.low": low})


def a_night(state: State, night: int, frame: pl.DataFrame | None, key: str = "k") -> Night:
    begun = state.begin("job", f"night {night}", {key: (planned(night * 10), {"name": "x"})})
    begun = state.judged(begun, key, came_to("x", night), frame)
    for phase in PHASES[2:-1]:
        begun = state.reached(begun, phase)
    told = Night(job="job", lake="l", started=begun.started, seconds=0.0, candidates=(came_to("x", night),))
    assert state.finish(begun, told).night == told
    return told


def test_nights_come_back_as_they_were_told(tmp_path: Path) -> None:
    """Reopened each time, as each night is a process of its own."""
    told = []
    for night in (1, 2, 3):
        with State.open(tmp_path / "of" / "mine") as state:
            assert [each.night for each in state.looks("k")] == list(range(1, night))
            told.append(a_night(state, night, sums(f"s{night}")))
    with State.open(tmp_path / "of" / "mine", read_only=True) as state:
        assert list(state.nights()) == told
        assert [look.range for look in state.looks("k")] == [
            planned(night * 10).window for night in (1, 2, 3)
        ]
        assert state.results("k") == tuple(came_to("x", night) for night in (1, 2, 3))
        assert state.unfinished() is None
        assert state.looks("another") == ()
        with pytest.raises(JobStateError, match="to be looked at only"):
            state.begin("job", "now", {})


def test_of_a_session_the_night_that_looked_last_holds(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        assert state.sums("k") is None
        a_night(state, 1, sums("a", "b", low=1.0))
        a_night(state, 2, sums("b", "c", low=2.0))
        a_night(state, 3, None)
        begun = state.begin("job", "night 4", {"k": (planned(40), {})})
        begun = state.judged(begun, "k", came_to("x", 4), sums("c", low=4.0))
        done, mine = state.sums("k"), state.sums("k", begun)
    assert done is not None
    assert mine is not None
    assert rows(done) == [("a", 1.0, 1, 1), ("b", 2.0, 2, 1), ("c", 2.0, 2, 2)]
    assert rows(mine) == [("a", 1.0, 1, 1), ("b", 2.0, 2, 1), ("c", 4.0, 4, 2)]


def rows(found: pl.DataFrame) -> list[tuple[Any, ...]]:
    return found.select("session_id", "harm.low", "_night", "_first").sort("session_id").rows()


def test_a_run_is_finished_before_another_is_planned(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        begun = state.begin("job", "one", {name: (planned(), {"name": name}) for name in ("b", "a")})
        assert [each.series for each in begun.asked] == ["b", "a"], "in the order they were planned in"
        with pytest.raises(JobStateError, match=r"run 1 of .* is planned and not done: finish it first"):
            state.begin("job", "two", {})
        begun = state.judged(begun, "b", came_to("b"), sums("s"))
        assert begun.phase == "planned"
        assert state.sums("b") is None, "a night that is not done does not count"
    with State.open(tmp_path) as state:
        assert state.unfinished() == begun
        begun = state.judged(begun, "a", came_to("a"))
        assert begun.phase == "judged"
        begun = state.reached(begun, "logged", runs={"b": ["1", None]})
        assert begun.notes == {"runs": {"b": ["1", None]}}
        with pytest.raises(JobStateError, match="run 1 is logged; it cannot become judged"):
            state.reached(begun, "judged")
        with pytest.raises(JobStateError, match="cannot become done"):
            state.reached(begun, "done")
        with pytest.raises(JobStateError, match="no window of series c"):
            state.judged(begun, "c", came_to("c"))


def test_a_window_that_nobody_asks_for_any_more_is_dropped(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        begun = state.begin("job", "one", {name: (planned(), {}) for name in ("a", "b")})
        begun = state.judged(begun, "a", came_to("a"))
        begun = state.drop(begun, "b")
        assert begun.phase == "judged"
        state.finish(begun, Night(job="job", lake="l", started="", seconds=0.0))
        assert state.looks("b") == ()
        assert len(state.looks("a")) == 1


def test_a_night_is_judged_once_more_in_place_of_what_it_came_to(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        assert state.again() is None
        a_night(state, 1, sums("a"))
        a_night(state, 2, sums("b", low=1.0))
        before = {path.name for path in tmp_path.glob("sums-*")}
        begun = state.again()
        assert begun is not None
        assert (begun.phase, begun.again, begun.asked[0].look.night) == ("planned", 1, 2)
        assert [each.night for each in state.looks("k")] == [1], "its window is looked at again"
        assert state.again() == begun, "asked twice, it is begun once"
        begun = state.judged(begun, "k", came_to("x", 2, changed=7), sums("b", low=9.0))
        state.finish(begun, Night(job="job", lake="l", started="", seconds=0.0))
        found = state.sums("k")
        assert found is not None
        assert rows(found) == [("a", 1.0, 1, 1), ("b", 9.0, 2, 2)]
        assert len(state.looks("k")) == len(before) == len(list(tmp_path.glob("sums-*"))) == 2
        assert before != {path.name for path in tmp_path.glob("sums-*")}, "what was replaced is gone"


def test_a_series_is_what_makes_nights_comparable() -> None:
    assert series_key({"a": 1, "b": [2]}) == series_key({"b": [2], "a": 1})
    assert series_key({"a": 1}) != series_key({"a": 2})


def test_one_job_at_a_time_and_it_is_told_which(tmp_path: Path) -> None:
    """Also from another process, and free as soon as that one is gone, however it goes."""
    code = f"""
import sys
from pathlib import Path
from workbench.regressing.state import State
state = State.open(Path({str(tmp_path)!r}))
print("open", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(
        JobStateError, match=rf"another job is at work on .*: process {child.pid} on .*; wait for it"
    ):
        State.open(tmp_path)
    with State.open(tmp_path, read_only=True) as state:
        assert state.last() is None
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    child.stdout.close()
    with State.open(tmp_path) as state:
        assert state.unfinished() is None


@pytest.mark.crash
def test_killed_at_any_line_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """A process dies at every `STRIDE`-th line of the state's code, another goes on; both nights come out the same."""
    with children() as run:
        ended, steps = run({"folder": str(tmp_path / "whole"), "nights": 2})
        assert (ended, steps > 10 * STRIDE) == (0, True)
        wanted = dump(tmp_path / "whole")
        for fatal in range(1, steps, STRIDE):
            folder = tmp_path / f"at-{fatal}"
            assert run({"folder": str(folder), "nights": 2, "fatal": fatal})[0] == signal.SIGKILL
            again = {"folder": str(folder), "nights": 2, "fatal": steps // 7}
            run(again)  # dies once more, further on, unless it was all but done
            assert run({"folder": str(folder), "nights": 2})[0] == 0
            assert dump(folder) == wanted, f"killed at line {fatal}"
            shutil.rmtree(folder)


class children:  # noqa: N801 - reads as a function
    """One process that forks others; see `state_child`."""

    def __enter__(self) -> Callable[[dict[str, Any]], list[int]]:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self.run

    def run(self, case: dict[str, Any]) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        found: list[int] = json.loads(self.process.stdout.readline())
        return found

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


def dump(folder: Path) -> dict[str, Any]:
    """All that a job sees of its state, and the files there are."""
    with State.open(folder) as state:
        last = state.last()
        assert last is not None
        every = {series: state.sums(series) for series in ("candidate-a", "candidate-b", "drift")}
        return {
            "nights": list(state.nights()),
            "looks": {series: state.looks(series) for series in every},
            "sums": {series: None if each is None else each.rows() for series, each in every.items()},
            "last": last,
            "files": sorted(path.name for path in folder.glob("sums-*")),
        }


def test_a_row_is_committed_after_what_it_names_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, then its name, then the row: in that order, each synced."""
    seen: list[str] = []
    sync, write = os.fsync, Path.replace

    def synced(handle: int) -> None:
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        sync(handle)

    def moved(self: Path, target: Path) -> Path:
        seen.append("name")
        return write(self, target)

    with State.open(tmp_path) as state:
        begun = state.begin("job", "one", {"k": (planned(), {})})
        assert state._connection is not None
        state._connection.set_trace_callback(lambda statement: seen.append(statement.split()[0]))
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", moved)
        state.judged(begun, "k", came_to("x"), sums("a"))
        monkeypatch.undo()
        (level,) = state._connection.execute("PRAGMA synchronous").fetchone()
    assert level == 2, "FULL: a commit is on disk when it returns"
    assert seen[: seen.index("COMMIT") + 1] == [
        "file",
        "name",
        "folder",
        "BEGIN",
        "UPDATE",
        "UPDATE",
        "COMMIT",
    ]


def test_files_of_a_job_that_died_are_swept(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        a_night(state, 1, sums("a"))
    kept = {path.name for path in tmp_path.glob("sums-*")}
    for name in ("sums-0000-00001-00.parquet", ".unfinished-x"):
        (tmp_path / name).write_bytes(b"half")
    with State.open(tmp_path) as state:
        assert state.sums("k") is not None
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(("state", "lock"))} == kept


def damaged(folder: Path) -> Iterator[tuple[str, str]]:
    """Damage the state in one way after the other: what was done, and what is told of it."""
    database = folder / "state.db"
    whole = database.read_bytes()
    database.write_bytes(b"no database at all" * 100)
    yield "garbage", "file is not a database; restore it from a copy"
    database.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    yield "zeroed", "restore it from a copy"
    database.write_bytes(whole)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE meta SET value = '2'")
    connection.close()
    yield "newer", r"a newer redecide wrote .* \(version 2, this one reads 1\); upgrade redecide"
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    yield "other", "is no state of a job, or is damaged; nothing was written to it"


def test_what_is_damaged_or_newer_is_refused_and_left_alone(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        a_night(state, 1, sums("a"))
    for what, why in damaged(tmp_path):
        before = (tmp_path / "state.db").read_bytes()
        with pytest.raises(JobStateError, match=why):
            State.open(tmp_path)
        with pytest.raises(JobStateError):
            list(State.open(tmp_path, read_only=True).nights())
        assert (tmp_path / "state.db").read_bytes() == before, what


def test_sums_that_were_changed_or_are_gone_are_refused(tmp_path: Path) -> None:
    with State.open(tmp_path) as state:
        a_night(state, 1, sums("a"))
        (path,) = tmp_path.glob("sums-*")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(JobStateError, match="was changed since it was written: restore it from a copy"):
            state.sums("k")
        path.unlink()
        with pytest.raises(JobStateError, match="No such file"):
            state.sums("k")


def test_a_disk_that_takes_no_more_changes_nothing(tmp_path: Path) -> None:
    """In a child that may not write files beyond a size, which is how a full disk looks to it."""
    with State.open(tmp_path) as state:
        a_night(state, 1, sums("a"))
        begun = state.begin("job", "two", {"k": (planned(20), {})})
    code = f"""
import resource, signal
from dataclasses import replace
from pathlib import Path
from workbench.errors import JobStateError
from workbench.regressing.state import State
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = State.open(Path({str(tmp_path)!r}))
wide = replace(state.results("k")[0], headline=tuple(f"sentence {{at}}" for at in range(20_000)))
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
try:
    state.judged(state.unfinished(), "k", wide)
except JobStateError as exc:
    print(exc)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "is the disk full? nothing was changed" in told
    with State.open(tmp_path) as state:
        assert state.unfinished() == begun
        assert state.judged(begun, "k", came_to("x", 2)).phase == "judged"


def test_a_folder_that_cannot_be_written_is_told() -> None:
    """As another user than the one who owns it."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        with State.open(folder) as state:
            a_night(state, 1, None)
        before = (folder / "state.db").read_bytes()
        code = f"""
import os
from pathlib import Path
from workbench.errors import JobStateError
from workbench.regressing.state import State
if os.getuid() == 0:
    os.setuid(65534)
else:
    os.chmod({str(folder)!r}, 0o555); os.chmod({str(folder / "lock")!r}, 0o444)
for place in ({str(folder)!r}, {str(folder / "new")!r}):
    try:
        State.open(Path(place))
    except JobStateError as exc:
        print(exc)
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        told = ran.stdout.splitlines()
        assert len(told) == 2, ran.stderr
        assert all("cannot be used: Permission denied; nothing was changed" in each for each in told)
        assert (folder / "state.db").read_bytes() == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


# Values as JSON and back.

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NUMBERS = st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2)
POSITIONS = st.dictionaries(TEXT, st.integers(0, 2**60), max_size=2)
RANGES = st.builds(
    Range, after=POSITIONS, to=POSITIONS, decisions=st.integers(0), sessions=st.integers(0), first=st.none() | TEXT,
    last=st.none() | TEXT,
)  # fmt: skip
GATES = st.builds(
    GateLook, text=TEXT, quantity=TEXT, state=st.sampled_from(["met", "open"]), level=st.floats(0, 1), method=TEXT,
    sessions=st.integers(0), why=TEXT,
    **dict.fromkeys(("low", "high", "lower", "upper"), st.none() | st.floats(allow_nan=False)),
)  # fmt: skip
ROWS = st.lists(st.dictionaries(TEXT, JSON, max_size=2), max_size=2).map(tuple)
TEXTS = st.lists(TEXT, max_size=2).map(tuple)
REOPENED = st.builds(
    Reopened, night=st.integers(1), sessions=st.integers(0), labels=st.integers(0), outcomes=st.integers(0),
    decisions=st.integers(0), measures=NUMBERS, watermark=st.integers(0),
)  # fmt: skip
CANDIDATES = st.builds(
    Candidate, name=TEXT, bundle=TEXT, version=st.none() | TEXT, baseline=TEXT, baseline_version=st.none() | TEXT,
    verdict=st.sampled_from(["ship", "could not run"]), night=st.integers(0), window=st.none() | RANGES,
    reopened=st.lists(REOPENED, max_size=2).map(tuple), gates=st.lists(GATES, max_size=2).map(tuple), numbers=NUMBERS,
    headline=TEXTS, examples=ROWS, scores=NUMBERS, notes=TEXTS, files=st.none() | TEXT, run_id=st.none() | TEXT,
)  # fmt: skip
DRIFTED = st.builds(
    Drifted, verdict=st.sampled_from(["ship", "inconclusive"]), night=st.integers(1), before=RANGES, after=RANGES,
    gates=st.lists(GATES, max_size=1).map(tuple), rows=ROWS, uncovered=ROWS, numbers=NUMBERS, headline=TEXTS,
)  # fmt: skip
NIGHTS = st.builds(
    Night, job=TEXT, lake=TEXT, started=TEXT, seconds=st.floats(0, 1e6),
    candidates=st.lists(CANDIDATES, max_size=2).map(tuple), drift=st.none() | DRIFTED, problems=TEXTS,
    outputs=st.dictionaries(TEXT, TEXT, max_size=2),
)  # fmt: skip


@given(night=NIGHTS)
def test_a_night_comes_back_from_json_as_it_was(night: Night) -> None:
    text = to_json(night)
    assert from_json(text, Night) == night
    assert to_json(from_json(text, Night)) == text
    json.loads(text, parse_constant=pytest.fail)


def test_json_of_another_shape_or_of_a_newer_redecide_is_refused() -> None:
    good = json.loads(to_json(came_to("x")))
    newer = good | {"version": 2}
    stray = {"version": 1, "Candidate": good["Candidate"] | {"colour": "red"}}
    lacking = {"version": 1, "Candidate": {"name": "x"}}
    for given_, why in (
        ("{", "is no JSON"),
        ("[1]", "is no Candidate"),
        (json.dumps({"Candidate": {}}), "is no Candidate"),
        (json.dumps({"version": 1, "Night": {}}), "Candidate is None"),
        (json.dumps(newer), r"a newer redecide wrote this Candidate \(version 2"),
        (json.dumps(stray), "Candidate has `colour`"),
        (json.dumps(lacking), "Candidate has no `bundle`"),
    ):
        with pytest.raises(JobStateError, match=why):
            from_json(given_, Candidate)
    infinite = replace(came_to("x"), numbers={"a": float("inf"), "b": float("-inf")})
    assert from_json(to_json(infinite), Candidate) == infinite
    assert len(fields(Candidate)) == len(good["Candidate"])


def test_the_state_is_a_file_that_any_sqlite_reads(tmp_path: Path) -> None:
    """Evidence is not locked into our own reader."""
    with State.open(tmp_path) as state:
        a_night(state, 1, sums("a"))
    with sqlite3.connect(tmp_path / state_disk.FILE) as connection:
        found = connection.execute(
            "SELECT job, phase, json_extract(came_to, '$.Night.job') FROM runs"
        ).fetchall()
    connection.close()
    assert found == [("job", "done", "job")]
