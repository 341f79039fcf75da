"""Certificates as a gateway gets them: a server's own and that of the authority that signed it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID


@dataclass(frozen=True)
class Certificate:
    """PEM: the chain, the server's own certificate first, its key, and the authority to trust."""

    chain: str
    key: str
    authority: str


def certificate(*names: str, days: float = 90) -> Certificate:
    """A certificate for these host names that ends in so many days (a negative number: it has ended)."""
    now = datetime.datetime.now(datetime.UTC)
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of a test")])
    names_of_usage = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    signs = x509.KeyUsage(**{name: name == "key_cert_sign" for name in names_of_usage})
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, until: float) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=until, minutes=1))
            # What Python's own check of a chain insists on.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )

    root = (
        builder(authority, signer.public_key(), 3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(signer, hashes.SHA256())
    )
    own = (
        builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]), key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(usage, critical=False)
        .sign(signer, hashes.SHA256())
    )
    trusted, server = (each.public_bytes(serialization.Encoding.PEM).decode() for each in (root, own))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Certificate(server + trusted, private, trusted)
