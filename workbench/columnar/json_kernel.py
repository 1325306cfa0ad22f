# ruff: noqa: PLR2004 - bytes are compared with bytes: 0x22 is a quote, 0x5C a backslash, 0x30 to 0x39 are digits
"""One pass over the bytes of JSON texts, compiled: members matched in canonical order, their values read in place.

One rule: a row is `sure` only where its text is, byte for byte, canonical JSON of the declared record: every byte of
it was compared with what canonical JSON has there, or lies in the text of a value that is read later (`DEFERRED`).
What is not sure, for whatever reason, has no values here; other code reads it.

It is one interpreter of a table of steps (`json_program`), not code made per schema: compiled once an installation
(`json_native`), and imported, which imports numba, for nothing else. It takes and gives addresses alone, so that its
machine code needs nothing of numba, either.

Texts and the strings made of them are Arrow string views: sixteen bytes, the text itself up to twelve of them, else
its first four, a buffer and a place in it. So a string without escapes is written down without being copied.

Functions here are longer than the house has them: each call that is not inlined costs as much as a short value.
Addresses are plain integers; none is read at or beyond its `safe` end, the end of the buffer it lies in.
"""

from __future__ import annotations

import numpy as np

from workbench.columnar.json_memory import byte_at, int_at, jit, put_byte, put_word, signed, word_at
from workbench.columnar.json_program import (
    ABSENT,
    BOOL,
    CLOSE,
    DECIMAL,
    DEFERRED,
    FIELDS,
    LONG,
    MOMENT,
    NULL,
    NUMBER,
    OPEN,
    STRING,
    THERE,
)
from workbench.columnar.json_scalars import (
    HALF,
    INLINE,
    LOW,
    MOST,
    long_at,
    moment_at,
    put_view,
    quote_at,
    same,
    unescape,
    units_at,
    value_end,
)

_, _REQUIRED, _NULLABLE, _KEY, _KEY_SIZE, _HEAD, _HEAD_SIZE, _TAIL, _TAIL_SIZE = range(9)
_OTHER, _OTHER_SIZE, _END, _END_SIZE, _SEEN, _TEXT, _VALUE, _VALUES, _NARROW, _SKIP = range(9, len(FIELDS))

_STEP = 8 * len(FIELDS)

UNITS = 10_000


