r"""Other values for tunable literals: a bundle as it would be, had its author written another number.

One rule: the text is changed, and nothing else. The literal is replaced where it stands, the annotation's value with
it, and what Cedar reads then is held against the policy with that one value changed.

Accepted: where the new value is already another literal of the policy, the annotation gets an `at` (see
`runtime.tunables`), because the text alone would no longer say which of the two is meant.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.bundle import Policies, bundle_from_files, hashes_of
from runtime.errors import PolicyError
from runtime.literals import conditions, literal, occurrences, probe, quoted, shown, sites, tokens
from runtime.policy_files import statements
from runtime.schema_parser import unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle, PolicyInfo
    from runtime.literals import Kind, Value
    from runtime.tunables import Tunable

_LETTER = re.compile(r"\\(?:u\{[^}]*\}|x..|.)|.", re.DOTALL)
_BETWEEN = re.compile(r"[\s,:]*")
Edit = tuple[int, int, str]
"""Start, end, and what to write there."""


def tuned(bundle: Bundle, values: Mapping[str, object]) -> Bundle:
    r"""Return the bundle with other values for its tunable literals.

    Args:
        bundle: as it is. Stays as it is.
        values: by name; `policy.name` where several policies use a name.

    Returns:
        The bundle that loading the changed files gives. Values that are there already change nothing.

    Raises:
        PolicyError: an unknown name, a name of several policies, a value that is not allowed; names what is.

    Example:
        >>> from runtime.bundle import bundle_from_files
        >>> schema = "entity A; action pay appliesTo { principal: A, resource: A, context: { args: { n: Long } } };"
        >>> policy = '@id("p") @tune("{\\"limit\\": {\\"value\\": 5}}")\n'
        >>> policy += "permit (principal, action, resource) when { context.args.n < 5 };"
        >>> bundle = bundle_from_files({"schema.cedarschema": schema, "p.cedar": policy}, "demo")
        >>> print(tuned(bundle, {"limit": 7}).files["p.cedar"])
        @id("p") @tune("{\"limit\": {\"value\": 7}}")
        permit (principal, action, resource) when { context.args.n < 7 };
    """
    wanted: dict[str, dict[str, Value]] = {}
    for given, value in values.items():
        tunable = find(bundle, given)
        of_policy = wanted.setdefault(tunable.policy, {})
        if tunable.name in of_policy:
            raise PolicyError(f"tunable `{tunable.key}` is given twice; give it one value")
        of_policy[tunable.name] = tunable.checked(value)
    infos = {info.annotations["id"]: info for info in bundle.policies.values()}
    texts = {policy: _retuned(infos[policy].text, bundle, policy, new) for policy, new in wanted.items()}
    return _rewritten(bundle, [(infos[i], text) for i, text in texts.items() if text != infos[i].text])


def find(bundle: Bundle, name: str) -> Tunable:
    """Return a bundle's tunable by `name`, or by `policy.name`.

    Raises:
        PolicyError: it has none of that name, or several; names those it has.
    """
    if name in bundle.tunables:
        return bundle.tunables[name]
    found = [tunable for tunable in bundle.tunables.values() if tunable.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise PolicyError(
            f"tunable `{name}` is in several policies of bundle {bundle.name!r}; say which: "
            + _names(tunable.key for tunable in found)
        )
    known = {tunable.name: tunable for tunable in bundle.tunables.values()} | dict(bundle.tunables)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"it has {_names(bundle.tunables)}"
    raise PolicyError(f"bundle {bundle.name!r} has no tunable `{name}`; {hint}" + _how(bundle))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _how(bundle: Bundle) -> str:
    example = '@tune("{\\"limit\\": {\\"value\\": 5000}}")'
    return "" if bundle.tunables else f"; declare one above its policy, such as `{example}`"


def _retuned(text: str, bundle: Bundle, policy: str, new: Mapping[str, Value]) -> str:
    """Return a statement's text with new values for its tunables."""
    every = {tunable.name: tunable for tunable in bundle.tunables.values() if tunable.policy == policy}
    places = {name: _place(text, tunable) for name, tunable in every.items()}
    values = {name: new.get(name, tunable.value) for name, tunable in every.items()}
    for name in new:
        if values[name] == every[name].value:
            continue
        start, end = places[name]
        changed = _put(text, places[name], values[name], every[name].kind)
        grown = len(changed) - len(text)
        places = {
            other: (at + grown, to + grown) if at > start else (at, to) for other, (at, to) in places.items()
        }
        places[name] = (start, end + grown)
        text = changed
    ranks = {name: _rank(text, places[name], value) for name, value in values.items()}
    return _annotated(text, values, ranks)


def _place(text: str, tunable: Tunable) -> tuple[int, int]:
    site = sites(text, tunable.value)[(tunable.at or 1) - 1]
    return site.start, site.end


