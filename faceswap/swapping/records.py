"""What a conversion notes about each frame: its faces, and why each was swapped or not."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from faceswap.errors import OutputError
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import Box, Face, overlap, transform
from faceswap.faces.pose import facing
from faceswap.media.frame import Frame
from faceswap.swapping.compositor import Swap
from faceswap.tracking.appearance import Look, Visits
from faceswap.types import Count, counted

SAME_PLACE = 0.3  # intersection over union of the boxes of one face in two frames
HIDDEN_AREA = 0.01  # a face counts as swapped if at least this share of its crop is pasted
Fate = Literal["swapped", "not chosen", "another person", "smaller", "outside", "hidden"]
# How a frame fared as a whole.
State = Literal["swapped", "partly", "not swapped", "no face"]
# Each fate in words that follow a number of faces.
WORDS: dict[Fate, str] = {
    "swapped": "swapped",
    "not chosen": "left out by --who, --not or --cast",
    "another person": "of people whom the model was not trained to replace",
    "smaller": "smaller than the largest face (--largest)",
    "outside": "outside --frames",
    "hidden": "almost nothing of it can be pasted: hidden, outside the frame or masked out",
}


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """A face that was found in a frame."""

    fate: Annotated[
        Fate,
        Meta(
            description="swapped, or why not. not chosen: it is none of the people of --who or "
            "--cast, or one of --not. another person: the model was trained to replace somebody "
            "else in the footage. smaller: only the largest face is swapped. outside: its frame is "
            "not among --frames. hidden: almost nothing of it is visible."
        ),
    ]
    track: Annotated[
        int, Meta(description="The number that a face keeps through a shot; -1 in photos.")
    ]
    target: Annotated[Count, Meta(description="Index of the entry in the cast file; 0 otherwise.")]
    box: Annotated[
        tuple[float, float, float, float],
        Meta(description="Left, top, right and bottom in pixels of the frame."),
    ]
    score: Annotated[
        float,
        Meta(
            description="Score of the detection from which the face was tracked, on the detector's "
            "scale."
        ),
    ]
    yaw: Annotated[float, Meta(description="Degrees by which the head is turned to the right.")]
    pitch: Annotated[float, Meta(description="Degrees by which the head is lowered.")]
    distance: Annotated[
        float | None,
        Meta(
            description="Embedding distance to the person that the face was compared with; below "
            "0.6 they count as the same. null if it was not compared."
        ),
    ] = None
    area: Annotated[
        float | None,
        Meta(description="Share of the aligned crop that is pasted; null if nothing was tried."),
    ] = None
    bridged: Annotated[
        bool, Meta(description="Whether the face was not found but interpolated between finds.")
    ] = False
    certainty: Annotated[
        float | None,
        Meta(
            description="Probability, from 0 to 1, that this frame shows a face there: YuNet looks "
            "at the aligned crop, whichever detector found the face. null if nothing was tried, or "
            "with --detector blaze."
        ),
    ] = None
    away: Annotated[
        Count | None,
        Meta(
            description="Number of frames before this one in which somebody else was in the place "
            "of this face; null if nobody was."
        ),
    ] = None

    @property
    def place(self) -> Box:
        """The box, as the type that geometry works on."""
        return Box(*self.box)

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """A frame or a photo, with the faces found in it."""

    index: Annotated[
        Count, Meta(description="Frame of the source, counted from 0; number of the photo.")
    ]
    time: Annotated[float, Meta(description="Seconds on the source's own timeline; 0 in photos.")]
    file: Annotated[
        str | None, Meta(description="File name of a photo or image; null in videos.")
    ] = None
    faces: list[FaceRecord] = field(default_factory=list)

    @property
    def state(self) -> State:
        """Whether all, some or none of its faces are swapped, or none was found."""
        if not self.faces:
            return "no face"
        if self.swapped == len(self.faces):
            return "swapped"
        return "partly" if self.swapped else "not swapped"

    def face_at(self, box: Box) -> FaceRecord | None:
        """Return the face that a box overlaps, or None; the box may be from another frame.

        If the box overlaps several faces, the face with the largest overlap is returned.
        """
        best = max(self.faces, key=lambda face: overlap(face.place, box), default=None)
        return best if best and overlap(best.place, box) > SAME_PLACE else None

    @property
    def swapped(self) -> int:
        """Number of faces swapped."""
        return sum(face.fate == "swapped" for face in self.faces)


def record_of(
    frame: Frame, swaps: list[Swap], left_out: list[tuple[Face, Fate]], file: str | None,
    spec: DetectorSpec, visits: Visits | None = None,
) -> FrameRecord:  # fmt: skip
    """Describe a frame and its faces.

    Args:
        frame: The frame.
        swaps: Its swaps from :meth:`Swapper.prepare`.
        left_out: The faces that are not swapped, and why not.
        file: File name of a photo or image.
        spec: The detector, which says how certain each face is.
        visits: Who was seen in the frames before; None in photos.
    """
    faces = [_swapped(frame.index, swap, spec, visits) for swap in swaps]
    faces += [_face(face, why) for face, why in left_out]
    return FrameRecord(frame.index, float(frame.time), file, faces)


def _swapped(frame: int, swap: Swap, spec: DetectorSpec, visits: Visits | None) -> FaceRecord:
    fate, area = _pasted(swap)
    face, crop = swap.aligned.face, swap.aligned.image
    in_crop = replace(face, landmarks=transform(face.landmarks, swap.aligned.matrix))
    away = visits.frames_away(frame, face.box, Look(crop, in_crop)) if visits else None
    certainty = spec.certainty(crop)
    rounded = None if certainty is None else round(certainty, 3)
    return replace(_face(face, fate), area=area, certainty=rounded, away=away)


def is_pasted(swap: Swap) -> bool:
    """Return whether enough of a swap is pasted to count as a swapped face."""
    return _pasted(swap)[0] == "swapped"


def _pasted(swap: Swap) -> tuple[Fate, float]:
    area = float(swap.mask.mean())
    return "swapped" if area >= HIDDEN_AREA else "hidden", round(area, 3)


def _face(face: Face, fate: Fate) -> FaceRecord:
    yaw, pitch, _ = facing(face.landmarks)
    box = face.box
    near = face.distance is not None and np.isfinite(face.distance)
    return FaceRecord(
        fate=fate,
        track=face.track,
        target=face.target,
        box=(round(box.left, 1), round(box.top, 1), round(box.right, 1), round(box.bottom, 1)),
        score=round(float(face.score), 3),
        yaw=round(yaw, 1),
        pitch=round(pitch, 1),
        distance=round(float(face.distance or 0), 3) if near else None,
        bridged=face.bridged,
    )


def to_json(record: FrameRecord) -> Any:
    """Return a record as a JSON value."""
    return msgspec.to_builtins(record)


def from_json(values: Iterable[Any], folder: Path) -> list[FrameRecord]:
    """Return the records that :func:`to_json` turned into JSON values.

    Args:
        values: The JSON values.
        folder: The folder of segments that they come from.

    Raises:
        OutputError: If one is damaged.
    """
    try:
        return [msgspec.convert(value, FrameRecord) for value in values]
    except (ValueError, msgspec.ValidationError) as error:  # one is the other in newer releases
        raise OutputError(
            f"the notes in {folder} are damaged ({error}), so this conversion cannot be resumed: "
            f"delete {folder} to start over"
        ) from error


def counted_fates(records: list[FrameRecord]) -> dict[Fate, int]:
    """Count the faces of all frames by fate."""
    counts: dict[Fate, int] = {}
    for record in records:
        for face in record.faces:
            counts[face.fate] = counts.get(face.fate, 0) + 1
    return counts


def why_none(records: list[FrameRecord], unit: str) -> str:
    """Say why no face was swapped: none was found, or how many were found and why each was not.

    Args:
        records: The frames or photos.
        unit: "frame" or "photo".
    """
    counts = counted_fates(records)
    if not counts:
        return f"no face found in {counted(len(records), unit)}"
    reasons = ", ".join(f"{number} {WORDS[fate]}" for fate, number in counts.items())
    strangers: tuple[Fate, ...] = ("not chosen", "another person")
    distances = [
        face.distance
        for record in records
        for face in record.faces
        if face.distance is not None and face.fate in strangers
    ]
    near = ""
    if distances:
        near = f" (nearest distance {min(distances):.2f}; below 0.6 is the same person)"
    return (
        f"{counted(sum(counts.values()), 'face')} found in {counted(len(records), unit)}, but none "
        f"is swapped: {reasons}{near}"
    )
