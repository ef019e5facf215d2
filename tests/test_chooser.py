from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap import chooser
from faceswap.aligner import describe, find_hog
from faceswap.chooser import Choice, choose, descriptor_of
from faceswap.errors import InputError, NoFacesError
from faceswap.types import Box, Face, Frame


@pytest.fixture(scope="module")
def people(collins, collins_face, hopper):
    (hopper_face,) = find_hog(hopper, 0.2)
    return {
        "collins": describe(collins, collins_face.landmarks),
        "hopper": describe(hopper, hopper_face.landmarks),
    }


def test_a_reference_photo_gives_its_largest_face(tmp_path, collins, people):
    Image.fromarray(collins).save(tmp_path / "c.png")

    descriptor = descriptor_of(tmp_path / "c.png")

    # the finder, and with it the landmarks, may be another than HOG
    assert np.linalg.norm(descriptor - people["collins"]) < 0.3
    assert np.linalg.norm(descriptor - people["hopper"]) > 0.6


def test_a_reference_without_a_face_or_a_file_is_named(tmp_path):
    Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save(tmp_path / "wall.png")

    with pytest.raises(NoFacesError, match=r"no face found in the reference .*wall\.png"):
        descriptor_of(tmp_path / "wall.png")
    with pytest.raises(InputError, match=r"nobody\.png"):
        descriptor_of(tmp_path / "nobody.png")


@pytest.mark.parametrize(
    ("who", "never", "wanted"),
    [
        ((), (), {"collins", "hopper"}),
        (("collins",), (), {"collins"}),
        (("collins", "hopper"), (), {"collins", "hopper"}),
        ((), ("collins",), {"hopper"}),
        (("hopper",), ("collins",), {"hopper"}),
    ],
)
def test_who_is_wanted(people, who, never, wanted):
    choice = Choice(tuple(people[n] for n in who), tuple(people[n] for n in never))

    assert {name for name, found in people.items() if choice.wants(found)} == wanted


def clip_of(*tracks):
    """Frames in which faces of these tracks are seen; a track's number says who it is."""
    image = np.zeros((8, 8, 3), np.uint8)
    return [
        (
            Frame(image, index, Fraction(index), Path("x.mp4")),
            [
                Face(Box(0, 0, 9 - t, 9), 1.0, np.full((68, 2), looks, np.float32), t)
                for t, looks in some.items()
            ],
        )
        for index, some in enumerate(tracks)
    ]


@pytest.fixture
def by_landmarks(monkeypatch):
    """A face looks like a person as far as its landmarks say."""
    calls = []

    def look(image, landmarks):
        calls.append(1)
        return landmarks[0, :1]

    monkeypatch.setattr(chooser, "describe", look)
    return calls


def tracks_of(found):
    return [[face.track for face in faces] for _, faces in found]


def test_a_track_is_decided_once_by_the_majority(by_landmarks):
    # track 0 looks like the one wanted (0) in most frames, track 1 (9) in none
    frames = clip_of(*({0: 5 if i == 0 else 0, 1: 9} for i in range(40)))

    found = choose(frames, Choice((np.zeros(1, np.float32),)))

    assert tracks_of(found) == [[0]] * 40
    assert len(by_landmarks) == 2 * chooser.VOTES


def test_the_largest_of_those_chosen_is_kept(by_landmarks):
    frames = clip_of(*({0: 9, 1: 0, 2: 0} for _ in range(3)))

    found = choose(frames, Choice((np.zeros(1, np.float32),), largest=True))

    assert tracks_of(found) == [[1]] * 3
    assert tracks_of(choose(frames, Choice(largest=True))) == [[0]] * 3


def test_photos_are_decided_one_by_one(by_landmarks):
    frames = clip_of({-1: 0}, {-1: 9})

    assert tracks_of(choose(frames, Choice((np.zeros(1, np.float32),)))) == [[-1], []]


def test_without_a_choice_everything_passes():
    frames = clip_of({0: 1, 1: 2}, {})

    assert list(choose(frames, Choice())) == frames
