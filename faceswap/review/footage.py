"""Frames of footage in any order, and how the browser asks for a conversion."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import cv2
import msgspec
import numpy as np
from msgspec import Meta

from faceswap.arrays import Image
from faceswap.config import ConvertConfig
from faceswap.errors import InputError
from faceswap.media.footage import Footage, video_at
from faceswap.media.frame import Frame
from faceswap.review.workspace import Place

Share = Annotated[float, Meta(ge=0, le=0.5)]


class Look(msgspec.Struct, omit_defaults=True):
    """The settings of a conversion that the page offers; see :class:`.ConvertConfig`."""

    color: Literal["auto", "average", "reinhard", "linear", "histogram", "none"] = "auto"
    mask: Literal["skin", "hull", "square"] = "skin"
    blend: Literal["alpha", "linear", "poisson", "pyramid"] = "alpha"
    identity_strength: Annotated[float, Meta(ge=0, le=2)] = 1.0
    expression_range: Annotated[float, Meta(ge=0, le=100)] = 3.0
    erosion: Share = 0.01
    feather: Share | None = None
    match_detail: bool = True
    all_faces: bool = False
    to: Literal["a", "b"] = "b"


NEAR = 100  # frames; decoding on is faster than seeking to a frame that is nearer
KEPT = 24  # frames of each video that are kept
JPEG_QUALITY = 95
FLAGS = {
    "color": "--color", "mask": "--mask", "blend": "--blend", "identity_strength": "--likeness",
    "expression_range": "--expression-range", "erosion": "--erosion", "feather": "--feather",
    "to": "--to",
}  # fmt: skip


class ConvertRequest(msgspec.Struct):
    """A conversion, or a preview of it, as the browser asks for it.

    Attributes:
        model: Id of the model.
        look: The settings.
        frame: Index of the frame, for a preview.
    """

    model: str
    look: Look
    frame: Annotated[int, Meta(ge=0)] = 0


class Reader:
    """Reads frames of a video in any order, and keeps the last ones.

    Args:
        footage: The video or sequence.
    """

    def __init__(self, footage: Footage) -> None:
        self._footage = footage
        self._frames: Iterator[Frame] = iter(())
        self._next = -1
        self._kept: dict[int, Image] = {}
        self._lock = Lock()

    def frame(self, index: int) -> Image:
        """Return a frame by its index.

        Raises:
            InputError: If there is none, or it cannot be read.
        """
        with self._lock:
            if index in self._kept:
                return self._kept[index]
            if not self._next <= index < self._next + NEAR or self._next < 0:
                self._frames = self._footage.read(index)
            for frame in self._frames:
                self._next = frame.index + 1
                self._kept[frame.index] = frame.image
                while len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
                if frame.index >= index:
                    break
            else:
                self._next = -1
            if index not in self._kept:
                raise InputError(f"{self._footage.path} has no frame {index}")
            return self._kept[index]


def jpeg(image: Image) -> bytes:
    """Encode a frame."""
    pixels = np.ascontiguousarray(image[..., ::-1])
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def facts(path: Path) -> dict[str, Any]:
    """Return the size of a clip, its number of frames and its length in seconds.

    Raises:
        InputError: If it cannot be read.
    """
    info = video_at(path).probe()
    if not info.frames:
        raise InputError(f"{path.name} does not say how many frames it has")
    seconds = float(info.seconds) if info.seconds else 0.0
    return {
        "width": info.width, "height": info.height, "frames": info.frames,
        "seconds": round(seconds, 3),
    }  # fmt: skip


def settings_of(look: Look) -> dict[str, Any]:
    """Return the settings that differ from the defaults, by name."""
    values: dict[str, Any] = msgspec.to_builtins(look)
    default = ConvertConfig()
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def arguments(clip: Place, model: Place, look: Look) -> list[str]:
    """Return the command that converts a clip."""
    args = ["convert", f"./{clip.name}", "--model", f"./{model.name}"]
    for name, value in settings_of(look).items():
        if name == "match_detail":
            args.append("--no-match-detail")
        elif name == "all_faces":
            args.append("--all")
        else:
            args += [FLAGS[name], f"{value:g}" if isinstance(value, float) else str(value)]
    return args
