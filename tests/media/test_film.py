"""Film images are shown as sRGB, keep all their range, and differ only in changed pixels."""

import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import PyOpenColorIO
import pytest
import tifffile
from skimage.color import deltaE_ciede2000, rgb2lab

from faceswap.errors import InputError, SettingsError
from faceswap.media import film
from faceswap.media.film import FilmImage
from faceswap.media.footage import identify, sequence_in
from faceswap.media.frame import Frame
from faceswap.media.photos import DeepPhoto, PhotoWriter, alpha_of, has_alpha, read_photo
from faceswap.media.sources import content_of, search
from faceswap.media.views import AS_STORED, view_of
from tests.support.films import exr_attributes, exr_planes, write_dpx, write_exr

HEIGHT, WIDTH = 40, 56
WHOLE = (0, 0, WIDTH, HEIGHT)
# CIE xy of the primaries and of white: ITU-R BT.709-6, SMPTE ST 2065-1, ACES S-2014-004
REC709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), (0.3127, 0.3290)
AP0 = ((0.7347, 0.2653), (0.0, 1.0), (0.0001, -0.0770)), (0.32168, 0.33767)
AP1 = ((0.713, 0.293), (0.165, 0.830), (0.128, 0.044)), (0.32168, 0.33767)
# ARRI LogC4, "ARRI LogC4 Logarithmic Color Space", 2022, and ARRI Wide Gamut 4
AWG4 = ((0.7347, 0.2653), (0.1424, 0.8576), (0.0991, -0.0308)), (0.3127, 0.3290)
CAT02 = np.array([[0.7328, 0.4296, -0.1624], [-0.7036, 1.6975, 0.0061], [0.0030, 0.0136, 0.9834]])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _xyz(xy):
    return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])


def to_xyz(space):
    """Return the matrix from linear RGB to XYZ (SMPTE RP 177)."""
    columns = np.stack([_xyz(primary) for primary in space[0]], axis=1)
    return columns * np.linalg.solve(columns, _xyz(space[1]))


def between(one, other, adaptation=BRADFORD):
    """Return the matrix between two linear RGB spaces, with the white point adapted."""
    gains = (adaptation @ _xyz(other[1])) / (adaptation @ _xyz(one[1]))
    adapted = np.linalg.inv(adaptation) @ np.diag(gains) @ adaptation
    return np.linalg.inv(to_xyz(other)) @ adapted @ to_xyz(one)


def srgb(linear):
    """Return sRGB of linear Rec.709 (IEC 61966-2-1); the curve goes on above 1."""
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve)


def linear_of(shown):
    return np.where(
        shown <= 0.04045, shown / 12.92, ((np.maximum(shown, 0) + 0.055) / 1.055) ** 2.4
    )


def logc4(linear):
    a, b, c = (2**18 - 16) / 117.45, (1023 - 95) / 1023, 95 / 1023
    return (np.log2(a * linear + 64) - 6) / 14 * b + c


SPACES = {
    "Linear Rec.709 (sRGB)": (lambda rec709: rec709),
    "ACES2065-1": (lambda rec709: rec709 @ between(REC709, AP0).T),
    "ACEScg": (lambda rec709: rec709 @ between(REC709, AP1).T),
    "ARRI LogC4": (lambda rec709: logc4(rec709 @ between(REC709, AWG4, CAT02).T)),
    "sRGB Encoded Rec.709 (sRGB)": srgb,
}


def plate(seed=0, low=0.0001, high=60.0):
    """Return linear Rec.709 light over the whole range of a film plate, (H, W, 3)."""
    generator = np.random.default_rng(seed)
    gray = np.exp(generator.uniform(np.log(low), np.log(high), (HEIGHT, WIDTH, 1)))
    return gray * generator.uniform(0.5, 1, (HEIGHT, WIDTH, 3))


