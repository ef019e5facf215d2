"""Content Credentials (C2PA): read a file's manifest and check that the file still matches it.

A manifest records what was opened (the original, with its own credentials), what was done to it,
by which program and with which model. It contains a hash of the file without the manifest, and is
signed. If a manifest cannot be embedded, it is stored beside the file as ``<name>.c2pa``.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import c2pa
from c2pa import C2paError
from msgspec import Meta

from faceswap.errors import InputError, NoCredentialsError
from faceswap.files import reason
from faceswap.provenance import watermark
from faceswap.provenance.identity import read_certificates
from faceswap.provenance.watermark import WatermarkCheck

TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".jpe": "image/jpeg", ".jfif": "image/jpeg",
    ".png": "image/png", ".apng": "image/png", ".webp": "image/webp",
    ".gif": "image/gif", ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp",
    ".avif": "image/avif", ".heic": "image/heic",
    ".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".avi": "video/avi",
    ".mkv": "video/x-matroska", ".webm": "video/webm",
}  # fmt: skip
MANIFEST_MARK = bytes.fromhex("6a756d6463327061")  # "jumdc2pa", near the start of every manifest
# The only validation codes of a file that is intact except for an expired certificate
UNTRUSTED, EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
STAMP_UNTRUSTED, STAMP_TRUSTED = "timeStamp.untrusted", "timeStamp.trusted"
REMOTE = "manifest.inaccessible"  # the manifest is on a server
# Fetch nothing from the network, embed no 60 KB thumbnail, and do not re-read a file after signing.
SETTINGS: dict[str, dict[str, Any]] = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "verify_after_sign": False},
}


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that made the new faces, or the models of a cast."""

    name: Annotated[
        str, Meta(description="Name of the model's folder; several names are joined by commas.")
    ]
    sha256: Annotated[
        str,
        Meta(
            description="SHA-256 of the model's file, hexadecimal; those of several models are "
            "joined by commas."
        ),
    ]
    notes: Annotated[
        tuple[str, ...],
        Meta(description="Notes by the model's owner, such as who consented to what."),
    ] = ()
    weights: Annotated[
        tuple[str, ...],
        Meta(description="Pretrained weights behind the model and the conversion, by name."),
    ] = ()


ParentState = Literal["none", "intact", "altered", "expired", "remote"]


