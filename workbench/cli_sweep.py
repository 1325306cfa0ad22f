"""The commands `redecide sweep` and `redecide suggest`: versions of a policy compared, and rules proposed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_sources import SourcePaths, sources_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.lake import Lake

_NAMES = (
    "harm_let_through", "good_held_up", "calls_held_up", "approvals_asked", "money_let_through", "money_held_up",
)  # fmt: skip
"""Of `workbench.searching.objectives.OBJECTIVES`, without loading Polars for `--help`."""

Policies = Annotated[
    list[Path], typer.Option("--policy", help="Bundle folder with the policies; repeat for several.")
]
Over = Annotated[
    list[str] | None,
    typer.Option("--over", metavar="NAME=V,V…", help="Values for a literal that `@tune` declares; repeat."),
]
Objectives = Annotated[
    list[str] | None,
    typer.Option("--objective", help=f"What there should be less of, repeat: {', '.join(_NAMES)}."),
]
Cluster = Annotated[
    str,
    typer.Option(help="What stays together when the history is divided: columns, or labels of sessions."),
]
Share = Annotated[float, typer.Option(help="Part of the sessions to search on; the others confirm.")]
Seed = Annotated[int, typer.Option(help="Draws another division.")]
LakePath = Annotated[str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake's Delta tables.")]
ContextPath = Annotated[
    str,
    typer.Option("--context", help="`recorded`, or a bundle or context.toml to compile the facts again by."),
]


def sweep(
    lake: LakePath,
    policy: Policies,
    over: Over = None,
    objective: Objectives = None,
    context: ContextPath = "recorded",
    source: SourcePaths = None,
    share: Share = 0.5,
    seed: Seed = 0,
    cluster: Cluster = "tenant,session_id",
    confirm: Annotated[int, typer.Option(help="Versions of the front to confirm.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Write all versions to this Parquet file.")] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Compare many versions of a policy; confirm what nothing beats on sessions that were not searched on."""
    from workbench.lake import open_lake
    from workbench.searching.search import search
    from workbench.splitting import Split

    opened = open_lake(lake)
    found = search(
        opened,
        list(policy),
        over_of(over),
        objectives=objective or default_objectives(opened),
        split=Split(share=share, seed=seed, cluster=tuple(cluster.split(","))),
        confirm=confirm,
        context=context,
        sources=sources_of(source),
    )
    if out is not None:
        found.rows.write_parquet(out)
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)


def suggest(
    lake: LakePath,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Bundle folder; default: the recorded.")
    ] = None,
    context: ContextPath = "recorded",
    source: SourcePaths = None,
    share: Share = 0.5,
    seed: Seed = 0,
    cluster: Cluster = "tenant,session_id",
    most: Annotated[int, typer.Option(min=1, help="Rules proposed for each tool.")] = 1,
    cost: Annotated[
        float, typer.Option(help="How much worse it is to hit all good calls than to miss all harmful ones.")
    ] = 1.0,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Propose rules for labelled harm that policies still allow, with what they do on other sessions."""
    from workbench.lake import open_lake
    from workbench.searching.suggest import suggest as suggest_rules
    from workbench.splitting import Split

    found = suggest_rules(
        open_lake(lake),
        policy,
        context=context,
        sources=sources_of(source),
        split=Split(share=share, seed=seed, cluster=tuple(cluster.split(","))),
        most=most,
        cost=cost,
    )
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)


def default_objectives(lake: Lake) -> tuple[str, ...]:
    """What there is to count: harm and good work where calls are labelled, else what is held up, and approvals."""
    import polars as pl

    labelled = lake.labels.filter(pl.col("label") == "origin").select(pl.len()).collect().item()
    return ("harm_let_through", "good_held_up") if labelled else ("calls_held_up", "approvals_asked")


def over_of(given: Sequence[str] | None) -> dict[str, list[object]]:
    """Parse values given as `NAME=V,V…`: integers and true/false as such, `"…"` as JSON texts, else plain texts.

    Example:
        >>> over_of(["limit=100,200", "word=x", "open=true"])
        {'limit': [100, 200], 'word': ['x'], 'open': [True]}

    Raises:
        WorkbenchError: a name or its values are missing, or a name is given twice.
    """
    found: dict[str, list[object]] = {}
    for text in given or ():
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise WorkbenchError(
                f"--over takes NAME=VALUE,VALUE…, such as refund_limit=1000,5000; got {text!r}"
            )
        if name in found:
            raise WorkbenchError(
                f"--over {name} is given twice; give all its values at once, apart by commas"
            )
        found[name] = [_value(value.strip()) for value in values.split(",")]
    return found


def _value(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | str) else text
