"""HDR video is seen as a display of 203 cd/m2 shows it, and keeps its codes, tags and light."""

import io
import sys
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from PIL import Image

from faceswap.errors import InputError
from faceswap.media import reader, views
from faceswap.media.footage import VideoFile, video_at
from faceswap.media.hdr import Light, light_from, light_of
from tests.support.clips import (
    HLG,
    MASTERING,
    PQ,
    hdr_clip,
    hdr_codes,
    lossless_clip,
    pass_on,
    pq_of,
)

TRANSFERS = pytest.mark.parametrize("transfer", [PQ, HLG])
DISPLAY_P3 = Light(
    primaries=tuple(
        Fraction(value, 10_000) for value in (6800, 3200, 2650, 6900, 1500, 600, 3127, 3290)
    ),
    luminance=(Fraction(5, 1000), Fraction(1000)),
    levels=(1000, 400),
)


def colors(height=48, width=64):
    """Return an image of smooth colours, some of them twice as bright as white, (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    image = np.dstack([40 + 200 * x, 60 + 150 * y, 200 - 150 * x * y]).astype(np.float32)
    image[:8, :8] = 340
    return image


def whole(frame):
    height, width = frame.shape
    return 0, 0, width, height


@TRANSFERS
def test_colors_are_those_of_srgb_with_203_nits_as_white(tmp_path, transfer):
    image = colors()
    source = hdr_clip(tmp_path / "in.mkv", transfer, [image])

    (frame,) = reader.read_video(source)

    shown = frame.rgb_float(whole(frame))
    assert np.abs(shown - image).max() < 4  # a code of 10 bits is up to 3 levels there
    assert np.abs(shown - image).mean() < 0.6
    np.testing.assert_array_equal(frame.image, np.clip(np.rint(shown), 0, 255).astype(np.uint8))


@TRANSFERS
def test_grays_are_those_that_a_display_shows(tmp_path, transfer):
    gray = np.repeat(np.linspace(0, 255, 64), 3).reshape(1, 64, 3).repeat(48, axis=0)
    source = hdr_clip(tmp_path / "in.mkv", transfer, [gray])

    (frame,) = reader.read_video(source)

    assert np.abs(frame.gray().astype(float) - gray[..., 0]).max() <= 1.5


@pytest.mark.parametrize("name", [*views.HDR.values(), "ACEScg", "ARRI LogC4"])
def test_a_view_leads_there_and_back(name):
    transfers = {space: transfer for transfer, space in views.HDR.items()}
    view = views.hdr_view(transfers[name]) if name in transfers else views.view_of(name)
    codes = np.random.default_rng(1).uniform(0.05, 0.95, (8, 8, 3)).astype(np.float32)

    np.testing.assert_allclose(view.stored(view.shown(codes)), codes, atol=1e-4)
    grays = np.linspace(0.01, 0.99, 99, dtype=np.float32)
    np.testing.assert_allclose(view.stored_grays(view.shown_grays(grays)), grays, atol=1e-4)


@TRANSFERS
def test_only_what_changed_is_stored_again(tmp_path, transfer):
    source = hdr_clip(tmp_path / "in.mkv", transfer, [colors()])
    (frame,) = reader.read_video(source)
    box = (10, 12, 30, 36)

    def change(frame):
        return frame.changed(box, np.full((24, 20, 3), 128, np.float32))

    target = pass_on(source, tmp_path / "out.mkv", codec="ffv1", change=change)

    (after,) = reader.read_video(target)
    expected = hdr_codes(np.full((1, 1, 3), 128.0), transfer)[:, 0, 0].astype(int)
    for plane, old, code in zip(planes_of(after), planes_of(frame), expected, strict=True):
        assert np.abs(plane[12:36, 10:30].astype(int) - code).max() <= 1
        untouched = np.ones(plane.shape, bool)
        untouched[12:36, 10:30] = False
        np.testing.assert_array_equal(plane[untouched], old[untouched])


def planes_of(frame):
    return [
        np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[:, : plane.width]
        for plane in frame.pixels.frame.planes
    ]


@TRANSFERS
def test_brightness_is_added_to_what_a_display_shows(tmp_path, transfer):
    gray = np.full((48, 64, 3), 90.0)
    source = hdr_clip(tmp_path / "in.mkv", transfer, [gray])
    luma = np.full((48, 64), 12, np.float32)

    target = pass_on(
        source, tmp_path / "out.mkv", codec="ffv1", change=lambda frame: frame.brightened(luma)
    )

    (after,) = reader.read_video(target)
    assert abs(after.rgb_float(whole(after)).mean() - 102) < 0.5


@TRANSFERS
def test_data_is_stored_as_it_is(tmp_path, transfer):
    """A matte's white is the highest code, whatever light that would be."""
    source = hdr_clip(tmp_path / "in.mkv", transfer)

    def change(frame):
        return frame.repainted(np.full((48, 64, 3), 255, np.uint8), is_data=True)

    target = pass_on(source, tmp_path / "out.mkv", codec="ffv1", change=change)

    (after,) = reader.read_video(target)
    assert np.unique(planes_of(after)[0]).tolist() == [940]


