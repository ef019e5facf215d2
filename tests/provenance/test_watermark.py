"""The watermark survives what happens to published pictures, and is found nowhere else."""

import hashlib
import math
from io import BytesIO

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.provenance import watermark
from faceswap.provenance.watermark import (
    BITS,
    MIN_SCORE,
    TILE,
    Detector,
    Watermark,
    agree,
    chance_of,
    digits_of,
    payload_of,
    tile_of,
)

PAYLOAD = 0xC0DE1234


def landscape(seed=0, height=360, width=640):
    """A picture with smooth places and texture of all sizes, grey (H, W)."""
    chance = np.random.default_rng(seed)
    levels = np.full((height, width), 120.0)
    for side in (4, 8, 16, 32, 64, 128):
        noise = chance.normal(0, 90 / math.sqrt(side), (side, side * width // height))
        levels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    levels[: height // 3] = np.linspace(210, 170, height // 3)[:, None]  # a sky
    return np.clip(levels, 0, 255).astype(np.uint8)


def marked(gray):
    return np.clip(np.rint(gray + Watermark(PAYLOAD).delta(gray)), 0, 255).astype(np.uint8)


def found_in(*pictures):
    detector = Detector()
    for gray in pictures:
        detector.add(gray)
    return detector.detect()


def jpeg(gray, quality):
    file = BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def video(pictures, codec="libx264", **options):
    """Encode pictures (H, W) as video and decode them."""
    file = BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = (side // 2 * 2 for side in pictures[0].shape)
        stream.pix_fmt = "yuv420p"
        for number, gray in enumerate(pictures):
            gray = np.ascontiguousarray(gray[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def clip():
    """Fifteen frames of a slow pan, with the watermark."""
    wide = landscape(3, 360, 720)
    return [marked(np.ascontiguousarray(wide[:, at : at + 640])) for at in range(15)]


def scaled(gray, factor):
    size = round(gray.shape[1] * factor), round(gray.shape[0] * factor)
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


PHOTO_CHANGES = {
    "unchanged": lambda gray: gray,
    "JPEG 75": lambda gray: jpeg(gray, 75),
    "two thirds": lambda gray: jpeg(scaled(gray, 2 / 3), 90),
    "half": lambda gray: jpeg(scaled(gray, 0.5), 90),
    "double": lambda gray: cv2.resize(gray, None, fx=2, fy=2),
    "crop": lambda gray: jpeg(np.ascontiguousarray(gray[20:330, 40:590]), 75),
    "mirrored": lambda gray: np.ascontiguousarray(gray[:, ::-1]),
    "darkened": lambda gray: (gray * 0.5).astype(np.uint8),
    "letter box": lambda gray: np.pad(gray, ((40, 40), (0, 0))),
}


@pytest.mark.parametrize("change", PHOTO_CHANGES)
def test_found_in_a_changed_photo(change):
    changed = PHOTO_CHANGES[change](marked(landscape()))

    found = found_in(changed)

    assert found is not None
    assert found.payload == PAYLOAD
    assert found.is_mirrored == (change == "mirrored")


VIDEO_CHANGES = {
    "crf 28": lambda frames: video(frames, crf="28", preset="veryfast"),
    "half": lambda frames: video([scaled(f, 0.5) for f in frames], crf="23", preset="veryfast"),
    "twice": lambda frames: video(video(frames, crf="23"), crf="23", preset="veryfast"),
    "HEVC 28": lambda frames: video(frames, "libx265", crf="28", **{"x265-params": "log-level=0"}),
    "the middle": lambda frames: video(frames[4:9], crf="23", preset="veryfast"),
}


@pytest.mark.parametrize("change", VIDEO_CHANGES)
def test_found_in_a_changed_video(clip, change):
    found = found_in(*VIDEO_CHANGES[change](clip))

    assert found is not None
    digits = digits_of(found.bits)
    assert all(one in ("?", other) for one, other in zip(digits, f"{PAYLOAD:08x}", strict=True))
    assert agree(found.bits, PAYLOAD)
    for other in (PAYLOAD ^ 0x0F0F0000, PAYLOAD ^ 0x0F0F, 0):
        assert not agree(found.bits, other)


def test_is_imperceptible():
    gray = landscape()
    difference = marked(gray).astype(float) - gray

    assert 10 * math.log10(255**2 / (difference**2).mean()) > 42
    assert np.abs(difference[20:80]).max() <= 4  # the sky
    assert difference[20:80].std() < 1


def test_black_stays_black():
    assert not Watermark(PAYLOAD).delta(np.zeros((90, 160), np.uint8)).any()


def test_not_found_where_it_is_not():
    for seed in range(6):
        detector = Detector()
        detector.add(landscape(seed))
        assert detector.detect() is None
        assert detector.best().score < MIN_SCORE - 2
    assert found_in(np.zeros((64, 64), np.uint8)) is None
    assert Detector().detect() is None


def test_pictures_of_another_shape_are_left_out():
    detector = Detector()
    for gray in (landscape(), landscape(1, 300, 640), landscape(2)):
        detector.add(gray)

    assert detector.frames == 2


def test_not_found_in_stripes_and_noise():
    row = np.arange(640)
    chance = np.random.default_rng(0)
    for gray in (
        np.tile(128 + 100 * np.sin(row / 3), (360, 1)),
        np.tile(row // 8 % 2 * 255, (360, 1)),
        chance.integers(0, 256, (360, 640)),
        np.kron(chance.integers(0, 256, (45, 80)), np.ones((8, 8))),
    ):
        assert found_in(gray.astype(np.uint8)) is None


def test_chance_of_a_false_alarm_follows_from_the_score():
    assert chance_of(MIN_SCORE) == pytest.approx(watermark.FALSE_ALARM)
    assert chance_of(MIN_SCORE + 1) < watermark.FALSE_ALARM / 1e4
    assert chance_of(0) == 1


def test_scores_of_noise_are_no_larger_than_the_bound_allows():
    """The scores at one place of random phases are Gaussian at most: none of 20,000 exceeds 4.5."""
    waves = watermark._waves()
    chance = np.random.default_rng(1)
    turns = np.exp(2j * np.pi * chance.random((20_000, len(waves.rows))))
    signs = np.where(waves.bits >= 0, chance.choice((-1, 1), len(waves.rows)), 1)
    scores = (turns.real * signs).sum(1) / math.sqrt(len(waves.rows) / 2)

    assert scores.std() == pytest.approx(1, abs=0.02)
    assert scores.max() < 4.5


def test_tile_has_only_the_waves_of_the_specification():
    tile = tile_of(PAYLOAD)
    spectrum = np.abs(np.fft.fft2(tile))
    periods = np.fft.fftfreq(TILE, 1 / TILE)
    radius = np.hypot(*np.meshgrid(periods, periods))
    inside = (radius >= 8) & (radius <= 32)

    assert tile.shape == (TILE, TILE)
    assert tile.std() == pytest.approx(1, abs=1e-4)
    assert spectrum[~inside].max() < 1e-2
    assert spectrum[inside].min() == pytest.approx(spectrum[inside].max(), rel=1e-3)


def test_each_bit_negates_its_own_waves():
    none, one = tile_of(0), tile_of(1 << 7)
    changed = np.abs(np.fft.rfft2(one - none)) > 1
    waves = watermark._waves()

    negated = changed[waves.rows, waves.columns]

    np.testing.assert_array_equal(negated, waves.bits == 7)


def test_the_key_does_not_change():
    """Detectors of other versions, and of others, rely on it."""
    waves = watermark._waves()

    turns = np.rint(np.angle(waves.turns) * 2**15 / np.pi).astype(int) % 2**16
    table = np.stack([waves.rows, waves.columns, waves.bits, turns]).astype("<i4")

    assert table[:, :3].tolist() == [
        [225, 225, 225], [1, 2, 3], [29, 9, 22], [41990, 13583, 39113]
    ]  # fmt: skip
    assert hashlib.sha256(table.tobytes()).hexdigest() == (
        "34f4bcd00fa1fb9625ecb8f25a481a72b314be41d12b45c171ad458eaf3381a6"
    )
    assert (waves.bits < 0).sum() == 377
    assert np.bincount(waves.bits[waves.bits >= 0], minlength=BITS).min() == 35


def test_payload_names_model_and_source():
    assert payload_of("ab" * 32, "cd" * 32) == 0xABABCDCD
    several = payload_of(f"{'ab' * 32}, {'ef' * 32}", "cd" * 32)
    assert several & 0xFFFF == 0xCDCD
    assert several >> 16 not in (0xABAB, 0xEFEF)


def test_unclear_digits_are_question_marks():
    bits = np.array([3.0 if 0xABCD1234 >> place & 1 else -3.0 for place in range(BITS)])
    assert digits_of(bits) == "abcd1234"
    bits[0] = 0.4
    bits[31] = -1.5
    assert digits_of(bits) == "?bcd123?"
