"""dlib's weights and the user's own landmark model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dlib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import info, main, text
from faceswap.cli.options import resolve
from faceswap.config import ConvertConfig, ExtractConfig
from faceswap.errors import InputError, SettingsError
from faceswap.faces import dlib_backend
from faceswap.faces.detection import DetectorSpec, detect_hog
from faceswap.faces.pool import DetectorPool
from faceswap.facesets import extractor
from faceswap.facesets.weights import behind
from faceswap.files import sha256_of
from faceswap.media.photos import read_photo
from faceswap.media.writers import write_clip

SHIFT = 12  # pixels by which the model below places all landmarks too low


def train_predictor(path, image, points):
    """Train a landmark model on one photo."""
    box = detect_hog(image, 0.2)[0].box
    rectangle = dlib.rectangle(*(round(s) for s in (box.left, box.top, box.right, box.bottom)))
    shape = dlib.full_object_detection(rectangle, [dlib.point(*map(round, p)) for p in points])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth = 10, 60, 2
    options.oversampling_amount, options.nu = 200, 0.2
    options.oversampling_translation_jitter = 0.1
    options.be_verbose = False
    dlib.train_shape_predictor([image], [[shape]], options).save(str(path))
    return path


@pytest.fixture(scope="module")
def own_model(tmp_path_factory, collins):
    """A landmark model that places all landmarks lower than dlib's does."""
    points = (detect_hog(collins, 0.2)[0].landmarks + np.array([0, SHIFT])).tolist()
    return train_predictor(tmp_path_factory.mktemp("own") / "own.dat", collins, points)


def test_weights_are_found_without_importing_their_package():
    path = dlib_backend.weights("shape_predictor_68_face_landmarks.dat")

    assert Path(path).is_file()
    assert "face_recognition_models" not in sys.modules


def test_missing_weights_name_the_install_command():
    with pytest.raises(InputError, match="pip install"):
        dlib_backend.weights("no-such-file.dat")


def test_users_landmark_model_is_used(collins, own_model):
    standard = detect_hog(collins, 0.2)[0].landmarks
    (face,) = detect_hog(collins, 0.2, str(own_model))

    assert face.placed_by == "dlib"
    moved = face.landmarks - standard
    assert np.abs(np.median(moved, axis=0) - [0, SHIFT]).max() < 3
    assert np.array_equal(detect_hog(collins, 0.2)[0].landmarks, standard)


def test_worker_processes_use_the_users_landmark_model(collins, own_model, tmp_path):
    Image.fromarray(collins).save(tmp_path / "x.png")
    frames = [read_photo(tmp_path / "x.png")] * 2
    with DetectorPool(0.2, 2) as before:
        standard = [found[0].landmarks for _, found in before.detect(frames, DetectorSpec("hog"))]
    spec = DetectorSpec("hog", str(own_model))
    with DetectorPool(0.2, 2) as after:
        custom = [found[0].landmarks for _, found in after.detect(frames, spec)]

    expected = detect_hog(collins, 0.2, str(own_model))[0].landmarks
    assert all(np.array_equal(points, expected) for points in custom)
    assert not any(np.array_equal(points, expected) for points in standard)


def test_faceset_records_its_landmark_model_and_refuses_another(collins, own_model, tmp_path):
    (tmp_path / "data").mkdir()
    Image.fromarray(collins).save(tmp_path / "data" / "x.png")
    config = ExtractConfig(workers=1, detector="hog")
    own = replace(config, landmarks=str(own_model))
    extractor.extract(tmp_path / "data", tmp_path / "own", own)

    header = json.loads((tmp_path / "own" / "faces.jsonl").read_text().splitlines()[0])
    assert header["settings"]["landmarks"] == sha256_of(own_model)
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


def test_landmark_model_with_other_points_is_refused(collins, tmp_path):
    path = str(train_predictor(tmp_path / "five.dat", collins, [(9.0 * i, 9) for i in range(5)]))

    with pytest.raises(InputError, match=r"five\.dat predicts 5 landmarks, not the 68"):
        dlib_backend.landmark_model(path)


def test_clean_settings_choose_the_mesh():
    assert ExtractConfig(clean=True).landmarks == "mesh"
    assert ExtractConfig(clean=True, landmarks="own.dat").landmarks == "own.dat"
    with pytest.raises(SettingsError, match="excludes dlib's landmark model"):
        ExtractConfig(clean=True, landmarks="dlib")
    assert ExtractConfig.from_dict(ExtractConfig(clean=True).to_dict()).landmarks == "mesh"


