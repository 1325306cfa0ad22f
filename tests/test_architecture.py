"""The house rules about shape, as tests over the syntax trees of both packages.

Allow-lists only shrink: an entry that is no longer needed fails, as does one that is exceeded.
"""

from __future__ import annotations

import ast
import statistics
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("runtime", "workbench")

PURE = frozenset(
    {
        *(
            "canonical",
            "entities",
            "errors",
            "trace",
            "request",
            "schema",
            "projection",
            "bundle",
            "spec",
            "policy",
        ),
        *(
            "patches",
            "limits",
            "limits_file",
            "breakers",
            "windows",
            "lifecycle",
            "session_reads",
            "context",
            "evidence",
            "lake",
            "arrow",
            "sources",
        ),
        # Parts that these were divided into, and what replay decides again with: the same code as the runtime.
        *("cedar", "facts", "prepare", "record", "ruling", "values", "assembly", "chains"),
        # What a tuner turns: thresholds in a policy's text.
        *("tuning", "tunables", "literals"),
        # What a session's attempts are counted by: imported calls have the counters the runtime would have recorded.
        "cycles",
        # The log of names that `promote` writes and runtimes follow: one table of the lake, no ledger.
        "aliases",
        # Where each policy of a file begins, for an editor's marks.
        "policy_files",
    }
)
"""Modules of the runtime that the workbench may import. `sources` reads; nothing here executes or writes evidence."""

EFFECTS = frozenset({"broker", "drain", "isolation", "ledger", "ledger_writer", "loop", "session"})
"""Modules that execute tools or write evidence: out of reach of the pure ones, by any path."""

PUBLIC_API_USERS = ("workbench/agentdojo/", "workbench/bench/runtime", "workbench/demo.py", "workbench/cli")
"""Parts of the workbench that use the runtime as any user would."""

MAX_FILE = 400
MAX_FUNCTION = 60
MAX_MEDIAN = 10
LONG_FILES: dict[str, int] = {}
"""Path to the number of lines it may have."""
LONG_FUNCTIONS: dict[str, int] = {
    "workbench/closed_loop/quick.py::QuickPass.through": 105,
    "workbench/columnar/json_kernel.py::scan_rows": 162,
}
"""`path::Qualified.name` to the number of lines it may have: innermost loops, entered for each of millions of rows, in
which every call of another function would cost more than what it does."""


class Import(NamedTuple):
    """One import of one of our own modules: `runtime.trace`, or `runtime` for the package's public names."""

    source: str
    target: str
    line: int


@cache
def modules(*packages: str) -> dict[str, ast.Module]:
    """Return the syntax tree of each module by its path below the root; do not alter them."""
    if len(packages) > 1:
        return {path: tree for package in packages for path, tree in modules(package).items()}
    paths = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}


@cache
def is_module(name: str) -> bool:
    """Tell whether a dotted name is a module or package of ours, not a name inside one."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(source: str, tree: ast.Module) -> Iterator[Import]:
    """Yield what a module imports of ours, anywhere in it: in functions and for types alone, too."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                full = [f"{module}.{alias.name}" for alias in names]
                targets = [name if is_module(name) else module for name in full]
            case _:
                continue
        for target in targets:
            if target.partition(".")[0] in PACKAGES:
                yield Import(source, target, node.lineno)


def forbidden(found: Import) -> str | None:
    """Say why an import is against the rules, or return None."""
    head, _, rest = found.target.partition(".")
    if found.source.startswith("runtime/"):
        return "runtime never imports workbench" if head == "workbench" else None
    if head != "runtime" or found.source.startswith(PUBLIC_API_USERS):
        return None
    allowed = rest.partition(".")[0] in PURE
    return (
        None
        if allowed
        else f"the workbench imports only the runtime's pure modules: {', '.join(sorted(PURE))}"
    )


def own_imports(*packages: str) -> list[Import]:
    """Return every import between our modules; an empty walk is a failure of the walk."""
    found = [each for source, tree in modules(*packages).items() for each in imports(source, tree)]
    assert len(found) > 10, f"only {len(found)} imports found below {ROOT}: the walk is broken"
    return found


def test_imports_go_one_way() -> None:
    wrong = [
        f"{each.source}:{each.line}: {each.target}: {why}"
        for each in own_imports(*PACKAGES)
        if (why := forbidden(each))
    ]
    assert wrong == []


