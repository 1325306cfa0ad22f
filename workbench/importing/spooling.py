"""Calls while an import is under way: in a file of its own, so that memory does not grow with their arguments.

One rule: what was put in comes out equal, in any order. The file has no name: it goes with the process.

Accepted: entries are pickled, for this process alone; the file takes about twice what the calls take as JSON.
"""

from __future__ import annotations

import os
import pickle
import struct
import tempfile
from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.importing.calls import Call
    from workbench.importing.records import Record

_LENGTHS: Final = struct.Struct("<QQ")
_BUFFER: Final = 1 << 20
"""Bytes that are written at once, and the most that are read at once where entries follow each other."""
_LEAST: Final = 1 << 14
"""The least that is read so."""


class Entry(NamedTuple):
    """A call, with the record that it was read from."""

    call: Call
    record: Record


class Spool:
    """Calls with their records, by number of entry, from 0."""

    def __init__(self, folder: Path | None) -> None:
        """Make a file in `folder`; None: where temporary files are."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - closed by `close`
        self._starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, call: Call, record: Record) -> None:
        """Take an entry. O(its size)."""
        told = "\0".join((*call.key, call.tool, call.text)).encode()
        args = pickle.dumps(call.args, pickle.HIGHEST_PROTOCOL)
        rest = pickle.dumps(
            (record, call.number, call.key, call.principal, call.on_behalf_of, call.tool, call.text, call.ending,
             call.took, call.writes),
            pickle.HIGHEST_PROTOCOL,
        )  # fmt: skip
        size = self._file.write(_LENGTHS.pack(len(told), len(args)))
        size += self._file.write(told) + self._file.write(args) + self._file.write(rest)
        self._starts.append(self._starts[-1] + size)

    def told(self, entries: Iterable[int]) -> Iterator[bytes]:
        """Yield tenant, session, tool and the canonical text of the arguments, apart by NUL, as UTF-8."""
        for data in self._read(entries):
            size, _ = _LENGTHS.unpack_from(data)
            yield data[_LENGTHS.size : _LENGTHS.size + size]

    def args(self, entries: Iterable[int]) -> Iterator[dict[str, Json]]:
        """Yield the arguments alone."""
        for data in self._read(entries):
            size, _ = _LENGTHS.unpack_from(data)
            yield pickle.loads(memoryview(data)[_LENGTHS.size + size :])  # noqa: S301 - our own file, without a name

    def calls(self, entries: Iterable[int]) -> Iterator[Entry]:
        """Yield calls and records; a call's times, step and template are still to be filled in."""
        from workbench.importing.calls import Call  # noqa: PLC0415 - it imports what imports us

        for data in self._read(entries):
            size, more = _LENGTHS.unpack_from(data)
            begin = _LENGTHS.size + size
            view: Any = memoryview(data)
            args = pickle.loads(view[begin : begin + more])  # noqa: S301 - as above
            record, number, key, principal, behalf, tool, text, ending, took, writes = pickle.loads(  # noqa: S301 - as above
                view[begin + more :]
            )
            call = Call(
                number=number, key=key, principal=principal, on_behalf_of=behalf, tool=tool, args=args, text=text,
                ending=ending, at=None, start=None, took=took, writes=writes,
            )  # fmt: skip
            yield Entry(call, record)

    def _read(self, entries: Iterable[int]) -> Iterator[bytes]:
        """Yield entries as they were written; of entries that follow each other, more and more at once."""
        self._file.flush()
        handle, starts = self._file.fileno(), self._starts
        begin, window, ahead, last = 0, b"", 0, 0
        for entry in entries:
            start, end = starts[entry], starts[entry + 1]
            if start < begin or end > begin + len(window):
                ahead = min(max(2 * ahead, _LEAST), _BUFFER) if start == last else 0
                begin, window = start, os.pread(handle, max(end - start, ahead), start)
            yield window[start - begin : end - begin]
            last = end

    def close(self) -> None:
        """Let the file go."""
        self._file.close()
