"""A conversion as one self-contained HTML page: what to look at, and what it looks like.

The page is made from the report on every frame and from frames of the source and of the output, so
it is written after the output exists.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from faceswap import pages
from faceswap.arrays import Image
from faceswap.errors import FaceswapError
from faceswap.files import write_bytes
from faceswap.media.footage import Footage, ImageSequence, video_at
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.swapping.outputs import FOLDERS, image_in, kept_colorspace
from faceswap.swapping.plan import Conversion
from faceswap.swapping.records import WORDS, FaceRecord, Fate, FrameRecord, State
from faceswap.swapping.report import ConvertReport, beside, read_report
from faceswap.swapping.troubles import Kind, Trouble, is_serious
from faceswap.types import clock, counted

log = logging.getLogger(__name__)

MAX_RUNS = 50  # runs of frames, or photos of one section, that the page shows
SHOTS = 3  # frames of a run, and samples of the whole
THUMBNAIL = 320  # pixels, the longer side
JPEG_QUALITY = 80
NEAR = 250  # frames; decoding on is faster than seeking to a frame that is nearer
COLUMNS = 1000  # of the timeline
MIN_MARK = 3.0  # columns, so that a trouble of a single frame is visible

COLORS: dict[Fate, tuple[int, int, int]] = {
    "swapped": (46, 204, 113), "not chosen": (255, 159, 28), "another person": (232, 67, 147),
    "smaller": (255, 221, 51), "outside": (170, 178, 189), "hidden": (77, 171, 247),
}  # fmt: skip
HALO = (0, 0, 0)  # around a box, so that it stands out from any footage
MEANING: dict[Kind, str] = {
    "missing frame": "The footage skips a time or a number here, so movement may jerk.",
    "lost face": "A swapped face is not found, though it is before and after, so the original may "
    "show.",
    "no face": "No face is found.",
    "no match": "Faces are found, but none of them is to be swapped.",
    "identity flicker": "The face in one place changes back and forth: another track, another "
    "person, or swapped and not swapped.",
    "sudden jump": "A face leaves its path for one frame.",
    "mask anomaly": "Much more or much less of a face is pasted than in the frames around.",
    "low score": "The frame hardly shows the face.",
    "small face": "The face is too small for much detail.",
    "extreme pose": "The head is turned or lowered so far that little can be expected of the swap.",
}  # fmt: skip
STATES: dict[State, str] = {
    "swapped": "all faces swapped", "partly": "some faces swapped",
    "not swapped": "faces found, none swapped", "no face": "no face found",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame or photo: the original beside the output.

    Attributes:
        name: What a user calls it, such as "frame 12" or a file name.
        time: Its time; empty if it has none.
        faces: What became of each face, with its fate.
        original: The frame of the source with its faces marked, JPEG; None if it cannot be read.
        output: The frame of the output, JPEG; None if it cannot be read.
    """

    name: str
    time: str
    faces: list[tuple[Fate, str]]
    original: bytes | None
    output: bytes | None


