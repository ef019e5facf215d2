"""Check YuNet, FaceMesh and the choice between their landmarks and dlib's."""

import cv2
import numpy as np
import pytest

from faceswap.faces import dlib_backend, landmarks, mesh, yunet
from faceswap.faces.detection import detect_hog, detect_yunet
from faceswap.faces.geometry import Box, Detection
from faceswap.faces.pose import five_of


def error(points, expected):
    """Mean landmark distance, divided by the distance between the eyes."""
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    return np.linalg.norm(points - expected, axis=1).mean() / eyes


@pytest.fixture(params=["collins", "hopper"])
def photo(request):
    """A portrait and its landmarks from HOG and dlib."""
    image = request.getfixturevalue(request.param)
    return image, detect_hog(image, 0.2)[0].landmarks


def test_face_is_detected_with_its_points(photo):
    image, expected = photo

    (found,) = yunet.detect(image, 0.2, 640)

    assert found.score > 1
    assert found.box.left < expected[:, 0].min() + 20
    assert found.box.right > expected[:, 0].max() - 20
    side = np.ptp(expected[:, 0])
    assert np.linalg.norm(found.points - five_of(expected), axis=1).max() < 0.12 * side


def test_a_high_minimum_score_excludes_a_face(photo):
    image, _ = photo
    (found,) = yunet.detect(image, 0.2, 640)

    assert yunet.detect(image, found.score + 0.01, 640) == []


def test_image_without_a_face_has_none():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)

    assert yunet.detect(noise, 0.2, 640) == []


def test_narrow_images_after_others_have_no_face(collins):
    """OpenCV 4 reads memory of earlier images in them."""
    for width in range(1, 64):
        yunet.detect(collins[: 300 + 2 * width], 0.2, 640)
        pink = np.full((width, 500 + 3 * width, 3), (255, 192, 203), np.uint8)

        assert yunet.detect(pink, -1.0, 640) == []
        assert yunet.detect(np.ascontiguousarray(np.rot90(pink)), -1.0, 640) == []


def test_shrinking_the_image_keeps_places(photo):
    image, _ = photo

    (full,), (shrunk,) = (yunet.detect(image, 0.2, longest) for longest in (640, 200))

    assert np.abs(full.points - shrunk.points).max() < 12


def test_small_face_is_found_in_a_large_frame(collins):
    frame = np.full((720, 1280, 3), 90, np.uint8)
    small = cv2.resize(collins, (140, 140), interpolation=cv2.INTER_AREA)  # a face of 24 px
    frame[500:640, 900:1040] = small

    (found,) = yunet.detect(frame, 0.2, 1280)

    assert 900 < found.box.left < found.box.right < 1040
    assert found.box.right - found.box.left < 30


def test_dlib_comes_first_on_a_clear_face(photo):
    image, expected = photo
    (found,) = yunet.detect(image, 0.2, 640)

    placed, by = landmarks.place(image, found)

    assert error(placed, expected) < 0.02
    assert by == "dlib"


def test_mesh_stands_in_without_dlib(photo, monkeypatch):
    image, expected = photo
    (found,) = yunet.detect(image, 0.2, 640)
    monkeypatch.setattr(dlib_backend, "landmark_model", None)  # not callable

    placed, by = landmarks.place(image, found, "mesh")

    assert error(placed, expected) < 0.07
    assert by == "mesh"


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("choice", ["auto", "dlib", "mesh"])
def test_turned_face_gets_turned_landmarks(collins, turns, choice):
    (upright,) = yunet.detect(collins, 0.2, 640)
    expected, _ = landmarks.place(collins, upright, choice)
    turned = np.ascontiguousarray(np.rot90(collins, turns))
    last = len(collins) - 1  # the photo is square

    def turn(points):
        for _ in range(turns):
            points = np.stack([points[:, 1], last - points[:, 0]], axis=1)
        return points

    corners = turn(np.array([[upright.box.left, upright.box.top],
                             [upright.box.right, upright.box.bottom]]))  # fmt: skip
    box = Box(*corners.min(axis=0), *corners.max(axis=0))
    found, _ = landmarks.place(turned, Detection(box, 1.0, turn(upright.points)), choice)

    assert error(found, turn(expected)) < 0.05


def test_detection_without_a_face_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    points = np.array([[100, 150], [140, 90], [60, 60], [200, 80], [90, 90]], np.float32)

    for choice in ("auto", "dlib", "mesh"):
        for marked in (points, None):
            detection = Detection(Box(60, 60, 180, 180), 1.0, marked)
            assert landmarks.place(noise, detection, choice) is None


def test_profile_is_placed_by_the_detectors_points(collins, monkeypatch):
    """FaceMesh loses full profiles, and dlib's predictions disagree there."""
    (found,) = yunet.detect(collins, 0.2, 640)
    far = mesh.Mesh(np.random.default_rng(0).uniform(0, 60, (478, 2)).astype(np.float32), 0.0)
    monkeypatch.setattr(mesh, "fit_detection", lambda *_: far)

    placed, by = landmarks.place(collins, found, "mesh")

    side = np.ptp(placed[:, 0])
    assert np.linalg.norm(five_of(placed) - found.points, axis=1).max() < 0.1 * side
    assert by == "head"


def test_presence_tells_a_face_from_noise(collins):
    (found,) = yunet.detect(collins, 0.2, 640)
    placed, _ = landmarks.place(collins, found)
    noise = np.random.default_rng(0).integers(0, 256, collins.shape, dtype=np.uint8)

    assert mesh.fit_near(collins, placed).presence > 0.9
    assert mesh.fit_near(noise, placed).presence < 0.1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_lying_and_upside_down_faces_are_found(collins, collins_face, quarters):
    turned = np.ascontiguousarray(np.rot90(collins, quarters))

    (face,) = detect_yunet(turned, 0.2)

    x, y = collins_face.landmarks.T
    for _ in range(quarters):
        x, y = y, len(collins) - 1 - x
    assert error(face.landmarks, np.stack([x, y], axis=1)) < 0.05


def test_faces_of_all_sizes_are_found_in_a_large_photo(collins, hopper):
    """The largest comes first."""
    photo = np.full((3000, 4000, 3), 90, np.uint8)
    photo[:2400, :2048] = cv2.resize(hopper, (2048, 2400), interpolation=cv2.INTER_CUBIC)
    photo[2500:2900, 3500:3900] = cv2.resize(collins, (400, 400), interpolation=cv2.INTER_AREA)

    faces = detect_yunet(photo, 0.2)

    sides = [face.box.right - face.box.left for face in faces]
    assert len(faces) == 2
    assert sides[0] > 500
    assert 40 < sides[1] < 120
