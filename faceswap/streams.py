"""Write one part of a stream of pictures: encoded video, or a folder of PNGs."""

import shutil
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy.typing as npt

from faceswap import planes
from faceswap.encoders import Encoding, add_video, stored_frame, tags_for
from faceswap.files import settle
from faceswap.media import Decoded
from faceswap.photos import deep_pixels
from faceswap.types import Frame


class Stream(Protocol):
    """One part of one stream of pictures, being written."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""

    def finish(self) -> int:
        """Close the part; return by how many frames its packets came out of order."""


class EncodedStream:
    """Encodes a part of a video into a file; it begins anew, so that parts can be made alone."""

    def __init__(self, path: Path, video: Any, encoding: Encoding) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        container = "mov" if encoding.encoder == "prores_ks" else "nut"  # which has no name for it
        self._out = av.open(f"file:{path}", "w", format=container)
        self._stream = add_video(self._out, video, encoding)
        self._context = self._stream.codec_context
        self._upright = encoding.upright
        self._tags = tags_for(video, self._context.pix_fmt, encoding.encoder)
        self._started = False
        self._order: list[int] = []

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        assert isinstance(frame.picture, Decoded), "a frame of a video"
        if not self._started and self._upright:
            self._context.height, self._context.width = frame.shape
        self._started = True
        old = frame.picture.frame
        new = stored_frame(frame, self._context.pix_fmt, self._tags, self._upright)
        new.pict_type = 0  # let the encoder choose, not the source's encoder
        new.pts, new.time_base = old.pts, old.time_base
        self._mux(self._stream.encode(new))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._order.append(packet.pts)
            self._out.mux(packet)

    def finish(self) -> int:
        """Close the file; return by how many frames its packets came out of order."""
        try:
            if self._started:
                self._mux(self._stream.encode(None))
        finally:
            self._out.close()
        settle(self._path)
        rank = {time: number for number, time in enumerate(sorted(self._order))}
        return max((place - rank[time] for place, time in enumerate(self._order)), default=0)


class PictureStream:
    """Writes a part of a video as numbered PNGs; 16 bits deep if the source is deeper than 8."""

    def __init__(self, folder: Path, first: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder, self._number = folder, first

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        assert isinstance(frame.picture, Decoded), "a frame of a video"
        pixels: npt.NDArray[Any]
        if frame.layer is not None:
            pixels = frame.layer[..., [2, 1, 0, 3]]
        elif planes.is_deep(frame.picture.frame):
            pixels = deep_pixels(frame)[..., ::-1]
        else:
            pixels = frame.image[..., ::-1]
        _, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
        self._number += 1
        path = self._folder / f"{self._number:06d}.png"
        path.write_bytes(png.tobytes())
        settle(path)

    def finish(self) -> int:
        """Nothing is left to do."""
        return 0
