# ruff: noqa: PLR2004 - bytes are compared with bytes: 0x22 is a quote, 0x5C a backslash, 0x30 to 0x39 are digits
"""Compiled readers of one JSON value at an address: strings, numbers, moments, and where a value ends.

One rule: an answer is given only for what is canonical; anything else is `not sure`, for other code to read.

Functions here are longer than the house has them: each call that is not inlined costs as much as a short value.
None reads at or beyond its `end` or `safe`.
"""

from __future__ import annotations

import numpy as np

from workbench.columnar.json_memory import byte_at, first_byte, jit, put_byte, put_word, signed, word_at

ONES = np.uint64(0x0101010101010101)
HIGH = np.uint64(0x8080808080808080)
QUOTES = np.uint64(0x2222222222222222)
SLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
SPACES = np.uint64(0x2020202020202020)
LOW = np.uint64(0xFFFFFFFF)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
HALF = np.uint64(32)
INLINE = 12
MOST = 2**63 - 1
SAFE = 2**53 - 1


@jit
def same(p: int, end: int, safe: int, other: int, size: int) -> bool:
    """Whether the text at `p` begins with another, behind which eight bytes more may be read."""
    if end - p < size:
        return False
    i = 0
    while i + 8 <= size:
        if word_at(p + i) != word_at(other + i):
            return False
        i += 8
    if i == size:
        return True
    if p + i + 8 <= safe:
        differ: bool = (word_at(p + i) ^ word_at(other + i)) << np.uint64(64 - 8 * (size - i)) != np.uint64(0)
        return not differ
    while i < size:
        if byte_at(p + i) != byte_at(other + i):
            return False
        i += 1
    return True


@jit
def quote_at(p: int, end: int) -> tuple[int, int]:
    """Where a string ends that begins before `p`, and how many escapes it has; -1: it is not canonical."""
    escapes = 0
    while p < end:
        if p + 8 <= end:
            word = word_at(p)
            quotes, slashes = word ^ QUOTES, word ^ SLASHES
            # Borrows raise bits only above the first byte that is meant, which is the one that is looked for.
            hits = (
                ((quotes - ONES) & ~quotes) | ((slashes - ONES) & ~slashes) | ((word - SPACES) & ~word)
            ) & HIGH
            if hits == np.uint64(0):
                p += 8
                continue
            p += first_byte(hits)
        byte = byte_at(p)
        if byte == 0x22:
            return p, escapes
        if byte < 0x20:
            break
        p += 1
        if byte == 0x5C:
            if p >= end:
                break
            byte = byte_at(p)
            # Escapes by number are left to others: few are canonical, and of those fewer occur.
            if byte not in (0x22, 0x5C, 0x62, 0x66, 0x6E, 0x72, 0x74):
                break
            escapes += 1
            p += 1
    return -1, escapes


@jit
def unescape(p: int, end: int, into: int) -> None:
    """Write what a string says, whose escapes `quote_at` has checked."""
    while p < end:
        byte = byte_at(p)
        if byte == 0x5C:
            p += 1
            byte = byte_at(p)
            if byte == 0x62:
                byte = 8
            elif byte == 0x66:
                byte = 12
            elif byte == 0x6E:
                byte = 10
            elif byte == 0x72:
                byte = 13
            elif byte == 0x74:
                byte = 9
        put_byte(into, byte)
        into += 1
        p += 1


@jit
def put_view(view: int, p: int, size: int, base: int, safe: int, buffer: int) -> None:
    """Write the view of a text."""
    low = np.uint64(size)
    if size > INLINE:
        put_word(view, low | (word_at(p) << HALF))
        put_word(view + 8, np.uint64(buffer) | (np.uint64(p - base) << HALF))
        return
    first, rest = np.uint64(0), np.uint64(0)
    if p + INLINE <= safe:
        if size > 4:
            first = word_at(p) & LOW
            rest = word_at(p + 4) & (ALL >> np.uint64(64 - 8 * (size - 4)))
        elif size > 0:
            first = word_at(p) & (ALL >> np.uint64(64 - 8 * size))
    else:
        for i in range(size):
            if i < 4:
                first |= np.uint64(byte_at(p + i)) << np.uint64(8 * i)
            else:
                rest |= np.uint64(byte_at(p + i)) << np.uint64(8 * (i - 4))
    put_word(view, low | (first << HALF))
    put_word(view + 8, rest)


