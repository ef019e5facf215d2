"""Photos of a person that travel with the model, and how that person's decoder paints faces."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from faceswap.arrays import Image

QUALITY = 95  # of the JPEG, with full colour resolution
MAX_PHOTOS, MAX_SIDE = 1000, 1024  # of a valid file
TENSORS = ("photos", "lengths", "points", "painted", "usual")


@dataclass(frozen=True, slots=True, eq=False)
class Exemplars:
    """Photos of one person, the target of swaps.

    Attributes:
        crops: Aligned crops, (S, S, 3) each; the first one shows the most usual expression.
        points: Landmarks of the crops (N, 68, 2), shares of the network crop.
        painted: Affine map (137, 136) float32 from the landmarks of the other person's face, and a
            1, to the landmarks of what the decoder makes of it, both as shares of the network crop.
        usual: The usual gaze and opening of the eyes, (2, 2) float32, of the other person and of
            this one; NaN if unknown. See :mod:`faceswap.crops.eyes`.
    """

    crops: list[Image]
    points: npt.NDArray[np.float32]
    painted: npt.NDArray[np.float32]
    usual: npt.NDArray[np.float32]


def identity_map() -> npt.NDArray[np.float32]:
    """Return the map to landmarks at the same places."""
    return np.eye(137, 136, dtype=np.float32)


def to_tensors(exemplars: Exemplars) -> dict[str, Tensor]:
    """Encode exemplars as tensors, the photos as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
    files = [cv2.imencode(".jpg", crop[..., ::-1], options)[1].ravel() for crop in exemplars.crops]
    return {
        "photos": torch.from_numpy(np.concatenate(files)),
        "lengths": torch.tensor([len(file) for file in files], dtype=torch.int64),
        "points": torch.from_numpy(exemplars.points),
        "painted": torch.from_numpy(exemplars.painted),
        "usual": torch.from_numpy(exemplars.usual),
    }


def from_tensors(tensors: dict[str, Tensor]) -> Exemplars:
    """Decode exemplars.

    Raises:
        ValueError: If they are damaged.
    """
    if set(tensors) != set(TENSORS):
        raise ValueError("the exemplars are incomplete")
    points, painted, usual = (tensors[name].numpy() for name in ("points", "painted", "usual"))
    lengths = tensors["lengths"].tolist()
    count = len(lengths)
    if not 1 <= count <= MAX_PHOTOS or min(lengths) < 1 or sum(lengths) != len(tensors["photos"]):
        raise ValueError("the exemplars' photos do not fit their lengths")
    if points.shape != (count, 68, 2) or painted.shape != (137, 136) or usual.shape != (2, 2):
        raise ValueError("the exemplars' numbers have the wrong shape")
    if any(numbers.dtype != np.float32 for numbers in (points, painted, usual)):
        raise ValueError("the exemplars' numbers must be float32")
    if tensors["photos"].dtype != torch.uint8:
        raise ValueError("the exemplars' photos must be bytes")
    if not np.isfinite(points).all() or not np.isfinite(painted).all():
        raise ValueError("the exemplars' numbers must be finite")
    ends = np.cumsum(lengths)
    crops = [_decoded(file) for file in np.split(tensors["photos"].numpy(), ends[:-1])]
    if len({crop.shape for crop in crops}) != 1:
        raise ValueError("the exemplars' photos must have one size")
    return Exemplars(crops, points, painted, usual)


def _decoded(file: npt.NDArray[np.uint8]) -> Image:
    """Decode a JPEG.

    Raises:
        ValueError: If it is not a square image of a valid size.
    """
    try:
        image = cv2.imdecode(file, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"a photo of the exemplars cannot be decoded: {error}") from error
    if image is None or image.shape[0] != image.shape[1] or len(image) > MAX_SIDE:
        raise ValueError("a photo of the exemplars is not a square image")
    return np.ascontiguousarray(image[..., ::-1])
