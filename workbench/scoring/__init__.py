"""Scoring: recorded decisions as DeepEval test cases, and metrics that need no model.

`cases` makes the test cases, `metrics` are ours on DeepEval's `BaseMetric`, `offline` is the only door to DeepEval.
`workbench.score` puts them together. Importing this package imports none of DeepEval.
"""

from __future__ import annotations
