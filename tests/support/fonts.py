"""Write tiny fonts whose letters are bars, so that tests need no font of the system."""

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont

BOX = (50, 0, 450, 700)  # of a missing letter
WIDTH = 1000  # advance of each letter, font units


def write_font(path, letters, family="Tiny", style="Regular"):
    """Write a font.

    Args:
        path: The .ttf file.
        letters: The bar of each letter: left, bottom, right and top of 1000 units per em.
        family: Name of the family.
        style: Name of the style.
    """
    names = {letter: f"u{ord(letter):04X}" for letter in letters}
    bars = {".notdef": BOX, **{names[letter]: bar for letter, bar in letters.items()}}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(bars))
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    builder.setupGlyf({name: _bar(*bar) for name, bar in bars.items()})
    builder.setupHorizontalMetrics({name: (WIDTH, bar[0]) for name, bar in bars.items()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": style})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def write_collection(path, files):
    """Write the fonts of several files into one .ttc file."""
    collection = TTCollection()
    collection.fonts = [TTFont(file) for file in files]
    collection.save(path)
    return path


def _bar(left, bottom, right, top):
    pen = TTGlyphPen(None)
    if left < right:  # otherwise a letter that draws nothing
        pen.moveTo((left, bottom))
        for point in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()
