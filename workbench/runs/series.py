"""A run that goes on: every entry adds its numbers to it, so that MLflow draws a line over the nights.

One rule: a step has one value. What is there already is not sent again; where a step's value was corrected, the run
is written anew with all its steps and the old one deleted, since MLflow keeps every value it ever got of a step and
draws them all.

A new writing is of the next generation. It counts once it is `FINISHED`, and the one before is deleted after that: a
process that is killed leaves two, of which the finished one counts and the next sending deletes the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from workbench.runs.entry import Series

SERIES_TAG, GENERATION_TAG = "redecide.series", "redecide.series_generation"

BATCH = 900
"""Numbers that MLflow takes in a request."""

Point = tuple[str, int]
"""A number's name, and its step."""


def go_on(client: Any, experiment_id: str, series: Series, at: int) -> str:
    """Add numbers to a series; it is made if there is none. Returns its run.

    Args:
        client: bound to a store.
        experiment_id: MLflow's.
        series: what to add.
        at: when, milliseconds (UTC); the same for the same entry, so that a request made twice adds nothing.

    Cost: some four requests and one a name; after a correction all its numbers are sent anew.
    """
    run = _current(client, experiment_id, series) or _made(client, experiment_id, series, 0)
    before = _history(client, run.info.run_id, {each.name for each in series.measures})
    new = {(each.name, each.step): each.value for each in series.measures}
    if any(
        {each.value for each in logged} != {new.get(point, logged[-1].value)}
        for point, logged in before.items()
    ):
        return _rewrite(client, experiment_id, series, run, _metrics(new, at))
    run_id = str(run.info.run_id)
    missing = {point: value for point, value in new.items() if point not in before}
    _log(client, run_id, _metrics(missing, at))
    for name, text in series.tags.items():
        client.set_tag(run_id, name, text)
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _current(client: Any, experiment_id: str, series: Series) -> Any:
    """Return the run that counts; what was begun and never finished is deleted."""
    found = client.search_runs([experiment_id], f"tags.`{SERIES_TAG}` = '{_plain(series.name)}'")
    found = sorted(found, key=_rank)
    for extra in found[1:]:
        client.delete_run(extra.info.run_id)
    return found[0] if found else None


def _rank(run: Any) -> tuple[bool, int, int, str]:
    return run.info.status != "FINISHED", -_generation(run), run.info.start_time, run.info.run_id


def _generation(run: Any) -> int:
    return int(run.data.tags.get(GENERATION_TAG, 0))


def _plain(name: str) -> str:
    """As it stands in a query."""
    return name.replace("'", "’")


def _made(client: Any, experiment_id: str, series: Series, generation: int) -> Any:
    tags = {**series.tags, SERIES_TAG: _plain(series.name), GENERATION_TAG: str(generation)}
    return client.create_run(experiment_id, tags=tags, run_name=series.name)


def _history(client: Any, run_id: str, names: AbstractSet[str]) -> dict[Point, list[Any]]:
    """Return the numbers that are there of some names, as they were logged."""
    points: dict[Point, list[Any]] = {}
    for name in sorted(names & client.get_run(run_id).data.metrics.keys()):
        for each in sorted(client.get_metric_history(run_id, name), key=lambda each: each.timestamp):
            points.setdefault((name, each.step), []).append(each)
    return points


def _rewrite(client: Any, experiment_id: str, series: Series, old: Any, new: Sequence[Any]) -> str:
    """Write all of a series into a run of the next generation, and delete the old one."""
    every = _history(client, old.info.run_id, client.get_run(old.info.run_id).data.metrics.keys())
    last = {point: logged[-1] for point, logged in every.items()}
    last |= {(each.key, each.step): each for each in new}
    run_id = str(_made(client, experiment_id, series, _generation(old) + 1).info.run_id)
    _log(client, run_id, [last[point] for point in sorted(last)])
    client.set_terminated(run_id, "FINISHED")
    client.delete_run(old.info.run_id)
    return run_id


def _metrics(points: Mapping[Point, float], at: int) -> list[Any]:
    from mlflow.entities import Metric  # noqa: PLC0415 - seconds, and only where it is used

    return [Metric(name, value, at, step) for (name, step), value in points.items()]


def _log(client: Any, run_id: str, metrics: Sequence[Any]) -> None:
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
