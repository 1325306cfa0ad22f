"""MLflow's model registry as a mirror: a registered model for a lake, a version for a bundle, aliases as in the lake.

One rule: the lake is the master. What MLflow says is written after the lake's commit, is never read to decide
anything, and where it differs that is told (`differences`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from workbench.tracking import connect, library, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.aliases import Alias
    from runtime.bundle import Bundle

VERSION_TAG = "redecide.bundle_version"


def model_of(lake: str) -> str:
    """Return the registered model of a lake, whose versions are bundle versions: its last names, and a hash.

    Example:
        >>> model_of("/srv/support/lake")
        'redecide.support-lake-36558e56'
    """
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", shown(lake)) if part]
    return f"redecide.{'-'.join(parts[-2:])}-{content_hash(lake)[:8]}"


def mirror(lake: str, alias: Alias, bundle: Bundle, tracking_uri: str, run_id: str | None) -> str | None:
    """Say in MLflow what an alias stands for: as a version of a registered model, with its alias and tags.

    Args:
        lake: its address.
        alias: the row that holds.
        bundle: the version it names.
        tracking_uri: of the store.
        run_id: the run that speaks for it; None: there is none, and a version that MLflow never heard of has the
            alias taken away rather than left where it is wrong.

    Returns:
        `name/version` of the model; None: MLflow has no such version.

    Raises:
        TrackingError: the store cannot be reached or refuses. The lake is as it is.
    """
    library()
    name = model_of(lake)
    with connect(tracking_uri) as store:
        client = store.client
        _ensure(client, name)
        found = next(_versions(client, name, bundle.version), None)
        if found is None and run_id is not None:
            found = register(client, name, bundle.version, run_id, {"redecide.bundle": bundle.name})
        stand(client, name, alias.alias, found, alias.at)
        if found is None:
            return None
        client.set_model_version_tag(name, found, "redecide.alias_row", alias.row_id)
        if run_id is not None:
            client.set_tag(run_id, f"redecide.promoted.{alias.alias}", alias.row_id)
    return f"{name}/{found}"


def register(client: Any, model: str, bundle_version: str, run_id: str, tags: Mapping[str, str]) -> str:
    """Return MLflow's version of a bundle; it is made if there is none, and only one is left if there are several.

    Several come of an answer that was lost: MLflow asks again by itself. The first stays.

    Args:
        client: bound to a store.
        model: registered model; made if there is none.
        bundle_version: of the bundle.
        run_id: the run that speaks for it.
        tags: of the version.
    """
    _ensure(client, model)
    found = sorted(_versions(client, model, bundle_version), key=int)
    if not found:
        source = client.get_run(run_id).info.artifact_uri
        client.create_model_version(
            model, source, run_id=run_id, tags={**tags, VERSION_TAG: bundle_version}, await_creation_for=0
        )
        found = sorted(_versions(client, model, bundle_version), key=int)
    for extra in found[1:]:
        client.delete_model_version(model, extra)
    return found[0]


def stand(client: Any, model: str, alias: str, version: str | None, at: int) -> None:
    """Say what an alias stands for, unless something later was said of it.

    Args:
        client: bound to a store.
        model: registered model.
        alias: the name.
        version: MLflow's; None: MLflow does not know what it stands for, and has the alias taken away rather than
            left where it is wrong.
        at: when the lake gave it, microseconds.
    """
    tag = f"redecide.alias.{alias}"
    said = client.get_registered_model(model).tags.get(tag, "")
    if said.isdecimal() and at < int(said):
        return
    if version is None:
        client.delete_registered_model_alias(model, alias)
    else:
        client.set_registered_model_alias(model, alias, version)
    client.set_registered_model_tag(model, tag, str(at))


def differences(lake: str, aliases: Sequence[Alias], tracking_uri: str) -> Iterator[str]:
    """Say where MLflow has another idea of an alias than the lake.

    Args:
        lake: its address.
        aliases: those that hold.
        tracking_uri: of the store that mirrors them.

    Raises:
        TrackingError: the store cannot be reached.
    """
    library()
    name = model_of(lake)
    with connect(tracking_uri) as store:
        for each in aliases:
            said = _said(store.client, name, each.alias)
            if said != each.bundle_version:
                told = "nothing" if said is None else said[:12]
                here = each.bundle_version[:12]
                yield f"alias {each.alias!r} stands for {here} in the lake, for {told} in MLflow's {name}"


def _ensure(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        client.create_registered_model(name)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: Any, name: str, version: str) -> Iterator[str]:
    for each in client.search_model_versions(f"name = '{name}'"):
        if each.tags.get(VERSION_TAG) == version:
            yield str(each.version)


def _said(client: Any, name: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        tags = client.get_model_version_by_alias(name, alias).tags
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return None if VERSION_TAG not in tags else str(tags[VERSION_TAG])
