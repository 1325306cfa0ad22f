"""Which counters of the session policies read, by their text.

One rule: what may be read is named; where the text does not say which, all are.

Read off Cedar's JSON form of the policies, and off the references of their patches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from runtime.schema import SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CONTEXT: Final = {"Var": "context"}
_SESSION: Final = {".": {"left": _CONTEXT, "attr": "session"}}
_REFERENCE: Final = re.compile(r"context(?:\.session(?:\.(\w+))?)?(?![\w.])")
_ALL: Final = frozenset(SESSION)


def session_reads(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the standard members of `context.session` that some policy may read, or ask for.

    Args:
        document: Cedar's JSON policy set.
    """
    return frozenset(names_read(document)) & _ALL


def names_read(node: Any) -> Iterator[str]:
    """Yield the members of `context.session` that a node of Cedar's JSON format reads."""
    match node:
        case {".": {"left": left, "attr": name}} | {"has": {"left": left, "attr": name}} if left == _SESSION:
            yield str(name)
        case {".": {"left": left, "attr": name}} if left == _CONTEXT and name != "session":
            return
        case {"has": {"left": left}} if left == _CONTEXT:
            return
        case dict() if node in (_CONTEXT, _SESSION):  # a record that is read as a whole
            yield from _ALL
        case dict():
            for name, item in node.items():
                yield from names_read(item) if name != "annotations" else _referred(item.get("patch") or "")
        case list():
            for item in node:
                yield from names_read(item)


def _referred(patch: str) -> Iterator[str]:
    for found in _REFERENCE.finditer(patch):
        yield from (found[1],) if found[1] else _ALL
