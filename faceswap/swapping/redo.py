"""Render some frames of a finished conversion again, with other settings or another model.

The report beside the output says how it was made, which face is whose, and which frames there are.
The redone frames take the place of the old ones; see :mod:`faceswap.media.splice`.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from faceswap import parallel
from faceswap.config import ConvertConfig, frame_ranges
from faceswap.errors import InputError, SettingsError
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.files import make_folder, sweep, temporary_beside
from faceswap.media.footage import Footage, identify
from faceswap.media.frame import Frame
from faceswap.media.splice import ImageSplice, Splice, VideoSplice
from faceswap.media.writers import StreamTarget
from faceswap.models import devices
from faceswap.provenance.consent import without_consent
from faceswap.swapping import outputs
from faceswap.swapping.explicit import refuse_explicit_frames
from faceswap.swapping.page import page_path, write_page
from faceswap.swapping.plan import Conversion, plan
from faceswap.swapping.records import FrameRecord, counted_fates
from faceswap.swapping.report import (
    ConvertReport,
    FrameReport,
    Redone,
    read_report,
    report_path,
    write_report,
)
from faceswap.swapping.resources import Resources
from faceswap.swapping.video import render_all, targets_of, troubles_of
from faceswap.tracking import tracker
from faceswap.tracking.selection import Decisions, Selection, select_faces
from faceswap.tracking.tracklog import Vote
from faceswap.types import OnProgress, Progress, counted, ignore_progress

FORMS = ("movie", "images", "package")  # output forms whose frames can be replaced
# Settings that hold for a whole output.
FIXED = (
    "start", "end", "frames", "images", "fps", "matte", "layers", "codec", "quality", "hardware",
    "intermediate", "label", "label_font", "label_icon", "label_position", "label_size",
)  # fmt: skip
CHOICE = ("to", "who", "exclude", "cast", "largest", "all_faces")  # who is swapped
WHERE = ("cluster", "workers")  # where the work is done, which does not change the frames
# Frames before and after the redone ones that are read: for the smoothing of landmarks, latents and
# colours over four frames each, the batches of the network, and the votes of a track.
CONTEXT, AHEAD = 32, 24


@dataclass(frozen=True, slots=True)
class Again:
    """A finished conversion, planned again to redo some of its frames.

    Attributes:
        job: The conversion, with the changes.
        report: The file of its report.
        before: What the report says.
        changes: Settings by name that differ from those before.
    """

    job: Conversion
    report: Path
    before: FrameReport
    changes: dict[str, Any]


def redo(
    source: str | Path,
    frames: str,
    output: str | Path | None = None,
    model: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ConvertReport:
    """Render some frames of a finished conversion again and put them into its output.

    Faces keep the decisions of the conversion, unless the changes say who is swapped. In a video,
    the frames between a redone one and the next key frame are encoded once more; all other packets
    stay as they are.

    Args:
        source: The footage.
        frames: The frames to redo, such as "120-140,355", numbered as in :class:`ConvertConfig`.
        output: The output of the conversion [default: its default].
        model: A model's folder or file [default: that of the conversion, as it is now].
        changes: Settings by name that differ from those of the conversion.
        on_progress: Called after each frame.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        DeviceError: If this machine does not have the device, its memory is too small for one face,
            or a face detection process was killed.
        ExplicitFootageError: If a frame looks sexually explicit. Nothing is changed.
        InputError: If the source, the output or its report is missing or unreadable, or they do not
            belong together.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        OutputError: If writing fails.
        SettingsError: If the output has no such frame, its frames cannot be replaced, or a setting
            is not valid or holds for the whole output.
    """
    again = plan_again(source, output, model, changes or {})
    return render_again(again, frames, on_progress)


def plan_again(
    source: str | Path, output: str | Path | None, model: str | Path | None,
    changes: dict[str, Any], form: str | None = None,
) -> Again:  # fmt: skip
    """Plan a finished conversion again, with some changes.

    Args:
        source: The footage.
        output: The output of the conversion; None for its default.
        model: A model's folder or file; None for that of the conversion.
        changes: Settings by name that differ from those of the conversion.
        form: The form of the output if its name does not tell, which is so for a package.

    Raises:
        FaceswapError: See :func:`redo`.
    """
    target, form = _output_of(Path(source), Path(output) if output else None, form)
    path = report_path(target, form)
    before = read_report(path)
    job = _planned(Path(source), target, Path(model) if model else None, before, changes, form)
    return Again(job, path, before, changes)


def render_again(again: Again, frames: str, on_progress: OnProgress) -> ConvertReport:
    """Render frames of a finished conversion again, and put them into its output.

    Args:
        again: The conversion.
        frames: The frames; see :func:`redo`.
        on_progress: Called after each frame.

    Raises:
        FaceswapError: See :func:`redo`.
    """
    job, path, before, changes = again.job, again.report, again.before, again.changes
    source, target, form, footage = job.source, job.target, job.form, job.footage
    assert footage is not None, "the form of the output is that of footage"
    wanted = _positions(footage, before.frames, frames)
    _refuse_explicit(source, footage, [before.frames[at].index for at in wanted], on_progress)
    sweep(target.parent)
    folder = temporary_beside(target)
    make_folder(folder)
    try:
        threads = devices.rendering_threads(devices.threads_to_render())
        with Resources() as resources, footage.opened() as (_, video), threads:
            pool = resources.pool(job.config, job.config.workers)
            start = before.frames[0].index
            splices = {
                stream: _splice(job, stream, how, wanted, before.frames, video, folder)
                for stream, how in targets_of(job, footage, start).items()
            }
            records = list(before.frames)
            rendered = _rendered(job, footage, before, wanted, pool, changes)
            for number, (at, streams, record) in enumerate(rendered, start=1):
                for stream, splice in splices.items():
                    splice.write(at, streams[stream])
                records[at] = record
                note = counted(record.swapped, "face")
                on_progress(Progress(number, len(wanted), "frames", note))
            for splice in splices.values():
                splice.finish()
        report = ConvertReport(target, job.model_path, path, detector=job.spec.describe())
        report.consent_not_stated = without_consent(job.model.notes)
        report.count(records, troubles_of(footage, records))
        report.redone = len(wanted)
        done = Redone(frames, job.model.name, job.model.sha256, changes, [*job.shots])
        new = replace(
            before, frames=records, troubles=report.troubles, faces=counted_fates(records),
            redone=[*before.redone, done],
        )  # fmt: skip
        write_report(path, new)
        for splice in splices.values():
            splice.publish(footage)
        if job.config.html or page_path(target, form).exists():
            report.page = write_page(job, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _refuse_explicit(
    source: Path, footage: Footage, indices: list[int], on_progress: OnProgress
) -> None:
    """Refuse to render frames that look explicit.

    Raises:
        ExplicitFootageError: If one does.
    """
    first, last, chosen = min(indices), max(indices), set(indices)
    between = islice(footage.read(first), last - first + 1)
    found = ((frame, frame.index in chosen) for frame in between)
    refuse_explicit_frames(source, found, footage.number_of, last - first + 1, on_progress)


def _output_of(source: Path, output: Path | None, form: str | None) -> tuple[Path, str]:
    """Return the output of a conversion and its form.

    Raises:
        InputError: If the source or the output does not exist.
        SettingsError: If its frames cannot be replaced.
    """
    kind, _ = identify(source)
    kind = "sequence" if kind == "photos" else kind  # --images may have said so
    if form == "package":
        target = outputs.render_in_package(source, output, kind)
    else:
        target = outputs.target_of(source, output, kind)
        form = outputs.form_of(kind, target)
    if form == "images" and outputs.is_in_package(target):
        raise SettingsError(f"{target} belongs to a package: use faceswap package {source} --redo")
    if kind == "photo" or form not in FORMS:
        raise SettingsError(
            f"--redo replaces frames of videos and image sequences only; convert {source} again"
        )
    if not target.exists():
        verb = "package" if form == "package" else "convert"
        raise InputError(f"{target} does not exist; {verb} {source} first")
    return target, form


def _planned(
    source: Path, target: Path, model: Path | None, before: FrameReport, changes: dict[str, Any],
    form: str,
) -> Conversion:  # fmt: skip
    """Plan the conversion again, with the changes.

    Raises:
        InputError: If the report belongs to something else.
        SettingsError: If a setting holds for the whole output.
    """
    fixed = [name for name in FIXED if name in changes]
    if fixed:
        raise SettingsError(
            f"--redo keeps {', '.join(fixed)} as in the whole output: leave it out, or convert "
            f"{source} again"
        )
    if before.output != target.name or not before.frames:
        raise InputError(f"the report beside {target} is that of {before.output}")
    reset = {name: getattr(ConvertConfig(), name) for name in WHERE}
    settings = ConvertConfig.from_dict({**before.settings, "frames": None} | reset | changes)
    if model is None and before.model_path is not None:
        model = Path(before.model_path)
    if settings.images == "auto" and settings.fps is None and source.is_dir():
        settings = replace(settings, images="sequence")
    # What is asked for these frames goes before what is said of their shots.
    output = target.parent if form == "package" else target
    job = plan(source, output, model, settings, form, may_exist=True, fixed=changes)
    return replace(job, marked_as=before.model_sha256)  # one watermark in the whole output


def _positions(footage: Footage, records: list[FrameRecord], frames: str) -> list[int]:
    """Return the places of the frames to redo among those of the output.

    Raises:
        SettingsError: If the output lacks one of the ranges.
    """
    numbers = [footage.number_of(record.index) for record in records]
    found: set[int] = set()
    for low, high in frame_ranges(frames):
        inside = [at for at, number in enumerate(numbers) if low <= number <= high]
        if not inside:
            last = "" if high == low else "-" if math.isinf(high) else f"-{high:g}"
            raise SettingsError(
                f"there is no frame {low}{last} to redo: the output has the frames "
                f"{numbers[0]} to {numbers[-1]} of {footage.path}"
            )
        found.update(inside)
    return sorted(found)


def _splice(
    job: Conversion, stream: str, target: StreamTarget, wanted: list[int],
    records: list[FrameRecord], video: Any, folder: Path,
) -> Splice:  # fmt: skip
    if target.images:
        return ImageSplice(target, folder / stream)
    assert job.footage is not None, "photos have no frames"
    times = [round(Fraction(record.time) / video.time_base) for record in records]
    origin, config = job.footage.probe().start, job.config
    return VideoSplice(
        target, wanted, times, video, folder, excerpt=bool(config.start or config.end),
        end=None if job.end is None else origin + job.end,
    )  # fmt: skip


def _rendered(
    job: Conversion, footage: Footage, before: FrameReport, wanted: list[int], pool: DetectorPool,
    changes: dict[str, Any],
) -> Iterator[tuple[int, dict[str, Frame], FrameRecord]]:  # fmt: skip
    """Yield the places of the redone frames, their streams, and what happened to their faces.

    Raises:
        InputError: If the footage has changed since the conversion.
    """
    is_same_choice = not set(CHOICE) & set(changes)
    for first, last in _runs(wanted):
        begin, end = max(first - CONTEXT, 0), min(last + AHEAD, len(before.frames) - 1)
        records = before.frames[begin : end + 1]
        decisions = Decisions()
        read = islice(footage.read(records[0].index), len(records))
        found = tracker.track_faces(
            parallel.prefetch(read, 4), pool, job.spec, job.config.smooth
        )  # fmt: skip
        if is_same_choice:
            found = _as_before(found, {record.index: record for record in records}, decisions)
        chosen: Iterator[tuple[Selection, bool]] = (
            (selection, True)
            for selection in select_faces(found, job.selector, decisions, job.presence())
        )
        places = {before.frames[at].index: at for at in wanted if first <= at <= last}
        seen = 0
        for streams, record in render_all(job, footage, chosen):
            at = places.get(record.index)
            if at is None:
                continue
            if abs(record.time - before.frames[at].time) > 1e-6:
                raise InputError(f"{footage.path} has changed since it was converted: convert it "
                                 "again")  # fmt: skip
            seen += 1
            yield at, streams, record
        if seen < len(places):
            raise InputError(f"{footage.path} ends before frame {before.frames[last].index}")


def _runs(wanted: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of places; those that are near share a run."""
    groups: list[list[int]] = []
    for at in wanted:
        if groups and at - groups[-1][-1] <= CONTEXT:
            groups[-1].append(at)
        else:
            groups.append([at])
    yield from ((group[0], group[-1]) for group in groups)


def _as_before(
    found: Iterator[FrameFaces], records: dict[int, FrameRecord], decisions: Decisions
) -> Iterator[FrameFaces]:
    """Yield tracked frames, and decide each new track as the conversion decided the same face."""
    known: set[int] = set()
    for frame, faces in found:
        for face in faces:
            if face.track in known:
                continue
            old = records[frame.index].face_at(face.box)
            if old is None:
                continue
            known.add(face.track)
            is_chosen = old.fate in ("swapped", "hidden", "outside", "smaller")
            distance = math.inf if old.distance is None else old.distance
            target = old.target if is_chosen else None
            decisions.cast([Vote(frame.index, face.track, target, True, distance)])
        yield frame, faces
