"""Everything the workbench raises, grouped by what the caller does about it.

```
WorkbenchError
├── LakeError                                fix the path, drain, or wait
│   ├── LakeNotFound    (FileNotFoundError)  nothing there, or not a lake
│   ├── LakeEmpty       (LookupError)        a lake in which nothing was decided yet
│   └── PinUnreachable  (LookupError)        the pin names rows this lake does not hold
├── BundleNotFound      (LookupError)        no such bundle version in the lake
├── DecisionNotFound    (LookupError)        no decision of that id, or several; names those near
├── ColumnUnknown       (LookupError)        no such column; names the closest
├── ValueUnknown        (LookupError)        nothing in the lake has that value; names the closest
├── CellUnknown         (LookupError)        a grid without that cell; names those it has
├── FilterUnknown       (LookupError)        a view without that list, cell or name; says which it has
├── CasesUnreadable     (ValueError)         a file of cases; names file, row and column
├── MappingInvalid      (ValueError)         a mapping of columns, for an import; names the key
├── NotComparable       (ValueError)         two replays of different decisions
├── NotEstimable        (ValueError)         these numbers allow no such estimate
├── GatesInvalid        (ValueError)         gates that cannot be read or judged
├── StakesInvalid       (ValueError)         what harm, good work or money mean; names the key
├── SimulatorsInvalid   (ValueError)         simulators that fit no call, or another comparison
├── TuningRefused       (ValueError)         an edit, a value or a folder that a tuner does not take
├── SchemaMismatch      (ValueError)         table too old or too new
├── UnsupportedPolicy   (NotImplementedError) .policy_id, .node
├── ReplayFailure                            replay could not run; not a denial
│   ├── AxisInvalid     (ValueError)         `state`, `approvals`, `at`: none of these, or not together
│   └── NotSavable      (ValueError)         a replay that could not be made again from the lake alone
├── ReplayNotFound      (LookupError)        no such saved replay in the lake
├── ReplayDiffers                            a saved replay does not come out as it did; `.differences`
├── OracleMismatch                           compiled != Cedar; carries the case
├── JobInvalid          (ValueError)         a regression job's file; names file and key, and the closest known one
├── JobStateError       (OSError)            what a job keeps between nights cannot be read or written
├── ScoringInvalid      (ValueError)         metrics, cases or judges that cannot be used so; names the key
├── JudgeFailed                              a judge timed out, refused or answered nonsense; one case, not the run
├── PinInvalid          (ValueError)         a pinned decision that cannot be read, made or checked
├── TrackingError       (OSError)            the tracking store is away: log again
├── ViewNotBuilt        (FileNotFoundError)  a view's browser module is missing; build or install
└── MissingExtra        (ImportError)        names the install command
```
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class WorkbenchError(Exception):
    """Root of what `workbench` raises on purpose. `kind` is stable; the message is for people."""

    kind: ClassVar[str] = "workbench"


class LakeError(WorkbenchError):
    """The lake cannot be read as asked."""

    kind: ClassVar[str] = "lake"


class LakeNotFound(LakeError, FileNotFoundError):  # noqa: N818 - the state's own name
    """Nothing is at the path, or what is there is not a lake."""

    kind: ClassVar[str] = "lake_not_found"


class LakeEmpty(LakeError, LookupError):  # noqa: N818 - the state's own name
    """The lake holds no decision yet: the runtime has not drained."""

    kind: ClassVar[str] = "lake_empty"


class PinUnreachable(LakeError, LookupError):  # noqa: N818 - the state's own name
    """A pin names a ledger or a position that this lake does not hold."""

    kind: ClassVar[str] = "pin_unreachable"


class BundleNotFound(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """No bundle of that version is in the lake, or a shortened version fits several."""

    kind: ClassVar[str] = "bundle_not_found"


class DecisionNotFound(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """No decision of that id is in the lake at its pin, or a shortened id fits several."""

    kind: ClassVar[str] = "decision_not_found"


class ColumnUnknown(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """A column was asked for that the frame does not have."""

    kind: ClassVar[str] = "column_unknown"

    def __init__(self, name: str, known: Iterable[str], where: str) -> None:
        known = list(known)
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(known)}"
        super().__init__(f"{where} has no column `{name}`; {hint}")
        self.name = name


class ValueUnknown(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """A value was asked for that nothing in the lake has. Names the closest."""

    kind: ClassVar[str] = "value_unknown"


class CasesUnreadable(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A file of conformance cases cannot be read. Names the file, and the row and column where it stops."""

    kind: ClassVar[str] = "cases_unreadable"


class MappingInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A mapping of columns cannot be used, or the file does not have what it names. Names file, key and the fix."""

    kind: ClassVar[str] = "mapping_invalid"


class NotComparable(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """The two replays do not cover the same decisions."""

    kind: ClassVar[str] = "not_comparable"


class NotEstimable(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A statistic was asked of numbers that do not allow it. Says which, and what is allowed."""

    kind: ClassVar[str] = "not_estimable"


class GatesInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """Gates cannot be read, or name what is not estimated. Names the gate and the closest that is allowed."""

    kind: ClassVar[str] = "gates_invalid"


class StakesInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """What counts as harm, as good work or as money cannot be used so, or the lake has none of it. Names the key."""

    kind: ClassVar[str] = "stakes_invalid"


class SimulatorsInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A simulator is of no tool in the log, or what was simulated belongs to another comparison."""

    kind: ClassVar[str] = "simulators_invalid"


class TuningRefused(WorkbenchError, ValueError):  # noqa: N818 - what happened
    """A tuner does not do what it is asked: no such file, a text in error, a folder that exists. Nothing changed."""

    kind: ClassVar[str] = "tuning_refused"


class CellUnknown(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """A grid has no such cell: an axis was not given, or is none."""

    kind: ClassVar[str] = "cell_unknown"


class SchemaMismatch(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A table is of a schema version this release does not read."""

    kind: ClassVar[str] = "schema_mismatch"


class UnsupportedPolicy(WorkbenchError, NotImplementedError):  # noqa: N818 - the state's own name
    """An engine cannot decide this policy. `node` is the Cedar construct it stops at."""

    kind: ClassVar[str] = "unsupported_policy"

    def __init__(self, message: str, *, policy_id: str, node: str) -> None:
        super().__init__(f"policy `{policy_id}`: {message}")
        self.policy_id, self.node = policy_id, node


class ReplayFailure(WorkbenchError):  # noqa: N818 - the state's own name
    """A replay could not run. Says nothing about any decision."""

    kind: ClassVar[str] = "replay_failure"


class AxisInvalid(ReplayFailure, ValueError):  # noqa: N818 - the state's own name
    """What a replay was asked for cannot be: `state`, `approvals` or `at` is none of what it may be."""

    kind: ClassVar[str] = "axis_invalid"


class NotSavable(ReplayFailure, ValueError):  # noqa: N818 - what it is
    """A replay cannot be saved: something it was made with would be gone when it is opened. Nothing was saved."""

    kind: ClassVar[str] = "not_savable"


class NotPromotable(WorkbenchError, ValueError):  # noqa: N818 - what it is
    """Nothing says that a version may have an alias, or a run says otherwise. Nothing was changed."""

    kind: ClassVar[str] = "not_promotable"


class JobInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A regression job cannot be run as it is declared. Names the file, the key, and the closest that is known."""

    kind: ClassVar[str] = "job_invalid"


class JobStateError(WorkbenchError, OSError):
    """What a regression job keeps between nights cannot be read or written. Nothing of it was changed."""

    kind: ClassVar[str] = "job_state"


class ScoringInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """Metrics, cases or judges cannot be used as asked. Names the key and what is allowed."""

    kind: ClassVar[str] = "scoring_invalid"


class JudgeFailed(WorkbenchError):  # noqa: N818 - what happened
    """A judge did not answer in time, refused, or answered what is no answer. Of one case; others go on."""

    kind: ClassVar[str] = "judge_failed"


class PinInvalid(WorkbenchError, ValueError):  # noqa: N818 - the state's own name
    """A pinned decision cannot be made, read or checked. Names the file and the key."""

    kind: ClassVar[str] = "pin_invalid"


class ReplayNotFound(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """No saved replay of that id or name is in the lake, or several fit."""

    kind: ClassVar[str] = "replay_not_found"


class ReplayDiffers(WorkbenchError):  # noqa: N818 - what it does
    """A saved replay, made again, is not the one that was saved. `differences` says in what, one text each."""

    kind: ClassVar[str] = "replay_differs"

    def __init__(self, message: str, *, differences: Iterable[str]) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class OracleMismatch(WorkbenchError):  # noqa: N818 - the state's own name
    """Two engines disagree on one decision. `case` is all that is needed to see it again."""

    kind: ClassVar[str] = "oracle_mismatch"

    def __init__(self, message: str, *, case: object) -> None:
        super().__init__(message)
        self.case = case


class TrackingError(WorkbenchError, OSError):
    """The tracking store cannot be reached, or does not take the run. Nothing is lost: log again."""

    kind: ClassVar[str] = "tracking"


class ViewNotBuilt(WorkbenchError, FileNotFoundError):  # noqa: N818 - the state's own name
    """A view's browser module is not where it belongs. Says how it is built."""

    kind: ClassVar[str] = "view_not_built"


class FilterUnknown(WorkbenchError, LookupError):  # noqa: N818 - the state's own name
    """A view was asked for a list, a cell, a candidate or a name that it does not have. Says which it has."""

    kind: ClassVar[str] = "filter_unknown"


class MissingExtra(WorkbenchError, ImportError):  # noqa: N818 - the state's own name
    """A library of an optional extra is not installed."""

    kind: ClassVar[str] = "missing_extra"


def need(module: str, *, extra: str = "workbench") -> Any:
    """Import `module` of an optional extra.

    Raises:
        MissingExtra: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or module.partition(".")[0] != exc.name.partition(".")[0]:
            raise  # the library is there, something it needs is not: its own message says it better
        command = f"pip install 'redecide[{extra}]'"
        raise MissingExtra(f"`{module}` is not installed; run {command}", name=exc.name) from exc
