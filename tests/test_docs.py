"""The documentation runs: README's examples, its commands, and every doctest of both packages."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from workbench.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


class Fence(NamedTuple):
    """One fenced block of the README."""

    language: str
    files: tuple[str, ...]
    """The files it is the content of."""
    text: str
    line: int


def fences(text: str) -> list[Fence]:
    """Return the fenced blocks of a Markdown text, in order."""
    found = re.finditer(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Fence(m[1], tuple(m[2].split(",")) if m[2] else (), m[3], text.count("\n", 0, m.start()) + 1)
        for m in found
    ]


def run(blocks: list[Fence]) -> str:
    """Run blocks in order, in one namespace and the current folder; return what they print."""
    namespace: dict[str, object] = {"__name__": "__readme__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            # Padded, so that a traceback names the README's own line.
            code = compile("\n" * block.line + block.text, "README.md", "exec")
            exec(code, namespace)
    return printed.getvalue()


@pytest.mark.slow
def test_readme_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = fences(README)
    python = [block for block in blocks if block.language == "python"]
    assert len(python) >= 2
    for block in blocks:
        for name in block.files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    printed = run(python)
    shown = [block.text for block in blocks if block.language == "text"]
    for text in shown:
        assert text.strip() in printed, f"the README shows output that its examples do not print:\n{printed}"


def test_readme_names_exactly_two_commands() -> None:
    blocks = [block for block in fences(README) if block.language in {"sh", "bash", "console", "shell"}]
    assert [block.text.split("\n") for block in blocks] == [["make demo", "make test", ""]]


def test_readme_links_to_what_exists() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_commands_exist() -> None:
    """Each `redecide …` in the README names a command that says what it does."""
    named = sorted(set(re.findall(r"`redecide ((?:[a-z]+ ?)+)", README)))
    assert len(named) >= 5
    for words in named:
        command = [word for word in words.split() if word != "agentdojo"]
        shown = CliRunner().invoke(app, [*command, "--help"], prog_name="redecide")
        assert shown.exit_code == 0, f"redecide {words}: {shown.output}"
        assert f"Usage: redecide {command[0]}" in shown.output


def test_make_names_its_targets() -> None:
    """`make` lists every target that a person may call, and the README's are among them."""
    listed = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True, check=True
    )
    targets = set(re.findall(r"^  make (\w+) +\S", listed.stdout, re.MULTILINE))
    assert targets == {"help", "demo", "test", "slow", "browser", "check", "lab", "bench", "clean"}
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    assert set(declared[1].split()) == targets


OF_ANOTHER_INTERPRETER = frozenset({"workbench.bench.runtime_agt_child"})
"""Run, never imported: it imports what only the other side's virtual environment has."""


def module_names() -> list[str]:
    """Return the names of all modules of both packages."""
    names = []
    for package in ("runtime", "workbench"):
        path = importlib.import_module(package).__path__
        names += [package, *(each.name for each in pkgutil.walk_packages(path, f"{package}."))]
    return [name for name in names if name not in OF_ANOTHER_INTERPRETER]


@pytest.mark.parametrize("name", module_names())
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_doctests_are_found() -> None:
    """An empty walk would pass silently."""
    finder = doctest.DocTestFinder()
    module = importlib.import_module("runtime.canonical")
    assert sum(len(test.examples) for test in finder.find(module)) >= 2
    assert {"runtime.canonical", "workbench.cli"} <= set(module_names())
