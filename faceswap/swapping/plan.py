"""Plan a conversion: resolve models, people, detector, caption and signer before work starts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faceswap.config import ConvertConfig, seconds_of
from faceswap.faces import landmarks
from faceswap.faces.detection import DetectorSpec
from faceswap.facesets.recognition import appears, embedding_of
from faceswap.facesets.weights import behind
from faceswap.files import Publish, sha256_of
from faceswap.media.film import check_colorspace, warn_of_log
from faceswap.media.footage import Footage, ImageSequence
from faceswap.media.frame import Frame
from faceswap.models import modelfile
from faceswap.models.devices import resolve_device
from faceswap.provenance.credentials import ModelRecord
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Marking, Signer
from faceswap.provenance.watermark import Watermark, payload_of
from faceswap.swapping import outputs
from faceswap.swapping.cast import read_cast
from faceswap.swapping.compositor import Swap
from faceswap.swapping.label import Label, label_of
from faceswap.swapping.render import render
from faceswap.swapping.resources import load_model
from faceswap.swapping.shots import Shot, read_shots
from faceswap.swapping.swapper import FaceSwapper, Swapper
from faceswap.swapping.swappers import (
    Load,
    MultiSwapper,
    ShotSwapper,
    references_of,
    swappers_of,
)
from faceswap.tracking.selection import FaceSelector


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion with everything it needs, resolved and loaded.

    Attributes:
        source: The photo, the video, the folder of images, or the pattern of an image sequence.
        kind: The kind of source: "photo", "photos", "video" or "sequence".
        footage: The frames of a video or of an image sequence; None for photos.
        form: The form of the output; see :data:`faceswap.config.FORMS`.
        outputs: The file or folder of each stream; "video" is the main output.
        config: Settings.
        model_path: The model's folder or file as the caller gave it; None if the caller gave none.
        swapper: Swaps faces.
        selector: Chooses whose faces are swapped.
        spec: Detects faces.
        label: Draws the caption or an icon; None if there is neither.
        model: The record of the models in the Content Credentials.
        signer: Signs the outputs.
        marked_as: SHA-256 of the model in the watermark if it is not this model's, hexadecimal.
        shots: The settings that differ between shots.
    """

    source: Path
    kind: str
    footage: Footage | None
    form: str
    outputs: dict[str, Path]
    config: ConvertConfig
    model_path: Path | None
    swapper: FaceSwapper
    selector: FaceSelector
    spec: DetectorSpec
    label: Label | None
    model: ModelRecord
    signer: Signer
    marked_as: str | None = None
    shots: Sequence[Shot] = ()

    @property
    def target(self) -> Path:
        """The main output."""
        return self.outputs["video"]

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
        watermark = self.watermark(frame.source) if swaps else None
        marked = [name for name in ("video", "layers") if not self.is_intermediate(name)]
        config = self.swapper.config_at(frame.index)
        return render(frame, swaps, config, self.label, watermark, marked)

    def watermark(self, source: Path) -> Watermark:
        """Return the watermark of what is made from a photo or from the footage.

        All frames carry the same, so that they can be added up to find it. In an image sequence it
        names the first image.

        Args:
            source: The photo; it is ignored if there is footage.
        """
        made_from = self.footage.first_file if self.footage else source
        digest = _digest_of(made_from, _state(made_from))
        payload = payload_of(self.marked_as or self.model.sha256, digest)
        return Watermark(payload)

    def is_intermediate(self, stream: str) -> bool:
        """Return whether a stream is material for further work, in which nothing is marked."""
        return self.config.intermediate and (stream != "video" or self.form in outputs.IMAGES)

    def publisher(self, stream: str, source: Path, is_marked: bool) -> Publish:
        """Return a :data:`Publish` that signs outputs and moves them into place.

        Args:
            stream: The name of their stream.
            source: What they are made from.
            is_marked: Whether they have a watermark, if those of their stream do.
        """
        if self.is_intermediate(stream):
            return self.signer.publisher(source, Marking(is_intermediate=True))
        has_one = is_marked and stream != "matte"
        return self.signer.publisher(
            source, Marking(self.watermark(source).payload if has_one else None)
        )

    def presence(self) -> Callable[[], bool]:
        """Return a function that checks whether the preferred person appears in the video.

        The preferred person is the one that the model was trained to replace. The function searches
        the video on its first call only. It returns False if there is no preferred person.
        """

        @cache
        def is_present() -> bool:
            person = self.selector.footage
            footage = self.footage
            return bool(footage and person is not None and appears(person, footage, self.spec))

        return is_present


