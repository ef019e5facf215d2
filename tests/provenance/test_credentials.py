"""Signed files read back, also with the C2PA library alone, and every alteration is detected."""

import hashlib
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from faceswap.cli import info, text
from faceswap.errors import InputError, NoCredentialsError, OutputError, SettingsError
from faceswap.media import photos, reader, sources, writers
from faceswap.provenance import credentials
from faceswap.provenance.credentials import ModelRecord, read, sidecar_of
from faceswap.provenance.identity import own_identity_file, read_certificates, signing_identity
from faceswap.provenance.signer import SOURCE_TYPE, Signer
from faceswap.swapping.verification import verify
from tests.support.certificates import organisation
from tests.support.clips import make_clip, open_writer, picture, signer, sound_of, times_of

PHOTOS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".tif",
    ".tiff",
    ".avif",
    ".bmp",
    ".jp2",
)
EMBEDDED = (".mp4", ".m4v", ".mov", *PHOTOS[:-2])
BESIDE = (".mkv", ".webm", ".bmp", ".jp2")
HEIC = Path(__file__).parents[1] / "media" / "data" / "tiny.heic"


def original(folder, suffix, name="original"):
    """A small photo or clip with sound."""
    path = folder / f"{name}{suffix}"
    if suffix in PHOTOS:
        Image.fromarray(picture(0, 96, 80)).save(path)
        return path
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    return make_clip(path, codec=codec, audio=0 if suffix == ".webm" else 1)


def written(source, target):
    """Rewrite a photo or clip with the product's own writer, which signs it."""
    is_photo = sources.kind_of(source) == "photo"
    frames = [photos.read_photo(source)] if is_photo else reader.read_video(source)
    with open_writer(target, source) as writer:
        for frame in frames:
            writer.write(frame)
    return target


def altered(path, place, to=None):
    """Flip one bit of the byte at ``place`` (a share of the file's length)."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    (to or path).write_bytes(data)
    return to or path


def copied(source, target, packets=None):
    """Stream-copy with FFmpeg's libraries; ``packets`` limits the copy to the first packets."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for number, packet in enumerate(old.demux()):
            if packet.dts is not None and (packets is None or number < packets):
                packet.stream = streams[packet.stream]
                new.mux(packet)
    return target


def test_suffix_lists_cover_every_written_format():
    assert {*EMBEDDED, *BESIDE} == set(writers.CONTAINERS) | photos.PHOTO_SUFFIXES


@pytest.mark.parametrize("suffix", [*EMBEDDED, *BESIDE])
def test_credentials_of_every_format_read_back(tmp_path, suffix):
    source = original(tmp_path, suffix)

    target = written(source, tmp_path / f"swapped{suffix}")

    found = read(target)
    assert found.intact
    assert not found.trusted
    assert found.title == target.name
    assert found.source_types == (SOURCE_TYPE,)
    assert found.model == ModelRecord("collins-hopper", "5a" * 32, ("both agreed in writing",))
    assert (found.parent.title, found.parent.credentials) == (source.name, "none")
    assert found.parent.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert found.failures == ("signingCredential.untrusted",)
    assert sidecar_of(target).is_file() == (suffix in BESIDE)
    assert found.sidecar == (str(sidecar_of(target)) if suffix in BESIDE else None)