def reach(name: str, graph: dict[str, set[str]]) -> set[str]:
    """Return the modules that a module imports, directly or through others."""
    seen: set[str] = set()
    queue = [name]
    while queue:
        new = graph.get(queue.pop(), set()) - seen
        seen |= new
        queue.extend(new)
    return seen


def test_pure_modules_reach_no_effects() -> None:
    graph: dict[str, set[str]] = {}
    for each in own_imports("runtime"):
        name = each.source.removesuffix(".py").replace("/", ".")
        graph.setdefault(name, set()).add(each.target)
    effects = {f"runtime.{name}" for name in EFFECTS}
    assert reach("runtime.loop", graph) & effects  # the walk sees effects where there are some
    found = {name: reach(f"runtime.{name}", graph) & effects for name in PURE}
    assert {name: reached for name, reached in found.items() if reached} == {}


@pytest.mark.parametrize("name", sorted(PURE | EFFECTS))
def test_named_modules_exist(name: str) -> None:
    assert (ROOT / "runtime" / f"{name}.py").is_file()


@pytest.mark.parametrize(
    ("source", "code", "why"),
    [
        ("runtime/loop.py", "import workbench.replay", "never imports workbench"),
        ("runtime/loop.py", "def f():\n    from workbench import replay", "never imports workbench"),
        ("workbench/replay.py", "from runtime import Runtime", "pure modules"),
        ("workbench/replay.py", "from runtime import broker", "pure modules"),
        ("workbench/replay.py", "from runtime.ledger import Ledger", "pure modules"),
        ("workbench/replay.py", "from runtime import trace", None),
        ("workbench/replay.py", "from runtime.trace import DECISIONS", None),
        ("workbench/demo.py", "from runtime import Runtime", None),
        ("workbench/agentdojo/drive.py", "from runtime import Runtime", None),
    ],
)
def test_the_rule_itself(source: str, code: str, why: str | None) -> None:
    found = list(imports(source, ast.parse(code)))
    assert len(found) == 1
    answer = forbidden(found[0])
    assert (answer is None) if why is None else (answer is not None and why in answer)


def test_imports_are_absolute() -> None:
    wrong = [
        f"{source}:{node.lineno}"
        for source, tree in modules(*PACKAGES, "tests").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert wrong == []


def test_packages_are_regular() -> None:
    """A folder without `__init__.py` would be importable, and missing from wheels and from type checks."""
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield each function's qualified name and its lines, signature included, docstring and decorators not."""
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{node.name}."
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name.removesuffix("."), lines_of(node)
        yield from functions(node, name)


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines; its docstring is documentation, and long where it should be."""
    assert node.end_lineno is not None
    length = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return length
    docstring = node.body[0]
    assert docstring.end_lineno is not None
    return length - (docstring.end_lineno - docstring.lineno + 1)


def over(sizes: dict[str, int], limit: int, allowed: dict[str, int]) -> list[str]:
    """Compare sizes with a limit and its allow-list, in both directions."""
    too_long = [
        f"{name}: {size} lines, allowed {allowed.get(name, limit)}"
        for name, size in sizes.items()
        if size > allowed.get(name, limit)
    ]
    stale = [
        f"{name}: {sizes.get(name, 0)} lines, take it off the allow-list"
        for name in allowed
        if sizes.get(name, 0) <= limit
    ]
    return too_long + stale


def test_files_are_short() -> None:
    sizes = {path: len((ROOT / path).read_text().splitlines()) for path in modules(*PACKAGES)}
    assert over(sizes, MAX_FILE, LONG_FILES) == []


def test_functions_are_short() -> None:
    sizes = {
        f"{path}::{name}": size for path, tree in modules(*PACKAGES).items() for name, size in functions(tree)
    }
    assert over(sizes, MAX_FUNCTION, LONG_FUNCTIONS) == []
    assert statistics.median(sizes.values()) <= MAX_MEDIAN


def test_allow_lists_only_shrink() -> None:
    assert over({"a": 70, "b": 61}, 60, {"a": 70}) == ["b: 61 lines, allowed 60"]
    assert over({"a": 71}, 60, {"a": 70}) == ["a: 71 lines, allowed 70"]
    assert over({"a": 60}, 60, {"a": 70}) == ["a: 60 lines, take it off the allow-list"]
    assert over({}, 60, {"gone": 70}) == ["gone: 0 lines, take it off the allow-list"]
