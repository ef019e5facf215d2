"""A label that anybody can read, in the right place, drawn once."""

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


def place_of(frame):
    ((window, _),) = frame.changes
    return window


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [0.03, 0.05, 0.1])
def test_a_capital_is_as_high_as_asked(size):
    _, pixels = draw((720, 1280), "HH", "top-left", size)

    rows = np.flatnonzero((pixels > 127).any(axis=(1, 2)))
    assert abs(rows[-1] - rows[0] + 1 - size * 720) <= 1


@pytest.mark.parametrize("position", get_args(LabelPosition))
def test_it_stands_in_its_corner_and_nothing_else_changes(position):
    image = noise(240, 320)

    labelled = Label("AI-generated", position, 0.05).on(frame_of(image))

    changed = (labelled.image != image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    left, top, right, bottom = place_of(labelled)
    assert top <= rows[0] <= rows[-1] < bottom
    assert left <= columns[0] <= columns[-1] < right
    assert (rows[-1] < 60) if position.startswith("top") else (rows[0] >= 180)
    assert (columns[0] < 20) if position.endswith("left") else (columns[-1] >= 300)


@pytest.mark.parametrize("background", [0, 128, 255, "noise"])
def test_letters_stand_out_from_any_picture(background):
    image = (
        noise(240, 320) if background == "noise" else np.full((240, 320, 3), background, np.uint8)
    )

    labelled = Label("AI", "bottom-left", 0.1).on(frame_of(image))

    left, top, right, bottom = place_of(labelled)
    plate = labelled.image[top:bottom, left:right]
    assert plate.max() == 255
    edge = np.concatenate([plate[0], plate[-1], plate[:, 0], plate[:, -1]])
    assert not edge.any()  # black all around the letters
    assert (plate == 0).mean() > 0.5
    assert (plate > 127).mean() > 0.1


def test_what_was_changed_before_stays_marked_as_changed():
    swapped = frame_of(noise(240, 320)).changed((200, 150, 260, 220), noise(70, 60))

    both = Label("AI", "top-left", 0.1).on(swapped)

    assert len(both.changes) == 2
    assert both.changes[0] == swapped.changes[0]
    np.testing.assert_array_equal(both.image[150:220, 200:260], noise(70, 60))


def test_it_is_drawn_once_for_each_size(monkeypatch):
    sizes = []

    def counted(shape, *others):
        sizes.append(shape)
        return draw(shape, *others)

    monkeypatch.setattr(label, "draw", counted)
    writing = Label("AI-generated", "top-right", 0.05)

    frames = [writing.on(frame_of(noise(240, 320), index)) for index in range(5)]
    writing.on(frame_of(noise(120, 160)))

    assert sizes == [(240, 320), (120, 160)]
    assert all(np.array_equal(frame.image, frames[0].image) for frame in frames)


def test_the_frame_given_is_left_alone():
    image = noise(120, 160)
    before = image.copy()

    Label("AI", "top-left", 0.1).on(frame_of(image))

    assert np.array_equal(image, before)


def test_words_too_long_become_smaller_and_stay_in_the_picture():
    words = "Made with artificial intelligence"

    (left, top, right, bottom), pixels = draw((240, 320), words, "bottom-right", 0.2)

    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 240
    assert pixels.shape == (bottom - top, right - left, 3)
    assert right - left > 0.6 * 320  # no smaller than needed


def test_what_nobody_could_read_is_refused():
    with pytest.raises(SettingsError, match="not legible in a picture of 64x48 pixels"):
        draw((48, 64), "Made with artificial intelligence", "top-left", 0.1)


@pytest.mark.parametrize("text", ["KI-generiert: künstlich", "généré par IA", "Сгенерировано ИИ",
                                  "Τεχνητή νοημοσύνη"])  # fmt: skip
def test_european_letters_are_there(text):
    Label(text, "top-left", 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "one line of words"), ("a\nb", "one line of words"), ("日本", "cannot hold 日 本")],
)
def test_words_that_cannot_be_written_are_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        Label(text, "top-left", 0.05)


def test_its_settings_are_checked():
    with pytest.raises(SettingsError, match=r"label_size must be from 0\.02"):
        ConvertConfig(label_size=0.5)
    with pytest.raises(SettingsError, match="label_position must be one of"):
        replace(ConvertConfig(), label_position="middle")
