"""Command-line options, built from the settings classes."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from faceswap.config import LANDMARKS, Settings, field_help, field_types, read_json
from faceswap.errors import InputError, SettingsError

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Settings)


PATH = click.Path(path_type=Path)
# Not a setting that travels: which file it is matters only here, and every worker inherits it.
landmarks_option = click.option(
    "--landmarks", type=PATH, envvar=LANDMARKS, expose_value=False,
    callback=lambda _, __, path: _use(path),
    help="A landmark model of your own: a dlib shape predictor of the 68 iBUG points.",
)  # fmt: skip
FLAGS = {
    "exclude": "--not",
    "all_faces": "--all",
    "identity_strength": "--likeness",
}  # words that Python keeps for itself


def settings_options(settings: type[Settings]) -> Callable[[F], F]:
    """Give a command one option per field of a settings class, and ``--config``."""

    def decorate(command: F) -> F:
        for field in reversed(dataclasses.fields(settings)):  # type: ignore[arg-type]
            command = _option(settings, field)(command)
        return click.option(
            "--config", "config_file", type=PATH, help="JSON file of settings; flags win over it."
        )(command)

    return decorate


def _option(settings: type[Settings], field: "dataclasses.Field[Any]") -> Callable[[F], F]:
    hint = field_types(settings)[field.name]
    text = field_help(settings, field.name)
    flag = FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
    if hint is bool:
        flag = f"{flag}/--no-{flag[2:]}" if field.default else flag
        return click.option(flag, field.name, is_flag=True, default=None, help=text)
    if get_origin(hint) is tuple:
        return click.option(flag, field.name, multiple=True, callback=_given, help=text)
    if get_origin(hint) is Literal:
        kind: Any = click.Choice(get_args(hint))
    else:
        kind = next((t for t in get_args(hint) if t is not type(None)), hint)
    if field.default is not None:
        text += f"  [default: {field.default}]"
    return click.option(flag, field.name, type=kind, default=None, help=text)


def _given(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:
    """A repeatable option's values, or None if it was not used: the file's then count."""
    return values or None


def _use(landmarks: Path | None) -> None:
    """Have every process find landmarks with this file."""
    if landmarks:
        if not landmarks.is_file():
            raise InputError(f"the landmark model {landmarks} does not exist")
        os.environ[LANDMARKS] = str(landmarks.resolve())


def resolve(settings: type[S], command: str, config_file: Path | None, flags: dict[str, Any]) -> S:
    """Settings from defaults, then the file, then flags."""
    values: dict[str, Any] = {}
    if config_file:
        try:
            values = read_json(config_file.read_text(encoding="utf-8"))
            values = values.get(command, values)
            if not isinstance(values, dict):
                raise SettingsError(f'"{command}" must be an object of settings')
            settings.from_dict(values)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{config_file} cannot be read: {error}") from error
        except SettingsError as error:
            raise SettingsError(f"{config_file}: {error}") from error
    values |= {name: value for name, value in flags.items() if value is not None}
    return settings.from_dict(values)
