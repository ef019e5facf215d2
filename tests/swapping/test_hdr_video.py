"""HDR clips, and clips in a colour space of their own, are swapped and stay what they are."""

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from faceswap.config import ConvertConfig, ExtractConfig
from faceswap.facesets.extractor import extract
from faceswap.files import sha256_of
from faceswap.media import reader
from faceswap.media.footage import video_at
from faceswap.media.hdr import light_of
from faceswap.media.photos import read_photo
from faceswap.media.views import view_of
from faceswap.models.modelfile import file_of
from faceswap.provenance.watermark import Watermark, payload_of
from faceswap.swapping.converter import convert
from faceswap.swapping.verification import look_for_watermark
from tests.support.clips import HLG, MASTERING, PQ, hdr_clip, lossless_clip

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")
FRAMES = 3


@pytest.fixture(scope="module")
def images(collins):
    """Return a moving face and a lamp of 4 times white, (H, W, 3)."""
    shown = collins.astype(np.float64)
    shown[10:40, 10:40] = 480
    return [np.roll(shown, 4 * number, axis=1) for number in range(FRAMES)]


@pytest.fixture(scope="module")
def converted(images, model, tmp_path_factory):
    """Convert an SDR clip, one in PQ and one in HLG; return source, output and matte of each."""
    folder = tmp_path_factory.mktemp("clips")
    done = {}
    for name, transfer in (("sdr", None), ("pq", PQ), ("hlg", HLG)):
        source, output = folder / f"{name}.mp4", folder / f"{name}.out.mp4"
        if transfer:
            hdr_clip(source, transfer, images, "libx265", MASTERING if transfer == PQ else "")
        else:
            source = lossless_clip(folder / "sdr.mkv", images)
        report = convert(source, output, model, replace(QUICK, matte=True, quality=8))
        assert (report.frames, report.faces) == (FRAMES, FRAMES)
        done[name] = source, output, folder / f"{name}.out.matte.mp4"
    return done


def luma(path):
    """Return the luma codes of each frame, (N, H, W)."""
    planes = [frame.pixels.frame.planes[0] for frame in reader.read_video(path)]
    return np.stack(
        [np.frombuffer(p, np.uint16).reshape(-1, p.line_size // 2)[:, : p.width] for p in planes]
    ).astype(int)


@pytest.mark.parametrize(("name", "transfer"), [("pq", PQ), ("hlg", HLG)])
def test_tags_light_and_brightness_stay(converted, name, transfer):
    source, output, matte = converted[name]

    with av.open(str(output)) as out:
        context = out.streams.video[0].codec_context
        tags = context.color_trc, context.color_primaries, context.colorspace, context.color_range
        assert (context.name, context.pix_fmt, *tags) == ("hevc", "yuv420p10le", transfer, 9, 9, 1)
    assert light_of(output) == light_of(source)
    assert (light_of(output).levels == (1000, 400)) == (name == "pq")
    outside = luma(matte) < 70  # black is code 64
    assert 0.5 < outside.mean() < 0.99
    before, after = luma(source), luma(output)
    assert abs(after[outside].mean() - before[outside].mean()) < 1
    lamp = before > before.max() - 5
    assert abs(after[lamp].mean() - before[lamp].mean()) < 4  # it is far above white


@pytest.mark.parametrize("name", ["pq", "hlg"])
def test_the_same_shot_gives_the_same_face(converted, name):
    _, reference, matte = converted["sdr"]
    _, output, _ = converted[name]

    inside = [frame.image.min(axis=2) > 250 for frame in reader.read_video(matte)]
    frames = zip(reader.read_video(reference), reader.read_video(output), inside, strict=True)
    found = np.concatenate([face_difference(*pair, mask) for *pair, mask in frames])
    assert len(found) > 1000
    assert np.median(found) < 1
    assert np.percentile(found, 95) < 2.5  # 4:2:0 chroma and the encoder


def face_difference(one, other, mask):
    """Return by how many levels two faces differ, without their watermarks, which are fine."""
    height, width = one.shape
    whole = (0, 0, width, height)
    difference = one.rgb_float(whole) - other.rgb_float(whole)
    return np.abs(cv2.GaussianBlur(difference, (0, 0), 6)[mask])


@pytest.mark.parametrize("name", ["pq", "hlg"])
def test_the_watermark_is_found_in_hdr(converted, name):
    assert look_for_watermark(converted[name][1]).found


def test_faces_of_an_hdr_clip_are_extracted_as_a_display_shows_them(converted, tmp_path):
    crops = {}
    for name in ("sdr", "pq"):
        config = ExtractConfig(workers=1, detector="hog", every=FRAMES)
        extract(converted[name][0], tmp_path / name, config)
        (crop,) = (tmp_path / name).glob("*.png")
        crops[name] = read_photo(crop).image
    difference = np.abs(crops["sdr"].astype(float) - crops["pq"])
    assert np.median(difference) <= 2


def test_animations_and_images_of_hdr_say_what_they_lose(converted, model, tmp_path, caplog):
    source = converted["pq"][0]
    convert(source, tmp_path / "out.gif", model, QUICK)
    assert "is HDR, but .gif files are not" in caplog.text
    convert(source, tmp_path / "out", model, QUICK)
    assert "is HDR, but PNGs are not" in caplog.text


def test_a_clip_in_camera_log_gives_the_same_face(images, converted, model, tmp_path):
    log = [view_of("ARRI LogC4").stored(image.astype(np.float32)) * 255 for image in images]
    source = lossless_clip(tmp_path / "log.mkv", log, "gbrp16le")
    config = replace(QUICK, codec="ffv1", matte=True, colorspace="ARRI LogC4")

    report = convert(source, tmp_path / "out.mkv", model, config)

    assert report.faces == FRAMES
    mattes = [frame.image.max(axis=2) for frame in reader.read_video(tmp_path / "out.matte.mkv")]
    payload = payload_of(*map(sha256_of, (file_of(model), source)))
    delta = [Watermark(payload).delta(f.gray()) for f in video_at(source, "ARRI LogC4").read()]
    shown = video_at(tmp_path / "out.mkv", "ARRI LogC4").read()
    references = reader.read_video(converted["sdr"][1])
    together = zip(shown, images, delta, references, mattes, strict=True)
    for one, image, added, reference, matte in together:
        assert np.median(face_difference(one, reference, matte > 250)) < 0.6
        marked = image + added[..., np.newaxis]
        outside = one.rgb_float((0, 0, 512, 512))[matte == 0] - marked[matte == 0]
        assert np.abs(outside).max() < 0.1
