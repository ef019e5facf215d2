"""Convert photos and video of one person to show the other person's face."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from faceswap import parallel
from faceswap.arrays import Image
from faceswap.config import ConvertConfig
from faceswap.errors import InputError, NoFacesError
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.files import sweep, writing
from faceswap.media import reader, writers
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.parallel import cores
from faceswap.provenance.credentials import sidecar_beside, sidecar_of
from faceswap.swapping.compositor import Swap
from faceswap.swapping.plan import Conversion, beside, plan, refuse_preview
from faceswap.swapping.video import ConvertReport, convert_video
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
    """Swap the faces of a photo, a video or a folder of photos.

    The output keeps frame times, image size and, if its format has sound, audio. Frames in which no
    face is swapped stay unchanged except for the label. Unreadable photos of a folder are skipped
    and listed in the report.

    Args:
        source: A photo, a video or a folder of photos.
        output: Where to write [default: ``video.swapped.mp4`` for ``video.mp4``,
            ``photos.swapped`` for a folder ``photos``].
        model: A model's folder or file [default: the newest in ``models``]. With a cast file, it is
            the model of the entries that name none.
        config: Settings.
        on_progress: Called after each frame or photo.

    Raises:
        AlignmentError: If all landmarks of a detected face coincide.
        BusyError: If another process is running the same conversion of a video.
        DeviceError: If this machine does not have the device, its memory is too small for one face,
            or a face detection process was killed.
        InputError: If the source or another input, such as a reference photo or the landmark model,
            is missing or unreadable, or the track log of an interrupted run is damaged.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is swapped, or none is found in a reference photo. No photo or
            video is written, but the photos of a folder are copied.
        OutputError: If the output is the input or does not fit the source, or writing fails.
        SettingsError: If the settings do not fit the model or the output, the cast file is not
            valid, a plug-in cannot be imported, or the certificate cannot sign.
    """
    job = plan(
        Path(source), Path(output) if output else None, Path(model) if model else None,
        config or ConvertConfig(),
    )  # fmt: skip
    is_video = job.kind == "video"
    report = ConvertReport(job.target, Path(model) if model else None, detector=job.spec.describe())
    sweep(job.target if job.kind == "folder" else job.target.parent)
    photos = [] if is_video else _photos(job)
    workers = 1 if photos and len(photos) <= 2 else job.config.workers
    detectors = DetectorPool(job.config.min_score, workers, job.config.landmarks)
    with detectors as pool, _torch_threads(max(cores() // 2, 1)):
        if is_video:
            convert_video(job, pool, report, on_progress)
        else:
            _convert_photos(job, photos, pool, report, on_progress)
    return report


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Limit torch threads to leave cores for detection and encoding."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def contact_sheet(
    source: str | Path,
    output: str | Path,
    count: int,
    model: str | Path | None,
    config: ConvertConfig | None = None,
) -> int:
    """Write an image with rows of original, swap and matte for evenly spaced frames of a video.

    The frames are spread over the whole video and are not smoothed over time, so the settings
    ``start``, ``end``, ``frames`` and ``smooth`` have no effect.

    Args:
        source: The video.
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
        InputError: If the source is not a readable video of known duration, or another input, such
            as a reference photo, is missing or unreadable.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If no face is found in a reference photo.
        OutputError: If the output is not a PNG or is the source, or writing fails.
        SettingsError: If the settings do not fit the model, the cast file is not valid, the label
            cannot be drawn, a plug-in cannot be imported, or the certificate cannot sign.
    """
    source, output = Path(source), Path(output)
    refuse_preview(source, output)
    settings = replace(config or ConvertConfig(), matte=True, layers=False)
    job = plan(source, None, Path(model) if model else None, settings)
    rows, with_face = [], 0
    with DetectorPool(settings.min_score, settings.workers, settings.landmarks) as pool:
        detected = pool.detect(reader.sample_video(source, count), job.spec.checked())
        for frame, faces in select_faces(detected, job.selector, is_present=job.presence()):
            (swaps,) = job.swapper.prepare([(frame, faces)])
            with_face += bool(swaps)
            streams = job.render(frame, swaps)
            row = (frame, streams["video"], streams["matte"])
            rows.append(np.hstack([_thumbnail(shown.image) for shown in row]))
    if not rows:
        raise InputError(f"{source} has no frame that can be decoded")
    _, png = cv2.imencode(".png", np.vstack(rows)[..., ::-1])
    with job.publisher(source)(output) as temporary, writing(output):
        temporary.write_bytes(png.tobytes())
    return with_face


def _thumbnail(image: Image) -> Image:
    height = round(SHEET_WIDTH * image.shape[0] / image.shape[1])
    small = cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _photos(job: Conversion) -> list[Path]:
    """List the photos to convert; warn about videos in the folder, which are skipped."""
    if job.kind == "photo":
        return [job.source]
    photos = reader.photos_in(job.source, skip=[job.target])
    if not photos:
        raise InputError(f"{job.source} holds no photo; convert a video by giving its own path")
    videos = reader.files_in(job.source, reader.VIDEO_SUFFIXES, skip=[job.target])
    if videos:
        log.warning("only the photos in %s are converted; skipping %s (first: %s)",
                    job.source, counted(len(videos), "video"), videos[0].name)  # fmt: skip
    return photos


def _convert_photos(
    job: Conversion,
    photos: list[Path],
    pool: DetectorPool,
    report: ConvertReport,
    on_progress: OnProgress,
) -> None:
    """Convert photos one by one; those of a folder keep their relative paths."""
    readable = parallel.prefetch(_readable(photos, report), 4)
    detected: Iterator[FrameFaces] = pool.detect(readable, job.spec)
    stems = Counter(photo.with_suffix("") for photo in photos)  # a.jpg and a.png share the stem a
    is_folder = job.kind == "folder"
    for frame, faces in select_faces(detected, job.selector):
        relative = frame.source.relative_to(job.source) if is_folder else None
        path = job.target / relative if relative else job.target
        (swaps,) = job.swapper.prepare([(frame, faces)])
        shares_stem = stems[frame.source.with_suffix("")] > 1
        try:
            _write_photo(job, frame, swaps, path, shares_stem)
        except InputError as error:  # the photo was deleted after it was read
            report.unreadable.append(str(error))
            continue
        report.frames += 1
        report.faces += len(swaps)
        report.without_face += not swaps
        on_progress(Progress(report.frames, len(photos), "photos", counted(report.faces, "face")))
    if not report.frames:
        raise InputError(report.unreadable[0])
    if not report.faces:
        raise NoFacesError(
            f"no face found or selected in {counted(report.frames, 'photo')} of {job.source}; "
            f"the photos are copied to {job.target} unchanged"
            if is_folder
            else f"no face found or selected in {photos[0]}; nothing was written"
        )


def _write_photo(
    job: Conversion, frame: Frame, swaps: list[Swap], path: Path, shares_stem: bool
) -> None:
    """Write a photo's streams.

    A photo without a swap is copied if it comes from a folder; otherwise nothing is written.
    """
    source = frame.source
    publish = job.publisher(source)
    if not swaps:
        if job.kind != "folder":
            return
        if path.suffix.lower() == source.suffix.lower():
            writers.copy_file(source, path)
            _copy_sidecar(source, path)
            return
    layers = path.with_name(f"{path.name}.png") if shares_stem else path
    paths = {
        "video": path,
        "matte": beside(path, "matte"),
        "layers": beside(layers, "layers", ".png"),
    }
    for stream, rendered in job.render(frame, swaps).items():
        if swaps or stream == "video":
            with writers.photo_writer(paths[stream], source, publish) as writer:
                writer.write(rendered)


def _readable(photos: list[Path], report: ConvertReport) -> Iterator[Frame]:
    for path in photos:
        try:
            yield read_photo(path)
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
