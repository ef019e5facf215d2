"""Timecode of footage: the address of its first frame, as SMPTE ST 12-1 counts."""

import re
from fractions import Fraction

FORM = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.,])(\d\d)")


def moved(code: str, frames: int, rate: Fraction) -> str:
    """The address of a frame that comes so many frames later.

    Args:
        code: Hours, minutes, seconds and frames, such as 01:00:00:00; a semicolon before the frames
            says that two numbers are dropped in nine minutes of ten (four at 60 a second).
        frames: How many.
        rate: Frames per second.

    Raises:
        ValueError: If it is no address at this rate.
    """
    found, whole = FORM.fullmatch(code), round(rate)
    if not found or int(found[5]) >= whole or (found[4] != ":" and whole % 30):
        raise ValueError(f"{code} is no timecode at {float(rate):g} frames a second")
    dropped = whole // 15 if found[4] != ":" else 0  # numbers a minute
    minutes = 60 * int(found[1]) + int(found[2])
    number = (60 * minutes + int(found[3])) * whole + int(found[5])
    number += frames - dropped * (minutes - minutes // 10)
    ten = 600 * whole - 9 * dropped  # frames in ten minutes
    number %= 144 * ten  # a day
    tens, rest = divmod(number, ten)
    number += dropped * (9 * tens + max(rest - dropped, 0) // (60 * whole - dropped))
    seconds, frame = divmod(number, whole)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours:02}:{minutes:02}:{seconds:02}{found[4]}{frame:02}"
