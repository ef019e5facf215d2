"""Command-line options, built from the settings classes and listed under headings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click

from faceswap.config import (
    IDENTITIES,
    LANDMARKS_VARIABLE,
    OUTPUT,
    Option,
    Settings,
    field_options,
    field_types,
    read_json,
    read_toml,
)
from faceswap.errors import InputError, SettingsError
from faceswap.registry import Seam

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Settings)

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # generic only in newer releases of click
    _ParamType = click.ParamType

PATH = click.Path(path_type=Path)
FLAGS = {  # field -> flag, where the flag is a Python keyword or is clearer than the field's name
    "exclude": "--not",
    "all_faces": "--all",
    "identity_strength": "--likeness",
}
VARIABLES = {"landmarks": LANDMARKS_VARIABLE}  # environment variables that apply without the flag
GENERAL = "General"


class GroupedOption(click.Option):
    """An option that is listed under a heading in ``--help``.

    Args:
        group: The heading.
    """

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists options under headings instead of in one list."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, in the order of their first options; General comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                group = getattr(parameter, "group", "") or GENERAL
                groups.setdefault(group, []).append(record)
        general = groups.pop(GENERAL, [])
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)
        if general:
            with formatter.section(GENERAL if groups else "Options"):
                formatter.write_dl(general)


class SeamChoice(_ParamType):
    """A parameter type that accepts the name of a built-in or of an installed plug-in.

    ``--help`` lists only the built-ins.
    """

    name = "name"

    def __init__(self, seam: Seam) -> None:
        self.seam = seam

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Format the built-ins as click formats a choice."""
        return f"[{'|'.join(self.seam.built_in)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reject an unknown name; click adds the option's name to the message."""
        if value in self.seam or value in self.seam.names():
            return value
        known = ", ".join(map(repr, self.seam.names()))
        return self.fail(f"{value!r} is not one of {known}.", param, ctx)


def identity_option(identity: str) -> Callable[[F], F]:
    """Add ``--a`` or ``--b`` to a command."""
    return click.option(
        f"--{identity}", required=True, cls=GroupedOption, group=IDENTITIES,
        help=f"Identity {identity}: a faceset folder, or a name for data/<name>/faces.",
    )  # fmt: skip


redo_option = click.option(
    "--redo", metavar="FRAMES", cls=GroupedOption, group=OUTPUT,
    help='Render only these frames of a finished output again, such as "120-140,355", with the '
    "settings and the model of its conversion or with those stated.",
)  # fmt: skip


def settings_options(settings: type[Settings]) -> Callable[[F], F]:
    """Add one option per field of a settings class, and ``--config``, to a command."""

    def decorate(command: F) -> F:
        command = click.option(
            "--config", "config_file", type=PATH, cls=GroupedOption,
            help="JSON or TOML file with settings; flags override it.",
        )(command)  # fmt: skip
        ordered = sorted(
            dataclasses.fields(settings),  # type: ignore[arg-type]
            key=lambda field: _heading_rank(settings, field.name),
        )
        for field in reversed(ordered):  # decorators apply from the bottom up
            command = _option(settings, field)(command)
        return command

    return decorate


def _heading_rank(settings: type[Settings], name: str) -> int:
    """Return the index of a field's heading among the headings of its class."""
    options = field_options(settings)
    headings = list(dict.fromkeys(option.group for option in options.values()))
    return headings.index(options[name].group)


def _option(settings: type[Settings], field: "dataclasses.Field[Any]") -> Callable[[F], F]:
    hint = field_types(settings)[field.name]
    option = field_options(settings)[field.name]
    flag = FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
    common: dict[str, Any] = {
        "cls": GroupedOption, "group": option.group, "default": None,
        "help": _help_text(option, field.default),
        "envvar": VARIABLES.get(field.name),
    }  # fmt: skip
    if hint is bool:
        flag = f"{flag}/--no-{flag[2:]}" if field.default else flag
        return click.option(flag, field.name, is_flag=True, **common)
    if get_origin(hint) is tuple:
        return click.option(
            flag, field.name, **common | {"multiple": True, "callback": _none_if_unused}
        )
    if option.seam:
        kind: Any = SeamChoice(option.seam)
    elif get_origin(hint) is Literal:
        kind = click.Choice(get_args(hint))
    else:
        kind = next((t for t in get_args(hint) if t is not type(None)), hint)
    return click.option(flag, field.name, type=kind, **common)


def _help_text(option: Option, default: Any) -> str:
    if default is None or default == () or isinstance(default, bool):
        return option.help
    return f"{option.help}  [default: {default}]"


def _none_if_unused(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:
    """Return None for an unused repeatable option, so that it does not override the file."""
    return values or None


def resolve(settings: type[S], command: str, config_file: Path | None, flags: dict[str, Any]) -> S:
    """Build settings from the defaults, which the file overrides, which the flags override.

    See :func:`given` for the arguments and the errors.
    """
    return settings.from_dict(given(settings, command, config_file, flags))


def given(
    settings: type[S], command: str, config_file: Path | None, flags: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings that the file or the flags state; flags override the file.

    Args:
        settings: The settings class.
        command: The command's name. If it is a key of the file, its value holds the settings;
            otherwise the whole file does.
        config_file: A JSON or TOML file, or None.
        flags: Values by field name; None for a flag that was not given.

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If the file is neither a JSON object nor TOML, a setting is unknown, or its
            value is not allowed.
    """
    values: dict[str, Any] = {}
    if config_file:
        try:
            text = config_file.read_text(encoding="utf-8")
            values = read_toml(text) if config_file.suffix == ".toml" else read_json(text)
            values = values.get(command, values)
            if not isinstance(values, dict):
                raise SettingsError(f'"{command}" must be a JSON object of settings')
            settings.from_dict(values)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{config_file} cannot be read: {error}") from error
        except SettingsError as error:
            raise SettingsError(f"{config_file}: {error}") from error
    values |= {name: value for name, value in flags.items() if value is not None}
    return values
