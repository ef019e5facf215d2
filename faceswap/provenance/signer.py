"""Sign what a conversion writes with Content Credentials (C2PA).

They go into the file or, where its format has no place for them, beside it. The library refuses
such formats, so there the hash of the whole file is put into the manifest here.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import c2pa
from c2pa import C2paError

from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.files import Publish, atomic_write, sha256_of, write_bytes, writing
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


SOURCE_TYPE = (  # IPTC: altered with a generative model
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
AGENT = "faceswap"
SIDECAR_TYPE = "application/c2pa"


class Signer:
    """Signs the outputs of one run.

    Args:
        model: What paints the faces.
        identity: Whose signature.

    Raises:
        SettingsError: If nothing can be signed with this identity: better now than after the work.
    """

    def __init__(self, model: ModelRecord, identity: SigningIdentity) -> None:
        self._model = model
        self._parent: tuple[Path, bytes] | None = None  # the last source and its ingredient
        info = c2pa.C2paSignerInfo(
            alg=identity.algorithm.encode(),
            sign_cert=identity.certificates,
            private_key=identity.key,
            ta_url=None,
        )
        try:
            self._signer = c2pa.Signer.from_info(info)
            self._manifest_for(b"", "trial", None)
        except C2paError as error:
            raise SettingsError(
                f"nothing can be signed with {identity.place}: {words_of(error)}; it must be valid "
                "today, and made for digital signatures and e-mail protection"
            ) from error

    def publisher(self, source: Path) -> Publish:
        """Return what replaces an output in one step and gives it credentials first.

        Args:
            source: What the outputs are made from.
        """

        @contextmanager
        def publish(path: Path) -> Iterator[Path]:
            with atomic_write(path) as temporary:
                yield temporary
                self.sign(temporary, path, source)

        return publish

    def sign(self, temporary: Path, path: Path, source: Path) -> None:
        """Give a finished file its credentials: in it, or beside ``path`` if they do not fit in.

        Args:
            temporary: The finished file, still under another name; replaced by the signed one.
            path: The name it will get.
            source: What it was made from.

        Raises:
            OutputError: If the disk refuses the credentials beside the file too, or nothing can
                be signed any more, as when the certificate has expired meanwhile.
        """
        kind = media_type(path)
        if embeds(kind):
            try:
                self._embed(temporary, path, source, kind)
                return
            except (C2paError, OutputError) as error:  # hours of work are not thrown away for it
                log.warning("credentials do not go into %s (%s); they lie beside it",
                            path, words_of(error))  # fmt: skip
        digest = bytes.fromhex(sha256_of(temporary))
        try:
            manifest = self._manifest_for(digest, readable(path.name), source)
        except C2paError as error:
            raise OutputError(
                f"{path} cannot be signed: {words_of(error)}; give a certificate that is valid "
                "today, and run the same command again"
            ) from error
        write_bytes(sidecar_of(path), manifest)

    def _embed(self, temporary: Path, path: Path, source: Path, kind: str) -> None:
        builder = self._builder(readable(path.name), kind, source)
        # The library empties a file that it is to sign into itself. A full disk may show late.
        with (
            atomic_write(temporary) as signed,
            writing(path),
            temporary.open("rb") as old,
            signed.open("w+b") as new,
        ):
            builder.sign(self._signer, kind, old, new)

    def _manifest_for(self, digest: bytes, title: str, source: Path | None) -> bytes:
        """A manifest that lies beside a file, bound to the hash of the whole of it.

        The library signs no format that it does not know, but checks any file against a hash that
        stands in the manifest from the beginning.
        """
        binding = {"alg": "sha256", "hash": list(digest), "pad": [], "name": "the whole file"}
        builder = self._builder(title, media_type(Path(title)), source, binding)
        builder.set_no_embed()
        return bytes(builder.sign(self._signer, SIDECAR_TYPE, io.BytesIO(), io.BytesIO()))

    def _builder(
        self, title: str, kind: str, source: Path | None, binding: dict[str, Any] | None = None
    ) -> c2pa.Builder:
        agent = {"name": AGENT, "version": version("faceswap")}
        model = {"name": readable(self._model.name), "sha256": self._model.sha256}
        edited = {
            "action": "c2pa.edited",
            "description": "faces swapped by a trained model",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": agent,
            "parameters": {"model": model, "notes": list(self._model.notes)},
        }
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
        assertions = [{"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}}]
        if binding:
            assertions.append({"label": "c2pa.hash.data", "data": binding})
        builder = c2pa.Builder(
            {"claim_generator_info": [agent], "title": title, "format": kind,
             "assertions": assertions},
            context=context(),
        )  # fmt: skip
        parent = self._ingredient(source) if source else _archived({"title": title})
        builder.add_ingredient_from_archive(io.BytesIO(parent))
        return builder

    def _ingredient(self, source: Path) -> bytes:
        """The original as an ingredient, with its own credentials; kept for the next output."""
        if self._parent is None or self._parent[0] != source:
            self._parent = source, _ingredient(source)
        return self._parent[1]


def _ingredient(source: Path) -> bytes:
    kind = media_type(source)
    facts = {"title": readable(source.name), "format": kind}
    try:
        facts["description"] = f"sha256:{sha256_of(source)}"
    except InputError as error:  # moved away meanwhile: no reason to lose the work
        log.warning("%s; its credentials only name it", error)
        return _archived(facts)
    try:
        report, sidecar = find(source)
        manifest = sidecar.read_bytes() if sidecar else None
    except (C2paError, OSError) as error:
        manifest = None
        if sidecar_beside(source):
            log.warning("the credentials of %s are left out: %s", source, words_of(error))
    if manifest is not None:
        own = {key: report[key] for key in ("active_manifest", "validation_results")}
        own["manifest_data"] = {"format": SIDECAR_TYPE, "identifier": "parent.c2pa"}
        return _archived(facts | own, manifest=manifest)
    if embeds(kind):
        try:
            with source.open("rb") as file:
                return _archived(facts, kind, file)
        except C2paError as error:  # the decoder may forgive what this library does not
            log.warning("the credentials of %s, if any, are left out: %s", source, words_of(error))
    return _archived(facts)


def _archived(
    facts: dict[str, Any], kind: str = "", file: Any = None, manifest: bytes | None = None
) -> bytes:
    """An ingredient as bytes, which any number of manifests can take it from."""
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
