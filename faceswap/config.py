"""The settings of every stage, each with its name, type, default, range and help text.

The command line builds its options from these fields, and ``train`` writes them to ``config.json``.
This module imports nothing slow, because ``--help`` must stay fast.
"""

import dataclasses
import json
import math
import re
import sys
import tomllib
import typing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from faceswap.errors import InputError, SettingsError
from faceswap.files import reason
from faceswap.registry import Seam

MAX_QUOTED = 200  # maximum characters of a bad value that a message quotes
TYPE_NAMES = {
    bool: "a boolean", int: "a whole number", float: "a finite number",
    str: "text without NUL characters", type(None): "None",
}  # fmt: skip

# Headings under which --help lists options.
SWAPPED, LOOK, OUTPUT = "Faces to swap", "Look", "Output"
MACHINE, MARKING, FACES = "Compute", "Provenance and labels", "Faces"
MODEL, LENGTH, SAVING = "Model", "Training length", "Saving and monitoring"
IDENTITIES = "Identities"


@dataclass(frozen=True, slots=True)
class Option:
    """The help text, limits and seam of a setting, given in its annotation.

    Attributes:
        help: The help text.
        group: The heading under which ``--help`` lists it.
        low: The smallest number allowed.
        high: The largest number allowed.
        seam: The seam, if plug-ins can extend the setting.
        forms: The forms of output that a setting of ``convert`` applies to; empty for all.
        is_path: Whether the value is a path, or several.
        may_be_path: Whether the value is a name or a path.
    """

    help: str
    group: str = ""
    low: float = -math.inf
    high: float = math.inf
    seam: Seam | None = None
    forms: tuple[str, ...] = ()
    is_path: bool = False
    may_be_path: bool = False


