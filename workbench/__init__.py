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

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError, need

if TYPE_CHECKING or find_spec("polars"):
    from workbench.compare import Diff, compare
    from workbench.lake import Lake
    from workbench.lake import open_lake as open  # noqa: A004 - `wb.open`, as one opens a file
    from workbench.log import log
    from workbench.replay import Replay
    from workbench.score import score

if TYPE_CHECKING:
    from workbench import plots
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
    from workbench.promoting.promote import alias_log, promote, roll_back
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
}  # fmt: skip
"""Names by the module they are in, loaded when they are first asked for: SciPy alone takes half a second. No module
has a name that it exports, or importing the module would hide it."""


def __getattr__(name: str) -> object:
    """Load a name; where Polars is missing (a base install), name the command that installs it."""
    if name in __all__:
        need("polars")
        if name in _LATER:
            found = getattr(import_module(f"workbench.{_LATER[name]}"), name)
            globals()[name] = found
            return found
        if name == "plots":
            return import_module("workbench.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Diff", "Lake", "Replay", "Simulation", "Situation", "Split", "Stakes", "WorkbenchError", "alias_log", "compare",
    "compare_view", "coverage", "decide", "divergence", "drift", "estimates", "explore", "grid", "import_calls",
    "log", "open", "paired", "plots", "prepared", "promote", "reopen", "roll_back", "save", "score", "search",
    "simulate", "suggest", "tune", "watch", "why", "why_of", "worth",
]  # fmt: skip
