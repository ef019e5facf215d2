from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from faceswap.faces.geometry import align_face, transform
from faceswap.facesets.faceset import Faceset
from faceswap.media.frame import Frame
from faceswap.models.architectures import PRESETS
from faceswap.models.exemplars import identity_map
from faceswap.training.portraits import (
    Portraits,
    choose_exemplars,
    guide_of,
    measure_paintings,
    portraits,
    seen,
    with_eyes,
)

COUNT = 12
MODEL = PRESETS["small"]


@pytest.fixture(scope="module")
def faceset(collins, collins_face):
    """The same face twelve times, lit differently and a little turned and moved."""
    aligned = align_face(Frame(collins, 0, Fraction(0), Path()), collins_face, 256, 0.625)
    points = transform(collins_face.landmarks, aligned.matrix)
    random = np.random.default_rng(0)
    crops, landmarks = [], []
    for number in range(COUNT):
        matrix = cv2.getRotationMatrix2D((128, 128), random.uniform(-4, 4), 1.0)
        matrix[:, 2] += random.uniform(-4, 4, 2)
        moved = cv2.warpAffine(aligned.image, matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE)
        lit = moved.astype(np.float32) * (0.7 + 0.04 * number)
        crops.append(np.clip(lit, 0, 255).astype(np.uint8))
        landmarks.append(transform(points, matrix))
    stacked = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    keys = [f"{number}.png#0-0" for number in range(COUNT)]
    points, times = np.stack(landmarks).astype(np.float32), np.zeros(COUNT)
    unknown = np.full((COUNT, 128), np.nan, np.float32)
    return Faceset("x", stacked, points, keys, 0.625, times, ["dlib"] * COUNT, unknown)


def changed(faceset, crops):
    return replace(faceset, crops=crops)


def test_no_photo_is_chosen_twice(faceset):
    exemplars, keys = choose_exemplars(faceset, MODEL, 4)

    assert len(exemplars.crops) == len(set(keys)) == 4
    assert len(choose_exemplars(faceset, MODEL, 1000)[1]) < COUNT  # some are soft or odd


def test_soft_photos_are_not_chosen(faceset):
    crops = faceset.crops.clone()
    for number in range(4):
        image = crops[number].permute(1, 2, 0).numpy()
        crops[number] = torch.from_numpy(cv2.GaussianBlur(image, (0, 0), 2)).permute(2, 0, 1)

    _, keys = choose_exemplars(changed(faceset, crops), MODEL, 60)

    assert not {*faceset.keys[:4]} & {*keys}


def test_covered_faces_are_not_chosen(faceset):
    crops = faceset.crops.clone()
    for number in (8, 10, 11):  # a striped bar over the cheek
        x, y = (faceset.landmarks[number][2] + (14, -10)).round().astype(int)
        crops[number, :, y : y + 16, x : x + 20 : 4] = 255
        crops[number, :, y : y + 16, x + 2 : x + 22 : 4] = 0

    _, keys = choose_exemplars(changed(faceset, crops), MODEL, 60)

    assert not {faceset.keys[8], faceset.keys[10], faceset.keys[11]} & {*keys}


def test_portraits_show_the_network_crop_with_detail_of_another_photo(faceset):
    exemplars, keys = choose_exemplars(faceset, MODEL, 4)
    own = {key: number for number, key in enumerate(keys)}

    people = portraits(faceset, faceset.crops, MODEL, guide_of(exemplars, MODEL), own)

    assert people.images.shape == people.details.shape == (COUNT, 3, 240, 240)
    assert [key for key, photo in zip(faceset.keys, people.photos, strict=True)
            if own.get(key) == photo] == []  # fmt: skip
    inner = faceset.crops[0, :, 26:230, 26:230].float()[None]
    expected = torch.nn.functional.interpolate(inner, size=(240, 240), mode="bicubic")[0]
    difference = (people.images[0].float() - expected)[:, 8:-8, 8:-8].abs()
    assert difference.mean() < 4
    assert np.isfinite(people.gaze).all()


def test_no_faces_give_no_portraits(faceset):
    empty = faceset.subset([])

    people = portraits(empty, empty.crops, MODEL, None)

    assert len(people) == 0
    assert people.points.shape == (0, 68, 2)


def test_faces_without_photos_keep_their_painted_eyes(faceset):
    people = portraits(faceset, faceset.crops, MODEL, None)
    decoded = torch.rand(COUNT, 3, 80, 80)

    assert people.details is None
    assert with_eyes(decoded, people) is decoded


class Mirror(torch.nn.Module):
    """Paints every face moved right by 3 of 80 pixels."""

    config = MODEL

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def swap(self, images, to, strength):
        return images.roll(3, dims=3)


def test_painted_landmarks_lie_where_the_network_paints_them(faceset):
    many = faceset.subset(faceset.keys)
    people = portraits(many, many.crops, MODEL, None)
    twice = Portraits(
        people.images.repeat(2, 1, 1, 1), None, np.tile(people.photos, 2), None,
        np.tile(people.points, (2, 1, 1)), np.tile(people.gaze, 2),
    )  # fmt: skip
    exemplars, _ = choose_exemplars(faceset, MODEL, 4)
    network = Mirror()
    run = SimpleNamespace(network=network, ema_or_model=network, color_shift=(0, 0, 0),
                          exemplars={"b": exemplars})  # fmt: skip

    measure_paintings(run, {"a": twice, "b": people}, None)

    found = guide_of(run.exemplars["b"], MODEL)
    assert not np.array_equal(run.exemplars["b"].painted, identity_map())
    for look in people.looks():
        moved = found.painted(look).points - look.points
        assert np.median(moved[:, 0]) == pytest.approx(3 / 80, abs=0.008)
        assert abs(np.median(moved[:, 1])) < 0.008
    np.testing.assert_allclose(run.exemplars["b"].usual[0], run.exemplars["b"].usual[1])


def test_network_sees_shrunk_portraits(faceset):
    people = portraits(faceset, faceset.crops, MODEL, None)
    run = SimpleNamespace(network=Mirror(), color_shift=(0.1, 0, 0))

    plain, shifted = (seen(run, people, key) for key in "ba")

    assert plain.shape == (COUNT, 3, 80, 80)
    assert float((shifted - plain)[:, 0].median()) == pytest.approx(0.1, abs=1e-3)
