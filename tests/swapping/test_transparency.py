"""Transparent footage and animations are converted to the same, with every option."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig, ExtractConfig
from faceswap.facesets.extractor import extract
from faceswap.media.footage import describe, video_at
from faceswap.media.photos import read_photo
from faceswap.swapping.converter import contact_sheet, convert
from tests.support.clips import segment_length
from tests.support.stops import Stopped, stop_after

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")
LENGTHS = [100, 40, 250, 70, 330, 80]  # milliseconds for which the frames are shown


@pytest.fixture(scope="module")
def frames(collins):
    """Six RGBA frames of a face, (288, 288, 4), with a clear edge that moves."""
    made = []
    for number in range(6):
        image = np.roll(collins[:288, 96:384], 2 * number, axis=1)
        alpha = np.full(image.shape[:2], 255, np.uint8)
        alpha[:, : 20 + number] = 0
        alpha[-30:] = 0
        made.append(np.dstack([image, alpha]))
    return made


@pytest.fixture
def clip(tmp_path, frames):
    """The frames as PNG in MOV, which has 8 bits of alpha."""
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as out:
        video = out.add_stream("png", rate=25)
        video.width, video.height, video.pix_fmt = 288, 288, "rgba"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def write_animation(path, frames):
    images = [Image.fromarray(pixels) for pixels in frames]
    options = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=LENGTHS, loop=2, **options
    )
    return path


def eight_bits(alpha):
    return alpha if alpha.dtype == np.uint8 else np.rint(alpha / 65535 * 255).astype(np.uint8)


def test_transparent_video_keeps_alpha_with_matte_layers_and_label(
    clip, frames, model, tmp_path, caplog
):
    config = replace(QUICK, matte=True, layers=True, label="AI", label_position="bottom-left")

    report = convert(clip, None, model, config)

    assert report.output == tmp_path / "clip.swapped.mov"
    assert report.faces == 6
    assert "transparency" not in caplog.text
    assert describe(report.output).pixel_format == "yuva444p12le"
    for frame, original in zip(video_at(report.output).read(), frames, strict=True):
        alpha, wanted = eight_bits(frame.pixels.alpha()), original[..., 3]
        labelled = alpha != wanted
        assert (alpha[labelled] == 255).all()  # the label lies in the clear stripe below
        rows, columns = np.nonzero(labelled)
        assert rows.min() >= 258 or columns.max() < 60
        assert len(rows) > 100
    assert [f.pixels.alpha() for f in video_at(tmp_path / "clip.swapped.matte.mov").read()] == [
        None
    ] * 6
    for frame in video_at(tmp_path / "clip.swapped.layers.mov").read():
        assert 0 < (frame.pixels.alpha() > 0).mean() < 0.5  # only the face
    sheet = tmp_path / "sheet.png"
    assert contact_sheet(clip, sheet, 2, model, QUICK) == 2
    assert read_photo(sheet).image.any()


@pytest.mark.parametrize(("name", "codec"), [("out.mp4", "auto"), ("out.mov", "h264")])
def test_lost_transparency_is_said_once(clip, model, tmp_path, caplog, name, codec):
    convert(clip, tmp_path / name, model, replace(QUICK, codec=codec))

    (said,) = [r.getMessage() for r in caplog.records if "transparency" in r.getMessage()]
    assert f"the transparency of {clip} is lost, because {name[3:]} with libx264" in said
    assert ".mov with --codec prores" in said


def test_transparent_images_equal_the_lossless_video(clip, frames, model, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(shots / f"{number:06d}.png")
    config = replace(QUICK, matte=True, intermediate=True)

    from_images = convert(shots, None, model, replace(config, images="sequence", fps=25.0))
    from_video = convert(clip, tmp_path / "frames", model, config)

    assert from_images.faces == from_video.faces == 6
    for suffix in ("", ".matte"):
        folders = [r.output.with_name(r.output.name + suffix) for r in (from_images, from_video)]
        for number, (one, two) in enumerate(
            zip(*(sorted(folder.glob("*.png")) for folder in folders), strict=True)
        ):
            one, two = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (one, two))
            np.testing.assert_array_equal(one, two)
            if suffix:
                assert one.shape == (288, 288, 3)
            else:
                np.testing.assert_array_equal(one[..., 3], frames[number][..., 3])


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_in_is_animation_out(frames, model, tmp_path, suffix, monkeypatch):
    segment_length(monkeypatch, 2)
    source = write_animation(tmp_path / f"anim{suffix}", frames)
    with pytest.raises(Stopped):
        convert(source, None, model, replace(QUICK, matte=True), stop_after(3))

    report = convert(source, None, model, replace(QUICK, matte=True))

    assert report.output == tmp_path / f"anim.swapped{suffix}"
    assert (report.resumed, report.frames, report.faces) == (2, 6, 6)
    assert (tmp_path / "anim.swapped.report.json").is_file()
    assert (tmp_path / f"anim.swapped.matte{suffix}").is_file()
    before, after = video_at(source), video_at(report.output)
    assert after.plays == before.plays
    assert after.times() == before.times()
    assert after.probe().seconds == before.probe().seconds
    for old, new in zip(before.read(), after.read(), strict=True):
        np.testing.assert_array_equal(new.pixels.alpha(), old.pixels.alpha())
        assert np.abs(new.image.astype(int) - old.image)[60:160, 90:200].mean() > 2  # the face
    assert not video_at(tmp_path / f"anim.swapped.matte{suffix}").has_alpha()


def test_excerpt_of_an_animation(frames, model, tmp_path):
    source = write_animation(tmp_path / "anim.webp", frames)
    config = replace(QUICK, start="0.12", end="0.5", frames="3-")

    report = convert(source, None, model, config)

    assert (report.frames, report.faces) == (3, 2)
    assert [int(t * 1000) for t in video_at(report.output).times()] == [0, 250, 320]


def test_faces_of_an_animation_are_extracted(frames, tmp_path):
    for suffix in (".gif", ".webp"):
        source = write_animation(tmp_path / f"anim{suffix}", frames)
        config = ExtractConfig(workers=1, detector="hog", every=2)
        report = extract(source, tmp_path / f"faces{suffix}", config)

        assert (report.images, report.faces) == (3, 3)


@pytest.mark.slow
def test_container_that_is_not_written_is_noted_once(model, tmp_path, collins, caplog):
    caplog.set_level("INFO", "faceswap")
    source = tmp_path / "clip.avi"
    with av.open(str(source), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 288, 288, "yuvj420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(collins[:288, 96:384].copy(), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuvj420p")))
        out.mux(video.encode(None))

    assert convert(source, None, model, QUICK).output == tmp_path / "clip.swapped.mov"
    (note,) = [r.getMessage() for r in caplog.records if r.levelname == "INFO"]
    assert note == (
        f"{source} becomes clip.swapped.mov, because .avi files are not written; --output names "
        "another"
    )
    caplog.clear()
    convert(source, tmp_path / "out.mkv", model, QUICK)
    assert not [record for record in caplog.records if record.levelname == "INFO"]
