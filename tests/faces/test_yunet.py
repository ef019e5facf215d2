"""How certain YuNet is of a face in an aligned crop tells clear faces from doubtful ones."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap.faces import yunet
from faceswap.faces.detection import detect_hog
from faceswap.faces.geometry import align_face
from faceswap.media.frame import Frame


def crop_of(photo):
    (face,) = detect_hog(photo, 0.2)
    return align_face(Frame(photo, 0, Fraction(0), Path("x")), face, 256, 0.625).image


@pytest.mark.parametrize("name", ["collins", "hopper"])
def test_certainty_falls_as_a_face_gets_blurred_or_noisy(request, name):
    crop = crop_of(request.getfixturevalue(name))
    noise = np.random.default_rng(0).normal(0, 90, crop.shape)
    noisy = np.clip(crop * 0.4 + 60 + noise, 0, 255).astype(np.uint8)

    clear, soft, gone = (
        yunet.certainty(image)
        for image in (crop, cv2.GaussianBlur(crop, (0, 0), 16), cv2.GaussianBlur(crop, (0, 0), 40))
    )

    assert clear > 0.9
    assert 0.5 < soft < clear - 0.04
    assert gone == 0
    assert yunet.certainty(noisy) < clear - 0.04


def test_only_a_face_in_the_middle_counts(collins):
    crop = crop_of(collins)
    aside = np.roll(crop, 100, axis=1)
    aside[:, :100] = 0

    assert yunet.certainty(aside) == 0
    assert yunet.certainty(np.full_like(crop, 127)) == 0
