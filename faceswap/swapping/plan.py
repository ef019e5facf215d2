"""Plan a conversion: resolve models, people, detector, caption and signer once, before any work."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

from faceswap.config import ConvertConfig, seconds_of
from faceswap.errors import InputError, OutputError
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.recognition import appears, embedding_of
from faceswap.faces.selection import FaceSelector
from faceswap.files import Publish, sha256_of
from faceswap.media import reader, writers
from faceswap.media.frame import Frame
from faceswap.media.photos import PHOTO_SUFFIXES
from faceswap.models import modelfile
from faceswap.models.devices import resolve_device
from faceswap.provenance.credentials import ModelRecord
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Signer
from faceswap.swapping.cast import MultiSwapper, read_cast, references_of, swappers_of
from faceswap.swapping.compositor import Swap
from faceswap.swapping.label import Label
from faceswap.swapping.render import render
from faceswap.swapping.swapper import FaceSwapper, Swapper


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert, and everything that does it.

    Attributes:
        source: The photo, the video or the folder of photos.
        kind: Which of these it is: "photo", "video" or "folder".
        target: The output.
        config: Settings.
        swapper: Swaps faces.
        selector: Chooses whose faces are swapped.
        spec: Detects faces.
        label: The caption, if one is wanted.
        model: The models as the credentials name them.
        signer: Signs the outputs.
    """

    source: Path
    kind: str
    target: Path
    config: ConvertConfig
    swapper: FaceSwapper
    selector: FaceSelector
    spec: DetectorSpec
    label: Label | None
    model: ModelRecord
    signer: Signer

    @property
    def start(self) -> Fraction:
        """Seconds into the video at which to begin."""
        return seconds_of(self.config.start or "0")

    @property
    def end(self) -> Fraction | None:
        """Seconds into the video at which to end; None for the end of the video."""
        return seconds_of(self.config.end) if self.config.end else None

    def render(self, frame: Frame, swaps: list[Swap]) -> dict[str, Frame]:
        """Render the frames of every stream; see :func:`render.render`."""
        return render(frame, swaps, self.config, self.label)

    def publisher(self, source: Path) -> Publish:
        """Return what moves outputs made from a source into place, signed."""
        return self.signer.publisher(source)

    def presence(self) -> Callable[[], bool]:
        """Return a function that tells whether the preferred person appears in the video.

        It surveys the video at most once, and only when it is called.
        """

        @cache
        def is_present() -> bool:
            person = self.selector.footage
            return person is not None and appears(person, self.source, self.spec.landmarks)

        return is_present


def plan(
    source: Path, output: Path | None, model: Path | None, config: ConvertConfig
) -> Conversion:
    """Resolve everything a conversion needs; nothing is written.

    Args:
        source: A photo, a video or a folder of photos.
        output: The output [default: see :func:`default_output`].
        model: A model's folder or file [default: the newest in ``models``].
        config: Settings.

    Raises:
        InputError: If the source, the cast file or a reference photo is missing or unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If a reference photo shows no face.
        SettingsError: If the cast file is not one, a mask is asked for that the model does not
            decode, or nothing can be signed with the certificate given.
        OutputError: If the output is the input, or is of another kind.
    """
    kind = reader.kind_of(source)
    target = output or default_output(source)
    _refuse_overwriting(source, target, *_companions(target, kind, config))
    _refuse_other_kind(kind, source, target)
    swapper, selector, files = assemble(config, model)
    signer, record = signer_for(files, config)
    label = None
    if config.label is not None:
        label = Label(config.label, config.label_position, config.label_size)
    spec = DetectorSpec(config.detector, config.landmarks).checked()
    return Conversion(
        source, kind, target, config, swapper, selector, spec, label, record, signer
    )  # fmt: skip


def default_output(source: Path) -> Path:
    """``video.swapped.mp4`` beside ``video.mp4``; ``photos.swapped`` beside ``photos``."""
    if source.is_dir():
        named = source if source.name.strip(".") else source.resolve()  # "." has no name
        return named.with_name(f"{named.name}.swapped")
    is_photo = source.suffix.lower() in PHOTO_SUFFIXES
    suffix = source.suffix if is_photo else writers.default_video_suffix(source)
    return source.with_name(f"{source.stem}.swapped{suffix}")


