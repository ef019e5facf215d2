"""Run the networks that ship with faceswap in OpenCV."""

import threading
from functools import cache
from importlib.resources import as_file, files

import cv2
import numpy as np

from faceswap.arrays import FloatImage, Image

# An image whose 98th percentile is below DARK levels is brightened until it is at LIT.
BRIGHT_PERCENTILE, DARK, LIT = 98.0, 80.0, 200.0


class Network:
    """One of the files in ``faceswap/weights``; several threads may share it.

    Args:
        name: Name of the file.
    """

    def __init__(self, name: str) -> None:
        with as_file(files("faceswap.weights") / name) as path:
            self._network = cv2.dnn.readNetFromONNX(str(path))
        # OpenCV 5 computes all outputs or none.
        self._outputs = list(self._network.getUnconnectedOutLayersNames())
        self._lock = threading.Lock()

    def run(self, values: FloatImage) -> dict[str, FloatImage]:
        """Return the outputs by name for an input of the network's own shape."""
        with self._lock:
            self._network.setInput(values)
            results = self._network.forward(self._outputs)
        return {
            name: np.array(result, np.float32)
            for name, result in zip(self._outputs, results, strict=True)
        }


@cache
def load(name: str) -> Network:
    """Load a network once; see :class:`Network`."""
    return Network(name)


def brightened(image: Image, blur: float = 0.0) -> Image | None:
    """Return a dark image brightened; None if it is bright enough or black.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        blur: Standard deviation in pixels of a blur that keeps noise from being brightened too.
    """
    bright = float(np.percentile(image, BRIGHT_PERCENTILE))
    if not 0 < bright < DARK:
        return None
    calm = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8) if blur else image
    lit: Image = np.clip(calm * (LIT / bright), 0, 255).astype(np.uint8)
    return lit


def channels_first(image: Image) -> FloatImage:
    """Return an image (H, W, 3) as (1, 3, H, W) in [0, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