@dataclass(frozen=True, slots=True)
class Parent:
    """The source that a file was made from."""

    title: Annotated[str, Meta(description="Name of the source.")]
    format: Annotated[str, Meta(description="MIME type of the source.")]
    sha256: Annotated[
        str | None, Meta(description="SHA-256 of the source, hexadecimal; null if unknown.")
    ]
    credentials: Annotated[
        ParentState,
        Meta(
            description="State of the source's credentials when the new file was made. expired: "
            "intact, but the certificate had expired; remote: stored on a server, so not checked."
        ),
    ]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The Content Credentials of a file, and whether they are valid."""

    intact: Annotated[
        bool,
        Meta(
            description="Whether all checks except the one for trust passed: file and manifest are "
            "unchanged since signing, and the certificate has not expired."
        ),
    ]
    trusted: Annotated[bool, Meta(description="Whether the signer is on the trust list.")] = False
    generator: Annotated[
        str, Meta(description="The program that made the file, with its version.")
    ] = ""
    signer: Annotated[
        str,
        Meta(
            description="Common name and issuer in the signer's certificate. Anyone can choose "
            "them, so rely on them only if trusted is true."
        ),
    ] = ""
    signed_at: Annotated[
        str | None,
        Meta(description="Time in the time stamp of the signature (ISO 8601); null without one."),
    ] = None
    time_trusted: Annotated[
        bool, Meta(description="Whether the time stamp's server is on the trust list.")
    ] = False
    title: Annotated[str, Meta(description="The name of the file when it was signed.")] = ""
    source_types: Annotated[
        tuple[str, ...], Meta(description="IPTC digital source types of the recorded actions.")
    ] = ()
    parent: Annotated[
        Parent | None, Meta(description="The source that the file was made from.")
    ] = None
    model: Annotated[
        ModelRecord | None,
        Meta(description="The model that made the new faces, if the program recorded it."),
    ] = None
    sidecar: Annotated[
        str | None,
        Meta(description="The sidecar that holds the manifest; null if it is embedded."),
    ] = None
    binding: Annotated[
        str | None,
        Meta(
            description="The bits of the watermark that the credentials name, hexadecimal: 16 of "
            "the model's SHA-256 and 16 of the source's; null if they name none."
        ),
    ] = None
    intermediate: Annotated[
        bool,
        Meta(
            description="Whether the file is material for a production, in which nothing is "
            "marked, and not for the public."
        ),
    ] = False
    failures: Annotated[
        tuple[str, ...],
        Meta(
            description="C2PA codes of the failed checks; the parser's message if the manifest "
            "cannot be parsed."
        ),
    ] = ()

    @property
    def expired(self) -> bool:
        """Whether nothing was altered, but the signer's certificate has expired."""
        return not self.intact and _only_expired(self.failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCredentials(Credentials):
    """The Content Credentials of one of several files."""

    file: str
    watermark: Annotated[
        WatermarkCheck, Meta(description="The watermark of this program in the file.")
    ]


@dataclass(frozen=True, slots=True)
class FileError:
    """One of several files, and the error from reading its Content Credentials."""

    file: str
    error: str
    watermark: Annotated[
        WatermarkCheck | None,
        Meta(
            description="The watermark of this program in the file; null if the file cannot be "
            "read."
        ),
    ] = None


def read(path: Path, trust: Path | None = None) -> Credentials:
    """Read a file's Content Credentials and check whether the file has changed since signing.

    Args:
        path: A photo or video, made by this program or any other.
        trust: PEM file of certificates to trust [default: none, so no signer is trusted].

    Returns:
        The credentials. They are not intact if the manifest cannot be parsed.

    Raises:
        NoCredentialsError: If the file has no credentials, embedded or beside it.
        InputError: If the file or ``trust`` cannot be read, or the file is not a photo or a video.
        SettingsError: If ``trust`` contains no certificate.
    """
    with _reading(path):
        if not path.is_file():
            raise InputError(f"{path} is not a file; pass a photo or a video")
    anchors = read_certificates(trust).decode() if trust else None
    with _reading(path):
        try:
            report, sidecar = find(path, anchors)
        except C2paError as error:
            if str(error).startswith("Remote:"):
                raise NoCredentialsError(
                    f"{path} has no Content Credentials in it or beside it; it says they are at "
                    f"{str(error).rsplit(' ', 1)[-1]}, but nothing is fetched from the network"
                ) from error
            if sidecar_beside(path) or _contains_manifest(path):
                return Credentials(False, failures=(words_of(error),))
            raise InputError(f"{path} is not a readable photo or video") from error
    if report is None:
        raise NoCredentialsError(f"{path} has no Content Credentials")
    return _to_credentials(report, sidecar)


def find(path: Path, anchors: str | None = None) -> tuple[Any, Path | None]:
    """Find the manifest of a file, embedded or in a sidecar.

    Returns:
        The C2PA library's report, or None without a manifest; and the sidecar that the manifest
        came from, or None if it is embedded.

    Raises:
        C2paError: If the file or its manifest cannot be parsed.
        OSError: If the file or its sidecar cannot be read.
    """
    sidecar = sidecar_beside(path)
    try:
        report = report_of(path, None, anchors) if embeds(media_type(path)) else None
    except C2paError:  # damaged, or the suffix does not match the format
        if not sidecar:
            raise
        report = None
    if report is None and sidecar:
        return report_of(path, sidecar.read_bytes(), anchors), sidecar
    return report, None


def report_of(path: Path, manifest: bytes | None = None, anchors: str | None = None) -> Any:
    """Return the C2PA library's own report on a file.

    Args:
        path: The file.
        manifest: Its manifest, unless it is embedded.
        anchors: Certificates to trust, PEM.

    Returns:
        The parsed JSON report, or None if there is no manifest.

    Raises:
        C2paError: If the file or its manifest cannot be parsed.
        OSError: If the file cannot be read.
    """
    kind = media_type(path)
    with path.open("rb") as file:
        reader = c2pa.Reader.try_create(
            kind, file, manifest_data=manifest, context=context(anchors)
        )
        return json.loads(reader.json()) if reader else None


def _to_credentials(report: dict[str, Any], sidecar: Path | None) -> Credentials:
    # For a manifest that cannot be parsed, the library reports only the failures.
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
        signed_at=signature.get("time") or None,
        time_trusted=STAMP_TRUSTED in _codes(report, "success"),
        title=manifest.get("title") or "",
        source_types=tuple(a["digitalSourceType"] for a in actions if "digitalSourceType" in a),
        parent=_parent(manifest),
        model=_model(actions),
        sidecar=str(sidecar) if sidecar else None,
        binding=_binding(manifest),
        intermediate=_is_intermediate(actions),
        failures=_failures(report),
    )


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in (assertion.get("data") or {}).get("actions") or []
    ]


