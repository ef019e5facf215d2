"""Content Credentials (C2PA): read what a file's manifest says, and whether it holds.

A file's manifest says what was opened (the original, with its own credentials), what was done to
it, by which program and with which model, and holds a hash of all bytes, signed. Where a format
has no place for a manifest, the same manifest lies beside the file as ``<name>.c2pa``.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import c2pa
from c2pa import C2paError

from faceswap.errors import FaceswapError, InputError, NoCredentialsError, TamperedError
from faceswap.files import reason
from faceswap.provenance.identity import read_certificates

TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp",
    ".gif": "image/gif", ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp",
    ".avif": "image/avif", ".heic": "image/heic",
    ".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".avi": "video/avi",
    ".mkv": "video/x-matroska", ".webm": "video/webm",
}  # fmt: skip
MANIFEST_MARK = bytes.fromhex("6a756d6463327061")  # "jumdc2pa", with which every manifest begins
# What a certificate whose time is over leaves to complain about in a file that nobody changed
UNTRUSTED, EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
REMOTE = "manifest.inaccessible"  # it lies on a server
# Nothing is fetched from the network, no preview adds 60 KB, and a file is not read once more.
SETTINGS: dict[str, dict[str, Any]] = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "verify_after_sign": False},
}


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that painted the faces.

    Attributes:
        name: Its folder's name.
        sha256: Of its file, hexadecimal.
        notes: What its owner has put down, such as who consented to what.
    """

    name: str
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parent:
    """What a file was made from: name, MIME type, SHA-256 if known, and its own credentials.

    ``credentials`` is "none", "intact", "altered", "expired" (intact, but the time of their
    certificate was over) or "remote" (on a server), as they were when the file was made.
    """

    title: str
    format: str
    sha256: str | None
    credentials: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the Content Credentials of a file say, and whether they hold.

    Attributes:
        intact: Whether file and manifest are as they were signed.
        trusted: Whether the signer is on the trust list given.
        generator: The program that made the file, with its version.
        signer: The name in the signer's certificate, which anybody can choose if not trusted.
        title: The file's name when it was signed.
        source_types: IPTC digital source types of what was done.
        parent: The file it was made from.
        model: The model that painted the faces, if the program said so.
        sidecar: Where the manifest lies, if not in the file.
        failures: C2PA's codes of what does not hold.
    """

    intact: bool
    trusted: bool = False
    generator: str = ""
    signer: str = ""
    title: str = ""
    source_types: tuple[str, ...] = ()
    parent: Parent | None = None
    model: ModelRecord | None = None
    sidecar: str | None = None
    failures: tuple[str, ...] = ()

    @property
    def expired(self) -> bool:
        """Whether nothing was altered, but the time of the signer's certificate is over."""
        return not self.intact and _only_expired(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def read(path: Path, trust: Path | None = None) -> Credentials:
    """What a file's Content Credentials say, whether it is as it was signed, and by whom.

    Args:
        path: A photo or video, of this program or of any other.
        trust: Certificates to trust, PEM [default: none, so that nobody is].

    Raises:
        NoCredentialsError: If it has no credentials, in it or beside it.
        InputError: If it or ``trust`` cannot be read.
        SettingsError: If ``trust`` holds no certificate.
    """
    with _reading(path):
        if not path.is_file():
            raise InputError(f"{path} is no file; give a photo or a video")
    anchors = read_certificates(trust).decode() if trust else None
    with _reading(path):
        try:
            report, sidecar = find(path, anchors)
        except C2paError as error:
            if str(error).startswith("Remote:"):
                raise NoCredentialsError(
                    f"{path} has no Content Credentials in it or beside it; it says that they are "
                    f"at {str(error).rsplit(' ', 1)[-1]}, and nothing is fetched from the network"
                ) from error
            if sidecar_beside(path) or _marked(path):
                return Credentials(False, failures=(words_of(error),))
            raise InputError(f"{path} is no photo or video that can be read") from error
    if report is None:
        raise NoCredentialsError(f"{path} has no Content Credentials")
    return _understood(report, sidecar)


def find(path: Path, anchors: str | None = None) -> tuple[Any, Path | None]:
    """The library's report (None: no manifest), and the file it is from if not from ``path``.

    Raises:
        C2paError: If file or manifest cannot be taken apart.
        OSError: If one cannot be read.
    """
    sidecar = sidecar_beside(path)
    try:
        report = report_of(path, None, anchors) if embeds(media_type(path)) else None
    except C2paError:  # damaged, or of another format than its suffix says
        if not sidecar:
            raise
        report = None
    if report is None and sidecar:
        return report_of(path, sidecar.read_bytes(), anchors), sidecar
    return report, None


def report_of(path: Path, manifest: bytes | None = None, anchors: str | None = None) -> Any:
    """The C2PA library's own report on a file.

    Args:
        path: The file.
        manifest: Its manifest, if it is not in the file.
        anchors: Certificates to trust, PEM.

    Returns:
        The report's JSON, or None if there is no manifest.

    Raises:
        C2paError: If file or manifest cannot be taken apart.
    """
    kind = media_type(path)
    with path.open("rb") as file:
        reader = c2pa.Reader.try_create(
            kind, file, manifest_data=manifest, context=context(anchors)
        )
        return json.loads(reader.json()) if reader else None


def _understood(report: dict[str, Any], sidecar: Path | None) -> Credentials:
    # Of a manifest that cannot be taken apart, the library tells only what is wrong with it.
    manifest = dict(report.get("manifests") or {}).get(report.get("active_manifest"), {})
    actions = _actions(manifest)
    made_by: dict[str, Any] = next(iter(manifest.get("claim_generator_info") or []), {})
    maker = made_by.get("name") or manifest.get("claim_generator") or "an unnamed program"
    signature = manifest.get("signature_info") or {}
    state = report.get("validation_state")
    return Credentials(
        intact=state in ("Valid", "Trusted") and bool(manifest),
        trusted=state == "Trusted",
        generator=f"{maker} {made_by.get('version') or ''}".strip() if manifest else "",
        signer=", ".join(signature[key] for key in ("common_name", "issuer") if signature.get(key)),
        title=manifest.get("title") or "",
        source_types=tuple(a["digitalSourceType"] for a in actions if "digitalSourceType" in a),
        parent=_parent(manifest),
        model=_model(actions),
        sidecar=str(sidecar) if sidecar else None,
        failures=_failures(report),
    )


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in (assertion.get("data") or {}).get("actions") or []
    ]


