"""What is at stake in a decision: which labels mean harm, which good work, and which argument is money.

One rule: what nobody said is not known. A decision without a declared label is unlabelled, a label with an undeclared
value says nothing, and one that is labelled both harm and good work is neither: it stays open, and is told.

Labels are those in force (`lake.labels`), however late they came; a label of a session holds for each of its
decisions that has none of that name itself. A label of `intent` says who meant the call (`origin`): what was meant
well does no harm and what was meant ill no good when it runs otherwise, or runs at last. Any other label
(`chargeback`) speaks of what came of the very action that ran, and of no other.

Trade-off accepted: labels are of decisions, not of actions; of a call that ran after a grant, label the one that ran.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import StakesInvalid
from workbench.texts import visible
from workbench.weighing.quantities import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    import polars as pl

    from workbench.compare import Diff
    from workbench.weighing.at_stake import Simulations
    from workbench.weighing.quantities import Quantity

Unlabelled = Literal["apart", "bounds"]
"""What becomes of decisions that nobody labelled. `apart`: they are counted apart, neither harm nor good work;
`bounds`: each may have been either, so they widen the bounds."""
Conflicts = Literal["open", "harm", "error"]
"""A decision labelled both harm and good work: `open` it may be either; `harm` it is harm; `error` refuse."""
Missing = Literal["error", "none"]
"""A declared label that the lake does not have at all: `error` refuse to count, `none` nobody said so yet."""

Values = Mapping[str, Sequence[str]]
"""Values by the name of a label."""

_HARM: Values = {"origin": ("attack",)}
_GOOD: Values = {"origin": ("user",)}
MAX_DECIMALS = 9
MAX_NAMED = 20
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "unlabelled": ("apart", "bounds"),
    "conflicts": ("open", "harm", "error"),
    "missing": ("error", "none"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Which argument of a tool is money. Read exactly or not at all: `"5"`, null, `5.5` without decimals are none."""

    argument: tuple[str, ...]
    """JSON members from the arguments down."""
    unit: str
    """What one is, once `decimals` are taken away: `cents`, `EUR cents`."""
    decimals: int = 0
    """Digits after the point that become part of the number: with 2, the argument 12.5 is 1250."""

    @property
    def pointer(self) -> str:
        """The argument as a JSON pointer (RFC 6901)."""
        return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in self.argument)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stakes:
    """What counts as harm, as good work and as money. Made with plain values; see `Stakes.of` for files.

    Example:
        >>> stakes = Stakes(
        ...     harm={"origin": ["attack"], "chargeback": ["true"]},
        ...     good={"chargeback": ["false"]},
        ...     money={"issue_refund": "amount_cents"},
        ... )
        >>> stakes.unit, stakes.moneys["issue_refund"].pointer
        ('amount_cents', '/amount_cents')
    """

    harm: Values = field(default_factory=lambda: dict(_HARM))
    """Values that mean harm, by label."""
    good: Values = field(default_factory=lambda: dict(_GOOD))
    """Values that mean good work, by label."""
    money: Mapping[str, Any] = field(default_factory=dict)
    """By tool: the argument that is money, as `"amount_cents"`, `"payment.cents"`, or with `argument`, `unit` and
    `decimals`."""
    intent: Sequence[str] = ("origin",)
    """Labels that say who meant the call, not what came of it."""
    unlabelled: Unlabelled = "apart"
    conflicts: Conflicts = "open"
    missing: Missing | Literal[""] = ""
    """Empty: `error`, unless `origin` alone says it, which a lake may have none of."""
    moneys: Mapping[str, Money] = field(init=False, repr=False)
    """`money`, read."""

    def __post_init__(self) -> None:
        for side in ("harm", "good"):
            object.__setattr__(self, side, _values(side, getattr(self, side)))
        _require_apart(self.harm, self.good)
        default = dict(self.harm) == _HARM and dict(self.good) == _GOOD
        object.__setattr__(self, "missing", self.missing or ("none" if default else "error"))
        object.__setattr__(self, "intent", _texts("intent", self.intent))
        for name, allowed in _OPTIONS.items():
            if getattr(self, name) not in allowed:
                raise StakesInvalid(f"`{name}` is {getattr(self, name)!r}; it is one of {', '.join(allowed)}")
        object.__setattr__(self, "moneys", _moneys(self.money))

    @classmethod
    def of(cls, given: Stakes | Mapping[str, Any] | str | PathLike[str] | None) -> Stakes:
        """Return the stakes that are given: themselves, as a mapping, as a TOML file, or None for the default.

        A file has the keys of this class at its top, or below `[stakes]`. Without any, label `origin` says it all:
        `attack` is harm, `user` good work; a lake may have none of it.

        Raises:
            StakesInvalid: it cannot be read, or a key or value is not one of ours; names the file.
        """
        match given:
            case Stakes():
                return given
            case None:
                return cls()
            case Mapping():
                return cls._read(given)
            case _:
                path = Path(given)
        try:
            return cls._read(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as exc:  # StakesInvalid is one
            raise StakesInvalid(f"{path}: {exc}") from exc

    @classmethod
    def _read(cls, given: Mapping[str, Any]) -> Stakes:
        inner = given.get("stakes")
        keys = inner if isinstance(inner, Mapping) and len(given) == 1 else given
        known = [each.name for each in fields(cls) if each.init]
        for key in keys:
            if key not in known:
                raise StakesInvalid(f"stakes have no key `{visible(str(key))}`; {closest(str(key), known)}")
        sides: dict[str, Any] = {} if {"harm", "good"} & keys.keys() == set() else {"harm": {}, "good": {}}
        return cls(**{**sides, **keys})

    @property
    def unit(self) -> str:
        """The unit of money; without any, an empty text."""
        return next((each.unit for each in self.moneys.values()), "")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that count, sorted."""
        return tuple(sorted({*self.harm, *self.good}))

    def columns(self, diff: Diff, simulated: Simulations | None = None) -> pl.LazyFrame:
        """Return the decisions of a comparison with what was at stake; see `workbench.weighing.at_stake.columns`."""
        from workbench.weighing.at_stake import columns  # noqa: PLC0415 - it imports us

        return columns(diff, self, simulated)

    def quantities(self, *, labelled: bool = True) -> tuple[Quantity, ...]:
        """Return the quantities that can be told, money in its unit.

        Args:
            labelled: whether any decision says what it was; without, harm and good work are left out.
        """
        has = {"labels"} if labelled else set()
        has |= {"money"} if self.moneys else set()
        return tuple(each.in_unit(self.unit) for each in QUANTITIES if each.needs <= has)


def closest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names is meant, or which there are."""
    known = sorted(map(visible, known))
    close = get_close_matches(visible(name), known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"there are {', '.join(known[:MAX_NAMED]) or 'none'}"


def _texts(where: str, given: object) -> tuple[str, ...]:
    """A text, or several, as a tuple."""
    several = (given,) if isinstance(given, str) else given
    if not isinstance(several, Sequence | set | frozenset):
        raise StakesInvalid(f"{where} is {given!r}; give a list of texts")
    for each in several:
        if not isinstance(each, str):
            raise StakesInvalid(
                f'{where} has {each!r}, which is no text; labels are texts: "{str(each).lower()}"'
            )
    return tuple(several)


def _values(side: str, given: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise StakesInvalid(f'`{side}` is {given!r}; give values by label, as {{"origin": ["attack"]}}')
    return {str(label): _texts(f"`{side}.{label}`", values) for label, values in given.items()}


def _require_apart(harm: Values, good: Values) -> None:
    for label in harm.keys() & good.keys():
        if both := set(harm[label]) & set(good[label]):
            raise StakesInvalid(f"label `{label}` = {min(both)!r} is declared both harm and good work")


def _moneys(given: object) -> dict[str, Money]:
    if not isinstance(given, Mapping):
        raise StakesInvalid(
            f'`money` is {given!r}; give an argument by tool, as {{"refund": "amount_cents"}}'
        )
    found = {str(tool): _money(str(tool), each) for tool, each in given.items()}
    units = {each.unit: tool for tool, each in found.items()}
    if len(units) > 1:
        (one, a), (other, b) = list(units.items())[:2]
        raise StakesInvalid(
            f"money of `{a}` is in `{one}`, of `{b}` in `{other}`, and one sum needs one unit; say which, as "
            f'money.{b} = {{ argument = "…", unit = "{one}", decimals = 2 }}'
        )
    return found


def _money(tool: str, given: object) -> Money:
    match given:
        case Money():
            return given
        case str():
            path = tuple(given.split("."))
            return Money(argument=path, unit=path[-1])
        case {"argument": argument, **rest} if rest.keys() <= {"unit", "decimals"}:
            path = (
                tuple(argument.split("."))
                if isinstance(argument, str)
                else _texts(f"`money.{tool}`", argument)
            )
            decimals, unit = rest.get("decimals", 0), rest.get("unit", path[-1] if path else "")
            if type(decimals) is int and 0 <= decimals <= MAX_DECIMALS and isinstance(unit, str):
                return Money(argument=path, unit=unit, decimals=decimals)
    raise StakesInvalid(
        f"`money.{tool}` is {given!r}; name the argument, as "
        f'"amount_cents" or {{ argument = "amount", unit = "cents", decimals = 2 }} (at most {MAX_DECIMALS})'
    )
