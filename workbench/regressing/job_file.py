"""Reading a regression job from TOML.

```toml
name = "refunds"                     # default: the file's name
lake = "../lake"                     # paths are relative to this file
baseline = "champion"                # recorded | alias | version | folder
candidates = ["policies/next"]       # none: the job looks for drift
context = "candidate"                # recorded | candidate | folder | context.toml | version | alias
stakes = "stakes.toml"               # or [stakes]
[window]
mode = "new"
first = "all"                        # all | new | "2026-11-01"
[filter]
tenant = ["acme", "globex"]
tool = { not = ["ping"] }
[[gates]]
quantity = "harm_through_share"
at_most = 0.05
[mlflow]
experiment = "refunds"
```

One rule: every key is checked before anything runs, and everything that is wrong is told at once.
"""

from __future__ import annotations

import re
import tomllib
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from runtime import trace
from runtime.aliases import is_alias
from workbench.errors import JobInvalid
from workbench.estimating.gates_file import read as read_gates
from workbench.regressing.job import FORMATS, RECORDED, Job, Kind, Looks, Output, ToMlflow, Which, Window
from workbench.regressing.job_keys import Keys, moment_of
from workbench.regressing.looks import require
from workbench.runs import ARTIFACTS
from workbench.splitting import SESSION
from workbench.texts import count, visible
from workbench.weighing.stakes import Stakes, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from workbench.estimating.gates_file import Gate

SLICES = (
    "tool", "tenant", "principal", "kind", "recorded_verdict", "reason_code", "from", "to", "effect", "side",
    "origin", "scenario",
)  # fmt: skip
"""Columns of a comparison that nested runs may be made of."""

MAX_TRACES = 10_000
MAX_COUNT = 10**9

_NAME = re.compile(r"[^\W_][\w .@+-]{0,99}")
_VERSION = re.compile(r"[0-9a-f]{4,64}")
_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
"""What an address of MLflow may begin with."""
_KINDS = {"string": pl.String, "bool": pl.Boolean, "int32": pl.Int64, "int64": pl.Int64}
_COLUMNS = {each.name: _KINDS[each.dtype] for each in trace.DECISIONS.columns if each.dtype in _KINDS}
_UIDS = {name: pl.format('{}::"{}"', f"{name}_type", f"{name}_id") for name in ("principal", "resource")}


def read_job(path: str | PathLike[str]) -> Job:
    """Read a job.

    Raises:
        JobInvalid: the file cannot be read, or asks for what cannot be; names the file, and every mistake with its
            table, key and the closest that is known.
    """
    file = Path(path).expanduser().absolute()
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as exc:  # a file that is no UTF-8, or no TOML, is a ValueError
        raise JobInvalid(f"{visible(str(path))}: {_why(exc)}") from exc
    keys = Keys(table, "")
    made = _job(keys, file)
    keys.done()
    match keys.problems:
        case []:
            return made()
        case [problem]:
            raise JobInvalid(f"{visible(str(path))}: {problem}")
        case several:
            listed = "; ".join(f"({at}) {each}" for at, each in enumerate(several, 1))
            raise JobInvalid(f"{visible(str(path))}: {count(len(several), 'mistake')}: {listed}")


def _why(exc: BaseException) -> str:
    if isinstance(exc, OSError):
        return f"cannot be read: {exc.strerror or exc}; give the path of a job file, as job.toml"
    if isinstance(exc, RecursionError):
        return "is no job file: it is nested too deeply"
    return f"is no TOML: {exc}"


def _job(keys: Keys, file: Path) -> Callable[[], Job]:
    """Read the whole file; what it gives makes the job, once nothing is wrong."""
    folder = file.parent
    name = keys.text("name", file.stem, such_as="nightly")
    if not _NAME.fullmatch(name):
        keys.wrong("name", f"is {name!r:.80}; give up to 100 letters, digits, spaces or `_.@+-`")
    lake = keys.text("lake", such_as="../lake")
    if not keys.has("lake"):
        keys.wrong("lake", 'is missing; say where the lake is, as `lake = "../lake"`')
    which = partial(_which, keys, folder)
    candidates = tuple(
        which("candidates", each, ()) for each in keys.texts("candidates", (), such_as='["policies/next"]')
    )
    stakes = _stakes(keys, folder)
    gates = _gates(keys, folder, stakes, asked=bool(candidates))
    filters = keys.inner("filter")
    rest = {
        "baseline": which("baseline", keys.text("baseline", "recorded", such_as="champion"), ("recorded",)),
        "context": which("context", keys.text("context", "recorded", such_as="candidate"), _AXIS),
        "limits": which("limits", keys.text("limits", "recorded", such_as="candidate"), _AXIS),
        "sources": _sources(keys, folder),
        "cluster": keys.texts("cluster", SESSION, such_as='["tenant", "session_id"]'),
        "window": _window(keys.inner("window")),
        "filters": dict(filters.table),
        "filter": _filter(filters),
        "looks": _looks(keys.inner("looks")),
        "scoring": _other(keys, "scoring"),
        "drift": _other(keys, "drift", always=not candidates),
        "notify": _other(keys, "notify"),
        "mlflow": _mlflow(keys, folder, name),
        "output": _output(keys.inner("output"), folder, name),
        "state": folder / keys.text("state", f".redecide/{name}", such_as=".redecide/nightly"),
    }
    if rest["scoring"] is not None and not candidates:
        keys.wrong(
            "scoring",
            "is of what a candidate would do, and there is none; name `candidates`, or leave it out",
        )
    if not rest["cluster"]:
        keys.wrong("cluster", 'is empty; say what is independent of each other, as `cluster = ["tenant"]`')
    return lambda: Job(
        path=file, name=name, lake=_place(folder, lake), candidates=candidates, gates=gates,
        stakes=cast("Stakes", stakes), **rest,
    )  # fmt: skip


