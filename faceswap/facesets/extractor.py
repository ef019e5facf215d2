"""Extract the faces in photos and videos of one person into a faceset."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from faceswap import parallel
from faceswap.config import COVERAGE, ExtractConfig
from faceswap.errors import InputError, NoFacesError, OutputError, SettingsError
from faceswap.faces import landmarks
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import AlignedFace, Face, FrameFaces, align_face
from faceswap.faces.pool import DetectorPool
from faceswap.facesets.description import Depth, Description, describe
from faceswap.facesets.edits import forget
from faceswap.facesets.faceset import (
    INDEX,
    edits_of,
    embedding_of_record,
    face_key,
    facesets_in,
    read_records,
)
from faceswap.facesets.people import persons_of
from faceswap.facesets.recognition import embedding_of
from faceswap.facesets.sourcelist import (
    Recognised,
    Source,
    append_source,
    drop_torn_source,
    located,
    read_sources,
    recognise,
    write_sources,
)
from faceswap.facesets.weights import behind
from faceswap.facesets.writer import FacesetWriter, discard, png_of
from faceswap.files import exclusive_folder, sha256_of
from faceswap.media import sources
from faceswap.media.film import FilmImage, check_colorspace, warn_of_log
from faceswap.media.footage import video_at
from faceswap.media.frame import Frame
from faceswap.media.photos import DeepPhoto, read_photo
from faceswap.tracking import tracker
from faceswap.tracking.selection import FaceSelector, LargestTracks, select_faces
from faceswap.types import Count, OnProgress, Progress, counted, ignore_progress

log = logging.getLogger(__name__)

OWN_FILES = ("CONSENT.md",)  # files beside photos that mean something
LIBRARY = Path("data")  # train looks up identity names in this folder
LISTED_FILES = 20  # crops of a person that a report names
# Frames of a track after which a face is described whole again, and its expression is.
DESCRIBED_EVERY, EXPRESSION_EVERY = 32, 4
MAX_FRAME_GAP = 2  # faces are not tracked if only every N-th frame is read and N is larger


@dataclass(frozen=True, slots=True, eq=False)
class Cropped:
    """A frame and the crops of its faces.

    Attributes:
        frame: The frame.
        found: Number of faces found in it.
        crops: Those to store.
        pngs: The crops as PNG files.
    """

    frame: Frame
    found: int
    crops: list[AlignedFace]
    pngs: list[bytes]


@dataclass(frozen=True, slots=True)
class PersonFaces:
    """Faces of a faceset that show one person."""

    faces: Annotated[Count, Meta(description="Faces of this person.")]
    files: Annotated[
        list[str], Meta(description="Some of their crops; for the most frequent person, none.")
    ]


@dataclass(slots=True)
class ExtractReport:
    """The result of an extraction."""

    folder: Annotated[Path, Meta(description="Folder of the faceset.")]
    images: Annotated[Count, Meta(description="Photos and frames read in this run.")] = 0
    known: Annotated[
        Count,
        Meta(description="Photos and frames that this run skipped, as an earlier run read them."),
    ] = 0
    faces: Annotated[
        Count,
        Meta(
            description="Faces in the faceset after this run, without those whose crops were "
            "deleted."
        ),
    ] = 0
    deleted: Annotated[
        Count,
        Meta(description="Faces whose crops were deleted. They stay out and are not read again."),
    ] = 0
    rejected: Annotated[
        Count, Meta(description="Faces that were rejected (edits.jsonl). They are not trained on.")
    ] = 0
    renamed: Annotated[
        list[str],
        Meta(description='Known photos and videos with new names, as "old.jpg is now new.jpg".'),
    ] = field(default_factory=list)
    replaced: Annotated[
        list[str],
        Meta(
            description="Photos and videos that hold something else than before. Their old faces "
            "were removed, and they were read again."
        ),
    ] = field(default_factory=list)
    gone: Annotated[
        list[str], Meta(description="Photos and videos with faces that do not exist any more.")
    ] = field(default_factory=list)
    gone_faces: Annotated[Count, Meta(description="Number of faces of those.")] = 0
    pruned: Annotated[
        bool, Meta(description="Whether the faces of those were dropped (--prune).")
    ] = False
    without_face: Annotated[
        list[str],
        Meta(description='Photos (or "clip.mp4 frame 12") of this run in which no face was found.'),
    ] = field(default_factory=list)
    others: Annotated[
        list[str],
        Meta(description="Photos and frames of this run that show only other people (--who)."),
    ] = field(default_factory=list)
    unreadable: Annotated[
        list[str], Meta(description="Files of this run that could not be read, and why.")
    ] = field(default_factory=list)
    left_out: Annotated[
        list[str], Meta(description="Files of the folder that are neither photos nor videos.")
    ] = field(default_factory=list)
    detector: Annotated[
        str, Meta(description="Names of the detectors in the order in which they are tried.")
    ] = ""
    glasses: Annotated[
        float | None,
        Meta(
            description="Share of the described faces of the faceset that wear glasses; null if "
            "none is described."
        ),
    ] = None
    people: Annotated[
        list[PersonFaces],
        Meta(description="Whom the faces of the faceset show, the most frequent person first."),
    ] = field(default_factory=list)


def default_output(source: Path) -> Path:
    """Return the default faceset: ``faces`` in a folder, or ``data/<name>/faces`` for a file."""
    return source / "faces" if source.is_dir() else LIBRARY / source.stem / "faces"


def extract(
    source: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    config: ExtractConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExtractReport:
    """Detect, align and store the faces of photos, videos and folders of both.

    They are added to the faceset if it exists. Photos and frames that an earlier run read are not
    searched again, even if their files were renamed since then. If the process is killed, the faces
    of every image reported so far are kept.

    Args:
        source: A photo, a video, or a folder, which is searched recursively; or several of them.
        output: The faceset's folder [default: see :func:`default_output`]. Several sources need it.
        config: Settings.
        on_progress: Called after each image that this run searches.

    Raises:
        InputError: If there is no readable photo or video, the existing faceset is damaged, or the
            detector's files or the landmark model cannot be used.
        NoFacesError: If the faceset has no face at the end.
        SettingsError: If the existing faceset was made with other settings, the detector cannot be
            loaded or combined with the landmark model, several sources have no ``output``, or the
            default output of a photo or video holds the faces of another one.
        OutputError: If the faceset cannot be written or its folder is the source itself.
        BusyError: If another process is writing the faceset.
        DeviceError: If a worker process is killed, usually because memory ran out.
    """
    roots = [Path(source)] if isinstance(source, str | Path) else [Path(each) for each in source]
    if len(roots) != 1 and not output:
        raise SettingsError(
            f"{len(roots)} sources have no default faceset: pass --output data/<name>"
        )
    config = config or ExtractConfig()
    folder = Path(output) if output else default_output(roots[0])
    inputs = _inputs(roots, folder)
    adds = bool(output) or roots[0].is_dir()
    with exclusive_folder(folder, f"an extraction into {folder} is under way"):
        return _extract_into(folder, inputs, config, on_progress, adds)


def _extract_into(
    folder: Path, inputs: "Inputs", config: ExtractConfig, on_progress: OnProgress, adds: bool
) -> ExtractReport:
    """Extract into a folder that this process has locked."""
    spec = DetectorSpec(config.detector, config.landmarks)
    detectors = spec.describe()
    if config.restart:
        discard(folder)
    settings = {key: getattr(config, key) for key in ("size", "every", "max_faces", "min_score")}
    settings["landmarks"] = landmarks.digest(config.landmarks)
    settings["who"] = [sha256_of(Path(photo)) for photo in config.who] or None
    who = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.who)
    selector = FaceSelector((who,))
    used = behind(config)
    writer = FacesetWriter(folder, config.size, COVERAGE, settings, detectors, used)
    report = ExtractReport(folder, detector=detectors, left_out=inputs.left_out)
    files = _recognise(inputs, writer, report, config, adds)
    videos = inputs.videos
    total = len(inputs.photos) + sum(-(-_frames(video) // config.every) for video in videos)
    workers = 1 if not videos and len(inputs.photos) <= 2 else config.workers
    with DetectorPool(config.min_score, workers, config.landmarks, config.cluster) as pool:
        frames = parallel.prefetch(
            _read_photos(inputs.photos, files, writer, report, config.colorspace), 4
        )
        runs = [pool.detect(frames, spec)]
        for video in videos:
            frames = parallel.prefetch(_read_video(video, config, files, writer, report), 4)
            runs.append(_detect_in_video(frames, pool, config, spec))
        for found in runs:
            cropped = parallel.prefetch(_crop_faces(found, config, selector), 8)
            described = pool.map(cropped, describe_all, _to_describe())
            for one, descriptions in described:
                _store(one, descriptions, files.keys[one.frame.source], writer, report)
                done, note = report.images + report.known, counted(writer.faces, "face")
                on_progress(Progress(done, total or None, "images", note))
    report.faces, report.deleted = writer.faces, writer.deleted
    _check(report, inputs.named)
    present = [r for r in read_records(folder / INDEX) if (folder / r["file"]).is_file()]
    rejected = edits_of(folder / INDEX, present).rejected
    records = [record for record in present if face_key(record) not in rejected]
    report.rejected = len(present) - len(records)
    report.people = people_in(records, folder / INDEX)
    looked_at = [record["glasses"] for record in records if record.get("glasses") is not None]
    report.glasses = sum(looked_at) / len(looked_at) if looked_at else None
    return report


def _recognise(
    inputs: "Inputs", writer: FacesetWriter, report: ExtractReport, config: ExtractConfig,
    adds: bool,
) -> Recognised:  # fmt: skip
    """Find out which files earlier runs have read under any name, and bring the faceset up to date.

    The faces of a replaced file are removed, since the file no longer shows them. Those of a file
    that is gone stay unless ``config.prune`` is set: users also move videos away once they are
    extracted, and a disk may only be unplugged.

    Raises:
        SettingsError: If a new file would be added although nobody asked for it.
    """
    folder = writer.folder
    drop_torn_source(folder)
    sources = read_sources(folder, writer.settings, writer.sizes)
    found = recognise(inputs.names, sources)
    new = [path for path, key in found.keys.items() if key not in found.known]
    if new and sources and not adds:
        raise SettingsError(
            f"{folder} holds the faces of {_shown(next(iter(sources.values())))}: pass "
            f"--output {folder} to add those of {new[0]}, or another --output"
        )
    with_crops = [source for source in found.gone if writer.crops[source.key]]
    report.gone = [source.name for source in with_crops]
    report.gone_faces = sum(writer.crops[source.key] for source in with_crops)
    report.renamed = [f"{before} is now {after}" for before, after in found.renamed]
    report.replaced = [source.name for source in found.replaced if writer.crops[source.key]]
    report.pruned = config.prune
    dropped = {source.key for source in (*found.replaced, *(found.gone if config.prune else ()))}
    writer.forget(dropped)
    forget(folder, {source.key for source in found.replaced})
    kept = {key: source for key, source in found.known.items() if key not in dropped}
    if kept != sources:
        write_sources(folder, kept.values())
    writer.rename({key: source.name for key, source in kept.items()})
    return found


def _shown(source: Source) -> str:
    return str(source.path or source.name)


def people_in(records: list[dict[str, Any]], index: Path) -> list[PersonFaces]:
    """Group the faces of a faceset by person.

    Faces of a video without an embedding count as those of their track.

    Args:
        records: The faces.
        index: The list that they come from.

    Raises:
        InputError: If an embedding is damaged.
    """
    if not records:
        return []
    embeddings = np.stack([embedding_of_record(record, index) for record in records])
    tracks = [(record["source"], record.get("track", -1)) for record in records]
    persons, groups = persons_of(embeddings, tracks)
    if not groups:
        return []
    files: list[list[str]] = [[] for _ in groups]
    for record, person in zip(records, persons, strict=True):
        files[person or 0].append(record["file"])
    found = sorted(files, key=lambda names: -len(names))
    return [PersonFaces(len(n), n[:LISTED_FILES] if at else []) for at, n in enumerate(found) if n]


def _detect_in_video(
    frames: Iterator[Frame], pool: DetectorPool, config: ExtractConfig, spec: DetectorSpec
) -> Iterator[tuple[Frame, list[Face]]]:
    """Yield a video's frames with their faces, tracked if the frames are close together."""
    if config.every > MAX_FRAME_GAP:
        return pool.detect(frames, spec.checked())
    return tracker.track_faces(frames, pool, spec, smooth=config.every == 1)