class Settings:
    """Base of the frozen settings classes: checks each value and converts to and from JSON values.

    A subclass annotates each field ``Annotated[type, Option(...)]``.

    Raises:
        SettingsError: If a value is not allowed, or settings contradict each other.
    """

    def __post_init__(self) -> None:
        self.check()
        self.be_clean()

    def be_clean(self) -> None:
        """Let ``clean`` choose FaceMesh.

        Raises:
            SettingsError: If the landmarks of dlib's own model are asked for as well.
        """
        if not getattr(self, "clean", False):
            return
        chosen = getattr(self, "landmarks", MESH_LANDMARKS)
        if chosen == DLIB_LANDMARKS:
            raise SettingsError(
                "clean excludes dlib's landmark model, whose terms exclude commercial use; leave "
                "out landmarks, or pass your own model"
            )
        if chosen == AUTO_LANDMARKS:
            object.__setattr__(self, "landmarks", MESH_LANDMARKS)

    def check(self) -> None:
        """Check every value against its type, choices and range.

        Raises:
            SettingsError: If a value is not allowed. The message names the field and says what is.
        """
        options = field_options(type(self))
        for name, hint in field_types(type(self)).items():
            value, option = getattr(self, name), options[name]
            if option.seam:
                _check_choice(name, option.seam, value)
            elif not _allows(hint, value):
                raise SettingsError(f"{name} must be {_describe(hint)}, not {clipped(repr(value))}")
            else:
                _check_range(name, option, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; an object becomes ``module:name``, as text."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(typing.cast(Any, self))
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build the settings from JSON values; lists become tuples.

        Raises:
            SettingsError: If a name is unknown, a value has the wrong type or range, or settings
                contradict each other.
            TypeError: If a field without a default is missing.
        """
        unknown = set(values) - set(field_types(cls))
        if unknown:
            raise SettingsError(
                f"unknown setting {clipped(', '.join(sorted(unknown)))} for {cls.__name__}"
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check_choice(name: str, seam: Seam, value: Any) -> None:
    """Raise an error unless the value is a known name, or an object where the seam takes one."""
    if isinstance(value, str):
        if value not in seam and value not in seam.names():
            raise SettingsError(
                f"{name} must be one of {', '.join(seam.names())}, not {clipped(repr(value))}"
            )
    elif not seam.takes_objects:
        raise SettingsError(f"{name} must be a name, not {clipped(repr(value))}")
    elif value is None or isinstance(value, bool | int | float | list | tuple | dict):
        raise SettingsError(f"{name} must be a name or an object, not {clipped(repr(value))}")


def _check_range(name: str, option: Option, value: Any) -> None:
    """Raise an error for a number outside the range; a value that is not a number passes."""
    if not isinstance(value, int | float) or option.low <= value <= option.high:
        return
    limits = (
        f"at least {option.low:g}"
        if math.isinf(option.high)
        else f"from {option.low:g} to {option.high:g}"
    )
    given = f"{value:g}" if isinstance(value, float) else clipped(str(value))
    raise SettingsError(f"{name} must be {limits}, not {given}")


def _plain(value: Any) -> Any:
    """Return a JSON-ready value; an object becomes the ``module:name`` of itself or its class."""
    if value is None or isinstance(value, str | bool | int | float | tuple):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def clipped(text: str) -> str:
    """Shorten text from a file or the user to MAX_QUOTED characters for use in a message."""
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


def read_toml_file(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        what: What it is, for messages, such as "jobs file".

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the {what} {path} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:  # also for bad UTF-8 and huge integers
        raise SettingsError(f"the {what} {path} is not TOML: {clipped(str(error))}") from error


def read_tables(path: Path, what: str, key: str) -> list[Any]:
    """Read a TOML file that may only contain ``[[key]]`` tables.

    Args:
        path: The file.
        what: What it is, for messages, such as "cast file".
        key: The name of its tables.

    Returns:
        The tables. Their types are not checked: a hand-written file may contain other values.

    Raises:
        InputError: If the file cannot be read.
        SettingsError: If it is not TOML, or contains anything else.
    """
    content = read_toml_file(path, what)
    tables = content.pop(key, [])
    if content or not isinstance(tables, list):
        surplus = f", not {clipped(', '.join(content))}" if content else ""
        raise SettingsError(f"the {what} {path} must consist of [[{key}]] tables{surplus}")
    return tables


def refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a table with unknown keys.

    Raises:
        SettingsError: If it has any.
    """
    if unknown := sorted(set(table) - set(known)):
        raise SettingsError(
            f"{where}: unknown key {clipped(', '.join(unknown))}; known keys: {', '.join(known)}"
        )


def is_name(value: Any) -> bool:
    """Return whether a value from a file can be a path: text that is not empty, without NUL."""
    return isinstance(value, str) and bool(value) and "\0" not in value


def field_types(settings: type) -> dict[str, Any]:
    """Return the type of each field of a settings class by name, without its :class:`Option`."""
    hints = get_type_hints(settings, include_extras=True)
    return {
        field.name: get_args(hints[field.name])[0]
        if get_origin(hints[field.name]) is Annotated
        else hints[field.name]
        for field in dataclasses.fields(settings)
    }


def field_options(settings: type) -> dict[str, Option]:
    """Return the :class:`Option` of each field of a settings class by name."""
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: get_args(hints[field.name])[1] for field in dataclasses.fields(settings)}


def _allows(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_allows(get_args(hint)[0], v) for v in value)
    if get_args(hint):  # a union such as int | None
        return any(_allows(member, value) for member in get_args(hint))
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return abs(value) <= sys.float_info.max  # refuses infinity and NaN
    # Many string settings are file names, which cannot contain NUL.
    return type(value) is hint and not (hint is str and "\0" in value)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) is tuple:
        return f"a tuple, each item {_describe(get_args(hint)[0])}"
    if get_args(hint):
        return " or ".join(map(_describe, get_args(hint)))
    return TYPE_NAMES.get(hint, str(hint))


def read_json(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        SettingsError: If the text is not JSON, is nested too deeply, or is not an object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"must be a JSON object, not {type(values).__name__}")
    return values


def read_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises:
        SettingsError: If the text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from error


