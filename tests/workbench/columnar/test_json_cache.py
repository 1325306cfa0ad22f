"""The cache of frames: same answer with and without, whatever happens to the files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import polars as pl
import pytest

from workbench.columnar.json_cache import cached

if TYPE_CHECKING:
    from pathlib import Path

FRAME = pl.DataFrame({"a": [1, None, 3], "l": [["x"], [], None], "s": ["é", None, "z" * 100]})


class Maker:
    def __init__(self, frame: pl.DataFrame = FRAME) -> None:
        self.calls = 0
        self.frame = frame

    def __call__(self) -> pl.DataFrame:
        self.calls += 1
        return self.frame


def test_made_once_by_key(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert cached(tmp_path / "new" / "folder", "k", make).equals(FRAME)
    assert make.calls == 1
    cached(tmp_path / "new" / "folder", "other", make)
    assert make.calls == 2


def test_no_folder_no_cache(tmp_path: Path) -> None:
    make = Maker()
    assert cached(None, "k", make).equals(FRAME)
    assert cached(None, "k", make).equals(FRAME)
    assert make.calls == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -1, -20])
def test_a_damaged_file_is_made_anew(tmp_path: Path, keep: int) -> None:
    make = Maker()
    cached(tmp_path, "k", make)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert cached(tmp_path, "k", make).equals(FRAME)
    assert make.calls == 2
    assert cached(tmp_path, "k", make).equals(FRAME)
    assert make.calls == 2


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    make = Maker()
    cached(tmp_path, "k", make)
    (path,) = tmp_path.iterdir()
    whole = bytearray(path.read_bytes())
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert cached(tmp_path, "k", make).equals(FRAME)
    assert make.calls == 1 + len(range(0, len(whole), 97))


def test_something_else_in_its_place_is_made_anew(tmp_path: Path) -> None:
    make = Maker()
    cached(tmp_path, "k", make)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"\x00\xff" * 5000)
    assert cached(tmp_path, "k", make).equals(FRAME)
    assert make.calls == 2


def test_a_frame_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> pl.DataFrame:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached(tmp_path, "k", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_bounded_and_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    make = Maker()
    cached(tmp_path, "0", make)
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    for number in range(1, 4):
        cached(tmp_path, str(number), make)
    for age, found in enumerate(sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns)):
        os.utime(found, ns=(age, age))
    cached(tmp_path, "0", make)  # used again: now the newest
    assert make.calls == 4
    cached(tmp_path, "4", make, most_bytes=3 * size)
    assert len(list(tmp_path.iterdir())) == 3
    cached(tmp_path, "0", make)
    cached(tmp_path, "4", make)
    assert make.calls == 5
    cached(tmp_path, "1", make)
    assert make.calls == 6


def test_a_folder_that_cannot_be_made_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    make = Maker()
    assert cached(tmp_path / "file" / "below", "k", make).equals(FRAME)
