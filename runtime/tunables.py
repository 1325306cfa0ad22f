r"""Tunable literals: what `@tune` declares, and where in a policy's text each of them stands.

```cedar
@tune("{\"limit\": {\"value\": 5000, \"min\": 0, \"max\": 20000}}")
forbid (principal, action, resource) when { context.args.amount > 5000 };
```

One rule: a value must stand exactly once as a literal in the policy's conditions, so that changing it changes what
its author meant; else the bundle does not load. Where it stands several times, `at` says which is meant, counted in
the text from 1; `tuned` writes that where a new value is another literal's, too.

Accepted: a policy with `@tune` takes about a millisecond longer to load. Only conditions are tuned: a constant in a
`@patch` that should follow a limit is better a `$ref`, or it stays as it is.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.annotations import policy_error
from runtime.canonical import without_doubles
from runtime.errors import PolicyError
from runtime.literals import EXTENSIONS, ORDERED, at_most, is_kind, plain, same, shown, sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.literals import Kind, Site, Value
    from runtime.policy_files import Statement

_EXAMPLE = '{"limit": {"value": 5000, "min": 0, "max": 20000}}'
_KEYS = ("value", "min", "max", "choices", "at")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A literal of a policy that may be given another value."""

    name: str
    policy: str
    """`@id` of the policy; of a linked one, the template's."""
    kind: Kind
    value: Value
    """As it stands in the policy. Of an extension type, the text in the call."""
    min: Value | None = None
    max: Value | None = None
    """Bounds, both inside. Only of kinds that have an order: Long, decimal, datetime, duration."""
    choices: tuple[Value, ...] = ()
    """The only values; empty: any."""
    at: int | None = None
    """Which of several equal literals, from 1 in the order of the text; None: the only one."""
    file: str
    line: int

    @property
    def key(self) -> str:
        """The name that is its own in a bundle: `policy.name`."""
        return f"{self.policy}.{self.name}"

    @property
    def allowed(self) -> str:
        """What it may be, in words.

        Example:
            >>> Tunable(name="n", policy="p", kind="Long", value=5, min=0, file="p.cedar", line=1).allowed
            'a Long of at least 0'
        """
        said = f"the text of a {self.kind}" if self.kind in EXTENSIONS else f"a {self.kind}"
        bounds = [
            f"at {word} {shown(bound)}"
            for word, bound in (("least", self.min), ("most", self.max))
            if bound is not None
        ]
        said += f" of {' and '.join(bounds)}" if bounds else ""
        return said + (f", one of {', '.join(map(shown, self.choices))}" if self.choices else "")

    def checked(self, value: object) -> Value:
        """Return `value` as it is written into the policy.

        Args:
            value: of its kind; of an extension type, the text.

        Raises:
            PolicyError: another type, or outside of what is declared; names what is allowed.
        """
        found = plain(value)
        if found is None or not self._fits(found):
            hint = ""
            if isinstance(value, float):
                hint = "; Cedar has no floats" + (
                    f', write "{value}" in quotes' if self.kind == "decimal" else ""
                )
            given = shown(value) if isinstance(value, bool | int | str) else repr(value)
            raise PolicyError(
                f"tunable `{self.name}` cannot be {given}; it must be {self.allowed}{hint}",
                file=self.file,
                line=self.line,
                policy=self.policy,
            )
        return found

    def _fits(self, value: Value) -> bool:
        return (
            is_kind(value, self.kind)
            and (not self.choices or any(same(value, choice) for choice in self.choices))
            and (self.min is None or at_most(self.min, value, self.kind))
            and (self.max is None or at_most(value, self.max, self.kind))
        )


def read_tunables(statement: Statement) -> tuple[Tunable, ...]:
    """Read and check a statement's `@tune`. None without it.

    Raises:
        PolicyError: with file, line and policy, and what to write instead.
    """
    if "tune" not in statement.annotations:
        return ()
    found: dict[Site, Tunable] = {}
    for name, entry in _entries(statement).items():
        site, tunable = _tunable(statement, name, entry)
        if (other := found.get(site)) is not None:
            raise policy_error(
                statement,
                f"`@tune` names `{other.name}` and `{name}` stand for one literal, {shown(tunable.value)}; "
                "keep one of them",
            )
        found[site] = tunable
    return tuple(found.values())


