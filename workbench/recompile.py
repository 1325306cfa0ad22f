"""Contexts compiled again: the same spec to check the record, another spec to ask what it would have known.

One rule: a fact is compiled from the source's version that held then: the one recorded for that source if there is
one, else the one current when the decision was made. A source without versions cannot say; its rows are
quarantined, not answered with today's facts.

Where a source is read at another version than the record's, its columns are compared first: one that is gone or has
another type would turn found facts into absent ones, silently, so such rows are quarantined (`schema_drift`).

Accepted: a source's `timeout` is for live calls; here a lookup takes as long as it does, so that the same replay
twice says the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.context import compile_context
from runtime.errors import (
    GovernanceError,
    SourceColumnUnknown,
    SourceError,
    SourceNotYet,
    SourceVersionLost,
)
from runtime.facts import CompiledContext
from runtime.record import moment_of
from runtime.sources import bind_sources
from runtime.values import micros
from workbench.recorded import prepare_recorded
from workbench.rows import Job
from workbench.where import from_base

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.entities import EntityUid
    from runtime.facts import Fact
    from runtime.policy import Prepared
    from runtime.request import Request
    from runtime.sources import Found, Source
    from runtime.spec import ContextSpec
    from workbench.recorded import Recorded


class Trouble(NamedTuple):
    """Why a row's facts could not be compiled again."""

    cause: str
    sources: tuple[str, ...] = ()
    """Of the facts, where it is about some."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What contexts are compiled again by. Picklable, if what is given is."""

    spec: ContextSpec | None
    given: Mapping[str, Any]
    base: Path | None
    at: datetime | None
    versions: Mapping[str, str]

    def recompiler(self, known: Callable[[], Mapping[str, frozenset[str]]]) -> Recompiler:
        """Return what compiles so; see `Recompiler`."""
        return Recompiler(self.spec, self.given, self.base, known, at=self.at, versions=self.versions)


_CAUSES: Mapping[type[Exception], str] = {
    SourceVersionLost: "source_vacuumed",
    SourceNotYet: "source_not_yet",
    SourceColumnUnknown: "schema_drift",
}
"""What it means for a row that a source raises one of these; anything else is `source_unreadable`."""

_NUMBERS = frozenset({"byte", "short", "integer", "long"})
"""Delta's integers: one for another changes no fact."""


class _Steady:
    """A source that remembers what it will never answer: a version that is gone is asked for once, not once a row."""

    def __init__(self, source: Source) -> None:
        self.kind, self.uri, self.source = source.kind, source.uri, source
        self._never: dict[tuple[str | None, tuple[str, ...]], SourceError] = {}
        self._types: dict[str, Mapping[str, str] | None] = {}

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """See `Source.lookup`."""
        key = version, (*where, *columns)
        if key in self._never:
            raise self._never[key]
        try:
            return self.source.lookup(where, columns, version=version)
        except (SourceVersionLost, SourceNotYet, SourceColumnUnknown) as exc:
            self._never[key] = exc
            raise

    def version_at(self, at_us: int) -> str | None:
        """See `Source.version_at`."""
        return self.source.version_at(at_us)

    def cause(self, fact: Fact, columns: Sequence[str], version: str | None) -> str:
        """Why a fact failed."""
        return _cause(self._never.get((version, (*fact.key, *columns))))

    def drifted(self, was: str | None, now: str | None, names: Sequence[str]) -> bool:
        """Whether one of the columns has another type at one version than at another, or is gone; false: unknown."""
        if was is None or now is None or was == now:
            return False
        before, after = self._columns(was), self._columns(now)
        if before is None or after is None:
            return False
        return any(before[name] != after.get(name) for name in names if name in before)

    def _columns(self, version: str) -> Mapping[str, str] | None:
        if version not in self._types:
            told = getattr(self.source, "column_types", None)
            try:
                found = None if told is None else told(version)
            except SourceError:  # its log is gone, which a lookup says better
                found = None
            self._types[version] = found and {
                name: "integer" if type_ in _NUMBERS else type_ for name, type_ in found.items()
            }
        return self._types[version]