def describe_all(crops: list[AlignedFace], depths: list[Depth]) -> list[Description]:
    """Describe the faces of a frame; see :func:`describe`."""
    return [describe(aligned, depth) for aligned, depth in zip(crops, depths, strict=True)]


def _to_describe() -> Callable[[Cropped], tuple[list[AlignedFace], list[Depth]]]:
    """Return a function that picks what :func:`describe_all` needs.

    Faces of photos are described whole, those of a track only in some frames.
    """
    last: dict[int, int] = {}  # frame in which a track was last described whole

    def pick(cropped: Cropped) -> tuple[list[AlignedFace], list[Depth]]:
        index = cropped.frame.index
        depths: list[Depth] = []
        for aligned in cropped.crops:
            track = aligned.face.track
            depth: Depth = "whole"
            if track in last and index - last[track] < DESCRIBED_EVERY:
                since = index - last[track]
                depth = "place" if since % EXPRESSION_EVERY else "expression"
            elif track >= 0:
                last[track] = index
            depths.append(depth)
        return cropped.crops, depths

    return pick


def _crop_faces(
    found: Iterator[FrameFaces], config: ExtractConfig, selector: FaceSelector
) -> Iterator[Cropped]:
    """Yield frames with the crops of their faces, and the crops as PNG files."""
    largest = LargestTracks(config.max_faces) if config.max_faces else None
    for frame, faces, others in select_faces(found, selector):
        kept = largest.keep(frame.index, faces) if largest else faces
        crops = [align_face(frame, face, config.size, COVERAGE) for face in kept]
        yield Cropped(frame, len(faces) + len(others), crops, [png_of(crop) for crop in crops])