def beside(target: Path, stream: str, suffix: str | None = None) -> Path:
    """Name a stream's output after the main one: ``video.matte.mp4`` beside ``video.mp4``."""
    return target.with_name(f"{target.stem}.{stream}{target.suffix if suffix is None else suffix}")


def assemble(
    config: ConvertConfig, model: Path | None
) -> tuple[FaceSwapper, FaceSelector, list[Path]]:
    """Load the models.

    Args:
        config: Settings.
        model: A model's folder or file; None for the newest in ``models``.

    Returns:
        What swaps, whom it swaps, and the models' folders or files.
    """
    device = resolve_device(config.device)
    exclude = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.exclude)
    if config.cast:
        path = Path(config.cast)
        entries = read_cast(path)
        needs_default = not all(entry.model for entry in entries)
        default = (model or modelfile.newest(Path("models"))) if needs_default else None
        given = [default] if default else []
        files = dict.fromkeys([*given, *(entry.model for entry in entries if entry.model)])
        swappers = swappers_of(path, entries, config, default, device)
        references = references_of(path, entries, config.landmarks)
        selector = FaceSelector(references, exclude, config.largest)
        return MultiSwapper(swappers), selector, list(files)
    file = model or modelfile.newest(Path("models"))
    trained = modelfile.load(file, device)
    who = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.who)
    is_named = who or exclude or config.largest or config.all_faces
    footage = None if is_named else trained.centroids.get("a" if config.to == "b" else "b")
    selector = FaceSelector((who,), exclude, config.largest, footage)
    return Swapper(trained, replace(config), device), selector, [file]


def signer_for(files: list[Path], config: ConvertConfig) -> tuple[Signer, ModelRecord]:
    """Return what signs everything made with some models, and how the credentials name them.

    Args:
        files: Model folders or files.
        config: Settings.

    Raises:
        SettingsError: If nothing can be signed with the certificate that the settings name.
    """
    paths = [file if file.is_file() else file / modelfile.MODEL_FILE for file in files]
    names = dict.fromkeys(path.resolve().parent.name for path in paths)
    notes = tuple(dict.fromkeys(note for path in paths for note in modelfile.consent_of(path)))
    record = ModelRecord(", ".join(names), ", ".join(sha256_of(path) for path in paths), notes)
    return Signer(record, signing_identity(config.sign_cert, config.sign_key)), record


def _companions(target: Path, kind: str, config: ConvertConfig) -> list[Path]:
    """List what is written beside the output of a photo or a video."""
    layers = ".png" if kind == "photo" else ".mov" if target.suffix else ""
    return [
        *([beside(target, "matte")] if config.matte else ()),
        *([beside(target, "layers", layers)] if config.layers else ()),
    ]


def _refuse_overwriting(source: Path, *targets: Path) -> None:
    for target in targets:
        if target.exists() and target.samefile(source):
            raise OutputError(f"the output {target} is the input itself; give another --output")


def _refuse_other_kind(kind: str, source: Path, target: Path) -> None:
    """Refuse an output of another kind than the source, before any work is done."""
    if kind == "folder":
        if target.is_file():
            raise OutputError(f"the output {target} is a file; a folder of photos needs a folder")
        return
    known = PHOTO_SUFFIXES if kind == "photo" else writers.VIDEO_SUFFIXES
    if kind == "video" and not target.suffix:
        return  # a folder of images
    if target.suffix.lower() not in known:
        raise OutputError(
            f"cannot write {target}: {source} is a {kind}, and a {kind} is written as one of "
            f"{', '.join(sorted(known))}"
        )


def refuse_preview(source: Path, output: Path) -> None:
    """Refuse to preview anything but a video, or to write it as anything but a PNG.

    Raises:
        InputError: If the source is not a video.
        OutputError: If the output is not a PNG, or is the source.
    """
    if reader.kind_of(source) != "video":
        raise InputError(f"{source} is not a video; a preview needs one")
    if output.suffix.lower() != ".png":
        raise OutputError(f"cannot write {output}: a preview is an image, name it something.png")
    _refuse_overwriting(source, output)
