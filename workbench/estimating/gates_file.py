"""Gates as they are declared: in TOML, in a mapping, or as values.

One rule: a key or a value that is not ours is an error that names the gate and what is allowed; nothing is ignored.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from workbench.errors import GatesInvalid
from workbench.texts import visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from os import PathLike

    from runtime.canonical import Json

    Given: TypeAlias = "Gate | Iterable[Gate | Mapping[str, Any]] | Mapping[str, Any] | str | PathLike[str]"

KEYS = ("quantity", "at_most", "at_least", "level", "on", "each")

On = Literal["future", "log"]
"""`future` an estimate for future traffic has to clear the threshold; `log` the exact count of this log has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition on one quantity.

    Example:
        >>> Gate(quantity="harm_through_share", at_most=0.05).text
        'harm_through_share <= 0.05'
    """

    quantity: str
    """Name of a quantity that was estimated. Totals are per session; with `on="log"` they are totals."""
    at_most: float | None = None
    at_least: float | None = None
    """One of the two."""
    level: float = 0.95
    """How sure, one-sided."""
    on: On = "future"
    each: bool | str | tuple[str, ...] = False
    """What every slice of has to keep it, not all together: a column of the comparison, as `tool`, or several, of
    which each combination is a slice; True: those that `decide(…, by=…)` names."""

    def __post_init__(self) -> None:
        name = f"gate `{visible(str(self.quantity))}`"
        if not self.quantity or type(self.quantity) is not str:
            raise GatesInvalid(f'{name}: `quantity` is the name of a quantity, as "harm_through_share"')
        if (self.at_most is None) == (self.at_least is None):
            raise GatesInvalid(f"{name}: give one of `at_most` and `at_least`, as `at_most = 0.05`")
        for key in ("at_most", "at_least", "level"):
            value = getattr(self, key)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not number:
                raise GatesInvalid(f"{name}: `{key}` is {value!r}; give a number, as `{key} = 0.05`")
        if not 0.5 < self.level < 1:  # noqa: PLR2004 - less is no certainty at all
            raise GatesInvalid(
                f"{name}: `level` is {self.level!r}; it lies between 0.5 and 1, as 0.95 for 95 %"
            )
        if self.on not in ("future", "log"):
            raise GatesInvalid(f'{name}: `on` is {self.on!r}; it is "future" or "log"')
        object.__setattr__(self, "each", self._each(name))

    def _each(self, name: str) -> bool | str | tuple[str, ...]:
        """What slices are of; a list, as TOML has it, as a tuple."""
        said: object = self.each  # of a file: anything
        match said:
            case bool() as given:
                return given
            case str() as given if given:
                return given
            case [*given] if given and all(isinstance(each, str) and each for each in given):
                return tuple(map(str, given))
        raise GatesInvalid(
            f'{name}: `each` is {said!r}; it is a column, as "tool", or several, as ["tenant", "tool"]; or true, for '
            "slices that the caller names, or false"
        )

    @property
    def by(self) -> tuple[str, ...]:
        """Columns that its slices are of, where it says so itself."""
        match self.each:
            case bool():
                return ()
            case str():
                return (self.each,)
            case given:
                return given

    @property
    def upper(self) -> bool:
        """Whether it bounds from above."""
        return self.at_most is not None

    @property
    def at(self) -> float:
        """The threshold."""
        return next(float(at) for at in (self.at_most, self.at_least) if at is not None)

    @property
    def text(self) -> str:
        """The condition in short."""
        where = " on this log" if self.on == "log" else ""
        each = f" for each {visible(' and '.join(self.by) or 'slice')}" if self.each else ""
        return f"{self.quantity} {'<=' if self.upper else '>='} {self.at:g}{where}{each}"

    def as_dict(self) -> dict[str, Json]:
        """Return it as it is declared."""
        found = {key: getattr(self, key) for key in KEYS if getattr(self, key) is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def read(given: Given) -> tuple[Gate, ...]:
    """Return declared gates.

    Args:
        given: `Gate`s; a mapping with a list `gates`; or the path of a TOML file of it, `[[gates]]` for each.

    Raises:
        GatesInvalid: naming file, gate and key, and what is allowed.
    """
    match given:
        case Gate():
            return (given,)
        case Mapping():
            return _of(given)
        case str() | Path():
            return _of_file(Path(given))
        case Iterable():
            return _several(given)
    return _of_file(Path(given))


def _of_file(path: Path) -> tuple[Gate, ...]:
    try:
        return _of(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:  # GatesInvalid is one
        raise GatesInvalid(f"{path}: {exc}") from exc


def _of(given: Mapping[str, Any]) -> tuple[Gate, ...]:
    for key in given:
        if key != "gates":
            raise GatesInvalid(
                f"there is no key `{visible(str(key))}`; gates are a list `gates`, in TOML `[[gates]]`"
            )
    listed = given.get("gates", ())
    if not isinstance(listed, list | tuple):
        raise GatesInvalid("`gates` is a list, in TOML `[[gates]]` before each")
    return _several(listed)


def _several(listed: Iterable[object]) -> tuple[Gate, ...]:
    gates = tuple(each if isinstance(each, Gate) else _gate(at, each) for at, each in enumerate(listed, 1))
    if not gates:
        raise GatesInvalid("no gate is declared: nothing would be judged; give at least one")
    return gates


def _gate(at: int, given: object) -> Gate:
    if not isinstance(given, Mapping):
        raise GatesInvalid(f"gate {at} is {given!r}; it has keys, as `quantity` and `at_most`")
    for key in given:
        if key not in KEYS:
            raise GatesInvalid(f"gate {at} has no key `{visible(str(key))}`; {closest(str(key), KEYS)}")
    if "quantity" not in given:
        raise GatesInvalid(f'gate {at} names no `quantity`, as `quantity = "harm_through_share"`')
    return Gate(**given)
