from types import SimpleNamespace

import av
import numpy as np
import pytest

from faceswap.media import colorspace

FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le")


def smooth_frame(pixel_format, width, height):
    """Return a frame of smooth content in BT.709, and its RGB."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 3 + y, 255 - y * 2, x + y * 2], axis=-1) % 200 + 20
    frame = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24")
    tags = {"colorspace": 1, "color_range": 1, "color_trc": 1, "color_primaries": 1}
    frame = colorspace.converted(frame, pixel_format, tags)
    back = frame.reformat(format="rgb24", interpolation=colorspace.EXACT, dst_color_range=2)
    return frame, back.to_ndarray()


def arrays(frame):
    deep = "10" in frame.format.name
    return [colorspace._pixels(plane, deep) for plane in frame.planes]


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [*((name, (96, 80)) for name in FORMATS), ("yuv444p", (91, 67))],  # odd sizes need 4:4:4
)
def test_only_the_changed_rect_of_a_stored_frame_is_converted(pixel_format, size):
    old, image = smooth_frame(pixel_format, *size)
    changed = image.copy()
    changed[21:50, 33:60] = 255 - changed[21:50, 33:60]

    new = colorspace.patched(lambda r: changed[r[1] : r[3], r[0] : r[2]], [(33, 21, 60, 50)], old)

    whole = colorspace.converted(
        colorspace.stored(changed, old), pixel_format, colorspace.tags_of(old)
    )
    assert colorspace.tags_of(new) == colorspace.tags_of(old)
    for before, after, full in zip(arrays(old), arrays(new), arrays(whole), strict=True):
        down, across = round(size[1] / len(before)), round(size[0] / before.shape[1])
        inside = np.zeros(before.shape, bool)
        inside[16 // down : 56 // down, 32 // across : 64 // across] = True
        np.testing.assert_array_equal(after[~inside], before[~inside])
        np.testing.assert_array_equal(after[inside], full[inside])
        assert (after[inside] != before[inside]).any()


def test_patched_rect_may_cover_the_whole_frame():
    old, image = smooth_frame("yuv420p", 64, 48)

    new = colorspace.patched(lambda rect: 255 - image, [(0, 0, 64, 48)], old)

    whole = colorspace.converted(
        av.VideoFrame.from_ndarray(255 - image, format="rgb24"), "yuv420p", colorspace.tags_of(old)
    )
    for one, other in zip(arrays(new), arrays(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def ramp(tmp_path):
    """A decoded H.264 frame whose blue chroma rises by 2 levels per sample, losslessly coded."""
    frame = av.VideoFrame(128, 64, "yuv420p")
    frame.pts = 0
    for plane, levels in zip(frame.planes, (128, 64 + 2 * np.arange(64), 128), strict=True):
        colorspace._pixels(plane, False)[:] = levels
    path = tmp_path / "ramp.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        file.mux([*stream.encode(frame), *stream.encode()])
    with av.open(str(path)) as file:
        return next(file.decode(video=0))


def test_chroma_of_a_rect_lies_on_the_left_of_its_pixels_as_in_h264(ramp):
    rgb = colorspace.rgb_rect(ramp, (40, 16, 88, 48), deep=True) / colorspace.deep_scale(ramp)

    # BT.601 in studio range. A sample lies on every second pixel: chroma rises by 1 per pixel.
    blue = 255 / 219 * (128 - 16) + 255 / 224 * 1.772 * (64 + np.arange(40, 88) - 128)
    np.testing.assert_allclose(rgb[..., 2], np.broadcast_to(blue, (32, 48)), atol=0.3)


def test_chroma_that_is_written_lies_where_the_old_one_did(ramp):
    def rising(rect):
        left, top, right, bottom = rect
        blue = 255 / 219 * (128 - 16) + 255 / 224 * 1.772 * (64 + np.arange(left, right) - 128)
        green = 255 / 219 * (128 - 16) - 255 / 224 * 0.344 * (64 + np.arange(left, right) - 128)
        pixels = np.stack([np.full_like(blue, 255 / 219 * 112), green, blue], axis=-1)
        return np.broadcast_to(pixels, (bottom - top, right - left, 3)).astype(np.float32)

    new = colorspace.patched(rising, [(40, 16, 88, 48)], ramp)

    change = colorspace._pixels(new.planes[1], False).astype(float) - (64 + 2 * np.arange(64))
    assert abs(change[8:24, 20:44].mean()) < 0.2  # half a pixel further right it would be 0.5


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_rgb_of_a_rect_equals_rgb_of_the_whole_frame(pixel_format, deep):
    frame, _ = smooth_frame(pixel_format, 192, 160)
    name = colorspace.DEEP if deep else "rgb24"
    whole = frame.reformat(
        format=name, interpolation=colorspace.EXACT, dst_color_range=2
    ).to_ndarray()

    for rect in ((0, 0, 192, 160), (33, 21, 60, 50), (0, 0, 1, 1), (150, 101, 192, 160)):
        left, top, right, bottom = rect
        found = colorspace.rgb_rect(frame, rect, deep)
        np.testing.assert_array_equal(found, whole[top:bottom, left:right])


def test_turned_rect_contains_the_same_pixels():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (30, 40, 3))
    for turns in range(-4, 5):
        upright = np.rot90(image, turns)
        for _ in range(20):
            left, right = sorted(random.choice(41, 2, replace=False).tolist())
            top, bottom = sorted(random.choice(31, 2, replace=False).tolist())
            x0, y0, x1, y1 = colorspace.turned((left, top, right, bottom), turns, 30, 40)
            part = np.rot90(image[top:bottom, left:right], turns)
            np.testing.assert_array_equal(upright[y0:y1, x0:x1], part)
            back = colorspace.turned((x0, y0, x1, y1), -turns, *upright.shape[:2])
            assert back == (left, top, right, bottom)


@pytest.mark.parametrize(
    ("source", "size", "codec", "wanted"),
    [
        ("yuv420p", (64, 48), "libx264", "yuv420p"),
        ("yuvj420p", (64, 48), "libx264", "yuv420p"),
        ("yuv420p10le", (64, 48), "libx264", "yuv420p10le"),
        ("yuv420p12le", (64, 48), "libx264", "yuv420p10le"),
        ("yuv411p", (64, 48), "libx264", "yuv422p"),
        ("yuv420p", (65, 48), "libx264", "yuv444p"),  # 4:2:2 also needs an even width
        ("yuv420p", (64, 47), "libx264", "yuv422p"),
        ("yuv420p", (65, 47), "libx264", "yuv444p"),
        ("rgb24", (64, 48), "libx264", "yuv444p"),
        ("pal8", (64, 48), "libx264", "yuv420p"),
        ("rgb24", (64, 48), "ffv1", "bgr0"),  # FFV1 holds RGB as it is
        ("gbrp", (64, 48), "ffv1", "bgr0"),
        ("rgb48be", (65, 47), "ffv1", "gbrp16le"),
        ("gbrp10le", (64, 48), "ffv1", "gbrp10le"),
        ("yuva420p", (64, 48), "libx265", "yuv420p"),  # x265 lists yuva420p, but does not open
        ("yuv420p", (64, 48), "prores_ks", "yuv422p10le"),
        ("yuv444p", (64, 48), "prores_ks", "yuv444p10le"),
        ("yuv444p", (64, 48), "libsvtav1", "yuv420p"),
    ],
)
def test_pixel_format_keeps_most_of_the_source(source, size, codec, wanted):
    original = SimpleNamespace(pix_fmt=source, width=size[0], height=size[1])

    assert colorspace.pixel_format(original, codec) == wanted
