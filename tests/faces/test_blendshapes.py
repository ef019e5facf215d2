"""Check the expression scores."""

import numpy as np
import pytest

from faceswap.faces import blendshapes
from faceswap.faces.detection import detect_yunet
from faceswap.media.reader import read_video


def test_points_and_names_fit_the_network():
    assert len(blendshapes.TAKEN) == len(set(blendshapes.TAKEN)) == 146
    assert max(blendshapes.TAKEN) < 478
    assert len(blendshapes.NAMES) == len(set(blendshapes.NAMES)) == 52


def test_a_smile_is_scored_as_one(collins, collins_face):
    scores = dict(zip(blendshapes.NAMES, blendshapes.of_face(collins, collins_face.landmarks),
                      strict=True))  # fmt: skip

    assert min(scores["mouthSmileLeft"], scores["mouthSmileRight"]) > 0.5
    assert max(scores["eyeBlinkLeft"], scores["mouthFrownLeft"]) < 0.3


def test_mirrored_face_has_mirrored_scores(collins, collins_face):
    mirrored = np.ascontiguousarray(collins[:, ::-1])
    (face,) = detect_yunet(mirrored, 0.2)
    one = blendshapes.of_face(collins, collins_face.landmarks)
    other = blendshapes.of_face(mirrored, face.landmarks)

    swapped = {"Left": "Right", "Right": "Left"}
    order = [
        blendshapes.NAMES.index(name.replace(side, swapped[side]))
        if (side := next((s for s in swapped if s in name), "")) else index
        for index, name in enumerate(blendshapes.NAMES)
    ]  # fmt: skip
    assert np.abs(one - other[order]).mean() < 0.06


def test_noise_has_no_expression(collins, collins_face):
    noise = np.random.default_rng(0).integers(0, 256, collins.shape, dtype=np.uint8)

    assert blendshapes.of_face(noise, collins_face.landmarks) is None
    assert blendshapes.of_face(collins, np.full((68, 2), 9, np.float32)) is None


def test_distance_compares_one_part_only():
    one, other = np.zeros(52, np.float32), np.zeros(52, np.float32)
    other[blendshapes.NAMES.index("eyeBlinkLeft")] = 1

    assert blendshapes.distance(one, other, "eyes") == pytest.approx(1 / 14)
    assert blendshapes.distance(one, other, "mouth") == 0


def test_blinks_and_grins_of_a_clip_are_seen(shared):
    scores = {}
    for frame in read_video(shared / "video" / "talking_512.mp4"):
        if frame.index in (300, 450):
            face = detect_yunet(frame.image, 0.2)[0]
            found = blendshapes.of_face(frame.image, face.landmarks)
            scores[frame.index] = dict(zip(blendshapes.NAMES, found, strict=True))
        if frame.index > 450:
            break

    assert scores[300]["mouthSmileLeft"] > 0.8
    assert scores[300]["eyeBlinkLeft"] < scores[450]["eyeBlinkLeft"] > 0.6