@dataclass(frozen=True, slots=True)
class Section:
    """A run of frames that may look wrong, or photos with something in common.

    Attributes:
        title: What is wrong, in a few words.
        where: Frames and times, or a number of photos.
        meaning: What is wrong, in a sentence.
        serious: Whether it is among the worst kinds.
        shots: Some of its frames or photos.
    """

    title: str
    where: str
    meaning: str
    serious: bool
    shots: list[Shot]


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of the timeline, in columns."""

    start: float
    width: float
    kind: str
    title: str
    target: int | None = None  # number of the section that shows it


def page_path(target: Path, form: str) -> Path:
    """Return where the page of a conversion is written: ``video.swapped.report.html``."""
    return beside(target, form, ".report.html")


def write_page(job: Conversion, report: ConvertReport) -> Path:
    """Write the page of a finished conversion beside its output, and return its path.

    Frames that can no longer be read are left out.

    Raises:
        OutputError: If the page cannot be written.
    """
    assert report.report is not None, "a finished conversion has a report"
    records = read_report(report.report).frames
    clip = _Clip(job, records)
    chosen, build = (_runs if job.footage else _photos)(clip, report.troubles)
    samples = _spread(range(len(records)), SHOTS)
    shots = clip.shots({*samples, *(at for places in chosen for at in places)})
    text = pages.render(
        "faceswap.swapping", "page.html.j2",
        report=report, source=str(job.source), target=job.target.name, model=job.model.name,
        unit="frame" if job.footage else "photo", counted=counted, WORDS=WORDS, COLORS=COLORS,
        sections=build(shots), more=max(len(report.troubles) - MAX_RUNS, 0),
        samples=[shots[at] for at in samples], css=_css_name,
        timeline=_timeline(clip, report.troubles) if job.footage else None,
        states=STATES, columns=COLUMNS, ends=(clip.name(0), clip.name(len(records) - 1)),
    )  # fmt: skip
    path = page_path(job.target, job.form)
    # A name may hold bytes that are not UTF-8.
    write_bytes(path, text.encode(errors="replace"))
    return path


class _Clip:
    """The frames of a conversion by their places in its report."""

    def __init__(self, job: Conversion, records: Sequence[FrameRecord]) -> None:
        self._job, self.records = job, records
        self._start = job.footage.probe().start if job.footage else Fraction(0)

    def name(self, at: int) -> str:
        record = self.records[at]
        return record.file or f"frame {record.index}"

    def time(self, at: int) -> str:
        """Return the time of a frame from the beginning of the source, such as 1:02.040."""
        if not self._job.footage:
            return ""
        return clock(self.records[at].time - float(self._start), 3)

    def place(self, index: int) -> int:
        """Return the place of the frame with an index in the source."""
        return index - self.records[0].index

    def shots(self, places: Iterable[int]) -> dict[int, Shot]:
        """Read frames of source and output, and return them by place."""
        wanted = sorted(places)
        originals = self._read(self._originals, wanted, lambda at: self.records[at].faces)
        outputs = self._read(self._outputs, wanted, lambda _: [])
        return {
            at: Shot(self.name(at), self.time(at), _told(self.records[at].faces),
                     originals.get(at), outputs.get(at))
            for at in wanted
        }  # fmt: skip

    def _read(
        self, read: Callable[[list[int]], Iterator[tuple[int, Frame]]], places: list[int],
        faces: Callable[[int], list[FaceRecord]],
    ) -> dict[int, bytes]:  # fmt: skip
        """Return thumbnails by place, as JPEG; those that cannot be read are missing."""
        found = {}
        try:
            for at, frame in read(places):
                found[at] = _thumbnail(frame.image, faces(at))
        except FaceswapError as error:
            log.warning("the page lacks images, because they cannot be read again: %s", error)
        return found

    def _originals(self, places: list[int]) -> Iterator[tuple[int, Frame]]:
        job = self._job
        if job.footage:
            indices = [self.records[at].index for at in places]
            yield from zip(places, _frames(job.footage, indices), strict=False)
            return
        for at in places:
            is_folder = job.kind == "photos"
            photo = job.source / self.name(at) if is_folder else job.source
            yield at, read_photo(photo, job.config.colorspace)

    def _outputs(self, places: list[int]) -> Iterator[tuple[int, Frame]]:
        if self._job.form in (*FOLDERS, "photo"):
            files = ((at, self._file(at)) for at in places)
            yield from ((at, read_photo(file, self._colorspace(file))) for at, file in files)
            return
        footage = video_at(self._job.target, self._colorspace(self._job.target))
        yield from zip(places, _frames(footage, places), strict=False)

    def _colorspace(self, output: Path) -> str | None:
        """Return the colour space of something that was written."""
        original = self._job.footage.first_file if self._job.footage else self._job.source
        return kept_colorspace(output, original, self._job.config.colorspace)

    def _file(self, at: int) -> Path:
        """Return the image that was written for a photo or a frame."""
        job, record = self._job, self.records[at]
        if job.form == "photo":
            return job.target
        return image_in(job.target, record, at, isinstance(job.footage, ImageSequence))


def _frames(footage: Footage, indices: list[int]) -> Iterator[Frame]:
    """Yield the frames with these indices, which must ascend; stop at the end of the footage."""
    frames: Iterator[Frame] = iter(())
    before = -NEAR - 1
    for index in indices:
        if index - before > NEAR:
            frames = footage.read(index)
        found = next((frame for frame in frames if frame.index >= index), None)
        if found is None:
            return
        yield found
        before = index


def _thumbnail(image: Image, faces: list[FaceRecord]) -> bytes:
    """Return a small JPEG of an image (H, W, 3) in which faces are marked by fate."""
    height, width = image.shape[:2]
    scale = min(THUMBNAIL / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for face in faces:
        corners = np.rint(np.multiply(face.box, scale)).astype(int)
        first, last = corners[:2].tolist(), corners[2:].tolist()
        cv2.rectangle(small, first, last, HALO, 4)
        cv2.rectangle(small, first, last, COLORS[face.fate], 2)
    if len(faces) > 1:
        for number, face in enumerate(faces, start=1):
            _write(small, str(number), face, scale)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _write(image: Image, text: str, face: FaceRecord, scale: float) -> None:
    """Write a face's number into the top left corner of its box, or of what is visible of it."""
    place = max(round(face.box[0] * scale), 0) + 4, max(round(face.box[1] * scale), 0) + 18
    for color, thickness in ((HALO, 3), (COLORS[face.fate], 1)):
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness,
                    cv2.LINE_AA)  # fmt: skip


