"""What is installed: metadata, the wheel's content, and how little the runtime loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

EXTRAS = (
    "mlflow",
    "deepeval",
    "jupyter",
    "jupyterlab",
    "ipywidgets",
    "IPython",
    "polars",
    "pandas",
    "agentdojo",
)
"""Some of what a base install must not have."""
LAZY = ("pyarrow", "deltalake", "sqlalchemy", "workbench")
"""What it may have, and `import runtime` must not load."""


def python(code: str, *args: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, away from the repository; with `site`, on that and the standard library."""
    flags, before = (
        (["-P"], "") if site is None else (["-I", "-S"], f"import sys; sys.path.append({str(site)!r})\n")
    )
    command = [sys.executable, *flags, "-c", before + code, *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Return the distributions that requirements without extras bring, of those installed here."""
    found: set[str] = set()
    queue = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    while queue:
        name = canonicalize_name(queue.pop().name)
        if name not in found:
            found.add(name)
            needs = map(Requirement, metadata.requires(name) or [])
            queue += [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release would, with the tools installed here: no network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-P",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without extras: beside it, only what its metadata asks for, linked from this environment."""
    target = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(target)
    (info,) = target.glob("*.dist-info")
    asked = metadata.Distribution.at(info).requires or []
    for name in closure(map(Requirement, asked)):
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or [] if ".." not in file.parts}:
            link = target / top
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return target


def test_metadata() -> None:
    found = metadata.metadata("redecide")
    assert found["Name"] == "redecide"
    assert found["Version"] == PROJECT["version"]
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == "<3.14,>=3.11"
    classifiers = found.get_all("Classifier") or []
    assert "Programming Language :: Python :: 3.11" in classifiers
    assert "Operating System :: POSIX :: Linux" in classifiers
    assert "Typing :: Typed" in classifiers


def test_entry_point() -> None:
    (found,) = metadata.entry_points(group="console_scripts", name="redecide")
    assert found.value == "workbench.cli:main"
    assert callable(found.load())


def test_version_is_in_the_changelog() -> None:
    assert re.search(
        rf"^## \[{re.escape(PROJECT['version'])}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_constraints_pin_every_requirement() -> None:
    """Names and versions only; and what pyproject asks for is what was tested."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    wrong = [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line)
    ]
    assert wrong == []
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    asked = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    names = {canonicalize_name(Requirement(each).name) for each in asked} - {"redecide"}
    assert len(names) > 20
    assert names - pinned == set()


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        found = message_from_string(archive.read(name).decode())
        assert any(each.endswith("licenses/LICENSE") for each in archive.namelist())
    asked = [Requirement(each) for each in found.get_all("Requires-Dist") or []]
    assert sorted(canonicalize_name(each.name) for each in asked if each.marker is None) == [
        "cedarpy", "cryptography", "deltalake", "json-merge-patch", "msgspec", "pyarrow", "rfc8785", "rich", "sqlalchemy", "typer",
    ]  # fmt: skip


def test_wheel_holds_what_is_needed_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"runtime/py.typed", "workbench/py.typed", "workbench/cli.py", "runtime/trace.py"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"runtime", "workbench", f"redecide-{PROJECT['version']}.dist-info"}
    shipped = {path.relative_to(ROOT / "datasets") for path in tracked(ROOT / "datasets")}
    assert {"agentdojo/baseline", "agentdojo/candidate"} <= {str(path.parent) for path in shipped}
    assert {f"workbench/_data/{path}" for path in shipped} <= names
    notebooks = {f"workbench/_data/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks
    assert notebooks <= names
    templates = {f"workbench/templates/{path.name}" for path in (ROOT / "workbench/templates").iterdir()}
    assert templates
    assert templates <= names
    assert [
        name for name in names if "__pycache__" in name or name.endswith((".pyc", ".ipynb_checkpoints"))
    ] == []


def tracked(folder: Path) -> list[Path]:
    """Return a folder's files, caches left out."""
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_import_runtime_is_thin(base: Path, tmp_path: Path) -> None:
    """In a base install nothing of the extras is there, and of what is there, the slow half is not loaded."""
    code = """
import importlib.util, json, sys, runtime
absent = [name for name in sys.argv[1].split() if importlib.util.find_spec(name) is None]
print(json.dumps({"file": runtime.__file__, "loaded": sorted(sys.modules), "absent": absent}))
"""
    done = python(code, " ".join(EXTRAS), cwd=tmp_path, site=base)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]) == base / "runtime" / "__init__.py"
    assert found["absent"] == list(EXTRAS)
    assert [name for name in (*EXTRAS, *LAZY) if name in found["loaded"]] == []
    assert {"cedarpy", "runtime.loop"} <= set(found["loaded"]), (
        "runtime loads nothing: this test proves nothing"
    )


