"""Extract the faces in photos and videos of one person into a faceset."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from faceswap import parallel
from faceswap.config import COVERAGE, ExtractConfig
from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.faces import tracking
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.dlib_backend import landmarks_digest
from faceswap.faces.faceset import INDEX, FacesetWriter, discard, png_of
from faceswap.faces.geometry import AlignedFace, Face, FrameFaces, align_face
from faceswap.faces.pool import DetectorPool
from faceswap.files import exclusive_folder
from faceswap.media import reader
from faceswap.media.frame import Frame
from faceswap.media.photos import PHOTO_SUFFIXES, read_photo
from faceswap.types import Count, OnProgress, Progress, counted, ignore_progress

log = logging.getLogger(__name__)

LIBRARY = Path("data")  # train looks up identity names in this folder
MAX_FRAME_GAP = 2  # faces are not tracked if only every N-th frame is read and N is larger


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
    unreadable: Annotated[
        list[str], Meta(description="Files of this run that could not be read, and why.")
    ] = field(default_factory=list)
    detector: Annotated[
        str, Meta(description="Names of the detectors in the order in which they are tried.")
    ] = ""


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
    photos, videos = _inputs(source, folder)
    with exclusive_folder(folder, f"an extraction into {folder} is under way"):
        return _extract_into(folder, source, photos, videos, config, on_progress)


def _extract_into(
    folder: Path, source: Path, photos: list[Path], videos: list[Path], config: ExtractConfig,
    on_progress: OnProgress,
) -> ExtractReport:  # fmt: skip
    """Extract into a folder that this process has locked."""
    root = source if source.is_dir() else source.parent
    spec = DetectorSpec(config.detector, config.landmarks)
    detectors = spec.describe(video=not photos)
    if config.restart:
        discard(folder)
    settings = {key: getattr(config, key) for key in ("size", "every", "max_faces", "min_score")}
    settings["landmarks"] = landmarks_digest(config.landmarks)
    settings["source"] = Path(os.path.relpath(source, folder)).as_posix()
    writer = FacesetWriter(folder, config.size, COVERAGE, settings, detectors)
    report = ExtractReport(folder, detector=detectors)
    _warn_about_changes([*photos, *videos], root, writer)
    total = len(photos) + sum(-(-_frames(video) // config.every) for video in videos)
    workers = 1 if not videos and len(photos) <= 2 else config.workers
    with DetectorPool(config.min_score, workers) as pool:
        frames = parallel.prefetch(_read_photos(photos, root, writer, report), 4)
        runs = [pool.detect(frames, spec)]
        for video in videos:
            frames = parallel.prefetch(_read_video(video, config.every, root, writer, report), 4)
            runs.append(_detect_in_video(frames, pool, config, spec))
        for found in runs:
            for frame, crops, pngs in parallel.prefetch(_crop_faces(found, config), 8):
                _store(crops, pngs, frame, _name(frame.source, root), writer, report)
                done, note = report.images + report.known, counted(writer.faces, "face")
                on_progress(Progress(done, total or None, "images", note))
    report.faces = writer.faces
    _check(report, source)
    return report


def _detect_in_video(
    frames: Iterator[Frame], pool: DetectorPool, config: ExtractConfig, spec: DetectorSpec
) -> Iterator[tuple[Frame, list[Face]]]:
    """Yield a video's frames with their faces, tracked if the frames are close together."""
    if config.every > MAX_FRAME_GAP:
        return pool.detect(frames, spec.for_video())
    return tracking.track_faces(frames, pool, spec, smooth=config.every == 1)


def _crop_faces(
    found: Iterator[FrameFaces], config: ExtractConfig
) -> Iterator[tuple[Frame, list[AlignedFace], list[bytes]]]:
    """Yield frames with the crops of their faces, and the crops as PNG files."""
    for frame, faces in found:
        kept = faces[: config.max_faces or None]
        crops = [align_face(frame, face, config.size, COVERAGE) for face in kept]
        yield frame, crops, [png_of(crop) for crop in crops]


def _store(
    crops: list[AlignedFace], pngs: list[bytes], frame: Frame, name: str,
    writer: FacesetWriter, report: ExtractReport,
) -> None:  # fmt: skip
    """Add an image's faces to the faceset, or record that it has none."""
    report.images += 1
    is_clip = frame.source.suffix.lower() not in PHOTO_SUFFIXES
    if crops:
        writer.add(name, frame, crops, pngs)
    else:
        writer.skip(name, frame.index, "no face", frame.source)
        report.without_face.append(f"{name} frame {frame.index}" if is_clip else name)


def _inputs(source: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    kind = reader.kind_of(source)
    if folder.exists() and folder.samefile(source):
        raise OutputError(f"the output {folder} is the input itself; pass another --output")
    if kind == "photo":
        return [source], []
    if kind == "video":
        return [], [source]
    # Crops of existing facesets are not source photos.
    facesets = [folder, *(index.parent for index in source.rglob(INDEX))]
    photos = reader.photos_in(source, skip=facesets)
    videos = reader.files_in(source, reader.VIDEO_SUFFIXES, skip=facesets)
    if not photos and not videos:
        raise InputError(f"{source} contains neither a photo nor a video")
    return photos, videos


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
        return reader.probe(video).frames
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
        for frame in reader.read_video(video, every):
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
    if report.unreadable and not report.images + report.known:
        raise InputError(f"no file in {source} can be read: {report.unreadable[0]}")
    raise NoFacesError(
        f"no face found in {counted(report.images + report.known, 'image')} of {source}; use "
        "sharper or larger faces, or try --detector cnn"
    )
