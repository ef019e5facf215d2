"""Extract the faces in photos and videos of one person into a faceset."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from faceswap import parallel
from faceswap.config import COVERAGE, ExtractConfig
from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.faces import landmarks
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import AlignedFace, Face, FrameFaces, align_face
from faceswap.faces.pool import DetectorPool
from faceswap.facesets.description import Depth, Description, describe
from faceswap.facesets.faceset import (
    INDEX,
    FacesetWriter,
    discard,
    embedding_of_record,
    facesets_in,
    png_of,
    read_records,
)
from faceswap.facesets.people import groups_of
from faceswap.facesets.recognition import embedding_of
from faceswap.facesets.weights import behind
from faceswap.files import exclusive_folder, sha256_of
from faceswap.media import sources
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
    faces: Annotated[Count, Meta(description="Faces in the faceset after this run.")] = 0
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
    source: str | Path,
    output: str | Path | None = None,
    config: ExtractConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExtractReport:
    """Detect, align and store the faces of a photo, a video or a folder of both.

    Photos and frames that an earlier run read are not searched again. If the process is killed, the
    faces of every image reported so far are kept.

    Args:
        source: A photo, a video, or a folder, which is searched recursively.
        output: The faceset's folder [default: see :func:`default_output`].
        config: Settings.
        on_progress: Called after each image that this run searches.

    Raises:
        InputError: If there is no readable photo or video, the existing faceset is damaged, or the
            detector's files or the landmark model cannot be used.
        NoFacesError: If the faceset has no face at the end.
        SettingsError: If the existing faceset was made with other settings, or the detector cannot
            be loaded or combined with the landmark model.
        OutputError: If the faceset cannot be written or its folder is the source itself.
        BusyError: If another process is writing the faceset.
        DeviceError: If a worker process is killed, usually because memory ran out.
    """
    source, config = Path(source), config or ExtractConfig()
    folder = Path(output) if output else default_output(source)
    photos, videos, others = _inputs(source, folder)
    with exclusive_folder(folder, f"an extraction into {folder} is under way"):
        report = _extract_into(folder, source, photos, videos, config, on_progress)
    report.left_out = [path.relative_to(source).as_posix() for path in others]
    return report


def _extract_into(
    folder: Path, source: Path, photos: list[Path], videos: list[Path], config: ExtractConfig,
    on_progress: OnProgress,
) -> ExtractReport:  # fmt: skip
    """Extract into a folder that this process has locked."""
    root = source if source.is_dir() else source.parent
    spec = DetectorSpec(config.detector, config.landmarks)
    detectors = spec.describe()
    if config.restart:
        discard(folder)
    settings = {key: getattr(config, key) for key in ("size", "every", "max_faces", "min_score")}
    settings["landmarks"] = landmarks.digest(config.landmarks)
    settings["who"] = [sha256_of(Path(photo)) for photo in config.who] or None
    settings["source"] = Path(os.path.relpath(source, folder)).as_posix()
    who = tuple(embedding_of(Path(photo), config.landmarks) for photo in config.who)
    selector = FaceSelector((who,))
    used = behind(config)
    writer = FacesetWriter(folder, config.size, COVERAGE, settings, detectors, used)
    report = ExtractReport(folder, detector=detectors)
    _warn_about_changes([*photos, *videos], root, writer)
    total = len(photos) + sum(-(-_frames(video) // config.every) for video in videos)
    workers = 1 if not videos and len(photos) <= 2 else config.workers
    with DetectorPool(config.min_score, workers, config.landmarks) as pool:
        frames = parallel.prefetch(_read_photos(photos, root, writer, report), 4)
        runs = [pool.detect(frames, spec)]
        for video in videos:
            frames = parallel.prefetch(_read_video(video, config.every, root, writer, report), 4)
            runs.append(_detect_in_video(frames, pool, config, spec))
        for found in runs:
            cropped = parallel.prefetch(_crop_faces(found, config, selector), 8)
            described = pool.map(cropped, describe_all, _to_describe())
            for one, descriptions in described:
                _store(one, descriptions, _name(one.frame.source, root), writer, report)
                done, note = report.images + report.known, counted(writer.faces, "face")
                on_progress(Progress(done, total or None, "images", note))
    report.faces = writer.faces
    _check(report, source)
    records = [r for r in read_records(folder / INDEX) if (folder / r["file"]).is_file()]
    report.people = people_in(records, folder / INDEX)
    looked_at = [record["glasses"] for record in records if record.get("glasses") is not None]
    report.glasses = sum(looked_at) / len(looked_at) if looked_at else None
    return report


def people_in(records: list[dict[str, Any]], index: Path) -> list[PersonFaces]:
    """Group the faces of a faceset by person.

    Faces of a video without an embedding count as those of their track.

    Args:
        records: The faces.
        index: The list that they come from.

    Raises:
        InputError: If an embedding is damaged.
    """
    embeddings = [embedding_of_record(record, index) for record in records]
    known = [number for number, found in enumerate(embeddings) if np.isfinite(found).all()]
    if not known:
        return []
    groups = groups_of(np.stack([embeddings[number] for number in known]))
    person_of = {known[member]: at for at, group in enumerate(groups) for member in group.members}
    tracks: dict[tuple[str, int], int] = {}
    for number, person in person_of.items():
        record = records[number]
        tracks.setdefault((record["source"], record.get("track", -1)), person)
    files: list[list[str]] = [[] for _ in groups]
    for number, record in enumerate(records):
        track = record["source"], record.get("track", -1)
        person = person_of.get(number, tracks.get(track, 0))
        files[person].append(record["file"])
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
    is_clip = not isinstance(frame.pixels, np.ndarray | DeepPhoto)
    why, names = ("no face", report.without_face)
    if one.found:
        why, names = "other people", report.others
    writer.skip(name, frame.index, why, frame.source)
    names.append(f"{name} frame {frame.index}" if is_clip else name)


def _inputs(source: Path, folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the photos and the videos to read, and the files that are neither."""
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


