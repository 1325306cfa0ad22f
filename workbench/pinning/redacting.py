"""A pin made safe to show: texts and ids that no policy looks at are replaced, searched ones are cut.

One rule: texts are replaced by value. Equal texts have equal placeholders wherever they stand, different ones
different, so whatever policies compare among each other still compares alike; and where the same text stands in a
place that must stay, it stays in all of them.

A text stays if a policy that applies compares it with a literal, if it is a scope or a resource's fixed name, or if
it was asked for by name. Of a text that is searched by `like`, only what the patterns find is left.

A field that is marked sensitive is never in clear: where the decision is another one without it, there is no pin.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtime.context import fact_key
from runtime.entities import EntityUid
from runtime.errors import SourceError
from runtime.record import request_of
from runtime.request import RequestInvalid, ResourceTemplate
from workbench.errors import PinInvalid
from workbench.pinning.deciding import record_of, types_of
from workbench.pinning.places import dotted, rewritten, walk
from workbench.pinning.reducing import blanked
from workbench.pinning.shrinking import most
from workbench.undecided import PARENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from workbench.atoms import Path
    from workbench.pinning.pinned import PinFile
    from workbench.pinning.reducing import Oracle

LETTERS = 200
"""Characters of a text up to which single letters are taken away, too; above that, words."""


def texts_of(pin: PinFile) -> Iterator[tuple[Path, str]]:
    """Yield every text of a pin that a placeholder may stand for, with its name."""
    for name, value in walk(pin):
        if name[-1] == PARENTS and len(name) == 2:  # noqa: PLR2004 - `principal.parents`
            yield from ((name, ident) for _, ident in value)
        elif isinstance(value, str):
            yield name, value


def replaced(pin: PinFile, oracle: Oracle, marked: Collection[str]) -> PinFile:
    """Replace every text that may be, as far as the decision stays the same.

    Raises:
        PinInvalid: it hangs on a field that never leaves in clear; names it.
    """
    fixed = set(_fixed(pin, oracle))
    secret = {text for name, text in texts_of(pin) if is_marked(name, marked)}
    wanted = list(dict.fromkeys(text for _, text in texts_of(pin) if text and text not in fixed - secret))

    def taken(texts: Collection[str]) -> tuple[PinFile, dict[str, str]]:
        placeholders = _placeholders(pin, texts, oracle.own)
        return _with(pin, placeholders, oracle), placeholders

    def holds(texts: Sequence[str]) -> bool:
        return oracle.holds(*taken(texts))

    found = most(wanted, holds)
    if left := secret - set(found):
        raise _secret(pin, (name for name, text in texts_of(pin) if text in left))
    return _without_secret_numbers(taken(found)[0], oracle, marked)


def _without_secret_numbers(pin: PinFile, oracle: Oracle, marked: Collection[str]) -> PinFile:
    """Blank numbers and truths of marked fields."""
    names = [
        name for name, value in walk(pin) if isinstance(value, bool | int | float) and is_marked(name, marked)
    ]
    if not names:
        return pin
    found = blanked(pin, names)
    if not oracle.holds(found, None):
        raise _secret(pin, names)
    return found


def _secret(pin: PinFile, names: Iterable[Path]) -> PinInvalid:
    told = ", ".join(sorted({f"`{dotted(name)}`" for name in names}))
    return PinInvalid(
        f"decision {pin.decision_id} cannot be pinned: it hangs on {told}, which never leaves in clear"
    )


def is_marked(name: Path, marked: Collection[str]) -> bool:
    """Whether a part of a name is marked sensitive."""
    return not set(name).isdisjoint(marked)


def _fixed(pin: PinFile, oracle: Oracle) -> Iterator[str]:
    """Texts that stay, for one of the places they stand in."""
    yield from pin.request.scopes
    yield from pin.request.required_scopes
    types = types_of(pin)
    template = ResourceTemplate.parse(pin.request.resource)
    if not template.slots:
        yield template.id
    for name, text in texts_of(pin):
        looked = any(each.looks_at(name, types.get(name, frozenset())) for each in oracle.read)
        if looked or oracle.is_kept(name) or _within(name, oracle.written):
            yield text


def _within(name: Path, paths: Collection[Path]) -> bool:
    return any(name[: len(path)] == path or path[: len(name)] == name for path in paths)


def _placeholders(pin: PinFile, texts: Collection[str], own: Bundle) -> dict[str, str]:
    """A placeholder for each text, by the first place it stands in; the same for the same pin."""
    wanted, used = set(texts), {text for _, text in texts_of(pin)} | {own.name}
    template = ResourceTemplate.parse(pin.request.resource)
    types = types_of(pin)
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, text in texts_of(pin):
        if text not in wanted or text in found:
            continue
        stem = _stem(name, types)
        while True:
            counts[stem] = counts.get(stem, 0) + 1
            made = f"{stem}-{counts[stem]}"
            if made not in used:
                break
        found[text] = made
    whole = _resource(template, pin.request.args)
    if (
        whole is not None and whole not in found and len(template.slots) > 0
    ):  # an id made of several arguments
        renamed = {name: found.get(v, v) if isinstance(v, str) else v for name, v in pin.request.args.items()}
        found[whole] = _resource(template, renamed) or whole
    return found


def _resource(template: ResourceTemplate, args: Mapping[str, Any]) -> str | None:
    try:
        return template.resolve(args).id
    except RequestInvalid:
        return None


def _stem(name: Path, types: Mapping[Path, frozenset[str]]) -> str:
    """What a placeholder is called: by the entity's type, or the last part of the name."""
    kinds = types.get(name)
    if kinds and len(kinds) == 1:
        return next(iter(kinds)).rpartition("::")[2].lower()
    return name[-1]