@pytest.mark.parametrize("space", SPACES)
def test_colours_are_those_of_the_definitions(space):
    rec709 = plate(high=1.0)
    shown = view_of(space).shown(SPACES[space](rec709).astype(np.float32)) / 255
    one, other = (rgb2lab(np.clip(image, 0, 1)) for image in (shown, srgb(rec709)))
    assert deltaE_ciede2000(one, other).max() <= 0.1


@pytest.mark.parametrize("space", SPACES)
def test_all_the_range_is_shown_and_comes_back(space):
    stored = SPACES[space](plate()).astype(np.float32)
    view = view_of(space)
    shown = view.shown(stored)
    assert shown.max() > 1000  # highlights are not clipped
    np.testing.assert_allclose(shown, 255 * srgb(plate()), rtol=2e-3, atol=0.05)
    np.testing.assert_allclose(view.stored(shown), stored, rtol=1e-4, atol=1e-5)
    dark = view_of("Linear Rec.709 (sRGB)").shown(np.full((1, 1, 3), -0.01, np.float32))
    np.testing.assert_allclose(dark, 255 * -0.1292, rtol=1e-3)


def files(folder, rec709, bits=16):
    """Write a plate as files of many kinds; yield each with its colour space."""
    acescg, log = SPACES["ACEScg"](rec709), SPACES["ARRI LogC4"](rec709)
    interop = {"colorInteropID": "lin_ap1_scene"}
    yield write_exr(folder / "half.exr", acescg, np.float16, **interop), None
    yield write_exr(folder / "float.exr", acescg, np.float32, **interop), None
    yield write_exr(folder / "plain.exr", rec709, np.float32), None
    yield write_exr(folder / "log.exr", log, np.float32), "ARRI LogC4"
    codes = np.rint(np.clip(log, 0, 1) * 1023).astype(np.uint16)
    yield write_dpx(folder / "log.dpx", codes, transfer=3), "ARRI LogC4"
    levels = np.rint(np.clip(srgb(rec709), 0, 1) * 65535).astype(np.uint16)
    tifffile.imwrite(folder / "deep.tif", levels, photometric="rgb")
    yield folder / "deep.tif", None
    deep_log = np.rint(np.clip(log, 0, 1) * 65535).astype(np.uint16)
    cv2.imwrite(str(folder / "log.png"), deep_log[..., ::-1])
    yield folder / "log.png", "ARRI LogC4"
    tifffile.imwrite(folder / "float.tif", rec709.astype(np.float32), photometric="rgb")
    yield folder / "float.tif", None
    tifffile.imwrite(folder / "log.tif", log.astype(np.float16), photometric="rgb")
    yield folder / "log.tif", "arri_logc4"


def test_the_same_plate_looks_the_same_in_every_file(tmp_path):
    rec709 = plate(high=1.0)
    expected = 255 * srgb(rec709)
    for path, space in files(tmp_path, rec709):
        frame = read_photo(path, space)
        np.testing.assert_allclose(
            frame.rgb_float(WHOLE), expected, atol=2 if path.suffix == ".dpx" else 0.4,
            err_msg=path.name,
        )  # fmt: skip
        assert np.abs(frame.image.astype(int) - np.rint(expected)).max() <= 2
        assert frame.gray().shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(
            frame.rgb_float((9, 4, 30, 21)), frame.rgb_float(WHOLE)[4:21, 9:30]
        )


def stored_pixels(path):
    """Return the pixels of a file as they are stored, (H, W, 3)."""
    if path.suffix == ".exr":
        planes = exr_planes(path)
        return np.stack([planes[name] for name in "RGB"], axis=2)
    if path.suffix == ".dpx":
        return film.read_film(path, AS_STORED).pixels
    if path.suffix == ".png":
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
    return tifffile.imread(path)


