"""What `datasets/support-desk/bench.toml` says: seed, sizes and shares.

One rule: a share that is misspelt or out of range is an error that names the file, never a benchmark of something
else.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.errors import WorkbenchError
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "support-desk/bench.toml"


class BenchConfigInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """`bench.toml` cannot be read as asked."""

    kind = "bench_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionShares:
    """Shares of sessions; each is drawn apart from the others."""

    foreign_agent: float
    strangers_order: float
    foreign_order: float
    lost_order: float
    colleagues_ticket: float
    reads_only: float
    newcomer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShares:
    """Shares of calls by tool, which sum to 1, and of what calls of one tool hold."""

    lookup_order: float
    issue_refund: float
    change_address: float
    reply_ticket: float
    close_ticket: float
    link_in_reply: float
    secret_in_reply: float
    internal_reply: float
    address_abroad: float
    overflowing_refund: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """A parsed `bench.toml`."""

    seed: int
    sizes: tuple[int, ...]
    sessions: SessionShares
    calls: CallShares


_Shares = TypeVar("_Shares", SessionShares, CallShares)


def bench_config(path: Path | None = None) -> BenchConfig:
    """Read the configuration; None: the one that is shipped.

    Raises:
        BenchConfigInvalid: not TOML, a name that is missing or unknown, or a share outside 0 to 1.
    """
    path = shipped(CONFIG) if path is None else path
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise BenchConfigInvalid(f"{path}: not valid TOML: {exc}") from exc
    _require(document, {"version", "seed", "sizes", "sessions", "calls"}, str(path))
    return BenchConfig(
        seed=int(document["seed"]),
        sizes=tuple(map(int, document["sizes"])),
        sessions=_shares(SessionShares, document["sessions"], f"{path}: [sessions]"),
        calls=_shares(CallShares, document["calls"], f"{path}: [calls]"),
    )


def _require(table: dict[str, Any], names: set[str], where: str) -> None:
    if wrong := sorted(table.keys() ^ names):
        raise BenchConfigInvalid(f"{where}: missing or unknown: {', '.join(wrong)}; it has {sorted(names)}")


def _shares(kind: type[_Shares], table: dict[str, Any], where: str) -> _Shares:
    _require(table, {field.name for field in fields(kind)}, where)
    if wrong := {name: value for name, value in table.items() if not 0 <= value <= 1}:
        raise BenchConfigInvalid(f"{where}: shares are between 0 and 1, got {wrong}")
    return kind(**table)
