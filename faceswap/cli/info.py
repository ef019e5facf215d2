"""Describe a file or folder: a model, a faceset, a video or a photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from faceswap.config import ConvertConfig, EvaluateConfig, ExtractConfig, TrainConfig
from faceswap.errors import InputError, NoCredentialsError
from faceswap.facesets import faceset
from faceswap.facesets.sourcelist import read_sources
from faceswap.facesets.weights import Weights, behind, described, every
from faceswap.media import photos, segments, sources
from faceswap.media.film import FilmImage
from faceswap.media.footage import describe
from faceswap.media.reader import StreamDescription
from faceswap.media.segments import Unfinished
from faceswap.media.views import AS_STORED
from faceswap.models import modelfile
from faceswap.models.modelfile import TrainedModel
from faceswap.provenance import consent, credentials
from faceswap.types import BOTH_IDENTITIES, Count, Identity


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A trained model."""

    kind: Literal["model"]
    path: Annotated[Path, Meta(description="The model file.")]
    bytes: Count
    names: Annotated[tuple[str, str], Meta(description="The names of a and b.")]
    architecture: str
    size: Annotated[Count, Meta(description="Side of the network crop in pixels.")]
    mask: Annotated[bool, Meta(description="Whether the model decodes a mask.")]
    parameters: Count
    steps: Annotated[
        Count, Meta(description="Training steps; for an imported classic model, its epochs.")
    ]
    held_out: Annotated[
        dict[Identity, Count],
        BOTH_IDENTITIES,
        Meta(description="Number of faces that training held out, by identity."),
    ]
    centroids: Annotated[
        bool, Meta(description="Whether the model stores each person's mean embedding.")
    ]
    photos: Annotated[
        dict[Identity, Count],
        BOTH_IDENTITIES,
        Meta(description="Number of photos that the model keeps, by identity."),
    ]
    consent: Annotated[
        dict[Identity, str], BOTH_IDENTITIES, Meta(description="Consent notes, by identity.")
    ]


@dataclass(frozen=True, slots=True)
class FacesetFacts:
    """The extracted faces of one person."""

    kind: Literal["faceset"]
    path: Path
    bytes: Annotated[Count, Meta(description="Bytes of the index and the crops.")]
    faces: Annotated[Count, Meta(description="Crops in the folder.")]
    deleted: Annotated[Count, Meta(description="Crops in the index whose files are missing.")]
    rejected: Annotated[
        Count, Meta(description="Crops that edits.jsonl rejects. They are not trained on.")
    ]
    sources: Annotated[Count, Meta(description="Photos and videos that the faces come from.")]
    gone: Annotated[Count, Meta(description="Those of them that do not exist any more.")]
    size: Annotated[Count, Meta(description="Side of a crop in pixels.")]
    settings: Annotated[dict[str, Any], Meta(description="Settings of the extraction.")]


@dataclass(frozen=True, slots=True)
class Provenance:
    """A summary of a file's Content Credentials; ``faceswap verify`` shows them in full."""

    intact: Annotated[
        bool,
        Meta(
            description="Whether the file is unchanged since signing and the signer's certificate "
            "has not expired."
        ),
    ]
    made_by: Annotated[str, Meta(description="The program that made the file.")]
    made_from: Annotated[
        str | None, Meta(description="The name of the original; null if it is not recorded.")
    ]
    model: Annotated[
        str | None, Meta(description="The name of the model; null if it is not recorded.")
    ]


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video, with the width and height of its upright frames in pixels."""

    kind: Literal["video"]
    path: Path
    bytes: Count
    container: str
    seconds: Annotated[float | None, Meta(description="Duration; null if unknown.")]
    pixel_format: str | None
    width: Count
    height: Count
    frames: Annotated[int | None, Meta(description="Number of frames; null if unknown.")]
    colorspace: Annotated[
        str | None, Meta(description="Colour space of an HDR video; null for SDR.")
    ]
    streams: list[StreamDescription]
    provenance: Annotated[
        Provenance | None, Meta(description="null if no Content Credentials can be read.")
    ]


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A photo, with its width and height in pixels after rotation by its EXIF orientation."""

    kind: Literal["photo"]
    path: Path
    bytes: Count
    width: Count
    height: Count
    colorspace: Annotated[
        str | None,
        Meta(description="Colour space of an EXR, a DPX or a float TIFF; null for sRGB."),
    ]
    provenance: Annotated[
        Provenance | None, Meta(description="null if no Content Credentials can be read.")
    ]


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """Conversions that were stopped and can go on, in a folder or for one output."""

    kind: Literal["unfinished", "discarded"]
    path: Path
    conversions: list[Unfinished]


Facts = ModelFacts | FacesetFacts | VideoFacts | PhotoFacts | OutputFacts


@dataclass(frozen=True, slots=True)
class Terms:
    """The pretrained weights behind a file, a folder or the commands, and their terms."""

    path: Annotated[Path | None, Meta(description="The file or folder; null for the commands.")]
    recorded: Annotated[
        bool,
        Meta(
            description="Whether the file or folder says which weights were used. Those made "
            "before faceswap recorded them do not."
        ),
    ]
    weights: list[Weights]
    commands: Annotated[
        dict[str, list[str]],
        Meta(
            description="Names of the weights that each command uses with its usual settings, and "
            "with clean; empty for a file or folder."
        ),
    ]


def licences(path: Path | None) -> Terms:
    """List the pretrained weights behind a file or folder, or behind each command.

    Raises:
        InputError: If the path does not exist, is no result of faceswap, or cannot be read.
        ModelError: If the model file is missing, damaged, foreign, or has a newer format.
    """
    if path is None:
        settings = {
            "extract": ExtractConfig, "train": TrainConfig, "convert": ConvertConfig,
            "evaluate": EvaluateConfig,
        }  # fmt: skip
        commands = {name: behind(kind()) for name, kind in settings.items()}
        commands |= {f"{name} --clean": behind(kind(clean=True)) for name, kind in settings.items()}
        return Terms(None, True, list(every().values()), commands)
    names = _weights_of(path)
    return Terms(path, bool(names), described(names), {})


