"""What every settings class can do: JSON there and back, types and choices checked, help texts.

A field's annotation carries its help; the command line builds its options from these fields and
``config.json`` is written from them.
"""

import dataclasses
import json
import math
import sys
import typing
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from faceswap.errors import SettingsError

CLIPPED = 200  # characters of a strange value that a message repeats


class Settings:
    """JSON to and from a frozen dataclass of plain values, with types and choices checked."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(typing.cast(Any, self))
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from JSON values; lists become tuples, unknown names are refused.

        Raises:
            SettingsError: If a name is unknown or a value has the wrong type or range.
        """
        unknown = set(values) - set(field_types(cls))
        if unknown:
            raise SettingsError(
                f"unknown setting {clipped(', '.join(sorted(unknown)))} for {cls.__name__}"
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def check_types(self) -> None:
        """Refuse a value that its field's type does not allow.

        Raises:
            SettingsError: Naming the field, what it allows and what came.
        """
        for name, hint in field_types(type(self)).items():
            value = getattr(self, name)
            if not _allows(hint, value):
                raise SettingsError(f"{name} must be {_in_words(hint)}, not {clipped(repr(value))}")

    def check_range(self, name: str, low: float, high: float = math.inf) -> None:
        """Refuse a number outside [low, high]; None passes.

        Raises:
            SettingsError: Naming the field, its range and what came.
        """
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            limits = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            came = f"{value:g}" if isinstance(value, float) else clipped(str(value))
            raise SettingsError(f"{name} must be {limits}, not {came}")


def clipped(text: str) -> str:
    """A text that came from outside, short enough for a message."""
    return text if len(text) <= CLIPPED else f"{text[: CLIPPED - 3]}..."


def field_types(settings: type) -> dict[str, Any]:
    """Field names and bare types (without their help) of a settings class."""
    hints = get_type_hints(settings, include_extras=True)
    return {
        field.name: get_args(hints[field.name])[0]
        if get_origin(hints[field.name]) is Annotated
        else hints[field.name]
        for field in dataclasses.fields(settings)
    }


def field_help(settings: type, name: str) -> str:
    """The help text in a field's annotation."""
    return str(get_args(get_type_hints(settings, include_extras=True)[name])[1])


def _allows(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_allows(get_args(hint)[0], v) for v in value)
    if get_args(hint):  # a union such as int | None
        return any(_allows(part, value) for part in get_args(hint))
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return abs(value) <= sys.float_info.max  # neither infinite nor no number
    return type(value) is hint and not (hint is str and "\0" in value)  # which no file's name has


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    return str(getattr(hint, "__name__", hint))


def read_json(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        SettingsError: If the text is not JSON or not an object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"must be a JSON object, not {type(values).__name__}")
    return values
