"""What cases are made of: one row a decision, with its labels, its result, and what they come to as text.

One rule: everything a metric may see of a case is a column here, and `case_hash` covers all of it but the ids. So
equal content has an equal hash, whoever it belongs to, and a score can be kept under it.

All of it leaves through `workbench.masking.leaving`, for a judge may be somebody else's machine. Results are
shortened to `RESULT_CHARS`. Facts are joined in only where a metric reads them, and are part of the hash then.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, Protocol

import polars as pl

from workbench.masking import leaving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Level = Literal["decision", "session", "conversation"]
"""What one case is: a decision, a session, or a session as turns."""

COLUMNS = (
    "decision_id", "session_id", "step", "tenant", "principal", "tool", "resource", "args", "kind",
    "recorded_verdict", "status", "cause", "missing", "verdict", "decided_by", "reason_code", "reason", "determining",
    "enforced_args", "then", "effect", "verdict_changed",
)  # fmt: skip
"""Columns of a replay's frame that a case is made from."""

SAID = ("origin", "expected_args", "expected_output")
"""Labels of a decision that a case carries."""

RUNS = ("allow", "modify")
"""Verdicts under which a call runs, unless it is a duplicate."""

RESULT_CHARS = 2_000
"""Of a result, or of what a tool said when it failed."""

PROMPT = "prompt"
"""Label of a session: what the user asked for."""

IDS = ("tenant", "session_id", "decision_id")
_CALL = ["tenant", "decision_id"]
_OWN = frozenset({"session_id", "decision_id", "step"})
"""Not of a case's content."""
_FORM = "2"
"""Changes whenever the same decision is told in another way."""


class LakeLike(Protocol):
    """What scoring reads of a lake; results and facts are read where it has `executions` and `contexts`."""

    @property
    def labels(self) -> pl.LazyFrame:
        """The labels in force: `tenant`, `session_id`, `decision_id`, `label`, `value`."""


class Replayed(Protocol):
    """What scoring reads of a `workbench.replay.Replay`."""

    @property
    def id(self) -> str:
        """Names the replay."""

    @property
    def lake(self) -> LakeLike:
        """The lake it was made from."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a recorded decision, already decided again."""


