"""Settings by shot: the shots file.

A shots file is TOML with one ``[[shot]]`` table per shot. ``frames`` are ranges of frames in the
form of ``--frames``; the other keys are settings of the look. Frames outside all tables keep the
settings of the conversion. Where tables share frames, the later one decides.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faceswap.config import (
    LOOK,
    ConvertConfig,
    clipped,
    field_options,
    read_tables,
    refuse_unknown,
)
from faceswap.errors import SettingsError

# The settings that may differ between shots. Smoothing goes on across them.
SETTINGS = tuple(
    name
    for name, option in field_options(ConvertConfig).items()
    if option.group == LOOK and name not in ("smooth", "shots")
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One ``[[shot]]`` table of a shots file.

    Attributes:
        frames: Ranges of frames, such as "120-179,300-".
        settings: The settings that differ in them, by name.
    """

    frames: str
    settings: dict[str, Any]


def read_shots(path: Path, fixed: Collection[str] = ()) -> list[Shot]:
    """Read a shots file.

    Args:
        path: The file.
        fixed: Names of settings that no shot may change; what the file says of them is left out.

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If the file is not TOML, or contains a key or a value that is not allowed.
    """
    tables = read_tables(path, "shots file", "shot")
    shots = [_shot(table, f"{path}, shot {number}") for number, table in enumerate(tables, start=1)]
    return [
        replace(shot, settings={k: v for k, v in shot.settings.items() if k not in fixed})
        for shot in shots
    ]


def _shot(table: Any, where: str) -> Shot:
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: must be a [[shot]] table, not {clipped(repr(table))}")
    refuse_unknown(table, ("frames", *SETTINGS), where)
    settings = dict(table)
    frames = settings.pop("frames", None)
    if not isinstance(frames, str):
        raise SettingsError(
            f'{where}: frames must be text such as "120-179", not {clipped(repr(frames))}'
        )
    try:
        ConvertConfig(frames=frames, **settings)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    return Shot(frames, settings)
