"""Coverage as data: a JSON document and an LCOV tracefile.

LCOV (`man geninfo`, section FILES) knows lines, functions and branches. A policy is a function, hit as often as it
was satisfied; a clause is a block of branches at its line, one for each way it can go (true, then false); a line is
hit as often as a clause on it was evaluated. `genhtml --branch-coverage FILE` draws it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.covering.lines import File
    from workbench.covering.views import Views

FORMAT = "redecide-coverage"
VERSION = 1


def lcov(files: Sequence[File], root: str = "", test: str = "redecide") -> str:
    """Return a tracefile.

    Args:
        files: of one coverage.
        root: folder that the names of the files are below, as whoever reads the tracefile finds them.
        test: name of the test case: letters, digits and underscores.
    """
    return "".join(f"{line}\n" for file in files for line in _traced(file, root, test))


def _traced(file: File, root: str, test: str) -> Iterator[str]:
    yield f"TN:{test}"
    yield f"SF:{root.rstrip('/') + '/' if root else ''}{file.shown}"
    for policy in file.policies:
        yield f"FN:{policy.line},{_name(policy.id)}"
    for policy in file.policies:
        yield f"FNDA:{policy.satisfied},{_name(policy.id)}"
    yield f"FNF:{len(file.policies)}"
    yield f"FNH:{sum(policy.satisfied > 0 for policy in file.policies)}"
    heads = {policy.id: policy.line for policy in file.policies}
    for block, each in enumerate(file.clauses):
        clause = each.clause.clause
        line = clause.line or heads.get(clause.policy, 1)
        for branch, side in enumerate(each.sides):
            taken = each.truths[side] if each.reached else "-"
            yield f"BRDA:{line},{block},{branch},{taken}"
    yield f"BRF:{file.branches}"
    yield f"BRH:{file.taken}"
    lines = [(line.number, line.hits) for line in file.lines if line.hits is not None]
    yield from (f"DA:{number},{hits}" for number, hits in lines)
    yield f"LF:{len(lines)}"
    yield f"LH:{sum(hits > 0 for _, hits in lines)}"
    yield "end_of_record"


def _name(ident: str) -> str:
    """An id that fits a record: no comma, no line end."""
    return "".join("_" if char == "," or not char.isprintable() else char for char in ident)


def document(views: Views, files: Sequence[File], tables: Mapping[str, pl.LazyFrame]) -> dict[str, Any]:
    """Return all of it as JSON; its members are described in `Coverage.as_dict`."""
    counts = views.counts
    asked = counts["asked"].group_by("asked", maintain_order=True).agg(pl.col("n").sum())
    status = counts["decisions"].group_by("status", maintain_order=True).agg(pl.col("n").sum())
    branches, taken = sum(file.branches for file in files), sum(file.taken for file in files)
    return {
        "format": FORMAT,
        "version": VERSION,
        "decisions": {
            "total": views.decisions,
            "status": dict(status.iter_rows()),
            "clauses": dict(asked.iter_rows()),
        },
        "totals": {
            "clauses": sum(len(file.clauses) for file in files),
            "branches": branches,
            "branches_hit": taken,
            "share": taken / branches if branches else None,
            "policies": sum(len(file.policies) for file in files),
            "policies_satisfied": sum(policy.satisfied > 0 for file in files for policy in file.policies),
            "policies_decisive": sum(policy.decisive > 0 for file in files for policy in file.policies),
        },
        "files": [_file(file) for file in files],
        **{name: frame.collect().to_dicts() for name, frame in tables.items()},
    }


def _file(file: File) -> dict[str, Json]:
    lines: list[Json] = [
        {"line": line.number, "hits": line.hits, "state": line.state}
        for line in file.lines
        if line.hits is not None
    ]
    return {
        "policy_hash": file.bundle,
        "file": file.name,
        "clauses": len(file.clauses),
        "branches": file.branches,
        "branches_hit": file.taken,
        "lines": lines,
    }
