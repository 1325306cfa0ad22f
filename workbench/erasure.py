"""What was taken out of a lake on purpose: how a masked or erased value looks, and where there is one.

One rule: a hole is never filled and never taken for a value. A decision with a hole is `undecided`, by what is
missing, and not quarantined as damaged: its bytes do not hash to their address because somebody said so.

The shape is closed. In `decisions.args`, and in the values of facts in `contexts.context`, a hole is the object

```json
{"__redecide": "erased"}
```

in place of the value, or of the whole text; `erased` is for good, `masked` says that another copy of the lake has it.
Who makes a copy of a lake for others writes these, and leaves hashes as they are. Anything else that does not hash to
its address is corrupt. A text that does hash to its address has no holes, whatever it holds.

Accepted: rows with holes are undecided even where no value of what is missing would change the verdict; and what else
of a row is masked (a principal, a projection) is not known for it, and such a row is not reproduced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK = "__redecide"
"""The one member of a hole."""

QUOTED = f'"{MARK}"'
"""As every text with a hole holds it."""

CAUSES = {"erased": "field_erased", "masked": "field_masked"}
"""What a hole says, and the cause of `workbench.replay.CAUSES` it is."""


class Holes(NamedTuple):
    """What is missing of a text."""

    cause: str
    """Of `CAUSES`; where both occur, `field_erased`: no other copy would help."""
    names: tuple[str, ...]
    """Paths as policies have them, sorted: `context.args.note`, `principal.level`."""


def holes_in_args(text: str | None) -> Holes | None:
    """Return what is missing of arguments; None: nothing is."""
    return _told(("context.args", *path) for path in _paths(text))


def holes_in_context(text: str | None) -> Holes | None:
    """Return what is missing of a compiled context; None: nothing is."""
    if text is None or QUOTED not in text:
        return None
    facts = _parsed(text)
    places = {}
    if isinstance(facts, dict) and isinstance(facts.get("facts"), dict):
        places = {name: body.get("into") for name, body in facts["facts"].items() if isinstance(body, dict)}
    return _told(_placed(path, places) for path in _paths(text))


def together(found: Iterable[Holes | None]) -> Holes | None:
    """Return the holes of several texts as those of one."""
    some = [each for each in found if each is not None]
    if not some:
        return None
    causes = {each.cause for each in some}
    names = {name for each in some for name in each.names}
    return Holes(_worse(causes), tuple(sorted(names)))


def _placed(path: tuple[str, ...], places: dict[str, Any]) -> tuple[str, ...]:
    """Where policies have what stands at a path of a context; the last of a path is what the hole says."""
    match path:
        case ("facts", name, "value", *rest):
            into = places.get(name)
            return (f"context.{name}" if into in (None, "context") else str(into), *rest)
        case ("facts", name, *rest):
            return (f"context.{name}", *rest[-1:])
        case _:
            return ("context", *path[-1:])


def _paths(text: str | None) -> Iterator[tuple[str, ...]]:
    """Paths of holes; the last part of each is what the hole says."""
    if text is not None and QUOTED in text:
        yield from _walk(_parsed(text), ())


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        if value.keys() == {MARK} and value[MARK] in CAUSES:
            yield (*path, value[MARK])
            return
        for name, item in value.items():
            yield from _walk(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, path)


def _told(paths: Iterable[tuple[str, ...]]) -> Holes | None:
    found = set(paths)
    if not found:
        return None
    names = {".".join(path[:-1]) for path in found}
    return Holes(_worse({CAUSES[path[-1]] for path in found}), tuple(sorted(names)))


def _worse(causes: set[str]) -> str:
    return "field_erased" if "field_erased" in causes else "field_masked"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
