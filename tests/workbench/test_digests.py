"""Interrupts that DuckDB tells in its own way."""

from __future__ import annotations

import duckdb
import pytest

from workbench.digests import INTERRUPTED, connection


@pytest.mark.parametrize(
    "told",
    [
        RuntimeError(INTERRUPTED),
        duckdb.InvalidInputException(
            "counting the rows of the Python object 'frame' failed: KeyboardInterrupt: "
        ),
    ],
)
def test_an_interrupt_is_one_whatever_is_made_of_it(told: Exception) -> None:
    with pytest.raises(KeyboardInterrupt), connection():
        raise told


def test_another_failure_stays_what_it_is() -> None:
    with pytest.raises(duckdb.ParserException), connection() as cursor:
        cursor.sql("selec 1")
