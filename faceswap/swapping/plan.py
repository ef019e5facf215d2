"""Plan a conversion: resolve models, people, detector, caption and signer before work starts."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from faceswap.config import ConvertConfig, seconds_of
from faceswap.errors import InputError, OutputError
from faceswap.faces.detection import DetectorSpec
from faceswap.facesets.recognition import appears, embedding_of
from faceswap.facesets.weights import behind
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
from faceswap.tracking.selection import FaceSelector


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion with everything it needs, resolved and loaded.

    Attributes:
        source: The photo, the video or the folder of photos.
        kind: The kind of source: "photo", "video" or "folder".
        target: The output file or folder.
        config: Settings.
        swapper: Swaps faces.
        selector: Chooses whose faces are swapped.
        spec: Detects faces.
        label: Draws the caption; None if there is no caption.
        model: The record of the models in the Content Credentials.
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
        """Start of the excerpt in seconds from the beginning of the video."""
        return seconds_of(self.config.start or "0")

    @property
    def end(self) -> Fraction | None:
        """End of the excerpt in seconds from the beginning; None for the end of the video."""
        return seconds_of(self.config.end) if self.config.end else None

    def render(self, frame: Frame, swaps: list[Swap]) -> dict[str, Frame]:
        """Render one frame for every output stream; see :func:`render.render`."""
        return render(frame, swaps, self.config, self.label)

    def publisher(self, source: Path) -> Publish:
        """Return a :data:`Publish` that signs outputs of ``source`` and moves them into place."""
        return self.signer.publisher(source)

    def presence(self) -> Callable[[], bool]:
        """Return a function that checks whether the preferred person appears in the video.

        The preferred person is the one that the model was trained to replace. The function searches
        the video on its first call only. It returns False if there is no preferred person.
        """

        @cache
        def is_present() -> bool:
            person = self.selector.footage
            return person is not None and appears(person, self.source, self.spec)

        return is_present


def plan(
    source: Path, output: Path | None, model: Path | None, config: ConvertConfig
) -> Conversion:
    """Resolve everything that a conversion needs, without writing any output.

    Args:
        source: A photo, a video or a folder of photos.
        output: The output [default: see :func:`default_output`].
        model: A model's folder or file [default: the newest in ``models``]. With a cast file, it is
            the model of the entries that name none.
        config: Settings.

    Raises:
        DeviceError: If this machine does not have the device.
        InputError: If the source, the cast file, a reference photo, the landmark model, the
            detector's files, the certificate or its key are missing or unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        OutputError: If an output is the input, its type does not fit the source, or the user's own
            signing identity cannot be created.
        SettingsError: If the cast file is not valid, the settings need a mask that a model does not
            decode, the detector does not support the user's landmark model, the label cannot be
            drawn, a plug-in cannot be imported, or the certificate cannot sign.
    """
    kind = reader.kind_of(source)
    target = output or default_output(source)
    _refuse_overwriting(source, target, *_extra_outputs(target, kind, config))
    _refuse_unfit_output(kind, source, target)
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
    """Return ``video.swapped.mp4`` for ``video.mp4``, ``photos.swapped`` for a folder ``photos``.

    A video in a container that cannot be written gets the suffix ``.mov``.
    """
    if source.is_dir():
        named = source if source.name.strip(".") else source.resolve()  # "." has no name
        return named.with_name(f"{named.name}.swapped")
    is_photo = source.suffix.lower() in PHOTO_SUFFIXES
    suffix = source.suffix if is_photo else writers.default_video_suffix(source)
    return source.with_name(f"{source.stem}.swapped{suffix}")


def beside(target: Path, stream: str, suffix: str | None = None) -> Path:
    """Return the path of a stream beside the main output: ``video.matte.mp4`` for ``video.mp4``.

    Args:
        target: The main output.
        stream: The name of the stream.
        suffix: The suffix of the path [default: that of the main output].
    """
    return target.with_name(f"{target.stem}.{stream}{target.suffix if suffix is None else suffix}")


def assemble(
    config: ConvertConfig, model: Path | None
) -> tuple[FaceSwapper, FaceSelector, list[Path]]:
    """Load the models and build the swapper and the face selector.

    Args:
        config: Settings.
        model: A model's folder or file; None for the newest in ``models``. With a cast file, it is
            the model of the entries that name none.

    Returns:
        The swapper, the face selector, and the models' folders or files.

    Raises:
        DeviceError: If this machine does not have the device.
        InputError: If the cast file, a reference photo, the landmark model or the detector's files
            are missing or unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        SettingsError: If the cast file is not valid, the settings need a mask that a model does not
            decode, or the plug-in of a mask or a colour match cannot be imported.
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
    return Swapper(trained, config, device), selector, [file]


def signer_for(files: list[Path], config: ConvertConfig) -> tuple[Signer, ModelRecord]:
    """Return the signer for outputs of these models, and the models' record in the credentials.

    Args:
        files: Model folders or files.
        config: Settings.

    Raises:
        InputError: If a model file, the certificate or its key cannot be read.
        ModelError: If a file is not a faceswap model.
        OutputError: If the user's own signing identity cannot be created.
        SettingsError: If the certificate cannot sign.
    """
    paths = [modelfile.file_of(file) for file in files]
    names = dict.fromkeys(path.resolve().parent.name for path in paths)
    found = [modelfile.notes_of(path) for path in paths]
    notes = tuple(dict.fromkeys(note for notes, _ in found for note in notes))
    weights = {*behind(config), *(name for _, names in found for name in names)}
    digests = ", ".join(sha256_of(path) for path in paths)
    record = ModelRecord(", ".join(names), digests, notes, tuple(sorted(weights)))
    return Signer(record, signing_identity(config.sign_cert, config.sign_key)), record


def _extra_outputs(target: Path, kind: str, config: ConvertConfig) -> list[Path]:
    """List the matte and the layers that are written beside the output for a photo or a video."""
    layers = ".png" if kind == "photo" else ".mov" if target.suffix else ""
    return [
        *([beside(target, "matte")] if config.matte else ()),
        *([beside(target, "layers", layers)] if config.layers else ()),
    ]


def _refuse_overwriting(source: Path, *targets: Path) -> None:
    for target in targets:
        if target.exists() and target.samefile(source):
            raise OutputError(f"the output {target} is the input itself; give another --output")


def _refuse_unfit_output(kind: str, source: Path, target: Path) -> None:
    """Raise an error if the output's type does not fit the source."""
    if kind == "folder":
        if target.is_file():
            raise OutputError(
                f"the output {target} is a file, but photos from a folder are written to a folder: "
                "give another --output"
            )
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
    """Raise an error unless the source is a video and the output is a PNG.

    Raises:
        InputError: If the source is missing or not a video.
        OutputError: If the output is not a PNG, or is the source.
    """
    if reader.kind_of(source) != "video":
        raise InputError(f"{source} is not a video; a preview needs one")
    if output.suffix.lower() != ".png":
        raise OutputError(
            f"cannot write {output}: a preview is an image, so use a name ending in .png"
        )
    _refuse_overwriting(source, output)
