"""Pinned decisions as people handle them: shown, written, read, and held against a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from workbench.errors import PinInvalid
from workbench.faces import Code, Faces, Page, Table
from workbench.pinning import pinned
from workbench.pinning.checking import Checked, check

if TYPE_CHECKING:
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.faces import Cell
    from workbench.pinning.pinned import PinFile

SUFFIX = ".pin.json"
"""How files of pins end."""


@dataclass(frozen=True, repr=False)
class Pinned(Faces):
    """A recorded decision as a regression test. Made by `workbench.pinning.making.pin`, or read from its file."""

    file: PinFile
    """What the file holds."""

    @property
    def decision_id(self) -> str:
        """Of the decision."""
        return self.file.decision_id

    @property
    def text(self) -> str:
        """The file's text: the same bytes for the same pin."""
        return pinned.text_of(self.file)

    def check(self, bundle: Bundle | str | PathLike[str]) -> Checked:
        """Hold it against a bundle. See `workbench.pinning.checking.check`."""
        return check(self.file, bundle)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write it to a file, or into a folder under the decision's id; whole or not at all. Returns the file."""
        place = Path(path)
        if place.is_dir():
            place /= f"{self.decision_id}{SUFFIX}"
        return pinned.write(self.file, place)

    @property
    def contents(self) -> list[tuple[str, list[str]]]:
        """What is in it in clear, and what is not in it and why, by name; what there is none of is left out."""
        file, hidden = self.file, self.file.hidden
        every = [
            ("in clear", file.clear), ("left out", hidden.left_out), ("blanked", hidden.blanked),
            ("replaced", hidden.replaced), ("cut", hidden.cut), ("not asked", hidden.not_asked),
        ]  # fmt: skip
        return [(what, names) for what, names in every if names]

    def page(self) -> Page:
        """What it says."""
        file = self.file
        wanted = file.expected
        lines = [
            f"{file.request.tool} by {file.request.principal}: expect {wanted.verdict}"
            + (f" by {', '.join(f'`{each}`' for each in wanted.determining)}" if wanted.determining else ""),
            *(f"`{each.clause}` of `{each.policy}` is {each.was}" for each in wanted.clauses),
        ]
        rows: list[list[Cell]] = [[what, ", ".join(names)] for what, names in self.contents]
        return Page(
            kind="pin",
            title=f"Pin of decision {file.decision_id}",
            lines=tuple(lines + ([file.note] if file.note else [])),
            parts=(
                Table(title="What is in it, and what is not", heads=["", "names"], rows=rows),
                Code(title="The file", text=self.text, language="json"),
            ),
            next=("pin.check('policies/next')", "pin.write('tests/pins')"),
            pins={"bundle": f"{file.recorded.bundle} {file.recorded.version}"},
        )

    def as_dict(self) -> dict[str, Json]:
        """The file's content."""
        found: dict[str, Json] = msgspec.json.decode(self.text)
        return found


def read_pin(path: str | PathLike[str]) -> Pinned:
    """Read a pin's file.

    Raises:
        PinInvalid: not a pin, of a newer version, or a key or value that cannot be; names file and key.
    """
    return Pinned(pinned.read_file(path))


def pin_files(path: str | PathLike[str]) -> list[Path]:
    """Return the files of pins at a path: it, or those below the folder, in order of their names.

    Raises:
        PinInvalid: nothing is there.
    """
    place = Path(path)
    found = sorted(place.rglob(f"*{SUFFIX}")) if place.is_dir() else [place] if place.is_file() else []
    if not found:
        raise PinInvalid(f"no pins at {path}: pin a decision by `redecide pin LAKE DECISION_ID --out {path}`")
    return found
