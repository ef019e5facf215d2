"""Swap faces in frames with one model: align and decode them, and measure colour and detail."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from faceswap.arrays import Image, Mask
from faceswap.config import ConvertConfig
from faceswap.errors import NoFacesError, SettingsError
from faceswap.faces.detection import DetectorSpec
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
)
from faceswap.faces.masks import DECODED_MASKS, MASKS, SKIN_MASKS, soften
from faceswap.faces.parsing import SkinParser
from faceswap.faces.smoothing import TrackValues, smooth_over_time
from faceswap.media.frame import Frame
from faceswap.models.devices import resolve_device
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import output_to_crop
from faceswap.swapping import detail
from faceswap.swapping.compositor import COLORS, Swap, box_in_frame
from faceswap.swapping.painter import DecodeFaces, FaceDecoder, shrink
from faceswap.swapping.region import brow_cover, feathered, sticks_out, without_brows
from faceswap.swapping.render import matched, paste_swaps

Prepared = tuple[Frame, list[Swap]]

FRAMES_PER_PASS = 8  # frames whose faces go through the network together
SKIN_EVERY = 3  # frames of a track that share one look at its skin at least; it takes 0.1 s
FEATHER = 0.06  # width of the mask's edge, as a share of the face's square
SKIN_FEATHER = 0.04  # the least width of the skin mask's edge
PASTE_SIZE = 256  # minimum side in pixels of the crop that is pasted


class FaceSwapper(Protocol):
    """Turns the faces of frames into swaps, with one model or with one model per target."""

    config: ConvertConfig

    def prepare(self, frames: list[tuple[Frame, list[Face]]]) -> Iterator[list[Swap]]:
        """Yield the swaps of each frame, in the order of its faces.

        Raises:
            AlignmentError: If all landmarks of a face coincide.
            DeviceError: If the device's memory is too small for one face.
        """


class Swapper:
    """Swaps faces with one model and one set of settings.

    Args:
        trained: The model; see :func:`faceswap.load_model`.
        config: Settings.
        device: Where the network runs [default: the settings' device].
        decode: Decodes faces instead of the network. Evaluation passes its baselines here.

    Raises:
        SettingsError: If the settings need a mask that the model does not decode, or the plug-in of
            a mask or a colour match cannot be imported.
        DeviceError: If this machine does not have the settings' device.
    """

    def __init__(
        self,
        trained: TrainedModel,
        config: ConvertConfig | None = None,
        device: torch.device | None = None,
        decode: DecodeFaces | None = None,
    ) -> None:
        self.config = config or ConvertConfig()
        if self.config.mask in DECODED_MASKS and not trained.network.config.mask_head:
            raise SettingsError(
                f"model '{trained.network.config.name}' does not decode a mask; use --mask hull"
            )
        device = device or resolve_device(self.config.device)
        strength, limit = self.config.identity_strength, self.config.expression_range
        self._decode = decode or FaceDecoder(trained, self.config.to, strength, limit, device)
        self._mask = MASKS.resolve(self.config.mask)
        self._parser = SkinParser(SKIN_EVERY) if self.config.mask in SKIN_MASKS else None
        self._color = COLORS.resolve(self.config.color)
        self._model = trained.network.config
        self._size = max(PASTE_SIZE, self._model.crop_size)

    def swap(self, image: Image) -> Image:
        """Swap every face of an image in memory.

        The settings that select people or describe the output, such as ``who`` and ``label``, have
        no effect. The result carries no Content Credentials; :func:`faceswap.convert` writes files
        that do.

        Args:
            image: RGB uint8 (H, W, 3).

        Returns:
            A new image of the same shape.

        Raises:
            NoFacesError: If no face is detected.
            AlignmentError: If all landmarks of a face coincide.
            InputError: If the files of the detector or of the landmark model cannot be read.
            SettingsError: If the detector cannot be used with the landmark model, or the plug-in of
                the detector or the blend cannot be imported.
            DeviceError: If the device's memory is too small for one face.
        """
        spec = DetectorSpec(self.config.detector, self.config.landmarks).checked()
        faces = spec.detect(image, self.config.min_score)
        if not faces:
            raise NoFacesError("no face found in the image; use a sharper image or a larger face")
        frame = Frame(image, 0, Fraction(0), Path())
        (swaps,) = self.prepare([(frame, faces)])
        return paste_swaps(frame, swaps, self.config).image

    def prepare(self, frames: list[tuple[Frame, list[Face]]]) -> Iterator[list[Swap]]:
        """Yield the swaps of each frame, in the order of its faces.

        The network decodes the faces of all frames in common batches. Colour and, with
        ``match_detail``, detail are measured here and applied by :func:`render.matched`. Motion
        blur is measured along each track's movement between neighbouring frames of this call.

        Raises:
            AlignmentError: If all landmarks of a face coincide.
            DeviceError: If the device's memory is too small for one face.
        """
        aligned = [
            [align_face(frame, face, self._size, self._model.coverage) for face in faces]
            for frame, faces in frames
        ]
        with ThreadPoolExecutor(2) as background:
            # Looking for skin and decoding need each other's results only afterwards.
            looks = background.submit(self._look_at, [frame for frame, _ in frames], aligned)
            decoded = self._decode([face for faces in aligned for face in faces])
            aligned = looks.result()
            together = [face for faces in aligned for face in faces]
            finished = iter(list(background.map(self._finish, together, decoded)))
        for index, faces in enumerate(aligned):
            swaps = [*islice(finished, len(faces))]
            if self.config.match_detail:
                nearby = [faces for _, faces in frames[max(index - 1, 0) : index + 2]]
                swaps = [self._with_detail(frames[index][0], swap, nearby) for swap in swaps]
            yield swaps

    def _look_at(
        self, frames: list[Frame], aligned: list[list[AlignedFace]]
    ) -> list[list[AlignedFace]]:
        """Find the visible skin of the faces of each frame if the mask needs it."""
        if not self._parser:
            return aligned
        return [
            [self._parser.parse(frame, face) for face in faces]
            for frame, faces in zip(frames, aligned, strict=True)
        ]

    def _finish(self, aligned: AlignedFace, decoded: Image) -> Swap:
        """Enlarge a decoded face to the crop, measure its colour match and compute its mask."""
        matrix = output_to_crop(self._model, self._size)  # from pixels of the network's size
        factor = len(decoded) / self._model.size
        pixel = scale_of(matrix) / factor / scale_of(aligned.matrix)  # frame pixels per pixel
        if pixel < 1:  # average now, because pasting a small face would skip pixels and flicker
            decoded = shrink(decoded, max(round(pixel * len(decoded)), 1))
            factor = len(decoded) / self._model.size
        if factor != 1:
            matrix = compose(matrix, invert(resized(np.eye(2, 3), factor)))
        enlarged = warp_image_at(decoded, matrix, self._size, self._size)
        decoded_mask: Mask | None = None
        face = np.ascontiguousarray(enlarged[..., :3])
        if enlarged.shape[2] == 4:
            decoded_mask = np.asarray(enlarged[..., 3] / 255, np.float32)
        mask = self._mask(aligned, self._model.view, decoded_mask)
        erosion, feather = self.config.erosion, self.config.feather
        if not self._parser:
            color = self._color.measure(face, aligned.image, mask)
            feather = FEATHER if feather is None else feather
            return Swap(aligned, face, soften(mask, self._model.coverage, erosion, feather), color)
        cover = brow_cover(aligned)
        # A brow of the footage is no shadow on the new face's forehead.
        color = self._color.measure(face, without_brows(aligned.image, cover), mask)
        region = soften(mask, self._model.coverage, erosion, 0.0)
        narrow = SKIN_FEATHER if feather is None else feather
        soft = feathered(region, aligned, self._model.coverage, narrow)
        return Swap(aligned, face, soft, color, cover if sticks_out(cover, soft) else None)

    def _with_detail(self, frame: Frame, swap: Swap, nearby: list[list[Face]]) -> Swap:
        """Resample a swap to frame pixels, where grain is one pixel wide, and measure detail."""
        area = swap.mask if swap.cover is None else np.maximum(swap.mask, swap.cover.mask)
        box = box_in_frame(replace(swap, mask=area), *frame.shape)
        if box is None:
            return replace(swap, detail=detail.NEUTRAL)
        reference = frame.crop(box)
        matrix = shifted(np.eye(2, 3), box[0], box[1])
        swap = replace(swap, on_frame=replace(swap.aligned, image=reference, matrix=matrix))
        new = matched(swap, self.config)
        moved = detail.displacement(swap.aligned.face, nearby)
        return replace(swap, detail=detail.measure(new.image, reference, new.mask, moved))


def prepare_video(
    swapper: FaceSwapper, detected: Iterable[tuple[Frame, list[Face]]]
) -> Iterator[Prepared]:
    """Yield each frame of a video with its swaps.

    If the swapper's settings have ``smooth``, the measured colour and detail of each track are
    smoothed over time.

    Args:
        swapper: Swaps the faces.
        detected: Consecutive frames with their tracked faces.

    Raises:
        AlignmentError: If all landmarks of a face coincide.
        DeviceError: If the device's memory is too small for one face.
    """
    prepared = _prepare_in_passes(swapper, iter(detected))
    if not swapper.config.smooth:
        return prepared
    return smooth_over_time(prepared, _measurements, _with_measurements)


def _prepare_in_passes(
    swapper: FaceSwapper, detected: Iterator[tuple[Frame, list[Face]]]
) -> Iterator[Prepared]:
    # Group by index, so that a resumed run forms the same batches wherever it begins.
    for _, group in groupby(detected, lambda item: item[0].index // FRAMES_PER_PASS):
        batch = list(group)
        for (frame, _), swaps in zip(batch, swapper.prepare(batch), strict=True):
            yield frame, swaps


def _measurements(item: Prepared) -> TrackValues:
    """Return the measured colour and detail of each swap in one vector, by track."""
    return {
        swap.aligned.face.track: np.concatenate(
            [values.ravel() for values in (swap.color, swap.detail) if values is not None]
        )
        for swap in item[1]
        if swap.color is not None
    }


def _with_measurements(item: Prepared, smoothed: TrackValues) -> Prepared:
    """Replace each swap's measurements with the smoothed ones."""
    frame, swaps = item
    replaced = []
    for swap in swaps:
        if swap.color is not None:
            values = smoothed[swap.aligned.face.track].astype(np.float64)
            color, rest = np.split(values, [swap.color.size])
            swap = replace(
                swap, color=color.reshape(swap.color.shape), detail=rest if len(rest) else None
            )
        replaced.append(swap)
    return frame, replaced
