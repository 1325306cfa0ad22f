"""Pareto fronts: versions that no other beats on every objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray


def front(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each row whether no other is at least as good everywhere and better somewhere; less is better.

    Args:
        values: one row a version, one column an objective.

    Cost: distinct rows times the length of the front.

    Example:
        >>> front(np.array([[1, 9], [2, 5], [2, 6], [9, 1], [2, 5]])).tolist()
        [True, True, False, True, True]
    """
    distinct, places = np.unique(values, axis=0, return_inverse=True)
    kept: list[int] = []
    for place, each in enumerate(distinct):  # in lexical order, so what beats a row comes before it
        if not any((distinct[other] <= each).all() for other in kept):
            kept.append(place)
    return np.isin(places.reshape(-1), kept)


def spread(versions: pl.DataFrame, objectives: Sequence[str], most: int) -> list[int]:
    """Return the numbers of at most so many versions, one for each distinct point, spread evenly along the front.

    Args:
        versions: on the front: `version` and the objectives.
        objectives: by the first of which the front is walked.
        most: versions wanted.
    """
    points = versions.sort(*objectives, "version").unique(objectives, keep="first", maintain_order=True)
    if points.height <= most:
        return points["version"].to_list()
    places = np.unique(np.linspace(0, points.height - 1, max(most, 1)).round().astype(int))
    return points["version"].gather(places).to_list()
