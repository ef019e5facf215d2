"""Frames of footage in any order."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.errors import InputError
from faceswap.media.footage import Footage, video_at
from faceswap.media.frame import Frame

NEAR = 100  # frames; decoding on is faster than seeking to a frame that is nearer
KEPT = 24  # frames of each video that are kept
JPEG_QUALITY = 95


class Reader:
    """Reads frames of a video in any order, and keeps the last ones.

    Args:
        footage: The video or sequence.
    """

    def __init__(self, footage: Footage) -> None:
        self._footage = footage
        self._frames: Iterator[Frame] = iter(())
        self._next = -1
        self._kept: dict[int, Image] = {}
        self._lock = Lock()

    def frame(self, index: int) -> Image:
        """Return a frame by its index.

        Raises:
            InputError: If there is none, or it cannot be read.
        """
        with self._lock:
            if index in self._kept:
                return self._kept[index]
            if not self._next <= index < self._next + NEAR or self._next < 0:
                self._frames = self._footage.read(index)
            for frame in self._frames:
                self._next = frame.index + 1
                self._kept[frame.index] = frame.image
                while len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
                if frame.index >= index:
                    break
            else:
                self._next = -1
            if index not in self._kept:
                raise InputError(f"{self._footage.path} has no frame {index}")
            return self._kept[index]


def jpeg(image: Image) -> bytes:
    """Encode a frame."""
    pixels = np.ascontiguousarray(image[..., ::-1])
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def facts(path: Path) -> dict[str, Any]:
    """Return the size of a clip, its number of frames and its length in seconds.

    Raises:
        InputError: If it cannot be read.
    """
    info = video_at(path).probe()
    if not info.frames:
        raise InputError(f"{path.name} does not say how many frames it has")
    seconds = float(info.seconds) if info.seconds else 0.0
    return {
        "width": info.width, "height": info.height, "frames": info.frames,
        "seconds": round(seconds, 3),
    }  # fmt: skip
