"""A certificate authority of the lab's own, and one certificate for every name of Google's that it serves."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = [
    "*.googleapis.com",
    "googleapis.com",
    "*.pkg.dev",
    "*.gcr.io",
    "gcr.io",
    "accounts.google.com",
    "tunnel.cloudproxy.app",
    "metadata.google.internal",
    "localhost",
]
LIFE = datetime.timedelta(days=365)


def ensure(folder: Path) -> tuple[Path, Path]:
    """Have the authority's certificate and the server's (with its key) in a folder.

    Elliptic curves: a handshake costs a tenth of RSA's. Made again when a tenth of their life is
    left, or for a new name.

    :returns: the authority's certificate, and the server's certificate chain with its key, both PEM files.
    """
    authority_file, server_file = folder / "ca.pem", folder / "server.pem"
    if authority_file.exists() and server_file.exists():
        made = x509.load_pem_x509_certificate(server_file.read_bytes())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        lasts = made.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > LIFE / 10
        if lasts and set(NAMES) <= set(names.get_values_for_type(x509.DNSName)):
            return authority_file, server_file
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the lab's Google")])
    authority = (
        _builder(name, name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    entries: list[x509.GeneralName] = [x509.DNSName(text) for text in NAMES]
    entries.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    server = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*.googleapis.com")]), name, server_key.public_key()
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(entries), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )  # Python 3.13 refuses a certificate without it
        .sign(authority_key, hashes.SHA256())
    )
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    authority_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    server_file.touch(mode=0o600)
    server_file.write_bytes(server.public_bytes(serialization.Encoding.PEM) + key)
    return authority_file, server_file


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFE)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def context(server_file: Path) -> ssl.SSLContext:
    """What the server ends TLS with."""
    result = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    result.load_cert_chain(server_file)
    result.set_alpn_protocols(["http/1.1"])
    return result