def test_only_what_changed_is_written(tmp_path):
    rec709 = plate()
    rect, out = (10, 12, 30, 28), tmp_path / "out"
    out.mkdir()
    face = 255 * srgb(plate(7, high=0.9))[12:28, 10:30].astype(np.float32)
    for path, space in files(tmp_path, rec709):
        frame = read_photo(path, space).changed(rect, face)
        PhotoWriter(out / path.name, path).write(frame)
        before, after = stored_pixels(path), stored_pixels(out / path.name)
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[12:28, 10:30] = False
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after[outside], before[outside], err_msg=path.name)
        shown = read_photo(out / path.name, space).rgb_float(rect)
        coarse = {"log.dpx": 2.0, "log.tif": 0.4}  # 10 bits, half floats that stand for log
        np.testing.assert_allclose(shown, face, atol=coarse.get(path.name, 0.2), err_msg=path.name)
        if path.suffix == ".exr":
            assert exr_attributes(out / path.name) == exr_attributes(path)


def test_values_that_are_no_numbers_stay(tmp_path):
    pixels = plate().astype(np.float32)
    pixels[0, :4, 0] = np.nan, np.inf, -np.inf, 1e30
    path = write_exr(tmp_path / "a.exr", pixels, np.float32)
    frame = read_photo(path)
    assert frame.image[0, :4, 0].tolist() == [0, 255, 0, 255]
    changed = frame.changed((20, 20, 24, 24), np.full((4, 4, 3), 99, np.float32))
    PhotoWriter(tmp_path / "b.exr", path).write(changed)
    before, after = exr_planes(path)["R"], exr_planes(tmp_path / "b.exr")["R"]
    np.testing.assert_array_equal(after[:20], before[:20])
    np.testing.assert_allclose(after[20:24, 20:24], linear_of(99 / 255), rtol=1e-4)


def test_a_changed_brightness_keeps_the_highlights(tmp_path):
    path = write_exr(tmp_path / "a.exr", plate(), np.float32)
    frame = read_photo(path).brightened(np.full((HEIGHT, WIDTH), 2, np.float32))
    PhotoWriter(tmp_path / "b.exr", path).write(frame)
    before, after = stored_pixels(path), stored_pixels(tmp_path / "b.exr")
    np.testing.assert_allclose(255 * srgb(after), 255 * srgb(before) + 2, rtol=1e-4, atol=0.01)


def test_tags_and_alpha_of_a_float_tiff_stay(tmp_path):
    pixels = np.dstack([plate(), np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)])
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels.astype(np.float32), photometric="rgb", extrasamples=["unassalpha"],
        compression="zlib", resolution=(300, 200), resolutionunit="INCH", software="Plate maker",
        description="Shot 10", datetime="2026:11:29 10:00:00", metadata=None,
        extratags=[(700, 1, 5, b"<xmp>", True), (65000, 12, 2, (1.5, 2.5), True),
                   (274, 3, 1, 1, True)],
    )  # fmt: skip
    frame = read_photo(path)
    assert has_alpha(path)
    assert alpha_of(frame).dtype == np.uint16
    PhotoWriter(tmp_path / "b.tif", path).write(
        frame.changed((0, 0, 4, 4), np.full((4, 4, 3), 50, np.float32))
    )
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(tmp_path / "b.tif") as other:
        tags = [{t.code: t.value for t in f.pages[0].tags if t.code not in (273, 278, 279, 322)}
                for f in (one, other)]  # fmt: skip
    assert tags[0].keys() - tags[1].keys() <= {274}
    assert {code: tags[1][code] for code in tags[1]} == {c: tags[0][c] for c in tags[1]}
    before, after = tifffile.imread(path), tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(after[..., 3], before[..., 3])
    np.testing.assert_array_equal(after[4:], before[4:])


