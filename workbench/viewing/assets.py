"""The bundled browser modules: where they are.

They are built from `js/src` by `npm run build` in `workbench/viewing/js` and shipped; nobody needs Node to use them.
"""

from __future__ import annotations

from pathlib import Path

from workbench.errors import ViewNotBuilt

STATIC = Path(__file__).parent / "static"


def esm(name: str) -> Path:
    """Return the path of a bundled module, for `_esm` of a widget.

    Args:
        name: of the entry: `table` is built from `js/src/table.js`.

    Raises:
        ViewNotBuilt: it is not there; says how it is built.
    """
    path = STATIC / f"{name}.js"
    if not path.is_file():
        raise ViewNotBuilt(
            f"the view's browser module {path.name!r} is missing in {str(STATIC)!r}; in a checkout, build it: "
            "`npm ci && npm run build` in `workbench/viewing/js`; otherwise install redecide again"
        )
    return path
