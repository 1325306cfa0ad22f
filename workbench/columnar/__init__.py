"""Columnar Cedar: policies as Polars expressions over typed columns, exactly as Cedar decides.

`decide_cases` takes cases and gives answers; what it does not take it hands over by row, with the reason.

Layers, from the bottom: `operations`, `nodes`, `lowering` (a graph of column operations, and Polars), `values`,
`canon`, `calls`, `hierarchy`, `compiler` (Cedar's semantics), `decoding`, `slices`, `world`, `layouts` (data into
columns), `frames`, `engine`.
"""

from __future__ import annotations

from workbench.columnar.engine import ColumnarAnswer, ColumnarAnswers, Verdicts, decide_cases
from workbench.columnar.policies import policy_tree

__all__ = ["ColumnarAnswer", "ColumnarAnswers", "Verdicts", "decide_cases", "policy_tree"]
