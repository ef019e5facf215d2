"""Convert a video or an image sequence frame by frame, and resume where an earlier run stopped."""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from faceswap import parallel
from faceswap.config import frame_ranges, is_inside
from faceswap.errors import InputError, NoFacesError
from faceswap.faces.geometry import Face, FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.files import Publish, Publisher, atomic_write
from faceswap.media import codecs, hdr, writers
from faceswap.media.codecs import ANIMATIONS, TRANSPARENT, choose_encoding
from faceswap.media.footage import Footage, ImageSequence
from faceswap.media.frame import Frame
from faceswap.media.reader import VideoInfo
from faceswap.media.segments import folder_for
from faceswap.media.writers import StreamTarget
from faceswap.swapping import elements, records
from faceswap.swapping.explicit import refuse_explicit_frames
from faceswap.swapping.outputs import ELEMENTS, IMAGES, refuse_existing, written_for
from faceswap.swapping.plan import Conversion
from faceswap.swapping.records import SAME_PLACE, Fate, FrameRecord
from faceswap.swapping.report import ConvertReport
from faceswap.swapping.swapper import prepare_video
from faceswap.swapping.troubles import BRIEF, Trouble, troubles_in
from faceswap.tracking import tracker
from faceswap.tracking.appearance import Visits
from faceswap.tracking.selection import Decisions, Selection, select_faces
from faceswap.tracking.tracklog import FaceLog
from faceswap.types import OnProgress, Progress, counted

log = logging.getLogger(__name__)

# Frames to re-decode before the resume point: 4 (colour smoothing) + 4 (landmark smoothing) + one
# batch of 8, with a frame beside it, rounded up; and three spans of 16, to compare a track's looks.
CONTEXT_FRAMES = 72


def convert_video(
    job: Conversion, footage: Footage, key: dict[str, Any], pool: DetectorPool,
    report: ConvertReport, on_progress: OnProgress, is_rendered: bool = False,
) -> None:  # fmt: skip
    """Swap the faces of a video or an image sequence.

    The report on every frame is written before the output appears.

    Args:
        job: The conversion.
        footage: Its frames.
        key: What determines its result; see :func:`plan.key_of`.
        pool: The processes that detect faces.
        report: The result, which is filled in.
        on_progress: Called after each frame.
        is_rendered: Whether all segments are finished, so that they are only joined.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        BusyError: If another process is running the same conversion.
        DeviceError: If the device's memory is too small for one face, or a face detection process
            was killed.
        InputError: If the footage is unreadable or has no frame in the excerpt, or the track log of
            an interrupted run is damaged.
        NoFacesError: If no face is swapped. No output is written.
        OutputError: If an output exists already and no interrupted run is resumed, writing fails,
            or the list of finished segments is damaged.
        SettingsError: If the container cannot hold the codec, the label does not fit into the
            frames, or a plug-in cannot be imported.
    """
    info = footage.probe()
    start, end = excerpt_of(job, footage)
    targets = targets_of(job, footage, start)
    excerpt = bool(job.config.start or job.config.end)
    folder = folder_for(job.target, key)
    with writers.open_video(targets, footage, folder, excerpt=excerpt, end=end) as output:
        if not (job.config.overwrite or output.segments.wrote_output):
            refuse_existing(job.outputs)
        log = FaceLog(folder / "faces.jsonl")
        first = _align_logs(output, log, start)
        report.resumed = output.frames
        faces = sum(record.swapped for record in records.from_json(output.records, folder))
        total = _total(job, info)
        found = () if is_rendered else detected(job, footage, pool, log, start, end)
        # Closed before the output, because its threads write to the track log.
        with closing(render_all(job, footage, found, first)) as rendered:
            faces = write_all(output, rendered, faces, total, on_progress)
        if not output.frames:
            raise InputError(f"{job.source} has no frame between --start and --end")
        written = records.from_json(output.records, folder)
        if not faces:
            raise NoFacesError(
                f"{records.why_none(written, 'frame')} of {job.source}; nothing was written"
            )
        report.finish(job, key, written, troubles_of(footage, written))


def excerpt_of(job: Conversion, footage: Footage) -> tuple[int, Fraction | None]:
    """Return the index of the first frame to convert, and when the last one ends.

    The end is on the footage's own timeline, in seconds; it is None for the footage's end.
    """
    origin = footage.probe().start
    start = footage.first_at(origin + job.start) if job.start else 0
    return start, None if job.end is None else origin + job.end


