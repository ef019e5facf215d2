"""An example plug-in for faceswap: a detector, a mask, a blend, a colour match and a codec."""

import cv2
import numpy as np

from faceswap import AlignedFace, ColorMatch, Face
from faceswap.errors import SettingsError
from faceswap.media.codecs import Encoding
from faceswap.testing import make_face


def detect_center(image: np.ndarray, min_score: float) -> list[Face]:
    """Assume that every image shows one face that fills the middle half."""
    height, width = image.shape[:2]
    side = min(height, width) / 2
    return [make_face((width - side) / 2, (height - side) / 2, side)]


def ellipse(aligned: AlignedFace, view: float, decoded: np.ndarray | None) -> np.ndarray:
    """Paste an ellipse in the middle of the network crop."""
    size = len(aligned.image)
    mask = np.zeros((size, size), np.float32)
    axes = (round(0.35 * view * size), round(0.45 * view * size))
    cv2.ellipse(mask, (size // 2, size // 2), axes, 0, 0, 360, 1.0, cv2.FILLED)
    return mask


def screen(rect: np.ndarray, face: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lighten the frame with the face, as the blend mode of the same name does."""
    lightened = 255 - (255 - rect) * (255 - face) / 255
    return rect + mask[..., np.newaxis] * (lightened - rect)


def _measure(swapped: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = mask > 0.5
    if not inside.any():
        return np.ones(1)
    return np.array([reference[inside].mean() / max(swapped[inside].mean(), 1.0)])


def _apply(swapped: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.clip(swapped * numbers[0], 0, 255)


BRIGHTNESS = ColorMatch(_measure, _apply)


def cineform(suffix: str, quality: int) -> Encoding:
    """Encode with GoPro CineForm, an intermediate codec that editing programs read."""
    if suffix != ".mov":
        raise SettingsError(f"CineForm needs .mov, not {suffix}")
    return Encoding("cfhd", (("quality", "film3+"),), "yuv422p10le")
