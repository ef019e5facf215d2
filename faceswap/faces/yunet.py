"""Detect faces with YuNet; OpenCV runs it.

W. Wu, H. Peng, S. Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence
Research 20, 2023. See ``faceswap/weights/manifest.json`` for the network's origin.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.faces.geometry import MAX_OVERLAP, Box, Detection, scale_detection, shrunk

WEIGHTS = "yunet.onnx"
MOST = 5000  # boxes that are compared with one another
# Added to the logit of a probability, so that the usual minimum score of 0.2 stands for 0.8. Every
# box above that was a face in a clip with profiles and an audience out of focus.
SHIFT = 0.2 - math.log(0.8 / 0.2)
ALMOST_ONE = 1 - 1e-6
# An aligned crop is searched at this side, at which its face is about 80 pixels wide. The face must
# lie within a fifth of the side from the middle.
CROP_SIDE, OFF_CENTER = 128, 0.2
# A narrower image is padded to this side in pixels: OpenCV 4 returns boxes out of uninitialised
# memory for images of at most 32 pixels.
NARROWEST = 64
_lock = threading.Lock()


@cache
def _network() -> Any:
    with as_file(files("faceswap.weights") / WEIGHTS) as path, _without_warnings():
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), 0.5, MAX_OVERLAP, MOST)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence OpenCV 5, which warns that it chooses the device itself; OpenCV 4 does not."""
    logging = getattr(cv2.utils, "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def detect(image: Image, min_score: float, longest: int) -> list[Detection]:
    """Detect the faces of an image, in no particular order.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        min_score: Minimum score: the logit of a probability, shifted so that 0.2 stands for 0.8.
        longest: Longest side of the image that is searched; larger ones are shrunk to it. In 720p,
            640 finds faces of 40 px and 1280 those of 20 px, for four times the time.
    """
    image, scale = shrunk(image, longest)
    lacking = [max(NARROWEST - side, 0) for side in image.shape[:2]]
    if any(lacking):
        image = np.asarray(
            cv2.copyMakeBorder(image, 0, lacking[0], 0, lacking[1], cv2.BORDER_CONSTANT), np.uint8
        )
    code = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
    bgr = cv2.cvtColor(image, code)
    with _lock:
        network = _network()
        network.setInputSize(bgr.shape[1::-1])
        _, rows = network.detect(bgr)
    found = []
    for row in () if rows is None else rows:
        probability = min(float(row[14]), ALMOST_ONE)
        score = math.log(probability / (1 - probability)) + SHIFT
        if score >= min_score:
            left, top, width, height = row[:4].tolist()
            box = Box(left, top, left + width, top + height)
            detection = Detection(box, score, row[4:14].reshape(5, 2))
            found.append(scale_detection(detection, 1 / scale))
    return found


def certainty(crop: Image) -> float:
    """Return the probability, from 0 to 1, that an aligned crop (S, S, 3) shows a face.

    Only a face in the middle of the crop counts. The network reports none below one half, for which
    0 is returned. A clear frontal face has about 0.93, a profile 0.8 to 0.9.
    """
    small, _ = shrunk(crop, CROP_SIDE)
    middle, reach = len(small) / 2, OFF_CENTER * len(small)
    scores = [
        found.score
        for found in detect(small, -math.inf, CROP_SIDE)
        if abs(found.box.left + found.box.right - 2 * middle) < 2 * reach
        and abs(found.box.top + found.box.bottom - 2 * middle) < 2 * reach
    ]
    return 1 / (1 + math.exp(SHIFT - max(scores))) if scores else 0.0
