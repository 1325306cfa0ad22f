"""Entries that wait for MLflow: whole or not there, oldest first, once, whoever is killed."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.workbench.runs.entries import Seen, again, entry_of, place_files, require_once
from tests.workbench.runs.stores import free_port
from workbench.errors import JobStateError, TrackingError
from workbench.runs.entry import Measure, Run
from workbench.runs.entry_files import NAME, read_entry
from workbench.runs.outbox import WHY, Outbox, Problem
from workbench.runs.sending import Sent
from workbench.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.workbench.runs.stores import Children
    from workbench.runs.entry import Entry


def writing(entry: Entry) -> Callable[[Path], Entry]:
    def prepare(folder: Path) -> Entry:
        place_files(folder)
        return entry

    return prepare


def client_of(uri: str) -> Any:
    with connect(uri) as store:
        return store.client


def left(outbox: Outbox) -> list[str]:
    """Every file in the folder but the locks."""
    every = (each for each in outbox.folder.rglob("*") if each.is_file() and each.suffix != ".lock")
    return sorted(each.relative_to(outbox.folder).as_posix() for each in every)


def bad_entry(name: str) -> Entry:
    """One that MLflow refuses at any time."""
    run = Run(key="", name="bad", measures=(Measure(name="harm?", value=1.0),))
    return again(entry_of(name), "bad", runs=(run,), traces=(), series=None)


def test_what_was_put_is_sent_in_order_and_leaves(local: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    entries = [entry_of(f"order-{number}") for number in (2, 0, 1)]
    assert [outbox.put(writing(entry)) for entry in entries] == [entry.id for entry in entries]
    assert outbox.waiting() == ("order-2-1", "order-0-1", "order-1-1")
    sent = outbox.flush(local)
    assert [each.id for each in sent] == ["order-2-1", "order-0-1", "order-1-1"]
    for entry, each in zip(entries, sent, strict=True):
        assert isinstance(each, Sent)
        require_once(client_of(local), entry, each)
    assert (outbox.waiting(), left(outbox), outbox.flush(local)) == ((), [], [])


def test_what_waits_is_whole_and_another_of_its_id_is_the_same(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    entry = entry_of("same")
    outbox.put(writing(entry))
    before = left(outbox)
    assert before == [
        f"waiting/000001-same-1/{name}" for name in (NAME, "files/plots/changed.svg", "files/report.html")
    ]
    assert read_entry(outbox.folder / "waiting" / "000001-same-1") == entry
    assert outbox.put(writing(entry)) == "same-1"
    assert left(outbox) == before


def test_an_outbox_that_is_opened_again_goes_on(local: str, tmp_path: Path) -> None:
    Outbox(tmp_path / "outbox").put(writing(entry_of("opened-1")))
    outbox = Outbox(tmp_path / "outbox")
    outbox.put(writing(entry_of("opened-2")))
    assert outbox.waiting() == ("opened-1-1", "opened-2-1")
    assert all(isinstance(each, Sent) for each in Outbox(tmp_path / "outbox").flush(local))


def test_while_nobody_answers_everything_stays(local: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    entries = [entry_of(f"away-{number}") for number in range(3)]
    for entry in entries:
        outbox.put(writing(entry))
    before = left(outbox)
    problems = outbox.flush(f"http://127.0.0.1:{free_port()}")
    assert [(each.id, each.state) for each in problems if isinstance(each, Problem)] == [
        ("away-0-1", "waiting"), ("away-1-1", "waiting"), ("away-2-1", "waiting"),
    ]  # fmt: skip
    assert "entry away-0-1 is kept and sent with the next: nobody answers at tracking_uri" in str(problems[0])
    assert left(outbox) == before
    for entry, each in zip(entries, outbox.flush(local), strict=True):
        assert isinstance(each, Sent)
        require_once(client_of(local), entry, each)


def test_what_is_refused_for_good_is_set_aside_and_blocks_nothing(local: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    good = entry_of("beside")
    outbox.put(writing(bad_entry("refused")))
    outbox.put(writing(good))
    problem, sent = outbox.flush(local)
    assert isinstance(problem, Problem)
    assert isinstance(sent, Sent)
    assert (problem.id, problem.state) == ("refused-bad", "refused")
    assert str(problem).startswith("entry refused-bad was set aside: ")
    require_once(client_of(local), good, sent)
    assert outbox.waiting() == ()
    assert "harm?" in outbox.refused()["refused-bad"]
    assert left(outbox) == [
        f"refused/refused-bad/{name}" for name in (NAME, "files/plots/changed.svg", "files/report.html", WHY)
    ]
    assert outbox.flush(local) == []
    outbox.put(writing(bad_entry("refused")))  # the same entry: it stays where it is
    assert outbox.waiting() == ()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", None])
def test_what_was_damaged_is_set_aside_with_why(damage: bytes | None, local: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.put(writing(entry_of("damaged")))
    path = outbox.folder / "waiting" / "000001-damaged-1" / NAME
    path.unlink() if damage is None else path.write_bytes(damage)
    (problem,) = outbox.flush(local)
    assert isinstance(problem, Problem)
    assert problem.state == "refused"
    assert list(outbox.refused()) == ["damaged-1"]
    assert NAME in outbox.refused()["damaged-1"]


def test_a_deleted_experiment_keeps_its_entry_and_others_go_on(local: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    entry, other = entry_of("deleted"), entry_of("kept")
    with connect(local) as store:
        experiment_id = store.experiment("deleted")
        store.client.delete_experiment(experiment_id)
    outbox.put(writing(entry))
    outbox.put(writing(other))
    problem, sent = outbox.flush(local)
    assert "is deleted" in str(problem)
    assert isinstance(sent, Sent)
    assert outbox.waiting() == ("deleted-1",)
    client_of(local).restore_experiment(experiment_id)
    (done,) = outbox.flush(local)
    assert isinstance(done, Sent)
    require_once(client_of(local), entry, done)


def test_what_cannot_be_prepared_leaves_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")

    def fails(folder: Path) -> Entry:
        (folder / "half").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outbox.put(fails)
    with pytest.raises(ValueError, match="are not there: 'files'"):
        outbox.put(lambda folder: entry_of("no-files"))  # it names files that were not written
    assert (outbox.waiting(), left(outbox)) == ((), [])


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        JobStateError, match=rf"{tmp_path}/file/outbox, where what is to be logged waits, cannot be used"
    ):
        Outbox(tmp_path / "file" / "outbox")
    outbox = Outbox(tmp_path / "outbox")
    shutil.rmtree(outbox.folder / "waiting")
    with pytest.raises(JobStateError, match="No such file"):
        outbox.put(writing(entry_of("nowhere")))
    assert list((outbox.folder / "making").iterdir()) == []


def test_a_full_disk_leaves_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path / "outbox")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(JobStateError, match="No space left on device"):
            outbox.put(writing(entry_of("full")))
    assert (outbox.waiting(), left(outbox)) == ((), [])


def test_every_file_and_name_is_synced_before_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    synced: list[int] = []
    plain, rename = os.fsync, type(tmp_path).rename

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        plain(handle)

    def renamed(self: Path, target: Path) -> Path:
        inodes = {each.stat().st_ino for each in [self, *self.rglob("*")]}
        assert inodes <= set(synced)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "rename", renamed)
    outbox.put(writing(entry_of("synced")))
    assert synced[-1] == (outbox.folder / "waiting").stat().st_ino
    assert outbox.waiting() == ("synced-1",)


# Processes that are killed, and several at once.


@pytest.mark.crash
def test_killed_while_putting_it_is_there_whole_or_not_at_all(children: Children, tmp_path: Path) -> None:
    def case(name: str) -> dict[str, Any]:
        folder = tmp_path / f"outbox-{name}"
        return {"do": "put", "folder": str(folder), "below": str(folder), "name": name}

    points = children.points(case("put"))
    there = 0
    for fatal in range(1, points + 1):
        name = f"put-{fatal}"
        children.killed(case(name), fatal)
        outbox = Outbox(tmp_path / f"outbox-{name}")
        for waiting in outbox.waiting():
            there += 1
            assert read_entry(outbox.folder / "waiting" / f"000001-{waiting}") == entry_of(name)
        outbox.put(writing(entry_of(name)))
        assert outbox.waiting() == (f"{name}-1",)
        assert list((outbox.folder / "making").iterdir()) == []  # what was left is removed
    assert 0 < there < points


@pytest.mark.crash
@pytest.mark.slow
def test_killed_while_sending_it_is_there_once_and_gone_from_the_folder(
    children: Children, local: str, tmp_path: Path
) -> None:
    def filled(name: str) -> tuple[Entry, Outbox]:
        outbox, entry = Outbox(tmp_path / name), entry_of(name)
        outbox.put(writing(entry))
        return entry, outbox

    def case(outbox: Outbox) -> dict[str, Any]:
        return {"do": "flush", "folder": str(outbox.folder), "below": str(outbox.folder), "uri": local}

    points = children.points(case(filled("flush")[1]))
    for fatal in (*range(4, points - 6, 6), *range(points - 6, points + 1)):  # the rest is that of `send`
        entry, outbox = filled(f"flush-{fatal}")
        children.killed(case(outbox), fatal)
        waited = outbox.waiting()
        sent = outbox.flush(local)
        assert [each.id for each in sent] == list(waited)
        assert (outbox.waiting(), outbox.refused()) == ((), {})
        run = Seen(client_of(local), entry.experiment).run("").info.run_id if not sent else None
        assert run is None or waited == ()
        for each in sent:
            assert isinstance(each, Sent)
            require_once(client_of(local), entry, each)
        outbox.put(writing(entry_of(f"sweep-{fatal}")))
        assert list((outbox.folder / "making").iterdir()) == []


@pytest.mark.crash
def test_processes_that_put_and_send_at_once_lose_and_double_nothing(
    children: Children, local: str, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    names = [f"race-{number}" for number in range(4)]
    puts = [{"do": "put", "folder": str(outbox.folder), "below": "-", "name": name} for name in names]
    flushes = [{"do": "flush", "folder": str(outbox.folder), "below": "-", "uri": local} for _ in range(2)]
    ends = children.run(puts[0], flushes[0], puts[1], puts[1], flushes[1], puts[2], puts[3])
    assert [end["signal"] for end in ends] == [0] * 7, ends
    assert all(end["said"].isdecimal() for end in ends), ends
    outbox.flush(local)
    assert (outbox.waiting(), outbox.refused()) == ((), {})
    for name in names:
        seen = Seen(client_of(local), name)
        assert sorted(run.data.tags.get("redecide.key", "series") for run in seen.runs) == [
            "",
            "series",
            "tool=0",
        ]
        assert len(seen.traces) == 1


def test_a_store_that_fails_twice_in_a_row_ends_it(local: str, tmp_path: Path) -> None:
    """Without a reason to stop, every night that waits would wait for its own retries."""
    outbox = Outbox(tmp_path / "outbox")
    with connect(local) as store:
        store.client.delete_experiment(store.experiment("sour"))
    for number in range(4):
        outbox.put(writing(again(entry_of("sour"), f"n{number}")))
    problems = outbox.flush(local)
    told = [str(each).rpartition(": ")[2] for each in problems]
    assert all(isinstance(each, Problem) and each.state == "waiting" for each in problems)
    assert told[2:] == ["MLflow did not take the one before it"] * 2
    with pytest.raises(TrackingError):
        read_entry(outbox.folder)