def _with(pin: PinFile, placeholders: Mapping[str, str], oracle: Oracle) -> PinFile:
    """The pin with texts replaced, keys of facts made again, and the names that are concerned."""
    names: dict[str, None] = {}

    def change(name: Path, value: Any) -> Any:
        if name[-1] == PARENTS and len(name) == 2:  # noqa: PLR2004 - `principal.parents`
            if any(ident in placeholders for _, ident in value):
                names[dotted(name)] = None
            return [[kind, placeholders.get(ident, ident)] for kind, ident in value]
        if isinstance(value, str) and value in placeholders:
            names[dotted(name)] = None
            return placeholders[value]
        return value

    found = rewritten(pin, change)
    template = ResourceTemplate.parse(pin.request.resource)
    if _resource(template, pin.request.args) != _resource(template, found.request.args):
        names["resource.id"] = None
    hidden = replace(found.hidden, replaced=sorted(names), settled=sorted(_settled(found, names, oracle)))
    return rekeyed(replace(found, hidden=hidden), oracle.own)


def _settled(pin: PinFile, names: Collection[str], oracle: Oracle) -> set[str]:
    """Clauses that look at a text that is not the original, and whose conditions were checked to be the same."""
    types = types_of(pin)
    paths = [tuple(name.split(".")) for name in names]
    return {
        each.text
        for each in oracle.read
        for path in paths
        if each.looks_at(path, types.get(path, frozenset()))
    }


def rekeyed(pin: PinFile, own: Bundle) -> PinFile:
    """Make the keys of facts again, from the request as it is pinned."""
    request = request_of(record_of(pin).row)
    template = ResourceTemplate.parse(pin.request.resource)
    specs = {fact.name: fact for fact in own.spec.facts}

    def key(name: str, old: dict[str, Any]) -> dict[str, Any]:
        ident = _resource(template, pin.request.args)
        if name not in specs or ident is None:
            return {}
        try:
            return dict(fact_key(specs[name], request, EntityUid(template.type, ident)))
        except SourceError:
            return dict.fromkeys(old)

    facts = {name: replace(fact, key=key(name, fact.key)) for name, fact in pin.facts.items()}
    return replace(pin, facts=facts)


def cut(pin: PinFile, oracle: Oracle) -> PinFile:
    """Of each text that is searched by `like`, leave what the patterns find."""
    for name, text in list(dict.fromkeys(texts_of(pin))):
        alone = all(other == name for other, same in texts_of(pin) if same == text)
        alone = alone and dotted(name) not in pin.hidden.replaced
        searched = any(_searches(each.clause.body) for each in oracle.read if each.touches(name))
        if alone and searched and not oracle.is_kept(name) and not _within(name, oracle.written):
            pin = _cut(pin, name, text, oracle)
    return pin


def _cut(pin: PinFile, name: Path, text: str, oracle: Oracle) -> PinFile:
    names = sorted({*pin.hidden.cut, dotted(name)})
    reading = (each.text for each in oracle.read if each.touches(name))
    settled = sorted({*pin.hidden.settled, *reading})

    def with_text(left: str) -> PinFile:
        changed = rewritten(pin, lambda at, value: left if at == name and value == text else value)
        return replace(changed, hidden=replace(changed.hidden, cut=names, settled=settled))

    def shortest(parts: Sequence[str], joint: str) -> list[str]:
        gone = set(most(range(len(parts)), lambda taken: holds(joint.join(_rest(parts, taken)))))
        return _rest(parts, gone)

    def holds(left: str) -> bool:
        return oracle.holds(with_text(left))

    words = shortest(text.split(), " ")
    left = " ".join(words)
    if left and len(left) <= LETTERS:
        left = "".join(shortest(left, ""))
    return with_text(left) if left != text and holds(left) else pin


def _rest(parts: Sequence[str], taken: Collection[int]) -> list[str]:
    gone = set(taken)
    return [part for number, part in enumerate(parts) if number not in gone]


def _searches(body: Any) -> bool:
    """Whether an expression holds a `like`."""
    if isinstance(body, dict):
        return "like" in body or any(_searches(each) for each in body.values())
    return isinstance(body, list) and any(_searches(each) for each in body)
