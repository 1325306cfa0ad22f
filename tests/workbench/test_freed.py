"""How freed memory is kept: as nobody else has said, and only before Polars is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workbench.freed import KEPT, VARIABLE, keep_freed_memory

_SAID = "import workbench, os; print(os.environ.get({!r}))"


def said(code: str, **environment: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip()


def test_importing_the_workbench_sets_it_where_nobody_did() -> None:
    assert said(_SAID.format(VARIABLE)) == KEPT
    assert said(_SAID.format(VARIABLE), **{VARIABLE: "narenas:2"}) == "narenas:2"
    assert said("import polars; " + _SAID.format(VARIABLE)) != KEPT


def test_it_is_left_alone_once_polars_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "polars", sys.modules.get("polars") or sys)
    keep_freed_memory()
    assert VARIABLE not in __import__("os").environ


def test_the_allocator_knows_what_it_is_told() -> None:
    """An option that jemalloc does not know is named on standard error, and changes nothing."""
    code = "import workbench, polars; polars.Series([1]).sort()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=True)
    assert "Invalid conf" not in done.stderr
    wrong = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={VARIABLE: "muzzy_decays:-1"},
        check=True,
    )
    assert "Invalid conf" in wrong.stderr
