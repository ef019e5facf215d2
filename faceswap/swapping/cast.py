"""Swap several people in one pass: the cast file, and the swapper that runs several models.

A cast file is TOML with one ``[[swap]]`` table per person. ``who`` is a photo of the person or a
list of photos. ``model`` is the folder or the file of the model to swap with; it defaults to the
model that is passed to convert, or else to the newest in ``models``. ``to`` is the identity whose
face is pasted; it defaults to "b". Relative paths start at the folder of the cast file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from faceswap.config import ConvertConfig, clipped, is_name, read_toml_file, refuse_unknown
from faceswap.errors import FaceswapError, SettingsError
from faceswap.facesets.recognition import embedding_of
from faceswap.models.modelfile import TrainedModel
from faceswap.swapping.compositor import Swap
from faceswap.swapping.swapper import EVERY, FaceSwapper, Finish, Found, Swapper
from faceswap.tracking.selection import References
from faceswap.types import Identity

KEYS = ("who", "model", "to")
Load = Callable[[Path, torch.device], TrainedModel]


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


class MultiSwapper:
    """Swaps each target with its own swapper.

    Args:
        swappers: The swapper of each target, at the index that :attr:`Face.target` holds. Targets
            may share a swapper. The settings of the swappers may differ only in ``to``.
    """

    def __init__(self, swappers: Sequence[FaceSwapper]) -> None:
        self.config = swappers[0].config
        self._by_target = tuple(swappers)

    def prepare(self, frames: list[Found]) -> list[list[Swap]]:
        """Return the swaps of each frame, in the order of its faces; see :meth:`decode`."""
        return self.decode(frames)()

    def decode(self, frames: list[Found], wanted: slice = EVERY) -> Finish:
        """Align and decode the faces of some frames; see :meth:`FaceSwapper.decode`.

        Each swapper gets all frames in one call, so that its network decodes many faces at once.

        Raises:
            AlignmentError: If all landmarks of a face coincide.
            DeviceError: If the device's memory is too small for one face.
        """
        finishes = [
            swapper.decode(
                [
                    (frame, [face for face in faces if self._by_target[face.target] is swapper])
                    for frame, faces in frames
                ],
                wanted,
            )
            for swapper in dict.fromkeys(self._by_target)
        ]
        return partial(_together, frames[wanted], finishes)


def _together(frames: list[Found], finishes: list[Finish]) -> list[list[Swap]]:
    """Return the swaps of several swappers in the order of the faces of each frame."""
    swapped = []
    for (_, faces), *results in zip(frames, *(finish() for finish in finishes), strict=True):
        swaps = {swap.aligned.face: swap for result in results for swap in result}
        swapped.append([swaps[face] for face in faces])
    return swapped


def read_cast(path: Path) -> list[CastEntry]:
    """Read the targets of a cast file.

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If the file is not TOML, has no [[swap]] table, or contains a key or a value
            that is not allowed.
    """
    content = read_toml_file(path, "cast file")
    tables = content.pop("swap", None)
    if content or not isinstance(tables, list) or not tables:
        surplus = f", not {clipped(', '.join(content))}" if content else ""
        raise SettingsError(f"the cast file {path} must consist of [[swap]] tables{surplus}")
    return [_entry(table, path, number) for number, table in enumerate(tables, start=1)]


def _entry(table: Any, path: Path, number: int) -> CastEntry:
    where = _where(path, number)
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: must be a [[swap]] table, not {clipped(repr(table))}")
    refuse_unknown(table, KEYS, where)
    who, model, to = table.get("who"), table.get("model"), table.get("to", "b")
    photos = [who] if isinstance(who, str) else who
    if not isinstance(photos, list) or not photos or not all(map(is_name, photos)):
        raise SettingsError(
            f"{where}: who must be a photo or a list of photos, not {clipped(repr(who))}"
        )
    if model is not None and not is_name(model):
        raise SettingsError(
            f"{where}: model must be a model's folder or file, not {clipped(repr(model))}"
        )
    if to not in get_args(Identity):
        raise SettingsError(f'{where}: to must be "a" or "b", not {clipped(repr(to))}')
    folder = path.parent
    return CastEntry(
        tuple(folder / photo for photo in photos), folder / model if model else None, to
    )


def _where(path: Path, number: int) -> str:
    return f"{path}, swap {number}"


def swappers_of(
    path: Path,
    entries: list[CastEntry],
    config: ConvertConfig,
    default: Path | None,
    device: torch.device,
    load: Load,
) -> list[Swapper]:
    """Build the swapper of each entry.

    Each model is loaded once, and entries with the same model and the same ``to`` share a swapper.

    Args:
        path: The cast file, for error messages.
        entries: The entries of the cast file.
        config: Settings.
        default: The model for entries that name none; None if all of them name one.
        device: Where the networks run.
        load: Loads a model.

    Raises:
        ModelError: If a model is missing or cannot be read.
        SettingsError: If the settings need a mask that a model does not decode, or the plug-in of a
            mask or a colour match cannot be imported.
    """
    loaded: dict[Path, TrainedModel] = {}
    built: dict[tuple[Path, Identity], Swapper] = {}
    swappers = []
    for number, entry in enumerate(entries, start=1):
        folder = entry.model or default
        assert folder is not None, "plan.assemble resolves the default model"
        resolved = folder.resolve()
        try:
            if resolved not in loaded:
                loaded[resolved] = load(folder, device)
            if (resolved, entry.to) not in built:
                settings = replace(config, cast=None, to=entry.to)
                built[resolved, entry.to] = Swapper(loaded[resolved], settings, device)
        except FaceswapError as error:
            raise type(error)(f"{_where(path, number)}: {error}") from error
        swappers.append(built[resolved, entry.to])
    return swappers


def references_of(path: Path, entries: list[CastEntry], landmarks: str) -> tuple[References, ...]:
    """Compute the face embeddings of the photos of each entry.

    Args:
        path: The cast file, for error messages.
        entries: The entries of the cast file.
        landmarks: The choice of landmark models.

    Raises:
        InputError: If a photo, the landmark model or the detector's files cannot be read.
        NoFacesError: If no face is found in a photo.
    """
    references = []
    for number, entry in enumerate(entries, start=1):
        try:
            references.append(tuple(embedding_of(photo, landmarks) for photo in entry.who))
        except FaceswapError as error:
            raise type(error)(f"{_where(path, number)}: {error}") from error
    return tuple(references)
