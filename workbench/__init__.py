"""Redecide's workbench: replay recorded decisions under other policies and contexts, and see what changes.

```python
import workbench as wb

lake = wb.open("lake/")                     # pins; shows them in the repr
base = lake.replay()                        # self-replay
cand = lake.replay(policy="policies/support-next", context="recorded")
diff = wb.compare(base, cand)               # renders in Jupyter
diff.changed                                # a Polars LazyFrame, like every table here
scores = wb.score(diff)                     # DeepEval, no LLM
wb.log(diff, experiment="support", scores=scores)   # MLflow
```

Importing this package loads neither MLflow nor DeepEval: `score` and `log` do, when they are called.
"""

from __future__ import annotations

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
else:  # a base install, where `redecide --help` and `redecide doctor` answer all the same

    def __getattr__(name: str) -> object:
        """Name the command that installs what is missing."""
        if name in __all__:
            need("polars")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Diff", "Lake", "Replay", "WorkbenchError", "compare", "log", "open", "score"]
