"""What is installed here: the first answer of `redecide doctor`, and what its answers are made of.

One rule: it only looks. Nothing is written, created or repaired.
"""

from __future__ import annotations

import platform
import re
import sqlite3
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Status = Literal["ok", "note", "bad"]
"""`note` is worth knowing and no fault: an extra that is not installed, a table not written yet."""

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?P<rest>[^;]*)(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?"
)
_USERS_EXTRAS = (None, "workbench", "agentdojo")
"""Without `all`, which repeats them, and `dev`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of the installed distribution."""

    name: str
    """As the index spells it: `json-merge-patch`."""
    specifier: str
    extra: str | None
    """The extra that brings it; None for what the runtime itself needs."""

    @property
    def module(self) -> str:
        """The module it is imported by."""
        return self.name.lower().replace("-", "_")


def requirements() -> Iterator[Requirement]:
    """Yield what the installed `redecide` and its extras ask for, by its own metadata."""
    for text in metadata.requires("redecide") or []:
        if (found := _REQUIREMENT.match(text)) and found["extra"] in _USERS_EXTRAS:
            yield Requirement(found["name"], found["rest"].split("[")[0].strip(), found["extra"])


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module.

    Example:
        >>> extra_of("polars"), extra_of("agentdojo"), extra_of("json")
        ('workbench', 'agentdojo', None)
    """
    top = module.partition(".")[0]
    return next((each.extra for each in requirements() if each.module == top), None)


def installation() -> Iterator[Finding]:
    """Report the interpreter, the system and every library that Redecide uses, with the version found."""
    yield Finding("redecide", "ok", metadata.version("redecide"))
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)
    yield from map(_installed, requirements())


def _installed(requirement: Requirement) -> Finding:
    try:
        return Finding(requirement.name, "ok", metadata.version(requirement.name))
    except metadata.PackageNotFoundError:
        extra = f"[{requirement.extra}]" if requirement.extra else ""
        status: Status = "note" if requirement.extra else "bad"
        return Finding(requirement.name, status, f"not installed; run pip install 'redecide{extra}'")
