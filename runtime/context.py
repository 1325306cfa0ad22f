"""Step 2, compile context: from systems of record to the facts, context and entities a decision is made with.

One rule: same spec + same source versions + same request = same bytes. Nothing of the wall clock, of row order or of
this process gets into a compiled context.

`compile_context` asks the sources; `judge_context` and `assemble` are pure and serve replay as well. What came back
is one of `found`, `none` (asked, nothing there), `not_asked`, `failed`: a decision never takes one for another.

What a fact may do: fill `context.<name>`, or attributes and direct parents of the principal or the resource. An empty
set is a value (`[]`), while a record that is not there is absent, as is any fact whose key the request does not give.

Freshness: with `max_age`, a fact is fresh if it is at most that old, and dated at most `MAX_SKEW_US` ahead of the
decision; one from the future says nothing about now, and would never grow stale. Decisions record the skew they were
judged by, so that those made before there was a bound (schema version 1) are judged again without one.

Accepted: a set is as old as its oldest row; a row of it that is dated ahead does not show beside an older one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from runtime.assembly import assemble
from runtime.canonical import Json, NotCanonical, canonical, content_hash
from runtime.errors import SourceError, SourceTimeout
from runtime.facts import NO_VALUE, CompiledContext, Fact, FactStatus, is_plain
from runtime.foreign import message_of, well_formed
from runtime.request import MAX_SKEW_US
from runtime.values import as_set, micros, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.entities import EntityUid
    from runtime.lookup import Found, Source
    from runtime.request import Request
    from runtime.spec import ContextSpec, FactSpec

__all__ = [
    "CompiledContext",
    "Fact",
    "FactStatus",
    "Refusal",
    "assemble",
    "compile_context",
    "judge_context",
]


MAX_QUOTED = 300
"""Most characters of a key that a message quotes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stage before policy said no."""

    stage: Literal["request", "tenant", "context", "limits"]
    code: str
    message: str
    inputs: Json = None
    """What the stage saw."""


def compile_context(
    spec: ContextSpec,
    sources: Mapping[str, Source],
    request: Request,
    resource: EntityUid,
    *,
    versions: Mapping[str, str] | None = None,
) -> CompiledContext:
    """Ask the sources for the facts of one request.

    Facts from one Delta source are read at one version. A source that cannot answer gives a `failed` fact, never an
    exception: `judge_context` then refuses.

    Args:
        spec: the context spec.
        sources: by name, as `bind_sources` returns them.
        request: the request.
        resource: its resource.
        versions: source → version to read as of, for replay; others are read at their latest.

    Raises:
        NotCanonical: the request's own values have no canonical form.
    """
    if not spec.asks(request.tool):
        return spec.blank
    asking = _Asking(sources, request, resource, dict(versions or {}))
    facts = [
        asking.ask(fact, _Origin(fact, spec)) if fact.applies(request.tool) else spec.blanks[fact.name]
        for fact in spec.facts
    ]
    try:
        return CompiledContext.of(facts, spec.hash)
    except NotCanonical as exc:
        # Each fact has a canonical form, together they have none: floats beside integers beyond 2**53.
        return CompiledContext.of([_without_floats(fact, str(exc)) for fact in facts], spec.hash)


@dataclass(slots=True)
class _Origin:
    """What is known of a fact before and while its source is asked; makes the `Fact` once, at the end."""

    declared: FactSpec
    spec: ContextSpec
    key: dict[str, Json] = field(default_factory=dict)
    uri: str | None = None
    version: str | None = None

    def fact(
        self,
        status: FactStatus,
        value: Json = None,
        parents: list[list[str]] | None = None,
        as_of: int | None = None,
    ) -> Fact:
        return Fact(
            name=self.declared.name,
            status=status,
            value=value,
            into=self.declared.into,
            parents=parents or [],
            source=self.declared.source,
            kind=self.spec.sources[self.declared.source].kind,
            uri=self.uri,
            version=self.version,
            key=self.key,
            as_of=as_of,
            hash=NO_VALUE if value is None else content_hash(value),
        )

    def failed(self, code: str, message: str) -> Fact:
        return replace(self.fact("failed"), code=code, message=well_formed(message))


def _without_floats(fact: Fact, why: str) -> Fact:
    if is_plain(fact.value):
        return fact
    return replace(
        fact, status="failed", value=None, parents=[], hash=NO_VALUE, code="source_failed", message=why
    )


@dataclass(slots=True)
class _Asking:
    """The lookups of one request."""

    sources: Mapping[str, Source]
    request: Request
    resource: EntityUid
    pins: dict[str, str]
    """Source → version to read as of."""
    silent: dict[str, str] = field(default_factory=dict)
    """Source → what it said when it did not answer in time: asked once a request, not once a fact."""

    def ask(self, fact: FactSpec, origin: _Origin) -> Fact:
        source = self.sources.get(fact.source)
        if source is None:
            return origin.failed("source_failed", f"source `{fact.source}` is not bound")
        try:
            return self._found(fact, origin, source)
        except SourceTimeout as exc:
            self.silent[fact.source] = str(exc)
            return origin.failed("source_failed", str(exc))
        except (SourceError, NotCanonical) as exc:
            return origin.failed("source_failed", str(exc))
        except Exception as exc:  # noqa: BLE001 - a guard point: a source, and the values it gives, need not be ours
            why = f"source `{fact.source}` failed: {type(exc).__name__}: {message_of(exc):.300}"
            return origin.failed("source_failed", why)

    def _found(self, fact: FactSpec, origin: _Origin, source: Source) -> Fact:
        origin.key = fact_key(fact, self.request, self.resource)
        if None in origin.key.values():
            return origin.fact("none")
        origin.uri = source.uri
        if fact.source in self.silent:
            return origin.failed("source_failed", self.silent[fact.source])
        found = source.lookup(origin.key, fact.columns, version=self.pins.get(fact.source))
        origin.version = found.version
        if source.kind == "delta" and found.version is not None:
            self.pins.setdefault(fact.source, found.version)
        return _answered(origin, found, self.request.tenant)


def fact_key(fact: FactSpec, request: Request, resource: EntityUid) -> dict[str, Json]:
    """Return what a fact is asked with, by column, as `Fact.key` records it; null: the request does not give it.

    Raises:
        SourceError: a key path refers to something that is no scalar.
        NotCanonical: it has no JSON form.
    """
    return {column: _key(path, request, resource) for column, path in fact.paths}


def _key(path: tuple[str, ...], request: Request, resource: EntityUid) -> str | int | None:
    """Return what a key path refers to, as JSON scalar; None: the request does not give it."""
    value = _referred(path, request, resource)
    value = to_json(value, f"key `{'.'.join(path)}`")
    if isinstance(value, float | list | dict):
        raise SourceError(
            f"key `{'.'.join(path)}` must be a string, an integer or a boolean, got {canonical(value):.60}"
        )
    return value


def _referred(path: tuple[str, ...], request: Request, resource: EntityUid) -> Json:
    match path:
        case ("args", *names):
            value: Json = dict(request.args)
            for name in names:
                value = value.get(name) if isinstance(value, dict) else None
            return value
        case ("session",):
            return request.session_id
        case (("principal" | "on_behalf_of" | "resource") as who, ("id" | "type") as what):
            uid = resource if who == "resource" else getattr(request, who)
            return None if uid is None else str(getattr(uid, what))
        case _:
            return str(getattr(request, path[0]))


def _answered(origin: _Origin, found: Found, tenant: str) -> Fact:
    fact, rows = origin.declared, found.rows
    if fact.tenant_column is not None:
        others = [row[fact.tenant_column] for row in rows if row[fact.tenant_column] != tenant]
        if others:
            why = f"source `{fact.source}` returned a row of tenant {others[0]!r} for a request of {tenant!r}"
            return origin.failed("tenant_crossing", why)
    if fact.shape == "record" and len(rows) > 1:
        why = f"source `{fact.source}` has {len(rows)} rows for {_cut(canonical(origin.key))}; a record takes one"
        return origin.failed("not_unique", why)
    as_of = _oldest(fact.age_column, rows) if fact.age_column is not None else found.as_of
    return origin.fact("found" if rows else "none", _value(fact, rows), _parents(fact, rows), as_of)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def _value(fact: FactSpec, rows: Sequence[Mapping[str, Json]]) -> Json:
    records: list[Json] = [{name: row[name] for name in fact.fields} for row in rows]
    if fact.shape == "record":
        return records[0] if records else None
    if len(fact.fields) == 1:
        # A row without a value adds nothing to a set of values.
        records = [row[fact.fields[0]] for row in rows if row[fact.fields[0]] is not None]
    return as_set(records)


def _parents(fact: FactSpec, rows: Sequence[Mapping[str, Json]]) -> list[list[str]]:
    found = {
        (type_, ident)
        for row in rows
        for column, type_ in fact.parents.items()
        for ident in _ids(row, column)
    }
    return [list(pair) for pair in sorted(found)]


def _ids(row: Mapping[str, Json], column: str) -> Iterator[str]:
    value = row[column]
    for ident in value if isinstance(value, list) else [value]:
        if ident is None:
            continue
        if not isinstance(ident, str):
            raise SourceError(
                f"column `{column}` must hold ids, a string or a list of them, got {ident!r:.60}"
            )
        yield ident


def _oldest(column: str, rows: Sequence[Mapping[str, Json]]) -> int | None:
    """Return the oldest time among rows; None: there is none, or one row does not say."""
    times = [_time(row[column], column) for row in rows]
    return None if not times or None in times else min(time for time in times if time is not None)


def _time(value: Json, column: str) -> int | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise SourceError(
            f"age column `{column}` must hold a timestamp with its zone (2026-11-22T10:00:00Z), got {value!r:.60}"
        )
    return micros(moment)


def judge_context(
    compiled: CompiledContext, spec: ContextSpec, at: datetime, *, skew_us: int | None = MAX_SKEW_US
) -> tuple[Refusal | None, dict[str, Json]]:
    """Judge the facts at a time: stages `tenant` and `context`. Pure.

    Args:
        compiled: the facts; one that `spec` does not declare is not judged.
        spec: says how old a fact may be, and what to do about it.
        at: evaluation time.
        skew_us: how far ahead of `at` a fact with `max_age` may be dated, microseconds; None: any, as was judged
            before schema version 2.

    Returns:
        The first refusal, a crossing of tenants before anything else and then in the spec's order, and what was seen:
        `{"facts": {name: {"as_of", "age_s", "stale"}}, "max_skew_us"}` of the facts asked for, ages in whole
        seconds, null: unknown.
    """
    seen: dict[str, Json] = {}
    judged: dict[str, Json] = {"facts": seen}
    if skew_us is not None:
        judged["max_skew_us"] = skew_us
    if compiled is spec.blank:  # nothing was asked for
        return None, judged
    asked = [(f, compiled.facts[f.name]) for f in spec.facts if f.name in compiled.facts]
    now = micros(at)
    refusals: list[Refusal] = []
    for declared, fact in asked:
        if fact.status == "not_asked":
            continue
        age = None if fact.as_of is None else now - fact.as_of
        stale = _is_stale(declared, fact, age, skew_us)
        inputs: dict[str, Json] = {
            "as_of": fact.as_of,
            "age_s": None if age is None else age // 1_000_000,
            "stale": stale,
        }
        seen[fact.name] = inputs
        if fact.status == "failed":
            stage: Literal["tenant", "context"] = "tenant" if fact.code == "tenant_crossing" else "context"
            message = f"fact `{fact.name}`: {fact.message}"
            refusals.append(Refusal(stage, str(fact.code), message, {"fact": fact.name}))
        elif stale and declared.on_stale == "block":
            refusals.append(Refusal("context", "stale", _stale_message(declared, age), {fact.name: inputs}))
    refusals.sort(key=lambda refusal: refusal.stage != "tenant")
    return (refusals[0] if refusals else None), judged


def _is_stale(declared: FactSpec, fact: Fact, age: int | None, skew_us: int | None) -> bool:
    """Whether a fact is too old, dated ahead, or does not say how old it is. What is not there has no own age."""
    if declared.max_age_us is None or fact.status == "failed":
        return False
    if fact.status == "none" and age is None:
        return False
    return age is None or age > declared.max_age_us or (skew_us is not None and age < -skew_us)


def _stale_message(declared: FactSpec, age: int | None) -> str:
    allowed = f"{(declared.max_age_us or 0) / 1_000_000:g} s"
    if age is None:
        return f"fact `{declared.name}` does not say how old it is; `max_age` allows {allowed}"
    if age < 0:
        return (
            f"fact `{declared.name}` is dated {-age / 1_000_000:.0f} s ahead of the decision, so it says nothing "
            "about how fresh it is; set the clock that is wrong, the source's or this machine's"
        )
    return f"fact `{declared.name}` is {age / 1_000_000:.0f} s old; `max_age` allows {allowed}"
