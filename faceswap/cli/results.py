"""Results that only the command line has; the other results are those of the stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from faceswap.types import Count


@dataclass(frozen=True, slots=True)
class PreviewReport:
    """What the image of ``convert --preview`` shows."""

    model: Annotated[
        Path | None, Meta(description="The model given; null if the cast file names the models.")
    ]
    output: Annotated[Path, Meta(description="The image written.")]
    frames: Annotated[Count, Meta(description="Frames requested.")]
    with_face: Annotated[Count, Meta(description="Frames in which a face was swapped.")]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The model that a classic checkpoint became."""

    folder: Annotated[Path, Meta(description="The model.")]
    model: Annotated[str, Meta(description="The name of the architecture.")]
    epoch: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo made."""

    seconds: float
    video: Annotated[Path, Meta(description="The swapped clip.")]
    image: Annotated[
        Path, Meta(description="Original, swap, training previews and loss curve in one image.")
    ]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed."""

    kind: Annotated[
        str,
        Meta(
            description="Name of the error class, such as InputError; UsageError; Interrupted; "
            "Python's own class for a bug."
        ),
    ]
    message: Annotated[str, Meta(description="One line for people.")]
    exit_code: Annotated[int, Meta(ge=1, description="The exit code of the process.")]
