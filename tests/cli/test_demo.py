import numpy as np
import pytest

from faceswap.cli import demo
from faceswap.config import TrainConfig
from faceswap.media.photos import read_photo
from faceswap.media.reader import probe
from faceswap.provenance.credentials import read
from faceswap.training.trainer import TrainReport
from tests.support.clips import sound_of


@pytest.mark.slow
def test_demo_runs_every_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "VARIANTS", 26)
    monkeypatch.setattr(demo, "CLIP_FRAMES", 10)
    seen = []

    for title, run in demo.stages(tmp_path / "demo", minutes=0.02):
        run(seen.append)
        assert seen, title

    for name in (demo.SWAPPED, demo.SHEET):
        assert read(tmp_path / "demo" / name).intact
    info = probe(tmp_path / "demo" / demo.SWAPPED)
    assert (info.width, info.height, info.frames) == (640, 480, 10)
    assert sound_of(tmp_path / "demo" / demo.SWAPPED)
    image = read_photo(tmp_path / "demo" / demo.SHEET).image
    assert np.std(image) > 20


def test_a_slow_machine_trains_until_there_are_enough_steps(tmp_path, monkeypatch):
    asked = []

    def slow(a, b, model, settings, on_progress):
        asked.append((settings.minutes, settings.steps))
        steps = settings.steps or 40
        return TrainReport(model, steps, 2.0, 0.1, 0.1)

    monkeypatch.setattr(demo, "train", slow)
    settings = TrainConfig(minutes=2.0)

    demo._train(tmp_path, tmp_path, tmp_path, settings, print)
    monkeypatch.setattr(demo, "LEAST_PACE", 10)
    demo._train(tmp_path, tmp_path, tmp_path, settings, print)

    assert asked == [(2.0, None), (None, 300), (2.0, None)]


def test_photo_variants_differ_and_show_the_face(collins):
    from faceswap.faces.detection import detect_hog

    center, side = demo._face_box(collins)
    random = np.random.default_rng(0)

    variants = [demo._variant(collins, center, side, random) for _ in range(5)]

    assert all(len(detect_hog(variant, 0.2)) == 1 for variant in variants)
    assert len({variant.tobytes() for variant in variants}) == 5
