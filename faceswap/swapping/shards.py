"""Convert a video or an image sequence on several machines that share a folder, and join the parts.

Each machine renders the frames of one shard into a folder within that of the output's segments.
The machine that comes first follows the faces. The others wait for its track log, because whose
face a frame shows depends on the frames before. With the log, a shard is rendered as a resumed run
would render it, so the joined output equals that of one machine byte for byte.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from faceswap.config import ConvertConfig
from faceswap.errors import BusyError, InputError, SettingsError
from faceswap.faces.pool import DetectorPool
from faceswap.files import lock_file, make_folder, parse_json, write_bytes, writing
from faceswap.media import writers
from faceswap.media.footage import Footage
from faceswap.media.segments import SEGMENT_FRAMES, SHARDS, SegmentStore, folder_for
from faceswap.models import devices
from faceswap.swapping import records
from faceswap.swapping.converter import carry_out, refuse_explicit
from faceswap.swapping.outputs import identified, target_of
from faceswap.swapping.plan import Conversion, key_of, plan
from faceswap.swapping.report import ConvertReport
from faceswap.swapping.resources import Resources
from faceswap.swapping.video import (
    CONTEXT_FRAMES,
    detected,
    excerpt_of,
    render_all,
    targets_of,
    write_all,
)
from faceswap.tracking.tracklog import FaceLog
from faceswap.types import Count, OnProgress, Progress, ignore_progress

log = logging.getLogger(__name__)

TRACKS, FOLLOWED, LOCK = "faces.jsonl", "faces-followed", "faces.lock"
MOST_SHARDS = 9999
POLL = 1.0  # seconds between two looks for the track log of another machine


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What the conversion of one shard did."""

    output: Annotated[Path, Meta(description="The output of the whole conversion.")]
    number: Annotated[Count, Meta(description="The shard, from 1.")]
    count: Annotated[Count, Meta(description="How many shards there are.")]
    frames: Annotated[Count, Meta(description="Frames of the shard.")]
    faces: Annotated[Count, Meta(description="Faces that were swapped in them.")]
    resumed: Annotated[Count, Meta(description="Frames that were there from an earlier run.")]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a conversion.

    Attributes:
        number: Which one, from 1.
        count: How many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read a shard such as "3/8".

        Raises:
            SettingsError: If it is not one.
        """
        number, _, count = text.partition("/")
        are_numbers = number.isdecimal() and count.isdecimal()
        if not (are_numbers and 1 <= int(number) <= int(count) <= MOST_SHARDS):
            raise SettingsError(f'--shard must be such as "3/8", not {text!r}')
        return cls(int(number), int(count))

    def frames(self, total: int) -> tuple[int, int]:
        """Return the first frame and the one after the last; shards consist of whole segments.

        Args:
            total: Frames of the conversion.
        """
        segments = -(-total // SEGMENT_FRAMES)
        ends = (segments * part // self.count for part in (self.number - 1, self.number))
        first, end = (min(place * SEGMENT_FRAMES, total) for place in ends)
        return first, end

    def folder(self, parts: Path) -> Path:
        """Return its folder within that of the conversion's segments."""
        return parts / f"shard-{self.number}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class Whole:
    """A conversion that is made in shards.

    Attributes:
        job: The conversion.
        footage: Its footage.
        parts: The folder of its segments.
        first: Index of its first frame.
        total: Its number of frames.
        end: When it ends on the footage's own timeline, in seconds; None for the footage's end.
    """

    job: Conversion
    footage: Footage
    parts: Path
    first: int
    total: int
    end: Fraction | None


def whole_of(job: Conversion) -> Whole:
    """Return a conversion that is planned with what its shards need to know.

    Raises:
        SettingsError: If the source is neither a video nor an image sequence.
    """
    footage = job.footage
    if footage is None:
        raise SettingsError(f"{job.source} is not a video or an image sequence; shards need one")
    times = footage.times()
    first, end = excerpt_of(job, footage)
    last = len(times) if end is None else sum(time < end for time in times)
    return Whole(
        job, footage, folder_for(job.target, key_of(job)), first, max(last - first, 0), end
    )


