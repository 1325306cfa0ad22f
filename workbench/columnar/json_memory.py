"""What compiled code does with memory: bytes and words at addresses, nothing checked.

One rule: an address is a plain integer, and who reads there knows that it may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

signed: Any = np.int64
"""To mypy an address is an `int`."""
_F = TypeVar("_F", bound="Callable[..., Any]")


def jit(function: _F) -> _F:
    """Compile for the types it is called with; `json_native` keeps the code, so numba does not."""
    made: Any = njit(nogil=True, error_model="numpy")(function)
    return made  # type: ignore[no-any-return]  # called as the function is


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function of what it says of one instruction: its types, and its code."""
    return intrinsic(function)


@_intrinsic
def byte_at(_: Any, address: Any) -> Any:  # noqa: ARG001 - numba looks at its names
    """The byte at an address."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args[0], 8)), ir.IntType(64))

    return types.int64(types.int64), code


@_intrinsic
def word_at(_: Any, address: Any) -> Any:  # noqa: ARG001 - numba looks at its names
    """The eight bytes at an address, wherever it is."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], 64), align=1)

    return types.uint64(types.int64), code


@_intrinsic
def put_byte(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001 - numba looks at its names
    """Write a byte."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], ir.IntType(8)), _pointer(builder, args[0], 8))
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(types.int64, types.int64), code


@_intrinsic
def put_word(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001 - numba looks at its names
    """Write eight bytes."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], 64), align=1)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(types.int64, types.uint64), code


@_intrinsic
def first_byte(_: Any, word: Any) -> Any:  # noqa: ARG001 - numba looks at its names
    """Place of the first byte in which a bit is set; the word is not zero."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        bit = builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.lshr(bit, ir.Constant(ir.IntType(64), 3))

    return types.int64(types.uint64), code


def _pointer(builder: Any, address: Any, bits: int) -> Any:
    return builder.inttoptr(address, ir.IntType(bits).as_pointer())


@jit
def int_at(address: int) -> int:
    """The signed integer at an address."""
    found: int = signed(word_at(address))
    return found