_AXIS = ("recorded", "candidate")


def _place(folder: Path, given: str) -> str:
    """An address as it is, a path from the job's folder."""
    return given if "://" in given else str((folder / Path(given).expanduser()).resolve())


def _which(keys: Keys, folder: Path, key: str, given: str, words: tuple[str, ...]) -> Which:
    """Tell a folder from a version from an alias. What lies beside the file under that name is meant first."""
    if given in words:
        return Which(text=given, kind=cast("Kind", given))
    path = (folder / Path(given).expanduser()).resolve()
    if path.is_dir():
        return Which(text=given, kind="folder", path=path)
    if key == "context" and path.is_file() and path.suffix == ".toml":
        return Which(text=given, kind="spec", path=path)
    if _VERSION.fullmatch(given):
        return Which(text=given, kind="version")
    if is_alias(given):
        return Which(text=given, kind="alias")
    near = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    what = f"{', '.join(words)}{', ' if words else ''}a folder, a version of the lake or an alias"
    keys.wrong(
        key, f"is `{visible(given)}`: there is no such folder in {visible(str(path.parent))}, "
        f"{closest(path.name, near)}; it is {what}",
    )  # fmt: skip
    return RECORDED


def _sources(keys: Keys, folder: Path) -> dict[str, str]:
    inner = keys.inner("sources")
    found = {name: inner.text(name, such_as="../facts/orders") for name in inner.table}
    return {name: _place(folder, given) for name, given in found.items()}


def _stakes(keys: Keys, folder: Path) -> Stakes | None:
    given = keys.get("stakes")
    if given is not None and not isinstance(given, str | dict):
        keys.wrong("stakes", 'is a table `[stakes]`, or a file, as `stakes = "stakes.toml"`')
        return None
    told = Keys({}, "[stakes]" if isinstance(given, dict) else "stakes:", keys.problems)
    return told.read(lambda: Stakes.of(folder / given if isinstance(given, str) else given))


def _gates(keys: Keys, folder: Path, stakes: Stakes | None, *, asked: bool) -> tuple[Gate, ...]:
    given = keys.get("gates")
    if given is None:
        if asked:
            keys.wrong("gates", "are missing: nothing would be judged; declare at least one, as `[[gates]]`")
        return ()
    if not asked:
        keys.wrong("gates", "judge candidates, and there are none; what judges drift stands in `[drift]`")
    told = Keys({}, "[[gates]]", keys.problems)
    gates = (
        told.read(lambda: read_gates(folder / given if isinstance(given, str) else {"gates": given})) or ()
    )
    for gate in gates:
        told.read(partial(require, [gate], stakes or Stakes()))
    return gates


def _window(keys: Keys) -> Window:
    mode = keys.choice("mode", ("new", "time"), "new")
    given = keys.get("first", "all")
    first = given if given in ("all", "new") else moment_of(given)
    if first is None:
        keys.wrong("first", f'is {given!r:.80}; it is "all", "new" or a time, as "2026-11-01"')
    since, until, last = keys.moment("since"), keys.moment("until"), keys.length("last")
    stray = ("since", "until", "last") if mode == "new" else ("first",)
    for key in stray:
        if keys.has(key):
            keys.wrong(key, f'is not for `mode = "{mode}"`; {_INSTEAD[mode]}')
    if since and last:
        keys.wrong("last", "and `since` both say where the window begins; give one")
    if since and until and since >= until:
        keys.wrong("until", f"is not after `since`: {until:%Y-%m-%d %H:%M:%S} UTC")
    if mode == "time" and not (since or until or last):
        keys.wrong("mode", '= "time" needs `last`, `since` or `until`, as `last = "7d"`')
    keys.done()
    return Window(
        mode="time" if mode == "time" else "new", first=first or "all", since=since, until=until, last=last
    )


