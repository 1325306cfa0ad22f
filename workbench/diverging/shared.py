"""What decisions of different sessions share: counters of limits, and facts about entities.

One rule: what cannot be told counts as shared. A version of limits or of a context spec that nobody can show makes
every earlier changed action of the tenant count (`InForce.known`).

Counters are those of the limits in force in either version, whatever bundle they come from: `runtime.limits.Meter`
and `runtime.limits.Breaker` say whose calls they count (per principal, user acted for, tenant or tool, always inside
one tenant) and for which tools. Counters of a session, and loops, never leave it. A sliding window forgets: a call
counts for the window and a sixtieth more (`runtime.windows`); where the share of a call is known only after it (cost,
tokens, time), its window begins at an unknown time, so it counts for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from runtime.limits import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runtime.limits import Breaker, Limits, Per
    from runtime.spec import ContextSpec, FactSpec

_T = TypeVar("_T")

Rows = tuple[str | None, tuple[str, ...]]
"""Rows by the hash of what they were decided with (None: all) and by tool (`*` is all)."""

WINDOW_PARTS = 60
"""Buckets of a sliding window, `runtime.windows.BUCKETS`: a use counts until all of its bucket is out."""

_WHO = ("principal", "on_behalf_of", "resource")


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The limits and context specs that decisions hang on, in either version."""

    limits: Mapping[str, Limits] = field(default_factory=dict)
    """By `limits_hash`, as decisions record it."""
    specs: Mapping[str, ContextSpec] = field(default_factory=dict)
    """By `context_spec_hash`."""
    more_limits: tuple[Limits, ...] = ()
    """That a replay decides every row with."""
    more_specs: tuple[ContextSpec, ...] = ()
    """That a replay compiles every row's facts by."""
    known: bool = True
    """Whether that is all: False if a replay was made with limits or a spec that it does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter: whose calls move it, and whose calls are judged by it."""

    name: str
    """As the runtime records it: `calls per tenant in 1h`."""
    per: Per
    counts: tuple[str, ...]
    """Tools whose calls move it; `*` is all."""
    judges: frozenset[Rows]
    window_ms: int | None = None
    """How long a call is remembered, the last bucket included; None: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One way in which facts are looked up: by a part of the request."""

    path: tuple[str, ...]
    """`resource.id`, `args.order_id` …, in parts."""
    shared: bool
    """Whether its facts belong to no tenant, so that another tenant's action may write them."""
    asked: frozenset[Rows]


def counters(found: InForce) -> tuple[Counter, ...]:
    """Return the counters that sessions share, by name."""
    judges: dict[tuple[str, Per, tuple[str, ...], int | None], set[Rows]] = {}
    for key, limits in _versions(found.limits, found.more_limits):
        found_here: tuple[Budget | Breaker, ...] = (*limits.budgets, *limits.breakers)
        for each in found_here:
            name, per, counts, window = _identity(each)
            if per != "session":
                judges.setdefault((name, per, counts, window), set()).add((key, each.actions))
    return tuple(
        Counter(name=name, per=per, counts=counts, judges=frozenset(rows), window_ms=window)
        for (name, per, counts, window), rows in sorted(judges.items(), key=lambda item: item[0][0])
    )


def _identity(limit: Budget | Breaker) -> tuple[str, Per, tuple[str, ...], int | None]:
    if not isinstance(limit, Budget):
        return limit.key, limit.per, limit.actions, None
    meter = limit.meter
    window = None if meter.is_after else meter.window_ms
    forgets = None if window is None else window - (-window // WINDOW_PARTS)
    return meter.name, meter.per, meter.actions, forgets


def lookups(found: InForce) -> tuple[Lookup, ...]:
    """Return how facts are looked up; what only keeps tenants apart, and types of entities, are left out."""
    asked: dict[tuple[tuple[str, ...], bool], set[Rows]] = {}
    for key, spec in _versions(found.specs, found.more_specs):
        for fact in spec.facts:
            for path in _paths(fact):
                asked.setdefault((path, fact.tenant_column is None), set()).add((key, fact.actions))
    return tuple(
        Lookup(path=path, shared=shared, asked=frozenset(rows))
        for (path, shared), rows in sorted(asked.items())
    )


def _paths(fact: FactSpec) -> Iterator[tuple[str, ...]]:
    for column, path in fact.paths:
        if column != fact.tenant_column and not (path[0] in _WHO and path[1] == "type"):
            yield path


def _versions(recorded: Mapping[str, _T], more: Iterable[_T]) -> Iterator[tuple[str | None, _T]]:
    yield from recorded.items()
    yield from ((None, each) for each in more)
