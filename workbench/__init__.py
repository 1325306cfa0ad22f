"""Redecide's workbench: replay recorded decisions under other policies and contexts, and see what changes.

```python
import workbench as wb

lake = wb.open("lake/")                     # pins; shows them in the repr
base = lake.replay()                        # self-replay
cand = lake.replay(policy="policies/support-next", context="recorded")
diff = wb.compare(base, cand)               # renders in Jupyter
diff.changed                                # a Polars LazyFrame, like every table here
diff.why("01a2…")                           # the clause that flipped, with the values it saw
diff.worth, diff.estimates, diff.divergence # harm and good work, how sure that is, how far the log says it
scores = wb.score(diff)                     # DeepEval, no LLM
wb.log(diff, experiment="support", scores=scores)   # MLflow
wb.explore(lake)                            # in Jupyter: filter, follow a session, read a decision in full
wb.compare_view(diff)                       # click a transition, see clauses and contexts of both versions
wb.tune(lake, policy="policies/support-next")       # edit Cedar or drag a threshold, the history re-decides
```

Importing this package loads neither MLflow nor DeepEval nor widgets: `score`, `log` and the views do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError, need
from workbench.freed import keep_freed_memory

if TYPE_CHECKING:
    from workbench import plots
    from workbench.compare import Diff, compare
    from workbench.comparing.view import compare_view
    from workbench.covering import coverage
    from workbench.diverging import divergence
    from workbench.drifting.drift import drift
    from workbench.estimating.estimates import estimates
    from workbench.estimating.gates import decide
    from workbench.estimating.sessions import paired, watch
    from workbench.explaining.why import why, why_of
    from workbench.exploring import explore
    from workbench.gridding.grid import grid
    from workbench.importing import import_calls
    from workbench.keeping.reopening import reopen
    from workbench.keeping.saved import save
    from workbench.lake import Lake
    from workbench.lake import open_lake as open  # noqa: A004 - `wb.open`, as one opens a file
    from workbench.log import log
    from workbench.pinning.making import pin
    from workbench.pinning.pins import read_pin
    from workbench.promoting.promote import alias_log, promote, roll_back
    from workbench.regressing.job_file import read_job
    from workbench.regressing.regress import regress
    from workbench.replay import Replay
    from workbench.score import score
    from workbench.scoring.declared import read_scoring
    from workbench.scoring.judges import judge, judged_by
    from workbench.scoring.sampling import Sample, sample
    from workbench.searching.search import search
    from workbench.searching.suggest import suggest
    from workbench.splitting import Split
    from workbench.tuning import tune
    from workbench.weighing.simulators import Simulation, Situation, prepared, simulate
    from workbench.weighing.stakes import Stakes
    from workbench.weighing.worth import worth

_LATER = {
    "coverage": "covering", "divergence": "diverging", "drift": "drifting.drift", "estimates": "estimating.estimates",
    "decide": "estimating.gates", "why": "explaining.why", "why_of": "explaining.why", "grid": "gridding.grid",
    "import_calls": "importing", "reopen": "keeping.reopening", "save": "keeping.saved", "search": "searching.search",
    "suggest": "searching.suggest", "Split": "splitting", "Simulation": "weighing.simulators",
    "Situation": "weighing.simulators", "prepared": "weighing.simulators", "simulate": "weighing.simulators",
    "Stakes": "weighing.stakes", "worth": "weighing.worth", "compare_view": "comparing.view", "explore": "exploring",
    "paired": "estimating.sessions", "watch": "estimating.sessions", "tune": "tuning",
    "alias_log": "promoting.promote", "promote": "promoting.promote", "roll_back": "promoting.promote",
    "Diff": "compare", "compare": "compare", "Lake": "lake", "open": "lake", "log": "log", "Replay": "replay",
    "score": "score", "pin": "pinning.making", "read_pin": "pinning.pins", "judge": "scoring.judges",
    "judged_by": "scoring.judges",
    "sample": "scoring.sampling", "Sample": "scoring.sampling", "read_scoring": "scoring.declared",
    "read_job": "regressing.job_file", "regress": "regressing.regress",
}  # fmt: skip
"""Names by the module they are in, loaded when they are first asked for: Polars takes a third of a second, SciPy half
of one, and pytest imports this package in every run, for its plugin."""

_CALLED = {"open": "open_lake"}
"""Names that are others in their modules."""


class _Package(ModuleType):
    """This package, whose functions are not hidden by the modules of the same names that they are in.

    Importing `workbench.compare` would set the package's `compare` to the module; `wb.compare` is the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LATER and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    """Load a name; where Polars is missing (a base install), name the command that installs it."""
    if name in __all__:
        need("polars")
        if name in _LATER:
            found = getattr(import_module(f"workbench.{_LATER[name]}"), _CALLED.get(name, name))
            globals()[name] = found
            return found
        if name == "plots":
            return import_module("workbench.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Diff", "Lake", "Replay", "Sample", "Simulation", "Situation", "Split", "Stakes", "WorkbenchError",
    "alias_log", "compare", "compare_view", "coverage", "decide", "divergence", "drift", "estimates",
    "explore", "grid", "import_calls", "judge", "judged_by", "log", "open", "paired", "pin", "plots",
    "prepared", "promote", "read_job", "read_pin", "read_scoring", "regress", "reopen", "roll_back",
    "sample", "save", "score", "search", "simulate", "suggest", "tune", "watch", "why", "why_of", "worth",
]  # fmt: skip

sys.modules[__name__].__class__ = _Package
keep_freed_memory()
