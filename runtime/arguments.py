"""Arguments of a call as JSON: what is decided about, recorded, and given to the tool.

One rule: whatever is passed, in time and memory linear in what the bounds allow: JSON within the bounds, or a refusal
with so much of it as the record can hold. Nothing here raises what a caller would have to catch.

Bounds, over all arguments of one call together: `MAX_BYTES` of canonical JSON, in which each value counts as eight
bytes besides its text (so about a million values), and `MAX_DEPTH` levels of nesting. They are checked *before*
anything is copied: a list that holds another twice, forty levels deep, is short in memory and endless as JSON.

Accepted: what the code of a value does when it is asked (`model_dump`, an attribute) is its own.
"""

from __future__ import annotations

import reprlib
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runtime.canonical import Json, canonical, parse
from runtime.foreign import message_of, repr_of, well_formed
from runtime.request import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_BYTES: Final = 8 << 20
"""Most bytes of canonical JSON that the arguments of one call may have."""
MAX_DEPTH: Final = 64
"""Deepest nesting of objects and arrays below one argument."""
SALVAGED_BYTES: Final = 32 << 10
"""Most that is recorded of arguments that are refused."""
_VALUE_BYTES: Final = 8
_SHOWN_CHARS: Final = 1024
_SHOWN_NAME: Final = 128
_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_EXACT: Final = _LEAVES - {float}
"""Types whose values are JSON as they are."""
_SEQUENCES: Final[tuple[Any, ...]] = (list, tuple, set, frozenset)
_KNOWN: Final = _LEAVES | {dict, list, tuple, set, frozenset}


class _TooLarge(ValueError):  # noqa: N818 - never leaves this module
    """The arguments are beyond the bounds."""


def plain_arguments(named: Mapping[str, Any]) -> tuple[dict[str, Json], str]:
    """Return arguments as they will be read back from the record (canonical JSON has no 5.0, only 5), and their text.

    Raises:
        RequestInvalid: `args_invalid`; they are no JSON, or too large; names the argument where one alone is wrong.
    """
    try:
        return _plain(dict(named))
    except Exception as exc:  # a guard point: the values' own methods run here, and may raise anything
        raise RequestInvalid("args_invalid", _why(named, exc)) from exc


def _plain(named: dict[str, Any], most: int = MAX_BYTES) -> tuple[dict[str, Json], str]:
    if _EXACT.issuperset(map(type, named.values())):  # they read back as they are; weighed as `_Scale` does
        weight = sum(map(len, named)) + _VALUE_BYTES * len(named)
        for value in named.values():
            if type(value) is str:
                weight += len(value)
        if weight > most:
            raise _too_large()
        return named, _bounded_text(named, most)
    scale = _Scale(most)
    scale.weigh(named)
    # Bytes are left as they are, to be refused: as base64 the tool would get something else than it was given.
    # Sets are sorted: one set is one array, in every process.
    plain = msgspec.to_builtins(
        named, builtin_types=(bytes, bytearray, memoryview), enc_hook=scale.form, order="deterministic"
    )
    if scale.has_forms:
        _Scale(most).weigh(plain)  # for the depth of forms within forms
    text = _bounded_text(plain, most)
    return parse(text), text  # type: ignore[return-value]  # an object, as it was written


def _bounded_text(plain: dict[str, Json], most: int) -> str:
    text = canonical(plain)
    if len(text) > most:  # escapes may take six bytes a character
        raise _too_large()
    return text


def _why(named: Mapping[str, Any], error: Exception) -> str:
    if isinstance(error, _TooLarge):
        return str(error)
    for name, value in named.items():
        try:
            _plain({name: value})
        except Exception as exc:  # noqa: BLE001 - as above
            return f"argument `{_short(name)}` is not JSON: {message_of(exc)}"
    return f"the arguments together are not JSON: {message_of(error)}"


def _too_large() -> _TooLarge:
    return _TooLarge(
        f"the arguments are larger than {MAX_BYTES >> 20} MiB of JSON (a value counts as {_VALUE_BYTES} bytes "
        "besides its text); pass a reference to the data instead"
    )


