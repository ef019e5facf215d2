"""The report of a conversion: what happened to the faces of every frame, and what looks wrong."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from faceswap.files import fitting, write_bytes
from faceswap.media.segments import Unfinished
from faceswap.swapping.outputs import FOLDERS
from faceswap.swapping.plan import Conversion
from faceswap.swapping.records import Fate, FrameRecord, counted_fates
from faceswap.swapping.troubles import Trouble
from faceswap.types import Count

VERSION = 1


@dataclass(slots=True)
class ConvertReport:
    """The result of a conversion."""

    output: Annotated[Path, Meta(description="The file or folder written.")]
    model: Annotated[
        Path | None,
        Meta(
            description="The model's folder or file; null if the call names none, as with --cast "
            "and no --model."
        ),
    ] = None
    report: Annotated[Path | None, Meta(description="The report on every frame, a JSON file.")] = (
        None
    )
    page: Annotated[Path | None, Meta(description="The HTML page of --html; null without it.")] = (
        None
    )
    frames: Annotated[Count, Meta(description="Photos or frames written.")] = 0
    faces: Annotated[Count, Meta(description="Faces swapped.")] = 0
    without_face: Annotated[
        Count, Meta(description="Photos or frames in which no face was swapped.")
    ] = 0
    not_swapped: Annotated[
        dict[Fate, Count],
        Meta(description="Number of faces that were found but not swapped, by reason."),
    ] = field(default_factory=dict)
    troubles: Annotated[
        list[Trouble],
        Meta(description="Runs of frames that may look wrong, the most serious first."),
    ] = field(default_factory=list)
    unreadable: Annotated[
        list[str], Meta(description="Photos that could not be read, and why.")
    ] = field(default_factory=list)
    left_out: Annotated[list[str], Meta(description="Files of the folder that are not photos.")] = (
        field(default_factory=list)
    )
    detector: Annotated[
        str, Meta(description="Names of the detectors in the order in which they are tried.")
    ] = ""
    resumed: Annotated[
        Count, Meta(description="Photos or frames taken over from an interrupted run.")
    ] = 0
    unfinished: Annotated[
        list[Unfinished],
        Meta(
            description="Other unfinished conversions to the same output, from another source or "
            "with another model or other settings. Their segments are kept."
        ),
    ] = field(default_factory=list)

    def finish(self, job: Conversion, records: list[FrameRecord], troubles: list[Trouble]) -> None:
        """Fill in the counts from what happened to each frame, and write the report on every frame.

        Raises:
            OutputError: If it cannot be written.
        """
        self.frames = len(records)
        self.faces = sum(record.swapped for record in records)
        self.without_face = sum(not record.swapped for record in records)
        fates = counted_fates(records)
        self.not_swapped = {fate: n for fate, n in fates.items() if fate != "swapped"}
        self.troubles = troubles
        self.report = _write_report(job, records, troubles)


@dataclass(frozen=True, slots=True)
class FrameReport:
    """The report on every frame that lies beside the output of a conversion."""

    version: Count
    source: Annotated[str, Meta(description="The footage.")]
    output: Annotated[str, Meta(description="The file or folder written.")]
    model: Annotated[str, Meta(description="Names of the models.")]
    model_sha256: Annotated[str, Meta(description="SHA-256 of the model files.")]
    settings: Annotated[dict[str, Any], Meta(description="Settings of the conversion.")]
    detector: Annotated[str, Meta(description="Names of the detectors.")]
    faces: Annotated[dict[Fate, Count], Meta(description="Number of faces by what happened.")]
    troubles: Annotated[
        list[Trouble], Meta(description="Runs of frames that may look wrong, the worst first.")
    ]
    frames: list[FrameRecord]


def report_path(target: Path, form: str) -> Path:
    """Return where the report of a conversion is written: ``video.swapped.report.json``."""
    stem = target.name if form in FOLDERS else target.stem
    return target.with_name(fitting(stem, ".report.json"))


def _write_report(job: Conversion, records: list[FrameRecord], troubles: list[Trouble]) -> Path:
    """Write the report of a conversion beside its output, and return its path."""
    report = FrameReport(
        VERSION, str(job.source), job.target.name, job.model.name, job.model.sha256,
        job.config.to_dict(), job.spec.describe(), counted_fates(records), troubles, records,
    )  # fmt: skip
    path = report_path(job.target, job.form)
    head = msgspec.to_builtins(report)
    frames = head.pop("frames")
    lines = ",\n".join(json.dumps(frame) for frame in frames)  # one line a frame, for diffs
    text = json.dumps(head, indent=1)[:-2] + f',\n "frames": [\n{lines}\n]}}\n'
    write_bytes(path, text.encode())
    return path
