"""What is kept beside a lake, so that it is decoded once and not once a replay.

One rule: a frame is found again only by everything it was made of, the texts themselves included: a row that was
changed after it was cached is decoded again, and found out.

Kept: the contexts, taken apart (2.8 s of processor time for 100,000; 0.2 s from the cache). They are found by the
bytes of the table's files or, where these are others (compacted since), by the texts in them, which takes 0.6 s. Not
kept: arguments, which are decoded in 0.6 µs a row, and would be found by content in 0.4. The cache is a folder
`_cache` in a local lake, as confidential as the lake itself; `REDECIDE_CACHE=off` does without,
`REDECIDE_CACHE=FOLDER` puts it elsewhere. A lake that cannot be written to, or is not a local folder, has none.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from runtime.trace import CONTEXTS
from workbench.columnar.json_cache import cached
from workbench.history.contexts import Contexts, FactRecords, fact_column, take_apart
from workbench.opening import table_of
from workbench.progress import progress
from workbench.scan import content_of

if TYPE_CHECKING:
    from workbench.lake import Lake

VARIABLE = "REDECIDE_CACHE"
FOLDER = "_cache"
_OFF = frozenset({"off", "0", "no", "false"})
_FACT = fact_column("")


def cache_folder(uri: str) -> Path | None:
    """Return where frames of a lake are kept; null: nowhere."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in _OFF:
        return None
    if wanted:
        return Path(wanted)
    return None if "://" in uri else Path(uri) / FOLDER


def digest_of(*columns: pl.Series) -> str:
    """Return a digest of columns, in order, nulls told apart from empty texts."""
    found = hashlib.sha256()
    for column in columns:
        # 64-bit hashes of the values would do for speed; a cache key must not collide, so the bytes are hashed.
        text = column.cast(pl.String).to_frame("text").rechunk()
        for part in text.iter_slices(100_000):
            buffers = part["text"].to_arrow().buffers()
            found.update(str(part.height).encode())
            for buffer in buffers:
                found.update(b"-" if buffer is None else memoryview(buffer))
    return found.hexdigest()


@progress(None, "reading contexts")
def contexts_of(lake: Lake) -> Contexts:
    """Return the lake's contexts, taken apart; from the cache, if the same texts were taken apart before.

    Cost: of files that were read before, their bytes are hashed (32 MiB for 100,000 contexts), and no text is read.
    """
    texts = once(lambda: lake.contexts.select("context_hash", "context").collect())
    folder = cache_folder(lake.uri)
    if folder is None:
        return take_apart(texts().iter_rows())
    key = f"contexts {_digest(lake, folder, texts)}"
    made = once(lambda: take_apart(texts().iter_rows()))
    frame = cached(folder, f"{key} frame", lambda: made().frame)
    names = [name.removeprefix(_FACT) for name in frame.columns if name.startswith(_FACT)]
    facts = {name: _records(folder, key, name, made) for name in names}
    shapes = cached(
        folder, f"{key} shapes", lambda: pl.DataFrame({"text": made().shapes}, {"text": pl.String})
    )
    return Contexts(frame, facts, tuple(shapes["text"]))


class _Changed(Exception):  # noqa: N818 - never leaves this module
    """Files were other ones before their texts were read than after."""


def _digest(lake: Lake, folder: Path, texts: Callable[[], pl.DataFrame]) -> str:
    """Digest of the texts; where the very bytes of the table's files were read before, as it was found then."""
    files = content_of(table_of(lake.store, CONTEXTS))
    if files is None:
        return _digest_of(texts())

    def read() -> pl.DataFrame:
        found = _digest_of(texts())
        if content_of(table_of(lake.store, CONTEXTS)) != files:
            raise _Changed
        return pl.DataFrame({"digest": [found]})

    try:
        return str(cached(folder, f"texts of contexts {files}", read)["digest"][0])
    except _Changed:
        return _digest_of(texts())


def _digest_of(texts: pl.DataFrame) -> str:
    return digest_of(texts["context_hash"], texts["context"])


def _records(folder: Path, key: str, name: str, made: _Make) -> FactRecords:
    return FactRecords(cached(folder, f"{key} fact {name}", lambda: made().facts[name].frame))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Make = Callable[[], Contexts]