def _failures(results: dict[str, Any]) -> tuple[str, ...]:
    status = (results.get("validation_results") or {}).get("activeManifest") or {}
    return tuple(failure["code"] for failure in status.get("failure", []))


def _parent(manifest: dict[str, Any]) -> Parent | None:
    for ingredient in manifest.get("ingredients", []):
        if ingredient.get("relationship") == "parentOf":
            own = _state_of(_failures(ingredient), "active_manifest" in ingredient)
            words = str(ingredient.get("description", ""))
            digest = words.removeprefix("sha256:") if words.startswith("sha256:") else None
            title, kind = ingredient.get("title") or "", ingredient.get("format") or ""
            return Parent(title, kind, digest, own)
    return None


def _only_expired(failures: tuple[str, ...]) -> bool:
    return EXPIRED in failures and set(failures) <= {UNTRUSTED, EXPIRED}


def _state_of(failures: tuple[str, ...], there: bool) -> str:
    """What became of a parent's credentials, in a word."""
    if REMOTE in failures:
        return "remote"
    if _only_expired(failures):
        return "expired"
    if set(failures) - {UNTRUSTED}:
        return "altered"
    return "intact" if there else "none"


def _model(actions: list[dict[str, Any]]) -> ModelRecord | None:
    for action in actions:
        parameters = action.get("parameters") or {}
        model = parameters.get("model")
        if isinstance(model, dict) and {"name", "sha256"} <= set(model):
            notes = parameters.get("notes")
            notes = tuple(map(str, notes)) if isinstance(notes, list) else ()
            return ModelRecord(str(model["name"]), str(model["sha256"]), notes)
    return None


def readable(name: str) -> str:
    """A file's name as text, which a manifest must be: ``?`` for a byte that is no character."""
    return name.encode(errors="replace").decode()


def media_type(path: Path) -> str:
    """The MIME type that a file's suffix stands for."""
    return TYPES.get(path.suffix.lower(), "application/octet-stream")


def embeds(kind: str) -> bool:
    """Whether files of a MIME type have a place for credentials."""
    return kind in c2pa.Builder.get_supported_mime_types()


def sidecar_of(path: Path) -> Path:
    """The file beside ``path`` that holds its credentials: ``video.mkv.c2pa``.

    The whole name is kept, so that ``video.mkv`` and ``video.webm`` do not share one.
    """
    return path.with_name(f"{path.name}.c2pa")


def sidecar_beside(path: Path) -> Path | None:
    """The credentials that lie beside a file, if any."""
    beside = sidecar_of(path), path.with_suffix(".c2pa")  # the other is how some programs name it
    return next((sidecar for sidecar in beside if sidecar.is_file()), None)


def _marked(path: Path) -> bool:
    """Whether a file that the library cannot take apart holds a manifest all the same."""
    with path.open("rb") as file:
        before = b""
        while block := file.read(1 << 20):
            if MANIFEST_MARK in before + block:
                return True
            before = block[-len(MANIFEST_MARK) :]
    return False


def context(anchors: str | None = None) -> c2pa.Context:
    """The C2PA library's settings, with certificates to trust (PEM)."""
    trust = {"trust": {"trust_anchors": anchors}} if anchors else {}
    return c2pa.Context(c2pa.Settings.from_dict(SETTINGS | trust))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def words_of(error: Exception) -> str:
    """An error's own words, in one line, without the class or file named in front."""
    return (str(error).split(": ", 1)[-1].splitlines() or [type(error).__name__])[0]


@dataclass(slots=True)
class Verification:
    """What was found in some files.

    Attributes:
        facts: For programs, a JSON-ready record per file.
        found: Each file with its credentials, or with the error that reading them gave.
        worst: Why not all is well: an alteration, else a file without credentials, else one that
            cannot be read; None if every file is as it was signed.
    """

    facts: list[dict[str, Any]] = field(default_factory=list)
    found: list[tuple[Path, Credentials | FaceswapError]] = field(default_factory=list)
    worst: FaceswapError | None = None

    def note(self, error: FaceswapError) -> None:
        """Keep an error if it is worse than those before."""
        if self.worst is None or _badness(error) > _badness(self.worst):
            self.worst = error


def _badness(error: FaceswapError) -> int:
    return 2 * isinstance(error, TamperedError) + isinstance(error, NoCredentialsError)


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
            result.found.append((file, error))
            continue
        if not found.intact:
            result.note(
                TamperedError(
                    f"{file}: the credentials hold no longer, for their certificate has expired"
                    if found.expired
                    else f"{file} was altered since it was signed"
                )
            )
        result.facts.append({"file": str(file)} | found.to_dict())
        result.found.append((file, found))
    return result
