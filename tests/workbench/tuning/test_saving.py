from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.bundle import Bundle, load_bundle
from workbench.errors import TuningRefused
from workbench.shipped import shipped
from workbench.tuning import saving
from workbench.tuning.saving import free_name, named_beside, save_bundle

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(shipped("support-desk/candidate"))


def test_what_is_saved_is_the_version(bundle: Bundle, tmp_path: Path) -> None:
    saved = save_bundle(bundle, tmp_path / "deep" / "desk-2")
    assert load_bundle(saved).version == bundle.version
    assert saved.is_absolute()
    assert {path.name for path in saved.iterdir()} == set(bundle.files)
    assert [path.name for path in saved.parent.iterdir()] == ["desk-2"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_ever_written_over(bundle: Bundle, tmp_path: Path, make: Callable[[Path], object]) -> None:
    target = tmp_path / "desk"
    make(target)
    with pytest.raises(TuningRefused, match="exists; a version is never written over"):
        save_bundle(bundle, target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_appears_meanwhile_stays_as_it_is(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "desk"

    def first(*_: object) -> None:
        target.mkdir()
        (target / "theirs").write_text("mine")

    monkeypatch.setattr(saving, "_require_same", first)
    with pytest.raises(TuningRefused, match="nothing was saved"):
        save_bundle(bundle, target)
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_written_whole_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calls = iter([None, None])

    def sync(_: int) -> None:
        if next(calls, error) is error:
            raise error

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises((TuningRefused, KeyboardInterrupt)):
        save_bundle(bundle, tmp_path / "desk")
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_reads_otherwise_is_not_saved(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "leaving", lambda text: text.replace("5000", "6000"))
    with pytest.raises(TuningRefused, match="reads as version"):
        save_bundle(bundle, tmp_path / "desk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "  ", ".", "..", ".hidden", "a/b", "/etc/x", "a\\b", "a\u202eb", "a\nb", "a" * 101, "a\0b"]
)
def test_a_name_from_the_view_is_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(TuningRefused):
        named_beside(tmp_path, name)


def test_a_plain_name_is_a_folder_beside(tmp_path: Path) -> None:
    assert named_beside(tmp_path, " desk 2 ") == tmp_path / "desk 2"


def test_a_free_name_counts_on(tmp_path: Path) -> None:
    for taken in ("desk-2", "desk-3"):
        (tmp_path / taken).mkdir()
    assert free_name(tmp_path, "desk") == "desk-4"
    assert free_name(tmp_path, "desk-3") == "desk-4"
    assert free_name(tmp_path, "desk-v") == "desk-v-2"
