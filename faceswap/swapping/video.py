"""Convert a video frame by frame, and resume where an earlier run stopped."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from itertools import dropwhile
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from faceswap import parallel
from faceswap.config import frame_ranges
from faceswap.errors import InputError, NoFacesError
from faceswap.faces import landmarks
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.files import sha256_of
from faceswap.media import reader, writers
from faceswap.media.codecs import ANIMATIONS, TRANSPARENT, choose_encoding
from faceswap.media.frame import Frame
from faceswap.media.segments import Unfinished, folder_for, unfinished
from faceswap.media.writers import StreamTarget
from faceswap.swapping.plan import Conversion, beside
from faceswap.swapping.swapper import prepare_video
from faceswap.tracking import tracker
from faceswap.tracking.selection import Decisions, select_faces
from faceswap.tracking.tracklog import FaceLog
from faceswap.types import Count, OnProgress, Progress, counted

# Frames to re-decode before the resume point: 4 (colour smoothing) + 4 (landmark smoothing) + one
# batch of 8, with a frame beside it, rounded up; and three spans of 16, to compare a track's looks.
CONTEXT_FRAMES = 72


@dataclass(slots=True)
class ConvertReport:
    """The result of a conversion."""

    output: Annotated[Path, Meta(description="The file or folder written.")]
    model: Annotated[
        Path | None,
        Meta(
            description="The model's folder or file; null if the call names none, as with --cast "
            "and no --model."
        ),
    ] = None
    frames: Annotated[Count, Meta(description="Photos or frames written.")] = 0
    faces: Annotated[Count, Meta(description="Faces swapped.")] = 0
    without_face: Annotated[
        Count, Meta(description="Photos or frames in which no face was swapped.")
    ] = 0
    unreadable: Annotated[
        list[str], Meta(description="Photos that could not be read, and why.")
    ] = field(default_factory=list)
    detector: Annotated[
        str, Meta(description="Names of the detectors in the order in which they are tried.")
    ] = ""
    resumed: Annotated[Count, Meta(description="Frames taken over from an interrupted run.")] = 0
    unfinished: Annotated[
        list[Unfinished],
        Meta(
            description="Other unfinished conversions to the same output, from another source or "
            "with another model or other settings. Their segments are kept."
        ),
    ] = field(default_factory=list)


def convert_video(
    job: Conversion, pool: DetectorPool, report: ConvertReport, on_progress: OnProgress
) -> None:
    """Swap the faces of a video.

    Args:
        job: The conversion.
        pool: The processes that detect faces.
        report: The report, whose counts are filled in.
        on_progress: Called after each frame.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        BusyError: If another process is running the same conversion.
        DeviceError: If the device's memory is too small for one face, or a face detection process
            was killed.
        InputError: If the video is unreadable or has no frame in the excerpt, or the track log of
            an interrupted run is damaged.
        NoFacesError: If no face is swapped. No output is written.
        OutputError: If writing fails, or the list of finished segments is damaged.
        SettingsError: If the container cannot hold the codec, the label does not fit into the
            frames, or a plug-in cannot be imported.
    """
    targets = _targets(job)
    info = reader.probe(job.source)
    excerpt = bool(job.config.start or job.config.end)
    folder = folder_for(job.target, _key(job))
    end = None if job.end is None else info.start + job.end
    with writers.open_video(
        targets, job.source, job.publisher(job.source), folder, excerpt=excerpt, end=end
    ) as output:
        log = FaceLog(folder / "faces.jsonl")
        first = _align_logs(output, log)
        report.resumed = output.frames
        found = _detected(job, pool, log, info.start)
        total = _total(job, info)
        # Closed before the output, because its threads write to the track log.
        with closing(_render_all(job, found)) as rendered:
            remaining = dropwhile(lambda result: result[0]["video"].index < first, rendered)
            for frames, faces in parallel.prefetch(remaining, 4):
                output.write(frames, faces)
                on_progress(Progress(output.frames, total, "frames", counted(output.faces, "face")))
        if not output.frames:
            raise InputError(f"{job.source} has no frame between --start and --end")
        if not output.faces:
            raise NoFacesError(
                f"no face found or selected in {counted(output.frames, 'frame')} of {job.source}; "
                "nothing was written"
            )
    report.unfinished = unfinished(job.target)
    report.frames, report.faces = output.frames, output.faces
    report.without_face = output.without_face


def _align_logs(output: writers.VideoOutput, log: FaceLog) -> int:
    """Truncate segments and track log to the same frame; return the first frame to render.

    After a power cut, the log may lack lines that belong to finished segments.
    """
    known = log.end - log.origin if log.entries else 0
    while output.frames > known:
        output.forget(len(output.segments.notes) - 1)
    first = log.origin + output.frames
    log.since(max(first - CONTEXT_FRAMES, 0))
    return first


def _detected(
    job: Conversion, pool: DetectorPool, log: FaceLog, origin: Fraction
) -> Iterator[FrameFaces]:
    """Yield frames with the faces to swap, from the first frame that the log still holds.

    Frames before the resume point are yielded again for smoothing; the caller drops them.
    """
    first = log.entries[0].first if log.entries else 0
    frames = dropwhile(lambda frame: frame.index < first, reader.read_video(job.source))
    excerpt = _excerpt(frames, job, origin)
    tracked = tracker.track_faces(
        parallel.prefetch(excerpt, 4), pool, job.spec, job.config.smooth, log
    )
    decisions = Decisions(list(log.votes), dict(log.distances), list(log.kept))
    ranges = frame_ranges(job.config.frames or "0-")
    for frame, faces in select_faces(tracked, job.selector, decisions, job.presence()):
        log.decide(decisions.votes, decisions.distances, decisions.kept)
        inside = any(low <= frame.index <= high for low, high in ranges)
        yield frame, faces if inside else []


def _excerpt(frames: Iterator[Frame], job: Conversion, origin: Fraction) -> Iterator[Frame]:
    start, end = job.start, job.end
    for frame in frames:
        time = frame.time - origin
        if end is not None and time >= end:
            return
        if time >= start:
            yield frame


def _render_all(
    job: Conversion, detected: Iterator[FrameFaces]
) -> Generator[tuple[dict[str, Frame], int], None, None]:
    """Yield the rendered streams of each frame and its number of swapped faces."""
    # The next faces are prepared while these are pasted.
    for frame, swaps in parallel.prefetch(prepare_video(job.swapper, detected), 2):
        yield job.render(frame, swaps), len(swaps)


def _targets(job: Conversion) -> dict[str, StreamTarget]:
    config, suffix = job.config, job.target.suffix.lower()
    encoding = choose_encoding(suffix, config.codec, config.quality, config.hardware)
    sound, image_sequence = bool(suffix) and suffix not in ANIMATIONS, not suffix
    targets = {"video": StreamTarget(job.target, encoding, sound, config.quality, image_sequence)}
    if config.matte:
        path = beside(job.target, "matte")
        targets["matte"] = StreamTarget(path, encoding, False, config.quality, image_sequence)
    if config.layers:
        path = beside(job.target, "layers", ".mov" if suffix else "")
        targets["layers"] = StreamTarget(path, TRANSPARENT, image_sequence=image_sequence)
    for target in targets.values():
        if target.image_sequence:
            writers.check_folder(target.path)
    return targets


def _key(job: Conversion) -> dict[str, Any]:
    """Collect everything that affects the segments, so only identical conversions share them."""
    settings = job.config.to_dict()
    for name in ("workers", "sign_cert", "sign_key"):
        del settings[name]
    photos = [*job.config.who, *job.config.exclude, *([job.config.cast] if job.config.cast else [])]
    status = job.source.stat()
    return {
        "version": version("faceswap"), "torch": version("torch"), "av": version("av"),
        "source": [str(job.source.resolve()), status.st_size, status.st_mtime_ns],
        "detector": job.spec.describe(),
        "landmarks": landmarks.digest(job.config.landmarks),
        "model": job.model.sha256, "settings": settings,
        "looks": [sha256_of(Path(photo)) for photo in photos],
    }  # fmt: skip


def _total(job: Conversion, info: reader.VideoInfo) -> int | None:
    """Estimate the number of frames to write; None if the header has no frame count."""
    if not info.frames or not info.seconds:
        return info.frames or None
    end = info.seconds if job.end is None else min(job.end, info.seconds)
    return round(info.frames * max(end - job.start, Fraction(0)) / info.seconds)