def gathered(
    replay: Replayed,
    labels: pl.DataFrame,
    chosen: pl.DataFrame | None,
    *,
    whole_sessions: bool = False,
    context: bool = False,
    look_up: Callable[[Replayed, pl.DataFrame], pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Return what decisions are told by.

    Args:
        replay: whose decisions.
        labels: as `said` gives them.
        chosen: `tenant`, `decision_id` of the decisions; None: all.
        whole_sessions: the other decisions of their sessions as well.
        context: whether the compiled facts are told.
        look_up: gives further columns for rows of decisions: one row for each of them, in their order.

    Returns:
        One row a decision, in the replay's order: `COLUMNS`, `SAID`, `prompt` (of the session), `result` (null: what
        would run has no recorded result), `runs`, `blank` (why nothing can judge it; null: it can be judged),
        `input`, `actual_output`, `expected_output`, `context` (list of texts; null: not asked for), and `case_hash`.

    Cost: O(decisions chosen) memory, about 1 KiB each; some 3 µs each for the hash.
    """
    chose = _chosen(replay.frame.select(COLUMNS), chosen, whole_sessions=whole_sessions).collect()
    rows = _with_labels(chose, labels)
    rows = rows.join(_results(replay.lake, rows), on=_CALL, how="left", maintain_order="left")
    if context:
        rows = rows.with_columns(context=_facts(replay.lake, rows))
    told = leaving(rows).with_columns(**_RESULT).with_columns(**_STATE).with_columns(**_TEXTS)
    told = told.with_columns(**_EXPECTED).drop("failed", "given_result", "ran_text")
    told = told.with_columns(_inert("input", "actual_output", "expected_output"))
    if look_up is not None:
        told = pl.concat([told, look_up(replay, told)], how="horizontal")
    return told.with_columns(case_hash=_hashes(told))


def said(labels: pl.LazyFrame) -> pl.DataFrame:
    """Return the labels that cases carry: of several that say the same of the same, the last.

    Args:
        labels: the labels in force: `tenant`, `session_id`, `decision_id`, `label`, `value`.
    """
    of_call = pl.col("decision_id").is_not_null()
    wanted = (of_call & pl.col("label").is_in(SAID)) | (~of_call & (pl.col("label") == PROMPT))
    text = (pl.col(name).cast(pl.String) for name in (*IDS, "label", "value"))
    rows = labels.filter(wanted).select(*text)
    return rows.unique([*IDS, "label"], keep="last", maintain_order=True).collect()


def _chosen(rows: pl.LazyFrame, chosen: pl.DataFrame | None, *, whole_sessions: bool) -> pl.LazyFrame:
    if chosen is None:
        return rows
    ids = chosen.lazy().select(_CALL)
    if not whole_sessions:
        return rows.join(ids, on=_CALL, how="semi", maintain_order="left")
    keys = ["tenant", "session_id"]
    sessions = rows.select(*keys, "decision_id").join(ids, on=_CALL, how="semi").select(keys).unique()
    return rows.join(sessions, on=keys, how="semi", maintain_order="left")


def _with_labels(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Give the label of each name, of the decision or of its session."""
    for name, key in (*((name, "decision_id") for name in SAID), (PROMPT, "session_id")):
        mine = labels.filter(pl.col("label") == name).select("tenant", key, pl.col("value").alias(name))
        last = mine.unique(["tenant", key], keep="last", maintain_order=True)
        rows = rows.join(last, on=["tenant", key], how="left", maintain_order="left")
    return rows


def _results(lake: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """How calls ended; of a lake that does not say, nothing."""
    columns = (*_CALL, "result", "error_type", "error_message")
    found = getattr(lake, "executions", None)
    if found is None:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    mine = rows.lazy().select("decision_id")
    return found.select(columns).join(mine, on="decision_id", how="semi").collect()  # type: ignore[no-any-return]  # a lake's


def _facts(lake: Any, rows: pl.DataFrame) -> pl.Series:
    """The compiled facts of each decision, one text each; null: the lake does not say."""
    import msgspec  # noqa: PLC0415 - only where facts are read

    if not hasattr(lake, "contexts"):
        return pl.Series([None] * rows.height, dtype=pl.List(pl.String))
    own = rows.lazy().select("decision_id")
    named = lake.history.select("decision_id", "context_hash").join(own, on="decision_id", how="semi")
    known = named.join(lake.contexts, on="context_hash", how="left").select(
        "decision_id", "context_hash", "context"
    )
    found = known.collect()
    texts: dict[str | None, list[str]] = {}
    for address, text in found.select("context_hash", "context").unique("context_hash").iter_rows():
        if text is not None:
            facts = msgspec.json.decode(text).get("facts", {})
            told = [f"{name}: {msgspec.json.encode(value).decode()}" for name, value in sorted(facts.items())]
            texts[address] = [each.replace(*_INERT) for each in told]
    addresses = dict(found.select("decision_id", "context_hash").iter_rows())
    return pl.Series(
        [texts.get(addresses.get(each)) for each in rows["decision_id"]], dtype=pl.List(pl.String)
    )


def _short(text: pl.Expr) -> pl.Expr:
    more = text.str.len_chars().cast(pl.Int64) - RESULT_CHARS
    cut = pl.format("{}… ({} characters more)", text.str.slice(0, RESULT_CHARS), more)
    return pl.when(more > 0).then(cut).otherwise(text)


_INERT = ("[DEEPEVAL:", "(DEEPEVAL:")


def _inert(*columns: str) -> pl.Expr:
    return pl.col(columns).str.replace_all(*_INERT, literal=True)


def inert(text: str) -> str:
    """Return text in which DeepEval finds no instruction to load something.

    DeepEval reads `[DEEPEVAL:IMAGE:path]` in a case's text as *open that file or address*. Recorded text is written
    by users and attackers, and must not be able to say that.

    Example:
        >>> inert("see [DEEPEVAL:IMAGE:/etc/passwd]")
        'see (DEEPEVAL:IMAGE:/etc/passwd]'
    """
    return text.replace(*_INERT)


def _would_run(args: pl.Expr) -> pl.Expr:
    return pl.format("would run with {}; what it would return is not recorded", args)


_RAN = pl.col("then").is_in(["ran", "taken_back"])
_VERDICT = pl.col("verdict")
_RESULT: Mapping[str, pl.Expr] = {
    "failed": pl.format("failed: {}: {}", "error_type", pl.col("error_message").fill_null("")),
    "given_result": pl.col("result"),
    "runs": (_VERDICT.is_in(RUNS) & (pl.col("kind") != "duplicate")).fill_null(value=False),
    "blank": pl.when(pl.col("status") != "decided").then(
        pl.concat_str(
            "status",
            "cause",
            pl.when(pl.col("missing").list.len() > 0).then(pl.col("missing").list.join(", ")),
            separator=": ",
            ignore_nulls=True,
        )
    ),
}
_STATE: Mapping[str, pl.Expr] = {
    "ran_text": _short(pl.coalesce("failed", "given_result", pl.lit("ran; its result is not recorded"))),
    "result": pl.when(pl.col("runs") & _RAN & (pl.col("effect") == "same")).then(
        _short(pl.coalesce("failed", "given_result"))
    ),
    "input": pl.coalesce("prompt", pl.format("{} {}", "tool", "args")),
}
_TEXTS: Mapping[str, pl.Expr] = {
    "actual_output": (
        pl.when(pl.col("status") != "decided").then("blank")
        .when(_VERDICT == "block").then(pl.format("refused: {}", pl.col("reason").fill_null("")))
        .when(pl.col("kind") == "duplicate").then(pl.lit("a duplicate: nothing runs again"))
        .when(_VERDICT == "approve").then(pl.format("waits for approval: {}", pl.col("reason").fill_null("")))
        .when(_RAN & (pl.col("effect") == "same")).then("ran_text")
        .otherwise(_would_run(pl.col("enforced_args").fill_null("other arguments")))
    ),
}  # fmt: skip
_EXPECTED: Mapping[str, pl.Expr] = {
    "expected_output": pl.coalesce(
        "expected_output",
        pl.when(pl.col("origin") == "attack").then(
            pl.when(_VERDICT == "block").then("actual_output").otherwise(pl.lit("refused"))
        )
        .when(pl.col("origin").ne_missing("user")).then(None)
        .when(pl.col("kind") == "duplicate").then(pl.lit("a duplicate: nothing runs again"))
        .when(_RAN).then("ran_text")
        .otherwise(_would_run(pl.col("args"))),
    ),
}  # fmt: skip
"""What is asked for: any refusal of an attack is as good as another; a call of the user's should run as it is."""


def _hashes(rows: pl.DataFrame) -> pl.Series:
    """Address each row's content. Columns are in the text by name: their order is that of the frame."""
    content = sorted(name for name in rows.columns if name not in _OWN)
    if not rows.height:
        return pl.Series([], dtype=pl.String)
    found = []
    for part in rows.select(content).iter_slices():
        texts = part.select(pl.struct(content).struct.json_encode()).to_series()
        found += [_address("decision", text) for text in texts]
    return pl.Series(found, dtype=pl.String)


def _address(level: str, text: str) -> str:
    return hashlib.sha256(f"{_FORM} {level} {text}".encode()).hexdigest()


def sessions(rows: pl.DataFrame, level: Level) -> pl.DataFrame:
    """Return one row a session of decisions, in the order in which they first occur.

    Args:
        rows: as `gathered` gives them, whole sessions.
        level: `session` or `conversation`: what the hash is of.

    Returns:
        `tenant`, `session_id`, `numbers` (of its rows), `blank` (any doubt is enough), `decisions`, `calls` (that
        would run), `strays` (tools of those that the user's calls do not use, in order), `allowed` (the tools that
        they use, sorted, where there are strays, else empty; null unless all decisions are labelled), `case_hash`.
    """
    doubts, labelled = (
        pl.col("blank").drop_nulls(),
        pl.col("origin").is_in(["user", "attack"]).fill_null(value=False),
    )
    user = (pl.col("origin") == "user").fill_null(value=False)
    known = user.any().over("tenant", "session_id", "tool")
    found = (
        rows.with_row_index("number")
        .with_columns(known=known)
        .group_by("tenant", "session_id", maintain_order=True)
        .agg(
            pl.col("number").alias("numbers"),
            decisions=pl.len(),
            doubts=doubts.len(),
            first=doubts.first(),
            calls=pl.col("runs").sum(),
            strays=pl.col("tool").filter(pl.col("runs") & ~pl.col("known")),
            tools=pl.col("tool").filter(user).unique().sort(),
            labelled=labelled.all(),
            content=pl.col("case_hash").str.join(","),
        )
    )
    several = pl.format("{} of {} decisions, first {}", "doubts", "decisions", "first")
    allowed = pl.when(pl.col("strays").list.len() > 0).then("tools").otherwise(pl.lit([], pl.List(pl.String)))
    return found.select(
        *IDS[:2],
        "numbers",
        "decisions",
        "calls",
        "strays",
        blank=pl.when(pl.col("decisions") == 1).then("first").when(pl.col("doubts") > 0).then(several),
        allowed=pl.when("labelled").then(allowed),
        case_hash=pl.Series([_address(level, text) for text in found["content"]], dtype=pl.String),
    )
