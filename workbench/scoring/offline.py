"""The one door to DeepEval: imported late, and cut off from everything outside this process.

One rule: what is scored stays here. DeepEval 4.3 by default sends usage events, reads `.env` and a key store in the
working directory into the environment, sets gRPC's variables, and moves files into `.deepeval/` there. All of that
is off before its first line runs, and stays off for this process and its children: the switches are read again at
every use, so taking them back after the import would turn them on again.

Accepted: someone who imported DeepEval earlier, without the switches, had its side effects before we were asked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from workbench.errors import need

if TYPE_CHECKING:
    from types import ModuleType

SWITCHES = {
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "DEEPEVAL_DISABLE_LEGACY_KEYFILE": "1",
    "DEEPEVAL_UPDATE_WARNING_OPT_IN": "0",
}
"""Environment under which DeepEval runs here. An opt-in of the caller's is overridden: traces are evidence."""


def deepeval() -> Any:
    """Return the `deepeval` module, offline.

    Cost: 1 to 3 s the first time in a process (its own imports), then nothing.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.update(SWITCHES)
    before = dict(os.environ)
    module: ModuleType = need("deepeval")
    for name in set(os.environ) - set(before):
        del os.environ[name]
    return module
