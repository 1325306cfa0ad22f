"""Opening a lake's tables: what is at an address, and what to say where there is none.

One rule: an address that may hold a password is shown without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runtime import trace
from runtime.errors import LedgerError, LedgerTooNew
from runtime.lake import LakeStore
from workbench.errors import LakeError, LakeNotFound, SchemaMismatch
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltalake import DeltaTable

    from runtime.trace import Table

MAX_NEAR = 3
"""Lakes named where one was looked for beside them."""


def require_folder(path: Path) -> None:
    """Refuse what cannot be a lake's folder."""
    if not path.exists():
        raise LakeNotFound(
            f"no lake at {path}: nothing is there; give the folder that `Runtime.open(…, lake=…)` wrote, "
            "or make one with `redecide demo`"
        )
    if not path.is_dir():
        raise LakeNotFound(
            f"no lake at {path}: it is a file; a lake is a folder with one Delta table in each child"
        )
    if (path / "_delta_log").is_dir():
        raise LakeNotFound(f"{path} is one Delta table; open the lake it is in: {str(path.parent)!r}")


def no_tables(uri: str) -> str:
    """Say that there is no lake, and where one is if it is near."""
    near = sorted(Path(uri).glob(f"*/{trace.DECISIONS.name}/_delta_log")) if "://" not in uri else []
    names = " or ".join(repr(str(log.parent.parent)) for log in near[:MAX_NEAR])
    hint = f"did you mean {names}?" if near else "is it the right path?"
    return f"no lake at {shown(uri)}: none of its children is a table of ours ({trace.DECISIONS.name}, …); {hint}"


def nothing_decided(uri: str) -> str:
    """Say that a lake is there, and empty."""
    return f"the lake at {shown(uri)} holds no decision yet; drain the runtime (`rt.drain()`), then open it again"


def store_of(uri: str, storage_options: Mapping[str, str] | None) -> LakeStore:
    """Return the store; the runtime's errors become ours."""
    try:
        return LakeStore(uri, storage_options)
    except LedgerError as exc:
        raise LakeError(str(exc)) from exc


def table_of(store: LakeStore, table: Table) -> DeltaTable | None:
    """Open a table; the runtime's errors become ours."""
    try:
        return store.table(table)
    except LedgerTooNew as exc:
        raise SchemaMismatch(_masked(exc, store.uri)) from exc
    except LedgerError as exc:
        raise LakeError(_masked(exc, store.uri)) from exc


def _masked(exc: LedgerError, uri: str) -> str:
    """What the runtime said, without the password an address may hold."""
    return str(exc).replace(uri, shown(uri))
