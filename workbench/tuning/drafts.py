"""Drafts: the texts of a bundle while they are edited, and what is wrong with them.

One rule: the bundle loader judges. A draft either loads, and then is a bundle like any other, or it has problems,
each one of the loader's own with file, line, policy and message; nothing is repaired.

The loader stops at the first error. To tell more than one at a time, the policy it stops at is blanked out (line ends
stay, so lines keep their numbers) and the rest is loaded again; what then is wrong because that policy is gone is not
told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.bundle import bundle_from_files
from runtime.errors import BundleError
from runtime.policy_files import statements_of
from workbench.errors import TuningRefused
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle

MAX_PROBLEMS = 5
"""Told at a time; each costs loading the bundle once more."""
MAX_MESSAGE = 600
EDITABLE = ".cedar"
"""What the names of files that may be edited end with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with a draft, as the loader says it."""

    file: str
    """Empty: of no single file."""
    line: int
    """From 1; 0: of no single line."""
    policy: str
    """`@id`; empty where it has none, or the problem is of no policy."""
    message: str
    """What, and how to fix it; without the place."""

    @property
    def place(self) -> str:
        """File and line, as people write them.

        Example:
            >>> Problem(file="a.cedar", line=7, policy="p", message="no").place
            'a.cedar:7'
        """
        return ":".join(str(part) for part in (visible(self.file), self.line) if part)

    def __str__(self) -> str:
        subject = f"policy `{self.policy}`" if self.policy else ""
        return ": ".join(part for part in (self.place, subject, self.message) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The texts of a bundle, as they are at one moment. Made by `draft_of` and `Draft.edited`."""

    name: str
    files: Mapping[str, str]
    """Path in the bundle → text, as it was written."""
    bundle: Bundle | None
    """What the texts say; None: they do not load."""
    problems: tuple[Problem, ...] = ()
    """Why not, in the order the loader met them; empty if they load."""

    def edited(self, file: str, text: str) -> Draft:
        """Return the draft with another text in one of its policy files.

        Raises:
            TuningRefused: it has no such file, or the file is no policies; names those that may be edited.

        Cost: loading the bundle: a millisecond a policy and less; where it does not load, `MAX_PROBLEMS` times that.
        """
        known = self.editable
        if file not in known:
            names = ", ".join(map(visible, known))
            raise TuningRefused(f"`{visible(file)}` cannot be edited here; the policies are in {names}")
        return self if text == self.files[file] else draft_of({**self.files, file: text}, self.name)

    @property
    def editable(self) -> tuple[str, ...]:
        """The files that may be edited, sorted."""
        return tuple(sorted(file for file in self.files if file.endswith(EDITABLE)))


def draft_of(files: Mapping[str, str], name: str) -> Draft:
    """Read texts: the bundle they are, or what is wrong with them."""
    texts = {file: text.replace("\r\n", "\n").replace("\r", "\n") for file, text in files.items()}
    try:
        return Draft(name=name, files=texts, bundle=bundle_from_files(texts, name))
    except BundleError as exc:
        return Draft(name=name, files=texts, bundle=None, problems=tuple(_problems(texts, name, exc)))


def draft_of_bundle(bundle: Bundle) -> Draft:
    """Return a loaded bundle as a draft; it is not loaded again."""
    return Draft(name=bundle.name, files=dict(bundle.files), bundle=bundle)


def _problems(files: dict[str, str], name: str, first: BundleError) -> Iterator[Problem]:
    """Yield the first problem, then those that other policies have."""
    yield _problem(first)
    found, rest = first, files
    for _ in range(MAX_PROBLEMS - 1):
        blanked = _without(rest, found)
        if blanked is None:
            return
        rest = blanked
        try:
            bundle_from_files(rest, name)
        except BundleError as exc:
            if not _is_of_policy(exc):
                return  # it may be wrong only because a policy is gone
            found = exc
            yield _problem(exc)
        else:
            return


def _is_of_policy(error: BundleError) -> bool:
    return bool(error.file and error.file.endswith(EDITABLE) and error.line)


def _without(files: dict[str, str], error: BundleError) -> dict[str, str] | None:
    """The texts with the policy that an error is about blanked out; None: it is about none."""
    if not _is_of_policy(error):
        return None
    file, line = error.file or "", error.line or 0
    text = files.get(file, "")
    for part, first in statements_of(text):
        if first <= line <= first + part.count("\n"):
            start = text.index(part, sum(len(each) + 1 for each in text.split("\n")[: first - 1]))
            blank = "".join(char if char == "\n" else " " for char in part)
            return {**files, file: text[:start] + blank + text[start + len(part) :]}
    return None


def _problem(error: BundleError) -> Problem:
    """An error of the loader, its place taken out of the message."""
    message = str(error)
    place = ":".join(str(part) for part in (error.file, error.line) if part is not None)
    for prefix in (place, f"policy `{error.policy}`"):
        message = message.removeprefix(f"{prefix}: ")
    return Problem(
        file=error.file or "",
        line=error.line or 0,
        policy=visible(error.policy or ""),
        message=shorten(visible(message), MAX_MESSAGE),
    )
