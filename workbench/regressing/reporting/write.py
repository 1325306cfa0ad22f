"""The files of a night: each written whole or not at all, all from the same night."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from workbench import faces
from workbench.regressing.reporting.as_json import dumps
from workbench.regressing.reporting.junit import junit
from workbench.regressing.reporting.markdown import markdown
from workbench.regressing.reporting.page import night_page

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from workbench.regressing.result import Night

NAMES: Mapping[str, str] = {
    "markdown": "night.md",
    "junit": "junit.xml",
    "json": "night.json",
    "html": "night.html",
}
"""File of each format, in the night's folder."""

_WRITERS: Mapping[str, Callable[[Night], str]] = {
    "markdown": markdown,
    "junit": junit,
    "json": lambda night: dumps(night) + "\n",
    "html": lambda night: faces.html(night_page(night)),
}


def write(night: Night, folder: Path, formats: Collection[str] = tuple(NAMES)) -> Night:
    """Write a night in some formats into `folder`, which is made; what is there is replaced.

    Returns:
        The night with its `outputs`, as the files hold it.

    Raises:
        OSError: the folder cannot be written.
        MissingExtra: `junitparser` is not installed.
    """
    paths = {name: folder / NAMES[name] for name in NAMES if name in formats}
    told = replace(night, outputs={**night.outputs, **{name: str(path) for name, path in paths.items()}})
    for name, path in paths.items():
        faces.written(_WRITERS[name](told), path)
    return told
