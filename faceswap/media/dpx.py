"""Read DPX images, and write copies in which only some pixels differ (SMPTE ST 268-1).

A copy keeps every other byte of the file: the whole header with its timecode and film data, the
reference levels, and the bits between the pixels.
"""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MARKS = {b"SDPX": ">", b"XPDS": "<"}  # and the byte order that they tell
HEADER = 2048  # bytes; the first 1408 describe the image
UNDEFINED = 0xFFFFFFFF
CHANNELS = {6: 1, 50: 3, 51: 4}  # by descriptor: grey, RGB, RGBA
FILLED = {1: 2, 2: 0}  # by method of packing, A or B: unused bits below the three codes of a word
LOG, LINEAR = frozenset({1, 3}), 2  # transfer characteristics: printing density and logarithmic
Codes = npt.NDArray[np.uint16]  # (H, W, C)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header says about the pixels.

    Attributes:
        order: Byte order, as in :mod:`struct`.
        width: In pixels.
        height: In pixels.
        channels: 1, 3 or 4.
        bits: Per channel: 8, 10, 12 or 16.
        shift: Unused bits below the codes of a word.
        offset: Bytes before the first pixel.
        padding: Bytes after each line.
        transfer: The transfer characteristic.
        rate: Frames per second; None if it is unknown.
        aspect: Width of a pixel over its height, as stated; it may be undefined.
    """

    order: str
    width: int
    height: int
    channels: int
    bits: int
    shift: int
    offset: int
    padding: int
    transfer: int
    rate: Fraction | None
    aspect: float

    @property
    def words(self) -> int:
        """Words per line, without padding."""
        codes = self.width * self.channels
        return -(-codes // 3) if self.bits == 10 else codes

    @property
    def word(self) -> np.dtype[Any]:
        """The type of a word, which holds three codes of 10 bits or one of any other size."""
        return np.dtype({8: "u1", 10: f"{self.order}u4"}.get(self.bits, f"{self.order}u2"))

    @property
    def largest(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)


def read_layout(path: Path) -> Layout:
    """Read the header of a DPX.

    Raises:
        ValueError: If it is damaged, or of a kind that is not supported.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    order = MARKS.get(head[:4])
    if order is None or len(head) < 1664:
        raise ValueError("the DPX is damaged: its header is not complete")

    def field(kind: str, at: int) -> Any:
        return struct.unpack_from(order + kind, head, at)[0] if len(head) >= at + 4 else 0

    width, height, orientation, elements = (
        field("I", 772), field("I", 776), field("H", 768), field("H", 770),
    )  # fmt: skip
    descriptor, transfer, bits = head[800], head[801], head[803]
    packing, encoding, signed = field("H", 804), field("H", 806), field("I", 780)
    for fits, what in (
        (orientation in (0, 0xFFFF), "its lines do not run from top left to bottom right"),
        (elements == 1, f"it has {elements} image elements; one is supported"),
        (descriptor in CHANNELS, f"its pixels are of kind {descriptor}; RGB, RGBA and grey are "
         "supported"),
        (bits in (8, 10, 12, 16), f"it has {bits} bits per channel; 8, 10, 12 and 16 are "
         "supported"),
        (encoding in (0, 0xFFFF), "it is run-length encoded"),
        (signed in (0, UNDEFINED), "its codes are signed"),
        (packing in FILLED or bits in (8, 16), "its codes are packed without filling"),
    ):  # fmt: skip
        if not fits:
            raise ValueError(f"this DPX is not supported: {what}")
    # 12 bits are filled up to 16: method A leaves the low bits unused, method B the high ones.
    shift = {10: FILLED.get(packing, 0), 12: 4 if packing == 1 else 0}.get(bits, 0)
    offset, padding = (
        0 if value == UNDEFINED else int(value) for value in (field("I", 808), field("I", 812))
    )
    rates = [field("f", at) for at in (1724, 1940)]  # of film, of television
    known = [rate for rate in rates if math.isfinite(rate) and 1 <= rate <= 1000]
    across, down = field("I", 1628), field("I", 1632)
    layout = Layout(
        order, width, height, CHANNELS[descriptor], bits, shift, offset or field("I", 4), padding,
        transfer, Fraction(known[0]).limit_denominator(1001) if known else None,
        across / down if down else 0.0,
    )  # fmt: skip
    needed = layout.offset + height * _stride(layout) - padding
    if not (width and height) or layout.offset < 1664 or path.stat().st_size < needed:
        raise ValueError(f"the DPX is damaged: {needed} bytes are needed for {width}x{height}")
    return layout


def _stride(layout: Layout) -> int:
    """Return the bytes from one line to the next; lines end with whole words of 32 bits."""
    return -(-layout.words * layout.word.itemsize // 4) * 4 + layout.padding


def _lines(data: bytearray, layout: Layout) -> npt.NDArray[Any]:
    """View the words of all lines, (H, words)."""
    stride = _stride(layout)
    return np.ndarray(
        (layout.height, layout.words), layout.word, data, layout.offset,
        (stride, layout.word.itemsize),
    )  # fmt: skip


def read_codes(path: Path, layout: Layout) -> Codes:
    """Return the codes of all pixels, (H, W, C).

    Raises:
        OSError: If the file cannot be read.
    """
    return _codes(bytearray(path.read_bytes()), layout)


def _codes(data: bytearray, layout: Layout) -> Codes:
    lines = _lines(data, layout)
    if layout.bits == 10:
        thirds = [lines >> (layout.shift + low) & 1023 for low in (20, 10, 0)]
        codes = np.stack(thirds, axis=2).reshape(layout.height, -1)
    else:
        codes = lines >> layout.shift
    used = codes[:, : layout.width * layout.channels].astype(np.uint16)
    return used.reshape(layout.height, layout.width, layout.channels)


def write_copy(path: Path, source: Path, colors: Codes) -> None:
    """Write a copy of a DPX with other colours.

    Args:
        path: The file to write.
        source: The original.
        colors: The codes of red, green and blue, (H, W, 3); a grey image takes green.
            Alpha stays.

    Raises:
        ValueError: If the original is damaged.
        OSError: If the original cannot be read, or the copy cannot be written.
    """
    layout = read_layout(source)
    data = bytearray(source.read_bytes())
    codes = _codes(data, layout)
    if layout.channels == 1:
        codes[:] = colors[..., 1:2]
    else:
        codes[..., :3] = colors
    lines, flat = _lines(data, layout), codes.reshape(layout.height, -1)
    if layout.bits == 10:
        # Codes beyond the last pixel of a line, and unused bits, stay as they are.
        words = lines.astype(np.uint32)
        for place, low in enumerate((20, 10, 0)):
            third = flat[:, place::3].astype(np.uint32)
            bits, count = np.uint32(layout.shift + low), third.shape[1]
            kept = words[:, :count] & ~(np.uint32(1023) << bits)
            words[:, :count] = kept | third << bits
        lines[:] = words
    else:
        unused = ~(layout.largest << layout.shift) & 0xFFFF
        lines[:] = lines.astype(np.uint16) & unused | flat << layout.shift
    path.write_bytes(data)
