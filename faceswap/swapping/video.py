"""Convert a video frame by frame; go on where a run was stopped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from itertools import dropwhile
from pathlib import Path
from typing import Any

from faceswap import parallel
from faceswap.config import ConvertConfig, frame_ranges, seconds_of
from faceswap.errors import InputError, NoFacesError
from faceswap.faces import tracking
from faceswap.faces.detection import resolve_detector
from faceswap.faces.dlib_backend import landmarks_digest
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.faces.recognition import appears
from faceswap.faces.selection import Decisions, FaceSelector, select_faces
from faceswap.faces.tracklog import FaceLog
from faceswap.files import sha256_of
from faceswap.media import reader, writers
from faceswap.media.codecs import ANIMATIONS, TRANSPARENT, choose_encoding
from faceswap.media.frame import Frame
from faceswap.media.segments import Unfinished, folder_for, unfinished
from faceswap.media.writers import StreamTarget
from faceswap.provenance.credentials import ModelRecord
from faceswap.provenance.signer import Signer
from faceswap.swapping.swapper import Swapper
from faceswap.types import OnProgress, Progress

# Frames before the first one to be made that must be seen again, for what is steadied over time
# looks back: colours at 4 frames, the landmarks they were measured with at 4 more, and a batch of 8
# in the network.
CONTEXT_FRAMES = 24


@dataclass(slots=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        output: The file or folder written.
        frames: Photos or frames written.
        faces: Faces swapped.
        without_face: Frames or photos passed through unchanged.
        unreadable: Photos that could not be read, and why.
        detector: The detectors used, in words.
        resumed: Frames that an interrupted run had made before.
        unfinished: Stopped conversions to the same output, with other settings, that were kept.
    """

    output: Path
    frames: int = 0
    faces: int = 0
    without_face: int = 0
    unreadable: list[str] = field(default_factory=list)
    detector: str = ""
    resumed: int = 0
    unfinished: list[Unfinished] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """What to convert, and with what.

    Attributes:
        source: The video.
        target: Where it goes.
        swapper: What swaps faces.
        choice: Whose.
        config: Settings.
        model: The model as the credentials name it.
        signer: Signs the outputs.
    """

    source: Path
    target: Path
    swapper: Swapper
    selector: FaceSelector
    config: ConvertConfig
    model: ModelRecord
    signer: Signer

    @property
    def start(self) -> Fraction:
        """Seconds into the video at which to begin."""
        return seconds_of(self.config.start or "0")

    @property
    def end(self) -> Fraction | None:
        """Seconds into the video at which to end; None: where it ends."""
        return seconds_of(self.config.end) if self.config.end else None


def convert_video(
    job: Job, pool: DetectorPool, report: ConvertReport, on_progress: OnProgress
) -> None:
    """Swap the faces of a video.

    Raises:
        InputError: If it is unreadable.
        NoFacesError: If no face is found in it; nothing is written then.
        OutputError: If the disk refuses, or another process writes the same.
        SettingsError: If the output's format does not take the codec.
    """
    targets = _targets(job)
    info = reader.probe(job.source)
    excerpt = bool(job.config.start or job.config.end)
    folder = folder_for(job.target, _key(job))
    end = None if job.end is None else info.start + job.end
    with writers.open_video(
        targets, job.source, job.signer.publisher(job.source), folder, excerpt=excerpt, end=end
    ) as output:
        log = FaceLog(folder / "faces.jsonl")
        first = _agree(output, log)
        report.resumed = output.frames
        found = _detected(job, pool, log, info.start)
        later = dropwhile(lambda result: result[0]["video"].index < first, _results(job, found))
        total = _total(job, info)
        for frames, faces in parallel.prefetch(later, 4):
            output.write(frames, faces)
            on_progress(Progress(output.frames, total, "frames", f"{output.faces} faces"))
        if not output.frames:
            raise InputError(f"{job.source} has no frame between --start and --end")
        if not output.faces:
            raise NoFacesError(
                f"no face found in the {output.frames} frames of {job.source}; nothing is written"
            )
    report.unfinished = unfinished(job.target)
    report.frames, report.faces = output.frames, output.faces
    report.without_face = output.without_face


