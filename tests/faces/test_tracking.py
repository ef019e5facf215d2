from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.faces import detection, tracking
from faceswap.faces.dlib_backend import detect_hog
from faceswap.faces.geometry import transform, warp_image
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame


def frames_of(images):
    return [
        Frame(image, index, Fraction(index, 25), Path("clip.mp4"))
        for index, image in enumerate(images)
    ]


def moved(index):
    """A camera that pans and tilts a little."""
    return np.array([[1.0, 0.01 * index, -60.0 + 2 * index], [-0.01 * index, 1.0, -30.0 + index]])


@pytest.fixture(scope="module")
def pan(collins):
    """Twenty frames, 320 x 300, over a photo."""
    return [warp_image(collins, moved(index), 320, 300) for index in range(20)]


def track_faces(images, workers=1, **options):
    with DetectorPool(0.2, workers) as detector:
        return [
            faces
            for _, faces in tracking.track_faces(frames_of(images), detector, "hog", **options)
        ]


def mean_error(face, points):
    return np.linalg.norm(face.landmarks - points, axis=1).mean()


@pytest.fixture(scope="module")
def found(pan):
    return track_faces(pan)


def test_one_face_keeps_one_number_through_all_segments(found):
    assert [len(faces) for faces in found] == [1] * 20
    assert {face.track for faces in found for face in faces} == {0}


def test_landmarks_go_where_the_face_goes(found, collins_face):
    eyes = np.linalg.norm(collins_face.landmarks[36] - collins_face.landmarks[45])
    for index, (face,) in enumerate(found):
        expected = transform(collins_face.landmarks, moved(index))
        assert mean_error(face, expected) < 0.05 * eyes


def test_steadied_landmarks_shiver_less(pan, found):
    def shiver(some):
        points = np.stack([faces[0].landmarks for faces in some])
        return np.abs(np.diff(points, 2, axis=0)).mean()

    assert shiver(found) < 0.4 * shiver(track_faces(pan, smooth=False))


def test_detection_runs_once_a_segment(pan, monkeypatch):
    calls = []

    def counting(image, min_score):
        calls.append(image.shape)
        return detect_hog(image, min_score)

    monkeypatch.setitem(detection.VIDEO_DETECTORS, "hog", counting)
    track_faces(pan)

    assert calls == [(300, 320)] * 2  # 16 + 4 frames, in grey


def test_several_processes_find_the_same(pan, found):
    for one, other in zip(found, track_faces(pan, workers=2), strict=True):
        np.testing.assert_array_equal(one[0].landmarks, other[0].landmarks)


def test_nothing_is_carried_over_a_cut(pan, hopper):
    still = [warp_image(hopper, np.array([[0.5, 0, 0], [0, 0.5, 0]]), 320, 300)] * 3

    found = track_faces([*pan[:5], *still, *pan[5:8]])

    tracks = [{face.track for face in faces} for faces in found]
    assert all(tracks)
    assert tracks[0] == tracks[4]
    assert tracks[5] == tracks[7]
    assert not tracks[4] & tracks[5]
    assert not tracks[7] & tracks[8]
    exclusive_folder = track_faces(still)
    np.testing.assert_array_equal(found[5][0].landmarks, exclusive_folder[0][0].landmarks)


def test_a_frame_without_a_picture_ends_the_track(pan):
    dark = np.zeros_like(pan[0])

    found = track_faces([*pan[:4], dark, *pan[5:8]])

    assert [len(faces) for faces in found] == [1, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("blind", [0, 1])
def test_a_face_that_one_segment_missed_is_followed_into_it(pan, monkeypatch, blind):
    seen = tracking.detect_in_span
    spans = []

    def sometimes(detector, images, min_score, stride):
        spans.append(len(images))
        if len(spans) - 1 == blind:
            return [[] for _ in images]
        return seen(detector, images, min_score, stride)

    monkeypatch.setattr(tracking, "detect_in_span", sometimes)

    found = track_faces(pan)

    assert spans == [16, 4]
    assert [len(faces) for faces in found] == [1] * 20


def test_no_more_than_a_few_segments_are_held(pan):
    asked = 0

    def frames():
        nonlocal asked
        for _ in range(200):
            asked += 1
            yield frames_of(pan[:1])[0]

    with DetectorPool(0.2, 1) as detector:
        found = tracking.track_faces(frames(), detector, "hog")
        ahead = [asked - number for number, _ in zip(range(60), found, strict=False)]

    assert max(ahead) <= 3 * tracking.SPAN_FRAMES + 5
