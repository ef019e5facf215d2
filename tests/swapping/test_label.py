"""Labels are legible, placed in the right corner and drawn once per frame size."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from faceswap.config import ConvertConfig, LabelPosition
from faceswap.errors import SettingsError
from faceswap.media.frame import Frame
from faceswap.swapping import label
from faceswap.swapping.label import Label, draw


def frame_of(image, index=0):
    return Frame(image, index, Fraction(index), Path("x.mp4"))


def rect_of(frame):
    ((rect, _),) = frame.changes
    return rect


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [0.03, 0.05, 0.1])
def test_capital_height_matches_the_size(size):
    _, pixels = draw((720, 1280), "HH", "top-left", size)

    rows = np.flatnonzero((pixels > 127).any(axis=(1, 2)))
    assert abs(rows[-1] - rows[0] + 1 - size * 720) <= 1


@pytest.mark.parametrize("position", get_args(LabelPosition))
def test_label_is_in_its_corner_and_changes_nothing_else(position):
    image = noise(240, 320)

    labelled = Label("AI-generated", position, 0.05).on(frame_of(image))

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

    labelled = Label("AI", "bottom-left", 0.1).on(frame_of(image))

    left, top, right, bottom = rect_of(labelled)
    plate = labelled.image[top:bottom, left:right]
    assert plate.max() == 255
    edge = np.concatenate([plate[0], plate[-1], plate[:, 0], plate[:, -1]])
    assert not edge.any()  # black all around the letters
    assert (plate == 0).mean() > 0.5
    assert (plate > 127).mean() > 0.1


def test_earlier_changes_of_a_frame_stay_recorded():
    swapped = frame_of(noise(240, 320)).changed((200, 150, 260, 220), noise(70, 60))

    both = Label("AI", "top-left", 0.1).on(swapped)

    assert len(both.changes) == 2
    assert both.changes[0] == swapped.changes[0]
    np.testing.assert_array_equal(both.image[150:220, 200:260], noise(70, 60))


def test_label_is_drawn_once_per_frame_size(monkeypatch):
    sizes = []

    def counting_draw(shape, *others):
        sizes.append(shape)
        return draw(shape, *others)

    monkeypatch.setattr(label, "draw", counting_draw)
    labeller = Label("AI-generated", "top-right", 0.05)

    frames = [labeller.on(frame_of(noise(240, 320), index)) for index in range(5)]
    labeller.on(frame_of(noise(120, 160)))

    assert sizes == [(240, 320), (120, 160)]
    assert all(np.array_equal(frame.image, frames[0].image) for frame in frames)


def test_input_frame_is_not_modified():
    image = noise(120, 160)
    before = image.copy()

    Label("AI", "top-left", 0.1).on(frame_of(image))

    assert np.array_equal(image, before)


def test_long_text_shrinks_to_fit_the_image():
    text = "Made with artificial intelligence"

    (left, top, right, bottom), pixels = draw((240, 320), text, "bottom-right", 0.2)

    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 240
    assert pixels.shape == (bottom - top, right - left, 3)
    assert right - left > 0.6 * 320  # no smaller than needed


def test_illegible_label_is_refused():
    with pytest.raises(SettingsError, match="not legible in an image of 64x48 pixels"):
        draw((48, 64), "Made with artificial intelligence", "top-left", 0.1)


@pytest.mark.parametrize("text", ["KI-generiert: künstlich", "généré par IA", "Сгенерировано ИИ",
                                  "Τεχνητή νοημοσύνη"])  # fmt: skip
def test_european_letters_are_supported(text):
    Label(text, "top-left", 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a single line of text"),
        ("a\nb", "a single line of text"),
        ("日本", "font has no letters for 日 本"),
    ],
)
def test_invalid_text_is_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        Label(text, "top-left", 0.05)


def test_label_settings_are_validated():
    with pytest.raises(SettingsError, match=r"label_size must be from 0\.02"):
        ConvertConfig(label_size=0.5)
    with pytest.raises(SettingsError, match="label_position must be one of"):
        replace(ConvertConfig(), label_position="middle")