def _agree(output: writers.VideoOutput, log: FaceLog) -> int:
    """Let the segments and the list of faces end together; give the index of the first frame to make.

    After a power cut, the list may lack lines that belong to finished parts.
    """
    known = log.end - log.origin if log.entries else 0
    while output.frames > known:
        output.forget(len(output.segments.notes) - 1)
    first = log.origin + output.frames
    log.since(max(first - CONTEXT_FRAMES, 0))
    return first


def _detected(job: Job, pool: DetectorPool, log: FaceLog, origin: Fraction) -> Iterator[FrameFaces]:
    """The frames to look at, with the faces to swap."""
    begin = log.entries[0].first if log.entries else 0
    frames = dropwhile(lambda frame: frame.index < begin, reader.read_video(job.source))
    within = _excerpt(frames, job, origin)
    tracked = tracking.track_faces(
        parallel.prefetch(within, 4), pool, job.config.detector, job.config.smooth, log
    )
    decisions = Decisions(dict(log.targets), dict(log.distances))
    ranges = frame_ranges(job.config.frames or "0-")
    for frame, faces in select_faces(
        tracked, job.selector, decisions, presence(job.source, job.selector)
    ):
        log.decide(decisions.targets, decisions.distances)
        inside = any(low <= frame.index <= high for low, high in ranges)
        yield frame, faces if inside else []


def presence(video: Path, selector: FaceSelector) -> Callable[[], bool]:
    """Tells whether the person to prefer is seen anywhere in a video, having looked once."""

    @cache
    def is_present() -> bool:
        return selector.footage is not None and appears(selector.footage, video)

    return is_present


def _excerpt(frames: Iterator[Frame], job: Job, origin: Fraction) -> Iterator[Frame]:
    start, end = job.start, job.end
    for frame in frames:
        time = frame.time - origin
        if end is not None and time >= end:
            return
        if time >= start:
            yield frame


def _results(job: Job, found: Iterator[FrameFaces]) -> Iterator[tuple[dict[str, Frame], int]]:
    """Each frame swapped, with its matte and its layer if wanted, and how many faces it holds."""
    swapper, config = job.swapper, job.config
    for frame, swaps in swapper.prepare_video(found):
        frames = {"video": swapper.paste(frame, swaps)}
        if config.matte:
            frames["matte"] = swapper.matte(frame, swaps)
        if config.layers:
            frames["layers"] = swapper.layer(frame, swaps)
        yield frames, len(swaps)


def _targets(job: Job) -> dict[str, StreamTarget]:
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


def beside(target: Path, what: str, suffix: str | None = None) -> Path:
    """The name of what goes with an output: ``video.matte.mp4`` beside ``video.mp4``."""
    return target.with_name(f"{target.stem}.{what}{target.suffix if suffix is None else suffix}")


def _key(job: Job) -> dict[str, Any]:
    """All that decides what comes out, so that segments of another conversion are not taken for it."""
    settings = job.config.to_dict()
    for name in ("workers", "sign_cert", "sign_key"):
        del settings[name]
    photos = [*job.config.who, *job.config.exclude, *([job.config.cast] if job.config.cast else [])]
    status = job.source.stat()
    return {
        "version": version("faceswap"), "torch": version("torch"), "av": version("av"),
        "source": [str(job.source.resolve()), status.st_size, status.st_mtime_ns],
        "detector": resolve_detector(job.config.detector, video=True),
        "landmarks": landmarks_digest(),
        "model": job.model.sha256, "settings": settings,
        "looks": [sha256_of(Path(photo)) for photo in photos],
    }  # fmt: skip


def _total(job: Job, info: reader.VideoInfo) -> int | None:
    """How many frames there will be, if that is known."""
    if not info.frames or not info.seconds:
        return info.frames or None
    end = info.seconds if job.end is None else min(job.end, info.seconds)
    return round(info.frames * max(end - job.start, Fraction(0)) / info.seconds)
