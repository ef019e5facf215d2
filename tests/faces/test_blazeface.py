"""Check BlazeFace, the offsets of the mesh, and that few modules run networks."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from faceswap.faces import blazeface, mesh
from faceswap.faces.detection import DETECTORS, detect_blaze, detect_hog
from faceswap.faces.geometry import transform, warp_image
from faceswap.faces.pose import five_of

PACKAGE = Path(blazeface.__file__).parent
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40, *range(54, 47, -1),
    *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


def error(points, expected):
    """Mean landmark distance, divided by the distance between the eyes."""
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    return np.linalg.norm(points - expected, axis=1).mean() / eyes


@pytest.mark.parametrize("name", ["collins", "hopper"])
def test_face_is_detected_with_its_points(request, name):
    photo = request.getfixturevalue(name)
    expected = detect_hog(photo, 0.2)[0].landmarks

    (found,) = blazeface.detect(photo, 0.2, 192)

    assert found.score > 1
    side = np.ptp(expected[:, 0])
    assert np.linalg.norm(found.points - five_of(expected), axis=1).max() < 0.15 * side
    assert found.box.left < expected[:, 0].min() + 20
    assert found.box.right > expected[:, 0].max() - 20


def test_a_high_minimum_score_excludes_a_face(collins):
    (found,) = blazeface.detect(collins, 0.2, 192)

    assert blazeface.detect(collins, found.score + 0.01, 192) == []


def test_tiles_find_small_faces_once(collins, hopper):
    frame = np.full((720, 1280, 3), 90, np.uint8)
    expected = []
    for photo, scale, x, y in ((collins, 0.5, 500, 300), (hopper, 0.3, 30, 40)):
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        height, width = (round(side * scale) for side in photo.shape[:2])
        pasted = warp_image(photo, matrix, 1280, 720)
        frame[y : y + height, x : x + width] = pasted[y : y + height, x : x + width]
        expected.append(five_of(transform(detect_hog(photo, 0.2)[0].landmarks, matrix)))

    found = blazeface.detect(frame, 0.2, 768)

    assert len(found) == 2
    for points in expected:
        assert min(np.linalg.norm(d.points - points, axis=1).max() for d in found) < 12


@pytest.mark.parametrize("shape", [(300, 400, 3), (20, 900, 3), (1, 1, 3), (200, 300)])
def test_blank_and_noisy_images_have_no_face(shape):
    noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)

    for image in (np.zeros(shape, np.uint8), noise):
        for longest in (96, 192, 768):
            assert blazeface.detect(image, 0.2, longest) == []


def test_portrait_that_fills_the_photo_is_detected(hopper):
    """BlazeFace itself finds faces that take up a third of its input at most."""
    box = detect_hog(hopper, 0.2)[0].box
    tight = hopper[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]

    (face,) = detect_blaze(np.ascontiguousarray(tight), 0.2)

    expected = detect_hog(hopper, 0.2)[0].landmarks - [int(box.left), int(box.top)]
    assert error(face.landmarks, expected) < 0.06


def test_offsets_move_the_mesh_closer_to_dlib_landmarks(collins, hopper, monkeypatch):
    def errors():
        return sum(
            error(
                detect_blaze(photo, 0.2, "mesh")[0].landmarks, detect_hog(photo, 0.2)[0].landmarks
            )
            for photo in (collins, hopper)
        )

    with_offsets = errors()
    monkeypatch.setattr(mesh, "offsets", lambda: np.zeros((68, 2), np.float32))

    assert with_offsets < 0.8 * errors()


def test_offsets_are_symmetric():
    offsets = np.array(json.loads((PACKAGE / "mesh_offsets.json").read_text())["offsets"])

    assert offsets.shape == (68, 2)
    np.testing.assert_allclose(offsets[MIRROR] * [-1, 1], offsets, atol=2e-5)
    assert 0.01 < np.abs(offsets).max() < 0.15  # of the square's side


def test_vertices_are_valid_and_unique():
    assert len(set(mesh.VERTICES)) == 68
    assert 0 <= min(mesh.VERTICES) <= max(mesh.VERTICES) < 468


def test_every_detector_is_registered():
    assert set(DETECTORS) == {"auto", "yunet", "blaze", "hog", "cnn"}


def test_few_modules_use_opencv_s_networks():
    users = {
        path.stem
        for path in PACKAGE.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "cv2.dnn"
    }
    assert users == {"geometry", "networks"}
