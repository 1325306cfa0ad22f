"""Statistics of clustered decisions: intervals, tests, power, sequences. Pure numbers; knows nothing of lakes.

One rule: the unit of inference is the *cluster*, a session or what the caller declares wider; decisions of one
cluster are never taken as independent. Each function names the formula's source and is checked against a reference.

`proportions` intervals of one proportion; `clusters` rates and means over clusters; `bootstrap` the cluster
bootstrap; `paired` one outcome a cluster, before and after; `multiplicity` many tests; `power` what can be seen and
what is still needed; `sequences` intervals valid however often one looks.

Out of scope: models with covariates, and clusters that depend on each other.
"""

from __future__ import annotations
