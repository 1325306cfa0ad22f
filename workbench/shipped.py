"""Where the files are that come with Redecide: bundles, data cards and notebooks.

In a wheel they lie in `workbench/_data`; in a checkout, where people edit them, in `datasets/` and `notebooks/`.
"""

from __future__ import annotations

from pathlib import Path

from workbench.errors import WorkbenchError

_PACKED = Path(__file__).parent / "_data"
_CHECKOUT = Path(__file__).parent.parent


class NotShipped(WorkbenchError, FileNotFoundError):  # noqa: N818 - the state's own name
    """Nothing of that name comes with Redecide."""

    kind = "not_shipped"


def shipped(name: str) -> Path:
    """Return a folder or file that comes with Redecide.

    Args:
        name: as below `datasets/`, `agentdojo/candidate`; or `notebooks`.

    Raises:
        NotShipped: there is none of that name; names where it was looked for.

    Example:
        >>> sorted(path.name for path in shipped("agentdojo/baseline").glob("*.cedarschema"))
        ['schema.cedarschema']
    """
    places = (_PACKED / name, _CHECKOUT / "datasets" / name, _CHECKOUT / name)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise NotShipped(f"nothing named {name!r} comes with redecide; looked for {looked}")
    return found