def _told(faces: list[FaceRecord]) -> list[tuple[Fate, str]]:
    numbers = len(faces) > 1
    return [
        (face.fate, f"{number}: {face.fate}" if numbers else face.fate)
        for number, face in enumerate(faces, start=1)
    ]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Return the first, the last and evenly spaced ones between, at most ``count``."""
    chosen = np.linspace(0, len(places) - 1, min(count, len(places)))
    return [places[round(at)] for at in chosen.tolist()]


Build = Callable[[dict[int, Shot]], list[Section]]


def _runs(clip: _Clip, troubles: list[Trouble]) -> tuple[list[list[int]], Build]:
    """Choose the frames of the worst runs, and return what builds their sections."""
    shown = troubles[:MAX_RUNS]
    spans = [(clip.place(found.first), clip.place(found.last)) for found in shown]
    chosen = [_spread(range(first, last + 1), SHOTS) for first, last in spans]

    def build(shots: dict[int, Shot]) -> list[Section]:
        return [
            Section(found.kind, _where(clip, *span), MEANING[found.kind],
                    is_serious(found.kind), [shots[at] for at in places])
            for found, span, places in zip(shown, spans, chosen, strict=True)
        ]  # fmt: skip

    return chosen, build


def _where(clip: _Clip, first: int, last: int) -> str:
    names, times = (clip.name(first), clip.name(last)), (clip.time(first), clip.time(last))
    if first == last:
        return f"{names[0]}, at {times[0]}"
    named = (
        f"{names[0]} to {names[1]}"
        if clip.records[first].file
        else f"frames {clip.records[first].index} to {clip.records[last].index}"
    )
    return f"{named}, {times[0]} to {times[1]}, {last - first + 1} frames"


def _photos(clip: _Clip, _: list[Trouble]) -> tuple[list[list[int]], Build]:
    """Choose photos in which faces are not swapped, and return what builds their sections."""
    places: dict[State, list[int]] = defaultdict(list)
    for at, record in enumerate(clip.records):
        places[record.state].append(at)
    kinds: list[tuple[State, str]] = [
        ("not swapped", "Faces are found, but none of them is swapped."),
        ("no face", "No face is found. The photo is copied as it is."),
        ("partly", "Some faces are swapped, others are left as they are."),
    ]
    found = [(state, meaning) for state, meaning in kinds if places[state]]
    chosen = [places[state][:MAX_RUNS] for state, _ in found]

    def build(shots: dict[int, Shot]) -> list[Section]:
        return [
            Section(STATES[state], _share(len(shown), len(places[state])), meaning,
                    state == "not swapped", [shots[at] for at in shown])
            for (state, meaning), shown in zip(found, chosen, strict=True)
        ]  # fmt: skip

    return chosen, build


def _share(shown: int, number: int) -> str:
    return counted(number, "photo") + (f", {shown} of them here" if shown < number else "")


def _timeline(clip: _Clip, troubles: list[Trouble]) -> dict[str, list[Mark]]:
    """Return the marks of each lane: faces, serious troubles, and other troubles."""
    number = len(clip.records)
    columns = min(number, COLUMNS)
    width = COLUMNS / columns
    edges = np.linspace(0, number, columns + 1).round().astype(int).tolist()
    order = list(STATES)
    # A column of several frames shows the least fortunate one.
    of_frames = [record.state for record in clip.records]
    states = [max(of_frames[a:b], key=order.index) for a, b in pairwise(edges)]
    faces, at = [], 0
    for state, group in groupby(states):
        length = len(list(group))
        title = f"{STATES[state]}: {_where(clip, edges[at], edges[at + length] - 1)}"
        faces.append(Mark(at * width, length * width, _css_name(state), title))
        at += length
    lanes: dict[str, list[Mark]] = {"faces": faces, "serious": [], "other": []}
    for rank, found in enumerate(troubles[:COLUMNS]):
        span = clip.place(found.first), clip.place(found.last)
        start = span[0] / number * COLUMNS
        wide = max((span[1] + 1 - span[0]) / number * COLUMNS, MIN_MARK)
        lane = "serious" if is_serious(found.kind) else "other"
        lanes[lane].append(
            Mark(min(start, COLUMNS - wide), wide, lane, f"{found.kind}: {_where(clip, *span)}",
                 rank if rank < MAX_RUNS else None)
        )  # fmt: skip
    return lanes


def _css_name(words: Any) -> str:
    return str(words).replace(" ", "-")