def _store(
    one: Cropped, descriptions: list[Description], name: str, writer: FacesetWriter,
    report: ExtractReport,
) -> None:  # fmt: skip
    """Add an image's faces to the faceset, or record that it has none."""
    report.images += 1
    frame = one.frame
    if one.crops:
        writer.add(name, frame, one.crops, one.pngs, descriptions)
        return
    is_clip = not isinstance(frame.pixels, np.ndarray | DeepPhoto | FilmImage)
    why, names = ("no face", report.without_face)
    if one.found:
        why, names = "other people", report.others
    writer.skip(name, frame.index, why, frame.source)
    names.append(f"{name} frame {frame.index}" if is_clip else name)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to extract.

    Attributes:
        photos: The photos.
        videos: The videos.
        names: The names of both, relative to the folders that are extracted.
        left_out: Files of the folders that are neither.
        named: The sources as the user named them, for messages.
    """

    photos: list[Path]
    videos: list[Path]
    names: dict[Path, str]
    left_out: list[str]
    named: str


def _inputs(roots: list[Path], folder: Path) -> Inputs:
    """List the photos and the videos to read, each file once.

    Raises:
        InputError: If a source does not exist, or is a folder without photos and videos.
        OutputError: If the faceset's folder is a source.
    """
    inputs = Inputs([], [], {}, [], ", ".join(map(str, roots)))
    seen: set[Path] = set()
    for root in roots:
        photos, videos, others = _files_of(root, folder)
        base = root if root.is_dir() else root.parent
        for files, chosen in ((photos, inputs.photos), (videos, inputs.videos)):
            for path in files:
                if located(path) not in seen:
                    seen.add(located(path))
                    chosen.append(path)
                    inputs.names[path] = path.relative_to(base).as_posix()
        inputs.left_out.extend(path.relative_to(base).as_posix() for path in others)
    return inputs


def _files_of(source: Path, folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the photos and the videos of a source, and the files that are neither."""
    kind = sources.kind_of(source)
    if folder.exists() and folder.samefile(source):
        raise OutputError(f"the output {folder} is the input itself; pass another --output")
    if kind == "photo":
        return [source], [], []
    if kind == "video":
        return [], [source], []
    # Crops of existing facesets are not source photos.
    found = sources.search(source, skip=[folder, *facesets_in(source)])
    if not found.photos and not found.videos:
        raise InputError(f"{source} contains neither a photo nor a video")
    return found.photos, found.videos, [path for path in found.others if path.name not in OWN_FILES]


