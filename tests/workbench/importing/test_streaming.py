"""Files go through an import block by block: what comes out is the same, and memory does not hold the file."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from runtime.entities import EntityUid
from workbench.errors import MappingInvalid
from workbench.importing import import_calls, importer, records, spooling
from workbench.importing.calls import Call
from workbench.importing.endings import Ending
from workbench.importing.moments import EPOCH_US, SECOND, derived
from workbench.importing.places import Places
from workbench.importing.records import read_records
from workbench.importing.spooling import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.importing.calls import Place

MAPPING: dict[str, Any] = {
    "version": 1,
    "call": {"session": "{run}", "tool": "{tool}", "tenant": "acme", "args": "args", "order": "n"},
    "time": {"at": "at"},
    "outcome": {"result": "out"},
    "labels": [{"name": "said", "column": "said"}],
}


def row(number: int, pad: str = "") -> dict[str, Any]:
    """Calls of three runs, their steps in descending order; one in seven cannot be read, one in eleven misfits."""
    args: dict[str, Any] = {
        "id": f"o-{number % 5}",
        "cents": "much" if number % 11 == 10 else number,
        "pad": pad,
    }
    return {
        "run": f"r{number % 3}", "tool": "pay" if number % 2 else "look", "n": 1_000 - number,
        "at": None if number % 4 == 0 else 1_700_000_000 + 7 * (number % 13), "out": f"done {number}", "said": "x",
        "args": "{" if number % 7 == 6 else json.dumps(args),
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, row_group_size=4)
    else:
        path.write_text("".join(f"{json.dumps(each)}\n\n" for each in rows))
    return path


def chain(lake: Path) -> dict[str, list[dict[str, Any]]]:
    opened = wb.open(str(lake))
    return {
        name: getattr(opened, name).sort("position").collect().to_dicts()
        for name in ("decisions", "outcomes")
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_blocks_of_any_size_make_the_same_lake(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / f"calls{suffix}", [row(number) for number in range(60)])
    whole = import_calls(file, MAPPING, tmp_path / "whole")
    assert (whole.mapped, whole.rejected) == (47, {"args_unreadable": 8, "mixed_types": 5})
    for module in (records, importer):
        monkeypatch.setattr(module, "BLOCK", 3)
    parts = import_calls(file, MAPPING, tmp_path / "parts")
    assert parts.as_dict() | {"lake": 0, "rejected_file": 0} == whole.as_dict() | {
        "lake": 0,
        "rejected_file": 0,
    }
    assert chain(tmp_path / "parts") == chain(tmp_path / "whole")
    aside = pl.read_parquet(tmp_path / "whole-rejected.parquet")
    assert pl.read_parquet(tmp_path / "parts-rejected.parquet").equals(aside)
    assert aside["row"].to_list() == sorted(aside["row"])
    for number, told in aside.select("row", "record").iter_rows():
        assert json.loads(told) == row(number - 1), "the row itself"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_order_is_that_of_the_chain(tmp_path: Path) -> None:
    """The chain's name, of which all ids are made, is what an import without a spool gave: order and times, too."""
    file = write(tmp_path / "calls.jsonl", [row(number) for number in range(60)])
    found = import_calls(file, MAPPING, tmp_path / "lake")
    rows = chain(tmp_path / "lake")
    last = max((each for table in rows.values() for each in table), key=lambda each: each["position"])
    assert (last["writer"], last["position"]) == GOLDEN
    assert found.sessions == 3


GOLDEN = ("import-df8493002c8b1b19", 97)


