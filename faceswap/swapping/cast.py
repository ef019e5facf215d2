"""Several people in one pass: the cast file.

A cast file is TOML with one ``[[swap]]`` table per person. ``who`` is a photo of the person or a
list of photos. ``model`` is the folder or the file of the model to swap with; it defaults to the
model that is passed to convert, or else to the newest in ``models``. ``to`` is the identity whose
face is pasted; it defaults to "b". Relative paths start at the folder of the cast file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from faceswap.config import clipped, is_name, read_tables, refuse_unknown
from faceswap.errors import SettingsError
from faceswap.types import Identity

KEYS = ("who", "model", "to")


@dataclass(frozen=True, slots=True)
class CastEntry:
    """One ``[[swap]]`` table of a cast file.

    Attributes:
        who: Photos of the person whose face is replaced.
        model: The folder or the file of the model to swap with; None for the model passed to
            convert, or else the newest in ``models``.
        to: The identity of that model whose face is pasted.
    """

    who: tuple[Path, ...]
    model: Path | None
    to: Identity


def read_cast(path: Path) -> list[CastEntry]:
    """Read the targets of a cast file.

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If the file is not TOML, has no [[swap]] table, or contains a key or a value
            that is not allowed.
    """
    tables = read_tables(path, "cast file", "swap")
    if not tables:
        raise SettingsError(f"the cast file {path} must consist of [[swap]] tables")
    return [_entry(table, path, number) for number, table in enumerate(tables, start=1)]


def _entry(table: Any, path: Path, number: int) -> CastEntry:
    at = where(path, number)
    if not isinstance(table, dict):
        raise SettingsError(f"{at}: must be a [[swap]] table, not {clipped(repr(table))}")
    refuse_unknown(table, KEYS, at)
    who, model, to = table.get("who"), table.get("model"), table.get("to", "b")
    photos = [who] if isinstance(who, str) else who
    if not isinstance(photos, list) or not photos or not all(map(is_name, photos)):
        raise SettingsError(
            f"{at}: who must be a photo or a list of photos, not {clipped(repr(who))}"
        )
    if model is not None and not is_name(model):
        raise SettingsError(
            f"{at}: model must be a model's folder or file, not {clipped(repr(model))}"
        )
    if to not in get_args(Identity):
        raise SettingsError(f'{at}: to must be "a" or "b", not {clipped(repr(to))}')
    folder = path.parent
    return CastEntry(
        tuple(folder / photo for photo in photos), folder / model if model else None, to
    )


def where(path: Path, number: int) -> str:
    """Return how messages name a table of a cast file, counted from 1."""
    return f"{path}, swap {number}"
