"""The signing identity: the user's own certificate, created once, or an organisation's."""

import base64
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.provenance import identity
from faceswap.provenance.identity import own_identity_file, signing_identity
from tests.support.certificates import organisation, pem_of

KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_user_identity_is_created_once_and_is_private(config):
    first, second = signing_identity(), signing_identity()

    path = own_identity_file()
    assert path.is_relative_to(config)
    assert (first.key, first.certificates) == (second.key, second.certificates)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert "PRIVATE KEY" not in repr(first)


def test_user_identity_names_neither_user_nor_machine(config):
    (certificate,) = x509.load_pem_x509_certificates(signing_identity().certificates)

    assert certificate.issuer == certificate.subject
    name = certificate.subject.rfc4514_string()
    assert re.fullmatch("CN=faceswap user [0-9a-f]{12},O=self-signed", name)


def test_concurrent_processes_get_the_same_pair(config):
    code = (
        "import sys; from faceswap.provenance.identity import signing_identity\n"
        "sys.stdin.readline()\n"
        "one = signing_identity(); print(hash((one.key, one.certificates)))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True, env={"PYTHONHASHSEED": "0",
                         "XDG_CONFIG_HOME": str(config)})
        for _ in range(4)
    ]  # fmt: skip
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in started]

    assert all(process.returncode == 0 for process in started)
    assert len(set(outputs)) == 1


def test_identity_created_by_another_process_is_kept(config, monkeypatch):
    path = own_identity_file()
    signing_identity()
    existing = path.read_bytes()

    identity._create(path)

    assert path.read_bytes() == existing


def test_expired_user_certificate_is_renewed(config, monkeypatch):
    monkeypatch.setattr(identity, "VALIDITY", timedelta(seconds=-1))
    old = signing_identity()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))

    new = signing_identity()

    (certificate,) = x509.load_pem_x509_certificates(new.certificates)
    assert new.key != old.key
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3000)


def test_damaged_user_identity_is_a_clear_error(config):
    own_identity_file().parent.mkdir(parents=True)
    own_identity_file().write_text("words")

    with pytest.raises(SettingsError, match="is damaged; delete it"):
        signing_identity()


def test_unwritable_configuration_folder_is_a_clear_error(config):
    config.write_text("a file instead of a folder")

    with pytest.raises(OutputError, match=r"cannot write .*signing-identity\.pem"):
        signing_identity()


@pytest.mark.parametrize("algorithm", KEYS)
def test_organisation_certificate_and_key_are_used(tmp_path, algorithm):
    chain, key, _ = organisation(tmp_path, KEYS[algorithm]())

    identity = signing_identity(chain, key)

    assert identity.algorithm == algorithm
    assert identity.certificates.count(b"BEGIN CERTIFICATE") == 2
    assert identity.certificates == chain.read_bytes()


def test_environment_is_used_but_arguments_win(tmp_path, monkeypatch):
    chain, key, _ = organisation(tmp_path / "one")
    other_chain, other_key, _ = organisation(tmp_path / "two")
    monkeypatch.setenv("FACESWAP_SIGN_CERT", str(chain))
    monkeypatch.setenv("FACESWAP_SIGN_KEY", str(key))

    assert signing_identity().certificates == chain.read_bytes()
    assert signing_identity(other_chain, other_key).certificates == other_chain.read_bytes()


def test_traditional_openssl_key_is_converted_to_pkcs8(tmp_path):
    chain, key, _ = organisation(tmp_path, private_key := KEYS["es256"]())
    key.write_bytes(pem_of(private_key, PrivateFormat.TraditionalOpenSSL))

    assert signing_identity(chain, key).key == pem_of(private_key)


def test_mismatched_or_unusable_pair_is_refused(tmp_path):
    chain, key, _ = organisation(tmp_path / "one")
    _, other_key, _ = organisation(tmp_path / "two")
    locked, words = tmp_path / "locked.pem", tmp_path / "words.pem"
    locked.write_bytes(pem_of(KEYS["es256"](), encryption=BestAvailableEncryption(b"x")))
    words.write_text("words")
    weak_chain, weak_key, _ = organisation(
        tmp_path / "weak", ec.generate_private_key(ec.SECP256K1())
    )

    for arguments, message in (
        ((chain, None), "give both --sign-cert and --sign-key"),
        ((chain, other_key), "does not match the certificate"),
        ((chain, locked), "contains no unencrypted PEM private key"),
        ((words, key), "contains no PEM certificate"),
        ((weak_chain, weak_key), "must be RSA, Ed25519 or one of secp256r1"),
    ):
        with pytest.raises(SettingsError, match=message):
            signing_identity(*arguments)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        signing_identity(tmp_path / "nowhere.pem", key)


def test_public_key_off_its_curve_is_a_clear_error(tmp_path):
    chain, key, _ = organisation(tmp_path)
    certificate = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    der = certificate.public_bytes(Encoding.DER)
    numbers = certificate.public_key().public_numbers()
    point = numbers.x.to_bytes(32, "big")
    assert der.count(point) == 1
    lines = base64.encodebytes(der.replace(point, b"\xff" * 32)).decode()
    chain.write_text(f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")

    with pytest.raises(SettingsError, match=r"the public key in .* cannot be read"):
        signing_identity(chain, key)
