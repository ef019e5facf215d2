"""A rewritten photo keeps its 16-bit depth, transparency, ICC profile and metadata."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from faceswap.errors import InputError
from faceswap.media import photos
from faceswap.media.photos import _chunk, _chunks
from faceswap.media.sources import content_of
from tests.support.clips import open_writer, picture

BOX = (20, 10, 40, 30)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def rewrite(source, target, change=True):
    """Rewrite a photo, with inverted colours in BOX if ``change``, and return the target."""
    frame = photos.read_photo(source)
    if change:
        frame = frame.changed(BOX, 255 - frame.rgb_float(BOX))
    with open_writer(target, source) as writer:
        writer.write(frame)
    return target


def outside_box(pixels):
    pixels = pixels.copy()
    left, top, right, bottom = BOX
    pixels[top:bottom, left:right, :3] = 0
    return pixels


def random_pixels(channels):
    return np.random.default_rng(0).integers(0, 65536, (48, 64, channels)).astype(np.uint16)


def save_deep(path, pixels):
    if path.suffix == ".png":
        order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        cv2.imwrite(str(path), cv2.cvtColor(pixels, order))
    else:
        extra = {"extrasamples": ["unassalpha"]} if pixels.shape[2] == 4 else {}
        tifffile.imwrite(path, pixels, photometric="rgb", iccprofile=PROFILE, **extra)
    return path


def read_deep(path):
    if path.suffix == ".png":
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        order = cv2.COLOR_BGRA2RGBA if stored.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(stored, order)
    return tifffile.imread(path)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_pixels_outside_the_change_are_bit_exact(tmp_path, suffix, channels):
    pixels = random_pixels(channels)
    source = save_deep(tmp_path / f"in{suffix}", pixels)

    again = read_deep(rewrite(source, tmp_path / f"out{suffix}"))

    assert again.dtype == np.uint16
    np.testing.assert_array_equal(outside_box(again), outside_box(pixels))
    left, top, right, bottom = BOX
    inside = again[top:bottom, left:right].astype(int)
    wanted = pixels[top:bottom, left:right].astype(int)
    assert np.abs(inside[..., :3] - (65535 - wanted[..., :3])).max() <= 1
    np.testing.assert_array_equal(inside[..., 3:], wanted[..., 3:])
    if suffix == ".tif":
        with tifffile.TiffFile(tmp_path / "out.tif") as file:
            assert file.pages[0].tags[34675].value == PROFILE


@pytest.mark.parametrize(("one", "other"), [(".png", ".tif"), (".tif", ".png")])
def test_sixteen_bits_survive_conversion_between_png_and_tiff(tmp_path, one, other):
    pixels = random_pixels(4)
    source = save_deep(tmp_path / f"in{one}", pixels)

    again = read_deep(rewrite(source, tmp_path / f"out{other}"))

    np.testing.assert_array_equal(outside_box(again), outside_box(pixels))
    if other == ".png":
        with Image.open(tmp_path / "out.png") as photo:
            assert photo.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_rounded_to_eight_for_webp(tmp_path, suffix, channels):
    pixels = random_pixels(channels)
    source = save_deep(tmp_path / f"in{suffix}", pixels)

    with Image.open(rewrite(source, tmp_path / "out.webp", change=False)) as photo:
        again = np.asarray(photo)

    np.testing.assert_array_equal(again, np.rint(pixels / 257).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_photo_orientation_is_applied_once(tmp_path, suffix, orientation):
    from PIL import ImageOps

    pixels = random_pixels(3)
    source = tmp_path / f"in{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == ".png":
        chunk = exif.tobytes().removeprefix(b"Exif\0\0")
        _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        source.write_bytes(png.tobytes()[:33] + _chunk(b"eXIf", chunk) + png.tobytes()[33:])
    else:
        tags = [(0x0112, "H", 1, orientation, False)]
        tifffile.imwrite(source, pixels, photometric="rgb", extratags=tags)
    shallow = Image.fromarray((pixels >> 8).astype(np.uint8))  # Pillow is the reference
    shallow.save(tmp_path / "reference.png", exif=exif)
    with Image.open(tmp_path / "reference.png") as photo:
        wanted = np.asarray(ImageOps.exif_transpose(photo))

    target = rewrite(source, tmp_path / f"out{suffix}", change=False)

    for path in (source, target):
        np.testing.assert_array_equal(photos.read_photo(path).pixels.pixels >> 8, wanted)
    np.testing.assert_array_equal(read_deep(target) >> 8, wanted)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_kept_exactly(tmp_path, suffix):
    rgba = np.dstack([picture(0, 64, 48), np.random.default_rng(0).integers(0, 256, (48, 64))])
    rgba = rgba.astype(np.uint8)
    source = tmp_path / f"in{suffix}"
    Image.fromarray(rgba).save(source, **({"lossless": True, "exact": True} if suffix == ".webp"
                                          else {}))  # fmt: skip

    with Image.open(rewrite(source, tmp_path / f"out{suffix}")) as photo:
        assert photo.mode == "RGBA"
        again = np.asarray(photo)

    np.testing.assert_array_equal(outside_box(again), outside_box(rgba))
    np.testing.assert_array_equal(again[..., 3], rgba[..., 3])
    assert (again[10:30, 20:40, :3] != rgba[10:30, 20:40, :3]).any()


def test_jpeg_output_drops_transparency(tmp_path):
    source = tmp_path / "in.png"
    Image.fromarray(np.dstack([picture(0, 64, 48), np.full((48, 64), 7, np.uint8)])).save(source)

    with Image.open(rewrite(source, tmp_path / "out.jpg")) as photo:
        assert photo.mode == "RGB"


@pytest.mark.parametrize("bits", [8, 16])
def test_png_profile_text_and_density_are_kept(tmp_path, bits):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Grace")
    source = tmp_path / "in.png"
    Image.fromarray(picture(0, 64, 48)).save(
        source, pnginfo=text, icc_profile=PROFILE, dpi=(300, 300)
    )
    if bits == 16:  # Pillow cannot write 16-bit RGB: join OpenCV's pixels and Pillow's chunks
        kept = b"".join(_chunks(source.read_bytes()))
        kept += _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(PROFILE))
        _, png = cv2.imencode(".png", random_pixels(3))
        data = png.tobytes()
        source.write_bytes(data[:33] + kept + data[33:])

    with Image.open(rewrite(source, tmp_path / "out.png")) as photo:
        photo.load()
        assert photo.info["icc_profile"] == PROFILE
        assert photo.info.get("Author") == "Grace"
        assert photo.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_exif_is_kept_and_its_orientation_is_applied_once(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"  # rotate 90 degrees clockwise
    sideways = picture(0, 64, 48)
    source = tmp_path / f"in{suffix}"
    Image.fromarray(sideways).save(source, exif=exif, icc_profile=PROFILE)

    target = rewrite(source, tmp_path / f"out{suffix}", change=False)

    with Image.open(target) as photo:
        assert photo.size == (48, 64)
        assert photo.getexif().get(0x0112, 1) == 1
        assert photo.getexif()[0x010E] == "a description"
        assert photo.info["icc_profile"] == PROFILE
    upright = photos.read_photo(source).image
    assert upright.shape == (64, 48, 3)
    assert np.abs(photos.read_photo(target).image.astype(int) - upright).mean() < 2


def test_transparency_is_rotated_with_the_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)
    source = tmp_path / "in.png"
    Image.fromarray(np.dstack([picture(0, 64, 48), alpha])).save(source, exif=exif)

    with Image.open(rewrite(source, tmp_path / "out.png")) as photo:
        np.testing.assert_array_equal(np.asarray(photo)[..., 3], np.rot90(alpha, -1))


def test_layer_replaces_the_transparency_of_its_source(tmp_path):
    source = save_deep(tmp_path / "in.png", random_pixels(4))
    frame = photos.read_photo(source)
    layer = np.zeros((48, 64, 4), np.uint8)
    layer[10:20, 10:30] = (200, 100, 50, 128)

    with open_writer(tmp_path / "out.png", source) as writer:
        writer.write(frame.repainted(layer))

    with Image.open(tmp_path / "out.png") as photo:
        np.testing.assert_array_equal(np.asarray(photo), layer)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the file name")
def test_sixteen_bit_photo_may_have_a_non_unicode_name(tmp_path):
    """This runs in a subprocess, because cv2.imread would crash the process."""
    save_deep(tmp_path / "in.png", random_pixels(3)).rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    code = (
        "import sys\nfrom pathlib import Path\nfrom faceswap.media.photos import read_photo\n"
        "(path,) = Path(sys.argv[1]).iterdir()\nprint(read_photo(path).pixels.pixels.sum())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == random_pixels(3).sum()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_truncated_sixteen_bit_photo_raises_a_one_line_error(tmp_path, suffix):
    source = save_deep(tmp_path / f"in{suffix}", random_pixels(3))
    source.write_bytes(source.read_bytes()[:2000])

    with pytest.raises(InputError) as caught:
        photos.read_photo(source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["XML:com.adobe.xmp", "Raw profile type exif"])
def test_orientation_in_png_text_is_applied_once(tmp_path, kind):
    payload = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    if kind.startswith("Raw"):  # the format that ImageMagick writes
        exif = Image.Exif()
        exif[0x0112] = 6
        payload = f"\nexif\n{len(exif.tobytes()):8d}\n{exif.tobytes().hex()}\n"
    text = PngImagePlugin.PngInfo()
    text.add_itxt(kind, payload) if kind.startswith("XML") else text.add_text(kind, payload)
    Image.fromarray(picture(0, 64, 48)).save(tmp_path / "in.png", pnginfo=text)

    target = rewrite(tmp_path / "in.png", tmp_path / "out.png", change=False)

    shown = photos.read_photo(tmp_path / "in.png").image
    assert shown.shape == (64, 48, 3)
    np.testing.assert_array_equal(photos.read_photo(target).image, shown)


def test_invalid_exif_is_dropped_with_a_warning(tmp_path, caplog):
    entry = struct.pack(">HHI4s", 0x010F, 12, 1, b"\0\0\0\x08")  # the camera's make as a number
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    Image.fromarray(picture(0, 64, 48)).save(tmp_path / "in.jpg", exif=exif)

    target = rewrite(tmp_path / "in.jpg", tmp_path / "out.jpg")

    assert photos.read_photo(target).shape == (48, 64)
    assert "in.jpg is damaged and was not copied" in caplog.text


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_photo_with_several_images_is_warned_about(tmp_path, caplog, suffix):
    one, two = (Image.fromarray(picture(number, 64, 48)) for number in range(2))
    one.save(tmp_path / f"in{suffix}", save_all=True, append_images=[two])

    assert photos.read_photo(tmp_path / f"in{suffix}").shape == (48, 64)
    assert f"in{suffix} contains several images; only the first is read" in caplog.text


@pytest.mark.parametrize("source", ["in.jpg", "in.tif", "in.png"])
@pytest.mark.parametrize("target", ["out.jpg", "out.tif"])
def test_print_resolution_is_kept(tmp_path, source, target):
    Image.fromarray(picture(0, 64, 48)).save(tmp_path / source, dpi=(300, 300))

    with Image.open(rewrite(tmp_path / source, tmp_path / target)) as photo:
        assert [round(float(dots)) for dots in photo.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("dots", [(0, 0), (1, 1), (1e9, 1e9)])
def test_invalid_print_resolution_is_dropped(tmp_path, dots):
    Image.fromarray(picture(0, 64, 48)).save(tmp_path / "in.tif", dpi=dots)

    assert photos.read_photo(rewrite(tmp_path / "in.tif", tmp_path / "out.jpg")).shape == (48, 64)


@pytest.mark.parametrize(("name", "mode"), [("x.png", "L"), ("x.jpg", "L"), ("x.png", "LA"),
                                            ("x.tif", "L"), ("x.jp2", "L")])  # fmt: skip
@pytest.mark.parametrize("is_gray", [True, False])
def test_grey_photo_stays_grey_if_its_swap_is(tmp_path, name, mode, is_gray, caplog):
    source, target = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    Image.fromarray(np.full((20, 30), 90, np.uint8)).convert(mode).save(source)
    frame = photos.read_photo(source)
    color = [120, 121, 120] if is_gray else [200, 20, 20]  # one level may be rounding

    photos.PhotoWriter(target, source).write(
        frame.changed((0, 0, 10, 10), np.full((10, 10, 3), color, np.uint8))
    )

    with Image.open(target) as written:
        expected = mode if is_gray else {"L": "RGB", "LA": "RGBA"}[mode]
        assert written.mode == expected
        assert abs(int(np.asarray(written.convert("RGB"))[15, 25, 0]) - 90) <= 1
    assert ("is written as RGB" in caplog.text) != is_gray


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_grey_photo_keeps_its_depth(tmp_path, suffix):
    import tifffile

    source, target = tmp_path / f"x{suffix}", tmp_path / f"out{suffix}"
    levels = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100
    if suffix == ".png":
        cv2.imwrite(str(source), levels)
    else:
        tifffile.imwrite(source, levels, photometric="minisblack")
    frame = photos.read_photo(source)
    assert frame.shape == (20, 30)

    photos.PhotoWriter(target, source).write(
        frame.changed((0, 0, 10, 10), np.full((10, 10, 3), 7, np.uint8))
    )

    read = tifffile.imread(target) if suffix == ".tif" else cv2.imread(str(target), -1)
    assert read.shape == (20, 30)
    assert read.dtype == np.uint16
    assert (read[:10, :10] == 7 * 257).all()
    np.testing.assert_array_equal(read[10:], levels[10:])


def test_cmyk_photo_is_converted_by_its_profile_and_told_of(tmp_path, caplog):
    source = tmp_path / "x.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(source, quality=100)

    frame = photos.read_photo(source)

    assert "has CMYK colours, which are converted to RGB" in caplog.text
    red, green, blue = frame.image[8, 8]
    assert red > 200
    assert max(green, blue) < 60


HEIC = Path(__file__).parent / "data" / "tiny.heic"


def test_heic_is_read_upright(tmp_path):
    """The file was made by libheif's encoder: red above blue, turned by its orientation."""
    frame = photos.read_photo(HEIC)

    assert content_of(HEIC) == "photo"
    assert frame.shape == (64, 48)
    assert frame.image[8, 24, 0] > 200 > 60 > frame.image[8, 24, 2]
    assert frame.image[56, 24, 2] > 200 > 60 > frame.image[56, 24, 0]
    photos.PhotoWriter(tmp_path / "out.jpg", HEIC).write(frame)
    with Image.open(tmp_path / "out.jpg") as written:
        assert written.size == (48, 64)


@pytest.mark.parametrize("suffix", [".avif", ".jp2", ".jfif", ".jpe"])
def test_photo_of_any_written_format_can_be_read_again(tmp_path, suffix):
    source = tmp_path / "x.png"
    Image.fromarray(picture(0, 64, 48)).save(source)
    frame = photos.read_photo(source)

    photos.PhotoWriter(tmp_path / f"out{suffix}", source).write(frame)

    again = photos.read_photo(tmp_path / f"out{suffix}").image
    assert np.abs(again.astype(int) - frame.image).mean() < 2
