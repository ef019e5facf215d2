"""EXR, DPX and deep images of any colour space are swapped, and keep all the rest."""

import json
import re
import sys
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from faceswap.config import ConvertConfig, ExtractConfig
from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.facesets.extractor import extract
from faceswap.media.photos import read_photo
from faceswap.media.views import AS_STORED, view_of
from faceswap.provenance.credentials import read
from faceswap.swapping.converter import contact_sheet, convert
from tests.support.clips import pixels as pixels_of
from tests.support.films import exr_attributes, exr_planes, write_dpx, write_exr

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", intermediate=True)
FRAMES, SPOT = 3, (slice(112, 122), slice(205, 215))  # a highlight on the cheek of the photo
TAGS = {
    "colorInteropID": "lin_ap1_scene", "framesPerSecond": Fraction(24000, 1001),
    "pixelAspectRatio": 1.5, "owner": "Shot 10",
}  # fmt: skip


def write_shot(folder, kind, images):
    """Write images of 0..255 as frames 1001, ... of a shot, without 1002."""
    folder.mkdir()
    for number, image in zip((1001, 1003, 1004), images, strict=True):
        path = folder / f"shot.{number}.{kind.split()[-1]}"
        if kind == "acescg exr":
            write_exr(path, view_of("ACEScg").stored(image), np.float32, **TAGS)
        elif kind == "half exr":
            write_exr(path, view_of("ACEScg").stored(image), np.float16, compression="PIZ", **TAGS)
        elif kind == "log exr":
            write_exr(path, view_of("ARRI LogC4").stored(image), np.float32)
        elif kind == "log dpx":
            codes = np.rint(view_of("ARRI LogC4").stored(image) * 1023).clip(0, 1023)
            write_dpx(path, codes.astype(np.uint16), transfer=3)
        else:
            levels = np.rint(image * np.float32(65535 / 255)).clip(0, 65535)
            cv2.imwrite(str(path), levels.astype(np.uint16)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def images(collins):
    """Return a moving face with highlights far above white, (H, W, 3) in 0..255 and beyond."""
    shown = collins.astype(np.float32)
    shown[SPOT] = 700
    shown[5:9, 5:9] = 2000
    shown[20:24, 20:24] = -20
    return [np.roll(shown, 2 * number, axis=1) for number in range(FRAMES)]


@pytest.fixture(scope="module")
def swapped(images, model, tmp_path_factory):
    """Convert the shot in every kind of file; return the folders of source and output by kind."""
    folder = tmp_path_factory.mktemp("shots")
    done = {}
    for kind in ("acescg exr", "half exr", "log exr", "log dpx", "srgb png"):
        source, output = write_shot(folder / kind, kind, images), folder / f"{kind} out"
        colorspace = "ARRI LogC4" if kind.startswith("log") else None
        config = replace(QUICK, colorspace=colorspace, matte=True)
        report = convert(source, output, model, config)
        assert (report.frames, report.faces) == (FRAMES, FRAMES)
        done[kind] = source, output, colorspace
    return done


def masks(folder):
    """Return where each frame is swapped, by its number, (H, W)."""
    return {path.stem: read_photo(path).image.any(axis=2)
            for path in sorted(folder.with_name(f"{folder.name}.matte").glob("*.png"))}  # fmt: skip


def stored(path):
    if path.suffix == ".exr":
        return np.stack([exr_planes(path)[name] for name in "RGB"], axis=2)
    return read_photo(path, AS_STORED).pixels.pixels


@pytest.mark.parametrize("kind", ["acescg exr", "half exr", "log exr", "log dpx", "srgb png"])
def test_all_outside_the_mask_is_equal_bit_for_bit(swapped, kind):
    source, output, _ = swapped[kind]
    names = sorted(path.name for path in source.iterdir())
    assert names == sorted(p.name for p in output.iterdir() if p.suffix != ".c2pa")
    for name, mask in zip(names, masks(output).values(), strict=True):
        before, after = stored(source / name), stored(output / name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(after[~mask], before[~mask])
        assert (after[mask] != before[mask]).mean() > 0.5
        if name.endswith(".exr"):
            assert exr_attributes(output / name) == exr_attributes(source / name)


@pytest.mark.parametrize("kind", ["half exr", "log exr", "log dpx", "srgb png"])
def test_the_same_plate_gives_the_same_face(swapped, kind):
    _, reference, _ = swapped["acescg exr"]
    _, output, colorspace = swapped[kind]
    for name, mask in masks(reference).items():
        one = read_photo(reference / f"{name}.exr")
        other = read_photo(output / f"{name}.{kind.split()[-1]}", colorspace)
        height, width = one.shape
        whole = (0, 0, width, height)
        mask[SPOT[0], SPOT[1].start : SPOT[1].stop + 2 * FRAMES] = False  # sRGB has no highlights
        difference = np.abs(
            one.rgb_float(whole).clip(0, 255) - other.rgb_float(whole).clip(0, 255)
        )[mask]
        # 10 bits of log differ by up to 1.5 levels of 255, which the network sees.
        assert np.percentile(difference, 95) < (6 if kind == "log dpx" else 0.2)
        assert np.median(difference) < (1 if kind == "log dpx" else 0.1)


def test_highlights_keep_their_light_on_the_new_face(swapped, images):
    source, output, _ = swapped["acescg exr"]
    mask = masks(output)["shot.1001"]
    before, after = (read_photo(f / "shot.1001.exr") for f in (source, output))
    height, width = before.shape
    before, after = (frame.rgb_float((0, 0, width, height)) for frame in (before, after))
    assert mask[SPOT].all()
    assert (after[SPOT] > 445).all()  # what is beyond white, on a face of 0 to 255
    assert (after[SPOT] <= 700.5).all()
    assert (np.abs(after[SPOT] - before[SPOT]) > 1).any()


def test_intermediates_have_credentials_beside_them(swapped):
    _, output, _ = swapped["half exr"]
    credentials = read(output / "shot.1003.exr")
    assert credentials.sidecar == str(output / "shot.1003.exr.c2pa")
    assert credentials.parent.title == "shot.1003.exr"


def test_final_images_are_marked_all_over(tmp_path, images, model):
    source = write_shot(tmp_path / "shot", "acescg exr", images)
    convert(source, tmp_path / "out", model, replace(QUICK, intermediate=False))
    before, after = (read_photo(f / "shot.1001.exr") for f in (source, tmp_path / "out"))
    height, width = before.shape
    whole = (0, 0, width, height)
    added = after.rgb_float(whole) - before.rgb_float(whole)
    assert 0.2 < np.abs(added[:100]).mean() < 5
    assert exr_attributes(tmp_path / "out/shot.1001.exr") == exr_attributes(
        source / "shot.1001.exr"
    )


def test_a_shot_becomes_a_video(tmp_path, images, model):
    source = write_shot(tmp_path / "shot", "half exr", images)
    config = replace(QUICK, intermediate=False, codec="ffv1")
    convert(source, tmp_path / "out.mkv", model, config)
    shown = pixels_of(tmp_path / "out.mkv")
    assert len(shown) == FRAMES
    expected = read_photo(source / "shot.1001.exr").image
    assert np.abs(shown[0][:60].astype(int) - expected[:60]).mean() < 3
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["frames"][1]["time"] == pytest.approx(2 * 1001 / 24000)  # 1002 is missing


def test_single_images_keep_format_and_range(tmp_path, images, model):
    source = write_shot(tmp_path / "shot", "half exr", images) / "shot.1001.exr"
    report = convert(source, tmp_path / "swapped.exr", model, replace(QUICK, intermediate=False))
    assert report.faces == 1
    after = read_photo(tmp_path / "swapped.exr")
    assert after.rgb_float((5, 5, 9, 9)).mean() == pytest.approx(2000, rel=0.01)
    with pytest.raises(OutputError, match="cannot write"):
        convert(source, tmp_path / "swapped.dpx", model, replace(QUICK, intermediate=False))


def test_faces_are_extracted_from_film_images(tmp_path, images):
    source = write_shot(tmp_path / "shot", "log dpx", images)
    config = ExtractConfig(workers=1, detector="hog")
    with pytest.raises(InputError, match="logarithmic codes"):
        extract(source, tmp_path / "none", config)
    report = extract(source, tmp_path / "faces", replace(config, colorspace="ARRI LogC4"))
    assert report.faces == FRAMES
    plain = write_shot(tmp_path / "plain", "srgb png", images)
    extract(plain, tmp_path / "plain faces", config)
    one, other = (sorted((tmp_path / f).glob("*.png")) for f in ("faces", "plain faces"))
    for a, b in zip(one, other, strict=True):
        difference = np.abs(read_photo(a).image.astype(int) - read_photo(b).image)
        assert np.percentile(difference, 95) <= 4


def test_previews_show_the_colour_space(tmp_path, images, model):
    source = write_shot(tmp_path / "shot", "log dpx", images)
    with pytest.raises(InputError, match=r"shot\.1001\.dpx has logarithmic codes"):
        contact_sheet(source, tmp_path / "x.png", 1, model, QUICK)
    config = replace(QUICK, colorspace="ARRI LogC4", intermediate=False)
    assert contact_sheet(source, tmp_path / "x.png", 1, model, config) == 1


def test_animations_have_no_colour_space_to_state(tmp_path, model, images):
    source = write_shot(tmp_path / "shot", "srgb png", images)
    config = replace(QUICK, intermediate=False)
    convert(source, tmp_path / "clip.gif", model, config)
    with pytest.raises(SettingsError, match=r"clip\.gif is an animation, so --colorspace ACEScg"):
        convert(
            tmp_path / "clip.gif", tmp_path / "x.gif", model, replace(config, colorspace="ACEScg")
        )


def test_without_the_extra_one_line_says_what_to_install(tmp_path, images, model, monkeypatch):
    source = write_shot(tmp_path / "shot", "half exr", images)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'faceswap[film]'")):
        convert(source, tmp_path / "out", model, QUICK)