def _cause(error: Exception | None) -> str:
    return next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), "source_unreadable")


class Recompiler:
    """Compiles contexts of recorded decisions from versioned sources."""

    def __init__(
        self,
        spec: ContextSpec | None,
        given: Mapping[str, Any],
        base: Path | None,
        known: Callable[[], Mapping[str, frozenset[str]]],
        *,
        at: datetime | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to compile; a source is bound on first use.

        Args:
            spec: the spec to compile with; None: each row's own.
            given: locations of sources by name, as `Runtime.open` takes them; they go before recorded ones.
            base: folder that relative locations start from.
            known: tells where the record says sources were, in any row; asked once, and only if it has to be.
            at: compile as of this time instead of when each decision was made.
            versions: read these sources at these versions, whatever the record or `at` says.
        """
        self.spec = spec
        self._given = given
        self._base = base
        self._at = at
        self._read_at = dict(versions or {})
        self._known = cache(known)
        self._bound: dict[tuple[str, str, str | None], _Steady] = {}
        self._versions: dict[tuple[str, str, int], str | None] = {}
        self._trouble: dict[str, Trouble] = {}

    @property
    def recipe(self) -> Recipe:
        """What this compiles by."""
        return Recipe(self.spec, self._given, self._base, self._at, self._read_at)

    def job(self, recorded: Recorded, bundle: Bundle) -> Job:
        """Return the job that decides a row over contexts compiled again."""

        def facts(
            found: Recorded, request: Request, resource: EntityUid
        ) -> tuple[CompiledContext, tuple[str, ...]]:
            return self._compile(found, request, resource, bundle.spec), ()

        def prepared(args: Mapping[str, Any]) -> Prepared:
            return prepare_recorded(recorded, args, bundle, facts)

        return Job(recorded.request, bundle, prepared, recorded.grants)

    def trouble(self, recorded: Recorded) -> Trouble | None:
        """Return the cause for quarantine if this row's facts could not be compiled again, else None."""
        return self._trouble.get(recorded.row["decision_id"])

    def compiled(self, recorded: Recorded, own: ContextSpec) -> tuple[CompiledContext, Trouble | None]:
        """Compile a row's context again.

        Args:
            recorded: the row.
            own: the recorded spec, for where no other is given.

        Returns:
            The context, and why it cannot be used, if so.
        """
        request = recorded.request
        resource = request.resource.resolve(request.args)
        again = self._compile(recorded, request, resource, self.spec or own)
        return again, self._trouble.pop(recorded.row["decision_id"], None)

    def timeless(self, recorded: Recorded, tool: str, own: ContextSpec) -> bool:
        """Whether the record alone says which versions to read, so that when the row was decided does not matter."""
        if self._at is not None:
            return True
        facts = recorded.compiled.facts.values() if recorded.compiled else ()
        known = {fact.source for fact in facts if fact.version is not None} | self._read_at.keys()
        return {fact.source for fact in (self.spec or own).asked(tool)} <= known

    def problem(self, recorded: Recorded, own: ContextSpec) -> Trouble | None:
        """Check the second level of self-replay: the recorded spec gives the recorded bytes.

        Returns:
            None if it does, or if there was no context to compile; else the cause.
        """
        compiled = recorded.compiled
        row = recorded.row
        if compiled is None or row["resource_type"] is None:
            return None
        request = recorded.request
        again = self._compile(recorded, request, request.resource.resolve(request.args), own)
        found = self._trouble.pop(row["decision_id"], None)
        if found is not None:
            return found
        return None if again.hash == row["context_hash"] else Trouble("not_recompiled")

    def _compile(
        self, recorded: Recorded, request: Request, resource: EntityUid, spec: ContextSpec
    ) -> CompiledContext:
        asked = spec.asked(request.tool)
        sources: dict[str, _Steady] = {}
        versions: dict[str, str | None] = {}
        for name in dict.fromkeys(fact.source for fact in asked):
            try:
                sources[name] = self._source(spec, name, recorded)
                versions[name] = self._version(recorded, name, sources[name])
            except GovernanceError as exc:
                self._note(recorded, _cause(exc), [name])
                return CompiledContext.of((), spec.hash)
        pinned = {name: version for name, version in versions.items() if version is not None}
        if len(pinned) < len(versions):
            self._note(recorded, "unversioned_source", sorted(versions.keys() - pinned.keys()))
        compiled = compile_context(spec, sources, request, resource, versions=pinned)
        for cause, names in self._faults(recorded, spec, compiled, sources, versions).items():
            self._note(recorded, cause, sorted(names))
        return compiled

    def _faults(
        self,
        recorded: Recorded,
        spec: ContextSpec,
        compiled: CompiledContext,
        sources: Mapping[str, _Steady],
        versions: Mapping[str, str | None],
    ) -> dict[str, set[str]]:
        """Sources that did not answer as then, by cause; a fact that failed then, too, is as it was."""
        was = recorded.compiled.facts if recorded.compiled else {}
        then = {fact.source: fact.version for fact in was.values() if fact.version is not None}
        found: dict[str, set[str]] = {}
        for declared in spec.asked(recorded.request.tool):
            fact, source = compiled.facts[declared.name], sources[declared.source]
            now = versions[declared.source]
            asked = None not in fact.key.values()
            if fact.status == "failed":
                # One that is not unique, or of another tenant, was answered: its stage says what that means.
                if fact.code == "source_failed" and (
                    fact.name not in was or was[fact.name].status != "failed"
                ):
                    cause = source.cause(fact, declared.columns, now)
                    found.setdefault(cause, set()).add(declared.source)
            elif asked and source.drifted(then.get(declared.source), now, (*fact.key, *declared.columns)):
                found.setdefault("schema_drift", set()).add(declared.source)
        return found

    def _note(self, recorded: Recorded, cause: str, sources: Sequence[str]) -> None:
        self._trouble.setdefault(recorded.row["decision_id"], Trouble(cause, tuple(sources)))

    def _source(self, spec: ContextSpec, name: str, recorded: Recorded) -> _Steady:
        """A source of a spec, bound once a place: where told, else where the spec or the record says it was."""
        open_one = name not in self._given and spec.sources[name].uri is None
        was = self._recorded_place(name, recorded) if open_one else None
        key = (spec.hash, name, was)
        if key not in self._bound:
            given = self._given if was is None else {name: from_base(was, self._base)}
            patient = replace(spec.sources[name], timeout_us=None)
            alone = replace(spec, sources={name: patient})
            self._bound[key] = _Steady(bind_sources(alone, given, self._base)[name])
        return self._bound[key]

    def _recorded_place(self, name: str, recorded: Recorded) -> str | None:
        """Where the row says a source was; else where all rows that know say so."""
        facts = recorded.compiled.facts.values() if recorded.compiled else ()
        own = next((fact.uri for fact in facts if fact.source == name and fact.uri is not None), None)
        if own is not None:
            return own
        places = self._known().get(name, frozenset())
        return next(iter(places)) if len(places) == 1 else None

    def _version(self, recorded: Recorded, name: str, source: _Steady) -> str | None:
        if self._at is None and name not in self._read_at and recorded.compiled is not None:
            for was in recorded.compiled.facts.values():
                if was.source == name and was.version is not None:
                    return was.version
        if name in self._read_at:
            return self._read_at[name]
        at = micros(self._at or moment_of(recorded.row["decided_at"]))
        key = (name, source.uri or "", at)
        if key not in self._versions:
            self._versions[key] = source.version_at(at)
        return self._versions[key]
