"""Write small EXR and DPX images, and read their headers without the library under test."""

import struct

import numpy as np
import OpenEXR


def window(left, top, right, bottom):
    """Return an EXR window, whose right and bottom are inclusive."""
    return np.array([left, top], np.int32), np.array([right, bottom], np.int32)


def write_exr(path, pixels, dtype=np.float16, channels=None, compression="ZIP", **header):
    """Write colours (H, W, 3), or grey levels (H, W), and other channels to a scanline EXR."""
    names = "Y" if pixels.ndim == 2 else "RGB"
    planes = {name: np.ascontiguousarray(pixels[..., place] if pixels.ndim == 3 else pixels, dtype)
              for place, name in enumerate(names)}  # fmt: skip
    header = {
        "compression": getattr(OpenEXR, f"{compression}_COMPRESSION"),
        "type": OpenEXR.scanlineimage, **header,
    }  # fmt: skip
    OpenEXR.File(header, planes | (channels or {})).write(str(path))
    return path


def exr_planes(path, part=0):
    """Return the channels of a part by name, as they are stored."""
    channels = OpenEXR.File(str(path), separate_channels=True).parts[part].channels
    return {name: channel.pixels for name, channel in channels.items()}


def exr_attributes(path):
    """Return the type and the bytes of each attribute by name, for each part.

    OpenEXR file layout: https://openexr.com/en/latest/OpenEXRFileLayout.html
    """
    data = path.read_bytes()
    is_multipart, at, parts = struct.unpack_from("<I", data, 4)[0] & 0x1000, 8, []

    def text():
        nonlocal at
        end = data.index(0, at)
        found, at = data[at:end].decode(), end + 1
        return found

    while not parts or (is_multipart and data[at]):
        attributes = {}
        while data[at]:
            name, kind = text(), text()
            (size,) = struct.unpack_from("<I", data, at)
            attributes[name] = kind, data[at + 4 : at + 4 + size]
            at += 4 + size
        at += 1
        parts.append(attributes)
    return parts


def write_dpx(
    path,
    codes,
    bits=10,
    packing=1,
    order=">",
    transfer=6,
    padding=0,
    rate=24.0,
    offset=2048,
    aspect=(1, 1),
):
    """Write codes (H, W, C) as a DPX whose other bytes are noise (SMPTE ST 268-1)."""
    height, width, channels = codes.shape
    noise = np.random.default_rng(1)
    head = bytearray(noise.integers(0, 256, offset, np.uint8).tobytes())

    def put(kind, at, value):
        struct.pack_into(order + kind, head, at, value)

    head[:4] = b"SDPX" if order == ">" else b"XPDS"
    put("I", 4, offset)
    put("H", 768, 0), put("H", 770, 1), put("I", 772, width), put("I", 776, height)
    put("I", 780, 0)
    head[800], head[801], head[803] = {1: 6, 3: 50, 4: 51}[channels], transfer, bits
    put("H", 804, packing), put("H", 806, 0), put("I", 808, offset), put("I", 812, padding)
    put("I", 1628, aspect[0]), put("I", 1632, aspect[1])
    put("f", 1724, rate), put("f", 1940, rate)
    lines = []
    for line in codes.reshape(height, -1).tolist():
        if bits == 10:
            low = 2 if packing == 1 else 0
            line = [*line, *[0] * (-len(line) % 3)]
            words = [
                (a << 20 | b << 10 | c) << low for a, b, c in zip(*[iter(line)] * 3, strict=True)
            ]
            packed = struct.pack(f"{order}{len(words)}I", *words)
        elif bits == 8:
            packed = bytes(line)
        else:
            shift = 4 if bits == 12 and packing == 1 else 0
            packed = struct.pack(f"{order}{len(line)}H", *(code << shift for code in line))
        lines.append(packed + b"\xaa" * (-len(packed) % 4 + padding))
    path.write_bytes(bytes(head) + b"".join(lines))
    return path
