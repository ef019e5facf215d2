"""Sign the outputs of a conversion with Content Credentials (C2PA).

The manifest is embedded in the file or, if that is not possible, written beside it. The c2pa
library refuses to sign a format in which it cannot embed a manifest, so this module adds the hash
of the whole file to the manifest that it writes beside it.
"""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import c2pa
from c2pa import C2paError

from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.files import Publish, atomic_write, sha256_of, write_bytes, writing
from faceswap.provenance import watermark
from faceswap.provenance.credentials import (
    ModelRecord,
    context,
    embeds,
    find,
    media_type,
    readable,
    sidecar_beside,
    sidecar_of,
    words_of,
)
from faceswap.provenance.identity import SigningIdentity

log = logging.getLogger(__name__)

T = TypeVar("T")

SOURCE_TYPE = (  # IPTC: edited with generative AI
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
AGENT = "faceswap"
SIDECAR_TYPE = "application/c2pa"
MODEL_TYPE = "c2pa.types.model.pytorch"
# The user chose model and settings; whether anybody approved of the output is not known.
OVERSIGHT = "prompt_guided"


@dataclass(frozen=True, slots=True)
class Marking:
    """How an output is marked beside its credentials.

    Attributes:
        watermark: The bits of the watermark in it; None if it has none.
        is_intermediate: Whether it stays in a production, so that nothing in it is marked.
    """

    watermark: int | None = None
    is_intermediate: bool = False


UNMARKED = Marking()


class Signer:
    """Signs the outputs of one run.

    Args:
        model: The model that makes the new faces.
        identity: The certificate and key to sign with.
        timestamp_url: Address of a server for time stamps (RFC 3161); None for signatures without.
            If it does not answer, the signatures have none, and a warning says so.

    Raises:
        SettingsError: If this identity cannot sign; a trial signature checks it before the run.
    """

    def __init__(
        self, model: ModelRecord, identity: SigningIdentity, timestamp_url: str | None = None
    ) -> None:
        self._model = model
        self._parent: tuple[Path, bytes] | None = None  # last source and its ingredient archive
        self._stamping: c2pa.Signer | None = None
        try:
            self._signer = c2pa.Signer.from_info(_info(identity, None))
            self._manifest_for(b"", "trial", None)
            if timestamp_url:
                self._stamping = c2pa.Signer.from_info(_info(identity, timestamp_url))
                self._manifest_for(b"", "trial", None)
        except C2paError as error:
            raise SettingsError(
                f"cannot sign with {identity.place}: {words_of(error)}; the certificate must be "
                "valid today and allow digital signatures and e-mail protection"
            ) from error

    def publisher(self, source: Path, marking: Marking = UNMARKED) -> Publish:
        """Return a Publish that signs an output and then moves it into place atomically.

        Args:
            source: The file that the outputs are made from.
            marking: How the outputs are marked.

        Returns:
            A function of the output's path. Its context raises the errors of :func:`atomic_write`
            and :meth:`sign`.
        """

        @contextmanager
        def publish(path: Path) -> Iterator[Path]:
            with atomic_write(path) as temporary:
                yield temporary
                self.sign(temporary, path, source, marking)

        return publish

    def sign(self, temporary: Path, path: Path, source: Path, marking: Marking = UNMARKED) -> None:
        """Sign a finished file: embed the manifest, or write it beside ``path`` if it cannot be.

        Nothing is written into an intermediate.

        Args:
            temporary: The finished file under its temporary name; replaced by the signed one.
            path: Its final name.
            source: The file it was made from.
            marking: How it is marked.

        Raises:
            InputError: If the finished file cannot be read.
            OutputError: If the sidecar cannot be written, or signing fails, for example because
                the certificate has expired since the start.
        """
        kind = media_type(path)
        if embeds(kind) and not marking.is_intermediate:
            try:
                self._embed(temporary, path, source, marking)
                return
            except (C2paError, OutputError) as error:  # do not lose hours of work
                log.warning("cannot embed credentials in %s (%s); writing them beside it",
                            path, words_of(error))  # fmt: skip
        digest = bytes.fromhex(sha256_of(temporary))
        try:
            manifest = self._manifest_for(digest, readable(path.name), source, marking)
        except C2paError as error:
            raise OutputError(
                f"{path} cannot be signed: {words_of(error)}; use a certificate that is valid "
                "today and run the same command again"
            ) from error
        write_bytes(sidecar_of(path), manifest)

    def _embed(self, temporary: Path, path: Path, source: Path, marking: Marking) -> None:
        # c2pa truncates a file that it signs in place, so sign into a temporary file. A full disk
        # may be reported only on close.
        def sign(signer: c2pa.Signer) -> None:
            builder = self._builder(readable(path.name), source, marking)
            with (
                atomic_write(temporary) as signed,
                writing(path),
                temporary.open("rb") as old,
                signed.open("w+b") as new,
            ):
                builder.sign(signer, media_type(path), old, new)

        self._with_time_stamp(sign)

    def _with_time_stamp(self, sign: Callable[[c2pa.Signer], T]) -> T:
        """Sign with a time stamp if there is a server for it that answers, otherwise without."""
        if self._stamping:
            try:
                return sign(self._stamping)
            except C2paError as error:
                log.warning(
                    "no time stamp, because its server failed (%s); signatures say who signed, not "
                    "when, which the code of practice accepts where a program runs locally",
                    words_of(error),
                )
                self._stamping = None  # ask once, not for every photo
        return sign(self._signer)

    def _manifest_for(
        self, digest: bytes, title: str, source: Path | None, marking: Marking = UNMARKED
    ) -> bytes:
        """Sign a manifest to store beside a file, bound to the SHA-256 of the whole file.

        c2pa refuses to sign unknown formats, but it verifies any file against a c2pa.hash.data
        assertion, so this adds one.
        """
        binding = {"alg": "sha256", "hash": list(digest), "pad": [], "name": "the whole file"}

        def sign(signer: c2pa.Signer) -> bytes:
            builder = self._builder(title, source, marking, binding)
            builder.set_no_embed()
            return bytes(builder.sign(signer, SIDECAR_TYPE, io.BytesIO(), io.BytesIO()))

        return self._with_time_stamp(sign)

    def _builder(
        self, title: str, source: Path | None, marking: Marking,
        binding: dict[str, Any] | None = None,
    ) -> c2pa.Builder:  # fmt: skip
        agent = {"name": AGENT, "version": version("faceswap")}
        name = readable(self._model.name)
        edited: dict[str, Any] = {
            "action": "c2pa.edited",
            "description": "faces swapped by a trained model",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": agent,
            "parameters": {
                "model": {"name": name, "sha256": self._model.sha256},
                "notes": list(self._model.notes),
                "weights": list(self._model.weights),
            },
        }
        if marking.is_intermediate:
            edited["parameters"]["intermediate"] = True
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
        disclosure = {
            "modelType": MODEL_TYPE,
            "modelName": name,
            "modelIdentifier": f"sha256:{self._model.sha256}",
            "contentProfile": {"humanOversightLevel": OVERSIGHT},
        }
        actions: list[dict[str, Any]] = [opened, edited]
        assertions: list[dict[str, Any]] = [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": "c2pa.ai-disclosure", "data": disclosure},
        ]
        if marking.watermark is not None:
            actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
            value = list(marking.watermark.to_bytes(watermark.BITS // 8, "big"))
            soft = {"alg": watermark.ALGORITHM, "blocks": [{"scope": {}, "value": value}]}
            assertions.append({"label": "c2pa.soft-binding", "data": soft})
        if binding:
            assertions.append({"label": "c2pa.hash.data", "data": binding})
        builder = c2pa.Builder(
            {"claim_generator_info": [agent], "title": title,
             "format": media_type(Path(title)), "assertions": assertions},
            context=context(),
        )  # fmt: skip
        parent = self._ingredient(source) if source else _ingredient_archive({"title": title})
        builder.add_ingredient_from_archive(io.BytesIO(parent))
        return builder

    def _ingredient(self, source: Path) -> bytes:
        """Archive the source as an ingredient with its own credentials; keep the latest archive."""
        if self._parent is None or self._parent[0] != source:
            self._parent = source, _ingredient(source)
        return self._parent[1]


def _info(identity: SigningIdentity, timestamp_url: str | None) -> c2pa.C2paSignerInfo:
    return c2pa.C2paSignerInfo(
        alg=identity.algorithm.encode(),
        sign_cert=identity.certificates,
        private_key=identity.key,
        ta_url=timestamp_url.encode() if timestamp_url else None,
    )


def _ingredient(source: Path) -> bytes:
    kind = media_type(source)
    facts = {"title": readable(source.name), "format": kind}
    try:
        facts["description"] = f"sha256:{sha256_of(source)}"
    except InputError as error:  # the source was moved; keep the output
        log.warning("%s; the credentials will contain only the source's name", error)
        return _ingredient_archive(facts)
    try:
        report, sidecar = find(source)
        manifest = sidecar.read_bytes() if sidecar else None
    except (C2paError, OSError) as error:
        manifest = None
        if sidecar_beside(source):
            log.warning("the credentials of %s are left out: %s", source, words_of(error))
    if manifest is not None:
        parent = {key: report[key] for key in ("active_manifest", "validation_results")}
        parent["manifest_data"] = {"format": SIDECAR_TYPE, "identifier": "parent.c2pa"}
        return _ingredient_archive(facts | parent, manifest=manifest)
    if embeds(kind):
        try:
            with source.open("rb") as file:
                return _ingredient_archive(facts, kind, file)
        except C2paError as error:  # the decoder may accept files that c2pa rejects
            log.warning("the credentials of %s, if any, are left out: %s", source, words_of(error))
    return _ingredient_archive(facts)


def _ingredient_archive(
    facts: dict[str, Any], kind: str = "", file: Any = None, manifest: bytes | None = None
) -> bytes:
    """Serialise an ingredient so that any number of manifests can include it."""
    facts = {"relationship": "parentOf", "label": "parent", "instance_id": "parent"} | facts
    definition: dict[str, Any] = {"ingredients": [] if file else [facts]}
    builder = c2pa.Builder(definition, context=context())
    if manifest is not None:
        builder.add_resource("parent.c2pa", io.BytesIO(manifest))
    if file:
        del facts["instance_id"]
        builder.add_ingredient_from_stream(facts, kind, file)
    archive = io.BytesIO()
    builder.write_ingredient_archive("parent", archive)
    return archive.getvalue()
