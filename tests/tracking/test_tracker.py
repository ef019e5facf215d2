from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.faces import detection
from faceswap.faces.detection import DetectorSpec, detect_hog
from faceswap.faces.geometry import transform, warp_image
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame
from faceswap.tracking import tracker

HOG = DetectorSpec("hog")


def frames_of(images):
    return [
        Frame(image, index, Fraction(index, 25), Path("clip.mp4"))
        for index, image in enumerate(images)
    ]


def moved(index):
    """Matrix of a camera that pans and rotates slightly."""
    return np.array([[1.0, 0.01 * index, -60.0 + 2 * index], [-0.01 * index, 1.0, -30.0 + index]])


@pytest.fixture(scope="module")
def pan(collins):
    """Pan over a photo: 20 frames of 320 x 300 pixels."""
    return [warp_image(collins, moved(index), 320, 300) for index in range(20)]


def track_faces(images, workers=1, **options):
    with DetectorPool(0.2, workers) as detector:
        return [
            faces for _, faces in tracker.track_faces(frames_of(images), detector, HOG, **options)
        ]


def mean_error(face, points):
    return np.linalg.norm(face.landmarks - points, axis=1).mean()


@pytest.fixture(scope="module")
def found(pan):
    return track_faces(pan)


def test_face_keeps_its_track_number_across_spans(found):
    assert [len(faces) for faces in found] == [1] * 20
    assert {face.track for faces in found for face in faces} == {0}


def test_landmarks_move_with_the_face(found, collins_face):
    eyes = np.linalg.norm(collins_face.landmarks[36] - collins_face.landmarks[45])
    for index, (face,) in enumerate(found):
        expected = transform(collins_face.landmarks, moved(index))
        assert mean_error(face, expected) < 0.05 * eyes


def test_smoothing_reduces_landmark_jitter(pan, found):
    def jitter(frames):
        points = np.stack([faces[0].landmarks for faces in frames])
        return np.abs(np.diff(points, 2, axis=0)).mean()

    assert jitter(found) < 0.4 * jitter(track_faces(pan, smooth=False))


def test_detection_runs_once_per_span(pan, monkeypatch):
    calls = []

    def counting(image, min_score, choice, quickly):
        calls.append(image.shape)
        return detect_hog(image, min_score, choice, quickly)

    monkeypatch.setattr(detection, "detect_hog", counting)
    track_faces(pan)

    assert calls == [(300, 320)] * 2  # spans of 16 and 4 frames, in grey


def test_result_does_not_depend_on_the_number_of_processes(pan, found):
    for one, other in zip(found, track_faces(pan, workers=2), strict=True):
        np.testing.assert_array_equal(one[0].landmarks, other[0].landmarks)


def test_tracks_do_not_cross_a_cut(pan, hopper):
    still = [warp_image(hopper, np.array([[0.5, 0, 0], [0, 0.5, 0]]), 320, 300)] * 3

    found = track_faces([*pan[:5], *still, *pan[5:8]])

    tracks = [{face.track for face in faces} for faces in found]
    assert all(tracks)
    assert tracks[0] == tracks[4]
    assert tracks[5] == tracks[7]
    assert not tracks[4] & tracks[5]
    assert not tracks[7] & tracks[8]
    separate = track_faces(still)
    np.testing.assert_array_equal(found[5][0].landmarks, separate[0][0].landmarks)


def test_black_frame_interrupts_the_track(pan):
    dark = np.zeros_like(pan[0])

    found = track_faces([*pan[:4], dark, *pan[5:8]])

    assert [len(faces) for faces in found] == [1, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("failing_span", [0, 1])
def test_face_is_tracked_into_a_span_that_missed_it(pan, monkeypatch, failing_span):
    detect_in_span = tracker.detect_in_span
    spans = []

    def fail_in_one_span(detector, images, min_score, stride):
        spans.append(len(images))
        if len(spans) - 1 == failing_span:
            return [[] for _ in images]
        return detect_in_span(detector, images, min_score, stride)

    monkeypatch.setattr(tracker, "detect_in_span", fail_in_one_span)

    found = track_faces(pan)

    assert spans == [16, 4]
    assert [len(faces) for faces in found] == [1] * 20


def test_only_a_few_spans_are_read_ahead(pan):
    asked = 0

    def frames():
        nonlocal asked
        for _ in range(200):
            asked += 1
            yield frames_of(pan[:1])[0]

    with DetectorPool(0.2, 1) as detector:
        found = tracker.track_faces(frames(), detector, HOG)
        ahead = [asked - number for number, _ in zip(range(60), found, strict=False)]

    assert max(ahead) <= 3 * tracker.SPAN_FRAMES + 5
