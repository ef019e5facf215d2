"""Draw what a compositor needs of a frame: the face to merge over the plate, masks and an ST map.

All colours are in linear Rec.709. The face is premultiplied with the mask, so that in linear light
``plate * (1 - A) + RGB`` is the frame that a conversion writes ("over" of T. Porter and T. Duff,
1984), whichever blend made it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Mask, Matrix, Rect
from faceswap.config import ConvertConfig
from faceswap.faces.geometry import invert, shifted, warp_mask
from faceswap.media.exr import Drawn
from faceswap.media.frame import Frame
from faceswap.media.views import LINEAR_REC709, view_of
from faceswap.swapping.compositor import LEAST_SHARE, Swap
from faceswap.swapping.records import FaceRecord, FrameRecord
from faceswap.swapping.render import matched

ATTRIBUTE = "faceswap"  # of an EXR of elements: what is known of the frame, as JSON
HALF_MAX = float(np.finfo(np.float16).max)
Half = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame belongs, and what its images have in common with those of other frames.

    Attributes:
        number: The number of its images.
        side: Width and height of the images of ``faces``, in pixels. Smaller crops lie at their top
            left corner, because all images of a clip must have one size.
        aspect: Width of a pixel of the frame over its height.
    """

    number: int
    side: int
    aspect: float


def draw(
    frame: Frame, finished: Frame, swaps: list[Swap], record: FrameRecord, place: Place,
    config: ConvertConfig,
) -> dict[str, Frame]:  # fmt: skip
    """Draw the elements of a frame.

    Args:
        frame: The original frame.
        finished: The frame with its new faces.
        swaps: Its swaps from :meth:`Swapper.prepare`.
        record: What happened to its faces; those of the swaps come first.
        place: The number and the size of its images.
        config: Settings.

    Returns:
        By stream: ``video``, the finished frame; ``elements`` on the frame, ``faces`` on the
        aligned crops, and the ``plate``.
    """
    rects = [rect for rect, _ in finished.changes]
    box = left, top, right, bottom = _union(rects) if rects else (0, 0, 1, 1)
    whole_plate = _linear(frame)
    whole_result = _linear(finished) if rects else whole_plate
    plate, result = (whole[top:bottom, left:right] for whole in (whole_plate, whole_result))
    known = list(zip(swaps, record.faces, strict=False))
    masks = [_mask_in(box, matched(swap, config, frame.index)) for swap in swaps]
    left_over = reduce(lambda left, mask: left * (1 - mask), masks, np.ones(plate.shape[:2]))
    alpha = (1 - left_over).astype(np.float16)
    share = alpha.astype(np.float32)[..., np.newaxis]
    premultiplied = result.astype(np.float32) - plate.astype(np.float32) * (1 - share)
    channels: dict[str, Any] = _colors("", premultiplied) | {"A": alpha}
    for (swap, face), mask in zip(known, masks, strict=True):
        channels |= _on_frame(box, swap, face, mask, place.side)
    facts = {
        "number": place.number, "index": frame.index, "seconds": float(frame.time),
        "file": record.file, "width": frame.shape[1], "height": frame.shape[0],
        "pixel_aspect": place.aspect, "faces_side": place.side,
        "faces": [_facts(swap, face) for swap, face in known],
    }  # fmt: skip
    crops: dict[str, Any] = {}
    for swap, face in known:
        room = place.side - swap.image.shape[0]
        crops |= {
            name: np.pad(plane, (0, room)) for name, plane in _in_crop(swap, face, config).items()
        }
    aligned = crops or _colors("", np.zeros((1, 1, 3)))
    shape, like = (place.side, place.side), {"pixelAspectRatio": place.aspect}
    return {
        "elements": _drawn(
            frame, channels, box[:2], frame.shape, like | {ATTRIBUTE: json.dumps(facts)}
        ),
        "faces": _drawn(frame, aligned, (0, 0), shape, {}),
        "plate": _drawn(frame, _colors("", whole_plate), (0, 0), frame.shape, like),
        "video": _drawn(frame, _colors("", whole_result), (0, 0), frame.shape, like),
    }


def layer_of(kind: str, track: int) -> str:
    """Return the name of a layer of a face, such as ``st_t3`` of the face with track number 3."""
    return f"{kind}_t{track}"


def _union(rects: Iterable[Rect]) -> Rect:
    lefts, tops, rights, bottoms = zip(*rects, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _linear(frame: Frame) -> Half:
    """Return the pixels of a frame in linear Rec.709, (H, W, 3)."""
    height, width = frame.shape
    return _half(view_of(LINEAR_REC709).stored(frame.rgb_float((0, 0, width, height))))


def _half(values: npt.NDArray[Any]) -> Half:
    half: Half = np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)
    return half


