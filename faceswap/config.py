"""What every settings class can do: JSON there and back, types and choices checked, help texts.

A field's annotation carries its help; the command line builds its options from these fields and
``config.json`` is written from them.
"""

import dataclasses
import json
import math
import re
import sys
import typing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from faceswap.errors import SettingsError

MAX_QUOTED = 200  # characters of a strange value that a message repeats


class Settings:
    """JSON to and from a frozen dataclass of plain values, with types and choices checked."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(typing.cast(Any, self))
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from JSON values; lists become tuples, unknown names are refused.

        Raises:
            SettingsError: If a name is unknown or a value has the wrong type or range.
        """
        unknown = set(values) - set(field_types(cls))
        if unknown:
            raise SettingsError(
                f"unknown setting {clipped(', '.join(sorted(unknown)))} for {cls.__name__}"
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def check_types(self) -> None:
        """Refuse a value that its field's type does not allow.

        Raises:
            SettingsError: Naming the field, what it allows and what came.
        """
        for name, hint in field_types(type(self)).items():
            value = getattr(self, name)
            if not _allows(hint, value):
                raise SettingsError(f"{name} must be {_in_words(hint)}, not {clipped(repr(value))}")

    def check_range(self, name: str, low: float, high: float = math.inf) -> None:
        """Refuse a number outside [low, high]; None passes.

        Raises:
            SettingsError: Naming the field, its range and what came.
        """
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            limits = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            came = f"{value:g}" if isinstance(value, float) else clipped(str(value))
            raise SettingsError(f"{name} must be {limits}, not {came}")


def clipped(text: str) -> str:
    """A text that came from outside, short enough for a message."""
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


def field_types(settings: type) -> dict[str, Any]:
    """Field names and bare types (without their help) of a settings class."""
    hints = get_type_hints(settings, include_extras=True)
    return {
        field.name: get_args(hints[field.name])[0]
        if get_origin(hints[field.name]) is Annotated
        else hints[field.name]
        for field in dataclasses.fields(settings)
    }


def field_help(settings: type, name: str) -> str:
    """The help text in a field's annotation."""
    return str(get_args(get_type_hints(settings, include_extras=True)[name])[1])


def _allows(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_allows(get_args(hint)[0], v) for v in value)
    if get_args(hint):  # a union such as int | None
        return any(_allows(part, value) for part in get_args(hint))
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return abs(value) <= sys.float_info.max  # neither infinite nor no number
    return type(value) is hint and not (hint is str and "\0" in value)  # which no file's name has


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    return str(getattr(hint, "__name__", hint))


def read_json(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        SettingsError: If the text is not JSON or not an object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"must be a JSON object, not {type(values).__name__}")
    return values


DetectorName = Literal["auto", "blaze", "hog", "cnn"]
MaskName = Literal["hull", "square", "learned", "product"]
ColorName = Literal["average", "reinhard", "linear", "histogram", "none"]
BlendName = Literal["alpha", "linear", "poisson", "pyramid"]
CodecName = Literal["auto", "h264", "h265", "av1", "vp9", "prores", "ffv1"]
LossName = Literal["l1", "l1-dssim"]
ModelName = Literal["original", "small", "medium", "large"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
LabelPosition = Literal["bottom-right", "bottom-left", "top-right", "top-left"]

LANDMARKS = "FACESWAP_LANDMARKS"  # environment variable: a landmark model of the user's own
COVERAGE = 0.625  # the classic geometry: the face's square is 160 px of a 256 px crop


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Settings):
    """How faces are found and cropped."""

    size: Annotated[int, "Side of the stored crops in pixels."] = 256
    every: Annotated[int, "Read only every N-th frame of a video."] = 1
    max_faces: Annotated[int, "Keep at most N faces of an image, the largest; 0 keeps all."] = 0
    min_score: Annotated[float, "Drop detections below this detector score."] = 0.2
    detector: Annotated[
        DetectorName,
        "Face detector; auto: blaze if it is installed, else HOG; the slow CNN for photos in which "
        "they find none.",
    ] = "auto"
    workers: Annotated[int, "Processes that look for faces; 0 uses every core."] = 0
    restart: Annotated[bool, "Discard the existing faceset and begin again."] = False

    def __post_init__(self) -> None:
        self.check_types()
        self.check_range("size", 64, 2048)
        self.check_range("every", 1)
        self.check_range("max_faces", 0)
        self.check_range("workers", 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How a model is trained. ``steps`` and ``minutes`` count the model's whole life."""

    model: Annotated[
        Literal["auto", "original", "small", "medium", "large"],
        "Architecture; auto: small (80 px) on a CPU, else medium (128 px).",
    ] = "auto"
    size: Annotated[
        int | None, "Side of the network's faces in pixels [default: the model's own]."
    ] = None
    init_from: Annotated[
        str | None, "Begin with the encoder and decoders of this trained model, of other people."
    ] = None
    steps: Annotated[int | None, "Train until the model has had N steps in all."] = None
    minutes: Annotated[float | None, "Train until the model has had N minutes in all."] = None
    batch_size: Annotated[int, "Faces per identity per step."] = 16
    learning_rate: Annotated[float | None, "Peak learning rate [default: the model's own]."] = None
    loss: Annotated[Literal["auto", "l1", "l1-dssim"], "Training loss; auto: the model's own."] = (
        "auto"
    )
    device: Annotated[DeviceName, "Where to compute; auto: a GPU if there is one."] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        "Arithmetic of the network; auto: bfloat16 where the hardware multiplies it fast.",
    ] = "auto"
    seed: Annotated[int, "Seed of weights, order and augmentation."] = 0
    preview_every: Annotated[int, "Steps between preview pictures; 0: only at the end."] = 500
    holdout: Annotated[float, "Share of the faces kept out of training, for evaluate."] = 0.1
    save_every: Annotated[float, "Minutes between saves."] = 2.0
    keep: Annotated[int, "Keep the last N saved states, to go back to."] = 3
    consent_a: Annotated[str | None, "What a consented to, kept in the model and its works."] = None
    consent_b: Annotated[str | None, "What b consented to."] = None
    tensorboard: Annotated[bool, "Write losses, scores and previews for TensorBoard too."] = False
    restart: Annotated[bool, "Discard the existing model and begin again."] = False

    def __post_init__(self) -> None:
        self.check_types()
        self.check_range("size", 16, 1024)
        self.check_range("steps", 1)
        self.check_range("minutes", 0.01)
        self.check_range("batch_size", 1, 65536)
        self.check_range("learning_rate", 1e-9, 1.0)
        self.check_range("seed", 0, 2**63 - 1)
        self.check_range("preview_every", 0)
        self.check_range("save_every", 0.0)
        self.check_range("keep", 1, 1000)
        self.check_range("holdout", 0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Settings):
    """How a face is swapped and pasted."""

    to: Annotated[
        Literal["a", "b"], "Whose face to paste: b's onto a's footage, or a's onto b's."
    ] = "b"
    color: Annotated[
        ColorName,
        "Colour match; average: shift the face's mean colour to the footage's; reinhard: its means "
        "and spreads in Lab; linear: all spreads in RGB; histogram: every level.",
    ] = "average"
    mask: Annotated[
        MaskName, "What to paste; hull: the face's outline, learned: the model's, product: of both."
    ] = "hull"
    identity_strength: Annotated[
        float, "How far to turn the face's code from one person to the other: 0 not, 1 fully."
    ] = 1.0
    erosion: Annotated[float, "Shrink the mask by this share of the face's width."] = 0.01
    feather: Annotated[float, "Soften the mask's edge over this share of the face's width."] = 0.06
    blend: Annotated[
        BlendName, "How the face joins the frame; linear: mixed as light, pyramid: scale by scale."
    ] = "alpha"
    match_detail: Annotated[
        bool, "Give the face the footage's sharpness, grain and motion blur."
    ] = False
    smooth: Annotated[bool, "Steady faces and their colours over the frames around."] = True
    who: Annotated[
        tuple[str, ...], "Swap only the person of this photo; repeat it for several people."
    ] = ()
    all_faces: Annotated[
        bool, "Swap every face; by default only the footage's person among several in shot."
    ] = False
    cast: Annotated[
        str | None, "TOML file that gives each of several people a model and a direction."
    ] = None
    exclude: Annotated[
        tuple[str, ...], "Leave the person of this photo alone; may be repeated."
    ] = ()
    matte: Annotated[bool, "Write where faces were swapped, white on black, as *.matte.* too."] = (
        False
    )
    layers: Annotated[
        bool, "Write the swapped faces alone, on transparency, as *.layers.* too."
    ] = False
    codec: Annotated[CodecName, "How video is coded; auto: H.264, in WebM VP9."] = "auto"
    quality: Annotated[
        int, "Of coded video, as x264's constant rate factor: less is better, 0 lossless."
    ] = 18
    hardware: Annotated[bool, "Code video with the graphics hardware, if it can."] = False
    start: Annotated[str | None, "Write only what comes after this time, such as 12.5 or 1:30."] = (
        None
    )
    end: Annotated[str | None, "Write only what comes before this time."] = None
    frames: Annotated[
        str | None, "Swap only in these frames, such as 10-50,90-, counted from 0; others stay."
    ] = None
    largest: Annotated[bool, "Swap only the largest of the faces chosen in a frame."] = False
    detector: Annotated[
        DetectorName,
        "Face detector; auto: blaze if it is installed, else HOG; the slow CNN for photos in which "
        "they find none.",
    ] = "auto"
    min_score: Annotated[float, "Drop detections below this detector score."] = 0.2
    device: Annotated[DeviceName, "Where to compute; auto: a GPU if there is one."] = "auto"
    workers: Annotated[int, "Processes that look for faces; 0 uses every core."] = 0
    label: Annotated[
        str | None, 'Write these words, such as "AI-generated", into every frame and swapped photo.'
    ] = None
    label_position: Annotated[LabelPosition, "The corner of the label."] = "bottom-right"
    label_size: Annotated[float, "Height of the label's letters, as a share of the picture's."] = (
        0.04
    )
    sign_cert: Annotated[
        str | None, "Sign with this certificate (PEM) [default: one of your own, made once]."
    ] = None
    sign_key: Annotated[str | None, "The key of that certificate (PEM, PKCS#8)."] = None

    def __post_init__(self) -> None:
        self.check_types()
        self.check_range("label_size", 0.02, 0.25)
        frame_ranges(self.frames or "0-")
        if self.all_faces and (self.who or self.exclude or self.largest):
            raise SettingsError("--all swaps everybody: leave out --who, --not and --largest")
        if self.cast and (self.who or self.all_faces or self.to != "b"):
            raise SettingsError("--cast says who becomes whom: leave out --who, --all and --to")
        start = seconds_of(self.start or "0")
        if self.end is not None and seconds_of(self.end) <= start:
            raise SettingsError(f"--end {self.end} must come after --start {self.start or 0}")
        self.check_range("quality", 0, 51)
        self.check_range("identity_strength", 0.0, 2.0)
        self.check_range("erosion", 0.0, 0.5)
        self.check_range("feather", 0.0, 0.5)
        self.check_range("workers", 0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """How a model is measured."""

    faces: Annotated[int, "Measure at most N unseen faces of each identity; 0: all."] = 0
    color: Annotated[ColorName, "Colour match of the swaps."] = "average"
    mask: Annotated[MaskName, "Mask of the swaps."] = "hull"
    identity_strength: Annotated[float, "Likeness of the swaps, as in convert."] = 1.0
    smooth: Annotated[bool, "Steady the clip's faces and colours, as convert does."] = True
    clip_frames: Annotated[int, "Read at most N frames of the clip; 0: all."] = 150
    min_score: Annotated[float, "Drop detections in the clip below this detector score."] = 0.2
    device: Annotated[DeviceName, "Where to compute; auto: a GPU if there is one."] = "auto"

    def __post_init__(self) -> None:
        self.check_types()
        self.check_range("faces", 0)
        self.check_range("identity_strength", 0.0, 2.0)
        self.check_range("clip_frames", 0)


def frame_ranges(text: str) -> list[tuple[int, float]]:
    """First and last frames of ``10-50,90-``, inclusive; an open end is infinite.

    Raises:
        SettingsError: If it cannot be understood.
    """
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(-?)\s*(\d*)\s*", part)
        if not found or (found[3] and not found[2]):
            raise SettingsError(f"frames must look like 10-50,90-, not {text!r}")
        first = int(found[1])
        last = float(found[3]) if found[3] else math.inf if found[2] else float(first)
        if last < first:
            raise SettingsError(f"frames must run forwards, not {part.strip()!r}")
        ranges.append((first, last))
    return ranges


def seconds_of(text: str) -> Fraction:
    """The seconds that ``12.5``, ``1:30`` or ``0:01:30.5`` stand for.

    Raises:
        SettingsError: If it is no time.
    """
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise SettingsError(f"a time must look like 12.5, 1:30 or 0:01:30.5, not {text!r}")
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = seconds * 60 + Fraction(part)
    return seconds


def identity_name(faces: Path) -> str:
    """The person's name that a faceset's folder stands for: data/trump/faces is trump."""
    resolved = faces.resolve()
    return resolved.parent.name if resolved.name == "faces" else resolved.name