def _weights_of(path: Path) -> list[str] | tuple[str, ...]:
    if _is_model(path):
        return modelfile.notes_of(modelfile.file_of(path))[1]
    index = faceset.index_in(path)
    if index.is_file():
        return faceset.weights_in(faceset.read_header(index))
    _footage_kind(path)
    try:
        found = credentials.read(path).model
    except NoCredentialsError:
        return ()
    return found.weights if found else ()


def inspect(path: str | Path) -> Facts:
    """Describe a model, a faceset, a video or a photo.

    Raises:
        InputError: If the path does not exist, is none of these, or cannot be read.
        ModelError: If the model file is missing, damaged, foreign, or has a newer format.
    """
    path = Path(path)
    if _is_model(path):
        return _model(path)
    index = faceset.index_in(path)
    if index.is_file():
        return _faceset(index.parent)
    stopped = _unfinished(path)
    if stopped and (path.is_dir() or not path.exists()):
        return OutputFacts("unfinished", path, stopped)
    return _video(path) if _footage_kind(path) == "video" else _photo(path)


def discard(path: Path) -> OutputFacts:
    """Delete the unfinished conversions in a folder, or those to one output.

    Raises:
        InputError: If there are none.
        BusyError: If one of them is under way.
        OutputError: If their segments cannot be deleted.
    """
    found = _unfinished(path)
    if not found:
        raise InputError(f"there is no unfinished conversion in or to {path}")
    segments.discard(found)
    return OutputFacts("discarded", path, found)


def _unfinished(path: Path) -> list[Unfinished]:
    """Return the unfinished conversions in a folder, and those to the output ``path``."""
    folder = path.parent
    to_output = [
        kept for kept in (segments.unfinished(folder) if folder.is_dir() else [])
        if kept.output == path
    ]  # fmt: skip
    return to_output + (segments.unfinished(path) if path.is_dir() else [])


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / modelfile.MODEL_FILE).is_file()


def _footage_kind(path: Path) -> str:
    """Return whether a path is a photo or a video.

    Raises:
        InputError: If it does not exist, or is a folder.
    """
    kind = sources.kind_of(path)
    if kind == "folder":
        raise InputError(
            f"{path} is neither a model ({modelfile.MODEL_FILE}) nor a faceset ({faceset.INDEX}); "
            "give one of them, a video or a photo; no conversion in it is unfinished either"
        )
    return kind


def _model(path: Path) -> ModelFacts:
    trained = modelfile.load(path)
    file = modelfile.file_of(path)
    config = trained.network.config
    return ModelFacts(
        kind="model",
        path=file,
        bytes=file.stat().st_size,
        names=trained.names,
        architecture=config.name,
        size=config.size,
        mask=config.mask_head,
        parameters=sum(p.numel() for p in trained.network.parameters()),
        steps=trained.step,
        held_out={key: len(faces) for key, faces in trained.held_out.items()},
        centroids=bool(trained.centroids),
        photos={key: _photos_in(trained, key) for key in trained.held_out},
        consent=consent.in_words(trained.consent),
    )


def _photos_in(trained: TrainedModel, key: Identity) -> int:
    return len(trained.exemplars[key].crops) if key in trained.exemplars else 0


def _faceset(folder: Path) -> FacesetFacts:
    index = folder / faceset.INDEX
    header, records = faceset.read_header(index), list(faceset.read_records(index))
    kept = [record for record in records if (folder / record["file"]).is_file()]
    edits = faceset.edits_of(index, kept)
    crops = [folder / record["file"] for record in kept]
    sizes = {faceset.source_key(record): None for record in kept}
    sources = read_sources(folder, header["settings"], sizes)
    return FacesetFacts(
        kind="faceset",
        path=folder,
        bytes=sum(file.stat().st_size for file in (index, *crops)),
        faces=len(crops),
        deleted=len(records) - len(crops),
        rejected=sum(faceset.face_key(record) in edits.rejected for record in kept),
        sources=len(sizes),
        gone=sum(sources[key].gone for key in sizes),
        size=header["size"],
        settings={key: value for key, value in header["settings"].items() if key != "source"},
    )


def _video(path: Path) -> VideoFacts:
    video = describe(path)
    return VideoFacts(
        kind="video",
        path=path,
        bytes=path.stat().st_size,
        container=video.container,
        seconds=video.seconds,
        pixel_format=video.pixel_format,
        width=video.width,
        height=video.height,
        frames=video.frames,
        colorspace=video.colorspace,
        streams=video.streams,
        provenance=_provenance(path),
    )


def _photo(path: Path) -> PhotoFacts:
    photo = photos.read_photo(path)
    height, width = photo.shape
    view = photo.pixels.view.name if isinstance(photo.pixels, FilmImage) else AS_STORED
    return PhotoFacts(
        kind="photo",
        path=path,
        bytes=path.stat().st_size,
        width=width,
        height=height,
        colorspace=None if view == AS_STORED else view,
        provenance=_provenance(path),
    )


def _provenance(path: Path) -> Provenance | None:
    """Summarise the credentials of a file; return None if it has none that can be read."""
    try:
        found = credentials.read(path)
    except (InputError, NoCredentialsError):  # the C2PA library reads fewer formats than we do
        return None
    return Provenance(
        intact=found.intact,
        made_by=found.generator,
        made_from=found.parent.title if found.parent else None,
        model=found.model.name if found.model else None,
    )
