"""Step 2a, the context spec: which facts a decision is made with, as declared in `context.toml`.

One rule: a spec that loads can be compiled. Names, key paths, placements and ages are checked here, so that what can
still go wrong at run time is a source.

```toml
version = 1
[sources.directory]
kind = "delta"                 # delta | sql | callable
uri = "facts/directory"        # optional: else bound when the runtime is opened
timeout = "2s"                 # optional: a lookup that takes longer is refused
[[facts]]
name = "payee"                 # context.payee
actions = ["send_money"]       # or ["*"]
source = "directory"
key = { iban = "args.recipient" }
fields = ["name", "trusted"]
tenant_column = "tenant_id"    # or shared = true
max_age = "24h"
age_column = "updated_at"
```

The tenant column is always filtered by the request's own tenant; a `key` that maps it elsewhere is overruled.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from runtime.canonical import sha256
from runtime.errors import ContextSpecError
from runtime.facts import CompiledContext, Fact
from runtime.spec_check import misfits
from runtime.toml import TomlLines, TomlTable, did_you_mean, line_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.schema import CedarSchema

SPEC_FILE = "context.toml"
"""Name of a bundle's context spec."""

RESERVED = frozenset({"args", "now", "scopes", "tenant", "session", "on_behalf_of", "approval"})
"""Members of `context` that are not facts."""

SourceKind = Literal["delta", "sql", "callable"]
"""`delta` a Delta table, versioned; `sql` a table through SQLAlchemy; `callable` a Python function."""
Shape = Literal["record", "set"]
"""`record` at most one row; `set` any number of rows, as a set of the one field, or of records of the fields."""
Into = Literal["context", "resource", "principal"]
"""`context` the member `context.<name>`; else the fields are attributes of that entity."""
OnStale = Literal["block", "flag"]
"""`block` the decision; `flag` records that the fact was stale and decides with it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*")
_AGE = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_AGE_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000, 1)

PATHS = (
    "tenant", "session", "tool", "principal.id", "principal.type", "on_behalf_of.id", "on_behalf_of.type",
    "resource.id", "resource.type",
)  # fmt: skip
"""What a key may refer to in a request, beside `args.<name>` and members below it."""

_SOURCE_KEYS = frozenset({"kind", "uri", "table", "version_query", "timeout"})
_FACT_KEYS = frozenset({
    "name", "actions", "source", "key", "fields", "shape", "into", "parents", "tenant_column", "shared", "max_age",
    "age_column", "on_stale",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """One declared source of facts."""

    name: str
    kind: SourceKind
    uri: str | None = None
    """Location; null: bound when the runtime is opened."""
    table: str | None = None
    """Table or view, `schema.table` allowed; `sql` only."""
    version_query: str | None = None
    """Statement that gives the table's version; null: it has none, and is read each time. `sql` only."""
    timeout_us: int | None = None
    """How long a lookup may take, microseconds; null: as long as it does."""


