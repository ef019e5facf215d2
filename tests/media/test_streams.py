"""An image sequence holds every frame at its full bit depth."""

import av
import cv2
import numpy as np
import pytest

from faceswap.errors import OutputError
from faceswap.media import colorspace
from faceswap.media.footage import VideoFile
from faceswap.media.writers import check_folder
from tests.support.clips import make_clip, pass_on, segment_length, shown


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def test_image_sequence_holds_one_image_per_frame(tmp_path, monkeypatch):
    segment_length(monkeypatch, 5)
    source = make_clip(tmp_path / "in.mp4", rotation=90)

    target = pass_on(source, tmp_path / "out")

    paths = sorted(target.iterdir())
    assert [path.name for path in paths] == [f"{n:06d}.png" for n in range(1, 13)]
    for path, image in zip(paths, shown(source), strict=True):
        assert read(path).dtype == np.uint8
        np.testing.assert_array_equal(read(path), image)


def test_deep_video_becomes_deep_images(tmp_path):
    source = make_clip(tmp_path / "in.mp4", pix_fmt="yuv444p10le", times=range(3), audio=0)

    target = pass_on(source, tmp_path / "out")

    with av.open(str(source)) as container:
        for path, frame in zip(sorted(target.iterdir()), container.decode(video=0), strict=True):
            image = read(path)
            assert image.dtype == np.uint16
            deep = frame.reformat(
                format="gbrp16le", interpolation=colorspace.EXACT, dst_color_range=2
            ).to_ndarray()
            expected = deep.astype(float) / (255 * 256)  # white in swscale's scale
            assert np.abs(image / 65535 - np.clip(expected, 0, 1)).max() <= 1 / 1023


def test_layer_keeps_its_transparency(tmp_path):
    source = make_clip(tmp_path / "in.mp4", times=range(2), audio=0)
    layer = np.zeros((48, 64, 4), np.uint8)
    layer[10:20, 10:30] = (200, 100, 50, 128)

    target = pass_on(source, tmp_path / "out", change=lambda frame: frame.repainted(layer))

    for path in target.iterdir():
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored[..., [2, 1, 0, 3]], layer)


def test_earlier_image_sequence_is_replaced_and_other_files_refused(tmp_path):
    source = make_clip(tmp_path / "in.mp4", audio=0)
    target = pass_on(source, tmp_path / "out")
    short = make_clip(tmp_path / "short.mp4", times=range(3), audio=0)

    pass_on(short, target)

    assert len(list(target.iterdir())) == 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (target / "notes.txt").write_text("mine")
    refusal = r"out holds notes\.txt; an image sequence needs a new or empty folder"
    with pytest.raises(OutputError, match=refusal):
        check_folder(target, VideoFile(source))
    with pytest.raises(OutputError, match=r"out holds notes\.txt"):
        pass_on(source, target)
    assert (target / "notes.txt").read_text() == "mine"
    assert len(list(target.iterdir())) == 4
    with pytest.raises(OutputError, match=r"in\.mp4 is a file; an image sequence needs a folder"):
        check_folder(source, VideoFile(source))
    check_folder(tmp_path / "new", VideoFile(source))
