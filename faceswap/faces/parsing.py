"""Find the visible skin of a face with a segmentation network, so that hands stay in front of it.

The network is Google's selfie multiclass segmenter (256 px, Apache-2.0), run by OpenCV. See
``faceswap/weights/manifest.json`` for its origin.
"""

from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import cv2
import numpy as np

from faceswap.arrays import Image, Mask
from faceswap.faces.geometry import (
    AlignedFace,
    compose,
    invert,
    rect_of,
    shifted,
    warp_image,
    warp_mask,
)
from faceswap.media.frame import Frame

WEIGHTS = "selfie_multiclass.onnx"
SIDE = 256  # pixels of the network's input and output
FACE_SKIN = 3  # of the classes background, hair, body skin, face skin, clothes, others
# The network sees a square about the crop's centre that is this many times as large as the crop:
# 1.6 times the face's box, at which it cut hands, microphones and rims of glasses best.
FIELD = 290 / 256


@cache
def _network() -> Any:
    with as_file(files("faceswap.weights") / WEIGHTS) as path:
        return cv2.dnn.readNetFromONNX(str(path))


def skin_of(frame: Frame, aligned: AlignedFace) -> Mask:
    """Return the probability that each pixel of a face's crop shows the skin of a face, (S, S).

    Eyes and lips count as skin; hair, hands, microphones and glasses do not.
    """
    size = len(aligned.image)
    scale = SIDE / (FIELD * size)
    offset = (SIDE - 1) / 2 - scale * (size - 1) / 2
    to_input = np.array([[scale, 0, offset], [0, scale, offset]])  # from the crop
    matrix = compose(to_input, aligned.matrix)
    rect = rect_of(matrix, SIDE, *frame.shape)
    from_rect = compose(matrix, shifted(np.eye(2, 3), -rect[0], -rect[1]))
    image = warp_image(frame.crop(rect), from_rect, SIDE, SIDE)
    return warp_mask(_probability(image), invert(to_input), size, size)


def _probability(image: Image) -> Mask:
    """Return the probability of the class face skin, (256, 256), for an image of that size."""
    network = _network()
    network.setInput(image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
    logits = np.asarray(network.forward(), np.float32)[0]  # (6, 256, 256)
    weights = np.exp(logits - logits.max(axis=0))
    return np.asarray(weights[FACE_SKIN] / weights.sum(axis=0), np.float32)


class SkinParser:
    """Looks for skin on some frames of a track and reuses the answer, in the crop, between them.

    Frames are chosen by index, so that a resumed conversion looks at the same ones.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._last: dict[int, tuple[int, Mask]] = {}  # by track: period and skin

    def parse(self, frame: Frame, aligned: AlignedFace) -> AlignedFace:
        """Return the face with its ``skin``."""
        track, period = aligned.face.track, frame.index // self._every
        if track < 0:
            return replace(aligned, skin=skin_of(frame, aligned))
        if track not in self._last or self._last[track][0] != period:
            self._last[track] = period, skin_of(frame, aligned)
        return replace(aligned, skin=self._last[track][1])