def test_grey_plates_stay_grey(tmp_path):
    gray = plate()[..., 0]
    write_exr(tmp_path / "a.exr", gray, np.float32)
    codes = np.rint(gray.clip(0, 1) * 1023).astype(np.uint16)[..., np.newaxis]
    write_dpx(tmp_path / "a.dpx", codes)
    for name in ("a.exr", "a.dpx"):
        frame = read_photo(tmp_path / name)
        assert frame.pixels.is_gray
        patch = np.full((4, 4, 3), 50, np.float32)
        PhotoWriter(tmp_path / f"new{name}", tmp_path / name).write(
            frame.changed((0, 0, 4, 4), patch)
        )
        new = read_photo(tmp_path / f"new{name}")
        np.testing.assert_allclose(new.rgb_float((0, 0, 4, 4)), 50, atol=0.5)
        np.testing.assert_array_equal(new.rgb_float((4, 0, WIDTH, HEIGHT)),
                                      frame.rgb_float((4, 0, WIDTH, HEIGHT)))  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_film_images_become_other_photos(tmp_path, suffix):
    path = write_exr(tmp_path / "a.exr", np.full((HEIGHT, WIDTH, 3), 0.18), np.float32)
    PhotoWriter(tmp_path / f"b{suffix}", path).write(read_photo(path))
    frame = read_photo(tmp_path / f"b{suffix}")
    expected = 255 * srgb(0.18)
    deep = suffix in (".png", ".tif")
    assert isinstance(frame.pixels, DeepPhoto) == deep
    np.testing.assert_allclose(frame.rgb_float(WHOLE), expected, atol=0.01 if deep else 1)


def test_film_images_are_found_by_content(tmp_path):
    exr = write_exr(tmp_path / "a.exr", plate())
    dpx = write_dpx(tmp_path / "b.dpx", np.zeros((HEIGHT, WIDTH, 3), np.uint16))
    exr.rename(tmp_path / "plate")
    assert content_of(tmp_path / "plate") == content_of(dpx) == "photo"
    assert search(tmp_path).photos == [dpx, tmp_path / "plate"]
    assert isinstance(read_photo(tmp_path / "plate").pixels, FilmImage)
    (tmp_path / "c.exr").write_bytes(b"no EXR")
    with pytest.raises(InputError, match=r"c\.exr cannot be read: its content is neither"):
        read_photo(tmp_path / "c.exr")


def test_a_log_dpx_needs_a_colour_space(tmp_path):
    path = write_dpx(tmp_path / "a.dpx", np.full((4, 4, 3), 400, np.uint16), transfer=1)
    with pytest.raises(InputError, match=r"a\.dpx has logarithmic codes.*--colorspace"):
        film.check_colorspace(path, None)
    film.check_colorspace(path, "ARRI LogC4")
    linear = write_dpx(tmp_path / "b.dpx", np.full((4, 4, 3), 184, np.uint16), transfer=2)
    film.check_colorspace(linear, None)
    np.testing.assert_allclose(
        read_photo(linear).rgb_float((0, 0, 4, 4)), 255 * srgb(184 / 1023), rtol=1e-4
    )
    video = write_dpx(tmp_path / "c.dpx", np.full((4, 4, 3), 184, np.uint16), transfer=6)
    np.testing.assert_allclose(
        read_photo(video).rgb_float((0, 0, 4, 4)), 255 * 184 / 1023, rtol=1e-5
    )


def test_log_that_claims_to_be_linear_is_told_of(tmp_path, caplog):
    rec709 = plate(low=0.001, high=4)
    for name, pixels in (("log", SPACES["ARRI LogC4"](rec709)), ("linear", rec709)):
        path = write_exr(tmp_path / f"{name}.exr", pixels, colorInteropID="lin_rec709_scene")
        film.warn_of_log(path, None)
    film.warn_of_log(tmp_path / "log.exr", "ARRI LogC4")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "log.exr says that its light is linear" in record.getMessage()


def test_unknown_colour_spaces_have_likely_ones_named(tmp_path):
    path = write_exr(tmp_path / "a.exr", plate())
    with pytest.raises(SettingsError, match=r"no colour space ACEScq; it has .*ACEScg"):
        read_photo(path, "ACEScq")
    with pytest.raises(SettingsError, match=r"no colour space LogC4; it has ARRI LogC4"):
        read_photo(path, "LogC4")


def test_eight_bits_are_too_few_for_a_colour_space(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="it has 8 bits per channel, too few"):
        read_photo(tmp_path / "a.png", "ACEScct")
    assert read_photo(tmp_path / "a.png", AS_STORED).shape == (4, 4)