def _binding(manifest: dict[str, Any]) -> str | None:
    """Return the bits of this program's watermark that a manifest names, hexadecimal."""
    for assertion in manifest.get("assertions", []):
        data = assertion.get("data")
        if assertion["label"].startswith("c2pa.soft-binding") and isinstance(data, dict):
            blocks = data.get("blocks")
            if data.get("alg") != watermark.ALGORITHM or not isinstance(blocks, list):
                continue
            for block in blocks:
                bits = _bytes_of(block.get("value") if isinstance(block, dict) else None)
                if len(bits) == watermark.BITS // 8:
                    return bits.hex()
    return None


def _bytes_of(value: Any) -> bytes:
    """Decode a value that the C2PA library prints as Base64; no bytes if it is anything else."""
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        return b""


def _is_intermediate(actions: list[dict[str, Any]]) -> bool:
    return any((action.get("parameters") or {}).get("intermediate") is True for action in actions)


def _failures(results: dict[str, Any]) -> tuple[str, ...]:
    return _codes(results, "failure")


def _codes(results: dict[str, Any], kind: str) -> tuple[str, ...]:
    status = (results.get("validation_results") or {}).get("activeManifest") or {}
    return tuple(result["code"] for result in status.get(kind, []))


def _parent(manifest: dict[str, Any]) -> Parent | None:
    for ingredient in manifest.get("ingredients", []):
        if ingredient.get("relationship") == "parentOf":
            state = _state_of(_failures(ingredient), "active_manifest" in ingredient)
            text = str(ingredient.get("description", ""))
            digest = text.removeprefix("sha256:") if text.startswith("sha256:") else None
            title, kind = ingredient.get("title") or "", ingredient.get("format") or ""
            return Parent(title, kind, digest, state)
    return None


def _only_expired(failures: tuple[str, ...]) -> bool:
    return EXPIRED in failures and set(failures) <= {UNTRUSTED, STAMP_UNTRUSTED, EXPIRED}


def _state_of(failures: tuple[str, ...], present: bool) -> ParentState:
    """Return the state of a parent's credentials, see :class:`Parent`."""
    if REMOTE in failures:
        return "remote"
    if _only_expired(failures):
        return "expired"
    if set(failures) - {UNTRUSTED, STAMP_UNTRUSTED}:
        return "altered"
    return "intact" if present else "none"


def _model(actions: list[dict[str, Any]]) -> ModelRecord | None:
    for action in actions:
        parameters = action.get("parameters") or {}
        model = parameters.get("model")
        if isinstance(model, dict) and {"name", "sha256"} <= set(model):
            notes, weights = (
                tuple(map(str, found)) if isinstance(found, list) else ()
                for found in (parameters.get("notes"), parameters.get("weights"))
            )
            return ModelRecord(str(model["name"]), str(model["sha256"]), notes, weights)
    return None


def readable(name: str) -> str:
    """Make a file name valid Unicode, as manifests require; undecodable bytes become ``?``."""
    return name.encode(errors="replace").decode()


def media_type(path: Path) -> str:
    """Return the MIME type for a file's suffix; application/octet-stream if it is unknown."""
    return TYPES.get(path.suffix.lower(), "application/octet-stream")


def embeds(kind: str) -> bool:
    """Return whether the C2PA library can embed a manifest in files of this MIME type."""
    return kind in c2pa.Builder.get_supported_mime_types()


def sidecar_of(path: Path) -> Path:
    """Return the path of the sidecar for a file's credentials, such as ``video.mkv.c2pa``.

    The whole name is kept so that ``video.mkv`` and ``video.webm`` do not share a sidecar.
    """
    return path.with_name(f"{path.name}.c2pa")


def sidecar_beside(path: Path) -> Path | None:
    """Return the existing sidecar of a file; None if there is none."""
    candidates = sidecar_of(path), path.with_suffix(".c2pa")  # some programs write the second
    return next((sidecar for sidecar in candidates if sidecar.is_file()), None)


def _contains_manifest(path: Path) -> bool:
    """Return whether a file that the library cannot parse still contains a manifest."""
    with path.open("rb") as file:
        tail = b""
        while block := file.read(1 << 20):
            if MANIFEST_MARK in tail + block:
                return True
            tail = block[-len(MANIFEST_MARK) :]
    return False


def context(anchors: str | None = None) -> c2pa.Context:
    """Create a context of the C2PA library that trusts these certificates (PEM)."""
    trust = {"trust": {"trust_anchors": anchors}} if anchors else {}
    return c2pa.Context(c2pa.Settings.from_dict(SETTINGS | trust))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def words_of(error: Exception) -> str:
    """Return the first line of an error message, without the words before its first colon."""
    return (str(error).split(": ", 1)[-1].splitlines() or [type(error).__name__])[0]