def _entries(statement: Statement) -> dict[str, dict[str, Any]]:
    text = statement.annotations["tune"]
    try:
        found = json.loads(text, object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as exc:
        raise policy_error(
            statement, f"`@tune` is not JSON: {exc}; write it as {_EXAMPLE}, got {text!r}"
        ) from exc
    if not isinstance(found, dict) or not found:
        raise policy_error(
            statement, f"`@tune` must be a JSON object by name, such as {_EXAMPLE}, got {text!r}"
        )
    for name, entry in found.items():
        if not _NAME.fullmatch(name):
            raise policy_error(
                statement,
                f"`@tune` names {name!r}; a name is made of letters, digits, `_` and `-`, and starts with a letter",
            )
        if why := _malformed(entry):
            raise policy_error(statement, f"`@tune` of `{name}` {why}")
    return found


def _malformed(entry: Any) -> str:
    """Why an entry cannot be read, and what to write instead; empty if it can."""
    if not isinstance(entry, dict) or "value" not in entry:
        return f"must be an object with `value`, such as {_EXAMPLE}, got {json.dumps(entry)}"
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            return f"has the unknown member `{key}`, " + (
                f"did you mean `{close[0]}`?" if close else f"it may have {', '.join(_KEYS)}"
            )
    choices = entry.get("choices", [None])
    if not isinstance(choices, list) or not choices:
        return (
            f"has `choices` {json.dumps(choices)}; write a list of values that are allowed, or leave it out"
        )
    if type(entry.get("at", 1)) is not int:
        return f"has `at` {json.dumps(entry['at'])}; write which of the equal literals it is, from 1"
    return ""


def _tunable(statement: Statement, name: str, entry: Mapping[str, Any]) -> tuple[Site, Tunable]:
    value = plain(entry["value"])
    if value is None:
        raise policy_error(
            statement,
            f"`@tune` of `{name}` has the value {json.dumps(entry['value'])}; write it as the literal stands in "
            'the policy: an integer, true, false, or a text, such as "10.50" for `decimal("10.50")`',
        )
    site = _site(statement, name, value, entry.get("at"))
    bounds = {key: entry[key] for key in ("min", "max") if key in entry}
    choices = entry.get("choices", [])
    for key, limit in (*bounds.items(), *(("choices", choice) for choice in choices)):
        limit_value = plain(limit)
        if limit_value is None or not is_kind(limit_value, site.kind):
            raise policy_error(
                statement,
                f"`@tune` of `{name}` has {json.dumps(limit)} in `{key}`, which is no {site.kind} as its value is",
            )
    if bounds and site.kind not in ORDERED:
        raise policy_error(
            statement,
            f"`@tune` of `{name}` has `{next(iter(bounds))}`, but a {site.kind} has no order; use `choices`",
        )
    tunable = Tunable(
        name=name, policy=statement.annotations.get("id", ""), kind=site.kind, value=value,
        choices=tuple(choices), at=entry.get("at"), file=statement.file, line=statement.line, **bounds,
    )  # fmt: skip
    tunable.checked(value)
    return site, tunable


def _site(statement: Statement, name: str, value: Value, at: int | None) -> Site:
    """Find the literal of a tunable."""
    found = sites(statement.text, value)
    if at is not None:
        if not 1 <= at <= len(found):
            raise policy_error(
                statement,
                f"`@tune` of `{name}` says `at` {at}, but {shown(value)} stands {len(found)} times as a literal "
                "in the policy's conditions",
            )
        return found[at - 1]
    if len(found) != 1:
        hint = (
            'tell which by `"at": 1`, counted in the text, or write the others otherwise'
            if found
            else "write the value of the literal that is meant"
        )
        raise policy_error(
            statement,
            f"`@tune` of `{name}` has the value {shown(value)}, which must stand exactly once as a literal in the "
            f"policy's conditions, but stands there {len(found)} times; {hint}",
        )
    return found[0]
