"""Labels are legible, placed in the right corner and drawn once per frame size."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ICONS, ConvertConfig, Corner
from faceswap.errors import InputError, SettingsError
from faceswap.media.frame import Frame
from faceswap.media.photos import PhotoWriter, read_photo
from faceswap.swapping import label
from faceswap.swapping.label import draw, icon, label_of, words


def frame_of(image, index=0):
    return Frame(image, index, Fraction(index), Path("x.mp4"))


def rect_of(frame):
    ((rect, _),) = frame.changes
    return rect


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [0.03, 0.05, 0.1])
def test_capital_height_matches_the_size(size):
    _, pixels = words("HH", "top-left", size)._draw(720, 1280)

    rows = np.flatnonzero((pixels > 127).any(axis=(1, 2)))
    assert abs(rows[-1] - rows[0] + 1 - size * 720) <= 1


@pytest.mark.parametrize("position", get_args(Corner))
def test_label_is_in_its_corner_and_changes_nothing_else(position):
    image = noise(240, 320)

    labelled = words("AI-generated", position, 0.05).on(frame_of(image))

    changed = (labelled.image != image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    left, top, right, bottom = rect_of(labelled)
    assert top <= rows[0] <= rows[-1] < bottom
    assert left <= columns[0] <= columns[-1] < right
    assert (rows[-1] < 60) if position.startswith("top") else (rows[0] >= 180)
    assert (columns[0] < 20) if position.endswith("left") else (columns[-1] >= 300)


@pytest.mark.parametrize("background", [0, 128, 255, "noise"])
def test_letters_stand_out_from_any_background(background):
    image = (
        noise(240, 320) if background == "noise" else np.full((240, 320, 3), background, np.uint8)
    )

    labelled = words("AI", "bottom-left", 0.1).on(frame_of(image))

    left, top, right, bottom = rect_of(labelled)
    plate = labelled.image[top:bottom, left:right]
    assert plate.max() == 255
    edge = np.concatenate([plate[0], plate[-1], plate[:, 0], plate[:, -1]])
    assert not edge.any()  # black all around the letters
    assert (plate == 0).mean() > 0.5
    assert (plate > 127).mean() > 0.1


def test_earlier_changes_of_a_frame_stay_recorded():
    swapped = frame_of(noise(240, 320)).changed((200, 150, 260, 220), noise(70, 60))

    both = words("AI", "top-left", 0.1).on(swapped)

    assert len(both.changes) == 2
    assert both.changes[0] == swapped.changes[0]
    np.testing.assert_array_equal(both.image[150:220, 200:260], noise(70, 60))


def test_label_is_drawn_once_per_frame_size(monkeypatch):
    sizes = []

    def counting_draw(shape, *others):
        sizes.append(shape)
        return draw(shape, *others)

    monkeypatch.setattr(label, "draw", counting_draw)
    labeller = words("AI-generated", "top-right", 0.05)

    frames = [labeller.on(frame_of(noise(240, 320), index)) for index in range(5)]
    labeller.on(frame_of(noise(120, 160)))

    assert sizes == [(240, 320), (120, 160)]
    assert all(np.array_equal(frame.image, frames[0].image) for frame in frames)


def test_input_frame_is_not_modified():
    image = noise(120, 160)
    before = image.copy()

    words("AI", "top-left", 0.1).on(frame_of(image))

    assert np.array_equal(image, before)


def test_long_text_shrinks_to_fit_the_image():
    mark = words("Made with artificial intelligence", "bottom-right", 0.2)

    (left, top, right, bottom), pixels = mark._draw(240, 320)

    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 240
    assert pixels.shape == (bottom - top, right - left, 3)
    assert right - left > 0.6 * 320  # no smaller than needed


def test_illegible_label_is_refused():
    with pytest.raises(SettingsError, match="not legible in an image of 64x48 pixels"):
        words("Made with artificial intelligence", "top-left", 0.1).on(frame_of(noise(48, 64)))


@pytest.mark.parametrize("text", ["KI-generiert: künstlich", "généré par IA", "Сгенерировано ИИ",
                                  "Τεχνητή νοημοσύνη"])  # fmt: skip
def test_european_letters_are_supported(text):
    words(text, "top-left", 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a single line of text"),
        ("a\nb", "a single line of text"),
    ],
)
def test_invalid_text_is_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        words(text, "top-left", 0.05)


def test_label_settings_are_validated():
    with pytest.raises(SettingsError, match=r"label_size must be from 0\.02"):
        ConvertConfig(label_size=0.5)
    with pytest.raises(SettingsError, match="label_position must be one of"):
        replace(ConvertConfig(), label_position="middle")


def inside(frame, image):
    """Return the pixels of the only label, and those under it."""
    left, top, right, bottom = rect_of(frame)
    return frame.image[top:bottom, left:right], image[top:bottom, left:right]


@pytest.mark.parametrize("name", ICONS)
@pytest.mark.parametrize("background", [0, 118, 255, "noise"])
def test_icons_stand_out_from_any_background(name, background):
    image = (
        noise(360, 640) if background == "noise" else np.full((360, 640, 3), background, np.uint8)
    )

    shown, _ = inside(icon(name, "top-right", 0.06).on(frame_of(image)), image)

    middle = shown[shown.shape[0] // 2]
    # From the middle of the left edge: a black border, a white one, then the plate.
    assert middle[1].max() < 20
    assert middle[4].min() > 235
    gray = shown.mean(axis=2)
    assert (gray > 235).mean() > 0.15
    assert (gray < 20).mean() > 0.15
    height = round(label.ICON_HEIGHT * round(0.06 * 360))
    assert shown.shape[0] == height


def test_icons_are_told_apart_by_their_words():
    widths = [rect_of(icon(name, "top-left", 0.06).on(frame_of(noise(360, 640))))[2]
              for name in ("ai", "modified", "generated")]  # fmt: skip

    assert widths == sorted(set(widths))


def test_icon_is_top_right_unless_the_settings_say_otherwise():
    frame = frame_of(noise(360, 640))

    both = label_of(ConvertConfig(label="Satire", label_icon="modified")).on(frame)
    alone = label_of(ConvertConfig(label_icon="ai", label_position="bottom-left")).on(frame)
    moved = label_of(
        ConvertConfig(label="Satire", label_icon="ai", label_position="bottom-left")
    ).on(frame)

    (words_at, _), (icon_at, _) = both.changes
    assert words_at[1] > 300
    assert words_at[2] > 600
    assert icon_at[1] < 20
    assert icon_at[2] > 600
    left, top, *_ = rect_of(alone)
    assert left < 20
    assert top > 300
    (words_at, _), (icon_at, _) = moved.changes
    assert words_at[0] < 20
    assert words_at[1] > 300
    assert icon_at[1] < 20
    assert icon_at[2] > 600


def test_rounded_corners_and_transparent_artwork_show_the_footage(tmp_path):
    artwork = np.zeros((40, 80, 4), np.uint8)
    artwork[:, 40:] = (200, 0, 0, 255)
    artwork[:, 20:40] = (200, 0, 0, 128)
    Image.fromarray(artwork).save(tmp_path / "own.png")
    image = noise(400, 400)
    size = 40 / 400 / label.ICON_HEIGHT  # so that it keeps its size

    shown, under = inside(icon(str(tmp_path / "own.png"), "top-left", size).on(frame_of(image)),
                          image)  # fmt: skip

    assert shown.shape == (40, 80, 3)
    np.testing.assert_array_equal(shown[:, :19], under[:, :19])
    np.testing.assert_array_equal(shown[:, 41:], np.broadcast_to([200, 0, 0], (40, 39, 3)))
    half = under[:, 21:39] * (127 / 255) + np.array([200, 0, 0]) * (128 / 255)
    assert np.abs(shown[:, 21:39] - half).max() <= 1
    badge, behind = inside(icon("modified", "top-left", 0.1).on(frame_of(image)), image)
    np.testing.assert_array_equal(badge[0, 0], behind[0, 0])


def test_artwork_keeps_its_proportions_and_shrinks_to_fit(tmp_path):
    Image.new("RGB", (600, 60), "navy").save(tmp_path / "wide.jpg")

    shown = icon(str(tmp_path / "wide.jpg"), "bottom-right", 0.2).on(frame_of(noise(240, 320)))

    left, top, right, bottom = rect_of(shown)
    assert 0.6 * 320 < right - left <= 0.9 * 320
    assert (right - left) / (bottom - top) == pytest.approx(10, abs=0.3)


@pytest.mark.parametrize("depth", [8, 16])
def test_label_is_visible_on_transparent_photos(tmp_path, depth):
    import cv2

    clear = np.zeros((120, 240, 4), np.uint8 if depth == 8 else np.uint16)
    cv2.imwrite(str(tmp_path / "clear.png"), clear)
    settings = ConvertConfig(label="AI", label_icon="modified", label_size=0.1)

    PhotoWriter(tmp_path / "out.png", tmp_path / "clear.png").write(
        label_of(settings).on(read_photo(tmp_path / "clear.png"))
    )

    alpha = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)[..., 3]
    shown = read_photo(tmp_path / "out.png").image
    whole = np.iinfo(alpha.dtype).max
    assert (alpha[shown.max(axis=2) > 200] == whole).all()
    assert (shown.max(axis=2) > 200).sum() > 300
    assert alpha[:, :40].max() == 0
    assert alpha[60].max() == 0


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, InputError, "does not exist; --label-icon takes generated, modified, ai or"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", InputError, "save it as a PNG"),
        (b"\x89PNG\r\n\x1a\ntorn", InputError, "save it as a PNG"),
    ],
)
def test_unreadable_artwork_is_refused(tmp_path, content, error, message):
    path = tmp_path / "own.png"
    if content:
        path.write_bytes(content)

    with pytest.raises(error, match=message):
        icon(str(path), "top-right", 0.05)


def test_invisible_artwork_is_refused(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")

    with pytest.raises(SettingsError, match="fully transparent"):
        icon(str(tmp_path / "clear.png"), "top-right", 0.05)


def test_settings_of_a_label_that_is_not_drawn_are_refused():
    with pytest.raises(SettingsError, match="--label-font needs the words of a --label"):
        ConvertConfig(label_font="Arial", label_icon="ai")
    with pytest.raises(SettingsError, match="the icon is top right"):
        ConvertConfig(label="AI", label_icon="ai", label_position="top-right")
