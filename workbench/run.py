"""Who runs this, and which release it is: what runs, replays and promotions say of their maker.

One rule: neither asks anybody: no git, no network.
"""

from __future__ import annotations

import getpass
from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the version of this release."""
    try:
        return version("redecide")
    except PackageNotFoundError:  # run from a source tree
        return "not installed"


def user_name() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"