def convert_shard(
    source: str | Path, output: str | Path | None, model: str | Path | None,
    config: ConvertConfig, shard: Shard, on_progress: OnProgress = ignore_progress,
) -> ShardReport:  # fmt: skip
    """Convert the frames of one shard; run it again to continue.

    All shards need the same source, model, settings and output, in a folder that the machines
    share.

    Args:
        source: The video or image sequence.
        output: The output of the whole conversion; see :func:`faceswap.convert`.
        model: A model's folder or file; see :func:`faceswap.convert`.
        config: Settings.
        shard: Which part.
        on_progress: Called after each frame.

    Raises:
        BusyError: If another process is making the same shard.
        SettingsError: If the source is neither a video nor an image sequence, or as in
            :func:`faceswap.convert`, which names the other errors, too.
    """
    job = plan(
        Path(source), Path(output) if output else None, Path(model) if model else None, config
    )
    whole = whole_of(job)
    begin(whole, shard.count)
    with Resources() as resources:
        follow_faces(whole, resources.pool(config, config.workers), on_progress)
    return render(whole, shard, on_progress)


def begin(whole: Whole, count: int) -> None:
    """Note in the folder of the segments what its shards are made with.

    Raises:
        OutputError: If the folder cannot be written.
    """
    job = whole.job
    make_folder(whole.parts)
    about = {"source": str(job.source), "output": str(job.target), "count": count,
             "model": str(job.model_path) if job.model_path else None,
             "settings": job.config.to_dict()}  # fmt: skip
    write_bytes(whole.parts / SHARDS, json.dumps(about).encode())


def count_before(whole: Whole) -> int | None:
    """Return the number of shards of an earlier run that has begun to render some; None if none.

    Shards of another number would not have its segments.
    """
    try:
        about = parse_json((whole.parts / SHARDS).read_text(encoding="utf-8"))
        count = int(about["count"])
    except (KeyError, OSError, TypeError, ValueError):
        return None
    is_begun = any(whole.parts.glob(f"shard-*-of-{count}"))
    return count if is_begun and 1 <= count <= MOST_SHARDS else None


def follow_faces(whole: Whole, pool: DetectorPool, on_progress: OnProgress) -> None:
    """Follow the faces of the whole conversion, or wait until another machine has done so.

    Args:
        whole: The conversion.
        pool: Detects faces.
        on_progress: Called after each frame.
    """
    done = whole.parts / FOLLOWED
    with _turn(whole.parts / LOCK, done):
        if done.exists():
            return
        refuse_explicit(whole.job, [], on_progress)
        tracks = FaceLog(whole.parts / TRACKS)
        tracks.since(max(tracks.end - CONTEXT_FRAMES, 0))
        found = detected(whole.job, whole.footage, pool, tracks, whole.first, whole.end)
        with closing(found):
            for selection, _ in found:
                place = selection.frame.index - whole.first + 1
                on_progress(Progress(place, whole.total, "frames followed"))
        write_bytes(done, b"")


@contextmanager
def _turn(lock: Path, done: Path) -> Iterator[None]:
    """Lock a file, or wait until it is free or the work that it guards is done."""
    told = False
    while not done.exists():
        try:
            held = lock_file(lock, "the faces of this footage are being followed")
        except BusyError:
            if not told:
                log.info("waiting for another machine, which follows the faces")
            told = True
            time.sleep(POLL)
            continue
        with closing(held):
            yield
        return
    yield


def render(
    whole: Whole, shard: Shard, on_progress: OnProgress, threads: int | None = None
) -> ShardReport:
    """Render the frames of a shard into its folder, once the faces have been followed.

    Args:
        whole: The conversion.
        shard: Which part.
        on_progress: Called after each frame.
        threads: In how many threads torch computes [default: as in a conversion on this machine].

    Raises:
        BusyError: If another process is making the same shard.
    """
    folder = shard.folder(whole.parts)
    first, end = (whole.first + place for place in shard.frames(whole.total))
    report = ShardReport(whole.job.target, shard.number, shard.count, end - first, 0, 0)
    if first == end:
        return report
    targets = targets_of(whole.job, whole.footage, whole.first)
    opened = writers.open_video(targets, whole.footage, folder, join=False)
    threads = threads or devices.threads_to_render()
    with opened as output, devices.rendering_threads(threads):
        resumed = output.frames
        faces = sum(record.swapped for record in records.from_json(output.records, folder))
        if resumed < end - first:
            tracks = FaceLog(whole.parts / TRACKS)
            at = first + resumed
            tracks.since(max(at - CONTEXT_FRAMES, 0))
            settings = whole.job.config
            pool = DetectorPool(settings.min_score, 1, settings.landmarks)  # has nothing to detect
            found = detected(whole.job, whole.footage, pool, tracks, whole.first, whole.end)
            with closing(render_all(whole.job, whole.footage, found, at)) as rendered:
                wanted = takewhile(lambda result: result[1].index < end, rendered)
                faces = write_all(output, wanted, faces, end - first, on_progress)
        output.finish()
    return replace(report, faces=faces, resumed=resumed)


