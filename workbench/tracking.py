"""The one door to MLflow: a tracking store to write to, without MLflow's global state.

One rule: what fails here says which store, why, and what to do, within seconds. MLflow by itself retries an address
that nobody listens at for minutes; so a store is looked at first, with the standard library.

Telemetry is off before MLflow's first line runs, and stays off for this process and its children: it reads the
switches at every use.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import ssl
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import TrackingError, need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SWITCHES = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Environment under which MLflow runs here."""

REACH_SECONDS = 5
"""How long an HTTP server may take to answer at all."""

RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""How often MLflow asks again, unless the caller says; its own default keeps at it for four minutes a request."""

SILENCE = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""A line on standard output for every run that ends, which is not MLflow's to write in a job."""

DATABASE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
"""File and folder of a local store, side by side."""


@dataclass(frozen=True, slots=True)
class Store:
    """A tracking store that has answered. Made by `connect`."""

    uri: str
    """Its address, as this process can use it."""
    client: Any
    """`mlflow.MlflowClient`, bound to `uri`."""
    artifact_root: str | None
    """Where a new experiment keeps its artifacts; None: the server says."""

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; it is made if there is none.

        Raises:
            TrackingError: it was deleted.
        """
        found = self.client.get_experiment_by_name(name) or self._create(name)
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment `{name}` at {shown(self.uri)} is deleted: "
                f"run `mlflow experiments restore --experiment-id {found.experiment_id}`, or take another name"
            )
        return str(found.experiment_id)

    def _create(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds, and only where it is used

        try:
            self.client.create_experiment(name, artifact_location=self.artifact_root)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was faster
                raise
        return self.client.get_experiment_by_name(name)


def library() -> Any:
    """Return the `mlflow` module, its telemetry off.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.update(SWITCHES)
    return need("mlflow")


def local_uri(folder: Path) -> str:
    """Return the address of the local store in `folder`: an SQLite file, artifacts beside it."""
    return f"sqlite:///{folder.resolve() / DATABASE}"


@contextmanager
def connect(uri: str) -> Iterator[Store]:
    """Open a tracking store; what goes wrong with it inside the block is told in its name.

    Args:
        uri: `http(s)://…`, `sqlite:///…` (made if it does not exist), or whatever else MLflow takes.

    Raises:
        TrackingError: nobody answers, the file is no database, or the store refuses.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - `shown` needs none of it

    module = library()
    refusals = (module.MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
    try:
        path = look(uri)
        own = uri if path is None else _fresh(uri, path)
        with _quiet("mlflow.store.db.utils", "alembic"):
            client = module.MlflowClient(tracking_uri=own)
        with _environment(RETRIES | SILENCE):
            yield Store(own, client, None if path is None else (path.parent / ARTIFACTS).as_uri())
    except TrackingError:
        raise
    except refusals as exc:
        raise TrackingError(f"MLflow at {shown(uri)} did not take the run: {_said(exc, uri)}") from exc


def run_url(uri: str, experiment_id: str, run_id: str) -> str | None:
    """Return the address of a run's page, without a password; None: the store is no server."""
    if not uri.startswith(("http://", "https://")):
        return None
    return f"{shown(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def standing(exc: TrackingError) -> Literal["away", "refused", "unclear"]:
    """Tell what a failure of `connect` means for whoever would send the same again.

    Args:
        exc: what it raised.

    Returns:
        `away`: nobody answers, or takes anything just now; `refused`: it is the request, and no other time is better;
        `unclear`: either may be.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds, and only where it is used
    from sqlalchemy.exc import OperationalError, SQLAlchemyError  # noqa: PLC0415

    match exc.__cause__:
        case MlflowException(
            error_code="BAD_REQUEST", __cause__=SQLAlchemyError()
        ):  # what MLflow makes of any
            return "unclear"
        case MlflowException(error_code=code):
            return "away" if code in _AWAY else "refused" if code in _REFUSED else "unclear"
        case OSError() | sqlite3.OperationalError() | OperationalError():
            return "away"
        case _:
            return "unclear"


_AWAY = {
    *(
        "TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "CANCELLED",
    ),
    *("PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"),
}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
"""Codes of MLflow; a connection that breaks is an `INTERNAL_ERROR` there, as is a fault of the server's."""


def shown(uri: str) -> str:
    """Return an address as it may be shown: without its password."""
    head, separator, tail = uri.partition("://")
    credentials, at, host = tail.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{head}{separator}{user}{':***' if colon else ''}{at}{host}"


def _said(exc: BaseException, uri: str) -> str:
    return str(exc).replace(uri, shown(uri)) or type(exc).__name__


def look(uri: str) -> Path | None:
    """See that a store can answer; return the file of an SQLite store, None for others.

    Raises:
        TrackingError: nobody answers, or the file is no database. Within seconds.
    """
    if uri.startswith(("http://", "https://")):
        _look_at_server(uri)
    elif uri.startswith("sqlite"):
        return _look_at_file(uri)
    return None


def _look_at_server(uri: str) -> None:
    """Any answer will do, whatever its status: a proxy may keep `/health` to itself."""
    request = urllib.request.Request(f"{uri.rstrip('/')}/health")  # noqa: S310 - http(s), checked by the caller
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError as exc:
        exc.close()
    except (OSError, ValueError) as exc:
        if isinstance(getattr(exc, "reason", None), ssl.SSLError):
            return  # somebody is there; whether to trust it is for MLflow's own settings
        raise TrackingError(
            f"nobody answers at tracking_uri {shown(uri)}: {_said(exc, uri)}; start one with `mlflow server`, "
            "correct the address, or leave tracking_uri out to log to a local file"
        ) from exc


def _look_at_file(uri: str) -> Path:
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        path = Path(make_url(uri).database or "").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error, ArgumentError) as exc:
        raise TrackingError(
            f"tracking_uri {shown(uri)} is not a database that can be used: {exc}; "
            "give the path of an MLflow database or of a file that does not exist yet"
        ) from exc
    return path


_seen: dict[Path, tuple[int | None, int]] = {}
"""By file of a store: its inode when it was last opened here, and how many files of that name there have been."""


def _fresh(uri: str, path: Path) -> str:
    """Return an address under which MLflow opens the file that is there now.

    MLflow keeps one open store an address for the life of the process, and would go on writing to a file that was
    deleted since, say by a demo that rebuilds in the same notebook. Another file gets another spelling of its
    address (`/./`), which means the same to everybody else.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415

    inode = path.stat().st_ino if path.exists() else None
    before, count = _seen.get(path, (inode, 0))
    if inode is None or inode != before:
        count += path in _seen
        path.touch()
        inode = path.stat().st_ino
    _seen[path] = inode, count
    spelling = f"{path.parent}/{'./' * count}{path.name}"
    return make_url(uri).set(database=spelling).render_as_string(hide_password=False)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep loggers that greet to warnings: a new local store tells of every table."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set what the caller did not, and take it back."""
    own = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
