"""Frames kept beside a lake, by what they were made of.

One rule: a cached frame is what `make` would give again, or it is made again: its name says everything it depends on
(the caller's key and the version of this format), and it is written whole or not at all.

A file is an Arrow IPC file behind its CRC-32, so that damage is found before Arrow reads it.

Accepted: whoever can write to the folder can write frames. Nothing is durable: a cache may be lost at any time.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = "1"
"""Version of what the frames hold: other code, other names."""
MOST_BYTES = 8 * 2**30
"""Size of a folder; beyond it the files that were used longest ago are removed."""
_SUFFIX = ".arrow"
_SUM = 4
"""Bytes of the checksum."""


def cached(
    folder: Path | None, key: str, make: Callable[[], pl.DataFrame], *, most_bytes: int = MOST_BYTES
) -> pl.DataFrame:
    """Return the frame of a key, read from the folder or made.

    Args:
        folder: created if it is not there; None: no cache.
        key: everything the frame depends on, such as hashes of texts and of their type.
        make: makes the frame, if there is no whole file of it.
        most_bytes: what the folder may hold.

    Durability: none. The file appears under its name only when it is complete; a folder that cannot be written to
    (read-only, full) costs the cache, not the answer.
    """
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(f'{FORMAT} {pl.__version__} {key}'.encode()).hexdigest()}{_SUFFIX}"
    found = _read(path)
    if found is None:
        found = make()
        _keep(path, found)
        _bound(folder, most_bytes, path)
    return found


def _read(path: Path) -> pl.DataFrame | None:
    """The frame of a file; null: none, or a damaged one."""
    try:
        held = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    body = memoryview(held)[_SUM:]
    if len(held) <= _SUM or zlib.crc32(body) != int.from_bytes(held[:_SUM]):
        return None
    return pl.read_ipc(io.BytesIO(body))


def _keep(path: Path, frame: pl.DataFrame) -> None:
    body = io.BytesIO()
    frame.write_ipc(body, compression="lz4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(zlib.crc32(body.getbuffer()).to_bytes(_SUM))
            file.write(body.getbuffer())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _bound(folder: Path, most_bytes: int, newest: Path) -> None:
    """Remove what was used longest ago; another process may be doing the same."""
    files = []
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            stat = path.stat()
        except OSError:
            continue
        files.append((path == newest, stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, _, size, _ in files)
    for _, _, size, path in sorted(files):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