def test_runtime_loads_no_extra_where_they_are_installed(tmp_path: Path) -> None:
    code = "import json, sys, runtime; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python(code, cwd=tmp_path).stdout))
    assert "runtime.loop" in loaded
    assert loaded & {*EXTRAS, *LAZY} == set()


def test_base_install_governs_a_call(base: Path, tmp_path: Path) -> None:
    """The runtime needs no more than it asks for, from a call to its row in the lake."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "all.cedar").write_text('@id("all") permit (principal, action, resource);')
    (bundle / "schema.cedarschema").write_text(
        "entity A; entity Tool; action f appliesTo { principal: A, resource: Tool, context: { args: {} } };"
    )
    code = """
from runtime import Runtime
rt = Runtime.open("bundle", lake="lake")
rt.tool(lambda: 42, name="f")
with rt.session(principal="A::a", tenant="t") as session:
    print(session.call("f"))
rt.close()
"""
    done = python(code, cwd=tmp_path, site=base)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert list((tmp_path / "lake" / "decisions").rglob("*.parquet"))


def test_base_install_has_a_command(base: Path, tmp_path: Path) -> None:
    """Without the extras the command line still answers, and says what to install."""
    code = "from workbench.cli import main\nmain()"
    assert "doctor" in python(code, "--help", cwd=tmp_path, site=base).stdout
    checked = python(code, "doctor", cwd=tmp_path, site=base)
    assert checked.returncode == 0, checked.stderr
    assert re.search(
        r"^note +polars +not installed; run pip install 'redecide\[workbench\]'$",
        checked.stdout,
        re.MULTILINE,
    )
    for command in (["replay", "lake"], ["lab"], ["demo"]):
        done = python(code, *command, cwd=tmp_path, site=base)
        assert done.returncode == 2, done.stderr
        line = r"redecide: error: `\w+` is not installed; run pip install 'redecide\[\w+\]'\n"
        assert re.fullmatch(line, done.stderr), done.stderr


def test_shipped_files_are_found_in_the_wheel(base: Path, tmp_path: Path) -> None:
    code = """
from workbench.shipped import shipped
print(shipped("agentdojo/baseline/schema.cedarschema"))
print(shipped("notebooks"))
"""
    done = python(code, cwd=tmp_path, site=base)
    assert done.returncode == 0, done.stderr
    data = base / "workbench" / "_data"
    expected = [data / "agentdojo/baseline/schema.cedarschema", data / "notebooks"]
    assert [Path(line) for line in done.stdout.splitlines()] == expected


@pytest.mark.slow
@pytest.mark.demo
def test_demo_runs_from_the_wheel_in_an_empty_folder(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a second run, of this checkout, takes both lakes as they are and says the same."""
    site, folder = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    folder.mkdir()
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
import workbench.cli
assert workbench.cli.__file__.startswith({str(site)!r}), workbench.cli.__file__
workbench.cli.main()
"""
    monkeypatch.setenv("COLUMNS", "100")
    done = python(code, "demo", "--suite", "slack", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "slack" in done.stdout
    assert "reusing" not in done.stdout
    assert [path.name for path in folder.iterdir()] == ["redecide-demo"]

    from workbench.demo import run_demo

    monkeypatch.chdir(folder)
    assert run_demo(Path("redecide-demo"), suites=["slack"]) == 0
    again = capsys.readouterr().out
    assert again.count("reusing redecide-demo") == 2
    assert told(again) == told(done.stdout)


def told(printed: str) -> list[str]:
    """Return what a run of the demo found: what it prints after its progress, but for ids and times."""
    lines = [re.sub(r"\b[0-9a-f]{32}\b", "(id)", line.rstrip()) for line in printed.splitlines()]
    found = lines[next(place for place, line in enumerate(lines) if line.startswith("•")) :]
    assert len(found) > 40
    return [line for line in found if not re.search(r"MLflow|done in", line)]


def test_the_repository_root_is_not_importable(tmp_path: Path) -> None:
    """`datasets/` is a folder of data: neither here nor in a child process may it pass for a library."""
    code = """
import importlib.util
spec = importlib.util.find_spec("datasets")
print("absent" if spec is None else spec.origin)
"""
    found = python(code, cwd=tmp_path).stdout.strip()
    assert found == "absent" or "site-packages" in found
    assert str(ROOT) not in sys.path
