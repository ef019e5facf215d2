"""A visible mark on swapped footage: words such as "AI-generated", or an icon.

White letters on a black plate have a contrast of 21 : 1, whatever is behind them.
"""

import unicodedata
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageOps, UnidentifiedImageError

from faceswap.arrays import FloatImage, Image, Rect
from faceswap.config import ICONS, ConvertConfig, Corner
from faceswap.errors import InputError, SettingsError
from faceswap.files import reason
from faceswap.media.frame import Frame, check_pixels
from faceswap.media.photos import opened_photo
from faceswap.swapping.fonts import Font, built_in, font_for

MIN_LETTER_HEIGHT = 8  # pixels; smaller letters are illegible
MAX_WIDTH = 0.9  # of the image width; only a mark with the smallest letters may be wider
MARGIN = 0.5  # of the letter height, between mark and image edge
PADDING = 0.4  # of the letter height, between letters and plate edge
# In an icon, as shares of the letter height: from letters to borders, width of each of the two
# borders, radius of the corners.
ICON_PADDING, ICON_BORDER, ICON_RADIUS = 0.5, 0.12, 0.4
ICON_HEIGHT = 1 + 2 * (ICON_PADDING + 2 * ICON_BORDER)
OVERSAMPLING = 4

# Draws a mark, RGB or RGBA, whose capitals have this height in pixels.
Paint = Callable[[int], Pillow.Image]


class Mark:
    """Puts the same words or the same icon into every frame; it is drawn once for each frame size.

    Args:
        name: What it is, for messages.
        paint: Draws it.
        corner: Corner of the frame.
        size: Letter height as a share of the frame height.
        file: The font or the image that it is drawn with; None for a built-in icon.
    """

    def __init__(
        self, name: str, paint: Paint, corner: Corner, size: float, file: Path | None = None
    ) -> None:
        self._draw = cache(lambda height, width: draw((height, width), paint, name, corner, size))
        self.file = file

    def on(self, frame: Frame) -> Frame:
        """Return the frame with the mark, which is opaque on transparent footage, too.

        Raises:
            SettingsError: If the mark does not fit into the frame with the smallest legible
                letters.
        """
        rect, pixels = self._draw(*frame.shape)
        if pixels.shape[2] == 3:
            return frame.covered(rect, pixels)
        colors: FloatImage = pixels.astype(np.float32)
        share: FloatImage = colors[..., 3:] / np.float32(255)
        mixed = frame.rgb_float(rect) * (1 - share) + colors[..., :3] * share
        return frame.changed(rect, mixed).solid_at(rect, pixels[..., 3])


class Label:
    """All marks of a conversion.

    Args:
        marks: The marks.
    """

    def __init__(self, *marks: Mark) -> None:
        self._marks = marks

    @property
    def files(self) -> list[Path]:
        """The font and the image that the label is drawn with."""
        return [mark.file for mark in self._marks if mark.file]

    def on(self, frame: Frame) -> Frame:
        """Return the frame with the marks.

        Raises:
            SettingsError: If a mark does not fit into the frame with the smallest legible letters.
        """
        for mark in self._marks:
            frame = mark.on(frame)
        return frame


def label_of(config: ConvertConfig) -> Label | None:
    """Return the label that the settings ask for; None if they ask for none.

    Words are in the corner bottom right and an icon is top right, unless the settings say
    otherwise. With both, they say where the words are.

    Raises:
        InputError: If the file of the font or of the icon is missing or cannot be read.
        SettingsError: If the words are not a single line, no font has all their letters, or the
            icon is invisible.
    """
    marks = []
    chosen = None if config.label_position == "auto" else config.label_position
    if config.label is not None:
        marks.append(words(config.label, chosen or "bottom-right", config.label_size,
                           config.label_font))  # fmt: skip
        chosen = None
    if config.label_icon is not None:
        marks.append(icon(config.label_icon, chosen or "top-right", config.label_size))
    return Label(*marks) if marks else None


def words(text: str, corner: Corner, size: float, font: str | None = None) -> Mark:
    """Return white words on a black plate.

    Args:
        text: A single line.
        corner: Corner of the frame.
        size: Letter height as a share of the frame height.
        font: The file or the name of a font; see :func:`fonts.font_for`.

    Raises:
        InputError: If the font's file is missing or cannot be read.
        SettingsError: If the text is empty or has several lines, or no font has all its letters.
    """
    if not text.strip() or len(text.splitlines()) != 1:
        raise SettingsError(f"a label must be a single line of text, not {text!r}")
    text = unicodedata.normalize("NFC", text)  # fonts have é rather than e and an accent
    found = font_for(text, font)
    return Mark(f'the label "{text}"', partial(_plate, text, found), corner, size, found.path)


def icon(name: str, corner: Corner, size: float) -> Mark:
    """Return an icon: one of :data:`faceswap.config.ICONS`, or the image in a file.

    Args:
        name: The name of a built-in icon, or the path of an image, which may be transparent.
        corner: Corner of the frame.
        size: Height of the built-in icon's letters as a share of the frame height; an image gets
            the height of the whole icon.

    Raises:
        InputError: If the image is missing or cannot be read.
        SettingsError: If the image is fully transparent.
    """
    if name in ICONS:
        return Mark(f'the icon "{name}"', partial(_badge, ICONS[name]), corner, size)
    path = Path(name)
    return Mark(f"the icon {path}", partial(_scaled, _artwork(path)), corner, size, path)