@jit
def long_at(p: int, end: int, narrow: int) -> tuple[int, int]:
    """Where a canonical integer ends, -1: it is none; and the integer."""
    negative = p < end and byte_at(p) == 0x2D
    if negative:
        p += 1
    begin, total = p, np.uint64(0)
    while p < end:
        digit = byte_at(p) - 0x30
        if digit < 0 or digit > 9 or p - begin > 18:
            break
        total = total * np.uint64(10) + np.uint64(digit)
        p += 1
    most = np.uint64(SAFE if narrow else MOST)
    if negative and not narrow:
        most += np.uint64(1)
    if p == begin or total > most or (byte_at(begin) == 0x30 and (negative or p - begin > 1)):
        return -1, 0
    return p, (signed(np.uint64(0) - total) if negative else signed(total))


@jit
def units_at(p: int, end: int, shortest: int) -> tuple[int, int, bool]:  # noqa: C901 - see the module
    """Where a number of at most eleven digits before the point and `shortest` to four after it ends, -1: it is none.

    Returns:
        The end, the number in ten-thousandths, and whether it is canonical JSON: no zero that could go, no zero with
        a sign.
    """
    negative = p < end and byte_at(p) == 0x2D
    if negative:
        p += 1
    begin, total = p, 0
    while p < end and p - begin < 11:
        digit = byte_at(p) - 0x30
        if digit < 0 or digit > 9:
            break
        total = total * 10 + digit
        p += 1
    whole = p - begin
    if whole == 0:
        return -1, 0, False
    canonical = whole == 1 or byte_at(begin) != 0x30
    places = 0
    if p < end and byte_at(p) == 0x2E:
        p += 1
        digit = 0
        while p < end and places < 4:
            digit = byte_at(p) - 0x30
            if digit < 0 or digit > 9:
                break
            total = total * 10 + digit
            places += 1
            p += 1
        if places == 0:
            return -1, 0, False
        canonical = canonical and byte_at(p - 1) != 0x30
    for _ in range(4 - places):
        total *= 10
    if negative:
        total = -total
        canonical = canonical and total != 0
    if places < shortest:
        return -1, 0, False
    return p, total, canonical


@jit
def _digits(p: int, count: int) -> int:
    """A number of digits; -1: there is something else."""
    total = 0
    for i in range(count):
        digit = byte_at(p + i) - 0x30
        if digit < 0 or digit > 9:
            return -1
        total = total * 10 + digit
    return total


@jit
def moment_at(p: int, size: int) -> tuple[bool, int]:  # noqa: C901 - see the module
    """Whether a text of 20 or 24 bytes is a moment, and the milliseconds since 1970; see `json_batches.moments`."""
    year, month, day = _digits(p, 4), _digits(p + 5, 2), _digits(p + 8, 2)
    hour, minute, second = _digits(p + 11, 2), _digits(p + 14, 2), _digits(p + 17, 2)
    millis = 0
    if size == 24:
        millis = _digits(p + 20, 3)
        if byte_at(p + 19) != 0x2E:
            return False, 0
    if year < 0 or month < 1 or day < 1 or hour < 0 or minute < 0 or second < 0 or millis < 0:
        return False, 0
    if byte_at(p + 4) != 0x2D or byte_at(p + 7) != 0x2D or byte_at(p + 10) != 0x54:
        return False, 0
    if byte_at(p + 13) != 0x3A or byte_at(p + 16) != 0x3A or byte_at(p + size - 1) != 0x5A:
        return False, 0
    if month > 12 or hour > 23 or minute > 59 or second > 59:
        return False, 0
    longest = 31
    if month == 2:
        longest = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    elif month in (4, 6, 9, 11):
        longest = 30
    if day > longest:
        return False, 0
    # Days since 1970 in the proleptic Gregorian calendar; years begin in March.
    if month <= 2:
        year, month = year - 1, month + 9
    else:
        month -= 3
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469
    return True, (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis


@jit
def value_end(p: int, end: int) -> int:  # noqa: C901 - see the module
    """Where a JSON value ends if it is one, -1: nowhere. What it is, others check."""
    depth = 0
    while p < end:
        byte = byte_at(p)
        if byte == 0x22:
            p += 1
            while p < end:
                byte = byte_at(p)
                if byte == 0x22:
                    break
                if byte < 0x20:
                    return -1
                p += 2 if byte == 0x5C else 1
            if p >= end:
                return -1
        elif byte in (0x5B, 0x7B):
            depth += 1
        elif byte in (0x5D, 0x7D):
            if depth == 0:
                return p
            depth -= 1
        elif byte < 0x20 or (byte == 0x2C and depth == 0):
            return p if byte == 0x2C else -1
        p += 1
    return -1
