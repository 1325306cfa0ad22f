"""Bundles of a lake, built again from the texts in `policies`.

One rule: a bundle is what its texts give, or it is not there; a version that they do not give is never guessed at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from runtime.bundle import bundle_from_files
from workbench.errors import BundleNotFound

if TYPE_CHECKING:
    from runtime.bundle import Bundle

MIN_PREFIX = 4
"""Hex digits that a shortened bundle version needs."""


def whole_version(policies: pl.LazyFrame, version: str, lake: str) -> str:
    """Return the version that begins so.

    Args:
        policies: the lake's table.
        version: `bundle_version`, or its first digits where they fit one only.
        lake: where it is, for people.

    Raises:
        BundleNotFound: no version begins so, or several do.
    """
    versions = policies.select(pl.col("bundle_version").unique().sort()).collect().to_series().to_list()
    enough = len(version) >= MIN_PREFIX
    fits = [known for known in versions if enough and known.startswith(version)]
    if len(fits) != 1:
        known = ", ".join(each[:12] for each in fits or versions) or "none"
        what = f"{len(fits)} bundles begin with" if fits else "no bundle of"
        raise BundleNotFound(f"{what} version {version!r} in the lake at {lake}; it has {known}")
    return str(fits[0])


def rebuilt(policies: pl.LazyFrame, version: str, lake: str) -> Bundle:
    """Return the bundle of exactly this version; arguments as `whole_version` takes them.

    Raises:
        BundleNotFound: it is not there, or its texts give another.
        BundleError: the texts are no bundle that this release reads.
    """
    rows = policies.filter(pl.col("bundle_version") == version).sort("name", "file").collect()
    if not rows.height:
        raise BundleNotFound(f"no bundle of version {version!r} in the lake at {lake}")
    bundle = bundle_from_files(dict(rows.select("file", "text").iter_rows()), rows["name"][0])
    if bundle.version != version:
        raise BundleNotFound(
            f"the texts of bundle {version[:12]} in the lake at {lake} give {bundle.version[:12]}: "
            "rows of `policies` are missing or were changed"
        )
    return bundle
