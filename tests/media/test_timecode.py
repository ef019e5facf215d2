"""Addresses of frames count on as SMPTE ST 12-1 says."""

from fractions import Fraction

import pytest

from faceswap.media.muxer import moved

NTSC = Fraction(30000, 1001)


def dropped_by_hand(count):
    """All addresses of drop-frame timecode in order, by its definition, from 00:00:00;00 on."""
    for minute in range(count // 1798 + 1):
        for second in range(60):
            for frame in range(30):
                if second or frame > 1 or minute % 10 == 0:
                    yield f"{minute // 60:02}:{minute % 60:02}:{second:02};{frame:02}"


def test_drop_frame_counts_as_its_definition_does():
    by_hand = list(dropped_by_hand(40000))
    for number in (0, 1, 1799, 1800, 1801, 3597, 3598, 17981, 17982, 17983, 19781, 19782, 35964):
        assert moved("00:00:00;00", number, NTSC) == by_hand[number]
        assert moved(by_hand[number], 1000, NTSC) == by_hand[number + 1000]


@pytest.mark.parametrize(
    ("code", "frames", "rate", "expected"),
    [("01:02:03:04", 25, 25, "01:02:04:04"), ("01:02:03:23", 1, Fraction(24000, 1001),
      "01:02:04:00"), ("23:59:59:24", 1, 25, "00:00:00:00"), ("00:00:59;59",
      1, Fraction(60000, 1001), "00:01:00;04"), ("10:00:00:00", -1, 25, "09:59:59:24")],
)  # fmt: skip
def test_frames_are_counted(code, frames, rate, expected):
    assert moved(code, frames, Fraction(rate)) == expected


@pytest.mark.parametrize("code", ["", "1:2:3:4", "01:02:03:25", "01:02:03;04", "01:62:03:04"])
def test_what_is_no_timecode_is_refused(code):
    with pytest.raises(ValueError, match="no timecode at 25"):
        moved(code, 0, Fraction(25))
