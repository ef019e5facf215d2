"""dlib's weights, and a landmark model of the user's own."""

import json
import sys
from pathlib import Path

import dlib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import main
from faceswap.config import LANDMARKS, ExtractConfig
from faceswap.errors import InputError, SettingsError
from faceswap.faces import blazeface, detection, dlib_backend, extractor
from faceswap.faces.pool import DetectorPool
from faceswap.media.photos import read_photo


def trained_predictor(path, points):
    """A tiny landmark model that always answers with a diagonal of points in the box."""
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
    return trained_predictor(tmp_path_factory.mktemp("own") / "own.dat", 68)


def test_weights_are_found_without_importing_their_package():
    path = dlib_backend.weights("shape_predictor_68_face_landmarks.dat")

    assert Path(path).is_file()
    assert "face_recognition_models" not in sys.modules


def test_missing_weights_say_what_to_install():
    with pytest.raises(InputError, match="pip install"):
        dlib_backend.weights("no-such-file.dat")


def test_a_model_of_ones_own_finds_the_landmarks(collins, diagonal, monkeypatch):
    standard = dlib_backend.detect_hog(collins, 0.2)[0].landmarks
    monkeypatch.setenv(LANDMARKS, str(diagonal))
    (face,) = dlib_backend.detect_hog(collins, 0.2)

    slope = np.diff(face.landmarks[:, 1]).sum() / np.diff(face.landmarks[:, 0]).sum()
    assert abs(slope - 1) < 0.1  # a diagonal, and no face
    assert np.abs(face.landmarks - standard).max() > 20
    monkeypatch.delenv(LANDMARKS)
    assert np.array_equal(dlib_backend.detect_hog(collins, 0.2)[0].landmarks, standard)


def test_every_process_takes_it(collins, diagonal, monkeypatch, tmp_path):
    Image.fromarray(collins).save(tmp_path / "x.png")
    frames = [read_photo(tmp_path / "x.png")] * 2
    with DetectorPool(0.2, 2) as before:
        standard = [found[0].landmarks for _, found in before.find(frames, "hog")]
    monkeypatch.setenv(LANDMARKS, str(diagonal))
    with DetectorPool(0.2, 2) as after:
        own = [found[0].landmarks for _, found in after.find(frames, "hog")]

    here = dlib_backend.detect_hog(collins, 0.2)[0].landmarks
    assert all(np.array_equal(points, here) for points in own)
    assert not any(np.array_equal(points, here) for points in standard)


def test_a_faceset_says_which_and_does_not_mix(collins, diagonal, monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    Image.fromarray(collins).save(tmp_path / "data" / "x.png")
    config = ExtractConfig(workers=1, detector="hog")
    monkeypatch.setenv(LANDMARKS, str(diagonal))
    extractor.extract(tmp_path / "data", tmp_path / "own", config)

    header = json.loads((tmp_path / "own" / "faces.jsonl").read_text().splitlines()[0])
    assert header["settings"]["landmarks"] == dlib_backend.sha256_of(diagonal)
    monkeypatch.delenv(LANDMARKS)
    with pytest.raises(SettingsError, match=r"was extracted with landmarks .*, not None"):
        extractor.extract(tmp_path / "data", tmp_path / "own", config)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is no landmark model"), (b"x" * 99, "is no landmark model"), (None, "does not exist")],
)  # fmt: skip
def test_what_is_no_landmark_model_is_one_line(tmp_path, monkeypatch, content, words):
    monkeypatch.setenv(LANDMARKS, "")  # set back afterwards
    path = tmp_path / "own.dat"
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.png").write_bytes(b"no photo")
    args = ["extract", str(tmp_path / "data"), "--landmarks", str(path)]

    with pytest.raises(InputError, match=words) as caught:
        CliRunner().invoke(main.cli, args, standalone_mode=False, catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_other_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(LANDMARKS, str(trained_predictor(tmp_path / "five.dat", 5)))

    with pytest.raises(InputError, match=r"five\.dat finds 5 landmarks, not the 68"):
        dlib_backend.landmark_model()


def test_blaze_stands_back(diagonal, monkeypatch):
    monkeypatch.setattr(blazeface, "is_installed", lambda: True)
    monkeypatch.setattr(blazeface, "require", lambda: None)
    assert detection.resolve_detector("auto", video=True) == "blaze"
    monkeypatch.setenv(LANDMARKS, str(diagonal))

    assert detection.resolve_detector("auto", video=True) == "hog"
    assert detection.describe_detector("auto", video=False) == "HOG, else CNN"
    with pytest.raises(SettingsError, match="landmarks of its own"):
        detection.resolve_detector("blaze", video=True)