def write_all(
    output: writers.VideoOutput, rendered: Iterable[tuple[dict[str, Frame], FrameRecord]],
    faces: int, total: int | None, on_progress: OnProgress,
) -> int:  # fmt: skip
    """Write rendered frames, and return how many faces are swapped in all.

    Args:
        output: The output.
        rendered: The streams of each frame and what happened to its faces.
        faces: How many faces are swapped in the frames that are written already.
        total: Frames in all, for the progress; None if that is unknown.
        on_progress: Called after each frame.
    """
    for frames, record in parallel.prefetch(iter(rendered), 4):
        output.write(frames, records.to_json(record))
        faces += record.swapped
        on_progress(Progress(output.frames, total, "frames", counted(faces, "face")))
    return faces


def refuse_explicit_footage(job: Conversion, footage: Footage, on_progress: OnProgress) -> None:
    """Refuse footage that looks explicit where faces may be swapped.

    Raises:
        ExplicitFootageError: If it does.
    """
    start, end = excerpt_of(job, footage)
    ranges = frame_ranges(job.config.frames or "0-")
    frames = (
        (frame, is_inside(footage.number_of(frame.index), ranges))
        for frame in _excerpt(footage.read(start), end)
    )
    refuse_explicit_frames(
        job.source,
        parallel.prefetch(frames, 4),
        footage.number_of,
        _total(job, footage.probe()),
        on_progress,
    )


def _excerpt(frames: Iterator[Frame], end: Fraction | None) -> Iterator[Frame]:
    """Yield frames up to a time on the source's own timeline; None for all."""
    return frames if end is None else takewhile(lambda frame: frame.time < end, frames)


def troubles_of(footage: Footage, written: list[FrameRecord]) -> list[Trouble]:
    """Return the runs of frames that may look wrong; gaps in the numbers of images are among them.

    Args:
        footage: The footage.
        written: What happened to its frames, in order.
    """
    is_sequence = isinstance(footage, ImageSequence)
    numbers = [footage.number_of(record.index) for record in written] if is_sequence else ()
    return troubles_in(written, numbers)


def _align_logs(output: writers.VideoOutput, log: FaceLog, start: int) -> int:
    """Truncate segments and track log to the same frame; return the first frame to render.

    After a power cut, the log may lack lines that belong to finished segments.
    """
    known = log.end - log.origin if log.entries else 0
    while output.frames > known:
        output.forget(len(output.segments.notes) - 1)
    first = (log.origin if log.entries else start) + output.frames
    log.since(max(first - CONTEXT_FRAMES, 0))
    return first


def detected(
    job: Conversion, footage: Footage, pool: DetectorPool, log: FaceLog, start: int,
    end: Fraction | None,
) -> Generator[tuple[Selection, bool], None, None]:  # fmt: skip
    """Yield the faces of each frame and whether they may be swapped, from the first logged frame.

    Frames before the resume point are yielded again for smoothing; the caller drops them.

    Args:
        job: The conversion.
        footage: Its frames.
        pool: The processes that detect faces.
        log: The track log.
        start: Index of the first frame of the excerpt.
        end: End of the excerpt on the source's own timeline, in seconds; None for the source's end.
    """
    frames = footage.read(log.entries[0].first if log.entries else start)
    tracked = tracker.track_faces(
        parallel.prefetch(_excerpt(frames, end), 4), pool, job.spec, job.config.smooth, log
    )
    decisions = Decisions(list(log.votes), dict(log.distances), list(log.kept))
    ranges = frame_ranges(job.config.frames or "0-")
    for selection in select_faces(tracked, job.selector, decisions, job.presence()):
        log.decide(decisions.votes, decisions.distances, decisions.kept)
        number = footage.number_of(selection.frame.index)
        yield selection, is_inside(number, ranges)


def render_all(
    job: Conversion, footage: Footage, found: Iterable[tuple[Selection, bool]], first: int = 0
) -> Generator[tuple[dict[str, Frame], FrameRecord], None, None]:
    """Yield the rendered streams of each frame and what happened to its faces.

    Args:
        job: The conversion.
        footage: Its frames.
        found: Consecutive frames with their faces, and whether these may be swapped.
        first: Index of the first frame that is wanted. Those before it are only looked at.
    """
    left_out: dict[int, list[tuple[Face, Fate]]] = {}  # by frame, while it is being prepared
    has_files = isinstance(footage, ImageSequence)
    visits = Visits(BRIEF, SAME_PLACE)
    aspect = footage.pixel_aspect() if job.form == "package" else 1.0

    def to_swap() -> Iterator[FrameFaces]:
        for selection, inside in found:
            frame, kept, others = selection
            left_out[frame.index] = [(face, why) for face, why in others]
            if not inside:
                left_out[frame.index] += [(face, "outside") for face in kept]
            yield frame, kept if inside else []

    # The next faces are prepared while these are pasted.
    for frame, swaps in parallel.prefetch(prepare_video(job.swapper, to_swap()), 2):
        file = frame.source.name if has_files else None
        record = records.record_of(frame, swaps, left_out.pop(frame.index), file, job.spec, visits)
        if frame.index < first:
            continue
        streams = job.render(frame, swaps)
        if job.form == "package":
            config = job.swapper.config_at(frame.index)
            place = elements.Place(footage.number_of(frame.index), job.swapper.side, aspect)
            streams |= elements.draw(frame, streams["video"], swaps, record, place, config)
        yield streams, record