def plan(
    source: Path, output: Path | None, model: Path | None, config: ConvertConfig,
    form: str | None = None, load: Load | None = None, may_exist: bool = False,
    fixed: Collection[str] = (),
) -> Conversion:  # fmt: skip
    """Resolve everything that a conversion needs, without writing any output.

    Args:
        source: A photo, a video, a folder of images, or the pattern of an image sequence.
        output: The output, see :func:`outputs.target_of`.
        model: A model's folder or file [default: the newest in ``models``]. With a cast file, it is
            the model of the entries that name none.
        config: Settings.
        form: The form of the output if its name does not tell, which is so for a preview and for a
            package.
        load: Loads a model [default: :func:`resources.load_model`].
        may_exist: Whether not to refuse outputs that exist; then the caller must do so.
        fixed: Names of settings that no shot changes.

    Raises:
        DeviceError: If this machine does not have the device.
        InputError: If the source, the cast file, the shots file, a reference photo, the landmark
            model, the detector's files, the label's font or icon, the certificate or its key are
            missing or unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        OutputError: If an output is the input, its type does not fit the source, or the user's own
            signing identity cannot be created.
        SettingsError: If a setting does not apply to this kind of output, the cast file or the
            shots file is not valid, the settings need a mask that a model does not decode, the
            detector does not support the user's landmark model, the label cannot be drawn, a
            plug-in cannot be imported, or the certificate cannot sign.
    """
    kind, footage = outputs.identified(source, config)
    if isinstance(footage, ImageSequence):
        check_colorspace(footage.first_file, config.colorspace)
        warn_of_log(footage.first_file, config.colorspace)
    if form == "package":
        target = outputs.render_in_package(source, output, kind)
    else:
        target = outputs.target_of(source, output, kind)
    form = form or outputs.form_of(kind, target)
    paths = outputs.all_outputs(target, form, config)
    outputs.refuse_inapplicable(config, form, kind, source)
    outputs.refuse_input(source, footage, paths)
    if form != "package":
        outputs.note_container(source, output, kind, target)
    if form != "preview":
        outputs.refuse_unfit(kind, source, target)
        outputs.refuse_unmarked(config, form)
    if not (may_exist or form == "preview"):
        outputs.refuse_to_replace(config, paths)
    label = label_of(config)
    shots = read_shots(Path(config.shots), fixed) if config.shots else []
    number_of = footage.number_of if footage else int
    swapper, selector, files = assemble(config, model, load, shots, number_of)
    signer, record = signer_for(files, config, shots)
    spec = DetectorSpec(config.detector, config.landmarks).checked()
    return Conversion(
        source, kind, footage, form, paths, config, model, swapper, selector, spec, label, record,
        signer, shots=shots,
    )  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the result depends."""
    return {name: version(name) for name in ("faceswap", "torch", "av")}


def key_of(job: Conversion, photos: Sequence[Path] = ()) -> dict[str, Any]:
    """Collect everything that affects the result, so that only identical conversions share it.

    Args:
        job: The conversion.
        photos: The photos of a folder, or the only photo.

    Raises:
        InputError: If a reference photo, the cast file or the shots file cannot be read.
    """
    config = job.config
    settings = config.to_dict()
    if job.form == "package":
        settings["form"] = job.form
    for name in (
        "workers",
        "cluster",
        "sign_cert",
        "sign_key",
        "timestamp_url",
        "overwrite",
        "html",
    ):
        del settings[name]
    looks = [*config.who, *config.exclude, *filter(None, (config.cast, config.shots))]
    source: list[Any] = [str(job.source.absolute()), [[str(p), *_state(p)] for p in photos]]
    return {
        "versions": versions(),
        "source": job.footage.identity() if job.footage else source,
        "detector": job.spec.describe(),
        "landmarks": landmarks.digest(config.landmarks),
        "model": job.model.sha256, "settings": settings,
        "looks": [sha256_of(Path(photo)) for photo in looks],
        "label": [sha256_of(file) for file in job.label.files] if job.label else [],
    }  # fmt: skip


@lru_cache(64)
def _digest_of(source: Path, state: tuple[int, int]) -> str:  # noqa: ARG001 - a part of the key
    """Return the SHA-256 of a source, which is read once.

    Args:
        source: The source.
        state: See :func:`_state`.

    Raises:
        InputError: If it cannot be read.
    """
    return sha256_of(source)


def _state(photo: Path) -> tuple[int, int]:
    """Return what changes if a photo is replaced; zeros if it cannot be read."""
    try:
        status = photo.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def assemble(
    config: ConvertConfig, model: Path | None, load: Load | None = None,
    shots: Sequence[Shot] = (), number_of: Callable[[int], int] = int,
) -> tuple[FaceSwapper, FaceSelector, list[Path]]:  # fmt: skip
    """Load the models and build the swapper and the face selector.

    Args:
        config: Settings.
        model: A model's folder or file; None for the newest in ``models``. With a cast file, it is
            the model of the entries that name none.
        load: Loads a model [default: :func:`resources.load_model`].
        shots: The settings that differ between shots.
        number_of: Returns the number by which shots name a frame, from its index.

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
    load = load or load_model

    def by_shot(swapper: FaceSwapper) -> FaceSwapper:
        return ShotSwapper(swapper, shots, number_of) if shots else swapper

    device = resolve_device(config.device)
    exclude = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.exclude)
    if config.cast:
        path = Path(config.cast)
        entries = read_cast(path)
        needs_default = not all(entry.model for entry in entries)
        default = (model or modelfile.newest(Path("models"))) if needs_default else None
        given = [default] if default else []
        files = dict.fromkeys([*given, *(entry.model for entry in entries if entry.model)])
        swappers = swappers_of(path, entries, config, default, device, load)
        references = references_of(path, entries, config.landmarks)
        selector = FaceSelector(references, exclude, config.largest)
        return by_shot(MultiSwapper(swappers)), selector, list(files)
    file = model or modelfile.newest(Path("models"))
    trained = load(file, device)
    who = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.who)
    is_named = who or exclude or config.largest or config.all_faces
    footage = None if is_named else trained.centroids.get("a" if config.to == "b" else "b")
    selector = FaceSelector((who,), exclude, config.largest, footage)
    return by_shot(Swapper(trained, config, device)), selector, [file]


def signer_for(
    files: list[Path], config: ConvertConfig, shots: Sequence[Shot] = ()
) -> tuple[Signer, ModelRecord]:
    """Return the signer for outputs of these models, and the models' record in the credentials.

    Args:
        files: Model folders or files.
        config: Settings.
        shots: The settings that differ between shots.

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
    weights = {name for _, names in found for name in names}
    for settings in ({}, *(shot.settings for shot in shots)):
        weights.update(behind(replace(config, **settings)))
    digests = ", ".join(sha256_of(path) for path in paths)
    record = ModelRecord(", ".join(names), digests, notes, tuple(sorted(weights)))
    identity = signing_identity(config.sign_cert, config.sign_key)
    return Signer(record, identity, config.timestamp_url), record
