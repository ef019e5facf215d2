import numpy as np
import pytest
import torch

from faceswap.faces.expressions import mouth_aspect_ratio, yaw_of
from faceswap.training import data
from faceswap.training.checkpoint import TrainingState
from faceswap.training.dealing import MOST, deck_of
from faceswap.training.distributed import World
from tests.training.test_data import new_run


@pytest.fixture
def frontal(collins_face):
    return collins_face.landmarks.astype(np.float64)


def turned(points, yaw):
    """Move the nose towards an end of the jaw."""
    moved = points.copy()
    moved[30] = (points[0] + points[16]) / 2 + yaw * (points[16] - points[0]) / 2
    return moved


def test_yaw_is_the_place_of_the_nose_between_the_ends_of_the_jaw(frontal):
    for yaw in (-0.8, 0, 0.5):
        assert yaw_of(turned(frontal, yaw)) == pytest.approx(yaw)
        assert yaw_of(3 * turned(frontal, yaw) + 7) == pytest.approx(yaw)


def test_rare_looks_are_dealt_more_often_and_none_is_left_out(frontal):
    profile, open_mouth = turned(frontal, 0.9), frontal.copy()
    open_mouth[65:68, 1] += 10
    assert mouth_aspect_ratio(open_mouth) > mouth_aspect_ratio(frontal) + 0.2
    faces = [frontal] * 90 + [profile] * 2 + [open_mouth] * 8

    dealt = np.bincount(deck_of(np.stack(faces)).numpy(), minlength=100)

    assert (dealt[:90] == 1).all()
    assert (dealt[90:92] == MOST).all()
    assert (dealt[92:] == 3).all()  # the square root of 90 / 8


def test_equal_faces_are_dealt_once(frontal):
    assert deck_of(np.stack([frontal] * 7)).tolist() == list(range(7))


def test_a_pass_uses_the_whole_deck():
    run = TrainingState(None, None, torch.Generator().manual_seed(0), ("a", "b"), (0, 0, 0))
    deck = torch.tensor([0, 1, 1, 1, 2])

    dealt = torch.cat([data.next_indices(run, "a", deck, 5) for _ in range(3)])

    assert [sorted(part.tolist()) for part in dealt.split(5)] == [deck.tolist()] * 3


def test_without_flips_no_face_is_mirrored():
    count = 200
    plain = data.draw_batch(new_run(), torch.arange(count), "b", count, World(), flip=False)
    mixed = data.draw_batch(new_run(), torch.arange(count), "b", count, World())

    def mirrored(draw):  # the determinant of the map from target to crop is negative
        matrices = draw.places[:, 50:].view(-1, 2, 3)[..., :2]
        return int((torch.linalg.det(matrices) < 0).sum())

    assert mirrored(plain) == 0
    assert 50 < mirrored(mixed) < 110  # 40 %
    assert torch.equal(plain.indices, mixed.indices)
