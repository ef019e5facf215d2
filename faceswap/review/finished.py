"""A finished conversion: its frames beside the original's, and the frames that a person marked.

The marks are a text file beside the output, ``video.swapped.marks.txt``, in the words of
``--redo``: "120-140,355".
"""

import re
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from faceswap.arrays import Image
from faceswap.config import rate_of
from faceswap.errors import InputError, SettingsError
from faceswap.files import write_bytes
from faceswap.media.footage import Footage, ImageSequence, identify, video_at
from faceswap.media.photos import read_photo
from faceswap.review.footage import Reader
from faceswap.review.jobs import options
from faceswap.review.workspace import Workspace, refuse_link
from faceswap.swapping.outputs import image_in, is_in_package, kept_colorspace
from faceswap.swapping.records import FrameRecord
from faceswap.swapping.report import FrameReport, read_report
from faceswap.swapping.troubles import is_serious

ENDING = ".report.json"
MARKS = ".marks.txt"
RANGES = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")
Side = Literal["before", "after"]


class RedoRequest(msgspec.Struct):
    """Settings with which marked frames are rendered again; None keeps that of the conversion."""

    color: Literal["auto", "average", "reinhard", "linear", "histogram", "none"] | None = None
    mask: Literal["skin", "hull", "square", "learned", "product"] | None = None
    blend: Literal["alpha", "linear", "poisson", "pyramid"] | None = None
    identity_strength: Annotated[float, Meta(ge=0, le=2)] | None = None
    expression_range: Annotated[float, Meta(ge=0, le=100)] | None = None


class MarkRequest(msgspec.Struct):
    """The places in the output of the frames that are marked."""

    places: list[int]