def targets_of(job: Conversion, footage: Footage, start: int) -> dict[str, StreamTarget]:
    """Return where and how each stream of a conversion is written.

    Args:
        job: The conversion.
        footage: Its frames.
        start: Index of the first frame of the excerpt.

    Raises:
        OutputError: If a folder for images holds something else.
        SettingsError: If the container cannot hold the codec, or a plug-in cannot be imported.
    """
    config, suffix = job.config, job.target.suffix.lower()
    if job.form in IMAGES:
        return _image_targets(job, footage, start)
    alpha = footage.has_alpha()
    light = _light_of(footage)
    encoding = choose_encoding(suffix, config.codec, config.quality, config.hardware, alpha, light)
    if light:
        _warn_of_light(light, encoding, job)
    if alpha and not encoding.alpha:
        log.warning(
            "the transparency of %s is lost, because %s with %s cannot store it; .mov with --codec "
            "prores, .mkv with --codec ffv1, .webm with --codec vp9 and a folder of PNGs keep it",
            footage.path, suffix, encoding.encoder,
        )  # fmt: skip
    streams = {"video": encoding, "matte": codecs.opaque(encoding), "layers": TRANSPARENT}
    targets = {}
    for stream, path in job.outputs.items():
        sound = stream == "video" and suffix not in ANIMATIONS
        publisher = partial(job.publisher, stream)
        targets[stream] = StreamTarget(path, publisher, streams[stream], sound, config.quality)
    return targets


def _light_of(footage: Footage) -> hdr.Light | None:
    """Return what HDR video says about its light; None for any other footage."""
    with footage.opened() as (_, video):
        if not hdr.is_hdr(video):
            return None
    return hdr.light_of(footage.path)


def _warn_of_light(light: hdr.Light, encoding: codecs.Encoding, job: Conversion) -> None:
    """Warn of what is lost of the light of HDR video."""
    if job.target.suffix.lower() in ANIMATIONS:
        log.warning(
            "%s is HDR, but %s files are not: what is brighter than the white of a display is "
            "clipped", job.source, job.target.suffix,
        )  # fmt: skip
        return
    if not light.is_written_by(encoding.encoder, dict(encoding.options)):
        is_hardware = encoding.encoder.endswith(codecs.MAKERS)
        log.warning(
            "the mastering display and light levels of %s are left out, because %s does not write "
            "them; %s", job.source, encoding.encoder,
            "leave out --hardware" if is_hardware else "--codec h265 keeps them",
        )  # fmt: skip
    if light.lost:
        log.warning(
            "the %s metadata of %s is left out, because no encoder here can write it",
            " and ".join(light.lost), job.source,
        )  # fmt: skip


def _image_targets(job: Conversion, footage: Footage, start: int) -> dict[str, StreamTarget]:
    """Return the targets of an image sequence: images keep their names, frames are numbered."""
    encoding = choose_encoding("", "auto", 0, hardware=False)
    targets = {}
    for stream, path in job.outputs.items():

        def name_of(frame: Frame, stream: str = stream) -> str:
            is_exr = job.form == "package" and stream in ("video", *ELEMENTS)
            suffix = ".exr" if is_exr else ".png"
            if not isinstance(footage, ImageSequence):
                first = 0 if job.form == "package" else start - 1
                return writers.numbered_frame(frame.index - first, suffix)
            if stream == "video" and not is_exr:
                return written_for(frame.source).name
            return f"{frame.source.stem}{suffix}"

        publisher: Publisher = _unsigned if stream == "plate" else partial(job.publisher, stream)
        targets[stream] = StreamTarget(path, publisher, encoding, images=name_of)
        writers.check_folder(path, footage)
    if job.form == "package" and footage.has_alpha():
        log.warning("the transparency of %s is not in the package", footage.path)
    if job.form == "images" and _light_of(footage):
        log.warning(
            "%s is HDR, but PNGs are not: what is brighter than the white of a display is clipped; "
            ".mp4 and .mov keep it", footage.path,
        )  # fmt: skip
    return targets


def _unsigned(source: Path, is_marked: bool) -> Publish:  # noqa: ARG001 - nothing is new in it
    """Return what moves the footage itself into place."""
    return atomic_write


def _total(job: Conversion, info: VideoInfo) -> int | None:
    """Estimate the number of frames to write; None if the header has no frame count."""
    if not info.frames or not info.seconds:
        return info.frames or None
    end = info.seconds if job.end is None else min(job.end, info.seconds)
    return round(info.frames * max(end - job.start, Fraction(0)) / info.seconds)
