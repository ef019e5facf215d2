"""Fonts of labels: one that has all letters of a text, whatever its script."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path

from matplotlib import get_data_path
from PIL import ImageFont, features

from faceswap.errors import InputError, SettingsError

log = logging.getLogger(__name__)

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Styles of system fonts in the order in which they are taken; others come last.
STYLES = ("bold", "semibold", "demibold", "medium", "regular", "book", "roman", "normal")
CAP_HEIGHT = 0.7  # usual height of a capital as a share of the font size
CHECKED_SIZE = 32  # pixels
NONCHARACTER, UNASSIGNED = "\U0010ffff", "\u0378"
MAX_MISSING = 20  # letters that a message names


@dataclass(frozen=True)
class Font:
    """A font file, or one font of a collection (.ttc).

    Attributes:
        path: The file.
        index: Index of the font in its file.
    """

    path: Path
    index: int = 0

    @cached_property
    def family(self) -> str:
        """The name of the family, such as "Noto Sans CJK SC"."""
        return self._names[0]

    @cached_property
    def style(self) -> str:
        """The style, such as "Bold"."""
        return self._names[1]

    @property
    def name(self) -> str:
        """Family and style."""
        return f"{self.family} {self.style}".strip()

    @cached_property
    def _names(self) -> tuple[str, str]:
        family, style = self._load(CHECKED_SIZE).getname()
        return family or self.path.stem, style or ""

    def sized(self, letter_height: float) -> ImageFont.FreeTypeFont:
        """Load the font so that a capital is ``letter_height`` pixels high."""
        capital = CAP_HEIGHT * 1000
        if not self.missing("H"):
            _, top, _, bottom = self._load(1000).getbbox("H")
            capital = bottom - top
        return self._load(letter_height * 1000 / capital)

    def missing(self, text: str) -> list[str]:
        """Return the letters of a text that the font lacks or draws as nothing."""
        # Without shaping, so that every letter is looked at alone.
        font = self._load(CHECKED_SIZE, ImageFont.Layout.BASIC)

        def drawn(letter: str) -> tuple[tuple[int, int], bytes]:
            mask = font.getmask(letter)
            return mask.size, bytes(mask)

        placeholder = drawn(NONCHARACTER)
        # A font of last resort draws something for every number, assigned or not.
        draws_anything = drawn(UNASSIGNED) != placeholder
        return [
            letter for letter in dict.fromkeys(text)
            if not _is_invisible(letter)
            and (draws_anything or drawn(letter) == placeholder or not any(drawn(letter)[1]))
        ]  # fmt: skip

    def _load(self, size: float, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(self.path, size, self.index, layout_engine=layout)


@cache
def built_in() -> Font:
    """Return DejaVu Sans Bold, which ships with matplotlib.

    It has Latin, Greek, Cyrillic and Arabic letters, among others.
    """
    return Font(Path(get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf"))


def font_for(text: str, wanted: str | None = None) -> Font:
    """Return a font that has all letters of a text.

    Args:
        text: The text.
        wanted: The file of a font, or the name of a font of this system. None takes the built-in
            font if it has all letters, otherwise a font of this system, which a warning names.

    Raises:
        InputError: If the font's file is missing or cannot be read.
        SettingsError: If no font has this name, letters are missing, or the text has letters that
            cannot be joined and ordered because a library is missing.
    """
    if _needs_shaping(text) and not features.check("raqm"):
        raise SettingsError(
            f'the label "{text}" has letters that must be joined or ordered, which needs the '
            "library FriBiDi: install it, or use a label in another script"
        )
    if wanted is not None:
        font = _wanted(wanted)
        missing = font.missing(text)
        if missing:
            raise SettingsError(
                f"the font {font.name} ({font.path}) has no letters for {_listed(missing)}: choose "
                "another one with --label-font, or leave these letters out"
            )
        return font
    missing = built_in().missing(text)
    if not missing:
        return built_in()
    for font in system_fonts():
        if not font.missing(text):
            log.warning("the label is drawn with the font %s (%s), because the built-in one has no "
                        "letters for %s", font.name, font.path, _listed(missing))  # fmt: skip
            return font
    raise SettingsError(
        f"the built-in font has no letters for {_listed(missing)}, and no font of this system has "
        "all letters of the label: name the file of one with --label-font, or leave these out"
    )


def system_fonts() -> list[Font]:
    """Return the fonts of this system that can be drawn at any size, plain bold ones first."""

    def rank(font: Font) -> tuple[int, str, int]:
        style = font.style.casefold()
        place = STYLES.index(style) if style in STYLES else len(STYLES)
        return place, str(font.path), font.index

    return sorted((font for file in system_files() for font in _fonts_in(file)), key=rank)


def system_files() -> Iterable[Path]:
    """Return the font files in the usual folders of Linux, macOS and Windows."""
    from matplotlib.font_manager import findSystemFonts  # slow to import

    files = map(Path, findSystemFonts())
    return (file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def _fonts_in(file: Path) -> Iterator[Font]:
    """Yield the fonts of a file; none if it is damaged or holds bitmaps of a fixed size only."""
    index = 0
    while True:
        font = Font(file, index)
        try:
            font._load(CHECKED_SIZE)
        except (OSError, ValueError):
            return
        yield font
        index += 1


def _wanted(name: str) -> Font:
    """Return the font of a file, or the font of this system with a name."""
    path = Path(name)
    if path.suffix.lower() in SUFFIXES or path.is_file():
        # Pillow would look for a missing file in the folders of the system.
        if not path.is_file():
            raise InputError(f"the font {path} does not exist; give a .ttf, .otf or .ttc file")
        font = Font(path)
        try:
            font._load(CHECKED_SIZE)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the font {path} cannot be read ({error}); give a .ttf, .otf or .ttc file with "
                "outlines"
            ) from error
        return font
    fonts, key = system_fonts(), name.casefold()
    for font in fonts:
        if key in (font.family.casefold(), font.name.casefold()):
            return font
    families = {font.family.casefold(): font.family for font in fonts}
    similar = [families[found] for found in get_close_matches(key, families)]
    hint = f"; similar: {', '.join(similar)}" if similar else ""
    raise SettingsError(
        f"no font of this system is called {name!r}{hint}; give the path of a .ttf, .otf or .ttc "
        "file"
    )


def _is_invisible(letter: str) -> bool:
    """Return whether a letter is blank, or only controls how others are joined."""
    is_selector = "\ufe00" <= letter <= "\ufe0f"  # such as "draw the sign before as an emoji"
    return letter.isspace() or unicodedata.category(letter) == "Cf" or is_selector


def _needs_shaping(text: str) -> bool:
    """Return whether letters run from right to left, or combine with their neighbours."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or (unicodedata.category(letter) in ("Mn", "Mc") and not _is_invisible(letter))
        for letter in text
    )


def _listed(letters: list[str]) -> str:
    shown = [
        letter if letter.isprintable() else f"U+{ord(letter):04X}"
        for letter in letters[:MAX_MISSING]
    ]
    return " ".join(shown) + (" ..." if len(letters) > MAX_MISSING else "")
