"""Step 2b, systems of record: where facts are looked up.

One rule, `runtime.lookup`'s: exactly the rows that were asked for, or `SourceError`.

Delta tables have versions, so their facts can be compiled again as they were. SQL tables and callables have one only
if it is declared how it is asked for: else their facts are recorded with the decision, cannot be compiled again, and
are looked up each time. With a version, answers are kept until it changes (`runtime.answer_cache`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.answer_cache import AnswerCache
from runtime.canonical import canonical
from runtime.delta_source import DeltaSource
from runtime.errors import ContextSpecError, SourceError
from runtime.lookup import MAX_ROWS, Found, Source, answering, check_columns, first_line, json_row, typed
from runtime.patience import PatientSource
from runtime.spec import SPEC_FILE
from runtime.toml import TomlLines, did_you_mean
from runtime.values import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, TableClause

    from runtime.canonical import Json
    from runtime.spec import ContextSpec, SourceSpec

__all__ = ["CallableSource", "DeltaSource", "Found", "Source", "SqlSource", "bind_sources"]


class SqlSource:
    """Facts in a table or view, through SQLAlchemy. Each lookup is one `SELECT` with bound parameters.

    Columns are read as the driver gives them, but for booleans, which some databases store as integers.
    """

    kind = "sql"

    def __init__(
        self,
        engine: Engine | str,
        table: str,
        *,
        known_as: str | None = None,
        max_rows: int = MAX_ROWS,
        version_query: str | None = None,
    ) -> None:
        """Name a table; nothing is read yet.

        Args:
            engine: SQLAlchemy engine, which stays the caller's, or URL.
            table: table or view, `schema.table` allowed.
            known_as: what facts record as their `uri`; default the URL without its password.
            max_rows: refuse answers with more rows.
            version_query: statement whose one value changes, in the same transaction, whenever a row of the table
                does: a revision counter, not `max(updated_at)`, which a deletion does not move. None: the table has
                no version, and is read each time.
        """
        from sqlalchemy import create_engine  # noqa: PLC0415 - costs 0.2 s to import; only who reads SQL pays
        from sqlalchemy import table as table_clause  # noqa: PLC0415 - as above

        self._engine: Engine = create_engine(engine) if isinstance(engine, str) else engine
        self._owned = isinstance(engine, str)
        self.uri: str | None = known_as or self._engine.url.render_as_string(hide_password=True)
        schema, _, name = table.rpartition(".")
        self._name, self._schema = name, schema or None
        self._from: TableClause = table_clause(name, schema=self._schema)
        self._columns: dict[str, ColumnElement[Any]] = {}
        self._max_rows = max_rows
        self._version_query = version_query
        self._cache = AnswerCache(f"sql source {self.uri!r}")

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Return rows as they are now; see `Source.lookup`.

        Raises:
            SourceError: also if the database calls values equal that are not (collation, implicit casts).
        """
        if version is not None and self._version_query is None:
            raise SourceError(f"sql source {self.uri!r} has no versions; it cannot be read as of {version!r}")
        with _answering(self.uri):
            self._reflect(tuple(dict.fromkeys((*where, *columns))))
            with self._engine.connect() as connection:
                if self._version_query is None:
                    return Found(self._rows(connection, where, columns), None, None)
                return self._cache.read(
                    lambda: self._current(connection),
                    where,
                    columns,
                    lambda: self._rows(connection, where, columns),
                    version,
                )

    def version_at(self, at_us: int) -> str | None:  # noqa: ARG002 - the protocol's signature
        """Return None: a SQL table has no history."""
        return None

    def close(self) -> None:
        """Close connections of an engine this source made from a URL."""
        if self._owned:
            self._engine.dispose()

    def _reflect(self, names: Sequence[str]) -> None:
        """Learn the table's columns; again when one is asked for that was not there before."""
        if all(name in self._columns for name in names):
            return
        from sqlalchemy import Boolean, column, inspect  # noqa: PLC0415 - costs 0.2 s to import; only who reads SQL pays

        described = inspect(self._engine).get_columns(self._name, schema=self._schema)
        is_bool = {each["name"]: isinstance(each["type"], Boolean) for each in described}
        self._columns = {name: column(name, Boolean() if flag else None) for name, flag in is_bool.items()}
        check_columns(names, self._columns, f"table {self._name!r}")

    def _select(self, where: Mapping[str, Json], names: Sequence[str]) -> Select[Any]:
        from sqlalchemy import bindparam, select  # noqa: PLC0415 - costs 0.2 s to import; only who reads SQL pays

        query = select(*(self._columns[name] for name in names)).select_from(self._from)
        for name, value in where.items():
            query = query.where(self._columns[name] == bindparam(None, value))
        return query

    def _current(self, connection: Connection) -> str:
        value = connection.exec_driver_sql(str(self._version_query)).scalar()
        if value is None:
            raise SourceError(f"sql source {self.uri!r}: `version_query` gave no value; use coalesce(…, 0)")
        return _version(to_json(value, "`version_query`"))

    def _rows(
        self, connection: Connection, where: Mapping[str, Json], columns: Sequence[str]
    ) -> list[dict[str, Json]]:
        names = tuple(dict.fromkeys((*where, *columns)))
        found = self._fetch(connection, self._select(where, names))
        rows = [json_row(dict(row._mapping), names) for row in found]  # noqa: SLF001 - SQLAlchemy's public name
        for row in rows:
            _check_exact(row, where)
        return [{name: row[name] for name in columns} for row in rows]

    def _fetch(self, connection: Connection, query: Select[Any]) -> Sequence[Row[Any]]:
        rows = connection.execute(query).fetchmany(self._max_rows + 1)
        if len(rows) > self._max_rows:
            raise SourceError(
                f"sql source {self.uri!r} returned more than max_rows={self._max_rows} rows; narrow `key`"
            )
        return rows