CLEAN_RUN = """
import os, sys
from pathlib import Path
import faceswap
from faceswap.config import ConvertConfig, EvaluateConfig, ExtractConfig, TrainConfig
from faceswap.faces import dlib_backend

def refuse(event, details):
    if event == "open" and "shape_predictor" in str(details[0]):
        raise PermissionError(details[0])

def main(root):
    sys.addaudithook(refuse)
    real = dlib_backend.weights
    def weights(name):
        assert "shape_predictor" not in name, "the landmark model was asked for"
        return real(name)
    dlib_backend.weights = weights
    for name in ("a", "b"):
        faceswap.extract(root / name, None, ExtractConfig(clean=True, workers=1))
    faces = root / "a" / "faces", root / "b" / "faces"
    config = TrainConfig(clean=True, steps=2, model="small", batch_size=2, device="cpu")
    faceswap.train(*faces, root / "model", config)
    clean = ConvertConfig(clean=True, device="cpu", workers=1)
    report = faceswap.convert(root / "clip.mp4", root / "out.mp4", root / "model", clean)
    assert report.faces == report.frames == 20, report
    faceswap.evaluate(root / "model", *faces, EvaluateConfig(clean=True, faces=4, device="cpu"))

main(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_clean_run_never_touches_the_landmark_model(tmp_path, collins, hopper):
    """The whole way works while asking for that file fails."""
    random = np.random.default_rng(0)
    for name, photo in (("a", collins), ("b", hopper)):
        (tmp_path / name).mkdir()
        for number in range(26):
            left, top = random.integers(0, 12, 2)
            light = np.clip(photo[top:, left:] * random.uniform(0.7, 1.0), 0, 255)
            path = tmp_path / name / f"{number}.png"
            Image.fromarray(light.astype(np.uint8)).resize((256, 256)).save(path)
    images = [np.ascontiguousarray(collins[k : 400 + k, :400]) for k in range(20)]
    write_clip(tmp_path / "clip.mp4", iter(images), 25, np.zeros(38400, np.int16), 48000)
    script = tmp_path / "run.py"
    script.write_text(CLEAN_RUN)

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    terms = info.licences(tmp_path / "model")
    assert terms.recorded
    assert all(each.commercial for each in terms.weights)
    for path in (tmp_path / "a", tmp_path / "out.mp4"):
        found = info.licences(path)
        assert found.recorded
        assert "face_mesh.onnx" in {each.name for each in found.weights}
        assert all(each.commercial for each in found.weights)


def test_usual_settings_name_the_non_commercial_model():
    terms = info.licences(None)

    not_commercial = {each.name for each in terms.weights if not each.commercial}
    assert not_commercial == {dlib_backend.WEIGHT_FILES[1]}
    for command, used in terms.commands.items():
        assert (dlib_backend.WEIGHT_FILES[1] in used) != command.endswith("--clean")
    assert behind(ExtractConfig(detector="blaze"))[0] == "blazeface_full.onnx"
    assert "yunet.onnx" in behind(ConvertConfig(detector="hog"))
    assert "yunet.onnx" not in behind(ConvertConfig(detector="blaze"))
    assert "the user's own landmark model" in behind(ConvertConfig(landmarks="own.dat"))
    lines = text.licences(terms)
    assert any("NO COMMERCIAL USE" in line for line in lines)


def test_settings_file_may_be_toml(tmp_path):
    (tmp_path / "studio.toml").write_text("clean = true\n[extract]\nsize = 128\nclean = true\n")

    settings = resolve(ExtractConfig, "extract", tmp_path / "studio.toml", {})
    assert (settings.clean, settings.landmarks, settings.size) == (True, "mesh", 128)
    (tmp_path / "short.toml").write_text("clean = true\n")
    assert resolve(ConvertConfig, "convert", tmp_path / "short.toml", {}).landmarks == "mesh"
    (tmp_path / "bad.toml").write_text("clean = yes\n")
    with pytest.raises(SettingsError, match=r"bad\.toml: not TOML"):
        resolve(ConvertConfig, "convert", tmp_path / "bad.toml", {})
