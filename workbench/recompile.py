"""Contexts compiled again: the same spec to check the record, another spec to ask what it would have known.

One rule: a fact is compiled from the source's version that held then: the one recorded for that source if there is
one, else the one current when the decision was made. A source without versions cannot say; its rows are
quarantined, not answered with today's facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.context import compile_context
from runtime.errors import GovernanceError
from runtime.facts import CompiledContext
from runtime.record import moment_of
from runtime.sources import bind_sources
from runtime.values import micros
from workbench.recorded import prepare_recorded
from workbench.rows import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from runtime.bundle import Bundle
    from runtime.entities import EntityUid
    from runtime.policy import Prepared
    from runtime.request import Request
    from runtime.sources import Source
    from runtime.spec import ContextSpec, FactSpec
    from workbench.recorded import Recorded


class Recompiler:
    """Compiles contexts of recorded decisions from versioned sources."""

    def __init__(
        self,
        spec: ContextSpec | None,
        given: Mapping[str, Any],
        base: Path | None,
        *,
        at: datetime | None = None,
    ) -> None:
        """Prepare to compile; sources are bound on first use.

        Args:
            spec: the spec to compile with; None: each row's own.
            given: locations of sources by name, as `Runtime.open` takes them; they go before recorded ones.
            base: folder that relative locations start from.
            at: compile as of this time instead of when each decision was made.
        """
        self.spec = spec
        self._given = given
        self._base = base
        self._at = at
        self._bound: dict[str, Mapping[str, Source]] = {}
        self._versions: dict[tuple[str, str, int], str | None] = {}
        self._trouble: dict[str, str] = {}

    def job(self, recorded: Recorded, bundle: Bundle) -> Job:
        """Return the job that decides a row over contexts compiled again."""

        def facts(
            found: Recorded, request: Request, resource: EntityUid
        ) -> tuple[CompiledContext, tuple[str, ...]]:
            return self._compile(found, request, resource, bundle.spec), ()

        def prepared(args: Mapping[str, Any]) -> Prepared:
            return prepare_recorded(recorded, args, bundle, facts)

        return Job(recorded.request, bundle, prepared)

    def trouble(self, recorded: Recorded) -> str | None:
        """Return the cause for quarantine if this row's facts could not be compiled again, else None."""
        return self._trouble.get(recorded.row["decision_id"])

    def problem(self, recorded: Recorded, own: ContextSpec) -> str | None:
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
        return None if again.hash == row["context_hash"] else "not_recompiled"

    def _compile(
        self, recorded: Recorded, request: Request, resource: EntityUid, spec: ContextSpec
    ) -> CompiledContext:
        asked = spec.asked(request.tool)
        try:
            sources = self._sources(spec, recorded) if asked else {}
            versions = {fact.source: self._version(recorded, fact, sources[fact.source]) for fact in asked}
        except GovernanceError:
            self._note(recorded, "source_unreadable")
            return CompiledContext.of((), spec.hash)
        pinned = {name: version for name, version in versions.items() if version is not None}
        if len(pinned) < len(versions):
            self._note(recorded, "unversioned_source")
        compiled = compile_context(spec, sources, request, resource, versions=pinned)
        was = recorded.compiled.facts if recorded.compiled else {}
        failed = (name for name, fact in compiled.facts.items() if fact.status == "failed")
        if any(name not in was or was[name].status != "failed" for name in failed):
            self._note(recorded, "source_unreadable")
        return compiled

    def _note(self, recorded: Recorded, cause: str) -> None:
        self._trouble.setdefault(recorded.row["decision_id"], cause)

    def _sources(self, spec: ContextSpec, recorded: Recorded) -> Mapping[str, Source]:
        """Sources of a spec, bound once: where told, else where the record says they were."""
        if spec.hash not in self._bound:
            facts = recorded.compiled.facts.values() if recorded.compiled else ()
            # A location the spec declares is bound as the runtime does; else the record says what was bound then.
            open_ones = {name for name, source in spec.sources.items() if source.uri is None}
            was = {
                fact.source: fact.uri for fact in facts if fact.uri is not None and fact.source in open_ones
            }
            self._bound[spec.hash] = bind_sources(spec, {**was, **self._given}, self._base)
        return self._bound[spec.hash]

    def _version(self, recorded: Recorded, fact: FactSpec, source: Source) -> str | None:
        if self._at is None and recorded.compiled is not None:
            for was in recorded.compiled.facts.values():
                if was.source == fact.source and was.version is not None:
                    return was.version
        at = micros(self._at or moment_of(recorded.row["decided_at"]))
        key = (fact.source, source.uri or "", at)
        if key not in self._versions:
            self._versions[key] = source.version_at(at)
        return self._versions[key]
