"""The compiled pass as machine code: made by numba once an installation, kept as a file, loaded without numba.

One rule: a file is what this source compiles to with these versions on this processor, or it is made again: all of
that is in its name, and a checksum before its body.

Importing numba and what it needs to load its own file cache costs 0.6 s a process; linking sixteen kilobytes that
depend on nothing but the processor costs 0.03 s. The code is refused unless it stands alone (`_alone`).

Files lie in `__pycache__` beside the code or, where that may not be written to, in the user's cache folder. Whoever
can write there can change what runs, as with the compiled Python in the same folder. Nothing is durable.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import llvmlite.binding as llvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.columnar.json_program import Table

Kernel: TypeAlias = "Callable[[Table], int]"
"""Reads rows, given the values of `json_program.GIVEN`; returns how much of `spare` it used. Without the GIL."""

NAME: Final = "redecide_scan_rows"
"""Of the function, in its object code."""
_SOURCES = ("json_kernel.py", "json_scalars.py", "json_memory.py", "json_program.py")
_SUM = 32
"""Bytes of the checksum."""


def folders() -> list[Path]:
    """Return where files may lie, in the order of preference."""
    here = Path(__file__).parent / "__pycache__"
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [here, Path(own) / "redecide"]


def kept() -> bytes | None:
    """Return the object code of a file; null: there is no whole one."""
    for folder in folders():
        try:
            held = (folder / _file()).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(held[_SUM:]).digest() == held[:_SUM]:
            return held[_SUM:]
    return None


def made() -> bytes:
    """Compile the object code, and keep it if some folder can be written to.

    Raises:
        ImportError: numba is not installed.
        RuntimeError: what it made does not stand alone.
    """
    code = _compiled()
    for folder in folders():
        if _keep(folder, hashlib.sha256(code).digest() + code):
            break
    return code


def linked(code: bytes) -> Kernel:
    """Load object code of `kept` or `made`."""
    _prepare()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # numba's calling convention: where the result goes, where an exception would go, arguments; returns a status.
    types = ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
    function = ctypes.CFUNCTYPE(*types)(engine.get_function_address(NAME))

    def kernel(given: Table, _: Any = engine) -> int:  # the engine owns the code
        found, raised = ctypes.c_int64(), ctypes.c_void_p()
        if function(ctypes.addressof(found), ctypes.addressof(raised), given.ctypes.data):
            raise RuntimeError("the compiled pass raised")  # nothing in it can
        return found.value

    return kernel


@cache
def _prepare() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, codemodel="jitdefault", jit=True
    )


@cache
def _file() -> str:
    """Name of the file of this source, these versions, this processor."""
    parts = [(Path(__file__).parent / name).read_bytes() for name in (*_SOURCES, Path(__file__).name)]
    processor = (
        f"{llvm.get_default_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    )
    parts += [each.encode() for each in (version("numba"), version("llvmlite"), processor)]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    return f"json_kernel.{key[:40]}.o"


def _compiled() -> bytes:
    from numba import types  # noqa: PLC0415 - a quarter of a second, and needed once an installation

    from workbench.columnar.json_kernel import scan_rows  # noqa: PLC0415 - as above

    compiled: Any = scan_rows
    compiled.compile((types.int64,))
    (signature,) = compiled.signatures
    _prepare()
    module = llvm.parse_assembly(compiled.inspect_llvm(signature))
    module.get_function(compiled.overloads[signature].fndesc.llvm_func_name).name = NAME
    code: bytes = _machine().emit_object(_alone(module))
    return code


def _alone(module: Any) -> Any:
    """Leave the function and what it calls; numba's wrappers around it need numba."""
    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration and each.name != NAME:
            each.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(_machine(), llvm.create_pipeline_tuning_options()))
    left = [each.name for each in (*module.functions, *module.global_variables) if each.is_declaration]
    foreign = [name for name in left if not name.startswith("llvm.")]
    if foreign:
        raise RuntimeError(f"the compiled pass needs {', '.join(foreign)}")
    return module


def _keep(folder: Path, held: bytes) -> bool:
    """Write a file whole or not at all; false: this folder takes none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(held)
        Path(name).chmod(0o644)  # beside the code, for everyone who runs it
        Path(name).replace(folder / _file())
    except OSError:
        Path(name).unlink(missing_ok=True)
        return False
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return True