def test_memory_does_not_hold_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times the bytes a call, hardly more memory: 400 calls of 25 KB are 10 MB."""
    for module in (records, importer):
        monkeypatch.setattr(module, "BLOCK", 10)

    def peak(pad: int) -> int:
        file = write(tmp_path / f"{pad}.jsonl", [row(number, "x" * pad) for number in range(400)])
        tracemalloc.start()
        import_calls(file, MAPPING, None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(250), peak(25_000)
    assert large - small < 5_000_000, f"{small:,} bytes, then {large:,}: the file grew by 10 MB"


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        file = write(tmp_path / f"calls{suffix}", [row(number) for number in range(9)])
        found = read_records(file, {})
        assert sum(map(len, found.blocks())) == len(found) == 9
        write(file, [row(number) for number in range(10)])
        with pytest.raises(MappingInvalid, match="was changed while it was read"):
            next(found.blocks())
        file.unlink()
        with pytest.raises(MappingInvalid, match="no file at"):
            next(found.blocks())


def test_lines_end_as_text_files_do(tmp_path: Path) -> None:
    """Windows' ends, a lone carriage return, separators of Unicode inside a text, blanks; no end at the end."""
    file = tmp_path / "calls.jsonl"
    file.write_bytes('{"a": 1}\r\n\r\n{"a":\r2}\n \u00a0\n{"a": "x\u2028y\x85"}'.encode())
    lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = read_records(file, {})
    assert [*found.texts(range(len(found)))] == lines
    assert [isinstance(each, dict) for each in next(found.blocks())] == [True, False, False, True]
    assert [*found.columns] == ["a"]
    file.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(MappingInvalid, match=r"cannot be read: .*utf-8"):
        read_records(file, {})


PLACES: st.SearchStrategy[Place] = st.one_of(
    st.none(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2**53 + 1, float(2**53), 2**70, -(2**63), -1e300, float("inf")])
)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 3), PLACES, st.booleans(), st.none() | st.integers(0, 4)), max_size=20),
    st.data(),
)
def test_order_as_by_a_slow_reference(
    rows: list[tuple[int, Place, bool, int | None]], data: st.DataObject
) -> None:
    places, calls = Places(), []
    for number, (session, place, mapped, at) in enumerate(rows):
        places.add(("acme", f"s{session}"), place)
        if mapped:
            places.call(number, at, None)
            calls.append(number)
    aside = data.draw(st.lists(st.integers(0, len(calls) - 1), unique=True)) if calls else []
    found = places.ordered(aside)
    told = [
        tuple(map(int, (calls[entry], at, step, derived_)))
        for entry, _, at, step, derived_ in zip(*(column.tolist() for column in found), strict=True)
    ]
    assert told == slow(rows, {number for entry, number in enumerate(calls) if entry not in aside})


def slow(rows: list[tuple[int, Place, bool, int | None]], kept: set[int]) -> list[tuple[int, int, int, int]]:
    """Number, time, step and whether the time is derived: session by session, in Python's own numbers."""
    sessions: dict[int, list[tuple[Place, int]]] = {}
    for number, (session, place, _, _) in enumerate(rows):
        sessions.setdefault(session, []).append((place, number))
    ordered, before = [], 0
    for index, mine in enumerate(sessions.values()):
        known = [(place, number) for place, number in mine if place is not None]
        numbers = [number for _, number in (sorted(known) if len(known) == len(mine) else mine)]
        steps = [(step, number) for step, number in enumerate(numbers) if number in kept]
        times = derived([rows[number][3] for _, number in steps], None, EPOCH_US + before * SECOND)
        latest = 0
        for (step, number), time in zip(steps, times, strict=True):
            latest = max(latest, time)
            ordered.append((latest, index, step, (number, time, step, int(rows[number][3] is None))))
        before += len(mine)
    return [told for *_, told in sorted(ordered)]


def test_a_spool_gives_back_what_it_took_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "_BUFFER", 9_000)
    monkeypatch.setattr(spooling, "_LEAST", 2_000)
    uid = EntityUid("Agent", "bot")
    with closing(Spool(None)) as spool:
        made = []
        for number in range(40):
            args: dict[str, Any] = {"pad": "é" * (number * 400 % 9_999), "n": number}
            call = Call(
                number=number, key=("acme", "s"), principal=uid, on_behalf_of=None, tool="pay", args=args,
                text=json.dumps(args), ending=Ending(status=None, columns={}), at=None, start=None, took=number,
            )  # fmt: skip
            made.append(call)
            spool.add(call, {"row": number})
        for order in (range(40), range(39, -1, -1), range(0, 40, 3), [3, 3, 0, 39, 1, 2, 3]):
            assert [each.call for each in spool.calls(order)] == [made[number] for number in order]
            assert [each.record["row"] for each in spool.calls(order)] == [*order]
            assert [*spool.args(order)] == [made[number].args for number in order]
            assert [each.split(b"\0")[:3] for each in spool.told(order)] == [[b"acme", b"s", b"pay"]] * len(
                order
            )
