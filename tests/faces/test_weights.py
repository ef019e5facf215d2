"""dlib's weights and the user's own landmark model."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import dlib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import main
from faceswap.config import ExtractConfig
from faceswap.errors import InputError, SettingsError
from faceswap.faces import blazeface, dlib_backend, extractor
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.pool import DetectorPool
from faceswap.media.photos import read_photo


def train_predictor(path, points):
    """Train a tiny landmark model that always predicts points along the diagonal of the box."""
    image = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
    diagonal = [dlib.point(20 + i * 60 // points, 20 + i * 60 // points) for i in range(points)]
    shape = dlib.full_object_detection(dlib.rectangle(10, 10, 90, 90), diagonal)
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 1, 1, 1
    options.oversampling_amount, options.num_test_splits = 1, 1
    options.be_verbose = False
    dlib.train_shape_predictor([image] * 2, [[shape]] * 2, options).save(str(path))
    return path


@pytest.fixture(scope="module")
def diagonal(tmp_path_factory):
    return train_predictor(tmp_path_factory.mktemp("own") / "own.dat", 68)


def test_weights_are_found_without_importing_their_package():
    path = dlib_backend.weights("shape_predictor_68_face_landmarks.dat")

    assert Path(path).is_file()
    assert "face_recognition_models" not in sys.modules


def test_missing_weights_name_the_install_command():
    with pytest.raises(InputError, match="pip install"):
        dlib_backend.weights("no-such-file.dat")


def test_users_landmark_model_is_used(collins, diagonal, monkeypatch):
    standard = dlib_backend.detect_hog(collins, 0.2)[0].landmarks
    (face,) = dlib_backend.detect_hog(collins, 0.2, str(diagonal))

    slope = np.diff(face.landmarks[:, 1]).sum() / np.diff(face.landmarks[:, 0]).sum()
    assert abs(slope - 1) < 0.1  # a diagonal, not a face
    assert np.abs(face.landmarks - standard).max() > 20
    assert np.array_equal(dlib_backend.detect_hog(collins, 0.2)[0].landmarks, standard)


def test_worker_processes_use_the_users_landmark_model(collins, diagonal, monkeypatch, tmp_path):
    Image.fromarray(collins).save(tmp_path / "x.png")
    frames = [read_photo(tmp_path / "x.png")] * 2
    with DetectorPool(0.2, 2) as before:
        standard = [found[0].landmarks for _, found in before.detect(frames, DetectorSpec("hog"))]
    spec = DetectorSpec("hog", str(diagonal))
    with DetectorPool(0.2, 2) as after:
        custom = [found[0].landmarks for _, found in after.detect(frames, spec)]

    expected = dlib_backend.detect_hog(collins, 0.2, str(diagonal))[0].landmarks
    assert all(np.array_equal(points, expected) for points in custom)
    assert not any(np.array_equal(points, expected) for points in standard)


def test_faceset_records_its_landmark_model_and_refuses_another(
    collins, diagonal, monkeypatch, tmp_path
):
    (tmp_path / "data").mkdir()
    Image.fromarray(collins).save(tmp_path / "data" / "x.png")
    config = ExtractConfig(workers=1, detector="hog")
    own = replace(config, landmarks=str(diagonal))
    extractor.extract(tmp_path / "data", tmp_path / "own", own)

    header = json.loads((tmp_path / "own" / "faces.jsonl").read_text().splitlines()[0])
    assert header["settings"]["landmarks"] == dlib_backend.sha256_of(diagonal)
    with pytest.raises(SettingsError, match=r"was extracted with landmarks .*, not None"):
        extractor.extract(tmp_path / "data", tmp_path / "own", config)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a landmark model"),
        (b"x" * 99, "is not a landmark model"),
        (None, "does not exist"),
    ],
)
def test_invalid_landmark_model_gives_a_one_line_error(tmp_path, monkeypatch, content, words):
    path = tmp_path / "own.dat"
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.png").write_bytes(b"not a photo")
    args = ["extract", str(tmp_path / "data"), "--landmarks", str(path)]

    with pytest.raises(InputError, match=words) as caught:
        CliRunner().invoke(main.cli, args, standalone_mode=False, catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_landmark_model_with_other_points_is_refused(tmp_path, monkeypatch):
    path = str(train_predictor(tmp_path / "five.dat", 5))

    with pytest.raises(InputError, match=r"five\.dat predicts 5 landmarks, not the 68"):
        dlib_backend.landmark_model(path)


def test_users_landmark_model_rules_out_blazeface(diagonal, monkeypatch):
    monkeypatch.setattr(blazeface, "is_installed", lambda: True)
    monkeypatch.setattr(blazeface, "require", lambda: None)
    assert DetectorSpec().for_video().detector == "blaze"
    own = DetectorSpec(landmarks=str(diagonal))

    assert own.for_video().detector == "hog"
    assert own.describe(video=False) == "HOG, else CNN"
    with pytest.raises(SettingsError, match="predicts its own landmarks"):
        DetectorSpec("blaze", str(diagonal)).checked()
