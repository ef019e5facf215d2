"""Swap faces in frames with one model: align and decode them, and measure colour and detail."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch

from faceswap import parallel
from faceswap.arrays import FloatImage, Image, Mask
from faceswap.config import ConvertConfig
from faceswap.crops.masks import DECODED_MASKS, MASKS, SKIN_MASKS, smoothstep, soften
from faceswap.crops.parsing import SkinParser, usually_bare
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
    transform,
    warp_image_at,
)
from faceswap.media.frame import Frame, rounded
from faceswap.models.devices import resolve_device
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import output_to_crop
from faceswap.swapping import detail
from faceswap.swapping.compositor import COLORS, Swap, box_in_frame
from faceswap.swapping.explicit import refuse_explicit_image
from faceswap.swapping.painter import DecodeFaces, FaceDecoder, shrink
from faceswap.swapping.region import (
    Cover,
    bare,
    brow_cover,
    enlarged,
    feathered,
    halved,
    sticks_out,
    without_brows,
)
from faceswap.swapping.render import matched, paste_swaps
from faceswap.tracking.smoothing import TrackValues, smooth_over_time

Found = tuple[Frame, list[Face]]
Finish = Callable[[], list[list[Swap]]]  # see :meth:`FaceSwapper.decode`
Prepared = tuple[Frame, list[Swap]]
EVERY = slice(None)

DECODED = ("to", "identity_strength", "expression_range")  # settings of the decoder
FRAMES_PER_PASS = 8  # frames whose faces go through the network together
SKIN_EVERY = 3  # frames of a track that share one look at its skin at least; it takes 70 ms
COLOR_EVERY = 2  # frames of a video that share a measured colour match, which is smoothed anyway
DETAIL_EVERY = 8  # frames after which all of a face's detail, not only motion, is measured again
FEATHER = 0.06  # width of the mask's edge, as a share of the face's square
SKIN_FEATHER = 0.04  # the least width of the skin mask's edge
RARELY, OFTEN = 0.35, 0.7  # share of a person's photos without hair: not pasted, and pasted
PASTE_SIZE = 256  # minimum side in pixels of the crop that is pasted


class FaceSwapper(Protocol):
    """Turns the faces of frames into swaps, with one model or with one model per target."""

    config: ConvertConfig

    @property
    def side(self) -> int:
        """Width and height of its largest crops, in pixels."""

    def config_at(self, index: int) -> ConvertConfig:
        """Return the settings of a frame, which may differ between shots.

        Args:
            index: The frame's index.
        """

    def adjusted(self, config: ConvertConfig) -> Self:
        """Return a swapper with other settings, which shares with this one what it has seen.

        Raises:
            SettingsError: If the settings need a mask that a model does not decode, or the plug-in
                of a mask or a colour match cannot be imported.
        """

    def prepare(self, frames: list[Found]) -> list[list[Swap]]:
        """Return the swaps of each frame, in the order of its faces; see :meth:`decode`."""

    def decode(self, frames: list[Found], wanted: slice = EVERY) -> Finish:
        """Align and decode the faces of some frames.

        Args:
            frames: Frames with their faces, consecutive ones if the faces are tracked.
            wanted: The frames to swap faces in; the others only serve as neighbours.

        Returns:
            A function that returns the swaps of the wanted frames, in the order of their faces. It
            can run beside the next call.

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
        self._trained, self._model = trained, trained.network.config
        self._device = device or resolve_device(self.config.device)
        self.side = max(PASTE_SIZE, self._model.crop_size)
        self._parser = SkinParser(SKIN_EVERY)
        self._configure(decode)

    def adjusted(self, config: ConvertConfig) -> Self:
        """Return a swapper with the same model and other settings; see :class:`FaceSwapper`.

        Raises:
            SettingsError: As the class.
        """
        other = copy(self)
        other.config = config
        decodes_alike = all(getattr(config, name) == getattr(self.config, name) for name in DECODED)
        is_given = not isinstance(self._decode, FaceDecoder)
        other._configure(self._decode if decodes_alike or is_given else None)
        return other

    def _configure(self, decode: DecodeFaces | None) -> None:
        """Resolve the settings."""
        trained, config = self._trained, self.config
        if config.mask in DECODED_MASKS and not self._model.mask_head:
            raise SettingsError(
                f"model '{self._model.name}' does not decode a mask; use --mask hull"
            )
        strength, limit = config.identity_strength, config.expression_range
        self._decode = decode or FaceDecoder(trained, config.to, strength, limit, self._device)
        self._mask = MASKS.resolve(config.mask)
        self._needs_skin = config.mask in SKIN_MASKS
        self._color = COLORS.resolve(config.color)
        self._own: Mask | None = None  # where the new face is usually free of its own hair
        photos = trained.exemplars.get(config.to)
        if self._needs_skin and photos:
            usual = usually_bare(photos, self._model.view, self.side)
            self._own = smoothstep((usual - RARELY) / (OFTEN - RARELY))

    def config_at(self, index: int) -> ConvertConfig:  # noqa: ARG002 - a protocol's signature
        """Return the settings; they are the same for every frame."""
        return self.config

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
            ExplicitFootageError: If the image looks sexually explicit.
        """
        refuse_explicit_image(image)
        spec = DetectorSpec(self.config.detector, self.config.landmarks).checked()
        faces = spec.detect(image, self.config.min_score)
        if not faces:
            raise NoFacesError("no face found in the image; use a sharper image or a larger face")
        frame = Frame(image, 0, Fraction(0), Path())
        (swaps,) = self.prepare([(frame, faces)])
        return paste_swaps(frame, swaps, self.config).image

    def prepare(self, frames: list[Found]) -> list[list[Swap]]:
        """Return the swaps of each frame, in the order of its faces; see :meth:`decode`."""
        return self.decode(frames)()

    def decode(self, frames: list[Found], wanted: slice = EVERY) -> Finish:
        """Align and decode the faces of some frames, those of all frames in common batches.

        Faces of a track are decoded with latents that are averaged over neighbouring frames, unless
        the settings disable ``smooth``. Colour and, with ``match_detail``, detail are measured by
        the function that is returned, and applied by :func:`render.matched`. Motion blur is
        measured along each track's movement between neighbouring frames.

        Args:
            frames: See :meth:`FaceSwapper.decode`.
            wanted: See :meth:`FaceSwapper.decode`.

        Raises:
            AlignmentError: If all landmarks of a face coincide.
            DeviceError: If the device's memory is too small for one face.
        """
        moments = [
            [align_face(frame, face, self.side, self._model.coverage) for face in faces]
            for frame, faces in frames
        ]
        aligned = moments[wanted]
        with ThreadPoolExecutor(1) as background:
            # Looking for skin and decoding need each other's results only afterwards.
            shown = [frame for frame, _ in frames[wanted]]
            looks = background.submit(self._look_at, shown, aligned)
            if self.config.smooth and isinstance(self._decode, FaceDecoder):
                decoded = self._decode.decode_video(moments, wanted)
            else:
                decoded = self._decode([face for faces in aligned for face in faces])
            aligned = looks.result()
        return partial(self._finished, frames, wanted, aligned, decoded)

    def _finished(
        self, frames: list[Found], wanted: slice, aligned: list[list[AlignedFace]],
        decoded: list[Image],
    ) -> list[list[Swap]]:  # fmt: skip
        """Turn the decoded faces of frames into swaps."""
        together = [face for faces in aligned for face in faces]
        indices = [frame.index for frame, _ in frames[wanted]]
        with ThreadPoolExecutor(2) as background:
            finished = background.map(
                self._finish, together, decoded, self._are_measured(indices, aligned)
            )
            swapped = [[*islice(finished, len(faces))] for faces in aligned]
        swapped = _with_colors(swapped)
        if not self.config.match_detail:
            return swapped
        first, _, _ = wanted.indices(len(frames))
        with_detail = []
        known: dict[int, npt.NDArray[np.float64]] = {}  # last numbers of each track
        for index, swaps in enumerate(swapped, start=first):
            frame = frames[index][0]
            nearby = [faces for _, faces in frames[max(index - 1, 0) : index + 2]]
            if frame.index % DETAIL_EVERY == 0:
                known.clear()
            with_detail.append([self._with_detail(frame, swap, nearby, known) for swap in swaps])
        return with_detail

    def _look_at(
        self, frames: list[Frame], aligned: list[list[AlignedFace]]
    ) -> list[list[AlignedFace]]:
        """Find the visible skin of the faces of each frame if the mask needs it."""
        if not self._needs_skin:
            return aligned
        return [
            [self._parser.parse(frame, face) for face in faces]
            for frame, faces in zip(frames, aligned, strict=True)
        ]

    def _are_measured(self, indices: list[int], aligned: list[list[AlignedFace]]) -> list[bool]:
        """Return for each face of consecutive frames whether its colour match is measured.

        The others take it over from the frame before, see :func:`_with_colors`.
        """
        measured: list[bool] = []
        before: set[int] = set()  # tracks
        for index, faces in zip(indices, aligned, strict=True):
            tracks = [face.face.track for face in faces]
            is_turn = index % COLOR_EVERY == 0 or not self.config.smooth
            measured += [is_turn or track < 0 or track not in before for track in tracks]
            before = {*tracks}
        return measured

    def _finish(self, aligned: AlignedFace, decoded: Image, is_measured: bool) -> Swap:
        """Enlarge a decoded face to the crop, compute its mask, and measure its colour match."""
        matrix = output_to_crop(self._model, self.side)  # from pixels of the network's size
        factor = len(decoded) / self._model.size
        pixel = scale_of(matrix) / factor / scale_of(aligned.matrix)  # frame pixels per pixel
        if pixel < 1:  # average now, because pasting a small face would skip pixels and flicker
            decoded = shrink(decoded, max(round(pixel * len(decoded)), 1))
            factor = len(decoded) / self._model.size
        if factor != 1:
            matrix = compose(matrix, invert(resized(np.eye(2, 3), factor)))
        large = warp_image_at(decoded.astype(np.float32), matrix, self.side, self.side)
        decoded_mask: Mask | None = None
        face = np.ascontiguousarray(large[..., :3])
        if large.shape[2] == 4:
            decoded_mask = np.asarray(np.clip(large[..., 3] / 255, 0, 1), np.float32)
        mask = self._mask(aligned, self._model.view, decoded_mask)
        mask = mask if self._own is None else np.asarray(mask * self._own, np.float32)
        erosion, feather = self.config.erosion, self.config.feather
        if not self._needs_skin:
            color = None
            if is_measured:
                color = self._color.measure(rounded(face), aligned.image, mask)
            feather = FEATHER if feather is None else feather
            return Swap(aligned, face, soften(mask, self._model.coverage, erosion, feather), color)
        half = halved(aligned)  # the skin that is continued over brows is smooth
        cover = brow_cover(half)
        color = self._color_of_skin(face, half, cover, mask) if is_measured else None
        cover = enlarged(cover, self.side)
        region = soften(mask, self._model.coverage, erosion, 0.0)
        narrow = SKIN_FEATHER if feather is None else feather
        soft = feathered(region, aligned, self._model.coverage, narrow)
        return Swap(aligned, face, soft, color, cover if sticks_out(cover, soft) else None)

    def _color_of_skin(
        self, face: FloatImage, half: AlignedFace, cover: Cover, mask: Mask
    ) -> npt.NDArray[np.float64]:
        """Measure the colour match on skin alone, at half the size.

        Brows, eyes and lips are no shadows, neither of the footage nor of the new face.

        Args:
            face: The new face, (S, S, 3).
            half: The footage's face, (S / 2, S / 2, 3).
            cover: What hides the footage's brows, (S / 2, S / 2).
            mask: Where the new face is pasted, (S, S).
        """
        assert half.skin is not None, "the mask needs the skin"
        size = (len(half.image),) * 2
        new = rounded(np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_AREA)))
        inside = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.float32)
        points = transform(half.face.landmarks, half.matrix)
        footage = without_brows(half.image, cover)
        return self._color.measure(
            bare(new, points, inside), bare(footage, points, inside * half.skin), inside
        )

    def _with_detail(
        self, frame: Frame, swap: Swap, nearby: list[list[Face]],
        known: dict[int, npt.NDArray[np.float64]],
    ) -> Swap:  # fmt: skip
        """Resample a swap to frame pixels, where grain is one pixel wide, and measure detail.

        Args:
            frame: The frame.
            swap: The swap, in its crop.
            nearby: The faces of this frame and of its neighbours.
            known: Numbers by track that all but the motion is taken over from; new ones are added.
        """
        area = swap.mask if swap.cover is None else np.maximum(swap.mask, swap.cover.mask)
        box = box_in_frame(replace(swap, mask=area), *frame.shape)
        if box is None:
            return replace(swap, detail=detail.NEUTRAL)
        reference = frame.crop(box)
        matrix = shifted(np.eye(2, 3), box[0], box[1])
        swap = replace(swap, on_frame=replace(swap.aligned, image=reference, matrix=matrix))
        moved, track = detail.displacement(swap.aligned.face, nearby), swap.aligned.face.track
        if track in known and not detail.is_blurred_by(moved):
            return replace(swap, detail=np.concatenate([np.zeros(2), known[track][2:]]))
        new = matched(swap, self.config)
        numbers = detail.measure(new.image, reference, new.mask, moved, known.get(track))
        if track >= 0:
            known[track] = numbers
        return replace(swap, detail=numbers)


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
    return _smoothed(swapper, prepared) if swapper.config.smooth else prepared


def _smoothed(swapper: FaceSwapper, prepared: Iterator[Prepared]) -> Iterator[Prepared]:
    """Smooth colours and detail over the frames in which the same numbers are measured."""

    def measured(item: Prepared) -> tuple[Any, bool]:
        config = swapper.config_at(item[0].index)
        return config.color, config.match_detail

    for _, run in groupby(prepared, measured):
        yield from smooth_over_time(run, _measurements, _with_measurements)


def _prepare_in_passes(swapper: FaceSwapper, detected: Iterator[Found]) -> Iterator[Prepared]:
    def decoded() -> Iterator[tuple[list[Found], Finish]]:
        for before, batch, after in _passes(detected):
            wanted = slice(len(before), len(before) + len(batch))
            yield batch, swapper.decode([*before, *batch, *after], wanted)

    # The next faces are decoded while these are finished.
    for batch, finish in parallel.prefetch(decoded(), 1):
        for (frame, _), swaps in zip(batch, finish(), strict=True):
            yield frame, swaps


def _passes(detected: Iterator[Found]) -> Iterator[tuple[list[Found], list[Found], list[Found]]]:
    """Yield batches of frames with the frame before and the frame after, if there are any.

    They begin at multiples of their length, so that a resumed run forms the same batches wherever
    it begins.
    """
    before: list[Found] = []
    batch: list[Found] = []
    for found in detected:
        if batch and found[0].index // FRAMES_PER_PASS != batch[-1][0].index // FRAMES_PER_PASS:
            yield before, batch, [found]
            before, batch = batch[-1:], []
        batch.append(found)
    if batch:
        yield before, batch, []


def _with_colors(moments: list[list[Swap]]) -> list[list[Swap]]:
    """Give swaps of consecutive frames whose colour was not measured that of their track before."""
    result: list[list[Swap]] = []
    colors: dict[int, npt.NDArray[np.float64] | None] = {}  # by track
    for swaps in moments:
        result.append([
            replace(swap, color=colors[swap.aligned.face.track]) if swap.color is None else swap
            for swap in swaps
        ])  # fmt: skip
        colors = {swap.aligned.face.track: swap.color for swap in result[-1]}
    return result


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