def join(
    source: str | Path, output: str | Path | None = None, on_progress: OnProgress = ignore_progress
) -> ConvertReport:
    """Join the shards of a conversion into its output.

    Args:
        source: The footage.
        output: The output that the shards were given; None for the default.
        on_progress: Called after each frame that is checked.

    Raises:
        InputError: If there are no shards, some are not finished, or the footage, the model or
            another input has changed since then.
        BusyError: If a shard is still being made.
        OutputError, SettingsError: As in :func:`faceswap.convert`.
    """
    parts, about = _found(Path(source), Path(output) if output else None)
    config = ConvertConfig.from_dict(about["settings"])
    named = about["model"]
    job = plan(Path(about["source"]), Path(about["output"]), Path(named) if named else None, config)
    whole = whole_of(job)
    if whole.parts != parts:
        raise InputError(
            f"{job.source}, the model or another input has changed since the shards of "
            f"{job.target} were made: make them again, or delete {parts}"
        )
    merge(whole, int(about["count"]))
    with Resources() as resources:
        return carry_out(job, resources, on_progress, is_rendered=True)


def _found(source: Path, output: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the newest shards of an output, and what they were made with."""
    kind, _ = identified(source, ConvertConfig())
    target = target_of(source, output, kind)
    found = []
    for path in target.parent.glob(f".*.parts/{SHARDS}"):
        try:
            about = parse_json(path.read_text(encoding="utf-8"))
            if Path(about["output"]).name == target.name:
                found.append((path.stat().st_mtime_ns, path.parent, about))
        except (KeyError, OSError, TypeError, ValueError) as error:
            log.warning("%s is damaged and left out: %s", path, error)
    if not found:
        raise InputError(
            f"there are no shards of {target}; make them with faceswap convert --shard 1/2 ..."
        )
    _, parts, about = max(found, key=lambda item: item[0])
    return parts, about


def merge(whole: Whole, count: int) -> None:
    """Link the segments of all shards into the folder of the conversion's segments, in order.

    A join that was interrupted goes on where it stopped.

    Args:
        whole: The conversion.
        count: How many shards there are.

    Raises:
        InputError: If a shard is missing or not finished.
        BusyError: If a shard is still being made.
        OutputError: If the segments cannot be linked.
    """
    shards = [Shard(number, count) for number in range(1, count + 1)]
    sizes = [end - first for first, end in (shard.frames(whole.total) for shard in shards)]
    main = SegmentStore(whole.parts, whole.job.target, whole.footage.path)
    try:
        there = sum(len(note["times"]) for note in main.notes)
        for shard, wanted, upto in zip(shards, sizes, accumulate(sizes), strict=True):
            if there >= upto:
                continue
            folder = shard.folder(whole.parts)
            if not folder.is_dir():
                raise InputError(f"shard {shard.number}/{count} of {whole.job.target} is not made")
            part = SegmentStore(folder, whole.job.target, whole.footage.path)
            try:
                frames = sum(len(note["times"]) for note in part.notes)
                if frames != wanted:
                    raise InputError(
                        f"shard {shard.number}/{count} of {whole.job.target} has {frames} of "
                        f"{wanted} frames; run it again"
                    )
                at = upto - wanted
                for number, note in enumerate(part.notes):
                    at += len(note["times"])
                    if at <= there:
                        continue
                    for stream in note["delays"]:
                        _link(part.path(stream, number), main.path(stream, len(main.notes)))
                    main.add(note)
                    there = at
            finally:
                part.close(keep=True)
    finally:
        main.close(keep=True)


def _link(segment: Path, place: Path) -> None:
    """Put a segment, a file or a folder of images, at another place as well.

    Raises:
        OutputError: If that fails.
    """
    with writing(place):
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        if segment.is_dir():
            shutil.copytree(segment, place, copy_function=_link_file)
        else:
            _link_file(segment, place)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system knows no links
        shutil.copyfile(source, target)
