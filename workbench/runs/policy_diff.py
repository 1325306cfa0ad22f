"""What the candidate changes in the bundle, file by file: side by side to look at, and as a unified diff to apply.

One rule: every file of both bundles is there; what is the same says so, and a bundle that the lake lost is said to be
lost, not shown as empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher, unified_diff
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl

from workbench.replay import RECORDED
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from workbench.compare import Diff

AROUND = 4
"""Equal lines that are shown beside changed ones."""
MAX_LINES = 4_000
"""Lines of a file that are compared one by one; longer ones are only said to differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One bundle, as it is compared."""

    role: Literal["baseline", "candidate"]
    name: str
    version: str
    files: Mapping[str, str] | None = field(repr=False)
    """Path in the bundle to text; None: it is not known."""
    note: str = ""
    """What has to be said besides: that there were several, or that it was lost."""


class Line(NamedTuple):
    """One row of two texts side by side."""

    kind: Literal["same", "changed", "gone", "new", "skipped"]
    left: int | None
    """Line number; null: no such line."""
    old: str
    right: int | None
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of both bundles."""

    name: str
    state: Literal["same", "changed", "gone", "new"]
    lines: tuple[Line, ...]
    """Empty where it is the same, or too long."""
    plus: int = 0
    minus: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """Two bundles, compared."""

    base: Version
    cand: Version
    files: tuple[File, ...]
    unified: str = field(repr=False)

    @property
    def headline(self) -> str:
        """How much differs, in a sentence."""
        lost = [each.role for each in (self.base, self.cand) if each.files is None]
        if lost:
            return f"The files of the {' and the '.join(lost)} are not known; nothing can be compared."
        states = [each.state for each in self.files]
        said = [
            f"{states.count(state)} {state}"
            for state in ("changed", "new", "gone", "same")
            if state in states
        ]
        lines = sum(each.plus + each.minus for each in self.files)
        return f"{count(len(states), 'file')}: {', '.join(said) or 'none'}; {count(lines, 'line')} added or removed."

    def html(self) -> str:
        """Return it as one self-contained page: no scripts, no network, light and dark."""
        from workbench.report import rendered  # noqa: PLC0415 - its templates take a second

        return rendered("policy_diff.html.j2", {"diff": self})


def policy_diff(diff: Diff) -> PolicyDiff:
    """Compare the bundle of a comparison's candidate with its baseline's.

    Args:
        diff: of two replays of a lake. A baseline as recorded stands for the version most decisions were made under.

    Cost: reads `policies`, and one column of `decisions`.
    """
    base, cand = _version(diff, "baseline"), _version(diff, "candidate")
    old, new = base.files or {}, cand.files or {}
    known = base.files is not None and cand.files is not None
    names = sorted({*old, *new}) if known else []
    files = tuple(_file(name, old.get(name), new.get(name)) for name in names)
    unified = "".join(_unified(name, old.get(name), new.get(name), (base, cand)) for name in names)
    return PolicyDiff(base=base, cand=cand, files=files, unified=unified)


def _version(diff: Diff, role: Literal["baseline", "candidate"]) -> Version:
    replay: Any = diff.base if role == "baseline" else diff.cand
    name, version = replay.policy
    note = ""
    if version == RECORDED:
        version, note = _most_used(replay.lake)
    given = getattr(replay.asked, "policy", None) if hasattr(replay, "asked") else None
    found: Bundle | None = given if given is not None else replay.lake.find_bundle(version)
    lost = "" if found is not None else "the lake does not hold the files of this version"
    notes = "; ".join(filter(None, (note, lost, _axes(replay))))
    return Version(
        role=role, name=name, version=version, files=None if found is None else dict(found.files), note=notes
    )


def _axes(replay: Any) -> str:
    """What else it was decided with, where that is not of the bundle shown."""
    return f"decided with {replay.context} contexts"


def _most_used(lake: Any) -> tuple[str, str]:
    """The version that most decisions were made under, and how many others there are."""
    rows = lake.decisions.group_by("bundle_version").agg(n=pl.len()).sort("n", "bundle_version").collect()
    if not rows.height:
        return "", "no decision was recorded"
    version, most = rows.row(-1)
    whole = int(rows["n"].sum())
    others = rows.height - 1
    said = f"; {count(whole - most, 'decision was', 'decisions were')} made under {count(others, 'other')}"
    return str(version), f"{most:,} of {count(whole, 'decision')}{said if others else ''}"


def _file(name: str, old: str | None, new: str | None) -> File:
    if old == new:
        return File(name=name, state="same", lines=())
    state: Literal["gone", "new", "changed"] = "gone" if new is None else "new" if old is None else "changed"
    left, right = ((text or "").splitlines() for text in (old, new))
    if max(len(left), len(right)) > MAX_LINES:
        note = f"it has more than {MAX_LINES:,} lines; they are not compared one by one"
        return File(name=name, state=state, lines=(), note=note)
    lines = tuple(_lines(left, right))
    plus = sum(each.right is not None and each.kind in ("new", "changed") for each in lines)
    minus = sum(each.left is not None and each.kind in ("gone", "changed") for each in lines)
    return File(name=name, state=state, lines=lines, plus=plus, minus=minus)


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from _equal(old, i, j, k, ends=(j == len(old) and m == len(new)))
            continue
        both = min(j - i, m - k)
        for at in range(both):
            yield Line("changed", i + at + 1, old[i + at], k + at + 1, new[k + at])
        for at in range(i + both, j):
            yield Line("gone", at + 1, old[at], None, "")
        for at in range(k + both, m):
            yield Line("new", None, "", at + 1, new[at])


def _equal(old: Sequence[str], start: int, end: int, other: int, *, ends: bool) -> Iterator[Line]:
    """Equal lines: those beside a change, and how many there are between."""
    before, after = (0 if start == 0 else AROUND), (0 if ends else AROUND)
    skipped = end - start - before - after
    whole = skipped <= 1
    for at in range(start, end):
        if whole or at < start + before or at >= end - after:
            yield Line("same", at + 1, old[at], other + at - start + 1, old[at])
        elif at == start + before:
            yield Line("skipped", None, count(skipped, "equal line"), None, "")


def _unified(name: str, old: str | None, new: str | None, sides: tuple[Version, Version]) -> str:
    """One file's part of a diff as `diff -u` writes it and `patch -p1` reads it."""
    if old == new:
        return ""
    texts = [(text or "").splitlines(keepends=True) for text in (old, new)]
    if max(map(len, texts)) > MAX_LINES:
        return f"Files a/{name} and b/{name} differ\n"
    heads = ["/dev/null" if text is None else f"{side}/{name}" for side, text in (("a", old), ("b", new))]
    base, cand = (f"{each.name} {each.version[:12]}" for each in sides)
    found = unified_diff(texts[0], texts[1], heads[0], heads[1], base, cand)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in found
    )
