"""Certificates of an organisation for signing in tests."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def pem_of(key, form=PrivateFormat.PKCS8, encryption=None):
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def organisation(folder, key=None, days=30, usage=ExtendedKeyUsageOID.EMAIL_PROTECTION):
    """Create a root and a certificate issued by it; return paths of chain, key and root (PEM)."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key = ec.generate_private_key(ec.SECP256R1())
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    usages = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    usages = f"{usages} key_cert_sign crl_sign encipher_only decipher_only".split()

    def certificate(name, subject_key, allowed):
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, "root")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(subject_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days if name != "root" else 60))
            .add_extension(x509.BasicConstraints(name == "root", None), critical=True)
            .add_extension(x509.KeyUsage(**{k: k in allowed for k in usages}), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
            )
        )
        if name != "root":
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(root_key, SHA256()).public_bytes(Encoding.PEM)

    leaf = certificate("Studio", key, {"digital_signature"})
    root = certificate("root", root_key, {"key_cert_sign"})
    paths = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
    for path, data in zip(paths, (leaf + root, pem_of(key), root), strict=True):
        path.write_bytes(data)
    return paths
