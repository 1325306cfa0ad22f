"""Simulators: what would have come of actions that never ran, as somebody's code says.

One rule: only what the log does not identify is asked, and the answer is called *simulated* wherever it counts. A
simulator that raises, takes too long or answers with something else leaves its rows as they were, with the cause.

Nothing of the agent's is executed: what runs is the simulator, a function of what is known of the call. The same
situation is simulated once; situations are taken in the log's order, one after the other.

Trade-off accepted: a simulator is trusted. One that calls the real system does what that does; `prepared` does so on
purpose, with a staged tool's own prepare, and aborts what it prepared.
"""

from __future__ import annotations

import inspect
import json
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import polars as pl

from runtime.canonical import content_hash
from workbench.errors import SimulatorsInvalid
from workbench.faces import Faces, Page, Table
from workbench.progress import progress
from workbench.texts import count, shorten, visible
from workbench.weighing.at_stake import SIMULATED, open_actions
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from runtime.canonical import Json
    from workbench.compare import Diff

Outcome = Literal["ran", "failed", "no_effect"]
"""`ran` it took effect; `failed` it was tried and failed, and may have had some; `no_effect` it left nothing behind,
so it is neither harm nor good work and moves no money."""

_INT64 = range(-(2**63), 2**63)
MAX_CAUSE = 200
MAX_CAUSES = 5
_SEEN = (
    "tool",
    "args",
    "recorded_args",
    "principal",
    "tenant",
    "session",
    "then",
    "status",
    "result",
    "error",
)
"""What a simulator sees; the same in all of it is the same situation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A call as a simulator sees it. What was withheld is None."""

    tool: str
    args: Mapping[str, Json]
    """What would be enforced now; a copy of its own."""
    recorded_args: Mapping[str, Json] | None
    """What was asked for then."""
    principal: str | None
    tenant: str | None
    session: str | None
    then: str | None
    """What became of the call then; see `workbench.effects.Then`."""
    status: str | None
    """How it ended then (`runtime.trace.ExecutionStatus`), if it was let run."""
    result: Json
    """What it returned then; None also where the result was not kept, or not whole."""
    error: str | None
    """What it raised then: class and message."""

    @property
    def effect_id(self) -> str:
        """A stable id of the situation, which is no effect's: `simulated-` and a hash."""
        return f"simulated-{content_hash([self.tool, dict(self.args), self.session, self.tenant])[:32]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a simulator says of a situation. None is *not known*, and leaves the bounds as they were."""

    outcome: Outcome
    harm: bool | None = None
    good: bool | None = None
    money: int | None = None
    """What it would move, in the unit of the stakes; None: what its arguments say."""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"outcome is {self.outcome!r}; it is one of {', '.join(get_args(Outcome))}")
        for name in ("harm", "good"):
            if type(getattr(self, name)) not in (bool, type(None)):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it is True, False, or None for not known"
                )
        if self.money is not None and (type(self.money) is not int or self.money not in _INT64):
            raise ValueError(f"money is {self.money!r}; it is a whole number of 64 bits, or None")
        if self.harm and self.good:
            raise ValueError("it is both harm and good; say one, or None for not known")
        if self.outcome == "no_effect" and (self.harm or self.good or self.money):
            raise ValueError("without an effect it is neither harm nor good, and moves no money")
        if not isinstance(self.reason, str):
            raise ValueError(f"reason is {self.reason!r}; it is a text")  # noqa: TRY004 - one kind of refusal for all


Simulator: TypeAlias = "Callable[[Situation], Simulation]"

_ANSWERS: Mapping[str, type[pl.DataType]] = {
    **{name: kind for name, kind in SIMULATED.items() if name != "decision_id"},
    "reason": pl.String, "cause": pl.String,
}  # fmt: skip


