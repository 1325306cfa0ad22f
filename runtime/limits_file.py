"""`limits.toml`: reading it, and holding it against the bundle's schema.

One rule: a limit that loads can be judged, and some call can be refused by it; all else is an error with its line.

```toml
version = 2

[[budget]]
name = "refunds-per-day"
per = "principal"                  # session | principal | on_behalf_of | tenant | tool, inside one tenant
measure = "args.amount_cents"      # calls | cost_micros | tokens | wall_ms | args.<an integer policies see>
window = "24h"                     # sliding; leave it out: for ever
max = 500_000
actions = ["issue_refund"]         # whose calls are counted, and refused; leave it out: all

[[loop]]
name = "again-and-again"           # in one session, whatever the verdicts
max_repeats = 3                    # the same call may come again three times in a row
max_period = 4                     # and so may cycles of up to four calls, such as A-B-A-B

[[breaker]]
name = "payments-down"
per = "tool"
last = 20                          # outcomes that are looked at
min_calls = 5
max_error_rate = 0.5               # more than half failed: refuse calls …
open_for = "60s"                   # … so long, then let probes through:
probes = 1                         # as many at a time, and as many successes, close it again
probe_for = "60s"                  # a probe without an outcome by then has failed
actions = ["issue_refund"]
```

Version 1 knows one kind: `per = "session"`, `measure = "calls"`, no window. It counts every call of the session;
`actions` says only whose calls are refused. A file without `version` is of version 1.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final, get_args

from runtime.errors import LimitsError
from runtime.limits import AFTER, ARGS, EVERY, Breaker, Budget, Limits, Loop, Meter, Per
from runtime.schema import Primitive, Record, type_text
from runtime.toml import TomlLines, TomlTable, did_you_mean, line_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runtime.schema import ActionType, CedarSchema, CedarType

MAX_PERIOD: Final = 8
"""Longest cycle that is looked for: attempts kept for each session."""
MAX_LAST: Final = 1_000
"""Most outcomes a breaker looks at."""
_MOST: Final = 2**62
"""Largest `max`: sums stay within 64 bits."""

_KEYS: Final = {
    "budget": frozenset({"name", "per", "measure", "window", "max", "actions"}),
    "loop": frozenset({"name", "max_repeats", "max_period", "actions"}),
    "breaker": frozenset(
        {"name", "per", "last", "min_calls", "max_error_rate", "open_for", "probes", "probe_for", "actions"}
    ),
}
_OF_VERSION_1: Final = frozenset({"name", "per", "measure", "max", "actions"})
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_UNITS_MS: Final = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_UPGRADE: Final = (
    "; it needs `version = 2` above everything, where a budget counts the calls of its `actions`"
)


def parse_limits(text: str, file: str = "limits.toml") -> Limits:
    """Parse `limits.toml`.

    Raises:
        LimitsError: not TOML, an unknown key, or a value that is not allowed; with the line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise LimitsError(f"not valid TOML: {exc}", file=file, line=line_of(exc, text)) from exc
    root = TomlTable(document, "limits", LimitsError, file, TomlLines(text))
    root.allow(frozenset({"version", *_KEYS}))
    version = document.get("version", 1)
    if type(version) is not int or version not in (1, 2):
        raise root.error(f"`version` must be 1 or 2, got {version!r}", "version")
    for kind in ("loop", "breaker"):
        if version == 1 and root.has(kind):
            raise root.error(f"`[[{kind}]]` is not of version 1{_UPGRADE}", kind)
    budget = _budget_1 if version == 1 else _budget
    limits = Limits(
        text=text,
        budgets=tuple(map(budget, root.array_of_tables("budget", "budget"))),
        loops=tuple(map(_loop, root.array_of_tables("loop", "loop"))),
        breakers=tuple(map(_breaker, root.array_of_tables("breaker", "breaker"))),
    )
    _distinct(root, limits)
    return limits


def _distinct(root: TomlTable, limits: Limits) -> None:
    for kind, found in _by_kind(limits):
        names = [each.name for each in found]
        for index, name in enumerate(names):
            if name in names[:index]:
                line = root.lines.at(kind, index, "name")
                raise LimitsError(f"{kind} `{name}` is there twice; rename one", file=root.file, line=line)


def _by_kind(limits: Limits) -> Iterator[tuple[str, tuple[Budget | Loop | Breaker, ...]]]:
    yield "budget", limits.budgets
    yield "loop", limits.loops
    yield "breaker", limits.breakers


def _named(table: TomlTable, kind: str) -> tuple[TomlTable, str]:
    table.allow(_KEYS[kind])
    name = table.required("name")
    return table.named(f"{kind} `{name}`"), name


def _budget_1(table: TomlTable) -> Budget:
    for key in sorted(set(table.table) & _KEYS["budget"] - _OF_VERSION_1):
        raise table.error(f"`{key}` is not of version 1{_UPGRADE}", key)
    table, name = _named(table, "budget")
    for key, allowed in (("per", "session"), ("measure", "calls")):
        if table.table.get(key, allowed) != allowed:
            more = _UPGRADE if isinstance(table.table[key], str) else ""
            raise table.error(f"`{key}` must be {allowed!r}, got {table.table[key]!r}{more}", key)
    return Budget(name=name, max=_integer(table, "max", 0, _MOST), actions=_actions(table))


def _budget(table: TomlTable) -> Budget:
    table, name = _named(table, "budget")
    actions = tuple(sorted(_actions(table)))
    meter = Meter(
        per=_per(table, "session"),
        measure=_measure(table),
        window_ms=_duration(table, "window"),
        actions=actions,
    )
    return Budget(name=name, max=_integer(table, "max", 0, _MOST), actions=actions, meter=meter)