class Finished:
    """A conversion whose report is in the workspace.

    Args:
        path: The report.
        workspace: The workspace. An original outside it is not shown.

    Raises:
        InputError: If the report is damaged.
    """

    def __init__(self, path: Path, workspace: Workspace) -> None:
        self.path = path
        self.report: FrameReport = read_report(path)
        self.output = path.parent / Path(self.report.output).name
        self.source = Path(self.report.source)
        if not workspace.holds(self.output):
            raise InputError("this output is a link that leaves the workspace")
        self.has_source = self.source.exists() and workspace.holds(self.source)
        beside = path.parent / self.source.name
        if not self.has_source and beside.exists() and workspace.holds(beside):
            self.source, self.has_source = beside, True  # both were moved, or copied here
        self._workspace = workspace
        self._readers: dict[Side, Reader] = {}
        self._footage: Footage | None = None
        if self.has_source:
            settings = self.report.settings
            images = str(settings.get("images", "auto"))
            _, self._footage = identify(
                self.source, images, rate_of(settings.get("fps")), settings.get("colorspace")
            )

    @property
    def _records(self) -> list[FrameRecord]:
        return self.report.frames

    def image(self, place: int, side: Side) -> Image:
        """Return a frame of the original or of the output, (H, W, 3).

        Args:
            place: Its place in the output, from 0.
            side: "before" for the original.

        Raises:
            InputError: If it cannot be read, or lies outside the workspace.
        """
        if not 0 <= place < len(self._records):
            raise InputError(f"there is no frame {place}; load the page again")
        record = self._records[place]
        if side == "before" and not self.has_source:
            raise InputError("the original is not in the workspace")
        if side == "before" and self._footage:
            return self._reader(side, self._footage).frame(record.index)
        stated = self.report.settings.get("colorspace")
        if side == "after" and self.output.is_file() and not record.file:
            first = self._footage.first_file if self._footage else self.source
            space = kept_colorspace(self.output, first, stated)
            return self._reader(side, video_at(self.output, space)).frame(place)
        path = self._file(record, place, side)
        if not self._workspace.holds(path):
            raise InputError("this image is a link that leaves the workspace")
        original = Path(record.file or self.source.name)
        return read_photo(path, kept_colorspace(path, original, stated)).image

    def _reader(self, side: Side, footage: Footage) -> Reader:
        if side not in self._readers:
            self._readers[side] = Reader(footage)
        return self._readers[side]

    def _file(self, record: FrameRecord, place: int, side: Side) -> Path:
        """Return the file of a photo, or of a frame that became an image."""
        if side == "before":
            inside = self.source / str(record.file)
            return inside if self.source.is_dir() else self.source
        if self.output.is_file():
            return self.output
        is_sequence = isinstance(self._footage, ImageSequence)
        return image_in(self.output, record, place, is_sequence)

    def facts(self) -> dict[str, Any]:
        """Return what the page shows beside the frames.

        Returns:
            The names; "states", what became of the faces of each frame; "troubles" by places, the
            worst first; and "marks", the places of the marked frames.
        """
        first = {record.index: place for place, record in enumerate(self._records)}
        return {
            "output": self.report.output,
            "source": self.source.name,
            "hasSource": self.has_source,
            "frames": [record.file or record.index for record in self._records],
            "times": [round(record.time, 3) for record in self._records],
            "states": [record.state for record in self._records],
            "fates": [[face.fate for face in record.faces] for record in self._records],
            "troubles": [
                {"kind": t.kind, "first": first[t.first], "last": first[t.last],
                 "serious": is_serious(t.kind)}
                for t in self.report.troubles if t.first in first and t.last in first
            ],
            "marks": self.marks(),
            "redone": [f"{one.frames}: {one.changes}" for one in self.report.redone],
        }  # fmt: skip

    @property
    def marks_path(self) -> Path:
        """The file of the marks."""
        return self.path.with_name(self.path.name.removesuffix(ENDING) + MARKS)

    def marks(self) -> list[int]:
        """Return the places of the marked frames.

        Raises:
            InputError: If their file is damaged or a link.
        """
        refuse_link(self.marks_path)
        try:
            text = self.marks_path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InputError(f"{self.marks_path} cannot be read: {error}") from error
        if not text:
            return []
        if not RANGES.fullmatch(text):
            raise InputError(f"{self.marks_path} must hold frames such as 120-140,355")
        spans = [[int(number) for number in part.split("-")] for part in text.split(",")]
        return [
            place for place, number in enumerate(self._numbers())
            if any(span[0] <= number <= span[-1] for span in spans)
        ]  # fmt: skip

    def mark(self, places: list[int]) -> list[int]:
        """Write which frames are marked, and return them.

        Raises:
            InputError: If a frame does not exist, or the file is a link.
            OutputError: If it cannot be written.
        """
        if any(not 0 <= place < len(self._records) for place in places):
            raise InputError("some of these frames do not exist; load the page again")
        self.marks()
        write_bytes(self.marks_path, f"{self.ranges(places)}\n".encode())
        return self.marks()

    def ranges(self, places: list[int]) -> str:
        """Return frames in the words of ``--redo``."""
        numbers = self._numbers()
        chosen = sorted(numbers[place] for place in set(places))
        runs = []
        for _, group in groupby(enumerate(chosen), key=lambda item: item[1] - item[0]):
            run = [number for _, number in group]
            runs.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
        return ",".join(runs)

    def _numbers(self) -> list[int]:
        """Return the numbers by which ``--redo`` knows the frames."""
        if isinstance(self._footage, ImageSequence):
            return [self._footage.number_of(record.index) for record in self._records]
        return [record.index for record in self._records]

    def redo_arguments(self, asked: RedoRequest) -> list[str]:
        """Return the command that renders the marked frames again.

        Raises:
            SettingsError: If no frame is marked, or the original is not there.
        """
        marked = self.marks()
        if not marked:
            raise SettingsError("no frame is marked; mark some with M")
        if not self.has_source:
            raise SettingsError(f"the original {self.source} is not in the workspace")
        command, output = "convert", self.output
        if is_in_package(output):
            command, output = "package", output.parent
        args = [command, str(self.source), "--redo", self.ranges(marked), "-o", str(output)]
        changes: dict[str, Any] = msgspec.structs.asdict(asked)
        return args + options({name: v for name, v in changes.items() if v is not None})
