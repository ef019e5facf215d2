"""Hand a conversion over to compositors: images, data, a Nuke script and an OpenTimelineIO file."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from faceswap.config import ConvertConfig
from faceswap.errors import OutputError, SettingsError
from faceswap.faces.geometry import invert, transform
from faceswap.files import make_folder, parse_json, sha256_of, write_bytes, writing
from faceswap.media import exr
from faceswap.media.footage import Footage, ImageSequence
from faceswap.media.sources import SIDECAR
from faceswap.swapping import outputs
from faceswap.swapping.converter import carry_out
from faceswap.swapping.elements import ATTRIBUTE, layer_of
from faceswap.swapping.nuke import Script, literal
from faceswap.swapping.plan import Conversion, plan
from faceswap.swapping.redo import plan_again, render_again
from faceswap.swapping.report import ConvertReport, read_report, report_path
from faceswap.swapping.resources import Resources
from faceswap.swapping.video import excerpt, excerpt_of
from faceswap.tracking.tracker import cuts
from faceswap.types import Count, OnProgress, ignore_progress

log = logging.getLogger(__name__)

Facts = dict[str, Any]  # what is known of a frame; see elements.draw
SUFFIXES = frozenset({".exr", ".png", ".json"})  # of what a package holds for each frame
WRITTEN = "written.json"  # the hashes of the script and the timeline
HERE = "[file dirname [value root.name]]"  # the folder of a Nuke script


@dataclass(frozen=True, slots=True)
class PackageReport:
    """What a package holds."""

    folder: Annotated[Path, Meta(description="The folder of the package.")]
    script: Annotated[Path, Meta(description="The Nuke script.")]
    timeline: Annotated[Path, Meta(description="The OpenTimelineIO file with the cuts.")]
    first: Annotated[int, Meta(description="Number of the first image.")]
    last: Annotated[int, Meta(description="Number of the last image.")]
    shots: Annotated[Count, Meta(description="Shots, between cuts.")]
    frames: Annotated[Count, Meta(description="Frames.")]
    faces: Annotated[Count, Meta(description="Faces swapped.")]
    redone: Annotated[Count, Meta(description="Frames that --redo rendered anew.")]


@dataclass(frozen=True, slots=True)
class _Clip:
    """What a package's files say of its footage.

    Attributes:
        name: A name for it.
        images: The pattern of its images without a suffix, such as ``shot.%04d``.
        rate: Frames per second.
        frames: What is known of each frame.
        starts: Numbers of the first image of each shot.
    """

    name: str
    images: str
    rate: Fraction
    frames: list[Facts]
    starts: list[int]

    @property
    def side(self) -> int:
        """Width and height of the images of aligned faces, in pixels."""
        return int(self.frames[0]["faces_side"])

    @property
    def first(self) -> int:
        return int(self.frames[0]["number"])

    @property
    def last(self) -> int:
        return int(self.frames[-1]["number"])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.frames[0]["width"], self.frames[0]["height"]

    @property
    def tracks(self) -> dict[int, dict[int, Facts]]:
        """The faces by track number and by number of the image."""
        found: dict[int, dict[int, Facts]] = defaultdict(dict)
        for frame in self.frames:
            for face in frame["faces"]:
                found[face["track"]][frame["number"]] = face
        return dict(sorted(found.items()))


def package(
    source: str | Path, output: str | Path | None = None, model: str | Path | None = None,
    config: ConvertConfig | None = None, on_progress: OnProgress = ignore_progress,
) -> PackageReport:  # fmt: skip
    """Convert a video or an image sequence into a folder for compositors.

    The folder holds EXR images in linear Rec.709: the finished frames in ``render``, and what makes
    them in ``elements``, ``faces`` and ``plate``. Beside them are a JSON file for each frame in
    ``data``, a Nuke script and an OpenTimelineIO file. Run it again to continue after a stop.

    Args:
        source: The footage.
        output: The folder [default: ``clip.package`` beside ``clip.mp4``].
        model: See :func:`faceswap.convert`.
        config: Settings; the package is an intermediate, so nothing in it has a watermark.
        on_progress: Called after each frame.

    Raises:
        SettingsError: If the source is neither a video nor an image sequence, or a library is not
            installed; see :func:`faceswap.convert`, which names the other errors, too.
        OutputError: If the package exists or cannot be written.
    """
    _timelines()  # before any work
    exr.check_installed()
    settings = replace(config or ConvertConfig(), intermediate=True)
    job = plan(
        Path(source), Path(output) if output else None, Path(model) if model else None, settings,
        form="package", may_exist=True,
    )  # fmt: skip
    with Resources() as resources:
        return _described(job, carry_out(job, resources, on_progress, unless_done=True))


def redo_package(
    source: str | Path, frames: str, output: str | Path | None = None,
    model: str | Path | None = None, changes: dict[str, Any] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> PackageReport:  # fmt: skip
    """Render some frames of a package anew, with other settings or another model.

    Args:
        source: The footage.
        frames: The frames, such as "120-140,355"; see :func:`faceswap.redo`.
        output: The package's folder [default: as in :func:`package`].
        model: A model's folder or file [default: that of the package, as it is now].
        changes: Settings by name that differ from those of the package.
        on_progress: Called after each frame.

    Raises:
        SettingsError: If a library is not installed; see :func:`faceswap.redo`, which names the
            other errors, too.
    """
    _timelines()  # before any work
    exr.check_installed()
    again = plan_again(source, output, model, changes or {}, "package")
    return _described(again.job, render_again(again, frames, on_progress))


def _described(job: Conversion, report: ConvertReport) -> PackageReport:
    """Write the files that describe the images of a package."""
    assert job.footage is not None, "a package is refused for photos"
    clip = _read(job, job.footage)
    folder = job.target.parent
    script, timeline = _kept_apart(
        folder,
        {f"{clip.name}.nk": script_of(clip), f"{clip.name}.otio": _timeline_of(clip, job.source)},
    )
    return PackageReport(
        folder, script, timeline, clip.first, clip.last, len(clip.starts), report.frames,
        report.faces, report.redone,
    )  # fmt: skip


def _kept_apart(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write files, but not in place of one that somebody else wrote or changed.

    Such a file stays, and ``shot.2.nk`` is written beside ``shot.nk``. The hashes of what was
    written here are kept for that.

    Args:
        folder: The folder.
        texts: Their texts by name.

    Returns:
        The paths that were written.
    """
    try:
        known = parse_json((folder / WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    paths = []
    for name, text in texts.items():
        path = next(
            place for place in _alternatives(folder / name)
            if not place.exists() or known.get(place.name) == sha256_of(place)
        )  # fmt: skip
        if path.name != name:
            log.warning("%s was changed or is not of this package: see %s", folder / name, path)
        write_bytes(path, text.encode())
        known[path.name] = sha256_of(path)
        paths.append(path)
    write_bytes(folder / WRITTEN, (json.dumps(known, indent=1) + "\n").encode())
    return paths


def _alternatives(path: Path) -> Iterator[Path]:
    """Yield a path and others beside it: ``shot.nk``, ``shot.2.nk``, ``shot.3.nk``, ..."""
    yield path
    yield from (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(2))


def _read(job: Conversion, footage: Footage) -> _Clip:
    """Read what the elements say of each frame, write it as JSON files, and find the cuts."""
    folder = job.target.parent
    data = folder / "data"
    make_folder(data)
    records = read_report(report_path(job.target, job.form)).frames
    is_sequence = isinstance(footage, ImageSequence)
    frames, kept = [], set()
    for place, record in enumerate(records):
        image = outputs.image_in(job.outputs["elements"], record, place, is_sequence)
        try:
            facts = json.loads(exr.read_attribute(image, ATTRIBUTE))
        except (OSError, TypeError, ValueError) as error:
            raise OutputError(
                f"{image} is damaged ({error}); delete {folder} and start over"
            ) from error
        write_bytes(data / f"{image.stem}.json", (json.dumps(facts, indent=1) + "\n").encode())
        frames.append(facts)
        kept.add(image.stem)
    _drop_others(job, footage, data, kept)
    with footage.opened() as (_, video):
        rate = Fraction(video.average_rate or 24)
    numbers = {facts["index"]: facts["number"] for facts in frames}
    first, end = excerpt_of(job, footage)
    starts = [
        numbers[index]
        for index, is_cut in enumerate(cuts(excerpt(footage.read(first), end)), start=first)
        if is_cut or index == first
    ]
    if isinstance(footage, ImageSequence):
        before, after = footage.around_number
        digits = len(footage.first_file.name) - len(before) - len(after)
        images = f"{before}%0{digits}d{Path(f'x{after}').stem[1:]}"
        name = before.strip("._- ") or "shot"
    else:
        images, name = "%06d", job.source.stem
    return _Clip(re.sub(r"\W+", "_", name), images, rate, frames, starts)


def _drop_others(job: Conversion, footage: Footage, data: Path, kept: set[str]) -> None:
    """Delete images and data of frames that only an earlier run had, which was overwritten.

    Args:
        job: The conversion.
        footage: Its footage.
        data: The folder of the JSON files.
        kept: Stems of the images that stay.
    """
    files = footage.files if isinstance(footage, ImageSequence) else ()
    originals = {file.stem for file in files}
    for folder in (*job.outputs.values(), data):
        for path in folder.iterdir():
            image = path.with_suffix("") if path.suffix == SIDECAR else path
            is_frame = image.stem in originals if files else image.stem.isdecimal()
            if is_frame and image.suffix in SUFFIXES and image.stem not in kept:
                with writing(path):
                    path.unlink()


def script_of(clip: _Clip) -> str:
    """Return a Nuke script that rebuilds the composite in two ways.

    ``Comp`` merges the elements over the plate, which equals the finished frames. The other way
    starts from the aligned faces, so that each can be changed before an ST map or a corner pin puts
    it back.
    """
    script, (width, height) = Script(), clip.size
    first, last, aspect = clip.first, clip.last, clip.frames[0]["pixel_aspect"]
    images = literal(clip.images)
    script.root(
        first_frame=first, last_frame=last, frame=first, fps=float(clip.rate),
        format=f"{width} {height} 0 0 {width} {height} {aspect:.6g} {clip.name}",
    )  # fmt: skip
    for track in clip.tracks:
        for kind in ("face", "matched"):
            script.layer(layer_of(kind, track), ("red", "green", "blue"))
        for kind in ("mask", "occlusion", "confidence"):
            script.layer(layer_of(kind, track), ("alpha",))
        script.layer(layer_of("st", track), ("red", "green"))

    def read(name: str, folder: str, column: int) -> str:
        return script.add(
            "Read", name, at=(column, 0), file=f"{HERE}/{folder}/{images}.exr", first=first,
            last=last, origfirst=first, origlast=last, on_error="nearest frame", raw=True,
        )  # fmt: skip

    plate, elements, faces = (
        read(name, name.lower(), column)
        for column, name in enumerate(("Plate", "Elements", "Faces"))
    )
    comp = script.add("Merge2", "Comp", [plate, elements], at=(0, 2), operation="over")
    rebuilt = plate
    for column, (track, frames) in enumerate(clip.tracks.items(), start=2):
        corners = _corners(frames, clip.side, height)
        rebuilt = _rebuild(script, track, corners, [rebuilt, elements, faces], column)
    result = script.add("Switch", "Result", [comp, rebuilt], at=(0, 10), which=0)
    script.add(
        "Write", "Output", [result], at=(0, 11), file=f"{HERE}/comp/{images}.exr",
        file_type="exr", create_directories=True, raw=True, disable=True,
    )  # fmt: skip
    return script.text


def _rebuild(script: Script, track: int, corners: Facts, inputs: list[str], column: int) -> str:
    """Add the nodes that put the face of a track into the frame; return the last one."""
    below, elements, faces = inputs
    colors, mask = layer_of("matched", track), layer_of("mask", track)
    channels = {
        f"{colors}.red": "rgba.red", f"{colors}.green": "rgba.green",
        f"{colors}.blue": "rgba.blue", f"{mask}.alpha": "rgba.alpha",
    }  # fmt: skip
    copied: dict[str, str] = {}
    for place, (one, other) in enumerate(channels.items()):
        copied |= {f"from{place}": one, f"to{place}": other}
    face = script.add("Copy", f"Face_{track}", [faces, faces], at=(column, 2), **copied)
    merged = script.add("Premult", f"Premult_{track}", [face], at=(column, 3))
    warped = script.add(
        "STMap", f"STMap_{track}", [merged, elements], at=(column, 4), channels="rgba",
        uv=layer_of("st", track),
    )  # fmt: skip
    pinned = script.add(
        "CornerPin2D", f"CornerPin_{track}", [merged], at=(column + 1, 4), **corners
    )
    chosen = script.add("Switch", f"Way_{track}", [warped, pinned], at=(column, 6), which=0)
    return script.add(
        "Merge2", f"Over_{track}", [below, chosen], at=(0, 2 + column), operation="over"
    )


def _corners(frames: dict[int, Facts], side: int, height: int) -> dict[str, Any]:
    """Return the knobs of a corner pin: where the corners of the crop lie in each frame.

    Nuke counts from the bottom left corner of the image, and pixel centres lie at 0.5.

    Args:
        frames: What is known of the face, by the number of the image.
        side: Height of the images with the crop, which lies at their top left corner.
        height: Height of the frames.
    """
    size = next(iter(frames.values()))["crop"]
    low = side - size
    corners = [(0, low), (size, low), (size, side), (0, side)]  # from the bottom left, as Nuke goes
    knobs: dict[str, Any] = {}
    for place, (x, y) in enumerate(corners, start=1):
        moved = {}
        for number, face in frames.items():
            to_frame = invert(np.array(face["frame_to_crop"]))
            in_crop = np.array([[x - 0.5, side - y - 0.5]])
            left, top = transform(in_crop, to_frame)[0]
            moved[number] = (float(left) + 0.5, height - float(top) - 0.5)
        knobs[f"to{place}"] = [
            {number: point[axis] for number, point in moved.items()} for axis in (0, 1)
        ]
        knobs[f"from{place}"] = [float(x), float(y)]
    return knobs


def _timelines() -> Any:
    try:
        import opentimelineio
    except ImportError as error:
        raise SettingsError("packages need OpenTimelineIO: pip install 'faceswap[film]'") from error
    return opentimelineio


def _timeline_of(clip: _Clip, source: Path) -> str:
    """Return an OpenTimelineIO file with the shots, in the footage and in the finished frames."""
    otio, rate = _timelines(), float(clip.rate)

    def span(start: int, end: int) -> Any:
        return otio.opentime.TimeRange(
            otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(end - start, rate)
        )

    def sequence(folder: str) -> Any:
        before, digits, after = re.split(r"%0(\d+)d", clip.images)
        return otio.schema.ImageSequenceReference(
            target_url_base=f"{folder}/", name_prefix=before, name_suffix=f"{after}.exr",
            start_frame=clip.first, frame_step=1, rate=rate, frame_zero_padding=int(digits),
            available_range=span(clip.first, clip.last + 1),
        )  # fmt: skip

    timeline = otio.schema.Timeline(clip.name)
    ends = [*clip.starts[1:], clip.last + 1]
    for folder in ("plate", "render"):
        track = otio.schema.Track(folder)
        for shot, (start, end) in enumerate(zip(clip.starts, ends, strict=True), start=1):
            track.append(
                otio.schema.Clip(
                    f"{clip.name}_{shot:03d}",
                    sequence(folder),
                    span(start, end),
                    metadata={"faceswap": {"source": source.name}},
                )
            )
        timeline.tracks.append(track)
    return str(timeline.to_json_string())