@jit
def scan_rows(given: int) -> int:  # noqa: C901, PLR0912, PLR0915 - the interpreter is one loop; see the module
    """Read rows.

    Args:
        given: address of `GIVEN`.

    Returns:
        How much of `spare` was used.
    """
    texts, buffers, missing = int_at(given), int_at(given + 8), int_at(given + 16)
    begin, stop, rows = int_at(given + 24), int_at(given + 32), int_at(given + 40)
    steps, count, literals = int_at(given + 48), int_at(given + 56), int_at(given + 64)
    factors, views, view_columns = int_at(given + 72), int_at(given + 80), int_at(given + 88)
    ints, bools, bool_columns = int_at(given + 96), int_at(given + 104), int_at(given + 112)
    seen, seen_columns, sure = int_at(given + 120), int_at(given + 128), int_at(given + 136)
    spare, room, spare_buffer = int_at(given + 144), int_at(given + 152), int_at(given + 160)
    used = 0
    for row in range(begin, stop):
        if missing and byte_at(missing + row):
            continue
        view = texts + 16 * row
        word, second = word_at(view), word_at(view + 8)
        size = signed(word & LOW)
        p, base, safe, buffer = view + 4, view, view + 16, 0
        if size > INLINE:
            buffer = signed(second & LOW)
            base, safe = int_at(buffers + 16 * buffer), int_at(buffers + 16 * buffer + 8)
            p = base + signed(second >> HALF)
        end = p + size
        fits = size > 1 and byte_at(p) == 0x7B
        p += 1
        first = 1
        step = 0
        while fits and step < count:
            here = steps + _STEP * step
            kind = int_at(here)
            if kind == CLOSE:
                fits = p < end and byte_at(p) == 0x7D
                p += 1
                first = 0
                step += 1
                continue
            size = int_at(here + 8 * _KEY_SIZE) - first
            if not same(p, end, safe, literals + int_at(here + 8 * _KEY) + first, size):
                fits = int_at(here + 8 * _REQUIRED) == 0
                step = int_at(here + 8 * _SKIP)
                continue
            p += size
            first = 0
            slot = int_at(here + 8 * _VALUE)
            if kind == OPEN:
                if slot >= 0:
                    put_byte(bools + slot * rows + row, 1)
                first = 1
                step += 1
                continue
            start = p
            column = int_at(here + 8 * _SEEN)
            if int_at(here + 8 * _NULLABLE) and end - p >= 4 and byte_at(p) == 0x6E:
                fits = byte_at(p + 1) == 0x75 and byte_at(p + 2) == 0x6C and byte_at(p + 3) == 0x6C
                p += 4
                put_byte(seen + column * rows + row, NULL)
            else:
                put_byte(seen + column * rows + row, THERE)
                if kind in (STRING, DECIMAL, MOMENT):
                    tail, tail_size = int_at(here + 8 * _TAIL), int_at(here + 8 * _TAIL_SIZE)
                    if same(p, end, safe, literals + int_at(here + 8 * _HEAD), int_at(here + 8 * _HEAD_SIZE)):
                        p += int_at(here + 8 * _HEAD_SIZE)
                    elif int_at(here + 8 * _OTHER_SIZE) and same(
                        p, end, safe, literals + int_at(here + 8 * _OTHER), int_at(here + 8 * _OTHER_SIZE)
                    ):
                        p += int_at(here + 8 * _OTHER_SIZE)
                        tail, tail_size = int_at(here + 8 * _END), int_at(here + 8 * _END_SIZE)
                    else:
                        fits = False
                        break
                    inner = p
                    p, escapes = quote_at(inner, end)
                    if p < 0 or not same(p, end, safe, literals + tail, tail_size):
                        fits = False
                        break
                    size = p - inner
                    if kind == STRING:
                        if slot >= 0 and escapes == 0:
                            put_view(views + 16 * (slot * rows + row), inner, size, base, safe, buffer)
                        elif slot >= 0:
                            size -= escapes
                            if used + size > room:
                                fits = False
                                break
                            unescape(inner, p, spare + used)
                            # A view reads its first four bytes as eight, a short one as twelve.
                            put_view(
                                views + 16 * (slot * rows + row),
                                spare + used,
                                size,
                                spare,
                                spare + room,
                                spare_buffer,
                            )
                            used += size
                    elif kind == DECIMAL:
                        at, units, _ = units_at(inner, p, 1)
                        fits = at == p
                        put_word(ints + 8 * (slot * rows + row), np.uint64(units))
                    else:
                        fits = size in (20, 24)
                        if fits:
                            fits, number = moment_at(inner, size)
                            put_word(ints + 8 * (slot * rows + row), np.uint64(number))
                    p += tail_size
                elif kind == LONG:
                    p, number = long_at(p, end, int_at(here + 8 * _NARROW))
                    put_word(ints + 8 * (slot * rows + row), np.uint64(number))
                    fits = p >= 0
                elif kind == BOOL:
                    truth = end - p >= 4 and byte_at(p) == 0x74
                    if truth:
                        fits = byte_at(p + 1) == 0x72 and byte_at(p + 2) == 0x75 and byte_at(p + 3) == 0x65
                        p += 4
                        put_byte(bools + slot * rows + row, 1)
                    else:
                        fits = (
                            end - p >= 5
                            and byte_at(p) == 0x66
                            and byte_at(p + 1) == 0x61
                            and byte_at(p + 2) == 0x6C
                            and byte_at(p + 3) == 0x73
                            and byte_at(p + 4) == 0x65
                        )
                        p += 5
                elif kind == NUMBER:
                    quoted = p < end and byte_at(p) == 0x22
                    p, units, canonical = units_at(p + 1 if quoted else p, end, 0)
                    fits = p >= 0 and (quoted or canonical)
                    if fits and quoted:
                        fits = p < end and byte_at(p) == 0x22
                        p += 1
                    if fits:
                        for each in range(slot, slot + int_at(here + 8 * _VALUES)):
                            factor = int_at(factors + 8 * each)
                            place = ints + 8 * (each * rows + row)
                            if factor == 0:
                                put_word(place, np.uint64(units))
                                continue
                            most = MOST // factor
                            product = units * factor
                            fits = fits and -most <= units <= most and product % UNITS == 0
                            put_word(place, np.uint64(product // UNITS))
                elif kind == DEFERRED:
                    p = value_end(p, end)
                    fits = p > start
                else:
                    fits = False
            if fits and int_at(here + 8 * _TEXT) >= 0:
                put_view(
                    views + 16 * (int_at(here + 8 * _TEXT) * rows + row), start, p - start, base, safe, buffer
                )
            step += 1
        if fits and p == end:
            put_byte(sure + row, 1)
            continue
        for column in range(view_columns):
            put_word(views + 16 * (column * rows + row), np.uint64(0))
            put_word(views + 16 * (column * rows + row) + 8, np.uint64(0))
        for column in range(seen_columns):
            put_byte(seen + column * rows + row, ABSENT)
        for column in range(bool_columns):
            put_byte(bools + column * rows + row, 0)
    return used