@TRANSFERS
def test_layers_have_the_colors_of_the_footage(tmp_path, transfer):
    source = hdr_clip(tmp_path / "in.mov", transfer, [colors()], codec="libx265")
    rgba = np.dstack([np.full((48, 64, 3), 100.0), np.full((48, 64), 255.0)]).astype(np.float32)

    target = pass_on(
        source, tmp_path / "out.mov", codec="prores", change=lambda frame: frame.repainted(rgba)
    )

    (after,) = reader.read_video(target)
    assert np.abs(after.rgb_float(whole(after)) - 100).max() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
def test_hdr_becomes_h265_with_its_tags_and_light(tmp_path, suffix):
    source = hdr_clip(tmp_path / "in.mp4", PQ, [colors()] * 3, "libx265", MASTERING)
    assert light_of(source) == DISPLAY_P3

    target = tmp_path / f"out{suffix}"
    pass_on(source, target, light=light_of(source))

    assert light_of(target) == DISPLAY_P3
    with av.open(str(target)) as out:
        context = out.streams.video[0].codec_context
        tags = context.color_trc, context.color_primaries, context.colorspace
        assert (context.name, context.pix_fmt, *tags) == ("hevc", "yuv420p10le", PQ, 9, 9)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mp4", "av1"), (".mkv", "av1")])
def test_other_codecs_keep_the_light_too(tmp_path, suffix, codec):
    source = hdr_clip(tmp_path / "in.mp4", PQ, [colors(128, 128)] * 3, "libx265", MASTERING)

    target = pass_on(source, tmp_path / f"out{suffix}", codec=codec, light=light_of(source))

    light = light_of(target)

    assert light.levels == DISPLAY_P3.levels
    pairs = zip(light.primaries, DISPLAY_P3.primaries, strict=True)
    assert max(abs(one - other) for one, other in pairs) < 2e-5  # AV1 stores 1/65536
    assert light.luminance[1] == 1000
    assert abs(light.luminance[0] - DISPLAY_P3.luminance[0]) < 1e-4


def test_what_is_not_known_is_not_told():
    assert light_from({}) == Light()
    assert light_from({Type.CONTENT_LIGHT_LEVEL: bytes(8)}).options("libx265") == {}
    unknown = bytes(80) + bytes(8)
    assert light_from({Type.MASTERING_DISPLAY_METADATA: unknown}).display is None
    assert light_from({Type.MASTERING_DISPLAY_METADATA: bytes(7)}).display is None
    assert replace(DISPLAY_P3, primaries=None, levels=None).options("libx265") == {}
    assert DISPLAY_P3.options("prores_ks") == {}
    assert light_from({Type.DOVI_RPU_BUFFER: b"x"}).lost == ("Dolby Vision",)


def test_sampled_and_later_frames_are_shown_alike(tmp_path):
    images = [colors() * share for share in np.linspace(0.3, 1, 20)]
    source = hdr_clip(tmp_path / "in.mkv", PQ, images)
    frames = list(reader.read_video(source))

    later = list(VideoFile(source).read(17))
    (sample,) = reader.sample_video(source, 1)

    assert [frame.index for frame in later] == [17, 18, 19]
    np.testing.assert_array_equal(later[0].image, frames[17].image)
    np.testing.assert_array_equal(sample.image, frames[10].image)


def test_video_in_a_stated_color_space_is_shown(tmp_path):
    image = colors()
    log = views.view_of("ARRI LogC4").stored(image) * 255
    source = pass_on(
        hdr_clip(tmp_path / "in.mkv", PQ, [image]), tmp_path / "log.mkv", codec="ffv1",
        change=lambda frame: frame.repainted(log, is_data=True),
    )  # fmt: skip

    (frame,) = video_at(source, "ARRI LogC4").read()

    assert np.abs(frame.rgb_float(whole(frame)) - image).mean() < 1


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_tags_of_the_container_hold_for_frames_without_any(tmp_path, suffix):
    """The decoder of ProRes finds no tags in such frames."""
    image = colors()
    source = hdr_clip(tmp_path / f"in{suffix}", PQ, [image], "prores_ks")

    (frame,) = reader.read_video(source)
    (later,) = reader.sample_video(source, 1)

    assert np.abs(frame.rgb_float(whole(frame)) - image).mean() < 1
    np.testing.assert_array_equal(later.image, frame.image)


