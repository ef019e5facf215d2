"""Which pretrained weights stand behind a result, and on what terms they may be used."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from msgspec import Meta

from faceswap.config import (
    AUTO_LANDMARKS,
    DLIB_LANDMARKS,
    MESH_LANDMARKS,
    ConvertConfig,
    EvaluateConfig,
    ExtractConfig,
    TrainConfig,
)
from faceswap.crops import parsing
from faceswap.crops.masks import SKIN_MASKS
from faceswap.faces import blazeface, blendshapes, dlib_backend, mesh, yunet

CNN, LANDMARKS, EMBEDDINGS = dlib_backend.WEIGHT_FILES
EXPLICIT = "open_nsfw.onnx"  # see swapping.explicit
OWN_LANDMARKS = "the user's own landmark model"
DETECTORS = {
    "auto": yunet.WEIGHTS, "yunet": yunet.WEIGHTS, "blaze": blazeface.WEIGHTS, "cnn": CNN,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """Pretrained weights and their terms."""

    name: Annotated[str, Meta(description="File name.")]
    what: Annotated[str, Meta(description="What they do.")]
    licence: Annotated[str, Meta(description="Licence of the weights.")]
    data: Annotated[str, Meta(description="What they were trained on.")]
    commercial: Annotated[
        bool | None,
        Meta(description="Whether the weights' own terms allow commercial use; null if unknown."),
    ]


FROM_DLIB = (
    Weights(
        CNN, "Detects faces (--detector cnn).", "public domain",
        "Photos that dlib's author collected", True,
    ),
    Weights(
        LANDMARKS, "Places 68 landmarks.",
        "excludes commercial use; ask Imperial College London for permission",
        "iBUG 300-W, whose photos are for research", False,
    ),
    Weights(
        EMBEDDINGS, "Tells people apart.", "public domain",
        "FaceScrub, VGG and collected photos", True,
    ),
)  # fmt: skip


@cache
def every() -> dict[str, Weights]:
    """Return all weights that faceswap can use, by name."""
    text = files("faceswap.weights").joinpath("manifest.json").read_text(encoding="utf-8")
    shipped = [
        Weights(name, entry["what"], entry["licence"], entry["data"], True)
        for name, entry in json.loads(text).items()
    ]
    return {each.name: each for each in (*shipped, *FROM_DLIB)}


def described(names: list[str] | tuple[str, ...]) -> list[Weights]:
    """Return weights by name; those that this version does not know have unknown terms."""
    unknown = "not known to this version"
    return [
        every().get(name, Weights(name, "Places 68 landmarks.", unknown, unknown, None))
        for name in names
    ]


def behind(config: ExtractConfig | TrainConfig | ConvertConfig | EvaluateConfig) -> list[str]:
    """Return the names of the weights that a command may read with these settings."""
    found = set(_of_landmarks(config.landmarks)) | {EMBEDDINGS}
    if isinstance(config, ExtractConfig | ConvertConfig):
        found |= _of_detector(config.detector)
    if isinstance(config, ConvertConfig | EvaluateConfig):
        found |= {EXPLICIT, blazeface.WEIGHTS}  # see swapping.explicit
    if isinstance(config, ConvertConfig) and config.detector != "blaze":
        found.add(yunet.WEIGHTS)  # see DetectorSpec.certainty
    if isinstance(config, ExtractConfig):
        found |= {parsing.WEIGHTS, blendshapes.WEIGHTS, mesh.WEIGHTS}
    elif isinstance(config, TrainConfig):
        found.add(parsing.WEIGHTS)
    elif isinstance(config, EvaluateConfig):
        found |= {parsing.WEIGHTS, blendshapes.WEIGHTS, mesh.WEIGHTS, yunet.WEIGHTS}
    elif config.mask in SKIN_MASKS:
        found.add(parsing.WEIGHTS)
    return sorted(found)


def _of_detector(detector: Any) -> set[str]:
    return {DETECTORS[detector]} if isinstance(detector, str) and detector in DETECTORS else set()


def _of_landmarks(choice: str) -> tuple[str, ...]:
    if choice == AUTO_LANDMARKS:
        return LANDMARKS, mesh.WEIGHTS
    if choice == DLIB_LANDMARKS:
        return (LANDMARKS,)
    return (mesh.WEIGHTS,) if choice == MESH_LANDMARKS else (OWN_LANDMARKS, mesh.WEIGHTS)
