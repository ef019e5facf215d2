"""A visible caption for swapped footage, such as "AI-generated", legible on any image.

White letters on a black plate have a contrast of 21 : 1, whatever is behind them.
"""

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from faceswap.arrays import Image, Rect
from faceswap.config import LabelPosition
from faceswap.errors import SettingsError
from faceswap.media.frame import Frame

MIN_LETTER_HEIGHT = 8  # pixels; smaller letters are illegible
MAX_WIDTH = 0.9  # of the image width; only a plate with the smallest letters may be wider
MARGIN = 0.5  # of the letter height, between plate and image edge
PADDING = 0.4  # of the letter height, between letters and plate edge


class Label:
    """Puts the same caption into every frame; it is drawn once for each frame size.

    Args:
        text: The caption, a single line.
        position: Corner of the frame.
        size: Letter height as a share of the frame height.

    Raises:
        SettingsError: If the text is empty, has several lines, or has letters that the font lacks.
    """

    def __init__(self, text: str, position: LabelPosition, size: float) -> None:
        _check(text)
        self._draw = cache(lambda height, width: draw((height, width), text, position, size))

    def on(self, frame: Frame) -> Frame:
        """Return the frame with the label, which is opaque on transparent footage, too.

        Raises:
            SettingsError: If the label does not fit into the frame with the smallest legible
                letters.
        """
        rect, pixels = self._draw(*frame.shape)
        return frame.covered(rect, pixels)


def draw(
    shape: tuple[int, int], text: str, position: LabelPosition, size: float
) -> tuple[Rect, Image]:
    """Draw a label for images of one size.

    Args:
        shape: Height and width of the image, pixels.
        text: The caption.
        position: Corner of the image.
        size: Letter height as a share of the image height. The letters are smaller if the caption
            does not fit otherwise, but at least ``MIN_LETTER_HEIGHT`` pixels high.

    Returns:
        The rect of the label in the image, and the label's pixels (h, w, 3).

    Raises:
        SettingsError: If the label does not fit even with letters of ``MIN_LETTER_HEIGHT`` pixels.
    """
    height, width = shape
    letter_height = round(size * height)
    plate = _plate(text, max(letter_height, MIN_LETTER_HEIGHT))
    while letter_height > MIN_LETTER_HEIGHT and (
        plate.width > MAX_WIDTH * width or plate.height > height
    ):
        letter_height = min(letter_height - 1, int(letter_height * MAX_WIDTH * width / plate.width))
        plate = _plate(text, max(letter_height, MIN_LETTER_HEIGHT))
    if plate.width > width or plate.height > height:
        raise SettingsError(
            f'the label "{text}" is not legible in an image of {width}x{height} pixels; '
            "choose a shorter label"
        )
    margin = round(MARGIN * letter_height)
    left = width - plate.width - margin if position.endswith("right") else margin
    top = height - plate.height - margin if position.startswith("bottom") else margin
    left, top = min(max(left, 0), width - plate.width), min(max(top, 0), height - plate.height)
    return (left, top, left + plate.width, top + plate.height), np.asarray(plate, np.uint8)


def _plate(text: str, letter_height: int) -> Pillow.Image:
    """Draw white text on a black plate, with capitals ``letter_height`` pixels high."""
    font = _font(letter_height)
    left, top, right, bottom = font.getbbox(text)
    padding = round(PADDING * letter_height)
    size = (round(right - left) + 2 * padding, round(bottom - top) + 2 * padding)
    plate = Pillow.new("RGB", size)
    ImageDraw.Draw(plate).text((padding - left, padding - top), text, "white", font)
    return plate


@cache
def _font(letter_height: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans Bold, scaled so that a capital is ``letter_height`` pixels high.

    The font ships with matplotlib and has Latin, Greek and Cyrillic letters; Pillow's own font has
    only English ones.
    """
    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    _, top, _, bottom = ImageFont.truetype(path, 1000).getbbox("H")
    return ImageFont.truetype(path, letter_height * 1000 / (bottom - top))


def _check(text: str) -> None:
    if not text.strip() or len(text.splitlines()) != 1:
        raise SettingsError(f"a label must be a single line of text, not {text!r}")
    font = _font(32)
    placeholder = bytes(font.getmask("\U0010ffff"))  # box drawn for missing glyphs
    missing = [
        c for c in dict.fromkeys(text) if not c.isspace() and bytes(font.getmask(c)) == placeholder
    ]
    if missing:
        raise SettingsError(f"the label font has no letters for {' '.join(missing)}; remove them")
