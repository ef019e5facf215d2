"""Graphics hardware decodes footage only if it gives the same frames."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from faceswap.media import colorspace, reader
from faceswap.media.footage import VideoFile
from tests.support.clips import make_clip


def noisy(name, width=66, height=50):
    """Return a frame of random codes."""
    rng = np.random.default_rng(1)
    frame = av.VideoFrame(width, height, name)
    bits = frame.format.components[0].bits
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8)
        rows[:] = rng.integers(0, 2**bits, rows.size)
    frame.pts, frame.color_trc, frame.colorspace, frame.color_range = 7, 1, 1, 1
    return frame


@pytest.mark.parametrize(
    ("semi", "name"),
    [
        ("nv12", "yuv420p"), ("nv16", "yuv422p"), ("nv24", "yuv444p"), ("p010le", "yuv420p10le"),
        ("p210le", "yuv422p10le"), ("p410le", "yuv444p10le"), ("p012le", "yuv420p12le"),
    ],
)  # fmt: skip
def test_layouts_of_hardware_become_planes_bit_for_bit(semi, name):
    """FFmpeg packs the planes as the hardware would."""
    frame = noisy(name)
    packed = frame.reformat(format=semi, interpolation=Interpolation.POINT)
    for tag, value in colorspace.tags_of(frame).items():
        setattr(packed, tag, value)

    unpacked = colorspace.planar(packed)

    assert unpacked.format.name == name
    assert unpacked.pts == 7
    assert colorspace.are_equal(unpacked, frame)


@pytest.mark.parametrize(
    ("listed", "name", "expected"),
    [
        (["nv12", "p010le", "yuv444p16le", "bgr0"], "yuv420p10le", "p010le"),
        (["nv12", "p010le", "yuv420p"], "yuv420p10le", "p010le"),
        (["nv12", "yuv444p"], "yuv420p", "nv12"),
        (["nv12", "p010le"], "yuv422p10le", "p010le"),
        (["yuv420p", "nv12"], "yuv420p", "yuv420p"),
    ],
)
def test_encoders_of_hardware_get_a_layout_that_holds_the_footage(
    monkeypatch, listed, name, expected
):
    formats = SimpleNamespace(video_formats=[av.VideoFormat(one) for one in listed])
    monkeypatch.setattr(av, "Codec", lambda *_: formats)

    source = SimpleNamespace(pix_fmt=name, width=64, height=48)
    assert colorspace.pixel_format(source, "some encoder") == expected


@pytest.mark.parametrize(("semi", "name"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
def test_layouts_for_hardware_hold_the_planes_bit_for_bit(semi, name):
    frame = noisy(name)

    packed = colorspace.converted(frame, semi, colorspace.tags_of(frame))

    assert colorspace.are_equal(colorspace.planar(packed), frame)


def test_other_layouts_stay():
    frame = noisy("yuv420p")
    assert colorspace.planar(frame) is frame


def test_frames_differ_by_any_bit_or_tag():
    one, other = noisy("yuv420p"), noisy("yuv420p")
    assert colorspace.are_equal(one, other)
    other.color_trc = 16
    assert not colorspace.are_equal(one, other)
    other = noisy("yuv420p")
    np.frombuffer(other.planes[2], np.uint8)[3] ^= 1
    assert not colorspace.are_equal(one, other)
    assert not colorspace.are_equal(one, noisy("yuv420p10le"))
    assert not colorspace.are_equal(one, noisy("yuv420p", 64))


def test_hardware_that_gives_the_same_frames_is_used(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4")
    usual = [frame.image for frame in VideoFile(source).read()]
    monkeypatch.setattr(reader, "hwdevices_available", lambda: ["broken", "good"])
    monkeypatch.setattr(reader, "_is_accelerated", lambda stream: True)
    used = []

    def hardware(kind, allow_software_fallback):
        if kind == "broken":
            raise ValueError("no such device")
        used.append(kind)  # None: the processor decodes, as the fallback would

    monkeypatch.setattr(reader, "HWAccel", hardware)

    assert reader.accelerator_of(source) == "good"
    found = [frame.image for frame in VideoFile(source, hardware=True).read()]
    later = [frame.image for frame in VideoFile(source, hardware=True).read(9)]
    assert len(used) >= 5  # to ask and to read, three times
    np.testing.assert_array_equal(found, usual)
    np.testing.assert_array_equal(later, usual[9:])


def test_hardware_that_gives_other_frames_is_not_used(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4")
    turned = make_clip(tmp_path / "turned.mp4", rotation=90)
    monkeypatch.setattr(reader, "hwdevices_available", lambda: ["good"])
    monkeypatch.setattr(reader, "HWAccel", lambda kind, allow_software_fallback: None)
    assert reader.accelerator_of(source) is None  # the processor has decoded it
    monkeypatch.setattr(reader, "_is_accelerated", lambda stream: True)
    assert reader.accelerator_of(source) == "good"
    assert reader.accelerator_of(turned) is None  # the rotation would be lost
    monkeypatch.setattr(colorspace, "are_equal", lambda one, other: False)
    assert reader.accelerator_of(source) is None
