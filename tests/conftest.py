"""Real faces that need no download, and facesets and a model made from them once per session."""

from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def isolated_user_settings(tmp_path_factory):
    """Keep the user's own certificate, key and settings out of every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("FACESWAP_SIGN_CERT", raising=False)
        patch.delenv("FACESWAP_SIGN_KEY", raising=False)
        yield


@pytest.fixture(scope="session")
def collins():
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut())  # (512, 512, 3), one face, US government work


@pytest.fixture(scope="session")
def hopper():
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as photo:
        return np.asarray(photo.convert("RGB"))  # (600, 512, 3), one face, US government work


@pytest.fixture(scope="session")
def collins_face(collins):
    from faceswap.faces.detection import detect_hog

    return detect_hog(collins, 0.2)[0]


@pytest.fixture(scope="session")
def faceset_folders(tmp_path_factory, collins, hopper):
    """Two facesets of 30 crops each, written by :class:`FacesetWriter`."""
    from dataclasses import replace
    from fractions import Fraction

    from faceswap.config import COVERAGE
    from faceswap.faces.detection import detect_hog
    from faceswap.faces.geometry import align_face
    from faceswap.facesets.writer import FacesetWriter
    from faceswap.media.frame import Frame

    root = tmp_path_factory.mktemp("facesets")
    random = np.random.default_rng(0)
    for name, photo in (("collins", collins), ("hopper", hopper)):
        face = detect_hog(photo, 0.2)[0]
        writer = FacesetWriter(root / name / "faces", 64, COVERAGE, {})
        for number in range(30):
            moved = face.landmarks + random.normal(0, 2, (1, 2)).astype(np.float32)
            frame = Frame(photo, 0, Fraction(0), Path(f"{number}.jpg"))
            aligned = align_face(frame, replace(face, landmarks=moved), 64, COVERAGE)
            writer.add(f"{number}.jpg", frame, [aligned])
    return root / "collins" / "faces", root / "hopper" / "faces"


@pytest.fixture(scope="session")
def model(faceset_folders, tmp_path_factory):
    """A model of both people, trained for three steps: it works, but its faces are poor."""
    from faceswap.config import TrainConfig
    from faceswap.training import trainer

    folder = tmp_path_factory.mktemp("models") / "collins-hopper"
    settings = TrainConfig(model="small", steps=3, batch_size=4, device="cpu", preview_every=0)
    trainer.train(*faceset_folders, folder, settings)
    return folder


@contextmanager
def answers_kept(module, name):
    """Keep the answers of a module's function of one image."""
    compute, answers = getattr(module, name), {}

    def cached(image):
        key = sha256(image).digest()
        if key not in answers:
            answers[key] = compute(image)
        return answers[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, cached)
        yield


@pytest.fixture(scope="session", autouse=True)
def cached_skin():
    """Cache the parser's answers: conversions repeat the same frames at 0.1 s each."""
    from faceswap.crops import parsing

    with answers_kept(parsing, "_probabilities"):
        yield


@pytest.fixture(scope="session", autouse=True)
def cached_classifier():
    """Cache the classifier of explicit footage: it looks four times at each of the same frames."""
    from faceswap.swapping import explicit

    with answers_kept(explicit, "_classified"):
        yield


@pytest.fixture(scope="session", autouse=True)
def cached_recognition():
    """Cache embeddings and landmarks: trainings repeat the same faces at 0.1 s each."""
    from faceswap.evaluation import evaluator
    from faceswap.facesets import recognition

    def memoised(function):
        results = {}

        def cached(image, where, *others):
            location = where.tobytes() if isinstance(where, np.ndarray) else repr(where)
            key = image.shape, image.tobytes(), location, others
            if key not in results:
                results[key] = function(image, where, *others)
            return results[key]

        return cached

    with pytest.MonkeyPatch.context() as patch:
        for name in ("compute_embedding", "predict"):
            cached = memoised(getattr(recognition, name))
            patch.setattr(recognition, name, cached)
            patch.setattr(evaluator, name, cached)
        yield


@pytest.fixture(scope="session")
def together(collins, hopper):
    """Both people in one image, (512, 1024, 3), Collins on the left."""
    return np.ascontiguousarray(np.hstack([collins, hopper[:512]]))


@pytest.fixture
def shared():
    if not SHARED.is_dir():
        pytest.skip(f"the development faces and clips are not in {SHARED}")
    return SHARED
