"""Saving a tuned bundle: as a new folder, whole or not at all, and never over anything.

One rule: a folder that appears holds the version it says. The files are written beside their place, read back as a
bundle, held against the version that was decided by, and only then moved.

Durability: the files and their folders are synced when this returns.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import load_bundle
from workbench.durably import sync
from workbench.errors import TuningRefused
from workbench.masking import leaving
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle

MAX_NAME = 100
"""Characters of a folder's name given in the view."""
_READABLE = 0o755


def save_bundle(bundle: Bundle, folder: str | os.PathLike[str]) -> Path:
    """Write a bundle's files into a new folder, making those above it.

    Args:
        bundle: loaded.
        folder: where it shall be; must not exist.

    Returns:
        The folder, absolute.

    Raises:
        TuningRefused: something is there already, or it cannot be written. Nothing is left behind.
    """
    target = Path(folder).expanduser().absolute()
    if target.exists() or target.is_symlink():
        raise TuningRefused(
            f"{visible(str(target))} exists; a version is never written over, give another name"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    try:
        _write(unfinished, bundle.files)
        _require_same(bundle, unfinished)
        unfinished.chmod(_READABLE)  # `mkdtemp` makes folders for secrets; a policy is for others to read
        unfinished.rename(target)  # refuses a folder with anything in it
        sync(target.parent)
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already, if it was moved
    return target


def named_beside(folder: Path, name: str) -> Path:
    """Return the place of a bundle named in the view: a folder of that name in `folder`, and nowhere else.

    Raises:
        TuningRefused: the name is no plain name of a folder.
    """
    plain = name.strip()
    if not plain or plain.startswith(".") or len(plain) > MAX_NAME or Path(plain).name != plain:
        raise TuningRefused(
            f"{visible(name)[:MAX_NAME]!r} is no name for a folder; give one without `/`, such as `support-2`"
        )
    if visible(plain) != plain or "\\" in plain:
        raise TuningRefused(f"`{visible(plain)}` has characters that do not show; give another name")
    return folder / plain


def free_name(folder: Path, name: str) -> str:
    """Return a name that nothing in `folder` has: the given one with the next number.

    Example:
        >>> free_name(Path("/nowhere"), "support"), free_name(Path("/nowhere"), "support-7")
        ('support-2', 'support-8')
    """
    stem, dash, digits = name.rpartition("-")
    base, number = (stem, int(digits) + 1) if dash and digits.isdecimal() and digits.isascii() else (name, 2)
    while (folder / f"{base}-{number}").exists():
        number += 1
    return f"{base}-{number}"


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(leaving(text).encode())
            file.flush()
            os.fsync(file.fileno())
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(each)


def _require_same(bundle: Bundle, folder: Path) -> None:
    read = load_bundle(folder)
    if read.version != bundle.version:
        raise TuningRefused(
            f"what was written reads as version {read.version[:12]}, not {bundle.version[:12]}; nothing was saved"
        )


def _unwritable(target: Path, error: OSError) -> TuningRefused:
    return TuningRefused(f"cannot write {visible(str(target))}: {error.strerror or error}; nothing was saved")
