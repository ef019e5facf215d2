"""Clips of the workspace that can be converted, and how the browser asks for that."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from faceswap.config import ConvertConfig
from faceswap.errors import InputError
from faceswap.media.footage import Footage, video_at
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


def footage_of(path: Path) -> Footage:
    """Return the frames of a clip."""
    return video_at(path)


def facts(path: Path) -> dict[str, Any]:
    """Return the size of a clip, its number of frames and its length in seconds.

    Raises:
        InputError: If it cannot be read.
    """
    info = footage_of(path).probe()
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
