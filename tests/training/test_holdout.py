from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from faceswap.facesets.faceset import Faceset
from faceswap.training.holdout import GAP, split


def faces_of(*sources):
    """A faceset of random crops; each source is (name, times)."""
    keys = [f"{name}#{index}-0" for name, times in sources for index in range(len(times))]
    times = np.concatenate([np.asarray(times, np.float64) for _, times in sources])
    noise = np.random.default_rng(0).integers(0, 256, (len(keys), 8, 8, 3)).astype(np.uint8)
    crops = np.stack([cv2.resize(image, (64, 64)) for image in noise]).transpose(0, 3, 1, 2)
    points = np.zeros((len(keys), 68, 2), np.float32)
    unknown = np.full((len(keys), 128), np.nan, np.float32)
    by = ["dlib"] * len(keys)
    return Faceset("x", torch.from_numpy(crops.copy()), points, keys, 0.625, times, by, unknown)


def video(name, seconds, rate=30.0):
    return name, np.arange(round(seconds * rate)) / rate


def seconds_of(faceset, keys):
    return faceset.times[[faceset.keys.index(key) for key in keys]]


@pytest.mark.parametrize("seconds", [7, 60, 600])
def test_held_out_frames_are_a_second_from_every_training_frame(seconds):
    faceset = faces_of(video("clip.mp4", seconds))

    found = split(faceset, 0.1)

    held_out = seconds_of(faceset, found.held_out)
    unseen = {*found.held_out, *found.left_out}
    trained = seconds_of(faceset, [key for key in faceset.keys if key not in unseen])
    assert np.abs(held_out[:, None] - trained).min() >= GAP
    assert len(held_out) == pytest.approx(0.1 * len(faceset.keys), rel=0.1)
    assert len(trained) >= 0.68 * len(faceset.keys)


def test_long_video_is_held_out_in_five_blocks():
    faceset = faces_of(video("clip.mp4", 120))

    held_out = seconds_of(faceset, split(faceset, 0.1).held_out)

    assert (np.diff(held_out) > 1).sum() == 4


def test_each_video_is_split_by_its_own_time():
    faceset = faces_of(video("a.mp4", 30), video("b.mp4", 30))

    found = split(faceset, 0.1)

    for name in ("a.mp4", "b.mp4"):
        assert sum(key.startswith(name) for key in found.held_out) == pytest.approx(90, abs=3)


def test_every_tenth_photo_is_held_out():
    faceset = faces_of(*((f"{number}.jpg", [0.0]) for number in range(30)))

    assert split(faceset, 0.1).held_out == faceset.keys[::10]
    assert split(faceset, 0.1).left_out == []


def test_photo_of_the_same_moment_is_left_out():
    faceset = faces_of(*((f"{number}.jpg", [0.0]) for number in range(30)))
    brighter = (0.8 * faceset.crops[0].float() + 30).round().to(torch.uint8)
    crops = faceset.crops.clone()
    crops[14] = brighter

    assert split(replace(faceset, crops=crops), 0.1).left_out == [faceset.keys[14]]


def test_nothing_is_left_out_of_photos_that_all_look_alike(caplog):
    faceset = faces_of(*((f"{number}.jpg", [0.0]) for number in range(30)))
    same = faceset.crops[:1].expand(30, -1, -1, -1).clone()

    found = split(replace(faceset, crops=same), 0.1)

    assert len(found.held_out) == 3
    assert found.left_out == []
    assert "most faces look like the held-out ones" in caplog.text


def test_share_of_zero_holds_nothing_out():
    assert split(faces_of(video("clip.mp4", 10)), 0.0).held_out == []