def test_raw_data_is_shown_as_stored(tmp_path):
    path = write_exr(tmp_path / "a.exr", np.full((4, 4, 3), 0.5), np.float32)
    np.testing.assert_allclose(read_photo(path, "Raw").rgb_float((0, 0, 4, 4)), 127.5)


def test_huge_windows_are_refused_before_they_are_read(tmp_path):
    path = write_exr(tmp_path / "a.exr", plate())
    data = bytearray(path.read_bytes())
    at = data.index(b"displayWindow\0box2i\0") + len(b"displayWindow\0box2i\0") + 4
    data[at + 8 : at + 16] = (10**6).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(InputError, match="the limit is"):
        read_photo(path)


@pytest.fixture
def own_config(tmp_path, monkeypatch):
    """Let $OCIO name a configuration with a colour space and file rules of its own."""
    config = PyOpenColorIO.Config.CreateRaw()
    config.setVersion(2, 1)
    space = PyOpenColorIO.ColorSpace(name="house")
    space.setTransform(
        PyOpenColorIO.MatrixTransform.Scale([2, 2, 2, 1]),
        PyOpenColorIO.COLORSPACE_DIR_TO_REFERENCE,
    )
    config.addColorSpace(PyOpenColorIO.ColorSpace(name="aces"))
    config.addColorSpace(space)
    config.setRole("aces_interchange", "aces")
    rules = PyOpenColorIO.FileRules()
    rules.insertRule(0, "plates", "house", "*plate*", "exr")
    rules.setDefaultRuleColorSpace("aces")
    config.setFileRules(rules)
    path = tmp_path / "config.ocio"
    path.write_text(config.serialize())
    monkeypatch.setenv("OCIO", str(path))
    return path


def test_the_users_configuration_is_honoured(tmp_path, own_config):
    aces = np.full((4, 4, 3), 0.18)
    expected = 255 * srgb(between(AP0, REC709) @ aces[0, 0])
    for name, pixels, space in (
        ("plate.exr", aces / 2, None), ("other.exr", aces, None), ("x.exr", aces / 2, "house"),
        ("y.exr", SPACES["ACEScg"](linear_of(np.full((4, 4, 3), expected / 255))), "lin_ap1_scene"),
    ):  # fmt: skip
        shown = read_photo(write_exr(tmp_path / name, pixels, np.float32), space)
        np.testing.assert_allclose(shown.rgb_float((0, 0, 4, 4))[0, 0], expected, rtol=2e-3)
    stated = write_exr(tmp_path / "plate2.exr", aces, np.float32, colorInteropID="lin_ap0_scene")
    np.testing.assert_allclose(
        read_photo(stated).rgb_float((0, 0, 4, 4))[0, 0], expected, rtol=2e-3
    )


def test_a_broken_configuration_is_named(tmp_path, monkeypatch):
    (tmp_path / "bad.ocio").write_text("no configuration")
    path = write_exr(tmp_path / "a.exr", plate())
    for name in ("bad.ocio", "missing.ocio"):
        monkeypatch.setenv("OCIO", str(tmp_path / name))
        with pytest.raises(InputError, match=f"{re.escape(name)}, which the environment variable"):
            read_photo(path)


def test_a_configuration_without_roles_is_named(tmp_path, monkeypatch):
    config = PyOpenColorIO.Config.CreateRaw()
    config.addColorSpace(PyOpenColorIO.ColorSpace(name="house"))
    (tmp_path / "bare.ocio").write_text(config.serialize())
    monkeypatch.setenv("OCIO", str(tmp_path / "bare.ocio"))
    with pytest.raises(InputError, match=r"bare\.ocio does not tell how house is shown"):
        read_photo(write_exr(tmp_path / "a.exr", plate()), "house")


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    path = write_exr(tmp_path / "a.exr", plate())
    for module in ("PyOpenColorIO", "OpenEXR"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SettingsError, match=re.escape("pip install 'faceswap[film]'")):
            read_photo(path, f"unknown to {module}")
    video = write_dpx(tmp_path / "a.dpx", np.zeros((4, 4, 3), np.uint16))
    assert read_photo(video).shape == (4, 4)  # which needs neither


