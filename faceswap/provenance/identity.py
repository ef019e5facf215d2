"""The certificate and key that sign outputs: an organisation's, or the user's self-signed pair.

A user without a certificate gets a self-signed one on first use. The certificate and its key are
stored in a single file in the user's configuration folder. That file is created atomically, so
concurrent processes cannot combine the certificate of one pair with the key of another.
"""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from platformdirs import user_config_path

from faceswap.errors import InputError, SettingsError
from faceswap.files import reason, writing

CERTIFICATE_VARIABLE, KEY_VARIABLE = "FACESWAP_SIGN_CERT", "FACESWAP_SIGN_KEY"
IDENTITY_FILE = "signing-identity.pem"
VALIDITY = timedelta(days=3650)
PUBLIC = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
# COSE algorithms that C2PA allows, by the curve of the key
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True)
class SigningIdentity:
    """A certificate chain with its private key.

    Attributes:
        certificates: PEM, the signer's certificate first.
        key: The private key of that certificate, unencrypted PKCS#8 PEM.
        algorithm: es256, es384, es512, ps256 or ed25519.
        place: The file that the certificates were read from, for error messages.
    """

    certificates: bytes
    key: bytes = field(repr=False)
    algorithm: str
    place: str


def signing_identity(
    certificate: str | Path | None = None, key: str | Path | None = None
) -> SigningIdentity:
    """Load a certificate and its private key.

    If neither is given, the environment variables ``FACESWAP_SIGN_CERT`` and ``FACESWAP_SIGN_KEY``
    name the files. If these are not set either, the user's own self-signed pair is used. It is
    created on first use, and again after it has expired.

    Args:
        certificate: PEM file of the chain, the signer's certificate first.
        key: PEM file of its private key, unencrypted.

    Raises:
        SettingsError: If only one of the two is given, a file does not contain what it should, they
            are not a pair, or C2PA does not support this kind of key.
        InputError: If a file cannot be read.
        OutputError: If the user's own identity cannot be written.
    """
    if not (certificate or key):
        certificate, key = os.environ.get(CERTIFICATE_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not (certificate or key):
        return _user_identity()
    if not (certificate and key):
        raise SettingsError(
            "signing needs a certificate and its key: give both --sign-cert and --sign-key "
            f"({CERTIFICATE_VARIABLE} and {KEY_VARIABLE}), or neither"
        )
    return _identity(_read(Path(certificate)), _read(Path(key)), str(certificate), str(key))


def read_certificates(path: Path) -> bytes:
    """Read the certificates of a PEM file, without any key that it contains.

    Raises:
        InputError: If it cannot be read.
        SettingsError: If it contains no certificate.
    """
    certificates = _parse(_read(path), str(path))
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _parse(pem: bytes, place: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SettingsError(f"{place} contains no PEM certificate") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _identity(certificates: bytes, key: bytes, place: str, key_place: str) -> SigningIdentity:
    """Check that a certificate and a key are a pair, and convert the key to PKCS#8."""
    certificate, *issuers = _parse(certificates, place)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise SettingsError(f"{key_place} contains no unencrypted PEM private key") from error
    try:
        certified = certificate.public_key().public_bytes(*PUBLIC)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"the public key in {place} cannot be read: {error}") from error
    if private.public_key().public_bytes(*PUBLIC) != certified:
        raise SettingsError(f"the key in {key_place} does not match the certificate in {place}")
    if isinstance(private, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        algorithm = CURVES[private.curve.name]
    else:
        raise SettingsError(
            f"{key_place}: the key must be RSA, Ed25519 or one of {', '.join(CURVES)}"
        )
    plain = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, *issuers))
    return SigningIdentity(chain, plain, algorithm, place)


def own_identity_file() -> Path:
    """Return the path of the user's own identity, in the platform's configuration folder."""
    return user_config_path("faceswap", appauthor=False) / IDENTITY_FILE


def _user_identity() -> SigningIdentity:
    path = own_identity_file()
    if not path.exists():
        _create(path)
    pem = _read(path)
    try:
        expires = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        if expires <= datetime.now(UTC):
            with writing(path):
                path.unlink(missing_ok=True)
            _create(path)
            pem = _read(path)
        return _identity(pem, pem, str(path), str(path))
    except (ValueError, SettingsError) as error:
        raise SettingsError(
            f"{path} is damaged; delete it to have a new signing identity created"
        ) from error


def _create(path: Path) -> None:
    """Create the user's identity, readable only by them, unless another process did so first."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part.pem")
    with writing(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as f:
                f.write(_self_signed())
                f.flush()
                os.fsync(f.fileno())
            _publish(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file its final name, unless another process did so first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # no hard links on this file system: the last writer wins
        temporary.replace(path)


def _self_signed() -> bytes:
    """Create a key and a self-signed certificate for it; return both as PEM.

    The certificate profile of the C2PA specification requires the key usages below, and the c2pa
    library also requires an authority key identifier. The name reveals nothing about the user or
    the machine; the start of the key's fingerprint distinguishes signers.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "self-signed"),
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"faceswap user {identifier.digest.hex()[:12]}"
            ),
        ]
    )
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # the clock of a verifier may be slow
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, SHA256())
    )
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ) + certificate.public_bytes(Encoding.PEM)