def _frames(video: Path) -> int:
    """Return the frame count in a video's header; 0 if it cannot be read.

    The error is not lost, because reading the video reports it later.
    """
    try:
        return video_at(video).probe().frames
    except InputError:
        return 0


def _read_photos(
    photos: list[Path], files: Recognised, writer: FacesetWriter, report: ExtractReport,
    colorspace: str | None,
) -> Iterator[Frame]:  # fmt: skip
    for path in photos[:1]:
        warn_of_log(path, colorspace)
    for path in photos:
        key = files.keys[path]
        if (key, 0) in writer.done:
            report.known += 1
            continue
        try:
            _note_source(path, files, writer)
            check_colorspace(path, colorspace)
            yield read_photo(path, colorspace)
        except InputError as error:
            _record_unreadable(key, error, writer, report)


def _read_video(
    video: Path, config: ExtractConfig, files: Recognised, writer: FacesetWriter,
    report: ExtractReport,
) -> Iterator[Frame]:  # fmt: skip
    key = files.keys[video]
    try:
        _note_source(video, files, writer)
        space = config.colorspace
        if space and sources.animation_of(video):
            log.warning("%s is an animation, so --colorspace does not apply to it", video)
            space = None
        for frame in video_at(video, space).read():
            if frame.index % config.every:
                continue
            if (key, frame.index) in writer.done:
                report.known += 1
            else:
                yield frame
    except InputError as error:
        _record_unreadable(key, error, writer, report)


