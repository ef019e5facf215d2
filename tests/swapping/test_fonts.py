"""Labels are drawn in any script that a font is there for."""

import logging
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import features

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, SettingsError
from faceswap.swapping import fonts
from faceswap.swapping.fonts import Font, built_in, font_for
from faceswap.swapping.label import label_of
from tests.support.fonts import write_collection, write_font

LATIN = {"H": (0, 0, 900, 700), "A": (0, 0, 400, 700), "I": (0, 0, 100, 700)}
CHINESE = {"生": (100, 0, 300, 700), "成": (700, 0, 900, 700)}
NEEDS_RAQM = pytest.mark.skipif(not features.check("raqm"), reason="FriBiDi is not installed")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Return a function that sets the font files of the system."""

    def install(*files):
        monkeypatch.setattr(fonts, "system_files", lambda: files)

    install()
    return install


def drawn(text, font=None, size=0.1):
    """Return which columns of a label of 720 lines are light."""
    settings = ConvertConfig(label=text, label_font=font, label_size=size)
    (mark,) = label_of(settings)._marks
    _, pixels = mark._draw(720, 1280)
    return (pixels > 127).any(axis=(0, 2)), pixels


def runs(lit):
    """Return first and last column of each run of light columns."""
    edges = np.flatnonzero(np.diff(np.r_[0, lit.astype(int), 0]))
    return edges[::2].tolist(), edges[1::2].tolist()


def test_letters_of_a_font_file_are_drawn(tmp_path, system):
    path = write_font(tmp_path / "han.ttf", LATIN | CHINESE)

    lit, pixels = drawn("生成", str(path))

    # 72 pixels for a capital of 700 units: the bars are 200 units wide and 600 + 800 apart.
    unit = 72 / 700
    starts, ends = runs(lit)
    assert len(starts) == 2
    assert ends[0] - starts[0] == pytest.approx(200 * unit, abs=2)
    assert starts[1] - starts[0] == pytest.approx((1000 + 600) * unit, abs=2)
    rows = np.flatnonzero((pixels > 127).any(axis=(1, 2)))
    assert rows[-1] - rows[0] + 1 == pytest.approx(72, abs=1)


def test_font_of_the_system_with_all_letters_is_taken_and_named(tmp_path, system, caplog):
    partly = write_font(tmp_path / "a.ttf", LATIN | {"生": (0, 0, 1, 1)}, "Partly", "Bold")
    whole = write_font(tmp_path / "b.ttf", LATIN | CHINESE, "Whole")
    system(partly, whole)

    with caplog.at_level(logging.WARNING):
        font = font_for("AI 生成")

    assert font == Font(whole)
    (line,) = caplog.messages
    assert f"the font Whole Regular ({whole})" in line
    assert "no letters for 生 成" in line


def test_built_in_font_needs_no_other(tmp_path, system, caplog):
    system(write_font(tmp_path / "a.ttf", LATIN))

    assert font_for("AI") == built_in()
    assert not caplog.messages


def test_missing_letters_and_the_option_are_named(tmp_path, system):
    with pytest.raises(SettingsError) as caught:
        font_for("AI 生成")
    assert "no letters for 生 成," in str(caught.value)
    assert "--label-font" in str(caught.value)
    assert "\n" not in str(caught.value)

    path = write_font(tmp_path / "han.ttf", LATIN | {"生": CHINESE["生"]})
    with pytest.raises(SettingsError, match=r"font Tiny Regular .* has no letters for 成:"):
        font_for("AI 生成", str(path))


def test_emoji_are_refused_unless_a_font_draws_them(tmp_path, system, caplog):
    with pytest.raises(SettingsError, match="no letters for 🚀"):
        font_for("AI 🚀")

    path = write_font(tmp_path / "emoji.ttf", LATIN | {"🚀": (0, 0, 500, 500)})
    system(path)
    # A selector and a joiner say only how the signs beside them are drawn.
    assert font_for("AI 🚀\ufe0f\u200d") == Font(path)


def test_letter_that_draws_nothing_counts_as_missing(tmp_path, system):
    path = write_font(tmp_path / "blank.ttf", LATIN | {"生": (0, 0, 0, 0)})

    assert Font(path).missing("A生 I") == ["生"]


def test_font_of_last_resort_is_never_taken(system):
    # It ships with matplotlib and draws a frame with a code chart for every number.
    path = Path(get_data_path(), "fonts", "ttf", "LastResortHE-Regular.ttf")
    system(path)

    with pytest.raises(SettingsError, match="no letters for 生 成"):
        font_for("AI 生成")


def test_name_finds_family_style_and_a_font_of_a_collection(tmp_path, system):
    regular = write_font(tmp_path / "a.ttf", LATIN, "Studio Sans")
    bold = write_font(tmp_path / "b.ttf", LATIN, "Studio Sans", "Bold")
    other = write_font(tmp_path / "c.ttf", LATIN | CHINESE, "Studio Sans SC")
    both = write_collection(tmp_path / "d.ttc", [regular, other])
    system(both, regular, bold)

    assert font_for("AI", "studio sans") == Font(bold)
    assert font_for("AI", "Studio Sans Regular") in (Font(both), Font(regular))
    assert font_for("生成", "Studio Sans SC") == Font(both, 1)
    assert font_for("AI 生成") == Font(both, 1)
    with pytest.raises(SettingsError, match=r"called \'Studio Sanz\'; similar: Studio Sans"):
        font_for("AI", "Studio Sanz")


def test_damaged_system_fonts_are_passed_over(tmp_path, system):
    torn = tmp_path / "a.ttf"
    torn.write_bytes(b"words")
    whole = write_font(tmp_path / "b.ttf", LATIN | CHINESE)
    system(torn, tmp_path / "gone.ttf", whole)

    assert font_for("生成") == Font(whole)


def test_missing_or_damaged_font_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"font .*none\.ttf does not exist"):
        font_for("AI", str(tmp_path / "none.ttf"))
    # Pillow itself would find this name in the folders of the system.
    with pytest.raises(InputError, match="does not exist"):
        font_for("AI", str(tmp_path / "DejaVuSans.ttf"))
    (tmp_path / "torn.otf").write_bytes(b"OTTO" * 9)
    with pytest.raises(InputError, match=r"torn\.otf cannot be read"):
        font_for("AI", str(tmp_path / "torn.otf"))


def test_font_without_capitals_is_scaled_by_the_usual_height(tmp_path, system):
    path = write_font(tmp_path / "han.ttf", CHINESE)

    _, pixels = drawn("生", str(path))

    rows = np.flatnonzero((pixels > 127).any(axis=(1, 2)))
    assert rows[-1] - rows[0] + 1 == pytest.approx(72, abs=1)


@NEEDS_RAQM
def test_signs_before_a_consonant_are_reordered(tmp_path, system):
    # The vowel sign I is written after KA but drawn on its left.
    path = write_font(tmp_path / "ka.ttf", {"क": (100, 0, 900, 400), "\u093f": (400, 0, 500, 700)})

    lit, _ = drawn("क\u093f", str(path))

    starts, ends = runs(lit)
    widths = [end - start for start, end in zip(starts, ends, strict=True)]
    assert len(widths) == 2
    assert widths[0] * 4 < widths[1]


@NEEDS_RAQM
def test_arabic_letters_are_joined_and_run_from_right_to_left(tmp_path):
    joined, _ = drawn("سلم")
    apart, _ = drawn("س\u200cل\u200cم")  # with non-joiners

    assert len(runs(joined)[0]) == 1
    assert len(runs(apart)[0]) == 3
    path = write_font(tmp_path / "he.ttf", {"א": (0, 0, 100, 700), "ב": (0, 0, 800, 700)})
    starts, ends = runs(drawn("אב", str(path))[0])
    assert ends[0] - starts[0] > 4 * (ends[1] - starts[1])  # the first letter is on the right


def test_letters_to_be_joined_are_refused_without_the_library(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)

    for text in ("سلام", "क\u093f"):
        with pytest.raises(SettingsError, match="FriBiDi"):
            font_for(text)
    assert font_for("généré") == built_in()


def test_accent_of_its_own_is_composed(tmp_path):
    path = write_font(tmp_path / "e.ttf", {"é": (0, 0, 500, 700)})

    assert drawn("e\u0301", str(path))[0].any()


def test_system_files_are_fonts_that_exist():
    assert all(file.is_file() and file.suffix.lower() in fonts.SUFFIXES
               for file in fonts.system_files())  # fmt: skip


def test_wide_text_in_a_font_of_its_own_shrinks_to_fit(tmp_path):
    path = write_font(tmp_path / "han.ttf", LATIN | CHINESE)
    (mark,) = label_of(ConvertConfig(label="生成" * 20, label_font=str(path)))._marks

    (left, _, right, _), _ = mark._draw(360, 640)

    assert 0 <= left < right <= 640
    assert right - left > 0.6 * 640
