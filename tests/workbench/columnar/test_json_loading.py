"""When the compiled pass is loaded: only if it pays, with no one waiting for a compiler, and not if it reads wrongly."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
import polars as pl
import pytest

from runtime.schema import Attribute, Primitive, Record
from workbench.columnar import json_loading, json_native, json_scan
from workbench.columnar.json_columns import read_typed
from workbench.columnar.json_loading import Loader, checked, load
from workbench.columnar.json_native import folders, kept, linked, made
from workbench.columnar.json_program import GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXTS = pl.Series(["x" * 100] * 10)


def fake(_: Any) -> int:
    return 0


class Loads:
    """Stands for `load`: `kept` is found at once, `compiled` made; counts what was asked for."""

    def __init__(self, kept: Any = None, compiled: Callable[[], Any] = lambda: fake) -> None:
        self.kept, self.compiled = kept, compiled
        self.asked: list[bool] = []

    def __call__(self, *, compiles: bool) -> Any:
        self.asked.append(compiles)
        return self.kept or (self.compiled() if compiles else None)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Loads], Loads]:
    def use(found: Loads) -> Loads:
        monkeypatch.setattr(json_loading, "load", found)
        monkeypatch.setattr(json_loading, "checked", lambda kernel: kernel)
        monkeypatch.setattr(json_loading, "LOADS", 2_500)
        monkeypatch.setattr(json_loading, "COMPILES", 4_500)
        return found

    return use


def test_it_is_loaded_once_enough_was_read(loads: Callable[[Loads], Loads]) -> None:
    asked, loader = loads(Loads(kept=fake)), Loader()
    assert [loader.kernel_for(TEXTS) for _ in range(4)] == [None, None, fake, fake]
    assert loader.kernel_for(TEXTS[:1]) is fake
    assert asked.asked == [False]


def test_nobody_waits_for_the_compiler(loads: Callable[[Loads], Loads]) -> None:
    begun, over = threading.Event(), threading.Event()

    def compiled() -> Any:
        begun.set()
        assert over.wait(60)
        return fake

    asked, loader = loads(Loads(compiled=compiled)), Loader()
    assert [loader.kernel_for(TEXTS) for _ in range(4)] == [None] * 4
    assert asked.asked == [False]
    assert [loader.kernel_for(TEXTS) for _ in range(3)] == [None] * 3
    assert begun.wait(60)
    over.set()
    assert loader.loaded() is fake
    assert loader.kernel_for(TEXTS) is fake
    assert asked.asked == [False, True]


@pytest.mark.parametrize("error", [ImportError("no numba"), RuntimeError("cannot"), SystemError("odd")])
def test_without_it_texts_are_read_all_the_same(
    loads: Callable[[Loads], Loads], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> Any:
        raise error

    asked, loader = loads(Loads(compiled=fail)), Loader()
    monkeypatch.setattr(json_scan, "LOADER", loader)
    texts = pl.Series([f'{{"n":{i}}}' for i in range(1_000)])
    for _ in range(3):
        found = read_typed(texts, Record({"n": Attribute(Primitive("Long"))}), form="arguments")
        assert found.columns["0 n"].to_list() == list(range(1_000))
    assert loader.loaded() is None
    assert loader.why_not == f"{type(error).__name__}: {error}"
    assert asked.asked == [False, True]


def test_a_kernel_that_reads_otherwise_is_refused() -> None:
    kernel = load(compiles=True)
    assert kernel is not None
    assert checked(kernel) is kernel

    def wrong_number(given: Any) -> int:
        used = kernel(given)
        ctypes.c_int64.from_address(int(given[GIVEN.index("ints")])).value += 1  # of the first row
        return used

    def too_sure(given: Any) -> int:
        used = kernel(given)
        ctypes.c_uint8.from_address(int(given[GIVEN.index("sure")]) + 5).value = 1
        return used

    for liar in (fake, wrong_number, too_sure):
        with pytest.raises(RuntimeError, match="does not read what it must"):
            checked(liar)


@pytest.fixture
def code() -> bytes:
    return kept() or made()


def test_a_damaged_file_is_made_again(code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    monkeypatch.setattr(json_native, "folders", lambda: [folder])
    monkeypatch.setattr(json_native, "_compiled", lambda: code)
    assert kept() is None
    assert made() == code
    (file,) = folder.iterdir()
    assert kept() == code
    held = bytearray(file.read_bytes())
    for place in (0, 40, len(held) - 1):
        file.write_bytes(held[:place] + bytes([held[place] ^ 1]) + held[place + 1 :])
        assert kept() is None
    file.write_bytes(held[:-1])
    assert kept() is None
    assert made() == code == kept()
    assert [each.name for each in folder.iterdir()] == [file.name]


def test_a_folder_that_takes_nothing_is_passed_over(
    code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed where only root may write: the user's cache folder. Neither: compiled, and not kept."""
    monkeypatch.setattr(json_native, "_compiled", lambda: code)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(json_native, "folders", lambda: [tmp_path / "file", tmp_path / "own"])
    assert made() == code
    assert kept() == code
    monkeypatch.setattr(json_native, "folders", lambda: [tmp_path / "file"])
    assert made() == code
    assert kept() is None


def test_where_files_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = folders()
    assert first.name == "__pycache__"
    assert second == tmp_path / "redecide"


def test_the_file_is_named_for_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    named = json_native._file.__wrapped__
    name = named()
    assert name == named() == json_native._file()
    monkeypatch.setattr(json_native, "version", lambda name: f"another {name}")
    assert named() != name


def test_code_that_needs_others_is_not_kept(code: bytes) -> None:
    module = llvm.parse_assembly(
        f"declare i64 @PyLong_AsLongLong(ptr)\n"
        f"define i32 @{json_native.NAME}(ptr %r, ptr %e, i64 %g) {{\n"
        f"  %found = call i64 @PyLong_AsLongLong(ptr %r)\n  ret i32 0\n}}\n"
    )
    json_native._prepare()
    with pytest.raises(RuntimeError, match="needs PyLong_AsLongLong"):
        json_native._alone(module)
    assert callable(linked(code))


def test_reading_with_it_does_not_import_numba(code: bytes) -> None:
    """Which costs more than it saves to all but long runs."""
    assert code
    script = """
import sys
from workbench.columnar.json_loading import LOADER
assert "llvmlite" not in sys.modules
assert LOADER.loaded() is not None, LOADER.why_not
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
