"""EXR images keep every attribute, channel and unchanged pixel."""

import re
import sys
from fractions import Fraction

import numpy as np
import OpenEXR
import pytest

from faceswap.errors import SettingsError
from faceswap.media import exr
from tests.support.films import exr_attributes, exr_planes, window, write_exr

HEIGHT, WIDTH = 40, 56
LOSSLESS = ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24"]


def light(seed=0, shape=(HEIGHT, WIDTH, 3)):
    """Return linear light from -1 to 60."""
    generator = np.random.default_rng(seed)
    return (np.exp(generator.uniform(-9, 4, shape)) - generator.uniform(0, 1, shape)).astype("f2")


def changed_copy(source, target):
    """Write a copy with a changed rect; return the new pixels and where they changed."""
    layout = exr.read_layout(source)
    pixels = exr.read_pixels(source, layout)
    changed = np.zeros(pixels.shape[:2], bool)
    changed[10:20, 15:30] = True
    pixels[changed] *= 2
    exr.write_copy(target, source, pixels, changed)
    return pixels, changed


ATTRIBUTES = {
    "owner": "Æ & co", "capDate": "2026:11:29 12:00:00", "pixelAspectRatio": 2.0,
    "framesPerSecond": Fraction(24000, 1001), "timeCode": OpenEXR.TimeCode(),
    "keyCode": OpenEXR.KeyCode(), "isoSpeed": 800.0, "worldToCamera": np.eye(4, dtype=np.float32),
    "chromaticities": OpenEXR.colorInteropIDToChromaticities("lin_ap1_scene"), "views": ["a", "b"],
    "count": 7, "whiteLuminance": 100.0, "envmap": OpenEXR.ENVMAP_LATLONG,
    "lineOrder": OpenEXR.DECREASING_Y,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("compression", LOSSLESS)
def test_all_but_the_changed_pixels_stays(tmp_path, dtype, compression):
    others = {
        "A": np.linspace(0, 1, HEIGHT * WIDTH, dtype="f2").reshape(HEIGHT, WIDTH),
        "depth.Z": light(1, (HEIGHT, WIDTH)).astype("f4"),
        "id": np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) * 997,
    }
    kept = {name: plane.copy() for name, plane in others.items()}
    source = write_exr(
        tmp_path / "a.exr", light(), dtype, others, compression,
        dataWindow=window(-4, 3, WIDTH - 5, HEIGHT + 2), displayWindow=window(0, 0, 59, 49),
        **ATTRIBUTES,
    )  # fmt: skip
    before = exr_planes(source)
    pixels, changed = changed_copy(source, tmp_path / "b.exr")
    assert exr_attributes(tmp_path / "b.exr") == exr_attributes(source)
    after = exr_planes(tmp_path / "b.exr")
    inside = changed[3:43, :56]  # the whole window begins at (-4, 0)
    assert pixels.shape == (50, 64, 3)
    assert inside.sum() == 150
    for place, name in enumerate("RGB"):
        assert after[name].dtype == dtype
        np.testing.assert_array_equal(after[name][~inside], before[name][~inside])
        expected = 2 * before[name][inside]
        np.testing.assert_allclose(  # PXR24 keeps 24 of 32 bits
            after[name][inside], expected, rtol=1e-4 if compression == "PXR24" else 0
        )
        np.testing.assert_array_equal(pixels[3:43, :56, place][~inside], before[name][~inside])
    for name, plane in kept.items():
        stored = before[name] if compression == "PXR24" else plane
        np.testing.assert_array_equal(after[name], stored)


def test_all_bytes_stay_if_nothing_changes(tmp_path):
    source = write_exr(tmp_path / "a.exr", light(), **ATTRIBUTES)
    pixels = exr.read_pixels(source, exr.read_layout(source))
    exr.write_copy(tmp_path / "b.exr", source, pixels * 3, np.zeros((HEIGHT, WIDTH), bool))
    assert (tmp_path / "b.exr").read_bytes() == source.read_bytes()