@dataclass(frozen=True, kw_only=True)
class FactSpec:
    """One declared fact."""

    name: str
    actions: tuple[str, ...]
    """Tools whose calls ask for it; `*` is all."""
    source: str
    key: Mapping[str, str] = field(default_factory=dict)
    """Column → path in the request (`PATHS`, or `args.<name>`)."""
    fields: tuple[str, ...] = ()
    """Columns that policies see."""
    shape: Shape = "record"
    into: Into = "context"
    parents: Mapping[str, str] = field(default_factory=dict)
    """Column (a string, or a list of them) → entity type: direct parents of the entity `into` names."""
    tenant_column: str | None = None
    """Column that holds the tenant; null: the fact is shared by all tenants."""
    max_age_us: int | None = None
    """Oldest age allowed, microseconds; null: any."""
    age_column: str | None = None
    """Column that says when the row was true; null: the source's own time, which only Delta has."""
    on_stale: OnStale = "block"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column to read, each once: fields, parents, age, tenant."""
        more = (*self.parents, self.age_column, self.tenant_column)
        return tuple(dict.fromkeys((*self.fields, *(column for column in more if column is not None))))

    @cached_property
    def paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """`key`, with paths split into parts; the tenant's column is the tenant's whatever `key` says."""
        own = {} if self.tenant_column is None else {self.tenant_column: "tenant"}
        return tuple((column, tuple(path.split("."))) for column, path in ({**self.key, **own}).items())

    def applies(self, tool: str) -> bool:
        """Whether calls of `tool` ask for this fact."""
        return tool in self.actions or "*" in self.actions


@dataclass(frozen=True, kw_only=True)
class ContextSpec:
    """A parsed `context.toml`; an empty text declares no facts."""

    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    facts: tuple[FactSpec, ...] = ()
    """In file order; names are unique."""
    text: str = ""
    """Canonical text, LF."""

    @cached_property
    def hash(self) -> str:
        """Hash of the canonical text."""
        return sha256(self.text)

    @cached_property
    def _asking(self) -> frozenset[str]:
        return frozenset(action for fact in self.facts for action in fact.actions)

    def asks(self, tool: str) -> bool:
        """Whether a call of `tool` asks for any fact."""
        return tool in self._asking or "*" in self._asking

    @cached_property
    def blank(self) -> CompiledContext:
        """What a call compiles to that asks for no fact: the same for every one."""
        return CompiledContext.of(self.blanks.values(), self.hash)

    @cached_property
    def blanks(self) -> dict[str, Fact]:
        """Each fact as one that is not asked for, by name."""
        return {
            each.name: Fact(
                name=each.name, status="not_asked", into=each.into, parents=[], source=each.source,
                kind=self.sources[each.source].kind, key={},
            )
            for each in self.facts
        }  # fmt: skip

    def asked(self, tool: str) -> tuple[FactSpec, ...]:
        """Return the facts that a call of `tool` asks for, in file order."""
        return tuple(fact for fact in self.facts if fact.applies(tool))

    def not_asked(self, tool: str) -> tuple[str, ...]:
        """Return the names of the other facts, in file order."""
        return tuple(fact.name for fact in self.facts if not fact.applies(tool))


def parse_spec(text: str, file: str = SPEC_FILE) -> ContextSpec:
    """Parse `context.toml`.

    Raises:
        ContextSpecError: not TOML, an unknown key, or a value that is not allowed; with file and line.

    Example:
        >>> parse_spec("version = 2")
        Traceback (most recent call last):
        runtime.errors.ContextSpecError: context.toml:1: context spec: `version` must be 1, got 2
    """
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ContextSpecError(f"not valid TOML: {exc}", file=file, line=line_of(exc, text)) from exc
    root = TomlTable(document, "context spec", ContextSpecError, file, TomlLines(text))
    root.allow(frozenset({"version", "sources", "facts"}))
    if document.get("version", 1) != 1:
        raise root.error(f"`version` must be 1, got {document['version']!r}", "version")
    sources = {name: _source(name, table) for name, table in root.named_tables("sources", "source").items()}
    facts = tuple(_fact(table, sources) for table in root.array_of_tables("facts", "fact"))
    _check_together(facts, root)
    return ContextSpec(sources=sources, facts=facts, text=text)


def _source(name: str, table: TomlTable) -> SourceSpec:
    table.allow(_SOURCE_KEYS)
    kind = table.choice("kind", get_args(SourceKind))
    uri, name_in_db = table.text("uri"), table.text("table")
    if kind == "callable" and uri is not None:
        raise table.error("a callable has no `uri`; bind the function when the runtime is opened", "uri")
    if kind == "sql" and name_in_db is None:
        raise table.error('a `sql` source needs `table = "…"`, the table or view to read')
    for key in ("table", "version_query"):
        if kind != "sql" and table.has(key):
            raise table.error(f"`{key}` is for `sql` sources, this one is {kind!r}; remove it", key)
    return SourceSpec(
        name=name,
        kind=kind,
        uri=uri,
        table=name_in_db,
        version_query=table.text("version_query"),
        timeout_us=_duration(table, "timeout"),
    )


def _fact(table: TomlTable, sources: Mapping[str, SourceSpec]) -> FactSpec:
    table.allow(_FACT_KEYS)
    name = table.required("name")
    table = table.named(f"fact `{name}`")
    if not _NAME.fullmatch(name) or name in RESERVED:
        taken = f"{name!r} is taken by the runtime" if name in RESERVED else f"got {name!r}"
        raise table.error(f"`name` must be an identifier that is free in `context`, {taken}", "name")
    source = _source_of(table, sources)
    fact = FactSpec(
        name=name,
        actions=_actions(table),
        source=source.name,
        key=table.texts("key"),
        fields=table.names("fields"),
        shape=table.choice("shape", get_args(Shape), "record"),
        into=table.choice("into", get_args(Into), "context"),
        parents=table.texts("parents"),
        tenant_column=_tenant_column(table),
        max_age_us=_duration(table, "max_age"),
        age_column=table.text("age_column"),
        on_stale=table.choice("on_stale", get_args(OnStale), "block"),
    )
    _check_paths(fact, table)
    _check_placement(fact, table)
    _check_age(fact, source, table)
    return fact


def _source_of(table: TomlTable, sources: Mapping[str, SourceSpec]) -> SourceSpec:
    name = table.required("source")
    if name not in sources:
        hint = did_you_mean(name, sources) or f"; declare it as `[sources.{name}]`"
        raise table.error(f"unknown source `{name}`{hint}", "source")
    return sources[name]


def _actions(table: TomlTable) -> tuple[str, ...]:
    actions = table.names("actions")
    if not actions or ("*" in actions and len(actions) > 1):
        raise table.error(f'`actions` must be tool names, or ["*"] alone, got {list(actions)!r}', "actions")
    return actions


def _tenant_column(table: TomlTable) -> str | None:
    column, shared = table.text("tenant_column"), table.flag("shared")
    if column is None and not shared:
        raise table.error(
            'needs `tenant_column = "…"`, the column that holds the tenant, or `shared = true` if its rows '
            "belong to no tenant"
        )
    if column is not None and shared:
        raise table.error("`shared = true` and `tenant_column` exclude each other; keep one", "shared")
    return column


def _duration(table: TomlTable, key: str) -> int | None:
    """Read a duration in microseconds."""
    text = table.text(key)
    if text is None:
        return None
    match = _AGE.fullmatch(text)
    parts = zip(match.groups(), _AGE_UNITS_MS, strict=True) if match else ()
    millis = sum(int(digits) * unit for digits, unit in parts if digits)
    if not 0 < millis < 2**43:
        raise table.error(f'`{key}` must be a duration such as "24h", "90s" or "1d12h", got {text!r}', key)
    return millis * 1_000


def _check_paths(fact: FactSpec, table: TomlTable) -> None:
    for column, path in fact.key.items():
        parts = path.split(".")
        if path in PATHS or (parts[0] == "args" and len(parts) > 1 and all(parts)):
            continue
        hint = did_you_mean(path, PATHS)
        allowed = f"{', '.join(PATHS)} or args.<name>"
        raise table.error(
            f"key `{column}` must be a path in the request, got {path!r}{hint}; known are {allowed}", "key"
        )


def _check_placement(fact: FactSpec, table: TomlTable) -> None:
    if not fact.fields and not (fact.parents and fact.shape == "record"):
        raise table.error('needs `fields = ["…"]`, the columns that policies see')
    if fact.into == "context" and fact.parents:
        raise table.error('`parents` needs `into = "resource"` or `into = "principal"`', "parents")
    if fact.into != "context" and fact.shape == "set":
        raise table.error(f'a set cannot be placed into {fact.into!r}; use `into = "context"`', "shape")
    for column, type_ in fact.parents.items():
        if not _TYPE.fullmatch(type_):
            raise table.error(f"parents: `{column}` must name an entity type, got {type_!r}", "parents")


def _check_age(fact: FactSpec, source: SourceSpec, table: TomlTable) -> None:
    if fact.max_age_us is None and table.has("on_stale"):
        raise table.error("`on_stale` needs `max_age`", "on_stale")
    if fact.max_age_us is not None and fact.age_column is None and source.kind != "delta":
        raise table.error(
            f"`max_age` needs `age_column`: a {source.kind!r} source does not say how old its rows are",
            "max_age",
        )


def _check_together(facts: tuple[FactSpec, ...], root: TomlTable) -> None:
    """Refuse two facts that claim one name, or one attribute of one entity in one action."""
    claimed: dict[tuple[str, str], list[FactSpec]] = {}
    for index, fact in enumerate(facts):
        claims = [("name", fact.name)]
        if fact.into != "context":
            claims += [(fact.into, column) for column in fact.fields]
        for claim in claims:
            for other in claimed.setdefault(claim, []):
                if claim[0] == "name" or _overlap(fact, other):
                    where = root.lines.at("facts", index, "name" if claim[0] == "name" else "fields")
                    raise _claimed_twice(claim, fact, other, root.file, where)
            claimed[claim].append(fact)


def _overlap(one: FactSpec, two: FactSpec) -> bool:
    return "*" in one.actions or "*" in two.actions or not set(one.actions).isdisjoint(two.actions)


def _claimed_twice(
    claim: tuple[str, str], fact: FactSpec, other: FactSpec, file: str, line: int | None
) -> ContextSpecError:
    place, name = claim
    if place == "name":
        return ContextSpecError(f"fact `{name}` is declared twice; rename one", file=file, line=line)
    message = (
        f"fact `{fact.name}`: attribute `{name}` of the {place} is also set by fact `{other.name}`; drop one"
    )
    return ContextSpecError(message, file=file, line=line)


def check_spec(spec: ContextSpec, schema: CedarSchema, file: str = SPEC_FILE) -> None:
    """Check a spec against the schema its facts are placed in.

    A fact may come back as none, so what it fills must be optional (`payee?: …`).

    Args:
        spec: as parsed.
        schema: the bundle's schema, with the standard context.
        file: name of the spec, for messages.

    Raises:
        ContextSpecError: an action, argument, context member, attribute or parent type is not declared, or is
            declared in a way that the fact cannot fill.
    """
    lines = TomlLines(spec.text)
    for index, fact in enumerate(spec.facts):
        for key, message in misfits(fact, schema):
            raise ContextSpecError(
                f"fact `{fact.name}`: {message}", file=file, line=lines.at("facts", index, key)
            )
