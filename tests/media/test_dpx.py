"""DPX images are read exactly, and copies differ only in the codes that changed."""

import re

import av
import numpy as np
import pytest

from faceswap.media import dpx
from tests.support.films import write_dpx

WIDTH, HEIGHT = 7, 5  # lines do not end with a whole word

LAYOUTS = [
    (bits, packing, order, channels, padding)
    for bits, packing in ((8, 0), (10, 1), (10, 2), (12, 1), (12, 2), (16, 0))
    for order in "<>" for channels in (1, 3, 4) for padding in (0, 8)
]  # fmt: skip


def noise(bits, channels, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 2**bits, (HEIGHT, WIDTH, channels)).astype(np.uint16)


@pytest.mark.parametrize(("bits", "packing", "order", "channels", "padding"), LAYOUTS)
def test_codes_come_back_and_copies_differ_only_in_them(
    tmp_path, bits, packing, order, channels, padding
):
    codes = noise(bits, channels)
    source = write_dpx(tmp_path / "a.dpx", codes, bits, packing, order, padding=padding)
    layout = dpx.read_layout(source)
    np.testing.assert_array_equal(dpx.read_codes(source, layout), codes)
    assert (layout.width, layout.height, layout.largest) == (WIDTH, HEIGHT, 2**bits - 1)
    assert layout.rate == 24

    colors = np.repeat(codes, 3, axis=2) if channels == 1 else codes[..., :3].copy()
    dpx.write_copy(tmp_path / "same.dpx", source, colors)
    assert (tmp_path / "same.dpx").read_bytes() == source.read_bytes()
    colors[1:3, 2:4] = 2**bits - 1 - colors[1:3, 2:4]
    dpx.write_copy(tmp_path / "b.dpx", source, colors)
    expected = codes.copy()
    expected[1:3, 2:4, :3] = 2**bits - 1 - expected[1:3, 2:4, :3]
    wanted = write_dpx(tmp_path / "c.dpx", expected, bits, packing, order, padding=padding)
    assert (tmp_path / "b.dpx").read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize(
    ("pixel_format", "bits"), [("rgb24", 8), ("gbrp10le", 10), ("gbrp10be", 10), ("gbrp12le", 12)]
)
def test_images_of_ffmpeg_are_read_as_ffmpeg_reads_them(tmp_path, pixel_format, bits):
    levels = np.random.default_rng(0).integers(0, 2**16, (32, 48, 3)).astype(np.uint16)
    with av.open(str(tmp_path / "x_%d.dpx"), "w", format="image2") as out:
        stream = out.add_stream("dpx", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        frame = av.VideoFrame.from_ndarray(levels, format="rgb48le").reformat(format=pixel_format)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    path = tmp_path / "x_1.dpx"
    with av.open(str(path), format="dpx_pipe") as file:
        shown = next(file.decode(video=0))
    if bits == 8:
        expected = shown.to_ndarray(format="rgb24")
    else:
        planes = [np.frombuffer(p, "<u2" if shown.format.name.endswith("le") else ">u2")
                  for p in shown.planes]  # fmt: skip
        green, blue, red = (plane.reshape(32, -1)[:, :48].astype(np.uint16) for plane in planes)
        expected = np.dstack([red, green, blue])
    np.testing.assert_array_equal(dpx.read_codes(path, dpx.read_layout(path)), expected)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (768, b"\0\x05", "top left"), (770, b"\0\x02", "2 image elements"),
        (800, b"\x64", "kind 100"), (803, b"\x20", "32 bits"), (804, b"\0\0", "without filling"),
        (806, b"\0\x01", "run-length"), (780, b"\0\0\0\x01", "signed"),
        (772, b"\0\0\0\0", "damaged"), (776, b"\0\x10\0\0", "damaged"),
        (808, b"\0\0\0\x08", "damaged"), (808, b"\x7f\0\0\0", "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said(tmp_path, at, value, message):
    path = write_dpx(tmp_path / "a.dpx", noise(10, 3))
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)):
        dpx.read_layout(path)


@pytest.mark.parametrize("length", [0, 3, 700, 1700, 2050])
def test_truncated_images_are_damaged(tmp_path, length):
    path = write_dpx(tmp_path / "a.dpx", noise(10, 3))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged"):
        dpx.read_layout(path)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, None), (float("nan"), None), (1e9, None)])
def test_senseless_rates_are_none(tmp_path, rate, expected):
    layout = dpx.read_layout(write_dpx(tmp_path / "a.dpx", noise(10, 3), rate=rate))
    assert layout.rate is expected


def test_rates_of_television_are_exact(tmp_path):
    layout = dpx.read_layout(write_dpx(tmp_path / "a.dpx", noise(10, 3), rate=24000 / 1001))
    assert (layout.rate.numerator, layout.rate.denominator) == (24000, 1001)