def _put(text: str, place: tuple[int, int], value: Value, kind: Kind) -> str:
    """Replace the literal at a place; in parentheses where Cedar would otherwise read another policy (`--5`)."""
    start, end = place
    wanted = probe(text, start, end, value)[0]
    written = literal(value, "String" if isinstance(value, str) else kind)  # the call stands already
    for form in (written, f"({written})"):
        changed = f"{text[:start]}{form}{text[end:]}"
        if json.dumps(conditions(changed)) == json.dumps(wanted):
            return changed
    raise PolicyError(f"cannot write {shown(value)} into the policy; put its literal in parentheses")


def _rank(text: str, place: tuple[int, int], value: Value) -> int | None:
    """Which of several equal literals stands at a place, from 1; None: it is the only one."""
    if occurrences(text, value) == 1:  # it is the one at the place
        return None
    found = sites(text, value)
    inside = [
        number for number, site in enumerate(found, 1) if place[0] <= site.start and site.end <= place[1]
    ]
    return inside[0] if len(found) > 1 else None


def _annotated(text: str, values: Mapping[str, Value], ranks: Mapping[str, int | None]) -> str:
    """Write values into the annotation, leaving all else of it as its author wrote it."""
    start, end = _annotation(text)
    letters = _LETTER.findall(text, start + 1, end - 1)
    declared = "".join(unescape(f'"{letter}"') for letter in letters)
    edits = [
        edit
        for name, at, _ in _members(declared, 0)
        for edit in _edits(declared, at, values[name], ranks[name])
    ]
    for at, to, new in sorted(edits, reverse=True):
        letters[at:to] = [quoted(new)[1:-1]]
    return f'{text[:start]}"{"".join(letters)}"{text[end:]}'


def _annotation(text: str) -> tuple[int, int]:
    """Where the string of `@tune("…")` stands, quotes included."""
    found = list(tokens(text))
    marks = [token[0] for token in found]
    return next(found[i + 3].span() for i in range(len(found)) if marks[i : i + 3] == ["@", "tune", "("])


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of the value of each member of the JSON object that starts at or after `at`."""
    decoder, at = json.JSONDecoder(), text.index("{", at) + 1
    while text[at := _skip(text, at)] != "}":
        name, at = decoder.raw_decode(text, at)
        start = _skip(text, at)
        at = decoder.raw_decode(text, start)[1]
        yield name, start, at


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _edits(text: str, at: int, value: Value, rank: int | None) -> Iterator[Edit]:
    """Yield what to change in one tunable's object: its value, and `at` where it is needed or no longer is."""
    members = list(_members(text, at))
    spans = {name: (start, end) for name, start, end in members}
    start, end = spans["value"]
    if json.loads(text[start:end]) != value or type(json.loads(text[start:end])) is not type(value):
        yield start, end, shown(value)
    if "at" not in spans:
        if rank is not None:
            yield end, end, f', "at": {rank}'
        return
    place = [name for name, _, _ in members].index("at")
    if rank is None and place:
        yield members[place - 1][2], spans["at"][1], ""
    else:
        yield *spans["at"], str(rank or 1)


def _rewritten(bundle: Bundle, changed: Sequence[tuple[PolicyInfo, str]]) -> Bundle:
    """Return the bundle that loading the changed files gives; what did not change is not loaded again."""
    files = dict(bundle.files)
    for info, new in sorted(changed, key=lambda each: each[0].line, reverse=True):
        text = files[info.file]
        line = sum(map(len, text.split("\n")[: info.line - 1])) + info.line - 1
        start = text.index(
            info.text, line
        )  # its `@id` is in no string, and no comment stands before it on its line
        files[info.file] = text[:start] + new + text[start + len(info.text) :]
    if any(info.template or info.text.count("\n") != new.count("\n") for info, new in changed):
        return bundle_from_files(files, bundle.name)  # links depend on it, or others have moved
    return _reloaded(bundle, files, changed)


def _reloaded(bundle: Bundle, files: Mapping[str, str], changed: Sequence[tuple[PolicyInfo, str]]) -> Bundle:
    loaded = Policies({})
    for info, text in changed:
        (statement,) = statements(text, info.file)
        loaded.add(replace(statement, line=info.line))
    loaded.validate(bundle.cedar_schema)
    policy_hash, version = hashes_of(files, bundle.spec, bundle.limits)
    static = {**bundle.document["staticPolicies"], **loaded.document()["staticPolicies"]}
    return replace(
        bundle,
        files=files,
        policies={**bundle.policies, **loaded.infos()},
        policy_hash=policy_hash,
        version=version,
        document={**bundle.document, "staticPolicies": static},
        tunables={**bundle.tunables, **loaded.tunables()},
    )