def _loop(table: TomlTable) -> Loop:
    table, name = _named(table, "loop")
    return Loop(
        name=name,
        max_repeats=_integer(table, "max_repeats", 0, 1_000_000),
        max_period=_integer(table, "max_period", 1, MAX_PERIOD, 1),
        actions=tuple(sorted(_actions(table))),
    )


def _breaker(table: TomlTable) -> Breaker:
    table, name = _named(table, "breaker")
    open_ms = _duration(table, "open_for") or 60_000
    last = _integer(table, "last", 1, MAX_LAST, 20)
    return Breaker(
        name=name,
        per=_per(table, "tool"),
        last=last,
        min_calls=_integer(table, "min_calls", 1, last, min(5, last)),
        max_error_ppm=_rate(table, "max_error_rate"),
        open_ms=open_ms,
        probe_ms=_duration(table, "probe_for") or open_ms,
        probes=_integer(table, "probes", 1, 100, 1),
        actions=tuple(sorted(_actions(table))),
    )


def _per(table: TomlTable, default: Per) -> Per:
    given = table.table.get("per", default)
    if given not in get_args(Per):
        hint = did_you_mean(str(given), get_args(Per)) or f"; known are {', '.join(get_args(Per))}"
        raise table.error(f"`per` must name whose calls are counted together, got {given!r}{hint}", "per")
    return table.choice("per", get_args(Per), default)


def _measure(table: TomlTable) -> str:
    given = table.text("measure") or "calls"
    known = ("calls", *AFTER)
    path = given.removeprefix(ARGS).split(".") if given.startswith(ARGS) else []
    if given in known or (path and all(path)):
        return given
    hint = did_you_mean(given, known)
    raise table.error(f"`measure` must be {', '.join(known)} or args.<path>, got {given!r}{hint}", "measure")


def _actions(table: TomlTable) -> tuple[str, ...]:
    actions = table.names("actions") if table.has("actions") else EVERY
    if not actions:
        raise table.error("`actions` must name tools, or be left out for all of them, got []", "actions")
    return EVERY if "*" in actions else actions


def _integer(table: TomlTable, key: str, least: int, most: int, default: int | None = None) -> int:
    value = table.table.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    given = f"got {value!r}" if table.has(key) else "it is missing"
    allowed = f"of {least} or more" if most >= _MOST else f"from {least} to {most}"
    raise table.error(f"`{key}` must be an integer {allowed}, {given}", key)


def _rate(table: TomlTable, key: str) -> int:
    """Read a share as parts in a million: integers compare exactly."""
    value = table.table.get(key, 0.5)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return round(value * 1_000_000)
    raise table.error(f"`{key}` must be from 0 to below 1, such as 0.5, got {value!r}", key)


def _duration(table: TomlTable, key: str) -> int | None:
    """Read a duration in milliseconds; None: it is not given."""
    text = table.text(key)
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    parts = zip(match.groups(), _UNITS_MS, strict=True) if match else ()
    millis = sum(int(digits) * unit for digits, unit in parts if digits)
    if not 0 < millis < 2**43:
        raise table.error(f'`{key}` must be a duration such as "24h", "90s" or "1d12h", got {text!r}', key)
    return millis


# -- against the schema --------------------------------------------------------------------------------------------


def check_limits(limits: Limits, schema: CedarSchema, file: str = "limits.toml") -> None:
    """Refuse a limit for an action that no call can have, and money in arguments that policies do not see.

    Raises:
        LimitsError: naming the action or argument, and what is declared.
    """
    known = {name: action for name, action in schema.actions.items() if action.principals}
    lines = TomlLines(limits.text)
    for kind, found in _by_kind(limits):
        for index, each in enumerate(found):
            for action in sorted(set(each.actions) - set(known) - {"*"}):
                hint = did_you_mean(action, known) or f"; declared are {', '.join(sorted(known)) or 'none'}"
                raise LimitsError(
                    f"{kind} `{each.name}`: action {action!r} is not declared in the schema{hint}",
                    file=file,
                    line=lines.at(kind, index, "actions"),
                )
    for index, budget in enumerate(limits.budgets):
        if budget.meter.measure.startswith(ARGS) and (why := _unseen(budget, known.items())):
            line = lines.at("budget", index, "measure")
            raise LimitsError(f"budget `{budget.name}`: {why}", file=file, line=line)


def _unseen(budget: Budget, actions: Iterable[tuple[str, ActionType]]) -> str:
    """Why a measure of arguments cannot be read; empty if it can. Of `*`, actions without it count nothing."""
    measure = budget.meter.measure
    path = measure.removeprefix(ARGS).split(".")
    found = {name: _type_at(action, path) for name, action in actions if budget.applies(name)}
    for name, type_ in found.items():
        if type_ is not None and type_ != Primitive("Long"):
            return (
                f"`{measure}` is `{type_text(type_)}` in action `{name}`, and money is counted in integers; declare "
                f'a scaled one, such as `@scaled("{path[-1]}*100") {path[-1]}_cents: Long`, and measure that'
            )
        if type_ is None and not budget.meter.counts_all:
            return f"action `{name}` has no argument `{'.'.join(path)}`; its calls would never count"
    return "" if any(found.values()) else f"no action has an argument `{'.'.join(path)}`; nothing would count"


def _type_at(action: ActionType, path: list[str]) -> CedarType | None:
    type_: CedarType = action.context.attrs["args"].type
    for part in path:
        if not isinstance(type_, Record) or part not in type_.attrs:
            return None
        type_ = type_.attrs[part].type
    return type_
