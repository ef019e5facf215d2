"""Swap faces in frames with one model: align, encode, decode, match colour, paste."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import torch

from faceswap.aligner import align_face
from faceswap.augment import network_view, shift_color
from faceswap.compositor import COLORS, paste
from faceswap.config import ConvertConfig
from faceswap.errors import SettingsError
from faceswap.geometry import (
    compose,
    invert,
    output_to_crop,
    resized,
    scale_of,
    warp_image_at,
)
from faceswap.label import Label
from faceswap.masks import MASKS, PAINTED, soften
from faceswap.model import Identity, TrainedModel
from faceswap.smoothing import Values, steadied
from faceswap.types import AlignedFace, Face, Frame, Image, Mask, Swap

Painter = Callable[[list[Image]], list[Image]]

Prepared = tuple[Frame, list[Swap]]

BATCH = 8  # frames whose faces go through the network together
PASTE_SIZE = 256  # least side of the crop that is pasted: the enlarged face and its mask


class Swapper:
    """Swaps faces with one model and one set of settings.

    Args:
        trained: The model.
        config: Settings.
        device: Where the network runs.
        painter: What paints the new faces instead of the network: aligned crops (S, S, 3) to faces
            (size, size, 3). Evaluation compares the network with such.

    Raises:
        SettingsError: If the mask wanted is one that the model does not paint, or the label cannot
            be drawn.
    """

    def __init__(
        self,
        trained: TrainedModel,
        config: ConvertConfig,
        device: torch.device,
        painter: Painter | None = None,
    ) -> None:
        if config.mask in PAINTED and not trained.network.config.mask_head:
            raise SettingsError(
                f"a model '{trained.network.config.name}' has no mask of its own; use --mask hull"
            )
        self.config = config
        self._painter = painter or self.paint
        self._label = (
            Label(config.label, config.label_position, config.label_size)
            if config.label is not None
            else None
        )
        self._network = trained.network.to(device)
        self._model = trained.network.config
        self._device = device
        self._to: Identity = config.to
        self._shift = trained.color_shift
        self._size = max(PASTE_SIZE, self._model.crop_size)

    def prepare_video(self, found: Iterable[tuple[Frame, list[Face]]]) -> Iterator[Prepared]:
        """Yield each frame of a video with what to paste into it, its colours steadied.

        Args:
            found: Frames with their faces and these faces' tracks.
        """
        swaps = self._prepare_all(iter(found))
        return steadied(swaps, _colors, _with_colors) if self.config.smooth else swaps

    def _prepare_all(self, found: Iterator[tuple[Frame, list[Face]]]) -> Iterator[Prepared]:
        while batch := list(islice(found, BATCH)):
            for (frame, _), swaps in zip(batch, self.prepare(batch), strict=True):
                yield frame, swaps

    def paste(self, frame: Frame, swaps: list[Swap]) -> Frame:
        """Put prepared swaps into their frame, in the colours that were measured, and the label."""
        for swap in swaps:
            frame = paste(frame, self.matched(swap), self.config.blend)
        return self._label.on(frame) if self._label else frame

    def matte(self, frame: Frame, swaps: list[Swap]) -> Frame:
        """Where prepared swaps count in their frame: white on black, as a frame of its own."""
        matte = replace(frame, image=np.zeros_like(frame.image))
        for swap in swaps:
            matte = paste(matte, replace(swap, image=np.full_like(swap.image, 255)))
        return replace(matte, changed=None)  # all of it differs from the frame that was read

    def matched(self, swap: Swap) -> Swap:
        """A prepared swap in the colours that were measured."""
        if swap.color is None:
            return swap
        image = COLORS[self.config.color].apply(swap.image, swap.color)
        return replace(swap, image=image, color=None)

    def prepare(self, frames: list[tuple[Frame, list[Face]]]) -> Iterator[list[Swap]]:
        """Yield what to paste into each frame; all in one pass of the network.

        The colour match is measured, but not yet applied: see :meth:`matched`.
        """
        aligned = [
            [align_face(frame, face, self._size, self._model.coverage) for face in faces]
            for frame, faces in frames
        ]
        together = [face for faces in aligned for face in faces]
        painted = iter(self._painter([face.image for face in together]) if together else [])
        for faces in aligned:
            yield [self._finish(face, next(painted)) for face in faces]

    @torch.no_grad()
    def paint(self, crops: list[Image]) -> list[Image]:
        """The other identity's faces for aligned crops (S, S, 3), each (size, size, 3 or 4).

        The fourth channel is the model's mask, 0 to 255.
        """
        side = self._model.crop_size
        batch = np.stack([_shrink(crop, side) for crop in crops]).transpose(0, 3, 1, 2)
        view = network_view(torch.from_numpy(np.ascontiguousarray(batch)).to(self._device),
                            self._model)  # fmt: skip
        if self._to == "b":  # a's footage: training shifted a's colours towards b's
            faces = self._network.swap(shift_color(view, self._shift), "b", self.config.likeness)
        else:
            red, green, blue = self._shift
            faces = self._network.swap(view, "a", self.config.likeness)
            faces = shift_color(faces, (-red, -green, -blue))
        painted = faces.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return list(painted)

    def _finish(self, aligned: AlignedFace, painted: Image) -> Swap:
        """Enlarge a painted face to the crop, measure its colour match and give it its mask."""
        matrix = output_to_crop(self._model, self._size)
        pixel = scale_of(matrix) / scale_of(aligned.matrix)  # frame pixels a network pixel becomes
        if pixel < 1:  # a small face: average now, or pasting would skip pixels and flicker
            side = max(round(pixel * self._model.size), 1)
            painted = _shrink(painted, side)
            factor = side / self._model.size
            matrix = compose(matrix, invert(resized(np.eye(2, 3), factor)))
        enlarged = warp_image_at(painted, matrix, self._size, self._size)
        own_mask: Mask | None = None
        face = np.ascontiguousarray(enlarged[..., :3])
        if enlarged.shape[2] == 4:
            own_mask = np.asarray(enlarged[..., 3] / 255, np.float32)
        mask = MASKS[self.config.mask](aligned, self._model.view, own_mask)
        color = COLORS[self.config.color].measure(face, aligned.image, mask)
        soft = soften(mask, self._model.coverage, self.config.erosion, self.config.feather)
        return Swap(aligned, face, soft, color)


def _colors(item: Prepared) -> Values:
    return {s.aligned.face.track: s.color for s in item[1] if s.color is not None}


def _with_colors(item: Prepared, steady: Values) -> Prepared:
    frame, swaps = item
    return frame, [replace(s, color=steady[s.aligned.face.track].astype(np.float64)) for s in swaps]


def _shrink(crop: Image, side: int) -> Image:
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
