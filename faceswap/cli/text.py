"""Format the results of all commands as lines of text for people."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from faceswap.cli.results import DemoReport, ImportReport, PreviewReport
from faceswap.provenance.consent import NOT_STATED
from faceswap.types import DIRECTIONS, counted, named

if TYPE_CHECKING:  # --help must not load these: most import torch, cv2 or c2pa
    from faceswap.cli.doctor import Diagnosis
    from faceswap.cli.info import Facts, Terms
    from faceswap.evaluation.results import EvaluationReport, Score
    from faceswap.facesets.extractor import ExtractReport
    from faceswap.models.export import ExportReport
    from faceswap.provenance.credentials import FileCredentials
    from faceswap.provenance.watermark import WatermarkCheck
    from faceswap.swapping.batch import JobReport
    from faceswap.swapping.report import ConvertReport
    from faceswap.swapping.shards import ShardReport
    from faceswap.swapping.turnover import PackageReport
    from faceswap.swapping.verification import Verification
    from faceswap.training.trainer import TrainReport

SOME_GLASSES = 0.05  # least share of faces with glasses that the report mentions
WORST = 3  # troubles that the last line names
MAX_LISTED = 20  # names of a long list that are shown


def extraction(report: "ExtractReport") -> list[str]:
    known = f" ({report.known} more were already done)" if report.known else ""
    deleted = f"; {counted(report.deleted, 'deleted crop')} left out" if report.deleted else ""
    rejected = f"; {report.rejected} of them rejected" if report.rejected else ""
    return [
        f"{counted(report.images, 'image')} read{known}, {counted(report.faces, 'face')} in "
        f"{report.folder} (found by {report.detector}){rejected}{deleted}",
        *_listed("renamed, with the faces that they had", report.renamed),
        *_listed("changed, so their old faces were replaced", report.replaced),
        *_gone(report),
        *_people(report),
        *_glasses(report),
        *_listed("without a face", report.without_face),
        *_listed("with other people only", report.others),
        *_listed("neither a photo nor a video, and left out", report.left_out),
        *_listed("unreadable", report.unreadable),
    ]


def _gone(report: "ExtractReport") -> list[str]:
    if not report.gone:
        return []
    named = ", ".join(report.gone[:MAX_LISTED]) + (", ..." if report.gone[MAX_LISTED:] else "")
    faces = counted(report.gone_faces, "face")
    exist = "exists" if len(report.gone) == 1 else "exist"
    of = f"of {counted(len(report.gone), 'source')} that no longer {exist}: {named}"
    if report.pruned:
        return [f"dropped {faces} {of}"]
    return [f"{faces} kept {of}; pass --prune to drop them"]


def _glasses(report: "ExtractReport") -> list[str]:
    if report.glasses is None or report.glasses < SOME_GLASSES:
        return []
    return [
        f"{100 * report.glasses:.0f} % of the faces wear glasses, which a model learns to paint: "
        "keep only those with glasses or only those without"
    ]


def _people(report: "ExtractReport") -> list[str]:
    """List the people in a faceset if there are several."""
    if len(report.people) < 2:
        return []
    most, *others = report.people
    lines = [
        f"the faceset shows {len(report.people)} people, most often one with "
        f"{counted(most.faces, 'face')}; reject the others in faceswap review, or pass --who PHOTO "
        "--restart"
    ]
    for person in others[:MAX_LISTED]:
        files = ", ".join(person.files) + (", ..." if person.faces > len(person.files) else "")
        lines.append(f"  {counted(person.faces, 'face')} of another: {files}")
    return lines


def training(report: "TrainReport") -> list[str]:
    """Describe a training run, with advice on consent and on what is left to do."""
    from faceswap.models.modelfile import FEW_STEPS

    lines = [
        f"{report.folder}: step {report.step}, {report.minutes:.1f} minutes, "
        f"loss a {report.loss_a:.4f} b {report.loss_b:.4f}; preview in {report.folder / 'previews'}"
    ]
    unstated = [key for key, note in report.consent.items() if note == NOT_STATED]
    if unstated:
        options = " ".join(f"--consent-{key} TEXT" for key in unstated)
        lines.append(
            f"consent of {' and '.join(unstated)} is not stated, and swaps will say so: to state "
            f"it, repeat the command with {options}, or after writing data/<name>/CONSENT.md"
        )
    if report.step < FEW_STEPS:
        lines.append(
            f"after only {counted(report.step, 'step')} a face is a blur: repeat the command with "
            "higher --minutes or --steps to go on"
        )
    if report.done:
        lines.append("nothing left to do: to train longer, raise the total --steps or --minutes")
    return lines


def conversion(report: "ConvertReport") -> list[str]:
    from faceswap.swapping.records import WORDS

    if report.done_before:
        return [f"{report.output}: done before; every frame: {report.report}"]
    redone = f", {counted(report.redone, 'frame')} redone" if report.redone else ""
    return [
        f"{report.output}: {counted(report.frames, 'frame')}, "
        f"{counted(report.faces, 'face')} swapped, "
        f"{counted(report.without_face, 'frame')} without a swapped face{redone} "
        f"(detector: {report.detector})",
        *(
            f"not swapped: {counted(number, 'face')} {WORDS[fate]}"
            for fate, number in report.not_swapped.items()
        ),
        *_troubles(report),
        *([f"page: {report.page}"] if report.page else []),
        *_consent(report),
        *_listed("unreadable", report.unreadable),
        *_listed("not a photo and left out", report.left_out),
        *(
            f"kept: {counted(kept.frames, 'frame')} of another, unfinished conversion to the same "
            f"output; to delete them: faceswap info {report.output} --discard"
            for kept in report.unfinished
        ),
    ]


def _consent(report: "ConvertReport") -> list[str]:
    if not report.consent_not_stated:
        return []
    people = " and ".join(report.consent_not_stated)
    return [f"consent not stated: of {people}; the credentials of the output say so"]


def jobs(reports: Sequence["JobReport"]) -> list[str]:
    states = Counter(report.state for report in reports)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return [f"{counted(len(reports), 'source')}: {counts}"]


def _troubles(report: "ConvertReport") -> list[str]:
    """Name the worst runs of frames, and where all of them are listed."""
    worst = [
        f"{found.kind} in frame {found.first}"
        if found.frames == 1
        else f"{found.kind} in frames {found.first}-{found.last}"
        for found in report.troubles
    ]
    if not worst:
        return [f"every frame: {report.report}"]
    return [f"look at: {named(worst, WORST)}; every frame: {report.report}"]


def preview(report: PreviewReport) -> list[str]:
    return [
        f"{report.output}: original, swap and matte of {counted(report.frames, 'frame')}, "
        f"{report.with_face} with a swapped face"
    ]


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    lines = [f"{len(names)} {what}:", *(f"  {name}" for name in names[:MAX_LISTED])]
    if len(names) > MAX_LISTED:
        lines.append(f"  ... and {len(names) - MAX_LISTED} more")
    return lines


def evaluation(report: "EvaluationReport") -> list[str]:
    """Return the scores as tables, with a row per measure."""
    from faceswap.evaluation.measures import BASELINES, rows

    lines = [f"unseen faces: {report.faces['a']} of a, {report.faces['b']} of b"]
    for own, other in DIRECTIONS:
        scores = report.direction(own)
        heads = ["model", "95 %", *(name.replace("_", " ") for name in BASELINES)]
        lines.append(f"{own}_to_{other}".ljust(21) + "".join(head.rjust(13) for head in heads))
        for row in rows(scores):
            cells = [_value(row.model), _interval(row.model), *map(_value, row.baselines.values())]
            worse = f"  worse than {', '.join(row.worse_than)}" if row.worse_than else ""
            lines.append(f"  {row.name:19}" + "".join(cell.rjust(13) for cell in cells) + worse)
        hidden = scores.occlusion
        numbers = ", ".join(
            f"{name} {_value(getattr(hidden, name))}" for name in ("kept", "lost", "iou")
        )
        lines.append(f"  occluders on {counted(hidden.faces, 'face')}: {numbers}")
    for title, of_person in (("a_to_a", report.a_to_a), ("b_to_b", report.b_to_b)):
        for name in ("decoded", "limit"):
            found = getattr(of_person, name)
            numbers = "  ".join(
                f"{field} {_value(getattr(found, field))}" for field in found.__slots__
            )
            lines.append(f"{title}  {name:8}{numbers}")
    if report.flicker is not UNSET:
        lines.append("flicker  " + "  ".join(map(_number, asdict(report.flicker).items())))
    return lines


def _value(score: "Score | None") -> str:
    return "-" if score is None else f"{score.value:.3f}"


def _interval(score: "Score | None") -> str:
    if score is None or score.low is None or score.high is None:
        return "-"
    return f"{score.low:.3g}..{score.high:.3g}"


def _number(item: tuple[str, Any]) -> str:
    name, value = item
    values = value if isinstance(value, list) else [value]
    return f"{name} " + " ".join("-" if v is None else f"{v:g}" for v in values)


def verification(result: "Verification") -> list[str]:
    """Describe the credentials and the watermark of each file."""
    from faceswap.provenance.credentials import FileError

    lines = []
    for found in result.facts:
        lines += [found.error] if isinstance(found, FileError) else _credentials(found)
        is_intermediate = not isinstance(found, FileError) and found.intermediate
        if found.watermark:
            lines += [f"  {line}" for line in _watermark(found.watermark, is_intermediate)]
    return lines


def _watermark(check: "WatermarkCheck", is_intermediate: bool) -> list[str]:
    if check.reason:
        return [f"watermark: not looked for: {check.reason}"]
    looked = counted(check.frames, "frame") if check.frames != 1 else "this picture"
    if not check.found and is_intermediate:
        return ["watermark: none, as in every intermediate"]
    if not check.found:
        more = "" if check.complete else "; --thorough looks at the rest"
        return [
            f"watermark: none found in {looked}{more}",
            "  that proves nothing: only faceswap writes it, and it can be removed",
        ]
    assert check.chance is not None, "given with every watermark"
    agreement = {
        True: "the one that the credentials name",
        False: "NOT the one that the credentials name",
        None: "of a model and a source as follows",
    }[check.agrees]
    mirrored = ", mirrored" if check.mirrored else ""
    lines = [
        f"watermark: found{mirrored}, {agreement}",
        f"  model: SHA-256 begins with {check.model}",
        f"  source: SHA-256 begins with {check.source}",
        f"  certainty: chance of a false alarm below {_odds(check.chance)} ({looked})",
    ]
    if check.agrees is None:
        lines.append(
            "  what it proves: faceswap probably made this picture or most of it; the watermark is "
            "not signed, so anybody can add it, and it does not show later changes"
        )
    return lines


def _odds(chance: float) -> str:
    """Say a small chance in words, never smaller than one in a billion."""
    return f"1 in {10 ** min(max(int(-math.log10(max(chance, 1e-300))), 0), 9):,}"


def _credentials(found: "FileCredentials") -> list[str]:
    from faceswap.provenance.credentials import readable

    path = Path(found.file)
    state = "intact" if found.intact else "ALTERED since it was signed"
    if found.expired:
        state = "EXPIRED: nothing was altered, but the signer's certificate has expired"
    lines = [f"{path}: {state}"]
    if found.intermediate:
        lines.append("  INTERMEDIATE of a production: nothing in it is marked; not for publication")
    if found.generator:
        lines.append(f"  made by: {found.generator}")
    if found.title not in ("", readable(path.name)):
        lines.append(f"  named when signed: {found.title}")
    lines += [f"  how: {kind.rsplit('/', 1)[-1]}" for kind in found.source_types]
    if found.parent:
        credentials = {
            "none": "without credentials of its own",
            "remote": "its own credentials are on a server",
            "expired": "its own credentials had expired",
        }.get(found.parent.credentials, f"its own credentials were {found.parent.credentials}")
        lines.append(f"  made from: {found.parent.title} ({credentials})")
        if found.parent.sha256:
            lines.append(f"    SHA-256 {found.parent.sha256}")
    if found.model:
        lines += [f"  model: {found.model.name}", f"    SHA-256 {found.model.sha256}"]
        lines += [f"    note: {line}" for note in found.model.notes for line in note.splitlines()]
    if found.signer:
        untrusted = "untrusted: self-signed or not on a trust list; anybody can use this name"
        lines.append(f"  signed by: {found.signer} ({'trusted' if found.trusted else untrusted})")
    if found.signed_at:
        trust = "trusted" if found.time_trusted else "by a server that is not on a trust list"
        lines.append(f"  signed at: {found.signed_at} (time stamp {trust})")
    if found.sidecar:
        lines.append(f"  credentials in: {found.sidecar}")
    if not found.intact:
        lines.append(f"  failed checks: {', '.join(found.failures)}")
    return lines


def facts(found: "Facts") -> list[str]:
    """Describe a file or folder, with one line for each fact and for each item of a list."""
    lines = []
    for name, value in asdict(found).items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            lines += [f"{name.rstrip('s')} {i}: {_flat(item)}" for i, item in enumerate(value)]
        else:
            lines.append(f"{name.replace('_', ' ')}: {_flat(value)}")
    return lines


def licences(terms: "Terms") -> list[str]:
    """Describe the terms of pretrained weights, and what uses them."""
    if not terms.recorded:
        return [f"{terms.path} does not say which pretrained weights it was made with"]
    allowed = {True: "commercial use allowed", False: "NO COMMERCIAL USE", None: "terms unknown"}
    lines = []
    for each in terms.weights:
        lines.append(f"{each.name}: {allowed[each.commercial]}; {each.licence}")
        lines.append(f"  {each.what} Trained on: {each.data}")
    lines += [f"{name}: {', '.join(used)}" for name, used in terms.commands.items()]
    return lines


def _flat(value: Any) -> str:
    """Format a value on one line; items of objects and lists are separated by commas."""
    if isinstance(value, dict):
        present = {key: item for key, item in value.items() if item is not UNSET}
        return ", ".join(f"{key} {_flat(item)}" for key, item in present.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def diagnosis(found: "Diagnosis") -> list[str]:
    """Describe what is installed and which stages work."""
    device, folder = found.device, found.folder
    memory = f", {_gib(device.memory_bytes)}" if device.memory_bytes else ""
    free = "unknown" if folder.free_bytes is None else _gib(folder.free_bytes)
    working = [name for name, opens in found.encoders.items() if opens]
    weights = [f"{name} {'found' if it else 'missing'}" for name, it in found.weights.items()]
    return [
        f"faceswap {found.faceswap}, Python {found.python}, {found.platform}",
        f"device: {device.chosen} ({device.name}{memory}), bfloat16 "
        f"{'fast' if device.bfloat16 else 'slow'}",
        "libraries: " + ", ".join(f"{k} {v or 'missing'}" for k, v in found.libraries.items()),
        f"encoders that open: {', '.join(working)}",
        f"weights: {', '.join(weights)}",
        f"folder {folder.path}: {'can' if folder.writable else 'CANNOT'} be written, {free} free",
        *(
            f"{check.name}: {'works' if check.ok else 'FAILS'}, {check.seconds:.1f} s: "
            f"{check.message}"
            for check in found.checks
        ),
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def imported(report: ImportReport) -> list[str]:
    return [f"{report.folder}: model '{report.model}', epoch {report.epoch}, channel order BGR"]


def shard(report: "ShardReport") -> list[str]:
    done = f" ({report.resumed} were done already)" if report.resumed else ""
    return [
        f"shard {report.number}/{report.count} of {report.output}: "
        f"{counted(report.frames, 'frame')}{done}, {counted(report.faces, 'face')} swapped",
        "when all shards are done: faceswap join",
    ]


def packaged(report: "PackageReport") -> list[str]:
    redone = f", {counted(report.redone, 'frame')} redone" if report.redone else ""
    return [
        f"{report.folder}: {counted(report.frames, 'frame')} ({report.first} to {report.last}) in "
        f"{counted(report.shots, 'shot')}, {counted(report.faces, 'face')} swapped{redone}",
        f"{report.script}: open it in Nuke",
        f"{report.timeline}: the cuts",
    ]


def exported(report: "ExportReport") -> list[str]:
    _, side, _ = report.input
    what = "faces and their masks" if report.channels == 4 else "faces"
    return [
        f"{report.output}: crops of {side} px to {what} of {report.side} px",
        f"largest difference from this program's own network: {report.largest_difference:.1g}",
    ]


def demo(report: DemoReport) -> list[str]:
    return [
        f"done in {report.seconds:.0f} s",
        f"the swapped video: {report.video}",
        f"the image:         {report.image}",
    ]
