"""Classic augmentation of one image at a time, to test and benchmark the batched version."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.transform import SimilarityTransform

Pixels = npt.NDArray[Any]


def reference_transform(
    image: Pixels, angle: float, zoom: float, shift_x: float, shift_y: float, flip: float
) -> Pixels:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width // 2, height // 2), angle, zoom)
    matrix[:, 2] += (shift_x * width, shift_y * height)
    result = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return result[:, ::-1] if flip else result


def reference_warp(image: Pixels, noise: Pixels) -> tuple[Pixels, Pixels]:
    """Warp an image with the classic arithmetic for 256 px; ``noise`` is (2, 5, 5) in pixels."""
    steps = np.linspace(128 - 80, 128 + 80, 5)
    map_x = np.broadcast_to(steps, (5, 5)) + noise[0]
    map_y = np.broadcast_to(steps, (5, 5)).T + noise[1]
    fine_x = cv2.resize(map_x, (80, 80))[8:72, 8:72].astype(np.float32)
    fine_y = cv2.resize(map_y, (80, 80))[8:72, 8:72].astype(np.float32)
    warped = cv2.remap(image, fine_x, fine_y, cv2.INTER_LINEAR)
    source = np.stack([map_x.ravel(), map_y.ravel()], axis=-1)
    target = np.mgrid[0:65:16, 0:65:16].T.reshape(-1, 2)
    matrix = SimilarityTransform.from_estimate(source, target).params[:2]
    return warped, cv2.warpAffine(image, matrix, (64, 64))