_INSTEAD = {
    "new": 'a window of time is `mode = "time"`',
    "time": "say `since`, `until` or `last`, or leave `mode` out",
}


def _filter(keys: Keys) -> pl.Expr | None:
    known = (*_COLUMNS, *_UIDS)
    found = []
    for name in keys.table:
        if name in known:
            found += _condition(keys, name, keys.get(name))
        else:
            keys.asked.add(name)
            keys.wrong(name, f"is no column of the decisions; {closest(name, known)}")
    return reduce(lambda one, other: one & other, found) if found else None


def _condition(keys: Keys, name: str, given: object) -> list[pl.Expr]:
    """The condition on one column: a value, a list of values, or `{ not = … }` of these."""
    other = isinstance(given, dict) and given.keys() == {"not"}
    wanted = given["not"] if isinstance(given, dict) and other else given
    values = wanted if isinstance(wanted, list) else [wanted]
    kind = _COLUMNS.get(name, pl.String)
    python = {pl.String: str, pl.Boolean: bool, pl.Int64: int}[kind]
    if not values or any(type(each) is not python for each in values):
        word = {str: "a text", bool: "true or false", int: "a whole number"}[python]
        keys.wrong(name, f"is {given!r:.80}; give {word}, a list of them, or {{ not = [ … ] }}")
        return []
    column = _UIDS.get(name, pl.col(name))
    inside = column.is_in(pl.Series(values, dtype=kind).implode()).fill_null(value=False)
    return [~inside if other else inside]


def _looks(keys: Keys) -> Looks:
    found = Looks(
        largest_session=keys.whole("largest_session", 200, least=1, most=MAX_COUNT),
        planned_sessions=keys.whole("planned_sessions", 10_000, least=1, most=MAX_COUNT),
    )
    keys.done()
    return found


def _mlflow(keys: Keys, folder: Path, name: str) -> ToMlflow | None:
    inner = keys.inner("mlflow")
    if not keys.has("mlflow"):
        return None
    uri = inner.text("tracking_uri", such_as="http://mlflow:5000")
    scheme = uri.partition(":")[0].partition("+")[0]
    if uri and scheme not in _SCHEMES:
        inner.wrong("tracking_uri", f"begins with `{visible(scheme)}`; it is an address as `http://mlflow:5000` or "
                    f"`{_SQLITE}mlflow.db` ({', '.join(_SCHEMES)})")  # fmt: skip
    if uri.startswith(_SQLITE):
        uri = _SQLITE + _place(folder, uri.removeprefix(_SQLITE))
    slices = inner.texts("slices", ("tool",), such_as='["tool", "tenant"]')
    for each in slices:
        if each not in SLICES:
            inner.wrong(
                "slices", f"names `{visible(each)}`, which is no column to slice by; {closest(each, SLICES)}"
            )
    found = ToMlflow(
        tracking_uri=uri or None,
        experiment=inner.text("experiment", name, such_as="nightly"),
        slices=slices,
        traces=inner.whole("traces", 20, least=0, most=MAX_TRACES),
    )
    inner.done()
    return found


def _output(keys: Keys, folder: Path, name: str) -> Output:
    formats = keys.texts("formats", FORMATS, such_as='["markdown", "junit"]')
    for each in formats:
        if each not in FORMATS:
            keys.wrong("formats", f"names `{visible(each)}`; {closest(each, FORMATS)}")
    artifacts = keys.texts("artifacts", ARTIFACTS, such_as='["report"]')
    for each in artifacts:
        if each not in ARTIFACTS:
            keys.wrong("artifacts", f"names `{visible(each)}`; {closest(each, ARTIFACTS)}")
    found = Output(
        folder=folder / keys.text("folder", f"nights/{name}", such_as="nights"),
        formats=formats,
        notebook=keys.flag("notebook", default=True),
        artifacts=artifacts,
    )
    keys.done()
    return found


def _other(keys: Keys, key: str, *, always: bool = False) -> Any:
    """A table that another module reads; None: it is not there."""
    inner = keys.inner(key)
    if not (keys.has(key) or always):
        return None
    return Keys({}, "", keys.problems).read(lambda: _reader(key)(inner.table, f"[{key}]"))


def _reader(key: str) -> Callable[[Mapping[str, Any], str], Any]:
    """What reads a table of that name; loaded only where it is there."""
    match key:
        case "scoring":
            from workbench.scoring.declared import read_scoring  # noqa: PLC0415 - loads DeepEval

            return read_scoring
        case "drift":
            from workbench.regressing.drift_declared import read_drift  # noqa: PLC0415

            return read_drift
    from workbench.regressing.reporting.notify import read_notify  # noqa: PLC0415

    return read_notify
