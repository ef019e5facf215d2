"""Verify: files -> what they were made from and with, and whether they were altered since."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceswap.credentials import Credentials, read, readable
from faceswap.errors import AlteredError, FaceswapError, UncredentialedError


@dataclass(slots=True)
class Verification:
    """What was found in some files.

    Attributes:
        facts: For programs, a JSON-ready record a file.
        lines: For people.
        worst: Why not all is well: an alteration, else a file without credentials, else one that
            cannot be read; None if every file is as it was signed.
    """

    facts: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    worst: FaceswapError | None = None

    def note(self, error: FaceswapError) -> None:
        """Keep an error if it is worse than those before."""
        if self.worst is None or _badness(error) > _badness(self.worst):
            self.worst = error


def _badness(error: FaceswapError) -> int:
    return 2 * isinstance(error, AlteredError) + isinstance(error, UncredentialedError)


def verify(files: Iterable[str | Path], trust: str | Path | None = None) -> Verification:
    """Read the Content Credentials of photos and videos, of this program or any other.

    Args:
        files: The files; a file that cannot be read does not stop the rest.
        trust: Certificates to trust, PEM [default: none].
    """
    result = Verification()
    for file in map(Path, files):
        try:
            found = read(file, Path(trust) if trust else None)
        except FaceswapError as error:
            result.note(error)
            result.facts.append({"file": str(file), "error": str(error)})
            result.lines.append(str(error))
            continue
        if not found.intact:
            result.note(
                AlteredError(
                    f"{file}: the credentials hold no longer, for their certificate has expired"
                    if found.expired
                    else f"{file} was altered since it was signed"
                )
            )
        result.facts.append({"file": str(file)} | found.to_dict())
        result.lines += _in_words(file, found)
    return result


def _in_words(path: Path, found: Credentials) -> list[str]:
    """What credentials say, as lines for people."""
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
