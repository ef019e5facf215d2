"""Signatures carry a time stamp if a server answers, and are made without one otherwise."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from faceswap.cli import text
from faceswap.config import ConvertConfig
from faceswap.errors import SettingsError
from faceswap.provenance.credentials import ModelRecord, read, sidecar_of
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Signer
from faceswap.swapping.verification import verify
from tests.support.clips import picture
from tests.support.timestamps import time_stamp_server

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs OpenSSL's command")
RECORD = ModelRecord("a-b", "5a" * 32)


def photo(path):
    Image.fromarray(picture(0, 96, 80)).save(path)
    return path


def signed(folder, url, name="new.png"):
    source, target = photo(folder / f"old{name}"), photo(folder / name)
    Signer(RECORD, signing_identity(), url).sign(target, target, source)
    return target


@pytest.mark.parametrize("name", ["new.png", "new.bmp"])
def test_signature_has_the_time_of_the_server(tmp_path, name):
    with time_stamp_server(tmp_path) as (url, root, answers):
        target = signed(tmp_path, url, name)

    found = read(target)
    assert len(answers) == 2  # the trial and the signature
    assert found.intact
    assert sidecar_of(target).exists() == (name == "new.bmp")
    age = datetime.now(UTC) - datetime.fromisoformat(found.signed_at)
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert not found.time_trusted
    assert read(target, root).time_trusted
    assert f"signed at: {found.signed_at} (time stamp by a server that is not" in "\n".join(
        text.verification(verify([target]))
    )


@pytest.mark.parametrize("name", ["new.png", "new.bmp"])
def test_without_an_answer_it_is_signed_without_a_time(tmp_path, caplog, name):
    with time_stamp_server(tmp_path) as (url, _, _):
        pass  # and is closed

    target = signed(tmp_path, url, name)

    assert read(target).intact
    assert read(target).signed_at is None
    (warning,) = caplog.messages
    assert warning.startswith("no time stamp, because its server failed (")
    assert "not when" in warning


def test_server_that_fails_later_is_asked_once(tmp_path, caplog):
    with time_stamp_server(tmp_path) as (url, _, _):
        signer = Signer(RECORD, signing_identity(), url)
    source = photo(tmp_path / "old.png")
    for number in range(3):
        target = photo(tmp_path / f"{number}.png")
        signer.sign(target, target, source)
        assert read(target).intact
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("url", ["clock.example", "ftp://clock.example", "https://"])
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(SettingsError, match="--timestamp-url must begin with http"):
        ConvertConfig(timestamp_url=url)
