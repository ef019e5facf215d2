"""Convert: footage of one person -> the same footage with the other person's face."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from faceswap import parallel
from faceswap.config import ConvertConfig
from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.faces.detection import describe_detector, resolve_detector
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.faces.selection import select_faces
from faceswap.files import sha256_of, sweep, writing
from faceswap.media import reader, writers
from faceswap.media.frame import Frame
from faceswap.media.photos import PHOTO_SUFFIXES, read_photo
from faceswap.models import modelfile
from faceswap.parallel import cores
from faceswap.provenance.credentials import ModelRecord, sidecar_beside, sidecar_of
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Signer
from faceswap.swapping.cast import assemble, model_files
from faceswap.swapping.compositor import Swap
from faceswap.swapping.swapper import Swapper
from faceswap.swapping.video import ConvertReport, Job, beside, convert_video, presence
from faceswap.types import Image, OnProgress, Progress, ignore_progress

log = logging.getLogger(__name__)


SHEET_WIDTH = 426  # pixels of each picture in a contact sheet


def default_output(source: Path) -> Path:
    """``video.swapped.mp4`` beside ``video.mp4``; ``photos.swapped`` beside ``photos``."""
    if source.is_dir():
        named = source if source.name.strip(".") else source.resolve()  # "." has no name
        return named.with_name(f"{named.name}.swapped")
    is_photo = source.suffix.lower() in PHOTO_SUFFIXES
    suffix = source.suffix if is_photo else writers.default_video_suffix(source)
    return source.with_name(f"{source.stem}.swapped{suffix}")


def convert(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path | None = None,
    config: ConvertConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ConvertReport:
    """Swap every face of a photo, a video or a folder of photos.

    Sound, frame times and size stay the source's; what has no face passes through unchanged.

    Args:
        source: The footage.
        output: Where to write [default: see :func:`default_output`].
        model: A model's folder or file [default: the newest in ``models``].
        config: Settings.
        on_progress: Called after each frame or photo.

    Raises:
        InputError: If the source is missing or unreadable.
        NoFacesError: If no face is found at all; nothing is written then.
        ModelError: If there is no such model or it cannot be read.
        SettingsError: If the output cannot be signed with the certificate given.
        OutputError: If the output is the input, or the disk refuses.
    """
    source, config = Path(source), config or ConvertConfig()
    kind = reader.kind_of(source)
    target = Path(output) if output else default_output(source)
    _check_other(source, target, *_beside(target, kind, config))
    _check_kind(kind, source, target)
    files = model_files(config, Path(model) if model else None)
    swapper, selector = assemble(config, files[0])
    signer, record = signer_for(files, config)
    report = ConvertReport(target, detector=describe_detector(config.detector, kind == "video"))
    sweep(target if kind == "folder" else target.parent)
    photos = reader.photos_in(source, skip=[target]) if kind == "folder" else [source]
    if not photos:
        raise InputError(f"{source} holds no photo; videos are converted one by one")
    videos = (
        reader.files_in(source, reader.VIDEO_SUFFIXES, skip=[target]) if kind == "folder" else []
    )
    if videos:
        log.warning("of %s only the photos are converted: %d videos are left out, the first is %s",
                    source, len(videos), videos[0].name)  # fmt: skip
    workers = 1 if kind != "video" and len(photos) <= 2 else config.workers
    with DetectorPool(config.min_score, workers) as pool, _threads(max(cores() // 2, 1)):
        if kind == "video":
            job = Job(source, target, swapper, selector, config, record, signer)
            convert_video(job, pool, report, on_progress)
        else:
            root = source if kind == "folder" else None
            readable = parallel.prefetch(_readable(photos, report), 4)
            faces = select_faces(pool.detect(readable, config.detector), selector)
            _convert_photos(photos, root, target, swapper, signer, faces, report, on_progress)
    return report


def signer_for(files: list[Path], config: ConvertConfig) -> tuple[Signer, ModelRecord]:
    """What signs all that is made with models (folders or files), and how it names them.

    Raises:
        SettingsError: If nothing can be signed with the certificate that the settings name.
    """
    paths = [file if file.is_file() else file / modelfile.MODEL_FILE for file in files]
    names = dict.fromkeys(path.resolve().parent.name for path in paths)
    notes = tuple(dict.fromkeys(note for path in paths for note in modelfile.consent_of(path)))
    record = ModelRecord(", ".join(names), ", ".join(sha256_of(path) for path in paths), notes)
    return Signer(record, signing_identity(config.sign_cert, config.sign_key)), record


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use fewer threads: those that look for faces and encode need cores as well."""
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
    """Write a picture with rows of original, swap and mask for evenly spaced frames of a video.

    Returns:
        How many of the frames show a face.

    Raises:
        InputError: If the source is no readable video.
        ModelError: If the model cannot be read.
        OutputError: If the output is no PNG, or the disk refuses.
    """
    source, output, config = Path(source), Path(output), config or ConvertConfig()
    if reader.kind_of(source) != "video":
        raise InputError(f"{source} is no video; a preview needs one")
    if output.suffix.lower() != ".png":
        raise OutputError(f"cannot write {output}: a preview is a picture, name it something.png")
    _check_other(source, output)
    files = model_files(config, Path(model) if model else None)
    swapper, selector = assemble(config, files[0])
    signer, _ = signer_for(files, config)
    rows, with_face = [], 0
    with DetectorPool(config.min_score, config.workers) as pool:
        found = pool.detect(
            reader.sample_video(source, count), resolve_detector(config.detector, True)
        )
        for frame, faces in select_faces(found, selector, is_present=presence(source, selector)):
            (swaps,) = swapper.prepare([(frame, faces)])
            with_face += bool(swaps)
            row = (frame, swapper.paste(frame, swaps), swapper.matte(frame, swaps))
            rows.append(np.hstack([_thumbnail(shown.image) for shown in row]))
    if not rows:
        raise InputError(f"{source} holds no frame that can be decoded")
    _, png = cv2.imencode(".png", np.vstack(rows)[..., ::-1])
    with signer.publisher(source)(output) as temporary, writing(output):
        temporary.write_bytes(png.tobytes())
    return with_face