class _Scale:
    """Weighs values against the bounds; refuses as soon as that is certain."""

    def __init__(self, most: int) -> None:
        """Start with `most` bytes of room."""
        self._room = most
        self.has_forms = False

    def form(self, value: Any) -> Any:
        """Return the JSON form of a value that has to be asked for it, weighed before it is made JSON in turn."""
        self.has_forms = True
        form = json_form(value)
        self.weigh({"": form})
        return form

    def weigh(self, named: Mapping[Any, Any]) -> None:
        """Take the weight of named values from the room there is.

        Raises:
            _TooLarge: there is not enough, or they are nested too deep.
        """
        room = self._room - sum(map(len, named))
        path = [iter(named.values())]  # only one branch at a time is held
        while path:
            for value in path[-1]:
                room -= _VALUE_BYTES
                kind = type(value)
                if kind is str:
                    room -= len(value)
                elif kind not in _LEAVES:
                    inside, text = _inside(value)
                    room -= text
                    if inside is not None:
                        path.append(iter(inside))
                        break
            else:
                path.pop()
            if room < 0:
                raise _too_large()
            if len(path) > MAX_DEPTH + 1:
                raise _TooLarge(f"the arguments are nested deeper than {MAX_DEPTH} levels; pass flatter ones")
        self._room = room


def _inside(value: Any) -> tuple[Iterable[Any] | None, int]:
    """Values within a value and the length of its own text; None: it is no container that we know.

    By the types' own methods: those of a subclass may say anything, and what becomes JSON does not ask them.
    """
    if isinstance(value, dict):
        return dict.values(value), sum(len(key) for key in dict.keys(value) if isinstance(key, str))
    for kind in _SEQUENCES:
        if isinstance(value, kind):
            return kind.__iter__(value), 0
    if isinstance(value, str | bytes | bytearray):
        return (), len(value)
    fields = getattr(type(value), "__struct_fields__", None) or getattr(
        type(value), "__dataclass_fields__", None
    )
    if fields:
        return [getattr(value, name, None) for name in fields], 0
    return None, 0


def json_form(value: Any) -> Any:
    """Return Pydantic models and enums as JSON; anything else has none.

    Raises:
        TypeError: it has none.
    """
    if isinstance(value, Enum):
        return value.value
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def salvaged(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Json]:
    """Return what can be recorded of arguments that are refused: JSON as it is, anything else as a bounded text.

    At most about `SALVAGED_BYTES`; what is left out is counted under `…`.
    """
    kept: dict[str, Json] = {}
    room = SALVAGED_BYTES
    given = [("*args", list(args))] if args else []
    for number, (name, value) in enumerate([*given, *kwargs.items()]):
        shown = _recordable(value, min(room, SALVAGED_BYTES // 4))
        room -= len(canonical(shown)) + _SHOWN_NAME
        if room < 0:
            return kept | {"…": {"left_out": len(given) + len(kwargs) - number}}
        kept[_short(name)] = shown
    try:
        canonical(dict(kept))
    except ValueError:  # floats beside integers beyond 2**53
        return {name: {"repr": repr_of(value)[:_SHOWN_CHARS]} for name, value in kept.items()}
    return kept


def _recordable(value: Any, room: int) -> Json:
    try:
        return _plain({"": value}, room)[0][""]
    except Exception:  # noqa: BLE001, S110 - a guard point, as above; then it is shown as text
        pass
    return {"repr": shown(value)}


class _Bounded(reprlib.Repr):
    """`repr` of the first few members of a few levels, and of nothing that might write out its members itself."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _SHOWN_CHARS // 4

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 - as `reprlib` calls it
        # A container that is a subclass of one, a dataclass, or something that only calls itself one.
        plain = _inside(x)[0] is None and not hasattr(type(x), "__iter__")
        return repr_of(x)[:_SHOWN_CHARS] if plain else f"<{type(x).__name__}>"

    def repr1(self, x: Any, level: int) -> str:
        # By the type itself: `reprlib` goes by its name, which anybody can give to anything.
        return super().repr1(x, level) if type(x) in _KNOWN else self.repr_instance(x, level)

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(x[: self.maxstring + 1], level)

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 8 * _SHOWN_CHARS:  # digits take quadratic time, and more than 4,300 are refused
            return f"<int of {x.bit_length()} bits>"
        return super().repr_int(x, level)


_bounded = _Bounded()


def shown(value: object) -> str:
    """Return a bounded text of any value, in bounded time, whatever its own methods do."""
    try:
        return well_formed(_bounded.repr(value))[:_SHOWN_CHARS]
    except Exception as exc:  # noqa: BLE001 - a guard point: the methods are not ours
        return f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"


def _short(name: str) -> str:
    """A name as text that can be recorded: a subclass of `str` may say anything of itself."""
    return str.__str__(name)[:_SHOWN_NAME].encode(errors="replace").decode()