def _warn_about_changes(files: list[Path], root: Path, writer: FacesetWriter) -> None:
    """Warn about files that changed since their faces were extracted."""
    names = {_name(path, root): path for path in files}
    changed = [
        n for n, path in names.items() if n in writer.with_faces and writer.has_changed(n, path)
    ]
    if changed:
        log.warning("%s changed since the faces were extracted (first: %s); pass --restart to "
                    "extract all faces again", counted(len(changed), "file"),
                    changed[0])  # fmt: skip


def _frames(video: Path) -> int:
    """Return the frame count in a video's header; 0 if it cannot be read.

    The error is not lost, because reading the video reports it later.
    """
    try:
        return video_at(video).probe().frames
    except InputError:
        return 0


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _may_have_faces_now(name: str, path: Path, writer: FacesetWriter) -> bool:
    """Return whether a file in which no face was found has changed since then."""
    return name not in writer.with_faces and writer.has_changed(name, path)


def _read_photos(
    photos: list[Path], root: Path, writer: FacesetWriter, report: ExtractReport
) -> Iterator[Frame]:
    for path in photos:
        name = _name(path, root)
        if (name, 0) in writer.done and not _may_have_faces_now(name, path, writer):
            report.known += 1
            continue
        try:
            yield read_photo(path)
        except InputError as error:
            _record_unreadable(name, error, writer, report)


def _read_video(
    video: Path, every: int, root: Path, writer: FacesetWriter, report: ExtractReport
) -> Iterator[Frame]:
    name = _name(video, root)
    may_have_faces_now = _may_have_faces_now(name, video, writer)
    try:
        for frame in video_at(video).read():
            if frame.index % every:
                continue
            if (name, frame.index) in writer.done and not may_have_faces_now:
                report.known += 1
            else:
                yield frame
    except InputError as error:
        _record_unreadable(name, error, writer, report)


def _record_unreadable(
    name: str, error: InputError, writer: FacesetWriter, report: ExtractReport
) -> None:
    report.unreadable.append(str(error))
    # Every run retries unreadable files in case they were repaired, so an earlier run may already
    # have recorded this one.
    if (name, -1) not in writer.done:
        writer.skip(name, -1, str(error))


def _check(report: ExtractReport, source: Path) -> None:
    """Raise an error if the faceset has no face."""
    if report.faces:
        return
    if report.others:
        raise NoFacesError(
            f"{counted(len(report.others), 'image')} of {source} show faces, but none of them is "
            "the person in the photo of --who; pass another photo of that person"
        )
    if report.unreadable and not report.images + report.known:
        raise InputError(f"no file in {source} can be read: {report.unreadable[0]}")
    raise NoFacesError(
        f"no face found in {counted(report.images + report.known, 'image')} of {source}; use "
        "sharper or larger faces"
    )