def _note_source(path: Path, files: Recognised, writer: FacesetWriter) -> None:
    """List a new file before its first face, so that every listed face has its source."""
    key = files.keys[path]
    if key not in files.known:
        append_source(writer.folder, path, key)


def _record_unreadable(
    key: str, error: InputError, writer: FacesetWriter, report: ExtractReport
) -> None:
    report.unreadable.append(str(error))
    # Every run retries unreadable files in case they were repaired, so an earlier run may already
    # have recorded this one.
    if (key, -1) not in writer.done:
        writer.skip(key, -1, str(error))


def _check(report: ExtractReport, named: str) -> None:
    """Raise an error if the faceset has no face."""
    if report.faces:
        return
    if report.deleted:
        raise NoFacesError(
            f"all {counted(report.deleted, 'crop')} of {report.folder} were deleted, and deleted "
            "crops stay deleted; pass --restart to extract them again"
        )
    if report.others:
        raise NoFacesError(
            f"{counted(len(report.others), 'image')} of {named} show faces, but none of them is "
            "the person in the photo of --who; pass another photo of that person"
        )
    if report.unreadable and not report.images + report.known:
        raise InputError(f"no file in {named} can be read: {report.unreadable[0]}")
    raise NoFacesError(
        f"no face found in {counted(report.images + report.known, 'image')} of {named}; use "
        "sharper or larger faces"
    )