DetectorName = Literal["auto", "yunet", "blaze", "hog", "cnn"]
MaskName = Literal["skin", "hull", "square", "learned", "product"]
ColorName = Literal["auto", "average", "reinhard", "linear", "histogram", "none"]
BlendName = Literal["alpha", "linear", "poisson", "pyramid"]
CodecName = Literal["auto", "h264", "h265", "av1", "vp9", "prores", "ffv1"]
LossName = Literal["l1", "l1-dssim", "l1-dssim-scales"]
ModelName = Literal["original", "small", "medium", "large"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Corner = Literal["bottom-right", "bottom-left", "top-right", "top-left"]
LabelPosition = Literal["auto", Corner]

DETECTOR_SEAM = Seam("detector", "faceswap.detectors", get_args(DetectorName))
MASK_SEAM = Seam("mask", "faceswap.masks", get_args(MaskName))
COLOR_SEAM = Seam("color", "faceswap.color_matches", get_args(ColorName))
BLEND_SEAM = Seam("blend", "faceswap.blends", get_args(BlendName))
CODEC_SEAM = Seam("codec", "faceswap.codecs", get_args(CodecName))
LOSS_SEAM = Seam("loss", "faceswap.losses", get_args(LossName))
# A model file names its architecture, so an object without a name could not be loaded again.
MODEL_SEAM = Seam("model", "faceswap.architectures", get_args(ModelName), takes_objects=False)
# The architecture resolves the loss "auto", and the device the model "auto". Neither is an
# implementation, so the registries lack it.
AUTO_LOSS_SEAM = dataclasses.replace(LOSS_SEAM, built_in=("auto", *LOSS_SEAM.built_in))
AUTO_MODEL_SEAM = dataclasses.replace(MODEL_SEAM, built_in=("auto", *MODEL_SEAM.built_in))

LANDMARKS_VARIABLE = "FACESWAP_LANDMARKS"  # the environment variable behind --landmarks
# What --landmarks takes besides the path of a landmark model.
AUTO_LANDMARKS, DLIB_LANDMARKS, MESH_LANDMARKS = "auto", "dlib", "mesh"
# Forms of the output of ``convert``, in words.
FORMS = {
    "photo": "a photo", "photos": "a folder of photos", "movie": "a video",
    "gif": "an animated GIF", "animation": "an animated WebP", "apng": "an animated PNG",
    "images": "an image sequence", "package": "a package", "preview": "a preview",
}  # fmt: skip
ICONS = {"generated": "AI GENERATED", "modified": "AI MODIFIED", "ai": "AI"}  # of --label-icon
# Forms whose frames have times.
IN_TIME = ("movie", "gif", "animation", "apng", "images", "package", "preview")
IN_FILES = tuple(form for form in FORMS if form != "preview")  # all but the image of a preview
NTSC_ROUNDING = 0.005  # frames per second
COVERAGE = 0.625  # classic geometry: the face's square takes 160 px of a 256 px crop

# A setting with a seam may also take an object, so its type is Any. The module that holds the
# registry of the seam describes these objects.
DetectorSetting = Annotated[
    Any,
    Option(
        "Face detector. yunet (auto): faces from 20 pixels on, at any angle. blaze: BlazeFace, "
        "whose training images have no unclear terms. hog, cnn: dlib's, for upright faces.",
        FACES,
        seam=DETECTOR_SEAM,
    ),
]
MinScoreSetting = Annotated[
    float, Option("Drop detections below this score; each detector has its own scale.", FACES)
]
LandmarksSetting = Annotated[
    str,
    Option(
        "Landmark models. auto: dlib's, and FaceMesh where dlib's predictions disagree. dlib, "
        "mesh: one of them alone. Or the path of a dlib shape predictor (68 iBUG points) that "
        "takes the place of dlib's own.",
        FACES,
        may_be_path=True,
    ),
]
CleanSetting = Annotated[
    bool,
    Option(
        "Use only weights whose terms allow commercial use: FaceMesh instead of dlib's landmarks.",
        FACES,
    ),
]
WorkersSetting = Annotated[
    int,
    Option("Number of processes that detect faces; 0 starts one per core.", MACHINE, low=0),
]
ClusterSetting = Annotated[
    bool,
    Option(
        "Spread the work over the Ray cluster that $RAY_ADDRESS names or that runs here. Its "
        "machines must share the folders. It needs faceswap[cluster].",
        MACHINE,
        forms=IN_FILES,
    ),
]
DeviceSetting = Annotated[
    DeviceName,
    Option("Device to compute on. auto: a GPU if there is one, otherwise the CPU.", MACHINE),
]

ColorspaceSetting = Annotated[
    str | None,
    Option(
        "Colour space of videos, and of images with more than 8 bits, such as ACEScg. The names "
        "are those of OpenColorIO's ACES studio configuration, or of the one that $OCIO names. It "
        "needs faceswap[film].  [default: what the files say]",
        FACES,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Settings):
    """Settings for detecting and cropping faces.

    Raises:
        SettingsError: If a value is not allowed.
    """

    size: Annotated[
        int, Option("Side of the stored crops in pixels.", OUTPUT, low=64, high=2048)
    ] = 256
    colorspace: ColorspaceSetting = None
    every: Annotated[int, Option("Read only every N-th frame of a video.", FACES, low=1)] = 1
    max_faces: Annotated[
        int,
        Option("Keep at most N faces per image, the largest ones; 0 keeps all.", FACES, low=0),
    ] = 0
    who: Annotated[
        tuple[str, ...],
        Option("Store only the person in this photo; repeat the flag for several people.", FACES),
    ] = ()
    min_score: MinScoreSetting = 0.2
    detector: DetectorSetting = "auto"
    landmarks: LandmarksSetting = AUTO_LANDMARKS
    clean: CleanSetting = False
    workers: WorkersSetting = 0
    cluster: ClusterSetting = False
    prune: Annotated[
        bool, Option("Drop the faces of photos and videos that do not exist any more.", OUTPUT)
    ] = False
    restart: Annotated[bool, Option("Discard the existing faceset and start over.", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings for training a model.

    ``steps`` and ``minutes`` are totals over all runs of the model; the first total that is reached
    ends the training. Without either, it goes on until it is interrupted.

    Raises:
        SettingsError: If a value is not allowed.
    """

    model: Annotated[
        Any,
        Option(
            "Architecture. auto: that of an existing model; for a new one, small (80 px) on a CPU "
            "and medium (128 px) on a GPU.",
            MODEL,
            seam=AUTO_MODEL_SEAM,
        ),
    ] = "auto"
    size: Annotated[
        int | None,
        Option(
            "Side of the network crop in pixels  [default: set by the architecture]",
            MODEL,
            low=16,
            high=1024,
        ),
    ] = None
    init_from: Annotated[
        str | None,
        Option(
            "Start a new model from the encoder and decoder weights of this one, which was trained "
            "on other people.",
            MODEL,
        ),
    ] = None
    also: Annotated[
        tuple[str, ...],
        Option(
            "Train the shared encoder on this person too: a faceset folder, or a name for "
            "data/<name>/faces; repeat the flag for several people.",
            MODEL,
        ),
    ] = ()
    steps: Annotated[
        int | None, Option("Train for N steps in total, earlier runs included.", LENGTH, low=1)
    ] = None
    minutes: Annotated[
        float | None,
        Option(
            "Train for N minutes in total, earlier runs included; reading faces is not counted.",
            LENGTH,
            low=0.01,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        Option(
            "Faces per identity per step  [default: 16 on a CPU, 64 on a GPU]",
            MODEL,
            low=1,
            high=65536,
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        Option("Peak learning rate  [default: set by the architecture]", MODEL, low=1e-9, high=1.0),
    ] = None
    loss: Annotated[
        Any, Option("Training loss. auto: chosen by the architecture.", MODEL, seam=AUTO_LOSS_SEAM)
    ] = "auto"
    device: DeviceSetting = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Option(
            "Number format of the network. auto: bfloat16 if the hardware multiplies it fast, "
            "otherwise float16 on a CUDA GPU and float32 elsewhere.",
            MACHINE,
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        Option(
            "Compile the network for this GPU first: it takes a minute or two and needs a C "
            "compiler, and every step is about 1.4 times as fast.",
            MACHINE,
        ),
    ] = False
    landmarks: LandmarksSetting = AUTO_LANDMARKS
    clean: CleanSetting = False
    seed: Annotated[
        int,
        Option(
            "Random seed for the initial weights, the order of faces and the augmentation.",
            MODEL,
            low=0,
            high=2**63 - 1,
        ),
    ] = 0
    preview_every: Annotated[
        float,
        Option("Minutes between preview images; 0 writes one only at the end.", SAVING, low=0.0),
    ] = 1.5
    holdout: Annotated[
        float,
        Option(
            "Share of the faces that training holds out for evaluate.", SAVING, low=0.0, high=0.5
        ),
    ] = 0.1
    exemplars: Annotated[
        int,
        Option(
            "Photos of each person that the model file keeps, for their fine detail; 0 keeps none.",
            SAVING,
            low=0,
            high=1000,
        ),
    ] = 60
    save_every: Annotated[float, Option("Minutes between saves.", SAVING, low=0.0)] = 2.0
    keep: Annotated[
        int,
        Option("Keep the last N saved states; older ones are fallbacks.", SAVING, low=1, high=1000),
    ] = 3
    consent_a: Annotated[
        str | None,
        Option(
            "What person a consented to; stored in the model and in everything made with it.",
            MARKING,
        ),
    ] = None
    consent_b: Annotated[
        str | None, Option("What person b consented to; stored in the same way.", MARKING)
    ] = None
    tensorboard: Annotated[
        bool, Option("Also write losses, scores and previews for TensorBoard.", SAVING)
    ] = False
    restart: Annotated[bool, Option("Discard the existing model and start over.", SAVING)] = False


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Settings):
    """Settings for swapping and pasting faces.

    Raises:
        SettingsError: If a value is not allowed, or settings contradict each other.
    """

    to: Annotated[
        Literal["a", "b"],
        Option("Whose face to paste: b's onto a's footage, or a's onto b's.", SWAPPED),
    ] = "b"
    color: Annotated[
        Any,
        Option(
            "Colour match. auto: follow the footage's light, shadows, tint and lack of colour. "
            "average: shift the face's mean colour to the footage's. reinhard: match "
            "mean and standard deviation in Lab. linear: match mean and covariance in RGB. "
            "histogram: match the histogram of each channel.",
            LOOK,
            seam=COLOR_SEAM,
        ),
    ] = "auto"
    mask: Annotated[
        Any,
        Option(
            "Area of the decoded face to paste. skin: the hull where skin is visible, so that "
            "hands and hair stay in front, with an edge that is soft where there is room. hull: "
            "the outline of the landmarks plus the forehead. square: the whole network crop. "
            "learned: the model's own mask. product: hull times learned.",
            LOOK,
            seam=MASK_SEAM,
        ),
    ] = "skin"
    identity_strength: Annotated[
        float,
        Option(
            "Identity strength: 0 keeps the source latent, 1 moves it fully to the target.",
            LOOK,
            low=0.0,
            high=2.0,
        ),
    ] = 1.0
    expression_range: Annotated[
        float,
        Option(
            "Limit expressions to this many standard deviations of those that the target showed in "
            "training; 0 does not limit them.",
            LOOK,
            low=0.0,
            high=100.0,
        ),
    ] = 3.0
    erosion: Annotated[
        float,
        Option("Shrink the mask by this share of the face's width.", LOOK, low=0.0, high=0.5),
    ] = 0.01
    feather: Annotated[
        float | None,
        Option(
            "Soften the mask's edge over this share of the face's width; with the skin mask, over "
            "this share or more. [default: 0.06; with the skin mask 0.04]",
            LOOK,
            low=0.0,
            high=0.5,
        ),
    ] = None
    blend: Annotated[
        Any,
        Option(
            "How to blend the face into the frame. alpha: a mean weighted by the mask. linear: "
            "alpha in linear light. poisson: alpha after giving the face the frame's colours at "
            "its edge. pyramid: a separate blend at each scale.",
            LOOK,
            seam=BLEND_SEAM,
        ),
    ] = "alpha"
    match_detail: Annotated[
        bool, Option("Match the footage's sharpness, grain and motion blur.", LOOK)
    ] = True
    smooth: Annotated[
        bool, Option("Smooth landmarks, expressions and colours over neighbouring frames.", LOOK)
    ] = True
    who: Annotated[
        tuple[str, ...],
        Option(
            "Swap only the person in this photo; repeat the flag for several people.",
            SWAPPED,
            is_path=True,
        ),
    ] = ()
    all_faces: Annotated[
        bool,
        Option(
            "Swap every face. By default, if there are several people, only the one that the "
            "model was trained to replace is swapped.",
            SWAPPED,
        ),
    ] = False
    cast: Annotated[
        str | None,
        Option(
            "TOML file that assigns each of several people a model and a direction.",
            SWAPPED,
            is_path=True,
        ),
    ] = None
    shots: Annotated[
        str | None,
        Option(
            "TOML file that gives single shots settings of the look of their own.",
            LOOK,
            forms=IN_TIME,
            is_path=True,
        ),
    ] = None
    exclude: Annotated[
        tuple[str, ...],
        Option(
            "Do not swap the person in this photo; repeat the flag for several people.",
            SWAPPED,
            is_path=True,
        ),
    ] = ()
    largest: Annotated[
        bool, Option("Swap only the largest of the selected faces in a frame.", SWAPPED)
    ] = False
    frames: Annotated[
        str | None,
        Option(
            'Swap faces only in these frames of the source, such as "10-50,90-", counted from 0. '
            "Faces in the other frames stay as they are. Frames of an image sequence are named by "
            "the numbers of their files.",
            SWAPPED,
            forms=IN_TIME,
        ),
    ] = None
    start: Annotated[
        str | None,
        Option("Start the output at this time, such as 12.5 or 1:30.", OUTPUT, forms=IN_TIME),
    ] = None
    end: Annotated[str | None, Option("End the output at this time.", OUTPUT, forms=IN_TIME)] = None
    images: Annotated[
        Literal["auto", "sequence", "photos"],
        Option(
            "Take a folder of images as the frames of a shot or as single photos. auto: as a shot "
            "if they are numbered and neighbours look alike.",
            OUTPUT,
        ),
    ] = "auto"
    colorspace: ColorspaceSetting = None
    fps: Annotated[
        float | None,
        Option(
            "Frames per second of an image sequence  [default: what its images say, or else 24]",
            OUTPUT,
            low=1.0,
            high=1000.0,
        ),
    ] = None
    matte: Annotated[
        bool,
        Option("Also write *.matte.*: white where faces were swapped, black elsewhere.", OUTPUT),
    ] = False
    layers: Annotated[
        bool,
        Option(
            "Also write *.layers.*: only the swapped faces, on a transparent background.",
            OUTPUT,
            forms=IN_FILES,
        ),
    ] = False
    html: Annotated[
        bool,
        Option(
            "Also write *.report.html: a page with the runs of frames, or the photos, to look at.",
            OUTPUT,
            forms=IN_FILES,
        ),
    ] = False
    intermediate: Annotated[
        bool,
        Option(
            "Image sequences, layers and matte stay in a production: write no watermark and no "
            "credentials into them, only beside them. Everything else is marked as always.",
            MARKING,
            forms=IN_FILES,
        ),
    ] = False
    overwrite: Annotated[
        bool, Option("Replace outputs that exist, without asking on a terminal.", OUTPUT)
    ] = False
    codec: Annotated[
        Any,
        Option(
            "Video codec. auto: H.264, or VP9 in WebM; for transparent footage ProRes in MOV and "
            "FFV1 in MKV.",
            OUTPUT,
            seam=CODEC_SEAM,
            forms=("movie",),
        ),
    ] = "auto"
    quality: Annotated[
        int,
        Option(
            "Constant rate factor (0 = lossless, lower = better).",
            OUTPUT,
            low=0,
            high=51,
            forms=("movie", "animation"),
        ),
    ] = 18
    hardware: Annotated[
        bool,
        Option(
            "Decode and encode video on graphics hardware if possible.", OUTPUT, forms=("movie",)
        ),
    ] = False
    detector: DetectorSetting = "auto"
    min_score: MinScoreSetting = 0.2
    landmarks: LandmarksSetting = AUTO_LANDMARKS
    clean: CleanSetting = False
    device: DeviceSetting = "auto"
    workers: WorkersSetting = 0
    cluster: ClusterSetting = False
    label: Annotated[
        str | None,
        Option(
            'Write this text, such as "AI-generated", into every swapped photo, or into every '
            "frame of the video.",
            MARKING,
        ),
    ] = None
    label_icon: Annotated[
        str | None,
        Option(
            "Draw an icon in the same way: generated, modified or ai (a badge AI GENERATED, AI "
            "MODIFIED or AI), or the image in this file, such as a PNG with transparency.",
            MARKING,
            may_be_path=True,
        ),
    ] = None
    label_font: Annotated[
        str | None,
        Option(
            "Font of the label: a .ttf, .otf or .ttc file, or the name of a font of this system  "
            "[default: a built-in one, or a font of this system that has all letters]",
            MARKING,
            may_be_path=True,
        ),
    ] = None
    label_position: Annotated[
        LabelPosition,
        Option(
            "Corner of the label. auto: words bottom right, an icon top right. With both, the "
            "corner of the words.",
            MARKING,
        ),
    ] = "auto"
    label_size: Annotated[
        float,
        Option(
            "Height of the label's capital letters as a share of the image's height; a label that "
            "is too wide is drawn smaller.",
            MARKING,
            low=0.02,
            high=0.25,
        ),
    ] = 0.04
    sign_cert: Annotated[
        str | None,
        Option(
            "Sign with this certificate (PEM)  [default: $FACESWAP_SIGN_CERT, otherwise a "
            "self-signed one that is created on first use]",
            MARKING,
            is_path=True,
        ),
    ] = None
    sign_key: Annotated[
        str | None,
        Option(
            "The private key of that certificate (unencrypted PEM)  [default: $FACESWAP_SIGN_KEY]",
            MARKING,
            is_path=True,
        ),
    ] = None

    timestamp_url: Annotated[
        str | None,
        Option(
            "Let this server of time stamps (RFC 3161) state when each output was signed. Without "
            "its answer outputs are signed without a time.",
            MARKING,
        ),
    ] = None

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        frame_ranges(self.frames or "0-")
        if self.timestamp_url and not re.match("https?://[^/]", self.timestamp_url):
            raise SettingsError(
                f"--timestamp-url must begin with http:// or https://, not {self.timestamp_url}"
            )
        if self.all_faces and (self.who or self.exclude or self.largest):
            raise SettingsError("--all swaps every face: leave out --who, --not and --largest")
        if self.cast and (self.who or self.all_faces or self.to != "b"):
            raise SettingsError(
                "--cast names people and directions: leave out --who, --all and --to"
            )
        self._check_label()
        start = seconds_of(self.start or "0")
        if self.end is not None and seconds_of(self.end) <= start:
            raise SettingsError(f"--end {self.end} must come after --start {self.start or 0}")

    def _check_label(self) -> None:
        if self.label_font is not None and self.label is None:
            raise SettingsError("--label-font needs the words of a --label")
        is_both = self.label is not None and self.label_icon is not None
        if is_both and self.label_position == "top-right":
            raise SettingsError(
                "the icon is top right: choose another --label-position for the words"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Settings for evaluating a model.

    Raises:
        SettingsError: If a value is not allowed.
    """

    faces: Annotated[
        int, Option("Measure at most N unseen faces of each identity; 0 measures all.", FACES, 0)
    ] = 0
    color: Annotated[Any, Option("Colour match of the swaps.", LOOK, seam=COLOR_SEAM)] = "auto"
    mask: Annotated[Any, Option("Mask of the swaps.", LOOK, seam=MASK_SEAM)] = "skin"
    identity_strength: Annotated[
        float, Option("Identity strength of the swaps, as in convert.", LOOK, low=0.0, high=2.0)
    ] = 1.0
    expression_range: Annotated[
        float,
        Option("Expression range of the swaps, as in convert.", LOOK, low=0.0, high=100.0),
    ] = 3.0
    smooth: Annotated[bool, Option("Smooth the clip over time, as convert does.", LOOK)] = True
    clip_frames: Annotated[
        int, Option("Read at most N frames of the clip; 0 reads all.", FACES, low=0)
    ] = 150
    min_score: MinScoreSetting = 0.2
    landmarks: LandmarksSetting = AUTO_LANDMARKS
    clean: CleanSetting = False
    device: DeviceSetting = "auto"
    overwrite: Annotated[
        bool, Option("Replace files that exist, without asking on a terminal.", OUTPUT)
    ] = False


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Settings for writing a model as a network for other programs.

    Raises:
        SettingsError: If a value is not allowed.
    """

    format: Annotated[
        Literal["onnx", "torchscript"],
        Option("onnx: needs faceswap[export]. torchscript: for Nuke's CatFileCreator.", OUTPUT),
    ] = "onnx"
    to: Annotated[Literal["a", "b"], Option("Whose face the network returns.", LOOK)] = "b"
    identity_strength: Annotated[
        float, Option("Identity strength of the swaps, as in convert.", LOOK, low=0.0, high=2.0)
    ] = 1.0
    expression_range: Annotated[
        float,
        Option("Expression range of the swaps, as in convert.", LOOK, low=0.0, high=100.0),
    ] = 3.0
    overwrite: Annotated[
        bool, Option("Replace a file that exists, without asking on a terminal.", OUTPUT)
    ] = False


def frame_ranges(text: str) -> list[tuple[int, float]]:
    """Parse frames and ranges such as ``7,10-50,90-``.

    Returns:
        The first and the last frame of each range, both inclusive; an open end is infinite.

    Raises:
        SettingsError: If the text is not a list of frames and ranges, or a range runs backwards.
    """
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(-?)\s*(\d*)\s*", part)
        if not found or (found[3] and not found[2]):
            raise SettingsError(f'frames must be ranges such as "10-50,90-", not {text!r}')
        first = int(found[1])
        last = float(found[3]) if found[3] else math.inf if found[2] else float(first)
        if last < first:
            raise SettingsError(f"a range of frames must run forwards, not {part.strip()!r}")
        ranges.append((first, last))
    return ranges


def is_inside(number: int, ranges: list[tuple[int, float]]) -> bool:
    """Return whether a frame's number is in one of the ranges; see :func:`frame_ranges`."""
    return any(low <= number <= high for low, high in ranges)


def seconds_of(text: str) -> Fraction:
    """Convert ``12.5``, ``1:30`` or ``0:01:30.5`` to exact seconds.

    Raises:
        SettingsError: If the text is not a time.
    """
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise SettingsError(f"a time must look like 12.5, 1:30 or 0:01:30.5, not {text!r}")
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = seconds * 60 + Fraction(part)
    return seconds


def rate_of(fps: float | None) -> Fraction | None:
    """Return a frame rate exactly: 23.976 and 23.98 mean 24000/1001; None stays None."""
    if fps is None:
        return None
    whole = round(fps)
    if abs(fps - whole * 1000 / 1001) < NTSC_ROUNDING and fps != whole:
        return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1000)


def identity_name(faces: Path) -> str:
    """Return the name of the person in a faceset folder.

    This is ``trump`` for ``data/trump/faces``, and the folder's own name if it is not ``faces``.
    """
    resolved = faces.resolve()
    return resolved.parent.name if resolved.name == "faces" else resolved.name
