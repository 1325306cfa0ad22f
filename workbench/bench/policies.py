"""More policies than the desk has: the same ones again, with other numbers.

One rule: every copy says something else, so that no engine can compute it once for all; ids stay unique.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runtime.bundle import bundle_from_files

if TYPE_CHECKING:
    from runtime.bundle import Bundle

_NUMBER: Final = re.compile(r"(?<=[>=] )\d+|(?<=duration\(\")\d+")
"""Numbers that amounts, counters and times are compared with."""
_WORD: Final = re.compile(r'(?<=like "\*)\w+')
_END: Final = re.compile(r";\s*\Z")
_POLICY: Final = re.compile(r"(?=^@id\()", re.MULTILINE)
_TUNE: Final = re.compile(r"^@tune\(.*\)\n", re.MULTILINE)


def multiplied(bundle: Bundle, count: int) -> Bundle:
    """Return the bundle with `count` policies: its own, then copies with other numbers and patterns.

    Raises:
        ValueError: it has more already.
    """
    own = [text for file in _cedar(bundle) for text in _POLICY.split(bundle.files[file])[1:]]
    if count < len(own):
        raise ValueError(f"bundle {bundle.name!r} has {len(own)} policies, more than {count}")
    copies = [_copy(own[number % len(own)], number // len(own)) for number in range(len(own), count)]
    files = {**bundle.files, "copies.cedar": "\n".join(copies)} if copies else dict(bundle.files)
    return bundle_from_files(files, f"{bundle.name}-{count}")


def _cedar(bundle: Bundle) -> list[str]:
    return [file for file in bundle.files if file.endswith(".cedar")]


def _copy(text: str, number: int) -> str:
    text = _TUNE.sub("", text)
    text = text.replace('@id("', f'@id("copy-{number}-', 1)
    text = _NUMBER.sub(lambda match: str(int(match[0]) + 7 * number), text)
    text = _WORD.sub(lambda match: f"{match[0]}{number}", text)
    # For policies without a number.
    return _END.sub(f"\nunless {{ context.session.calls == {1_000 + number} }};\n", text)