def test_hdr_without_a_matrix_has_that_of_rec2020(tmp_path):
    known = hdr_clip(tmp_path / "known.mkv", PQ, [colors()])
    unknown = hdr_clip(tmp_path / "unknown.mkv", PQ, [colors()], colorspace=2)

    (one,), (other,) = reader.read_video(known), reader.read_video(unknown)

    np.testing.assert_array_equal(one.image, other.image)


def test_constant_luminance_is_read_as_the_usual_matrix(tmp_path):
    usual = hdr_clip(tmp_path / "usual.mkv", PQ, [colors()])
    constant = hdr_clip(tmp_path / "constant.mkv", PQ, [colors()], colorspace=10)

    (one,), (other,) = reader.read_video(usual), reader.read_video(constant)

    np.testing.assert_array_equal(one.image, other.image)


def test_colors_that_cannot_be_converted_are_one_line(tmp_path):
    source = hdr_clip(tmp_path / "in.mkv", PQ, colorspace=14)

    with pytest.raises(InputError, match=r"in\.mkv stores its colours as ICtCp, which"):
        list(reader.read_video(source))


def test_primaries_of_p3_are_not_taken_for_rec2020():
    """The red of P3 in linear sRGB is from the matrices of both standards."""
    code = np.float32(pq_of(203))
    view = views.hdr_view(PQ, 12)

    shown = view.shown(np.array([[[code, 0, 0], [code] * 3]], np.float32))

    encoded = np.abs(shown[0] / 255)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(
        (linear * np.sign(shown[0]))[0], [1.2249, -0.0420, -0.0197], atol=2e-3
    )
    np.testing.assert_allclose(linear[1], 1, atol=2e-3)
    np.testing.assert_allclose(view.stored(shown)[0, :, 0], code, atol=1e-4)


def test_unknown_primaries_are_told_of(caplog):
    views.hdr_view.cache_clear()
    view = views.hdr_view(HLG, 8)

    assert "colour primaries 8 of HDR are not known: BT.2020 is assumed" in caplog.text
    code = np.full((1, 1, 3), 0.4, np.float32)
    np.testing.assert_allclose(view.shown(code), views.hdr_view(HLG).shown(code))


@TRANSFERS
def test_the_name_that_info_tells_gives_the_same_picture(tmp_path, transfer):
    source = hdr_clip(tmp_path / "in.mkv", transfer, [colors()])
    told = reader.describe_video(source).colorspace

    (frame,), (stated,) = reader.read_video(source), reader.read_video(source, told)

    np.testing.assert_array_equal(frame.image, stated.image)


@TRANSFERS
def test_colors_beyond_the_codes_of_rgb_are_clipped(tmp_path, transfer):
    source = lossless_clip(tmp_path / "in.mkv", [colors()], "gbrp16le")
    box = (4, 4, 20, 20)
    beyond = np.full((16, 16, 3), -80, np.float32)

    target = pass_on(
        source, tmp_path / "out.mkv", codec="ffv1",
        frames=reader.read_video(source, views.HDR[transfer]),
        change=lambda frame: frame.changed(box, beyond),
    )  # fmt: skip

    (after,) = reader.read_video(target)
    assert after.rgb_float(box).max() == 0


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h265"), (".mkv", "h264")])
def test_chroma_stays_where_it_lies(tmp_path, place, suffix, codec):
    source = hdr_clip(tmp_path / "in.mkv", PQ, [colors()] * 2, "libx265", f"chromaloc={place}")
    light = light_of(source)
    assert light.chroma == place

    target = pass_on(source, tmp_path / f"out{suffix}", codec=codec, light=light)

    assert light_of(target).chroma == place


def test_side_data_that_pyav_does_not_know_is_told_of(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0131] = "a program"
    photo = io.BytesIO()
    Image.fromarray(colors().astype(np.uint8)).save(photo, "JPEG", exif=exif)
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuvj420p"
        packet = av.Packet(photo.getvalue())
        packet.stream, packet.pts, packet.dts = video, 0, 0
        out.mux(packet)

    assert light_of(tmp_path / "in.mkv").levels is None
    assert "in.mkv says about its light cannot be read" in caplog.text


def test_hdr_without_opencolorio_says_what_to_install(tmp_path, monkeypatch):
    source = hdr_clip(tmp_path / "in.mkv", PQ)
    views.hdr_view.cache_clear()
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)

    with pytest.raises(InputError, match=r"in\.mkv is HDR, .*faceswap\[film\]"):
        list(reader.read_video(source))
