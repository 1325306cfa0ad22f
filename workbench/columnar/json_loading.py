"""When the compiled pass over JSON texts is loaded, and when it is compiled.

One rule: nobody who reads texts waits longer for it than it saves, and nobody depends on it: where it cannot be had
(no numba, another byte order) texts are read as without it, to the same columns.

What it saves hangs on how much is read, which is not known. So it is loaded once a process has read as much without
it as loading costs, and compiled, where no process has before, once much more was read: at most twice of what knowing
the future would have taken. Compiling has a thread of its own, beside which texts are read without; the end of the
process waits for it, so that it is done once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from runtime.schema import parse_schema
from workbench.columnar.json_compiled import compiled_pass
from workbench.columnar.json_plan import plan_of
from workbench.columnar.json_rows import row_cells

if TYPE_CHECKING:
    from workbench.columnar.json_native import Kernel

LOADS: Final = 8 * 2**20
"""Bytes of texts whose reading is faster by about what loading takes, 0.03 s."""
COMPILES: Final = 128 * 2**20
"""A sixth of what compiling takes, 4 s: an installation reads more than once."""

_SCHEMA = """entity U; action a appliesTo { principal: U, resource: U, context: {
  b: Bool, d?: decimal, e?: U, n: Long, o: { w?: datetime }, s: String, x?: Set<String>, z?: { n?: Long } } };"""
_TEXTS = (
    '{"b":true,"d":12.5,"e":"u-1","n":-9007199254740991,"o":{"w":"2024-02-29T23:59:59.250Z"},"s":"x","x":["b","a"]}',
    '{"b":false,"d":"-0.01","e":{"id":"of fifteen bytes","type":"U"},"n":0,"o":{},"s":"\\"äöü\\"\\n","z":{"n":7}}',
    '{"b":true,"n":1,"o":{"w":"2024-01-01T00:00:00Z"},"s":"a text that is longer than twelve bytes","z":{}}',
    *('{"b":true,"n":01,"o":{},"s":""}', '{"b":true,"n":1,"o":{},"s":"","s":""}', '{"b":true,"n":1,"o":{}}'),
    *(
        '{"b":true,"n":1,"o":{},"s":"\t"}',
        '{"b":true,"n":1.0,"o":{},"s":""}',
        '{"b":true,"n":1,"o":{},"s":""} ',
    ),
    *('{"b":true,"n":1,"s":"","o":{}}', '{"b":truf,"n":1,"o":{},"s":""}', '{"b":true,"n":"1","o":{},"s":""}'),
)
"""What a kernel must read, and must not."""
_RIGHT = 3
"""Texts of the first that it reads."""


@dataclass(slots=True)
class Loader:
    """Loads a kernel once, when that pays."""

    kernel: Kernel | None = None
    why_not: str = ""
    """Why there is none, and will be none; empty: there is one, or may be."""
    _read: int = 0
    """Bytes read without it."""
    _looked: bool = False
    """Whether what was compiled before was looked for."""
    _thread: threading.Thread | None = None
    """Compiles."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def kernel_for(self, texts: pl.Series) -> Kernel | None:
        """Return the kernel to read texts with; null: read them without."""
        if not self._missing():
            return self.kernel
        size = int(texts.str.len_bytes().sum())
        with self._lock:
            self._read += size
            if self._read >= LOADS:
                self._look()
            if self._read >= COMPILES and self._missing():
                self._compiler()
        return self.kernel

    def loaded(self) -> Kernel | None:
        """Load or compile the kernel, whatever it takes; null: there is none."""
        with self._lock:
            self._look()
            thread = self._compiler() if self._missing() else None
        if thread is not None:
            thread.join()
        return self.kernel

    def _look(self) -> None:
        """Load what was compiled before, if anything was."""
        if not self._looked:
            self._looked = True
            self._take(compiles=False)

    def _missing(self) -> bool:
        return self.kernel is None and not self.why_not

    def _compiler(self) -> threading.Thread:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._take, kwargs={"compiles": True}, name="json kernel", daemon=False
            )
            self._thread.start()
        return self._thread

    def _take(self, *, compiles: bool) -> None:
        try:
            found = load(compiles=compiles)
            self.kernel = None if found is None else checked(found)
        except Exception as exc:  # noqa: BLE001 - whatever it fails with, that costs speed, not the answer
            self.why_not = f"{type(exc).__name__}: {exc}".partition("\n")[0]


def load(*, compiles: bool) -> Kernel | None:
    """Load the kernel; null: it was not compiled yet, and is not to be.

    Raises:
        ImportError: numba is not installed.
    """
    from workbench.columnar.json_native import kept, linked, made  # noqa: PLC0415 - imports llvmlite

    code = kept() or (made() if compiles else None)
    return None if code is None else linked(code)


def checked(kernel: Kernel) -> Kernel:
    """Hold a kernel to what Python reads: a compiler or processor that gets it wrong is found before it is used.

    Raises:
        RuntimeError: it read something else, or what it must not.
    """
    plan = plan_of(parse_schema(_SCHEMA).actions["a"].context, "arguments")
    names = [column.name for column in plan.columns]
    found = compiled_pass(pl.Series([*_TEXTS, None]), plan, names, None, kernel, "sure")
    wanted = [tuple(row_cells(text, plan, None)[name] for name in names) for text in _TEXTS[:_RIGHT]]
    if found["sure"].arg_true().to_list() != list(range(_RIGHT)) or found[:_RIGHT, names].rows() != wanted:
        raise RuntimeError("the compiled pass does not read what it must")
    return kernel


LOADER: Final = Loader()
"""This process's."""
