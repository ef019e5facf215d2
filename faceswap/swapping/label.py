"""A visible caption for swapped footage, such as "AI-generated", legible on any picture.

White letters on a black plate: their contrast, 21 : 1, does not depend on what is behind.
"""

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from faceswap.config import LabelPosition
from faceswap.errors import SettingsError
from faceswap.media.frame import Frame
from faceswap.types import Image, Rect

MIN_LETTER_HEIGHT = 8  # pixels of letters' height below which nobody can read them
MAX_WIDTH = 0.9  # share of the picture's width that a label may take
MARGIN = 0.5  # of a letter's height, between plate and edge
PADDING = 0.4  # of a letter's height, between letters and plate's edge


class Label:
    """Puts the same words into every frame; they are drawn once for each size of frame.

    Args:
        text: The words, one line.
        position: The corner.
        size: Height of a letter as a share of the frame's.

    Raises:
        SettingsError: If the text is empty, of several lines, or has letters that the font lacks.
    """

    def __init__(self, text: str, position: LabelPosition, size: float) -> None:
        _check(text)
        self._draw = cache(lambda height, width: draw((height, width), text, position, size))

    def on(self, frame: Frame) -> Frame:
        """The frame with the label.

        Raises:
            SettingsError: If the frame is so small that nobody could read it.
        """
        window, pixels = self._draw(*frame.shape)
        return frame.changed(window, pixels)


def draw(
    shape: tuple[int, int], text: str, position: LabelPosition, size: float
) -> tuple[Rect, Image]:
    """Draw a label for pictures of one size.

    Args:
        shape: Height and width of the picture, pixels.
        text: The words; smaller than ``size`` asks if they do not fit in else.
        position: The corner.
        size: Height of a letter as a share of the picture's.

    Returns:
        Where it belongs in the picture, and its pixels (h, w, 3).

    Raises:
        SettingsError: If it would be too small to read.
    """
    height, width = shape
    letters = round(size * height)
    plate = _plate(text, max(letters, MIN_LETTER_HEIGHT))
    while letters > MIN_LETTER_HEIGHT and (
        plate.width > MAX_WIDTH * width or plate.height > height
    ):
        letters = min(letters - 1, int(letters * MAX_WIDTH * width / plate.width))
        plate = _plate(text, max(letters, MIN_LETTER_HEIGHT))
    if plate.width > width or plate.height > height:
        raise SettingsError(
            f'the label "{text}" is not legible in a picture of {width}x{height} pixels; '
            "choose a shorter one"
        )
    margin = round(MARGIN * letters)
    left = width - plate.width - margin if position.endswith("right") else margin
    top = height - plate.height - margin if position.startswith("bottom") else margin
    left, top = min(max(left, 0), width - plate.width), min(max(top, 0), height - plate.height)
    return (left, top, left + plate.width, top + plate.height), np.asarray(plate, np.uint8)


def _plate(text: str, letters: int) -> Pillow.Image:
    """White words on black, ``letters`` pixels being the height of a capital."""
    font = _font(letters)
    left, top, right, bottom = font.getbbox(text)
    padding = round(PADDING * letters)
    size = (round(right - left) + 2 * padding, round(bottom - top) + 2 * padding)
    plate = Pillow.new("RGB", size)
    ImageDraw.Draw(plate).text((padding - left, padding - top), text, "white", font)
    return plate


@cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Bold, so large that a capital is ``letters`` pixels high.

    It comes with matplotlib and has Latin, Greek and Cyrillic letters; Pillow's own font has only
    those of English.
    """
    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    _, top, _, bottom = ImageFont.truetype(path, 1000).getbbox("H")
    return ImageFont.truetype(path, letters * 1000 / (bottom - top))


def _check(text: str) -> None:
    if not text.strip() or len(text.splitlines()) != 1:
        raise SettingsError(f"a label must be one line of words, not {text!r}")
    font = _font(32)
    lacking = bytes(font.getmask("\U0010ffff"))  # the box that stands for what the font has not
    missing = [
        c for c in dict.fromkeys(text) if not c.isspace() and bytes(font.getmask(c)) == lacking
    ]
    if missing:
        raise SettingsError(f"a label cannot hold {' '.join(missing)}: the font has no such letter")
