"""Swap faces in frames with one model: align, encode, decode, match colour, paste."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby

import cv2
import numpy as np
import torch

from faceswap.config import ConvertConfig
from faceswap.errors import DeviceError, SettingsError
from faceswap.faces.geometry import (
    AlignedFace,
    Face,
    align_face,
    compose,
    invert,
    resized,
    scale_of,
    shifted,
    warp_image_at,
    warp_mask,
)
from faceswap.faces.masks import DECODED_MASKS, MASKS, soften
from faceswap.faces.smoothing import TrackValues, smooth_over_time
from faceswap.media.frame import Frame
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import network_crop, output_to_crop, shift_color
from faceswap.swapping import detail
from faceswap.swapping.compositor import COLORS, Swap, box_in_frame, layer, paste
from faceswap.swapping.label import Label
from faceswap.types import Identity, Image, Mask

log = logging.getLogger(__name__)


FaceDecoder = Callable[[list[Image]], list[Image]]

Prepared = tuple[Frame, list[Swap]]

FRAMES_PER_PASS = 8  # frames whose faces go through the network together
MAX_FACES_PER_PASS = 32  # faces at most that go through it together
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
        decoder: FaceDecoder | None = None,
    ) -> None:
        if config.mask in DECODED_MASKS and not trained.network.config.mask_head:
            raise SettingsError(
                f"a model '{trained.network.config.name}' has no mask of its own; use --mask hull"
            )
        self.config = config
        self._decode_faces = decoder or self.decode_faces
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
        return (
            smooth_over_time(swaps, _measurements, _with_measurements)
            if self.config.smooth
            else swaps
        )

    def _prepare_all(self, found: Iterator[tuple[Frame, list[Face]]]) -> Iterator[Prepared]:
        for _, group in groupby(found, lambda item: item[0].index // FRAMES_PER_PASS):
            batch = list(group)  # always the same frames together, wherever a video begins
            for (frame, _), swaps in zip(batch, self.prepare(batch), strict=True):
                yield frame, swaps

    def paste(self, frame: Frame, swaps: list[Swap]) -> Frame:
        """Put prepared swaps into their frame, in the colours that were measured, and the label."""
        for swap in swaps:
            frame = paste(frame, self.matched(swap, frame.index), self.config.blend)
        return self._label.on(frame) if self._label else frame

    def matte(self, frame: Frame, swaps: list[Swap]) -> Frame:
        """Where prepared swaps count in their frame: white on black, as a frame of its own."""
        matte = frame.repainted(np.zeros((*frame.shape, 3), np.uint8))
        for swap in swaps:
            matte = paste(matte, replace(swap, image=np.full_like(swap.image, 255)))
        return matte

    def layer(self, frame: Frame, swaps: list[Swap]) -> Frame:
        """Prepared swaps alone, on transparency, as a frame of its own."""
        return layer(frame, [self.matched(swap, frame.index) for swap in swaps])

    def matched(self, swap: Swap, index: int = 0) -> Swap:
        """A prepared swap in the colours, and then the detail, that were measured.

        Grain comes last: a colour match would stretch it.

        Args:
            swap: What :meth:`prepare` yielded.
            index: The frame's; grain differs from frame to frame.
        """
        image = swap.image
        if swap.color is not None:
            image = COLORS[self.config.color].apply(image, swap.color)
        if swap.detail is not None:
            generator = np.random.default_rng((index, swap.aligned.face.track + 1))
            image = detail.apply(image, swap.detail, generator)
        return replace(swap, image=image, color=None, detail=None)

    def prepare(self, frames: list[tuple[Frame, list[Face]]]) -> Iterator[list[Swap]]:
        """Yield what to paste into each frame; all in one pass of the network.

        What matches colours and detail is measured, but not yet applied: see :meth:`matched`.
        Tracks are followed from each frame to the next.
        """
        aligned = [
            [align_face(frame, face, self._size, self._model.coverage) for face in faces]
            for frame, faces in frames
        ]
        together = [face for faces in aligned for face in faces]
        crops = [face.image for face in together]
        crowds = [
            crops[at : at + MAX_FACES_PER_PASS] for at in range(0, len(crops), MAX_FACES_PER_PASS)
        ]
        decoded = chain.from_iterable(map(self._fitting, crowds))
        for at, faces in enumerate(aligned):
            swaps = [self._finish(face, next(decoded)) for face in faces]
            if self.config.match_detail:
                moments = [faces for _, faces in frames[max(at - 1, 0) : at + 2]]
                swaps = [self._with_detail(frames[at][0], swap, moments) for swap in swaps]
            yield swaps

    def _with_detail(self, frame: Frame, swap: Swap, moments: list[list[Face]]) -> Swap:
        """A swap moved onto the frame's own pixels, where grain is one pixel wide, and measured."""
        box = box_in_frame(swap, *frame.shape)
        if box is None:
            return replace(swap, detail=detail.NEUTRAL)
        left, top, right, bottom = box
        to_box = shifted(invert(swap.aligned.matrix), left, top)
        reference = frame.crop(box)
        face = warp_image_at(swap.image, to_box, right - left, bottom - top)
        mask = warp_mask(swap.mask, to_box, right - left, bottom - top)
        aligned = replace(swap.aligned, image=reference, matrix=shifted(np.eye(2, 3), left, top))
        swap = replace(swap, aligned=aligned, image=face, mask=mask)
        colored = self.matched(swap).image
        moved = detail.displacement(swap.aligned.face, moments)
        return replace(swap, detail=detail.measure(colored, reference, mask, moved))

    def _fitting(self, crops: list[Image]) -> list[Image]:
        """Painted faces: in two halves, and so on, where the memory does not suffice for all."""
        try:
            return self._decode_faces(crops)
        except torch.OutOfMemoryError as error:
            if len(crops) == 1:
                raise DeviceError(
                    f"the memory of {self._device} does not suffice for one face: stop what else "
                    "uses it, or use --device cpu"
                ) from error
        half = len(crops) // 2
        log.warning("the memory of %s does not suffice for %d faces at once: going on with %d",
                    self._device, len(crops), half)  # fmt: skip
        return self._fitting(crops[:half]) + self._fitting(crops[half:])

    @torch.no_grad()
    def decode_faces(self, crops: list[Image]) -> list[Image]:
        """The other identity's faces for aligned crops (S, S, 3), each (size, size, 3 or 4).

        The fourth channel is the model's mask, 0 to 255.
        """
        side = self._model.crop_size
        batch = np.stack([_shrink(crop, side) for crop in crops]).transpose(0, 3, 1, 2)
        network_input = network_crop(torch.from_numpy(np.ascontiguousarray(batch)).to(self._device),
                            self._model)  # fmt: skip
        if self._to == "b":  # a's footage: training shifted a's colours towards b's
            network_input = shift_color(network_input, self._shift)
        # float16 has steps finer than a level of 255; bfloat16, quick on some CPUs, has not
        with torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            faces = self._network.swap(
                network_input, self._to, self.config.identity_strength
            ).float()
        if self._to == "a":
            red, green, blue = self._shift
            faces = shift_color(faces, (-red, -green, -blue))
        decoded = faces.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return list(decoded)

    def _finish(self, aligned: AlignedFace, decoded: Image) -> Swap:
        """Enlarge a painted face to the crop, measure its colour match and give it its mask."""
        matrix = output_to_crop(self._model, self._size)
        pixel = scale_of(matrix) / scale_of(aligned.matrix)  # frame pixels a network pixel becomes
        if pixel < 1:  # a small face: average now, or pasting would skip pixels and flicker
            side = max(round(pixel * self._model.size), 1)
            decoded = _shrink(decoded, side)
            factor = side / self._model.size
            matrix = compose(matrix, invert(resized(np.eye(2, 3), factor)))
        enlarged = warp_image_at(decoded, matrix, self._size, self._size)
        own_mask: Mask | None = None
        face = np.ascontiguousarray(enlarged[..., :3])
        if enlarged.shape[2] == 4:
            own_mask = np.asarray(enlarged[..., 3] / 255, np.float32)
        mask = MASKS[self.config.mask](aligned, self._model.view, own_mask)
        color = COLORS[self.config.color].measure(face, aligned.image, mask)
        soft = soften(mask, self._model.coverage, self.config.erosion, self.config.feather)
        return Swap(aligned, face, soft, color)


def _measurements(item: Prepared) -> TrackValues:
    """All that was measured on each track's face, end to end."""
    return {
        s.aligned.face.track: np.concatenate(
            [n.ravel() for n in (s.color, s.detail) if n is not None]
        )
        for s in item[1]
        if s.color is not None
    }


def _with_measurements(item: Prepared, smoothed: TrackValues) -> Prepared:
    frame, swaps = item
    smoothed_swaps = []
    for swap in swaps:
        if swap.color is not None:
            numbers = smoothed[swap.aligned.face.track].astype(np.float64)
            color, rest = np.split(numbers, [swap.color.size])
            swap = replace(
                swap, color=color.reshape(swap.color.shape), detail=rest if len(rest) else None
            )
        smoothed_swaps.append(swap)
    return frame, smoothed_swaps


def _shrink(crop: Image, side: int) -> Image:
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
