import numpy as np

from faceswap.cli import demo
from faceswap.media.photos import read_photo
from faceswap.media.reader import probe
from faceswap.provenance.credentials import read


def test_the_demo_runs_from_nothing_to_its_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "VIEWS", 26)
    monkeypatch.setattr(demo, "CLIP_FRAMES", 10)
    seen = []

    for title, run in demo.stages(tmp_path / "demo", minutes=0.02):
        run(seen.append)
        assert seen, title

    for name in (demo.SWAPPED, demo.PICTURE):
        assert read(tmp_path / "demo" / name).intact
    info = probe(tmp_path / "demo" / demo.SWAPPED)
    assert (info.width, info.height, info.frames, info.has_audio) == (640, 480, 10, True)
    picture = read_photo(tmp_path / "demo" / demo.PICTURE).image
    assert np.std(picture) > 20


def test_views_differ_and_show_the_face(collins):
    from faceswap.faces.dlib_backend import detect_hog

    center, side = demo._face(collins)
    random = np.random.default_rng(0)

    views = [demo._view(collins, center, side, random) for _ in range(5)]

    assert all(len(detect_hog(view, 0.2)) == 1 for view in views)
    assert len({view.tobytes() for view in views}) == 5