def test_tiles_stay_tiles(tmp_path):
    source = write_exr(
        tmp_path / "a.exr", light(), type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription()
    )
    changed_copy(source, tmp_path / "b.exr")
    (before,), (after,) = exr_attributes(source), exr_attributes(tmp_path / "b.exr")
    assert before == after
    assert after["tiles"][0] == "tiledesc"


@pytest.mark.parametrize("compression", ["DWAA", "DWAB", "B44", "B44A"])
def test_lossy_compression_becomes_lossless(tmp_path, compression, caplog):
    caplog.set_level("INFO")
    smooth = np.cumsum(np.full((HEIGHT, WIDTH, 3), 0.01), axis=1).astype("f2")
    source = write_exr(tmp_path / "a.exr", smooth, compression=compression)
    _, changed = changed_copy(source, tmp_path / "b.exr")
    for name in "RGB":
        before, after = exr_planes(source)[name], exr_planes(tmp_path / "b.exr")[name]
        np.testing.assert_array_equal(after[~changed], before[~changed])
    assert f"written with ZIP, because {compression} would change all pixels" in caplog.text
    (before,), (after,) = exr_attributes(source), exr_attributes(tmp_path / "b.exr")
    assert before.pop("compression") != after.pop("compression")
    assert before == after


def test_unknown_attributes_stay(tmp_path):
    source = write_exr(tmp_path / "a.exr", light(), owner="me")
    data = source.read_bytes().replace(b"owner\0string\0", b"owner\0blorbs\0")
    source.write_bytes(data)
    changed_copy(source, tmp_path / "b.exr")
    assert exr_attributes(tmp_path / "b.exr")[0]["owner"] == ("blorbs", b"me")


def test_parts_stay_and_the_picture_is_found_in_them(tmp_path):
    half = {name: light(place, (HEIGHT, WIDTH)) for place, name in enumerate("RGB")}
    source = tmp_path / "a.exr"
    plain = {"type": OpenEXR.scanlineimage}
    OpenEXR.File([
        OpenEXR.Part({**plain, "name": "z", "compression": OpenEXR.ZIPS_COMPRESSION},
                     {"Z": light(5, (HEIGHT, WIDTH)).astype("f4")}),
        OpenEXR.Part({**plain, "name": "right", "view": "right"},
                     {f"right.{n}": p.copy() for n, p in half.items()}),
        OpenEXR.Part({**plain, "name": "left", "view": "left"},
                     {n: p.copy() for n, p in half.items()}),
    ]).write(str(source))  # fmt: skip
    layout = exr.read_layout(source)
    assert (layout.part, layout.channels) == (2, ("R", "G", "B"))
    _, changed = changed_copy(source, tmp_path / "b.exr")
    assert exr_attributes(tmp_path / "b.exr") == exr_attributes(source)
    for part in range(3):
        for name, plane in exr_planes(source, part).items():
            same = exr_planes(tmp_path / "b.exr", part)[name] == plane
            assert same.all() == (part != 2)
            assert same[~changed].all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("R", "G", "B", "A"), ("R", "G", "B")),
        (("diffuse.R", "diffuse.G", "diffuse.B", "rgba.R", "rgba.G", "rgba.B"),
         ("rgba.R", "rgba.G", "rgba.B")),
        (("cg.r", "cg.g", "cg.b"), ("cg.r", "cg.g", "cg.b")),
        (("Y", "A"), ("Y",)),
        (("N.X", "N.Y", "beauty.Y"), ("beauty.Y",)),
    ],
)  # fmt: skip
def test_the_usual_layer_is_taken(tmp_path, names, expected):
    path, planes = tmp_path / "a.exr", {n: light(1, (HEIGHT, WIDTH)) for n in names}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, planes).write(str(path))
    assert exr.read_layout(path).channels == expected


def test_grey_levels_are_written_to_their_channel(tmp_path):
    source = write_exr(tmp_path / "a.exr", light(0, (HEIGHT, WIDTH)), np.float32)
    pixels, changed = changed_copy(source, tmp_path / "b.exr")
    assert pixels.dtype == np.float32
    (before, after) = (exr_planes(p)["Y"] for p in (source, tmp_path / "b.exr"))
    np.testing.assert_array_equal(after, np.where(changed, 2 * before, before))