def _check_exact(row: Mapping[str, Json], where: Mapping[str, Json]) -> None:
    """Refuse a row the database took for equal: 'ABC' for 'abc' under a collation, every word for 0 under a cast."""
    for name, asked in where.items():
        if typed(row[name]) != typed(asked):
            raise SourceError(
                f"column `{name}` holds {row[name]!r:.60} where {asked!r:.60} was asked, and the database takes them "
                "for equal; compare exactly there (binary collation, same type)"
            )


def _answering(uri: str | None) -> AbstractContextManager[None]:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - costs 0.2 s to import; only who reads SQL pays

    return answering(f"sql source {uri!r}", (SQLAlchemyError, OSError, ValueError, OverflowError))


class CallableSource:
    """Facts from a Python function.

    The function is given what is asked (`{column: value}`, the tenant's column among it) and returns one record, a
    list of records, or None. It must put the tenant's column into each record, so that a record of another tenant
    is seen as such. It may be called from several threads.
    """

    kind = "callable"

    def __init__(
        self,
        fn: Callable[[dict[str, Json]], Any],
        version: str | Callable[[], str | int] | None = None,
        *,
        known_as: str | None = None,
    ) -> None:
        """Wrap a function.

        Args:
            fn: the function.
            version: version of what it answers from, or a function that says it; None: facts are recorded, and
                cannot be compiled again. Answers are kept as long as a *function* says the same version: then `fn`
                must answer by what it is asked alone, tenant and all, and the version change with whatever it reads.
            known_as: what facts record as their `uri`; default null.
        """
        self._fn = fn
        self._version = version
        self._cache = AnswerCache("callable source")
        self.uri: str | None = known_as

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Call the function; see `Source.lookup`. A column that a record lacks is null.

        Raises:
            SourceError: the function raised, returned something else, or is at another version than asked.
        """
        asks = self._version
        if callable(asks):
            return self._cache.read(
                lambda: _version(_called(asks)), where, columns, lambda: self._rows(where, columns), version
            )
        if version not in (None, asks):
            raise SourceError(f"callable source is at version {asks!r}; it cannot be read as of {version!r}")
        return Found(self._rows(where, columns), asks, None)

    def _rows(self, where: Mapping[str, Json], columns: Sequence[str]) -> list[dict[str, Json]]:
        return [json_row(row, columns) for row in _records(_called(self._fn, dict(where)))]

    def version_at(self, at_us: int) -> str | None:  # noqa: ARG002 - the protocol's signature
        """Return None: a callable has no history."""
        return None


def _called(fn: Callable[..., Any], *args: Any) -> Any:
    try:
        return fn(*args)
    except Exception as exc:  # a guard point: the function is the user's, and its failure is recorded
        raise SourceError(f"callable source failed: {type(exc).__name__}: {first_line(exc)}") from exc


def _version(value: Any) -> str:
    """Return what a source says its version is, as it is recorded."""
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        text = value if type(value) is str else str(value)
        canonical(text)
        return text
    raise SourceError(f"a version is a text or an integer, got {type(value).__name__} {value!r:.60}")


def _records(answer: Any) -> Sequence[Mapping[str, Any]]:
    rows = [] if answer is None else answer if isinstance(answer, list) else [answer]
    for row in rows:
        if not isinstance(row, dict):
            raise SourceError(
                f"callable source returned {type(row).__name__} {row!r:.60}; return a dict, a list of dicts, or None"
            )
    return rows


def bind_sources(
    spec: ContextSpec, given: Mapping[str, Any], base: str | Path | None = None
) -> dict[str, Source]:
    """Return a source for each that the spec declares.

    Args:
        spec: the context spec.
        given: by name: a path or URL, a SQLAlchemy engine, a callable, or a `Source`. Goes before the spec's `uri`;
            names the spec does not declare are ignored, so that one mapping serves several bundles.
        base: folder that relative `uri`s of the spec start from. Facts then record the `uri` as the spec has it,
            so that they compile to the same bytes wherever the folder is.

    Raises:
        ContextSpecError: a source is not bound, or is bound to something of another kind.
    """
    return {
        source.name: _patient(source, _bind(spec, source, given, base)) for source in spec.sources.values()
    }


def _patient(source: SourceSpec, found: Source) -> Source:
    if source.timeout_us is None:
        return found
    return PatientSource(found, source.name, source.timeout_us / 1_000_000)


def _bind(spec: ContextSpec, source: SourceSpec, given: Mapping[str, Any], base: str | Path | None) -> Source:
    binding = given.get(source.name)
    try:
        found = _declared(source, given, base) if binding is None else _given(source, binding)
    except (LookupError, ValueError, ImportError) as exc:
        line = TomlLines(spec.text).at(f"sources.{source.name}")
        raise ContextSpecError(f"source `{source.name}`: {exc}", file=SPEC_FILE, line=line) from exc
    if found.kind != source.kind:
        line = TomlLines(spec.text).at(f"sources.{source.name}", 0, "kind")
        message = (
            f"source `{source.name}` is of kind {source.kind!r}, and is bound to a {found.kind!r} source"
        )
        raise ContextSpecError(message, file=SPEC_FILE, line=line)
    return found


def _declared(source: SourceSpec, given: Mapping[str, Any], base: str | Path | None) -> Source:
    if source.uri is None:
        hint = did_you_mean(source.name, given) or f"; {_way(source)}"
        raise LookupError(f"is not bound{hint}")
    located = _resolve(source.uri, base)
    return _located(source, located, known_as=None if located == source.uri else source.uri)


def _given(source: SourceSpec, binding: Any) -> Source:
    if isinstance(binding, str | Path):
        return _located(source, str(binding))
    if isinstance(binding, Source):
        return binding
    if source.kind == "sql" and source.table is not None and hasattr(binding, "connect"):
        return SqlSource(binding, source.table, version_query=source.version_query)
    if source.kind == "callable" and callable(binding):
        return CallableSource(binding)
    raise ValueError(f"cannot be bound to {type(binding).__name__}; {_way(source)}")


def _located(source: SourceSpec, uri: str, known_as: str | None = None) -> Source:
    if source.kind == "delta":
        return DeltaSource(uri, known_as=known_as)
    if source.kind == "callable" or source.table is None:
        raise ValueError(f"cannot be bound to a location; {_way(source)}")
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - costs 0.2 s to import; only who reads SQL pays

    try:
        url = uri if "://" in uri else f"sqlite:///{Path(uri).absolute()}"
        return SqlSource(url, source.table, known_as=known_as, version_query=source.version_query)
    except ArgumentError as exc:
        raise ValueError(f"not a database URL: {exc}") from exc


def _resolve(uri: str, base: str | Path | None) -> str:
    """Put a relative location of the spec under `base`; for SQLite the file in its URL."""
    scheme, _, path = uri.partition(":///") if uri.startswith("sqlite") else ("", "", uri)
    if "://" in path or Path(path).is_absolute() or path in ("", ":memory:") or uri.endswith("://"):
        return uri
    if base is None:
        raise ValueError(
            f"`uri` {uri!r} is relative and there is no folder to start from; give an absolute one"
        )
    located = Path(base).absolute() / path
    return f"{scheme}:///{located}" if scheme else str(located)


def _way(source: SourceSpec) -> str:
    """How to bind a source of this kind."""
    values = {
        "delta": '"path/to/table"',
        "sql": '"postgresql://…"',
        "callable": "function",
    }
    declare = "" if source.kind == "callable" else ", or declare its `uri` in the spec"
    return (
        f"bind it where the runtime is opened, `sources={{{source.name!r}: {values[source.kind]}}}`{declare}"
    )