def draw(
    shape: tuple[int, int], paint: Paint, name: str, corner: Corner, size: float
) -> tuple[Rect, Image]:
    """Draw a mark for images of one size.

    Args:
        shape: Height and width of the image, pixels.
        paint: Draws the mark.
        name: What it is, for messages.
        corner: Corner of the image.
        size: Letter height as a share of the image height. The letters are smaller if the mark
            does not fit otherwise, but at least ``MIN_LETTER_HEIGHT`` pixels high.

    Returns:
        The rect of the mark in the image, and the mark's pixels (h, w, 3) or (h, w, 4).

    Raises:
        SettingsError: If the mark does not fit even with letters of ``MIN_LETTER_HEIGHT`` pixels.
    """
    height, width = shape
    letter_height = round(size * height)
    plate = paint(max(letter_height, MIN_LETTER_HEIGHT))
    while letter_height > MIN_LETTER_HEIGHT and (
        plate.width > MAX_WIDTH * width or plate.height > height
    ):
        letter_height = min(letter_height - 1, int(letter_height * MAX_WIDTH * width / plate.width))
        plate = paint(max(letter_height, MIN_LETTER_HEIGHT))
    if plate.width > width or plate.height > height:
        raise SettingsError(
            f"{name} is not legible in an image of {width}x{height} pixels; choose a shorter one"
        )
    margin = round(MARGIN * letter_height)
    left = width - plate.width - margin if corner.endswith("right") else margin
    top = height - plate.height - margin if corner.startswith("bottom") else margin
    left, top = min(max(left, 0), width - plate.width), min(max(top, 0), height - plate.height)
    return (left, top, left + plate.width, top + plate.height), np.asarray(plate, np.uint8)


def _plate(text: str, font: Font, letter_height: int) -> Pillow.Image:
    """Draw white text on a black plate, with capitals ``letter_height`` pixels high."""
    sized = font.sized(letter_height)
    left, top, right, bottom = sized.getbbox(text)
    padding = round(PADDING * letter_height)
    size = (round(right - left) + 2 * padding, round(bottom - top) + 2 * padding)
    plate = Pillow.new("RGB", size)
    ImageDraw.Draw(plate).text((padding - left, padding - top), text, "white", sized)
    return plate


def _badge(text: str, letter_height: int) -> Pillow.Image:
    """Draw an icon: "AI" black on white, and what was done white on black.

    It has a white border and a black one around it, which set it off from any footage.
    """
    unit = OVERSAMPLING * letter_height
    font = built_in().sized(unit)
    border, padding = round(ICON_BORDER * unit), round(ICON_PADDING * unit)
    height = round(ICON_HEIGHT * letter_height) * OVERSAMPLING
    head, _, rest = text.partition(" ")
    head_width = round(font.getlength(head)) + 2 * padding
    rest_width = round(font.getlength(rest)) + 2 * padding if rest else 0
    # A multiple of the oversampling, so that the right border stays sharp.
    width = -(-(head_width + rest_width + 4 * border) // OVERSAMPLING) * OVERSAMPLING
    badge = Pillow.new("RGBA", (width, height))
    pen = ImageDraw.Draw(badge)
    for inset, color in enumerate(("black", "white", "black")):
        edge = inset * border
        box = (edge, edge, width - 1 - edge, height - 1 - edge)
        pen.rounded_rectangle(box, ICON_RADIUS * unit - edge, color)
    start = 2 * border + head_width
    if rest:
        pen.rectangle((2 * border, 2 * border, start, height - 1 - 2 * border), "white")
        pen.text((start + padding, height / 2), rest, "white", font, "lm")
    place = (2 * border + padding, height / 2)
    pen.text(place, head, "black" if rest else "white", font, "lm")
    return badge.reduce(OVERSAMPLING)


def _scaled(artwork: Pillow.Image, letter_height: int) -> Pillow.Image:
    """Scale an image to the height that an icon with letters of this height has."""
    height = round(ICON_HEIGHT * letter_height)
    width = max(round(artwork.width * height / artwork.height), 1)
    return artwork.resize((width, height), Pillow.Resampling.LANCZOS)


def _artwork(path: Path) -> Pillow.Image:
    """Read the image of an icon as RGBA."""
    if not path.is_file():
        raise InputError(
            f"the icon {path} does not exist; --label-icon takes {', '.join(ICONS)} or an image, "
            "such as a PNG with transparency"
        )
    try:
        with opened_photo(path) as photo:
            check_pixels(*photo.size)
            artwork = ImageOps.exif_transpose(photo).convert("RGBA")
    except UnidentifiedImageError as error:
        raise InputError(
            f"the icon {path} is not an image this program can read; save it as a PNG"
        ) from error
    except Exception as error:  # decoders raise many types for a damaged file
        message = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"the icon {path} cannot be read: {message}") from error
    if not np.asarray(artwork.getchannel("A")).any():
        raise SettingsError(f"the icon {path} is invisible, because it is fully transparent")
    return artwork