def simulate(
    diff: Diff,
    simulators: Mapping[str, Simulator],
    *,
    without: Collection[str] = (),
    seconds: float | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Simulated:
    """Ask simulators what would come of the actions that a candidate would run and the log never saw run.

    Asked are decisions that are `altered`, `released` or `escalated`, and `held` ones and those in doubt whose action
    would be another. What an approver would say is not simulated: such a call runs only if it is granted.

    Args:
        diff: the comparison.
        simulators: by tool.
        without: fields of `Situation` that no simulator needs (`session`, `principal` …). They are withheld, so that
            situations which differ in nothing else are simulated once.
        seconds: that one situation may take; its thread is left behind then. None: as long as it takes.
        on_rows: told how many situations were simulated; None: a progress bar, if it takes more than a second.

    Returns:
        The outcomes, for `worth(diff, stakes, simulated)`. Simulated now, in this process.

    Raises:
        SimulatorsInvalid: a simulator is of a tool that the log does not have, or `without` names no field.
    """
    _require(diff, simulators, without)
    asked = _asked(diff, list(simulators), without)
    keys = list(_SEEN)
    cases = asked.select(keys).unique(maintain_order=True)
    answers: list[dict[str, Any]] = []
    with progress(cases.height, "simulating", on_rows, unit="situation") as advance:
        for row in cases.iter_rows(named=True):
            answers.append(_answer(simulators[row["tool"]], row, seconds))
            advance(1)
    found = pl.concat([cases, pl.DataFrame(answers, schema=_ANSWERS)], how="horizontal")
    rows = asked.join(found, on=keys, how="left", nulls_equal=True, maintain_order="left")
    tools, held = tuple(sorted(simulators)), tuple(sorted(without))
    return Simulated(replay=diff.cand.id, tools=tools, rows=rows, situations=cases.height, without=held)


def _require(diff: Diff, simulators: Mapping[str, Simulator], without: Collection[str]) -> None:
    known = diff.frame.select(pl.col("tool").unique()).collect().to_series().to_list()
    for tool in simulators:
        if tool not in known:
            raise SimulatorsInvalid(
                f"the log has no tool `{visible(tool)}` to simulate; {closest(tool, known)}"
            )
    fields = [name for name in _SEEN if name not in ("tool", "args")]
    for name in without:
        if name not in fields:
            raise SimulatorsInvalid(
                f"`without` names `{visible(name)}`, which cannot be withheld; {closest(name, fields)}"
            )


def _asked(diff: Diff, tools: list[str], without: Collection[str]) -> pl.DataFrame:
    """The decisions to ask about, in the log's order: `decision_id`, `effect`, and what simulators see."""
    rows = open_actions(diff).filter(pl.col("tool").is_in(tools))
    executions = getattr(diff.cand.lake, "executions", None)
    if executions is None:
        ended = rows.with_columns(
            pl.lit(None, pl.String).alias(name) for name in ("status", "result", "error")
        )
    else:
        ended = rows.join(_ended(executions), on="decision_id", how="left", maintain_order="left")
    found = ended.select("decision_id", pl.col("effect").cast(pl.String), *_SEEN).collect()
    return found.with_columns(pl.lit(None, pl.String).alias(name) for name in without)


def _ended(executions: pl.LazyFrame) -> pl.LazyFrame:
    """How calls ended; `result` only where all of it was kept."""
    whole = pl.col("result").str.len_bytes() == pl.col("result_bytes")
    return executions.select(
        pl.col("decision_id").cast(pl.String),
        pl.col("status").cast(pl.String),
        result=pl.when(whole).then("result"),
        error=pl.concat_str("error_type", pl.col("error_message").fill_null(""), separator=": "),
    )


def _answer(simulator: Simulator, row: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """Ask one simulator about one situation; whatever it raises is a cause."""
    try:
        found = _timed(simulator, _situation(row), seconds)
    except Exception as exc:  # noqa: BLE001 - a guard point: what a simulator raises becomes the row's cause
        return {"cause": _told(exc)}
    if not isinstance(found, Simulation):
        return {"cause": f"it returned a {type(found).__name__}, not a `Simulation`"}
    answer = {"sim_harm": found.harm, "sim_good": found.good, "sim_money": found.money}
    return {"outcome": found.outcome, "reason": found.reason, **answer}


def _situation(row: dict[str, Any]) -> Situation:
    read = {
        name: None if row[name] is None else json.loads(row[name])
        for name in ("args", "recorded_args", "result")
    }
    return Situation(**{**row, **read})


def _told(exc: BaseException) -> str:
    said = "; ".join([f"{type(exc).__name__}: {exc}", *getattr(exc, "__notes__", ())])
    return shorten(said, MAX_CAUSE)


def _timed(simulator: Simulator, situation: Situation, seconds: float | None) -> object:
    """Call a simulator; where it may take so long only, in a thread of its own.

    Raises:
        TimeoutError: it took longer.
    """
    if seconds is None:
        return simulator(situation)
    ended: list[tuple[object, BaseException | None]] = []

    def work() -> None:
        try:
            ended.append((simulator(situation), None))
        except BaseException as exc:  # noqa: BLE001 - raised again, where it is waited for
            ended.append((None, exc))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError(f"it took more than {seconds:g} s")
    found, error = ended[0]
    if error is not None:
        raise error
    return found


def prepared(
    prepare: Callable[..., Any],
    abort: Callable[..., Any],
    *,
    judge: Callable[[Situation, Any], Simulation] | None = None,
    refusals: tuple[type[Exception], ...] = (),
) -> Simulator:
    """Make a simulator of a staged tool: it is prepared with the arguments to be enforced, and aborted.

    The commit is never called. The abort always is, before anything else comes: with the handle; with None if the
    prepare raised, or gave none. Each may take `effect_id`, which is of the simulation.

    Args:
        prepare: the staged tool's own function; takes the tool's arguments.
        abort: the tool's own; takes the handle.
        judge: says what it would come to, from the situation and the handle, before the abort. None: it would run;
            harm and good work stay unknown.
        refusals: what the prepare raises to say that it will not do it: no effect. Anything else is a cause.

    Raises:
        SimulatorsInvalid: a function cannot take what it would be given.
    """
    takes_id = {fn: _takes_effect_id(fn) for fn in (prepare, abort)}

    def simulator(situation: Situation) -> Simulation:
        given = {"effect_id": situation.effect_id}
        handle = None
        try:
            handle = prepare(**situation.args, **(given if takes_id[prepare] else {}))
            return Simulation(outcome="ran") if judge is None else judge(situation, handle)
        except refusals as exc:
            return Simulation(outcome="no_effect", reason=_told(exc))
        finally:
            abort(handle, **(given if takes_id[abort] else {}))

    return simulator


def _takes_effect_id(fn: Callable[..., Any]) -> bool:
    if not callable(fn):
        raise SimulatorsInvalid(f"{fn!r} is no function; give a staged tool's own prepare and abort")
    return "effect_id" in inspect.signature(fn).parameters


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Simulated(Faces):
    """What simulators said. Made by `simulate`."""

    replay: str
    """Id of the candidate replay."""
    tools: tuple[str, ...]
    rows: pl.DataFrame = field(repr=False)
    """One row a decision that was asked about, in the log's order.

    Columns: `decision_id`, `effect`, what simulators saw, `outcome` (null: the simulator failed), `sim_harm`,
    `sim_good`, `sim_money`, `reason`, `cause` (why there is no outcome; else null).
    """
    situations: int
    """How many different ones were simulated."""
    without: tuple[str, ...] = ()

    @cached_property
    def lines(self) -> list[str]:
        """What was simulated, in sentences."""
        failed = self.rows["outcome"].null_count()
        asked = count(self.rows.height, "call")
        tools = ", ".join(map(visible, self.tools)) or "no tool"
        situations = count(self.situations, "situation")
        found = [f"Simulated: {asked} the log cannot tell of, in {situations}, by simulators of {tools}."]
        if failed:
            causes = "; ".join(
                f"{n:,} {visible(cause)}" for cause, n in list(self.causes.items())[:MAX_CAUSES]
            )
            found.append(f"Of {failed:,} of them the simulator failed, and they stay unknown: {causes}.")
        return found

    @property
    def says_what(self) -> bool:
        """Whether any answer says that something would be harm, or good work, or not."""
        return bool(self.rows.select(pl.col("sim_harm", "sim_good").is_not_null().any()).row(0).count(True))

    @property
    def frame(self) -> pl.LazyFrame:
        """`rows`, lazy."""
        return self.rows.lazy()

    @property
    def causes(self) -> dict[str, int]:
        """Decisions without an outcome by cause, most frequent first."""
        found = self.rows.drop_nulls("cause").group_by("cause").len()
        return dict(found.sort("len", "cause", descending=[True, False]).iter_rows())

    def page(self) -> Page:
        """What it says."""
        return Page(
            kind="simulated",
            title=f"Simulated: {count(self.rows.height, 'call')}",
            lines=[*self.lines, "Every number that rests on these is called simulated."],
            parts=[
                Table(
                    title="By tool and outcome",
                    heads=["tool", "effect", "outcome", "harm", "good", "calls"],
                    rows=list(self._counted()),
                    code=frozenset({0}),
                )
            ],
            next=("worth(diff, stakes, simulated)", "simulated.rows"),
            pins={"candidate": self.replay},
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it as JSON, but for the rows."""
        names = ("tool", "effect", "outcome", "harm", "good", "calls")
        return {
            "candidate": self.replay,
            "calls": self.rows.height,
            "situations": self.situations,
            "tools": [visible(tool) for tool in self.tools],
            "without": list(self.without),
            "causes": {visible(cause): n for cause, n in self.causes.items()},
            "outcomes": [dict(zip(names, row, strict=True)) for row in self._counted()],
        }

    def _counted(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        keys = ["tool", "effect", "outcome", "sim_harm", "sim_good"]
        for tool, effect, outcome, harm, good, n in self.rows.group_by(keys).len().sort(keys).iter_rows():
            yield visible(tool), effect, outcome or "not known", _word(harm), _word(good), n


def _word(value: bool | None) -> str:  # noqa: FBT001 - a cell
    return "not known" if value is None else "yes" if value else "no"
