import numpy as np
import pytest

from faceswap.evaluation.occluders import KINDS, occlude


@pytest.mark.parametrize("number", range(6))
def test_occluder_covers_part_of_the_face_and_nothing_else_changes(collins, collins_face, number):
    hidden = occlude(collins, collins_face.landmarks, number)

    changed = (hidden.image != collins).any(axis=2)
    assert not changed[hidden.occluder == 0].any()
    low, high = collins_face.landmarks.min(axis=0), collins_face.landmarks.max(axis=0)
    face = hidden.occluder[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])]
    assert 0.02 < (face > 0.5).mean() < 0.6


def test_same_number_draws_the_same_occluder(collins, collins_face):
    one, two, other = (
        occlude(collins, collins_face.landmarks, number) for number in (0, 0, len(KINDS))
    )

    np.testing.assert_array_equal(one.image, two.image)
    assert (one.occluder != other.occluder).any()


def test_fingers_have_the_color_of_the_face(collins, collins_face):
    fingers = occlude(collins, collins_face.landmarks, KINDS.index("fingers"))
    x, y = collins_face.landmarks[30].astype(int)
    nose = collins[y - 5 : y + 5, x - 5 : x + 5].reshape(-1, 3).mean(axis=0)

    color = fingers.image[fingers.occluder > 0.9].mean(axis=0)

    assert np.abs(color - nose).max() < 60
