"""Results that only the command line produces; the stages define their own reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from faceswap.types import Count


@dataclass(frozen=True, slots=True)
class PreviewReport:
    """The result of ``convert --preview``."""

    model: Annotated[
        Path | None,
        Meta(description="The model's folder or file; null with --cast and no --model."),
    ]
    output: Annotated[Path, Meta(description="The image written.")]
    frames: Annotated[Count, Meta(description="Frames requested.")]
    with_face: Annotated[Count, Meta(description="Frames in which a face was swapped.")]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of importing a classic checkpoint."""

    folder: Annotated[Path, Meta(description="The new model's folder.")]
    model: Annotated[str, Meta(description="The name of the architecture.")]
    epoch: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The result of the demo."""

    seconds: float
    video: Annotated[Path, Meta(description="The swapped clip.")]
    image: Annotated[
        Path, Meta(description="Original, swap, last training preview and loss curve in one image.")
    ]
