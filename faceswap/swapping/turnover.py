"""Hand a conversion over to compositors: images, data, a Nuke script and an OpenTimelineIO file."""

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from faceswap.config import ConvertConfig
from faceswap.errors import OutputError, SettingsError
from faceswap.faces.geometry import invert, transform
from faceswap.files import make_folder, sha256_of, write_bytes, writing
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
    redone: Annotated[Count, Meta(description="Frames that --redo rendered again.")]


@dataclass(frozen=True, slots=True)
class _Clip:
    """What a package's files say of its footage.

    Attributes:
        name: A name for it.
        naming: What is before the number in the names of its images, how many digits it has at
            least, and what is after it, without the suffix.
        rate: Frames per second.
        frames: What is known of each frame.
        starts: Numbers of the first image of each shot.
    """

    name: str
    naming: tuple[str, int, str]
    rate: Fraction
    frames: list[Facts]
    starts: list[int]

    @property
    def images(self) -> str:
        """The pattern of its images without a suffix, such as ``shot.%04d``."""
        before, digits, after = self.naming
        return f"{before}%0{digits}d{after}"

    def stem_of(self, number: int) -> str:
        """Return the name of an image without its suffix."""
        before, digits, after = self.naming
        return f"{before}{number:0{digits}d}{after}"

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
    """Render some frames of a package again, with other settings or another model.

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
    footage, side = again.job.footage, again.job.swapper.side
    assert footage is not None, "a package is refused for photos"
    before = next(_facts_of(again.job, footage))["faces_side"]
    if side != before:  # all images of the faces have one size
        raise SettingsError(
            f"the faces of this package have {before} px, but this model draws {side} px: package "
            f"{source} again"
        )
    return _described(again.job, render_again(again, frames, on_progress))


def _described(job: Conversion, report: ConvertReport) -> PackageReport:
    """Write the files that describe the images of a package."""
    assert job.footage is not None, "a package is refused for photos"
    folder = job.target.parent
    clip = _clip_of(job, job.footage)
    _write_data(folder / "data", clip)
    _drop_others([*job.outputs.values(), folder / "data"], clip)
    script, timeline = _kept_apart(
        folder,
        {f"{clip.name}.nk": script_of(clip), f"{clip.name}.otio": _timeline_of(clip, job.source)},
    )
    return PackageReport(
        folder, script, timeline, clip.first, clip.last, len(clip.starts), report.frames,
        report.faces, report.redone,
    )  # fmt: skip


def _facts_of(job: Conversion, footage: Footage) -> Iterator[Facts]:
    """Yield what the elements say of each frame.

    Raises:
        OutputError: If one of them is damaged.
    """
    is_sequence = isinstance(footage, ImageSequence)
    for place, record in enumerate(read_report(report_path(job.target, job.form)).frames):
        image = outputs.image_in(job.outputs["elements"], record, place, is_sequence)
        try:
            facts = json.loads(exr.read_attribute(image, ATTRIBUTE))
            if "faces_side" not in facts:
                raise ValueError("another release of faceswap wrote it")
        except (OSError, TypeError, ValueError) as error:
            raise OutputError(
                f"{image} is damaged ({error}); delete {job.target.parent} and start over"
            ) from error
        yield facts


def _clip_of(job: Conversion, footage: Footage) -> _Clip:
    """Return what the files of a package say of its footage."""
    frames = list(_facts_of(job, footage))
    with footage.opened() as (_, video):
        rate = Fraction(video.average_rate or 24)
    read = footage.read(int(frames[0]["index"]))
    starts = [
        int(facts["number"])
        for facts, is_cut in zip(frames, cuts(read), strict=False)  # there may be more footage
        if is_cut or facts is frames[0]
    ]
    if not isinstance(footage, ImageSequence):
        return _Clip(_as_name(job.source.stem), ("", 6, ""), rate, frames, starts)
    before, after = footage.around_number
    digits = len(footage.first_file.name) - len(before) - len(after)
    naming = before, digits, after.removesuffix(footage.first_file.suffix)
    return _Clip(_as_name(before.strip("._- ") or "shot"), naming, rate, frames, starts)


def _as_name(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def _write_data(folder: Path, clip: _Clip) -> None:
    """Write a JSON file for each frame."""
    make_folder(folder)
    for facts in clip.frames:
        text = json.dumps(facts, indent=1) + "\n"
        write_bytes(folder / f"{clip.stem_of(facts['number'])}.json", text.encode())


def _drop_others(folders: Iterable[Path], clip: _Clip) -> None:
    """Delete the images and data of frames that only an earlier run had, which was overwritten."""
    before, _, after = clip.naming
    frame = re.compile(rf"{re.escape(before)}\d+{re.escape(after)}")
    kept = {clip.stem_of(facts["number"]) for facts in clip.frames}
    for folder in folders:
        for path in folder.iterdir():
            image = path.with_suffix("") if path.suffix == SIDECAR else path
            is_ours = image.suffix in SUFFIXES and frame.fullmatch(image.stem)
            if is_ours and image.stem not in kept:
                with writing(path):
                    path.unlink()


def _kept_apart(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write files, but not in place of one that somebody else wrote or changed.

    Such a file stays, and ``shot.2.nk`` is written beside ``shot.nk``. The hashes of the last two
    texts of each file are kept for that; the last one may not have been written.

    Args:
        folder: The folder.
        texts: Their texts by name.

    Returns:
        The files that hold these texts, or what somebody made of them.
    """
    known, paths = _hashes_in(folder / WRITTEN), []
    for name, text in texts.items():
        new = hashlib.sha256(text.encode()).hexdigest()
        for path in _alternatives(folder / name):
            ours = known.get(path.name, [])
            if not path.exists() or sha256_of(path) in ours:
                known[path.name] = [*ours[-1:], new]
                write_bytes(folder / WRITTEN, (json.dumps(known, indent=1) + "\n").encode())
                write_bytes(path, text.encode())
                if path.name != name:
                    log.warning("%s was changed, so the new one is %s", folder / name, path)
                break
            if new in ours[-1:]:  # it was changed, but nothing is new
                break
        paths.append(path)
    return paths


def _hashes_in(path: Path) -> dict[str, list[str]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, msgspec.MsgspecError):  # then every file there counts as changed
        return {}


def _alternatives(path: Path) -> Iterator[Path]:
    """Yield a path and others beside it: ``shot.nk``, ``shot.2.nk``, ``shot.3.nk``, ..."""
    yield path
    yield from (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(2))


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
    """Return the knobs of a corner pin: where the corners of an aligned face lie in each frame.

    Nuke counts from the bottom left corner of the image, and pixel centres lie at 0.5.

    Args:
        frames: What is known of the face, by the number of the image.
        side: Width and height of the images of aligned faces.
        height: Height of the frames.
    """
    corners = [(0, 0), (side, 0), (side, side), (0, side)]  # from the bottom left, as Nuke goes
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
        before, digits, after = clip.naming
        return otio.schema.ImageSequenceReference(
            target_url_base=f"{folder}/", name_prefix=before, name_suffix=f"{after}.exr",
            start_frame=clip.first, frame_step=1, rate=rate, frame_zero_padding=digits,
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
