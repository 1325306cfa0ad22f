"""The one door out of the lake: whatever is written or sent elsewhere passes `leaving` first.

One rule: MLflow runs, exported files and reports hold what this function returned, nothing else. Fields marked
sensitive leave as `MASKED`; unmarked ones leave as they are.

Nothing is marked yet: the schema annotation `@sensitive`, and asking for a field by name, come with the vault. The
door stands now so that every way out already goes through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection

MASKED = "masked"
"""What stands in place of a sensitive value."""

MARKED: frozenset[str] = frozenset()
"""Sensitive fields: columns of a table, members of a mapping."""

Payload = TypeVar("Payload", pl.LazyFrame, pl.DataFrame, Mapping[str, object], str)
"""Tables, named values, and text made of what has already passed."""


def leaving(payload: Payload, *, marked: Collection[str] = MARKED) -> Payload:
    """Return what may leave of `payload`: the same, with the values of marked fields masked. Nulls stay nulls.

    Example:
        >>> leaving({"tool": "send_money", "iban": "DE89"}, marked={"iban"})
        {'tool': 'send_money', 'iban': 'masked'}
    """
    match payload:
        case pl.LazyFrame():
            known = payload.collect_schema().names()
        case pl.DataFrame():
            known = payload.columns
        case str():
            return payload
        case _:
            return {name: MASKED if name in marked else value for name, value in payload.items()}
    hidden = [name for name in known if name in marked]
    shown = [pl.when(pl.col(name).is_not_null()).then(pl.lit(MASKED)).alias(name) for name in hidden]
    return payload.with_columns(shown)
