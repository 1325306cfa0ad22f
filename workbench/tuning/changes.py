"""What differs between two versions of a bundle, in a few words: values of sliders first, then texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.literals import same
from runtime.tuning import tuned
from workbench.texts import count, visible
from workbench.tuning.sliders import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle
    from runtime.literals import Value

MAX_NAMED = 6
"""Changes that are named; more are counted."""


def said_changes(first: Bundle, other: Bundle) -> str:
    r"""Say what another version has that the first has not.

    Example:
        >>> from runtime.bundle import bundle_from_files
        >>> schema = "entity A; action pay appliesTo { principal: A, resource: A, context: { args: { n: Long } } };"
        >>> policy = '@id("p") @tune("{\\"limit\\": {\\"value\\": 5}}")' + chr(10)
        >>> policy += "permit (principal, action, resource) when { context.args.n < 5 };"
        >>> bundle = bundle_from_files({"schema.cedarschema": schema, "p.cedar": policy}, "demo")
        >>> said_changes(bundle, tuned(bundle, {"limit": 7}))
        'limit 5 → 7'
    """
    values = _moved(first, other)
    moved = tuned(first, values) if values else first
    found = [*_sliders(first, values), *_texts(moved, other)]
    if not found and moved.files != other.files:
        edited = sorted({file for file in other.files if other.files[file] != moved.files.get(file)})
        found = [f"{visible(file)} edited" for file in edited]
    more = [f"{count(len(found) - MAX_NAMED, 'more change')}"] if len(found) > MAX_NAMED else []
    return ", ".join([*found[:MAX_NAMED], *more])


def _moved(first: Bundle, other: Bundle) -> dict[str, Value]:
    """New values of tunables that both have, and that the first may take."""
    found: dict[str, Value] = {}
    for key, tunable in other.tunables.items():
        known = first.tunables.get(key)
        if known is not None and known.kind == tunable.kind and not same(known.value, tunable.value):
            declared = (known.min, known.max, known.choices) == (tunable.min, tunable.max, tunable.choices)
            if declared:
                found[key] = tunable.value
    return found


def _sliders(first: Bundle, values: Mapping[str, Value]) -> Iterator[str]:
    names = [tunable.name for tunable in first.tunables.values()]
    for key, value in values.items():
        tunable = first.tunables[key]
        name = tunable.name if names.count(tunable.name) == 1 else key
        yield f"{visible(name)} {visible(written(tunable.value))} → {visible(written(value))}"


def _texts(moved: Bundle, other: Bundle) -> Iterator[str]:
    for ident, policy in other.policies.items():
        if ident not in moved.policies:
            yield f"{visible(ident)} added"
        elif policy.text != moved.policies[ident].text:
            yield f"{visible(ident)} edited"
    for ident in moved.policies:
        if ident not in other.policies:
            yield f"{visible(ident)} removed"
