"""The report of a conversion: what happened to the faces of every frame, and what looks wrong."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from faceswap.errors import InputError
from faceswap.files import fitting, parse_json, write_bytes
from faceswap.media.segments import Unfinished, digest_of
from faceswap.swapping.outputs import FOLDERS
from faceswap.swapping.records import Fate, FrameRecord, counted_fates
from faceswap.swapping.shots import Shot
from faceswap.swapping.troubles import Trouble
from faceswap.types import Count

if TYPE_CHECKING:  # reading a report needs no torch, which takes 1-2 s to import
    from faceswap.swapping.plan import Conversion

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
    done_before: Annotated[
        bool,
        Meta(
            description="Whether an earlier run did the same conversion, so that this one left the "
            "output alone. This can happen only if several sources are converted."
        ),
    ] = False
    redone: Annotated[Count, Meta(description="Frames that --redo rendered again.")] = 0
    consent_not_stated: Annotated[
        list[str],
        Meta(description="People of the models whose consent is not stated in them."),
    ] = field(default_factory=list)
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

    def finish(
        self, job: "Conversion", key: dict[str, Any], records: list[FrameRecord],
        troubles: list[Trouble],
    ) -> None:  # fmt: skip
        """Fill in the counts from what happened to each frame, and write the report on every frame.

        Args:
            job: The conversion.
            key: What determines its result; see :func:`plan.key_of`.
            records: What happened to each frame.
            troubles: The runs of frames that may look wrong.

        Raises:
            OutputError: If the report cannot be written.
        """
        self.count(records, troubles)
        self.report = _write_report(job, key, records, troubles)

    def count(self, records: list[FrameRecord], troubles: list[Trouble]) -> None:
        """Fill in the counts from what happened to each frame."""
        self.frames = len(records)
        self.faces = sum(record.swapped for record in records)
        self.without_face = sum(not record.swapped for record in records)
        fates = counted_fates(records)
        self.not_swapped = {fate: n for fate, n in fates.items() if fate != "swapped"}
        self.troubles = troubles


@dataclass(frozen=True, slots=True)
class Redone:
    """Frames that were rendered again after the conversion."""

    frames: Annotated[str, Meta(description="The frames, as given to --redo.")]
    model: Annotated[str, Meta(description="Names of the models.")]
    model_sha256: Annotated[str, Meta(description="SHA-256 of the model files.")]
    changes: Annotated[
        dict[str, Any], Meta(description="Settings that differ from those of the conversion.")
    ]
    shots: Annotated[
        list[Shot], Meta(description="Settings of single shots, as the shots file was then.")
    ] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrameReport:
    """The report on every frame that lies beside the output of a conversion."""

    version: Count
    source: Annotated[str, Meta(description="The footage.")]
    output: Annotated[str, Meta(description="The file or folder written.")]
    key: Annotated[
        str,
        Meta(
            description="Hash of everything that determines the result: source, model, settings "
            "and versions."
        ),
    ]
    model: Annotated[str, Meta(description="Names of the models.")]
    model_path: Annotated[
        str | None, Meta(description="The model's folder or file; null if the call named none.")
    ]
    model_sha256: Annotated[str, Meta(description="SHA-256 of the model files.")]
    settings: Annotated[dict[str, Any], Meta(description="Settings of the conversion.")]
    detector: Annotated[str, Meta(description="Names of the detectors.")]
    faces: Annotated[dict[Fate, Count], Meta(description="Number of faces by what happened.")]
    troubles: Annotated[
        list[Trouble], Meta(description="Runs of frames that may look wrong, the worst first.")
    ]
    frames: list[FrameRecord]
    redone: Annotated[
        list[Redone], Meta(description="What --redo rendered again, in the order of the runs.")
    ] = field(default_factory=list)
    shots: Annotated[
        list[Shot], Meta(description="Settings of single shots, as in the file given to --shots.")
    ] = field(default_factory=list)


def report_path(target: Path, form: str) -> Path:
    """Return where the report of a conversion is written: ``video.swapped.report.json``."""
    return beside(target, form, ".report.json")


def beside(target: Path, form: str, ending: str) -> Path:
    """Return the path of a file about an output, which lies beside it."""
    stem = target.name if form in FOLDERS else target.stem
    return target.with_name(fitting(stem, ending))


def _write_report(
    job: "Conversion", key: dict[str, Any], records: list[FrameRecord], troubles: list[Trouble]
) -> Path:
    """Write the report of a conversion beside its output, and return its path."""
    model = str(job.model_path.absolute()) if job.model_path else None
    report = FrameReport(
        VERSION, str(job.source.absolute()), job.target.name, digest_of(key), job.model.name, model,
        job.model.sha256, job.config.to_dict(), job.spec.describe(), counted_fates(records),
        troubles, records, shots=[*job.shots],
    )  # fmt: skip
    path = report_path(job.target, job.form)
    write_report(path, report)
    return path


def write_report(path: Path, report: FrameReport) -> None:
    """Write a report, with one line for each frame, so that versions of it can be compared.

    Raises:
        OutputError: If it cannot be written.
    """
    head = msgspec.to_builtins(report)
    lines = ",\n".join(json.dumps(frame) for frame in head.pop("frames"))
    text = json.dumps(head, indent=1)[:-2] + f',\n "frames": [\n{lines}\n]}}\n'
    write_bytes(path, text.encode())


def read_report(path: Path) -> FrameReport:
    """Read the report of a conversion.

    Raises:
        InputError: If it is missing, damaged, or of another version of its format.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("version") != VERSION:
            raise InputError(f"{path} is not a report that this version of faceswap can read")
        return msgspec.convert(values, FrameReport)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; convert writes it beside its output") from error
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise InputError(f"{path} is not a readable report: {error}") from error