def sequence(folder, count=4, **header):
    folder.mkdir()
    for number in range(count):
        moved = np.roll(plate(), number, axis=1)
        write_exr(folder / f"shot.{1001 + number}.exr", moved, **header)
    return folder


@pytest.mark.parametrize("name", ["shot.{}.exr", "take#2_{}.exr", "pic@2x_%03d_{}_4k.exr"])
def test_the_number_is_found_in_any_name(tmp_path, name):
    for number in (8, 9):
        write_exr(tmp_path / name.format(f"{number:04d}"), plate())

    around = tuple(name.split("{}"))
    assert identify(tmp_path / name.format("####"))[1].around_number == around
    if "4k" not in name:  # in a folder, the last number is that of the image
        assert identify(tmp_path, "sequence")[1].around_number == around


@pytest.mark.parametrize("aspect", [(1, 1), (2, 1), (11, 10), (0, 7), (0xFFFFFFFF, 1)])
def test_the_pixel_aspect_is_that_of_the_header(tmp_path, aspect):
    across, down = aspect
    path = write_dpx(tmp_path / "a.dpx", np.zeros((4, 4, 3), np.uint16), aspect=aspect)
    stated = across / down if across in (2, 11) else 1

    assert film.pixel_aspect_of(path) == stated
    image = write_exr(tmp_path / "a.exr", np.zeros((4, 4, 3)), pixelAspectRatio=float(stated))
    assert film.pixel_aspect_of(image) == pytest.approx(stated)
    (tmp_path / "torn.exr").write_bytes(image.read_bytes()[:40])
    assert film.pixel_aspect_of(tmp_path / "torn.exr") == 1


def test_threads_that_read_leave_stdout_alone(tmp_path):
    path = write_exr(tmp_path / "a.exr", np.zeros((64, 64, 3)))
    before = sys.stdout

    with ThreadPoolExecutor(4) as threads:
        shapes = set(threads.map(lambda _: read_photo(path).shape, range(200)))

    assert shapes == {(64, 64)}
    assert sys.stdout is before


def test_sequences_take_the_frame_rate_of_their_images(tmp_path):
    rate = Fraction(24000, 1001)
    folder = sequence(tmp_path / "a", framesPerSecond=rate)
    kind, footage = identify(folder, "sequence")
    assert (kind, footage.rate, footage.path.name) == ("sequence", rate, "shot.####.exr")
    assert identify(folder, "sequence", Fraction(25))[1].rate == 25
    assert identify(folder / "shot.%04d.exr", colorspace="ACEScg")[1].colorspace == "ACEScg"
    plain = sequence(tmp_path / "b")
    assert identify(plain, "sequence")[1].rate == 24
    assert not footage.has_alpha()
    assert sequence_in(folder).files == footage.files


def test_sequences_are_read_in_their_colour_space(tmp_path):
    folder = sequence(tmp_path / "a")
    _, footage = identify(folder, "sequence", colorspace="ACEScg")
    frames = list(footage.read())
    expected = read_photo(footage.files[2], "ACEScg")
    np.testing.assert_array_equal(frames[2].image, expected.image)
    assert Path(frames[2].source).name == "shot.1003.exr"


def test_unchanged_frames_are_equal_after_all(tmp_path):
    path = write_exr(tmp_path / "a.exr", plate())
    frame = Frame(read_photo(path).pixels, 0, Fraction(0), path)
    same = frame.changed((3, 3, 9, 9), frame.rgb_float((3, 3, 9, 9)))
    PhotoWriter(tmp_path / "b.exr", path).write(same)
    assert (tmp_path / "b.exr").read_bytes() == path.read_bytes()
    assert OpenEXR.isOpenExrFile(str(path))
