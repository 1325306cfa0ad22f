"""The bundled browser modules: shipped, as new as their sources, with their licences."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import ViewNotBuilt
from workbench.viewing import assets

JS = Path(assets.__file__).parent / "js"
ENTRY = re.compile("^export default", re.MULTILINE)


def build() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((assets.STATIC / "BUILD.json").read_text(encoding="utf-8"))
    return found


def sources() -> list[Path]:
    found = sorted((JS / "src").glob("*.js"), key=lambda path: path.name)
    assert len(found) > 5, f"no sources in {JS}"
    return found


def test_the_bundles_are_as_new_as_their_sources() -> None:
    digest = hashlib.sha256()
    for path in [*sources(), JS / "build.mjs", JS / "package-lock.json"]:
        digest.update(path.relative_to(JS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    assert build()["sources"] == digest.hexdigest(), (
        "a source is newer than its bundle: npm run build in viewing/js"
    )


def test_every_entry_has_a_bundle_and_nothing_else_lies_there() -> None:
    entries = [path.name for path in sources() if ENTRY.search(path.read_text(encoding="utf-8"))]
    assert build()["entries"] == entries
    assert sorted(path.name for path in assets.STATIC.glob("*.js")) == entries
    for name in entries:
        assert assets.esm(name.removesuffix(".js")).stat().st_size > 500


def test_no_bundle_reaches_out_or_makes_code_of_text() -> None:
    for path in sorted(assets.STATIC.glob("*.js")):
        text = path.read_text(encoding="utf-8")
        for wrong in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "importScripts",
            "XMLHttpRequest",
        ):
            assert wrong not in text, f"{path.name} has {wrong}"
        assert not re.search(r"\b(?:eval|Function|fetch|import|WebSocket|EventSource)\s*\(", text), path.name


def test_what_is_bundled_names_its_licence() -> None:
    said = (assets.STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("@uwdata/flechette", "@codemirror/view"):
        assert re.search(rf"^{re.escape(name)} [\d.]+ \(\S+\)$", said, re.MULTILINE)


def test_a_missing_bundle_says_how_it_is_built() -> None:
    with pytest.raises(ViewNotBuilt, match=r"'nothing\.js' is missing.*npm run build"):
        assets.esm("nothing")
