"""Swap with several swappers: one for each person of a cast, or one for each shot."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from faceswap.config import ConvertConfig, frame_ranges, is_inside
from faceswap.errors import FaceswapError
from faceswap.facesets.recognition import embedding_of
from faceswap.models.modelfile import TrainedModel
from faceswap.swapping.cast import CastEntry, where
from faceswap.swapping.compositor import Swap
from faceswap.swapping.shots import Shot
from faceswap.swapping.swapper import EVERY, FaceSwapper, Finish, Found, Swapper
from faceswap.tracking.selection import References
from faceswap.types import Identity

Load = Callable[[Path, torch.device], TrainedModel]


class MultiSwapper:
    """Swaps each target with its own swapper.

    Args:
        swappers: The swapper of each target, at the index that :attr:`Face.target` holds. Targets
            may share a swapper. The settings of the swappers may differ only in ``to``.
    """

    def __init__(self, swappers: Sequence[FaceSwapper]) -> None:
        self.config = swappers[0].config
        self._by_target = tuple(swappers)
        self.side = max(swapper.side for swapper in swappers)

    def config_at(self, index: int) -> ConvertConfig:  # noqa: ARG002 - a protocol's signature
        """Return the settings; they are the same for every frame."""
        return self.config

    def adjusted(self, config: ConvertConfig) -> "MultiSwapper":
        """Return a swapper with other settings; ``to`` stays that of each target."""
        new = {
            swapper: swapper.adjusted(replace(config, cast=None, to=swapper.config.to))
            for swapper in dict.fromkeys(self._by_target)
        }
        return MultiSwapper([new[swapper] for swapper in self._by_target])

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
            raise type(error)(f"{where(path, number)}: {error}") from error
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
            raise type(error)(f"{where(path, number)}: {error}") from error
    return tuple(references)


class ShotSwapper:
    """Swaps the faces of each shot with the settings of that shot.

    Args:
        usual: Swaps the faces outside all shots.
        shots: The shots; where they share frames, the later one decides.
        number_of: Returns the number by which ``Shot.frames`` names a frame, from its index.

    Raises:
        SettingsError: If the settings of a shot need a mask that a model does not decode, or the
            plug-in of a mask or a colour match cannot be imported.
    """

    def __init__(
        self, usual: FaceSwapper, shots: Sequence[Shot], number_of: Callable[[int], int]
    ) -> None:
        self.config, self.side = usual.config, usual.side
        self._shots, self._number_of = shots, number_of
        self._ranges = [frame_ranges(shot.frames) for shot in shots]
        # By the places of the shots that hold a frame.
        self._swappers: dict[tuple[int, ...], FaceSwapper] = {(): usual}
        for at in range(len(shots)):
            try:
                self._swapper_of((at,))
            except FaceswapError as error:
                raise type(error)(f"{self.config.shots}, shot {at + 1}: {error}") from error

    def config_at(self, index: int) -> ConvertConfig:
        """Return the settings of a frame; see :meth:`FaceSwapper.config_at`."""
        return self._swapper_of(self._places_of(index)).config

    def adjusted(self, config: ConvertConfig) -> "ShotSwapper":
        """Return a swapper with other settings outside the shots."""
        return ShotSwapper(self._swappers[()].adjusted(config), self._shots, self._number_of)

    def prepare(self, frames: list[Found]) -> list[list[Swap]]:
        """Return the swaps of each frame, in the order of its faces; see :meth:`decode`."""
        return self.decode(frames)()

    def decode(self, frames: list[Found], wanted: slice = EVERY) -> Finish:
        """Align and decode the faces of some frames; see :meth:`FaceSwapper.decode`.

        The swapper of each shot gets all frames, because the others are neighbours.

        Raises:
            AlignmentError: If all landmarks of a face coincide.
            DeviceError: If the device's memory is too small for one face.
        """
        finishes = []
        every = range(len(frames))[wanted]
        for places, group in groupby(every, lambda at: self._places_of(frames[at][0].index)):
            run = [*group]
            finishes.append(self._swapper_of(places).decode(frames, slice(run[0], run[-1] + 1)))
        return lambda: [swaps for finish in finishes for swaps in finish()]

    def _places_of(self, index: int) -> tuple[int, ...]:
        """Return the places of the shots that hold a frame."""
        number = self._number_of(index)
        return tuple(at for at, ranges in enumerate(self._ranges) if is_inside(number, ranges))

    def _swapper_of(self, places: tuple[int, ...]) -> FaceSwapper:
        if places not in self._swappers:
            settings: dict[str, Any] = {}
            for at in places:
                settings |= self._shots[at].settings
            self._swappers[places] = self._swappers[()].adjusted(replace(self.config, **settings))
        return self._swappers[places]
