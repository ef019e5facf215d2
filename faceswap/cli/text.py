"""Results of the commands as lines of text for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceswap.errors import FaceswapError
from faceswap.provenance.consent import NOT_STATED

if TYPE_CHECKING:  # at run time this would load c2pa and cryptography, also for --help
    from faceswap.provenance.credentials import Credentials, Verification

MAX_LISTED = 20  # names of a long list that people get to see


def extraction(report: Any) -> list[str]:
    """An extraction in words."""
    known = f" ({report.known} more were done before)" if report.known else ""
    return [
        f"{report.images} images read{known}, {report.faces} faces in {report.folder}"
        f" (found by {report.detector})",
        *_listed("without a face", report.without_face),
        *_listed("unreadable", report.unreadable),
    ]


def training(report: Any) -> list[str]:
    """A training in words, with advice where consent is not stated."""
    lines = [
        f"{report.folder}: step {report.step}, {report.minutes:.1f} minutes, "
        f"loss a {report.loss_a:.4f} b {report.loss_b:.4f}; preview in {report.folder / 'previews'}"
    ]
    unstated = [key for key, note in report.consent.items() if note == NOT_STATED]
    if unstated:
        options = " ".join(f"--consent-{key} TEXT" for key in unstated)
        lines.append(
            f"consent of {' and '.join(unstated)} is not stated: run again with {options}, or "
            "write data/<name>/CONSENT.md"
        )
    if report.done:
        lines.append("nothing left to do: ask for more --steps or --minutes in all to go on")
    return lines


def conversion(report: Any) -> list[str]:
    """A conversion in words."""
    return [
        f"{report.output}: {report.frames} frames, {report.faces} faces swapped, "
        f"{report.without_face} frames without a face unchanged "
        f"(found by {report.detector})",
        *_listed("unreadable", report.unreadable),
        *(
            f"kept: {kept.frames} frames of an unfinished conversion to the same output with other "
            f"settings, in {kept.folder}; delete that folder to discard them"
            for kept in report.unfinished
        ),
    ]


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    lines = [f"{len(names)} {what}:", *(f"  {name}" for name in names[:MAX_LISTED])]
    if len(names) > MAX_LISTED:
        lines.append(f"  ... and {len(names) - MAX_LISTED} more")
    return lines


def evaluation_table(report: dict[str, Any]) -> list[str]:
    """The numbers of a report as lines, a column per measure."""
    lines = [f"unseen faces: {report['faces']['a']} of a, {report['faces']['b']} of b"]
    for direction in ("a_to_b", "b_to_a"):
        result = dict(report[direction])
        rows = {"model": result, **result.pop("baselines")}
        lines.append(direction.ljust(10) + "".join(name.rjust(19) for name in result))
        for name, row in rows.items():
            cells = ("-" if v is None else f"{v:.3f}" for v in (row[key] for key in result))
            lines.append(f"  {name:8}" + "".join(cell.rjust(19) for cell in cells))
    for key in ("a_to_a", "b_to_b"):
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in report[key].items())
        lines.append(f"{key}  {numbers}")
    if "flicker" in report:
        lines.append("flicker  " + "  ".join(f"{k} {v:g}" for k, v in report["flicker"].items()))
    return lines


def verification(result: "Verification") -> list[str]:
    """What the credentials of some files say."""
    return [
        line
        for path, found in result.found
        for line in (
            [str(found)] if isinstance(found, FaceswapError) else _credentials(path, found)
        )
    ]


def _credentials(path: Path, found: "Credentials") -> list[str]:
    """What credentials say, as lines for people."""
    from faceswap.provenance.credentials import readable

    state = "intact" if found.intact else "ALTERED since it was signed"
    if found.expired:
        state = "EXPIRED: nothing was altered, but the time of the signer's certificate is over"
    lines = [f"{path}: {state}"]
    if found.generator:
        lines.append(f"  made by: {found.generator}")
    if found.title not in ("", readable(path.name)):
        lines.append(f"  then named: {found.title}")
    lines += [f"  how: {kind.rsplit('/', 1)[-1]}" for kind in found.source_types]
    if found.parent:
        own = {
            "none": "without credentials of its own",
            "remote": "its own credentials are on a server",
            "expired": "its own credentials had expired",
        }.get(found.parent.credentials, f"its own credentials were {found.parent.credentials}")
        lines.append(f"  made from: {found.parent.title} ({own})")
        if found.parent.sha256:
            lines.append(f"    SHA-256 {found.parent.sha256}")
    if found.model:
        lines += [f"  model: {found.model.name}", f"    SHA-256 {found.model.sha256}"]
        lines += [f"    note: {line}" for note in found.model.notes for line in note.splitlines()]
    if found.signer:
        untrusted = (
            "untrusted: self-signed, or by nobody on a trust list; anybody can use this name"
        )
        lines.append(f"  signed by: {found.signer} ({'trusted' if found.trusted else untrusted})")
    if found.sidecar:
        lines.append(f"  credentials in: {found.sidecar}")
    if not found.intact:
        lines.append(f"  what does not hold: {', '.join(found.failures)}")
    return lines
