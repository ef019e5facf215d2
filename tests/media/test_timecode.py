"""Timecode arithmetic follows SMPTE ST 12-1."""

from fractions import Fraction

import pytest

from faceswap.media.muxer import moved

NTSC = Fraction(30000, 1001)


def drop_frame_timecodes(count):
    """Yield drop-frame timecodes in order from 00:00:00;00, straight from the definition."""
    for minute in range(count // 1798 + 1):
        for second in range(60):
            for frame in range(30):
                if second or frame > 1 or minute % 10 == 0:
                    yield f"{minute // 60:02}:{minute % 60:02}:{second:02};{frame:02}"


def test_drop_frame_timecode_matches_its_definition():
    expected_codes = list(drop_frame_timecodes(40000))
    for number in (0, 1, 1799, 1800, 1801, 3597, 3598, 17981, 17982, 17983, 19781, 19782, 35964):
        assert moved("00:00:00;00", number, NTSC) == expected_codes[number]
        assert moved(expected_codes[number], 1000, NTSC) == expected_codes[number + 1000]


@pytest.mark.parametrize(
    ("code", "frames", "rate", "expected"),
    [("01:02:03:04", 25, 25, "01:02:04:04"), ("01:02:03:23", 1, Fraction(24000, 1001),
      "01:02:04:00"), ("23:59:59:24", 1, 25, "00:00:00:00"), ("00:00:59;59",
      1, Fraction(60000, 1001), "00:01:00;04"), ("10:00:00:00", -1, 25, "09:59:59:24")],
)  # fmt: skip
def test_timecode_advances_by_frames(code, frames, rate, expected):
    assert moved(code, frames, Fraction(rate)) == expected


@pytest.mark.parametrize("code", ["", "1:2:3:4", "01:02:03:25", "01:02:03;04", "01:62:03:04"])
def test_invalid_timecode_is_refused(code):
    with pytest.raises(ValueError, match="is not a valid timecode at 25 fps"):
        moved(code, 0, Fraction(25))
