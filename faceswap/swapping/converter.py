"""Convert photos and video of one person to show the other person's face."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from faceswap import parallel
from faceswap.arrays import Image
from faceswap.config import ConvertConfig, frame_ranges
from faceswap.errors import InputError, NoFacesError
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.facesets.faceset import facesets_in
from faceswap.files import sweep, writing
from faceswap.media import writers
from faceswap.media.film import check_colorspace, warn_of_log
from faceswap.media.footage import Footage
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.media.segments import SegmentStore, digest_of, folder_for, unfinished
from faceswap.media.sources import search
from faceswap.models import devices
from faceswap.provenance.consent import without_consent
from faceswap.provenance.credentials import sidecar_beside, sidecar_of
from faceswap.swapping import outputs
from faceswap.swapping.compositor import Swap
from faceswap.swapping.explicit import refuse_explicit_frames, refuse_explicit_photos
from faceswap.swapping.page import write_page
from faceswap.swapping.plan import Conversion, key_of, plan
from faceswap.swapping.records import (
    from_json,
    is_pasted,
    record_of,
    to_json,
    why_none,
)
from faceswap.swapping.report import ConvertReport, read_report, report_path
from faceswap.swapping.resources import Resources
from faceswap.swapping.video import convert_video, refuse_explicit_footage
from faceswap.tracking.selection import select_faces
from faceswap.types import OnProgress, Progress, counted, ignore_progress

log = logging.getLogger(__name__)

SHEET_WIDTH = 426  # pixels of each image in a contact sheet


def convert(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path | None = None,
    config: ConvertConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ConvertReport:
    """Swap the faces of a photo, a video, an image sequence or a folder of photos.

    The output keeps frame times, image size and, if its format has sound, audio. Frames in which no
    face is swapped stay unchanged except for the label. Unreadable photos of a folder are skipped
    and listed in the report.

    Args:
        source: A photo, a video, a folder of images, or the pattern of an image sequence, such as
            ``shot.%04d.png``.
        output: Where to write [default: ``video.swapped.mp4`` for ``video.mp4``,
            ``photos.swapped`` for a folder ``photos``]. A photo or a video goes into a folder that
            exists, under its default name.
        model: A model's folder or file [default: the newest in ``models``]. With a cast file, it is
            the model of the entries that name none.
        config: Settings.
        on_progress: Called after each frame or photo.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        BusyError: If another process is running the same conversion.
        DeviceError: If this machine does not have the device, its memory is too small for one face,
            or a face detection process was killed.
        ExplicitFootageError: If the destination looks sexually explicit. Nothing is written.
        InputError: If the source or another input, such as a reference photo or the landmark model,
            is missing or unreadable, or the track log of an interrupted run is damaged.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is swapped, or none is found in a reference photo. No photo or
            video is written, but the photos of a folder are copied.
        OutputError: If the output is the input, exists already or does not fit the source, or
            writing fails. If only the page of ``html`` cannot be written, the output is complete.
        SettingsError: If a setting has no effect on this kind of output, the settings do not fit
            the model or the output, the cast file is not valid, a plug-in cannot be imported, or
            the certificate cannot sign.
    """
    job = plan(
        Path(source), Path(output) if output else None, Path(model) if model else None,
        config or ConvertConfig(),
    )  # fmt: skip
    with Resources() as resources:
        return carry_out(job, resources, on_progress)


def carry_out(
    job: Conversion, resources: Resources, on_progress: OnProgress, unless_done: bool = False,
    is_rendered: bool = False,
) -> ConvertReport:  # fmt: skip
    """Carry out a conversion that is planned; see :func:`convert`.

    Args:
        job: The conversion.
        resources: The processes that detect faces.
        on_progress: Called after each frame or photo.
        unless_done: Whether to return the report of the same conversion instead if it has been
            carried out before; other outputs that exist are refused, unless the settings allow to
            replace them.
        is_rendered: Whether all segments of a video are finished, and were looked at before.
    """
    report = ConvertReport(job.target, job.model_path, detector=job.spec.describe())
    report.consent_not_stated = without_consent(job.model.notes)
    sweep(job.target if job.form == "photos" else job.target.parent)
    photos = [] if job.footage else _photos(job, report)
    key = key_of(job, photos)
    if unless_done:
        if _is_done(job, key, report):
            return report
        outputs.refuse_to_replace(job.config, job.outputs)
    on_cluster = job.config.cluster and job.footage is not None and not is_rendered
    if not (is_rendered or on_cluster):
        refuse_explicit(job, photos, on_progress)
    workers = 1 if photos and len(photos) <= 2 else job.config.workers
    pool = resources.pool(job.config, workers)
    if on_cluster:
        from faceswap.swapping import clustered  # which needs this module

        clustered.render(job, pool, on_progress)
        is_rendered = True
    with devices.rendering_threads(devices.threads_to_render()):
        if job.footage:
            convert_video(job, job.footage, key, pool, report, on_progress, is_rendered)
        else:
            _convert_photos(job, photos, key, pool, report, on_progress)
    if job.config.html:
        report.page = write_page(job, report)
    report.unfinished = [
        kept for kept in unfinished(job.target.parent) if kept.output == job.target
    ]
    return report


def refuse_explicit(job: Conversion, photos: list[Path], on_progress: OnProgress) -> None:
    """Refuse a conversion whose destination looks explicit, before any work begins.

    Args:
        job: The conversion.
        photos: Its photos.
        on_progress: Called after each frame or photo.

    Raises:
        ExplicitFootageError: If it does.
    """
    if job.footage is None:
        refuse_explicit_photos(photos, on_progress, job.config.colorspace)
    else:
        refuse_explicit_footage(job, job.footage, on_progress)


def _is_done(job: Conversion, key: dict[str, Any], report: ConvertReport) -> bool:
    """Return whether all outputs exist and were made by the same conversion; if so, report it."""
    if len(outputs.existing(job.outputs)) < len(job.outputs):
        return False
    path = report_path(job.target, job.form)
    try:
        written = read_report(path)
    except InputError:  # then nobody knows what made the output
        return False
    if written.key != digest_of(key):
        return False
    report.count(written.frames, written.troubles)
    report.report, report.done_before = path, True
    return True


def contact_sheet(
    source: str | Path,
    output: str | Path,
    count: int,
    model: str | Path | None,
    config: ConvertConfig | None = None,
) -> int:
    """Write an image with rows of original, swap and matte for evenly spaced frames of a video.

    The frames are spread over what ``start``, ``end`` and ``frames`` select. They are not smoothed
    over time.

    Args:
        source: The video or image sequence.
        output: The PNG to write.
        count: Number of frames. A damaged video may yield fewer.
        model: A model's folder or file; None for the newest in ``models``. With a cast file, it is
            the model of the entries that name none.
        config: Settings.

    Returns:
        The number of these frames in which a face is swapped.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        DeviceError: If this machine does not have the device, its memory is too small for one face,
            or a face detection process was killed.
        ExplicitFootageError: If the destination looks sexually explicit. Nothing is written.
        InputError: If the source is not a readable video of known duration or an image sequence,
            nothing of it is selected, or another input, such as a reference photo, is missing or
            unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        OutputError: If the output is not a PNG, is the source, or exists already under another
            name than the default one, or if writing fails.
        SettingsError: If the settings do not fit the model, the cast file is not valid, the label
            cannot be drawn, a plug-in cannot be imported, or the certificate cannot sign.
    """
    source, output, config = Path(source), Path(output), config or ConvertConfig()
    kind, footage = outputs.identified(source, config)
    outputs.refuse_preview(source, kind, output)
    assert footage is not None, "refused above"
    outputs.refuse_input(source, footage, {"video": output})
    if not (config.overwrite or output == outputs.default_preview(source)):
        outputs.refuse_existing({"video": output})
    settings = replace(config, matte=True)
    job = plan(source, output, Path(model) if model else None, settings, "preview")
    rows, with_face = [], 0
    chosen = list(_samples(job, footage, count))
    refuse_explicit_frames(
        source, [(frame, True) for frame in chosen], footage.number_of, len(chosen), ignore_progress
    )
    with DetectorPool(settings.min_score, settings.workers, settings.landmarks) as pool:
        detected = pool.detect(iter(chosen), job.spec.checked())
        for frame, faces, _ in select_faces(detected, job.selector, is_present=job.presence()):
            (swaps,) = job.swapper.prepare([(frame, faces)])
            with_face += any(map(is_pasted, swaps))
            streams = job.render(frame, swaps)
            row = (frame, streams["video"], streams["matte"])
            rows.append(np.hstack([_thumbnail(shown.image) for shown in row]))
    if not rows:
        raise InputError(f"{source} has no frame that can be decoded")
    _, png = cv2.imencode(".png", np.vstack(rows)[..., ::-1])
    with job.publisher("preview", footage.first_file, False)(output) as temporary, writing(output):
        temporary.write_bytes(png.tobytes())
    return with_face


def _samples(job: Conversion, footage: Footage, count: int) -> Iterator[Frame]:
    """Yield frames that are evenly spaced over the part of the footage that is selected."""
    config = job.config
    if not (config.start or config.end or config.frames):
        yield from footage.sample(count)
        return
    start, end = job.start, job.end
    ranges = frame_ranges(config.frames or "0-")
    origin = footage.probe().start
    chosen = [
        at for at, time in enumerate(footage.times())
        if start <= time - origin and (end is None or time - origin < end)
        and any(low <= footage.number_of(at) <= high for low, high in ranges)
    ]  # fmt: skip
    if not chosen:
        raise InputError(f"{job.source} has no frame between --start and --end and in --frames")
    wanted = sorted({chosen[int(len(chosen) * (n + 0.5) / count)] for n in range(count)})
    for index in wanted:
        yield next(footage.read(index))


def _thumbnail(image: Image) -> Image:
    height = round(SHEET_WIDTH * image.shape[0] / image.shape[1])
    small = cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _photos(job: Conversion, report: ConvertReport) -> list[Path]:
    """List the photos to convert; note in the report which files of the folder are left out."""
    if job.kind == "photo":
        warn_of_log(job.source, job.config.colorspace)
        return [job.source]
    # Crops of facesets are not photos of their own.
    found = search(job.source, skip=[*job.outputs.values(), *facesets_in(job.source)])
    if not found.photos:
        raise InputError(f"{job.source} holds no photo; convert a video by giving its own path")
    if found.videos:
        log.warning("only the photos in %s are converted; skipping %s (first: %s)", job.source,
                    counted(len(found.videos), "video"), found.videos[0].name)  # fmt: skip
    report.left_out = [
        path.relative_to(job.source).as_posix() for path in sorted(found.videos + found.others)
    ]
    return found.photos


def _convert_photos(
    job: Conversion,
    photos: list[Path],
    key: dict[str, Any],
    pool: DetectorPool,
    report: ConvertReport,
    on_progress: OnProgress,
) -> None:
    """Convert photos one by one; those of a folder keep their relative paths.

    What was done is noted photo by photo, so that an interrupted run continues where it stopped.
    """
    is_folder = job.kind == "photos"
    names = {path: path.relative_to(job.source) if is_folder else Path(path.name)
             for path in photos}  # fmt: skip
    store = SegmentStore(folder_for(job.target, key), job.target, job.source)
    done = False
    try:
        notes = [note["records"][0] for note in store.notes]
        known = {record.index: record for record in from_json(notes, store.folder)}
        report.resumed = len(known)
        if not (store.wrote_output or job.config.overwrite):
            outputs.refuse_existing(job.outputs)
        store.begin_output()
        records = list(known.values())
        faces = sum(record.swapped for record in records)
        left = [(at, path) for at, path in enumerate(photos) if at not in known]
        readable = parallel.prefetch(_readable(left, job.config.colorspace, report), 4)
        detected: Iterator[FrameFaces] = pool.detect(readable, job.spec)
        stems = Counter(photo.with_suffix("") for photo in photos)  # a.jpg and a.png share stem a
        for frame, kept, others in select_faces(detected, job.selector):
            (swaps,) = job.swapper.prepare([(frame, kept)])
            name = names[frame.source].as_posix()
            record = record_of(frame, swaps, [*others], name, job.spec)
            shares_stem = stems[frame.source.with_suffix("")] > 1
            try:
                _write_photo(job, frame, swaps, names[frame.source], shares_stem)
            except InputError as error:  # the photo was deleted after it was read
                report.unreadable.append(str(error))
                continue
            store.add({"times": [frame.index], "last": 1, "rotation": 0, "delays": {},
                       "records": [to_json(record)]})  # fmt: skip
            records.append(record)
            faces += record.swapped
            note = counted(faces, "face")
            on_progress(Progress(len(records), len(photos), "photos", note))
        if not records:
            raise InputError(report.unreadable[0])
        if not faces:
            done = True
            raise NoFacesError(
                f"{why_none(records, 'photo')} of {job.source}; "
                + (f"the photos are copied to {job.target} unchanged" if is_folder
                   else "nothing was written")
            )  # fmt: skip
        report.finish(job, key, sorted(records, key=lambda record: record.index), [])
        done = True
    finally:
        store.close(keep=not done and bool(store.notes) and is_folder)


def _write_photo(
    job: Conversion, frame: Frame, swaps: list[Swap], name: Path, shares_stem: bool
) -> None:
    """Write a photo's streams.

    A photo without a swap is copied if it comes from a folder; otherwise nothing is written. Mattes
    and layers of a folder's photos are written for every photo, in folders of their own.

    Args:
        job: The conversion.
        frame: The photo.
        swaps: Its swaps.
        name: Its path in the folder.
        shares_stem: Whether the folder holds another photo that differs in its suffix only.
    """
    source = frame.source
    is_folder = job.kind == "photos"
    if not swaps and not is_folder:
        return
    streams = job.render(frame, swaps)
    if not swaps:
        writers.copy_file(source, job.target / name)
        _copy_sidecar(source, job.target / name)
        del streams["video"]
    for stream, rendered in streams.items():
        path = job.outputs[stream]
        if is_folder:
            base = f"{name.name}.png" if shares_stem else f"{name.stem}.png"
            new = name.with_name(base)
            path /= outputs.written_for(name) if stream == "video" else new
        publish = job.publisher(stream, source, rendered.luma is not None)
        with writers.photo_writer(path, source, publish) as writer:
            writer.write(rendered)


def _readable(
    photos: list[tuple[int, Path]], colorspace: str | None, report: ConvertReport
) -> Iterator[Frame]:
    for index, path in photos:
        try:
            check_colorspace(path, colorspace)
            yield replace(read_photo(path, colorspace), index=index)
        except InputError as error:
            report.unreadable.append(str(error))


def _copy_sidecar(source: Path, path: Path) -> None:
    """Copy the sidecar with the source's credentials, or delete an old one beside the copy.

    Raises:
        InputError: If the sidecar cannot be read.
        OutputError: If writing fails.
    """
    sidecar = sidecar_beside(source)
    if sidecar:
        writers.copy_file(sidecar, sidecar_of(path))
    else:  # an earlier output of this name may have left one
        with writing(path):
            sidecar_of(path).unlink(missing_ok=True)