@pytest.mark.parametrize("suffix", [".mp4", ".jpg", ".mkv"])
def test_c2pa_reader_accepts_the_manifest(tmp_path, suffix):
    source = original(tmp_path, suffix)
    target = written(source, tmp_path / f"swapped{suffix}")
    beside = sidecar_of(target).read_bytes() if suffix in BESIDE else None

    with target.open("rb") as file:
        reader = c2pa.Reader(suffix[1:], file, manifest_data=beside)
        report = json.loads(reader.json())

    manifest = report["manifests"][report["active_manifest"]]
    (actions,) = (
        a["data"]["actions"] for a in manifest["assertions"] if a["label"] == "c2pa.actions.v2"
    )
    (parent,) = manifest["ingredients"]
    assert report["validation_state"] == "Valid"
    assert [action["action"] for action in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[0]["parameters"]["ingredients"][0]["url"].endswith(parent["label"])
    assert actions[1]["digitalSourceType"] == SOURCE_TYPE
    assert actions[1]["softwareAgent"]["name"] == "faceswap"
    assert parent["relationship"] == "parentOf"
    assert parent["title"] == source.name
    assert "thumbnail" not in manifest


@pytest.mark.parametrize("suffix", [*EMBEDDED, *BESIDE])
@pytest.mark.parametrize("place", [0.6, 0.7, 0.85])
def test_one_changed_byte_is_detected(tmp_path, suffix, place):
    if suffix in PHOTOS:  # so large that ``place`` hits pixels, not the manifest
        source = tmp_path / f"noise{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save(source)
    else:
        source = original(tmp_path, suffix)
    target = written(source, tmp_path / f"swapped{suffix}")

    found = read(altered(target, place))

    assert not found.intact
    assert found.failures


def test_changed_manifest_is_detected(tmp_path):
    target = written(original(tmp_path, ".jpg"), tmp_path / "swapped.jpg")
    data = target.read_bytes()
    target.write_bytes(data.replace(b"5a5a5a", b"5b5a5a", 1))
    assert target.read_bytes() != data

    assert not read(target).intact


@pytest.mark.parametrize("suffix", [".mp4", ".jpg", ".mkv"])
def test_truncated_file_is_detected(tmp_path, suffix):
    target = written(original(tmp_path, suffix), tmp_path / f"swapped{suffix}")
    target.write_bytes(target.read_bytes()[:-200])

    assert not read(target).intact


@pytest.mark.parametrize("packets", [None, 9], ids=["stream_copied", "trimmed"])
def test_remux_by_another_program_has_no_credentials(tmp_path, packets):
    target = written(original(tmp_path, ".mp4"), tmp_path / "swapped.mp4")

    with pytest.raises(NoCredentialsError, match=r"copy\.mp4 has no Content Credentials"):
        read(copied(target, tmp_path / "copy.mp4", packets))


def test_trimmed_file_with_its_old_sidecar_is_altered(tmp_path):
    target = written(original(tmp_path, ".mkv"), tmp_path / "swapped.mkv")
    copied(target, tmp_path / "copy.mkv", 9).replace(target)

    assert read(target).failures == ("signingCredential.untrusted", "assertion.dataHash.mismatch")


def test_missing_credentials_and_unreadable_files_are_clear_errors(tmp_path):
    (tmp_path / "words.mp4").write_text("words")
    (tmp_path / "words.txt").write_text("words")

    for path in (original(tmp_path, ".png"), original(tmp_path, ".mkv"), tmp_path / "words.txt"):
        with pytest.raises(NoCredentialsError):
            read(path)
    with pytest.raises(InputError, match=r"words\.mp4 is not a readable photo or video"):
        read(tmp_path / "words.mp4")
    with pytest.raises(InputError, match="is not a file"):
        read(tmp_path)


# Inputs whose suffix is not written, and what they become.
ONLY_READ = {".avi": ".mov", ".heic": ".jpg", ".gif": ".png"}
PAIRS = [
    *((suffix, suffix) for suffix in (*EMBEDDED, *BESIDE)),
    *ONLY_READ.items(), (".mp4", ".mkv"), (".mkv", ".mp4"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_credentials_of_the_original_are_kept(tmp_path, first, second):
    once = tmp_path / f"once{first}"
    if first in ONLY_READ:
        made = HEIC if first == ".heic" else original(tmp_path, ".png")
        if first == ".avi":
            make_clip(once)
        elif first == ".heic":
            shutil.copy(made, once)
        else:
            Image.open(made).save(once)
        signer().sign(once, once, original(tmp_path, ".jpg", "older"))
    else:
        written(original(tmp_path, first), once)

    twice = written(once, tmp_path / f"twice{second}")

    beside = sidecar_of(twice).read_bytes() if second in BESIDE else None
    manifests = credentials.report_of(twice, beside)["manifests"]
    assert read(twice).intact
    assert read(twice).parent.credentials == "intact"
    assert sorted(m["title"] for m in manifests.values()) == [once.name, twice.name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_altered_original_is_reported(tmp_path, suffix):
    once = written(original(tmp_path, suffix), tmp_path / f"once{suffix}")
    data = once.read_bytes()
    once.write_bytes(data.replace(b"Lavf", b"Mavf", 1))  # decoders ignore this tag
    assert once.read_bytes() != data

    twice = written(once, tmp_path / f"twice{suffix}")

    assert read(twice).intact
    assert read(twice).parent.credentials == "altered"


def test_signing_changes_neither_frames_audio_nor_chapters(tmp_path):
    source = make_clip(tmp_path / "in.mov", audio=2)
    millisecond = Fraction(1, 1000)
    chapter = {"id": 1, "start": 0, "end": 240, "time_base": millisecond, "metadata": {}}
    with av.open(str(source)) as old, av.open(str(tmp_path / "plain.mp4"), "w") as new:
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        new.set_chapters([chapter])
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    plain = tmp_path / "plain.mp4"
    signed = tmp_path / "signed.mp4"
    shutil.copy(plain, signed)

    signer().sign(signed, signed, source)

    assert read(signed).intact
    assert times_of(signed) == times_of(plain)
    assert sound_of(signed) == sound_of(plain)
    with av.open(str(plain)) as one, av.open(str(signed)) as two:
        assert one.chapters() == two.chapters() != []
        for old, new in zip(one.decode(video=0), two.decode(video=0), strict=True):
            assert np.array_equal(old.to_ndarray(), new.to_ndarray())


def test_trust_list_makes_an_organisation_signature_trusted(tmp_path):
    chain, key, root = organisation(tmp_path / "studio")
    _, _, other_root = organisation(tmp_path / "other")
    source = original(tmp_path, ".jpg")
    target = tmp_path / "swapped.jpg"
    shutil.copy(source, target)

    Signer(ModelRecord("x", "00" * 32), signing_identity(chain, key)).sign(target, target, source)

    assert read(target, root).trusted
    assert read(target).signer.startswith("Studio")
    for trust in (None, other_root):
        assert read(target, trust).intact
        assert not read(target, trust).trusted
    with pytest.raises(SettingsError, match="contains no PEM certificate"):
        read(
            target, source.with_suffix(".txt") if source.with_suffix(".txt").write_text("x") else 0
        )


def test_self_signed_file_is_trusted_if_its_certificate_is_listed(tmp_path):
    target = written(original(tmp_path, ".jpg"), tmp_path / "swapped.jpg")
    (tmp_path / "public.pem").write_bytes(read_certificates(own_identity_file()))

    assert b"PRIVATE" not in (tmp_path / "public.pem").read_bytes()
    assert read(target, tmp_path / "public.pem").trusted


@pytest.mark.parametrize("fault", ["expired", "for web servers"])
def test_certificate_that_cannot_sign_is_refused_at_once(tmp_path, fault):
    from cryptography.x509.oid import ExtendedKeyUsageOID

    chain, key, _ = (
        organisation(tmp_path, days=-1)
        if fault == "expired"
        else organisation(tmp_path, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    )

    with pytest.raises(SettingsError, match=r"cannot sign with .*chain\.pem"):
        Signer(ModelRecord("x", "00" * 32), signing_identity(chain, key))


def test_sidecar_is_written_if_embedding_fails(tmp_path, caplog):
    source = original(tmp_path, ".png")
    target = tmp_path / "really_png.jpg"
    shutil.copy(source, target)

    signer().sign(target, target, source)

    assert "writing them beside it" in caplog.text
    assert target.read_bytes() == source.read_bytes()
    assert read(target).intact
    assert read(target).sidecar == str(sidecar_of(target))
    assert not read(altered(target, 0.5)).intact


def test_sidecar_is_written_if_the_disk_has_no_room_for_a_copy(tmp_path, monkeypatch, caplog):
    def raise_disk_full(self, *arguments):
        raise OutputError("cannot write x: No space left on device")

    source = original(tmp_path, ".mp4")
    target = tmp_path / "swapped.mp4"
    monkeypatch.setattr(Signer, "_embed", raise_disk_full)

    written(source, target)

    assert "No space left on device" in caplog.text
    assert read(target).intact
    assert read(target).sidecar == str(sidecar_of(target))


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE needs POSIX")
@pytest.mark.parametrize("suffix", [".mp4", ".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("side", [80, 500])
def test_sidecar_is_written_if_the_disk_fills_up_while_signing(tmp_path, suffix, side, caplog):
    import resource

    source = original(tmp_path, suffix)
    if suffix in PHOTOS:
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(source)
    target = tmp_path / f"swapped{suffix}"
    shutil.copy(source, target)
    file_signer, size = signer(), source.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 4500), hard))
    try:
        file_signer.sign(target, target, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    embedded = size + 3000 < 4500
    assert embedded or "writing them beside it" in caplog.text
    assert read(target).intact
    assert read(target).sidecar == (None if embedded else str(sidecar_of(target)))
    assert sidecar_of(target).is_file() != embedded


def test_output_is_signed_even_if_the_source_is_gone(tmp_path, caplog):
    source = original(tmp_path, ".jpg")
    target = tmp_path / "swapped.jpg"
    source.rename(target)

    Signer(ModelRecord("x", "00" * 32), signing_identity()).sign(target, target, source)

    assert "cannot be read" in caplog.text
    assert read(target).intact
    assert (read(target).parent.title, read(target).parent.sha256) == ("original.jpg", None)


def test_changed_and_renamed_sequence_frames_are_detected(tmp_path):
    source = original(tmp_path, ".mp4")
    frames = list(reader.read_video(source))[:3]
    paths = [tmp_path / f"{number:06d}.png" for number in range(3)]
    for frame, path in zip(frames, paths, strict=True):
        Image.fromarray(frame.image).save(path)
        signer().sign(path, path, source)
    altered(paths[1], 0.9)
    paths[2].rename(paths[0])

    assert not read(paths[1]).intact
    assert read(paths[0]).intact
    assert "named when signed: 000002.png" in " ".join(text.verification(verify([paths[0]])))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file name that is not Unicode")
@pytest.mark.parametrize("suffix", [".jpg", ".mp4", ".mkv", ".bmp"])
def test_file_with_a_non_unicode_name_is_signed(tmp_path, suffix):
    odd = original(tmp_path, suffix).rename(tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode()))

    target = written(odd, odd.with_stem(f"{odd.stem}.swapped"))

    found = read(target)
    assert found.intact
    assert (found.title, found.parent.title) == (f"caf?.swapped{suffix}", f"caf?{suffix}")
    assert "named when signed" not in " ".join(text.verification(verify([target])))


def test_verification_text_lists_all_facts(tmp_path):
    source = original(tmp_path, ".jpg")
    target = written(source, tmp_path / "swapped.jpg")
    intact = "\n".join(text.verification(verify([target])))
    broken = "\n".join(text.verification(verify([altered(target, 0.9)])))

    for words in (
        "swapped.jpg: intact", "made by: faceswap", "compositeWithTrainedAlgorithmicMedia",
        "made from: original.jpg (without credentials of its own)", "model: collins-hopper",
        "5a" * 32, "note: both agreed in writing", "(untrusted: self-signed",
        hashlib.sha256(source.read_bytes()).hexdigest(),
    ):  # fmt: skip
        assert words in intact
    assert "ALTERED" in broken
    assert "assertion.dataHash.mismatch" in broken


def test_worst_file_decides_the_exit_code(tmp_path):
    good = written(original(tmp_path, ".jpg"), tmp_path / "good.jpg")
    bad = altered(good, 0.9, tmp_path / "bad.jpg")
    plain = original(tmp_path, ".png")
    missing = tmp_path / "missing.jpg"

    codes = [
        getattr(verify(files).worst, "exit_code", 0)
        for files in ([good], [good, missing], [missing, plain, good], [plain, bad, missing])
    ]

    assert codes == [0, 3, 10, 9]


def test_verify_command_prints_one_object_and_sets_the_exit_code(tmp_path):
    from tests.support.commands import faceswap, one_line_error

    good = written(original(tmp_path, ".jpg"), tmp_path / "good.jpg")
    bad = altered(good, 0.9, tmp_path / "bad.jpg")

    done = faceswap("verify", good, bad, original(tmp_path, ".png"), "--json", cwd=tmp_path, code=9)

    first, second, third = json.loads(done.stdout)["files"]
    assert "bad.jpg was altered" in one_line_error(done)
    assert (first["intact"], first["model"]["sha256"]) == (True, "5a" * 32)
    assert second["intact"] is False
    assert "has no Content Credentials" in third["error"]
    assert "good.jpg: intact" in faceswap("verify", good, cwd=tmp_path).stdout


def test_expired_certificate_is_not_reported_as_an_alteration(tmp_path):
    chain, key, _ = organisation(tmp_path / "studio", days=2 / 86400)
    expiring = Signer(ModelRecord("x", "00" * 32), signing_identity(chain, key))
    paths = [original(tmp_path, suffix) for suffix in (".jpg", ".bmp")]
    for path in paths:
        expiring.sign(path, path, path)
        assert read(path).intact
    last = x509.load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc
    while datetime.now(UTC) < last + timedelta(seconds=1):
        time.sleep(0.1)

    for path in paths:
        found = verify([path])
        assert "EXPIRED: nothing was altered" in text.verification(found)[0]
        assert "certificate has expired" in str(found.worst)
        assert found.worst.exit_code == 9
    assert read(written(paths[0], tmp_path / "later.jpg")).parent.credentials == "expired"
    for path in paths:
        assert "ALTERED" in text.verification(verify([altered(path, 0.9)]))[0]
    for path in (tmp_path / "late.jpg", tmp_path / "late.bmp"):
        shutil.copy(paths[0], path)
        with pytest.raises(OutputError, match=r"late\.\w+ cannot be signed: .*not valid"):
            expiring.sign(path, path, path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_credentials_on_a_server_are_reported_as_remote(tmp_path, suffix):
    """Adobe's programs can store credentials this way."""
    address = "https://example.org/manifest.c2pa"
    words = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", words)
    about = {"pnginfo": notes} if suffix == ".png" else {"xmp": words.encode()}
    source = tmp_path / f"remote{suffix}"
    Image.fromarray(picture(0, 96, 80)).save(source, **about)

    with pytest.raises(NoCredentialsError, match=f"they are at {address}, but nothing is fetched"):
        read(source)
    assert info.inspect(source).provenance is None
    assert read(written(source, tmp_path / f"swapped{suffix}")).parent.credentials == "remote"


def test_info_reads_a_file_with_the_wrong_suffix(tmp_path):
    shutil.copy(original(tmp_path, ".mkv"), tmp_path / "really_mkv.mp4")

    facts = info.inspect(tmp_path / "really_mkv.mp4")

    assert (facts.kind, facts.provenance) == ("video", None)


def test_embedded_credentials_win_over_a_foreign_sidecar(tmp_path):
    once = written(original(tmp_path, ".png"), tmp_path / "once.png")
    other = written(original(tmp_path, ".bmp"), tmp_path / "other.bmp")
    shutil.copy(sidecar_of(other), sidecar_of(once))

    twice = written(once, tmp_path / "twice.png")

    assert read(once).intact
    assert read(twice).parent.credentials == "intact"


@pytest.mark.parametrize("notes", [5, 1.5, True, "words", {"a": 1}, None, [None, 1]])
def test_notes_of_another_program_may_have_any_type(tmp_path, notes):
    file_signer = signer()
    builder = c2pa.Builder(
        {"format": "image/jpeg", "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [
            {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "parameters":
             {"model": {"name": "x", "sha256": 7}, "notes": notes}}]}}]},
        context=credentials.context(),
    )  # fmt: skip
    with original(tmp_path, ".jpg").open("rb") as old, (tmp_path / "x.jpg").open("w+b") as new:
        builder.sign(file_signer._signer, "image/jpeg", old, new)

    found = read(tmp_path / "x.jpg")

    assert found.intact
    assert all(isinstance(note, str) for note in found.model.notes)
    assert found.model.sha256 == "7"


@pytest.mark.parametrize("manifests", [[], {}, None])
def test_manifest_that_cannot_be_parsed_counts_as_altered(tmp_path, monkeypatch, manifests):
    target = written(original(tmp_path, ".png"), tmp_path / "swapped.png")
    failure = {"code": "claim.missing"}
    report = {
        "active_manifest": "urn:c2pa:x", "manifests": manifests, "validation_state": "Invalid",
        "validation_results": {"activeManifest": {"failure": [failure]}},
    }  # fmt: skip
    monkeypatch.setattr(credentials, "report_of", lambda *_: report)

    found = read(target)

    assert (found.intact, found.failures, found.generator) == (False, ("claim.missing",), "")
    assert "ALTERED" in text.verification(verify([target]))[0]