def test_what_half_floats_cannot_hold_is_limited(tmp_path):
    source = write_exr(tmp_path / "a.exr", light())
    layout = exr.read_layout(source)
    pixels = exr.read_pixels(source, layout).astype(np.float32)
    pixels[0, 0] = 1e9, -1e9, 1
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[0, 0] = True
    exr.write_copy(tmp_path / "b.exr", source, pixels, changed)
    after = exr_planes(tmp_path / "b.exr")
    assert [float(after[name][0, 0]) for name in "RGB"] == [65504, -65504, 1]


@pytest.mark.parametrize(
    ("header", "space"),
    [
        ({}, None),
        ({"colorInteropID": "lin_ap1_scene"}, "lin_ap1_scene"),
        ({"colorInteropID": "unknown"}, None),
        ({"acesImageContainerFlag": 1}, "lin_ap0_scene"),
        ({"chromaticities": OpenEXR.colorInteropIDToChromaticities("lin_rec2020_scene")},
         "lin_rec2020_scene"),
    ],
)  # fmt: skip
def test_attributes_state_the_colour_space(tmp_path, header, space):
    assert exr.read_layout(write_exr(tmp_path / "a.exr", light(), **header)).space == space


def test_strange_chromaticities_are_refused(tmp_path):
    path = write_exr(
        tmp_path / "a.exr", light(), chromaticities=(0.5, 0.3, 0.2, 0.6, 0.1, 0.1, 0.3, 0.3)
    )
    with pytest.raises(ValueError, match="--colorspace"):
        exr.read_layout(path)


def test_frame_rate_is_read(tmp_path):
    path = write_exr(tmp_path / "a.exr", light(), framesPerSecond=Fraction(24000, 1001))
    assert exr.read_layout(path).rate == Fraction(24000, 1001)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99])
def test_truncated_images_are_damaged(tmp_path, share, capfd):
    path = write_exr(tmp_path / "a.exr", light(), compression="PIZ")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="damaged"):
        exr.read_pixels(path, exr.read_layout(path))
    assert not capfd.readouterr().out  # which may be a report


def test_damage_never_crashes(tmp_path, capfd):
    source = write_exr(tmp_path / "a.exr", light(), compression="PIZ", **ATTRIBUTES)
    original, generator, refused = source.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(original)
        for at in generator.integers(4, 900, 3):
            data[at] = generator.integers(256)
        source.write_bytes(data)
        try:
            layout = exr.read_layout(source)
            if layout.shape[0] * layout.shape[1] < 10**6:
                exr.read_pixels(source, layout)
        except ValueError:
            refused += 1
    assert refused > 5
    assert not capfd.readouterr().out


def test_textures_are_refused(tmp_path):
    tiles = OpenEXR.TileDescription()
    tiles.mode = OpenEXR.MIPMAP_LEVELS
    path = write_exr(tmp_path / "a.exr", light(), type=OpenEXR.tiledimage, tiles=tiles)
    with pytest.raises(ValueError, match="textures"):
        exr.read_layout(path)


def test_channels_without_colours_are_named(tmp_path):
    OpenEXR.File(
        {"type": OpenEXR.scanlineimage}, {"Z": light(0, (9, 9)), "U": light(0, (9, 9))}
    ).write(str(tmp_path / "a.exr"))
    with pytest.raises(ValueError, match=re.escape("but U, Z")):
        exr.read_layout(tmp_path / "a.exr")


def test_names_that_are_not_unicode(tmp_path):
    folder = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    folder.mkdir()
    source = write_exr(tmp_path / "a.exr", light()).rename(folder / "a.exr")
    changed_copy(source, folder / "b.exr")
    assert (folder / "b.exr").stat().st_size > 1000


def test_missing_library_is_named(tmp_path, monkeypatch):
    path = write_exr(tmp_path / "a.exr", light())
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'faceswap[film]'")):
        exr.read_layout(path)