def _colors(layer: str, pixels: npt.NDArray[Any]) -> dict[str, Half]:
    """Return the planes of colours (H, W, 3) by the names of their channels."""
    within = f"{layer}." if layer else ""
    return {f"{within}{name}": _half(pixels[..., at]) for at, name in enumerate("RGB")}


def _drawn(
    frame: Frame, channels: dict[str, Any], corner: tuple[int, int], whole: tuple[int, int],
    attributes: dict[str, Any],
) -> Drawn:  # fmt: skip
    return Drawn(
        frame.pixels, frame.index, frame.time, frame.source, channels=channels, corner=corner,
        whole=whole, attributes=attributes,
    )  # fmt: skip


def _mask_in(box: Rect, swap: Swap) -> Mask:
    """Return the share of a finished face in each pixel of a box, (H, W)."""
    mask = _warped(swap.mask, box, swap.aligned.matrix)
    mask[mask < LEAST_SHARE] = 0
    return mask


def _warped(mask: Mask, box: Rect, matrix: Matrix) -> Mask:
    left, top, right, bottom = box
    return warp_mask(mask, shifted(invert(matrix), left, top), right - left, bottom - top)


def _on_frame(box: Rect, swap: Swap, face: FaceRecord, mask: Mask, side: int) -> dict[str, Any]:
    """Return the mask, the occlusion, the confidence and the ST map of a face, on its frame."""
    inside, occlusion = mask > 0, np.zeros(mask.shape, np.float32)
    if swap.aligned.skin is not None:
        occlusion = _warped(1 - swap.aligned.skin, box, swap.aligned.matrix)
    s, t = st_map(box, swap, side)
    st, track = layer_of("st", face.track), face.track
    return {
        f"{layer_of('mask', track)}.A": _half(mask),
        f"{layer_of('occlusion', track)}.A": _half(occlusion),
        f"{layer_of('confidence', track)}.A": _half(np.where(inside, _confidence(face), 0)),
        f"{st}.R": s,
        f"{st}.G": t,
    }


def st_map(box: Rect, swap: Swap, side: int) -> tuple[FloatImage, FloatImage]:
    """Return where in an image with the crop each pixel of a box comes from, both (H, W).

    The coordinates are shares of the image's sides from its bottom left corner, as compositing
    programs count. They are 0 outside the crop.

    Args:
        box: The box in the frame.
        swap: The swap whose crop lies in the top left corner of the image.
        side: Width and height of the image, in pixels.
    """
    left, top, right, bottom = box
    y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
    matrix, size = swap.aligned.matrix, swap.image.shape[0]
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + 0.5  # pixel centres at .5
    down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + 0.5
    inside = (across >= 0) & (across <= size) & (down >= 0) & (down <= size)
    return (
        np.where(inside, across / side, 0).astype(np.float32),
        np.where(inside, 1 - down / side, 0).astype(np.float32),
    )


def _confidence(face: FaceRecord) -> float:
    """Return the probability that there is a face; the detector's score if it is not known."""
    return float(np.clip(face.score if face.certainty is None else face.certainty, 0, 1))


def _in_crop(swap: Swap, face: FaceRecord, config: ConvertConfig) -> dict[str, Any]:
    """Return the face as the network drew it, with matched colours, and its masks, in the crop."""
    recoloured = matched(replace(swap, detail=None, on_frame=None), config)
    skin = swap.aligned.skin
    linear, track = view_of(LINEAR_REC709), face.track
    return {
        **_colors(layer_of("face", track), linear.stored(swap.image.astype(np.float32))),
        **_colors(layer_of("matched", track), linear.stored(recoloured.image)),
        f"{layer_of('mask', track)}.A": _half(recoloured.mask),
        f"{layer_of('occlusion', track)}.A": _half(
            np.zeros_like(swap.mask) if skin is None else 1 - skin
        ),
    }


def _facts(swap: Swap, face: FaceRecord) -> dict[str, Any]:
    """Return what we know about a face, as JSON values."""
    return {
        "track": face.track, "target": face.target, "box": list(face.box), "score": face.score,
        "confidence": _confidence(face), "yaw": face.yaw, "pitch": face.pitch,
        "bridged": face.bridged, "distance": face.distance,
        "landmarks": np.round(swap.aligned.face.landmarks, 2).tolist(),
        "crop": swap.image.shape[0],
        "frame_to_crop": swap.aligned.matrix.tolist(),
    }  # fmt: skip