def _thumbnail(image: Image) -> Image:
    height = round(SHEET_WIDTH * image.shape[0] / image.shape[1])
    small = cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _beside(target: Path, kind: str, config: ConvertConfig) -> list[Path]:
    """What is written beside an output, a photo or a video."""
    layers = ".png" if kind == "photo" else ".mov" if target.suffix else ""
    return [
        *([beside(target, "matte")] if config.matte else ()),
        *([beside(target, "layers", layers)] if config.layers else ()),
    ]


def _check_other(source: Path, *targets: Path) -> None:
    """Refuse to write over the source."""
    for target in targets:
        if target.exists() and target.samefile(source):
            raise OutputError(f"the output {target} is the input itself; give another --output")


def _check_kind(kind: str, source: Path, target: Path) -> None:
    """Refuse an output of another kind than the source, before any work is done."""
    if kind == "folder":
        if target.is_file():
            raise OutputError(f"the output {target} is a file; a folder of photos needs a folder")
        return
    known = PHOTO_SUFFIXES if kind == "photo" else writers.VIDEO_SUFFIXES
    if kind == "video" and not target.suffix:
        return  # a folder of pictures
    if target.suffix.lower() not in known:
        raise OutputError(
            f"cannot write {target}: {source} is a {kind}, and a {kind} is written as one of "
            f"{', '.join(sorted(known))}"
        )


def _convert_photos(
    photos: list[Path],
    root: Path | None,
    target: Path,
    swapper: Swapper,
    signer: Signer,
    found: Iterator[FrameFaces],
    report: ConvertReport,
    on_progress: OnProgress,
) -> None:
    """Convert photos one by one; with ``root`` each keeps its place below it."""
    namesakes = Counter(photo.with_suffix("") for photo in photos)
    for frame, faces in found:
        path = target / frame.source.relative_to(root) if root else target
        (swaps,) = swapper.prepare([(frame, faces)])
        try:
            _write_photo(frame, swaps, path, root, swapper, signer, namesakes)
        except InputError as error:  # it is gone since it was read
            report.unreadable.append(str(error))
            continue
        report.frames += 1
        report.faces += len(swaps)
        report.without_face += not swaps
        on_progress(Progress(report.frames, len(photos), "photos", f"{report.faces} faces"))
    if not report.frames:
        raise InputError(report.unreadable[0])
    if not report.faces:
        raise NoFacesError(
            f"no face found in the {report.frames} photos of {root}; copied to {target} unchanged"
            if root
            else f"no face found in {photos[0]}; nothing is written"
        )


def _write_photo(
    frame: Frame, swaps: list[Swap], path: Path, root: Path | None, swapper: Swapper,
    signer: Signer, namesakes: Counter[Path],
) -> None:  # fmt: skip
    """Write a photo and what goes with it; in a folder it is copied if it shows no face.

    ``namesakes`` counts the photos that differ at most by their suffix, such as a.jpg and a.png.
    """
    source = frame.source
    publish = signer.publisher(source)
    if swaps or (root and path.suffix.lower() != source.suffix.lower()):
        with writers.photo_writer(path, source, publish) as writer:
            writer.write(swapper.paste(frame, swaps))
    elif root:
        writers.copy_file(source, path)
        _copy_sidecar(source, path)
    if swaps and swapper.config.matte:
        with writers.photo_writer(beside(path, "matte"), source, publish) as writer:
            writer.write(swapper.matte(frame, swaps))
    if swaps and swapper.config.layers:
        is_alone = namesakes[source.with_suffix("")] < 2
        named = path if is_alone else path.with_name(f"{path.name}.png")
        with writers.photo_writer(beside(named, "layers", ".png"), source, publish) as writer:
            writer.write(swapper.layer(frame, swaps))


def _readable(photos: list[Path], report: ConvertReport) -> Iterator[Frame]:
    for path in photos:
        try:
            yield read_photo(path)
        except InputError as error:
            report.unreadable.append(str(error))


def _copy_sidecar(source: Path, path: Path) -> None:
    """Let a copy have the credentials that lie beside its source, and no other.

    Raises:
        OutputError: If the disk refuses.
    """
    own = sidecar_beside(source)
    if own:
        writers.copy_file(own, sidecar_of(path))
    else:  # of an earlier output of this name
        with writing(path):
            sidecar_of(path).unlink(missing_ok=True)
